"""DeepLab v2: semantic segmentation by atrous convolutions, branches that see at several scales, and a CRF.

Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
Convolution, and Fully Connected CRFs, 2016 (PAMI 2018); kazuto1011/deeplab-pytorch, a port of it.

Reproduced: VGG16 LargeFOV (20,505,429 parameters for 21 classes), VGG16 ASPP-S and ASPP-L (37,877,652), ResNet-101
ASPP (44,048,532), several scales with shared weights, fused by the maximum and each with a loss, the poly schedule, the
learning rates of the last layer and of biases, frozen batch normalization, the CRF and what it adds on CamVid.

| departure from the paper | why |
|---|---|
| all padding is symmetric and maps are enlarged from corner to corner, at every size | position i is pixel 8 i |
| smaller scales have 8 k + 1 pixels, as in the released code; the port rounds down and shifts them | as above |
| VGG16's fc6 and fc7 begin at random; the paper's are cut out of the classifier's | \
VGG16's 13 convolutions are what can be had here |
| beyond a picture's edge, crops show it mirrored, without labels; the code's are gray | the trunk sees pictures |
| the served CRF sees a window; `run --crf` applies the full one | LiteRT and ONNX have no lattice |
| trunks for phones: MobileNetV2, EfficientNet-Lite0 | not in the paper |
| no COCO, no PASCAL VOC training here | the data, and days |

The ResNet trunk may end in deformable convolutions (Dai et al. 2017).
"""

from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from annotated_types import Interval, Le
from keras import layers

from kerasmodels.backbones import mobile
from kerasmodels.backbones.conv_bn import ConvBN, first_kernel
from kerasmodels.config import NonNegativeInt, Positive, PositiveInt, check
from kerasmodels.data.segmentation import CAMVID_NAMES, VOC_NAMES
from kerasmodels.errors import UsageError
from kerasmodels.family import Family, stream
from kerasmodels.layers import AtrousConvolution2D, AtrousSpatialPyramidPooling
from kerasmodels.layers.resize import resize_corners
from kerasmodels.models.dense_crf import refine
from kerasmodels.ports.deeplab_torch import load_port
from kerasmodels.ports.trunks import assign, imagenet
from kerasmodels.segmenter import BLOCKS, Segmenter, SegmenterConfig, labeled_crops
from kerasmodels.tasks.label import label_task

__all__ = ["Config", "DeepLab", "score_network"]


class Config(SegmenterConfig):
    """What to train. The defaults are the paper's best network on PASCAL VOC: ResNet-101, ASPP, three scales.

    Data, labels, augmentation, SGD and the CRF are fields of every segmenter, see `SegmenterConfig`.
    """

    corners = True  # Position i of the score map is pixel i stride, the last pixel included.

    start_from: str | None = None
    """Begin with these weights: a run folder, a preset, or a .pth file of the PyTorch port (ResNet)."""
    trunk: Literal["vgg16", "resnet", "mobilenet_v2", "efficientnet_lite0"] = "resnet"
    """The classification network; the last two are made for phones."""
    crop: PositiveInt = 321
    """Side of what the network sees, pixels: a multiple of output_stride and one more."""
    scales: tuple[Positive, Positive] = (0.5, 1.5)
    """Crops are scaled by a random factor between these."""
    steps: PositiveInt = 20000
    """Training steps."""
    batch: PositiveInt = 10
    """Crops a step."""
    learning_rate: Positive = 2.5e-4
    """Of SGD (VGG16: 1e-3). The last layer learns ten times as fast, biases twice that."""
    schedule: Literal["constant", "step", "poly"] = "poly"
    """poly: (1 - step / steps)^0.9, for each step anew; step: a tenth every `step_every` steps (version 1)."""
    step_every: PositiveInt = 2000
    """See `schedule`."""

    width: Annotated[Positive, Le(4)] = 1.0
    """Factor of the trunk's channels."""
    output_stride: Literal[8, 16] = 8
    """Pixels between two positions of the maps (Deformable ConvNets: 16, with rate 2 in the last stage)."""
    deformable_layers: NonNegativeInt = 0
    """How many of ResNet's last 3 x 3 convolutions are deformable (Dai et al. 2017: 3)."""
    rates: tuple[PositiveInt, ...] = (6, 12, 18, 24)
    """Of the branches: ASPP-L; ASPP-S is 2 4 8 12, LargeFOV 12 alone."""
    head: NonNegativeInt = 0
    """Channels of fc6 and fc7 in each branch (VGG16: 1024); 0: a branch is one convolution (ResNet)."""
    head_kernel: PositiveInt = 3
    """Weights on each side of a branch's first convolution (the paper's other fields of view: 7 or 4)."""
    pyramid: tuple[Annotated[float, Interval(gt=0, le=2)], ...] = (0.5, 0.75)
    """Multi-scale inputs (MSC): scales of the picture that are seen beside its own, with the same weights; the largest
    score of each label counts."""
    frozen: NonNegativeInt = 0
    """Stages at the trunk's beginning that keep their weights (VGG16 has 5 blocks, ResNet a stem and 4 stages)."""

    @property
    def stride(self) -> int:
        return self.output_stride

    @property
    def overlap(self) -> int:
        # Tiles of large pictures overlap by 128 pixels: the network sees zeros beyond a tile's border.
        return 128 // self.output_stride

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        super().validate()
        most = sum(self.stages) if self.trunk == "resnet" else 0
        expected = f"0 to {most} deformable layers" if most else "no deformable layers: only ResNet can have them"
        check(self.deformable_layers <= most, expected, self.deformable_layers)
        check(len(self.rates) > 0, "at least one of rates", self.rates)
        check(len(set(self.rates)) == len(self.rates), "rates that differ", self.rates)
        stages = len(self.stages) + (self.trunk != "vgg16")
        check(self.frozen <= stages, f"0 to {stages} frozen stages", self.frozen)
        stride = self.output_stride
        expected = f"crop = a multiple of {stride} and one more, such as {20 * stride + 1}"
        check(self.crop > 1 and self.crop % stride == 1, expected, self.crop)


_VGG: dict[str, Any] = {
    "trunk": "vgg16",
    "head": 1024,
    "pyramid": (),
    "learning_rate": 1e-3,
    "scales": (1.0, 1.0),
    "names": VOC_NAMES,
}
_CAMVID: dict[str, Any] = {"classes": 11, "ignore": (11, 255), "names": CAMVID_NAMES, "batch": 4, "pyramid": ()}

VARIANTS = {
    "paper": Config(names=VOC_NAMES),
    "large_fov": Config(rates=(12,), **_VGG),
    "aspp_s": Config(rates=(2, 4, 8, 12), **_VGG),
    "aspp_l": Config(**_VGG),
    # The network of Dai et al. 2017, section 4.2.
    "deformable": Config(
        rates=(1,),
        head_kernel=1,
        pyramid=(),
        output_stride=16,
        deformable_layers=3,
        learning_rate=1e-3,
        names=VOC_NAMES,
    ),
    "mobile": Config(
        trunk="efficientnet_lite0",
        pretrained="auto",
        scales=(0.75, 1.5),
        steps=300,
        learning_rate=1e-3,
        clip=1.0,
        **_CAMVID,
    ),
    "quick": Config(
        trunk="mobilenet_v2",
        width=0.5,
        rates=(2, 4, 8, 12),
        batch_norm="trained",
        crop=161,
        steps=600,
        learning_rate=1e-2,
        clip=5.0,
        **_CAMVID,
    ),
}
"""ResNet-101 with ASPP-L and three scales (paper), the VGG16 networks, a deformable one, one for phones, and one for
minutes on a CPU without pretrained weights."""


# --- network ----------------------------------------------------------------------------------------------------------

MEAN = (122.675, 116.669, 104.008)
"""Of red, green and blue, subtracted from pictures of 0-255 (released code)."""


def score_network(config: Config) -> keras.Model:
    """Trunk and head: (N, s h + 1, s w + 1, 3) RGB 0-255 -> scores (N, h + 1, w + 1, classes), s the output stride.

    Everything is padded alike on all sides of a picture of s k + 1 pixels: position i of the maps is pixel s i.
    """
    trunk = {"vgg16": _vgg16, "resnet": _resnet}.get(config.trunk, _mobile)
    mean, scale = mobile.INPUT.get(config.trunk, (MEAN, 1.0))
    picture = keras.Input((None, None, 3), name="rgb", dtype="float32")
    x = layers.Rescaling(1 / scale, [-m / scale for m in mean], dtype="float32", name="mean")(picture)
    x = trunk(x, config)
    hidden = (config.head, config.head) if config.head else ()
    x = AtrousSpatialPyramidPooling(
        config.classes, config.rates, config.head_kernel, hidden, config.dropout, name="aspp"
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
                trainable=block > config.frozen,
                name=f"conv{block}_{i}",
            )(x)
        # The fifth pooling would halve once more; the head's rates count positions as they are (released code).
        step = 2 if stride < config.output_stride and block < 5 else 1
        x = layers.MaxPooling2D(3, step, padding="same", name=f"pool{block}")(x)
        stride, rate = stride * step, 2 if block == 4 and step == 1 else rate
    return x


def _resnet(x: Any, config: Config) -> Any:
    """A stem and four stages of bottlenecks; a stage that would pass the output stride has an atrous rate instead."""
    # conv(x, channels, kernel, name): convolution, batch normalization, ReLU.
    conv, first_deformable = (
        ConvBN(1e-5, config.batch_norm, config.frozen),
        sum(config.stages) - config.deformable_layers,
    )
    conv.stage(1)
    x = conv(x, _channels(config, 64), 7, "conv1", stride=2, initializer=first_kernel())
    x = layers.MaxPooling2D(3, 2, padding="same", name="pool1")(x)
    stride, rate, done = 4, 1, 0
    for stage, count in enumerate(config.stages, 2):
        conv.stage(stage)
        step = 1
        if stage > 2:
            step = 2 if stride < config.output_stride else 1
            stride, rate = stride * step, rate if step == 2 else 2 * rate
        inner = _channels(config, 2 ** (stage + 4))
        for block in range(1, count + 1):
            name, shortcut = f"conv{stage}_{block}", x
            x = conv(x, inner, 1, f"{name}_reduce", stride=step if block == 1 else 1)
            x = conv(x, inner, 3, f"{name}_3x3", rate=rate, deformable=done >= first_deformable)
            x = conv(x, 4 * inner, 1, f"{name}_increase", activation=None)
            if block == 1:
                shortcut = conv(shortcut, 4 * inner, 1, f"{name}_shortcut", stride=step, activation=None)
            x = layers.Add(name=f"{name}_add")([x, shortcut])
            x = layers.ReLU(name=f"{name}_relu")(x)
            done += 1
    return x


def _mobile(x: Any, config: Config) -> Any:
    """MobileNetV2 or EfficientNet-Lite0, with atrous rates in the same way."""
    conv = ConvBN(mobile.EPSILON, config.batch_norm, config.frozen)
    channels = [_channels(config, count) for count in mobile.CHANNELS[config.trunk]]
    return mobile.mobile(x, config.trunk, conv, config.stages, channels, config.output_stride)


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class DeepLab(Segmenter):
    """Scores of each label at every 8th (or 16th) pixel; with a pyramid, the largest of several scales.

    `fit` is Keras' own; `Segmenter` brings SGD with the poly schedule, and what is served for pictures of any size.

    Args:
        config: a `DeepLab.Config`, its values as a dict, or None for the paper's.
        **kwargs: see `PaperModel`; the network is `net`.

    Attributes:
        net: trunk and head, the network that all scales share.

    Shapes:
        (N, s h + 1, s w + 1, 3) RGB 0-255, s the output stride -> (N, h + 1, w + 1, classes) float32 logits of the
        pixels 0, s, 2s ... In training with a pyramid, a list of them: the picture's own scale, each of the pyramid,
        the largest.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> config = km.models.DeepLab.Config(trunk="vgg16", width=1 / 16, head=16, pyramid=())
        >>> net = km.models.DeepLab(config)
        >>> tuple(net(np.zeros((1, 65, 41, 3), "float32")).shape)
        (1, 9, 6, 21)
    """

    Config = Config
    family_name = "deeplab"
    networks = {"net": score_network}  # noqa: RUF012

    def score_map(self, inputs: Any, training: bool | None = None) -> Any:
        """What `call` gives; in training with a pyramid, one of each scale, and their maximum."""
        x = tf.cast(inputs, tf.float32)
        own = self._scores(x, training)
        if not self.config.pyramid:
            return own
        maps, size = [own], tf.shape(own)[1:3]
        for scale in self.config.pyramid:
            maps.append(self._scores(resize_corners(x, self._scaled(x, scale)), training))
        fused = maps[0]
        for smaller in maps[1:]:
            fused = tf.maximum(fused, resize_corners(smaller, size))
        return [*maps, fused] if training else fused

    def _scores(self, x: Any, training: bool | None) -> Any:
        return tf.cast(self.net(x, training=training), tf.float32)

    def _scaled(self, x: Any, scale: float) -> Any:
        """(H, W) of the scaled picture, a multiple of the stride and one more, too."""
        stride = self.config.output_stride
        if None not in x.shape[1:3]:
            return [stride * int(scale * ((side - 1) // stride) + 0.5) + 1 for side in x.shape[1:3]]
        cells = tf.cast((tf.shape(x)[1:3] - 1) // stride, tf.float32)
        return stride * tf.cast(scale * cells + 0.5, tf.int32) + 1

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The sum over the maps of the cross-entropy with the labels nearest to their positions."""
        total = tf.constant(0.0)
        for logits in y_pred if isinstance(y_pred, list) else [y_pred]:
            labels = _nearest(y, tf.shape(logits)[1:3])
            total += super().compute_loss(x, labels, logits, sample_weight, training)
        return total

    def learning_rate_factors(self) -> dict[str, float]:
        # 10 for the last convolution of each branch, of one or of three.
        last = 3 if self.config.head else 1
        return {f"aspp/rate{rate}_{last}/": 10.0 for rate in self.config.rates}

    def load_pretrained_trunk(self) -> None:
        config = self.config
        if config.width != 1 or (config.trunk != "resnet" and config.stages != BLOCKS[config.trunk]):
            raise UsageError(
                f"expected the width and the blocks of the published {config.trunk} for its weights. Received: width "
                f"{config.width:g}, blocks {config.stages}. Use --pretrained random."
            )
        arrays = imagenet(config.trunk, config.pretrained, config.stages, MEAN)
        assign(self.net, arrays, config.pretrained, except_for=("aspp",))

    def start_from(self, source: str) -> None:
        """Take over weights: a run folder's or a preset's, or those of a .pth file of the PyTorch port.

        Where a run folder's network has other classes or another head, only its trunk is taken over.

        Raises:
            UsageError: no such thing.
            WeightsError: they are of another network.
        """
        if source.endswith((".pth", ".pt")):
            load_port(self.net, self.config, Path(source))
            return
        other = self.other(source).net
        mine, theirs = ([(w.path, w.shape) for w in net.get_layer("aspp").weights] for net in (self.net, other))
        arrays = {layer.name: layer.get_weights() for layer in other.layers if layer.weights}
        assign(self.net, arrays, source, except_for=() if mine == theirs else ("aspp",))


def _nearest(labels: Any, size: Any) -> Any:
    """Labels (N, H, W) at (h, w) positions spread evenly from the first to the last."""
    for axis in (0, 1):
        before = tf.shape(labels)[axis + 1]
        step = tf.cast(before - 1, tf.float32) / tf.cast(tf.maximum(size[axis] - 1, 1), tf.float32)
        at = tf.cast(tf.cast(tf.range(size[axis]), tf.float32) * step + 0.5, tf.int32)
        labels = tf.gather(labels, at, axis=axis + 1)
    return labels


# --- family -----------------------------------------------------------------------------------------------------------


FAMILY = Family(
    name="deeplab",
    config=Config,
    variants=VARIANTS,
    model=DeepLab,
    servables=DeepLab.servables,
    task=label_task("deeplab", refine),
    source=stream(labeled_crops),
)
