"""What `kerasmodels reproduce discogan` measures: points of five modes that are to become points of ten."""

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
from kerasmodels.family import Row
from kerasmodels.losses.adversarial import STANDARD
from kerasmodels.metrics import covered_modes

SEEDS = 5
DEVIATION = 0.1
ARMS = ("GAN", "GAN with reconstruction", "DiscoGAN")


def _circle(count: int, middle: float) -> np.ndarray:
    angles = 2 * np.pi * np.arange(count) / count
    return middle + 2.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


CENTRES_A, CENTRES_B = _circle(5, -2.0), _circle(10, 2.0)


def mixture(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Section 3.1 and figure 3: the paper's three losses, A of 5 modes, B of 10; networks of 3 hidden layers of 128."""
    steps, seeds = (40, 1) if quick else (8000, SEEDS)
    begin = time.process_time()
    found = {arm: [_judged(_trained(arm, steps, seed), seed) for seed in range(seeds)] for arm in ARMS}
    seconds = time.process_time() - begin
    write_image(figures / "discogan_mixture.png", _drawn([of[0] for of in found.values()]))
    ours, alone = found["DiscoGAN"], found["GAN"]
    worst, distinct = min(j.modes for j in ours), min(j.distinct for j in ours)
    middle = float(np.median([j.modes for j in alone]))
    back = max(j.back for j in ours)

    def listed(arm: str) -> str:
        return ", ".join(f"{j.modes} and {j.distinct} ({100 * j.near:.0f} %)" for j in found[arm])

    return [
        Row(
            f"{seeds} seeds, {steps} steps: modes of B with at least 1 % of what DiscoGAN makes of A, the fewest",
            "10 of 10 (figure 3)",
            worst,
            ">= 9 with every seed",
            worst >= 9,
        ),
        Row(
            "modes of B where most of a mode of A goes, the fewest of all seeds: 5, or two have collapsed into one",
            "5 (figure 3)",
            distinct,
            "5 with every seed",
            distinct == 5,
        ),
        Row("modes of B that a plain GAN reaches, median", "collapses (figure 3)", middle, "<= 6", middle <= 6),
        Row("there and back, mean squared distance, the largest", "not given", round(back, 5), "<= 0.05", back <= 0.05),
        *(
            Row(
                f"{arm}, seed by seed: modes reached, and where most goes (part within 3 deviations of a mode)",
                paper,
                listed(arm),
                "for comparison",
                True,
            )
            for arm, paper in zip(ARMS, ("collapses", "collapses", "neither"), strict=True)
        ),
        Row("seconds of one processor for all trainings", "not given", round(seconds, 1), "<= 360", seconds <= 360),
    ]


@dataclass(frozen=True)
class _Judged:
    """Points of A by their mode, what became of them, and how that looks."""

    points: np.ndarray
    made: np.ndarray
    modes: int
    near: float
    distinct: int
    back: float


@dataclass(frozen=True)
class _Pair:
    """Networks from A to B and back."""

    there: keras.Model
    back: keras.Model


def _judged(pair: _Pair, seed: int) -> _Judged:
    random = np.random.default_rng(1000 + seed)
    points = np.repeat(CENTRES_A, 400, axis=0) + DEVIATION * random.standard_normal((2000, 2))
    made = pair.there.predict(points, batch_size=500, verbose=0)
    back = pair.back.predict(made, batch_size=500, verbose=0)
    modes, near = covered_modes(made, CENTRES_B, 3 * DEVIATION, least=len(points) // 100)
    nearest = np.linalg.norm(made[:, None] - CENTRES_B[None], axis=-1).argmin(1).reshape(5, 400)
    distinct = len({int(np.bincount(of_mode).argmax()) for of_mode in nearest})
    return _Judged(points, made, modes, near, distinct, float(np.mean((back - points) ** 2)))


def _perceptron(outputs: int, hidden: int) -> keras.Model:
    layers = [keras.layers.Dense(128, "relu", kernel_initializer="he_normal") for _ in range(hidden)]
    return keras.Sequential([keras.Input((2,)), *layers, keras.layers.Dense(outputs)])


def _trained(arm: str, steps: int, seed: int, batch: int = 100) -> _Pair:
    """The paper's losses of section 2.2, equations 3 to 5 (with reconstruction) or 8 to 10 (DiscoGAN)."""
    keras.utils.set_random_seed(seed)
    pair = _Pair(_perceptron(2, 3), _perceptron(2, 3))
    judge_a, judge_b = _perceptron(1, 3), _perceptron(1, 3)
    generators = pair.there.trainable_variables + (pair.back.trainable_variables if arm != "GAN" else [])
    judges = judge_b.trainable_variables + (judge_a.trainable_variables if arm == "DiscoGAN" else [])
    # Judges and generators that go on as fast as they began circle about the modes.
    ends = keras.optimizers.schedules.CosineDecay(2e-3, steps, alpha=0.02)
    rules = [keras.optimizers.Adam(ends, 0.5, 0.999) for _ in range(2)]
    rules[0].build(generators)
    rules[1].build(judges)

    def distance(x: Any, y: Any) -> Any:
        return tf.reduce_mean(tf.square(x - y))

    def improve(step: tf.Tensor) -> None:
        a, b = (_drawn_points(centres, batch, (seed, i), step) for i, centres in enumerate((CENTRES_A, CENTRES_B)))
        as_a = b
        with tf.GradientTape() as tape:
            as_b = pair.there(a)
            loss = STANDARD.generator(judge_b(as_b))
            if arm != "GAN":
                loss += distance(pair.back(as_b), a)
            if arm == "DiscoGAN":
                as_a = pair.back(b)
                loss += STANDARD.generator(judge_a(as_a)) + distance(pair.there(as_a), b)
        rules[0].apply(tape.gradient(loss, generators), generators)
        with tf.GradientTape() as tape:
            wrong = STANDARD.judge(judge_b(b), judge_b(as_b))
            if arm == "DiscoGAN":
                wrong += STANDARD.judge(judge_a(a), judge_a(as_a))
        rules[1].apply(tape.gradient(wrong, judges), judges)

    _repeat(improve, steps)
    return pair


def _repeat(improve: Callable[[tf.Tensor], None], steps: int) -> None:
    """Small steps inside one graph: calling it for each would take longer than they do."""

    @tf.function(autograph=False)
    def run() -> None:
        def body(step: tf.Tensor) -> tuple[tf.Tensor]:
            improve(step)
            return (step + 1,)

        tf.while_loop(lambda step: step < steps, body, (tf.constant(0),), parallel_iterations=1)

    run()


def _drawn_points(centres: np.ndarray, count: int, seed: tuple[int, int], step: tf.Tensor) -> tf.Tensor:
    key = tf.stack([seed[0] + 7919 * seed[1], step])
    which = tf.random.stateless_uniform((count,), key, maxval=len(centres), dtype=tf.int32)
    noise = tf.random.stateless_normal((count, 2), key + 1_000_003)
    return tf.gather(tf.constant(centres, tf.float32), which) + DEVIATION * noise


_COLOURS = ("#b4532a", "#2a6fb4", "#3a8f4d", "#7a4fa3", "#a08a10")


def _drawn(found: Sequence[_Judged]) -> np.ndarray:
    """For each arm: points of A and what became of them, in the colour of their mode, and modes as grey rings."""
    side = 400
    image = Image.new("RGB", (side * len(found), side), "white")
    draw = ImageDraw.Draw(image)
    for i, (arm, judged) in enumerate(zip(ARMS, found, strict=True)):

        def place(point: np.ndarray, left: int = side * i) -> tuple[float, float]:
            x, y = np.clip(point, -4.9, 4.9) / 10 + 0.5
            return left + side * float(x), side * (1 - float(y))

        for centre in (*CENTRES_A, *CENTRES_B):
            x, y = place(centre)
            r = 3 * DEVIATION * side / 10
            draw.ellipse((x - r, y - r, x + r, y + r), outline="#999999")
        for points in (judged.points, judged.made):
            for number, point in enumerate(points):
                x, y = place(point)
                draw.ellipse((x - 1, y - 1, x + 1, y + 1), fill=_COLOURS[number // 400])
        draw.text((side * i + 8, 8), f"{arm}: {judged.modes} modes", "black")
        draw.line((side * i, 0, side * i, side), fill="#cccccc")
    return np.asarray(image)
