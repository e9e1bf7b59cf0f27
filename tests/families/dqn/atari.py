"""The family on the emulator, in miniature, for kills.py: `python -m tests.training.kills 20 0 FOLDER dqn:atari`."""

from pathlib import Path
from typing import Any

from kerasmodels.models import dqn
from tests.cases import Case


def _play(folder: Path, run: Path | None, out: Path) -> Any:
    return dqn.FAMILY.task.options(run=run, video=out / "play.gif", episodes=1)


CASE = Case(
    config=dqn.Config(
        game="breakout", batch=8, steps=4, replay=100, learning_starts=60, train_every=4, target_every=3, stack=4,
        optimizer="rmsprop", learning_rate=2.5e-4, loss="squared", clip_rewards=True, life_loss=True, sticky=0.25,
        fire=True, time_limit=800,
    ),
    data=lambda folder: {},
    dims={"batch": 3},
    task=_play,
)  # fmt: skip
