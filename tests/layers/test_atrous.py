"""Atrous convolution is a dense convolution of subsampled signals, and one with a kernel full of zeros."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import layers

RANDOM = np.random.default_rng(0)
CASES = {
    1: (layers.AtrousConvolution1D, keras.layers.Conv1D, (23,), (3,), (3,)),
    2: (layers.AtrousConvolution2D, keras.layers.Conv2D, (19, 17), (3, 2), (2, 4)),
    3: (layers.AtrousConvolution3D, keras.layers.Conv3D, (9, 8, 11), (3, 2, 2), (2, 3, 2)),
}
dimensions = pytest.mark.parametrize("rank", CASES)


def case(rank, **arguments):
    ours, dense, sizes, kernel, rate = CASES[rank]
    layer = ours(4, kernel, atrous_rate=rate, **arguments)
    x = RANDOM.normal(size=(2, *sizes, 3)).astype("float32")
    layer(x)
    layer.set_weights([RANDOM.normal(size=w.shape) for w in layer.weights])
    return layer, dense, x, kernel, rate


@dimensions
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_equals_dilation_rate(rank, padding):
    layer, dense, x, kernel, rate = case(rank, padding=padding, activation="tanh")
    other = dense(4, kernel, dilation_rate=rate, padding=padding, activation="tanh")
    other.build(x.shape)
    other.set_weights(layer.get_weights())
    assert layer.atrous_rate == rate
    assert layer(x).shape == other(x).shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(layer(x), other(x), atol=1e-5)


@dimensions
@pytest.mark.parametrize("padding", ["valid", "same"])
def test_equals_a_kernel_with_zeros_between(rank, padding):
    layer, dense, x, kernel, rate = case(rank, padding=padding)
    weights, bias = layer.get_weights()
    stuffed = np.zeros((*(1 + (k - 1) * r for k, r in zip(kernel, rate, strict=True)), *weights.shape[-2:]))
    stuffed[tuple(slice(None, None, r) for r in rate)] = weights
    other = dense(4, stuffed.shape[:rank], padding=padding)
    other.build(x.shape)
    other.set_weights([stuffed, bias])
    np.testing.assert_allclose(layer(x), other(x), atol=1e-5)


@dimensions
def test_equals_dense_convolution_of_the_subsampled_signal(rank):
    """Every phase by itself: subsampled by the rate, convolved without holes, put back in its places."""
    layer, dense, x, kernel, rate = case(rank)
    other = dense(4, kernel)
    other.build(x.shape)
    other.set_weights(layer.get_weights())
    expected = np.full(layer(x).shape, np.nan, "float32")
    for phase in itertools.product(*map(range, rate)):
        every = tuple(slice(p, None, r) for p, r in zip(phase, rate, strict=True))
        expected[(slice(None), *every)] = other(x[(slice(None), *every)])
    np.testing.assert_allclose(layer(x), expected, atol=1e-5)


@pytest.mark.parametrize("padding", ["valid", "same"])
def test_gradients_are_those_of_dilation_rate(padding):
    layer, dense, x, kernel, rate = case(2, padding=padding)
    other = dense(4, kernel, dilation_rate=rate, padding=padding)
    other.build(x.shape)
    other.set_weights(layer.get_weights())
    gradients = []
    for one in (layer, other):
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(tf.sin(one(x)))
        gradients.append(tape.gradient(value, one.trainable_weights))
    for ours, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-3)


def test_unknown_size():
    layer, _, x, _, _ = case(2, padding="same")
    traced = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 3))])
    np.testing.assert_allclose(traced(x), layer(x), atol=1e-6)
    # One padding, one convolution: no arithmetic on sizes.
    kinds = {op.type for op in traced.get_concrete_function().graph.get_operations()}
    assert "Shape" not in kinds or "SpaceToBatchND" in kinds, kinds


def test_keras_1_form():
    old = layers.AtrousConvolution2D(4, 3, 5, atrous_rate=(2, 2))
    assert (old.kernel_size, old.dilation_rate) == ((3, 5), (2, 2))
    again = layers.AtrousConvolution2D.from_config(old.get_config())
    assert (again.kernel_size, again.atrous_rate) == ((3, 5), (2, 2))
    with pytest.raises(ValueError, match="atrous_rate"):
        layers.AtrousConvolution2D(4, 3, dilation_rate=2)


# --- atrous spatial pyramid pooling -----------------------------------------------------------------------------------


def test_branches_are_summed():
    head = layers.AtrousSpatialPyramidPooling(5, rates=(1, 3, 6))
    x = RANDOM.normal(size=(2, 15, 14, 4)).astype("float32")
    head(x)
    head.set_weights([RANDOM.normal(size=w.shape) for w in head.weights])
    total = sum(
        tf.nn.conv2d(x, kernel, 1, "SAME", dilations=rate) + bias
        for rate, kernel, bias in zip((1, 3, 6), head.get_weights()[::2], head.get_weights()[1::2], strict=True)
    )
    np.testing.assert_allclose(head(x), total, atol=1e-4)


@pytest.mark.parametrize(
    ("channels", "arguments", "parameters"),
    [
        # DeepLab v2, figure 7 and table 3: the heads of VGG16 (after its 14,714,688 parameters) and ResNet-101.
        (512, {"hidden": (1024, 1024), "rates": (6, 12, 18, 24)}, 37_877_652 - 14_714_688),
        (512, {"hidden": (1024, 1024), "rates": (12,)}, 20_505_429 - 14_714_688),
        (2048, {}, 1_548_372),
    ],
    ids=["VGG16 ASPP", "VGG16 LargeFOV", "ResNet-101"],
)
def test_parameters_are_the_paper_s(channels, arguments, parameters):
    head = layers.AtrousSpatialPyramidPooling(21, **arguments)
    head.build((None, None, None, channels))
    assert head.count_params() == parameters


def test_dropout_only_in_training():
    head = layers.AtrousSpatialPyramidPooling(2, rates=(1, 2), hidden=(8,))
    x = np.ones((1, 6, 6, 3), "float32")
    np.testing.assert_array_equal(head(x), head(x))
    assert np.any(head(x, training=True) != head(x))


def test_no_rates():
    with pytest.raises(ValueError, match="at least one rate"):
        layers.AtrousSpatialPyramidPooling(2, rates=())
