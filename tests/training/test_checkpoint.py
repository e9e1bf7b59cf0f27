"""Checkpoints of models that keep more than one optimizer, and what saving refuses."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasmodels.errors import DivergedError, TrainingError
from kerasmodels.training import checkpoint
from tests.training.autoencoder import FAMILY, Config

SOURCE = FAMILY.sourced(Config())


class Rivals(keras.Model):
    """Two networks with an optimizer each, and a list of further ones, as adversarial papers have them."""

    def __init__(self) -> None:
        super().__init__()
        self.maker, self.critic = keras.layers.Dense(2), keras.layers.Dense(1)
        self.maker_optimizer, self.critic_optimizer = keras.optimizers.Adam(0.1), keras.optimizers.RMSprop(0.1)
        self.further = [keras.optimizers.SGD(0.1, momentum=0.9)]
        self.maker.build((None, 2))
        self.critic.build((None, 2))

    def build_optimizers(self) -> None:
        self.maker_optimizer.build(self.maker.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)

    def step(self, seed: int) -> None:
        rng = np.random.default_rng(seed)
        for optimizer, layer in ((self.maker_optimizer, self.maker), (self.critic_optimizer, self.critic)):
            optimizer.apply([rng.normal(size=v.shape).astype("float32") for v in layer.trainable_variables])


def test_every_optimizer_comes_back(tmp_path: Path) -> None:
    one, other = Rivals(), Rivals()
    for model in (one, other):
        model.build_optimizers()
        model.further[0].build(model.critic.trainable_variables)
    assert set(checkpoint.optimizers(one)) == {"maker_optimizer", "critic_optimizer", "further.0"}
    one.step(1)
    checkpoint.restore(other, SOURCE, checkpoint.read(checkpoint.save(one, SOURCE, tmp_path, 1, 2.5, {})))
    for model in (one, other):
        model.step(2)
    for mine, his in zip(one.weights, other.weights, strict=True):
        np.testing.assert_array_equal(mine.numpy(), his.numpy())


def test_optimizer_that_is_not_built_is_named() -> None:
    model = Rivals()
    model.build_optimizers()
    with pytest.raises(TrainingError, match=r"further\.0.*is not"):
        checkpoint.optimizers(model)


def test_variables_that_are_not_finite_are_not_saved(tmp_path: Path) -> None:
    model = FAMILY.build(Config())
    checkpoint.save(model, SOURCE, tmp_path, 1, 0.0, {})
    model.trainable_variables[0].assign(np.full(model.trainable_variables[0].shape, np.inf))
    with pytest.raises(DivergedError, match=r"variable conv2d\S*/kernel is inf at step 2"):
        checkpoint.save(model, SOURCE, tmp_path, 2, 0.0, {})
    assert [p.name for p in tmp_path.iterdir()] == ["step-000001.npz"]


def test_checkpoint_of_another_network_changes_nothing(tmp_path: Path) -> None:
    wide = FAMILY.build(dataclasses.replace(Config(), widths=(4, 9)))
    deep = FAMILY.build(dataclasses.replace(Config(), widths=(4, 8, 8)))
    model = FAMILY.build(Config())
    before = [v.numpy() for v in model.variables]
    for stranger, message in ((wide, "expected shape"), (deep, r"expected \d+ variables")):
        path = checkpoint.save(stranger, SOURCE, tmp_path, 1, 0.0, {})
        with pytest.raises(TrainingError, match=message):
            checkpoint.restore(model, SOURCE, checkpoint.read(path))
    for variable, value in zip(model.variables, before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)


def test_only_the_last_two_are_kept(tmp_path: Path) -> None:
    model = FAMILY.build(Config())
    for step in (2, 10, 9, 1000000):
        checkpoint.save(model, SOURCE, tmp_path, step, 0.0, {})
    assert [p.name for p in checkpoint.paths(tmp_path)] == ["step-1000000.npz", "step-000010.npz"]


def test_state_that_would_need_pickle_is_refused(tmp_path: Path) -> None:
    model = FAMILY.build(Config())
    model.seen = [None]
    with pytest.raises(TypeError, match="arrays of numbers"):
        checkpoint.save(model, SOURCE, tmp_path, 1, 0.0, {})
    assert not list(tmp_path.iterdir())
