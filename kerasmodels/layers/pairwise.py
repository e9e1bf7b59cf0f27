"""Gaussian sums over the pixels of a picture: over all pairs, or over those in a window.

A filter takes and gives (N, H, W, C) float32.
"""

import math
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from kerasmodels.layers.padding import reflect_to_multiple
from kerasmodels.layers.permutohedral import PermutohedralLattice

Filter = Callable[[tf.Tensor], tf.Tensor]
Deviations = Sequence[float]


def features(picture: tf.Tensor, sxy: Deviations, srgb: Deviations | None) -> tf.Tensor:
    """(N, H, W, 3) -> (N, H, W, 2 or 5): x and y, and where srgb is given the color, over their deviations."""
    n, height, width = (tf.shape(picture)[axis] for axis in range(3))
    y, x = tf.meshgrid(tf.range(height), tf.range(width), indexing="ij")
    place = tf.cast(tf.stack([x, y], axis=-1), tf.float32) / tf.constant(sxy, tf.float32)
    place = tf.tile(place[None], tf.stack([n, 1, 1, 1]))
    return place if srgb is None else tf.concat([place, picture / tf.constant(srgb, tf.float32)], axis=-1)


def factors(norm: tf.Tensor, normalization: str) -> tuple[tf.Tensor | None, tf.Tensor | None]:
    """What to multiply with before and after the filter K so that it is normalized; None for 1.

    Args:
        norm: K 1, (N, H, W, 1).
        normalization: symmetric, before, after or none, as in `DenseCRF`.
    """
    if normalization == "symmetric":
        root = tf.math.rsqrt(norm + 1e-20)
        return root, root
    if normalization == "none":
        return None, None
    one_over = 1.0 / (norm + 1e-20)
    return (one_over, None) if normalization == "before" else (None, one_over)


def normalized(kernel: Filter, like: tf.Tensor, normalization: str, weight: float) -> Filter:
    """The filter normalized, and times `weight`. like: (N, H, W, C), of the size that it filters."""
    before, after = factors(kernel(tf.ones_like(like[:, :, :, :1])), normalization)
    scale = weight if after is None else weight * after
    return lambda x: scale * kernel(x if before is None else before * x)


# --- all pairs --------------------------------------------------------------------------------------------------------


def exact_kernel(values: tf.Tensor) -> Filter:
    """exp(-|f_i - f_j|^2 / 2) for all pairs of pixels: (N, H, W, d) features -> filter."""
    shape = tf.shape(values)
    points = tf.reshape(values, tf.stack([shape[0], shape[1] * shape[2], values.shape[-1]]))
    # Differences first: the squares of large coordinates would leave no digits for small distances.
    apart = tf.add_n([tf.square(f[:, :, None] - f[:, None, :]) for f in tf.unstack(points, axis=2)])
    kernel = tf.exp(-0.5 * apart)

    def filtered(x: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(x, tf.stack([shape[0], shape[1] * shape[2], tf.shape(x)[3]]))
        return tf.reshape(tf.matmul(kernel, flat), tf.shape(x))

    return filtered


def on_lattice(values: tf.Tensor, normalization: str, weight: float) -> Filter:
    """The same by a permutohedral lattice, normalized, and times `weight`."""
    shape = tf.shape(values)
    lattice = PermutohedralLattice(tf.reshape(values, tf.stack([shape[0], shape[1] * shape[2], values.shape[-1]])))
    before, after = factors(tf.reshape(lattice.norm(), tf.stack([*tf.unstack(shape)[:3], 1])), normalization)
    flat = None if before is None else tf.reshape(before, (-1,))
    flat_after = flat if after is before else None if after is None else tf.reshape(after, (-1,))
    through = lattice.filter(flat, flat_after, weight)

    def filtered(x: tf.Tensor) -> tf.Tensor:
        channels = x.shape[-1] or tf.shape(x)[3]
        return tf.reshape(through(tf.reshape(x, tf.stack([lattice.points, channels]))), tf.shape(x))

    return filtered


# --- in a window ------------------------------------------------------------------------------------------------------


def window_gaussian(sxy: Deviations, reach: int) -> Filter:
    """The Gaussian of the distance, over pixels at most `reach` or five deviations away: two convolutions."""
    taps = []
    for deviation in sxy:
        half = min(reach, math.ceil(5 * deviation))
        taps.append(np.exp(-0.5 * (np.arange(-half, half + 1) / deviation) ** 2).astype("float32"))
    across, down = taps

    def filtered(x: tf.Tensor) -> tf.Tensor:
        channels = x.shape[-1]
        for kernel in (across[None, :, None, None], down[:, None, None, None]):
            x = tf.nn.depthwise_conv2d(x, np.tile(kernel, (1, 1, channels, 1)), (1, 1, 1, 1), "SAME")
        return x

    return filtered


def window_bilateral(
    picture: tf.Tensor, sxy: Deviations, srgb: Deviations, radius: int, stride: int, normalization: str, weight: float
) -> Filter:
    """The bilateral filter on a field `stride` times smaller, over (2 radius + 1)^2 of its positions; normalized.

    Values are averaged over stride x stride pixels, and the result is interpolated back.
    """
    small = tf.transpose(_shrunk(picture, stride), (0, 3, 1, 2)) / tf.constant(srgb, tf.float32)[:, None, None]
    offsets = [(dy, dx) for dy in range(2 * radius + 1) for dx in range(2 * radius + 1)]
    around, near = _shifts(small, radius), []
    for dy, dx in offsets:
        apart = tf.reduce_sum(tf.square(around(dy, dx) - small), axis=1, keepdims=True)
        there = ((dx - radius) * stride / sxy[0]) ** 2 + ((dy - radius) * stride / sxy[1]) ** 2
        near.append(tf.exp(-0.5 * (apart + there)))
    # The offsets lie along the first axis, so that each one's factors are together in memory.
    stacked = tf.concat(near, axis=1)
    stacked = tf.transpose(stacked, (1, 0, 2, 3))

    def kernel(x: tf.Tensor) -> tf.Tensor:  # (N, C, h, w)
        shifted = _shifts(x, radius)
        total = tf.zeros_like(x)
        for number, (dy, dx) in enumerate(offsets):
            total += tf.expand_dims(stacked[number], 1) * shifted(dy, dx)
        return total

    norm = tf.transpose(kernel(tf.ones_like(small[:, :1])), (0, 2, 3, 1))
    before, after = (None if f is None else tf.transpose(f, (0, 3, 1, 2)) for f in factors(norm, normalization))
    scale = weight if after is None else weight * after

    def filtered(x: tf.Tensor) -> tf.Tensor:
        values = tf.transpose(_shrunk(x, stride), (0, 3, 1, 2))
        values = scale * kernel(values if before is None else before * values)
        values = tf.transpose(values, (0, 2, 3, 1))
        if stride == 1:
            return values
        size = tf.shape(x)
        grown = tf.image.resize(values, tf.shape(values)[1:3] * stride, "bilinear")
        return grown[:, : size[1], : size[2], :]

    return filtered


def _shrunk(x: tf.Tensor, stride: int) -> tf.Tensor:
    return x if stride == 1 else tf.nn.avg_pool2d(reflect_to_multiple(x, stride), stride, stride, "VALID")


def _shifts(x: tf.Tensor, radius: int) -> Callable[[int, int], tf.Tensor]:
    """(N, C, h, w) -> what lies dy - radius rows and dx - radius columns further, 0 outside."""
    padded = tf.pad(x, ((0, 0), (0, 0), (radius, radius), (radius, radius)))

    def shifted(dy: int, dx: int) -> tf.Tensor:
        return padded[:, :, dy : (dy - 2 * radius) or None, dx : (dx - 2 * radius) or None]

    return shifted
