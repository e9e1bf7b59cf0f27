"""VGG16 and VGG19 as frozen feature extractors with named taps: what perceptual losses look through.

Simonyan, Zisserman: Very Deep Convolutional Networks for Large-Scale Image Recognition, ICLR 2015, table 1,
configurations D and E, without the fully connected layers. 3x3 convolutions each followed by ReLU, five blocks each
followed by 2x2 pooling.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import keras
from keras import layers, ops

from kerasmodels.backbones import sources
from kerasmodels.errors import UsageError, unknown_name
from kerasmodels.layers.formats import channels_last

Pooling = Literal["max", "avg"]


def VGG16(
    taps: Iterable[str] = ("relu3_3",),
    *,
    weights: str | Path | sources.Source | None = "auto",
    pooling: Pooling = "max",
    dtype: str | None = None,
    preprocess: bool = True,
) -> keras.Model:
    """The 13 convolutions of VGG16 (14,714,688 parameters up to conv5_3), frozen.

    The graph ends at the deepest tap and runs once for all taps.

    Args:
        taps: layers whose outputs are wanted: `conv{block}_{i}` (before the ReLU), `relu{block}_{i}`, `pool{block}`.
        weights: "auto", the best set in the cache (`sources.ORDER`); the name of a source or a `sources.Source`, that
            set from the cache; the path of a file that `sources.load` can read; None, random weights.
        pooling: "max" as trained, or "avg" as Gatys et al. prefer for synthesis.
        dtype: dtype policy of the network, such as "bfloat16"; the global one if None. Preprocessing is always float32.
        preprocess: turn RGB 0-255 into what the weights were trained on. If False the input goes straight into
            conv1_1: in the channel order and on the scale of the weights' `Convention`.

    Returns:
        A model from float32 RGB 0-255 (N, H, W, 3), any H and W of at least 2**(poolings before the deepest tap), to a
        dict of tap name -> features (N, h, w, channels), in the policy's compute dtype.

    Raises:
        UsageError: no taps, an unknown tap or pooling.
        WeightsError: no weights are cached (the message has the commands to get them), or they are damaged or of
            another network.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> vgg = km.backbones.VGG16(["relu1_2", "relu2_2"], weights=None)
        >>> features = vgg(np.full((1, 64, 48, 3), 128, "float32"))
        >>> {tap: tuple(f.shape) for tap, f in features.items()}
        {'relu1_2': (1, 64, 48, 64), 'relu2_2': (1, 32, 24, 128)}
    """
    with channels_last():
        return _vgg("vgg16", taps, weights, pooling, dtype, preprocess)


def VGG19(
    taps: Iterable[str] = ("relu4_1",),
    *,
    weights: str | Path | sources.Source | None = "auto",
    pooling: Pooling = "max",
    dtype: str | None = None,
    preprocess: bool = True,
) -> keras.Model:
    """The 16 convolutions of VGG19 (20,024,384 parameters up to conv5_4), frozen. All else as `VGG16`."""
    with channels_last():
        return _vgg("vgg19", taps, weights, pooling, dtype, preprocess)


def _vgg(
    network: str,
    taps: Iterable[str],
    weights: str | Path | sources.Source | None,
    pooling: str,
    dtype: str | None,
    preprocess: bool,
) -> keras.Model:
    names = sources.layer_names(network)
    taps = (taps,) if isinstance(taps, str) else tuple(taps)
    if not taps:
        raise UsageError(f"expected at least one tap of {network}, such as 'relu3_1'. Received: taps=().")
    for tap in taps:
        if tap not in names:
            raise unknown_name(f"tap of {network}", tap, names)
    if pooling not in ("max", "avg"):
        raise unknown_name("pooling", str(pooling), ("max", "avg"))

    loaded = None if weights is None else sources.load(network, weights)
    convention = sources.SOURCES["torchvision"].convention if loaded is None else loaded.convention
    reflect = convention.padding == "reflect"
    pool = layers.MaxPooling2D if pooling == "max" else layers.AveragePooling2D
    # Two by two with stride two, "same" pads at the far end only and ignores the padding: pooling that rounds up.
    rounding = {"floor": "valid", "ceil": "same"}[convention.pooling]
    # Own seeds, so that building the network takes no numbers from the training's random stream.
    initializer = keras.initializers.HeNormal(seed=0) if loaded is None else "zeros"

    # --- preprocessing
    pictures = keras.Input((None, None, 3), name="rgb", dtype="float32")
    x = pictures
    if preprocess:
        scale = [1 / s for s in convention.std]
        offset = [-m / s for m, s in zip(convention.mean, convention.std, strict=True)]
        # Nested, because Keras takes a plain list for channels first where a keras.json says so.
        x = layers.Rescaling([[scale]], [[offset]], dtype="float32", name="preprocess")(x)
        if convention.channels == "bgr":
            x = ops.flip(x, axis=-1)

    # --- convolutions, up to the deepest tap
    deepest = max(taps, key=names.index)
    outputs = {}
    for name in names[: names.index(deepest) + 1]:
        block = int(name.removeprefix("conv").removeprefix("relu").removeprefix("pool")[0])
        if name.startswith("conv"):
            if reflect:
                x = ops.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="reflect")
            x = layers.Conv2D(
                sources.NETWORKS[network][block - 1].filters,
                3,
                padding="valid" if reflect else "same",
                kernel_initializer=initializer,
                dtype=dtype,
                name=name,
            )(x)
        elif name.startswith("relu"):
            x = layers.ReLU(dtype=dtype, name=name)(x)
        else:
            x = pool(2, 2, padding=rounding, dtype=dtype, name=name)(x)
        outputs[name] = x

    model = keras.Model(pictures, {tap: outputs[tap] for tap in taps}, name=network)
    if loaded is not None:
        for layer in model.layers:
            if isinstance(layer, layers.Conv2D):
                layer.set_weights([loaded.arrays[f"{layer.name}/kernel"], loaded.arrays[f"{layer.name}/bias"]])
    model.trainable = False
    return model
