"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import cyclegan
from tests.cases import Case, photo, unpaired_pictures


def _cyclegan_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "picture.png", photo(3, 37, 46))
    return cyclegan.FAMILY.task.options(inputs=(picture,), out=out / "b.png", run=run, direction="b_to_a")


CASE = Case(
    config=cyclegan.Config(
        filters=4, blocks=1, discriminator_filters=4, size=32, upsampling="resize", pool=1, batch=2, steps=4
    ),
    data=unpaired_pictures,
    dims={"batch": 1, "height": 33, "width": 42},
    task=_cyclegan_task,
)
