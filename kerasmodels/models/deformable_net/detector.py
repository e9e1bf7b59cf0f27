"""Where on a photo there are digits, and which: proposals, and position-sensitive regions whose bins move.

In the order of what happens: `_network` makes maps of the picture, `propose` boxes that may hold something, `judge`
says what each of them holds and how its edges are off, and `detect` keeps the best. `compute_loss` trains all of it.
"""

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops
from PIL import Image, ImageDraw

from kerasmodels.data.digits import read_digits
from kerasmodels.family import Datasets, Servable, TensorSpec, config_to_dict
from kerasmodels.layers import DeformablePSRoIPooling, PSRoIPooling
from kerasmodels.models.deformable_net.config import CLASSES, Config
from kerasmodels.models.deformable_net.drawings import boxes_on
from kerasmodels.models.deformable_net.scenes import Things, boxed, pasted, read_photos, split
from kerasmodels.models.deformable_net.trunk import adam, config_of, trunk
from kerasmodels.ops import box_iou, clip_boxes, decode_boxes, encode_boxes, non_max_suppression
from kerasmodels.ops.bilinear import shape_of
from kerasmodels.ops.boxes import rows_of
from kerasmodels.training import devices

SPREAD = (0.1, 0.1, 0.2, 0.2)
"""Unit of a box's four offsets, so that what is learnt is about 1 (Fast R-CNN's code)."""
SAMPLES = 2
"""Of each bin, along each side (the paper's code: 4)."""
PROPOSED_IOU = 0.7
"""Proposals that overlap a better one by more are dropped (Faster R-CNN)."""
FOUND_IOU = 0.4
"""Digits of one class that overlap a better one by more are dropped (R-FCN: 0.3)."""
LEAST_SCORE = 0.02
"""Below this nothing is found."""
_NOWHERE = -1e9


# --- network ----------------------------------------------------------------------------------------------------------


def _network(config: Config, dtype: str) -> keras.Model:
    """(N, H, W, 3) RGB 0-255 -> maps (N, ceil(H / stride), ceil(W / stride), ...), float32, by name.

    objectness (A) and anchor_offsets (4 A) of the A anchors at each place; scores (11) and box_offsets (4) for each
    bin; and, if the bins move, by how much: score_moves and box_moves (2 for each bin).
    """
    inputs = keras.Input((None, None, 3), name="image")
    x = trunk(config, layers.Rescaling(1 / 127.5, -1, dtype=dtype, name="scale")(inputs), dtype)
    near = layers.ZeroPadding2D(1, dtype=dtype, name="pad_near")(x)
    near = layers.Conv2D(config.filters[-1], 3, activation="relu", dtype=dtype, name="near")(near)
    anchors, bins = len(config.anchors), config.bins**2
    small = keras.initializers.RandomNormal(stddev=0.01)
    # Nearly every anchor is background: so it is thought at first (Lin 2017, section 4.1).
    rare = keras.initializers.Constant(-float(np.log(99)))
    rows: list[tuple[str, int, Any, dict[str, Any]]] = [
        ("objectness", anchors, near, {"kernel_initializer": small, "bias_initializer": rare}),
        ("anchor_offsets", 4 * anchors, near, {"kernel_initializer": small}),
        ("scores", bins * (CLASSES + 1), x, {}),
        ("box_offsets", bins * 4, x, {"kernel_initializer": small}),
    ]
    if config.pooling == "deformable":
        rows += [(f"{name}_moves", 2 * bins, x, {"kernel_initializer": "zeros"}) for name in ("score", "box")]
    maps = {}
    for name, channels, source, options in rows:
        y = layers.Conv2D(channels, 1, dtype=dtype, name=name, **options)(source)
        maps[name] = layers.Activation("linear", dtype="float32", name=f"{name}_map")(y)
    return keras.Model(inputs, maps, name="network")


def anchor_boxes(config: Config, height: Any, width: Any) -> Any:
    """(1, height width A, 4): squares of each size around the middle of each place of maps of that size."""
    stride = float(config.stride)
    half = ops.convert_to_tensor(np.array(config.anchors, "float32").reshape(1, 1, -1) / 2)
    y, x = ((ops.cast(ops.arange(n), "float32") + 0.5) * stride for n in (height, width))
    y, x = ops.reshape(y, (-1, 1, 1)), ops.reshape(x, (1, -1, 1))
    y, x = y + 0.0 * x, x + 0.0 * y
    return ops.reshape(ops.stack([x - half, y - half, x + half, y + half], axis=-1), (1, -1, 4))


@keras.saving.register_keras_serializable("kerasmodels")
class DeformableDetector(devices.SharesBatches, keras.Model):
    """The detector of digits.

    Args:
        config: a `Config` with task "detect" (or its values as a dict).
        precision: dtype policy of the layers.

    Shapes:
        (N, H, W, 3), RGB 0-255 -> maps, by name; `detect` makes boxes of them.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> config = km.registry.family("deformable_net").variant("detector")
        >>> found = km.models.DeformableDetector(config).detect(np.zeros((2, 96, 128, 3), "float32"))
        >>> {name: tuple(value.shape) for name, value in found.items()}
        {'boxes': (2, 20, 4), 'labels': (2, 20), 'scores': (2, 20)}

    Reference:
        Dai, Li, He, Sun: R-FCN, NeurIPS 2016; Ren, He, Girshick, Sun: Faster R-CNN, NeurIPS 2015, for the proposals.
    """

    Config: TypeAlias = Config
    family_name = "deformable_net"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "deformable_detector", **kwargs})
        self.config = config_of(config)
        self.precision = precision
        self.network = _network(self.config, precision)
        options: dict[str, Any] = {"size": self.config.bins, "samples": SAMPLES, "scale": 1 / self.config.stride}
        kind: Any = PSRoIPooling
        if self.config.pooling == "deformable":
            kind, options = DeformablePSRoIPooling, {**options, "gamma": self.config.gamma}
        self.pools = {name: kind(name=f"pool_{name}", dtype="float32", **options) for name in ("score", "box")}
        terms = ("objectness", "anchor", "class", "box")
        self._term_means = {name: keras.metrics.Mean(name=name) for name in terms}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    # --- boxes --------------------------------------------------------------------------------------------------------

    def propose(self, maps: Mapping[str, Any], height: Any, width: Any) -> Any:
        """(N, proposals, 4): boxes inside a picture of that size that are likely to hold a digit. No gradients."""
        config = self.config
        n, rows, columns, count = shape_of(maps["objectness"])
        total, most = rows * columns * count, 4 * config.proposals
        scores = ops.reshape(maps["objectness"], (n, total))
        # A small picture may have fewer anchors than are wanted.
        scores = ops.pad(scores, ((0, 0), (0, most)), constant_values=_NOWHERE)
        scores, index = ops.top_k(scores, most)
        index = ops.minimum(ops.cast(index, "int32"), total - 1)
        anchors = rows_of(anchor_boxes(config, rows, columns), ops.reshape(index, (1, -1)))
        offsets = rows_of(ops.reshape(maps["anchor_offsets"], (n, total, 4)), index)
        boxes = decode_boxes(ops.multiply(offsets, _spread()), ops.reshape(anchors, (n, most, 4)))
        boxes = clip_boxes(boxes, height, width)
        chosen, _ = non_max_suppression(boxes, scores, PROPOSED_IOU, config.proposals, least=_NOWHERE / 2)
        return ops.stop_gradient(rows_of(boxes, chosen))

    def regions(self, boxes: Any) -> Any:
        """Boxes (N, R, 4) as regions (N R, 5) of RoI pooling, whose last pixels belong to them."""
        n, *_ = shape_of(boxes)
        number = ops.cast(ops.expand_dims(ops.expand_dims(ops.arange(n), 1), 2), "float32")
        number = number + 0.0 * boxes[:, :, :1]
        low = boxes[:, :, :2]
        # A region of one pixel has no area there.
        high = ops.maximum(boxes[:, :, 2:] - 1.0, low + 1.0)
        return ops.reshape(ops.concatenate([number, low, high], axis=2), (-1, 5))

    def judge(self, maps: Mapping[str, Any], boxes: Any) -> tuple[Any, Any]:
        """What boxes (N, R, 4) hold: logits (N, R, 11), 0 for background; and how their edges are off, (N, R, 4)."""
        rois = self.regions(boxes)
        answers = []
        for name, source in (("score", "scores"), ("box", "box_offsets")):
            moves = [maps[f"{name}_moves"]] if self.config.pooling == "deformable" else []
            pooled = self.pools[name]([maps[source], rois, *moves])
            # All bins vote.
            answers.append(ops.reshape(ops.mean(pooled, axis=(1, 2)), (-1, boxes.shape[1], pooled.shape[-1])))
        return answers[0], answers[1]

    def detect(self, image: Any) -> dict[str, Any]:
        """The digits on pictures.

        Args:
            image: (N, H, W, 3), RGB 0-255.

        Returns:
            boxes (N, detections, 4) float32, x1, y1, x2, y2 in pixels; labels (N, detections) int32, 0 to 9; and scores
            (N, detections) float32, 0-1, best first. Where there are fewer, boxes and scores are 0 and labels -1.
        """
        config = self.config
        image = ops.cast(ops.convert_to_tensor(image), "float32")
        _, height, width, _ = shape_of(image)
        maps = self.network(image, training=False)
        proposals = self.propose(maps, height, width)
        logits, offsets = self.judge(maps, proposals)
        boxes = clip_boxes(decode_boxes(ops.multiply(offsets, _spread()), proposals), height, width)
        scores = ops.reshape(ops.softmax(logits)[:, :, 1:], (-1, config.proposals * CLASSES))
        scores, index = ops.top_k(scores, min(config.proposals * CLASSES, 4 * config.detections))
        index = ops.cast(index, "int32")
        which = ops.floor_divide(index, CLASSES)
        labels = ops.expand_dims(ops.cast(ops.subtract(index, ops.multiply(which, CLASSES)), "float32"), 2)
        boxes = rows_of(boxes, which)
        chosen, kept = non_max_suppression(
            boxes, scores, FOUND_IOU, config.detections, classes=labels[:, :, 0], least=LEAST_SCORE
        )
        found = rows_of(ops.concatenate([boxes, labels + 1.0, ops.expand_dims(scores, 2)], axis=2), chosen)
        found = ops.multiply(found, ops.expand_dims(kept, 2))
        return {
            "boxes": found[:, :, :4],
            "labels": ops.cast(ops.subtract(found[:, :, 4], 1.0), "int32"),
            "scores": found[:, :, 5],
        }

    # --- training -----------------------------------------------------------------------------------------------------

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The four losses of Faster R-CNN, of the same weight; no gradients flow into the proposals."""
        things, (_, height, width, _) = Things(*y), shape_of(x)
        proposals = self.propose(y_pred, height, width)
        terms = {
            **self._proposal_losses(y_pred, things),
            **self._region_losses(y_pred, proposals, things, height, width),
        }
        for name, value in terms.items():
            self._term_means[name].update_state(value)
        return devices.scaled(sum(terms.values()))

    def _proposal_losses(self, maps: Mapping[str, Any], things: Things) -> dict[str, Any]:
        n, rows, columns, count = shape_of(maps["objectness"])
        total = rows * columns * count
        anchors = anchor_boxes(self.config, rows, columns)
        overlap = box_iou(anchors, things.boxes)
        counted, nearest, which = _matches(overlap, things)
        # Each digit has an anchor, however badly it fits.
        best = ops.max(counted, axis=1, keepdims=True)
        own = ops.any(ops.logical_and(counted >= best - 1e-6, counted > 0.1), axis=2)
        positive = ops.cast(ops.logical_or(nearest >= 0.5, own), "float32")
        is_there = ops.expand_dims(ops.cast(things.labels >= 0, "float32"), 1)
        negative = ops.cast(ops.max(overlap * is_there, axis=2) < 0.3, "float32") * (1.0 - positive)
        found = _counted(positive)
        logits = ops.reshape(maps["objectness"], (n, total))
        # Focal loss, gamma 2, alpha 0.25 (Lin 2017, equation 5).
        focal = 0.25 * positive * ops.square(ops.sigmoid(-logits)) * ops.softplus(-logits)
        focal += 0.75 * negative * ops.square(ops.sigmoid(logits)) * ops.softplus(logits)
        wanted = encode_boxes(rows_of(things.boxes, which), anchors) / _spread()
        given = ops.reshape(maps["anchor_offsets"], (n, total, 4))
        return {
            "objectness": ops.sum(focal) / found,
            "anchor": ops.sum(_smooth(given - wanted) * ops.expand_dims(positive, 2)) / found / 4,
        }

    def _region_losses(
        self, maps: Mapping[str, Any], proposals: Any, things: Things, height: Any, width: Any
    ) -> dict[str, Any]:
        # With the true boxes among the proposals there is something to learn from the first step.
        boxes = ops.concatenate([proposals, clip_boxes(things.boxes, height, width)], axis=1)
        overlap = box_iou(boxes, things.boxes)
        _, nearest, which = _matches(overlap, things)
        positive = ops.cast(nearest >= 0.5, "float32")
        hidden = ops.expand_dims(ops.cast(things.labels >= 0, "float32") * (1.0 - things.counts), 1)
        unclear = (1.0 - positive) * ops.cast(ops.max(overlap * hidden, axis=2) >= 0.3, "float32")
        is_region = ops.concatenate([ops.ones_like(proposals[:, :, 0]), things.counts], axis=1)
        counts = is_region * (1.0 - unclear)
        logits, offsets = self.judge(maps, boxes)
        label = rows_of(ops.expand_dims(ops.cast(things.labels, "float32"), 2), which)[:, :, 0]
        target = ops.cast((label + 1.0) * positive, "int32")
        entropy = keras.losses.sparse_categorical_crossentropy(target, logits, from_logits=True)
        wanted = encode_boxes(rows_of(things.boxes, which), boxes) / _spread()
        positive *= is_region
        edges = _smooth(offsets - wanted) * ops.expand_dims(positive, 2)
        return {
            "class": ops.sum(entropy * counts) / _counted(counts),
            "box": ops.sum(edges) / _counted(positive) / 4,
        }

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return [*super().metrics, *self._term_means.values()]

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _spread() -> Any:
    return ops.convert_to_tensor(np.array(SPREAD, "float32"))


def _matches(overlap: Any, things: Things) -> tuple[Any, Any, Any]:
    """The overlap (N, A, T) with things that count, the greatest of each box, and with which."""
    counted = ops.multiply(overlap, ops.expand_dims(things.counts, 1))
    return counted, ops.max(counted, axis=2), ops.cast(ops.argmax(counted, axis=2), "int32")


def _counted(which: Any) -> Any:
    """How many boxes of the batch count, at least 1; with several devices, each one's equal share of it."""
    return ops.maximum(devices.mean_over_devices(ops.sum(which)), 1.0 / devices.count())


def _smooth(x: Any) -> Any:
    """Smooth L1 (Girshick 2015)."""
    size = ops.abs(x)
    return ops.where(size < 1.0, 0.5 * ops.square(x), size - 0.5)


def model(config: Config) -> DeformableDetector:
    """The detector with its first weights."""
    return DeformableDetector(config, precision=config.precision)


def build(config: Config) -> DeformableDetector:
    """The model with Adam, ready for `fit`."""
    detector = model(config)
    # XLA makes convolutions slower on CPUs.
    detector.compile(adam(config), jit_compile=False)
    return detector


def datasets(config: Config, start: int = 0) -> Datasets:
    """Scenes, and the things on them.

    Raises:
        DataError: digits or photos are missing.
    """
    photos, (pictures, labels) = split(read_photos(config.photos))[0], read_digits(config.digits, "train")

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, Things]:
        seed = tf.stack([tf.cast(config.seed, tf.int64), 1000 * number])
        return _scenes(config, photos, pictures, labels, config.batch, seed)

    numbers = tf.data.Dataset.range(start, np.iinfo(np.int64).max // 1000)
    train = numbers.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)
    return Datasets(train, held_out(config, 16))


def held_out(config: Config, batches: int) -> tf.data.Dataset:
    """So many batches of 16 scenes with digits and photos that are never trained on."""
    photos, (pictures, labels) = split(read_photos(config.photos))[1], read_digits(config.digits, "test")

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, Things]:
        return _scenes(config, photos, pictures, labels, 16, tf.stack([tf.constant(99, tf.int64), 1000 * number]))

    return tf.data.Dataset.range(batches).map(batch, num_parallel_calls=2, deterministic=True)


def _scenes(
    config: Config, photos: np.ndarray, pictures: np.ndarray, labels: np.ndarray, count: int, seed: tf.Tensor
) -> tuple[tf.Tensor, Things]:
    scene, digits = pasted(photos, pictures, labels, count, seed, config.scene, config.objects, vary=True)
    return scene, boxed(digits)


# --- servables --------------------------------------------------------------------------------------------------------


def servables(model: DeformableDetector, config: Config) -> dict[str, Servable]:
    def detect(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return model.detect(image)

    slots = ("batch", config.detections)
    return {
        "detect": Servable(
            call=detect,
            model=model.network,
            inputs=(TensorSpec("image", ("batch", "height", "width", 3), "uint8", "RGB photos, 0-255", "image"),),
            outputs=(
                TensorSpec(
                    "boxes",
                    (*slots, 4),
                    "float32",
                    "x1, y1, x2, y2 of each digit, pixels; 0 in slots left over",
                    atol=0.02,
                ),
                TensorSpec("labels", slots, "int32", "the digits, 0 to 9; -1 in slots left over"),
                TensorSpec("scores", slots, "float32", "0-1, best first; 0 in slots left over", atol=1e-3),
            ),
            example=_example_photos,
            dims={"batch": 1, "height": config.scene, "width": config.scene},
            check_dims=({"batch": 2, "height": config.scene + 5, "width": config.scene - 3},),
            doc="finds handwritten digits on photos, by proposals and regions whose bins move",
        )
    }


def _example_photos(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Strokes of several colours before a gradient, with a little grain."""
    random = np.random.default_rng(seed)
    n, height, width = (dims[name] for name in ("batch", "height", "width"))
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    pictures = []
    for _ in range(n):
        ground = random.uniform(0, 255, 3) * (0.5 + 0.5 * (y + x)[..., None] / 2)
        drawing = Image.fromarray(np.clip(ground + random.normal(0, 4, ground.shape), 0, 255).astype("uint8"))
        for _ in range(3):
            middle, reach = random.uniform(0.2, 0.8, 2) * (width, height), random.uniform(6, 20)
            points = [tuple(middle + random.uniform(-reach, reach, 2)) for _ in range(4)]
            colour = tuple(int(c) for c in random.uniform(0, 255, 3))
            ImageDraw.Draw(drawing).line(points, fill=colour, width=3, joint="curve")
        pictures.append(np.asarray(drawing))
    return {"image": np.stack(pictures)}


def preview(model: DeformableDetector, config: Config) -> dict[str, np.ndarray]:
    """Scenes of the test with what is found on them."""
    scenes, _ = next(iter(held_out(config, 1)))
    found = {name: np.asarray(value) for name, value in model.detect(scenes[:4]).items()}
    pictures = np.clip(np.asarray(scenes[:4]), 0, 255).astype("uint8")
    return {"samples": np.concatenate([boxes_on(pictures[k], *certain(found, k)) for k in range(4)], axis=1)}


def certain(
    found: Mapping[str, np.ndarray], number: int, least: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels and scores of one picture, those of at least that score (and not of empty slots)."""
    good = (found["scores"][number] >= least) & (found["labels"][number] >= 0)
    return found["boxes"][number][good], found["labels"][number][good], found["scores"][number][good]


def moved_bins(model: DeformableDetector, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
    """Where the bins look that tell the digit in each box: (H, W, 3) and (D, 4) -> (D, bins^2, 4), pixels."""
    count = model.config.bins
    maps = model.network(image[None].astype("float32"), training=False)
    rois = model.regions(tf.constant(boxes[None], tf.float32))
    moves: Any = np.zeros((len(boxes), count, count, 2))
    if len(boxes) and model.config.pooling == "deformable":
        moves = np.asarray(model.pools["score"].offsets([maps["scores"], rois, maps["score_moves"]]))
    size = (boxes[:, 2:] - boxes[:, :2])[:, None, None]
    places = np.stack(np.meshgrid(np.arange(count), np.arange(count)), -1) / count  # x, y
    low = boxes[:, None, None, :2] + size * (places + model.config.gamma * moves[..., ::-1])
    return np.concatenate([low, low + size / count], -1).reshape(len(boxes), count**2, 4)
