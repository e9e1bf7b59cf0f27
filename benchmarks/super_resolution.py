"""Super-resolution by Keras, LiteRT and ONNX Runtime, in tiles and as a whole, and training steps: in one process.

    python benchmarks/super_resolution.py [--side 256] [--photos DIR]

CPU seconds of one thread do not depend on what else the machine does, as wall-clock time would.
"""

import argparse
import dataclasses
import statistics
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels import registry
from kerasmodels.apps import provenance
from kerasmodels.export import export_servable
from kerasmodels.servables import example_images, served
from kerasmodels.storage import write_json
from kerasmodels.tasks.upscale import upscale

HERE = Path(__file__).parent


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Of all threads of this process."""
    before = time.process_time()
    call()
    return time.process_time() - before


def tiles(family: str, variant: str, side: int, rounds: int) -> dict[str, Any]:
    """Pictures in turns: one of `side` in one call of the network, and in parts; one of twice that in one tile, and in
    tiles of the default size. (In one call the larger one would take several gigabytes.)"""
    chosen = registry.family(family)
    model = chosen.model(dataclasses.replace(chosen.variant(variant), precision="float32"))
    whole, found = served(model, "upscale"), {}
    for name, size, reference in (
        ("parts", side, lambda picture: whole(image=picture[None])["upscaled"][0]),
        ("tiles", 2 * side, lambda picture: upscale(model, picture, tile=10**6)),
    ):
        picture = example_images({"batch": 1, "height": size, "width": size}, 0)["image"][0]
        if not np.array_equal(reference(picture), upscale(model, picture)):
            raise SystemExit(f"{family}: {name} differ from the whole")
        calls = partial(reference, picture), partial(upscale, model, picture)
        times = [tuple(cpu_seconds(call) for call in calls) for _ in range(rounds)]
        once, pieces = (statistics.median(values) for values in zip(*times, strict=True))
        found[name] = {"input": size, "whole": round(once, 3), "pieces": round(pieces, 3)}
        found[name]["overhead"] = round(pieces / once - 1, 3)
    return found


def runtimes(family: str, variant: str, side: int, rounds: int) -> dict[str, Any]:
    """One picture of `side` pixels by Keras (compiled), LiteRT and ONNX Runtime, one thread each, in turns."""
    import onnxruntime
    from ai_edge_litert.interpreter import Interpreter

    chosen = registry.family(family)
    model = chosen.model(dataclasses.replace(chosen.variant(variant), precision="float32"))
    servable = chosen.servables(model)["upscale"]
    picture = example_images({"batch": 1, "height": side, "width": side}, 1)["image"]
    with tempfile.TemporaryDirectory() as folder:
        export_servable(servable, "upscale", folder, formats=["litert", "onnx"], size={"height": side, "width": side})
        (litert,), (onnx,) = (sorted(Path(folder).rglob(f"*.{end}")) for end in ("tflite", "onnx"))
        runner = Interpreter(str(litert), num_threads=1).get_signature_runner("serving_default")
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        session = onnxruntime.InferenceSession(str(onnx), options, providers=["CPUExecutionProvider"])
    compiled = served(model, "upscale")
    ways: dict[str, Callable[[], Any]] = {
        "keras": lambda: compiled(image=picture),
        "litert": lambda: runner(image=picture),
        "onnx": lambda: session.run(None, {"image": picture}),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for turn in range(rounds + 1):
        for name, way in ways.items():
            seconds = cpu_seconds(way)
            if turn:
                times[name].append(seconds)
    medians = {name: statistics.median(values) for name, values in times.items()}
    rows = {
        name: {"cpu_seconds": round(s, 3), "of_keras": round(s / medians["keras"], 2)} for name, s in medians.items()
    }
    return {"input": side, **rows}


def steps(family: str, variant: str, photos: Path, count: int) -> dict[str, Any]:
    """CPU seconds of a training step, the data included."""
    chosen = registry.family(family)
    config = dataclasses.replace(chosen.variant(variant), photos=photos)
    model = chosen.build(config)
    batches = chosen.sourced(config).batches(model, 0)
    model.fit(batches, steps_per_epoch=3, verbose=0)
    seconds = cpu_seconds(lambda: model.fit(batches, steps_per_epoch=count, verbose=0)) / count
    pixels = config.batch * config.size**2
    return {"cpu_seconds": round(seconds, 3), "pixels": pixels, "pixels_per_cpu_second": round(pixels / seconds)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--photos", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {
        "runtimes": {
            "super_resolution": runtimes("super_resolution", "pixel", 128, 5),
            "srcnn": runtimes("srcnn", "x4", 128, 5),
        },
        "tiles": {name: tiles(name, "quick", given.side, given.rounds) for name in ("super_resolution", "srcnn")},
    }
    if given.photos is not None:
        kinds = ("super_resolution", "pixel"), ("srcnn", "quick")
        result["training"] = {name: steps(name, variant, given.photos, 10) for name, variant in kinds}
    result |= {"date": provenance.now(), "versions": provenance.versions(), "machine": provenance.machine()}
    print(write_json(HERE / "results" / "super_resolution.json", result))


if __name__ == "__main__":
    main()
