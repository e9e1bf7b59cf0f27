"""Bicubic resizing: a slow reference in MATLAB's own terms, sizes unknown, and the luma of pictures."""

import math

import numpy as np
import pytest
import tensorflow as tf

import kerasmodels as km
from kerasmodels.ops import imresize, rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb


def reference(x, scale, out, antialias):
    """One axis, (L, ...), as MATLAB's documentation tells it, in float64, a pixel at a time."""
    width = 4 / scale if antialias and scale < 1 else 4.0
    shrink = scale if antialias and scale < 1 else 1.0

    def kernel(t):
        t = abs(t)
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        return near if t <= 1 else far if t <= 2 else 0.0

    rows = []
    for o in range(1, out + 1):
        u = o / scale + 0.5 * (1 - 1 / scale)
        left = math.floor(u - width / 2)
        at = left + np.arange(math.ceil(width) + 2)
        weights = np.array([shrink * kernel(shrink * (u - i)) for i in at])
        mirror = np.concatenate([np.arange(len(x)), np.arange(len(x))[::-1]])
        rows.append(np.tensordot(weights / weights.sum(), x[mirror[(at - 1) % len(mirror)]], 1))
    return np.stack(rows)


@pytest.mark.parametrize("antialias", [True, False])
@pytest.mark.parametrize("scale", [0.25, 1 / 3, 0.5, 0.7, 1.37, 2, 3, 4])
@pytest.mark.parametrize("shape", [(1, 1), (2, 9), (31, 17)])
def test_the_reference(shape, scale, antialias):
    x = np.random.default_rng(0).uniform(0, 255, (2, *shape, 3)).astype("float32")
    made = np.asarray(imresize(x, scale, antialias=antialias))
    sizes = [math.ceil(round(n * scale, 9)) for n in shape]
    expected = x.astype("float64")
    for axis in (1, 2):
        moved = reference(np.moveaxis(expected, axis, 0), scale, sizes[axis - 1], antialias)
        expected = np.moveaxis(moved, 0, axis)
    assert made.shape == (2, *sizes, 3)
    np.testing.assert_allclose(made, expected, atol=3e-4)


def test_values_by_hand():
    """Half of [1 5 2 7 3 9] and twice [1 5 2], with the kernel's values worked out."""
    half = np.ravel(imresize(np.array([[[[1.0], [5], [2], [7], [3], [9]]]]), size=(1, 3)))
    double = np.ravel(imresize(np.array([[[[1.0], [5], [2]]]]), size=(1, 6)))
    weights = np.array([-3, -9, 29, 111, 111, 29, -9, -3]) / 256
    line = np.array([1.0, 5, 2, 7, 3, 9])
    mirrored = np.concatenate([line[::-1], line, line[::-1]])
    np.testing.assert_allclose(half, [weights @ mirrored[6 + 2 * i - 3 : 6 + 2 * i + 5] for i in range(3)], atol=1e-5)
    taps = np.array([-3, 29, 111, -9]) / 128
    mirrored = np.array([5.0, 1, 1, 5, 2, 2, 5])
    expected = []
    for i in range(3):
        at = i + 2
        expected += [taps @ mirrored[at - 2 : at + 2], taps[::-1] @ mirrored[at - 1 : at + 3]]
    np.testing.assert_allclose(double, expected, atol=1e-5)


@pytest.mark.parametrize("scale", [0.25, 1 / 3, 1.5, 3, 4])
def test_sizes_that_are_not_known(scale):
    call = tf.function(lambda x: imresize(x, scale), input_signature=[tf.TensorSpec([None, None, None, 3])])
    for shape in ((1, 1, 1, 3), (2, 20, 33, 3), (1, 5, 64, 3)):
        x = np.random.default_rng(0).uniform(0, 255, shape).astype("float32")
        np.testing.assert_allclose(call(x), imresize(x, scale), atol=3e-4)


def test_wrong_requests():
    x = np.zeros((1, 4, 4, 1), "float32")
    for wrong in ({}, {"scale": 2, "size": (8, 8)}, {"scale": 0}, {"scale": -1.0}, {"size": (0, 3)}):
        with pytest.raises(ValueError, match="scale"):
            imresize(x, **wrong)
    with pytest.raises(ValueError, match="known height"):
        tf.function(lambda x: imresize(x, size=(8, 8))).get_concrete_function(tf.TensorSpec([1, None, None, 3]))


def test_constants_stay():
    assert np.ptp(np.asarray(imresize(np.full((1, 7, 9, 1), 200, "uint8"), 0.3))) < 1e-4


# BT.601 in 8 bits, studio range: white, black, red, green, blue, and a gray.
STUDIO = {
    (255, 255, 255): (235, 128, 128),
    (0, 0, 0): (16, 128, 128),
    (255, 0, 0): (81, 90, 240),
    (0, 255, 0): (145, 54, 34),
    (0, 0, 255): (41, 240, 110),
    (128, 128, 128): (126, 128, 128),
}


def test_luma():
    colors = np.array(list(STUDIO), "float32")[None]
    np.testing.assert_array_equal(np.rint(rgb_to_ycbcr(colors))[0], list(STUDIO.values()))
    full = np.asarray(rgb_to_ycbcr(colors, "full"))[0, :, 0]
    np.testing.assert_allclose(full, [255, 0, 76.245, 149.685, 29.07, 128], atol=1e-2)
    for luma in ("studio", "full"):
        back = ycbcr_to_rgb(rgb_to_ycbcr(colors, luma), luma)
        np.testing.assert_allclose(back, colors, atol=1e-3)
        np.testing.assert_array_equal(rgb_to_luma(colors, luma), np.asarray(rgb_to_ycbcr(colors, luma))[..., :1])
    with pytest.raises(ValueError, match="studio"):
        km.ops.rgb_to_luma(colors, "video")
