"""`bilinear.sample` for TensorFlow: XLA where it is fast, TensorFlow where that is, and a gradient written by hand.

On a CPU, XLA fuses four gathers with their weights into one pass that writes nothing in between, three times as fast as
one operator after the other. Its products of matrices are slow, so each step is compiled by itself and what multiplies
by the kernel is left to TensorFlow. Called from a function that is compiled as a whole, all becomes part of that.

XLA compiles for one size: 0.3 s and 3 MB each. So it does in graphs for pictures of a known size, as trainings have
them. For pictures of any size, in graphs and eagerly, TensorFlow's operators take half as long again (eagerly twice),
and nothing for a new size, where compiling would take thirty times as long as the work.

The gradient of four gathers, as derived automatically, keeps all four gathered arrays. Here the four places and weights
of each sample are kept, eight numbers, and the picture is gathered again.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from kerasmodels.ops import bilinear

LANES = 16
"""A sum along the channels is taken in so many parts, which processors add at once; XLA would add one by one."""


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` of tensors and `fixed`: compiled, in graphs of pictures of a fixed size, for every shape it meets;
    TensorFlow itself would warn of so many."""
    variants: dict[Any, Callable[..., Any]] = {}

    def call(*arrays: Any, fixed: bool) -> Any:
        if not fixed:
            return function(*arrays)
        key = tuple((array.dtype, tuple(array.shape)) for array in arrays)
        if key not in variants:
            variants[key] = tf.function(function, jit_compile=True, autograph=False)
        return variants[key](*arrays)

    call.variants = variants  # type: ignore[attr-defined]
    return call


def sample(pixels: Any, positions: Any, factors: Any, start: Any, size: tuple[Any, Any], steps: tuple[Any, Any]) -> Any:
    """See `bilinear.sample`."""
    fixed = not tf.executing_eagerly() and all(isinstance(side, int) for side in size)
    known = tf.convert_to_tensor([tf.cast(v, tf.int32) for v in (*size, *steps)])
    start = tf.convert_to_tensor(start)
    if factors is None:

        @tf.custom_gradient
        def plain(pixels: Any, positions: Any) -> Any:
            index, weights = _plan(positions, start, known, fixed=fixed)

            def gradient(upstream: Any) -> tuple[Any, Any]:
                products = _products(pixels, index, upstream, fixed)
                return _spread(upstream, index, weights, pixels, fixed=fixed), _moved(
                    products, positions, start, known, fixed=fixed
                )

            return _gather(pixels, index, weights, fixed=fixed), gradient

        return plain(pixels, positions)

    @tf.custom_gradient
    def weighted(pixels: Any, positions: Any, factors: Any) -> Any:
        index, weights = _plan(positions, start, known, fixed=fixed)
        both = weights * factors

        def gradient(upstream: Any) -> tuple[Any, Any, Any]:
            products = _products(pixels, index, upstream, fixed)
            return (
                _spread(upstream, index, both, pixels, fixed=fixed),
                _moved(products, positions, start, known, fixed=fixed) * factors[:, None],
                tf.reduce_sum(products * weights, 0),
            )

        return _gather(pixels, index, both, fixed=fixed), gradient

    return weighted(pixels, positions, factors)


@compiled
def _plan(positions: Any, start: Any, known: Any) -> tuple[Any, Any]:
    """(4, S) places and (4, S) weights."""
    height, width, down, right = tf.unstack(known)
    index, weights, _ = bilinear.corners(positions, start, (height, width), (down, right))
    return tf.stack(index), tf.stack(weights)


@compiled
def _gather(pixels: Any, index: Any, weights: Any) -> Any:
    weights = tf.cast(weights, pixels.dtype)
    return tf.add_n([tf.gather(pixels, index[k]) * weights[k][:, None] for k in range(4)])


def _products(pixels: Any, index: Any, upstream: Any, fixed: bool) -> Any:
    """(4, S) float32: of each of the four pixels with the gradient of the sample."""
    return tf.stack([tf.reduce_sum(part, -1) for part in _partial_products(pixels, index, upstream, fixed=fixed)])


@compiled
def _partial_products(pixels: Any, index: Any, upstream: Any) -> list[Any]:
    """Four (S, lanes)."""
    channels = pixels.shape[-1]
    lanes = LANES if channels % LANES == 0 else channels
    found = []
    for k in range(4):
        each = tf.cast(tf.gather(pixels, index[k]), tf.float32) * tf.cast(upstream, tf.float32)
        found.append(tf.reduce_sum(tf.reshape(each, (-1, channels // lanes, lanes)), 1))
    return found


@compiled
def _moved(products: Any, positions: Any, start: Any, known: Any) -> Any:
    """(S, 2): the gradient of the positions. What it needs of them is computed once more: cheaper than to keep it."""
    height, width, down, right = tf.unstack(known)
    _, _, (rows, columns) = bilinear.corners(positions, start, (height, width), (down, right))
    by_row = [slope * column for _, slope in rows for column, _ in columns]
    by_column = [row * slope for row, _ in rows for _, slope in columns]
    return tf.stack([tf.add_n([d * s for d, s in zip(tf.unstack(products), slopes, strict=True)])
                     for slopes in (by_row, by_column)], -1)  # fmt: skip


@compiled
def _spread(upstream: Any, index: Any, weights: Any, pixels: Any) -> Any:
    """The gradient of the pixels, summed in float32."""
    total = tf.zeros(tf.shape(pixels), tf.float32)
    upstream = tf.cast(upstream, tf.float32)
    for k in range(4):
        total = tf.tensor_scatter_nd_add(total, index[k][:, None], upstream * weights[k][:, None])
    return tf.cast(total, pixels.dtype)
