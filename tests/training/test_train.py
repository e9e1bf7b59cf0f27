"""The run folder, the stops and the refusals of `train`."""

import csv
import dataclasses
import errno
import json
import math
import os
import tomllib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

import kerasmodels as km
from kerasmodels import storage
from kerasmodels.errors import DivergedError, StorageError, TrainingError, UsageError
from kerasmodels.training import NaNStop, checkpoint, dry_run, train
from tests.training.autoencoder import FAMILY, Config
from tests.training.conftest import STEPS

OPTIONS: dict[str, Any] = {"save_every": 5, "preview_every": 4, "log_every": 5, "progress": False}


def rows(folder: Path) -> list[dict[str, str]]:
    with open(folder / "log.csv", newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_run_folder(whole: Path) -> None:
    card = json.loads((whole / "run.json").read_text())
    assert card["family"] == "autoencoder"
    assert Config.from_dict(card["config"]) == Config(steps=STEPS)
    assert (card["seed"], card["step"], card["steps"], card["state"]) == (5, STEPS, STEPS, "done")
    assert set(card["versions"]) == {"python", "keras", "tensorflow", "numpy", "kerasmodels"}
    assert card["seconds"] > 0
    assert card["metrics"].keys() == {"loss", "content", "smoothness"}
    assert [p.name for p in checkpoint.paths(whole / "checkpoints")] == ["step-000012.npz", "step-000010.npz"]
    assert {p.name for p in (whole / "samples").iterdir()} == {
        f"step-{step:06d}-{name}.png" for step in (4, 8, 12) for name in ("original", "rebuilt")
    }
    assert not [p for p in whole.rglob(".*") if p.is_file()]


def test_weights_are_those_of_the_last_checkpoint(whole: Path) -> None:
    saved = checkpoint.read(whole / "checkpoints" / f"step-{STEPS:06d}.npz")
    model = FAMILY.build(Config())
    checkpoint.restore(model, FAMILY.sourced(Config()), saved)
    for mine, written in zip(
        storage.model_arrays(model).values(), storage.load_npz(whole / "weights.npz").values(), strict=True
    ):
        np.testing.assert_array_equal(mine, written)


def test_config_toml_gives_the_config_back(whole: Path) -> None:
    values = tomllib.loads((whole / "config.toml").read_text(encoding="utf-8"))
    assert Config.from_dict(values) == Config(steps=STEPS)
    odd = Config(learning_rate=1e-30, widths=(), schedule={"a b": 1e20, "c": -0.5}, note='\t\\"\x00')
    assert Config.from_dict(tomllib.loads(odd.to_toml())) == odd
    assert "note" not in tomllib.loads(dataclasses.replace(odd, note=None).to_toml())


def test_a_row_is_the_mean_of_its_own_steps(tmp_path: Path, whole: Path) -> None:
    train(FAMILY, Config(steps=STEPS), tmp_path / "run", **OPTIONS | {"log_every": 1})
    each = rows(tmp_path / "run")
    assert [int(r["step"]) for r in each] == list(range(1, STEPS + 1))
    means = rows(whole)
    assert list(means[0]) == ["step", "seconds", "loss", "content", "smoothness", "learning_rate", "examples/s"]
    for row, (first, last) in zip(means, [(0, 5), (5, 10), (10, 12)], strict=True):
        assert int(row["step"]) == last
        for term in ("loss", "content", "smoothness"):
            expected = np.mean([float(r[term]) for r in each[first:last]])
            assert float(row[term]) == pytest.approx(expected, rel=1e-5)
        assert float(row["learning_rate"]) == 0.01
        assert float(row["examples/s"]) > 0
    assert sorted(float(r["seconds"]) for r in means) == [float(r["seconds"]) for r in means]


def test_tensorboard_has_scalars_and_pictures(whole: Path) -> None:
    (events,) = (whole / "tensorboard").iterdir()
    seen = {(value.tag, event.step) for event in EventFileLoader(str(events)).Load() for value in event.summary.value}
    assert {
        ("content", 5),
        ("content", 10),
        ("loss", 12),
        ("learning_rate", 5),
        ("previews", 4),
        ("previews", 12),
    } <= seen


def test_existing_run_is_not_overwritten(whole: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()}
    with pytest.raises(UsageError, match=r"already holds run\.json.*--resume"):
        train(FAMILY, Config(), whole, **OPTIONS)
    assert {p: p.read_bytes() for p in whole.rglob("*") if p.is_file()} == before
    (tmp_path / "weights.npz").write_bytes(b"precious")
    with pytest.raises(UsageError, match=r"already holds weights\.npz"):
        train(FAMILY, Config(), tmp_path, **OPTIONS)
    assert (tmp_path / "weights.npz").read_bytes() == b"precious"


@pytest.mark.parametrize("place", ["file", "file/run"])
def test_a_file_where_the_folder_should_be(place: str, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(StorageError, match="a file is where a folder is needed"):
        train(FAMILY, Config(), tmp_path / place, **OPTIONS)
    assert (tmp_path / "file").read_text() == "mine"


def test_unwritable_place() -> None:
    with pytest.raises(StorageError, match="cannot write"):
        train(FAMILY, Config(), "/proc/kerasmodels", **OPTIONS)


class FullDisk(keras.callbacks.Callback):
    """From a step on, syncing a file fails as it does on a full disk."""

    def __init__(self, after: int, monkeypatch: pytest.MonkeyPatch):
        super().__init__()
        self.after, self.monkeypatch = after, monkeypatch

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        def full(descriptor: int) -> None:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        if batch + 1 == self.after:
            self.monkeypatch.setattr(os, "fsync", full)


def test_full_disk_keeps_the_previous_checkpoint(tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "run"
    with pytest.raises(StorageError, match=r"step-000010\.npz: the disk is full"):
        train(FAMILY, Config(), folder, **OPTIONS | {"preview_every": 0}, callbacks=[FullDisk(9, monkeypatch)])
    monkeypatch.undo()
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000005.npz"]
    result = train(FAMILY, None, folder, resume=True, **OPTIONS)
    ours, theirs = storage.load_npz(folder / "weights.npz"), storage.load_npz(whole / "weights.npz")
    for mine, his in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_array_equal(mine, his)
    assert result.step == STEPS


def test_nan_stop_names_term_and_step_and_keeps_the_weights(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    with pytest.raises(DivergedError, match=r"content is nan at step 8\..*lower learning rate than 0\.01") as caught:
        train(FAMILY, Config(poison=8), folder, **OPTIONS | {"log_every": 3})
    assert (caught.value.step, caught.value.term) == (8, "content")
    assert math.isnan(caught.value.value)
    assert [p.name for p in (folder / "checkpoints").iterdir()] == ["step-000005.npz"]
    saved = checkpoint.read(folder / "checkpoints" / "step-000005.npz")
    model = FAMILY.build(Config())
    checkpoint.restore(model, FAMILY.sourced(Config()), saved)
    for mine, written in zip(
        storage.model_arrays(model).values(), storage.load_npz(folder / "weights.npz").values(), strict=True
    ):
        assert np.isfinite(written).all()
        np.testing.assert_array_equal(mine, written)
    card = json.loads((folder / "run.json").read_text())
    assert (card["state"], card["step"]) == ("failed", 5)
    assert "content is nan at step 8" in card["error"]


def test_nan_stop_in_a_plain_fit_counts_across_epochs() -> None:
    model = FAMILY.build(Config())
    data = FAMILY.batches(Config(poison=8))
    with pytest.raises(DivergedError) as caught:
        model.fit(data, steps_per_epoch=3, epochs=4, callbacks=[NaNStop()], shuffle=False, verbose=0)
    assert (caught.value.step, caught.value.term) == (8, "content")


def test_data_that_ends_is_an_error(tmp_path: Path) -> None:
    def short(config: Config, start: int) -> tf.data.Dataset:
        return FAMILY.batches(config, start=start).take(3)

    family = dataclasses.replace(FAMILY, source=km.family.stream(short))
    with (
        pytest.warns(UserWarning, match="ran out of data"),
        pytest.raises(TrainingError, match=r"endless.*ended at step 3"),
    ):
        train(family, Config(), tmp_path / "run", **OPTIONS)


def test_early_stop_by_a_callback_is_saved_and_can_go_on(tmp_path: Path, whole: Path) -> None:
    class Enough(keras.callbacks.Callback):
        def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
            self.model.stop_training = batch + 1 == 3

    result = train(FAMILY, Config(), tmp_path / "run", callbacks=[Enough()], **OPTIONS)
    assert result.step == 3
    assert json.loads((tmp_path / "run" / "run.json").read_text())["state"] == "done"
    assert checkpoint.paths(tmp_path / "run" / "checkpoints")[0].stem == "step-000003"
    train(FAMILY, None, tmp_path / "run", resume=True, **OPTIONS)
    ours, theirs = (storage.load_npz(f / "weights.npz") for f in (tmp_path / "run", whole))
    for mine, his in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_array_equal(mine, his)


def test_failing_build_leaves_no_folder(tmp_path: Path) -> None:
    def broken(config: Config, dtype: str) -> keras.Model:
        raise km.errors.DataError("no such painting")

    with pytest.raises(km.errors.DataError):
        train(dataclasses.replace(FAMILY, model=broken), Config(), tmp_path / "run")
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("option", [{"save_every": 0}, {"log_every": 0}, {"preview_every": -1}])
def test_intervals_out_of_range(option: dict[str, Any], tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=next(iter(option))):
        train(FAMILY, Config(), tmp_path / "run", **option)
    assert not (tmp_path / "run").exists()


def test_steps_per_execution(tmp_path: Path, whole: Path) -> None:
    """Two steps a call: counted right, equal in the end, and refused where they do not fit."""

    def build(config: Config, dtype: str) -> keras.Model:
        net = FAMILY.model(config)
        net.compile = partial(net.compile, steps_per_execution=2)
        return net

    family = dataclasses.replace(FAMILY, model=build)
    with pytest.raises(UsageError, match="multiples of 2"):
        train(family, Config(steps=7), tmp_path / "odd", **OPTIONS)
    train(family, Config(steps=STEPS), tmp_path / "run", **OPTIONS)
    assert [int(r["step"]) for r in rows(tmp_path / "run")] == [6, 10, 12]
    ours, theirs = (storage.load_npz(f / "weights.npz") for f in (tmp_path / "run", whole))
    for mine, his in zip(ours.values(), theirs.values(), strict=True):
        np.testing.assert_array_equal(mine, his)


def test_strategy_for_several_machines_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"MirroredStrategy.*Received: _DefaultDistributionStrategy"):
        train(FAMILY, Config(), tmp_path / "run", strategy=tf.distribute.get_strategy())
    assert not (tmp_path / "run").exists()


def test_dry_run_says_what_the_first_step_will_be(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    said = dry_run(FAMILY, Config(steps=1000))
    assert not list(tmp_path.iterdir())
    assert json.loads(json.dumps(said)) == said
    assert said["batch"] == "(2, 16, 16, 3) float32"
    assert said["outputs"] == ["(None, 16, 16, 3)"]
    assert said["servables"]["rebuild"]["inputs"]["picture"] == ["batch", 16, 16, 3, "float32"]
    # 3x3 convolutions 3-4-8-3 with biases, and two batch normalizations.
    assert said["parameters"]["trainable"] == (27 * 4 + 4) + (36 * 8 + 8) + (72 * 3 + 3) + 2 * (4 + 8)
    assert said["parameters"]["non_trainable"] == 2 * (4 + 8)
    assert said["estimated_seconds"] == pytest.approx(
        said["seconds_first_step"] + 1000 * said["seconds_per_step"], abs=0.2
    )
    assert said["peak_memory_mb"] > 100
    train(FAMILY, Config(steps=1), tmp_path / "run", **OPTIONS)
    (row,) = rows(tmp_path / "run")
    assert {name: float(row[name]) for name in said["losses"]} == said["losses"]
