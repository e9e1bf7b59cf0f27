import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.layers import InstanceNormalization


@pytest.mark.parametrize("shape", [(2, 9, 4), (2, 6, 5, 4), (2, 3, 4, 5, 4)])
def test_equals_its_formula_at_any_rank(shape):
    x = np.random.default_rng(0).normal(3, 20, shape).astype("float32")
    layer = InstanceNormalization(epsilon=1e-3)
    layer.build(shape)
    gamma, beta = np.array([0.5, 1, 2, -1], "float32"), np.array([0, 1, -2, 3], "float32")
    layer.set_weights([gamma, beta])
    axes = tuple(range(1, len(shape) - 1))
    expected = (x - x.mean(axes, keepdims=True)) / np.sqrt(x.var(axes, keepdims=True) + 1e-3) * gamma + beta
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


def test_equals_group_normalization_of_one_channel_a_group():
    x = np.random.default_rng(1).normal(0, 3, (2, 7, 8, 6)).astype("float32")
    np.testing.assert_allclose(
        InstanceNormalization()(x), keras.layers.GroupNormalization(-1, epsilon=1e-5)(x), atol=2e-6
    )


def test_channels_first_equals_channels_last():
    x = np.random.default_rng(2).normal(0, 3, (2, 7, 8, 6)).astype("float32")
    first = InstanceNormalization(axis=1)(x.transpose(0, 3, 1, 2))
    np.testing.assert_allclose(np.transpose(first, (0, 2, 3, 1)), InstanceNormalization()(x), atol=1e-6)


def test_ignores_brightness_and_contrast():
    """The property it was invented for: y(a x + b) == y(x), per channel."""
    x = np.random.default_rng(3).normal(0, 1, (1, 16, 16, 3)).astype("float32")
    np.testing.assert_allclose(
        InstanceNormalization()(x * [3, 50, 7] + [9, -4, 100]), InstanceNormalization()(x), atol=1e-4
    )


@pytest.mark.parametrize("axis", [-1, 1])
@pytest.mark.parametrize("compiled", [False, True])
def test_a_flat_map_becomes_exactly_0(axis, compiled):
    """Whatever its value and size: a mean's rounding must not be taken for a pattern, and grow from layer to layer."""
    layer = InstanceNormalization(axis=axis)
    for size in ((2, 2), (37, 61), (96, 128)):
        flat = np.broadcast_to(np.float32([1 / 3, -70.1, 1e4]), (2, *size, 3))
        flat = np.moveaxis(flat, -1, axis) if axis == 1 else flat
        call = tf.function(layer, jit_compile=True) if compiled else layer
        assert not np.any(call(flat))


def test_statistics_stay_float32_under_mixed_precision():
    # In bfloat16 the mean of values near 1000 would lose everything but the mean itself.
    x = (1000 + np.random.default_rng(4).normal(0, 1, (1, 32, 32, 2))).astype("float32")
    layer = InstanceNormalization(dtype=keras.DTypePolicy("mixed_float16"))
    y = np.asarray(layer(x), "float32")
    assert keras.backend.standardize_dtype(layer(x).dtype) == "float16"
    assert abs(y.std() - 1) < 0.1


@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("scale", [False, True])
def test_first_and_second_gradients_are_those_of_the_formula(scale, compiled):
    random = np.random.default_rng(5)
    x, w = (tf.constant(random.normal(0, 1, (2, 5, 4, 3)), tf.float32) for _ in range(2))
    layer = InstanceNormalization(scale=scale, center=False, gamma_initializer="random_uniform")
    layer.build(x.shape)
    gamma = layer.gamma.value if scale else tf.ones(3)

    def formula(x):
        mean, variance = tf.nn.moments(x, (1, 2), keepdims=True)
        return (x - mean) * tf.math.rsqrt(variance + layer.epsilon) * gamma

    def gradients(function):
        with tf.GradientTape() as outer:
            outer.watch([x, gamma])
            with tf.GradientTape() as inner:
                inner.watch([x, gamma])
                y = tf.reduce_sum(w * tf.sin(function(x)))
            first = inner.gradient(y, [x, gamma] if scale else [x])
            length = sum(tf.reduce_sum(part**2) for part in first)
        return [*first, outer.gradient(length, x)]

    ours, expected = ((tf.function(gradients) if compiled else gradients)(f) for f in (layer, formula))
    for got, wanted in zip(ours, expected, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-4 * float(tf.reduce_max(abs(wanted))))


def test_learns_nothing_without_scale_and_center():
    layer = InstanceNormalization(scale=False, center=False)
    layer.build((None, 8, 8, 3))
    assert layer.weights == []


@pytest.mark.parametrize(
    ("make", "shape", "words"),
    [
        (lambda: InstanceNormalization(axis=2), None, "axis"),
        (lambda: InstanceNormalization(epsilon=0), None, "epsilon"),
        (InstanceNormalization, (None, 4), "rank >= 3"),
        (InstanceNormalization, (None, 8, 8, None), "known number of channels"),
    ],
)
def test_says_what_is_wrong(make, shape, words):
    with pytest.raises(ValueError, match=words):
        make().build(shape)


@pytest.mark.parametrize("compiled", [False, True])
def test_batch_of_none_has_gradients_of_zero(compiled):
    layer = InstanceNormalization()
    layer.build((None, 5, 4, 3))

    def gradients(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(layer(x)))
        return tape.gradient(loss, [x, layer.gamma.value])

    function = tf.function(gradients, input_signature=[tf.TensorSpec((None, 5, 4, 3))]) if compiled else gradients
    of_x, of_gamma = function(tf.zeros((0, 5, 4, 3)))
    assert of_x.shape == (0, 5, 4, 3)
    np.testing.assert_array_equal(of_gamma, 0)
