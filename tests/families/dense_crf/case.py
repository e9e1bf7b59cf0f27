"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels.data import write_image
from kerasmodels.models import dense_crf
from tests.cases import Case, photo


def _dense_crf_task(folder: Path, run: Path | None, out: Path) -> Any:
    strokes = np.zeros((45, 62, 3), "uint8")
    strokes[:6], strokes[-6:] = (255, 0, 0), (0, 0, 255)
    return dense_crf.FAMILY.task.options(
        image=write_image(folder / "photo.png", photo(7, 45, 62)),
        labels=write_image(folder / "strokes.png", strokes),
        out=out / "labels.png",
        overlay=out / "overlay.png",
    )


CASE = Case(
    config=dense_crf.Config(labels=3, iterations=2, bilateral_sxy=20, radius=1, stride=2),
    data=lambda folder: {},
    dims={"batch": 1, "height": 9, "width": 13},
    task=_dense_crf_task,
)
