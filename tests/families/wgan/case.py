"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.models import wgan
from tests.cases import Case, small_pictures


def _wgan_task(folder: Path, run: Path | None, out: Path) -> Any:
    return wgan.FAMILY.task.options(out=out / "sheet.png", run=run, rows=2, columns=3, between=True)


CASE = Case(
    config=wgan.Config(size=16, width=8, latent=12, critic_steps=2, batch=3, steps=4),
    data=small_pictures,
    dims={"batch": 1},
    task=_wgan_task,
)
