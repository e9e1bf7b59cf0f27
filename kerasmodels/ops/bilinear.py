"""Samples between the pixels of pictures, weighted and summed, and their gradients."""

from typing import Any

import keras
import numpy as np
from keras import ops

OUTSIDE = -2.0
"""Where a sample goes that is outside the picture, or nowhere: both pixels of its cell are outside."""


def shape_of(x: Any) -> tuple[Any, ...]:
    """The sizes of all axes, ints where known."""
    known = tuple(x.shape)
    if None not in known:
        return known
    found = ops.shape(x)
    return tuple(found[i] if size is None else size for i, size in enumerate(known))


def starts(pictures: Any, rows: Any, samples: Any, parts: int) -> Any:
    """The row of the first pixel of the picture each sample looks at, the part of its channels included.

    Args:
        pictures: how many.
        rows: of one picture.
        samples: of one picture, each of all parts.
        parts: of the channels.

    Returns:
        (pictures * samples * parts,) int32.
    """
    if all(isinstance(v, int) for v in (pictures, rows, samples)):
        found = np.arange(pictures)[:, None, None] * rows + np.arange(parts)
        return ops.convert_to_tensor(np.broadcast_to(found, (pictures, samples, parts)).reshape(-1).astype("int32"))
    index = ops.arange(pictures * samples * parts)
    return ops.floor_divide(index, samples * parts) * rows + ops.mod(index, parts)


def sample(
    pixels: Any,
    positions: Any,
    factors: Any,
    start: Any,
    size: tuple[Any, Any],
    steps: tuple[Any, Any],
    fast: bool = True,
) -> Any:
    """Bilinear samples of pictures that are zero outside.

    Args:
        pixels: (rows, C), all pictures one after the other.
        positions: (S, 2) float32, row and column in pixels. NaN and infinity are outside.
        factors: None or (S,): of the samples.
        start: (S,) int32, the row of the first pixel of the sample's picture.
        size: height and width of the pictures.
        steps: how many rows of `pixels` lie between a pixel and the one below it, and the one to its right.
        fast: use this TensorFlow's fastest operators, which not every converter knows.

    Returns:
        (S, C) of the dtype of `pixels`.
    """
    if fast and keras.backend.backend() == "tensorflow":
        from kerasmodels.ops import bilinear_tf

        return bilinear_tf.sample(pixels, positions, factors, start, size, steps)
    index, weights, _ = corners(positions, start, size, steps)
    total = None
    for place, weight in zip(index, weights, strict=True):
        weight = weight if factors is None else ops.multiply(weight, factors)
        part = ops.multiply(_take(pixels, place), ops.expand_dims(ops.cast(weight, pixels.dtype), -1))
        total = part if total is None else ops.add(total, part)
    return total


def _take(rows: Any, index: Any) -> Any:
    """Without the operators by which `ops.take` allows for negative numbers."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.gather(rows, index)
    return ops.take(rows, index, axis=0)


def corners(positions: Any, start: Any, size: tuple[Any, Any], steps: tuple[Any, Any]) -> tuple[list, list, list]:
    """The four pixels around each position: top left, top right, bottom left, bottom right.

    Args:
        positions, start, size, steps: as `sample` takes them.

    Returns:
        their rows, four (S,) int32; their weights, four (S,) float32, 0 for pixels outside; and what the weights are
        made of: [(row weight of the upper pixel, of the lower), (column weight of the left one, of the right)], each
        with its derivative: ((value, derivative), (value, derivative)).
    """
    places, factors = [], []
    for axis in range(2):
        limit = ops.cast(size[axis], "float32")
        position = positions[:, axis]
        inside = ops.logical_and(ops.greater_equal(position, -1.0), ops.less(position, limit))
        position = ops.where(inside, position, ops.convert_to_tensor(np.float32(OUTSIDE)))
        low = ops.stop_gradient(ops.floor(position))
        far = ops.subtract(position, low)
        high, last = ops.add(low, 1.0), ops.subtract(limit, 1.0)
        first, second = (ops.minimum(ops.maximum(edge, 0.0), last) for edge in (low, high))
        has_first = ops.cast(ops.equal(first, low), "float32")
        has_second = ops.cast(ops.equal(second, high), "float32")
        steps_in = [ops.multiply(ops.cast(edge, "int32"), steps[axis]) for edge in (first, second)]
        places.append([ops.add(start, s) for s in steps_in] if axis == 0 else steps_in)
        near = ops.multiply(ops.subtract(1.0, far), has_first)
        factors.append(((near, ops.negative(has_first)), (ops.multiply(far, has_second), has_second)))
    index = [ops.add(row, column) for row in places[0] for column in places[1]]
    weights = [ops.multiply(row[0], column[0]) for row in factors[0] for column in factors[1]]
    return index, weights, factors
