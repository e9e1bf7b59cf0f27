"""The front end, the context module and its initialisation: functional networks of Keras layers."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import layers, ops

from kerasmodels.backbones import sources
from kerasmodels.backbones.mobile import EPSILON, INPUT, Units, first_kernel, mobile
from kerasmodels.backbones.mobile_weights import assign, mobile_weights
from kerasmodels.errors import UsageError
from kerasmodels.layers import AtrousConvolution2D
from kerasmodels.layers.dropout import NamedDropout
from kerasmodels.models.dilated_net.config import BLOCKS, CHANNELS, Config

MEAN = (116.52, 111.36, 102.93)
"""Of red, green and blue, subtracted from pictures of 0-255 (released code)."""
MULTIPLES = {"basic": (), "large": (2, 2, 4, 8, 16, 32, 32)}
"""Channels of the context modules' layers, as multiples of C."""


def front_end(config: Config, dtype: str | None = None, pooling: Literal["max", "avg"] = "max") -> keras.Model:
    """The trunk at a resolution of 8, fc6, fc7 and final: (N, 8 h + 2 m, 8 w + 2 m, 3) 0-255 -> (N, h, w, C).

    VGG16 is without its last two poolings and without padding; the convolutions of the fifth block have rate 2, fc6
    rate 4. The other trunks keep the stride of 8 in the same way, but see zeros beyond what they are given.

    Args:
        config: which trunk and how large; m is its margin.
        dtype: policy of the layers.
        pooling: VGG16's (max in the paper).

    Reference:
        Yu, Koltun 2016, section 4.
    """
    picture = keras.Input((None, None, 3), name="rgb", dtype="float32")
    x = _vgg16(picture, config, dtype, pooling) if config.trunk == "vgg16" else _mobile(picture, config, dtype)
    for name, kernel, rate in (("fc6", config.head_kernel, 4), ("fc7", 1, 1)):
        x = AtrousConvolution2D(
            config.head,
            kernel,
            atrous_rate=rate,
            activation="relu",
            kernel_initializer="he_normal",
            dtype=dtype,
            name=name,
        )(x)
        x = NamedDropout(config.dropout, dtype=dtype, name=name.replace("fc", "drop"))(x)
    last = keras.initializers.RandomNormal(stddev=1e-3)
    x = layers.Conv2D(config.classes, 1, kernel_initializer=last, dtype=dtype, name="final")(x)
    return keras.Model(picture, x, name="front")


def _vgg16(picture: Any, config: Config, dtype: str | None, pooling: str) -> Any:
    x = layers.Rescaling(1.0, [-m for m in MEAN], dtype="float32", name="mean")(picture)
    for block, (count, channels) in enumerate(zip(config.stages, config.widths, strict=True), 1):
        for i in range(1, count + 1):
            x = AtrousConvolution2D(
                channels,
                3,
                atrous_rate=2 if block == 5 else 1,
                activation="relu",
                kernel_initializer=first_kernel() if block == i == 1 else "he_normal",
                dtype=dtype,
                name=f"conv{block}_{i}",
            )(x)
        if block <= 3:
            pool = layers.MaxPooling2D if pooling == "max" else layers.AveragePooling2D
            x = pool(2, dtype=dtype, name=f"pool{block}")(x)
    return x


def _mobile(picture: Any, config: Config, dtype: str | None) -> Any:
    """A trunk that has position i at pixel 8 i, for positions in the middle of 8 x 8 pixels.

    The margin is 8 q + 4, and fc6 takes q of it: the position 8 (q + 1) is pixel 4 of the first block.
    """
    mean, scale = INPUT[config.trunk]
    # 8 k + 1 pixels, of which such a trunk sees as far to one side as to the other.
    x = layers.Cropping2D(((0, 7), (0, 7)), dtype="float32", name="odd")(picture)
    x = layers.Rescaling(1 / scale, [-m / scale for m in mean], dtype="float32", name="mean")(x)
    x = mobile(x, config.trunk, Units(EPSILON, config.batch_norm, dtype=dtype), config.stages, config.widths)
    return layers.Cropping2D(((1, 0), (1, 0)), dtype=dtype, name="middle")(x)


def context_module(
    classes: int,
    kind: Literal["basic", "large"] = "basic",
    rates: Sequence[int] = Config.rates,
    padding: Literal["first", "same"] = "first",
    init: Literal["identity", "glorot"] = "identity",
    noise: float = 0.0,
    dtype: str | None = None,
) -> keras.Model:
    """3 x 3 convolutions of growing rates, and a 1 x 1: (N, h, w, C) -> (N, h, w, C). Fits behind any network.

    ReLU follows all but the last. With the identity initialisation and no noise it is ReLU.

    Args:
        classes: C.
        kind: basic, C channels throughout (about 64 C^2 weights); large, 2C to 32C.
        rates: of the 3 x 3 convolutions.
        padding: first, all zeros around the input; same, around each convolution's input.
        init: identity, or Glorot's.
        noise: see `ContextIdentity`; divided by the multiple of C that a layer has.
        dtype: policy of the layers.

    Raises:
        ValueError: a large module with other than seven rates.

    Example:
        >>> import numpy as np
        >>> module = context_module(5)
        >>> x = np.random.default_rng(0).normal(size=(1, 9, 9, 5)).astype("float32")
        >>> bool(np.abs(module(x) - np.maximum(x, 0)).max() < 1e-6), module.count_params()
        (True, 1640)

    Reference:
        Yu, Koltun 2016, section 3 and table 1, equations 4 and 5.
    """
    multiples = MULTIPLES[kind] or (1,) * len(rates)
    if len(multiples) != len(rates):
        raise ValueError(f"a large context module has {len(multiples)} rates. Received: {tuple(rates)}")
    maps = keras.Input((None, None, classes), name="maps")
    x = layers.ZeroPadding2D(sum(rates), dtype=dtype, name="pad")(maps) if padding == "first" else maps
    names = [f"ctx_conv{max(1, i)}_{2 if i == 1 else 1}" for i in range(len(rates) - 1)] + ["ctx_fc1"]
    for name, rate, multiple in zip(names, rates, multiples, strict=True):
        x = AtrousConvolution2D(
            multiple * classes,
            3,
            atrous_rate=rate,
            padding="valid" if padding == "first" else "same",
            activation="relu",
            kernel_initializer=ContextIdentity(classes, noise / multiple) if init == "identity" else "glorot_uniform",
            dtype=dtype,
            name=name,
        )(x)
    kernel = ContextIdentity(classes, noise) if init == "identity" else "glorot_uniform"
    x = layers.Conv2D(classes, 1, kernel_initializer=kernel, dtype=dtype, name="ctx_final")(x)
    return keras.Model(maps, x, name="context")


@keras.saving.register_keras_serializable("kerasmodels")
class ContextIdentity(keras.initializers.Initializer):
    """A convolution that passes its input on, spread over or gathered from groups of channels.

    From c_in to c_out channels, both multiples of C, the kernel's centre is C / c_out where floor(a C / c_in) =
    floor(b C / c_out), for input channel a and output channel b; all else is normal with deviation `noise`.

    Args:
        classes: C.
        noise: standard deviation.
        seed: of the noise; another for each kernel if None.

    Reference:
        Yu, Koltun 2016, equations 4 and 5.
    """

    def __init__(self, classes: int, noise: float = 0.0, seed: int | None = None):
        self.classes, self.noise, self.seed = int(classes), float(noise), seed
        self._random = keras.random.SeedGenerator(seed) if noise else None

    def __call__(self, shape: Sequence[int], dtype: Any = None) -> Any:
        *kernel, before, after = shape
        alike = np.equal.outer(np.arange(before) * self.classes // before, np.arange(after) * self.classes // after)
        value = np.zeros(tuple(shape), "float32")
        value[tuple(k // 2 for k in kernel)] = np.where(alike, self.classes / after, 0.0)
        if not self.noise:
            return ops.convert_to_tensor(value, dtype)
        passes = ops.convert_to_tensor(value != 0)
        noise = keras.random.normal(shape, stddev=self.noise, seed=self._random)
        return ops.cast(ops.where(passes, value, noise), dtype or "float32")

    def get_config(self) -> dict[str, Any]:
        return {"classes": self.classes, "noise": self.noise, "seed": self.seed}


# --- weights that others have trained ---------------------------------------------------------------------------------


def load_trunk(front: keras.Model, config: Config) -> None:
    """Put `config.pretrained` into the trunk of a front end.

    Raises:
        UsageError: the trunk is not the published one, or there is no such source.
        WeightsError: the weights are not there, damaged, or of another network.
    """
    if (config.stages, config.widths) != (BLOCKS[config.trunk], CHANNELS[config.trunk]):
        raise UsageError(
            f"expected the blocks and channels of the published {config.trunk} for its weights. Received: "
            f"{config.stages}, {config.widths}. Use --pretrained random."
        )
    if config.trunk == "vgg16":
        arrays = sources.convolutions("vgg16", config.pretrained, MEAN)
    else:
        arrays = mobile_weights(config.trunk, config.pretrained)
    assign(front, arrays, config.pretrained, ("fc6", "fc7", "final"))
