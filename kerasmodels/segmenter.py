"""`Segmenter` and `SegmenterConfig`: what the networks that label each pixel share besides their layers."""

import dataclasses
from abc import abstractmethod
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import keras
import tensorflow as tf
from annotated_types import Interval

from kerasmodels import presets
from kerasmodels.backbones import mobile
from kerasmodels.config import Finite, NonNegative, NonNegativeInt, Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data.segmentation import IGNORE, count_labels, label_pairs, segmentation_crops
from kerasmodels.errors import UsageError
from kerasmodels.family import Servable
from kerasmodels.layers import ReflectionPadding2D
from kerasmodels.layers.padding import on_multiples
from kerasmodels.layers.resize import resize_corners
from kerasmodels.optimizers import LayerwiseSGD
from kerasmodels.optimizers.layerwise_sgd import caffe_rate
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import image_to_labels
from kerasmodels.training import devices

BLOCKS = {"vgg16": (2, 2, 3, 3, 3), "resnet": (3, 4, 23, 3), **mobile.BLOCKS}
"""Of each published trunk: convolutions between VGG16's poolings, blocks of ResNet-101's and other stages."""
BelowOne = Annotated[float, Interval(ge=0, lt=1)]


class SegmenterConfig(TrainingConfig):
    """Fields of every segmenter; those without a value here have the family's paper's."""

    corners: ClassVar[bool]
    """Position i of the maps is pixel i stride, the last pixel included; else the middle of stride x stride pixels."""

    photos: Path | None = None
    """A folder of pictures."""
    masks: Path | None = None
    """A folder of label maps (palette or gray PNG) named like their pictures, sub-folders included; see `ignore`."""
    ignore: tuple[Annotated[int, Interval(ge=0, le=255)], ...] = (255,)
    """Labels of pixels that do not count; CamVid has 11, too."""
    pretrained: str = "random"
    """The trunk's weights to begin with: random; auto, or a file, as the family's page lists them for each trunk."""

    trunk: str
    """The classification network."""
    blocks: tuple[PositiveInt, ...] = ()
    """Convolutions between the trunk's poolings, residual blocks or inverted residual blocks of each stage; left out,
    those of the published trunk (VGG16: 2 2 3 3 3, ResNet-101: 3 4 23 3)."""
    classes: Annotated[int, Interval(ge=2, le=255)] = 21
    """Labels 0 to classes - 1 (VOC 21, CamVid 11, Cityscapes 19)."""
    names: tuple[str, ...] = ()
    """What the labels mean, for legends; left out, they are numbers."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """frozen: statistics, scales and shifts stay as they are; batches are too small for others. VGG16 has none."""

    crop: PositiveInt
    """Side of what the network sees, pixels."""
    scales: tuple[Positive, Positive]
    """Crops are scaled by a random factor between these."""
    flip: bool = True
    """Mirror half of the crops."""
    dropout: BelowOne = 0.5
    """After fc6 and fc7."""
    schedule: Literal["constant", "step", "poly"]
    """poly: (1 - step / steps)^0.9, for each step anew; step: a tenth every `step_every` steps."""
    step_every: PositiveInt
    """See `schedule`."""
    momentum: BelowOne = 0.9
    """Of SGD."""
    decay: NonNegative = 5e-4
    """Of weights, not biases."""
    clip: Positive | None = None
    """Largest norm of the gradient; left out, there is no limit, as in the paper."""

    crf_iterations: NonNegativeInt = 10
    """Of mean field, where labels are refined (DeepLab: 10)."""
    crf_gaussian_sxy: Positive = 1.0
    """Width of the kernel that smooths, pixels (this and the next: DeepLab's PyTorch port's; its paper: 3)."""
    crf_gaussian_compat: Finite = 3.0
    """Its weight (paper: 3)."""
    crf_bilateral_sxy: Positive = 67.0
    """Width of the kernel that follows the picture, pixels (paper: one of 30 to 100)."""
    crf_bilateral_srgb: Positive = 3.0
    """And in color, levels of 0-255 (paper: one of 3 to 6)."""
    crf_bilateral_compat: Finite = 4.0
    """Its weight (paper: one of 3 to 6)."""
    crf_radius: PositiveInt = 5
    """Of the served CRF's window, in steps of `crf_stride`."""
    crf_stride: PositiveInt = 4
    """How many times smaller the field is that its second kernel works on."""

    @property
    def stages(self) -> tuple[int, ...]:
        """`blocks`, or those of the published trunk."""
        return self.blocks or BLOCKS[self.trunk]

    @property
    def stride(self) -> int:
        """Pixels between two positions of the maps."""
        return 8

    @property
    def margin(self) -> int:
        """Pixels that the network needs around what it labels."""
        return 0

    @property
    def field(self) -> int:
        """Pixels along a side for a single position."""
        return 2 * self.margin + (1 if self.corners else self.stride)

    @property
    def overlap(self) -> int:
        """Positions that a tile of a large picture sees beyond what it labels and its margin."""
        return 0

    @property
    def crf(self) -> dict[str, Any]:
        """The arguments of `layers.DenseCRF`, for the CRF behind the network."""
        names = [field.name for field in dataclasses.fields(self) if field.name.startswith("crf_")]
        return {name.removeprefix("crf_"): getattr(self, name) for name in names}

    def label_names(self) -> tuple[str, ...]:
        """A name for each label, its number if there is none."""
        return self.names or tuple(map(str, range(self.classes)))

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        check(len(self.names) in (0, self.classes), f"{self.classes} names, or none", self.names)
        check(self.scales[0] <= self.scales[1], "scales in order", self.scales)
        count = len(BLOCKS[self.trunk])
        check(len(self.stages) == count, f"{count} numbers of blocks", self.blocks)


class Segmenter(PaperModel):
    """A network that says of each pixel what it shows. Its score maps have a position for each stride x stride pixels.

    A subclass says how `score_map` is computed and, if something behind it must see whole maps at once, `with_context`.
    `compile` without arguments gives SGD as Caffe does it, with a learning rate for each kind of weights, and the cross
    entropy of the pixels that count; `fit` is Keras' own.
    """

    # --- network ---

    @abstractmethod
    def score_map(self, inputs: Any, training: bool | None = None) -> Any:
        """RGB 0-255 (N, stride (h - 1) + field, stride (w - 1) + field, 3) -> (N, h, w, classes), float32."""

    def with_context(self, maps: Any) -> Any:
        """`score_map`s (N, h, w, classes) of whole pictures -> their logits, float32."""
        return maps

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.with_context(self.score_map(inputs, training))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, *sides, _ = input_shape
        field, stride = self.config.field, self.config.stride
        return (n, *(None if side is None else (side - field) // stride + 1 for side in sides), self.config.classes)

    def enlarged(self, logits: Any, size: Any) -> Any:
        """Logits (N, h, w, classes) at every pixel of pictures of that size."""
        return resize_corners(logits, size) if self.config.corners else tf.image.resize(logits, size, "bilinear")

    def probabilities(self, image: Any) -> Any:
        """Pictures (N, H, W, 3) RGB 0-255 of any size -> probabilities of each pixel's labels (N, H, W, classes)."""
        around = ReflectionPadding2D(self.config.margin)

        def large_logits(x: Any) -> Any:
            seen = around(x) if self.config.margin else x
            return self.enlarged(self(tf.cast(seen, tf.float32), training=False), tf.shape(x)[1:3])

        return tf.nn.softmax(on_multiples(image, self.config.stride, large_logits, more=int(self.config.corners)))

    def servables(self) -> dict[str, Servable]:
        """`segment`, and `segment_crf` with a CRF behind it."""
        config = self.config
        return image_to_labels(self, self.probabilities, config.classes, config.names, config.crf)

    # --- training ---

    def loss_terms(self) -> tuple[str, ...]:
        return ()

    def learning_rate_factors(self) -> dict[str, float]:
        """Part of a variable's path -> factor of its learning rate; biases learn twice as fast besides."""
        return {}

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        config = self.config
        rate = caffe_rate(config.learning_rate, config.schedule, config.steps, config.step_every)
        factors = {"bias": 2.0, **self.learning_rate_factors()}
        return LayerwiseSGD(rate, config.momentum, config.decay, factors, global_clipnorm=config.clip)

    def default_loss(self) -> Any:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        loss = super().compute_loss(x, y, y_pred, sample_weight, training)
        return loss * devices.share_of_labels(y, IGNORE)

    # --- weights ---

    @abstractmethod
    def load_pretrained_trunk(self) -> None:
        """Take over the weights of the classification network that `config.pretrained` names.

        Raises:
            UsageError: the trunk is not the published one, or there is no such source.
            WeightsError: the weights are not there, damaged, or of another network.
        """

    def initialize(self) -> None:
        """First `config.pretrained`, then `config.start_from`."""
        if self.config.pretrained != "random":
            self.load_pretrained_trunk()
        super().initialize()

    def other(self, source: str) -> Any:
        """The model of this family that a run folder or a preset holds, for `start_from`.

        Raises:
            UsageError: no such thing, or of another family.
        """
        trained = presets.find(source)
        if trained.family != self.family_name:
            raise UsageError(
                f"expected a run of {self.family_name} to start from. Received: {source}, of {trained.family}."
            )
        return trained.load()


def labeled_crops(config: SegmenterConfig, start: int) -> tf.data.Dataset:
    """Batches (crops (N, crop, crop, 3), labels at the network's positions (N, h, w)) for `fit`, from `start` on.

    Raises:
        UsageError: a folder is not given.
        DataError: see `label_pairs` and `count_labels`.
    """
    what = "a folder of pictures and one of label maps: --photos DIR --masks DIR"
    pairs = label_pairs(needed(config.photos, what), needed(config.masks, what))
    count_labels(pairs, config.classes, config.ignore)
    crops = segmentation_crops(
        pairs,
        config.crop - 2 * config.margin,
        config.batch,
        config.seed,
        start,
        margin=config.margin,
        scales=config.scales,
        flip=config.flip,
        ignore=config.ignore,
    )
    step, first = config.stride, 0 if config.corners else config.stride // 2
    return crops.map(lambda photo, labels: (photo, labels[:, first::step, first::step]))
