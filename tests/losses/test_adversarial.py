"""Adversarial losses: the property that defines each."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import losses
from kerasmodels.errors import DataError, UsageError

random = np.random.default_rng(0)


def slope(function, x):
    x = tf.constant(x, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(x)
        value = function(x)
    return tape.gradient(value, x).numpy()


@pytest.mark.parametrize("game", [losses.STANDARD, losses.LEAST_SQUARES, losses.WASSERSTEIN, losses.energy(5.0)])
def test_the_two_sides_pull_fakes_apart(game):
    """What lowers the discriminator's loss on fakes raises the generator's, and the other way round."""
    real, fake = random.normal(size=9), np.linspace(0.1, 0.9, 9)
    discriminator, generator = slope(lambda x: game.discriminator(real, x), fake), slope(game.generator, fake)
    assert (discriminator * generator < 0).all()


def test_standard_game_is_the_cross_entropy():
    real, fake = random.normal(size=(2, 7, 1))
    entropy = keras.losses.BinaryCrossentropy(from_logits=True)
    expected = entropy(np.ones_like(real), real) + entropy(np.zeros_like(fake), fake)
    np.testing.assert_allclose(losses.STANDARD.discriminator(real, fake), expected, rtol=1e-6)
    np.testing.assert_allclose(losses.STANDARD.generator(fake), entropy(np.ones_like(fake), fake), rtol=1e-6)
    # Non-saturating: where the discriminator is sure, the generator's slope is largest.
    steps = np.abs(slope(losses.STANDARD.generator, [-20.0, 0.0, 20.0]))
    assert steps[0] > steps[1] > steps[2]
    assert steps[0] == pytest.approx(1 / 3, rel=1e-5)


def test_standard_game_at_its_optimum():
    """For equal densities the best discriminator says 1/2; the values are known (Goodfellow 2014, theorem 1)."""
    assert float(losses.STANDARD.discriminator(np.zeros(4), np.zeros(4))) == pytest.approx(2 * np.log(2))


def test_least_squares_is_minimal_at_its_labels():
    assert float(losses.LEAST_SQUARES.discriminator(np.ones(3), np.zeros(3))) == 0
    assert float(losses.LEAST_SQUARES.generator(np.ones(3))) == 0
    assert float(losses.LEAST_SQUARES.discriminator(np.zeros(3), np.ones(3))) == 1


def test_wasserstein_is_linear_and_ignores_a_constant():
    real, fake = random.normal(size=(2, 11))
    value = losses.WASSERSTEIN.discriminator(real, fake)
    np.testing.assert_allclose(losses.WASSERSTEIN.discriminator(real + 3, fake + 3), value, atol=1e-6)
    np.testing.assert_allclose(losses.WASSERSTEIN.discriminator(2 * real, 2 * fake), 2 * value, rtol=1e-5)
    # The authors minimize real - fake: the same game with the critic's sign turned round.
    np.testing.assert_allclose(losses.WASSERSTEIN.discriminator(-fake, -real), value, atol=1e-6)


def test_energies_above_the_margin_do_not_count():
    game = losses.energy(2.0)
    assert slope(lambda x: game.discriminator(np.zeros(3), x), [0.5, 1.9, 2.5]).tolist() == pytest.approx(
        [-1 / 3, -1 / 3, 0.0]
    )
    assert float(game.discriminator(np.zeros(2), np.full(2, 9.0))) == 0
    for margin in (0, -1.0):
        with pytest.raises(UsageError, match=r"margin above 0\. Received"):
            losses.energy(margin)


def test_pulling_away():
    assert float(losses.pulling_away(np.eye(4))) == pytest.approx(0, abs=1e-6)
    assert float(losses.pulling_away(np.ones((5, 3)))) == pytest.approx(1)
    codes = random.normal(size=(6, 2, 3))
    flat = codes.reshape(6, -1)
    pairs = [
        (flat[i] @ flat[j] / np.linalg.norm(flat[i]) / np.linalg.norm(flat[j])) ** 2
        for i in range(6)
        for j in range(6)
        if i != j
    ]
    assert float(losses.pulling_away(codes)) == pytest.approx(np.mean(pairs), abs=1e-6)
    # Only directions count.
    scales = random.uniform(1, 9, (6, 1, 1))
    assert float(losses.pulling_away(scales * codes)) == pytest.approx(float(losses.pulling_away(codes)), abs=1e-6)
    with pytest.raises(DataError, match="at least 2 examples"):
        losses.pulling_away(np.ones((1, 3)))


def test_feature_matching_sees_means_only():
    real, fake = random.normal(size=(8, 5)), random.normal(size=(8, 3, 2))
    shuffled = real[random.permutation(8)]
    assert float(losses.feature_matching([real], [shuffled])) == pytest.approx(0, abs=1e-12)
    expected = 1 + np.mean((fake.mean(0) - 2) ** 2)
    found = losses.feature_matching([real, np.full_like(fake, 2.0)], [real + 1, fake])
    assert float(found) == pytest.approx(expected, rel=1e-5)
    with pytest.raises(DataError, match="same layers"):
        losses.feature_matching([real], [])


def test_cycle_consistency():
    pictures = random.uniform(-1, 1, (2, 4, 4, 3))
    assert float(losses.cycle_consistency(pictures, pictures)) == 0
    assert float(losses.cycle_consistency(pictures, pictures + 0.25)) == pytest.approx(0.25, rel=1e-5)


def test_clip_weights():
    variable = keras.Variable(random.normal(size=(30,)))
    inside = np.abs(variable.numpy()) <= 0.5
    before = variable.numpy()
    losses.clip_weights([variable], 0.5)
    np.testing.assert_array_equal(variable.numpy()[inside], before[inside])
    np.testing.assert_array_equal(np.abs(variable.numpy()[~inside]), 0.5)


def test_penalty_of_a_linear_critic_is_known():
    """A linear critic has one slope everywhere, whatever the points and the mix."""
    for length in (0.0, 0.5, 1.0, 3.0):
        direction = np.array([[0.6], [0.8]]) * length
        penalty = losses.gradient_penalty(
            lambda x, d=direction: x @ tf.constant(d, tf.float32),
            random.normal(size=(5, 2)),
            random.normal(size=(5, 2)),
            random.uniform(size=5).astype("float32"),
        )
        assert float(penalty) == pytest.approx((length - 1) ** 2, abs=1e-5)


def test_penalty_is_of_each_example_by_itself():
    """Points of slopes 0 and 2 are off by 1 each; of their mean slope, 1, nothing would be wrong."""
    critic = lambda x: x**2  # noqa: E731
    ends = np.array([[0.0], [1.0]])
    penalty = losses.gradient_penalty(critic, ends, ends, np.array([0.3, 0.7], "float32"))
    assert float(penalty) == pytest.approx(1, abs=1e-5)
    # And the points lie between each example's own ends.
    between = losses.gradient_penalty(critic, np.array([[1.0]]), np.array([[0.0]]), np.array([0.5], "float32"))
    assert float(between) == pytest.approx(0, abs=1e-6)


def test_penalty_has_a_finite_gradient_where_the_critic_is_flat():
    weight = tf.Variable([[0.0], [0.0]])
    with tf.GradientTape() as tape:
        penalty = losses.gradient_penalty(lambda x: x @ weight, np.ones((3, 2)), np.zeros((3, 2)), tf.ones(3))
    assert np.isfinite(tape.gradient(penalty, weight)).all()
