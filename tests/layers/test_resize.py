import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.layers import Resize2D

MAPS = np.random.default_rng(0).normal(size=(2, 5, 6, 4)).astype("float32")


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("scale", [1, 2, 3])
@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_equals_keras_up_sampling(interpolation, scale, known):
    layer = Resize2D(scale, interpolation)
    call = tf.function(layer, input_signature=[tf.TensorSpec(MAPS.shape if known else (None, None, None, 4))])
    expected = keras.layers.UpSampling2D(scale, interpolation=interpolation)(MAPS)
    np.testing.assert_allclose(call(MAPS), expected, atol=1e-6)


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_gradient_is_that_of_keras(interpolation):
    x, seen = tf.Variable(MAPS), np.random.default_rng(1).normal(size=(2, 10, 12, 4)).astype("float32")
    gradients = []
    for layer in (Resize2D(2, interpolation), keras.layers.UpSampling2D(2, interpolation=interpolation)):
        with tf.GradientTape() as tape:
            y = tf.reduce_sum(layer(x) * seen)
        gradients.append(tape.gradient(y, x))
    np.testing.assert_allclose(*gradients, atol=1e-5)


def test_exports_as_one_operator():
    graph = tf.function(Resize2D(2)).get_concrete_function(tf.TensorSpec((1, 8, 8, 3))).graph
    operators = {operation.type for operation in graph.get_operations()}
    assert "ResizeNearestNeighbor" in operators
    assert not operators & {"Tile", "Reshape", "BroadcastTo"}


@pytest.mark.parametrize(
    ("arguments", "words"),
    [({"scale": 0}, "scale"), ({"scale": 1.5}, "scale"), ({"interpolation": "area"}, "interpolation")],
)
def test_refuses_other_options(arguments, words):
    with pytest.raises(ValueError, match=words):
        Resize2D(**arguments)
