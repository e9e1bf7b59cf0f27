"""Segmentation networks on VGG16: Keras, LiteRT and ONNX Runtime beside PyTorch, and the memory of each.

    python benchmarks/segmentation.py            # some minutes; leave the machine alone meanwhile
    python benchmarks/segmentation.py --quick    # does it work?

DeepLab's LargeFOV at 321 x 321 pixels (41 x 41 positions), the front end of dilated nets at 500 x 500 (16 x 16
positions), 21 labels, one picture: pictures in, scores out. Both sides have the same layers, with random weights.
"""

import dataclasses
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

from kerasmodels import export, storage
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.models import deeplab, dilated_net

HERE = Path(__file__).resolve().parent
OURS, TORCH = HERE / "segmentation_ours.py", HERE / "segmentation_torch.py"
RESULT = HERE / "results" / "segmentation.json"
BUILD = HERE.parent / "build"
PEERS = BUILD / "peers_torch"
REQUIREMENTS = ("torch==2.13.0", "numpy")
SIDES = {"large_fov": 321, "front_end": 500}
"""Pixels."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, print the tables, write the JSON file."""
    parser = flags(__doc__, RESULT, 6, "a sixteenth of the channels, 2 rounds")
    parser.add_argument("--python", type=Path, help="an interpreter that has torch; by default one is installed")
    options = parser.parse_args(arguments)
    rounds = 2 if options.quick else options.rounds
    python = options.python or peer_python(PEERS, REQUIREMENTS, _say)
    report: dict[str, Any] = {
        **circumstances(options, rounds),
        "networks": {},
        "claims": [],
    }
    for network in SIDES:
        with tempfile.TemporaryDirectory(prefix="segmentation-") as folder:
            contestants = _contestants(network, python, Path(folder), 1 / 16 if options.quick else 1.0)
            results = race(contestants, rounds, options.threads, 0.2 if options.quick else 2.0, _say)
        report["networks"][network] = [result.to_dict() for result in results]
        report["claims"] += _claims(network, {result.name: result for result in results})
        for result in results:
            times = f"{1000 * (result.median or 0):9.1f} ms, {result.clean} clean rounds"
            memory = f"at most {result.facts.get('peak_mb')} MB beyond an empty process"
            print(f"{network:10} {result.name:24} {result.error or f'{times}, {memory}'}")
    for claim in report["claims"]:
        print(f"{claim['claim']}: {claim['measured']} times ({'holds' if claim['holds'] else 'DOES NOT HOLD'})")
    out = options.out or (BUILD / "segmentation.quick.json" if options.quick else RESULT)
    _say(f"wrote {storage.write_json(out, report)}")


def _contestants(network: str, python: Path, folder: Path, width: float) -> list[Contestant]:
    side = SIDES[network]
    net = large_fov(width) if network == "large_fov" else front_end(width)
    pictures = TensorSpec("rgb", ("batch", "height", "width", 3), "float32", "RGB, 0-255")
    scores = TensorSpec("scores", ("batch", "rows", "columns", 21), "float32", "of each label", atol=1e-2)
    servable = Servable(
        call=lambda rgb: {"scores": net(rgb, training=False)},
        model=net,
        inputs=(pictures,),
        outputs=(scores,),
        example=lambda dims, seed: {"rgb": _pictures(dims["batch"], dims["height"], dims["width"], seed)},
        dims={"batch": 1, "height": side, "width": side},
        doc="scores of labels",
    )
    export.export_servable(servable, network, folder / "served", formats=["litert", "onnx"])
    np.savez(folder / "weights.npz", **storage.model_arrays(net))
    np.save(folder / "picture.npy", _pictures(1, side, side, 0))
    job: dict[str, Any] = {"network": network, "folder": str(folder), "width": width}
    root = {"PYTHONPATH": f"{HERE.parent}:{HERE}"}
    ours = {"keras": "kerasmodels, Keras", "litert": "kerasmodels, LiteRT", "onnx": "kerasmodels, ONNX Runtime"}
    return [
        Contestant("PyTorch", python, TORCH, job),
        *(Contestant(name, Path(sys.executable), OURS, {**job, "task": task}, root) for task, name in ours.items()),
    ]


def large_fov(width: float) -> Any:
    """The network of DeepLab's variant large_fov."""
    config = dataclasses.replace(deeplab.FAMILY.variant("large_fov"), width=width)
    return deeplab.score_network(dataclasses.replace(config, head=round(1024 * width)))


def front_end(width: float) -> Any:
    """The front end of dilated nets."""
    config = dilated_net.Config()
    channels = tuple(round(width * c) for c in config.widths)
    return dilated_net.front_end(dataclasses.replace(config, channels=channels, head=round(4096 * width)))


def _pictures(count: int, height: int, width: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0, 255, (count, height, width, 3)).astype("float32")


def _claims(network: str, results: dict[str, Result]) -> list[dict[str, Any]]:
    claims, peer = [], results["PyTorch"]
    for name, result in results.items():
        if name == "PyTorch" or not peer.median or not result.median:
            continue
        alike = abs(result.facts["check"] - peer.facts["check"]) <= 1e-3 * abs(peer.facts["check"])
        ratio = peer.median / result.median
        claim = f"{network}: {name} is faster than PyTorch, with its answer"
        claims.append({"claim": claim, "measured": round(ratio, 3), "holds": ratio > 1 and alike, "alike": alike})
    return claims


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    main()
