"""The network as a model: how it learns, and what leaves the building."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kerasmodels import registry, weights
from kerasmodels.data.images import check_photo
from kerasmodels.errors import UsageError, WeightsError
from kerasmodels.family import Datasets, Servable, config_to_dict
from kerasmodels.layers import ReflectionPadding2D
from kerasmodels.layers.padding import on_multiples
from kerasmodels.models.dilated_net.caffe import load_caffemodel
from kerasmodels.models.dilated_net.config import Config
from kerasmodels.models.dilated_net.network import context_module, front_end, load_trunk
from kerasmodels.models.segmentation import compile_with_sgd, labelled_crops, segmentation_servables, share_of_labels
from kerasmodels.training import devices


@keras.saving.register_keras_serializable("kerasmodels")
class DilatedNet(devices.SharesBatches, keras.Model):
    """The front end, and behind it the context module if the config has one.

    Args:
        config: a `DilatedNet.Config` (or its values as a dict).

    Attributes:
        front, context: the two networks; `context` is None without a module.

    Shapes:
        (N, 8 h + 2 m, 8 w + 2 m, 3) RGB 0-255, m the config's margin -> (N, h, w, classes) float32 logits.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> config = km.models.DilatedNet.Config(channels=(4, 4, 8, 8, 8), head=8, context="basic", trains="all")
        >>> net = km.models.DilatedNet(config)
        >>> config.margin, tuple(net(np.zeros((1, 900 - 372 - 480 + 372, 428, 3), "float32")).shape)
        (186, (1, 6, 7, 21))
    """

    Config: TypeAlias = Config
    family_name = "dilated_net"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, **kwargs: Any):
        if not isinstance(config, Config):
            config = registry.family("dilated_net").config_from_dict(config or {})
        assert isinstance(config, Config)
        config.validate()
        super().__init__(**{"name": "dilated_net", "dtype": config.precision, **kwargs})
        self.config = config
        self.front = front_end(config, config.precision)
        self.context = None
        if config.context != "none":
            self.context = context_module(
                config.classes,
                config.context,
                config.rates,
                config.context_padding,
                config.context_init,
                config.context_noise,
                config.precision,
            )
        if config.trains == "context":
            # Never to True: that would wake frozen batch normalisation.
            self.front.trainable = False
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        # A front end that stays as it is sees no dropout.
        return self.contextual(self.front(inputs, training=training and self.front.trainable))

    def contextual(self, maps: Any) -> Any:
        """The front end's maps (N, h, w, C) -> logits, float32."""
        return tf.cast(maps if self.context is None else self.context(maps), tf.float32)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return super().compute_loss(x, y, y_pred, sample_weight, training) * share_of_labels(y)

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, *sides, _ = input_shape
        outside = 2 * self.config.margin
        return (n, *(None if side is None else (side - outside) // 8 for side in sides), self.config.classes)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config)}


# --- training ---------------------------------------------------------------------------------------------------------


def build(config: Config) -> DilatedNet:
    """The model with its first weights and SGD.

    Raises:
        UsageError: a value out of range, or weights to start from that are not there.
        WeightsError: they are of another network.
    """
    config.validate()
    model = DilatedNet(config)
    if config.pretrained != "random":
        load_trunk(model.front, config)
    if config.start_from is not None:
        start_from(model, config.start_from)
    # Of paths: the context module's layers are ctx_conv..., ctx_fc1 and ctx_final.
    behind = ("fc6/", "fc7/", "final/", "ctx_conv", "ctx_fc")
    compile_with_sgd(model, config, dict.fromkeys(behind, config.head_rate) if config.head_rate != 1 else {})
    return model


def start_from(model: DilatedNet, source: str) -> None:
    """Take over weights: a run folder's, of both networks or of the front end, or those of a .caffemodel file.

    Raises:
        UsageError: no such thing.
        WeightsError: they are of another network.
    """
    if source.endswith(".caffemodel"):
        load_caffemodel(model, Path(source))
        return
    trained = weights.find(source)
    if trained.family != "dilated_net":
        raise UsageError(f"expected a run of dilated_net to start from. Received: {source}, of {trained.family}.")
    other = trained.load()[2]
    parts = [(model.front, other.front)]
    if model.context is not None and other.context is not None:
        parts.append((model.context, other.context))
    for mine, theirs in parts:
        shapes = [[w.shape for w in part.weights] for part in (mine, theirs)]
        if shapes[0] != shapes[1]:
            raise WeightsError(
                f"expected weights for this {mine.name} in {source}. Received: another network's. "
                "Give the flags (blocks, channels, head, classes, context) that it was trained with."
            )
        mine.set_weights(theirs.get_weights())


def datasets(config: Config, start: int = 0) -> Datasets:
    """Crops, and the label in the middle of each 8 x 8 pixels.

    Raises:
        UsageError: a folder is not given.
        DataError: see `label_pairs` and `count_labels`.
    """
    crops = labelled_crops(config, start, config.margin)
    return Datasets(train=crops.map(lambda photo, labels: (photo, labels[:, 4::8, 4::8])))


# --- servables --------------------------------------------------------------------------------------------------------


def probabilities(model: DilatedNet, image: Any) -> Any:
    """Pictures (N, H, W, 3) RGB 0-255 of any size -> probabilities of each pixel's labels (N, H, W, classes)."""
    around = ReflectionPadding2D(model.config.margin)

    def large_logits(x: Any) -> Any:
        logits = model(tf.cast(around(x), tf.float32), training=False)
        return tf.image.resize(logits, tf.shape(x)[1:3], "bilinear")

    return tf.nn.softmax(on_multiples(image, 8, large_logits))


def servables(model: DilatedNet, config: Config) -> dict[str, Servable]:
    return segmentation_servables(model, config, lambda image: probabilities(model, image))


# --- whole pictures, of any size --------------------------------------------------------------------------------------


OVERLAP = 12
"""Positions that a tile of a trunk that pads sees beyond what it labels and its margin."""


def segment_picture(model: DilatedNet, photo: np.ndarray, tile: int = 900) -> np.ndarray:
    """Probabilities of each pixel's labels, (H, W, 3) uint8 -> (H, W, classes) float32.

    The front end works on tiles of at most `tile` pixels a side, margin included (900 are 66 x 66 positions); where its
    trunk pads nothing (VGG16), they fit together without a seam, else they overlap. The context module sees all
    positions at once.

    Raises:
        UsageError: a tile smaller than the margin allows.
        DataError: see `check_photo`.
    """
    check_photo(photo)
    margin, (height, width) = model.config.margin, photo.shape[:2]
    after = [-side % 8 for side in (height, width)]
    rows, columns = ((side + more) // 8 for side, more in zip((height, width), after, strict=True))
    overlap = 0 if model.config.trunk == "vgg16" else OVERLAP
    cells = (tile - 2 * margin) // 8
    if cells <= 2 * overlap:
        raise UsageError(f"expected tiles of at least {2 * margin + 16 * overlap + 8} pixels. Received: {tile}.")
    if max(rows, columns) > cells:
        cells -= 2 * overlap
    # As the servable does it: first to a multiple of 8, then the margin.
    padded = photo
    for by in (((0, after[0]), (0, after[1]), (0, 0)), ((margin, margin), (margin, margin), (0, 0))):
        padded = np.pad(padded, by, mode="reflect" if min(padded.shape[:2]) > 1 else "edge")
    maps = np.empty((1, rows, columns, model.config.classes), "float32")
    for top in range(0, rows, cells):
        for left in range(0, columns, cells):
            bottom, right = min(top + cells, rows), min(left + cells, columns)
            y, x = (max(0, first - overlap) for first in (top, left))
            end_y, end_x = min(bottom + overlap, rows), min(right + overlap, columns)
            seen = padded[8 * y : 8 * end_y + 2 * margin, 8 * x : 8 * end_x + 2 * margin]
            found = tf.cast(model.front(tf.constant(seen[None], tf.float32)), tf.float32)
            maps[:, top:bottom, left:right] = found[:, top - y : bottom - y, left - x : right - x]
    logits = model.contextual(tf.constant(maps))
    large = tf.image.resize(logits, (8 * rows, 8 * columns), "bilinear")[0, :height, :width]
    return tf.nn.softmax(large).numpy()
