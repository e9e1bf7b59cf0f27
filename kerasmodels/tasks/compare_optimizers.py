"""Optimizers side by side: on a function of two variables, drawn, or on a model and data of the user's, as a report."""

import base64
import html
import importlib.util
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
import tyro
from PIL import Image

from kerasmodels import reading, storage
from kerasmodels.config import Config, Positive, PositiveInt, check
from kerasmodels.data.images import write_image
from kerasmodels.errors import DataError, DivergedError, UsageError, unknown_name
from kerasmodels.family import RunReport
from kerasmodels.optimizers import BOOK, METHOD_NAMES, MinimizeResult, minimize
from kerasmodels.tasks.pictures import check_targets


@dataclass(frozen=True)
class Objective:
    """A function of two variables.

    Args:
        function: (..., 2) -> (...), TensorFlow.
        start: where optimizers begin.
        window: ((x, y) of the lower left, (x, y) of the upper right) that is drawn.
        minimum: where it is least, if that is known.
    """

    function: Callable[[Any], Any]
    start: tuple[float, float]
    window: tuple[tuple[float, float], tuple[float, float]]
    minimum: tuple[float, float] | None = None


def _rosenbrock(p: Any) -> Any:
    return 100 * (p[..., 1] - p[..., 0] ** 2) ** 2 + (1 - p[..., 0]) ** 2


def _quadratic(p: Any) -> Any:
    """A bowl whose axes are turned, of condition number 25."""
    return 0.5 * ((p[..., 0] + p[..., 1]) ** 2 + 25 * (p[..., 0] - p[..., 1]) ** 2) / 2


def _beale(p: Any) -> Any:
    x, y = p[..., 0], p[..., 1]
    return (1.5 - x + x * y) ** 2 + (2.25 - x + x * y**2) ** 2 + (2.625 - x + x * y**3) ** 2


OBJECTIVES = {
    "rosenbrock": Objective(_rosenbrock, (-1.2, 1.0), ((-2.0, -1.0), (2.0, 3.0)), (1.0, 1.0)),
    "quadratic": Objective(_quadratic, (-1.8, 0.6), ((-2.0, -2.0), (2.0, 2.0)), (0.0, 0.0)),
    "beale": Objective(_beale, (1.0, 1.0), ((-1.0, -2.0), (4.0, 2.0)), (3.0, 0.5)),
}
"""Rosenbrock's valley; a quadratic bowl of condition number 25; Beale's function."""

LOSSES = ("mean_squared_error", "binary_crossentropy", "categorical_crossentropy", "sparse_categorical_crossentropy")


class CompareOptions(Config):
    """Optimizers at work on a function of two variables; with --model, which of them suits a model of yours.

    --objective FILE.py:function executes that file: give it only code that you trust. Models and data are files that
    nothing is executed of.
    """

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write (PNG), or with --model the report: .html, or .png for its picture alone."""
    methods: tuple[str, ...] = ("momentum", "adam", "cg", "lbfgs", "newton_cg")
    """Full-batch: lbfgs, lbfgsb, cg, cg_fr, newton_cg, coordinate, bfgs, nelder_mead, differential_evolution. First
    order, of the Deep Learning book: sgd, momentum, nesterov, adagrad, rmsprop, nesterov_rmsprop, adam."""
    objective: str = "rosenbrock"
    """rosenbrock, quadratic, beale, or FILE.py:function, a function in TensorFlow of a tensor (..., 2)."""
    start: tuple[float, float] | None = None
    """Where all begin. Left out: the function's customary point."""
    window: tuple[float, float, float, float] | None = None
    """What is drawn: left, bottom, right, top. Left out: the function's own, or around the start."""
    steps: PositiveInt = 200
    """Evaluations of the gradient at most; with --model, passes over the data."""
    learning_rate: Positive | None = None
    """Of the first-order methods. Left out: 1e-3 for sgd, momentum and nesterov on a function, 0.1 for the others
    there; the book's on a model."""
    model: Path | None = None
    """A .keras file, compiled or with --loss."""
    data: Path | None = None
    """With --model: an .npz file with arrays x and y."""
    loss: Literal["compiled", *LOSSES] = "compiled"  # type: ignore[valid-type]
    """With --model: compiled, or one of Keras' losses."""
    batch: PositiveInt = 32
    """With --model: examples in a batch of the first-order methods. The others see all data at once."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        known = (*BOOK, *METHOD_NAMES)
        for method in self.methods:
            if method not in known:
                raise unknown_name("method", method, known)
        check(len(set(self.methods)) == len(self.methods) > 0, "methods, each once", self.methods)
        check((self.model is None) == (self.data is None), "--model and --data together", [self.model, self.data])
        ends = (".png",) if self.model is None else (".html", ".png")
        check(self.out.suffix.lower() in ends, f"a name that ends in {' or '.join(ends)}", str(self.out))
        if self.window is not None:
            left, bottom, right, top = self.window
            check(left < right and bottom < top, "a window of left < right and bottom < top", self.window)


@dataclass(frozen=True)
class Trace:
    """What one method did.

    Attributes:
        evaluations: passes over the function or the data up to each entry of `values`.
        values: of the objective.
        seconds: of the method alone, its compilation included.
        reason: why it stopped.
        points: (K, 2), where it was; empty for a model.
    """

    evaluations: np.ndarray
    values: np.ndarray
    seconds: float
    reason: str
    points: np.ndarray


def _counted(result: MinimizeResult) -> np.ndarray:
    """Evaluations up to each entry of the history; a Hessian-vector product counts as two, spread evenly."""
    counts = np.array(result.history_evaluations, "float64")
    return counts + 2 * result.products * np.arange(len(counts)) / max(1, len(counts) - 1)


def _line(trace: Trace, unit: str) -> str:
    if not len(trace.values):
        return trace.reason
    done = f"{trace.values[-1]:.4g} after {trace.evaluations[-1]:.0f} {unit}, {trace.seconds:.1f} s"
    return f"{done}; {trace.reason}"


# --- a function of two variables --------------------------------------------------------------------------------------


def load_function(name: str) -> Callable[[Any], Any]:
    """The function of FILE.py:function. The file is executed.

    Raises:
        UsageError: there is no such file or function.
        DataError: the file cannot be executed.
    """
    file, _, attribute = name.rpartition(":")
    path = Path(file)
    if not file or path.suffix != ".py" or not path.is_file():
        raise UsageError(
            f"expected {', '.join(OBJECTIVES)}, or FILE.py:function of a file that is there. Received: {name!r}."
        )
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise DataError(f"{path} cannot be executed: {type(error).__name__}: {error}.") from error
    function = getattr(module, attribute, None)
    if not callable(function):
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        raise unknown_name(f"function of {path}", attribute, known)
    return function


def descend(
    function: Callable[[Any], Any], method: str, start: tuple[float, float], steps: int, rate: float | None
) -> Trace:
    """One method on a function of two variables, in float64.

    Raises:
        UsageError: the function does not return a scalar for a tensor (2,), or is not deterministic.
        DivergedError: its value or gradient is not finite where the method begins.
        KerasModelsError: a method of TensorFlow Probability, which is not installed.
    """
    began = time.perf_counter()
    x = keras.Variable(np.asarray(start, "float64"), dtype="float64")
    points = [np.asarray(x.value)]
    if method in METHOD_NAMES:

        def look(iteration: int, value: float) -> None:
            points.append(np.asarray(x.value))

        result = minimize(
            lambda: function(tf.convert_to_tensor(x.value)),
            variables=[x],
            method=method,
            max_iterations=steps,
            max_evaluations=steps,
            tolerance=1e-8,
            first_length=0.1 if method in ("lbfgs", "cg", "cg_fr", "lbfgsb", "bfgs") else 1.0,
            callback=look,
            callback_every=1,
        )
        counts, values, reason = _counted(result), np.array(result.history), result.reason
    else:
        optimizer = BOOK[method](rate or (1e-3 if method in ("sgd", "momentum", "nesterov") else 0.1))

        @tf.function(autograph=False)
        def step() -> tf.Tensor:
            with tf.GradientTape() as tape:
                value = function(tf.convert_to_tensor(x.value))
            optimizer.apply(tape.gradient(value, [x.value]), [x])
            return value

        optimizer.build([x])
        reached, reason = [], f"{steps} steps, as asked"
        for _ in range(steps):
            value = float(step())
            if not np.isfinite(value):
                reason = f"diverged: the value is {value}; take a smaller learning rate"
                break
            reached.append(value)
            points.append(np.asarray(x.value))
        points = points[: len(reached)]
        counts, values = np.arange(1, len(reached) + 1), np.array(reached)
    return Trace(counts, values, time.perf_counter() - began, reason, np.array(points).reshape(-1, 2))


def _draw_descents(options: CompareOptions) -> RunReport:
    from kerasmodels.data import plots

    check_targets([options.out], [])
    storage.check_writable(options.out)
    if options.objective in OBJECTIVES:
        objective = OBJECTIVES[options.objective]
    else:
        function = load_function(options.objective)
        x, y = options.start or (0.0, 0.0)
        objective = Objective(function, (x, y), ((x - 3, y - 3), (x + 3, y + 3)))
    start = options.start or objective.start
    (left, bottom), (right, top) = objective.window
    if options.window is not None:
        left, bottom, right, top = options.window
    traces = {m: descend(objective.function, m, start, options.steps, options.learning_rate) for m in options.methods}
    xs, ys = np.linspace(left, right, 241), np.linspace(bottom, top, 241)
    grid = np.stack(np.meshgrid(xs, ys), -1)
    try:
        heights = np.asarray(objective.function(tf.constant(grid)))
        if heights.shape != grid.shape[:2]:
            raise ValueError(f"shape {heights.shape} for points {grid.shape}")
    except (ValueError, tf.errors.InvalidArgumentError):
        # A function of one point at a time.
        heights = tf.vectorized_map(objective.function, tf.constant(grid.reshape(-1, 2)))
        heights = heights.numpy().reshape(grid.shape[:2])
    picture = plots.descents(
        (xs, ys, heights),
        {name: trace.points for name, trace in traces.items()},
        {name: (trace.evaluations, trace.values) for name, trace in traces.items()},
        objective.minimum,
    )
    facts = {name: _line(trace, "evaluations") for name, trace in traces.items()}
    return RunReport((write_image(options.out, picture),), facts)


# --- a model of the user's --------------------------------------------------------------------------------------------


def load_model(path: Path) -> keras.Model:
    """A .keras file, compiled if it was saved so.

    Raises:
        UsageError: it is none, or has layers or functions of others.
    """
    try:
        return reading.read_keras(path, compiled=True)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"expected {str(path)!r} to be a model saved by Keras 3, of Keras' own layers. Received: {error}. With "
            "layers of your own, load it yourself and call kerasmodels.tasks.compare_optimizers.compare_on_model."
        ) from error


def read_data(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """The arrays x and y of an .npz file; floating ones as float32.

    Raises:
        DataError: it cannot be read, or has no such arrays.
    """
    try:
        arrays = reading.read_npz(path)
    except (OSError, ValueError) as error:
        raise DataError(f"expected an .npz file with arrays x and y. Received: {str(path)!r} ({error}).") from error
    if not {"x", "y"} <= arrays.keys():
        raise DataError(f"expected arrays x and y in {path}. Received: {', '.join(sorted(arrays)) or 'none'}.")
    x, y = arrays["x"], arrays["y"]
    if not x.ndim or not y.ndim or len(x) != len(y) or not len(x):
        raise DataError(f"expected x and y of as many examples in {path}. Received: {x.shape} and {y.shape}.")
    for name, array in (("x", x), ("y", y)):
        if array.dtype.kind not in "biuf":
            raise DataError(f"expected numbers in {name} of {path}. Received: values of type {array.dtype}.")
        if array.dtype.kind == "f" and not np.isfinite(array).all():
            raise DataError(f"expected finite numbers in {name} of {path}. Received: some that are not.")
    return tuple(a.astype("float32") if a.dtype.kind == "f" else a for a in (x, y))  # type: ignore[return-value]


def compare_on_model(
    model: keras.Model,
    x: np.ndarray,
    y: np.ndarray,
    methods: tuple[str, ...],
    passes: int = 100,
    batch: int = 32,
    rate: float | None = None,
    loss: Any = None,
) -> dict[str, Trace]:
    """Each method from the model's weights, for as many passes over the data; the model is given them back.

    Args:
        model: compiled, unless `loss` is given.
        x, y: all data.
        methods: of `optimizers.minimize`, on all data at once, and of `optimizers.BOOK`, on random batches.
        passes: evaluations of loss and gradient on all data at most (a Hessian-vector product counts as two); epochs.
        batch: examples in a batch of the first-order methods.
        rate: of the first-order methods; None for the book's.
        loss: as `compile` takes it; None for the one that the model was compiled with.

    Returns:
        What each did; the values are losses on all data, in inference mode, for all methods alike.

    Raises:
        UsageError: the model has no loss, or x or y do not fit it.
    """
    if loss is None and not model.compiled:
        raise UsageError("expected a model that was saved compiled, or a loss (--loss). Received: neither.")
    chosen = model.loss if loss is None else loss
    first = model.get_weights()
    found = {}
    try:
        for method in methods:
            model.set_weights(first)
            keras.utils.set_random_seed(0)
            try:
                if method in METHOD_NAMES:
                    model.compile(loss=chosen)
                    found[method] = _full_batch(model, (x, y), method, passes)
                else:
                    model.compile(BOOK[method](*([] if rate is None else [rate])), loss=chosen)
                    found[method] = _by_batches(model, x, y, passes, batch)
            except DivergedError as error:
                nothing = np.zeros(0)
                found[method] = Trace(nothing, nothing, 0.0, str(error), np.zeros((0, 2)))
            except (ValueError, tf.errors.InvalidArgumentError) as error:
                if isinstance(error, UsageError):
                    raise
                raise UsageError(
                    f"the data do not fit the model or the loss: x {x.shape}, y {y.shape}. Received: {error}"
                ) from error
    finally:
        model.set_weights(first)
    return found


def _full_batch(model: keras.Model, data: Any, method: str, passes: int) -> Trace:
    result = minimize(model, data, method, max_iterations=passes, max_evaluations=passes, callback_every=passes)
    return Trace(_counted(result), np.array(result.history), result.seconds, result.reason, np.zeros((0, 2)))


class _Losses(keras.callbacks.Callback):
    """The loss on all data after each epoch, and the seconds of the epochs alone."""

    def __init__(self, loss: Callable[[], Any]):
        super().__init__()
        self.loss, self.values, self.seconds = loss, [float(loss())], 0.0

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        self.seconds += time.perf_counter() - self._began
        self.values.append(float(self.loss()))
        if not np.isfinite(self.values[-1]):
            self.model.stop_training = True


def _by_batches(model: keras.Model, x: np.ndarray, y: np.ndarray, passes: int, batch: int) -> Trace:
    whole = tf.constant(x), tf.constant(y)

    @tf.function(autograph=False)
    def loss() -> Any:
        return model.compute_loss(x=whole[0], y=whole[1], y_pred=model(whole[0], training=False), training=False)

    losses = _Losses(loss)
    model.fit(x, y, batch_size=batch, epochs=passes, verbose=0, callbacks=[losses])
    good = np.isfinite(losses.values)
    reason = f"{passes} epochs, as asked" if good.all() else "diverged: take a smaller learning rate"
    return Trace(np.flatnonzero(good), np.array(losses.values)[good], losses.seconds, reason, np.zeros((0, 2)))


def _report_on_model(options: CompareOptions) -> RunReport:
    from kerasmodels.data import plots

    assert options.model is not None
    assert options.data is not None
    check_targets([options.out], [options.model, options.data])
    storage.check_writable(options.out)
    model, (x, y) = load_model(options.model), read_data(options.data)
    loss = None if options.loss == "compiled" else options.loss
    traces = compare_on_model(model, x, y, options.methods, options.steps, options.batch, options.learning_rate, loss)
    curves = {name: (t.evaluations, t.values) for name, t in traces.items() if len(t.values)}
    positive = all((values > 0).all() for _, values in curves.values())
    picture = plots.curves(curves, "passes over the data", "loss", logarithmic=("y",) if positive else ())
    if options.out.suffix.lower() == ".png":
        written = write_image(options.out, picture)
    else:
        subject = f"{options.model.name}: {model.count_params():,} parameters, {len(x):,} examples"
        written = storage.write_text(options.out, _page(subject, traces, picture, options))
    ranked = sorted(traces.items(), key=lambda item: item[1].values[-1] if len(item[1].values) else np.inf)
    facts: dict[str, Any] = {"lowest loss": ranked[0][0]}
    for name, trace in ranked:
        facts[name] = _line(trace, "passes")
    return RunReport((written,), facts)


def _page(subject: str, traces: dict[str, Trace], picture: np.ndarray, options: CompareOptions) -> str:
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "PNG")
    image = base64.b64encode(file.getvalue()).decode()
    ranked = sorted(traces.items(), key=lambda item: item[1].values[-1] if len(item[1].values) else np.inf)
    rows = "\n".join(
        "<tr><td>" + "</td><td>".join(html.escape(cell) for cell in cells) + "</td></tr>"
        for cells in (
            (
                name,
                f"{trace.values[-1]:.6g}" if len(trace.values) else "none",
                f"{trace.evaluations[-1]:.0f}" if len(trace.values) else "0",
                f"{trace.seconds:.2f}",
                trace.reason,
            )
            for name, trace in ranked
        )
    )
    return f"""<!doctype html>
<html lang="en"><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Which optimizer? {html.escape(subject)}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; color: #222 }}
table {{ border-collapse: collapse; width: 100% }} td, th {{ text-align: left; padding: .3rem .8rem .3rem 0;
border-bottom: 1px solid #ddd; vertical-align: top }} td:nth-child(-n+4) {{ white-space: nowrap }}
img {{ max-width: 100% }}
</style>
<h1>Which optimizer?</h1>
<p>{html.escape(subject)}. Every method begins with the weights of the file. The loss is that on all data, in inference
mode. A pass is one evaluation of loss and gradient on all data, or an epoch of batches of {options.batch}; a
Hessian-vector product counts as two. Seconds include compilation. This is the loss on the data given: how well a model
does on others is another question.</p>
<table><tr><th>method</th><th>final loss</th><th>passes</th><th>seconds</th><th>why it stopped</th></tr>
{rows}</table>
<p><img alt="Loss over passes over the data, by method" src="data:image/png;base64,{image}"></p>
</html>
"""


def compare(options: CompareOptions) -> RunReport:
    """Draw the trajectories on a function, or report on a model.

    Raises:
        UsageError: an unknown function, a model that cannot be used, an input that would be overwritten.
        DataError: data that cannot be used.
        DivergedError: the function is not finite at the start.
        KerasModelsError: an extra is missing.
        StorageError: the result cannot be written.
    """
    return _draw_descents(options) if options.model is None else _report_on_model(options)
