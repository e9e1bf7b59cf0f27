"""The claims of `optimization`: the methods beside theory and SciPy, and a network for the Burgers equation."""

import resource
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels import optimizers
from kerasmodels.data import write_image
from kerasmodels.family import Claim, Experiment

# --- theory -----------------------------------------------------------------------------------------------------------


def theory(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Quadratic functions, where it is known after how many steps each method is at the minimum."""
    n = 10 if quick else 50
    random = np.random.default_rng(0)
    q, _ = np.linalg.qr(random.normal(size=(n, n)))
    hessian, best = q @ np.diag(np.geomspace(1, 20, n)) @ q.T, random.normal(size=n)

    def off(method: str, steps: int, matrix: np.ndarray = hessian, **options: Any) -> float:
        x, h = tf.Variable(np.zeros(n)), tf.constant(matrix)

        def value() -> tf.Tensor:
            return 0.5 * tf.reduce_sum((x - best) * tf.linalg.matvec(h, x - best))

        optimizers.minimize(
            value, variables=[x], method=method, max_iterations=steps, tolerance=0.0, callback_every=steps, **options
        )
        return float(np.abs(x.numpy() - best).max())

    exact: dict[str, Any] = {"curvature": 1e-9}
    diagonal = np.diag(np.arange(n) + 1.0)
    rows = (
        ("cg", f"Polak-Ribiere: {n} steps on a quadratic of {n} variables", off("cg", n, **exact)),
        ("cg_fr", f"Fletcher-Reeves: {n} steps there", off("cg_fr", n, **exact)),
        ("lbfgs", f"L-BFGS that remembers {n} pairs: {n + 1} steps there", off("lbfgs", n + 1, memory=n, **exact)),
        ("newton_cg", "Newton: one step there", off("newton_cg", 1, inner_tolerance=1e-12, max_products=4 * n)),
        (
            "coordinate",
            "coordinate descent: one sweep on a separable one",
            off("coordinate", 1, diagonal, **exact),
        ),
    )
    return [
        Claim(f"theory_{key}", f"{text}, largest distance from the minimum", "0 (exact arithmetic)", off, at_most=1e-6)
        for key, text, off in rows
    ]


# --- beside SciPy -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Bounded:
    """A problem with bounds: a function (n,) -> scalar in TensorFlow, a start and bounds (n,)."""

    function: Callable[[Any], Any]
    start: np.ndarray
    lower: np.ndarray
    upper: np.ndarray

    def by_scipy(self, tolerance: float) -> Any:
        """SciPy's answer, with the memory that ours has by default."""
        import scipy.optimize

        @tf.function(autograph=False)
        def both(x: tf.Tensor) -> Any:
            with tf.GradientTape() as tape:
                tape.watch(x)
                value = self.function(x)
            return value, tape.gradient(value, x)

        return scipy.optimize.minimize(
            lambda x: [each.numpy() for each in both(tf.constant(x))],
            np.clip(self.start, self.lower, self.upper),
            jac=True,
            method="L-BFGS-B",
            bounds=list(zip(self.lower, self.upper, strict=True)),
            options={"gtol": tolerance, "ftol": 0, "maxcor": 10},
        )

    def by_ours(self, tolerance: float) -> tuple[optimizers.MinimizeResult, np.ndarray]:
        """Ours, and where it ended."""
        x = tf.Variable(self.start)
        result = optimizers.minimize(
            lambda: self.function(tf.convert_to_tensor(x)),
            variables=[x],
            method="lbfgsb",
            bounds=([self.lower], [self.upper]),
            tolerance=tolerance,
            max_iterations=500,
            callback_every=500,
        )
        return result, x.numpy()


def _bounded(function: Callable[[Any], Any], start: Any, lower: Any, upper: Any) -> Bounded:
    start = np.asarray(start, "float64")
    return Bounded(function, start, *(np.broadcast_to(np.asarray(b, "float64"), start.shape) for b in (lower, upper)))


def _rosenbrock(x: Any) -> Any:
    return tf.reduce_sum(100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2)


def _beale(x: Any) -> Any:
    return sum((c - x[0] * (1 - x[1] ** i)) ** 2 for i, c in ((1, 1.5), (2, 2.25), (3, 2.625)))


def _wood(x: Any) -> Any:
    return (
        100 * (x[1] - x[0] ** 2) ** 2
        + (1 - x[0]) ** 2
        + 90 * (x[3] - x[2] ** 2) ** 2
        + (1 - x[2]) ** 2
        + 10.1 * ((x[1] - 1) ** 2 + (x[3] - 1) ** 2)
        + 19.8 * (x[1] - 1) * (x[3] - 1)
    )


def _raydan(x: Any) -> Any:
    weights = np.arange(1, 21) / 10
    return tf.reduce_sum(weights * (tf.exp(x) - x))


_RANDOM = np.random.default_rng(0)
_A = _RANDOM.normal(size=(20, 20))
_H, _B = _A @ _A.T / 20 + 0.1 * np.eye(20), _RANDOM.normal(size=20)
_M, _Y = _RANDOM.normal(size=(30, 8)), _RANDOM.normal(size=30)
_X = _RANDOM.normal(size=(100, 6))
_T = np.sign(_X @ np.arange(-3, 3) + _RANDOM.normal(size=100))


def _bowl(x: Any) -> Any:
    return 0.5 * tf.reduce_sum(x * tf.linalg.matvec(_H, x)) - tf.reduce_sum(_B * x)


def _driver(x: Any) -> Any:
    """The example of the Fortran code's authors."""
    return 0.25 * (x[0] - 1) ** 2 + tf.reduce_sum((x[1:] - x[:-1] ** 2) ** 2)


def _trid(x: Any) -> Any:
    return tf.reduce_sum((x - 1) ** 2) - tf.reduce_sum(x[1:] * x[:-1])


def _least_squares(x: Any) -> Any:
    return 0.5 * tf.reduce_sum((tf.linalg.matvec(_M, x) - _Y) ** 2)


def _logistic(x: Any) -> Any:
    return tf.reduce_mean(tf.math.softplus(-_T * tf.linalg.matvec(_X, x)))


_EVEN = np.arange(10) % 2 == 0
PROBLEMS = {
    "rosenbrock": _bounded(_rosenbrock, [-1.2, 1], -2, 0.5),
    "rosenbrock of ten": _bounded(_rosenbrock, np.full(10, -0.5), -1, np.where(_EVEN, 2, 0.8)),
    "beale": _bounded(_beale, [1, 1], [0, -np.inf], [2.5, np.inf]),
    "wood": _bounded(_wood, [-3, -1, -3, -1], -10, [10, 0.9, 10, 0.9]),
    "raydan": _bounded(_raydan, np.ones(20), np.where(np.arange(20) % 3, -1, 0.2), 3),
    "bowl": _bounded(_bowl, np.zeros(20), -0.3, 0.4),
    "driver": _bounded(_driver, np.full(5, 3), np.where(_EVEN[:5], 1, -100), 100),
    "trid": _bounded(_trid, np.zeros(10), -100, 12),
    "nonnegative least squares": _bounded(_least_squares, np.ones(8), 0, np.inf),
    "logistic": _bounded(_logistic, np.zeros(6), -1, 1),
}


def bounds(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """L-BFGS-B on ten problems, beside SciPy's, to a projected gradient of 1e-8."""
    apart, ours, theirs = [], [], []
    for problem in PROBLEMS.values():
        best, (result, found) = problem.by_scipy(1e-8), problem.by_ours(1e-8)
        apart.append(float(np.abs(found - best.x).max()))
        ours.append(result.evaluations)
        theirs.append(int(best.nfev))
    return [
        Claim(
            "bounds_apart",
            f"L-BFGS-B on {len(PROBLEMS)} problems with bounds: largest distance from SciPy's optimum",
            "one minimum",
            max(apart),
            at_most=1e-6,
        ),
        Claim(
            "bounds_evaluations",
            f"evaluations of all, as a part of SciPy's ({sum(ours)} and {sum(theirs)})",
            "not given",
            round(sum(ours) / sum(theirs), 3),
            at_most=1.1,
        ),
        Claim(
            "bounds_worst",
            "the same of the problem where ours needs most",
            "not given",
            round(max(a / b for a, b in zip(ours, theirs, strict=True)), 3),
        ),
    ]


# --- cost -------------------------------------------------------------------------------------------------------------


def overhead(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """What L-BFGS costs besides evaluations, for a perceptron of a million weights on 8,192 examples at once."""
    width = 100 if quick else 970
    keras.utils.set_random_seed(0)
    model = keras.Sequential(
        [keras.Input((64,)), *(keras.layers.Dense(width, "tanh") for _ in range(2)), keras.layers.Dense(1)]
    )
    model.compile(loss="mse")
    random = np.random.default_rng(0)
    x = random.normal(size=(1024 if quick else 8192, 64)).astype("float32")
    y = np.sin(x[:, :1] * x[:, 1:2])
    spent: list[float] = []

    def look(iteration: int, value: float) -> None:
        spent.append(_cpu())

    result = optimizers.minimize(model, (x, y), max_iterations=20, tolerance=0.0, callback=look, callback_every=10)
    whole = spent[-1] - spent[0]
    evaluations = result.history_evaluations[-1] - result.history_evaluations[10]
    whole_x, whole_y = tf.constant(x), tf.constant(y)

    @tf.function(autograph=False)
    def gradients(count: tf.Tensor) -> tf.Tensor:
        def body(i: tf.Tensor, total: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
            with tf.GradientTape() as tape:
                loss = model.compute_loss(x=whole_x, y=whole_y, y_pred=model(whole_x, training=False), training=False)
            found = tape.gradient(loss, model.trainable_variables)
            return i + 1, total + loss + sum(tf.reduce_sum(each) for each in found)

        return tf.while_loop(lambda i, total: i < count, body, (0, 0.0), parallel_iterations=1)[1]

    gradients(tf.constant(2))
    began = _cpu()
    gradients(tf.constant(evaluations))
    alone = _cpu() - began
    return [
        Claim(
            "overhead",
            f"L-BFGS, {model.count_params():,} weights, {len(x):,} examples: CPU seconds of 10 iterations over "
            f"those of their {evaluations} gradients alone, less 1",
            "little (two loops over ten pairs)",
            round(whole / alone - 1, 3),
            at_most=0.1,
        )
    ]


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


# --- the Burgers equation ---------------------------------------------------------------------------------------------

VISCOSITY = 0.01 / np.pi


def burgers_solution(t: np.ndarray, x: np.ndarray) -> np.ndarray:
    """u of u_t + u u_x = nu u_xx on -1..1 with u(0, x) = -sin(pi x), by Cole-Hopf and Gauss-Hermite quadrature.

    Args:
        t, x: (N,), t in 0-1 and x in -1..1.

    Returns:
        (N,) float64.
    """
    nodes, weights = np.polynomial.hermite.hermgauss(160)
    y = x[:, None] - 2 * np.sqrt(VISCOSITY * t[:, None]) * nodes
    exponent = -np.cos(np.pi * y) / (2 * np.pi * VISCOSITY)
    # Only the ratio of the two integrals counts.
    kernel = np.exp(exponent - exponent.max(1, keepdims=True)) * weights
    return -(np.sin(np.pi * y) * kernel).sum(1) / kernel.sum(1)


class BurgersNetwork(keras.Model):
    """A physics-informed network: u = -sin(pi x) + t (1 - x^2) N(t, x) holds at t = 0 and at the walls by itself.

    Shapes:
        (N, 2), columns t and x -> (N, 1). The loss is the mean squared residual of the equation at the points given,
        weighted by `sample_weight`.

    Reference:
        Raissi, Perdikaris, Karniadakis 2019; the ansatz after Lagaris, Likas, Fotiadis 1998.
    """

    def __init__(self, width: int, depth: int, **kwargs: Any):
        super().__init__(**kwargs)
        hidden = [keras.layers.Dense(width, "tanh") for _ in range(depth)]
        self.network = keras.Sequential([keras.Input((2,)), *hidden, keras.layers.Dense(1)])

    def call(self, inputs: Any) -> Any:
        t, x = inputs[:, :1], inputs[:, 1:]
        return t * (1 - x * x) * self.network(inputs) - tf.sin(np.pi * x)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return _mean_residual(self, x, sample_weight)


@tf.function(autograph=False, jit_compile=True)
def _mean_residual(model: BurgersNetwork, points: tf.Tensor, weights: tf.Tensor) -> tf.Tensor:
    """The derivatives in x and t go forward through the network with the values: tanh and Dense are all there is."""
    *hidden, last = ((layer.kernel.value, layer.bias.value) for layer in model.network.layers)
    h, h_t, h_x, h_xx = points, tf.constant([[1.0, 0]], points.dtype), tf.constant([[0, 1.0]], points.dtype), None
    for kernel, bias in hidden:
        a = tf.tanh(h @ kernel + bias)
        slope = 1 - a * a
        z_t, z_x = h_t @ kernel, h_x @ kernel
        bend = -2 * a * z_x**2 if h_xx is None else h_xx @ kernel - 2 * a * z_x**2
        h, h_t, h_x, h_xx = a, slope * z_t, slope * z_x, slope * bend
    kernel, bias = last
    n, n_t, n_x, n_xx = (each[:, 0] for each in (h @ kernel + bias, h_t @ kernel, h_x @ kernel, h_xx @ kernel))
    t, x = points[:, 0], points[:, 1]
    wall, wave, pi = t * (1 - x * x), tf.sin(np.pi * x), np.pi
    u = wall * n - wave
    u_t = (1 - x * x) * n + wall * n_t
    u_x = wall * n_x - 2 * t * x * n - pi * tf.cos(pi * x)
    u_xx = wall * n_xx - 4 * t * x * n_x - 2 * t * n + pi * pi * wave
    return tf.reduce_mean(weights * (u_t + u * u_x - VISCOSITY * u_xx) ** 2)


def _points(count: int) -> tuple[np.ndarray, np.ndarray]:
    """Sobol points (count, 2) of t in 0-1 and x in -1..1, ten times as close at the shock, x = 0; weights (count,).

    Each is weighted by the area it stands for, so the loss stays the mean over the domain. Unweighted, it pays the
    network to move the shock to where points are few; spread evenly, too few of them see it.
    """
    from scipy.stats import qmc

    t, v = (qmc.Sobol(2, seed=0).random(count) * [1, 2] - [0, 1]).T
    weights = 0.1 + 4.5 * v**4  # of x = 0.1 v + 0.9 v^5
    return np.stack([t, 0.1 * v + 0.9 * v**5], 1), weights / weights.mean()


def _relative_error(model: BurgersNetwork) -> float:
    """Relative L2 error on the benchmark's grid of 100 times and 256 places."""
    t, x = (g.ravel() for g in np.meshgrid(np.arange(100) / 100, np.linspace(-1, 1, 256), indexing="ij"))
    exact = burgers_solution(t, x)
    ours = np.asarray(model(tf.constant(np.stack([t, x], 1), model.dtype)))[:, 0]
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


class _Race:
    """A network trained by Adam and then, perhaps, by L-BFGS: error over CPU seconds."""

    def __init__(self, number: str, points: np.ndarray, weights: np.ndarray, width: int):
        before = keras.config.floatx(), keras.config.dtype_policy()
        keras.config.set_floatx(number)
        keras.config.set_dtype_policy(number)
        try:
            keras.utils.set_random_seed(0)
            self.model = BurgersNetwork(width, 4)
            self.data = tf.constant(points, number), tf.zeros((len(points), 1), number), tf.constant(weights, number)
            self.model(self.data[0][:1])
            self.model.compile(keras.optimizers.Adam(2e-3), steps_per_execution=50, jit_compile=False)
        finally:
            keras.config.set_floatx(before[0])
            keras.config.set_dtype_policy(before[1])
        self.number = number
        self.spent: list[float] = []
        self.errors: list[float] = []
        self._began = _cpu()

    @property
    def seconds(self) -> float:
        return self.spent[-1]

    def _look(self, text: str) -> None:
        now = _cpu()
        self.spent.append((self.spent[-1] if self.spent else 0.0) + now - self._began)
        self.errors.append(_relative_error(self.model))
        print(f"  {self.number} {text}: {self.spent[-1]:.0f} s, {self.errors[-1]:.2e}", file=sys.stderr, flush=True)
        self._began = _cpu()

    def adam(self, steps: int, seconds: float = float("inf"), every: int = 250) -> "_Race":
        data = tf.data.Dataset.from_tensors(self.data).repeat()
        self._began = _cpu()
        done = 0
        while done < steps and (not self.spent or self.seconds < seconds):
            self.model.fit(data, steps_per_epoch=every, epochs=1, verbose=0, shuffle=False)
            done += every
            self._look(f"Adam {done}")
        return self

    def lbfgs(self, iterations: int) -> optimizers.MinimizeResult:
        self._began = _cpu()
        return optimizers.minimize(
            self.model,
            self.data,
            max_iterations=iterations,
            tolerance=1e-9,
            memory=300,
            callback=lambda step, value: self._look(f"L-BFGS {step}, loss {value:.2e}"),
            callback_every=250,
        )


def burgers(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """nu = 0.01 / pi, t in 0-1: Adam then L-BFGS in float64 and in float32, and Adam alone for as many CPU seconds."""
    from kerasmodels.data import plots

    points, width = _points(256 if quick else 2048), 10 if quick else 20
    first, then = (50, 20) if quick else (500, 5000)
    double = _Race("float64", *points, width)
    result = double.adam(first, every=first).lbfgs(then)
    alone = _Race("float64", *points, width).adam(10**9, seconds=double.seconds, every=first)
    single = _Race("float32", *points, width)
    in_single = single.adam(first, every=first).lbfgs(then)
    lines = {
        name: (np.array(race.spent), np.array(race.errors))
        for name, race in (("Adam, L-BFGS: float64", double), ("Adam, L-BFGS: float32", single), ("Adam", alone))
    }
    picture = plots.curves(lines, "CPU seconds", "relative L2 error", logarithmic=("y",))
    write_image(figures / "optimization_burgers.png", picture)
    return [
        Claim(
            "burgers_float64",
            f"Burgers equation, {len(points[0])} points, 4 hidden layers of {width}, Adam then L-BFGS in float64: "
            f"relative L2 error ({result.evaluations} evaluations by L-BFGS; {result.reason})",
            "5e-4 to 1e-3 (Raissi et al. 2019, 10,000 points)",
            double.errors[-1],
            at_most=1e-3,
        ),
        Claim(
            "burgers_float32",
            f"the same in float32 ({in_single.evaluations} evaluations by L-BFGS; {in_single.reason})",
            "not given",
            single.errors[-1],
        ),
        Claim(
            "burgers_adam",
            "the same by Adam alone, in float64, for as many CPU seconds as Adam and L-BFGS took",
            "not given",
            alone.errors[-1],
        ),
        Claim("burgers_seconds", "CPU seconds of Adam and L-BFGS in float64", "not given", round(double.seconds, 1)),
        Claim(
            "burgers_gain",
            "error of Adam alone over that of Adam and L-BFGS, at equal time",
            "L-BFGS is needed",
            alone.errors[-1] / double.errors[-1],
            at_least=2.0,
        ),
    ]


EXPERIMENTS = {
    "theory": Experiment("quadratic functions: the number of steps that theory says", theory),
    "bounds": Experiment("L-BFGS-B beside SciPy's, on ten problems", bounds),
    "overhead": Experiment("what L-BFGS costs besides gradients, at a million weights", overhead),
    "burgers": Experiment("a network for the Burgers equation: Adam, and then L-BFGS", burgers),
}
