"""Dilated convolutions for dense prediction: semantic segmentation that sees far at full resolution.

Yu, Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016; the released code is fyu/dilation.

Reproduced: the front end (VGG16 without its last two poolings, no padding, 134,346,581 parameters for 21 classes), the
Basic and the Large context module with their identity initializations, the networks Dilation7, 8 and 10 for streets,
receptive fields, and that a context module makes a difference where what decides lies far away.

| departure from the paper | why |
|---|---|
| labels are taken at the middle of each 8 x 8 pixels, and maps enlarged about it; the code takes the first pixel | \
the network sees as far to one side as to the other |
| without pretrained weights the front end starts from He's initialization | ImageNet's are a flag away (`pretrained`) |
| trunks for phones, which pad: MobileNetV2, EfficientNet-Lite0 | not in the paper; a segmenter of 3 million weights |
| the context module sees the whole picture's positions; the code's, one tile's | no seams |
| published weights are read from .caffemodel files (`start_from`), but cannot be downloaded from here | their host |
| no multi-scale, no CRF-RNN behind the networks; `run --crf` adds a dense CRF | see dense_crf |
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.backbones import mobile
from kerasmodels.backbones.conv_bn import ConvBN, first_kernel
from kerasmodels.config import NonNegative, Positive, PositiveInt, check
from kerasmodels.data.segmentation import CAMVID_NAMES
from kerasmodels.errors import UsageError, WeightsError
from kerasmodels.family import Family, stream
from kerasmodels.layers import AtrousConvolution2D
from kerasmodels.layers.dropout import NamedDropout
from kerasmodels.models.dense_crf import refine
from kerasmodels.ports.caffe import load_caffemodel
from kerasmodels.ports.trunks import assign, imagenet
from kerasmodels.segmenter import BLOCKS, BelowOne, Segmenter, SegmenterConfig, labeled_crops
from kerasmodels.tasks.label import label_task

__all__ = ["Config", "ContextIdentity", "DilatedNet", "context_module", "front_end"]

CHANNELS = {"vgg16": (64, 128, 256, 512, 512), **mobile.CHANNELS}
"""Channels of VGG16's blocks, or of the stem and the stages."""


class Config(SegmenterConfig):
    """What to train. The defaults are the paper's for the front end on PASCAL VOC.

    Data, labels, augmentation, SGD and the CRF are fields of every segmenter, see `SegmenterConfig`.
    """

    corners = False  # Positions of the score map lie in the middle of 8 x 8 pixels.

    start_from: str | None = None
    """Begin with these weights: a run folder, such as of the front end, a preset, or a .caffemodel file (VGG16)."""
    trunk: Literal["vgg16", "mobilenet_v2", "efficientnet_lite0"] = "vgg16"
    """The front end's classification network: VGG16, which pads nothing (paper); the others are made for phones."""
    crop: PositiveInt = 500
    """Side of what the network sees, pixels: 8 n plus twice the margin (500 is 16 x 16 labels)."""
    scales: tuple[Positive, Positive] = (1.0, 1.0)
    """Crops are scaled by a random factor between these."""
    steps: PositiveInt = 60000
    """Training steps."""
    batch: PositiveInt = 14
    """Crops a step."""
    learning_rate: Positive = 1e-3
    """Of SGD (paper: 1e-3; the released code's default is 1e-4). Biases learn twice as fast."""
    schedule: Literal["constant", "step", "poly"] = "constant"
    """step: a tenth every `step_every` steps; poly: (1 - step / steps)^0.9."""
    step_every: PositiveInt = 20000
    """See `schedule`."""
    momentum: BelowOne = 0.9
    """Of SGD (urban front ends: 0.99)."""
    decay: NonNegative = 5e-4
    """Of weights, not biases (released code)."""

    channels: tuple[PositiveInt, ...] = ()
    """Of VGG16's blocks, or of the stem and the stages; left out, the trunk's own (VGG16: 64 128 256 512 512)."""
    head: PositiveInt = 4096
    """Channels of fc6 and fc7."""
    head_kernel: PositiveInt = 7
    """Weights on each side of fc6's kernel, which has rate 4."""
    head_rate: Positive = 1.0
    """Factor of the learning rate of what begins at random behind the trunk: fc6, fc7, final, context (DeepLab: 10)."""
    context: Literal["none", "basic", "large"] = "none"
    """The context module: none, C channels throughout, or 2C to 32C."""
    rates: tuple[PositiveInt, ...] = (1, 1, 2, 4, 8, 16, 1)
    """Rates of its 3 x 3 convolutions; Dilation7 has no 16, Dilation10 also 32 and 64."""
    context_padding: Literal["first", "same"] = "first"
    """first: zeros of the module's whole reach around its input (VOC); same: around each convolution's (urban)."""
    context_init: Literal["identity", "glorot"] = "identity"
    """identity: the module begins as ReLU (paper); glorot: at random."""
    context_noise: NonNegative = 0.01
    """Standard deviation of what is 0 in the identity (released code: 0.01 over the multiple of C; paper: small)."""
    trains: Literal["front", "context", "all"] = "front"
    """Which part learns: the front end by itself, the context module on a front end that stays, or both."""

    @property
    def widths(self) -> tuple[int, ...]:
        """`channels`, or those of the published trunk."""
        return self.channels or CHANNELS[self.trunk]

    @property
    def margin(self) -> int:
        """Pixels that the front end needs around what it labels (paper: 186)."""
        beside = 4 * (self.head_kernel // 2)
        if self.trunk != "vgg16":
            # These trunks pad, fc6 does not; half a block more, and positions lie in the middle of 8 x 8 pixels.
            return 8 * beside + 4
        reach, jump = 1, 1
        for number, count in enumerate(self.stages):
            reach += 2 * jump * (2 if number == 4 else 1) * count
            if number < 3:
                reach, jump = reach + jump, 2 * jump
        reach += 2 * beside * jump
        return (reach - jump) // 2

    @property
    def overlap(self) -> int:
        return 0 if self.trunk == "vgg16" else 12

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        super().validate()
        count = len(CHANNELS[self.trunk])
        check(len(self.widths) == count, f"{count} numbers of channels", self.widths)
        check(self.head_kernel % 2 == 1, "an odd head_kernel", self.head_kernel)
        check(len(self.rates) > 0, "at least one of rates", self.rates)
        seven = len(MULTIPLES["large"])
        check(self.context != "large" or len(self.rates) == seven, f"{seven} rates for a large module", self.rates)
        check(self.trains != "context" or self.context != "none", "a context module to train", self.context)
        check(self.trains != "front" or self.context == "none", "no context module while the front trains", self.trains)
        side = self.crop - 2 * self.margin
        check(
            side > 0 and side % 8 == 0,
            f"crop = {2 * self.margin} + a multiple of 8, such as {2 * self.margin + 128}",
            self.crop,
        )


MULTIPLES = {"basic": (), "large": (2, 2, 4, 8, 16, 32, 32)}
"""Channels of the context modules' layers, as multiples of C."""

_URBAN: dict[str, Any] = {
    "context": "basic",
    "context_padding": "same",
    "trains": "all",
    "momentum": 0.9,
    "crop": 852,
    "batch": 1,
}

_CAMVID: dict[str, Any] = {"classes": 11, "ignore": (11, 255), "names": CAMVID_NAMES}

VARIANTS = {
    "paper": Config(),
    "context": Config(context="large", trains="context"),
    "camvid": Config(learning_rate=1e-5, steps=20000, **_CAMVID, **_URBAN),
    "kitti": Config(
        classes=11,
        rates=(1, 1, 2, 4, 8, 1),
        learning_rate=1e-5,
        steps=20000,
        **{**_URBAN, "crop": 900, "momentum": 0.99},
    ),
    "cityscapes": Config(
        classes=19, rates=(1, 1, 2, 4, 8, 16, 32, 64, 1), learning_rate=1e-5, **{**_URBAN, "crop": 1396}
    ),
    "mobile": Config(
        trunk="efficientnet_lite0",
        pretrained="auto",
        head=64,
        head_kernel=3,
        head_rate=10.0,
        dropout=0.1,
        scales=(0.75, 1.5),
        steps=600,
        schedule="poly",
        **_CAMVID,
        **{**_URBAN, "crop": 328, "batch": 4},
    ),
    "quick": Config(
        blocks=(1, 1, 2, 2, 2),
        channels=(16, 32, 64, 96, 128),
        head=128,
        head_kernel=3,
        context="basic",
        context_padding="same",
        trains="all",
        crop=310,
        batch=4,
        steps=600,
        learning_rate=3e-3,
        schedule="poly",
        clip=5.0,
    ),
}
"""Dilation8 on VOC in two stages (paper, context), Dilation8, 7 and 10 for streets, one for phones, and one for minutes
on a CPU without pretrained weights."""


# --- networks ---------------------------------------------------------------------------------------------------------

MEAN = (116.52, 111.36, 102.93)
"""Of red, green and blue, subtracted from pictures of 0-255 (released code)."""


def front_end(config: Config, pooling: Literal["max", "avg"] = "max") -> keras.Model:
    """The trunk at a resolution of 8, fc6, fc7 and final: (N, 8 h + 2 m, 8 w + 2 m, 3) 0-255 -> (N, h, w, C).

    VGG16 is without its last two poolings and without padding; the convolutions of the fifth block have rate 2, fc6
    rate 4. The other trunks keep the stride of 8 in the same way, but see zeros beyond what they are given.

    Args:
        config: which trunk and how large; m is its margin.
        pooling: VGG16's (max in the paper).

    Reference:
        Yu, Koltun 2016, section 4.
    """
    picture = keras.Input((None, None, 3), name="rgb", dtype="float32")
    x = _vgg16(picture, config, pooling) if config.trunk == "vgg16" else _mobile(picture, config)
    for name, kernel, rate in (("fc6", config.head_kernel, 4), ("fc7", 1, 1)):
        x = AtrousConvolution2D(
            config.head,
            kernel,
            atrous_rate=rate,
            activation="relu",
            kernel_initializer="he_normal",
            name=name,
        )(x)
        x = NamedDropout(config.dropout, name=name.replace("fc", "drop"))(x)
    last = keras.initializers.RandomNormal(stddev=1e-3)
    x = layers.Conv2D(config.classes, 1, kernel_initializer=last, name="final")(x)
    return keras.Model(picture, x, name="front")


def _vgg16(picture: Any, config: Config, pooling: str) -> Any:
    x = layers.Rescaling(1.0, [-m for m in MEAN], dtype="float32", name="mean")(picture)
    for block, (count, channels) in enumerate(zip(config.stages, config.widths, strict=True), 1):
        for i in range(1, count + 1):
            x = AtrousConvolution2D(
                channels,
                3,
                atrous_rate=2 if block == 5 else 1,
                activation="relu",
                kernel_initializer=first_kernel() if block == i == 1 else "he_normal",
                name=f"conv{block}_{i}",
            )(x)
        if block <= 3:
            pool = layers.MaxPooling2D if pooling == "max" else layers.AveragePooling2D
            x = pool(2, name=f"pool{block}")(x)
    return x


def _mobile(picture: Any, config: Config) -> Any:
    """A trunk that has position i at pixel 8 i, for positions in the middle of 8 x 8 pixels.

    The margin is 8 q + 4, and fc6 takes q of it: the position 8 (q + 1) is pixel 4 of the first block.
    """
    mean, scale = mobile.INPUT[config.trunk]
    # 8 k + 1 pixels, of which such a trunk sees as far to one side as to the other.
    x = layers.Cropping2D(((0, 7), (0, 7)), dtype="float32", name="odd")(picture)
    x = layers.Rescaling(1 / scale, [-m / scale for m in mean], dtype="float32", name="mean")(x)
    conv = ConvBN(mobile.EPSILON, config.batch_norm)
    x = mobile.mobile(x, config.trunk, conv, config.stages, config.widths)
    return layers.Cropping2D(((1, 0), (1, 0)), name="middle")(x)


def context_module(
    classes: int,
    kind: Literal["basic", "large"] = "basic",
    rates: Sequence[int] = (1, 1, 2, 4, 8, 16, 1),
    padding: Literal["first", "same"] = "first",
    init: Literal["identity", "glorot"] = "identity",
    noise: float = 0.0,
) -> keras.Model:
    """3 x 3 convolutions of growing rates, and a 1 x 1: (N, h, w, C) -> (N, h, w, C). Fits behind any network.

    ReLU follows all but the last. With the identity initialization and no noise it is ReLU.

    Args:
        classes: C.
        kind: basic, C channels throughout (about 64 C^2 weights); large, 2C to 32C.
        rates: of the 3 x 3 convolutions.
        padding: first, all zeros around the input; same, around each convolution's input.
        init: identity, or Glorot's.
        noise: see `ContextIdentity`; divided by the multiple of C that a layer has.

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
    x = layers.ZeroPadding2D(sum(rates), name="pad")(maps) if padding == "first" else maps
    names = [f"ctx_conv{max(1, i)}_{2 if i == 1 else 1}" for i in range(len(rates) - 1)] + ["ctx_fc1"]
    for name, rate, multiple in zip(names, rates, multiples, strict=True):
        x = AtrousConvolution2D(
            multiple * classes,
            3,
            atrous_rate=rate,
            padding="valid" if padding == "first" else "same",
            activation="relu",
            kernel_initializer=ContextIdentity(classes, noise / multiple) if init == "identity" else "glorot_uniform",
            name=name,
        )(x)
    kernel = ContextIdentity(classes, noise) if init == "identity" else "glorot_uniform"
    x = layers.Conv2D(classes, 1, kernel_initializer=kernel, name="ctx_final")(x)
    return keras.Model(maps, x, name="context")


@keras.saving.register_keras_serializable("kerasmodels")
class ContextIdentity(keras.initializers.Initializer):
    """A convolution that passes its input on, spread over or gathered from groups of channels.

    From c_in to c_out channels, both multiples of C, the kernel's center is C / c_out where floor(a C / c_in) =
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


def _context(config: Config) -> keras.Model | None:
    if config.context == "none":
        return None
    return context_module(
        config.classes,
        config.context,
        config.rates,
        config.context_padding,
        config.context_init,
        config.context_noise,
    )


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class DilatedNet(Segmenter):
    """The front end, and behind it the context module if the config has one.

    Args:
        config: a `DilatedNet.Config`, its values as a dict, or None for the paper's.
        **kwargs: see `PaperModel`; the networks are `front` and `context`.

    Attributes:
        front, context: the two networks; `context` is None without a module.

    Shapes:
        (N, 8 h + 2 m, 8 w + 2 m, 3) RGB 0-255, m the config's margin -> (N, h, w, classes) float32 logits.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> config = km.models.DilatedNet.Config(channels=(4, 4, 8, 8, 8), head=8, context="basic", trains="all")
        >>> net = km.models.DilatedNet(config)
        >>> config.margin, tuple(net(np.zeros((1, 372 + 48, 372 + 56, 3), "float32")).shape)
        (186, (1, 6, 7, 21))
    """

    Config = Config
    family_name = "dilated_net"
    networks = {"front": front_end, "context": _context}  # noqa: RUF012

    def __init__(self, config: Any = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        if self.config.trains == "context":
            # Never to True: that would wake frozen batch normalization.
            self.front.trainable = False

    def score_map(self, inputs: Any, training: bool | None = None) -> Any:
        # A front end that stays as it is sees no dropout.
        return tf.cast(self.front(inputs, training=training and self.front.trainable), tf.float32)

    def with_context(self, maps: Any) -> Any:
        return maps if self.context is None else tf.cast(self.context(maps), tf.float32)

    def learning_rate_factors(self) -> dict[str, float]:
        # Of paths: the context module's layers are ctx_conv..., ctx_fc1 and ctx_final.
        behind = ("fc6/", "fc7/", "final/", "ctx_conv", "ctx_fc")
        return dict.fromkeys(behind, self.config.head_rate) if self.config.head_rate != 1 else {}

    def load_pretrained_trunk(self) -> None:
        config = self.config
        if (config.stages, config.widths) != (BLOCKS[config.trunk], CHANNELS[config.trunk]):
            raise UsageError(
                f"expected the blocks and channels of the published {config.trunk} for its weights. Received: "
                f"{config.stages}, {config.widths}. Use --pretrained random."
            )
        arrays = imagenet(config.trunk, config.pretrained, config.stages, MEAN)
        assign(self.front, arrays, config.pretrained, except_for=("fc6", "fc7", "final"))

    def start_from(self, source: str) -> None:
        """Take over weights: a run folder's, of both networks or of the front end, or those of a .caffemodel file.

        Raises:
            UsageError: no such thing.
            WeightsError: they are of another network.
        """
        if source.endswith(".caffemodel"):
            load_caffemodel(self, Path(source))
            return
        other = self.other(source)
        parts = [(self.front, other.front)]
        if self.context is not None and other.context is not None:
            parts.append((self.context, other.context))
        for mine, theirs in parts:
            shapes = [[w.shape for w in part.weights] for part in (mine, theirs)]
            if shapes[0] != shapes[1]:
                raise WeightsError(
                    f"expected weights for this {mine.name} in {source}. Received: another network's. "
                    "Give the flags (blocks, channels, head, classes, context) that it was trained with."
                )
        for mine, theirs in parts:
            mine.set_weights(theirs.get_weights())


# --- family -----------------------------------------------------------------------------------------------------------


FAMILY = Family(
    name="dilated_net",
    config=Config,
    variants=VARIANTS,
    model=DilatedNet,
    servables=DilatedNet.servables,
    task=label_task("dilated_net", refine),
    source=stream(labeled_crops),
)
