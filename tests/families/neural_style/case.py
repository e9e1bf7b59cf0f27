"""The family in miniature, for the conformance battery."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import neural_style
from tests.cases import Case, photo


def _neural_style_data(folder: Path) -> Mapping[str, Any]:
    return {
        "content": write_image(folder / "photo.png", photo(7, 45, 62)),
        "style": (write_image(folder / "painting.png", photo(99, 40, 56)),),
        "height": 40,
        "width": 55,
    }


def _neural_style_task(folder: Path, run: Path | None, out: Path) -> Any:
    return neural_style.RunOptions(
        content=write_image(folder / "holiday.jpg", photo(7, 45, 62)),
        style=(write_image(folder / "painting.png", photo(99, 40, 56)),),
        out=out / "painted.png",
        start_from=run,
        **_NEURAL_STYLE,
        steps=3,
    )


_NEURAL_STYLE: dict[str, Any] = {
    "size": 48,
    "network": "vgg16",
    "vgg": "random",
    "content_layers": ("conv2_2",),
    "style_layers": ("conv1_1", "conv2_1"),
    "tv_weight": 1e-3,
}


CASE = Case(
    config=neural_style.Config(**_NEURAL_STYLE, height=40, width=55, steps=4),
    data=_neural_style_data,
    dims={"height": 9, "width": 14, "style_height": 11, "style_width": 10},
    task=_neural_style_task,
)
