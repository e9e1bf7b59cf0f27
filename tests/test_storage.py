"""Locks that end with their process, and temporary files that do not stay."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from kerasmodels import storage
from kerasmodels.config import Config


class Options(Config):
    """Names of files."""

    one: Path | None = None
    several: tuple[Path, ...] = ()
    text: str = ""


CHILD = """
import sys, time
from kerasmodels import storage

def write(file):
    file.write(b"half")
    file.flush()
    print("holding", flush=True)
    time.sleep(600)

with storage.scratch(storage.Path("held"), ".work-") as scratch:
    (scratch / "half").touch()
    storage.write_atomic("weights.npz", write)
"""


def test_what_a_killed_process_leaves(tmp_path: Path, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("held").mkdir()
    for mine in (".weights.npz.original", ".other.npz.12345678.part"):
        Path(mine).write_text("the user's, or of another file")
    environment = {**os.environ, "PYTHONPATH": str(root)}
    child = subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, env=environment, text=True)
    try:
        assert child.stdout is not None
        assert child.stdout.readline() == "holding\n"
        (part,) = Path().glob(".weights.npz.*.part")
        (scratch,) = Path("held").iterdir()
        # It lives: what it writes is left alone.
        storage.write_text("weights.npz", "whole")
        with storage.scratch(Path("held"), ".work-"):
            assert part.exists()
            assert (scratch / "half").exists()
        with pytest.raises(BlockingIOError), storage.locked(scratch, wait=False):
            pass
    finally:
        child.send_signal(signal.SIGKILL)
        child.communicate()
    storage.write_text("weights.npz", "again")
    with storage.scratch(Path("held"), ".work-"):
        assert not scratch.exists()
    assert list(Path("held").iterdir()) == []
    assert sorted(p.name for p in Path().iterdir() if p.is_file()) == [
        ".other.npz.12345678.part",
        ".weights.npz.original",
        "weights.npz",
    ]
    assert Path("weights.npz").read_text() == "again"


def test_one_at_a_time(tmp_path: Path) -> None:
    with storage.locked(tmp_path), pytest.raises(BlockingIOError), storage.locked(tmp_path, wait=False):
        pass
    with storage.locked(tmp_path, wait=False):
        pass


def test_names_that_are_no_unicode(tmp_path: Path) -> None:
    """From an old disk, say. A config with one comes back from TOML and from JSON."""
    name = Path(os.fsdecode(b"caf\xe9"))
    config = Options(one=name, several=(name, Path("b")), text=str(name))
    (tmp_path / "config.toml").write_text(config.to_toml(), encoding="utf-8")
    assert 'one = {bytes = "caf\u00e9"}' in config.to_toml()
    assert Options.from_toml(tmp_path / "config.toml") == config
    storage.write_json(tmp_path / name / "card.json", config.to_dict())
    assert Options.from_dict(json.loads((tmp_path / name / "card.json").read_text())) == config
    storage.write_text(tmp_path / "text", str(name))
    assert (tmp_path / "text").read_text() == "caf\\udce9"
