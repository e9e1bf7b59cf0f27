"""A detector after R-FCN: proposals, and position-sensitive RoI pooling whose bins move. Its config: `deformable_net`.

In the order of what happens: `maps_network` makes maps of the picture, `propose` boxes that may hold something,
`classify_regions` says what each of them holds and how its edges are off, and `detect` keeps the best. `compute_loss`
trains all of it. Departures from the paper: see `deformable_net`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.data.digits import read_digits
from kerasmodels.data.scenes import GroundTruth, ground_truth, pasted, read_photos, split
from kerasmodels.data.streams import numbered
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.layers import DeformablePSRoIPooling, PSRoIPooling
from kerasmodels.metrics import align_detections
from kerasmodels.ops import box_iou, clip_boxes, decode_boxes, encode_boxes, non_max_suppression
from kerasmodels.ops.bilinear import shape_of
from kerasmodels.ops.boxes import rows_of
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables.examples import example_strokes
from kerasmodels.tasks.digits import certain, draw_boxes
from kerasmodels.training import devices

CLASSES = 10
SPREAD = (0.1, 0.1, 0.2, 0.2)
"""Unit of a box's four offsets, so that what is learned is about 1 (Fast R-CNN's code)."""
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


def maps_network(config: Any, trunk: Callable[[Any, Any], Any]) -> keras.Model:
    """(N, H, W, 3) RGB 0-255 -> maps (N, ceil(H / stride), ceil(W / stride), ...), float32, by name.

    objectness (A) and anchor_offsets (4 A) of the A anchors at each place; scores (11) and box_offsets (4) for each
    bin; and, if the bins move, by how much: score_moves and box_moves (2 for each bin).

    Args:
        config: a `DeformableDetector.Config`.
        trunk: (config, (N, H, W, 3) -1 to 1) -> (N, ceil(H / stride), ceil(W / stride), C).
    """
    inputs = keras.Input((None, None, 3), name="image")
    x = trunk(config, layers.Rescaling(1 / 127.5, -1, name="scale")(inputs))
    near = layers.ZeroPadding2D(1, name="pad_near")(x)
    near = layers.Conv2D(config.filters[-1], 3, activation="relu", name="near")(near)
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
        y = layers.Conv2D(channels, 1, name=name, **options)(source)
        maps[name] = layers.Activation("linear", dtype="float32", name=f"{name}_map")(y)
    return keras.Model(inputs, maps, name="network")


def anchor_boxes(config: Any, height: Any, width: Any) -> Any:
    """(1, height width A, 4): squares of each size around the middle of each place of maps of that size."""
    stride = float(config.stride)
    half = ops.convert_to_tensor(np.array(config.anchors, "float32").reshape(1, 1, -1) / 2)
    y, x = ((ops.cast(ops.arange(n), "float32") + 0.5) * stride for n in (height, width))
    y, x = ops.reshape(y, (-1, 1, 1)), ops.reshape(x, (1, -1, 1))
    y, x = y + 0.0 * x, x + 0.0 * y
    return ops.reshape(ops.stack([x - half, y - half, x + half, y + half], axis=-1), (1, -1, 4))


# --- model ------------------------------------------------------------------------------------------------------------


class RegionDetector(PaperModel):
    """What a `DeformableDetector` is besides its trunk: boxes, losses, data, and what leaves the building.

    Attributes:
        network: of `maps_network`.
        pools: the layers that pool scores and edges.
    """

    def __init__(self, config: Any = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        options: dict[str, Any] = {"size": self.config.bins, "samples": SAMPLES, "scale": 1 / self.config.stride}
        kind: Any = PSRoIPooling
        if self.config.pooling == "deformable":
            kind, options = DeformablePSRoIPooling, {**options, "gamma": self.config.gamma}
        self.pools = {name: kind(name=f"pool_{name}", dtype="float32", **options) for name in ("score", "box")}

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

    def classify_regions(self, maps: Mapping[str, Any], boxes: Any) -> tuple[Any, Any]:
        """What boxes (N, R, 4) hold: logits (N, R, 11), 0 for background; and how their edges are off, (N, R, 4)."""
        rois = self.regions(boxes)
        found = []
        for name, source in (("score", "scores"), ("box", "box_offsets")):
            moves = [maps[f"{name}_moves"]] if self.config.pooling == "deformable" else []
            pooled = self.pools[name]([maps[source], rois, *moves])
            # All bins vote.
            found.append(ops.reshape(ops.mean(pooled, axis=(1, 2)), (-1, boxes.shape[1], pooled.shape[-1])))
        return found[0], found[1]

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
        logits, offsets = self.classify_regions(maps, proposals)
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
        truth, (_, height, width, _) = GroundTruth(*y), shape_of(x)
        proposals = self.propose(y_pred, height, width)
        terms = {
            **self._proposal_losses(y_pred, truth),
            **self._region_losses(y_pred, proposals, truth, height, width),
        }
        self.report(**terms)
        return devices.scaled(sum(terms.values()))

    def _proposal_losses(self, maps: Mapping[str, Any], truth: GroundTruth) -> dict[str, Any]:
        n, rows, columns, count = shape_of(maps["objectness"])
        total = rows * columns * count
        anchors = anchor_boxes(self.config, rows, columns)
        overlap = box_iou(anchors, truth.boxes)
        counted, nearest, which = _matches(overlap, truth)
        # Each digit has an anchor, however badly it fits.
        best = ops.max(counted, axis=1, keepdims=True)
        own = ops.any(ops.logical_and(counted >= best - 1e-6, counted > 0.1), axis=2)
        positive = ops.cast(ops.logical_or(nearest >= 0.5, own), "float32")
        is_there = ops.expand_dims(ops.cast(truth.labels >= 0, "float32"), 1)
        negative = ops.cast(ops.max(overlap * is_there, axis=2) < 0.3, "float32") * (1.0 - positive)
        found = _counted(positive)
        logits = ops.reshape(maps["objectness"], (n, total))
        # Focal loss, gamma 2, alpha 0.25 (Lin 2017, equation 5).
        focal = 0.25 * positive * ops.square(ops.sigmoid(-logits)) * ops.softplus(-logits)
        focal += 0.75 * negative * ops.square(ops.sigmoid(logits)) * ops.softplus(logits)
        wanted = encode_boxes(rows_of(truth.boxes, which), anchors) / _spread()
        given = ops.reshape(maps["anchor_offsets"], (n, total, 4))
        return {
            "objectness": ops.sum(focal) / found,
            "anchor": ops.sum(_smooth(given - wanted) * ops.expand_dims(positive, 2)) / found / 4,
        }

    def _region_losses(
        self, maps: Mapping[str, Any], proposals: Any, truth: GroundTruth, height: Any, width: Any
    ) -> dict[str, Any]:
        # With the true boxes among the proposals there is something to learn from the first step.
        boxes = ops.concatenate([proposals, clip_boxes(truth.boxes, height, width)], axis=1)
        overlap = box_iou(boxes, truth.boxes)
        _, nearest, which = _matches(overlap, truth)
        positive = ops.cast(nearest >= 0.5, "float32")
        hidden = ops.expand_dims(ops.cast(truth.labels >= 0, "float32") * (1.0 - truth.counts), 1)
        unclear = (1.0 - positive) * ops.cast(ops.max(overlap * hidden, axis=2) >= 0.3, "float32")
        is_region = ops.concatenate([ops.ones_like(proposals[:, :, 0]), truth.counts], axis=1)
        counts = is_region * (1.0 - unclear)
        logits, offsets = self.classify_regions(maps, boxes)
        label = rows_of(ops.expand_dims(ops.cast(truth.labels, "float32"), 2), which)[:, :, 0]
        target = ops.cast((label + 1.0) * positive, "int32")
        entropy = keras.losses.sparse_categorical_crossentropy(target, logits, from_logits=True)
        wanted = encode_boxes(rows_of(truth.boxes, which), boxes) / _spread()
        positive *= is_region
        edges = _smooth(offsets - wanted) * ops.expand_dims(positive, 2)
        return {
            "class": ops.sum(entropy * counts) / _counted(counts),
            "box": ops.sum(edges) / _counted(positive) / 4,
        }

    def loss_terms(self) -> tuple[str, ...]:
        return ("objectness", "anchor", "class", "box")

    @staticmethod
    def batches(config: Any, start: int) -> tf.data.Dataset:
        """Scenes, and the boxes on them, for `fit`.

        Raises:
            DataError: digits or photos are missing.
        """
        photos, (pictures, labels) = split(read_photos(config.photos))[0], read_digits(config.digits, "train")

        def batch(number: tf.Tensor) -> tuple[tf.Tensor, GroundTruth]:
            seed = tf.stack([tf.cast(config.seed, tf.int64), 1000 * number])
            return _scenes(config, photos, pictures, labels, config.batch, seed)

        return numbered(batch, start)

    @staticmethod
    def held_out(config: Any, batches: int) -> tf.data.Dataset:
        """So many batches of 16 scenes with digits and photos that are never trained on."""
        photos, (pictures, labels) = split(read_photos(config.photos))[1], read_digits(config.digits, "test")

        def batch(number: tf.Tensor) -> tuple[tf.Tensor, GroundTruth]:
            return _scenes(config, photos, pictures, labels, 16, tf.stack([tf.constant(99, tf.int64), 1000 * number]))

        return tf.data.Dataset.range(batches).map(batch, num_parallel_calls=2, deterministic=True)

    # --- use ----------------------------------------------------------------------------------------------------------

    def servables(self) -> dict[str, Servable]:
        """`detect`."""
        side, slots = self.config.scene, ("batch", self.config.detections)
        boxes = "x1, y1, x2, y2 of each digit, pixels; 0 in slots left over"
        return {
            "detect": Servable(
                call=lambda image: self.detect(image),
                model=self.network,
                inputs=(TensorSpec("image", ("batch", "height", "width", 3), "uint8", "RGB photos, 0-255", "image"),),
                outputs=(
                    TensorSpec("boxes", (*slots, 4), "float32", boxes, atol=0.02),
                    TensorSpec("labels", slots, "int32", "the digits, 0 to 9; -1 in slots left over"),
                    TensorSpec("scores", slots, "float32", "0-1, best first; 0 in slots left over", atol=1e-3),
                ),
                example=example_strokes,
                dims={"batch": 1, "height": side, "width": side},
                check_dims=({"batch": 2, "height": side + 5, "width": side - 3},),
                align=align_detections,
                doc="finds handwritten digits on photos, by proposals and regions whose bins move",
            )
        }

    def preview(self) -> dict[str, np.ndarray]:
        """Scenes of the test with what is found on them."""
        scenes, _ = next(iter(self.held_out(self.config, 1)))
        found = {name: np.asarray(value) for name, value in self.detect(scenes[:4]).items()}
        pictures = np.clip(np.asarray(scenes[:4]), 0, 255).astype("uint8")
        return {"samples": np.concatenate([draw_boxes(pictures[k], *certain(found, k)) for k in range(4)], axis=1)}

    def bins_of(self, image: np.ndarray, boxes: np.ndarray) -> np.ndarray:
        """Where the bins look that tell the digit in each box: (H, W, 3) and (D, 4) -> (D, bins^2, 4), pixels."""
        count = self.config.bins
        maps = self.network(image[None].astype("float32"), training=False)
        rois = self.regions(tf.constant(boxes[None], tf.float32))
        moves: Any = np.zeros((len(boxes), count, count, 2))
        if len(boxes) and self.config.pooling == "deformable":
            moves = np.asarray(self.pools["score"].offsets([maps["scores"], rois, maps["score_moves"]]))
        size = (boxes[:, 2:] - boxes[:, :2])[:, None, None]
        places = np.stack(np.meshgrid(np.arange(count), np.arange(count)), -1) / count  # x, y
        low = boxes[:, None, None, :2] + size * (places + self.config.gamma * moves[..., ::-1])
        return np.concatenate([low, low + size / count], -1).reshape(len(boxes), count**2, 4)


def _spread() -> Any:
    return ops.convert_to_tensor(np.array(SPREAD, "float32"))


def _matches(overlap: Any, truth: GroundTruth) -> tuple[Any, Any, Any]:
    """The overlap (N, A, T) with the true boxes that count, the greatest of each box, and with which."""
    counted = ops.multiply(overlap, ops.expand_dims(truth.counts, 1))
    return counted, ops.max(counted, axis=2), ops.cast(ops.argmax(counted, axis=2), "int32")


def _counted(which: Any) -> Any:
    """How many boxes of the batch count, at least 1; with several devices, each one's equal share of it."""
    return ops.maximum(devices.mean_over_devices(ops.sum(which)), 1.0 / devices.count())


def _smooth(x: Any) -> Any:
    """Smooth L1 (Girshick 2015)."""
    size = ops.abs(x)
    return ops.where(size < 1.0, 0.5 * ops.square(x), size - 0.5)


def _scenes(
    config: Any, photos: np.ndarray, pictures: np.ndarray, labels: np.ndarray, count: int, seed: tf.Tensor
) -> tuple[tf.Tensor, GroundTruth]:
    scene, digits = pasted(photos, pictures, labels, count, seed, config.scene, config.objects, vary=True)
    return scene, ground_truth(digits)
