"""The convolutions that classifier and detector share."""

from collections.abc import Mapping
from typing import Any

import keras
from keras import layers

from kerasmodels import registry
from kerasmodels.layers import DeformableConv2D
from kerasmodels.models.deformable_net.config import Config


def trunk(config: Config, x: Any, dtype: str) -> Any:
    """(N, H, W, C) -> (N, ceil(H / stride), ceil(W / stride), filters[-1]): convolution, ReLU, batch normalisation."""
    count = len(config.filters)
    rows = zip(config.filters, config.strides, config.dilations, strict=True)
    for number, (filters, stride, rate) in enumerate(rows, 1):
        if number > count - config.deformable:
            conv: keras.layers.Layer = DeformableConv2D(
                filters, 3, stride, padding=rate, dilation_rate=rate, modulated=config.modulated, activation="relu",
                dtype=dtype, name=f"conv{number}",
            )  # fmt: skip
        else:
            x = layers.ZeroPadding2D(rate, dtype=dtype, name=f"pad{number}")(x)
            conv = layers.Conv2D(
                filters, 3, stride, dilation_rate=rate, activation="relu", dtype=dtype, name=f"conv{number}"
            )
        x = layers.BatchNormalization(momentum=0.9, dtype=dtype, name=f"norm{number}")(conv(x))
    return x


def adam(config: Config) -> keras.optimizers.Optimizer:
    """With the config's learning rate."""
    rate: Any = config.learning_rate
    if config.schedule == "cosine":
        rate = keras.optimizers.schedules.CosineDecay(rate, config.steps)
    return keras.optimizers.Adam(rate)


def config_of(config: Config | Mapping[str, Any] | None) -> Config:
    """The config, valid, from a config, its values, or none.

    Raises:
        UsageError: a value out of range, or an unknown field.
    """
    if not isinstance(config, Config):
        return registry.family("deformable_net").config_from_dict(config or {})
    config.validate()
    return config
