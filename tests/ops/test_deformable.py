"""Deformable convolution: torchvision's numbers, and what must hold whatever the numbers."""

from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasmodels as km
from kerasmodels.ops import bilinear_tf

RANDOM = np.random.default_rng(0)
GOLDEN = np.load(Path(__file__).parent / "torchvision_deform_conv2d.npz")
CASES = sorted({key.partition("/")[0] for key in GOLDEN.files} - {"versions"})
HOW = ["fast", "portable", "channels_first", "unknown sizes", "xla"]
"""Ways to compute the same."""


@pytest.fixture(autouse=True)
def same_numbers_whatever_ran_before(monkeypatch):
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(0))


def normal(*shape, spread=1.0):
    return RANDOM.normal(0, spread, shape).astype("float32")


def last(array):
    return np.transpose(array, (0, 2, 3, 1))


def called(how, given, options):
    """(outputs, gradients) channels first, of a case of the golden file, by one of several ways to compute it."""
    first = how == "channels_first"
    names = [name for name in ("inputs", "offsets", "kernel", "mask", "bias") if name in given]
    arrays = {
        name: tf.constant(
            given[name].transpose(2, 3, 1, 0)
            if name == "kernel"
            else last(given[name])
            if given[name].ndim == 4 and not first
            else given[name]
        )
        for name in names
    }
    upstream = given["upstream"] if first else last(given["upstream"])

    def both(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            y = km.ops.deform_conv2d(
                **dict(zip(names, tensors, strict=True)),
                strides=tuple(map(int, options[:2])),
                padding=tuple(map(int, options[2:4])),
                dilation_rate=tuple(map(int, options[4:6])),
                groups=int(options[6]),
                data_format="channels_first" if first else "channels_last",
            )
            total = tf.reduce_sum(y * upstream)
        return y, tape.gradient(total, tensors)

    if how == "unknown sizes":
        unknown = {"inputs": 3, "offsets": 3, "mask": 3}
        both = tf.function(
            both,
            input_signature=[
                tf.TensorSpec([None] * unknown.get(name, 0) + list(array.shape[unknown.get(name, 0) :]))
                for name, array in arrays.items()
            ],
        )
    if how == "xla":
        both = tf.function(both, jit_compile=True)
    with km.ops.traced_as("portable" if how == "portable" else "fast"):
        y, gradients = both(*arrays.values())

    def back(name, array):
        array = np.asarray(array)
        if name == "kernel":
            return array.transpose(3, 2, 0, 1)
        return array.transpose(0, 3, 1, 2) if array.ndim == 4 and not first else array

    return back("outputs", y), {n: back(n, g) for n, g in zip(names, gradients, strict=True)}


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("case", CASES)
def test_equals_torchvision(case, how):
    given = {key.removeprefix(f"{case}/"): GOLDEN[key] for key in GOLDEN.files if key.startswith(f"{case}/")}
    y, gradients = called(how, given, given["options"])
    np.testing.assert_allclose(y, given["outputs"], atol=1e-5 * max(1, np.abs(given["outputs"]).max()))
    for name, gradient in gradients.items():
        expected = given[f"gradient/{name}"]
        assert np.abs(expected).max() > 0.1
        np.testing.assert_allclose(gradient, expected, atol=1e-4, err_msg=name)


def test_the_golden_file_covers_what_it_says():
    assert (Path(__file__).parent / "torchvision_deform_conv2d.npz").stat().st_size <= 100_000
    assert CASES == ["dilated", "far", "masked", "plain", "strided", "whole"]
    offsets, height = GOLDEN["far/offsets"], GOLDEN["far/inputs"].shape[2]
    assert np.mean(np.abs(offsets) > height) > 0.5
    assert np.array_equal(GOLDEN["whole/offsets"], np.round(GOLDEN["whole/offsets"]))


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("strides", "dilation"), [(1, 1), (2, 1), (1, 2), (1, (3, 2)), ((2, 1), 1), (3, 1)])
@pytest.mark.parametrize("groups", [1, 2])
def test_zero_offsets_are_conv2d(padding, strides, dilation, groups):
    layer = km.layers.DeformableConv2D(
        6, (3, 2), strides, padding, dilation_rate=dilation, groups=groups, deformable_groups=2, activation="tanh"
    )
    x = normal(2, 11, 12, 4)
    y = layer(x)
    mode = padding.upper()
    pairs = [(v, v) if isinstance(v, int) else v for v in (strides, dilation)]
    kernels = tf.split(layer.kernel.value, groups, -1)
    parts = [
        tf.nn.conv2d(part, kernel, pairs[0], mode, dilations=pairs[1])
        for part, kernel in zip(tf.split(x, groups, -1), kernels, strict=True)
    ]
    expected = tf.tanh(tf.concat(parts, -1))
    assert y.shape == expected.shape == layer.compute_output_shape(x.shape)
    np.testing.assert_allclose(y, expected, atol=1e-5)


def test_the_same_at_sizes_unknown_until_it_runs():
    layer = km.layers.DeformableConv2D(3, 3, 2, "same", modulated=True)
    layer.build((None, None, None, 4))
    layer.offset_kernel.assign(normal(*layer.offset_kernel.shape, spread=0.5))
    call = tf.function(layer, input_signature=[tf.TensorSpec((None, None, None, 4))])
    for size in ((9, 8), (10, 11)):
        x = normal(2, *size, 4)
        np.testing.assert_allclose(call(x), layer(x), atol=1e-5)


def test_a_modulated_layer_begins_at_half():
    x = normal(1, 7, 8, 4)
    layers = [km.layers.DeformableConv2D(5, 3, use_bias=False, modulated=modulated) for modulated in (False, True)]
    for layer in layers:
        layer.build(x.shape)
    layers[1].kernel.assign(layers[0].kernel)
    np.testing.assert_allclose(layers[1](x), 0.5 * layers[0](x), atol=1e-6)


def test_whole_offsets_are_a_shift():
    x, kernel = normal(1, 9, 10, 3), normal(3, 3, 3, 2)
    offsets = np.zeros((1, 9, 10, 18), "float32")
    offsets[..., 0::2], offsets[..., 1::2] = 2, -1  # down by two, left by one
    moved = np.zeros_like(x)
    moved[:, :-2, 1:] = x[:, 2:, :-1]
    # Around the moved picture the layer sees what the convolution takes for zeros: compare the inside.
    found = km.ops.deform_conv2d(x, offsets, kernel, padding="same")[:, 1:-3, 2:-1]
    np.testing.assert_allclose(found, tf.nn.conv2d(moved, kernel, 1, "SAME")[:, 1:-3, 2:-1], atol=1e-5)


def test_rows_come_before_columns():
    x = np.arange(5, dtype="float32").reshape(1, 5, 1, 1) * np.ones((1, 1, 5, 1), "float32")
    offsets = np.zeros((1, 5, 5, 2), "float32")
    offsets[..., 0] = 1.25
    np.testing.assert_allclose(km.ops.deform_conv2d(x, offsets, np.ones((1, 1, 1, 1)))[0, :3, 0, 0], [1.25, 2.25, 3.25])


@pytest.mark.parametrize("form", ["fast", "portable"])
def test_gradients_at_whole_positions_are_not_zero(form):
    x = tf.constant(normal(1, 6, 7, 4))
    offsets = tf.zeros((1, 6, 7, 18))
    with km.ops.traced_as(form), tf.GradientTape() as tape:
        tape.watch(offsets)
        total = tf.reduce_sum(tf.square(km.ops.deform_conv2d(x, offsets, normal(3, 3, 4, 2), padding="same")))
    assert np.mean(np.abs(tape.gradient(total, offsets)) > 1e-3) > 0.8


@pytest.mark.parametrize("form", ["fast", "portable"])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30, -3e9])
def test_offsets_that_lead_nowhere_sample_zero(value, form):
    x, kernel, offsets = normal(1, 6, 7, 16), normal(3, 3, 16, 2), tf.fill((1, 6, 7, 18), np.float32(value))
    x, mask = tf.constant(x), tf.ones((1, 6, 7, 9))
    with km.ops.traced_as(form), tf.GradientTape() as tape:
        tape.watch((x, offsets))
        y = km.ops.deform_conv2d(x, offsets, kernel, mask, bias=np.array([3.0, -2.0]), padding="same")
    np.testing.assert_array_equal(y, np.broadcast_to(np.float32([3, -2]), y.shape))
    for gradient in tape.gradient(y, (x, offsets)):
        np.testing.assert_array_equal(gradient, np.zeros(gradient.shape))


def test_one_bad_offset_spoils_one_sample():
    x, offsets = normal(1, 6, 7, 4), normal(1, 6, 7, 18)
    # Where it lies within the picture.
    offsets[0, 2, 3] = 0
    bad = offsets.copy()
    bad[0, 2, 3, 5] = np.nan
    kernel = normal(3, 3, 4, 2)
    good, spoilt = (km.ops.deform_conv2d(x, o, kernel, padding="same").numpy() for o in (offsets, bad))
    assert np.isfinite(spoilt).all()
    np.testing.assert_array_equal(np.argwhere(np.any(good != spoilt, -1)), [[0, 2, 3]])


def test_keeps_the_dtype_and_the_exact_positions():
    x, offsets, kernel = normal(1, 40, 300, 4), normal(1, 40, 300, 18, spread=3.0), normal(3, 3, 4, 2)
    y = km.ops.deform_conv2d(x, offsets, kernel, padding="same")
    half = km.ops.deform_conv2d(tf.cast(x, tf.bfloat16), offsets, kernel, padding="same")
    assert half.dtype == tf.bfloat16
    # Positions up to 300 in bfloat16 would be off by a pixel.
    assert np.abs(tf.cast(half, tf.float32) - y).max() < 0.03 * np.abs(y).max()


@pytest.mark.parametrize("modulated", [False, True])
def test_offsets_may_be_given(modulated):
    layer = km.layers.DeformableConv2D(3, 3, padding="same", deformable_groups=2, modulated=modulated)
    given = [normal(1, 6, 7, 4), normal(1, 6, 7, 36), *([normal(1, 6, 7, 18)] if modulated else [])]
    inputs = [keras.Input(a.shape[1:]) for a in given]
    model = keras.Model(inputs, layer(inputs))
    assert [w.name for w in layer.weights] == ["kernel", "bias"]
    expected = km.ops.deform_conv2d(*given[:2], layer.kernel, *given[2:], padding="same")
    np.testing.assert_allclose(model(given), expected, atol=1e-5)
    with pytest.raises(ValueError, match="computes none"):
        layer.offsets(given[0])


def test_channels_first_layer_is_the_other_transposed():
    x = normal(2, 8, 9, 4)
    layers = [
        km.layers.DeformableConv2D(3, 3, padding=((1, 0), (2, 1)), modulated=True, data_format=form)
        for form in ("channels_last", "channels_first")
    ]
    layers[0].build(x.shape)
    layers[1].build(x.transpose(0, 3, 1, 2).shape)
    weights = [normal(*w.shape, spread=0.3) for w in layers[0].weights]
    for layer in layers:
        layer.set_weights(weights)
    # Keras' own convolution of the offsets has no channels-first kernel on a CPU; the operator has.
    offsets, mask = layers[0].offsets(x)
    first = km.ops.deform_conv2d(
        *(np.transpose(a, (0, 3, 1, 2)) for a in (x, offsets)),
        layers[1].kernel,
        np.transpose(mask, (0, 3, 1, 2)),
        layers[1].bias,
        padding=((1, 0), (2, 1)),
        data_format="channels_first",
    )
    np.testing.assert_allclose(np.transpose(first, (0, 2, 3, 1)), layers[0](x), atol=1e-5)
    assert layers[1].compute_output_shape((2, 4, 8, 9)) == first.shape


@pytest.mark.parametrize("rate", [0.0, 0.1])
def test_offset_rate_scales_the_gradient_of_the_offset_weights_alone(rate):
    x = tf.constant(normal(1, 6, 7, 4))
    gradients = []
    for each in (1.0, rate):
        layer = km.layers.DeformableConv2D(3, 3, offset_rate=each, kernel_initializer=keras.initializers.Constant(0.1))
        with tf.GradientTape() as tape:
            tape.watch(x)
            total = tf.reduce_sum(layer(x) ** 2)
        weights = {w.name: w.value for w in layer.weights}
        gradients.append(dict(zip([*weights, "x"], tape.gradient(total, [*weights.values(), x]), strict=True)))
    full, slow = gradients
    for name, value in full.items():
        factor = rate if name.startswith("offset") else 1
        np.testing.assert_allclose(slow[name], factor * value, atol=1e-4, err_msg=name)
        assert np.abs(value).max() > 0


def test_fit_moves_the_offsets_and_lowers_the_loss():
    keras.utils.set_random_seed(1)
    layer = km.layers.DeformableConv2D(2, 3, padding="same")
    model = keras.Sequential([keras.Input((10, 12, 3)), layer])
    x = keras.ops.convert_to_numpy(keras.layers.AveragePooling2D(3, 1, "same")(normal(4, 10, 12, 3)))
    model.compile(keras.optimizers.Adam(0.02), "mse")
    losses = model.fit(x, np.roll(x[..., :2], 1, 1), epochs=12, verbose=0).history["loss"]
    assert losses[-1] < 0.7 * losses[0]
    assert np.abs(layer.offset_kernel.numpy()).max() > 0.01


GOOD = {"inputs": (1, 8, 9, 4), "offsets": (1, 6, 7, 18), "kernel": (3, 3, 4, 2)}


@pytest.mark.parametrize(
    ("changes", "options", "message"),
    [
        ({"offsets": (1, 6, 7, 17)}, {}, "offsets of 18 channels.*17"),
        ({"offsets": (1, 6, 7, 54)}, {}, "divide the 4 channels.*3 deformable groups"),
        ({"offsets": (1, 5, 7, 18)}, {}, r"height and width of the output.*\(1, 6, 7\)"),
        ({"offsets": (2, 6, 7, 18)}, {}, "batch"),
        ({"offsets": (1, 8, 9, 18)}, {"strides": 2, "padding": "same"}, r"\(1, 4, 5\)"),
        ({"mask": (1, 6, 7, 8)}, {}, "mask must have 9 channels"),
        ({"mask": (1, 6, 6, 9)}, {}, "mask must have the batch"),
        ({"bias": (3,)}, {}, r"bias must have shape \(2,\)"),
        ({"kernel": (3, 3, 3, 2)}, {}, "groups must divide"),
        ({}, {"groups": 3}, "groups must divide"),
        ({"inputs": (8, 9, 4)}, {}, "inputs must have rank 4"),
        ({"kernel": (9, 9, 4, 2), "offsets": (1, 1, 1, 162)}, {}, "does not fit"),
        ({}, {"strides": 0}, "strides must be"),
        ({}, {"dilation_rate": (1, 1, 1)}, "dilation_rate must be"),
        ({}, {"padding": "full"}, "padding must be"),
        ({}, {"padding": -1}, "padding must be"),
        ({}, {"data_format": "NHWC"}, "data_format"),
    ],
)
def test_refuses(changes, options, message):
    arrays = {name: np.zeros(shape, "float32") for name, shape in {**GOOD, **changes}.items()}
    with pytest.raises(ValueError, match=message):
        km.ops.deform_conv2d(**arrays, **options)


@pytest.mark.parametrize(
    ("arguments", "shapes", "message"),
    [
        ({"filters": 0}, None, "filters"),
        ({"deformable_groups": 0}, None, "deformable_groups must be"),
        ({"deformable_groups": 3}, [(1, 8, 9, 4)], "deformable_groups must divide the 4 channels"),
        ({"groups": 4, "filters": 6}, None, "groups must divide the 6 filters"),
        ({"offset_rate": -1}, None, "offset_rate"),
        ({}, [(1, 8, 9, 4), (1, 6, 7, 9)], "offsets of .* must have 18 channels"),
        ({"modulated": True}, [(1, 8, 9, 4), (1, 6, 7, 18)], "input, offsets and mask"),
        ({}, [(8, 9, 4)], "known number of channels"),
    ],
)
def test_layer_refuses(arguments, shapes, message):
    def build():
        layer = km.layers.DeformableConv2D(**{"filters": 2, "kernel_size": 3, **arguments})
        layer.build(shapes if len(shapes) > 1 else shapes[0])

    with pytest.raises(ValueError, match=message):
        build()


def test_new_sizes_cost_nothing_that_stays():
    """XLA compiles for pictures of a known size in graphs; eagerly and for any size it would for each new one."""
    random = np.random.default_rng(0)
    layer = km.layers.DeformableConv2D(4, 3, padding="same")
    sizes = [(1, *random.integers(9, 30, 2), 3) for _ in range(3)]
    pictures = [random.normal(size=size).astype("float32") for size in sizes]
    before = len(bilinear_tf._gather.variants)
    any_size = tf.function(layer, input_signature=[tf.TensorSpec((1, None, None, 3))], autograph=False)
    eager = [layer(picture) for picture in pictures]
    for picture, found in zip(pictures, eager, strict=True):
        np.testing.assert_allclose(any_size(picture), found, atol=1e-5)
    assert len(bilinear_tf._gather.variants) == before
    np.testing.assert_allclose(tf.function(layer, autograph=False)(pictures[0]), eager[0], atol=1e-5)
    assert len(bilinear_tf._gather.variants) == before + 1
