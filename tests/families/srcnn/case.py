"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import srcnn
from tests.cases import Case, photo, small_pictures


def _srcnn_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "holiday.jpg", photo(7, 15, 22))
    return srcnn.FAMILY.task.options(inputs=(picture,), out=out / "large.png", run=run)


CASE = Case(
    config=srcnn.Config(
        filters=(32, 8),
        kernels=(9, 1, 5),
        initial="identity",
        optimizer="adam",
        learning_rate=1e-3,
        size=18,
        batch=2,
        steps=4,
    ),
    data=lambda folder: {"photos": small_pictures(folder)["pictures"]},
    dims={"batch": 1, "height": 22, "width": 17},
    task=_srcnn_task,
)
