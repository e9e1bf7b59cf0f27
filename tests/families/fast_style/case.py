"""The family in miniature, for the conformance battery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import fast_style
from tests.cases import Case, photo, write_vgg16


def _fast_style_data(folder: Path) -> Mapping[str, Any]:
    for number, suffix in enumerate((".png", ".jpg", ".png")):
        write_image(folder / "photos" / f"{number}{suffix}", photo(number, 48 + 8 * number, 64))
    return {
        "style": write_image(folder / "painting.png", photo(99, 40, 56)),
        "photos": folder / "photos",
        "vgg": str(write_vgg16(folder / "vgg16.npz")),
    }


def _fast_style_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "holiday.jpg", photo(7, 45, 62))
    return fast_style.FAMILY.task.options(inputs=(picture,), out=out / "painted.png", run=run)


CASE = Case(
    config=fast_style.Config(
        channels=(4, 8, 16), blocks=1, end_kernel=5, upsampling="resize", size=32, style_size=48, steps=4, batch=2
    ),
    data=_fast_style_data,
    dims={"batch": 1, "height": 42, "width": 54},
    task=_fast_style_task,
)
