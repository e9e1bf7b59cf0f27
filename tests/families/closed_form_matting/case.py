"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels.data import write_image
from kerasmodels.models import closed_form_matting
from tests.cases import Case, photo


def _matting_task(folder: Path, run: Path | None, out: Path) -> Any:
    trimap = np.full((30, 41, 3), 128, "uint8")
    trimap[:, :9], trimap[:, -12:] = 255, 0
    return closed_form_matting.FAMILY.task.options(
        photo=write_image(folder / "photo.png", photo(7, 30, 41)),
        trimap=write_image(folder / "trimap.png", trimap),
        out=out / "cutout.png",
    )


CASE = Case(
    config=closed_form_matting.Config(served_iterations=20),
    data=lambda folder: {},
    dims={"batch": 1, "height": 26, "width": 37},
    task=_matting_task,
)
