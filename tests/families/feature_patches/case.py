"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import feature_patches
from tests.cases import Case, photo


def _feature_patches_task(folder: Path, run: Path | None, out: Path) -> Any:
    for number in range(3):
        write_image(folder / "photos" / f"{number}.png", photo(number, 40 + number, 52))
    return feature_patches.FAMILY.task.options(
        unit=(3, 17), out=out / "grid.png", photos=folder / "photos", layer="relu2_1", vgg="random", k=2, maximize=True,
        steps=2,
    )  # fmt: skip


CASE = Case(
    config=feature_patches.Config(layer="relu2_1", vgg="random"),
    data=lambda folder: {},
    dims={"batch": 1, "height": 42, "width": 54},
    task=_feature_patches_task,
)
