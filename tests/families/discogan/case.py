"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import discogan
from tests.cases import Case, photo, unpaired_pictures


def _discogan_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "picture.png", photo(3, 37, 46))
    return discogan.FAMILY.task.options(inputs=(picture,), out=out / "a.png", run=run, direction="b_to_a")


CASE = Case(
    config=discogan.Config(filters=4, size=32, batch=2, steps=4),
    data=unpaired_pictures,
    dims={"batch": 1, "height": 33, "width": 42},
    task=_discogan_task,
)
