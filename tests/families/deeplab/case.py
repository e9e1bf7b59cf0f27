"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import deeplab
from tests.cases import TINY_LABELS, Case, labeled_photos, photo


def _deeplab_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "holiday.jpg", photo(7, 45, 62))
    results = {name: out / f"{name}.png" for name in ("overlay", "legend")}
    return deeplab.FAMILY.task.options(photo=picture, out=out / "mask.png", run=run, **results, crf=True)


CASE = Case(
    config=deeplab.Config(
        classes=3,
        blocks=(1, 1, 1, 1),
        width=1 / 16,
        rates=(1, 2),
        pyramid=(0.5,),
        crop=65,
        steps=4,
        batch=2,
        learning_rate=1e-2,
        batch_norm="trained",
        clip=1.0,
        **TINY_LABELS,
    ),
    data=labeled_photos,
    dims={"batch": 1, "height": 21, "width": 30},
    task=_deeplab_task,
)
