"""Training N steps == training some, stopping, and resuming: to the last bit."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmodels import storage
from kerasmodels.errors import TrainingError, UsageError
from kerasmodels.family import stream
from kerasmodels.runs import RunFolder
from kerasmodels.training import Interrupted, checkpoint, train
from tests.training.autoencoder import FAMILY, Config
from tests.training.conftest import STEPS

OPTIONS: dict[str, Any] = {"save_every": 5, "preview_every": 4, "log_every": 5, "progress": False}


def card(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "run.json").read_text())


def files(folder: Path) -> dict[Path, bytes]:
    return {p.relative_to(folder): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def assert_same_end(folder: Path, whole: Path) -> None:
    """Everything a checkpoint holds but its time: weights, optimizer, seed generators, family state, random states."""
    ours, theirs = (checkpoint.read(f / "checkpoints" / f"step-{STEPS:06d}.npz") for f in (folder, whole))
    assert ours.arrays.keys() == theirs.arrays.keys()
    for key, value in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[key], value, err_msg=key)
    for key in ("step", "config", "python_random", "numpy_random"):
        assert ours.about[key] == theirs.about[key], key
    ours_weights, theirs_weights = (storage.load_npz(f / "weights.npz") for f in (folder, whole))
    for mine, his in zip(ours_weights.values(), theirs_weights.values(), strict=True):
        np.testing.assert_array_equal(mine, his)


def steps_of(log: Path) -> list[int]:
    return [int(line.split(",")[0]) for line in log.read_text().splitlines()[1:]]


class Kill(keras.callbacks.Callback):
    """Sends this process signals after a step, as a user or a batch system would."""

    def __init__(self, after: int, *signals: signal.Signals):
        super().__init__()
        self.after, self.signals = after, signals

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if batch + 1 == self.after:
            for number in self.signals:
                os.kill(os.getpid(), number)


def test_the_run_depends_on_every_state_that_is_saved(whole: Path) -> None:
    saved = checkpoint.read(whole / "checkpoints" / f"step-{STEPS:06d}.npz")
    assert saved.arrays["state/seen"].shape == (STEPS,)
    assert any("seed_generator" in v.path for v in FAMILY.build(Config()).variables)
    assert sum(key.startswith("optimizer/optimizer/") for key in saved.arrays) > 10
    assert saved.arrays["optimizer/optimizer/00000"] == STEPS


def test_resume_is_bit_equal(seven: Path, whole: Path) -> None:
    """Step 7 is inside an interval of the log, of the previews and of the checkpoints."""
    assert card(seven)["state"] == "done"
    np.random.seed(99)  # another process would not have our random states
    train(FAMILY, Config(steps=STEPS), seven, resume=True, command="again", **OPTIONS)
    assert_same_end(seven, whole)
    now = card(seven)
    assert (now["state"], now["step"], now["steps"], now["config"]["steps"]) == ("done", STEPS, STEPS, STEPS)
    assert now["resumed"] == [{"step": 7, "command": "again"}]
    assert now["seconds"] > 0
    assert "steps = 12\n" in (seven / "config.toml").read_text(encoding="utf-8")
    assert steps_of(seven / "log.csv") == [5, 7, 10, 12]


def test_without_the_data_position_the_end_differs(tmp_path: Path, whole: Path) -> None:
    """The comparison sees a stream that restarts at its first batch: it is not blind."""
    restarting = dataclasses.replace(FAMILY, source=stream(lambda config, start: FAMILY.batches(config)))
    train(restarting, Config(steps=6), tmp_path / "run", **OPTIONS)
    train(restarting, Config(steps=STEPS), tmp_path / "run", resume=True, **OPTIONS)
    with pytest.raises(AssertionError):
        assert_same_end(tmp_path / "run", whole)


def test_previews_and_checkpoints_leave_no_trace_in_the_weights(tmp_path: Path, whole: Path) -> None:
    train(FAMILY, Config(steps=STEPS), tmp_path / "run", save_every=100, preview_every=0, log_every=3, progress=False)
    assert_same_end(tmp_path / "run", whole)


def test_sigterm_saves_and_resume_is_bit_equal(tmp_path: Path, whole: Path) -> None:
    number = signal.SIGTERM
    before = signal.signal(number, signal.default_int_handler)
    try:
        with pytest.raises(Interrupted, match=r"stopped at step 8 of 12.*--resume") as caught:
            train(FAMILY, Config(steps=STEPS), tmp_path / "run", callbacks=[Kill(8, number)], **OPTIONS)
        assert signal.getsignal(number) is signal.default_int_handler
    finally:
        signal.signal(number, before)
    assert caught.value.exit_code == 130
    assert (card(tmp_path / "run")["state"], card(tmp_path / "run")["step"]) == ("interrupted", 8)
    train(FAMILY, None, tmp_path / "run", resume=True, **OPTIONS)
    assert_same_end(tmp_path / "run", whole)
    assert card(tmp_path / "run")["state"] == "done"
    assert "error" not in card(tmp_path / "run")
    assert steps_of(tmp_path / "run" / "log.csv") == [5, 10, 12]


def test_second_ctrl_c_aborts_at_once(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(FAMILY, Config(), tmp_path / "run", callbacks=[Kill(7, signal.SIGINT, signal.SIGINT)], **OPTIONS)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert (card(tmp_path / "run")["state"], card(tmp_path / "run")["step"]) == ("interrupted", 5)


def test_an_ignored_signal_stays_ignored(tmp_path: Path) -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        result = train(FAMILY, Config(), tmp_path / "run", callbacks=[Kill(3, signal.SIGINT)], **OPTIONS)
    finally:
        signal.signal(signal.SIGINT, before)
    assert result.step == 12


CHILD = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
import keras
from kerasmodels.errors import KerasModelsError
from kerasmodels.training import train
from tests.training.autoencoder import FAMILY, Config

class Wait(keras.callbacks.Callback):
    def on_train_batch_end(self, batch, logs=None):
        if batch + 1 == 7:
            print("waiting", flush=True)
            sys.stdin.readline()

try:
    train(FAMILY, Config(steps=12), sys.argv[1], callbacks=[Wait()], save_every=5, preview_every=4, log_every=5)
except KerasModelsError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_code)
"""


def test_ctrl_c_in_another_process(tmp_path: Path, whole: Path, root: Path) -> None:
    command = [sys.executable, "-c", CHILD, str(tmp_path / "run")]
    with subprocess.Popen(command, stdin=-1, stdout=-1, stderr=-1, text=True, cwd=root) as child:
        assert child.stdin is not None
        assert child.stdout is not None
        assert child.stdout.readline() == "waiting\n"
        child.send_signal(signal.SIGINT)
        output, errors = child.communicate("go on\n", timeout=60)
    assert child.returncode == 130, errors
    assert output == ""
    assert "step 5/12  loss" in errors
    assert "stopping after this step" in errors
    assert "stopped at step 7 of 12" in errors
    train(FAMILY, None, tmp_path / "run", resume=True, **OPTIONS)
    assert_same_end(tmp_path / "run", whole)


def damage(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle : middle + 4] = bytes(255 - b for b in content[middle : middle + 4])
    path.write_bytes(content)


@pytest.mark.parametrize("how", ["flipped", "truncated", "not an archive"])
def test_damaged_checkpoint_falls_back(how: str, seven: Path, whole: Path, capsys: pytest.CaptureFixture[str]) -> None:
    newest = seven / "checkpoints" / "step-000007.npz"
    if how == "flipped":
        damage(newest)
    elif how == "truncated":
        newest.write_bytes(newest.read_bytes()[: newest.stat().st_size // 2])
    else:
        newest.write_bytes(b"no archive at all" * 100)
    train(FAMILY, Config(steps=STEPS), seven, resume=True, **OPTIONS)
    assert "step-000007.npz is damaged" in capsys.readouterr().err
    assert_same_end(seven, whole)
    assert card(seven)["resumed"][0]["step"] == 5
    assert newest.with_suffix(".damaged").is_file()
    # The row of step 7 came from steps that were lost.
    assert steps_of(seven / "log.csv") == [5, 10, 12]


def test_no_readable_checkpoint_is_an_error_that_touches_nothing(seven: Path) -> None:
    damage(seven / "checkpoints" / "step-000007.npz")
    (seven / "checkpoints" / "step-000005.npz").write_bytes(b"")
    before = files(seven)
    with pytest.raises(TrainingError, match=r"expected a readable checkpoint.*step-000007.*step-000005"):
        train(FAMILY, None, seven, resume=True, **OPTIONS)
    assert files(seven) == before


def test_checkpoint_of_another_config_is_refused(seven: Path) -> None:
    changed = card(seven)
    changed["config"]["learning_rate"] = 0.5
    (seven / "run.json").write_text(json.dumps(changed))
    with pytest.raises(TrainingError, match=r"another config than run\.json"):
        train(FAMILY, None, seven, resume=True, **OPTIONS)


def test_run_killed_before_its_first_checkpoint_starts_again(seven: Path, whole: Path) -> None:
    (seven / "checkpoints" / "step-000005.npz").unlink()
    (seven / "checkpoints" / "step-000007.npz").rename(seven / "checkpoints" / ".step-000007.npz.12345678.part")
    (seven / "weights.npz").rename(seven / ".weights.npz.abcdefgh.part")
    storage.write_json(seven / "run.json", {**card(seven), "step": 0, "state": "training", "pid": 1})
    train(FAMILY, Config(steps=STEPS), seven, resume=True, **OPTIONS)
    assert_same_end(seven, whole)
    assert not list(seven.rglob("*.part"))
    assert steps_of(seven / "log.csv") == [5, 10, 12]
    assert "pid" not in card(seven)


@pytest.mark.parametrize("left", ["nothing", "an older one"])
def test_a_run_is_not_begun_anew_over_what_it_made(seven: Path, left: str) -> None:
    for path in checkpoint.paths(seven / "checkpoints")[: 1 if left == "an older one" else None]:
        path.unlink()
    before = files(seven)
    error, steps = (TrainingError, 12) if left == "nothing" else (UsageError, 6)
    match = "7 steps are done.*--start-from" if left == "nothing" else "steps >= 7, which this run has done already"
    with pytest.raises(error, match=match):
        train(FAMILY, Config(steps=steps), seven, resume=True, **OPTIONS)
    assert files(seven) == before


def test_a_run_remembers_how_often_it_saves_and_survives_damaged_pictures(
    seven: Path, whole: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also: the log goes on after rows that are damaged, and pictures and pages are no reason to end a training."""
    (seven / "samples" / "step-000004-rebuilt.png").write_bytes(b"no picture")
    with open(seven / "log.csv", "ab") as log:
        log.write(b"6,\xff\x00,x,y,z\n6,1")
    train(FAMILY, Config(steps=STEPS), seven, resume=True, preview_every=3, progress=False)
    assert_same_end(seven, whole)
    assert card(seven)["options"] == {"save_every": 5, "preview_every": 3, "log_every": 5, "deterministic": False}
    assert steps_of(seven / "log.csv") == [5, 7, 10, 12]
    assert [p.stem for p in checkpoint.paths(seven / "checkpoints")] == ["step-000012", "step-000010"]
    assert (seven / "samples" / "step-000009-rebuilt.png").exists()
    page = (seven / "gallery.html").read_text(encoding="utf-8")
    assert "step-000004-rebuilt.png cannot be read" in page
    assert "jumps" not in capsys.readouterr().err


def test_two_trainings_do_not_share_a_folder(seven: Path, tmp_path: Path) -> None:
    storage.write_json(seven / "run.json", {**card(seven), "pid": 4321})
    with RunFolder(seven).held(), pytest.raises(TrainingError, match="where process 4321 trains"):
        train(FAMILY, Config(steps=STEPS), seven, resume=True, **OPTIONS)
    with RunFolder(tmp_path / "new").held(), pytest.raises(TrainingError, match="where another process trains"):
        train(FAMILY, Config(steps=1), tmp_path / "new", **OPTIONS)


def test_another_schedule_is_told(seven: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def decaying(config: Any, dtype: Any = None) -> Any:
        model: Any = FAMILY.model(config, dtype)
        model.learning_rate = keras.optimizers.schedules.PolynomialDecay(0.01, config.steps, 0.0)
        return model

    family = dataclasses.replace(FAMILY, model=decaying)
    train(family, Config(steps=2), tmp_path / "decaying", **OPTIONS)
    train(family, Config(steps=4), tmp_path / "decaying", resume=True, **OPTIONS)
    assert "learning rate of optimizer jumps from 0 to 0.005 at step 2" in capsys.readouterr().err


def test_finished_run_resumed_to_the_same_steps_is_left_alone(seven: Path) -> None:
    before = files(seven)
    result = train(FAMILY, None, seven, resume=True, **OPTIONS)
    assert result.step == 7
    assert result.metrics.keys() == {"loss", "content", "smoothness"}
    assert files(seven) == before


def test_what_cannot_be_resumed(tmp_path: Path, whole: Path) -> None:
    before = files(whole)
    with pytest.raises(UsageError, match=r"learning_rate=0.5 \(the run's: 0.01\)"):
        train(FAMILY, Config(learning_rate=0.5), whole, resume=True)
    with pytest.raises(UsageError, match="a run of other"):
        train(dataclasses.replace(FAMILY, name="other"), None, whole, resume=True)
    with pytest.raises(UsageError, match="steps >= 12"):
        train(FAMILY, Config(steps=3), whole, resume=True)
    with pytest.raises(UsageError, match="expected a run folder"):
        train(FAMILY, None, tmp_path, resume=True)
    assert files(whole) == before
    (tmp_path / "run.json").write_text('{"family": "autoenc')
    with pytest.raises(TrainingError, match=r"run\.json is damaged"):
        train(FAMILY, None, tmp_path, resume=True)


MIRRORED = """
import sys
from pathlib import Path
import tensorflow as tf
cpu = tf.config.list_physical_devices("CPU")[0]
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from kerasmodels.training import train
from tests.training.autoencoder import FAMILY, Config

def go(folder, steps, resume=False):
    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    train(FAMILY, Config(steps=steps, batch=4), Path(sys.argv[1]) / folder, resume=resume, strategy=strategy,
          save_every=5, preview_every=4, log_every=5, progress=False)

go("whole", 12)
go("run", 7)
go("run", 12, resume=True)
"""


@pytest.mark.slow
def test_resume_is_bit_equal_on_two_devices(tmp_path: Path, root: Path) -> None:
    """In its own process, because devices are split before TensorFlow starts."""
    subprocess.run([sys.executable, "-c", MIRRORED, str(tmp_path)], check=True, cwd=root)
    ours, theirs = (checkpoint.read(tmp_path / f / "checkpoints" / "step-000012.npz") for f in ("run", "whole"))
    assert ours.arrays.keys() == theirs.arrays.keys()
    for key, value in theirs.arrays.items():
        # Both replicas draw from one NumPy stream, in whichever order they come.
        if key != "state/seen":
            np.testing.assert_array_equal(ours.arrays[key], value, err_msg=key)
