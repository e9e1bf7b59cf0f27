"""RoI pooling against loops written from the paper's code, and what must hold whatever the numbers."""

import math

import keras
import numpy as np
import pytest
import tensorflow as tf

import kerasmodels as km
from kerasmodels.errors import DataError

RANDOM = np.random.default_rng(0)
ROIS = np.array([[0, 3, 2, 60, 50], [1, -20, -9, 30, 200], [1, 90, 50, 91, 51], [0, 17, 33, 18, 90]], "float32")


@pytest.fixture(autouse=True)
def same_numbers_whatever_ran_before(monkeypatch):
    monkeypatch.setitem(globals(), "RANDOM", np.random.default_rng(0))


def normal(*shape, spread=1.0):
    return RANDOM.normal(0, spread, shape).astype("float32")


def by_loops(features, rois, offsets, size, samples, scale, gamma, position_sensitive):
    _, height, width, channels = features.shape
    outputs = channels // size**2 if position_sensitive else channels
    classes = 1 if offsets is None else offsets.shape[-1] // 2
    found = np.zeros((len(rois), size, size, outputs))
    for r, (picture, *corners) in enumerate(rois):
        x1, y1, x2, y2 = (round(float(c)) for c in corners)
        left, top = x1 * scale - 0.5, y1 * scale - 0.5
        wide, high = (max((b + 1) * scale - 0.5 - a, 0.1) for a, b in ((left, x2), (top, y2)))
        for i in range(size):
            for j in range(size):
                for o in range(outputs):
                    down = right = 0.0
                    if offsets is not None:
                        down, right = offsets[r, i, j, 2 * (o * classes // outputs) :][:2]
                    y0 = top + i * high / size + gamma * down * high
                    x0 = left + j * wide / size + gamma * right * wide
                    seen = []
                    for a in range(samples):
                        for b in range(samples):
                            y, x = y0 + a * high / size / samples, x0 + b * wide / size / samples
                            if not (-0.5 <= y <= height - 0.5 and -0.5 <= x <= width - 0.5):
                                continue
                            y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
                            channel = (i * size + j) * outputs + o if position_sensitive else o
                            plane = features[int(picture), :, :, channel]
                            seen.append(sum(
                                plane[yy, xx] * (1 - abs(y - yy)) * (1 - abs(x - xx))
                                for yy in {math.floor(y), math.ceil(y)} for xx in {math.floor(x), math.ceil(x)}
                            ))  # fmt: skip
                    found[r, i, j, o] = np.mean(seen) if seen else 0
    return found


@pytest.mark.parametrize("form", ["fast", "portable", "unknown sizes"])
@pytest.mark.parametrize(("position_sensitive", "classes"), [(False, 0), (False, 1), (True, 0), (True, 1), (True, 2)])
def test_equals_the_loops(position_sensitive, classes, form):
    size, samples = 3, 2
    features = normal(2, 8, 12, 4 * size**2 if position_sensitive else 4)
    offsets = normal(len(ROIS), size, size, 2 * classes, spread=2.0) if classes else None
    options = {"size": size, "samples": samples, "scale": 1 / 8, "position_sensitive": position_sensitive}
    expected = by_loops(features, ROIS, offsets, size, samples, 1 / 8, 0.1, position_sensitive)

    def call(features, rois, *offsets):
        return km.ops.roi_pool(features, rois, *offsets, **options)

    given = [features, ROIS, *([] if offsets is None else [offsets])]
    if form == "unknown sizes":
        specs = [tf.TensorSpec((*[None] * (a.ndim - 1), a.shape[-1])) for a in given]
        call = tf.function(call, input_signature=specs)
    with km.ops.traced_as("portable" if form == "portable" else "fast"):
        y = call(*given)
    assert np.abs(expected).max() > 0.5
    np.testing.assert_allclose(y, expected, atol=1e-4)


@pytest.mark.parametrize("name", ["RoIPooling", "PSRoIPooling", "DeformableRoIPooling", "DeformablePSRoIPooling"])
def test_a_constant_stays_that_constant(name):
    size = 3
    features = np.full((2, 8, 12, 2 * size**2), 1.75, "float32")
    maps = [normal(2, 8, 12, 2 * size**2)] if name == "DeformablePSRoIPooling" else []
    inside = ROIS[[0, 2]]  # of the others, whole bins are outside
    y = getattr(km.layers, name)(size, 4, 1 / 8)([features, inside, *maps])
    np.testing.assert_allclose(y, np.full(y.shape, 1.75), atol=1e-6)


def test_deformable_layers_begin_as_the_plain_ones():
    features, maps = normal(2, 8, 12, 18), np.zeros((2, 8, 12, 18), "float32")
    plain, moved = km.layers.RoIPooling(3), km.layers.DeformableRoIPooling(3)
    np.testing.assert_array_equal(moved([features, ROIS]), plain([features, ROIS]))
    plain, moved = km.layers.PSRoIPooling(3), km.layers.DeformablePSRoIPooling(3)
    np.testing.assert_array_equal(moved([features, ROIS, maps]), plain([features, ROIS]))


def test_gradients_are_those_of_small_differences():
    features = keras.ops.convert_to_numpy(keras.layers.AveragePooling2D(3, 1, "same")(normal(1, 9, 9, 4)))
    rois, offsets = ROIS[:1] * 0.9, normal(1, 2, 2, 2, spread=0.5)
    seen = normal(1, 2, 2, 4)

    def total(offsets):
        return tf.reduce_sum(km.ops.roi_pool(features, rois, offsets, size=2, samples=2, scale=1 / 8, gamma=0.1) * seen)

    with tf.GradientTape() as tape:
        variable = tf.constant(offsets)
        tape.watch(variable)
        value = total(variable)
    gradient = tape.gradient(value, variable).numpy()
    assert np.abs(gradient).max() > 1e-2
    for place in np.ndindex(offsets.shape):
        step = np.zeros_like(offsets)
        step[place] = 1e-2
        # To both sides: where a sample passes from one cell of pixels to the next, the slope changes.
        slopes = [float(total(offsets + sign * step) - value) / (sign * 1e-2) for sign in (1, -1)]
        assert min(slopes) - 1e-3 <= gradient[place] <= max(slopes) + 1e-3


def test_trains_and_the_offsets_learn_slower():
    gradients, features = [], tf.constant(normal(2, 8, 12, 3))
    for rate in (1.0, 0.01):
        layer = km.layers.DeformableRoIPooling(2, scale=1 / 8, offset_rate=rate)
        with tf.GradientTape() as tape:
            total = tf.reduce_sum(layer([features, ROIS]) ** 2)
        gradients.append(tape.gradient(total, [w.value for w in layer.weights]))
    for full, slow in zip(*gradients, strict=True):
        assert np.abs(full).max() > 1e-4
        np.testing.assert_allclose(slow, 0.01 * full, rtol=1e-3, atol=1e-7)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e30])
def test_offsets_that_lead_nowhere_pool_zero(value):
    offsets = np.full((4, 3, 3, 2), value, "float32")
    y = km.ops.roi_pool(normal(2, 8, 12, 4), ROIS, offsets, size=3, scale=1 / 8)
    np.testing.assert_array_equal(y, np.zeros(y.shape))


@pytest.mark.parametrize(
    ("roi", "message"),
    [
        ([0, 5, 5, 5, 20], "an area"),
        ([0, 5, 20, 9, 8], "an area"),
        ([0, 100, 5, 120, 20], "a part of the picture, which is 96 pixels wide and 64 high"),
        ([0, -9, -9, -2, 3], "a part of the picture"),
        ([2, 5, 5, 9, 20], "pictures 0 to 1"),
        ([0, 5, np.nan, 9, 20], "finite"),
    ],
)
def test_refuses_regions(roi, message):
    rois = np.array([ROIS[0], roi], "float32")
    for given in (rois, tf.constant(rois)):
        with pytest.raises(DataError, match=rf"{message}[\s\S]*rois\[1\]"):
            km.layers.RoIPooling(scale=1 / 8)([np.ones((2, 8, 12, 3), "float32"), given])


@pytest.mark.parametrize(
    ("shapes", "options", "message"),
    [
        ([(1, 8, 8, 4), (3, 4)], {}, r"rois must be \(R, 5\)"),
        ([(8, 8, 4), (3, 5)], {}, "features must be"),
        ([(1, 8, 8, 10), (3, 5)], {"position_sensitive": True, "size": 3}, "multiple of 9"),
        ([(1, 8, 8, 9), (3, 5), (3, 2, 2, 2)], {"size": 3}, "offsets must be"),
        ([(1, 8, 8, 9), (3, 5), (3, 3, 3, 3)], {"size": 3}, "offsets must be"),
        ([(1, 8, 8, 9), (3, 5), (3, 3, 3, 4)], {"size": 3}, "only for position-sensitive"),
        ([(1, 8, 8, 4), (3, 5)], {"size": 0}, "size must be"),
        ([(1, 8, 8, 4), (3, 5)], {"scale": 0}, "scale must be"),
    ],
)
def test_refuses(shapes, options, message):
    with pytest.raises(ValueError, match=message):
        km.ops.roi_pool(*(np.zeros(shape, "float32") for shape in shapes), **options)


@pytest.mark.parametrize("name", ["RoIPooling", "PSRoIPooling", "DeformableRoIPooling", "DeformablePSRoIPooling"])
def test_saved_and_loaded_equal(name, tmp_path):
    inputs = [keras.Input((8, 12, 18)), keras.Input((5,))]
    if name == "DeformablePSRoIPooling":
        inputs.append(keras.Input((8, 12, 36)))
    layer = getattr(km.layers, name)(3, 2, 1 / 8)
    model = keras.Model(inputs, layer(inputs))
    model.set_weights([normal(*w.shape, spread=0.3) for w in model.weights])
    assert model.output_shape == (None, 3, 3, 18 if name in ("RoIPooling", "DeformableRoIPooling") else 2)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    given = [normal(2, 8, 12, 18), ROIS, normal(2, 8, 12, 36)][: len(inputs)]
    np.testing.assert_array_equal(loaded(given), model(given))


def test_mixed_precision_keeps_the_regions_exact():
    # 2001 is not a number of bfloat16.
    rois = np.array([[0, 1985, 8, 2001, 24]], "float32")
    features = np.zeros((1, 4, 256, 2), "float32")
    features[:, :, 248:250] = 1
    exact, mixed = (
        km.layers.RoIPooling(2, scale=1 / 8, dtype=dtype)([features, rois]) for dtype in ("float32", "mixed_bfloat16")
    )
    assert mixed.dtype == tf.bfloat16
    np.testing.assert_allclose(tf.cast(mixed, tf.float32), exact, atol=0.01)
    assert np.mean(exact) > 0
