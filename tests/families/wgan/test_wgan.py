"""WGAN: the papers' networks and schedule, what a step does, the command on files."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.claims import wgan as claims
from kerasmodels.data import read_image
from kerasmodels.errors import DataError, UsageError
from kerasmodels.models import wgan
from tests.cases import case_of, untrained

TINY_WGAN = case_of("wgan")


def trainable(model):
    return sum(int(np.prod(v.shape)) for v in model.trainable_variables)


@pytest.mark.parametrize(
    ("config", "generator", "critic"),
    [
        (wgan.Config(), 3_576_704, 2_765_568),
        (wgan.Config(network="mlp"), 6_880_768, 6_817_793),
        (wgan.VARIANTS["digits"], 1_554_177, 1_030_145),
    ],
    ids=["dcgan", "mlp", "digits"],
)
def test_parameters_are_the_papers(config, generator, critic):
    model = wgan.WGAN(config)
    assert (trainable(model.generator), trainable(model.critic)) == (generator, critic)
    shape = (2, config.size, config.size, config.channels)
    made = model(np.zeros((2, config.latent), "float32"))
    assert tuple(made.shape) == shape
    assert tuple(model.critic(made).shape) == (2, 1)


@pytest.fixture
def config(tmp_path: Path) -> wgan.Config:
    return dataclasses.replace(TINY_WGAN.config, **TINY_WGAN.data(tmp_path))


def test_clipped_critic_stays_in_its_box(config):
    model = wgan.FAMILY.build(config)
    assert any(np.abs(v.numpy()).max() > config.clip for v in model.critic.trainable_variables)
    model.fit(wgan.FAMILY.batches(config), steps_per_epoch=1, shuffle=False, verbose=0)
    for variable in model.critic.trainable_variables:
        assert np.abs(variable.numpy()).max() <= np.float32(config.clip)
    assert any(np.abs(v.numpy()).max() > config.clip for v in model.generator.trainable_variables)


def test_a_step_is_all_updates_of_the_critic_and_one_of_the_generator(config):
    config = dataclasses.replace(config, critic_steps=3)
    model = wgan.FAMILY.build(config)
    model.fit(wgan.FAMILY.batches(config), steps_per_epoch=2, shuffle=False, verbose=0)
    assert int(model.optimizers["critic"].iterations) == 6
    assert int(model.optimizers["generator"].iterations) == 2


def test_schedule_of_the_code(config):
    config = dataclasses.replace(config, schedule="code", size=4 * 4)
    stream = iter(wgan.FAMILY.batches(config, start=23))
    assert [next(stream).shape[0] for _ in range(4)] == [100, 100, config.critic_steps, config.critic_steps]
    assert next(iter(wgan.FAMILY.batches(config, start=500))).shape[0] == 100


def test_loss_is_minus_the_distance_plus_the_penalty(tmp_path: Path):
    config = wgan.Config(
        network="mlp", size=8, width=4, latent=4, lipschitz="penalty", penalty_weight=7.0, critic_steps=1, batch=4,
        **TINY_WGAN.data(tmp_path),
    )  # fmt: skip
    model = wgan.FAMILY.build(config)
    history = model.fit(wgan.FAMILY.batches(config), steps_per_epoch=1, shuffle=False, verbose=0).history
    (loss,), (distance,), (penalty,) = (history[name] for name in ("loss", "distance", "penalty"))
    assert loss == pytest.approx(-distance + 7 * penalty, rel=1e-5)
    assert penalty > 0


def test_a_trained_critic_tells_apart_and_the_generator_follows():
    """One-color pictures: the generator's mean brightness goes to theirs."""
    config = wgan.Config(
        network="mlp", size=4, channels=1, width=8, latent=2, lipschitz="penalty", learning_rate=2e-3, batch=16
    )
    keras.utils.set_random_seed(0)
    model = wgan.WGAN(config)
    model.compile({side: keras.optimizers.Adam(2e-3, 0.5, 0.9) for side in ("generator", "critic")})
    pictures = tf.fill((5, 16, 4, 4, 1), 200.0)
    data = tf.data.Dataset.from_tensors(pictures).repeat()
    latent = np.random.default_rng(0).normal(size=(64, 2)).astype("float32")
    before = abs(float(np.mean(model(latent))) - 200)
    model.fit(data, steps_per_epoch=120, shuffle=False, verbose=0)
    assert abs(float(np.mean(model(latent))) - 200) < 0.2 * before


def test_sheets(config, tmp_path: Path):
    untrained(wgan.FAMILY, config, tmp_path / "run")
    options = wgan.FAMILY.task.options(out=tmp_path / "a.png", run=tmp_path / "run", rows=3, columns=5)
    report = wgan.FAMILY.task.run(options)
    first = read_image(report.outputs[0])
    assert first.shape == (3 * 16, 5 * 16, 3)
    again = wgan.FAMILY.task.run(dataclasses.replace(options, out=tmp_path / "b.png"))
    np.testing.assert_array_equal(read_image(again.outputs[0]), first)
    other = wgan.FAMILY.task.run(dataclasses.replace(options, out=tmp_path / "c.png", seed=1))
    assert (read_image(other.outputs[0]) != first).any()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"size": 48}, "size in"),
        ({"network": "digits"}, "size 28"),
        ({"network": "cnn"}, "network: 'dcgan', 'mlp' or 'digits'"),
        ({"channels": 2}, "channels: 1 or 3"),
        ({"lipschitz": "penalty"}, "mlp or digits"),
        ({"clip": 0}, "clip > 0"),
        ({"critic_steps": 0}, "critic_steps > 0"),
    ],
)
def test_config_out_of_range(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(wgan.Config(), **change)


def test_mistakes(tmp_path: Path):
    with pytest.raises(UsageError, match="training needs pictures: --pictures"):
        wgan.FAMILY.batches(wgan.Config())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        wgan.FAMILY.batches(wgan.Config(pictures=tmp_path / "empty"))
    with pytest.raises(UsageError, match="one of --preset NAME and --run"):
        wgan.FAMILY.task.run(wgan.FAMILY.task.options(out=tmp_path / "a.png"))
    with pytest.raises(UsageError, match="rows > 0"):
        wgan.FAMILY.task.run(wgan.FAMILY.task.options(out=tmp_path / "a.png", run=tmp_path, rows=0))


def test_parallel_lines_are_the_paper_s(tmp_path: Path):
    found = claims.lines(None, tmp_path, quick=True)
    assert all(claim.passed for claim in found)
    assert (tmp_path / "wgan_lines.png").is_file()
