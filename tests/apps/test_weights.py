"""`weights`: what there is, and the way to get it."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _empty_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path / "home"))


def test_sources_and_commands_are_listed(command) -> None:
    code, result, _ = command("weights", "vgg19")
    assert code == 0
    assert result["cached"] == []
    assert "normalized" in result["sources"]
    assert list(result["commands"]) == ["vgg19"]
    assert any(line.startswith("kerasmodels weights vgg19 --from normalized") for line in result["commands"]["vgg19"])


def test_source_without_the_network(command) -> None:
    code, result, _ = command("weights", "vgg16", "--from", "normalized")
    assert code == 2
    assert "has weights for vgg19, not for vgg16" in result["error"]["message"]


def test_file_that_is_no_weights_file(command, tmp_path: Path) -> None:
    (tmp_path / "weights.h5").write_text("hello")
    code, result, _ = command("weights", "vgg16", "--from", "h5", "--path", "weights.h5")
    assert code == 1
    assert "is not a weights file" in result["error"]["message"]
    assert not (tmp_path / "home").exists()
