"""Full-batch minimization inside one compiled graph: L-BFGS and nonlinear conjugate gradients.

Both search along a direction for a step that satisfies the strong Wolfe conditions, and differ in the direction only.
The loop over iterations and the line search are `tf.while_loop`s of one `tf.function`; Python is entered once every
`callback_every` iterations, to report progress.

Departure: TensorFlow Probability has an L-BFGS, which the tests compare with (the extra `prob`). It needs a second
Keras beside Keras 3, and neither reports progress nor says why it stopped, so the method is written here.

References:
    Nocedal and Wright, Numerical Optimization, 2nd ed.: two-loop recursion (algorithm 7.4), line search (3.5, 3.6),
    cubic interpolation (3.59), Polak-Ribiere+ (5.45). Hager and Zhang 2005: approximate Wolfe conditions.
    Goodfellow et al., Deep Learning, section 8.6.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.errors import DivergedError, UsageError, unknown_name

_SUFFICIENT_DECREASE = 1e-4  # c1 of the Wolfe conditions, Nocedal and Wright section 3.1
_CURVATURE = {"lbfgs": 0.9, "cg": 0.1}  # c2, same section: Newton-like directions need less exact steps
_GROWTH = 10.0  # a step is at most this much longer than the one before it
_NOISE = 100.0  # values closer than this many units in the last place count as equal
_PATIENCE = 10  # iterations without a lower value or a smaller gradient before the method gives up


@dataclass(frozen=True)
class MinimizeResult:
    """What a minimization did. The variables themselves hold the position.

    Attributes:
        converged: the gradient's largest entry fell to `tolerance`, or the value stopped falling by `value_tolerance`.
        failed: the line search found no lower value, even along the negative gradient: the value is as small as
            rounding lets the method see, or the gradient is wrong. Most float32 runs to a tight tolerance end so.
        stopped: the callback asked to stop.
        iterations: steps taken.
        evaluations: times the value and its gradient were computed.
        value: at the position found.
        gradient_norm: largest absolute entry of the gradient there.
        seconds: wall-clock time, tracing the graph included.
        history: value at the start (entry 0) and after each iteration.
    """

    converged: bool
    failed: bool
    stopped: bool
    iterations: int
    evaluations: int
    value: float
    gradient_norm: float
    seconds: float
    history: tuple[float, ...]


class _State(NamedTuple):
    """The whole optimizer between two iterations; vectors have shape (n,), all else is scalar."""

    x: tf.Tensor
    f: tf.Tensor
    g: tf.Tensor
    step: tf.Tensor  # the last step's length as a multiple of its direction
    steps: tuple[tf.Tensor, ...]  # the last changes of x, oldest first; zeros where there is none yet
    turns: tuple[tf.Tensor, ...]  # the changes of g that go with them
    pairs: tf.Tensor  # how many of them count
    iterations: tf.Tensor
    evaluations: tf.Tensor
    converged: tf.Tensor
    failed: tf.Tensor
    trial: tf.Tensor  # the last value met at another place than x, to tell a stall from a divergence
    lowest: tf.Tensor  # of all values so far
    smallest: tf.Tensor  # of all squared gradient norms so far
    idle: tf.Tensor  # iterations since the last record of either


class _Search(NamedTuple):
    """A line search: `lo` is the best step so far, `hi` the other end of the bracket, infinite while there is none."""

    t: tf.Tensor
    lo: tuple[tf.Tensor, tf.Tensor, tf.Tensor]  # step, value, slope
    hi: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
    g: tf.Tensor  # gradient at lo
    trial: tf.Tensor
    done: tf.Tensor
    evaluations: tf.Tensor


_Evaluate = Callable[[tf.Tensor], tuple[tf.Tensor, tf.Tensor]]


def _epsilon(dtype: tf.DType) -> float:
    return float(np.finfo(dtype.as_numpy_dtype).eps)


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b)


def _lbfgs_direction(state: _State) -> tf.Tensor:
    """-H g by the two-loop recursion. Empty pairs are zeros and drop out of every sum."""
    q, alphas = state.g, []
    products = [_dot(s, y) for s, y in zip(state.steps, state.turns, strict=True)]
    for s, y, sy in zip(reversed(state.steps), reversed(state.turns), reversed(products), strict=True):
        alphas.append(tf.math.divide_no_nan(_dot(s, q), sy))
        q = q - alphas[-1] * y
    scale = tf.math.divide_no_nan(products[-1], _dot(state.turns[-1], state.turns[-1]))
    q = q * tf.where(state.pairs > 0, scale, tf.ones_like(scale))
    for s, y, sy, alpha in zip(state.steps, state.turns, products, reversed(alphas), strict=True):
        q = q + (alpha - tf.math.divide_no_nan(_dot(y, q), sy)) * s
    return -q


def _lbfgs_first_trial(state: _State, slope: tf.Tensor) -> tf.Tensor:
    return tf.ones_like(slope)


def _cg_direction(state: _State) -> tf.Tensor:
    """-g + beta p with the last direction p = s / step; beta = 0, a restart, wherever Polak-Ribiere's is negative."""
    s, y = state.steps[-1], state.turns[-1]
    before = state.g - y
    beta = tf.maximum(tf.math.divide_no_nan(_dot(state.g, y), _dot(before, before)), 0)
    return tf.where(state.pairs > 0, beta / state.step, 0) * s - state.g


def _cg_first_trial(state: _State, slope: tf.Tensor) -> tf.Tensor:
    """The step that promises the first-order decrease of the step before, Nocedal and Wright section 3.5."""
    s, y = state.steps[-1], state.turns[-1]
    return tf.maximum(_dot(state.g - y, s) / slope, tf.constant(1e-10, slope.dtype))


_METHODS = {"lbfgs": (_lbfgs_direction, _lbfgs_first_trial), "cg": (_cg_direction, _cg_first_trial)}


def _cubic_minimum(
    a: tuple[tf.Tensor, tf.Tensor, tf.Tensor], b: tuple[tf.Tensor, tf.Tensor, tf.Tensor]
) -> tuple[tf.Tensor, tf.Tensor]:
    """Where the cubic through two (step, value, slope) is least, and whether there is such a place."""
    d1 = a[2] + b[2] - 3 * (a[1] - b[1]) / (a[0] - b[0])
    inside = d1 * d1 - a[2] * b[2]
    d2 = tf.sign(b[0] - a[0]) * tf.sqrt(tf.maximum(inside, 0))
    place = b[0] - (b[0] - a[0]) * (b[2] + d2 - d1) / (b[2] - a[2] + 2 * d2)
    return place, (inside >= 0) & tf.math.is_finite(place)


def _line_search(
    evaluate: _Evaluate, state: _State, direction: tf.Tensor, slope: tf.Tensor, first: tf.Tensor, c2: float, limit: int
) -> _Search:
    """A step along `direction` that satisfies the strong Wolfe conditions, or the best one met in `limit` evaluations.

    Bracketing and zooming are one loop with one evaluation in it, so that the graph holds the function once. Points
    with a value that is not finite count as too far. Where a decrease drowns in rounding, the slope decides.
    """
    noise = _NOISE * _epsilon(state.f.dtype)
    zero = tf.zeros_like(slope)
    infinite = tf.constant(float("inf"), slope.dtype)

    def body(search: _Search) -> tuple[_Search]:
        t, lo, hi = search.t, search.lo, search.hi
        place = state.x + t * direction
        f, g = evaluate(place)
        d = _dot(g, direction)
        finite = tf.math.is_finite(f) & tf.math.is_finite(d)
        armijo = f <= state.f + _SUFFICIENT_DECREASE * t * slope
        approximate = (f <= state.lowest + noise * tf.abs(state.lowest)) & (d <= (2 * _SUFFICIENT_DECREASE - 1) * slope)
        enough = finite & (armijo | approximate)
        done = enough & (tf.abs(d) <= c2 * tf.abs(slope))
        better = done | (enough & (f <= lo[1]))
        trial = (t, tf.where(finite, f, infinite), d)
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
        ahead = tf.where(exists, tf.clip_by_value(minimum, low, high), blind)
        gradient = tf.cond(better, lambda: g, lambda: search.g)
        met = tf.where(tf.reduce_any(place != state.x), tf.where(tf.math.is_finite(d), f, d), search.trial)
        return (_Search(ahead, new_lo, new_hi, gradient, met, done, search.evaluations + 1),)

    start = _Search(
        first, (zero, state.f, slope), (infinite, infinite, zero), state.g, state.f, tf.constant(False), tf.constant(0)
    )
    (found,) = tf.while_loop(
        lambda search: ~search.done & (search.evaluations < limit), body, (start,), parallel_iterations=1
    )
    return found


def _iteration(
    evaluate: _Evaluate,
    state: _State,
    method: str,
    c2: float,
    first_length: float,
    tolerance: float,
    value_tolerance: float,
    search_limit: int,
) -> _State:
    """One step of `method`, or the verdict that there is none."""
    direction_of, first_trial = _METHODS[method]
    direction = direction_of(state)
    slope = _dot(direction, state.g)
    steepest = ~(slope < 0) | (state.pairs == 0)
    direction = tf.cond(steepest, lambda: -state.g, lambda: direction)
    slope = tf.where(steepest, -_dot(state.g, state.g), slope)
    # The gradient's length says nothing about how far to go, so the first step's length is given.
    first = tf.where(steepest, first_length / tf.sqrt(-slope), first_trial(state, slope))
    found = _line_search(evaluate, state, direction, slope, first, c2, search_limit)

    t, f, _ = found.lo
    moved = (t > 0) & (found.done | (f < state.f))
    t, f = tf.where(moved, t, 0), tf.where(moved, f, state.f)
    g = tf.cond(moved, lambda: found.g, lambda: state.g)
    s, y = t * direction, g - state.g
    # A pair without positive curvature would make the next direction point uphill.
    curved = _dot(s, y) > -_epsilon(f.dtype) * t * slope
    pushed = ((*state.steps[1:], s), (*state.turns[1:], y))
    nothing = tf.zeros_like(state.x)
    empty = ((nothing,) * len(state.steps), (nothing,) * len(state.turns))
    steps, turns = tf.cond(moved & curved, lambda: pushed, lambda: empty)
    pairs = tf.where(moved & curved, tf.minimum(state.pairs + 1, len(state.steps)), 0)
    converged = tf.reduce_max(tf.abs(g)) <= tolerance
    # Values within rounding of each other are accepted, so the method could wander for ever without this count.
    squared = _dot(g, g)
    idle = tf.where((f < state.lowest) | (squared < state.smallest), 0, state.idle + 1)
    if value_tolerance > 0:
        converged |= moved & (state.f - f <= value_tolerance * tf.maximum(tf.abs(f), tf.abs(state.f)))
    return _State(
        x=state.x + s,
        f=f,
        g=g,
        step=tf.where(moved, t, state.step),
        steps=steps,
        turns=turns,
        pairs=pairs,
        iterations=state.iterations + 1,
        evaluations=state.evaluations + found.evaluations,
        converged=converged,
        # With the memory emptied the next iteration tries the negative gradient; there is nothing else after that.
        failed=((~moved & steepest) | (idle >= _PATIENCE)) & ~converged,
        trial=found.trial,
        lowest=tf.minimum(f, state.lowest),
        smallest=tf.minimum(squared, state.smallest),
        idle=idle,
    )


def minimize_function(
    value_fn: Callable[[], Any],
    variables: Sequence[Any],
    method: str = "lbfgs",
    *,
    max_iterations: int = 200,
    tolerance: float = 1e-5,
    value_tolerance: float = 0.0,
    memory: int = 10,
    first_length: float = 1.0,
    curvature: float | None = None,
    max_line_search: int = 25,
    callback: Callable[[int, float], Any] | None = None,
    callback_every: int = 10,
) -> MinimizeResult:
    """Minimizes `value_fn()` over `variables`, which hold the position found when it returns.

    The variables are one vector to the optimizer, of the widest dtype among them; some `2 * memory + 6` vectors of that
    size are kept. In float32 the line search stalls once the value changes by less than about 1e-6 of itself, and the
    result says `failed`; use float64 variables to go further. Constraints of Keras variables are not applied.

    Args:
        value_fn: takes nothing, reads the variables, returns a scalar; deterministic. Traced without AutoGraph.
        variables: float32 or float64 `tf.Variable`s or `keras.Variable`s of any shapes.
        method: "lbfgs", or "cg" (Polak-Ribiere+, restarted where its beta is negative).
        max_iterations: steps at most, >= 1. A step costs one or two evaluations of value and gradient, at times more.
        tolerance: converged when no entry of the gradient exceeds this.
        value_tolerance: converged when a step lowers the value by no more than this fraction of it; 0 switches it off.
        memory: pairs of vectors L-BFGS keeps, >= 1.
        first_length: Euclidean length of the first step tried, in units of the variables.
        curvature: the Wolfe conditions' c2, in (1e-4, 1): how much of the slope may remain after a line search. Smaller
            is more exact and dearer. Default: 0.9 for L-BFGS, 0.1 for cg.
        max_line_search: evaluations at most within one step.
        callback: called as `callback(iteration, value)` every `callback_every` iterations and at the end, while the
            variables hold the current position; a true return value stops.
        callback_every: iterations between two returns from the graph, >= 1; Ctrl-C is seen there, too.

    Returns:
        What was done. A run that ends without convergence is no error.

    Raises:
        UsageError: an unknown method, an option out of range, variables that cannot be optimized.
        DivergedError: the value or its gradient is not finite at the start, or at every step the line search tried. The
            variables hold the last finite position (at the start: what they held).

    Example:
        >>> picture = tf.Variable(tf.zeros((8, 8, 3)))
        >>> result = minimize_function(lambda: tf.reduce_sum((picture - 0.5) ** 2), [picture])
        >>> result.converged
        True
    """
    started = time.perf_counter()
    if method not in _METHODS:
        raise unknown_name("method", method, _METHODS)
    c2 = _CURVATURE[method] if curvature is None else curvature
    for name, count in (
        ("max_iterations", max_iterations),
        ("memory", memory),
        ("max_line_search", max_line_search),
        ("callback_every", callback_every),
    ):
        if count < 1:
            raise UsageError(f"{name} must be at least 1. Received: {name}={count}.")
    if not _SUFFICIENT_DECREASE < c2 < 1:
        raise UsageError(f"curvature must lie between {_SUFFICIENT_DECREASE} and 1. Received: curvature={c2}.")
    if not (tolerance >= 0 and value_tolerance >= 0):
        raise UsageError(
            "tolerance and value_tolerance must not be negative. "
            f"Received: tolerance={tolerance}, value_tolerance={value_tolerance}."
        )
    if not 0 < first_length < float("inf"):
        raise UsageError(f"first_length must be positive and finite. Received: first_length={first_length}.")
    held = _tensorflow_variables(variables)
    dtype = tf.float64 if any(v.dtype == tf.float64 for v in held) else tf.float32

    def place(x: tf.Tensor) -> None:
        parts = tf.split(x, [v.shape.num_elements() for v in held])
        for variable, part in zip(held, parts, strict=True):
            variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))

    @tf.function(autograph=False)
    def evaluate(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        place(x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(held)
            value = tf.convert_to_tensor(value_fn())
            if value.shape.rank != 0:
                raise UsageError(f"the function to minimize must return a scalar. Received a shape of {value.shape}.")
        gradients = tape.gradient(value, held)
        if all(gradient is None for gradient in gradients):
            raise UsageError(
                "the function to minimize does not depend on any of the variables: its gradient is None for all. "
                "Read the variables inside the function, with differentiable operations."
            )
        flat = [
            tf.zeros(v.shape.num_elements(), dtype) if g is None else tf.cast(tf.reshape(g, [-1]), dtype)
            for v, g in zip(held, gradients, strict=True)
        ]
        return tf.cast(value, dtype), tf.concat(flat, 0)

    @tf.function(autograph=False)
    def advance(state: _State, until: tf.Tensor) -> tuple[_State, tf.Tensor]:
        def going(state: _State, _: Any) -> tf.Tensor:
            return (state.iterations < until) & ~state.converged & ~state.failed

        def body(state: _State, values: Any) -> tuple[_State, Any]:
            after = _iteration(evaluate, state, method, c2, first_length, tolerance, value_tolerance, max_line_search)
            return after, values.write(values.size(), after.f)

        values = tf.TensorArray(dtype, size=0, dynamic_size=True, element_shape=())
        state, values = tf.while_loop(going, body, (state, values), parallel_iterations=1)
        return state, values.stack()

    x = tf.concat([tf.cast(tf.reshape(v, [-1]), dtype) for v in held], 0)
    stopped = False
    try:
        f, g = evaluate(x)
        if not (np.isfinite(f) and np.all(np.isfinite(g))):
            what = ("loss", float(f)) if not np.isfinite(f) else ("the gradient", float(g[~np.isfinite(g)][0]))
            raise DivergedError(0, *what, "It is so before the first step: check the start and the data.")
        nothing = tf.zeros_like(x)
        pairs = memory if method == "lbfgs" else 1
        state = _State(
            x=x,
            f=f,
            g=g,
            step=tf.ones((), dtype),
            steps=(nothing,) * pairs,
            turns=(nothing,) * pairs,
            pairs=tf.constant(0),
            iterations=tf.constant(0),
            evaluations=tf.constant(1),
            converged=tf.reduce_max(tf.abs(g)) <= tolerance,
            failed=tf.constant(False),
            trial=f,
            lowest=f,
            smallest=_dot(g, g),
            idle=tf.constant(0),
        )
        history = [float(f)]
        while not (state.converged or state.failed or stopped or state.iterations >= max_iterations):
            until = min(int(state.iterations) + callback_every, max_iterations)
            state, values = advance(state, tf.constant(until))
            x = state.x
            history += values.numpy().tolist()
            if state.failed and not np.isfinite(state.trial):
                raise DivergedError(
                    int(state.iterations),
                    "loss",
                    float(state.trial),
                    "Every step the line search tried gave a value or gradient that is not finite; the variables hold "
                    f"the last finite position, of value {float(state.f)}. Check the loss there, or try float64.",
                )
            if callback is not None:
                place(x)
                stopped = bool(callback(int(state.iterations), float(state.f)))
    finally:
        # The variables hold whatever point was tried last.
        place(x)
    return MinimizeResult(
        converged=bool(state.converged),
        failed=bool(state.failed),
        stopped=stopped,
        iterations=int(state.iterations),
        evaluations=int(state.evaluations),
        value=float(state.f),
        gradient_norm=float(np.max(np.abs(state.g))),
        seconds=time.perf_counter() - started,
        history=tuple(history),
    )


def _tensorflow_variables(variables: Sequence[Any]) -> list[tf.Variable]:
    held = [v.value if isinstance(v, keras.Variable) else v for v in variables]
    if not held:
        raise UsageError("there are no variables to optimize. Give at least one, and check `trainable`.")
    for variable in held:
        if not isinstance(variable, tf.Variable):
            raise UsageError(f"expected tf.Variable or keras.Variable. Received: {type(variable).__name__}.")
        if variable.dtype not in (tf.float32, tf.float64):
            raise UsageError(
                f"variables must be float32 or float64. Received: {variable.name} of {variable.dtype.name}."
            )
    if len({id(v) for v in held}) < len(held):
        raise UsageError("a variable is listed twice. List each once.")
    return held


def minimize(model: keras.Model, data: Any, method: str = "lbfgs", **options: Any) -> MinimizeResult:
    """Minimizes a compiled model's loss on one fixed batch over its trainable variables.

    The model runs in inference mode, because a line search needs a deterministic function: dropout is off, batch
    normalization uses its moving statistics and leaves them alone. The loss is `model.compute_loss`, regularizers
    included; the compiled optimizer is not used. For float64, build the model under
    `keras.config.set_floatx("float64")`: Keras adds up losses in that type.

    Args:
        model: compiled. Its own `compute_loss` is used, so a model whose only weight is a picture serves as well.
        data: `(x, y)`, `(x, y, sample_weight)` or `(x,)`, as in `fit`, of one batch.
        method: "lbfgs" or "cg".
        **options: those of `minimize_function`: max_iterations, tolerance, callback and so on.

    Raises:
        UsageError: a model that is not compiled or has nothing to train, data of another form; see `minimize_function`.
        DivergedError: see `minimize_function`.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(loss="mse")
        >>> x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
        >>> minimize(model, (x, x @ np.float32([[1], [2], [3]])), max_iterations=50).value < 1e-8
        True
    """
    if not model.compiled:
        raise UsageError("the model has no loss yet. Call `model.compile(loss=...)` first.")
    if not isinstance(data, (tuple, list)) or not 1 <= len(data) <= 3:
        raise UsageError(f"data must be (x, y), (x, y, sample_weight) or (x,). Received: {type(data).__name__}.")
    x, y, sample_weight = (
        keras.tree.map_structure(lambda part: None if part is None else tf.convert_to_tensor(part), part)
        for part in (*data, None, None)[:3]
    )

    def loss() -> Any:
        y_pred = model(x, training=False)
        return model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)

    if not model.built:
        model(x, training=False)
    return minimize_function(loss, model.trainable_variables, method, **options)
