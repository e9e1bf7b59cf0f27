"""Neural style against PyTorch: a step of Adam on the pixels; and what L-BFGS adds to an evaluation of the gradient.

    python benchmarks/neural_style_vs_torch.py            # the full run; leave the machine alone meanwhile
    python benchmarks/neural_style_vs_torch.py --quick    # does it work?

512 x 384 pixels, VGG19 to relu5_1 with the same made-up weights on both sides, whose first losses must agree.
"""

import os
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"

import numpy as np
from interleaved import Contestant, Result, circumstances, flags, peer_python, race

from kerasmodels import storage
from kerasmodels.backbones import sources
from kerasmodels.data import write_image

HERE = Path(__file__).resolve().parent
OURS, TORCH = HERE / "neural_style_ours.py", HERE / "neural_style_torch.py"
RESULT = HERE / "results" / "neural_style_vs_torch.json"
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers_torch"
REQUIREMENTS = ("torch==2.13.0", "numpy")
LOSS = {"content_weight": 1.0, "style_weight": 50.0, "tv_weight": 1e-4, "learning_rate": 10.0}
ADAM, EVALUATION, LBFGS = "kerasmodels, Adam step", "kerasmodels, value and gradient", "kerasmodels, L-BFGS evaluation"
PEER, PEER_LAST = "PyTorch, Adam step", "PyTorch, Adam step, channels last"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = flags(__doc__, RESULT, 10, "64 x 48 pixels, 2 rounds")
    parser.add_argument("--python", type=Path, help="an interpreter that has torch; by default one is installed")
    options = parser.parse_args(arguments)
    height, width = (48, 64) if options.quick else (384, 512)
    rounds = 2 if options.quick else options.rounds
    out = options.out or (BUILD / "neural_style_vs_torch.quick.json" if options.quick else RESULT)
    python = options.python or peer_python(PEERS, REQUIREMENTS, _say)
    with tempfile.TemporaryDirectory(prefix="neural-style-") as temporary:
        contestants = _contestants(python, Path(temporary), height, width)
        results = race(contestants, rounds, options.threads, 0.2 if options.quick else 4.0, _say)
    by_name = {result.name: result for result in results}
    report = {
        **circumstances(options, rounds),
        "pixels": [height, width],
        "contestants": [result.to_dict() for result in results],
        "claims": _claims(by_name),
    }
    for result in results:
        print(
            f"{result.name:40} {result.error or f'{1000 * (result.median or 0):9.1f} ms, {result.clean} clean rounds'}"
        )
    for claim in report["claims"]:
        print(f"{claim['claim']}: {claim['measured']} ({'holds' if claim['holds'] else 'DOES NOT HOLD'})")
    _say(f"wrote {storage.write_json(out, report)}")


def _contestants(python: Path, folder: Path, height: int, width: int) -> list[Contestant]:
    random = np.random.default_rng(0)
    arrays = {}
    for key, shape in sources.shapes("vgg19").items():
        layer, kind = key.removeprefix("conv").split("/")
        block, number = layer.split("_")
        spread = (2 / np.prod(shape[:-1])) ** 0.5 if kind == "kernel" else 0.1
        arrays[f"block{block}_conv{number}_{kind}"] = (spread * random.standard_normal(shape)).astype("float32")
    np.savez(folder / "vgg19.npz", **arrays)
    job: dict[str, dict[str, Any]] = {"ours": {}, "torch": {}}
    for name in ("content", "style"):
        y, x = np.mgrid[0:height, 0:width] / width
        waves = [np.sin(x * random.uniform(9, 60) + y * random.uniform(9, 60)) for _ in range(3)]
        picture = np.clip(128 + 90 * np.stack(waves, -1) + random.normal(0, 5, (height, width, 3)), 0, 255)
        job["ours"][name] = str(write_image(folder / f"{name}.png", picture.astype("uint8")))
        job["torch"][name] = str(folder / f"{name}.npy")
        np.save(folder / f"{name}.npy", picture.astype("uint8"))
    config = {**LOSS, "size": max(height, width), "start": "content", "vgg": str(folder / "vgg19.npz")}
    ours = {**job["ours"], "config": config}
    torch = {**job["torch"], **LOSS, "vgg": str(folder / "vgg19.npz")}
    root = {"PYTHONPATH": str(HERE.parent)}
    return [
        Contestant(PEER, python, TORCH, torch),
        Contestant(PEER_LAST, python, TORCH, {**torch, "channels_last": True}),
        *(
            Contestant(name, Path(sys.executable), OURS, {**ours, "task": task}, root)
            for name, task in ((ADAM, "adam"), (EVALUATION, "evaluation"), (LBFGS, "lbfgs"))
        ),
    ]


def _claims(results: dict[str, Result]) -> list[dict[str, Any]]:
    claims = []
    peers = [r for r in (results[PEER], results[PEER_LAST]) if r.median]
    ours, plain, lbfgs = results[ADAM], results[EVALUATION], results[LBFGS]
    if peers and ours.median:
        best = min(peers, key=lambda r: r.median or 0.0)
        differ = max(abs(a / b - 1) for a, b in zip(ours.facts["losses"][1:], best.facts["losses"][1:], strict=True))
        claims.append({"claim": "the losses agree", "measured": f"{differ:.1e} of them", "holds": differ < 0.02})
        ratio = (best.median or 0.0) / ours.median
        text = f"an Adam step is faster than PyTorch's ({best.name})"
        claims.append({"claim": text, "measured": f"{ratio:.2f} times", "holds": ratio > 1})
    if plain.median and lbfgs.median:
        ratio = lbfgs.median / plain.median
        claims.append(
            {"claim": "L-BFGS adds at most 10 % to an evaluation", "measured": f"{ratio:.3f}", "holds": ratio <= 1.1}
        )
    return claims


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
