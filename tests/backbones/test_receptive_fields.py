"""Receptive fields: the published sizes, and what gradients say of any graph."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import layers, ops

from kerasmodels.backbones import VGG16, VGG19, ReceptiveField, receptive_field
from kerasmodels.backbones import sources as vgg_sources
from kerasmodels.errors import UsageError
from kerasmodels.layers import InstanceNormalization, ReflectionPadding2D

VGG16_SIZES = {
    **{"conv1_1": 3, "conv1_2": 5, "conv2_1": 10, "conv2_2": 14, "conv3_1": 24, "conv3_2": 32, "conv3_3": 40},
    **{"conv4_1": 60, "conv4_2": 76, "conv4_3": 92, "conv5_1": 132, "conv5_2": 164, "conv5_3": 196},
}
VGG19_SIZES = {
    **{"conv1_1": 3, "conv1_2": 5, "conv2_1": 10, "conv2_2": 14, "conv3_1": 24, "conv3_4": 48},
    **{"conv4_1": 68, "conv4_2": 84, "conv4_4": 116, "conv5_1": 156, "conv5_4": 252},
}


def alexnet():
    """The convolutions and poolings of AlexNet, one channel each."""
    picture = keras.Input((227, 227, 1))
    x = layers.Conv2D(1, 11, 4, name="conv1")(picture)
    x = layers.MaxPooling2D(3, 2, name="pool1")(x)
    x = layers.Conv2D(1, 5, padding="same", name="conv2")(x)
    x = layers.MaxPooling2D(3, 2, name="pool2")(x)
    for i in (3, 4, 5):
        x = layers.Conv2D(1, 3, padding="same", name=f"conv{i}")(x)
    return keras.Model(picture, x)


def support(model, layer, position, size):
    """Which pixels the layer's output at `position` depends on: a mask of the picture.

    The weights become positive and ReLU is never off, so that no gradient is zero by chance or by cancellation.
    """
    model = keras.Model(model.input, model.get_layer(layer).output)
    for weight in model.weights:
        weight.assign(np.full(weight.shape, 0.0 if weight.name == "bias" else 1 / np.prod(weight.shape[:-1])))
    picture = tf.Variable(tf.ones((1, *size, model.input_shape[-1])))
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model(picture)[(0, *position)])
    return np.abs(tape.gradient(value, picture)[0].numpy()).sum(axis=-1) > 0


def boxed(field, position, size):
    """The mask that the arithmetic predicts, cut to the picture."""
    mask = np.zeros(size, bool)
    mask[tuple(slice(max(first, 0), max(end, 0)) for first, end in field.box(position))] = True
    return mask


# --- published sizes


@pytest.mark.parametrize(("network", "sizes"), [(VGG16, VGG16_SIZES), (VGG19, VGG19_SIZES)])
def test_vgg(network, sizes):
    model = network([max(sizes).replace("conv", "relu")], weights=None)
    for layer, size in sizes.items():
        field = receptive_field(model, layer)
        assert field.size == (size, size), layer
        assert field.jump == (2 ** (int(layer[4]) - 1),) * 2
        assert field == receptive_field(model, layer.replace("conv", "relu"))


def test_alexnet():
    model = alexnet()
    sizes = {"conv1": 11, "pool1": 19, "conv2": 51, "pool2": 67, "conv3": 99, "conv4": 131, "conv5": 163}
    assert {layer: receptive_field(model, layer).size[0] for layer in sizes} == sizes
    assert receptive_field(model, "conv5").jump == (16, 16)
    assert receptive_field(model, "pool1").start == (0, 0)
    assert receptive_field(model, "conv2").start == (-16, -16)


# --- gradients


@pytest.fixture
def narrow(monkeypatch):
    """VGG16's geometry with two filters a layer, and weights for every padding and rounding."""
    blocks = tuple(vgg_sources.Block(2, b.convolutions) for b in vgg_sources.NETWORKS["vgg16"])
    monkeypatch.setitem(vgg_sources.NETWORKS, "vgg16", blocks)


def reflecting(taps, monkeypatch):
    """VGG16 with the reflection padding and the rounding up of the normalized weights."""
    arrays = {key: np.zeros(shape, "float32") for key, shape in vgg_sources.shapes("vgg16").items()}
    loaded = vgg_sources.Loaded(arrays, vgg_sources.NORMALIZED, {})
    monkeypatch.setattr(vgg_sources, "load", lambda network, weights: loaded)
    return VGG16(taps, pooling="avg", preprocess=False)


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("layer", ["conv1_2", "pool2", "conv3_1", "conv4_3"])
def test_gradient_support_of_vgg(narrow, layer, padding, monkeypatch):
    """Exactly the box: in the middle, and cut to the picture where padding is seen, whichever padding."""
    if padding == "zeros":
        model = VGG16([layer], weights=None, pooling="avg", preprocess=False)
    else:
        model = reflecting([layer], monkeypatch)
    field = receptive_field(model, layer)
    size = (2 * field.size[0] + 1, 2 * field.size[0] + 4)
    rows, columns = model.compute_output_shape((1, *size, 3))[layer][1:3]
    middle = (rows // 2, columns // 2)
    assert field.inside(middle, size)
    for position in (middle, (middle[0] + 1, middle[1] - 1)):
        np.testing.assert_array_equal(support(model, layer, position, size), boxed(field, position, size))
    for position in ((0, 0), (0, columns - 1), (rows - 1, 1)):
        assert not field.inside(position, size)
        np.testing.assert_array_equal(support(model, layer, position, size), boxed(field, position, size))


def dilated():
    """What else networks are made of: dilation, strides with "same", separable kernels, odd paddings, a branch."""
    picture = keras.Input((61, 50, 1))
    x = layers.Conv2D(2, (3, 5), dilation_rate=(2, 1), padding="same")(picture)
    x = layers.ZeroPadding2D(((0, 3), (2, 1)))(x)
    x = layers.Conv2D(2, 4, 3, padding="same", activation="relu")(x)
    x = layers.BatchNormalization()(ReflectionPadding2D(((1, 0), (0, 2)))(x))
    left = layers.SeparableConv2D(2, 3, padding="same")(x)
    right = layers.Cropping2D(((1, 0), (0, 1)))(ops.pad(x, ((0, 0), (1, 0), (0, 1), (0, 0))))
    x = layers.Add()([left, layers.DepthwiseConv2D((5, 1), padding="same")(right)]) * 0.5
    x = layers.AveragePooling2D(3, 2, padding="same", name="last")(x)
    return keras.Model(picture, x)


def test_gradient_support_of_all_kinds_of_layers():
    model = dilated()
    field = receptive_field(model, "last")
    assert field.size[0] != field.size[1]
    rows, columns = model.output_shape[1:3]
    inside = [(r, c) for r in range(rows) for c in range(columns) if field.inside((r, c), (61, 50))]
    assert len(inside) > 4
    for position in inside:
        seen = np.argwhere(support(model, "last", position, (61, 50)))
        # Two branches of 3 x 3 and 5 x 1 see a cross: the box is the smallest that holds it.
        assert tuple(zip(seen.min(axis=0), seen.max(axis=0) + 1, strict=True)) == field.box(position)


@pytest.mark.parametrize("size", [(75, 90), (68, 83)])
def test_inside_is_where_padding_does_not_reach(size):
    """Brute force: every padded value is NaN, and what is still a number has seen none."""
    model = VGG16(["relu4_1"], weights=None, preprocess=False)
    x = np.ones((1, *size, 1), "float32")
    for operation in model.operations[1:]:
        if isinstance(operation, layers.Conv2D):
            x = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=np.nan)
            x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), axis=(1, 2)).sum(axis=(-1, -2))
        elif isinstance(operation, layers.MaxPooling2D):
            n, h, w, c = x.shape
            x = x[:, : h // 2 * 2, : w // 2 * 2].reshape(n, h // 2, 2, w // 2, 2, c).sum(axis=(2, 4))
    clean, field = np.isfinite(x[0, :, :, 0]), receptive_field(model, "relu4_1")
    assert clean.any()
    np.testing.assert_array_equal(
        clean, [[field.inside((i, j), size) for j in range(x.shape[2])] for i in range(x.shape[1])]
    )


@pytest.mark.parametrize(("kind", "rank"), [("1D", 1), ("3D", 3)])
def test_signals_and_volumes(kind, rank):
    inputs = keras.Input((*(23,) * rank, 1))
    convolution, pooling = getattr(layers, f"Conv{kind}"), getattr(layers, f"AveragePooling{kind}")
    x = convolution(1, 3, padding="same", dilation_rate=2)(getattr(layers, f"ZeroPadding{kind}")(1)(inputs))
    x = getattr(layers, f"Cropping{kind}")(1)(pooling(2)(x))
    x = layers.ReLU(name="last")(convolution(1, 2)(x))
    model = keras.Model(inputs, x)
    field, position = receptive_field(model, "last"), (4,) * rank
    # 1 + 4 after the dilated kernel, 6 after pooling, 8 after the last; padded by 1 + 2, cropped by one jump of 2.
    assert field == ReceptiveField((8,) * rank, (2,) * rank, (-1,) * rank)
    np.testing.assert_array_equal(support(model, "last", position, (23,) * rank), boxed(field, position, (23,) * rank))


def test_causal_padding_looks_back_only():
    signal = keras.Input((None, 1))
    model = keras.Model(signal, layers.Conv1D(1, 4, dilation_rate=2, padding="causal", name="c")(signal))
    assert receptive_field(model, "c").box((9,)) == ((3, 10),)


def test_a_sequential_model_and_centers():
    model = keras.Sequential(
        [keras.Input((None, None, 3)), layers.Conv2D(2, 4, name="a"), layers.MaxPooling2D(name="b")]
    )
    field = receptive_field(model, "b")
    assert field == ReceptiveField((5, 5), (2, 2), (0, 0))
    assert field.center((0, 3)) == (2.0, 8.0)
    assert field.inside((0, 3), (5, 11))
    assert not field.inside((0, 3), (5, 10))


# --- what has none


def graph(build, size=None):
    picture = keras.Input((size, size, 3))
    return keras.Model(picture, build(picture))


def _two_strides(x):
    return layers.Add(name="y")([layers.Conv2D(1, 1)(x), layers.Conv2D(1, 3, 2, padding="same")(x)])


def _twice(x):
    shared = layers.Conv2D(3, 3)
    return layers.ReLU(name="y")(shared(shared(x)))


@pytest.mark.parametrize(
    ("model", "layer", "words"),
    [
        (
            graph(lambda x: layers.Conv2D(1, 3, name="conv")(x)),
            "conv2",
            "unknown layer .*Did you mean 'conv'",
        ),
        (graph(lambda x: layers.GlobalAveragePooling2D(name="y")(x)), "y", "GlobalAveragePooling2D sees all positions"),
        (graph(lambda x: InstanceNormalization(name="y")(x)), "y", "InstanceNormalization sees all positions"),
        (graph(lambda x: layers.ReLU(name="y")(layers.UpSampling2D()(x))), "y", "UpSampling2D sees all"),
        (graph(lambda x: layers.Conv2D(1, 5, 2, padding="same", name="y")(x)), "y", "depends on the picture's size"),
        (graph(lambda x: layers.ReLU(name="y")(ops.flip(x, axis=1))), "y", "Flip"),
        (graph(_twice), "y", "used more than once"),
        (
            graph(
                lambda x: layers.Add(name="y")([layers.Conv2D(1, 1)(x), layers.Conv2D(1, 3, 2, padding="same")(x)]), 1
            ),
            "y",
            "different strides meet at y",
        ),
    ],
)
def test_says_what_is_wrong(model, layer, words):
    with pytest.raises(UsageError, match=words):
        receptive_field(model, layer)
