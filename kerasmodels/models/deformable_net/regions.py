"""A detector whose bins stay, and one whose bins move: average precision on digits on photos.

After table 3 of the paper, which puts deformable RoI pooling into detectors. Both begin with the same trunk, which has
learnt to tell digits apart, and see the same scenes.
"""

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasmodels.data import write_image
from kerasmodels.data.digits import read_digits
from kerasmodels.errors import DataError
from kerasmodels.family import Row
from kerasmodels.metrics import MeanAveragePrecision
from kerasmodels.models.deformable_net.config import CLASSES, VARIANTS, Config
from kerasmodels.models.deformable_net.detector import DeformableDetector, build, certain, datasets, held_out
from kerasmodels.models.deformable_net.drawings import boxes_on
from kerasmodels.models.deformable_net.scenes import Things, pasted, photos_of, read_photos, split
from kerasmodels.models.deformable_net.trunk import adam, trunk

POOLINGS: tuple[Literal["plain", "deformable"], ...] = ("plain", "deformable")
IOUS = (0.5, 0.7)
TRUNK_STEPS, STEPS, SEEDS = 500, 800, 3


def pretrained(config: Config, steps: int, batch: int = 64) -> keras.Model:
    """The detector's trunk and a layer of classes, trained on a digit at a time; the paper's trunk knows ImageNet.

    A piece of a photo around a digit teaches as much as a scene, in an eighth of the time.
    """
    inputs = keras.Input((None, None, 3))
    x = trunk(config, layers.Rescaling(1 / 127.5, -1)(inputs), "float32")
    network = keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
    network.compile(
        adam(dataclasses.replace(config, steps=steps, learning_rate=4e-3)),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    photos, (pictures, labels) = split(read_photos(config.photos))[0], read_digits(config.digits, "train")

    def example(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seed = tf.stack([tf.constant(config.seed, tf.int64), 1000 * number + 500])
        scene, (digit,) = pasted(photos, pictures, labels, batch, seed, 48, 1, within=(0.4, 0.6))
        return scene, digit.label

    stream = tf.data.Dataset.range(2**40).map(example, num_parallel_calls=2, deterministic=True).prefetch(2)
    network.fit(stream, steps_per_epoch=steps, shuffle=False, verbose=0)
    return network


def begin_with(network: keras.Model, source: keras.Model) -> None:
    """The weights of another network's trunk."""
    for layer in network.layers:
        if layer.name.startswith(("conv", "norm")):
            layer.set_weights(source.get_layer(layer.name).get_weights())


def average_precision(
    model: DeformableDetector, batches: Iterable[tuple[tf.Tensor, Things]], ious: tuple[float, ...] = IOUS
) -> dict[float, float]:
    """Mean average precision, 0-1, at each of these overlaps."""
    metrics = {iou: MeanAveragePrecision(CLASSES, iou) for iou in ious}
    detect = tf.function(model.detect, reduce_retracing=True)
    for scenes, things in batches:
        found = {name: np.asarray(value) for name, value in detect(scenes).items()}
        for number, (boxes, labels, counts) in enumerate(zip(*(np.asarray(a) for a in things), strict=True)):
            there = labels >= 0
            for metric in metrics.values():
                metric.update(*certain(found, number, 0.0), boxes[there], labels[there], counts[there] > 0)
    return {iou: metric.result() for iou, metric in metrics.items()}


def measure(data: Path | None, figures: Path, quick: bool) -> list[Row]:
    """Train both detectors on the same scenes with several seeds; see the module."""
    if data is None:
        raise DataError("expected --data DIR with MNIST's four files and a folder `photos`. Received none.")
    photos_of(data)
    trunk_steps, steps, seeds, tested = (5, 20, 1, 2) if quick else (TRUNK_STEPS, STEPS, SEEDS, 60)
    scores: dict[str, dict[float, list[float]]] = {name: {iou: [] for iou in IOUS} for name in POOLINGS}
    sizes: dict[str, int] = {}
    rows_of_figure: list[np.ndarray] = []
    common = dataclasses.replace(VARIANTS["detector"], digits=data, photos=data / "photos", steps=steps)
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        begun = pretrained(dataclasses.replace(common, seed=seed), trunk_steps)
        for name in POOLINGS:
            config = dataclasses.replace(common, pooling=name, seed=seed)
            keras.utils.set_random_seed(seed)
            model = build(config)
            begin_with(model.network, begun)
            sizes[name] = model.network.count_params()
            model.fit(datasets(config).train, steps_per_epoch=steps, shuffle=False, verbose=0)
            batches = held_out(config, tested)
            for iou, value in average_precision(model, batches).items():
                scores[name][iou].append(100 * value)
            if seed == 0:
                rows_of_figure.append(_drawn(model, next(iter(batches))[0][:6]))
    write_image(figures / "deformable_net_regions.png", np.concatenate(rows_of_figure, axis=0))
    rows = [
        Row(
            f"mean AP at IoU {iou}, {name} PS-RoI pooling, {sizes[name]:,} weights, {steps} steps, {seeds} seeds, %",
            {0.5: "R-FCN, VOC: 81.4 plain, 82.6 deformable", 0.7: "R-FCN, VOC: 68.5 deformable"}[iou],
            round(float(np.mean(values)), 2),
            f"for information; seeds: {', '.join(f'{v:.2f}' for v in values)}",
            True,
        )
        for name, found in scores.items()
        for iou, values in found.items()
    ]
    for iou in IOUS:
        gains = [a - b for a, b in zip(scores["deformable"][iou], scores["plain"][iou], strict=True)]
        rows.append(
            Row(
                f"deformable against plain PS-RoI pooling: points of mean AP at IoU {iou}, the least of all seeds",
                {0.5: "1.2 (R-FCN, VOC: 81.4 to 82.6)", 0.7: "not given"}[iou],
                round(min(gains), 2),
                "> 0 with every seed",
                min(gains) > 0,
            )
        )
    return rows


def _drawn(model: DeformableDetector, scenes: tf.Tensor) -> np.ndarray:
    found = {name: np.asarray(value) for name, value in model.detect(scenes).items()}
    pictures = np.clip(np.asarray(scenes), 0, 255).astype("uint8")
    return np.concatenate([boxes_on(p, *certain(found, k)) for k, p in enumerate(pictures)], axis=1)
