"""The family in miniature, for the conformance battery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import deformable_net
from tests.cases import Case, digits, photo


def _detector_data(folder: Path) -> Mapping[str, Any]:
    for number in range(3):
        write_image(folder / "photos" / f"{number}.png", photo(number, 48 + 8 * number, 64))
    return {**digits(folder), "photos": folder / "photos"}


def _detector_task(folder: Path, run: Path | None, out: Path) -> Any:
    pictures = tuple(write_image(folder / f"{k}.jpg", photo(k, 70 - k, 90 + k)) for k in range(2))
    return deformable_net.FAMILY.task.options(
        inputs=pictures, out=out / "seen.png", run=run, show_offsets=True, size=64, least=0.0, boxes=out / "boxes.json"
    )


CASE = Case(
    config=deformable_net.Config(
        task="detect",
        filters=(8, 12, 16),
        strides=(2, 2, 1),
        rates=(1, 1, 2),
        deformable=0,
        scene=48,
        bins=2,
        anchors=(12.0, 24.0),
        proposals=6,
        detections=12,
        steps=4,
        batch=2,
    ),
    data=_detector_data,
    dims={"batch": 1, "height": 45, "width": 50},
    task=_detector_task,
)
