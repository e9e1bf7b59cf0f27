"""Trunks for phones, MobileNetV2 and EfficientNet-Lite0, that keep a resolution: stages of inverted residual blocks.

They pad alike on all sides of a picture of s k + 1 pixels, s the output stride: position i of the maps is pixel s i.
`ports.trunks` reads what others have trained on ImageNet.
"""

from collections.abc import Sequence
from typing import Any

from keras import layers

from kerasmodels.backbones.conv_bn import ConvBN, first_kernel

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


def mobile(
    x: Any, trunk: str, conv: ConvBN, blocks: Sequence[int], channels: Sequence[int], output_stride: int = 8
) -> Any:
    """The trunk of a functional network: a stem and seven stages, whose convolutions are depthwise.

    Args:
        x: pictures (N, H, W, 3) as `INPUT` has them.
        trunk: mobilenet_v2 or efficientnet_lite0.
        conv: what makes the layers.
        blocks: of each stage, such as `BLOCKS[trunk]`.
        channels: of the stem and the stages, such as `CHANNELS[trunk]`.
        output_stride: pixels between two positions of the answer; a stage that would pass it has a rate instead.
    """
    conv.stage(1)
    first, *rest = channels
    stem = first_kernel(INPUT[trunk][1])
    x = conv(x, first, 3, "stem", stride=2, activation="relu6", initializer=stem)
    stride, rate, number = 2, 1, 0
    for stage, ((expansion, _, jump, kernel), count, wide) in enumerate(
        zip(STAGES[trunk], blocks, rest, strict=True), 2
    ):
        conv.stage(stage)
        for block in range(count):
            name, before = f"block{number}", x
            step = jump if block == 0 and stride < output_stride else 1
            if expansion > 1:
                x = conv(x, expansion * x.shape[-1], 1, f"{name}_expand", activation="relu6")
            x = conv.depthwise(x, kernel, f"{name}_depthwise", stride=step, rate=rate, activation="relu6")
            x = conv(x, wide, 1, f"{name}_project", activation=None)
            if block > 0:
                x = layers.Add(name=f"{name}_add")([x, before])
            elif jump == 2:
                # The convolution whose stride is left out sees neighbors yet; those after it see every other one.
                stride, rate = stride * step, rate if step == 2 else 2 * rate
            number += 1
    return x
