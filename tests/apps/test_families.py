"""`list`, `info` and `run`."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from kerasmodels import presets, registry
from tests.apps.conftest import ROOT


def test_list_shows_every_family_and_preset() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kerasmodels", "list", "--json"], cwd=ROOT, capture_output=True, text=True, timeout=60
    )
    listed = {family["name"]: family for family in json.loads(done.stdout)["families"]}
    assert list(listed) == registry.names()
    for name, family in listed.items():
        assert list(family["presets"]) == list(presets.presets(name))
        assert family["line"] == registry.row(name).line


def test_list_reads_cards(command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "presets" / "tiny").mkdir(parents=True)
    (tmp_path / "presets" / "tiny" / "waves.json").write_text('{"family": "tiny", "config": {}, "line": "many waves"}')
    monkeypatch.setattr(presets, "PRESETS", tmp_path / "presets")
    code, result, _ = command("list")
    assert code == 0
    assert result["families"][0]["presets"] == {"waves": "many waves"}
    assert result["families"][0]["commands"] == ["run", "train", "export", "reproduce", "bench"]


def test_list_for_people(tiny_family, capfd) -> None:
    from kerasmodels.apps import cli

    assert cli.main(["list"]) == 0
    out = capfd.readouterr().out
    assert "learn to copy noise" in out
    assert "none" in out


def test_info(command) -> None:
    code, result, _ = command("info", "tiny")
    assert code == 0
    assert result["parameters"] == 84
    assert result["variants"]["quick"]["layers"] == ["q"]
    assert result["servables"]["copy"]["inputs"][0]["shape"] == ["batch", "height", "width", 3]
    assert result["experiments"] == {"one": "that one is one", "files": "that there are files"}


def test_info_shows_how_variants_differ(tiny_family, capfd) -> None:
    from kerasmodels.apps import cli

    assert cli.main(["info", "tiny"]) == 0
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in capfd.readouterr().out.splitlines()]
    assert ["steps", "6", "2", ""] in rows
    assert ["bias", "True", "", "False"] in rows


def test_info_without_the_weights_it_needs(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "kerasmodels", "info", "feature_patches"],
        cwd=ROOT,
        env={**os.environ, "KERASMODELS_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 0
    assert "kerasmodels weights vgg16" in done.stdout
    assert "relu3_1" in done.stdout


def test_run_passes_flags_and_shows_facts(tiny_family, capfd, tmp_path: Path) -> None:
    from kerasmodels.apps import cli

    (tmp_path / "a file").write_text("123")
    assert cli.main(["run", "tiny", "a file", "--out", "there.txt"]) == 0
    out = capfd.readouterr().out
    assert "there.txt\n" in out
    assert "│ bytes │ 3 │" in out
    assert (tmp_path / "there.txt").read_text() == "3"
