"""What the commands make of a family that has nothing to train."""

from pathlib import Path

import pytest

from kerasmodels import export, registry, training
from kerasmodels.apps import cli
from kerasmodels.errors import UsageError
from tests.apps import ready, tiny


@pytest.fixture(autouse=True)
def two_families(tiny_family: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry, "ROWS", (tiny.ROW, ready.ROW))


@pytest.mark.parametrize(
    "flags", [[], ["--dry-run"], ["--help"], ["--resume", "runs/x"], ["--factor", "3"]], ids=lambda flags: str(flags)
)
def test_train_points_to_run(command, tmp_path: Path, flags: list[str]) -> None:
    code, result, _ = command("train", "ready", *flags)
    assert code == 2
    assert "'ready', which has nothing to train: use it right away with `kerasmodels run ready`" in str(result["error"])
    assert list(tmp_path.iterdir()) == []


def test_training_from_python_is_refused_too(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="nothing to train"):
        training.train(ready.FAMILY, ready.Config(), tmp_path / "run")
    with pytest.raises(UsageError, match="nothing to train"):
        training.dry_run(ready.FAMILY, ready.Config())
    assert list(tmp_path.iterdir()) == []


def test_train_help_lists_what_trains(command) -> None:
    text = command("train", "--help")[1]["help"]
    assert "learn to copy noise" in text
    assert "double numbers" not in text
    assert "double numbers" in command("run", "--help")[1]["help"]


def test_export_by_name(command, tmp_path: Path) -> None:
    code, result, _ = command("export", "ready", "--out", "there")
    assert code == 0
    assert [(a["format"], a["verified"]) for a in result["artifacts"]] == [
        ("saved_model", True),
        ("litert", True),
        ("onnx", True),
    ]
    assert {Path(a["path"]).parts[0] for a in result["artifacts"]} == {"saved_model", "ready.tflite", "ready.onnx"}
    assert all((tmp_path / "there" / a["path"]).exists() for a in result["artifacts"])
    assert export.read_metadata(tmp_path / "there" / "ready.onnx")["source"] == "ready"


def test_export_of_what_is_not_there(command) -> None:
    code, result, _ = command("export", "ready", "--formats", "litert", "--precision", "fp16")
    assert code == 2
    assert "in fp16: it has no weights to reduce" in result["error"]["message"]
    code, result, _ = command("export", "tiny")
    assert code == 2
    assert "expected a run folder or one of the presets" in result["error"]["message"]


def test_list_and_info(command, capfd: pytest.CaptureFixture[str]) -> None:
    families = command("list")[1]["families"]
    assert [family["commands"] for family in families] == [
        ["run", "train", "export", "reproduce", "bench"],
        ["run", "export", "reproduce", "bench"],
    ]
    assert command("info", "ready")[1]["parameters"] == 0
    assert cli.main(["list"]) == cli.main(["info", "ready"]) == 0
    out = capfd.readouterr().out
    assert "(ready: nothing to train)" in out
    assert "kerasmodels run ready --help. There is nothing to train." in out


def test_run(command) -> None:
    assert command("run", "ready", "--number", "3")[1]["facts"] == {"doubled": 6.0}


@pytest.mark.slow
def test_bench(command) -> None:
    code, result, _ = command("bench", "ready", "--rounds", "1", "--threads", "1")
    assert code == 0
    assert result["model"] == "variant paper"
    assert {
        (row["runtime"], row["precision"]) for row in result["timings"].values() if row["median_ms"] is not None
    } >= {
        ("SavedModel", "fp32"),
        ("LiteRT", "fp32"),
        ("ONNX Runtime", "fp32"),
    }
    assert {row["precision"] for row in result["timings"].values()} == {"fp32"}
