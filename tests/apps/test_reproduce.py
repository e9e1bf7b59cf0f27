"""`reproduce`: what is written, and when."""

import json
from pathlib import Path

import pytest


def test_results_figures_and_provenance_are_written(command, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    for name in ("a", "b"):
        (data / name).write_text("")
    code, result, _ = command("reproduce", "tiny", "--data", "data")
    assert code == 0
    written = json.loads((tmp_path / "results" / "tiny.json").read_text())
    assert {"path": "results/tiny.json", **written} == result
    assert written["claims"] == {
        "one": {
            "experiment": "one",
            "text": "one is one",
            "paper": "1",
            "ours": 1.5,
            "gate": {"at_least": 1},
            "passed": True,
        },
        "two": {
            "experiment": "one",
            "text": "two is measured",
            "paper": "2",
            "ours": 2.0,
            "gate": None,
            "passed": None,
        },
        "files": {
            "experiment": "files",
            "text": "there are files",
            "paper": "many",
            "ours": 2.0,
            "gate": {"at_least": 2},
            "passed": True,
        },
    }
    measured = written["measured"]["one"]
    assert measured["command"] == "kerasmodels reproduce tiny --data data"
    assert measured["figures"] == ["figure.txt"]
    assert (tmp_path / "results" / "figure.txt").read_text() == "full"
    assert {"seed", "seconds", "date", "versions", "machine"} <= measured.keys()
    assert {"tensorflow", "keras", "python", "onnxruntime"} <= measured["versions"].keys()
    assert measured["machine"]["cores"] >= 1


@pytest.mark.parametrize("joined", [False, True])
def test_no_path_of_one_machine_is_kept(command, tmp_path: Path, joined: bool) -> None:
    (tmp_path / "pictures").mkdir()
    where = [f"--data={tmp_path / 'pictures'}"] if joined else ["--data", str(tmp_path / "pictures")]
    _, result, _ = command("reproduce", "tiny", *where, "--only", "one")
    kept = "--data=pictures" if joined else "--data pictures"
    assert result["measured"]["one"]["command"] == f"kerasmodels reproduce tiny {kept} --only one"


def test_missed_gate_exits_1(command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    code, result, _ = command("reproduce", "tiny", "--data", "empty", "--only", "files")
    assert code == 1
    assert {key: claim["passed"] for key, claim in result["claims"].items()} == {"files": False}
    assert json.loads((tmp_path / "results" / "tiny.json").read_text())["claims"] == result["claims"]


def test_one_experiment_leaves_the_claims_of_others(command, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    command("reproduce", "tiny", "--data", "empty", "--only", "files")
    code, result, _ = command("reproduce", "tiny", "--only", "one")
    assert code == 0
    assert list(result["claims"]) == ["one", "two", "files"]
    _, result, _ = command("reproduce", "tiny", "--data", "empty", "--only", "files", "one")
    assert all("--only files one" in part["command"] for part in result["measured"].values())
    assert result["measured"].keys() == {"one", "files"}


def test_experiments_before_a_failing_one_are_kept(command, tmp_path: Path) -> None:
    code, result, _ = command("reproduce", "tiny")
    assert code == 1
    assert "expected a folder at --data" in result["error"]["message"]
    assert list(json.loads((tmp_path / "results" / "tiny.json").read_text())["claims"]) == ["one", "two"]


def test_quick_does_not_touch_the_full_results(command, tmp_path: Path) -> None:
    code, _, _ = command("reproduce", "tiny", "--only", "one", "--quick")
    assert code == 0
    assert not (tmp_path / "results" / "tiny.json").exists()
    assert (tmp_path / "results" / "quick" / "figure.txt").read_text() == "quick"


def test_foreign_results_are_not_overwritten(command, tmp_path: Path) -> None:
    (tmp_path / "results").mkdir()
    (tmp_path / "results" / "tiny.json").write_text('{"mine": true}')
    code, result, _ = command("reproduce", "tiny", "--only", "one")
    assert code == 1
    assert "was not written by this command" in result["error"]["message"]
    assert (tmp_path / "results" / "tiny.json").read_text() == '{"mine": true}'


def test_wrong_requests(command) -> None:
    code, result, _ = command("reproduce", "tiny", "--only", "onne")
    assert code == 2
    assert "unknown experiment of tiny 'onne'. Did you mean 'one'?" in result["error"]["message"]
    code, result, _ = command("reproduce", "tiny", "--only")
    assert code == 2
    assert "the name of an experiment after --only. Received: none. Known: one, " in result["error"]["message"]
    code, result, _ = command("reproduce", "tiny", "--data", "nowhere")
    assert code == 1
    assert "expected a folder at --data. Received: 'nowhere'" in result["error"]["message"]
