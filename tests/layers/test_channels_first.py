"""Channels first is channels last in another order, also where another axis is as long as that of the channels."""

import inspect
import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import layers

CHANNELS = 6
CASES = {
    "InstanceNormalization": (
        (1, 2, 3),
        lambda form: layers.InstanceNormalization(axis=1 if form == "channels_first" else -1),
    ),
    "AtrousConvolution1D": (
        (1,),
        lambda form: layers.AtrousConvolution1D(6, 2, atrous_rate=2, padding="same", data_format=form),
    ),
    "AtrousConvolution1D causal": (
        (1,),
        lambda form: layers.AtrousConvolution1D(6, 2, atrous_rate=2, padding="causal", data_format=form),
    ),
    "AtrousConvolution2D": (
        (2,),
        lambda form: layers.AtrousConvolution2D(
            6, 3, atrous_rate=2, padding="same", groups=2, activation="tanh", data_format=form
        ),
    ),
    "AtrousConvolution2D strides": (
        (2,),
        lambda form: layers.AtrousConvolution2D(3, 3, strides=2, padding="same", data_format=form),
    ),
    "AtrousConvolution3D": (
        (3,),
        lambda form: layers.AtrousConvolution3D(6, 2, atrous_rate=2, padding="same", data_format=form),
    ),
    # 6 channels of offsets, and then 18 channels of offsets and masks, and 6 filters.
    "DeformableConv2D": (
        (2,),
        lambda form: layers.DeformableConv2D(6, (3, 1), padding="same", data_format=form),
    ),
    "DeformableConv2D modulated": (
        (2,),
        lambda form: layers.DeformableConv2D(
            6, (1, 2), padding="same", groups=2, deformable_groups=3, modulated=True, data_format=form
        ),
    ),
}
LAST_ONLY = {"DoublingConv2DTranspose", "PolyphaseConv2D"}


def test_every_layer_with_an_order_of_axes_is_here():
    ordered = {
        name
        for name in layers.__all__
        for kind in [getattr(layers, name)]
        if {"data_format", "axis"} & {p for k in kind.__mro__ for p in inspect.signature(k.__init__).parameters}
    }
    assert ordered - LAST_ONLY == {name.split()[0] for name in CASES}


def _with_weights(layer, shape):
    layer.build(shape)
    random = np.random.default_rng(3)
    layer.set_weights([0.3 * random.normal(size=w.shape) for w in layer.weights])
    return layer


@pytest.mark.parametrize("batch", [2, CHANNELS])
@pytest.mark.parametrize("name", CASES)
def test_equals_channels_last_at_any_size(name, batch):
    ranks, make = CASES[name]
    for rank in ranks:
        for size in itertools.product((5, CHANNELS), repeat=rank):
            x = np.random.default_rng(0).normal(size=(batch, CHANNELS, *size)).astype("float32")
            moved = np.moveaxis(x, 1, -1)
            last, first = (
                _with_weights(make(f), a.shape) for f, a in (("channels_last", moved), ("channels_first", x))
            )
            wanted = np.moveaxis(np.asarray(last(moved)), -1, 1)
            assert tuple(first.compute_output_shape(x.shape)) == wanted.shape
            given = keras.Input(x.shape[1:], batch_size=batch)
            functional = keras.Model(given, first(given))
            for answer in (first(x), functional(x)):
                np.testing.assert_allclose(answer, wanted, atol=1e-5, err_msg=f"{x.shape}")


@pytest.mark.parametrize("name", CASES)
def test_gradients_equal_those_of_channels_last(name):
    ranks, make = CASES[name]
    for rank in ranks:
        x = np.random.default_rng(1).normal(size=(2, CHANNELS, *[CHANNELS] * rank)).astype("float32")
        factors, found = None, []
        for form in ("channels_last", "channels_first"):
            inputs = np.moveaxis(x, 1, -1) if form == "channels_last" else x
            layer = _with_weights(make(form), inputs.shape)
            with tf.GradientTape() as tape:
                y = layer(inputs)
                if form == "channels_first":
                    y = tf.transpose(y, (0, *range(2, rank + 2), 1))
                if factors is None:
                    factors = np.random.default_rng(2).normal(size=y.shape).astype("float32")
                loss = tf.reduce_sum(y * factors)
            found.append(tape.gradient(loss, [w.value for w in layer.trainable_weights]))
        for wanted, ours in zip(*found, strict=True):
            np.testing.assert_allclose(ours, wanted, atol=1e-3)
