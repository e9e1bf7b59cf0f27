"""A line search for the strong Wolfe conditions, inside a compiled graph.

References:
    Nocedal and Wright, Numerical Optimization, 2nd ed., algorithms 3.5 and 3.6, cubic interpolation (3.59). Hager and
    Zhang 2005: approximate Wolfe conditions, where a decrease drowns in rounding.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import tensorflow as tf

SUFFICIENT_DECREASE = 1e-4  # c1 of the Wolfe conditions, Nocedal and Wright section 3.1
_GROWTH = 10.0  # a step is at most this much longer than the one before it
_NOISE = 100.0  # values closer than this many units in the last place count as equal

Evaluate = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]
"""(n,) -> value and gradient (n,)."""


class Search(NamedTuple):
    """A line search: `lo` is the best step so far, `hi` the other end of the bracket, infinite while there is none."""

    t: tf.Tensor
    lo: tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # step, value, slope
    hi: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
    g: tf.Tensor  # gradient at lo
    trial: tf.Tensor  # the last value met at another place, to tell a stall from a divergence
    done: tf.Tensor
    evaluations: tf.Tensor


def epsilon(dtype: tf.DType) -> float:
    """The unit in the last place of 1."""
    return float(np.finfo(dtype.as_numpy_dtype).eps)


def dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """The scalar product of two vectors: of all ways to write it, the one that reads each of them once."""
    return tf.matmul(a[None], b[None], transpose_b=True)[0, 0]


def _cubic_minimum(
    a: tuple[tf.Tensor, tf.Tensor, tf.Tensor], b: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the cubic through two (step, value, slope) is least, and whether there is such a place."""
    d1 = a[2] + b[2] - 3 * (a[1] - b[1]) / (a[0] - b[0])
    inside = d1 * d1 - a[2] * b[2]
    d2 = tf.sign(b[0] - a[0]) * tf.sqrt(tf.maximum(inside, 0))
    place = b[0] - (b[0] - a[0]) * (b[2] + d2 - d1) / (b[2] - a[2] + 2 * d2)
    return place, (inside >= 0) & tf.math.is_finite(place)


def line_search(
    evaluate: Evaluate,
    x: tf.Tensor,
    f: tf.Tensor,
    g: tf.Tensor,
    direction: tf.Tensor,
    slope: tf.Tensor,
    first: tf.Tensor,
    *,
    lowest: tf.Tensor,
    curvature: float,
    limit: int,
    longest: tf.Tensor | None = None,
) -> Search:
    """A step along `direction` that satisfies the strong Wolfe conditions, or the best one met in `limit` evaluations.

    Bracketing and zooming are one loop with one evaluation in it, so that the graph holds the function once. Points
    with a value that is not finite count as too far. Where a decrease drowns in rounding, the slope decides.

    Args:
        evaluate: the function.
        x, f, g: where the search begins, with value and gradient there.
        direction: (n,), of descent.
        slope: along it at the beginning, negative.
        first: the first step tried, a multiple of `direction`.
        lowest: of all values met so far.
        curvature: c2, the part of the slope that may remain.
        limit: evaluations at most.
        longest: the step that ends at the bounds; it is taken where the function still falls there.
    """
    noise = _NOISE * epsilon(f.dtype)
    c1 = min(SUFFICIENT_DECREASE, curvature / 2)
    zero = tf.zeros_like(slope)
    infinite = tf.constant(float("inf"), slope.dtype)
    longest = infinite if longest is None else longest

    def body(search: Search) -> tuple[Search]:
        t, lo, hi = search.t, search.lo, search.hi
        place = x + t * direction
        here, there = evaluate(place)
        d = dot(there, direction)
        finite = tf.math.is_finite(here) & tf.math.is_finite(d)
        armijo = here <= f + c1 * t * slope
        approximate = (here <= lowest + noise * tf.abs(lowest)) & (d <= (2 * c1 - 1) * slope)
        enough = finite & (armijo | approximate)
        done = enough & ((tf.abs(d) <= curvature * tf.abs(slope)) | ((t >= longest) & (d < 0)))
        better = done | (enough & (here <= lo[1]))
        trial = (t, tf.where(finite, here, infinite), d)
        # The minimum lies between `lo` and `hi`; where the slope at a better `lo` points away from `hi`, the old `lo`
        # is the other end.
        turned = better & (d * (hi[0] - lo[0]) >= 0)
        new_lo = tuple(tf.where(better, new, old) for new, old in zip(trial, lo, strict=True))
        new_hi = tuple(
            tf.where(better, tf.where(turned, old_lo, old_hi), new)
            for new, old_lo, old_hi in zip(trial, lo, hi, strict=True)
        )
        bracketed = tf.math.is_finite(new_hi[0])
        # Without a bracket both known points lie behind us, and the cubic is extrapolated.
        other = tuple(tf.where(bracketed, end, old) for end, old in zip(new_hi, lo, strict=True))
        minimum, exists = _cubic_minimum(other, new_lo)
        reach = other[0] - new_lo[0]
        low = tf.where(bracketed, tf.minimum(new_lo[0], other[0]) + 0.1 * tf.abs(reach), 1.1 * new_lo[0])
        high = tf.where(bracketed, tf.maximum(new_lo[0], other[0]) - 0.1 * tf.abs(reach), _GROWTH * new_lo[0])
        blind = tf.where(bracketed, new_lo[0] + 0.1 * reach, _GROWTH * new_lo[0])
        ahead = tf.minimum(tf.where(exists, tf.clip_by_value(minimum, low, high), blind), longest)
        gradient = tf.cond(better, lambda: there, lambda: search.g)
        met = tf.where(tf.reduce_any(place != x), tf.where(tf.math.is_finite(d), here, d), search.trial)
        return (Search(ahead, new_lo, new_hi, gradient, met, done, search.evaluations + 1),)

    start = Search(
        tf.minimum(first, longest),
        (zero, f, slope),
        (infinite, infinite, zero),
        g,
        f,
        tf.constant(False),
        tf.constant(0),
    )
    (found,) = tf.while_loop(
        lambda search: ~search.done & (search.evaluations < limit), body, (start,), parallel_iterations=1
    )
    return found
