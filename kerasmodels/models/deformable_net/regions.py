"""Which digit is in a region? The head of a detector, with bins that stay and bins that move.

The regions are the boxes of digits on photos, moved and resized at random as proposals are, and boxes of background.
After table 3 of the paper, which puts deformable RoI pooling into detectors.
"""

from collections.abc import Sequence
from pathlib import Path

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasmodels.data.digits import read_digits
from kerasmodels.errors import DataError
from kerasmodels.family import Row
from kerasmodels.layers import DeformablePSRoIPooling, DeformableRoIPooling, PSRoIPooling, RoIPooling
from kerasmodels.models.deformable_net.scenes import CLASSES, SCENE, pasted, photos_of

BINS = 5
"""Along each side of a region."""
PER_SCENE = 8
"""Regions of each scene: two around each digit, the others anywhere."""
ARMS = ("PS-RoI pooling", "deformable PS-RoI pooling", "RoI pooling", "deformable RoI pooling")
_SCALE = 1 / 4


def head(arm: str) -> keras.Model:
    """[(N, H, W, 3) RGB 0-255, (R, 5) regions] -> (R, 11) logits: a small trunk, and a head of the kind named."""
    image, rois = keras.Input((None, None, 3)), keras.Input((5,))
    x = layers.Rescaling(1 / 127.5, -1)(image)
    for filters, size, stride in ((24, 5, 2), (48, 3, 2), (48, 3, 1), (48, 3, 1)):
        x = layers.Conv2D(filters, size, stride, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    if "PS" in arm:
        scores = layers.Conv2D(BINS**2 * CLASSES, 1)(x)
        if "deformable" in arm:
            maps = layers.Conv2D(2 * BINS**2, 1, kernel_initializer="zeros", name="offset_maps")(x)
            pooled = DeformablePSRoIPooling(BINS, 2, _SCALE)([scores, rois, maps])
        else:
            pooled = PSRoIPooling(BINS, 2, _SCALE)([scores, rois])
        # The vote of all bins.
        return keras.Model([image, rois], keras.ops.mean(pooled, axis=(1, 2)))
    kind = DeformableRoIPooling if "deformable" in arm else RoIPooling
    pooled = layers.Flatten()(kind(BINS, 2, _SCALE)([x, rois]))
    return keras.Model([image, rois], layers.Dense(CLASSES)(layers.Dense(128, "relu")(pooled)))


def proposals(
    photos: np.ndarray, pictures: np.ndarray, labels: np.ndarray, count: int, seed: tf.Tensor
) -> tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor, tf.Tensor]:
    """Scenes with regions.

    Args:
        photos, pictures, labels, count, seed: as `scenes.scenes` takes them.

    Returns:
        (scenes (count, 96, 96, 3), regions (8 count, 5)); classes (8 count,), 0 for background; and weights, 0 for
        regions that are neither a digit nor background: digits hidden or outside, boxes that overlap one by 0.3.
    """
    scene, digits = pasted(photos, pictures, labels, count, seed)
    positions = tf.range(SCENE, dtype=tf.float32)
    boxes, whole = [], []
    for alpha, _ in digits:
        seen = tf.cast(alpha[..., 0] > 0.5, tf.float32)
        sides = []
        for axis in (1, 2):  # what is left after the maximum over rows is columns, x
            along = tf.reduce_max(seen, axis)
            sides.append((tf.reduce_min(tf.where(along > 0, positions, 1e9), 1), tf.reduce_max(along * positions, 1)))
        (x1, x2), (y1, y2) = sides
        boxes.append(tf.stack([x1, y1, x2, y2], 1))
        whole.append((x2 - x1 >= 4) & (y2 - y1 >= 4) & (tf.reduce_sum(seen, (1, 2)) > 20))
    random = tf.random.stateless_uniform((count, PER_SCENE, 4), tf.cast(seed, tf.int64) + 90)
    found, classes, counted = [], [], []
    for number in range(PER_SCENE):
        draw = random[:, number]
        if number < 4:
            box, (_, label), good = boxes[number % 2], digits[number % 2], whole[number % 2]
            box = tf.where(good[:, None], box, [[0.0, 0.0, 9.0, 9.0]])
            size = box[:, 2:] - box[:, :2]
            low = box[:, :2] + (draw[:, :2] - 0.5) * 0.4 * size
            high = box[:, 2:] + (draw[:, 2:] - 0.5) * 0.4 * size
            classes.append(label + 1)
        else:
            size = 10 + 50 * draw[:, 2:]
            low = draw[:, :2] * (SCENE - 1 - size)
            high = low + size
            overlap = [_overlap(tf.concat([low, high], 1), box) for box in boxes]
            good = tf.maximum(*overlap) < 0.3
            classes.append(tf.zeros((count,), tf.int32))
        low = tf.round(tf.clip_by_value(low, 0, SCENE - 4))
        high = tf.round(tf.maximum(tf.minimum(high, SCENE - 1), low + 3))
        picture = tf.range(count, dtype=tf.float32)[:, None]
        found.append(tf.concat([picture, low, high], 1))
        counted.append(tf.cast(good, tf.float32))
    flat = [tf.concat(parts, 0) for parts in (found, classes, counted)]
    return (scene, flat[0]), flat[1], flat[2]


def _overlap(first: tf.Tensor, second: tf.Tensor) -> tf.Tensor:
    """Intersection over union of boxes (N, 4)."""
    shared = tf.maximum(tf.minimum(first[:, 2:], second[:, 2:]) - tf.maximum(first[:, :2], second[:, :2]), 0)
    one, two = (tf.reduce_prod(tf.maximum(box[:, 2:] - box[:, :2], 0), 1) for box in (first, second))
    common = tf.reduce_prod(shared, 1)
    return common / tf.maximum(one + two - common, 1e-6)


class RegionHead(keras.Model):
    """Trains on batches whose regions are not as many as their pictures."""

    def __init__(self, arm: str):
        super().__init__()
        self.head = head(arm)
        self.built = True

    def call(self, inputs: tuple[tf.Tensor, tf.Tensor], training: bool | None = None) -> tf.Tensor:
        return self.head(list(inputs), training=training)


def accuracy(model: keras.Model, batches: Sequence[tuple[tuple[tf.Tensor, tf.Tensor], tf.Tensor, tf.Tensor]]) -> float:
    """Share of the counted regions whose class is right."""
    right = total = 0.0
    for given, classes, counted in batches:
        best = tf.argmax(model(given, training=False), -1, tf.int32)
        right += float(tf.reduce_sum(tf.cast(best == classes, tf.float32) * counted))
        total += float(tf.reduce_sum(counted))
    return right / total


def measure(data: Path | None, figures: Path, quick: bool) -> list[Row]:
    """Train the four heads on the same regions with several seeds; see the module."""
    if data is None:
        raise DataError("expected --data DIR with MNIST's four files and a folder `photos`. Received none.")
    photos = photos_of(data)
    steps, seeds, tested = (20, 1, 2) if quick else (300, 2, 25)
    train, test = read_digits(data, "train"), read_digits(data, "test")
    cut = max(1, len(photos) // 5)
    batches = [proposals(photos[:cut], *test, 16, tf.constant([99, number], tf.int64)) for number in range(tested)]
    scores: dict[str, list[float]] = {arm: [] for arm in ARMS}
    for seed in range(seeds):
        for arm in ARMS:
            keras.utils.set_random_seed(seed)
            model = RegionHead(arm)
            model.compile(
                keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(2e-3, steps)),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                jit_compile=False,
            )
            stream = tf.data.Dataset.range(2**40).map(
                lambda number, seed=seed: proposals(photos[cut:], *train, 8, tf.stack([seed, 1000 * number])),
                num_parallel_calls=2,
                deterministic=True,
            )
            model.fit(stream.prefetch(2), steps_per_epoch=steps, shuffle=False, verbose=0)
            scores[arm].append(100 * accuracy(model, batches))
    rows = [
        Row(
            f"accuracy on regions, {name}, {steps} steps, {seeds} seeds, %",
            "not given",
            round(float(np.mean(values)), 2),
            f"for information; seeds: {', '.join(f'{v:.2f}' for v in values)}",
            True,
        )
        for name, values in scores.items()
    ]
    for name in ("PS-RoI pooling", "RoI pooling"):
        gains = [a - b for a, b in zip(scores[f"deformable {name}"], scores[name], strict=True)]
        paper = {"PS-RoI pooling": "1.2 (R-FCN, VOC, mAP@0.5: 81.4 to 82.6)", "RoI pooling": "0.7 (Faster R-CNN, VOC)"}
        rows.append(
            Row(
                f"deformable {name} against plain: points of accuracy, the least of all seeds",
                paper[name],
                round(min(gains), 2),
                "> 0 with every seed",
                min(gains) > 0,
            )
        )
    return rows
