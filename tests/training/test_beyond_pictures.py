"""The contract holds no picture: batches that depend on the model, a memory that is resumed, text previews, no files.

The toy is a bandit with four arms. It is played with the arm that the model values most, or a random one; what was
played goes into a memory, and each batch is drawn from that.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.config import Config as Options
from kerasmodels.config import PositiveInt, TrainingConfig
from kerasmodels.family import Family, RunReport, Task
from kerasmodels.paper_model import PaperModel
from kerasmodels.training import Interrupted, checkpoint, train

REWARDS = np.array([0.1, 0.9, 0.3, 0.5], "float32")


class Config(TrainingConfig):
    steps: PositiveInt = 40
    batch: PositiveInt = 8


def _values(config: Config) -> keras.Model:
    arm = keras.Input((4,), name="arm")
    return keras.Model(arm, keras.layers.Dense(1, use_bias=False, name="value")(arm), name="values")


@keras.saving.register_keras_serializable("kerasmodels_tests")
class Bandit(PaperModel):
    """(N, 4) one-hot arms -> (N, 1) values."""

    Config = Config
    family_name = "bandit"
    networks = {"values": _values}  # noqa: RUF012

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.values(inputs)

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        return keras.optimizers.SGD(1.0)

    def train_step(self, data: Any) -> dict[str, Any]:
        arms, rewards = data
        with tf.GradientTape() as tape:
            loss = tf.reduce_mean(tf.square(self.values(arms) - rewards))
        self.minimize("all", loss, tape)
        self.report(loss=loss)
        return self.reported()


class Replay:
    """Plays with the model, remembers, and draws from what it remembers."""

    def __init__(self, config: Config):
        self.config, self.random = config, np.random.default_rng(config.seed)
        self.memory = np.zeros((0, 2), "float32")

    def batches(self, model: Any, start: int) -> tf.data.Dataset:
        def play() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            while True:
                values = model.values(np.eye(4, dtype="float32")).numpy()[:, 0]
                arm = int(self.random.integers(4) if self.random.random() < 0.3 else values.argmax())
                reward = REWARDS[arm] + 0.01 * self.random.standard_normal()
                self.memory = np.concatenate([self.memory, [[arm, reward]]])[-32:].astype("float32")
                drawn = self.memory[self.random.integers(len(self.memory), size=self.config.batch)]
                yield np.eye(4, dtype="float32")[drawn[:, 0].astype(int)], drawn[:, 1:]

        specs = (tf.TensorSpec((None, 4), tf.float32), tf.TensorSpec((None, 1), tf.float32))
        options = tf.data.Options()
        # A batch that is made ahead would not know the model's last update.
        options.experimental_optimization.inject_prefetch = False
        return tf.data.Dataset.from_generator(play, output_signature=specs).with_options(options)

    def state(self) -> dict[str, np.ndarray]:
        generator = json.dumps(self.random.bit_generator.state).encode()
        return {"memory": self.memory, "generator": np.frombuffer(generator, "uint8")}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.memory = state["memory"]
        self.random.bit_generator.state = json.loads(state["generator"].tobytes())


class Guess(Options):
    """Which arm is best?"""

    value: float = 0.0
    """What an arm must be worth."""


FAMILY = Family(
    name="bandit",
    config=Config,
    variants={"paper": Config()},
    model=Bandit,
    servables=lambda model: {},
    task=Task(
        Guess, lambda options: RunReport(facts={"arms": [int(k) for k in np.flatnonzero(options.value < REWARDS)]})
    ),
    source=Replay,
    preview=lambda model: {"values": f"arms: {model.values(np.eye(4, dtype='float32')).numpy()[:, 0].round(2)} <&>"},
)
OPTIONS: dict[str, Any] = {"save_every": 10, "preview_every": 20, "log_every": 10, "progress": False}


class _Stop(keras.callbacks.Callback):
    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if batch == 18:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("bandit") / "whole"
    train(FAMILY, Config(), folder, **OPTIONS)
    return folder


def test_it_learns_from_what_it_plays(whole: Path) -> None:
    model = FAMILY.model(Config.from_dict(json.loads((whole / "run.json").read_text())["config"]))
    checkpoint.restore(_compiled(model), Replay(Config()), checkpoint.read(whole / "checkpoints" / "step-000040.npz"))
    assert int(model.values(np.eye(4, dtype="float32")).numpy()[:, 0].argmax()) == 1


def _compiled(model: Bandit) -> Bandit:
    model.compile()
    return model


def test_memory_and_random_state_are_resumed_exactly(whole: Path, tmp_path: Path) -> None:
    """Stopped after a step that is no checkpoint's, it goes on from the last checkpoint as if it had never stopped."""
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(FAMILY, Config(), tmp_path / "run", callbacks=[_Stop()], **OPTIONS)
    train(FAMILY, None, tmp_path / "run", resume=True, **OPTIONS)
    ours, theirs = (checkpoint.read(f / "checkpoints" / "step-000040.npz") for f in (tmp_path / "run", whole))
    assert {key for key in theirs.arrays if key.startswith("source/")} == {"source/memory", "source/generator"}
    for key, value in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[key], value, err_msg=key)


def test_a_source_that_forgets_ends_elsewhere(whole: Path, tmp_path: Path) -> None:
    """The comparison above is not blind."""

    class Forgetful(Replay):
        def set_state(self, state: Mapping[str, np.ndarray]) -> None:
            pass

    family = dataclasses.replace(FAMILY, source=Forgetful)
    with pytest.raises((KeyboardInterrupt, Interrupted)):
        train(family, Config(), tmp_path / "run", callbacks=[_Stop()], **OPTIONS)
    train(family, None, tmp_path / "run", resume=True, **OPTIONS)
    ours, theirs = (checkpoint.read(f / "checkpoints" / "step-000040.npz") for f in (tmp_path / "run", whole))
    assert not np.array_equal(ours.arrays["source/memory"], theirs.arrays["source/memory"])


def test_text_previews_are_kept_and_shown(whole: Path) -> None:
    assert sorted(path.name for path in (whole / "samples").iterdir()) == [
        "step-000020-values.txt",
        "step-000040-values.txt",
    ]
    page = (whole / "gallery.html").read_text()
    assert "<pre>arms: [" in page
    assert "&lt;&amp;&gt;" in page


def test_a_task_needs_no_files() -> None:
    report = FAMILY.task.run(Guess(value=0.4))
    assert (report.outputs, report.facts) == ((), {"arms": [1, 3]})
