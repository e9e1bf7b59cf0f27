"""The family in miniature, for the conformance battery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import photo_style
from tests.cases import Case, photo


def _photo_style_data(folder: Path) -> Mapping[str, Any]:
    return {
        "photo": write_image(folder / "photo.png", photo(1, 66, 92)),
        "reference": write_image(folder / "reference.png", photo(2, 40, 36)),
    }


def _photo_style_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "holiday.jpg", photo(1, 99, 138))
    return photo_style.RunOptions(photo=picture, out=out / "evening.png", run=run)


CASE = Case(
    config=photo_style.Config(
        height=33,
        width=46,
        reference_size=36,
        auto_masks=2,
        start="noise",
        vgg="random",
        steps=4,
        plain_steps=2,
    ),
    data=_photo_style_data,
    dims={"batch": 1, "height": 22, "width": 30},
    task=_photo_style_task,
)
