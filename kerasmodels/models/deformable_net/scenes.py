"""Digits of all sizes and slants on photos, found pixel by pixel: where geometry matters by construction.

Networks of equal numbers of weights, whose last convolutions are plain, dilated or deformable; after table 1 of the
paper, which counts deformable layers of DeepLab.
"""

import bisect
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image

from kerasmodels.data import list_images, read_image, write_image
from kerasmodels.data.digits import SIDE, read_digits
from kerasmodels.errors import DataError
from kerasmodels.family import Row
from kerasmodels.layers import DeformableConv2D, Resize2D

SCENE = 64
"""Side of a scene, pixels."""
SIZES = (0.8, 2.2)
"""Of its digit, in sides of MNIST's: 22 to 62 pixels."""
DIGITS = 5
"""0 to 4: ten are told apart only after thousands of steps."""
CLASSES = 1 + DIGITS
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
_PHOTO = 160


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
    """(N, H, W, 3) RGB 0-255 -> (N, H, W, 11) logits; H and W multiples of 4."""
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
    x = layers.Conv2D(CLASSES, 1)(x)
    return keras.Model(inputs, Resize2D(4, "bilinear")(x), name="scenes")


def equal_width(arm: Arm, weights: int) -> int:
    """The greatest width with at most so many weights."""
    return bisect.bisect(range(2 * WIDTH), weights, lo=1, key=lambda width: network(arm, width).count_params()) - 1


def photos_of(folder: Path) -> np.ndarray:
    """`read_photos` of the folder `photos` of `folder`.

    Raises:
        DataError: there is none.
    """
    if not (folder / "photos").is_dir():
        raise DataError(
            f"expected a folder of photos, for the digits to be laid on, at {folder / 'photos'}. Received: none there."
        )
    return read_photos(folder / "photos")


def read_photos(folder: Path | None) -> np.ndarray:
    """(N, 160, 160, 3) uint8: the middles of all photos in a folder; of those of scikit-image, if it is None.

    Raises:
        DataError: there are none, or scikit-image is not installed.
    """
    found = []
    for photo in _scikit_photos() if folder is None else map(read_image, list_images(folder)):
        picture = Image.fromarray(photo)
        side = min(picture.size)
        left, top = ((length - side) // 2 for length in picture.size)
        square = picture.crop((left, top, left + side, top + side))
        found.append(np.asarray(square.resize((_PHOTO, _PHOTO), Image.Resampling.LANCZOS)))
    return np.stack(found)


def _scikit_photos() -> list[np.ndarray]:
    try:
        import skimage.data
    except ImportError:
        raise DataError(
            "expected a folder of photos, for the digits to be laid on, or those of scikit-image: "
            "pip install scikit-image."
        ) from None
    names = ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "immunohistochemistry")
    return [np.asarray(getattr(skimage.data, name)()) for name in names]


def split(photos: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Photos to train on, and the first fifth, for the test: its backgrounds are not trained on."""
    cut = max(1, len(photos) // 5)
    return photos[cut:] if len(photos) > 1 else photos, photos[:cut]


class Pasted(NamedTuple):
    """A digit of each scene: opacity (count, size, size, 1), class (count,), and area in pixels, were it all seen."""

    alpha: tf.Tensor
    label: tf.Tensor
    area: tf.Tensor


def pasted(
    photos: np.ndarray,
    pictures: np.ndarray,
    labels: np.ndarray,
    count: int,
    seed: tf.Tensor,
    size: int = SCENE,
    objects: int = 2,
    vary: bool = False,
    within: tuple[float, float] = (0.15, 0.85),
    sizes: tuple[float, float] = (0.5, 2.5),
) -> tuple[tf.Tensor, list[Pasted]]:
    """Darkened photos with light digits of all sizes, turned by up to 60 degrees; later ones on top.

    Args:
        photos: (M, 160, 160, 3) uint8.
        pictures, labels: digits, as `read_digits` gives them.
        count: how many scenes.
        seed: (2,) int.
        size: side of the scenes, up to 160.
        objects: digits on each.
        vary: 1 to `objects` on each; the others are there with opacity 0.
        within: where the middles of digits lie, as parts of the size.
        sizes: how many times as large digits become, at least and at most.

    Returns:
        (count, size, size, 3) float32 RGB 0-255, and the digits.
    """

    def draws(number: int, shape: tuple[int, ...], low: float, high: float) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, tf.cast(seed, tf.int64) + number, low, high)

    def whole(number: int, shape: tuple[int, ...], high: int) -> tf.Tensor:
        return tf.random.stateless_uniform(shape, tf.cast(seed, tf.int64) + number, 0, high, tf.int32)

    corners = whole(1, (count, 2), _PHOTO - size + 1)
    places = whole(2, (count,), len(photos))[:, None, None] * _PHOTO**2
    rows = (corners[:, :1] + tf.range(size))[:, :, None] * _PHOTO
    columns = (corners[:, 1:] + tf.range(size))[:, None, :]
    scene = tf.cast(tf.gather(photos.reshape(-1, 3), places + rows + columns), tf.float32)
    # Light on dark: digits of any colour on any ground are learnt from only after thousands of steps.
    scene *= 0.6
    shown = 1 + whole(3, (count,), objects) if vary else tf.fill([count], objects)
    digits = []
    for number in range(objects):
        first = 10 * (number + 1)
        chosen = whole(first, (count,), len(labels))
        factor = tf.exp(draws(first + 1, (count,), np.log(sizes[0]), np.log(sizes[1])))
        angle = draws(first + 2, (count,), -np.pi / 3, np.pi / 3)
        centre = draws(first + 3, (count, 2), within[0] * size, within[1] * size)
        cosine, sine = tf.cos(angle) / factor, tf.sin(angle) / factor
        middle = (SIDE - 1) / 2
        zeros = tf.zeros(count)
        left = middle - cosine * centre[:, 0] + sine * centre[:, 1]
        top = middle - sine * centre[:, 0] - cosine * centre[:, 1]
        digit = tf.cast(tf.gather(pictures, chosen), tf.float32) / 255
        alpha = tf.raw_ops.ImageProjectiveTransformV3(
            images=digit,
            transforms=tf.stack([cosine, -sine, left, sine, cosine, top, zeros, zeros], axis=1),
            output_shape=[size, size],
            fill_value=0.0,
            interpolation="BILINEAR",
            fill_mode="CONSTANT",
        )
        alpha *= tf.cast(number < shown, tf.float32)[:, None, None, None]
        colour = draws(first + 4, (count, 1, 1, 3), 160, 255)
        scene = scene * (1 - alpha) + colour * alpha
        area = factor**2 * tf.reduce_sum(tf.cast(digit > 0.5, tf.float32), (1, 2, 3))
        digits.append(Pasted(alpha, tf.gather(labels, chosen), area))
    return scene, digits


def scenes(
    photos: np.ndarray, pictures: np.ndarray, labels: np.ndarray, count: int, seed: tf.Tensor
) -> tuple[tf.Tensor, tf.Tensor]:
    """A digit on each photo, (count, 64, 64, 3), and each pixel's class, (count, 64, 64): 0, or the digit and 1."""
    scene, (digit,) = pasted(photos, pictures, labels, count, seed, SCENE, 1, within=(0.3, 0.7), sizes=SIZES)
    return scene, tf.where(digit.alpha[..., 0] > 0.5, digit.label[:, None, None] + 1, 0)


class Things(NamedTuple):
    """What is to be found on scenes.

    boxes (N, objects, 4), x1, y1, x2, y2 in pixels; labels (N, objects), -1 where there is no digit; counts (N,
    objects), 1.0, or 0.0 for digits that are hidden by more than a half or tiny, and where there is none.
    """

    boxes: tf.Tensor
    labels: tf.Tensor
    counts: tf.Tensor


def boxed(digits: Sequence[Pasted]) -> Things:
    """The boxes around what is inside the scene of each digit, hidden or not."""
    size = digits[0].alpha.shape[1]
    positions = tf.range(size, dtype=tf.float32)
    free = tf.ones_like(digits[0].alpha[..., 0])
    found = []
    for alpha, label, area in reversed(digits):
        inside = tf.cast(alpha[..., 0] > 0.5, tf.float32)
        sides = []
        for axis in (1, 2):  # what is left after the maximum over rows is columns, x
            along = tf.reduce_max(inside, axis)
            low = tf.reduce_min(tf.where(along > 0, positions, float(size)), 1)
            sides.append((low, tf.reduce_max(along * (positions + 1), 1)))
        (x1, x2), (y1, y2) = sides
        there = (x2 > x1) & (y2 > y1)
        seen = tf.reduce_sum(inside * free, (1, 2))
        whole = there & (x2 - x1 >= 4) & (y2 - y1 >= 4) & (seen >= 0.5 * area)
        free *= 1 - inside
        box = tf.where(there[:, None], tf.stack([x1, y1, x2, y2], 1), 0.0)
        found.append((box, tf.where(there, label, -1), tf.cast(whole, tf.float32)))
    return Things(*(tf.stack(parts[::-1], 1) for parts in zip(*found, strict=True)))


def _few(pictures: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The first `DIGITS` classes."""
    return pictures[labels < DIGITS], labels[labels < DIGITS]


def mean_iou(model: keras.Model, batches: Sequence[tuple[tf.Tensor, tf.Tensor]]) -> float:
    """Mean over the classes of intersection over union."""
    metric = keras.metrics.MeanIoU(CLASSES, sparse_y_pred=False)
    for scene, target in batches:
        metric.update_state(target, model(scene, training=False))
    return float(metric.result())


def measure(data: Path | None, figures: Path, quick: bool) -> list[Row]:
    """Train every network on the same scenes with several seeds; see the module."""
    if data is None:
        raise DataError("expected --data DIR with MNIST's four files and a folder `photos`. Received none.")
    photos = photos_of(data)
    steps, seeds, tested, arms = (20, 1, 2, ARMS[1::3]) if quick else (500, 3, 16, ARMS)
    train, test = _few(*read_digits(data, "train")), _few(*read_digits(data, "test"))
    backgrounds, unseen = split(photos)
    batches = [scenes(unseen, *test, 32, tf.constant([99, number], tf.int64)) for number in range(tested)]
    others = [scenes(backgrounds, *train, 32, tf.constant([98, number], tf.int64)) for number in range(tested)]
    budget = network(ARMS[-1], WIDTH).count_params()

    def trained(arm: Arm, seed: int, rate: float) -> keras.Model:
        keras.utils.set_random_seed(seed)
        model = network(arm, equal_width(arm, budget))
        model.compile(
            keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(rate, steps)),
            keras.losses.SparseCategoricalCrossentropy(from_logits=True, reduction="mean_with_sample_weight"),
            jit_compile=False,
        )

        def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
            scene, target = scenes(backgrounds, *train, 16, tf.stack([seed, 1000 * number]))
            return scene, target, tf.where(target > 0, 1.0, GROUND)

        stream = tf.data.Dataset.range(2**40).map(batch, num_parallel_calls=2, deterministic=True)
        model.fit(stream.prefetch(2), steps_per_epoch=steps, shuffle=False, verbose=0)
        return model

    scores: dict[str, list[float]] = {}
    about: dict[str, str] = {}
    shown: dict[str, np.ndarray] = {}
    for arm in arms:
        first = {rate: trained(arm, 0, rate) for rate in RATES}
        rate = max(RATES, key=lambda each: mean_iou(first[each], others))
        models = [first[rate], *(trained(arm, seed, rate) for seed in range(1, seeds))]
        scores[arm.name] = [100 * mean_iou(model, batches) for model in models]
        about[arm.name] = f"{models[0].count_params():,} weights, learning rate {rate:g}"
        shown[arm.name] = tf.argmax(models[0](batches[0][0][:8], training=False), -1).numpy()
    _draw(figures / "deformable_net_scenes.png", batches[0], shown)
    found = [
        Row(
            f"mean IoU of {name}, {about[name]}, {steps} steps, {seeds} seeds, %",
            "DeepLab on VOC, layers 0/1/2/3/6: 69.7/73.9/74.8/75.2/74.8" if "deformable" in name else "not given",
            round(float(np.mean(values)), 2),
            f"for information; seeds: {', '.join(f'{v:.2f}' for v in values)}",
            True,
        )
        for name, values in scores.items()
    ]
    for other in ("plain", "dilated"):
        if other in scores and "3 deformable" in scores:
            gains = [a - b for a, b in zip(scores["3 deformable"], scores[other], strict=True)]
            found.append(
                Row(
                    f"3 deformable layers against {other}, equal weights: points of mean IoU, the least of all seeds",
                    "5.5 (against none, DeepLab on VOC)",
                    round(min(gains), 2),
                    "> 0 with every seed",
                    min(gains) > 0,
                )
            )
    return found


def _draw(path: Path, batch: tuple[tf.Tensor, tf.Tensor], shown: dict[str, np.ndarray]) -> None:
    """Scenes, what is true, and what each network says, one row each."""
    random = np.random.default_rng(3)
    colours = np.concatenate([np.zeros((1, 3)), random.uniform(60, 255, (CLASSES - 1, 3))]).astype("uint8")
    rows = [np.clip(batch[0][:8], 0, 255).astype("uint8"), colours[np.asarray(batch[1][:8])]]
    rows += [colours[classes] for classes in shown.values()]
    write_image(path, np.concatenate([np.concatenate(list(row), axis=1) for row in rows], axis=0))
