"""The methods of `minimize` against theory, SciPy and TensorFlow Probability; interruptions; bounds; bad input."""

import builtins
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import keras
import numpy as np
import pytest
import scipy.optimize
import tensorflow as tf

from kerasmodels.claims.optimization import PROBLEMS
from kerasmodels.errors import DataError, DivergedError, KerasModelsError, UsageError
from kerasmodels.optimizers import METHOD_NAMES, MinimizeResult, minimize, steps

pytestmark = pytest.mark.usefixtures("plain_graphs")


def quadratic(n: int, condition: float = 50.0) -> tuple[np.ndarray, np.ndarray]:
    """A positive definite matrix with a known spread of eigenvalues, and where 1/2 x H x - b x is least."""
    random = np.random.default_rng(n)
    q, _ = np.linalg.qr(random.normal(size=(n, n)))
    return q @ np.diag(np.geomspace(1, condition, n)) @ q.T, random.normal(size=n)


def solve(hessian: np.ndarray, best: np.ndarray, method: str, **options: Any) -> tuple[MinimizeResult, np.ndarray]:
    x = tf.Variable(np.zeros(len(best)))
    h = tf.constant(hessian)

    def value() -> tf.Tensor:
        d = x - best
        return 0.5 * tf.reduce_sum(d * tf.linalg.matvec(h, d))

    result = minimize(value, variables=[x], method=method, **{"tolerance": 1e-8, "callback_every": 1000, **options})
    return result, x.numpy()


def rosenbrock(x: tf.Variable) -> Callable[[], tf.Tensor]:
    return lambda: tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


# --- theory -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["cg", "cg_fr"])
def test_conjugate_gradients_solve_a_quadratic_of_n_variables_in_n_steps(method: str) -> None:
    hessian, best = quadratic(12, condition=10.0)
    result, found = solve(hessian, best, method, curvature=1e-9, max_iterations=12)
    np.testing.assert_allclose(found, best, atol=1e-6)
    assert result.iterations <= 12
    # One step less does not do: the bound is sharp.
    _, short = solve(hessian, best, method, curvature=1e-9, max_iterations=6)
    assert np.abs(short - best).max() > 1e-3


def test_the_direction_of_lbfgs_is_that_of_the_two_loops() -> None:
    """Algorithm 7.4 of Nocedal and Wright, while the ring fills, is emptied by a pair of no use, and goes round."""
    n, m, random = 12, 4, np.random.default_rng(0)
    a = random.normal(size=(n, n))
    hessian, g, kept = a @ a.T + np.eye(n), random.normal(size=n), []
    problem = SimpleNamespace(options=SimpleNamespace(memory=m))
    pairs, _ = steps._lbfgs_start(problem, SimpleNamespace(x=tf.zeros(n, tf.float64)))
    for k in range(12):
        s = random.normal(size=n)
        y, curved = hessian @ s, k != 6
        g = g + y
        pairs = steps._pushed(pairs, *map(tf.constant, (s, y, g)), tf.constant(curved))
        kept = [*kept, (s, y)][-m:] if curved else []
        q, alphas = g.copy(), []
        for s, y in reversed(kept):
            alphas.append(s @ q / (s @ y))
            q = q - alphas[-1] * y
        if kept:
            q = q * (kept[-1][0] @ kept[-1][1]) / (kept[-1][1] @ kept[-1][1])
        for (s, y), alpha in zip(kept, reversed(alphas), strict=True):
            q = q + (alpha - y @ q / (s @ y)) * s
        np.testing.assert_allclose(steps._lbfgs_direction(tf.constant(g), pairs), -q, rtol=1e-9, atol=1e-9)


def test_lbfgs_with_a_memory_of_n_terminates_as_conjugate_gradients_do() -> None:
    """With exact line searches both follow one path (Nocedal and Wright, theorem 6.4)."""
    hessian, best = quadratic(10)
    quasi, found = solve(hessian, best, "lbfgs", curvature=1e-9, memory=10)
    conjugate, _ = solve(hessian, best, "cg", curvature=1e-9)
    assert quasi.converged
    assert quasi.iterations <= 11
    np.testing.assert_allclose(found, best, atol=1e-8)
    np.testing.assert_allclose(quasi.history[:9], conjugate.history[:9], rtol=1e-5)


def test_newton_solves_a_quadratic_in_one_step() -> None:
    hessian, best = quadratic(20)
    result, found = solve(hessian, best, "newton_cg", inner_tolerance=1e-12)
    assert (result.converged, result.iterations, result.evaluations) == (True, 1, 2)
    assert 20 <= result.products <= 40
    np.testing.assert_allclose(found, best, atol=1e-9)


def test_newton_with_damping_takes_the_step_of_levenberg_and_marquardt() -> None:
    hessian, best = quadratic(5, condition=4.0)
    _, found = solve(hessian, best, "newton_cg", inner_tolerance=1e-12, damping=0.5, max_iterations=1)
    np.testing.assert_allclose(found, np.linalg.solve(hessian + 0.5 * np.eye(5), hessian @ best), atol=1e-9)


def test_coordinate_descent_needs_one_sweep_where_the_function_is_separable() -> None:
    best = np.linspace(-2, 3, 7)
    result, found = solve(np.diag(np.geomspace(1, 100, 7)), best, "coordinate", max_iterations=1)
    np.testing.assert_allclose(found, best, atol=1e-6)
    assert result.evaluations <= 1 + 3 * 7
    # Where it is not, sweeps are those of Gauss and Seidel.
    hessian, best = quadratic(4, condition=4.0)
    _, found = solve(hessian, best, "coordinate", max_iterations=3, curvature=1e-9)
    x, b = np.zeros(4), hessian @ best
    for i in list(range(4)) * 3:
        x[i] += (b[i] - hessian[i] @ x) / hessian[i, i]
    np.testing.assert_allclose(found, x, atol=1e-8)


@pytest.mark.parametrize("method", ["newton_cg", "cg_fr", "bfgs"])
def test_rosenbrock_in_ten_dimensions(method: str) -> None:
    x = tf.Variable(np.full(10, 0.5))
    result = minimize(
        rosenbrock(x), variables=[x], method=method, max_iterations=1500, tolerance=1e-8, callback_every=1500
    )
    assert result.converged, result.reason
    np.testing.assert_allclose(x.numpy(), 1.0, atol=1e-6)
    if method == "newton_cg":
        # Quadratic convergence: the last steps square the error.
        assert result.iterations < 40


@pytest.mark.parametrize("method", ["nelder_mead", "differential_evolution", "coordinate"])
def test_methods_without_a_direction_find_beales_minimum(method: str) -> None:
    x = tf.Variable(np.array([1.0, 1.0]))
    bounds = {"bounds": (-4.5, 4.5)} if method == "differential_evolution" else {}

    def value() -> tf.Tensor:
        a, b = x[0], x[1]
        return (1.5 - a + a * b) ** 2 + (2.25 - a + a * b**2) ** 2 + (2.625 - a + a * b**3) ** 2

    result = minimize(
        value, variables=[x], method=method, max_iterations=3000, tolerance=1e-8, callback_every=3000, **bounds
    )
    assert result.converged, result.reason
    assert ("width" in result.reason) == (method != "coordinate")
    assert np.isnan(result.gradient_norm) == (method != "coordinate")
    np.testing.assert_allclose(x.numpy(), [3.0, 0.5], atol=1e-6)


@pytest.mark.optimized
def test_all_methods_agree_on_a_convex_problem_of_real_data() -> None:
    """Logistic regression with a small penalty on Fisher's irises: two kinds, petals."""
    features = np.loadtxt(Path(__file__).with_name("iris.csv"), delimiter=",", skiprows=1)
    labels, inputs = features[:, -1] * 2 - 1, features[:, :2]
    inputs = np.column_stack([(inputs - inputs.mean(0)) / inputs.std(0), np.ones(len(inputs))])

    def theirs(w: np.ndarray) -> float:
        return float(np.logaddexp(0, -labels * (inputs @ w)).mean() + 0.005 * w @ w)

    best = scipy.optimize.minimize(theirs, np.zeros(3), method="BFGS", options={"gtol": 1e-9}).x
    data, signs = tf.constant(inputs), tf.constant(labels)
    assert np.abs(best).max() > 0.5
    for method in METHOD_NAMES:
        w = tf.Variable(np.zeros(3))

        def value(w: tf.Variable = w) -> tf.Tensor:
            return tf.reduce_mean(tf.math.softplus(-signs * tf.linalg.matvec(data, w))) + 0.005 * tf.reduce_sum(w**2)

        result = minimize(
            value,
            variables=[w],
            method=method,
            max_iterations=1000,
            # Values cannot tell points apart that are closer than the root of their rounding.
            tolerance=1e-7 if method in ("nelder_mead", "differential_evolution") else 1e-8,
            population=20,
            callback_every=1000,
        )
        assert result.converged, (method, result.reason)
        np.testing.assert_allclose(w.numpy(), best, atol=1e-6, err_msg=method)


# --- bounds -----------------------------------------------------------------------------------------------------------


def test_lbfgsb_ends_where_scipy_does_and_costs_no_more() -> None:
    """Ten problems with bounds, most of them active in the end: SciPy's optimum within 1e-6, 1.1 times its cost."""
    ours, theirs = [], []
    assert len(PROBLEMS) == 10
    for name, problem in PROBLEMS.items():
        result, found = problem.by_ours(1e-8)
        best = problem.by_scipy(1e-8)
        assert result.converged, (name, result.reason)
        np.testing.assert_allclose(found, best.x, atol=1e-6, err_msg=name)
        assert np.all((found >= problem.lower) & (found <= problem.upper)), name
        assert result.evaluations <= 1.1 * best.nfev + 1, (name, result.evaluations, best.nfev)
        ours.append(result.evaluations)
        theirs.append(best.nfev)
    assert sum(ours) <= 1.1 * sum(theirs), (ours, theirs)


def test_bounds_for_each_variable_and_a_start_beyond_them() -> None:
    a, b = tf.Variable([5.0, 5.0]), tf.Variable(np.full((2, 2), -3.0))

    def value() -> tf.Tensor:
        return tf.cast(tf.reduce_sum((a - 1) ** 2), "float64") + tf.reduce_sum((b + 2) ** 2)

    for method in ("lbfgsb", "coordinate"):
        a.assign([5.0, 5.0])
        result = minimize(
            value, variables=[a, b], method=method, bounds=([[-1.0, 2.0], None], [4.0, [[-2.5, 0], [0, 0]]])
        )
        assert result.converged
        np.testing.assert_allclose(a.numpy(), [1, 2], atol=1e-4)
        np.testing.assert_allclose(b.numpy(), [[-2.5, -2], [-2, -2]], atol=1e-4)


@pytest.mark.parametrize(
    ("method", "bounds", "message"),
    [
        ("lbfgsb", (1.0, -1.0), r"infeasible.*Received: 1\.0 and -1\.0"),
        ("lbfgsb", (np.nan, 1.0), "infeasible"),
        ("lbfgsb", ([0.0, 0.0], 1.0), "lower bound for each of 1 variables"),
        ("lbfgsb", ([np.zeros(3)], 1.0), "must fit its shape"),
        ("lbfgsb", 1.0, r"must be \(lower, upper\)"),
        ("lbfgs", (0.0, 1.0), "minds bounds: .*lbfgsb"),
    ],
)
def test_bounds_that_cannot_be(method: str, bounds: Any, message: str) -> None:
    x = tf.Variable([1.0, 2.0])
    with pytest.raises(UsageError, match=message):
        minimize(lambda: tf.reduce_sum(x**2), variables=[x], method=method, bounds=bounds)


# --- stopping, resuming -----------------------------------------------------------------------------------------------


class Stop(Exception):
    """An interruption."""


@pytest.mark.parametrize(
    "method",
    [
        "lbfgs",
        "lbfgsb",
        "newton_cg",
        "differential_evolution",
        *(pytest.param(name, marks=pytest.mark.slow) for name in ("cg", "cg_fr", "coordinate", "bfgs", "nelder_mead")),
    ],
)
def test_interrupted_and_resumed_equals_uninterrupted(method: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"max_iterations": 9, "tolerance": 0.0, "callback_every": 3}
    x = tf.Variable(np.array([-1.2, 1.0, -0.5]))
    whole = minimize(rosenbrock(x), variables=[x], method=method, **options)
    assert whole.reason.startswith("max_iterations=9")
    end = x.numpy()

    def interrupt(iteration: int, value: float) -> None:
        if iteration == 6:
            raise Stop

    x.assign([-1.2, 1.0, -0.5])
    file = tmp_path / "run.npz"
    with pytest.raises(Stop):
        minimize(rosenbrock(x), variables=[x], method=method, checkpoint=file, callback=interrupt, **options)
    x.assign([9.0, 9.0, 9.0])
    # What it begins with is in the file, but a start must be one that can be evaluated.
    resumed = minimize(rosenbrock(x), variables=[x], method=method, checkpoint=file, **options)
    np.testing.assert_array_equal(x.numpy(), end)
    assert resumed.history == whole.history
    assert resumed.history_evaluations == whole.history_evaluations
    assert (resumed.iterations, resumed.evaluations) == (whole.iterations, whole.evaluations)


def test_checkpoints_of_something_else_are_refused(tmp_path: Path) -> None:
    x = tf.Variable(np.array([-1.2, 1.0]))
    file = tmp_path / "run.npz"
    minimize(rosenbrock(x), variables=[x], checkpoint=file, max_iterations=3)
    with pytest.raises(UsageError, match="checkpoint of another run"):
        minimize(rosenbrock(x), variables=[x], method="cg", checkpoint=file)
    with pytest.raises(UsageError, match="checkpoint of another function"):
        minimize(lambda: tf.reduce_sum(x**2), variables=[x], checkpoint=file)
    file.write_bytes(b"no zip")
    with pytest.raises(DataError, match="cannot be read"):
        minimize(rosenbrock(x), variables=[x], checkpoint=file)


def test_the_reason_is_always_given() -> None:
    x = tf.Variable(np.array([-1.2, 1.0]))
    value = rosenbrock(x)
    assert "max_iterations=3" in minimize(value, variables=[x], method="cg", max_iterations=3).reason
    limited = minimize(value, variables=[x], method="cg", max_evaluations=5)
    assert "max_evaluations=5" in limited.reason
    assert 5 <= limited.evaluations <= 30
    stopped = minimize(value, variables=[x], method="cg", callback=lambda i, f: True, callback_every=1)
    assert "callback" in stopped.reason
    assert "value_tolerance" in minimize(value, variables=[x], method="cg", value_tolerance=0.9).reason
    done = minimize(value, variables=[x], tolerance=1e-6)
    assert done.reason.startswith("converged: the gradient")
    assert done.converged
    # A kink, where the gradient is nowhere 0.
    worn = minimize(
        lambda: tf.reduce_sum(tf.abs(x - 1 / 3) + 0.1 * x), variables=[x], tolerance=0.0, max_iterations=10_000
    )
    assert worn.failed, worn.reason
    assert "float64" in worn.reason
    assert worn.iterations < 100


def test_float64_inside_by_choice() -> None:
    """The variables stay float32; sums over steps no longer round."""
    x = tf.Variable([-1.2, 1.0])
    result = minimize(rosenbrock(x), variables=[x], dtype="float64", max_iterations=500, tolerance=1e-3)
    assert x.dtype == tf.float32
    assert result.converged
    np.testing.assert_allclose(x.numpy(), 1.0, atol=1e-2)


# --- bad input --------------------------------------------------------------------------------------------------------


def test_data_in_random_batches_are_refused() -> None:
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(loss="mse")
    x = np.zeros((4, 2), "float32")
    stream = tf.data.Dataset.from_tensor_slices((x, x[:, :1])).shuffle(4).batch(2)
    for data in (stream, iter([(x, x[:, :1])])):
        with pytest.raises(UsageError, match=r"one fixed batch.*another function.*Received: .*Adam"):
            minimize(model, data)


def test_functions_that_are_not_deterministic_are_refused() -> None:
    x = tf.Variable([1.0, 2.0])
    with pytest.raises(UsageError, match=r"must be deterministic.*one fixed batch"):
        minimize(lambda: tf.reduce_sum(x**2) + tf.random.uniform(()), variables=[x])
    assert x.numpy().tolist() == [1.0, 2.0]


def test_a_value_that_stops_being_finite_leaves_the_last_good_weights() -> None:
    """Finite at the start alone: whatever is tried, the variables end where the value was good."""
    for method in ("lbfgs", "lbfgsb", "newton_cg"):
        x = tf.Variable(np.array([2.0]))
        with pytest.raises(DivergedError, match="hold the last finite position"):
            minimize(
                lambda x=x: tf.reduce_sum(tf.where(x < 2, tf.constant(np.nan, tf.float64), x)),
                variables=[x],
                method=method,
            )
        assert x.numpy().tolist() == [2.0]


def test_nothing_but_a_scalar_is_minimized() -> None:
    x = tf.Variable([1.0, 2.0])
    with pytest.raises(UsageError, match=r"scalar. Received a shape of \(2,\)"):
        minimize(lambda: x**2, variables=[x], method="nelder_mead")
    with pytest.raises(UsageError, match=r"scalar\. Received: None"):
        minimize(lambda: None, variables=[x])


@pytest.mark.parametrize("method", ["bfgs", "nelder_mead"])
def test_without_the_extra_the_error_says_how_to_install_it(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *args: Any, **kwargs: Any) -> Any:
        if name.startswith("tensorflow_probability"):
            raise ImportError("No module named 'tensorflow_probability'")
        return real(name, *args, **kwargs)

    monkeypatch.setattr(builtins, "__import__", without)
    x = tf.Variable([1.0, 2.0])
    with pytest.raises(KerasModelsError, match=r"pip install 'kerasmodels\[prob\]'.*Without it: lbfgs"):
        minimize(lambda: tf.reduce_sum(x**2), variables=[x], method=method)
    assert x.numpy().tolist() == [1.0, 2.0]


@pytest.mark.parametrize(
    "options",
    [
        {"population": 3},
        {"seed": -1},
        {"max_products": 0},
        {"max_evaluations": 0},
        {"damping": -1.0},
        {"inner_tolerance": 1.0},
        {"dtype": "float16"},
    ],
)
def test_options_out_of_range(options: dict[str, Any]) -> None:
    x = tf.Variable(1.0)
    with pytest.raises(UsageError, match=next(iter(options))):
        minimize(lambda: x**2, variables=[x], **options)
