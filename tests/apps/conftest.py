"""The command line with a registry of one tiny family, in this process and in fresh ones."""

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from kerasmodels import registry
from kerasmodels.apps import cli
from tests.apps import tiny

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tiny_family(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """`tiny` is the only family, and the working directory is empty."""
    monkeypatch.setattr(registry, "ROWS", (tiny.ROW,))
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def command(tiny_family: None, capfd: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, dict[str, Any], str]]:
    """Call a command with --json; returns its exit code, its object, and stderr."""

    def call(*arguments: str) -> tuple[int, dict[str, Any], str]:
        capfd.readouterr()
        code = cli.main([*arguments, "--json"])
        out, err = capfd.readouterr()
        return code, json.loads(out), err

    return call


@pytest.fixture
def process(tmp_path: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run a command in a fresh process, in an empty folder."""

    def call(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
        script = [sys.executable, str(ROOT / "tests" / "apps" / "tiny.py")]
        return subprocess.run(
            [*script, *arguments], cwd=tmp_path, capture_output=True, text=True, timeout=120, **options
        )

    return call
