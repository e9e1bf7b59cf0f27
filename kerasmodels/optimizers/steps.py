"""One step of each method of `optimizers.minimize`: from a state to the next, in TensorFlow operations.

A method is a `Method`: what it remembers at first, and a step. Whether it has converged, how often it is called and
what becomes of the variables is the driver's business (minimize.py). L-BFGS-B and those of TensorFlow Probability have
files of their own (lbfgsb.py, probability.py).

References:
    Nocedal and Wright, Numerical Optimization, 2nd ed.: the two-loop recursion (algorithm 7.4) in its compact form
    (7.24), Fletcher-Reeves (5.41) with restarts (5.52), Polak-Ribiere+ (5.45), truncated Newton (7.1). Goodfellow,
    Bengio, Courville, Deep Learning, sections 8.6 and 8.7.2. Only scalar products decide the direction, as in Chen,
    Wang, Zhou: Large-scale L-BFGS using MapReduce, 2014.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import tensorflow as tf

from kerasmodels.optimizers.line_search import Evaluate, Search, dot, epsilon, line_search


@dataclass(frozen=True)
class Options:
    """What the methods can be told; see `minimize`."""

    memory: int
    first_length: float
    curvature: float
    max_line_search: int
    tolerance: float
    inner_tolerance: float | None
    max_products: int
    damping: float
    population: int
    seed: int


class Problem(NamedTuple):
    """A function of one vector (n,), and what is known of it."""

    evaluate: Evaluate
    value: Callable[[tf.Tensor], tf.Tensor]
    product: Callable[[tf.Tensor, tf.Tensor], tf.Tensor]  # position, vector -> Hessian times vector
    bounds: tuple[tf.Tensor, tf.Tensor] | None  # lower and upper (n,), infinite where there is none
    options: Options


class State(NamedTuple):
    """The whole optimizer between two iterations: this, and nothing else, decides how it goes on."""

    x: tf.Tensor  # (n,)
    f: tf.Tensor
    g: tf.Tensor  # (n,); zeros if the method has no gradient
    memory: Any  # the method's own
    iterations: tf.Tensor
    evaluations: tf.Tensor
    products: tf.Tensor
    ended: tf.Tensor  # number of a reason (minimize.py); 0: it goes on
    trial: tf.Tensor  # the last value met at another place than x, to tell a stall from a divergence
    lowest: tf.Tensor  # of all values so far
    smallest: tf.Tensor  # of all squared gradient norms so far
    idle: tf.Tensor  # iterations since the last record of either


class Step(NamedTuple):
    """What a method did in an iteration."""

    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    memory: Any
    evaluations: tf.Tensor
    moved: tf.Tensor
    stuck: tf.Tensor  # it has nothing else to try
    trial: tf.Tensor
    products: Any = 0
    settled: Any = False  # what it looks at instead of a gradient is small enough


@dataclass(frozen=True)
class Method:
    """A method of `minimize`.

    Args:
        start: (problem, state without memory) -> what it remembers at first, a nest of tensors, and the evaluations
            which that took.
        step: (problem, state) -> what it did.
        curvature: c2 of its line search by default.
        gradient: whether it has one, and can tell from it when to stop.
        bounds: whether it minds them.
        settled: what it looks at instead of a gradient, in words.
    """

    start: Callable[[Problem, State], tuple[Any, Any]]
    step: Callable[[Problem, State], Step]
    curvature: float = 0.9
    gradient: bool = True
    bounds: bool = False
    settled: str = ""


# --- along a direction ------------------------------------------------------------------------------------------------


class _Move(NamedTuple):
    s: tf.Tensor  # the change of x
    f: tf.Tensor
    g: tf.Tensor
    t: tf.Tensor  # the change as a multiple of the direction
    moved: tf.Tensor
    steepest: tf.Tensor  # the direction was the negative gradient
    curved: tf.Tensor  # the function curves upwards along it
    found: Search


def _move(
    problem: Problem,
    state: State,
    direction: tf.Tensor,
    fresh: tf.Tensor,
    first_trial: Callable[[tf.Tensor], tf.Tensor],
) -> _Move:
    """A line search along `direction`; along the negative gradient if the step is `fresh` or would lead uphill."""
    options = problem.options
    slope = dot(direction, state.g)
    steepest = ~(slope < 0) | fresh
    direction = tf.cond(steepest, lambda: -state.g, lambda: direction)
    slope = tf.where(steepest, -dot(state.g, state.g), slope)
    # The gradient's length says nothing about how far to go, so the first step's length is given.
    first = tf.where(steepest, options.first_length / tf.sqrt(-slope), first_trial(slope))
    found = line_search(
        problem.evaluate,
        state.x,
        state.f,
        state.g,
        direction,
        slope,
        first,
        lowest=state.lowest,
        curvature=options.curvature,
        limit=options.max_line_search,
    )
    t, f, _ = found.lo
    moved = (t > 0) & (found.done | (f < state.f))
    t, f = tf.where(moved, t, 0), tf.where(moved, f, state.f)
    g = tf.cond(moved, lambda: found.g, lambda: state.g)
    s, y = t * direction, g - state.g
    # A pair without positive curvature would make the next direction point uphill.
    curved = moved & (dot(s, y) > -epsilon(f.dtype) * t * slope)
    return _Move(s, f, g, t, moved, steepest, curved, found)


def _step(state: State, move: _Move, memory: Any, products: Any = 0) -> Step:
    return Step(
        x=state.x + move.s,
        f=move.f,
        g=move.g,
        memory=memory,
        evaluations=move.found.evaluations,
        moved=move.moved,
        # With the memory emptied the next iteration tries the negative gradient; there is nothing else after that.
        stuck=~move.moved & move.steepest,
        trial=move.found.trial,
        products=products,
    )


# --- L-BFGS -----------------------------------------------------------------------------------------------------------


class _Pairs(NamedTuple):
    """The last m changes of x (s) and of g (y), and their scalar products, which are all that the recursion needs.

    The rows of `both` are a ring; everything else is in order of time, the newest pair last.
    """

    both: tf.Tensor  # (2 m, n): the s, and then the y
    place: tf.Tensor  # of the next pair in the ring
    count: tf.Tensor  # how many pairs there are
    s_y: tf.Tensor  # (m, m) float64, s_i y_j; only i <= j is true
    y_y: tf.Tensor  # (m, m) float64
    s_g: tf.Tensor  # (m,) float64, with the gradient at x
    y_g: tf.Tensor


def _lbfgs_start(problem: Problem, state: State) -> tuple[_Pairs, int]:
    m, none = problem.options.memory, tf.constant(0)
    square, line = tf.zeros((m, m), tf.float64), tf.zeros(m, tf.float64)
    return _Pairs(tf.zeros((2 * m, state.x.shape[0]), state.x.dtype), none, none, square, square, line, line), 0


def _lbfgs_direction(g: tf.Tensor, pairs: _Pairs) -> tf.Tensor:
    """-H g. The two loops over the pairs are two triangular systems of scalar products; one pass reads the pairs."""
    m = pairs.s_y.shape[0]
    there = tf.range(m) >= m - pairs.count
    known = there[:, None] & there[None]
    r = tf.where(known, tf.linalg.band_part(pairs.s_y, 0, -1), tf.eye(m, dtype=tf.float64))
    y_y, d = tf.where(known, pairs.y_y, 0.0), tf.where(there, tf.linalg.diag_part(pairs.s_y), 0.0)
    scale = tf.where(pairs.count > 0, tf.math.divide_no_nan(d[-1], y_y[-1, -1]), 1.0)
    s_g, y_g = tf.where(there, pairs.s_g, 0.0), tf.where(there, pairs.y_g, 0.0)
    alpha = tf.linalg.triangular_solve(r, s_g[:, None], lower=False)[:, 0]
    left = d * alpha + scale * (tf.linalg.matvec(y_y, alpha) - y_g)
    beta = tf.linalg.triangular_solve(r, left[:, None], lower=False, adjoint=True)[:, 0]
    parts = tf.stack([tf.roll(beta, pairs.place, 0), tf.roll(-scale * alpha, pairs.place, 0)])
    sums = tf.matmul(tf.cast(tf.reshape(parts, (1, -1)), g.dtype), pairs.both)[0]
    return -(tf.cast(scale, g.dtype) * g + sums)


def _pushed(pairs: _Pairs, s: tf.Tensor, y: tf.Tensor, g: tf.Tensor, curved: tf.Tensor) -> _Pairs:
    """The pairs with a new one, or none if the function did not curve upwards along it."""
    m = pairs.s_y.shape[0]
    kept = tf.cond(curved, lambda: tf.stack([s, y]), lambda: tf.zeros((2, s.shape[0]), s.dtype))
    # A scatter would copy all pairs in every iteration. Writing into them is safe: what read the old row has
    # determined the new one, and nothing else holds them.
    both = tf.raw_ops.InplaceUpdate(x=pairs.both, i=tf.stack([pairs.place, pairs.place + m]), v=kept)
    place = (pairs.place + 1) % m
    products = tf.cast(tf.matmul(tf.stack([y, g]), both, transpose_b=True), tf.float64)
    products = tf.roll(tf.reshape(products, (2, 2, m)), -place, 2)
    (s_y, y_y), (s_g, y_g) = tf.unstack(products[0]), tf.unstack(products[1])
    older = tf.concat([pairs.y_y[1:, 1:], y_y[None, :-1]], 0)
    return _Pairs(
        both,
        place,
        tf.where(curved, tf.minimum(pairs.count + 1, m), 0),
        tf.concat([tf.concat([pairs.s_y[1:, 1:], s_y[None, :-1]], 0), s_y[:, None]], 1),
        tf.concat([older, y_y[:, None]], 1),
        s_g,
        y_g,
    )


def _lbfgs_step(problem: Problem, state: State) -> Step:
    pairs: _Pairs = state.memory
    move = _move(problem, state, _lbfgs_direction(state.g, pairs), pairs.count == 0, tf.ones_like)
    return _step(state, move, _pushed(pairs, move.s, move.g - state.g, move.g, move.curved))


# --- nonlinear conjugate gradients ------------------------------------------------------------------------------------


class _Last(NamedTuple):
    s: tf.Tensor  # the last change of x
    y: tf.Tensor  # and of g
    t: tf.Tensor  # the last change as a multiple of its direction
    there: tf.Tensor  # whether there is one


def _cg_start(problem: Problem, state: State) -> tuple[_Last, int]:
    nothing = tf.zeros_like(state.x)
    return _Last(nothing, nothing, tf.ones_like(state.f), tf.constant(False)), 0


def _polak_ribiere(g: tf.Tensor, before: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Beta of "Polak-Ribiere+": 0, a restart, where the formula's is negative."""
    return tf.maximum(tf.math.divide_no_nan(dot(g, y), dot(before, before)), 0)


def _fletcher_reeves(g: tf.Tensor, before: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
    """Beta, with Powell's restart where gradients are far from orthogonal: else short steps beget short ones."""
    squared = dot(g, g)
    beta = tf.math.divide_no_nan(squared, dot(before, before))
    return tf.where(tf.abs(dot(g, before)) < 0.2 * squared, beta, tf.zeros_like(beta))


def _cg_step(beta_of: Callable[[tf.Tensor, tf.Tensor, tf.Tensor], tf.Tensor]) -> Callable[[Problem, State], Step]:
    def step(problem: Problem, state: State) -> Step:
        last: _Last = state.memory
        before = state.g - last.y
        beta = beta_of(state.g, before, last.y)
        direction = tf.where(last.there, beta / last.t, 0) * last.s - state.g

        def first_trial(slope: tf.Tensor) -> tf.Tensor:
            """The step that promises the first-order decrease of the step before (Nocedal and Wright section 3.5)."""
            return tf.maximum(dot(before, last.s) / slope, tf.constant(1e-10, slope.dtype))

        move = _move(problem, state, direction, ~last.there, first_trial)
        nothing = tf.zeros_like(state.x)
        s, y = tf.cond(move.curved, lambda: (move.s, move.g - state.g), lambda: (nothing, nothing))
        return _step(state, move, _Last(s, y, tf.where(move.moved, move.t, last.t), move.curved))

    return step


# --- Newton-CG --------------------------------------------------------------------------------------------------------


def _newton_start(problem: Problem, state: State) -> tuple[tf.Tensor, int]:
    return tf.constant(False), 0


def _newton_direction(problem: Problem, state: State) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """(H + damping I)^-1 -g by conjugate gradients, which end early far from the minimum and where H curves downwards.

    Returns:
        The direction, the products of H with a vector that it took, and whether not even the first could be used.
    """
    options = problem.options
    norm = tf.sqrt(dot(state.g, state.g))
    part = tf.minimum(tf.sqrt(norm), 0.5) if options.inner_tolerance is None else options.inner_tolerance
    enough = (tf.cast(part, norm.dtype) * norm) ** 2

    def body(z: Any, r: Any, d: Any, squared: Any, count: Any, down: Any) -> tuple[Any, ...]:
        turned = problem.product(state.x, d) + options.damping * d
        bend = dot(d, turned)
        down = ~(bend > 0)
        alpha = tf.where(down, tf.zeros_like(bend), tf.math.divide_no_nan(squared, bend))
        # Where a product is not finite, 0 times it would not be either.
        z, r = tf.cond(down, lambda: (z, r), lambda: (z + alpha * d, r + alpha * turned))
        after = dot(r, r)
        return z, r, tf.math.divide_no_nan(after, squared) * d - r, after, count + 1, down

    zero, none = tf.zeros_like(state.g), tf.constant(0)
    z, _, _, _, count, down = tf.while_loop(
        lambda z, r, d, squared, count, down: (squared > enough) & ~down & (count < options.max_products),
        body,
        (zero, state.g, -state.g, norm**2, none, tf.constant(False)),
        parallel_iterations=1,
    )
    return z, count, down & (count == 1)


def _newton_step(problem: Problem, state: State) -> Step:
    direction, products, unusable = _newton_direction(problem, state)
    move = _move(problem, state, direction, state.memory | unusable, tf.ones_like)
    return _step(state, move, ~move.moved, products)


# --- coordinate descent -----------------------------------------------------------------------------------------------


def _coordinate_start(problem: Problem, state: State) -> tuple[tf.Tensor, int]:
    return tf.ones_like(state.x), 0


def _coordinate_step(problem: Problem, state: State) -> Step:
    """A sweep: one line search along each coordinate, whose first trial is Newton's with the last sweep's curvature."""
    options = problem.options
    count = tf.size(state.x)
    assert problem.bounds is not None
    lower, upper = problem.bounds

    def body(i: Any, x: Any, f: Any, g: Any, scales: Any, evaluations: Any, trial: Any) -> tuple[Any, ...]:
        direction = -g[i] * tf.one_hot(i, count, dtype=x.dtype)
        slope = -g[i] * g[i]
        room = tf.where(g[i] > 0, x[i] - lower[i], upper[i] - x[i])
        longest = tf.math.divide_no_nan(room, tf.abs(g[i]))

        def search() -> tuple[Any, ...]:
            found = line_search(
                problem.evaluate,
                x,
                f,
                g,
                direction,
                slope,
                scales[i],
                lowest=tf.minimum(state.lowest, f),
                curvature=options.curvature,
                limit=options.max_line_search,
                longest=longest,
            )
            t, least, end = found.lo
            moved = (t > 0) & (found.done | (least < f))
            at = tf.cond(moved, lambda: tf.clip_by_value(x + t * direction, lower, upper), lambda: x)
            bend = (end - slope) / t
            # Along -g_i the curvature is h g_i^2, and Newton's step 1 / h.
            scale = tf.where(moved & (bend > 0), -slope / bend, scales[i])
            there = tf.cond(moved, lambda: found.g, lambda: g)
            value = tf.where(moved, least, f)
            changed = tf.tensor_scatter_nd_update(scales, [[i]], [scale])
            return at, value, there, changed, evaluations + found.evaluations, found.trial

        still = (slope == 0) | (longest == 0)
        return (i + 1, *tf.cond(still, lambda: (x, f, g, scales, evaluations, trial), search))

    _, x, f, g, scales, evaluations, trial = tf.while_loop(
        lambda i, *_: i < count,
        body,
        (tf.constant(0), state.x, state.f, state.g, state.memory, tf.constant(0), state.trial),
        parallel_iterations=1,
    )
    moved = tf.reduce_any(x != state.x)
    return Step(x, f, g, scales, evaluations, moved, stuck=~moved, trial=trial)


METHODS: dict[str, Method] = {
    "lbfgs": Method(_lbfgs_start, _lbfgs_step),
    "cg": Method(_cg_start, _cg_step(_polak_ribiere), curvature=0.1),
    "cg_fr": Method(_cg_start, _cg_step(_fletcher_reeves), curvature=0.1),
    "newton_cg": Method(_newton_start, _newton_step),
    "coordinate": Method(_coordinate_start, _coordinate_step, curvature=1e-3, bounds=True),
}
"""Name -> method. Curvatures after Nocedal and Wright, section 3.1: Newton-like directions need less exact steps."""
