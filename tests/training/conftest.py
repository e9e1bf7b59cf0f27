"""Runs that many tests start from or are compared with."""

import shutil
from pathlib import Path

import pytest

from kerasmodels.training import train
from tests.training.autoencoder import FAMILY, Config

STEPS = 12


@pytest.fixture(scope="session")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run of 12 steps, never interrupted."""
    folder = tmp_path_factory.mktemp("whole") / "run"
    train(FAMILY, Config(steps=STEPS), folder, save_every=5, preview_every=4, log_every=5, progress=False)
    return folder


@pytest.fixture(scope="session")
def _seven(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("seven") / "run"
    train(FAMILY, Config(steps=7), folder, save_every=5, preview_every=4, log_every=5, progress=False)
    return folder


@pytest.fixture
def seven(_seven: Path, tmp_path: Path) -> Path:
    """A copy of a run of 7 steps, with checkpoints at steps 5 and 7."""
    return Path(shutil.copytree(_seven, tmp_path / "run"))
