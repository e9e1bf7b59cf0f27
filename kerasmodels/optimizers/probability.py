"""BFGS and Nelder-Mead, TensorFlow Probability's, one iteration at a time; and differential evolution.

TensorFlow Probability needs a second Keras beside Keras 3 (tf_keras), so it is an extra, imported when one of its
methods is asked for. Its differential evolution draws random numbers that no checkpoint can bring back, so that one is
written here.

References:
    Nocedal and Wright, Numerical Optimization, algorithm 6.1, with the line search of Hager and Zhang; Nelder, Mead
    1965; Storn, Price 1997.
"""

import warnings
from typing import Any, NamedTuple

import tensorflow as tf

from kerasmodels.errors import KerasModelsError
from kerasmodels.optimizers.steps import Method, Problem, State, Step


def _optimizers() -> Any:
    try:
        with warnings.catch_warnings():
            # Version 0.25 compares versions in a way that Python no longer likes.
            warnings.simplefilter("ignore", DeprecationWarning)
            import tensorflow_probability as tfp

            return tfp.optimizer
    except ImportError as error:
        raise KerasModelsError(
            "the methods bfgs and nelder_mead are TensorFlow Probability's, which cannot be "
            f"imported ({error}). Install it: pip install 'kerasmodels[prob]'. Without it: lbfgs, lbfgsb, cg, cg_fr, "
            "newton_cg, coordinate, differential_evolution."
        ) from error


# --- BFGS -------------------------------------------------------------------------------------------------------------


def _bfgs_start(problem: Problem, state: State) -> tuple[tf.Tensor, int]:
    _optimizers()
    return tf.eye(tf.size(state.x), dtype=state.x.dtype), 0


def _bfgs_step(problem: Problem, state: State) -> Step:
    def known(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """What was computed at the end of the iteration before is not computed again."""
        here = tf.reduce_all(x == state.x)
        return tf.cond(here, lambda: (state.f, state.g), lambda: problem.evaluate(x))

    done = _optimizers().bfgs_minimize(
        known,
        state.x,
        tolerance=0.0,
        initial_inverse_hessian_estimate=state.memory,
        scale_initial_inverse_hessian=state.iterations == 0,
        max_iterations=1,
        max_line_search_iterations=problem.options.max_line_search,
        validate_args=False,
    )
    moved = tf.reduce_any(done.position != state.x) & tf.math.is_finite(done.objective_value)
    eye = tf.eye(tf.size(state.x), dtype=state.x.dtype)
    # After a search that failed, once more with the negative gradient.
    stuck = ~moved & tf.reduce_all(state.memory == eye)
    sound = moved & tf.reduce_all(tf.math.is_finite(done.inverse_hessian_estimate))
    return Step(
        tf.where(moved, done.position, state.x),
        tf.where(moved, done.objective_value, state.f),
        tf.where(moved, done.objective_gradient, state.g),
        tf.where(sound, done.inverse_hessian_estimate, eye),
        done.num_objective_evaluations - 1,
        moved,
        stuck,
        trial=done.objective_value,
    )


# --- without gradients ------------------------------------------------------------------------------------------------


class _Points(NamedTuple):
    places: tf.Tensor  # (points, n)
    values: tf.Tensor


def _values(problem: Problem, places: tf.Tensor) -> tf.Tensor:
    """The function at each of the points; infinite where it is not finite, or beyond the bounds."""

    def value(x: tf.Tensor) -> tf.Tensor:
        f = problem.value(x)
        good = tf.math.is_finite(f)
        if problem.bounds is not None:
            good &= tf.reduce_all((x >= problem.bounds[0]) & (x <= problem.bounds[1]))
        return tf.where(good, f, tf.constant(float("inf"), f.dtype))

    return tf.map_fn(value, places, parallel_iterations=1)


def _taken(state: State, points: _Points, evaluations: Any, settled: tf.Tensor, stuck: Any) -> Step:
    best = tf.argmin(points.values)
    return Step(
        points.places[best],
        points.values[best],
        state.g,
        points,
        evaluations,
        moved=tf.reduce_any(points.places[best] != state.x),
        stuck=tf.convert_to_tensor(stuck),
        trial=points.values[best],
        settled=settled,
    )


def _simplex_start(problem: Problem, state: State) -> tuple[_Points, tf.Tensor]:
    """The start, and `first_length` from it along each coordinate."""
    _optimizers()
    corners = state.x + problem.options.first_length * tf.eye(tf.size(state.x), dtype=state.x.dtype)
    places = tf.concat([state.x[None], corners], 0)
    return _Points(places, _values(problem, places)), tf.size(state.x) + 1


def _simplex_step(problem: Problem, state: State) -> Step:
    points: _Points = state.memory

    def objective(x: tf.Tensor) -> tf.Tensor:
        return _values(problem, x[None])[0]

    size = points.places.shape[1]
    _, places, values, count = _optimizers().nelder_mead_one_step(
        points.places,
        points.values,
        objective,
        dim=size,
        func_tolerance=0.0,
        position_tolerance=0.0,
        reflection=tf.constant(1, state.x.dtype),
        expansion=tf.constant(2, state.x.dtype),
        contraction=tf.constant(0.5, state.x.dtype),
        shrinkage=tf.constant(0.5, state.x.dtype),
    )
    tolerance = problem.options.tolerance
    width = tf.reduce_max(tf.abs(places - places[tf.argmin(values)]))
    flat = tf.reduce_max(values) == tf.reduce_min(values)
    return _taken(state, _Points(places, values), count, width <= tolerance, flat & (width > tolerance))


def _population_start(problem: Problem, state: State) -> tuple[_Points, int]:
    """The start, and random points: all over the bounds where there are any, else around it by `first_length`."""
    count, size = problem.options.population - 1, tf.size(state.x)
    shape, seed = (count, size), (problem.options.seed, 0)
    places = state.x + problem.options.first_length * tf.random.stateless_normal(shape, seed, dtype=state.x.dtype)
    if problem.bounds is not None:
        lower, upper = problem.bounds
        share = tf.random.stateless_uniform(shape, (problem.options.seed, 1), dtype=state.x.dtype)
        whole = tf.math.is_finite(lower) & tf.math.is_finite(upper)
        spread = lower + share * (upper - lower)
        places = tf.where(whole, spread, tf.clip_by_value(places, lower, upper))
    places = tf.concat([state.x[None], places], 0)
    return _Points(places, _values(problem, places)), problem.options.population


def _population_step(problem: Problem, state: State) -> Step:
    """Rand/1/bin of Storn and Price, with weight 0.5 and crossover 0.9."""
    points: _Points = state.memory
    count, size = points.places.shape
    kind = points.places.dtype

    def seed(number: int) -> tf.Tensor:
        """Of the iteration's number, so that a resumed run draws the same."""
        return tf.stack([problem.options.seed + number, state.iterations])

    # Three others of each: those of the least random numbers, of which its own is never one.
    order = tf.random.stateless_uniform((count, count), seed(2)) + 2.0 * tf.eye(count)
    a, b, c = (tf.gather(points.places, tf.argsort(order)[:, i]) for i in range(3))
    crossed = tf.random.stateless_uniform((count, size), seed(3)) < 0.9
    crossed |= tf.one_hot(tf.random.stateless_uniform((count,), seed(4), 0, size, tf.int32), size) > 0
    trials = tf.where(crossed, a + tf.constant(0.5, kind) * (b - c), points.places)
    found = _values(problem, trials)
    better = found <= points.values
    places = tf.where(better[:, None], trials, points.places)
    values = tf.where(better, found, points.values)
    tolerance = problem.options.tolerance
    width = tf.reduce_max(tf.abs(places - places[tf.argmin(values)]))
    return _taken(state, _Points(places, values), problem.options.population, width <= tolerance, False)


METHODS: dict[str, Method] = {
    "bfgs": Method(_bfgs_start, _bfgs_step),
    "nelder_mead": Method(_simplex_start, _simplex_step, gradient=False, settled="the simplex's width"),
    "differential_evolution": Method(
        _population_start, _population_step, gradient=False, bounds=True, settled="the population's width"
    ),
}
