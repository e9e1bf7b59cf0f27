"""The claims of `optimization`: the methods beside theory and SciPy, and a network for the Burgers equation."""

import resource
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels import optimizers
from kerasmodels.data import write_image
from kerasmodels.family import Claim, Experiment

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
        (N, 2), columns t and x -> (N, 1). The loss is the mean squared residual of the equation at the points given.

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

    def compute_loss(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        return _mean_residual(self, x)


@tf.function(autograph=False, jit_compile=True)
def _mean_residual(model: BurgersNetwork, points: tf.Tensor) -> tf.Tensor:
    """The derivatives in x and t go forward through the network with the values: tanh and Dense are all there is."""
    zero = tf.zeros_like(points[:, :1])
    d_t, d_x = tf.concat([zero + 1, zero], 1), tf.concat([zero, zero + 1], 1)
    h = tf.stack([points, d_t, d_x, tf.zeros_like(points)])
    *hidden, last = model.network.layers
    for layer in hidden:
        z = tf.einsum("kni,io->kno", h, layer.kernel.value)
        a = tf.tanh(z[0] + layer.bias.value)
        slope = 1 - a * a
        h = tf.stack([a, slope * z[1], slope * z[2], slope * z[3] - 2 * a * slope * z[2] ** 2])
    z = tf.einsum("kni,io->kno", h, last.kernel.value)[..., 0]
    n, n_t, n_x, n_xx = z[0] + last.bias.value[0], z[1], z[2], z[3]
    t, x = points[:, 0], points[:, 1]
    wall, wave, pi = t * (1 - x * x), tf.sin(np.pi * x), np.pi
    u = wall * n - wave
    u_t = (1 - x * x) * n + wall * n_t
    u_x = wall * n_x - 2 * t * x * n - pi * tf.cos(pi * x)
    u_xx = wall * n_xx - 4 * t * x * n_x - 2 * t * n + pi * pi * wave
    return tf.reduce_mean((u_t + u * u_x - VISCOSITY * u_xx) ** 2)


def _points(count: int) -> np.ndarray:
    """Sobol points (count, 2) of t in 0-1 and x in -1..1; every second one near the shock, |x| < 0.1."""
    from scipy.stats import qmc

    points = qmc.Sobol(2, seed=0).random(count) * [1, 2] - [0, 1]
    points[::2, 1] *= 0.1
    return points


def _relative_error(model: BurgersNetwork) -> float:
    """Relative L2 error on the benchmark's grid of 100 times and 256 places."""
    t, x = (g.ravel() for g in np.meshgrid(np.arange(100) / 100, np.linspace(-1, 1, 256), indexing="ij"))
    exact = burgers_solution(t, x)
    ours = np.asarray(model(tf.constant(np.stack([t, x], 1), model.dtype)))[:, 0]
    return float(np.linalg.norm(ours - exact) / np.linalg.norm(exact))


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


class _Race:
    """A network trained by Adam and then, perhaps, by L-BFGS: error over CPU seconds."""

    def __init__(self, number: str, points: np.ndarray):
        before = keras.config.floatx()
        keras.config.set_floatx(number)
        try:
            keras.utils.set_random_seed(0)
            self.model = BurgersNetwork(20, 4)
            self.points = tf.constant(points, number)
            self.model(self.points[:1])
            self.model.compile(keras.optimizers.Adam(1e-3), loss=None)
        finally:
            keras.config.set_floatx(before)
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
        data = tf.data.Dataset.from_tensors((self.points, self.points[:, :1])).repeat()
        self._began = _cpu()
        done = 0
        while done < steps and (not self.spent or self.seconds < seconds):
            self.model.fit(data, steps_per_epoch=every, epochs=1, verbose=0)
            done += every
            self._look(f"Adam {done}")
        return self

    def lbfgs(self, iterations: int) -> optimizers.MinimizeResult:
        self._began = _cpu()
        return optimizers.minimize(
            self.model,
            (self.points, self.points[:, :1]),
            max_iterations=iterations,
            tolerance=1e-9,
            memory=50,
            callback=lambda step, value: self._look(f"L-BFGS {step}, loss {value:.2e}"),
            callback_every=200,
        )


def burgers(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """nu = 0.01 / pi, t in 0-1: Adam then L-BFGS in float64 and in float32, and Adam alone for as many CPU seconds."""
    from kerasmodels.data import plots

    points = _points(256 if quick else 4096)
    first, then = (50, 20) if quick else (500, 3000)
    double, single = _Race("float64", points), _Race("float32", points)
    result = double.adam(first, every=first).lbfgs(then)
    in_single = single.adam(first, every=first).lbfgs(then)
    alone = _Race("float64", points).adam(10**9, seconds=double.seconds, every=first)
    lines = {
        name: (np.array(race.spent), np.array(race.errors))
        for name, race in (("Adam, L-BFGS: float64", double), ("Adam, L-BFGS: float32", single), ("Adam", alone))
    }
    picture = plots.curves(lines, "CPU seconds", "relative L2 error", logarithmic=("y",))
    write_image(figures / "optimization_burgers.png", picture)
    return [
        Claim(
            "burgers_float64",
            f"Burgers equation, {len(points)} points, 4 hidden layers of 20, Adam then L-BFGS in float64: relative L2 "
            f"error ({result.evaluations} evaluations by L-BFGS; {result.reason})",
            "6.7e-4 (Raissi et al., 10,000 points, 9 layers of 20)",
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
    "burgers": Experiment("a network for the Burgers equation: Adam, and then L-BFGS", burgers),
}
