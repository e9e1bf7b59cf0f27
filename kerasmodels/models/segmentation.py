"""What the families that label each pixel share: fields of their configs, training data, servables, and `run`."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import keras
import numpy as np
import tensorflow as tf
import tyro

from kerasmodels import weights
from kerasmodels.data import read_image
from kerasmodels.data.images import SUFFIXES, write_image
from kerasmodels.data.segmentation import (
    IGNORE,
    count_labels,
    label_pairs,
    legend,
    overlay,
    segmentation_crops,
    voc_palette,
    write_label_map,
)
from kerasmodels.errors import UsageError
from kerasmodels.family import RunReport, Servable, TensorSpec, check
from kerasmodels.models import dense_crf
from kerasmodels.optimizers import LayerwiseSGD
from kerasmodels.optimizers.layerwise_sgd import caffe_rate
from kerasmodels.training import devices


@dataclass(frozen=True, kw_only=True)
class SegmentationConfig:
    """Fields of every config; those without a value here have the family's paper's."""

    trunks: ClassVar[tuple[str, ...]]
    """What `trunk` may be."""

    photos: Path | None = None
    """A folder of pictures."""
    masks: Path | None = None
    """A folder of label maps (palette or grey PNG) named like their pictures, sub-folders included; see `ignore`."""
    ignore: tuple[int, ...] = (255,)
    """Labels of pixels that do not count; CamVid has 11, too."""
    start_from: str | None = None
    """Begin with these weights: a run folder, or a preset."""
    pretrained: str = "random"
    """The trunk's weights to begin with: random; auto, or a file, as the family's page lists them for each trunk."""

    trunk: str
    """The classification network."""
    classes: int = 21
    """Labels 0 to classes - 1 (VOC 21, CamVid 11, Cityscapes 19)."""
    names: tuple[str, ...] = ()
    """What the labels mean, for legends; left out, they are numbers."""
    batch_norm: Literal["frozen", "trained"] = "frozen"
    """frozen: statistics, scales and shifts stay as they are; batches are too small for others. VGG16 has none."""

    crop: int
    """Side of what the network sees, pixels."""
    scales: tuple[float, float]
    """Crops are scaled by a random factor between these."""
    flip: bool = True
    """Mirror half of the crops."""
    dropout: float = 0.5
    """After fc6 and fc7."""
    steps: int
    """Training steps."""
    batch: int
    """Crops a step."""
    learning_rate: float
    """Of SGD. Biases learn twice as fast."""
    schedule: Literal["constant", "step", "poly"]
    """poly: (1 - step / steps)^0.9, for each step anew; step: a tenth every `step_every` steps."""
    step_every: int
    """See `schedule`."""
    momentum: float = 0.9
    """Of SGD."""
    decay: float = 5e-4
    """Of weights, not biases."""
    clip: float | None = None
    """Largest norm of the gradient; left out, there is no limit, as in the paper."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Weights stay float32."""
    seed: int = 0
    """Of crops and initial weights."""

    crf_iterations: int = 10
    """Of mean field, where labels are refined (DeepLab: 10)."""
    crf_gaussian_sxy: float = 1.0
    """Width of the kernel that smooths, pixels (this and the next: DeepLab's PyTorch port's; its paper: 3)."""
    crf_gaussian_compat: float = 3.0
    """Its weight (paper: 3)."""
    crf_bilateral_sxy: float = 67.0
    """Width of the kernel that follows the picture, pixels (paper: one of 30 to 100)."""
    crf_bilateral_srgb: float = 3.0
    """And in colour, levels of 0-255 (paper: one of 3 to 6)."""
    crf_bilateral_compat: float = 4.0
    """Its weight (paper: one of 3 to 6)."""
    crf_radius: int = 5
    """Of the served CRF's window, in steps of `crf_stride`."""
    crf_stride: int = 4
    """How many times smaller the field is that its second kernel works on."""

    @property
    def crf(self) -> dense_crf.Config:
        """The CRF behind the network."""
        names = [field.name for field in dataclasses.fields(self) if field.name.startswith("crf_")]
        values: dict[str, Any] = {name.removeprefix("crf_"): getattr(self, name) for name in names}
        return dense_crf.Config(labels=self.classes, **values)

    def label_names(self) -> tuple[str, ...]:
        """A name for each label, its number if there is none."""
        return tuple(self.names) or tuple(str(number) for number in range(self.classes))

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(2 <= self.classes <= 255, "2 to 255 classes", self.classes)
        check(all(0 <= label <= 255 for label in self.ignore), "labels to ignore of 0 to 255", self.ignore)
        check(len(self.names) in (0, self.classes), f"{self.classes} names, or none", self.names)
        for name, known in (
            ("trunk", self.trunks),
            ("batch_norm", ("frozen", "trained")),
            ("schedule", ("constant", "step", "poly")),
            ("precision", ("float32", "mixed_bfloat16")),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        check(0 < self.scales[0] <= self.scales[1], "0 < scales, in order", self.scales)
        check(0 <= self.dropout < 1, "0 <= dropout < 1", self.dropout)
        check(self.steps > 0 and self.batch > 0, "steps > 0 and batch > 0", (self.steps, self.batch))
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)
        check(self.step_every > 0, "step_every > 0", self.step_every)
        check(0 <= self.momentum < 1, "0 <= momentum < 1", self.momentum)
        check(self.decay >= 0, "decay >= 0", self.decay)
        check(self.clip is None or self.clip > 0, "clip > 0, or none", self.clip)
        self.crf.validate()


# --- training ---------------------------------------------------------------------------------------------------------


def compile_with_sgd(model: keras.Model, config: SegmentationConfig, factors: Mapping[str, float]) -> None:
    """Cross-entropy without the pixels that do not count, and SGD. factors: see `LayerwiseSGD`; biases have theirs."""
    rate = caffe_rate(config.learning_rate, config.schedule, config.steps, config.step_every)
    sgd = LayerwiseSGD(rate, config.momentum, config.decay, {"bias": 2.0, **factors}, global_clipnorm=config.clip)
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORE)
    # XLA makes convolutions slower on CPUs.
    model.compile(sgd, loss, jit_compile=False)


def share_of_labels(labels: Any) -> Any:
    """How many of this device's pixels count, in units of an equal share of the batch's; 1 on one device.

    What a device's mean over the pixels that count is multiplied with: it may have more or fewer of them than others.
    """
    counted = tf.reduce_sum(tf.cast(tf.not_equal(labels, tf.cast(IGNORE, labels.dtype)), tf.float32))
    return tf.math.divide_no_nan(counted, devices.mean_over_devices(counted)) if devices.count() > 1 else 1.0


def labelled_crops(config: SegmentationConfig, start: int, margin: int = 0) -> tf.data.Dataset:
    """Crops (batch, crop, crop, 3), and the labels (batch, crop - 2 margin, crop - 2 margin) of their inner pixels.

    Raises:
        UsageError: a folder is not given.
        DataError: see `label_pairs` and `count_labels`.
    """
    if config.photos is None or config.masks is None:
        raise UsageError("training needs a folder of pictures and one of label maps: --photos DIR --masks DIR.")
    pairs = label_pairs(config.photos, config.masks)
    count_labels(pairs, config.classes, config.ignore)
    return segmentation_crops(
        pairs,
        config.crop - 2 * margin,
        config.batch,
        config.seed,
        start,
        margin=margin,
        scales=config.scales,
        flip=config.flip,
        ignore=config.ignore,
    )


# --- servables --------------------------------------------------------------------------------------------------------


_UNDECIDED = (
    "where two labels are equally likely and the picture says nothing, each iteration of the CRF multiplies the "
    "network's rounding, to about a thousandfold in all, and a probability may differ by some thousandths."
)


def segmentation_servables(
    model: keras.Model, config: SegmentationConfig, probabilities: Callable[[Any], Any]
) -> dict[str, Servable]:
    """What a segmenter serves: `segment`, and `segment_crf` with a CRF behind it.

    Args:
        model: whose weights are meant.
        config: its config.
        probabilities: pictures (N, H, W, 3) uint8 of any size -> of each pixel's labels (N, H, W, classes) float32.
    """
    crf = dense_crf.FullyConnectedCRF(config.crf, "window")

    def answer(image: tf.Tensor, found: tf.Tensor) -> dict[str, tf.Tensor]:
        labels = tf.argmax(found, axis=3, output_type=tf.int32)
        return {"labels": labels, "overlay": painted(image, labels), "probabilities": found}

    def segment(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(image, probabilities(image))

    def segment_crf(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return answer(image, crf({"image": image, "probabilities": probabilities(image)}))

    shape = ("batch", "height", "width")
    names = ", ".join(f"{number} {name}" for number, name in enumerate(config.names))
    meaning = f": {names}" if names else ""
    shared: dict[str, Any] = {
        "model": model,
        "inputs": (TensorSpec("image", (*shape, 3), "uint8", "RGB pictures, 0-255, of any size", "image"),),
        "outputs": (
            TensorSpec("labels", shape, "int32", f"the likeliest of {config.classes} labels of each pixel{meaning}"),
            TensorSpec(
                "overlay", (*shape, 3), "uint8", "the pictures with PASCAL VOC's colours of the labels over them"
            ),
            TensorSpec("probabilities", (*shape, config.classes), "float32", "of each label, 0-1", atol=1e-3),
        ),
        "example": example_pictures,
        "dims": {"batch": 1, "height": 240, "width": 320},
        "check_dims": ({"batch": 1, "height": 97, "width": 130}, {"batch": 2, "height": 64, "width": 128}),
    }
    reach = (2 * config.crf.radius + 1) * config.crf.stride
    return {
        "segment": Servable(call=segment, doc="what each pixel shows", **shared),
        "segment_crf": Servable(
            call=segment_crf,
            doc=f"what each pixel shows, moved onto the picture's edges by a CRF in a window of {reach} pixels",
            unequal=dict.fromkeys(("flat", "noise", "two-valued"), _UNDECIDED),
            **shared,
        ),
    }


def painted(image: Any, labels: Any, opacity: float = 0.55) -> Any:
    """Pictures (N, H, W, 3) uint8 with PASCAL VOC's colours of their labels (N, H, W) over them, uint8."""
    colours = tf.gather(tf.constant(voc_palette(), tf.float32), labels)
    mixed = (1 - opacity) * tf.cast(image, tf.float32) + opacity * colours
    return tf.cast(tf.round(mixed), tf.uint8)


def example_pictures(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Shapes of several colours before a gradient, with a little grain."""
    random = np.random.default_rng(seed)
    n, h, w = dims["batch"], dims["height"], dims["width"]
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    pictures = []
    for _ in range(n):
        picture = random.uniform(0, 255, 3) * (0.5 + 0.5 * y[..., None])
        for _ in range(8):
            cx, cy, radius = random.uniform(0, 1), random.uniform(0, 1), random.uniform(0.05, 0.3)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            picture = np.where(inside[..., None], random.uniform(0, 255, 3), picture)
        pictures.append(np.clip(picture + random.normal(0, 5, (h, w, 3)), 0, 255).astype("uint8"))
    return {"image": np.stack(pictures)}


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class LabelOptions:
    """What labels a photo, and what is written."""

    photo: tyro.conf.Positional[Path]
    """The photo, of any size."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The label map to write: a PNG with PASCAL VOC's palette, whose indices are the labels."""
    run: Path | None = None
    """A run folder of `kerasmodels train` of this family."""
    preset: str | None = None
    """Instead: shipped weights; `kerasmodels list` names them."""
    overlay: Path | None = None
    """Also write the photo with the labels over it."""
    legend: Path | None = None
    """Also write a picture of the colours and what they mean."""
    crf: tyro.conf.FlagCreatePairsOff[bool] = False
    """Move the labels onto the photo's edges, by the config's fully connected CRF."""


def label_photo(options: LabelOptions, family: str, label: Callable[[Any, np.ndarray], np.ndarray]) -> RunReport:
    """Label a photo with a trained network, and write what the options ask for.

    Args:
        options: see `LabelOptions`.
        family: whose runs and presets are meant.
        label: (model, photo) -> labels (H, W).

    Raises:
        UsageError: neither or both of a run and a preset, another family's, or names for results that do not do.
        DataError: the photo cannot be read.
    """
    trained = weights.chosen(family, options.preset, options.run)
    check(
        options.out.suffix.lower() == ".png", "a name ending in .png: label maps are not compressed", str(options.out)
    )
    targets = [p for p in (options.out, options.overlay, options.legend) if p]
    for target in targets:
        check(target.suffix.lower() in SUFFIXES, "a picture name such as overlay.png", str(target))
        check(target.resolve() != options.photo.resolve(), "a place where the photo is not overwritten", str(target))
    check(len({t.resolve() for t in targets}) == len(targets), "a name of its own for each result", str(options.out))
    photo = read_image(options.photo)
    _, config, model = trained.load()
    begin, names = time.perf_counter(), config.label_names()
    labels = label(model, photo)
    found, counts = np.unique(labels, return_counts=True)
    facts: dict[str, Any] = {
        "size": f"{photo.shape[1]} x {photo.shape[0]}",
        "labels": ", ".join(f"{names[k]}: {100 * n / labels.size:.1f} %" for k, n in zip(found, counts, strict=True)),
        "seconds": round(time.perf_counter() - begin, 2),
    }
    written, colours = [write_label_map(options.out, labels)], voc_palette()[: config.classes]
    if options.overlay is not None:
        written.append(write_image(options.overlay, overlay(photo, labels, colours)))
    if options.legend is not None:
        written.append(write_image(options.legend, legend([names[k] for k in found], colours[found])))
    return RunReport(tuple(written), facts)
