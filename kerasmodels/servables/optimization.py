"""Servables that optimize a picture: the whole loop, and a single step for loops of one's own."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec
from kerasmodels.losses.portable import PortableStyle
from kerasmodels.servables.examples import example_images

_MOMENTUM = 0.9


def _momentum_step(
    picture: tf.Tensor, velocity: tf.Tensor, gradient: tf.Tensor, rate: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of gradient descent with momentum on the gradient divided by its root mean square.

    So `rate` is in levels of 0-255, whatever the loss weighs. Adam, which divides every entry of the first gradient by
    itself, would turn rounding differences between runtimes into whole levels: its first step is the sign.
    """
    # Divided by the largest entry first: squares of small numbers would vanish.
    gradient = gradient / (tf.reduce_max(tf.abs(gradient)) + 1e-30)
    gradient = gradient / tf.sqrt(tf.reduce_mean(gradient * gradient) + 1e-30)
    velocity = _MOMENTUM * velocity + gradient
    return picture - rate * velocity, velocity


def optimization(network: keras.Model, objective: Callable[[], PortableStyle], rate: float) -> dict[str, Servable]:
    """`stylize`, by gradient descent from the content, and `step`, one step of it.

    Args:
        network: the loss network, whose variables leave with them.
        objective: makes what is minimized; a new one for each servable, because it keeps what belongs to its graph.
        rate: length of the first step of `stylize`, levels of 0-255; it falls to 0 along a line.
    """
    written, once = objective(), objective()

    def stylize(content: tf.Tensor, style: tf.Tensor, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        photo, painting = tf.cast(content, tf.float32), tf.cast(style, tf.float32)
        # What every step needs alike is computed outside the loop.
        written.prepare()
        targets = written.targets(photo, painting)

        def body(step: tf.Tensor, picture: tf.Tensor, velocity: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, ...]:
            loss, gradient = written.gradient(picture, targets)
            left = tf.cast(steps - step, tf.float32) / tf.cast(steps, tf.float32)
            picture, velocity = _momentum_step(picture, velocity, gradient, rate * left)
            picture.set_shape(content.shape)
            velocity.set_shape(content.shape)
            return step + 1, picture, velocity, loss

        start = (tf.constant(0), photo, tf.zeros_like(photo), tf.zeros(()))
        _, picture, _, loss = tf.while_loop(lambda step, *_: step < steps, body, start, parallel_iterations=1)
        return {"stylized": tf.cast(tf.round(tf.clip_by_value(picture, 0.0, 255.0)), tf.uint8), "loss": loss}

    def step(
        picture: tf.Tensor, velocity: tf.Tensor, content: tf.Tensor, style: tf.Tensor, rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        targets = once.targets(tf.cast(content, tf.float32), tf.cast(style, tf.float32))
        loss, gradient = once.gradient(picture, targets)
        picture, velocity = _momentum_step(picture, velocity, gradient, rate)
        return {"next_picture": picture, "next_velocity": velocity, "loss": loss}

    size, style_size = (1, "height", "width", 3), (1, "style_height", "style_width", 3)
    content = TensorSpec("content", size, "uint8", "the photo, RGB 0-255, at least 32 pixels each way", "image")
    style = TensorSpec("style", style_size, "uint8", "the painting, RGB 0-255, at least 32 pixels each way", "image")
    dims = {"height": 192, "width": 256, "style_height": 160, "style_width": 208}
    other = ({"height": 97, "width": 130, "style_height": 128, "style_width": 75},)
    return {
        "stylize": Servable(
            call=stylize,
            model=network,
            inputs=(content, style, TensorSpec("steps", (), "int32", "gradient steps; 100 to 300 make a picture")),
            outputs=(
                TensorSpec("stylized", size, "uint8", "the photo in the painting's style, RGB 0-255", "image"),
                TensorSpec("loss", (), "float32", "the objective before the last step", atol=1e-3),
            ),
            example=lambda dims, seed: {**_example(dims, seed), "steps": np.asarray(3, "int32")},
            dims=dims,
            check_dims=other,
            doc="paints a photo in the style of a painting, by optimization",
            without={
                ("litert", "int8"): "TensorFlow 2.21's quantizer crashes on a loop that convolves. Take precision "
                "dynamic, or the servable step."
            },
        ),
        "step": Servable(
            call=step,
            model=network,
            inputs=(
                TensorSpec("picture", size, "float32", "the picture so far, RGB 0-255; at first the content"),
                TensorSpec("velocity", size, "float32", "what the step before gave; at first zeros"),
                content,
                style,
                TensorSpec("rate", (), "float32", "length of the step, levels of 0-255; 1, falling to 0"),
            ),
            outputs=(
                TensorSpec("next_picture", size, "float32", "the picture after the step", atol=1e-2),
                TensorSpec("next_velocity", size, "float32", "for the next step", atol=1e-2),
                TensorSpec("loss", (), "float32", "the objective of the picture given", atol=1e-3),
            ),
            example=_example_step,
            dims=dims,
            check_dims=other,
            doc="one step of painting a photo in the style of a painting",
        ),
    }


def _example(dims: Any, seed: int) -> dict[str, np.ndarray]:
    sizes = ((dims["height"], dims["width"]), (dims["style_height"], dims["style_width"]))
    photo, painting = (
        example_images({"batch": 1, "height": height, "width": width}, 2 * seed + i)["image"]
        for i, (height, width) in enumerate(sizes)
    )
    return {"content": photo, "style": painting}


def _example_step(dims: Any, seed: int) -> dict[str, np.ndarray]:
    pictures, random = _example(dims, seed), np.random.default_rng(seed)
    picture = pictures["content"] + random.normal(0, 5, pictures["content"].shape)
    velocity = random.normal(0, 1, picture.shape)
    state = {"picture": picture.astype("float32"), "velocity": velocity.astype("float32")}
    return {**state, **pictures, "rate": np.asarray(1.0, "float32")}
