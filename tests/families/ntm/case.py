"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.models import ntm
from tests.cases import Case


def _ntm_task(folder: Path, run: Path | None, out: Path) -> Any:
    return ntm.FAMILY.task.options(out=out / "memory.png", run=run, vectors=("1010", "0111", "0001"))


CASE = Case(
    config=ntm.Config(bits=4, largest=(5,), rows=9, columns=6, units=12, batch=3, steps=4, xla=False),
    data=lambda folder: {},
    dims={"batch": 1},
    task=_ntm_task,
)
