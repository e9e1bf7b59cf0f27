"""Damaged files of every kind: only our own errors, none slow, none large. The files are made by corpus.py."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest


def findings(root: Path, folder: Path, count: int, seed: int) -> dict[str, Any]:
    """What `count` damaged files brought up, in a process of its own, whose memory is measured."""
    command = [sys.executable, "-m", "tests.fuzz.child", str(count), str(seed), str(folder)]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    # A crash, too, leaves its file in the folder.
    assert done.returncode == 0, (folder, done.stderr[-2000:])
    found = json.loads(done.stdout)
    # The damage is small enough for many files to be read all the same, so the decoders are reached.
    assert found["read"] > count / 3
    return found["findings"]


def test_a_few_hundred(root: Path, tmp_path: Path):
    assert findings(root, tmp_path, 400, 0) == {}


@pytest.mark.slow
def test_a_hundred_thousand(root: Path, tmp_path: Path):
    assert findings(root, tmp_path, 100_000, 1) == {}
