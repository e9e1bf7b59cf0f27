"""Trainings of every family, killed with SIGKILL at any moment, and resumed. The kills are in kills.py."""

import json
import subprocess
import sys
from pathlib import Path

import pytest


@pytest.mark.slow
def test_a_hundred_kills(root: Path, tmp_path: Path) -> None:
    """Each run, killed some ten times, ends in the bits of one that was left alone, with no file besides."""
    command = [sys.executable, "-m", "tests.training.kills", "100", "0", str(tmp_path)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert sum(found["kills"].values()) == 100
    assert min(found["kills"].values()) >= 5
    assert min(found["compared"].values()) >= 1
    # Among them while a checkpoint was half written.
    assert found["moments"]["step"] >= 5
