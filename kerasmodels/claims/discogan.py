"""The claims of `discogan`: points of five modes that are to become points of ten.

Every network here is trained by `DiscoGAN.train_step`, whose config says which of the paper's three objectives is
minimized: points p are handed to it as "pictures" 255 p, which it scales back.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.claims.evidence import circle, perceptron, trained
from kerasmodels.data import write_image
from kerasmodels.data.streams import numbered
from kerasmodels.family import Claim, Experiment
from kerasmodels.metrics import covered_modes, mixture_log_likelihood
from kerasmodels.models.discogan import Config, DiscoGAN
from kerasmodels.translator import DIRECTIONS

SEEDS = 5
DEVIATION = 0.1
Arm = Literal["gan", "recongan", "discogan"]
ARMS: dict[Arm, tuple[str, str]] = {
    "gan": ("GAN", "collapses"),
    "recongan": ("GAN with reconstruction", "collapses"),
    "discogan": ("DiscoGAN", "neither"),
}
"""Objective -> its name, and what the paper says of it."""


CENTERS_A, CENTERS_B = circle(5) - 2.0, circle(10) + 2.0


def mixture(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 3.1 and figure 3: the paper's three losses, A of 5 modes, B of 10; networks of 3 hidden layers of 128."""
    from kerasmodels.data import plots

    steps, seeds = (40, 1) if quick else (8000, SEEDS)
    found = {arm: [evaluated(_trained(arm, steps, seed), seed) for seed in range(seeds)] for arm in ARMS}
    panels = {
        # Points of A and their translations, by the mode of A.
        f"{ARMS[arm][0]}, modes: {of[0].modes}": np.concatenate(
            [of[0].points.reshape(5, -1, 2), of[0].translated.reshape(5, -1, 2)], axis=1
        )
        for arm, of in found.items()
    }
    centers = np.concatenate([CENTERS_A, CENTERS_B])
    write_image(figures / "discogan_mixture.png", plots.scatter(panels, centers, 3 * DEVIATION, 5.0))
    ours, alone = found["discogan"], found["gan"]
    own = CENTERS_B[np.arange(2000) % 10] + DEVIATION * np.random.default_rng(0).standard_normal((2000, 2))
    expected = float(np.median(mixture_log_likelihood(own, CENTERS_B, DEVIATION)))

    def listed(arm: Arm) -> str:
        return ", ".join(f"{each.modes} and {each.distinct} ({100 * each.near:.0f} %)" for each in found[arm])

    return [
        Claim(
            "modes",
            f"{seeds} seeds, {steps} steps: modes of B with at least 1 % of DiscoGAN's translations of A, the fewest",
            "10 of 10 (figure 3)",
            float(min(each.modes for each in ours)),
            at_least=9,
        ),
        Claim(
            "distinct_modes",
            "modes of B where most of a mode of A goes, the fewest of all seeds: 5, or two have collapsed into one",
            "5 (figure 3)",
            float(min(each.distinct for each in ours)),
            equals=5,
        ),
        Claim(
            "modes_of_gan",
            "modes of B that a plain GAN reaches, median",
            "collapses (figure 3)",
            float(np.median([each.modes for each in alone])),
            at_most=6,
        ),
        Claim(
            "reconstruction",
            "mean squared distance between points of A and their reconstructions, the largest of all seeds",
            "not given",
            round(max(each.reconstruction for each in ours), 5),
            at_most=0.05,
        ),
        *(
            Claim(
                f"{arm}_log_likelihood",
                f"{name}: median log-likelihood of translations under B's mixture, nats, the least of all seeds (of "
                f"the mixture's own points: {expected:.2f})",
                "not given",
                round(min(each.log_likelihood for each in found[arm]), 4),
            )
            for arm, (name, _) in ARMS.items()
        ),
        *(
            Claim(
                f"{arm}_seed_by_seed",
                f"{name}, seed by seed: modes reached, and where most goes (part within 3 deviations of a mode)",
                paper,
                listed(arm),
            )
            for arm, (name, paper) in ARMS.items()
        ),
    ]


@dataclass(frozen=True)
class Evaluated:
    """Points of A by their mode and their translations.

    Attributes:
        points, translated: (2000, 2), 400 of each mode of A after another.
        modes: of B with at least 1 % of the translations.
        near: part of the translations within 3 deviations of a mode.
        distinct: modes of B to which most of a mode of A goes.
        reconstruction: mean squared distance of the reconstructions.
        log_likelihood: median over the translations, under the mixture of B, nats.
    """

    points: np.ndarray
    translated: np.ndarray
    modes: int
    near: float
    distinct: int
    reconstruction: float
    log_likelihood: float


def evaluated(model: DiscoGAN, seed: int) -> Evaluated:
    """What a model makes of fresh points."""
    random = np.random.default_rng(1000 + seed)
    points = np.repeat(CENTERS_A, 400, axis=0) + DEVIATION * random.standard_normal((2000, 2))
    translated = model.a_to_b.predict(points, batch_size=500, verbose=0)
    reconstructed = model.b_to_a.predict(translated, batch_size=500, verbose=0)
    modes, near = covered_modes(translated, CENTERS_B, 3 * DEVIATION, least=len(points) // 100)
    nearest = np.linalg.norm(translated[:, None] - CENTERS_B[None], axis=-1).argmin(1).reshape(5, 400)
    distinct = len({int(np.bincount(of_mode).argmax()) for of_mode in nearest})
    off = float(np.mean((reconstructed - points) ** 2))
    likelihood = float(np.median(mixture_log_likelihood(translated, CENTERS_B, DEVIATION)))
    return Evaluated(points, translated, modes, near, distinct, off, likelihood)


def _trained(arm: Arm, steps: int, seed: int) -> DiscoGAN:
    keras.utils.set_random_seed(seed)
    config = Config(objective=arm, weight_decay=0.0, batch=100, steps=steps, seed=seed)
    networks = {name: perceptron(2, 2, 128) for name in DIRECTIONS}
    networks |= {f"discriminator_{domain}": _discriminator() for domain in "ab"}
    model = DiscoGAN(config, **networks)
    # Networks that go on as fast as they began circle about the modes.
    rate = keras.optimizers.schedules.CosineDecay(2e-3, steps, alpha=0.02)
    optimizers = {group: keras.optimizers.Adam(rate, 0.5, 0.999) for group in model.optimizer_groups()}
    # Many small steps in one call of the graph, which takes longer than they do.
    model.compile(optimizers, steps_per_execution=min(steps, 200))
    return trained(model, _points(config), steps)


def _discriminator() -> keras.Model:
    """Its hidden layers are its features."""
    network = perceptron(2, 1, 128)
    return keras.Model(network.inputs[0], [layer.output for layer in network.layers])


def _points(config: Config) -> tf.data.Dataset:
    """Endless pairs of batches (batch, 2), as "pictures"."""

    def draw(number: int, centers: np.ndarray, step: tf.Tensor) -> tf.Tensor:
        key = tf.stack([tf.constant(config.seed + 7919 * number, tf.int64), step])
        mode = tf.random.stateless_uniform((config.batch,), key, maxval=len(centers), dtype=tf.int32)
        noise = tf.random.stateless_normal((config.batch, 2), key + 1_000_003)
        return 255.0 * (tf.gather(tf.constant(centers, tf.float32), mode) + DEVIATION * noise)

    return numbered(lambda step: (draw(0, CENTERS_A, step), draw(1, CENTERS_B, step)))


EXPERIMENTS = {"mixture": Experiment("five modes become ten: what collapses, and what does not", mixture)}
