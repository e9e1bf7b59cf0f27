"""The instance normalizations that tf2onnx writes, and things that only look like one."""

import collections

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
import tf2onnx

from kerasmodels.export.runners.onnx_fusions import instance_normalization
from kerasmodels.layers import InstanceNormalization

PICTURES = np.random.default_rng(0).normal(2, 3, (2, 9, 7, 3)).astype("float32")


def fused(layers, known=False, pictures=PICTURES):
    """(what Keras says, what ONNX Runtime says, how often each operator occurs) with some random weights."""
    model = keras.Sequential([keras.Input((9, 7, 3) if known else (None, None, 3)), *layers])
    random = np.random.default_rng(1)
    model.set_weights([random.normal(size=w.shape) for w in model.weights])
    specs = [tf.TensorSpec((None, *model.input_shape[1:]), tf.float32, name="x")]
    function = tf.function(lambda x: {"y": model(x, training=False)}, input_signature=specs)
    found, _ = tf2onnx.convert.from_function(function, input_signature=specs, opset=18)
    found = instance_normalization(found)
    onnx.checker.check_model(found, full_check=True)
    (answer,) = onnxruntime.InferenceSession(found.SerializeToString()).run(None, {"x": pictures})
    return model(pictures), answer, collections.Counter(node.op_type for node in found.graph.node)


@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
@pytest.mark.parametrize("scale", [True, False], ids=["scale", "no scale"])
@pytest.mark.parametrize("center", [True, False], ids=["center", "no center"])
def test_becomes_one_operator(scale, center, known):
    normal = InstanceNormalization(1e-3, scale=scale, center=center)
    expected, answer, operators = fused([keras.layers.Conv2D(4, 3), normal, keras.layers.Conv2D(2, 3)], known)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=2e-5)
    assert operators["InstanceNormalization"] == 1
    assert not operators.keys() & {"ReduceMean", "Sqrt", "Reciprocal", "Mul"}
    assert operators["Sub"] == 1  # of the first position, which keeps flat maps flat


@pytest.mark.parametrize("size", [(9, 7), (96, 128)])
def test_a_flat_map_is_exactly_flat(size):
    """In ONNX Runtime's own operator, whose mean of equal numbers is not that number."""
    flat = np.broadcast_to(np.float32([1 / 3, -70.1, 1e4]), (1, *size, 3)).copy()
    layers = [keras.layers.Conv2D(4, 3), InstanceNormalization(), keras.layers.Conv2D(2, 3)]
    expected, answer, operators = fused(layers, pictures=flat)
    assert operators["InstanceNormalization"] == 1
    assert not np.ptp(answer, axis=(1, 2)).any()
    np.testing.assert_allclose(answer, expected, rtol=1e-6)


def test_several_and_the_result_itself():
    layers = [keras.layers.Conv2D(4, 3), InstanceNormalization(), keras.layers.Conv2D(4, 3), InstanceNormalization()]
    expected, answer, operators = fused(layers)
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=2e-5)
    assert operators["InstanceNormalization"] == 2


class Divided(keras.layers.Layer):
    """Like instance normalization, but over the rows alone, or with the centered picture used once more."""

    def __init__(self, axes, again):
        super().__init__()
        self.axes, self.again = axes, again

    def call(self, x):
        centered = x - tf.reduce_mean(x, self.axes, keepdims=True)
        y = centered * tf.math.rsqrt(tf.reduce_mean(centered**2, self.axes, keepdims=True) + 1e-3)
        return y + centered if self.again else y


@pytest.mark.parametrize(("axes", "again"), [([1], False), ([1, 2], True)], ids=["rows", "used again"])
def test_leaves_others_alone(axes, again):
    expected, answer, operators = fused([keras.layers.Conv2D(4, 3), Divided(axes, again), keras.layers.Conv2D(2, 3)])
    np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=2e-5)
    assert "InstanceNormalization" not in operators
    assert operators["ReduceMean"] == 2
