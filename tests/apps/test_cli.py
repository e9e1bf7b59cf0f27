"""Exit codes, messages, and what goes to which stream."""

import json
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import pytest

import kerasmodels
from kerasmodels import errors
from kerasmodels.apps import cli
from kerasmodels.apps.command import parse, plain
from tests.apps.conftest import ROOT


def test_version(process) -> None:
    done = process("--version")
    assert (done.returncode, done.stdout) == (0, f"kerasmodels {kerasmodels.__version__}\n")


def test_help_names_every_command(process) -> None:
    done = process("--help")
    assert done.returncode == 0
    assert all(f"\n  {verb} " in done.stdout for verb in cli.VERBS)


def test_no_command_is_a_usage_error(process) -> None:
    done = process()
    assert done.returncode == 2
    assert "usage: kerasmodels COMMAND" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["lst"], "unknown command 'lst'. Did you mean 'list'?"),
        (["list", "more"], "expected no arguments: kerasmodels list. Received: more."),
        (["info", "tny"], "unknown family 'tny'. Did you mean 'tiny'? Known: tiny."),
        (["train", "tny"], "unknown family 'tny'. Did you mean 'tiny'?"),
        (["train"], "expected a family right after `train`"),
        (["train", "--steps", "3"], "Received: '--steps'"),
        (["run", "tiny"], "Missing"),
        (["export", "nothing"], "expected a run folder or one of the presets"),
        (["export", "tiny/wave"], "unknown preset of tiny 'wave'"),
        (["export", "x", "--formats", "onx"], "unknown format 'onx'. Did you mean 'onnx'?"),
        (["export", "x", "--precision", "fp8"], "one of dynamic, fp16, fp32, int8. Received: 'fp8'."),
        (["export", "x", "--preprocess", "tff"], "expected --preprocess with one of caffe, none, tf, torch, unit."),
        (["serve", "x", "--port", "65536"], "expected --port from 0 to 65535. Received: 65536"),
        (["serve", "x", "--grpc-port", "-1"], "expected --grpc-port from 0 to 65535"),
        (["bench", "tiny", "--rounds", "0"], "expected rounds and threads >= 1"),
        (["bench", "tiny", "--preset", "x"], "unknown preset of tiny 'x'"),
        (["weights", "vgg17"], "unknown network 'vgg17'. Did you mean 'vgg19'?"),
        (["weights", "--from", "keras"], "expected a network"),
        (["weights", "vgg16", "--path", "x"], "--from"),
        (["check", "--fast"], "Unrecognized options: --fast"),
    ],
)
def test_wrong_request_exits_2(command, arguments: list[str], message: str) -> None:
    code, result, _ = command(*arguments)
    assert code == 2
    assert message in result["error"]["message"]
    assert result["error"]["exit_code"] == 2


def test_error_is_one_message_without_traceback(tiny_family, capfd) -> None:
    assert cli.main(["run", "tiny", "missing.jpg"]) == 1
    out, err = capfd.readouterr()
    assert out == ""
    assert err == "kerasmodels: expected a file. Received: 'missing.jpg'.\n"
    assert cli.main(["run", "tiny", "missing.jpg", "--debug"]) == 1
    assert "Traceback (most recent call last)" in capfd.readouterr().err


def test_fault_of_the_program_says_what_to_report(tiny_family, capfd) -> None:
    assert cli.main(["run", "tiny", "bug"]) == 1
    _, err = capfd.readouterr()
    assert "Traceback" not in err
    assert "unexpected ZeroDivisionError: a fault of the program" in err
    assert "kerasmodels check" in err


def test_interruption_exits_130(command) -> None:
    code, result, _ = command("run", "tiny", "interrupt")
    assert code == 130
    assert result == {"error": {"type": "KeyboardInterrupt", "message": "interrupted.", "exit_code": 130}}


def test_ctrl_c_exits_130(tmp_path: Path) -> None:
    # A shell starts background jobs, and so these tests if they are one, with SIGINT ignored.
    script = "import signal\nsignal.signal(signal.SIGINT, signal.default_int_handler)\n"
    script += "import time\nfrom kerasmodels.apps import cli, families\nfamilies.main = lambda argv: time.sleep(60)\n"
    script += "print('ready', flush=True)\nraise SystemExit(cli.main(['list']))"
    running = subprocess.Popen([sys.executable, "-c", script], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert running.stdout is not None
    assert running.stdout.readline() == b"ready\n"
    time.sleep(0.3)
    running.send_signal(signal.SIGINT)
    _, complaint = running.communicate(timeout=30)
    assert running.returncode == 130
    assert complaint == b"kerasmodels: interrupted.\n"


def test_json_is_alone_on_stdout(process, tmp_path: Path) -> None:
    (tmp_path / "in.txt").write_text("12345")
    done = process("run", "tiny", "in.txt", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout) == {"family": "tiny", "outputs": ["count.txt"], "facts": {"bytes": 5}}
    assert done.stderr == "noise on stdout\n"
    assert (tmp_path / "count.txt").read_text() == "5"


def test_json_error_is_alone_on_stdout(tiny_family, capfd) -> None:
    assert cli.main(["--json", "run", "tiny", "missing.jpg"]) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["error"]["type"] == "DataError"
    assert err == ""


def test_json_help_is_an_object(command) -> None:
    assert "usage: kerasmodels COMMAND" in command("--help")[1]["help"]
    assert "--learning-rate" in command("train", "tiny", "--help")[1]["help"]


def test_tensorflow_says_nothing(process, tmp_path: Path) -> None:
    done = process("info", "tiny")
    assert done.returncode == 0
    assert done.stderr == ""
    assert "84 parameters" in done.stdout


def test_reader_that_leaves_early_is_no_error() -> None:
    pipe = f"{sys.executable} -m kerasmodels list; echo code $? >&2"
    done = subprocess.run(
        ["bash", "-c", f"({pipe}) | true; true"], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stderr == "code 0\n"


def test_another_backend_is_refused(process) -> None:
    import os

    done = process("info", "tiny", env={**os.environ, "KERAS_BACKEND": "jax"})
    assert done.returncode == 2
    assert "Received: KERAS_BACKEND='jax'" in done.stderr


def test_broken_tensorflow_is_explained_and_its_words_are_shown(tmp_path: Path) -> None:
    (tmp_path / "tensorflow.py").write_text(
        "import os\nos.write(2, b'said by C++\\n')\nraise ImportError('libcu.so is missing')\n"
    )
    code = f"import sys; sys.path.insert(0, {str(tmp_path)!r}); sys.path.insert(1, {str(ROOT)!r})\n"
    code += "from kerasmodels.apps.cli import main\nsys.exit(main(['info', 'fast_style']))"
    done = subprocess.run([sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, timeout=60)
    assert done.returncode == 1
    assert "libcu.so is missing" in done.stderr
    assert "said by C++" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "message", "code"),
    [
        (errors.UsageError("wrong."), "wrong.", 2),
        (errors.VerificationError("not equal."), "not equal.", 1),
        (errors.storage_error("here", OSError(28, "No space")), "cannot write here: the disk is full", 1),
        (PermissionError(13, "Permission denied", "photo.jpg"), "Permission denied: photo.jpg", 1),
        (MemoryError(), "out of memory. Use smaller", 1),
        (KeyboardInterrupt(), "interrupted.", 130),
        (RuntimeError("oops"), "unexpected RuntimeError: oops", 1),
    ],
)
def test_errors_are_explained(error: BaseException, message: str, code: int) -> None:
    explained, exit_code = cli._explained(error)
    assert explained.startswith(message)
    assert exit_code == code


def test_interrupted_training_exits_130() -> None:
    from kerasmodels.training import Interrupted

    assert cli._explained(Interrupted("saved at step 3.")) == ("saved at step 3.", 130)


def test_plain_values_are_json() -> None:
    import numpy as np

    value = {"a": float("nan"), "b": (Path("x"), np.float32(1.5), np.bool_(True)), "c": np.arange(2), 4: {"d": None}}
    assert plain(value) == {"a": None, "b": ["x", 1.5, True], "c": [0, 1], "4": {"d": None}}
    assert plain(errors.KerasModelsError("e")) == "e"


@dataclass(frozen=True)
class Lists:
    """Flags of both kinds."""

    names: tuple[str, ...] = ()
    """Any number."""
    numbers: tuple[float, ...] = ()
    """Any number."""
    count: int = 0
    """One."""


def test_a_list_is_given_at_once() -> None:
    assert parse(Lists, ["--names", "a", "b", "--numbers", "1", "-2.5"], "prog", "") == Lists(("a", "b"), (1.0, -2.5))


@pytest.mark.parametrize(
    "arguments",
    [["--names", "a", "--count", "1", "--names", "b"], ["--names=a", "--names=b"], ["--count", "1", "--count", "2"]],
)
def test_no_value_is_lost_when_a_flag_comes_twice(arguments: list[str]) -> None:
    with pytest.raises(errors.UsageError, match=f"expected {arguments[0].partition('=')[0]} once"):
        parse(Lists, arguments, "prog", "")


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_knows_commands_and_flags(command, shell: str) -> None:
    code, result, _ = command("completion", shell)
    assert code == 0
    assert all(word in result["script"] for word in ("reproduce", "learning-rate", "mixed_bfloat16"))
