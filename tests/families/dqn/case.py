"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.models import dqn
from tests.cases import Case


def _play(folder: Path, run: Path | None, out: Path) -> Any:
    return dqn.FAMILY.task.options(run=run, video=out / "play.gif", episodes=2)


CASE = Case(
    config=dqn.Config(
        batch=8, steps=4, replay=100, learning_starts=40, train_every=2, target_every=3, stack=2, prioritized=True,
        double=True, dueling=True, return_steps=2,
    ),
    data=lambda folder: {},
    dims={"batch": 16},
    task=_play,
)  # fmt: skip
