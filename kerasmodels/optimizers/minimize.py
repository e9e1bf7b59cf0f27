"""Full-batch minimization inside one compiled graph: quasi-Newton, conjugate gradients, Newton and others.

The loop over iterations and everything in it are `tf.while_loop`s of one `tf.function`; Python is entered once every
`callback_every` iterations, to report progress, to write a checkpoint and to see Ctrl-C. The methods themselves are in
steps.py, lbfgsb.py and probability.py.
"""

import functools
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels import storage
from kerasmodels.errors import DataError, DivergedError, UsageError, WeightsError, unknown_name
from kerasmodels.optimizers import lbfgsb, probability
from kerasmodels.optimizers.line_search import dot, epsilon
from kerasmodels.optimizers.steps import METHODS, Method, Options, Problem, State, Step

_PATIENCE = 10  # iterations without a lower value or a smaller gradient before the method gives up

_METHODS: dict[str, Method] = {**METHODS, "lbfgsb": lbfgsb.METHOD, **probability.METHODS}

METHOD_NAMES = tuple(_METHODS)
"""What `method` may be."""

_GOING, _GRADIENT, _VALUE, _SETTLED, _STUCK, _IDLE = range(6)


@dataclass(frozen=True)
class MinimizeResult:
    """What a minimization did. The variables themselves hold the position.

    Attributes:
        reason: why it stopped, in words; never empty.
        converged: the gradient's largest entry fell to `tolerance`, or the value stopped falling by `value_tolerance`;
            for the methods without gradients, their points came as close together as `tolerance`.
        failed: the line search found no lower value, even along the negative gradient: the value is as small as
            rounding lets the method see, or the gradient is wrong. Most float32 runs to a tight tolerance end so.
        stopped: the callback asked to stop.
        iterations: steps taken.
        evaluations: times the value and its gradient (if the method has one) were computed. One more, not counted,
            looks whether the function is deterministic.
        products: Hessian-vector products (newton_cg), each as dear as two evaluations.
        value: at the position found.
        gradient_norm: largest absolute entry of the gradient there; of the projected gradient where there are bounds;
            NaN for methods without gradients.
        seconds: wall-clock time of this call, tracing the graph included.
        history: value at the start (entry 0) and after each iteration.
        history_evaluations: evaluations up to each entry of `history`.
    """

    reason: str
    converged: bool
    failed: bool
    stopped: bool
    iterations: int
    evaluations: int
    products: int
    value: float
    gradient_norm: float
    seconds: float
    history: tuple[float, ...]
    history_evaluations: tuple[int, ...]


def minimize(
    model_or_function: keras.Model | Callable[..., Any],
    data: Any = (),
    method: str = "lbfgs",
    *,
    variables: Sequence[Any] | None = None,
    bounds: tuple[Any, Any] | None = None,
    max_iterations: int = 200,
    max_evaluations: int | None = None,
    tolerance: float = 1e-5,
    value_tolerance: float = 0.0,
    memory: int = 10,
    first_length: float = 1.0,
    curvature: float | None = None,
    max_line_search: int = 25,
    inner_tolerance: float | None = None,
    max_products: int = 200,
    damping: float = 0.0,
    population: int = 40,
    seed: int = 0,
    dtype: str | None = None,
    callback: Callable[[int, float], Any] | None = None,
    callback_every: int = 10,
    checkpoint: str | Path | None = None,
) -> MinimizeResult:
    """Minimizes a compiled model's loss, or any function, on one fixed batch of data.

    A model is minimized over its trainable variables, which hold the position found when this returns. Its loss is its
    own `compute_loss`, regularizers included; the compiled optimizer is not used. It runs in inference mode, because a
    line search needs a deterministic function: dropout is off, batch normalization uses its moving statistics and
    leaves them alone. For float64, build it under `keras.config.set_floatx("float64")`, in which type Keras adds up
    losses, and `set_dtype_policy("float64")`.

    The variables are one vector to the optimizer, of the widest dtype among them; L-BFGS keeps some `2 * memory + 6`
    vectors of that size. In float32 the line search stalls once the value changes by less than about 1e-6 of itself,
    and the result says `failed`; use float64 variables to go further. Constraints of Keras variables are not applied.

    Args:
        model_or_function: a compiled model, or a function that returns a scalar and is deterministic, called with the
            parts of `data`. It is traced without AutoGraph.
        data: for a model `(x, y)`, `(x, y, sample_weight)` or `(x,)`, as in `fit`, of one batch; for a function its
            arguments, if it takes any. Streams of batches are refused: values of different batches cannot be compared.
        method: "lbfgs"; "lbfgsb", within bounds; "cg" (Polak-Ribiere+, restarted where its beta is negative) or "cg_fr"
            (Fletcher-Reeves); "newton_cg" (Hessian-vector products; the function is differentiated twice); "coordinate"
            (an iteration is a sweep with a line search along each coordinate: for few variables). By TensorFlow
            Probability, extra `prob`: "bfgs" (keeps n x n numbers), and without gradients, for few variables,
            "nelder_mead" and "differential_evolution".
        variables: float32 or float64 `tf.Variable`s or `keras.Variable`s of any shapes, which a function must be given;
            None for all trainable ones of a model.
        bounds: (lower, upper) for lbfgsb, coordinate and differential_evolution. Each is a number, or a sequence with a
            number, None (unbounded) or an array for each variable. A start beyond them is moved onto them.
        max_iterations: steps at most, >= 1. A step costs one or two evaluations of value and gradient, at times more.
        max_evaluations: no step is begun after so many; None for no limit.
        tolerance: converged when no entry of the gradient exceeds this. Methods without gradients: when all points lie
            so close to the best one.
        value_tolerance: converged when a step lowers the value by no more than this fraction of it; 0 switches it off.
        memory: pairs of vectors L-BFGS keeps, >= 1.
        first_length: Euclidean length of the first step tried, in units of the variables; the first simplex's edges
            (nelder_mead), the standard deviation of the first population where it has no bounds.
        curvature: the Wolfe conditions' c2, in (0, 1): how much of the slope may remain after a line search. Smaller
            is more exact and dearer. Default: 0.9; 0.1 for cg and cg_fr, 1e-3 for coordinate.
        max_line_search: evaluations at most within one step.
        inner_tolerance: newton_cg: relative residual to which the Newton equation is solved; None for
            min(0.5, sqrt|g|), rough far from the minimum.
        max_products: newton_cg: products at most within one step.
        damping: newton_cg: a of (H + a I) (Levenberg-Marquardt).
        population: differential_evolution: its size, >= 4.
        seed: differential_evolution: of its random numbers, >= 0.
        dtype: of the optimizer's own arithmetic, "float32" or "float64"; None for the variables' widest. The function
            is computed in the variables' own.
        callback: called as `callback(iteration, value)` every `callback_every` iterations and at the end, while the
            variables hold the current position; a true return value stops.
        callback_every: iterations between two returns from the graph, >= 1; Ctrl-C is seen there, too.
        checkpoint: a file (.npz) for everything that decides how the run goes on, written at every return from the
            graph. If it exists, the run goes on from there, to the last bit as if it had not been interrupted.

    Returns:
        What was done, and why it stopped. A run that ends without convergence is no error.

    Raises:
        UsageError: an unknown method, an option out of range, a model that is not compiled, data of another form,
            bounds that contradict, variables that cannot be optimized, a function that is not scalar or not
            deterministic, a checkpoint of something else.
        DataError: a checkpoint that cannot be read.
        DivergedError: the value or its gradient is not finite at the start, or at every step the line search tried. The
            variables hold the last finite position (at the start: what they held).
        KerasModelsError: the method is TensorFlow Probability's, and that is not installed.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(loss="mse")
        >>> x = np.random.default_rng(0).normal(size=(20, 3)).astype("float32")
        >>> minimize(model, (x, x @ np.float32([[1], [2], [3]])), max_iterations=50).value < 1e-8
        True

        >>> picture = tf.Variable(tf.zeros((8, 8, 3)))
        >>> result = minimize(lambda: tf.reduce_sum((picture - 0.5) ** 2), variables=[picture])
        >>> result.converged
        True
    """
    started = time.perf_counter()
    if method not in _METHODS:
        raise unknown_name("method", method, _METHODS)
    steps = _METHODS[method]
    c2 = steps.curvature if curvature is None else curvature
    for name, count, least in (
        ("max_iterations", max_iterations, 1),
        ("max_evaluations", 1 if max_evaluations is None else max_evaluations, 1),
        ("memory", memory, 1),
        ("max_line_search", max_line_search, 1),
        ("callback_every", callback_every, 1),
        ("max_products", max_products, 1),
        ("population", population, 4),
        ("seed", seed, 0),
    ):
        if count < least:
            raise UsageError(f"{name} must be at least {least}. Received: {name}={count}.")
    if not 0 < c2 < 1:
        raise UsageError(f"curvature must lie between 0 and 1. Received: curvature={c2}.")
    if not (tolerance >= 0 and value_tolerance >= 0 and damping >= 0):
        raise UsageError(
            "tolerance, value_tolerance and damping must not be negative. "
            f"Received: tolerance={tolerance}, value_tolerance={value_tolerance}, damping={damping}."
        )
    if not 0 < first_length < float("inf"):
        raise UsageError(f"first_length must be positive and finite. Received: first_length={first_length}.")
    if inner_tolerance is not None and not 0 <= inner_tolerance < 1:
        raise UsageError(f"inner_tolerance must lie in [0, 1). Received: inner_tolerance={inner_tolerance}.")
    if dtype not in (None, "float32", "float64"):
        raise UsageError(f"dtype must be float32, float64 or None. Received: dtype={dtype!r}.")
    value_fn, variables = _objective(model_or_function, data, variables)
    held = _tensorflow_variables(variables)
    widest = tf.float64 if any(v.dtype == tf.float64 for v in held) else tf.float32
    number = tf.as_dtype(dtype or widest)
    if bounds is not None and not steps.bounds:
        able = ", ".join(name for name, each in _METHODS.items() if each.bounds)
        raise UsageError(f"expected a method that minds bounds: {able}. Received: {method!r} with bounds.")
    problem = Problem(
        **_compiled(value_fn, held, number),
        bounds=_box(bounds, held, number) if steps.bounds else None,
        options=Options(
            memory,
            first_length,
            c2,
            max_line_search,
            tolerance,
            inner_tolerance,
            max_products,
            damping,
            population,
            seed,
        ),
    )

    def body(state: State, log: Any) -> tuple[State, Any]:
        after = _after(problem, steps, state, steps.step(problem, state), value_tolerance)
        counts = tf.cast(after.evaluations, number)
        return after, log.write(log.size(), tf.stack([after.f, counts]))

    def advance(state: State, until: tf.Tensor, most: tf.Tensor) -> tuple[State, tf.Tensor]:
        def going(state: State, _: Any) -> tf.Tensor:
            return (state.iterations < until) & (state.ended == _GOING) & (state.evaluations < most)

        log = tf.TensorArray(number, size=0, dynamic_size=True, element_shape=(2,))
        state, log = tf.while_loop(going, body, (state, log), parallel_iterations=1)
        return state, tf.reshape(log.stack(), (-1, 2))

    x = tf.concat([tf.cast(tf.reshape(v, [-1]), number) for v in held], 0)
    if problem.bounds is not None:
        x = tf.clip_by_value(x, *problem.bounds)
    keeper = None if checkpoint is None else _Checkpoint(Path(checkpoint), method, problem)
    most = np.iinfo("int32").max if max_evaluations is None else max_evaluations
    stopped = False
    try:
        state = _first(problem, steps, x)
        history: list[tuple[float, int]] = [(float(state.f), int(state.evaluations))]
        if keeper is not None and keeper.path.exists():
            state, history = keeper.read(state)
            x = state.x
        specs = tf.nest.map_structure(lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), state)
        chunk = _graph(advance, specs, tf.TensorSpec((), tf.int32), tf.TensorSpec((), tf.int32))
        while not (state.ended or stopped or state.iterations >= max_iterations or state.evaluations >= most):
            until = min(int(state.iterations) + callback_every, max_iterations)
            state, log = chunk(state, tf.constant(until), tf.constant(most))
            x = state.x
            history += [(float(value), int(count)) for value, count in log.numpy()]
            if state.ended in (_STUCK, _IDLE) and not np.isfinite(state.trial):
                raise DivergedError(
                    int(state.iterations),
                    "loss",
                    float(state.trial),
                    "Every step the line search tried gave a value or gradient that is not finite; the variables hold "
                    f"the last finite position, of value {float(state.f)}. Check the loss there, or try float64.",
                )
            if keeper is not None:
                keeper.write(state, history)
            if callback is not None:
                _place(held, x)
                stopped = bool(callback(int(state.iterations), float(state.f)))
    finally:
        # The variables hold whatever point was tried last.
        _place(held, x)
    norm = float(_gradient_norm(problem, state.x, state.g)) if steps.gradient else float("nan")
    ended = int(state.ended)
    reasons = {
        _GRADIENT: f"converged: the gradient's largest entry, {norm:.3g}, is at most tolerance={tolerance:g}",
        _VALUE: f"converged: the last step lowered the value by at most value_tolerance={value_tolerance:g} of it",
        _SETTLED: f"converged: {steps.settled} is at most tolerance={tolerance:g}",
        _STUCK: f"no lower value was found, even along the negative gradient, whose largest entry is {norm:.3g}: "
        f"{number.name} cannot tell the values apart any more, or the gradient is wrong"
        if steps.gradient
        else "all points have the same value: there is no direction to go",
        _IDLE: f"no lower value and no smaller gradient in {_PATIENCE} iterations: {number.name} goes no further",
    }
    if stopped and not ended:
        reason = "the callback asked to stop"
    elif not ended and state.iterations >= max_iterations:
        reason = f"max_iterations={max_iterations} was reached before tolerance={tolerance:g}"
    else:
        reason = reasons.get(ended, f"max_evaluations={most} was reached before tolerance={tolerance:g}")
    return MinimizeResult(
        reason=reason,
        converged=ended in (_GRADIENT, _VALUE, _SETTLED),
        failed=ended in (_STUCK, _IDLE),
        stopped=stopped,
        iterations=int(state.iterations),
        evaluations=int(state.evaluations),
        products=int(state.products),
        value=float(state.f),
        gradient_norm=norm,
        seconds=time.perf_counter() - started,
        history=tuple(value for value, _ in history),
        history_evaluations=tuple(count for _, count in history),
    )


# --- the function and its variables -----------------------------------------------------------------------------------


def _objective(
    model_or_function: keras.Model | Callable[..., Any], data: Any, variables: Sequence[Any] | None
) -> tuple[Callable[[], Any], Sequence[Any]]:
    """What is minimized, without arguments, and over what."""
    if isinstance(data, tf.data.Dataset | keras.utils.PyDataset) or hasattr(data, "__next__"):
        raise UsageError(
            "expected one fixed batch, (x, y): a full-batch method compares values of the loss, and on another batch "
            f"the loss is another function. Received: {type(data).__name__}. Gather the data into arrays (as much as "
            "fits into memory), or train with `fit` and an optimizer for random batches, such as Adam."
        )
    if not isinstance(model_or_function, keras.Model):
        if not callable(model_or_function):
            raise UsageError(f"expected a model or a function. Received: {type(model_or_function).__name__}.")
        if variables is None:
            raise UsageError("a function is minimized over variables that it reads. Name them: variables=[...].")
        if not isinstance(data, (tuple, list)):
            raise UsageError(f"data must be a tuple, the function's arguments. Received: {type(data).__name__}.")
        parts = _tensors(data)
        return lambda: model_or_function(*parts), variables
    model = model_or_function
    if not model.compiled:
        raise UsageError("the model has no loss yet. Call `model.compile(loss=...)` first.")
    if not isinstance(data, (tuple, list)) or not 1 <= len(data) <= 3:
        received = f"{len(data)} parts" if isinstance(data, (tuple, list)) else type(data).__name__
        raise UsageError(f"data must be (x, y), (x, y, sample_weight) or (x,). Received: {received}.")
    x, y, sample_weight = (*_tensors(data), None, None)[:3]

    def loss() -> Any:
        y_pred = model(x, training=False)
        return model.compute_loss(x=x, y=y, y_pred=y_pred, sample_weight=sample_weight, training=False)

    if not model.built:
        model(x, training=False)
    return loss, model.trainable_variables if variables is None else variables


def _tensors(data: Sequence[Any]) -> list[Any]:
    return [
        keras.tree.map_structure(lambda part: None if part is None else tf.convert_to_tensor(part), part)
        for part in data
    ]


def _place(held: Sequence[tf.Variable], x: tf.Tensor) -> None:
    """The vector (n,) into the variables."""
    parts = tf.split(x, [v.shape.num_elements() for v in held])
    for variable, part in zip(held, parts, strict=True):
        variable.assign(tf.cast(tf.reshape(part, variable.shape), variable.dtype))


def _compiled(value_fn: Callable[[], Any], held: Sequence[tf.Variable], number: tf.DType) -> dict[str, Any]:
    """The function of a vector: its value, with its gradient, and its Hessian times a vector."""

    def scalar() -> tf.Tensor:
        found = value_fn()
        if found is None:
            raise UsageError("the function to minimize must return a scalar. Received: None.")
        value = tf.convert_to_tensor(found)
        if value.shape.rank != 0:
            raise UsageError(
                f"the function to minimize must return a scalar. Received a shape of {value.shape}. "
                "Take its mean or its sum."
            )
        return value

    def joined(gradients: Sequence[Any]) -> tf.Tensor:
        flat = [
            tf.zeros(v.shape.num_elements(), number) if g is None else tf.cast(tf.reshape(g, [-1]), number)
            for v, g in zip(held, gradients, strict=True)
        ]
        return tf.concat(flat, 0)

    def differentiated() -> tuple[tf.Tensor, list[Any]]:
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(held)
            value = scalar()
        gradients = tape.gradient(value, held)
        if all(gradient is None for gradient in gradients):
            raise UsageError(
                "the function to minimize does not depend on any of the variables: its gradient is None for all. "
                "Read the variables inside the function, with differentiable operations."
            )
        return value, gradients

    def value(x: tf.Tensor) -> tf.Tensor:
        _place(held, x)
        return tf.cast(scalar(), number)

    def evaluate(x: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        _place(held, x)
        value, gradients = differentiated()
        return tf.cast(value, number), joined(gradients)

    def product(x: tf.Tensor, vector: tf.Tensor) -> tf.Tensor:
        _place(held, x)
        with tf.GradientTape(watch_accessed_variables=False) as tape:
            tape.watch(held)
            along = dot(joined(differentiated()[1]), vector)
        return joined(tape.gradient(along, held))

    vector = tf.TensorSpec((sum(v.shape.num_elements() for v in held),), number)
    return {
        "value": _graph(value, vector),
        "evaluate": _graph(evaluate, vector),
        "product": _graph(product, vector, vector),
    }


def _graph(function: Callable[..., Any], *specs: Any) -> Callable[..., Any]:
    """The function as one graph, traced when it is first called: TensorFlow warns of `tf.function`s made over again."""

    @functools.cache
    def traced() -> Any:
        return tf.function(function, autograph=False).get_concrete_function(*specs)

    return lambda *given: traced()(*given)


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


def _box(
    bounds: tuple[Any, Any] | None, held: Sequence[tf.Variable], number: tf.DType
) -> tuple[tf.Tensor, tf.Tensor] | None:
    """The bounds as two vectors; without any, infinite ones."""
    if bounds is not None and (not isinstance(bounds, tuple | list) or len(bounds) != 2):
        raise UsageError(f"bounds must be (lower, upper). Received: {bounds!r:.80}.")
    ends = []
    for side, given, far in zip(("lower", "upper"), bounds or (None, None), (-np.inf, np.inf), strict=True):
        each = list(given) if isinstance(given, tuple | list) else [given] * len(held)
        if len(each) != len(held):
            raise UsageError(f"expected a {side} bound for each of {len(held)} variables. Received: {len(each)}.")
        flat = []
        for variable, bound in zip(held, each, strict=True):
            try:
                values = np.broadcast_to(np.asarray(far if bound is None else bound, "float64"), variable.shape)
            except ValueError as error:
                raise UsageError(
                    f"the {side} bound of {variable.name} must fit its shape {tuple(variable.shape)} ({error})."
                ) from error
            flat.append(values.reshape(-1))
        ends.append(np.concatenate(flat))
    lower, upper = ends
    wrong = np.flatnonzero(~(lower <= upper))
    if len(wrong):
        first = wrong[0]
        raise UsageError(
            f"the bounds are infeasible: lower must not exceed upper. Received: {lower[first]} and {upper[first]} for "
            f"entry {first} of the variables, and so for {len(wrong)} of {len(lower)} entries."
        )
    return tf.constant(lower, number), tf.constant(upper, number)


# --- the run ----------------------------------------------------------------------------------------------------------


def _gradient_norm(problem: Problem, x: tf.Tensor, g: tf.Tensor) -> tf.Tensor:
    """The gradient's largest entry; at a bound only what leads away from it counts."""
    if problem.bounds is not None:
        g = x - tf.clip_by_value(x - g, *problem.bounds)
    return tf.reduce_max(tf.abs(g))


def _first(problem: Problem, method: Method, x: tf.Tensor) -> State:
    """The state before the first iteration.

    Raises:
        DivergedError: the value or the gradient is not finite.
        UsageError: two evaluations at one point differ.
    """
    if method.gradient:
        f, g = problem.evaluate(x)
    else:
        f, g = problem.value(x), tf.zeros_like(x)
    if not (np.isfinite(f) and np.all(np.isfinite(g))):
        what = ("loss", float(f)) if not np.isfinite(f) else ("the gradient", float(g[~np.isfinite(g)][0]))
        raise DivergedError(0, *what, "It is so before the first step: check the start and the data.")
    # Parallel sums are not equal to the last bit on every device.
    again, noise = float(problem.evaluate(x)[0] if method.gradient else problem.value(x)), epsilon(x.dtype) ** 0.5
    if not abs(again - float(f)) <= noise * max(abs(float(f)), abs(again)):
        raise UsageError(
            f"the function to minimize must be deterministic. Received: {float(f)!r} and then {again!r} at the same "
            "point. Methods that compare values need one fixed batch, and no dropout, noise or shuffling inside; for "
            "random batches take an optimizer of `fit`, such as Adam."
        )
    state = State(
        x=x,
        f=f,
        g=g,
        memory=(),
        iterations=tf.constant(0),
        evaluations=tf.constant(1),
        products=tf.constant(0),
        ended=tf.constant(_GOING),
        trial=f,
        lowest=f,
        smallest=dot(g, g),
        idle=tf.constant(0),
    )
    memory, evaluations = method.start(problem, state)
    if method.gradient and _gradient_norm(problem, x, g) <= problem.options.tolerance:
        state = state._replace(ended=tf.constant(_GRADIENT))
    return state._replace(memory=memory, evaluations=state.evaluations + evaluations)


def _after(problem: Problem, method: Method, state: State, step: Step, value_tolerance: float) -> State:
    """The state after a step, and whether it was the last."""
    squared = dot(step.g, step.g)
    # Values within rounding of each other are accepted, so the method could wander for ever without this count.
    idle = tf.where((step.f < state.lowest) | (squared < state.smallest), 0, state.idle + 1)
    ended = tf.where(step.stuck, _STUCK, _GOING)
    if method.gradient:
        ended = tf.where(~step.stuck & (idle >= _PATIENCE), _IDLE, ended)
    ended = tf.where(step.settled, _SETTLED, ended)
    if value_tolerance > 0:
        small = state.f - step.f <= value_tolerance * tf.maximum(tf.abs(step.f), tf.abs(state.f))
        ended = tf.where(step.moved & small, _VALUE, ended)
    if method.gradient:
        ended = tf.where(_gradient_norm(problem, step.x, step.g) <= problem.options.tolerance, _GRADIENT, ended)
    return State(
        x=step.x,
        f=step.f,
        g=step.g,
        memory=step.memory,
        iterations=state.iterations + 1,
        evaluations=state.evaluations + step.evaluations,
        products=state.products + step.products,
        ended=ended,
        trial=step.trial,
        lowest=tf.minimum(step.f, state.lowest),
        smallest=tf.minimum(squared, state.smallest),
        idle=idle,
    )


class _Checkpoint:
    """The file of a run: its state and history, and what it is a run of."""

    def __init__(self, path: Path, method: str, problem: Problem):
        self.path, self.problem = path, problem
        options = {name: value for name, value in vars(problem.options).items() if name != "tolerance"}
        bounds = None if problem.bounds is None else [tf.reduce_sum(tf.abs(b)).numpy().item() for b in problem.bounds]
        self.about = json.dumps({"method": method, **options, "bounds": str(bounds)})

    def write(self, state: State, history: Sequence[tuple[float, int]]) -> None:
        arrays = {f"state/{i:03}": each.numpy() for i, each in enumerate(tf.nest.flatten(state))}
        storage.save_npz(self.path, {"about": np.array(self.about), "history": np.array(history, "float64"), **arrays})

    def read(self, like: State) -> tuple[State, list[tuple[float, int]]]:
        """The state in the file, which must fit the one that the run would begin with."""
        try:
            kept = storage.load_npz(self.path)
        except WeightsError as error:
            raise DataError(f"the checkpoint cannot be read: {error}") from error
        leaves = tf.nest.flatten(like)
        names = [f"state/{i:03}" for i in range(len(leaves))]
        same = {"about", "history", *names} == kept.keys() and str(kept["about"]) == self.about
        if not same or any(
            kept[name].shape != leaf.shape or kept[name].dtype != leaf.dtype.as_numpy_dtype
            for name, leaf in zip(names, leaves, strict=True)
        ):
            raise UsageError(
                f"{self.path} is a checkpoint of another run (method, options, variables or dtype differ). "
                "Name another file, or move it away to begin anew."
            )
        state: State = tf.nest.pack_sequence_as(like, [tf.constant(kept[name]) for name in names])
        found, noise = float(self.problem.value(state.x)), epsilon(state.x.dtype) ** 0.5
        if not abs(found - float(state.f)) <= noise * max(abs(found), abs(float(state.f))):
            raise UsageError(
                f"{self.path} is a checkpoint of another function or other data: the value there was "
                f"{float(state.f)!r}. Received: {found!r} now. Name another file, or move it away to begin anew."
            )
        # What ended it was the limits of that call; those of this one may be others.
        ended = state.ended if int(state.ended) != _GRADIENT else tf.constant(_GOING)
        if int(state.ended) == _GRADIENT and _gradient_norm(self.problem, state.x, state.g) <= (
            self.problem.options.tolerance
        ):
            ended = state.ended
        return state._replace(ended=ended), [(float(value), int(count)) for value, count in kept["history"]]
