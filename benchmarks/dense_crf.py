"""Dense CRF against pydensecrf2: one picture of 500 x 375 pixels, 21 labels, ten iterations.

    python benchmarks/dense_crf.py                  # the full run; leave the machine alone meanwhile
    python benchmarks/dense_crf.py --quick          # does it work?
    python benchmarks/dense_crf.py --photo FILE     # another picture than scikit-image's coffee

Both begin with the unary energies and the picture, build their lattices and give probabilities; the two answers must
agree. Beside it: our lattice built once and used again, and the windowed form in TensorFlow, LiteRT and ONNX Runtime,
with ConvCRF's message passing in PyTorch as its peer.
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
from PIL import Image

from kerasmodels import export, storage
from kerasmodels.data import read_image
from kerasmodels.models.dense_crf import FAMILY, Config, FullyConnectedCRF

HERE = Path(__file__).resolve().parent
OURS, PEER = HERE / "dense_crf_ours.py", HERE / "dense_crf_pydensecrf.py"
TORCH = HERE / "dense_crf_torch.py"
RESULT = HERE / "results" / "dense_crf.json"
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers_crf"
REQUIREMENTS = ("pydensecrf2==1.1", "numpy")
TORCH_PEERS = BUILD / "peers_torch"
TORCH_REQUIREMENTS = ("torch==2.13.0", "numpy")
PEER_NAME, LATTICE = "pydensecrf2", "kerasmodels, lattice"
TORCH_NAME, WINDOW = "ConvCRF in PyTorch", "kerasmodels, window"


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the table, write the JSON file."""
    parser = flags(__doc__, RESULT, 10, "100 x 75 pixels, 2 rounds")
    parser.add_argument("--photo", type=Path, help="the picture; by default scikit-image's coffee")
    parser.add_argument("--python", type=Path, help="an interpreter that has pydensecrf; by default one is installed")
    parser.add_argument("--torch-python", type=Path, help="and one that has torch")
    options = parser.parse_args(arguments)
    width, height = (100, 75) if options.quick else (500, 375)
    rounds = 2 if options.quick else options.rounds
    out = options.out or (BUILD / "dense_crf.quick.json" if options.quick else RESULT)
    python = options.python or peer_python(PEERS, REQUIREMENTS, _say)
    torch = options.torch_python or peer_python(TORCH_PEERS, TORCH_REQUIREMENTS, _say)
    with tempfile.TemporaryDirectory(prefix="dense-crf-") as temporary:
        folder = Path(temporary)
        contestants = _contestants(python, torch, folder, _picture(options.photo, width, height))
        results = race(contestants, rounds, options.threads, 0.2 if options.quick else 2.0, _say)
        by_name = {result.name: result for result in results}
        report = {
            **circumstances(options, rounds),
            "photo": "coffee of scikit-image" if options.photo is None else options.photo.name,
            "pixels": [height, width],
            "labels": 21,
            "iterations": 10,
            "contestants": [result.to_dict() for result in results],
            "claims": _claims(by_name, folder),
        }
    for result in results:
        print(
            f"{result.name:40} {result.error or f'{1000 * (result.median or 0):9.1f} ms, {result.clean} clean rounds'}"
        )
    for claim in report["claims"]:
        print(f"{claim['claim']}: {claim['measured']} ({'holds' if claim['holds'] else 'DOES NOT HOLD'})")
    _say(f"wrote {storage.write_json(out, report)}")


def _picture(photo: Path | None, width: int, height: int) -> np.ndarray:
    if photo is None:
        import skimage.data

        picture = skimage.data.coffee()
    else:
        picture = read_image(photo)
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _contestants(python: Path, torch: Path, folder: Path, picture: np.ndarray) -> list[Contestant]:
    height, width, labels = *picture.shape[:2], 21
    random = np.random.default_rng(0)
    # Scores on a coarse grid and noise, as of a network of stride 8.
    coarse = random.normal(0, 2, (height // 8 + 2, width // 8 + 2, labels))
    scores = coarse.repeat(8, 0).repeat(8, 1)[:height, :width] + random.normal(0, 0.5, (height, width, labels))
    e = np.exp(scores)
    np.save(folder / "picture.npy", picture)
    np.save(folder / "probabilities.npy", (e / e.sum(-1, keepdims=True)).astype("float32"))
    config = Config(labels=labels, iterations=10)
    model = FullyConnectedCRF(config)
    export.export_servable(
        FAMILY.servables(model)["refine"],
        "refine",
        folder / "served",
        formats=["litert", "onnx"],
        size={"height": height, "width": width},
    )
    root = {"PYTHONPATH": str(HERE.parent)}
    job: dict[str, Any] = {"folder": str(folder)}
    ours = [("lattice", LATTICE), ("lattice again", f"{LATTICE}, built before"), ("window", WINDOW)]
    ours += [("litert", f"{WINDOW}, LiteRT"), ("onnx", f"{WINDOW}, ONNX Runtime")]
    return [
        Contestant(PEER_NAME, python, PEER, job),
        Contestant(TORCH_NAME, torch, TORCH, job),
        *(Contestant(name, Path(sys.executable), OURS, {**job, "task": task}, root) for task, name in ours),
    ]


def _claims(results: dict[str, Result], folder: Path) -> list[dict[str, Any]]:
    claims = []
    peer, ours = results[PEER_NAME], results[LATTICE]
    if peer.median and ours.median:
        theirs, mine = (np.load(folder / f"{name}.npy") for name in ("pydensecrf", "lattice"))
        alike = float((theirs.argmax(-1) == mine.argmax(-1)).mean())
        claims.append({"claim": "the labels agree", "measured": f"{100 * alike:.3f} %", "holds": alike >= 0.999})
        ratio = peer.median / ours.median
        claims.append(
            {"claim": "at least as fast as pydensecrf2", "measured": f"{ratio:.2f} times", "holds": ratio >= 1}
        )
    peer = results[TORCH_NAME]
    if peer.median:
        theirs, mine = (np.load(folder / f"{name}.npy") for name in ("convcrf", "window"))
        alike = float((theirs.argmax(-1) == mine.argmax(-1)).mean())
        # Not the same filter: theirs smooths on the small field, too.
        claims.append(
            {"claim": "labels of the windowed forms alike", "measured": f"{100 * alike:.1f} %", "holds": alike >= 0.8}
        )
        for name in (WINDOW, f"{WINDOW}, LiteRT", f"{WINDOW}, ONNX Runtime"):
            if results[name].median:
                ratio = peer.median / (results[name].median or 1.0)
                claim = f"{name}: faster than ConvCRF in PyTorch"
                claims.append({"claim": claim, "measured": f"{ratio:.2f} times", "holds": ratio > 1})
    return claims


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
