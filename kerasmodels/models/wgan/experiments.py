"""What `kerasmodels reproduce wgan` measures: points on lines and in the plane, where every distance is known."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from kerasmodels.data import write_image
from kerasmodels.data.plots import COLOURS, plot
from kerasmodels.family import Row
from kerasmodels.losses.adversarial import STANDARD, WASSERSTEIN, Game, clip_weights, gradient_penalty
from kerasmodels.metrics import covered_modes, wasserstein

Sampler = Callable[[int, np.random.Generator], np.ndarray]
"""(count, random) -> (count, 2) float32 points."""


# --- two parallel lines -----------------------------------------------------------------------------------------------


def lines(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Example 1 and figure 1: P_0 = (0, Z), P_theta = (theta, Z), Z uniform in 0-1."""
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
    steps = 100 if quick else 600
    for shift in (-1.0, -0.5, 0.5, 1.0):

        def real(count: int, random: np.random.Generator) -> np.ndarray:
            return np.stack([np.zeros(count), random.uniform(size=count)], 1)

        def made(count: int, random: np.random.Generator, shift: float = shift) -> np.ndarray:
            return np.stack([np.full(count, shift), random.uniform(size=count)], 1)

        critics[shift] = _trained_critic(real, made, steps, penalty=10.0)
    # The slope of the estimate E f(P_0) - E f(P_theta) at theta is -E of df/dx on the line.
    slopes = {shift: -_mean_slope(critic, shift) for shift, (critic, _) in critics.items()}
    right = all(np.sign(slope) == np.sign(shift) for shift, slope in slopes.items())
    estimates = {shift: estimate for shift, (_, estimate) in critics.items()}
    curves = {
        "earth mover": (shifts, exact),
        "Jensen-Shannon": (shifts, others[:, 0]),
        "variation": (shifts, others[:, 1]),
    }
    write_image(figures / "wgan_lines.png", plot(curves, {"critic": estimates}, "theta"))
    return [
        Row("parallel lines: W against |theta|, largest difference", "equal (example 1)", off, "<= 1e-9", off <= 1e-9),
        Row(
            "parallel lines: JS against log 2 and TV against 1 (0 at theta = 0), largest difference; KL is infinite",
            "equal (example 1)",
            off_others,
            "<= 1e-9",
            off_others <= 1e-9,
        ),
        Row(
            "parallel lines: slope of the critic's estimate at theta = -1, -0.5, 0.5, 1",
            "a usable gradient everywhere",
            ", ".join(f"{slope:.2f}" for slope in slopes.values()),
            "signs -, -, +, +",
            right,
        ),
    ]


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


def estimates(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Two Gaussians in the plane, a shift apart: the shift is their exact distance."""
    from scipy.stats import spearmanr

    def gaussian(shift: float) -> Sampler:
        return lambda count, random: random.standard_normal((count, 2)) + np.array([shift, 0.0])

    steps = 200 if quick else 2000
    critic, estimate = _trained_critic(gaussian(0.0), gaussian(2.0), steps, penalty=10.0)
    # The best slope s of s W - lambda (s - 1)^2 is 1 + W / (2 lambda): the distance is the estimate over the slope.
    random = np.random.default_rng(1)
    slope = _mean_length(critic, gaussian(0.0)(4096, random), gaussian(2.0)(4096, random))
    off = abs(estimate / slope / 2.0 - 1)
    shifts = np.linspace(0.25, 4, 4 if quick else 8)
    clipped = [_trained_critic(gaussian(0.0), gaussian(s), steps // 4, clip=0.05)[1] for s in shifts]
    order = float(spearmanr(shifts, clipped).statistic)
    return [
        Row(
            f"Gaussians 2 apart: a penalised critic's estimate over its slope, relative error ({steps} updates)",
            "an estimate of the distance",
            round(off, 4),
            "<= 0.05",
            off <= 0.05,
        ),
        Row(
            "Gaussians 2 apart: the estimate as it is, relative error (the penalty leaves W / 20 = 0.1)",
            "not given",
            round(abs(estimate / 2.0 - 1), 4),
            "for comparison",
            True,
        ),
        Row(
            f"{len(shifts)} shifts: rank correlation of a clipped critic's estimate with the distance",
            "proportional to it (section 3)",
            round(order, 4),
            ">= 0.95",
            order >= 0.95,
        ),
    ]


def _trained_critic(
    real: Sampler, made: Sampler, steps: int, penalty: float | None = None, clip: float = 0.05, batch: int = 256
) -> tuple[keras.Model, float]:
    """A critic of two fixed samples, and its estimate on 4,096 fresh points of each."""
    keras.utils.set_random_seed(0)
    critic = _perceptron(2, 1, 128)
    optimizer = keras.optimizers.Adam(1e-3, 0.5, 0.9) if penalty is not None else keras.optimizers.RMSprop(1e-3)
    update = _critic_update(critic, optimizer, WASSERSTEIN, penalty, None if penalty is not None else clip)
    random = np.random.default_rng(0)
    for _ in range(steps):
        update(*(tf.constant(sample(batch, random), tf.float32) for sample in (real, made)), _mix(random, batch))
    fresh = [critic.predict(sample(4096, random).astype("float32"), verbose=0) for sample in (real, made)]
    return critic, float(fresh[0].mean() - fresh[1].mean())


def _mean_length(critic: keras.Model, real: np.ndarray, made: np.ndarray) -> float:
    """The mean length of the critic's gradient between points of one sample and of the other."""
    mix = np.random.default_rng(1).uniform(size=(len(real), 1))
    between = tf.constant(mix * real + (1 - mix) * made, tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = tf.reduce_sum(critic(between))
    return float(tf.reduce_mean(tf.norm(tape.gradient(scores, between), axis=1)))


# --- eight Gaussians --------------------------------------------------------------------------------------------------

CENTRES = 2.0 * np.stack([np.cos(np.arange(8) * np.pi / 4), np.sin(np.arange(8) * np.pi / 4)], axis=1)


def eight_gaussians(count: int, random: np.random.Generator) -> np.ndarray:
    """Points of eight Gaussians, deviation 0.02, on a circle of radius 2."""
    return CENTRES[random.integers(8, size=count)] + 0.02 * random.standard_normal((count, 2))


@dataclass(frozen=True)
class _Played:
    points: np.ndarray
    estimates: list[float]
    distances: list[float]
    seconds: float


def gaussians(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """The second paper's toy (figure 1 there): its networks, batch, learning rate and penalty; fewer steps."""
    steps = 150 if quick else 5000
    played = {
        "WGAN, gradient penalty": _play(WASSERSTEIN, steps, penalty=0.1),
        "GAN": _play(STANDARD, steps, critic_steps=1),
    }
    modes = {name: covered_modes(game.points, CENTRES, 0.3, least=20) for name, game in played.items()}
    ours = played["WGAN, gradient penalty"]
    correlation = float(np.corrcoef(ours.estimates, ours.distances)[0, 1])
    write_image(figures / "wgan_gaussians.png", _scatter([game.points for game in played.values()]))
    places = np.linspace(0, steps, len(ours.estimates) + 1)[1:]
    curves = {"critic's estimate": (places, np.array(ours.estimates)), "exact": (places, np.array(ours.distances))}
    write_image(figures / "wgan_gaussians_curve.png", plot(curves, {}, "updates of the generator"))
    (found, near), (others, near_others) = modes.values()
    return [
        Row(f"8 Gaussians after {steps} steps: modes with at least 20 of 2,000 samples", "8", found, "8", found == 8),
        Row(
            "8 Gaussians: part of the samples within 0.3 of a mode", "not given", round(near, 4), ">= 0.9", near >= 0.9
        ),
        Row(
            "8 Gaussians: the same with a standard GAN of the same networks, modes and part",
            "collapses",
            f"{others}, {near_others:.3f}",
            "for comparison",
            True,
        ),
        Row(
            "8 Gaussians: correlation of the critic's estimate over its slope with the exact distance",
            "a loss that correlates with quality (figure 3)",
            round(correlation, 4),
            ">= 0.9",
            correlation >= 0.9,
        ),
        Row("8 Gaussians: seconds", "not given", round(ours.seconds, 1), "<= 600", ours.seconds <= 600),
    ]


def _play(game: Game, steps: int, penalty: float | None = None, critic_steps: int = 5, batch: int = 256) -> _Played:
    keras.utils.set_random_seed(0)
    generator, critic = _perceptron(2, 2, 512), _perceptron(2, 1, 512)
    rules = [keras.optimizers.Adam(1e-4, 0.5, 0.9) for _ in range(2)]
    improve_critic = _critic_update(critic, rules[0], game, penalty, None)

    @tf.function(autograph=False)
    def improve(latent: tf.Tensor) -> None:
        with tf.GradientTape() as tape:
            loss = game.generator(critic(generator(latent)))
        variables = generator.trainable_variables
        rules[1].apply(tape.gradient(loss, variables), variables)

    made = tf.function(lambda latent: generator(latent), autograph=False)
    random, begin, spent = np.random.default_rng(0), time.perf_counter(), 0.0
    rules[1].build(generator.trainable_variables)
    estimates, distances = [], []

    def latent() -> tf.Tensor:
        return tf.constant(random.standard_normal((batch, 2)), tf.float32)

    for step in range(1, steps + 1):
        # A critic of several steps is trained to its best before the generator begins to move, as in the authors' code.
        first = critic_steps > 1 and step <= 25
        for _ in range(100 if first else critic_steps):
            real = tf.constant(eight_gaussians(batch, random), tf.float32)
            improve_critic(real, made(latent()), _mix(random, batch))
        if step % max(1, steps // 60) == 0:
            # Before the generator moves on, both measured on the same points.
            paused = time.perf_counter()
            real_points = eight_gaussians(4 * batch, random).astype("float32")
            made_points = np.concatenate([made(latent()).numpy() for _ in range(4)])
            apart = float(np.mean(critic(real_points)) - np.mean(critic(made_points)))
            estimates.append(apart / _mean_length(critic, real_points, made_points))
            distances.append(wasserstein(real_points, made_points))
            spent += time.perf_counter() - paused
        improve(latent())
    seconds = time.perf_counter() - begin - spent
    points = generator.predict(random.standard_normal((2000, 2)).astype("float32"), verbose=0)
    return _Played(points, estimates, distances, seconds)


# --- shared -----------------------------------------------------------------------------------------------------------


def _perceptron(inputs: int, outputs: int, width: int) -> keras.Model:
    hidden = [keras.layers.Dense(width, "relu", kernel_initializer="he_normal") for _ in range(3)]
    return keras.Sequential([keras.Input((inputs,)), *hidden, keras.layers.Dense(outputs)])


def _mix(random: np.random.Generator, count: int) -> tf.Tensor:
    return tf.constant(random.uniform(size=count), tf.float32)


def _critic_update(
    critic: keras.Model, optimizer: keras.optimizers.Optimizer, game: Game, penalty: float | None, clip: float | None
) -> Callable[..., tf.Tensor]:
    """(real, fake, mix) -> minus the loss before the update, without its penalty."""
    optimizer.build(critic.trainable_variables)

    @tf.function(autograph=False)
    def update(real: tf.Tensor, fake: tf.Tensor, mix: tf.Tensor) -> tf.Tensor:
        with tf.GradientTape() as tape:
            loss = plain = game.judge(critic(real), critic(fake))
            if penalty is not None:
                loss += penalty * gradient_penalty(critic, real, fake, mix)
        variables = critic.trainable_variables
        optimizer.apply(tape.gradient(loss, variables), variables)
        if clip is not None:
            clip_weights(variables, clip)
        return -plain

    return update


def _scatter(samples: Sequence[Any]) -> np.ndarray:
    """Samples side by side, the modes as grey rings: (320, 320 each, 3) uint8."""
    image = Image.new("RGB", (320 * len(samples), 320), "white")
    draw = ImageDraw.Draw(image)
    for i, points in enumerate(samples):
        for x, y in CENTRES:
            at = 320 * i + 160 + 55 * x, 160 - 55 * y
            draw.ellipse((at[0] - 16, at[1] - 16, at[0] + 16, at[1] + 16), outline="#999999")
        for x, y in np.clip(points, -2.8, 2.8):
            at = 320 * i + 160 + 55 * x, 160 - 55 * y
            draw.ellipse((at[0] - 1, at[1] - 1, at[0] + 1, at[1] + 1), fill=COLOURS[1])
    return np.asarray(image)
