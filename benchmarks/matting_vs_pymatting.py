"""Closed-form alpha and the matting Laplacian beside pymatting and SciPy, in float64.

    python benchmarks/matting_vs_pymatting.py            # minutes on two cores; leave the machine alone meanwhile
    python benchmarks/matting_vs_pymatting.py --quick    # does it work?

One problem of 700 x 525 pixels, 23 % of them unknown, the known ones eliminated, to a relative residual of 1e-7. The
peers' half of this file needs pymatting only, and runs in an environment of its own.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from interleaved import Contestant, Job, Prepared, Result, circumstances, flags, peer_python, race, serve

HERE = Path(__file__).resolve().parent
RESULT = HERE / "results" / "matting_vs_pymatting.json"
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers_matting"
REQUIREMENTS = ("pymatting==1.1.*",)
TASKS = ("laplacian", "product", "alpha")
PEER = {"laplacian": "pymatting, Laplacian", "product": "SciPy, product with CSR", "alpha": "pymatting, alpha"}
OURS = {
    "laplacian": "kerasmodels, Laplacian",
    "product": "kerasmodels, product",
    "alpha": "kerasmodels, alpha",
}


# --- workers ----------------------------------------------------------------------------------------------------------


def prepare_peer(job: Job) -> Prepared:
    """pymatting's Laplacian, SciPy's product with it, pymatting's alpha."""
    from pymatting import cf_laplacian, estimate_alpha_cf

    problem = np.load(job["problem"])
    image, trimap = problem["image"], problem["trimap"]
    if job["task"] == "laplacian":
        return lambda: cf_laplacian(image), {}
    if job["task"] == "product":
        matrix = cf_laplacian(image)
        p = np.random.default_rng(0).normal(size=matrix.shape[0])
        return lambda: matrix @ p, _memory((matrix.data, matrix.indices, matrix.indptr), image)
    count = []
    counted = {"callback": lambda *_, **__: count.append(1), "rtol": 1e-7}
    np.save(job["answer"], estimate_alpha_cf(image, trimap, cg_kwargs=counted))
    return lambda: estimate_alpha_cf(image, trimap, cg_kwargs={"rtol": 1e-7}), {"iterations": len(count)}


def prepare_ours(job: Job) -> Prepared:
    """The same of ours, compiled by XLA, as `matte` has it done for large photos."""
    import tensorflow as tf

    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    from kerasmodels.losses import MattingLaplacian
    from kerasmodels.models.closed_form_matting import Config, matte

    problem = np.load(job["problem"])
    image, trimap = problem["image"], problem["trimap"]
    if job["task"] == "alpha":
        config = Config(softness=None)
        call: Callable[[], Any] = lambda: matte(image, trimap != 0.5, trimap, config, compiled=True)  # noqa: E731
        alpha, solution = call()
        np.save(job["answer"], alpha)
        return call, {"iterations": int(solution.iterations), "residual": float(solution.residual[0])}
    batch = tf.constant(image[None])
    make = tf.function(lambda image: MattingLaplacian(image).weights, jit_compile=True)
    weights = make(batch)
    if job["task"] == "laplacian":
        return lambda: [weight.numpy() for weight in make(batch).values()], {}
    product = tf.function(lambda weights, p: MattingLaplacian.of_weights(weights, batch)(p), jit_compile=True)
    p = tf.constant(np.random.default_rng(0).normal(size=(1, *image.shape[:2], 1)))
    return lambda: product(weights, p).numpy(), _memory([weight.numpy() for weight in weights.values()], image)


def _memory(arrays: Sequence[np.ndarray], image: np.ndarray) -> dict[str, Any]:
    used = sum(array.nbytes for array in arrays)
    return {"bytes": used, "bytes_per_pixel": round(used / image[..., 0].size, 1)}


# --- the race ---------------------------------------------------------------------------------------------------------


def problem(width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """scikit-image's cat (CC0) with a level of grain; an ellipse's edge, so wide that 23 % are unknown."""
    from PIL import Image
    from skimage import data

    photo = Image.fromarray(data.chelsea())
    cut = photo.height * width / height
    box = ((photo.width - cut) / 2, 0, (photo.width + cut) / 2, photo.height)
    grain = np.random.default_rng(0).normal(0, 1, (height, width, 3))
    image = np.asarray(photo.resize((width, height), Image.Resampling.LANCZOS, box=box)) + grain
    y, x = np.mgrid[0:height, 0:width]
    distance = np.hypot((x / width - 0.5) / 0.3, (y / height - 0.63) / 0.476)
    edge = np.argsort(np.abs(distance - 1).ravel())[: int(0.23 * distance.size)]
    trimap = (distance < 1).astype("float64")
    trimap.ravel()[edge] = 0.5
    return np.clip(np.rint(image), 0, 255) / 255, trimap


def main() -> None:
    """Measure, print the table, write the JSON file."""
    # Not at the top: the peers' environment has neither us nor TensorFlow.
    from kerasmodels import storage

    parser = flags(__doc__, RESULT, 6, "70 x 52 pixels, 2 rounds")
    options = parser.parse_args()
    width, height = (70, 52) if options.quick else (700, 525)
    rounds = 2 if options.quick else options.rounds
    out = options.out or (BUILD / "matting_vs_pymatting.quick.json" if options.quick else RESULT)
    python = peer_python(PEERS, REQUIREMENTS, _say)
    image, trimap = problem(width, height)
    with tempfile.TemporaryDirectory(prefix="matting-") as temporary:
        folder = Path(temporary)
        np.savez(folder / "problem.npz", image=image, trimap=trimap)
        contestants = []
        for names, who, interpreter in ((PEER, "peer", python), (OURS, "ours", Path(sys.executable))):
            for task in TASKS:
                job = {"task": task, "problem": str(folder / "problem.npz"), "answer": str(folder / f"{who}.npy")}
                environment = {"MATTING_WORKER": who, "TF_CPP_MIN_LOG_LEVEL": "3"}
                if who == "ours":
                    environment["PYTHONPATH"] = str(HERE.parent)
                contestants.append(Contestant(names[task], interpreter, Path(__file__).resolve(), job, environment))
        results = {r.name: r for r in race(contestants, rounds, options.threads, 2.0, _say)}
        alphas = [np.load(folder / f"{who}.npy") for who in ("peer", "ours")]
    report = {
        **circumstances(options, rounds),
        "pixels": [height, width],
        "unknown": round(float((trimap == 0.5).mean()), 4),
        "largest_difference_of_alpha": float(np.abs(alphas[0] - alphas[1]).max()),
        "contestants": [result.to_dict() for result in results.values()],
        "claims": _claims(results),
    }
    for result in results.values():
        time = result.error or f"{1000 * (result.median or 0):9.1f} ms, {result.clean} clean rounds"
        print(f"{result.name:28} {time} {result.facts}")
    print(f"largest difference of alpha: {report['largest_difference_of_alpha']:.1e}")
    for claim in report["claims"]:
        print(f"{claim['claim']}: {claim['measured']} ({'holds' if claim['holds'] else 'DOES NOT HOLD'})")
    _say(f"wrote {storage.write_json(out, report)}")


def _claims(results: dict[str, Result]) -> list[dict[str, Any]]:
    claims = []
    for task, text in (
        ("laplacian", "the operator is built as fast as pymatting's matrix"),
        ("product", "a product is as fast as SciPy's"),
        ("alpha", "alpha is as fast as pymatting's"),
    ):
        peer, ours = results[PEER[task]], results[OURS[task]]
        if peer.median and ours.median:
            ratio = peer.median / ours.median
            claims.append({"claim": text, "measured": round(ratio, 3), "holds": ratio >= 1})
    peer, ours = results[PEER["product"]], results[OURS["product"]]
    if "bytes" in peer.facts and "bytes" in ours.facts:
        share = ours.facts["bytes"] / peer.facts["bytes"]
        claims.append({"claim": "a third of the matrix's memory", "measured": round(share, 3), "holds": share <= 1 / 3})
    return claims


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    who = os.environ.get("MATTING_WORKER")
    if who:
        serve(prepare_peer if who == "peer" else prepare_ours)
    else:
        main()
