"""Servables that play: states of a game in, actions out; for Atari also screens, with the preprocessing inside."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.data.environments import ATARI, SCREENS, overlaps
from kerasmodels.family import Servable, TensorSpec


def policy(network: keras.Model, config: Any) -> dict[str, Servable]:
    """`act`, and for Atari `act_on_screens`.

    Args:
        network: states (N, *shape, stack) -> values (N, actions).
        config: a `Config` of `dqn`: its game and preprocessing.
    """
    (*shape, stack), actions = network.input_shape[1:], network.output_shape[-1]
    frames = len(shape) == 2

    def answer(state: Any) -> dict[str, Any]:
        values = network(state, training=False)
        return {"action": tf.argmax(values, axis=1, output_type=tf.int32), "values": values}

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        if frames:
            return {"state": _frames(random, (dims["batch"], *shape, stack))}
        return {"state": random.normal(0, 1, (dims["batch"], *shape, stack)).astype("float32")}

    what = f"the last {stack} of" if stack > 1 else "what is seen of"
    state = TensorSpec(
        "state",
        ("batch", *shape, stack),
        "uint8" if frames else "float32",
        f"{what} {config.game}, the latest last" + (", gray, 0-255" if frames else ""),
    )
    outputs = (
        TensorSpec("action", ("batch",), "int32", f"the best of {actions} actions, by its number"),
        TensorSpec("values", ("batch", actions), "float32", "of each action: the discounted sum of rewards to come"),
    )
    shared: dict[str, Any] = {"model": network, "dims": {"batch": 1}, "check_dims": ({"batch": 3},)}
    found = {
        "act": Servable(
            call=lambda state: answer(state),
            inputs=(state,),
            outputs=outputs,
            example=example,
            doc=f"plays {config.game}: the greedy policy",
            **shared,
        )
    }
    if config.game in ATARI:
        found["act_on_screens"] = _on_screens(network, config, answer, outputs, stack)
    return found


def _on_screens(network: keras.Model, config: Any, answer: Any, outputs: Any, stack: int) -> Servable:
    """The emulator's screens as they are: gray, maximum of two, 84 x 84, stack."""
    height, width = SCREENS.get(config.game, (210, 160))
    lines = 110 if config.resize == "crop" else 84
    first = 18 if config.resize == "crop" else 0
    down = tf.constant(_matrix(height, lines)[first : first + 84])
    across = tf.constant(_matrix(width, 84).T)
    luma = tf.constant([[0.2989], [0.587], [0.114]], tf.float32)

    def call(screens: tf.Tensor) -> dict[str, tf.Tensor]:
        gray = tf.round(tf.reshape(tf.matmul(tf.reshape(tf.cast(screens, tf.float32), (-1, 3)), luma), (-1, width)))
        gray = tf.reduce_max(tf.reshape(gray, (stack, config.pooled, height, width)), axis=1)
        small = tf.matmul(tf.reshape(gray, (stack * height, width)), across)
        small = tf.reshape(tf.transpose(tf.reshape(small, (stack, height, 84)), (1, 0, 2)), (height, stack * 84))
        small = tf.round(tf.reshape(tf.matmul(down, small), (84, stack, 84)))
        return answer(tf.cast(tf.transpose(small, (0, 2, 1))[tf.newaxis], tf.uint8))

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        gray = _frames(random, (1, height, width, stack * config.pooled))[0].transpose(2, 0, 1)
        return {"screens": np.repeat(gray[..., None], 3, axis=3)}

    each = "two for each of them, the last of an action" if config.pooled == 2 else "the last of each action"
    screens = TensorSpec(
        "screens",
        (stack * config.pooled, height, width, 3),
        "uint8",
        f"screens of {config.game} as the emulator shows them, RGB 0-255: of the last {stack} actions, {each}",
    )
    return Servable(
        call=call,
        model=network,
        inputs=(screens,),
        outputs=tuple(TensorSpec(o.name, (1, *o.shape[1:]), o.dtype, o.doc) for o in outputs),
        example=example,
        dims={},
        doc=f"plays {config.game}: the greedy policy, on the emulator's own screens",
    )


def _matrix(length: int, size: int) -> np.ndarray:
    """(size, length): means over areas as a product."""
    matrix = np.zeros((size, length), np.float32)
    indexes, weights = overlaps(length, size)
    for index, weight in zip(indexes, weights[..., 0], strict=True):
        np.add.at(matrix, (np.arange(size), index), weight)
    return matrix


def _frames(random: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    """(N, H, W, stack) uint8: a few bright blocks before a ground, that move from frame to frame."""
    height, width, stack = shape[1:]
    found = np.zeros(shape, np.uint8)
    for each in found:
        each[:] = random.integers(0, 120)
        for _ in range(6):
            y, x, dy, dx = (*random.uniform(0, (height, width)), *random.uniform(-2, 2, 2))
            tall, wide, shade = (*random.integers(1, max(height // 6, 2), 2), random.integers(100, 256))
            for k in range(stack):
                top, left = int(y + k * dy) % height, int(x + k * dx) % width
                each[top : top + tall, left : left + wide, k] = shade
    return found
