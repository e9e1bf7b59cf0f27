"""The network as a model: how it learns, and what leaves the building."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from kerasmodels import registry, weights
from kerasmodels.data.images import check_photo
from kerasmodels.errors import UsageError
from kerasmodels.family import Datasets, Servable, check, config_to_dict
from kerasmodels.layers.padding import on_multiples
from kerasmodels.layers.resize import resize_corners
from kerasmodels.models.deeplab import pretrained
from kerasmodels.models.deeplab.config import Config
from kerasmodels.models.deeplab.network import score_network
from kerasmodels.models.segmentation import compile_with_sgd, labelled_crops, segmentation_servables, share_of_labels
from kerasmodels.training import devices


@keras.saving.register_keras_serializable("kerasmodels")
class DeepLab(devices.SharesBatches, keras.Model):
    """Scores of each label at every 8th (or 16th) pixel; with a pyramid, the largest of several scales.

    Args:
        config: a `DeepLab.Config` (or its values as a dict).

    Attributes:
        net: trunk and head, the network that all scales share.

    Shapes:
        (N, s h + 1, s w + 1, 3) RGB 0-255, s the output stride -> (N, h + 1, w + 1, classes) float32 logits of the
        pixels 0, s, 2s ... In training, a list of them: the picture's own scale, each of the pyramid, the largest.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> config = km.models.DeepLab.Config(trunk="vgg16", width=1 / 16, head=16, pyramid=())
        >>> net = km.models.DeepLab(config)
        >>> tuple(net(np.zeros((1, 65, 41, 3), "float32")).shape)
        (1, 9, 6, 21)
    """

    Config: TypeAlias = Config
    family_name = "deeplab"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, **kwargs: Any):
        if not isinstance(config, Config):
            config = registry.family("deeplab").config_from_dict(config or {})
        assert isinstance(config, Config)
        config.validate()
        super().__init__(**{"name": "deeplab", "dtype": config.precision, **kwargs})
        self.config = config
        self.net = score_network(config)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
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
        self,
        x: Any = None,
        y: Any = None,
        y_pred: Any = None,
        sample_weight: Any = None,
        training: bool = True,
    ) -> Any:
        """The sum over the maps of the cross-entropy with the labels nearest to their positions."""
        total = tf.constant(0.0)
        for logits in y_pred if isinstance(y_pred, list) else [y_pred]:
            labels = _nearest(y, tf.shape(logits)[1:3])
            part = super().compute_loss(x, labels, logits, sample_weight, training)
            total += part * share_of_labels(labels)
        return total

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, *sides, _ = input_shape
        stride = self.config.output_stride
        return (n, *(None if side is None else (side - 1) // stride + 1 for side in sides), self.config.classes)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config)}


def _nearest(labels: Any, size: Any) -> Any:
    """Labels (N, H, W) at (h, w) positions spread evenly from the first to the last."""
    for axis in (0, 1):
        before = tf.shape(labels)[axis + 1]
        step = tf.cast(before - 1, tf.float32) / tf.cast(tf.maximum(size[axis] - 1, 1), tf.float32)
        at = tf.cast(tf.cast(tf.range(size[axis]), tf.float32) * step + 0.5, tf.int32)
        labels = tf.gather(labels, at, axis=axis + 1)
    return labels


# --- training ---------------------------------------------------------------------------------------------------------


def build(config: Config) -> DeepLab:
    """The model with its first weights and SGD.

    Raises:
        UsageError: a value out of range, or weights to start from that are not there.
        WeightsError: they are of another network, or could not be had.
    """
    config.validate()
    model = DeepLab(config)
    if config.pretrained != "random":
        pretrained.load_trunk(model.net, config)
    if config.start_from is not None:
        start_from(model, config.start_from)
    # Its biases twenty times.
    last = 3 if config.head else 1
    compile_with_sgd(model, config, {f"aspp/rate{rate}_{last}/": 10.0 for rate in config.rates})
    return model


def start_from(model: DeepLab, source: str) -> None:
    """Take over weights: a run folder's or a preset's, or those of a .pth file of the PyTorch port.

    Where a run folder's network has other classes or another head, only its trunk is taken over.

    Raises:
        UsageError: no such thing.
        WeightsError: they are of another network.
    """
    if source.endswith((".pth", ".pt")):
        pretrained.load_port(model.net, model.config, Path(source))
        return
    trained = weights.find(source)
    if trained.family != "deeplab":
        raise UsageError(f"expected a run of deeplab to start from. Received: {source}, of {trained.family}.")
    other = trained.load()[2].net
    heads = [[(w.path, w.shape) for w in net.get_layer("aspp").weights] for net in (model.net, other)]
    arrays = {layer.name: layer.get_weights() for layer in other.layers if layer.weights}
    pretrained.assign(model.net, arrays, source, () if heads[0] == heads[1] else ("aspp",))


def datasets(config: Config, start: int = 0) -> Datasets:
    """Crops, and the labels of the pixels where the network's positions are.

    Raises:
        UsageError: a folder is not given.
        DataError: see `label_pairs` and `count_labels`.
    """
    stride = config.output_stride
    return Datasets(
        train=labelled_crops(config, start).map(lambda photo, labels: (photo, labels[:, ::stride, ::stride]))
    )


# --- servables --------------------------------------------------------------------------------------------------------


def probabilities(model: DeepLab, image: Any) -> Any:
    """Pictures (N, H, W, 3) RGB 0-255 of any size -> probabilities of each pixel's labels (N, H, W, classes)."""

    def large_logits(x: Any) -> Any:
        return resize_corners(model(tf.cast(x, tf.float32), training=False), tf.shape(x)[1:3])

    return tf.nn.softmax(on_multiples(image, model.config.output_stride, large_logits, more=1))


def servables(model: DeepLab, config: Config) -> dict[str, Servable]:
    return segmentation_servables(model, config, lambda image: probabilities(model, image))


# --- whole pictures, of any size --------------------------------------------------------------------------------------

OVERLAP = 128
"""Pixels that a tile sees beyond what it labels."""


def segment_picture(
    model: DeepLab,
    photo: np.ndarray,
    tile: int = 1025,
    refine: Callable[[np.ndarray, np.ndarray], np.ndarray] | None = None,
) -> np.ndarray:
    """The likeliest label of each pixel of a photo of any size.

    Args:
        model: a trained one.
        photo: (H, W, 3) uint8 RGB.
        tile: largest side of what is worked on at once, pixels; tiles overlap by 256 pixels.
        refine: what to do with a tile's pixels (h, w, 3) and probabilities (h, w, classes) before they are labelled,
            such as `dense_crf.refine`.

    Returns:
        (H, W) uint8.

    Raises:
        UsageError: a tile that is all overlap.
        DataError: no pixels, or see `check_photo`.
    """
    check(tile > 2 * OVERLAP, f"tiles of more than {2 * OVERLAP} pixels", tile)
    if check_photo(photo).dtype != np.uint8:
        photo = np.clip(np.rint(photo), 0, 255).astype("uint8")
    labels = np.empty(photo.shape[:2], "uint8")
    for seen, inner, place in _tiles(photo.shape[:2], tile):
        pixels = np.ascontiguousarray(photo[seen])
        found = probabilities(model, tf.constant(pixels[None]))[0].numpy()
        if refine is not None:
            found = refine(pixels, found)
        labels[place] = found.argmax(-1)[inner]
    return labels


Slices = tuple[slice, slice]


def _tiles(size: tuple[int, int], tile: int) -> Iterator[tuple[Slices, Slices, Slices]]:
    """What to look at, which part of that counts, and where that belongs; the picture as a whole if it fits."""
    if max(size) <= tile:
        whole = (slice(0, size[0]), slice(0, size[1]))
        yield whole, whole, whole
        return
    step = tile - 2 * OVERLAP
    for top in range(0, size[0], step):
        for left in range(0, size[1], step):
            seen, inner, place = [], [], []
            for begin, side in ((top, size[0]), (left, size[1])):
                end = min(begin + step, side)
                first, last = max(0, begin - OVERLAP), min(side, end + OVERLAP)
                seen.append(slice(first, last))
                inner.append(slice(begin - first, end - first))
                place.append(slice(begin, end))
            yield (seen[0], seen[1]), (inner[0], inner[1]), (place[0], place[1])
