"""What the affine term costs: the loss of photographic style transfer and its gradient, with the term and without.

    .venv/bin/python benchmarks/photo_style.py              # a few minutes on two cores
    .venv/bin/python benchmarks/photo_style.py --quick      # does it work?

VGG19 has random weights; times do not depend on them. Two regions, as in the authors' examples of city and sky.
"""

import argparse
import json
import os
import statistics
import sys
from pathlib import Path
from typing import Any

from interleaved import Contestant, Job, Prepared, Result, race, serve

CONTESTANTS = {
    "without the term": "none",
    "with the term": "compiled",
    "with the term, not compiled by XLA": "graph",
}


def prepare(job: Job) -> Prepared:
    """Value and gradient of the objective at a picture, as L-BFGS asks for them."""
    import numpy as np
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    from kerasmodels.losses import MattingLaplacian
    from kerasmodels.models import photo_style

    height, width = job["size"]
    random = np.random.default_rng(0)
    pictures = [random.uniform(0, 255, (height, width, 3)).astype("uint8") for _ in range(2)]
    masks = np.zeros((2, height, width), "float32")
    masks[0, : height // 2] = masks[1, height // 2 :] = 1
    config = photo_style.Config(height=height, width=width, vgg="random")
    pair = photo_style.Pair(*pictures, masks, masks)
    objective = photo_style.objective(config, pair, affine=job["affine"] == "compiled")
    laplacian = MattingLaplacian(pair.photo[None].astype("float32") / 255) if job["affine"] == "graph" else None

    @tf.function(autograph=False)
    def evaluate(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        with tf.GradientTape() as tape:
            tape.watch(picture)
            value = tf.add_n([tf.reduce_sum(term) for term in objective.terms(picture).values()])
            if laplacian is not None:
                value += config.affine_weight * tf.reduce_sum(laplacian.energy(picture / 255))
        return value, tape.gradient(value, picture)

    start = tf.constant(random.uniform(0, 255, (1, height, width, 3)), tf.float32)
    return lambda: evaluate(start)[1].numpy(), {"versions": {"tensorflow": tf.__version__}}


def summary(results: list[Result]) -> dict[str, Any]:
    """The term's share of a step, from medians and round by round."""
    by_name = {result.name: result for result in results}
    base = by_name["without the term"]
    found: dict[str, Any] = {"contestants": [result.to_dict() for result in results], "added": {}}
    for name, result in by_name.items():
        if result is base or not (result.turns and base.turns and result.median and base.median):
            continue
        rounds = [
            statistics.median(a.seconds) / statistics.median(b.seconds) - 1
            for a, b in zip(result.turns, base.turns, strict=False)
            if not (a.contended or b.contended)
        ]
        found["added"][name] = {
            "of_medians": round(result.median / base.median - 1, 4),
            "median_of_rounds": round(statistics.median(rounds), 4) if rounds else None,
            "clean_rounds": len(rounds),
        }
    return found


def main() -> None:
    """Race the three and write the table."""
    parser = argparse.ArgumentParser(description="What the affine term adds to a step.")
    parser.add_argument("--rounds", type=int, default=12)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--size", type=int, nargs=2, default=(384, 512), metavar=("HEIGHT", "WIDTH"))
    parser.add_argument("--quick", action="store_true", help="small and few: for seeing that it works")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "photo_style.json")
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.size, options.out = 2, (96, 128), Path("build/photo_style_quick.json")
    root = Path(__file__).parents[1]
    contestants = [
        Contestant(
            name,
            Path(sys.executable),
            Path(__file__).resolve(),
            {"affine": affine, "size": list(options.size)},
            {"PYTHONPATH": str(root), "TF_CPP_MIN_LOG_LEVEL": "3", "PHOTO_STYLE_WORKER": "1"},
        )
        for name, affine in CONTESTANTS.items()
    ]
    results = race(contestants, options.rounds, options.threads, 1.0, lambda text: print(text, file=sys.stderr))
    answer = {
        "command": f"benchmarks/photo_style.py --rounds {options.rounds} --threads {options.threads} "
        f"--size {options.size[0]} {options.size[1]}",
        **summary(results),
    }
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(answer, indent=2) + "\n")
    for row in answer["contestants"]:
        print(
            f"{row['name']:36} {row.get('median_ms', row.get('error'))} ms, {row.get('clean_rounds', 0)} clean rounds"
        )
    for name, row in answer["added"].items():
        print(f"{name}: adds {100 * row['of_medians']:.1f}% to a step")
    print(f"written: {options.out}")


if __name__ == "__main__":
    if os.environ.get("PHOTO_STYLE_WORKER"):
        serve(prepare)
    else:
        main()
