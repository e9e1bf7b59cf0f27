"""The family in miniature, for the conformance battery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import super_resolution
from tests.cases import Case, photo, small_pictures, write_vgg16


def _super_resolution_data(folder: Path) -> Mapping[str, Any]:
    return {"photos": small_pictures(folder)["pictures"], "vgg": str(write_vgg16(folder / "vgg16.npz"))}


def _super_resolution_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "holiday.jpg", photo(7, 15, 22))
    return super_resolution.FAMILY.task.options(inputs=(picture,), out=out / "large.png", run=run, scale=3, tile=9)


CASE = Case(
    config=super_resolution.Config(
        channels=8,
        blocks=1,
        residual=True,
        size=16,
        blur=(0.0, 1.0),
        noise=(0.0, 4.0),
        jpeg=(30, 90),
        steps=4,
        batch=2,
    ),
    data=_super_resolution_data,
    dims={"batch": 1, "height": 22, "width": 17},
    task=_super_resolution_task,
)
