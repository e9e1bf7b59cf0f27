"""Closed-form alpha and the Laplacian's product beside pymatting and SciPy, in interleaved rounds.

    python benchmarks/matting_vs_pymatting.py --peer-python PEER/bin/python [--rounds 5] [--out FILE.json]

PEER is an environment with pymatting. Both solve the same 700 x 525 problem in float64, about 23 % unknown, known
pixels eliminated, to a relative residual of 1e-7. The peer runs in a child process that waits while we compute.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

PEER = """
import sys, time, json, numpy as np
from pymatting import cf_laplacian, estimate_alpha_cf
d = np.load(sys.argv[1]); image, trimap = d["image"], d["trimap"]
L = cf_laplacian(image)
p = np.random.default_rng(0).normal(size=L.shape[0])
count = [0]
jobs = {
    "laplacian": lambda: cf_laplacian(image),
    "product": lambda: L @ p,
    "alpha": lambda: estimate_alpha_cf(image, trimap),
}
def tick(*args, **kwargs): count[0] += 1
np.save(sys.argv[2], estimate_alpha_cf(image, trimap, cg_kwargs={"callback": tick}))
print(json.dumps({"iterations": count[0], "bytes": L.data.nbytes + L.indices.nbytes + L.indptr.nbytes}), flush=True)
for line in sys.stdin:
    begin = time.perf_counter(); jobs[line.strip()](); print(time.perf_counter() - begin, flush=True)
"""


def problem() -> tuple[np.ndarray, np.ndarray]:
    """scikit-image's cat (CC0) at 700 x 525 with a level of grain; an ellipse's edge, so wide that 23 % are unknown."""
    from PIL import Image
    from skimage import data

    photo = Image.fromarray(data.chelsea())
    width, height = photo.size
    cut = height * 700 / 525
    box = ((width - cut) / 2, 0, (width + cut) / 2, height)
    grain = np.random.default_rng(0).normal(0, 1, (525, 700, 3))
    image = np.asarray(photo.resize((700, 525), Image.Resampling.LANCZOS, box=box)) + grain
    y, x = np.mgrid[0:525, 0:700]
    distance = np.hypot((x - 350) / 210, (y - 330) / 250)
    edge = np.argsort(np.abs(distance - 1).ravel())[: int(0.23 * distance.size)]
    trimap = (distance < 1).astype("float64")
    trimap.ravel()[edge] = 0.5
    return np.clip(np.rint(image), 0, 255) / 255, trimap


def main() -> None:
    """Measure, print, and write the JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--peer-python", required=True)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path("benchmarks/results/matting_vs_pymatting.json"))
    options = parser.parse_args()
    import tensorflow as tf

    from kerasmodels.losses import MattingLaplacian
    from kerasmodels.models.closed_form_matting import Config, matte
    from kerasmodels.weights import write_json

    image, trimap = problem()
    known, config = trimap != 0.5, Config(softness=None)
    batch = tf.constant(image[None])
    make = tf.function(lambda image: MattingLaplacian(image).weights, jit_compile=True)
    weights = make(batch)
    product = tf.function(lambda w, p: MattingLaplacian.of_weights(w, batch)(p), jit_compile=True)
    p = tf.constant(np.random.default_rng(0).normal(size=(1, 525, 700, 1)))
    product(weights, p)
    alpha, solution = matte(image, known, trimap, config, compiled=True)
    ours = {
        "laplacian": lambda: [w.numpy() for w in make(batch).values()],
        "product": lambda: product(weights, p).numpy(),
        "alpha": lambda: matte(image, known, trimap, config, compiled=True),
    }
    with tempfile.TemporaryDirectory() as folder:
        given, answer = Path(folder, "problem.npz"), Path(folder, "alpha.npy")
        np.savez(given, image=image, trimap=trimap)
        child = subprocess.Popen(
            [options.peer_python, "-c", PEER, str(given), str(answer)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        assert child.stdin is not None
        assert child.stdout is not None
        facts = json.loads(child.stdout.readline())
        off = float(np.abs(np.load(answer) - alpha).max())
        times: dict[str, dict[str, list[float]]] = {job: {"ours": [], "peer": []} for job in ours}
        for _ in range(options.rounds):
            for job, call in ours.items():
                begin = time.perf_counter()
                call()
                times[job]["ours"].append(1000 * (time.perf_counter() - begin))
                child.stdin.write(f"{job}\n")
                child.stdin.flush()
                times[job]["peer"].append(1000 * float(child.stdout.readline()))
        child.stdin.close()
        child.wait()
    result = {
        "command": " ".join(["python", *sys.argv]),
        "unknown": float((~known).mean()),
        "iterations": {"ours": int(solution.iterations), "peer": facts["iterations"]},
        "residual": float(solution.residual[0]),
        "largest_difference": off,
        "bytes": {"ours": sum(int(np.prod(w.shape)) * 8 for w in weights.values()), "peer": facts["bytes"]},
        "median_ms": {job: {who: statistics.median(t) for who, t in both.items()} for job, both in times.items()},
        "rounds": options.rounds,
    }
    print(json.dumps(result, indent=2))
    write_json(options.out, result)


if __name__ == "__main__":
    main()
