import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.layers import PolyphaseConv2D

RANDOM = np.random.default_rng(0)


def pair(kernel_size, **arguments):
    """The layer and Keras' own with the same weights."""
    layers = PolyphaseConv2D(3, kernel_size, **arguments), keras.layers.Conv2D(3, kernel_size, **arguments)
    weights = [RANDOM.normal(size=layers[0].compute_output_shape((1, 20, 20, 5))[-1:]).astype("float32")]
    for layer in layers:
        layer.build((None, None, None, 5))
    kernel = RANDOM.normal(size=layers[0].kernel.shape).astype("float32")
    for layer in layers:
        layer.set_weights([kernel, *weights][: len(layer.weights)])
    return layers


@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("size", [(12, 14), (13, 14), (12, 15), (13, 17)])
@pytest.mark.parametrize("kernel_size", [1, 4, 5, (3, 6)])
def test_equals_conv2d(kernel_size, size, known):
    ours, keras_own = pair(kernel_size, activation="tanh")
    x = RANDOM.normal(size=(2, *size, 5)).astype("float32")
    call = tf.function(ours, input_signature=[tf.TensorSpec(x.shape if known else (None, None, None, 5))])
    expected = keras_own(x)
    assert call(x).shape == expected.shape == ours.compute_output_shape(x.shape)
    np.testing.assert_allclose(call(x), expected, atol=1e-5)


@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_gradients_are_those_of_conv2d(known):
    layers, x = pair(5), tf.Variable(RANDOM.normal(size=(2, 11, 12, 5)).astype("float32"))
    seen = RANDOM.normal(size=(2, 7, 8, 3)).astype("float32")
    gradients = []
    for layer in layers:
        call = tf.function(layer, input_signature=[tf.TensorSpec(x.shape if known else (None, None, None, 5))])
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(call(x) * seen)
        gradients.append(tape.gradient(total, [x, *layer.trainable_weights]))
    for ours, expected in zip(*gradients, strict=True):
        np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_without_bias():
    ours, keras_own = pair(3, use_bias=False)
    x = RANDOM.normal(size=(1, 8, 8, 5)).astype("float32")
    assert len(ours.weights) == 1
    np.testing.assert_allclose(ours(x), keras_own(x), atol=1e-5)


def test_weights_are_those_of_conv2d():
    ours, keras_own = pair(3)
    assert [(w.name, w.shape) for w in ours.weights] == [(w.name, w.shape) for w in keras_own.weights]


@pytest.mark.parametrize(
    "arguments",
    [{"strides": 2}, {"dilation_rate": 2}, {"padding": "same"}, {"groups": 3}, {"data_format": "channels_first"}],
    ids=lambda arguments: next(iter(arguments)),
)
def test_refuses_other_convolutions(arguments):
    (name,) = arguments
    with pytest.raises(ValueError, match=name):
        PolyphaseConv2D(3, 3, **arguments)
