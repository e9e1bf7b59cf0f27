"""Full-batch minimization against SciPy and closed forms, and what it does when it cannot go on."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from kerasmodels.errors import DivergedError, UsageError
from kerasmodels.optimizers import minimize

pytestmark = pytest.mark.usefixtures("plain_graphs")

METHODS = ["lbfgs", "cg"]


def _rosenbrock(x: tf.Variable) -> Callable[[], tf.Tensor]:
    return lambda: tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


@pytest.mark.parametrize("n", [2, 10])
@pytest.mark.parametrize("method", METHODS)
def test_rosenbrock_ends_where_scipy_does(method: str, n: int) -> None:
    # In ten dimensions there is a second local minimum near x[0] = -1: a start away from it leaves one answer.
    start = np.tile([-1.2, 1.0], n // 2) if n == 2 else np.full(n, 0.5)
    best = scipy.optimize.minimize(
        scipy.optimize.rosen, start, jac=scipy.optimize.rosen_der, method="L-BFGS-B", options={"gtol": 1e-10, "ftol": 0}
    )
    x = tf.Variable(start)
    result = minimize(_rosenbrock(x), variables=[x], method=method, max_iterations=500, tolerance=1e-9)
    assert result.converged
    assert not result.failed
    assert result.gradient_norm <= 1e-9
    np.testing.assert_allclose(x.numpy(), best.x, atol=1e-6)
    np.testing.assert_allclose(x.numpy(), 1.0, atol=1e-6)
    # The cost of a good implementation: SciPy's own, doubled.
    if method == "lbfgs":
        assert result.evaluations <= 2 * best.nfev


@pytest.mark.parametrize("n", [2, 10])
def test_lbfgs_ends_where_tensorflow_probability_does(n: int) -> None:
    import tensorflow_probability as tfp

    start = np.where(np.arange(n) % 2, 1.0, -1.2)

    def value_and_gradient(x: tf.Tensor) -> Any:
        return tfp.math.value_and_gradient(
            lambda x: tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2), x
        )

    theirs = tfp.optimizer.lbfgs_minimize(
        value_and_gradient, start, tolerance=1e-9, max_iterations=500, num_correction_pairs=10
    )
    x = tf.Variable(start)
    ours = minimize(_rosenbrock(x), variables=[x], max_iterations=500, tolerance=1e-9)
    assert bool(theirs.converged)
    np.testing.assert_allclose(x.numpy(), theirs.position.numpy(), atol=1e-6)
    assert ours.iterations <= 1.5 * int(theirs.num_iterations)


def _quadratic(n: int, dtype: Any = np.float64) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    basis, _ = np.linalg.qr(rng.normal(size=(n, n)))
    a = basis @ np.diag(np.linspace(1, 50, n)) @ basis.T
    b = rng.normal(size=n)
    return a.astype(dtype), b.astype(dtype), np.linalg.solve(a, b).astype(dtype)


@pytest.mark.parametrize("method", METHODS)
def test_quadratic_ends_after_as_many_steps_as_dimensions(method: str) -> None:
    """With exact line searches both methods are the linear conjugate gradient method (Nocedal and Wright 5.2, 6.4)."""
    n = 6
    a, b, solution = _quadratic(n)
    x = tf.Variable(np.zeros(n))
    result = minimize(
        lambda: 0.5 * tf.tensordot(x, tf.linalg.matvec(a, x), 1) - tf.tensordot(b, x, 1),
        variables=[x],
        method=method,
        memory=n,
        max_iterations=n,
        curvature=2e-4,
        tolerance=1e-3,
    )
    assert result.iterations <= n
    np.testing.assert_allclose(x.numpy(), solution, atol=2e-4)


def test_lbfgs_solves_a_quadratic_to_rounding() -> None:
    a, b, solution = _quadratic(30)
    x = tf.Variable(np.zeros(30))
    result = minimize(
        lambda: 0.5 * tf.tensordot(x, tf.linalg.matvec(a, x), 1) - tf.tensordot(b, x, 1), variables=[x], tolerance=1e-10
    )
    assert result.converged
    assert result.iterations < 80
    np.testing.assert_allclose(x.numpy(), solution, atol=1e-9)


@pytest.fixture
def classification() -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    x = rng.normal(size=(60, 4))
    return x, (x @ [1.0, -2.0, 0.5, 0.0] + 0.5 * rng.normal(size=60) > 0).astype("float64")[:, None]


@pytest.fixture
def float64() -> Iterator[None]:
    before = keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx("float32")
    keras.config.set_dtype_policy(before)


def _logistic(dtype: str = "float64") -> keras.Model:
    regularizer = keras.regularizers.L2(0.01)
    dense = keras.layers.Dense(1, dtype=dtype, kernel_initializer="zeros", kernel_regularizer=regularizer)
    model = keras.Sequential([keras.Input((4,), dtype=dtype), dense])
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True, dtype=dtype))
    return model


def _scipy_logistic(x: np.ndarray, y: np.ndarray) -> np.ndarray:
    def value(w: np.ndarray) -> float:
        z = x @ w[:4] + w[4]
        return float(np.mean(np.logaddexp(0, z) - y[:, 0] * z) + 0.01 * np.sum(w[:4] ** 2))

    def gradient(w: np.ndarray) -> np.ndarray:
        rest = (1 / (1 + np.exp(-(x @ w[:4] + w[4]))) - y[:, 0]) / len(x)
        return np.concatenate([x.T @ rest + 0.02 * w[:4], [rest.sum()]])

    return scipy.optimize.minimize(value, np.zeros(5), jac=gradient, method="BFGS", options={"gtol": 1e-10}).x


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("method", METHODS)
def test_logistic_regression_reaches_scipys_optimum(method: str, classification: tuple[np.ndarray, np.ndarray]) -> None:
    model = _logistic()
    result = minimize(model, classification, method, tolerance=1e-9)
    assert result.converged
    found = np.concatenate([v.numpy().ravel() for v in model.trainable_variables])
    np.testing.assert_allclose(found, _scipy_logistic(*classification), atol=1e-6)


@pytest.mark.usefixtures("float64")
def test_model_and_function_forms_agree(classification: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = classification
    model, twin = _logistic(), _logistic()
    by_model = minimize(model, (x, y), max_iterations=7, tolerance=0)
    by_function = minimize(
        lambda: twin.compute_loss(x, y, twin(x, training=False)),
        variables=twin.trainable_variables,
        max_iterations=7,
        tolerance=0,
    )
    assert by_model.history == by_function.history
    for ours, theirs in zip(model.get_weights(), twin.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)


def test_float32_stalls_near_the_optimum_and_says_so(classification: tuple[np.ndarray, np.ndarray]) -> None:
    model = _logistic("float32")
    result = minimize(model, classification, tolerance=0, max_iterations=500)
    assert result.failed
    assert result.iterations < 200
    found = np.concatenate([v.numpy().ravel() for v in model.trainable_variables])
    np.testing.assert_allclose(found, _scipy_logistic(*classification), atol=2e-3)


@pytest.mark.usefixtures("float64")
def test_sample_weights_count(classification: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = classification
    kept = np.arange(60) < 40
    model, fewer = _logistic(), _logistic()
    model.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64", reduction="sum"))
    fewer.compile(loss=keras.losses.BinaryCrossentropy(from_logits=True, dtype="float64", reduction="sum"))
    minimize(model, (x, y, kept.astype("float64")), tolerance=1e-9)
    minimize(fewer, (x[kept], y[kept]), tolerance=1e-9)
    np.testing.assert_allclose(model.get_weights()[0], fewer.get_weights()[0], atol=1e-6)


def test_model_runs_in_inference_mode() -> None:
    rng = np.random.default_rng(2)
    x = rng.normal(3, 2, size=(32, 5)).astype("float32")
    layers = keras.layers
    model = keras.Sequential(
        [keras.Input((5,)), layers.Dense(4), layers.BatchNormalization(), layers.Dropout(0.9), layers.Dense(1)]
    )
    model.compile(loss="mse")
    before = [v.numpy() for v in model.non_trainable_variables]
    result = minimize(model, (x, x @ np.float32([[1], [-1], [2], [0], [1]])), max_iterations=60)
    assert result.value < 1e-3 * result.history[0]
    assert model.evaluate(x, x @ np.float32([[1], [-1], [2], [0], [1]]), verbose=0) == pytest.approx(
        result.value, rel=1e-3, abs=1e-6
    )
    for old, variable in zip(before, model.non_trainable_variables, strict=True):
        np.testing.assert_array_equal(old, variable.numpy())


def test_variables_of_several_shapes_and_dtypes() -> None:
    scalar, matrix = tf.Variable(5.0), tf.Variable(np.zeros((2, 3)))
    row, unused = keras.Variable(np.ones((4, 1, 1), "float32")), tf.Variable([7.0])

    def value() -> tf.Tensor:
        first = tf.cast((scalar - 1) ** 2 + tf.reduce_sum((row.value + 2) ** 2), tf.float64)
        return first + tf.reduce_sum((matrix - np.arange(6.0).reshape(2, 3)) ** 2)

    result = minimize(value, variables=[scalar, matrix, row, unused])
    assert result.converged
    assert scalar.numpy() == pytest.approx(1, abs=1e-5)
    np.testing.assert_allclose(matrix.numpy(), np.arange(6.0).reshape(2, 3), atol=1e-5)
    np.testing.assert_allclose(row.numpy(), np.full((4, 1, 1), -2), atol=1e-5)
    assert unused.numpy().tolist() == [7.0]


def test_gathered_rows_give_sparse_gradients() -> None:
    table = tf.Variable(np.ones((5, 2)))
    assert minimize(lambda: tf.reduce_sum(tf.gather(table, [1, 3]) ** 2), variables=[table]).converged
    np.testing.assert_allclose(table.numpy()[[1, 3]], 0, atol=1e-5)
    np.testing.assert_array_equal(table.numpy()[[0, 2, 4]], 1)


def test_callback_sees_the_position_and_can_stop() -> None:
    x = tf.Variable(np.tile([-1.2, 1.0], 5))
    value = _rosenbrock(x)
    seen: list[tuple[int, float]] = []

    def callback(iteration: int, at: float) -> bool:
        assert float(value()) == pytest.approx(at, rel=1e-12)
        seen.append((iteration, at))
        return iteration >= 9

    result = minimize(value, variables=[x], callback=callback, callback_every=3)
    assert [iteration for iteration, _ in seen] == [3, 6, 9]
    assert result.stopped
    assert not result.converged
    assert result.iterations == 9
    assert [result.history[i] for i in (3, 6, 9)] == [at for _, at in seen]


@pytest.mark.parametrize("method", METHODS)
def test_chunks_do_not_change_the_path(method: str) -> None:
    x, twin = tf.Variable(np.tile([-1.2, 1.0], 5)), tf.Variable(np.tile([-1.2, 1.0], 5))
    one = minimize(_rosenbrock(x), variables=[x], method=method, max_iterations=20, callback_every=20)
    many = minimize(_rosenbrock(twin), variables=[twin], method=method, max_iterations=20, callback_every=1)
    assert one.history == many.history
    assert len(one.history) == 21
    assert all(after <= before for before, after in zip(one.history, one.history[1:], strict=False))
    np.testing.assert_array_equal(x.numpy(), twin.numpy())


def test_callback_errors_leave_the_current_position() -> None:
    x = tf.Variable(np.array([-1.2, 1.0]))
    value = _rosenbrock(x)
    at: list[float] = []

    def callback(iteration: int, current: float) -> None:
        at.append(current)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        minimize(value, variables=[x], callback=callback, callback_every=2)
    assert float(value()) == pytest.approx(at[0])


def test_value_that_is_not_finite_at_the_start() -> None:
    x = tf.Variable([0.0, 1.0])
    with pytest.raises(DivergedError, match="loss is nan at step 0"):
        minimize(lambda: tf.reduce_sum(tf.math.log(x - 1)), variables=[x])
    assert x.numpy().tolist() == [0.0, 1.0]


def test_gradient_that_is_not_finite_at_the_start() -> None:
    x = tf.Variable([0.0, 1.0])
    with pytest.raises(DivergedError, match="the gradient is inf"):
        minimize(lambda: tf.reduce_sum(tf.sqrt(x)), variables=[x])


def test_a_wall_of_nan_is_backed_away_from() -> None:
    """x - log(x) is NaN for x < 0, where the first step of length 10 ends; the minimum is at 1."""
    x = tf.Variable(np.array(3.0))
    result = minimize(lambda: x - tf.math.log(x), variables=[x], first_length=10.0, tolerance=1e-8)
    assert result.converged
    assert x.numpy() == pytest.approx(1, abs=1e-7)


def test_nan_all_around_ends_at_the_best_finite_point() -> None:
    """The function is defined at 2 and above and falls towards 2: no step from there gives a number."""
    x = tf.Variable(np.array(2.0))

    def value() -> tf.Tensor:
        return tf.where(x < 2, tf.constant(np.nan, tf.float64), x)

    with pytest.raises(DivergedError, match=r"loss is nan.*of value 2\.0") as raised:
        minimize(value, variables=[x])
    assert raised.value.step == 1
    assert x.numpy() == 2.0


def test_value_tolerance_stops_early() -> None:
    x, twin = tf.Variable(np.tile([-1.2, 1.0], 5)), tf.Variable(np.tile([-1.2, 1.0], 5))
    early = minimize(_rosenbrock(x), variables=[x], value_tolerance=0.01)
    late = minimize(_rosenbrock(twin), variables=[twin])
    assert early.converged
    assert late.converged
    assert early.iterations < late.iterations


def test_nothing_to_do_at_the_optimum() -> None:
    x = tf.Variable([1.0, 1.0])
    result = minimize(_rosenbrock(x), variables=[x])
    assert (result.converged, result.iterations, result.evaluations) == (True, 0, 1)


def test_unknown_method_names_the_closest() -> None:
    with pytest.raises(UsageError, match=r"unknown method 'l-bfgs'.*'lbfgs'.*cg, .*lbfgs"):
        minimize(lambda: None, variables=[tf.Variable(1.0)], method="l-bfgs")


@pytest.mark.parametrize(
    "options",
    [
        {"max_iterations": 0},
        {"memory": 0},
        {"callback_every": 0},
        {"max_line_search": 0},
        {"curvature": 1.0},
        {"tolerance": -1.0},
        {"tolerance": float("nan")},
        {"first_length": 0.0},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    x = tf.Variable(1.0)
    with pytest.raises(UsageError, match=next(iter(options))):
        minimize(lambda: x**2, variables=[x], **options)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ([], "no variables"),
        ([tf.constant(1.0)], "Received: EagerTensor"),
        ([tf.Variable(1)], "float32 or float64"),
    ],
)
def test_variables_that_cannot_be_optimized(variables: list[Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        minimize(lambda: tf.constant(0.0), variables=variables)


def test_a_variable_twice() -> None:
    x = tf.Variable(1.0)
    with pytest.raises(UsageError, match="listed twice"):
        minimize(lambda: x**2, variables=[x, x])


def test_functions_that_cannot_be_minimized() -> None:
    x = tf.Variable([1.0, 2.0])
    with pytest.raises(UsageError, match="must return a scalar"):
        minimize(lambda: x**2, variables=[x])
    with pytest.raises(UsageError, match="does not depend on"):
        minimize(lambda: tf.constant(1.0), variables=[x])
    assert x.numpy().tolist() == [1.0, 2.0]


def test_models_and_data_that_cannot_be_used() -> None:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(1)])
    x = np.zeros((2, 4), "float32")
    with pytest.raises(UsageError, match="compile"):
        minimize(model, (x, x))
    model.compile(loss="mse")
    with pytest.raises(UsageError, match="data must be"):
        minimize(model, x)
    model.trainable = False
    with pytest.raises(UsageError, match="no variables"):
        minimize(model, (x, x[:, :1]))


def test_a_function_takes_its_data_as_arguments_and_a_model_may_keep_some_weights() -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(30, 3)).astype("float32")
    y = x @ np.float32([[1], [-2], [0.5]]) + 3
    w, b = tf.Variable(tf.zeros((3, 1))), tf.Variable(tf.zeros(1))
    result = minimize(lambda x, y: tf.reduce_mean((x @ w + b - y) ** 2), (x, y), "cg", variables=[w, b])
    assert result.converged, result.reason
    np.testing.assert_allclose(w.numpy()[:, 0], [1, -2, 0.5], atol=1e-3)
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    kernel, bias = model.trainable_variables
    before = kernel.numpy()
    minimize(model, (x, y), variables=[bias])
    np.testing.assert_array_equal(kernel.numpy(), before)
    np.testing.assert_allclose(bias.numpy(), np.mean(y - x @ before, 0), atol=1e-4)


def test_functions_want_variables_and_one_fixed_batch() -> None:
    v = tf.Variable(1.0)
    with pytest.raises(UsageError, match=r"Name them: variables=\[\.\.\.\]"):
        minimize(lambda: v**2)
    with pytest.raises(UsageError, match=r"one fixed batch.*Received: _?RangeDataset"):
        minimize(lambda x: v**2, tf.data.Dataset.range(3), variables=[v])
    with pytest.raises(UsageError, match="the function's arguments"):
        minimize(lambda x: v**2, np.zeros(3), variables=[v])
    with pytest.raises(UsageError, match="a model or a function"):
        minimize(3, variables=[v])
