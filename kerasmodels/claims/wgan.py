"""The claims of `wgan`: points on lines and in the plane, where every distance is known, and small networks for them.

Every critic and generator here is trained by `WGAN.train_step`: points p are handed to it as "pictures" 127.5 (1 + p).
"""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasmodels.claims.evidence import circle, perceptron, trained
from kerasmodels.data import write_image
from kerasmodels.family import Claim, Experiment
from kerasmodels.losses.adversarial import STANDARD
from kerasmodels.metrics import covered_modes, mixture_log_likelihood, wasserstein
from kerasmodels.models.wgan import WGAN, Config

Sampler = Callable[[int, np.random.Generator], np.ndarray]
"""(count, random) -> (count, 2) points."""


# --- two parallel lines -----------------------------------------------------------------------------------------------


def lines(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Example 1 and figure 1: P_0 = (0, Z), P_theta = (theta, Z), Z uniform in 0-1."""
    from kerasmodels.data import plots

    shifts = np.linspace(-1, 1, 9 if quick else 41)
    heights = (np.arange(200) + 0.5) / 200
    still = np.stack([np.zeros_like(heights), heights], axis=1)
    moved = [still + np.array([shift, 0.0]) for shift in shifts]
    exact = np.array([wasserstein(points, still) for points in moved])
    others = np.array([_divergences(still, points) for points in moved])
    known = np.where(np.abs(shifts) < 1e-12, 0.0, 1.0)
    off = float(np.abs(exact - np.abs(shifts)).max())
    off_others = float(np.abs(others - np.stack([known * np.log(2), known], axis=1)).max())

    critics = {}
    for shift in (-1.0, -0.5, 0.5, 1.0):
        critics[shift] = _critic_of(_vertical_line, _line_at(shift), 100 if quick else 600, lipschitz="penalty")
    # The slope of the estimate E f(P_0) - E f(P_theta) at theta is -E of df/dx on the line.
    slopes = {shift: -_mean_slope(critic, shift) for shift, (critic, _) in critics.items()}
    right = sum(np.sign(slope) == np.sign(shift) for shift, slope in slopes.items())
    estimates = {shift: estimate for shift, (_, estimate) in critics.items()}
    distances = {
        "earth mover": (shifts, exact),
        "Jensen-Shannon": (shifts, others[:, 0]),
        "variation": (shifts, others[:, 1]),
    }
    write_image(figures / "wgan_lines.png", plots.curves(distances, "theta", points={"critic": estimates}))
    return [
        Claim(
            "lines_distance",
            "parallel lines: W against |theta|, largest difference",
            "equal (example 1)",
            off,
            at_most=1e-9,
        ),
        Claim(
            "lines_divergences",
            "parallel lines: JS against log 2 and TV against 1 (0 at theta = 0), largest difference; KL is infinite",
            "equal (example 1)",
            off_others,
            at_most=1e-9,
        ),
        Claim(
            "lines_slopes",
            "parallel lines: slopes of the critic's estimate at theta = -1, -0.5, 0.5, 1 that have the sign of theta "
            f"({', '.join(f'{slope:.2f}' for slope in slopes.values())})",
            "a usable gradient everywhere",
            float(right),
            equals=4,
        ),
    ]


def _vertical_line(count: int, random: np.random.Generator) -> np.ndarray:
    return np.stack([np.zeros(count), random.uniform(size=count)], 1)


def _line_at(shift: float) -> Callable[[Any], Any]:
    """(N, 2) standard normal numbers -> points (shift, uniform in 0-1)."""
    return lambda z: ops.stack([shift + 0.0 * z[:, 0], 0.5 + 0.5 * ops.erf(z[:, 1] / 2**0.5)], axis=1)


def _divergences(a: np.ndarray, b: np.ndarray) -> tuple[float, float]:
    """Jensen-Shannon divergence (nats) and total variation of two samples, as distributions on their points."""
    places, where = np.unique(np.concatenate([a, b]), axis=0, return_inverse=True)
    p = np.bincount(where[: len(a)], minlength=len(places)) / len(a)
    q = np.bincount(where[len(a) :], minlength=len(places)) / len(b)
    middle = (p + q) / 2

    def divergence(x: np.ndarray) -> float:
        some = x > 0
        return float((x[some] * np.log(x[some] / middle[some])).sum())

    return (divergence(p) + divergence(q)) / 2, float(np.abs(p - q).sum() / 2)


def _mean_slope(critic: keras.Model, shift: float) -> float:
    points = tf.constant(np.stack([np.full(64, shift), (np.arange(64) + 0.5) / 64], 1), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(points)
        scores = tf.reduce_mean(critic(points))
    return float(tf.reduce_sum(tape.gradient(scores, points)[:, 0]))


# --- what critics estimate --------------------------------------------------------------------------------------------


def estimates(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Two Gaussians in the plane, a shift apart: the shift is their exact distance."""
    from scipy.stats import spearmanr

    def gaussian(count: int, random: np.random.Generator) -> np.ndarray:
        return random.standard_normal((count, 2))

    steps = 200 if quick else 2000
    critic, estimate = _critic_of(gaussian, _shifted(2.0), steps, lipschitz="penalty")
    # The best slope s of s W - lambda (s - 1)^2 is 1 + W / (2 lambda): the distance is the estimate over the slope.
    random = np.random.default_rng(1)
    slope = _mean_length(critic, gaussian(4096, random), gaussian(4096, random) + np.array([2.0, 0.0]))
    off = abs(estimate / slope / 2.0 - 1)
    shifts = np.linspace(0.25, 4, 4 if quick else 8)
    clipped = [_critic_of(gaussian, _shifted(s), steps // 4, clip=0.05, learning_rate=1e-3)[1] for s in shifts]
    order = float(spearmanr(shifts, clipped).statistic)
    return [
        Claim(
            "estimate_over_slope",
            f"Gaussians 2 apart: a penalized critic's estimate over its slope, relative error ({steps} updates)",
            "an estimate of the distance",
            round(off, 4),
            at_most=0.05,
        ),
        Claim(
            "estimate_alone",
            "Gaussians 2 apart: the estimate as it is, relative error (the penalty leaves W / 20 = 0.1)",
            "not given",
            round(abs(estimate / 2.0 - 1), 4),
        ),
        Claim(
            "estimate_rank_correlation",
            f"{len(shifts)} shifts: rank correlation of a clipped critic's estimate with the distance",
            "proportional to it (section 3)",
            round(order, 4),
            at_least=0.95,
        ),
    ]


def _shifted(shift: float) -> Callable[[Any], Any]:
    """(N, 2) standard normal numbers -> the same, moved to the right."""
    return lambda z: z + np.array([[shift, 0.0]], "float32")


def _critic_of(
    real: Sampler, generated: Callable[[Any], Any], steps: int, learning_rate: float = 1e-3, **fields: Any
) -> tuple[keras.Model, float]:
    """A critic trained against a generator without weights, and its estimate on 4,096 fresh points of each."""
    keras.utils.set_random_seed(0)
    latent = keras.Input((2,))
    model = WGAN(
        Config(network="mlp", latent=2, batch=256, learning_rate=learning_rate, critic_steps=steps, **fields),
        generator=keras.Model(latent, generated(latent)),
        critic=perceptron(2, 1, 128),
    )
    model.compile()
    # All updates of the critic in one step; there is no weight that the generator's own could move.
    trained(model, _stacks(real, 256, lambda step: steps), 1)
    random = np.random.default_rng(1)
    fresh = real(4096, random), model.generator.predict(random.standard_normal((4096, 2)).astype("float32"), verbose=0)
    scores = [model.critic.predict(points.astype("float32"), verbose=0).mean() for points in fresh]
    return model.critic, float(scores[0] - scores[1])


def _stacks(real: Sampler, batch: int, updates: Callable[[int], int]) -> tf.data.Dataset:
    """Endless stacks (updates, batch, 2) for `WGAN.fit`; `updates` is of the step's number, from 0 on."""

    def stacks() -> Iterator[np.ndarray]:
        random, step = np.random.default_rng(0), 0
        while True:
            count = updates(step)
            yield (127.5 + 127.5 * real(count * batch, random)).reshape(count, batch, 2).astype("float32")
            step += 1

    return tf.data.Dataset.from_generator(stacks, output_signature=tf.TensorSpec((None, batch, 2), tf.float32))


def _mean_length(critic: keras.Model, real: np.ndarray, fake: np.ndarray) -> float:
    """The mean length of the critic's gradient between points of one sample and of the other."""
    mix = np.random.default_rng(1).uniform(size=(len(real), 1))
    between = tf.constant(mix * real + (1 - mix) * fake, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = tf.reduce_sum(critic(between))
    return float(tf.reduce_mean(tf.norm(tape.gradient(scores, between), axis=1)))


# --- eight Gaussians --------------------------------------------------------------------------------------------------

CENTERS = circle(8)
DEVIATION = 0.02


def eight_gaussians(count: int, random: np.random.Generator) -> np.ndarray:
    """Points of eight Gaussians on a circle of radius 2."""
    return CENTERS[random.integers(8, size=count)] + DEVIATION * random.standard_normal((count, 2))


class _GAN(WGAN):
    """A standard GAN of the same networks: `WGAN`'s step with Goodfellow's losses, and nothing that keeps a slope."""

    adversarial = STANDARD


def gaussians(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The second paper's toy (figure 1 there): its networks, batch, learning rate and penalty; fewer steps."""
    from kerasmodels.data import plots

    steps = 150 if quick else 5000
    ours = _Watch(max(1, steps // 60))
    # A critic of several steps is trained to its best before the generator begins to move, as in the authors' code.
    fitted = [
        _fitted(WGAN, steps, lambda step: 100 if step < 25 else 5, 0.1, [ours]),
        _fitted(_GAN, steps, lambda step: 1, 0.0),
    ]
    random = np.random.default_rng(1)
    given = random.standard_normal((2000, 2)).astype("float32")
    samples = [model.generator.predict(given, verbose=0) for model in fitted]
    (found, near), (others, near_others) = (covered_modes(points, CENTERS, 0.3, least=20) for points in samples)
    likelihoods = [
        float(np.median(mixture_log_likelihood(points, CENTERS, DEVIATION)))
        for points in (eight_gaussians(2000, random), samples[0])
    ]
    correlation = float(np.corrcoef(ours.estimates, ours.distances)[0, 1])
    panels = {"WGAN": [samples[0]], "standard GAN": [samples[1]]}
    write_image(figures / "wgan_gaussians.png", plots.scatter(panels, CENTERS, 0.3, 2.8))
    places = np.linspace(0, steps, len(ours.estimates) + 1)[1:]
    estimated = {"critic's estimate": (places, np.array(ours.estimates)), "exact": (places, np.array(ours.distances))}
    write_image(figures / "wgan_gaussians_curve.png", plots.curves(estimated, "updates of the generator"))
    return [
        Claim(
            "gaussians_modes",
            f"8 Gaussians after {steps} steps: modes with at least 20 of 2,000 samples",
            "8",
            float(found),
            equals=8,
        ),
        Claim(
            "gaussians_near",
            "8 Gaussians: part of the samples within 0.3 of a mode",
            "not given",
            round(near, 4),
            at_least=0.9,
        ),
        Claim(
            "gaussians_modes_of_gan",
            "8 Gaussians: modes found by a standard GAN of the same networks",
            "collapses",
            float(others),
        ),
        Claim(
            "gaussians_near_of_gan",
            "8 Gaussians: part of that GAN's samples within 0.3 of a mode",
            "not given",
            round(near_others, 4),
        ),
        Claim(
            "gaussians_log_likelihood",
            f"8 Gaussians: median log-likelihood of samples, nats (of the mixture's own: {likelihoods[0]:.2f})",
            "not given",
            round(likelihoods[1], 4),
        ),
        Claim(
            "gaussians_correlation",
            "8 Gaussians: correlation of the critic's estimate over its slope with the exact distance",
            "a loss that correlates with quality (figure 3)",
            round(correlation, 4),
            at_least=0.9,
        ),
    ]


def _fitted(
    kind: type[WGAN],
    steps: int,
    updates: Callable[[int], int],
    penalty: float,
    callbacks: Sequence[keras.callbacks.Callback] = (),
) -> WGAN:
    keras.utils.set_random_seed(0)
    config = Config(
        network="mlp", latent=2, batch=256, learning_rate=1e-4, lipschitz="penalty", penalty_weight=penalty, steps=steps
    )
    model = kind(config, generator=perceptron(2, 2, 512), critic=perceptron(2, 1, 512))
    model.compile()
    return trained(model, _stacks(eight_gaussians, 256, updates), steps, callbacks=list(callbacks))


class _Watch(keras.callbacks.Callback):
    """The critic's estimate over its slope, and the exact distance of the same points, every few steps."""

    def __init__(self, every: int):
        super().__init__()
        self.every, self.random = every, np.random.default_rng(2)
        self.estimates: list[float] = []
        self.distances: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        if (batch + 1) % self.every:
            return
        real = eight_gaussians(1024, self.random).astype("float32")
        fake = np.asarray(self.model.generator(self.random.standard_normal((1024, 2)).astype("float32")))
        apart = float(np.mean(self.model.critic(real)) - np.mean(self.model.critic(fake)))
        self.estimates.append(apart / _mean_length(self.model.critic, real, fake))
        self.distances.append(wasserstein(real, fake))


EXPERIMENTS = {
    "lines": Experiment("two parallel lines: the distance with a slope, and those without", lines),
    "estimates": Experiment("what a critic estimates, beside the exact distance", estimates),
    "gaussians": Experiment("eight Gaussians: modes found, and a loss that tells", gaussians),
}
