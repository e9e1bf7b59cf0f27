"""`export` and `bench` through the command line."""

import json
from pathlib import Path

import pytest


def test_run_folder_to_artifacts(command, tmp_path: Path) -> None:
    command("train", "tiny", "--steps", "1", "--out", "runs/mine")
    code, result, err = command("export", "runs/mine", "-o", "there", "--formats", "litert", "onnx", "--size", "6x10")
    assert code == 0
    assert [a["format"] for a in result["artifacts"]] == ["litert", "onnx"]
    assert all(a["verified"] and (tmp_path / "there" / a["path"]).is_file() for a in result["artifacts"])
    assert result["artifacts"][0]["inputs"][0]["shape"] == [1, 6, 10, 3]
    assert len(result["next_steps"]) == 2
    assert "litert fp32: making" in err


def test_wrong_size_and_calibration_are_refused(command, tmp_path: Path) -> None:
    command("train", "tiny", "--steps", "1", "--out", "run")
    for flags, message in (
        (["--size", "big"], "expected a size such as"),
        (["--calibration", "photos"], "calibration is for precision 'int8'"),
        (["--servable", "cpy"], "unknown servable of tiny 'cpy'. Did you mean 'copy'?"),
    ):
        code, result, _ = command("export", "run", *flags)
        assert code == 2
        assert message in result["error"]["message"]
    assert not (tmp_path / "served").exists()


@pytest.mark.slow
def test_bench_times_every_runtime(command, tmp_path: Path) -> None:
    code, result, _ = command("bench", "tiny", "--sizes", "6x10", "--threads", "1", "--rounds", "2", "--out", "b.json")
    assert code == 0
    assert json.loads((tmp_path / "b.json").read_text()) == result
    timed = {
        (row["runtime"], row["precision"], row["size"])
        for row in result["timings"].values()
        if row["median_ms"] is not None
    }
    for runtime in ("Keras eager", "Keras tf.function", "SavedModel", "LiteRT", "ONNX Runtime"):
        assert (runtime, "fp32", "6x10") in timed
    assert result["model"] == "variant paper, untrained"
    assert result["machine"]["cores"] >= 1
