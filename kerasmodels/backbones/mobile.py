"""Trunks for phones, MobileNetV2 and EfficientNet-Lite0, that keep a resolution: stages of inverted residual blocks.

They pad alike on all sides of a picture of s k + 1 pixels, s the output stride: position i of the maps is pixel s i.
`ports.trunks` reads what others have trained on ImageNet.
"""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers

from kerasmodels.layers import AtrousConvolution2D, DeformableConv2D

STAGES = {
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
"""Stages of inverted residual blocks: expansion, channels, stride, kernel (Sandler et al. 2018, table 2;
EfficientNet's table 1 without squeeze and excitation)."""
BLOCKS = {"mobilenet_v2": (1, 2, 3, 4, 3, 3, 1), "efficientnet_lite0": (1, 2, 2, 3, 3, 4, 1)}
"""And how many blocks each stage has."""
CHANNELS = {trunk: (32, *(channels for _, channels, _, _ in stages)) for trunk, stages in STAGES.items()}
"""Channels of the stem and of each stage."""
INPUT = {"mobilenet_v2": ((127.5,) * 3, 127.5), "efficientnet_lite0": ((127.0,) * 3, 128.0)}
"""Of each trunk: what is subtracted from red, green and blue of 0-255, and what they are divided by."""
EPSILON = 1e-3
"""Of these trunks' batch normalization."""


def first_kernel(scale: float = 1.0) -> keras.initializers.Initializer:
    """Initializer of the first convolution: pictures less their mean deviate by about 64, divided by `scale`."""
    return keras.initializers.VarianceScaling(2 / (64 / scale) ** 2)


class Units:
    """Convolutions with batch normalization, in stages that may be frozen.

    Args:
        epsilon: of batch normalization.
        batch_norm: frozen, its statistics, scales and shifts stay as they are; trained.
        frozen: stages at the beginning that keep their weights.
    """

    def __init__(self, epsilon: float, batch_norm: str, frozen: int = 0):
        self.epsilon, self.batch_norm, self.frozen = epsilon, batch_norm, frozen
        self.trainable = True

    def stage(self, number: int) -> None:
        """What follows belongs to this stage; the first is 1."""
        self.trainable = number > self.frozen

    def normalized(self, x: Any, name: str, activation: str | None) -> Any:
        """Batch normalization, and relu, relu6 or nothing."""
        x = layers.BatchNormalization(
            epsilon=self.epsilon,
            trainable=self.trainable and self.batch_norm == "trained",
            name=f"{name}_bn",
        )(x)
        if activation is None:
            return x
        most = 6.0 if activation == "relu6" else None
        return layers.ReLU(most, name=f"{name}_relu")(x)

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
        initializer: Any = "he_normal",
    ) -> Any:
        """A convolution without bias, normalized."""
        shared: dict[str, Any] = {
            "padding": "same",
            "use_bias": False,
            "kernel_initializer": initializer,
            "trainable": self.trainable,
            "name": name,
        }
        if deformable:
            x = DeformableConv2D(channels, kernel, dilation_rate=rate, **shared)(x)
        elif rate > 1:
            x = AtrousConvolution2D(channels, kernel, atrous_rate=rate, **shared)(x)
        else:
            x = layers.Conv2D(channels, kernel, stride, **shared)(x)
        return self.normalized(x, name, activation)

    def depthwise(self, x: Any, kernel: int, name: str, *, stride: int, rate: int, activation: str) -> Any:
        """A kernel for each channel, without bias, normalized."""
        padding = "same"
        if stride == 1:
            # With the padding known, runtimes need no arithmetic on the picture's size.
            zeros = rate * (kernel - 1) // 2
            x = layers.ZeroPadding2D(zeros, name=f"{name}_pad")(x)
            padding = "valid"
        x = layers.DepthwiseConv2D(
            kernel,
            stride,
            padding,
            dilation_rate=rate,
            use_bias=False,
            depthwise_initializer="he_normal",
            trainable=self.trainable,
            name=name,
        )(x)
        return self.normalized(x, name, activation)


def mobile(
    x: Any, trunk: str, units: Units, blocks: Sequence[int], channels: Sequence[int], output_stride: int = 8
) -> Any:
    """The trunk of a functional network: a stem and seven stages, whose convolutions are depthwise.

    Args:
        x: pictures (N, H, W, 3) as `INPUT` has them.
        trunk: mobilenet_v2 or efficientnet_lite0.
        units: what makes the layers.
        blocks: of each stage, such as `BLOCKS[trunk]`.
        channels: of the stem and the stages, such as `CHANNELS[trunk]`.
        output_stride: pixels between two positions of the answer; a stage that would pass it has a rate instead.
    """
    units.stage(1)
    first, *rest = channels
    stem = first_kernel(INPUT[trunk][1])
    x = units.convolution(x, first, 3, "stem", stride=2, activation="relu6", initializer=stem)
    stride, rate, number = 2, 1, 0
    for stage, ((expansion, _, jump, kernel), count, wide) in enumerate(
        zip(STAGES[trunk], blocks, rest, strict=True), 2
    ):
        units.stage(stage)
        for block in range(count):
            name, before = f"block{number}", x
            step = jump if block == 0 and stride < output_stride else 1
            if expansion > 1:
                x = units.convolution(x, expansion * x.shape[-1], 1, f"{name}_expand", activation="relu6")
            x = units.depthwise(x, kernel, f"{name}_depthwise", stride=step, rate=rate, activation="relu6")
            x = units.convolution(x, wide, 1, f"{name}_project", activation=None)
            if block > 0:
                x = layers.Add(name=f"{name}_add")([x, before])
            elif jump == 2:
                # The convolution whose stride is left out sees neighbors yet; those after it see every other one.
                stride, rate = stride * step, rate if step == 2 else 2 * rate
            number += 1
    return x
