"""What the claims of several papers need: data found by name, trainings, seeds, small networks, receptive fields."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.errors import DataError
from kerasmodels.family import Claim


def find_data(data: Path | None, pattern: str, what: str) -> Path:
    """The first file or folder of this name in --data, at any depth.

    Args:
        data: the folder; None if none was given.
        pattern: of its name, or of the end of its path.
        what: what --data must hold, for the error.

    Raises:
        DataError: there is none.
    """
    matches = [] if data is None else sorted(data.rglob(pattern))
    if not matches:
        raise DataError(f"expected --data DIR with {what}, at any depth. Received: {data}, without {pattern}.")
    return matches[0]


def trained(model: Any, batches: tf.data.Dataset, steps: int, **kwargs: Any) -> Any:
    """The model after `steps` of its own `fit`; `kwargs` are the rest of `fit`'s arguments."""
    model.fit(batches, steps_per_epoch=steps, verbose=0, **kwargs)
    return model


def over_seeds(key: str, text: str, paper: str, values: Sequence[float], digits: int = 2, **gate: float) -> Claim:
    """The mean of the seeds; each is in the text."""
    listed = ", ".join(f"{value:.{digits}f}" for value in values)
    return Claim(key, f"{text} (seeds: {listed})", paper, round(float(np.mean(values)), digits), **gate)


def least_gain(
    key: str, text: str, paper: str, values: Sequence[float], others: Sequence[float], at_least: float, digits: int = 2
) -> Claim:
    """The least of the differences, seed by seed."""
    gain = min(a - b for a, b in zip(values, others, strict=True))
    return Claim(key, f"{text}, the least of all seeds", paper, round(gain, digits), at_least=at_least)


def perceptron(inputs: int, outputs: int, width: int) -> keras.Model:
    """Three hidden layers, for points."""
    hidden = [keras.layers.Dense(width, "relu", kernel_initializer="he_normal") for _ in range(3)]
    return keras.Sequential([keras.Input((inputs,)), *hidden, keras.layers.Dense(outputs)])


def circle(count: int) -> np.ndarray:
    """Points on a circle of radius 2 around 0, (count, 2)."""
    angles = 2 * np.pi * np.arange(count) / count
    return 2.0 * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def average(network: keras.Model) -> None:
    """Make every kernel a mean of what it sees, without biases, so that every pixel that a unit sees has a gradient."""
    for weight in network.weights:
        if "float" in weight.dtype:
            weight.assign(np.full(weight.shape, 0.0 if weight.name == "bias" else 1 / np.prod(weight.shape[:-1])))


def seen(network: keras.Model, side: int, row: int, column: int) -> tuple[int, int] | None:
    """The first row and the end of the rows of a square picture that have a gradient of one position of the output.

    None if what has a gradient is no solid square.
    """
    picture = tf.fill((1, side, side, network.input.shape[-1]), 200.0)
    with tf.GradientTape() as tape:
        tape.watch(picture)
        value = tf.reduce_sum(network(picture)[0, row, column])
    there = np.abs(tape.gradient(value, picture)[0].numpy()).sum(axis=-1) > 0
    (rows,) = np.nonzero(there.any(axis=1))
    first, end = int(rows[0]), int(rows[-1]) + 1
    return (first, end) if there.sum() == len(rows) ** 2 == (end - first) ** 2 else None
