"""L-BFGS-B: a limited-memory quasi-Newton step within bounds, in TensorFlow operations.

Each step follows the projected gradient to the first minimum of the quadratic model (the generalized Cauchy point),
minimizes the model over the variables that are not at a bound there, and searches along the line to that point.

References:
    Byrd, Lu, Nocedal, Zhu: A Limited Memory Algorithm for Bound Constrained Optimization, 1995 (algorithm CP, and the
    direct primal method of section 5.1). Morales, Nocedal 2011: the minimum is projected onto the bounds.
"""

from typing import NamedTuple

import tensorflow as tf

from kerasmodels.optimizers.line_search import dot, epsilon, line_search
from kerasmodels.optimizers.steps import Method, Problem, State, Step


class _Pairs(NamedTuple):
    steps: tf.Tensor  # (m, n), the last changes of x, oldest first; zeros where there is none yet
    turns: tf.Tensor  # (m, n), the changes of g that go with them
    count: tf.Tensor


class _Model(NamedTuple):
    """The Hessian B = theta I - W M W^T."""

    theta: tf.Tensor
    w: tf.Tensor  # (2 m, n)
    m: tf.Tensor  # (2 m, 2 m)


def _start(problem: Problem, state: State) -> tuple[_Pairs, int]:
    nothing = tf.zeros((problem.options.memory, tf.size(state.x)), state.x.dtype)
    return _Pairs(nothing, nothing, tf.constant(0)), 0


def _apply(matrix: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
    return tf.linalg.matvec(matrix, vector)


def _model(pairs: _Pairs) -> _Model:
    s, y = pairs.steps, pairs.turns
    products = tf.matmul(s, y, transpose_b=True)
    size = s.shape[0]
    empty = tf.cast(tf.range(size) < size - pairs.count, s.dtype)
    theta = tf.math.divide_no_nan(dot(y[-1], y[-1]), products[-1, -1])
    theta = tf.where(pairs.count > 0, theta, tf.ones_like(theta))
    below = tf.linalg.band_part(products, -1, 0) - tf.linalg.diag(tf.linalg.diag_part(products))
    # Rows of W without a pair are zeros, whatever stands in M for them: 1 keeps it from being singular.
    corner = tf.linalg.diag(empty - tf.linalg.diag_part(products))
    square = theta * tf.matmul(s, s, transpose_b=True) + tf.linalg.diag(empty)
    inverse = tf.concat(
        [tf.concat([corner, tf.transpose(below)], 1), tf.concat([below, square], 1)],
        0,
    )
    return _Model(theta, tf.concat([y, theta * s], 0), tf.linalg.inv(inverse))


def _cauchy_point(problem: Problem, state: State, model: _Model) -> tuple[tf.Tensor, tf.Tensor]:
    """The first minimum of the quadratic model along the projected gradient, and c = W^T (it - x)."""
    x, g, theta = state.x, state.g, model.theta
    assert problem.bounds is not None
    lower, upper = problem.bounds
    infinite = tf.constant(float("inf"), x.dtype)
    room = tf.where(g < 0, x - upper, x - lower)
    breaks = tf.where(g == 0, infinite, room / tf.where(g == 0, tf.ones_like(g), g))
    d = tf.where(breaks <= 0, tf.zeros_like(g), -g)
    order = tf.argsort(breaks)
    times = tf.gather(breaks, order)
    begin = tf.reduce_sum(tf.cast(breaks <= 0, tf.int32))
    p = _apply(model.w, d)
    slope = -dot(d, d)
    bend = -theta * slope - dot(p, _apply(model.m, p))
    least = epsilon(x.dtype) * bend

    def going(i: tf.Tensor, at: tf.Tensor, best: tf.Tensor, *_: tf.Tensor) -> tf.Tensor:
        return (i < tf.size(x)) & (best >= times[tf.minimum(i, tf.size(x) - 1)] - at)

    def body(
        i: tf.Tensor, at: tf.Tensor, best: tf.Tensor, p: tf.Tensor, c: tf.Tensor, slope: tf.Tensor, bend: tf.Tensor
    ) -> tuple[tf.Tensor, ...]:
        b = order[i]
        apart, pull, row = times[i] - at, g[b], model.w[:, b]
        c = c + apart * p
        gone = -times[i] * pull
        weighted = _apply(model.m, row)
        slope = slope + apart * bend + pull**2 + theta * pull * gone - pull * dot(weighted, c)
        bend = bend - theta * pull**2 - 2 * pull * dot(weighted, p) - pull**2 * dot(weighted, row)
        bend = tf.maximum(bend, least)
        p = p + pull * row
        return i + 1, times[i], tf.math.divide_no_nan(-slope, bend), p, c, slope, bend

    zero = tf.zeros_like(slope)
    _, at, best, p, c, _, _ = tf.while_loop(
        going,
        body,
        (begin, zero, tf.math.divide_no_nan(-slope, bend), p, tf.zeros_like(p), slope, bend),
        parallel_iterations=1,
    )
    best = tf.maximum(best, 0)
    best = tf.where(tf.math.is_finite(best), best, zero)
    end = at + best
    there = tf.where(breaks <= end, tf.where(g < 0, upper, lower), x - end * g)
    there = tf.where((g == 0) | (breaks <= 0), x, there)
    return tf.clip_by_value(there, lower, upper), c + best * p


def _subspace_minimum(
    problem: Problem, state: State, model: _Model, cauchy: tf.Tensor, c: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """The model's minimum over the variables that are free at the Cauchy point, within the bounds."""
    assert problem.bounds is not None
    lower, upper = problem.bounds
    x, g, theta = state.x, state.g, model.theta
    free = tf.cast((cauchy > lower) & (cauchy < upper), x.dtype)
    left = free * (g + theta * (cauchy - x) - tf.linalg.matvec(model.w, _apply(model.m, c), transpose_a=True))
    within = model.w * free
    v = _apply(model.m, _apply(within, left))
    small = tf.matmul(within, within, transpose_b=True) / theta
    matrix = tf.eye(tf.shape(small)[0], dtype=x.dtype) - tf.matmul(model.m, small)
    v = tf.linalg.solve(matrix, v[:, None])[:, 0]
    change = -left / theta - tf.linalg.matvec(within, v, transpose_a=True) / theta**2
    change = tf.where(tf.math.is_finite(change), change, tf.zeros_like(change))
    projected = tf.clip_by_value(cauchy + change, lower, upper)
    # Where the projected point does not lie downhill, go towards the minimum only until the first bound.
    room = tf.where(change > 0, upper - cauchy, lower - cauchy)
    part = tf.where(change == 0, tf.ones_like(change), room / tf.where(change == 0, tf.ones_like(change), change))
    shortened = cauchy + tf.minimum(tf.reduce_min(part), 1) * change
    downhill = dot(projected - x, g) < 0
    chosen = tf.where(downhill, projected, tf.clip_by_value(shortened, lower, upper))
    return tf.where(tf.reduce_any(free > 0), chosen, cauchy), free


def _step(problem: Problem, state: State) -> Step:
    pairs: _Pairs = state.memory
    options, x = problem.options, state.x
    assert problem.bounds is not None
    lower, upper = problem.bounds
    fresh = pairs.count == 0
    model = _model(pairs)
    cauchy, c = _cauchy_point(problem, state, model)
    target, _ = tf.cond(
        fresh,
        lambda: (cauchy, tf.ones_like(x)),
        lambda: _subspace_minimum(problem, state, model, cauchy, c),
    )
    direction = target - x
    slope = dot(direction, state.g)
    room = tf.where(direction > 0, upper - x, lower - x)
    still, one = direction == 0, tf.ones_like(x)
    ways = tf.where(still, float("inf") * one, room / tf.where(still, one, direction))
    # The first step has no scale but the bounds'.
    longest = tf.where(state.iterations == 0, tf.ones_like(slope), tf.maximum(tf.reduce_min(ways), 1))
    boxed = tf.reduce_all(tf.math.is_finite(lower) & tf.math.is_finite(upper))
    length = tf.sqrt(dot(direction, direction))
    first = tf.where(fresh & ~boxed, tf.minimum(options.first_length / length, 1), tf.ones_like(length))
    downhill = slope < 0
    found = line_search(
        problem.evaluate,
        x,
        state.f,
        state.g,
        direction,
        slope,
        first,
        lowest=state.lowest,
        curvature=options.curvature,
        limit=tf.where(downhill, options.max_line_search, 0),
        longest=longest,
    )
    t, f, _ = found.lo
    moved = downhill & (t > 0) & (found.done | (f < state.f))
    f = tf.where(moved, f, state.f)
    g = tf.cond(moved, lambda: found.g, lambda: state.g)
    # Exactly at a bound: rounding must not leave a variable beside it.
    reached = tf.where(t == 1, target, tf.clip_by_value(x + t * direction, lower, upper))
    reached = tf.where((t >= ways) & (direction != 0), tf.where(direction > 0, upper, lower), reached)
    after = tf.cond(moved, lambda: reached, lambda: x)
    s, y = after - x, g - state.g
    curved = moved & (dot(s, y) > -epsilon(f.dtype) * t * slope)

    def kept() -> _Pairs:
        """A step without positive curvature teaches nothing; one that failed may be the memory's fault."""
        nothing = tf.zeros_like(pairs.steps)
        return _Pairs(
            tf.where(moved, pairs.steps, nothing),
            tf.where(moved, pairs.turns, nothing),
            tf.where(moved, pairs.count, 0),
        )

    def pushed() -> _Pairs:
        return _Pairs(
            tf.concat([pairs.steps[1:], s[None]], 0),
            tf.concat([pairs.turns[1:], y[None]], 0),
            tf.minimum(pairs.count + 1, pairs.steps.shape[0]),
        )

    memory = tf.cond(curved, pushed, kept)
    return Step(after, f, g, memory, found.evaluations, moved, stuck=~moved & fresh, trial=found.trial)


METHOD = Method(_start, _step, bounds=True)
