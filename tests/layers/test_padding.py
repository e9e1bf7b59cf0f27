import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.layers import ReflectionPadding1D, ReflectionPadding2D, ReflectionPadding3D
from kerasmodels.layers.padding import on_multiples, reflect_to_multiple

PICTURE = np.random.default_rng(0).normal(size=(2, 7, 5, 3)).astype("float32")


@pytest.mark.parametrize("padding", [0, 1, 4, ((1, 2), (3, 0)), ((9, 20), (13, 6))])
@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_equals_numpy_even_beyond_the_picture(padding, known):
    layer = ReflectionPadding2D(padding)
    call = tf.function(layer, input_signature=[tf.TensorSpec(PICTURE.shape if known else (None, None, None, 3))])
    rows, columns = layer.padding
    np.testing.assert_array_equal(call(PICTURE), np.pad(PICTURE, ((0, 0), rows, columns, (0, 0)), mode="reflect"))


@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_one_pixel_is_repeated(known):
    call = tf.function(
        ReflectionPadding2D(2), input_signature=[tf.TensorSpec((1, 1, 1, 1) if known else (1, None, None, 1))]
    )
    np.testing.assert_array_equal(call(np.full((1, 1, 1, 1), 7.0, "float32")), np.full((1, 5, 5, 1), 7.0))


@pytest.mark.parametrize(
    ("padding", "counts"), [((0, 0), [1, 1, 1, 1]), ((2, 1), [1, 2, 3, 1]), ((0, 5), [2, 3, 3, 1])]
)
def test_gradient_counts_how_often_a_pixel_is_shown(padding, counts):
    x = tf.Variable(np.arange(4, dtype="float32").reshape(1, 1, 4, 1))
    with tf.GradientTape() as tape:
        y = tf.reduce_sum(ReflectionPadding2D(((0, 0), padding))(x))
    assert np.ravel(tape.gradient(y, x)).tolist() == counts


@pytest.mark.parametrize(
    ("layer", "x"),
    [
        (ReflectionPadding1D(3), PICTURE[:, :, 0]),
        (ReflectionPadding1D((0, 11)), PICTURE[:, :, 0]),
        (ReflectionPadding3D(1), np.stack([PICTURE, -PICTURE, PICTURE**2], axis=1)),
        (ReflectionPadding3D(((5, 0), (0, 2), (4, 4))), np.stack([PICTURE, -PICTURE, PICTURE**2], axis=1)),
    ],
    ids=["signal", "signal, beyond", "volume", "volume, beyond"],
)
@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_signals_and_volumes(layer, x, known):
    """Values, and the gradient: each position counts as often as it is shown."""
    shape = x.shape if known else (None,) * (x.ndim - 1) + (3,)
    padding = ((0, 0), *layer.padding, (0, 0))

    @tf.function(input_signature=[tf.TensorSpec(shape)])
    def call(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = layer(x)
            total = tf.reduce_sum(y)
        return y, tape.gradient(total, x)

    y, gradient = call(x)
    np.testing.assert_array_equal(y, np.pad(x, padding, mode="reflect"))
    shown = np.pad(np.arange(x.size).reshape(x.shape), padding, mode="reflect")
    np.testing.assert_array_equal(gradient, np.bincount(shown.ravel(), minlength=x.size).reshape(x.shape))


@pytest.mark.parametrize("size", [(8, 12), (7, 5), (1, 2)])
@pytest.mark.parametrize("known", [True, False], ids=["static", "dynamic"])
def test_reflect_to_multiple(size, known):
    picture = np.random.default_rng(1).integers(0, 255, (1, *size, 3)).astype("uint8")
    spec = tf.TensorSpec(picture.shape if known else (None, None, None, 3), tf.uint8)
    padded = tf.function(lambda x: reflect_to_multiple(x, 4), input_signature=[spec])(picture)
    rows, columns = (-size[0] % 4, -size[1] % 4)
    np.testing.assert_array_equal(padded, np.pad(picture, ((0, 0), (0, rows), (0, columns), (0, 0)), mode="reflect"))


@pytest.mark.parametrize("padding", [-1, 1.5, (1, 2), ((1, 2), (3, -1)), "same"])
def test_refuses_other_paddings(padding):
    with pytest.raises(ValueError, match="padding must be"):
        ReflectionPadding2D(padding)


@pytest.mark.parametrize(
    ("layer", "padding", "words"),
    [
        (ReflectionPadding1D, ((1, 2), (3, 4)), r"or \(before, after\)"),
        (ReflectionPadding1D, (1, -2), r"or \(before, after\)"),
        (ReflectionPadding3D, (1, 2, 3), r"three \(before, after\)"),
    ],
)
def test_refuses_paddings_of_another_rank(layer, padding, words):
    with pytest.raises(ValueError, match=words):
        layer(padding)


def test_symbolic_shape():
    assert ReflectionPadding2D(((1, 2), (3, 4)))(keras.Input((None, 10, 3))).shape == (None, None, 17, 3)
    assert ReflectionPadding1D((1, 2))(keras.Input((10, 3))).shape == (None, 13, 3)
    assert ReflectionPadding3D(1)(keras.Input((None, 10, 4, 3))).shape == (None, None, 12, 6, 3)


@pytest.mark.parametrize("shape", [(8, 12), (7, 10), (None, None)], ids=["whole", "odd", "unknown"])
def test_a_function_of_whole_multiples_for_any_size(shape):
    x = np.random.default_rng(0).normal(size=(2, *(side or 9 for side in shape), 3)).astype("float32")
    seen = []

    def doubled(padded):
        seen.append(tuple(padded.shape[1:3]))
        return 2 * padded[..., :1]

    def call(x):
        return on_multiples(x, 4, doubled)

    found = tf.function(call, input_signature=[tf.TensorSpec((2, *shape, 3))])(x)
    np.testing.assert_array_equal(found, 2 * x[..., :1])
    assert seen == [{(8, 12): (8, 12), (7, 10): (8, 12), (None, None): (None, None)}[shape]]


@pytest.mark.parametrize("compiled", [False, True])
def test_batch_of_none_has_a_gradient(compiled):
    def gradient(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            loss = tf.reduce_sum(tf.square(ReflectionPadding2D(2)(x)))
        return tape.gradient(loss, x)

    function = tf.function(gradient, input_signature=[tf.TensorSpec((None, 5, 4, 3))]) if compiled else gradient
    assert function(tf.zeros((0, 5, 4, 3))).shape == (0, 5, 4, 3)
    x = tf.random.stateless_uniform((2, 5, 4, 3), (0, 1))
    weights = tf.reduce_sum(tf.ones((2, 9, 8, 3))) / tf.reduce_sum(tf.ones_like(x))
    np.testing.assert_allclose(tf.reduce_mean(function(tf.ones_like(x))), 2 * weights, rtol=1e-6)
