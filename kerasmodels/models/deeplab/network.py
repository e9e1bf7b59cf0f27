"""Trunks that keep a resolution of 8 or 16 pixels, and the head behind them: one functional network of Keras layers.

All of them pad alike on all sides of a picture of 8 k + 1 (or 16 k + 1) pixels: position i of the maps is pixel 8 i.
"""

from typing import Any

import keras
from keras import layers

from kerasmodels.layers import AtrousConvolution2D, AtrousSpatialPyramidPooling, DeformableConv2D
from kerasmodels.models.deeplab.config import Config

MEAN = (122.675, 116.669, 104.008)
"""Of red, green and blue, subtracted from pictures of 0-255 (released code)."""
INPUT = {
    "vgg16": (MEAN, 1.0),
    "resnet": (MEAN, 1.0),
    "mobilenet_v2": ((127.5, 127.5, 127.5), 127.5),
    "efficientnet_lite0": ((127.0, 127.0, 127.0), 128.0),
}
"""Of each trunk: what is subtracted from pictures of 0-255, and what they are divided by."""

MOBILE = {
    "mobilenet_v2": (
        (1, 16, 1, 3),
        (6, 24, 2, 3),
        (6, 32, 2, 3),
        (6, 64, 2, 3),
        (6, 96, 1, 3),
        (6, 160, 2, 3),
        (6, 320, 1, 3),
    ),
    "efficientnet_lite0": (
        (1, 16, 1, 3),
        (6, 24, 2, 3),
        (6, 40, 2, 5),
        (6, 80, 2, 3),
        (6, 112, 1, 5),
        (6, 192, 2, 5),
        (6, 320, 1, 3),
    ),
}
"""Stages of inverted residual blocks: expansion, channels, stride, kernel (Sandler et al. 2018, table 2; EfficientNet's
table 1 without squeeze and excitation)."""


def score_network(config: Config) -> keras.Model:
    """Trunk and head: (N, s h + 1, s w + 1, 3) RGB 0-255 -> scores (N, h + 1, w + 1, classes), s the output stride."""
    mean, scale = INPUT[config.trunk]
    picture = keras.Input((None, None, 3), name="rgb", dtype="float32")
    x = layers.Rescaling(1 / scale, [-m / scale for m in mean], dtype="float32", name="mean")(picture)
    x = {"vgg16": _vgg16, "resnet": _resnet}.get(config.trunk, _mobile)(x, config)
    hidden = (config.head, config.head) if config.head else ()
    x = AtrousSpatialPyramidPooling(
        config.classes,
        config.rates,
        config.head_kernel,
        hidden,
        config.dropout,
        dtype=config.precision,
        name="aspp",
    )(x)
    return keras.Model(picture, x, name="net")


def first_kernel(config: Config) -> Any:
    """Initializer of the first convolution: pictures from which a mean was subtracted deviate by about 64."""
    deviation = 64 / INPUT[config.trunk][1]
    return keras.initializers.VarianceScaling(2 / deviation**2)


def _channels(config: Config, count: int) -> int:
    return max(2, round(count * config.width))


def _vgg16(x: Any, config: Config) -> Any:
    """Pooling 3 x 3; after the third and fourth block with stride 1, and rate 2 in what follows, for stride 8."""
    stride = rate = 1
    for block, (count, channels) in enumerate(zip(config.stages, (64, 128, 256, 512, 512), strict=True), 1):
        for i in range(1, count + 1):
            x = AtrousConvolution2D(
                _channels(config, channels),
                3,
                atrous_rate=rate,
                padding="same",
                activation="relu",
                kernel_initializer=first_kernel(config) if block == i == 1 else "he_normal",
                dtype=config.precision,
                trainable=block > config.frozen,
                name=f"conv{block}_{i}",
            )(x)
        # The fifth pooling would halve once more; the head's rates count positions as they are (released code).
        step = 2 if stride < config.output_stride and block < 5 else 1
        x = layers.MaxPooling2D(3, step, padding="same", dtype=config.precision, name=f"pool{block}")(x)
        stride, rate = stride * step, 2 if block == 4 and step == 1 else rate
    return x


class _Units:
    """Convolutions with batch normalisation, in stages that may be frozen."""

    def __init__(self, config: Config, epsilon: float):
        self.config, self.epsilon, self.trainable = config, epsilon, True

    def stage(self, number: int) -> None:
        self.trainable = number > self.config.frozen

    def normalised(self, x: Any, name: str, activation: str | None) -> Any:
        x = layers.BatchNormalization(
            epsilon=self.epsilon,
            dtype=self.config.precision,
            trainable=self.trainable and self.config.batch_norm == "trained",
            name=f"{name}_bn",
        )(x)
        if activation is None:
            return x
        most = 6.0 if activation == "relu6" else None
        return layers.ReLU(most, dtype=self.config.precision, name=f"{name}_relu")(x)

    def convolution(
        self,
        x: Any,
        channels: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        rate: int = 1,
        activation: str | None = "relu",
        deformable: bool = False,
        first: bool = False,
    ) -> Any:
        shared: dict[str, Any] = {
            "padding": "same",
            "use_bias": False,
            "kernel_initializer": first_kernel(self.config) if first else "he_normal",
            "dtype": self.config.precision,
            "trainable": self.trainable,
            "name": name,
        }
        if deformable:
            x = DeformableConv2D(channels, kernel, dilation_rate=rate, **shared)(x)
        elif rate > 1:
            x = AtrousConvolution2D(channels, kernel, atrous_rate=rate, **shared)(x)
        else:
            x = layers.Conv2D(channels, kernel, stride, **shared)(x)
        return self.normalised(x, name, activation)

    def depthwise(self, x: Any, kernel: int, name: str, *, stride: int, rate: int, activation: str) -> Any:
        padding = "same"
        if stride == 1:
            # With the padding known, runtimes need no arithmetic on the picture's size.
            zeros = rate * (kernel - 1) // 2
            x = layers.ZeroPadding2D(zeros, dtype=self.config.precision, name=f"{name}_pad")(x)
            padding = "valid"
        x = layers.DepthwiseConv2D(
            kernel,
            stride,
            padding,
            dilation_rate=rate,
            use_bias=False,
            depthwise_initializer="he_normal",
            dtype=self.config.precision,
            trainable=self.trainable,
            name=name,
        )(x)
        return self.normalised(x, name, activation)


def _resnet(x: Any, config: Config) -> Any:
    """A stem and four stages of bottlenecks; a stage that would pass the output stride has a rate instead."""
    units, total = _Units(config, 1e-5), sum(config.stages)
    units.stage(1)
    x = units.convolution(x, _channels(config, 64), 7, "conv1", stride=2, first=True)
    x = layers.MaxPooling2D(3, 2, padding="same", dtype=config.precision, name="pool1")(x)
    stride, rate, done = 4, 1, 0
    for stage, count in enumerate(config.stages, 2):
        units.stage(stage)
        step = 1
        if stage > 2:
            step = 2 if stride < config.output_stride else 1
            stride, rate = stride * step, rate if step == 2 else 2 * rate
        inner = _channels(config, 2 ** (stage + 4))
        for block in range(1, count + 1):
            done += 1
            name, before = f"conv{stage}_{block}", x
            x = units.convolution(x, inner, 1, f"{name}_reduce", stride=step if block == 1 else 1)
            deformable = done > total - config.deformable_layers
            x = units.convolution(x, inner, 3, f"{name}_3x3", rate=rate, deformable=deformable)
            x = units.convolution(x, 4 * inner, 1, f"{name}_increase", activation=None)
            if block == 1:
                before = units.convolution(before, 4 * inner, 1, f"{name}_shortcut", stride=step, activation=None)
            x = layers.Add(dtype=config.precision, name=f"{name}_add")([x, before])
            x = layers.ReLU(dtype=config.precision, name=f"{name}_relu")(x)
    return x


def _mobile(x: Any, config: Config) -> Any:
    """A stem and seven stages of inverted residual blocks, whose convolutions are depthwise."""
    units = _Units(config, 1e-3)
    units.stage(1)
    x = units.convolution(x, _channels(config, 32), 3, "stem", stride=2, activation="relu6", first=True)
    stride, rate, number = 2, 1, 0
    for stage, ((expansion, wide, jump, kernel), count) in enumerate(
        zip(MOBILE[config.trunk], config.stages, strict=True), 2
    ):
        units.stage(stage)
        channels = _channels(config, wide)
        for block in range(count):
            name, before = f"block{number}", x
            step = jump if block == 0 and stride < config.output_stride else 1
            if expansion > 1:
                x = units.convolution(x, expansion * x.shape[-1], 1, f"{name}_expand", activation="relu6")
            x = units.depthwise(x, kernel, f"{name}_depthwise", stride=step, rate=rate, activation="relu6")
            x = units.convolution(x, channels, 1, f"{name}_project", activation=None)
            if block > 0:
                x = layers.Add(dtype=config.precision, name=f"{name}_add")([x, before])
            elif jump == 2:
                # The convolution whose stride is left out sees neighbours yet; those after it see every other one.
                stride, rate = stride * step, rate if step == 2 else 2 * rate
            number += 1
    return x
