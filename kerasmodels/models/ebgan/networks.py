"""The generator, and the two halves of the judge."""

from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
from keras import layers, ops

from kerasmodels.models.ebgan.config import STAGES, Config


@dataclass(frozen=True)
class _Build:
    """Layers of one network: how their weights begin, their dtype, and their names."""

    deviation: float
    dtype: str
    name: str

    def options(self, label: str) -> dict[str, Any]:
        return {"dtype": self.dtype, "name": f"{self.name}_{label}"}

    def weighted(self, label: str) -> dict[str, Any]:
        return {"kernel_initializer": keras.initializers.RandomNormal(0.0, self.deviation), **self.options(label)}

    def hidden(self, layer: type, x: Any, *sizes: Any, label: str, normalized: bool = True) -> Any:
        """A layer of weights, normalised over the batch (its bias would then be for nothing), and a ReLU."""
        x = layer(*sizes, use_bias=not normalized, **self.weighted(label))(x)
        if normalized:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **self.options(f"{label}_norm"))(x)
        return layers.ReLU(**self.options(f"{label}_relu"))(x)


def generator(config: Config, dtype: str) -> keras.Model:
    """(N, latent) -> (N, size, size, channels), -1 to 1."""
    make = _Build(0.02, dtype, "generator")
    x = given = keras.Input((config.latent,), name="latent")
    if config.network == "mlp":
        for i in range(1, config.generator_layers):
            x = make.hidden(layers.Dense, x, config.generator_width, label=f"hidden{i}")
        x = _dense_picture(x, config, make)
    else:
        first, *others = (config.filters * factor for factor in STAGES[config.size][0])
        # A transposed convolution of one pixel that covers 4 x 4 is a dense layer.
        x = layers.Reshape((1, 1, config.latent), **make.options("point"))(x)
        x = make.hidden(layers.Conv2DTranspose, x, first, 4, label="up0")
        for i, filters in enumerate(others, 1):
            x = make.hidden(layers.Conv2DTranspose, x, filters, 4, 2, "same", label=f"up{i}")
        x = layers.Conv2DTranspose(config.channels, 4, 2, "same", **make.weighted("last"))(x)
    return keras.Model(given, ops.tanh(ops.cast(x, "float32")), name="generator")


def encoder(config: Config, dtype: str, deviation: float = 0.002) -> keras.Model:
    """(N, size, size, channels), -1 to 1 -> codes, the flat (N, judge_width) or maps."""
    make = _Build(deviation, dtype, "encoder")
    x = given = keras.Input((config.size, config.size, config.channels), name="picture")
    if config.network == "mlp":
        x = layers.Flatten(**make.options("flat"))(x)
        for i in range(1, config.judge_layers):
            # The judge's first layer is not normalised.
            x = make.hidden(layers.Dense, x, config.judge_width, label=f"hidden{i}", normalized=i > 1)
            if config.dropout:
                x = layers.Dropout(0.5, **make.options(f"hidden{i}_dropout"))(x)
    else:
        for i, factor in enumerate(STAGES[config.size][1]):
            filters = config.filters * factor
            x = make.hidden(layers.Conv2D, x, filters, 4, 2, "same", label=f"down{i}", normalized=i > 0)
    return keras.Model(given, x, name="encoder")


def decoder(config: Config, dtype: str, code: tuple[int, ...]) -> keras.Model:
    """codes -> (N, size, size, channels), -1 to 1."""
    make = _Build(0.002, dtype, "decoder")
    x = given = keras.Input(code, name="code")
    if config.network == "mlp":
        x = _dense_picture(x, config, make)
    else:
        for i, factor in enumerate(STAGES[config.size][1][-2::-1]):
            x = make.hidden(layers.Conv2DTranspose, x, config.filters * factor, 4, 2, "same", label=f"up{i}")
        x = layers.Conv2DTranspose(config.channels, 4, 2, "same", **make.weighted("last"))(x)
    return keras.Model(given, ops.tanh(ops.cast(x, "float32")), name="decoder")


def _dense_picture(x: Any, config: Config, make: _Build) -> Any:
    shape = (config.size, config.size, config.channels)
    x = layers.Dense(int(np.prod(shape)), **make.weighted("last"))(x)
    return layers.Reshape(shape, **make.options("picture"))(x)
