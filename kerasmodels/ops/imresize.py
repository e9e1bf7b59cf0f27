"""Bicubic resizing with antialiasing, as MATLAB's `imresize` does it: what super-resolution is measured with."""

import math
from fractions import Fraction
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmodels.ops.bilinear import shape_of

_SUPPORT = 4
"""Width of the cubic kernel, pixels."""


def imresize(x: Any, scale: float | None = None, size: tuple[int, int] | None = None, antialias: bool = True) -> Any:
    """Resize pictures by cubic interpolation; where they shrink, the kernel is widened so that nothing aliases.

    `ops.image.resize(..., "bicubic")` has another kernel (a = -0.75 in places), other borders and, without
    `antialias=True`, aliases: papers of super-resolution are about 1 dB off with it. On the TensorFlow backend heights
    and widths may be unknown, and every export format takes it; only the scale must be known when a graph is made,
    because the number of taps depends on it.

    Args:
        x: (N, H, W, C), any range; integers become float32. Nothing is rounded or clipped.
        scale: a factor for both axes; the result has ceil(scale * H) rows.
        size: (height, width) instead of a scale; H and W must then be known.
        antialias: widen the kernel where an axis shrinks. Without it: samples of the interpolated picture.

    Returns:
        (N, H', W', C), the floating-point dtype of `x`, or float32.

    Raises:
        ValueError: none or both of scale and size, or one that is not positive; or a size for pictures of unknown size.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> ramp = np.arange(8.0).reshape(1, 1, 8, 1)
        >>> np.ravel(km.ops.imresize(ramp, size=(1, 4))).round(3).tolist()
        [0.449, 2.488, 4.512, 6.551]

    Reference:
        MATLAB's documentation of imresize; Keys: Cubic Convolution Interpolation for Digital Image Processing, 1981.
    """
    if (scale is None) == (size is None):
        raise ValueError(f"expected one of scale and size. Received: scale={scale}, size={size}")
    x = ops.convert_to_tensor(x)
    if not keras.backend.is_float_dtype(x.dtype):
        x = ops.cast(x, "float32")
    shape = shape_of(x)
    for axis in (1, 2):
        length = shape[axis]
        if size is not None and not isinstance(length, int):
            raise ValueError("a size is for pictures of known height and width: give a scale.")
        factor = exact(scale or 0.0) if size is None else Fraction(int(size[axis - 1]), length)
        if factor <= 0:
            raise ValueError(f"expected a positive scale or size. Received: scale={scale}, size={size}")
        if factor != 1:
            x = _along(x, axis, length, factor, antialias)
    return x


def exact(scale: float) -> Fraction:
    """A scale as a ratio of small whole numbers: 0.3333 is 3333 / 10000, and 1 / 3 is a third."""
    return Fraction(scale).limit_denominator(10000)


def resized_length(length: int, scale: Fraction) -> int:
    """How many pixels become of `length`."""
    return math.ceil(length * scale)


def taps(length: Any, scale: Fraction, antialias: bool = True, first: Any = 0, count: Any = None) -> list[tuple]:
    """Which pixels of an axis each pixel of the resized axis is made of.

    Positions are whole numbers and ratios of them, never the products of large and small numbers: a part of a picture
    gives the bits that the whole gives.

    Args:
        length: of the axis, pixels; an int, or a scalar tensor.
        scale: of the axis.
        antialias: see `imresize`.
        first, count: of the resized axis, which pixels; all if left out.

    Returns:
        [(index, weight), ...]: (count,) int32 and (count,) float32 each, NumPy arrays if `length` is an int. The pixel
        is the sum of all `weight * axis[index]`; the axis is mirrored beyond its ends, which are repeated.
    """
    known = isinstance(length, int)
    xp, cast = (np, lambda v: np.asarray(v, "float64")) if known else (ops, lambda v: ops.cast(v, "float32"))
    up, down = scale.numerator, scale.denominator
    if count is None:
        count = (length * up + down - 1) // down
    stretch = min(float(scale), 1.0) if antialias else 1.0
    reach = _SUPPORT / 2 / stretch
    numbers = xp.arange(first, first + count, dtype="int64" if known else "int32")
    # The center of pixel o lies at (o + 1/2) / scale - 1/2 = ((2 o + 1) down - up) / (2 up).
    center = (2 * numbers + 1) * down - up
    below = xp.floor_divide(center, 2 * up)
    beyond = cast(center - below * (2 * up)) / (2.0 * up)
    found, total = [], 0.0
    for tap in range(math.floor(-reach) + 1, math.ceil(1 + reach)):
        weight = _cubic(xp, (beyond - tap) * stretch)
        total = total + weight
        # Not the remainder of a negative number, on whose sign runtimes disagree.
        turned = xp.mod(below + (tap + 2 * length * math.ceil(reach + 1)), 2 * length)
        found.append((xp.minimum(turned, 2 * length - 1 - turned), weight))
    if known:
        return [(index.astype("int32"), (weight / total).astype("float32")) for index, weight in found]
    return [(index, weight / total) for index, weight in found]


def resample(x: np.ndarray, axis: int, found: list[tuple]) -> np.ndarray:
    """The same on NumPy arrays: `x` along an axis as `taps` say, float32."""
    spread = [1] * x.ndim
    spread[axis] = -1
    parts = (np.take(x, index, axis).astype("float32") * weight.reshape(spread) for index, weight in found)
    total = next(parts)
    for part in parts:
        total += part
    return total


def _along(x: Any, axis: int, length: Any, scale: Fraction, antialias: bool) -> Any:
    # A sum of products one after the other, not a product of matrices: its rounding does not depend on where a pixel
    # lies, so that pictures can be resized in pieces.
    total = None
    for index, weight in taps(length, scale, antialias):
        factor = ops.cast(ops.reshape(weight, (-1, 1, 1) if axis == 1 else (1, -1, 1)), x.dtype)
        part = ops.multiply(_take(x, index, axis), factor)
        total = part if total is None else ops.add(total, part)
    return total


def _take(x: Any, index: Any, axis: int) -> Any:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # ops.take would add operators that treat negative indices, of which there are none.
        return tf.gather(x, index, axis=axis)
    return ops.take(x, ops.convert_to_tensor(index), axis=axis)


def _cubic(xp: Any, x: Any) -> Any:
    """Keys' kernel with a = -1/2, without branches."""
    x = xp.absolute(x)
    near, far = (1.5 * x - 2.5) * x * x + 1.0, ((-0.5 * x + 2.5) * x - 4.0) * x + 2.0
    return xp.where(x <= 1.0, near, xp.where(x < 2.0, far, 0.0 * x))
