"""What leaves the building: the whole optimisation, and one step of it."""

from collections.abc import Mapping

import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec
from kerasmodels.losses.portable import PortableStyle
from kerasmodels.models.neural_style.config import Config
from kerasmodels.models.neural_style.objective import layer_weights, network
from kerasmodels.models.neural_style.trainer import NeuralStyle

_MOMENTUM = 0.9


def _moved(
    picture: tf.Tensor, velocity: tf.Tensor, slope: tf.Tensor, rate: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of gradient descent with momentum on the gradient divided by its root mean square.

    So `rate` is in levels of 0-255, whatever the loss weighs. Adam, which divides every entry of the first gradient by
    itself, would turn rounding differences between runtimes into whole levels: its first step is the sign.
    """
    # Divided by the largest entry first: squares of small numbers would vanish.
    slope = slope / (tf.reduce_max(tf.abs(slope)) + 1e-30)
    slope = slope / tf.sqrt(tf.reduce_mean(slope * slope) + 1e-30)
    velocity = _MOMENTUM * velocity + slope
    return picture - rate * velocity, velocity


def servables(model: NeuralStyle, config: Config) -> dict[str, Servable]:
    """What leaves the building holds the network that looks. The pixels of a run are its result, and stay."""
    vgg = network(config)
    written = PortableStyle(
        vgg,
        {
            tap: config.content_weight * w
            for tap, w in layer_weights(config.content_layers, config.content_layer_weights).items()
        },
        {
            tap: config.style_weight * w
            for tap, w in layer_weights(config.style_layers, config.style_layer_weights).items()
        },
        config.tv_weight,
        config.formulation,
    )
    rate = config.learning_rate / 10

    def stylize(content: tf.Tensor, style: tf.Tensor, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        photo, painting = tf.cast(content, tf.float32), tf.cast(style, tf.float32)
        # What every step needs alike is computed outside the loop.
        written.prepare()
        targets = written.targets(photo, painting)

        def body(step: tf.Tensor, picture: tf.Tensor, velocity: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, ...]:
            loss, slope = written.gradient(picture, targets)
            left = tf.cast(steps - step, tf.float32) / tf.cast(steps, tf.float32)
            picture, velocity = _moved(picture, velocity, slope, rate * left)
            picture.set_shape(content.shape)
            velocity.set_shape(content.shape)
            return step + 1, picture, velocity, loss

        start = (tf.constant(0), photo, tf.zeros_like(photo), tf.zeros(()))
        _, picture, _, loss = tf.while_loop(lambda step, *_: step < steps, body, start, parallel_iterations=1)
        return {"stylized": tf.cast(tf.round(tf.clip_by_value(picture, 0.0, 255.0)), tf.uint8), "loss": loss}

    def step(
        picture: tf.Tensor, velocity: tf.Tensor, content: tf.Tensor, style: tf.Tensor, rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        targets = written.targets(tf.cast(content, tf.float32), tf.cast(style, tf.float32))
        loss, slope = written.gradient(picture, targets)
        picture, velocity = _moved(picture, velocity, slope, rate)
        return {"next_picture": picture, "next_velocity": velocity, "loss": loss}

    size, style_size = (1, "height", "width", 3), (1, "style_height", "style_width", 3)
    content = TensorSpec("content", size, "uint8", "the photo, RGB 0-255, at least 32 pixels each way", "image")
    style = TensorSpec("style", style_size, "uint8", "the painting, RGB 0-255, at least 32 pixels each way", "image")
    dims = {"height": 192, "width": 256, "style_height": 160, "style_width": 208}
    other = ({"height": 97, "width": 130, "style_height": 128, "style_width": 75},)
    return {
        "stylize": Servable(
            call=stylize,
            model=vgg,
            inputs=(content, style, TensorSpec("steps", (), "int32", "gradient steps; 100 to 300 make a picture")),
            outputs=(
                TensorSpec("stylized", size, "uint8", "the photo in the painting's style, RGB 0-255", "image"),
                TensorSpec("loss", (), "float32", "the objective before the last step", atol=1e-3),
            ),
            example=lambda dims, seed: {**_example(dims, seed, "content", "style"), "steps": np.asarray(3, "int32")},
            dims=dims,
            check_dims=other,
            doc="paints a photo in the style of a painting, by optimisation",
            without={
                ("litert", "int8"): "TensorFlow 2.21's quantiser crashes on a loop that convolves. Take precision "
                "dynamic, or the servable step."
            },
        ),
        "step": Servable(
            call=step,
            model=vgg,
            inputs=(
                TensorSpec("picture", size, "float32", "the picture so far, RGB 0-255; at first the content"),
                TensorSpec("velocity", size, "float32", "what the step before answered; at first zeros"),
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


def _example(dims: Mapping[str, int], seed: int, *names: str) -> dict[str, np.ndarray]:
    """Made-up pictures: smooth waves, an edge, grain; `style` at the painting's size."""
    random = np.random.default_rng(seed)
    found = {}
    for name in names:
        prefix = "style_" if name == "style" else ""
        height, width = dims[f"{prefix}height"], dims[f"{prefix}width"]
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        a, b, phase = random.uniform(4, 40, (3, 2, 3))
        picture = 128 + 60 * np.sin(x[..., None] * a[0] + phase[0]) + 60 * np.sin(y[..., None] * b[1] + phase[1])
        picture[x + y > random.uniform(0.5, 1.2)] *= 0.5
        found[name] = np.clip(picture + random.normal(0, 8, picture.shape), 0, 255).astype("uint8")[None]
    return found


def _example_step(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    pictures = _example(dims, seed, "content", "style")
    random = np.random.default_rng(seed)
    picture = pictures["content"] + random.normal(0, 5, pictures["content"].shape)
    velocity = random.normal(0, 1, picture.shape)
    state = {"picture": picture.astype("float32"), "velocity": velocity.astype("float32")}
    return {**state, **pictures, "rate": np.asarray(1.0, "float32")}
