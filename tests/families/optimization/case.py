"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.models import optimization
from tests.cases import Case


def _optimization_task(folder: Path, run: Path | None, out: Path) -> Any:
    return optimization.FAMILY.task.options(
        objective="quadratic", methods=("momentum", "lbfgs"), steps=20, out=out / "paths.png"
    )


CASE = Case(
    config=optimization.Config(objective="beale"),
    data=lambda folder: {},
    dims={"batch": 4},
    task=_optimization_task,
)
