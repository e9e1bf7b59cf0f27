"""`train`: where the values of its flags come from, what it leaves behind, and how it stops."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from kerasmodels import registry
from tests.apps.conftest import ROOT


def _card(folder: Path) -> dict:
    return json.loads((folder / "run.json").read_text())


def test_flags_go_before_the_file_and_the_file_before_the_variant(command, tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text('steps = 3\nlayers = ["x", "y", "z"]\nbias = false\n')
    code, result, _ = command("train", "tiny", "--variant", "quick", "--config", "mine.toml", "--steps", "1")
    assert code == 0
    config = {"steps": 1, "batch": 2, "learning_rate": 0.01, "seed": 0, "layers": ["x", "y", "z"], "bias": False}
    config |= {"precision": "float32", "start_from": None}
    assert result["config"] == config
    assert result["run"] == "runs/tiny"
    card = _card(tmp_path / "runs" / "tiny")
    assert card["config"] == config
    assert card["command"] == "kerasmodels train tiny --variant quick --config mine.toml --steps 1"
    assert card["seed"] == 0
    assert card["versions"]["tensorflow"]


def test_written_config_is_a_config_file(command, tmp_path: Path) -> None:
    command("train", "tiny", "--steps", "2", "--layers", "one word", "--out", "a")
    _, result, _ = command("train", "tiny", "--config", "a/config.toml", "--out", "b")
    assert result["config"] == _card(tmp_path / "a")["config"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("stepz = 3", "mine.toml: unknown field of tiny's Config 'stepz'. Did you mean 'steps'?"),
        ('steps = "many"', "mine.toml: expected steps: a valid integer. Received: steps='many'."),
        ('steps = "3"', "mine.toml: expected steps: a valid integer. Received: steps='3'."),
        ("steps = 0", "mine.toml: expected steps > 0. Received: steps=0."),
        ("steps = ", "mine.toml is not valid TOML"),
        ("help = 1", "mine.toml"),
    ],
)
def test_wrong_file(command, tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "mine.toml").write_text(text)
    code, result, _ = command("train", "tiny", "--config", "mine.toml")
    assert code == 2
    assert message in result["error"]["message"]
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--steps", "x"], "Error parsing --steps"),
        (["--step", "3"], "--steps INT"),
        (["--variant", "qick"], "unknown variant of tiny 'qick'. Did you mean 'quick'?"),
        (["--config", "nothing.toml"], "expected a TOML file. Received: 'nothing.toml'"),
        (["--resume", "nothing"], "expected a run folder made by `kerasmodels train`"),
        (["--resume", "a", "--out", "b"], "expected --out or --resume, not both"),
        (["--resume", "a", "--variant", "quick"], "expected --variant for a new run"),
        (["--save-every", "0"], "save_every >= 1"),
    ],
)
def test_wrong_flags(command, tmp_path: Path, flags: list[str], message: str) -> None:
    code, result, _ = command("train", "tiny", *flags)
    assert code == 2
    assert message in result["error"]["message"]
    assert list(tmp_path.iterdir()) == []


def test_resume_goes_on_with_the_runs_own_config(command, tmp_path: Path) -> None:
    command("train", "tiny", "--steps", "2", "--learning-rate", "0.03", "--no-bias", "--out", "half")
    code, result, _ = command("train", "tiny", "--resume", "half", "--steps", "4")
    assert code == 0
    assert (result["step"], result["config"]["learning_rate"], result["config"]["bias"]) == (4, 0.03, False)
    command("train", "tiny", "--steps", "4", "--learning-rate", "0.03", "--no-bias", "--out", "whole")
    assert (tmp_path / "half" / "weights.npz").read_bytes() == (tmp_path / "whole" / "weights.npz").read_bytes()


def test_resume_with_another_config_is_refused(command) -> None:
    command("train", "tiny", "--steps", "1", "--out", "a")
    code, result, _ = command("train", "tiny", "--resume", "a", "--learning-rate", "3")
    assert code == 2
    assert "learning_rate=3.0 (the run's: 0.01)" in result["error"]["message"]


def test_dry_run_writes_nothing(command, tmp_path: Path) -> None:
    code, result, _ = command("train", "tiny", "--dry-run")
    assert code == 0
    assert result["parameters"] == {"trainable": 84, "non_trainable": 0}
    assert result["steps"] == 6
    assert result["estimated_seconds"] > 0
    assert result["export"]["format"] == "saved_model"
    assert result["export"]["bytes"] > 0
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_saves_and_exits_130(tmp_path: Path, command) -> None:
    # A shell starts background jobs, and so these tests if they are one, with SIGINT ignored.
    heed = "import runpy, signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); del sys.argv[0]; "
    heed += "runpy.run_path(sys.argv[0], run_name='__main__')"
    script = [sys.executable, "-c", heed, str(ROOT / "tests" / "apps" / "tiny.py")]
    arguments = ["train", "tiny", "--steps", "1000000", "--out", "run", "--save-every", "50", "--json"]
    running = subprocess.Popen([*script, *arguments], cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    deadline = time.monotonic() + 60
    while not (tmp_path / "run" / "weights.npz").exists():
        assert running.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, _ = running.communicate(timeout=60)
    assert running.returncode == 130
    assert json.loads(out)["error"]["exit_code"] == 130
    card = _card(tmp_path / "run")
    assert card["state"] == "interrupted"
    code, result, _ = command("train", "tiny", "--resume", "run", "--steps", str(card["step"] + 1))
    assert (code, result["step"]) == (0, card["step"] + 1)


@pytest.mark.parametrize("family_name", [row.name for row in registry.ROWS if row.trains])
def test_config_comes_back_from_a_run_folder(family_name: str, tmp_path: Path) -> None:
    """What `--resume` and `--config` do with the values that a training wrote, for every family and variant."""
    family = registry.family(family_name)
    for config in family.variants.values():
        stored = json.loads(json.dumps(config.to_dict()))
        assert family.config.from_dict(stored) == config
        (tmp_path / "config.toml").write_text(config.to_toml())
        assert family.config.from_toml(tmp_path / "config.toml", config) == config
