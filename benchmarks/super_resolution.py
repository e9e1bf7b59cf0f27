"""Super-resolution in tiles beside the whole picture at once, and training steps: CPU seconds, in one process.

    python benchmarks/super_resolution.py [--side 512] [--photos DIR]

CPU seconds do not depend on what else the machine does, as wall-clock time would. Runtimes beside each other:
`kerasmodels bench super_resolution --sizes 128` and `kerasmodels bench srcnn --variant x4 --sizes 128`.
"""

import argparse
import dataclasses
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels import registry
from kerasmodels.apps import provenance
from kerasmodels.servables import example_images
from kerasmodels.storage import write_json
from kerasmodels.tasks.upscale import upscale

HERE = Path(__file__).parent


def cpu_seconds(call: Callable[[], Any]) -> float:
    """Of all threads of this process."""
    before = time.process_time()
    call()
    return time.process_time() - before


def tiles(family: str, variant: str, side: int, rounds: int) -> dict[str, Any]:
    """A picture as a whole and in the default tiles, in turns."""
    chosen = registry.family(family)
    model = chosen.model(dataclasses.replace(chosen.variant(variant), precision="float32"))
    picture = example_images({"batch": 1, "height": side, "width": side}, 0)["image"][0]
    ways = {"whole": lambda: upscale(model, picture, tile=10**6), "tiles": lambda: upscale(model, picture)}
    if not np.array_equal(*(way() for way in ways.values())):
        raise SystemExit(f"{family}: the tiles differ from the whole")
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, way in ways.items():
            times[name].append(cpu_seconds(way))
    medians = {name: statistics.median(values) for name, values in times.items()}
    return {"input": side, **medians, "overhead": round(medians["tiles"] / medians["whole"] - 1, 3)}


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
    parser.add_argument("--side", type=int, default=512)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--photos", type=Path)
    given = parser.parse_args()
    result: dict[str, Any] = {
        "tiles": {name: tiles(name, "quick", given.side, given.rounds) for name in ("super_resolution", "srcnn")}
    }
    if given.photos is not None:
        kinds = ("super_resolution", "pixel"), ("srcnn", "quick")
        result["training"] = {name: steps(name, variant, given.photos, 10) for name, variant in kinds}
    result |= {"date": provenance.now(), "versions": provenance.versions(), "machine": provenance.machine()}
    print(write_json(HERE / "results" / "super_resolution.json", result))


if __name__ == "__main__":
    main()
