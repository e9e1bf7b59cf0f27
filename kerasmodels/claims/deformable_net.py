"""The claims of `deformable_net`: what offsets do for a classifier, for a detector's bins, and for pixelwise labels.

Every network here is trained by the `fit` of `DeformableNet` or `DeformableDetector`, small ones handed in.
"""

import bisect
import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasmodels.claims.evidence import least_gain, over_seeds, trained
from kerasmodels.data import write_image
from kerasmodels.data.digits import Warp, read_digits
from kerasmodels.data.scenes import GroundTruth, pasted, read_photos, split
from kerasmodels.data.streams import numbered
from kerasmodels.errors import DataError
from kerasmodels.family import Claim, Experiment
from kerasmodels.layers import DeformableConv2D, Resize2D
from kerasmodels.metrics import MeanAveragePrecision
from kerasmodels.models.deformable_detector import CLASSES
from kerasmodels.models.deformable_net import (
    FAMILY,
    VARIANTS,
    Config,
    DeformableDetector,
    DeformableNet,
    TrainedPart,
    trunk,
)
from kerasmodels.tasks.digits import center_of, certain, draw_boxes, draw_samples

Measure = Callable[[Path | None, Path, bool], Sequence[Claim]]


# --- five arms --------------------------------------------------------------------------------------------------------

SEEDS = 3
BASE_STEPS, STEPS, BATCH = 700, 300, 32
_BASE_RATE, _RATE = 3e-3, 1e-3
"""Of Adam at first, for the plain network and for all arms; both fall to zero, so that a short training ends well.
At 3e-3, offsets and batch normalization together forget what the network knew."""


def arms(warp: Warp) -> Measure:
    """The experiment of one kind of warp.

    A plain network is trained on digits as they are. Then, on warped digits,
    A: it stays as it is; B: only its batch normalization is trained on (the control: what the demonstration measured);
    C: its last three convolutions become deformable, only the offsets are trained; D: both; E: all of the plain
    network is trained on.
    What offsets do is C - A and D - B, over the same seeds.
    """

    def measure(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
        base_steps, steps, seeds, most = (200, 100, 1, 500) if quick else (BASE_STEPS, STEPS, SEEDS, None)
        scores: dict[str, list[float]] = {arm: [] for arm in "ABCDE"}
        regular, shown = [], None
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            plain = Config(
                digits=data,
                warp="none",
                deformable=0,
                steps=base_steps,
                batch=BATCH,
                learning_rate=_BASE_RATE,
                schedule="cosine",
                seed=seed,
            )
            base = trained(FAMILY.build(plain), FAMILY.batches(plain), base_steps)
            regular.append(_accuracy(base, plain, most))
            scores["A"].append(_accuracy(base, dataclasses.replace(plain, warp=warp), most))
            changes: tuple[tuple[str, int, TrainedPart], ...] = (
                ("B", 0, "normalization"),
                ("C", 3, "offsets"),
                ("D", 3, "offsets and normalization"),
                ("E", 0, "all"),
            )
            for arm, deformable, part in changes:
                config = dataclasses.replace(
                    plain,
                    warp=warp,
                    deformable=deformable,
                    trained=part,
                    steps=steps,
                    learning_rate=_RATE,
                    seed=seed + 100,
                )
                model = FAMILY.build(config)
                take_over(model.network, base.network)
                scores[arm].append(_accuracy(trained(model, FAMILY.batches(config), steps), config, most))
                shown = model if arm == "D" and seed == 0 else shown
        assert shown is not None
        digits = np.asarray(next(iter(shown.held_out(shown.config, 6)))[0])
        write_image(
            figures / f"deformable_net_{warp}.png",
            np.concatenate([draw_samples(shown.network, digit, center_of(digit)) for digit in digits], axis=1),
        )
        source = "MNIST" if data is not None else "scikit-learn's digits"
        return _claims(f"{source}, {warp}, {seeds} seeds", warp, regular, scores)

    return measure


def _claims(name: str, warp: Warp, regular: list[float], scores: Mapping[str, list[float]]) -> list[Claim]:
    """Accuracies in %; their gains in points."""
    paper = {"A": "56.97 (nearest), 61.15 (bilinear)", "B": "92.72: the published network with all offsets 0"}
    what = {
        "A": "A, the plain network as it is",
        "B": "B, batch normalization trained on",
        "C": "C, offsets trained, all else as it was",
        "D": "D, offsets and batch normalization",
        "E": "E, the whole plain network trained on",
    }
    text = f"{name}: accuracy on digits as they are, %"
    return [
        Claim(f"{warp}_plain", text, "98.74", round(float(np.mean(regular)), 2), at_least=97),
        *(
            over_seeds(
                f"{warp}_{arm.lower()}",
                f"{name}: accuracy of {what[arm]}, %",
                paper.get(arm, "not given") if warp == "scaled" else "not given",
                values,
            )
            for arm, values in scores.items()
        ),
        *(
            least_gain(f"{warp}_{key}", f"{name}: {text}, points", "not given", scores[high], scores[low], least)
            for key, text, high, low, least in (
                ("offsets_alone", "what offsets alone do, C - A", "C", "A", 10.0),
                ("offsets_added", "what offsets add to batch normalization, D - B", "D", "B", 0.01),
            )
        ),
    ]


def take_over(network: keras.Model, source: keras.Model) -> None:
    """The weights of the same names; offsets stay zero."""
    for layer in source.layers:
        target = (
            {variable.name: variable for variable in network.get_layer(layer.name).weights} if layer.weights else {}
        )
        for variable in layer.weights:
            target[variable.name].assign(variable.value)


def _accuracy(model: DeformableNet, config: Config, most: int | None) -> float:
    """On the test digits, %."""
    return 100 * float(model.evaluate(model.held_out(config, most), verbose=0)[1])


# --- bins that stay, and bins that move -------------------------------------------------------------------------------

POOLINGS: tuple[Literal["plain", "deformable"], ...] = ("plain", "deformable")
IOUS = (0.5, 0.7)
_TRUNK_STEPS, _DETECTOR_STEPS = 500, 800


def pretrained(config: Config, steps: int, batch: int = 64) -> keras.Model:
    """The detector's trunk and a layer of classes, trained on a digit at a time; the paper's trunk knows ImageNet.

    A piece of a photo around a digit teaches as much as a scene, in an eighth of the time.
    """
    inputs = keras.Input((None, None, 3))
    x = trunk(config, layers.Rescaling(1 / 127.5, -1)(inputs))
    network = keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))
    model = DeformableNet(
        dataclasses.replace(config, task="classify", steps=steps, learning_rate=4e-3), network=network
    )
    model.compile(loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=[])
    photos, (pictures, labels) = split(read_photos(config.photos))[0], read_digits(config.digits, "train")

    def example(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seed = tf.stack([tf.constant(config.seed, tf.int64), 1000 * number + 500])
        scene, (digit,) = pasted(photos, pictures, labels, batch, seed, 48, 1, within=(0.4, 0.6))
        return scene, digit.label

    trained(model, numbered(example), steps)
    return network


def begin_with(network: keras.Model, source: keras.Model) -> None:
    """The weights of another network's trunk."""
    for layer in network.layers:
        if layer.name.startswith(("conv", "norm")):
            layer.set_weights(source.get_layer(layer.name).get_weights())


def average_precision(
    model: DeformableDetector, batches: Iterable[tuple[tf.Tensor, GroundTruth]], ious: tuple[float, ...] = IOUS
) -> dict[float, float]:
    """Mean average precision, 0-1, at each of these overlaps."""
    metrics = {iou: MeanAveragePrecision(CLASSES, iou) for iou in ious}
    detect = tf.function(model.detect, reduce_retracing=True)
    for scenes, truth in batches:
        found = {name: np.asarray(value) for name, value in detect(scenes).items()}
        for number, (boxes, labels, counts) in enumerate(zip(*(np.asarray(a) for a in truth), strict=True)):
            there = labels >= 0
            for metric in metrics.values():
                metric.update(*certain(found, number, 0.0), boxes[there], labels[there], counts[there] > 0)
    return {iou: metric.result() for iou, metric in metrics.items()}


def regions(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Detectors with plain and deformable PS-RoI pooling, after table 3 of the paper.

    Both begin with the same trunk, which has learned to tell digits apart, and see the same scenes.
    """
    folder = _folder(data)
    trunk_steps, steps, seeds, tested = (5, 20, 1, 2) if quick else (_TRUNK_STEPS, _DETECTOR_STEPS, SEEDS, 60)
    scores: dict[str, dict[float, list[float]]] = {name: {iou: [] for iou in IOUS} for name in POOLINGS}
    sizes: dict[str, int] = {}
    strips: list[np.ndarray] = []
    common = dataclasses.replace(VARIANTS["detector"], digits=folder, photos=folder / "photos", steps=steps)
    for seed in range(seeds):
        keras.utils.set_random_seed(seed)
        begun = pretrained(dataclasses.replace(common, seed=seed), trunk_steps)
        for name in POOLINGS:
            config = dataclasses.replace(common, pooling=name, seed=seed)
            keras.utils.set_random_seed(seed)
            model: Any = FAMILY.build(config)
            begin_with(model.network, begun)
            sizes[name] = model.network.count_params()
            batches = trained(model, FAMILY.batches(config), steps).held_out(config, tested)
            for iou, value in average_precision(model, batches).items():
                scores[name][iou].append(100 * value)
            if seed == 0:
                strips.append(_drawn(model, next(iter(batches))[0][:6]))
    write_image(figures / "deformable_net_regions.png", np.concatenate(strips, axis=0))
    paper = {0.5: "R-FCN, VOC: 81.4 plain, 82.6 deformable", 0.7: "R-FCN, VOC: 68.5 deformable"}
    gains = {0.5: "1.2 (R-FCN, VOC: 81.4 to 82.6)", 0.7: "not given"}
    return [
        *(
            over_seeds(
                f"ap{round(100 * iou)}_{name}",
                f"mean AP at IoU {iou}, {name} PS-RoI pooling, {sizes[name]:,} weights, {steps} steps, {seeds} seeds, "
                "%",
                paper[iou],
                values,
            )
            for name, by_iou in scores.items()
            for iou, values in by_iou.items()
        ),
        *(
            least_gain(
                f"ap{round(100 * iou)}_gain",
                f"deformable against plain PS-RoI pooling: points of mean AP at IoU {iou}",
                gains[iou],
                scores["deformable"][iou],
                scores["plain"][iou],
                at_least=0.01,
            )
            for iou in IOUS
        ),
    ]


def _folder(data: Path | None) -> Path:
    """The folder with MNIST's four files and a folder of photos.

    Raises:
        DataError: there is none.
    """
    if data is None or not (data / "photos").is_dir():
        where = data or "--data DIR, which also holds MNIST's four files"
        raise DataError(f"expected a folder `photos`, for the digits to be laid on, in {where}. Received: none there.")
    return data


def _drawn(model: DeformableDetector, scenes: tf.Tensor) -> np.ndarray:
    found = {name: np.asarray(value) for name, value in model.detect(scenes).items()}
    pictures = np.clip(np.asarray(scenes), 0, 255).astype("uint8")
    return np.concatenate([draw_boxes(p, *certain(found, k)) for k, p in enumerate(pictures)], axis=1)


# --- digits found pixel by pixel --------------------------------------------------------------------------------------

SCENE = 64
"""Side of a scene, pixels."""
SIZES = (0.8, 2.2)
"""Of its digit, in sides of MNIST's: 22 to 62 pixels."""
DIGITS = 5
"""0 to 4: ten are told apart only after thousands of steps."""
SCENE_CLASSES = 1 + DIGITS
"""Background, and the digits."""
GROUND = 0.2
"""How much a pixel of the background counts in the loss."""
RATES = (2e-3, 4e-3)
"""Of Adam at first. Each network has the one that does better with the first seed, on scenes made like those it learns
from."""
DEPTH = 6
"""Convolutions of 3x3 at a quarter of the size, between the first two and the last."""
WIDTH = 48
"""Of these if all are deformable; the others get as many weights by being wider."""


@dataclass(frozen=True)
class Arm:
    """A network: how many of the last convolutions are deformable, and whether the last three are dilated by 2."""

    name: str
    deformable: int = 0
    dilated: bool = True


ARMS = (
    Arm("plain", dilated=False),
    Arm("dilated"),
    Arm("1 deformable", 1),
    Arm("2 deformable", 2),
    Arm("3 deformable", 3),
    Arm("6 deformable", 6),
)


def network(arm: Arm, width: int) -> keras.Model:
    """(N, H, W, 3) RGB 0-255 -> (N, H, W, 6) logits; H and W multiples of 4."""
    inputs = keras.Input((None, None, 3))
    x = layers.Rescaling(1 / 127.5, -1)(inputs)
    for filters, size in ((24, 5), (width, 3)):
        x = layers.Conv2D(filters, size, 2, "same", use_bias=False)(x)
        x = layers.ReLU()(layers.BatchNormalization(momentum=0.9)(x))
    for number in range(DEPTH):
        dilation = 2 if arm.dilated and number >= DEPTH - 3 else 1
        kind = DeformableConv2D if number >= DEPTH - arm.deformable else layers.Conv2D
        y = kind(width, 3, padding="same", dilation_rate=dilation, use_bias=False)(x)
        x = layers.ReLU()(layers.Add()([x, layers.BatchNormalization(momentum=0.9)(y)]))
    x = layers.Conv2D(SCENE_CLASSES, 1)(x)
    return keras.Model(inputs, Resize2D(4, "bilinear")(x), name="scenes")


def equal_width(arm: Arm, weights: int) -> int:
    """The greatest width with at most so many weights."""
    return bisect.bisect(range(2 * WIDTH), weights, lo=1, key=lambda width: network(arm, width).count_params()) - 1


def labeled_scenes(
    photos: np.ndarray, pictures: np.ndarray, labels: np.ndarray, count: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A digit on each photo, (count, 64, 64, 3), and each pixel's class, (count, 64, 64): 0, or the digit and 1."""
    scene, (digit,) = pasted(photos, pictures, labels, count, seed, SCENE, 1, within=(0.3, 0.7), sizes=SIZES)
    return scene, tf.where(digit.alpha[..., 0] > 0.5, digit.label[:, None, None] + 1, 0)


def _few(pictures: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first `DIGITS` classes."""
    return pictures[labels < DIGITS], labels[labels < DIGITS]


def mean_iou(model: keras.Model, batches: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> float:
    """Mean over the classes of intersection over union."""
    metric = keras.metrics.MeanIoU(SCENE_CLASSES, sparse_y_pred=False)
    for scene, target in batches:
        metric.update_state(target, model(scene, training=False))
    return float(metric.result())


def scenes(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Digits of all sizes and slants on photos, found pixel by pixel: where geometry matters by construction.

    Networks of equal numbers of weights, whose last convolutions are plain, dilated or deformable, all trained on the
    same scenes with several seeds; after table 1 of the paper, which counts deformable layers of DeepLab.
    """
    folder = _folder(data)
    photos = read_photos(folder / "photos")
    steps, seeds, tested, arms = (20, 1, 2, ARMS[1::3]) if quick else (500, 3, 16, ARMS)
    train, test = _few(*read_digits(folder, "train")), _few(*read_digits(folder, "test"))
    backgrounds, unseen = split(photos)
    batches = [labeled_scenes(unseen, *test, 32, tf.constant([99, number], tf.int64)) for number in range(tested)]
    others = [labeled_scenes(backgrounds, *train, 32, tf.constant([98, number], tf.int64)) for number in range(tested)]
    budget = network(ARMS[-1], WIDTH).count_params()

    def fitted(arm: Arm, seed: int, rate: float) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = DeformableNet(
            Config(steps=steps, learning_rate=rate, schedule="cosine"), network=network(arm, equal_width(arm, budget))
        )
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight")
        model.compile(loss=loss, metrics=[])

        def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            scene, target = labeled_scenes(backgrounds, *train, 16, tf.stack([seed, 1000 * number]))
            return scene, target, tf.where(target > 0, 1.0, GROUND)

        return trained(model, numbered(batch), steps)

    scores: dict[str, list[float]] = {}
    about: dict[str, str] = {}
    shown: dict[str, np.ndarray] = {}
    for arm in arms:
        first = {rate: fitted(arm, 0, rate) for rate in RATES}
        rate = max(RATES, key=lambda each: mean_iou(first[each], others))
        models = [first[rate], *(fitted(arm, seed, rate) for seed in range(1, seeds))]
        scores[arm.name] = [100 * mean_iou(model, batches) for model in models]
        about[arm.name] = f"{models[0].count_params():,} weights, learning rate {rate:g}"
        shown[arm.name] = tf.argmax(models[0](batches[0][0][:8], training=False), -1).numpy()
    _draw(figures / "deformable_net_scenes.png", batches[0], shown)
    paper = "DeepLab on VOC, layers 0/1/2/3/6: 69.7/73.9/74.8/75.2/74.8"
    return [
        *(
            over_seeds(
                f"iou_{name.replace(' ', '_')}",
                f"mean IoU of {name}, {about[name]}, {steps} steps, {seeds} seeds, %",
                paper if "deformable" in name else "not given",
                values,
            )
            for name, values in scores.items()
        ),
        *(
            least_gain(
                f"gain_over_{other}",
                f"3 deformable layers against {other}, equal weights: points of mean IoU",
                "5.5 (against none, DeepLab on VOC)",
                scores["3 deformable"],
                scores[other],
                at_least=0.01,
            )
            for other in ("plain", "dilated")
            if other in scores and "3 deformable" in scores
        ),
    ]


def _draw(path: Path, batch: tuple[tf.Tensor, tf.Tensor], shown: dict[str, np.ndarray]) -> None:
    """Scenes, what is true, and what each network says, one row each."""
    random = np.random.default_rng(3)
    colors = np.concatenate([np.zeros((1, 3)), random.uniform(60, 255, (SCENE_CLASSES - 1, 3))]).astype("uint8")
    rows = [np.clip(batch[0][:8], 0, 255).astype("uint8"), colors[np.asarray(batch[1][:8])]]
    rows += [colors[classes] for classes in shown.values()]
    write_image(path, np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0))


EXPERIMENTS = {
    "scaled": Experiment(
        "five arms on scaled digits: what offsets do, and what normalization", arms("scaled"), private=True
    ),
    "rotated": Experiment("the same five arms on turned digits", arms("rotated"), private=True),
    "regions": Experiment("a detector whose bins stay, and one whose bins move", regions, private=True),
    "scenes": Experiment("plain, dilated and deformable, equal weights, digits on photos", scenes, private=True),
}
