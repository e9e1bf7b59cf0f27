"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import deformable_net
from tests.cases import Case, digits, photo


def _deformable_net_task(folder: Path, run: Path | None, out: Path) -> Any:
    picture = write_image(folder / "digit.jpg", photo(3, 40, 36))
    return deformable_net.FAMILY.task.options(inputs=(picture,), out=out / "seen.png", run=run, show_offsets=True)


CASE = Case(
    config=deformable_net.Config(filters=(8, 16), strides=(2, 2), deformable=1, steps=4, batch=2),
    data=digits,
    dims={"batch": 1, "height": 28, "width": 30},
    task=_deformable_net_task,
)
