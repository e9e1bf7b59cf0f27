"""Trunks that keep a resolution of 8 or 16 pixels, and the head behind them: one functional network of Keras layers.

All of them pad alike on all sides of a picture of 8 k + 1 (or 16 k + 1) pixels: position i of the maps is pixel 8 i.
"""

from typing import Any

import keras
from keras import layers

from kerasmodels.backbones.mobile import CHANNELS, EPSILON, INPUT, Units, first_kernel, mobile
from kerasmodels.layers import AtrousConvolution2D, AtrousSpatialPyramidPooling
from kerasmodels.models.deeplab.config import Config

MEAN = (122.675, 116.669, 104.008)
"""Of red, green and blue, subtracted from pictures of 0-255 (released code)."""


def score_network(config: Config) -> keras.Model:
    """Trunk and head: (N, s h + 1, s w + 1, 3) RGB 0-255 -> scores (N, h + 1, w + 1, classes), s the output stride."""
    mean, scale = INPUT.get(config.trunk, (MEAN, 1.0))
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
                kernel_initializer=first_kernel() if block == i == 1 else "he_normal",
                dtype=config.precision,
                trainable=block > config.frozen,
                name=f"conv{block}_{i}",
            )(x)
        # The fifth pooling would halve once more; the head's rates count positions as they are (released code).
        step = 2 if stride < config.output_stride and block < 5 else 1
        x = layers.MaxPooling2D(3, step, padding="same", dtype=config.precision, name=f"pool{block}")(x)
        stride, rate = stride * step, 2 if block == 4 and step == 1 else rate
    return x


def _units(config: Config, epsilon: float) -> Units:
    return Units(epsilon, config.batch_norm, config.frozen, config.precision)


def _resnet(x: Any, config: Config) -> Any:
    """A stem and four stages of bottlenecks; a stage that would pass the output stride has a rate instead."""
    units, total = _units(config, 1e-5), sum(config.stages)
    units.stage(1)
    x = units.convolution(x, _channels(config, 64), 7, "conv1", stride=2, initializer=first_kernel())
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
    units = _units(config, EPSILON)
    channels = [_channels(config, count) for count in CHANNELS[config.trunk]]
    return mobile(x, config.trunk, units, config.stages, channels, config.output_stride)
