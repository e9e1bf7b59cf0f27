"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import dilated_net
from tests.cases import TINY_LABELS, Case, labeled_photos, photo


def _dilated_net_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "holiday.jpg", photo(7, 45, 62))
    results = {name: out / f"{name}.png" for name in ("overlay", "legend")}
    return dilated_net.FAMILY.task.options(photo=picture, out=out / "mask.png", run=run, **results, crf=True)


CASE = Case(
    config=dilated_net.Config(
        classes=3,
        blocks=(1, 1, 1, 1, 1),
        channels=(4, 6, 8, 12, 12),
        head=16,
        head_kernel=3,
        context="basic",
        rates=(1, 2),
        context_padding="same",
        trains="all",
        crop=142,
        steps=4,
        batch=2,
        context_init="glorot",
        learning_rate=0.1,
        **TINY_LABELS,
    ),
    data=labeled_photos,
    dims={"batch": 1, "height": 12, "width": 18},
    task=_dilated_net_task,
)
