"""Digits of all sizes and slants laid on photos, and the boxes around them."""

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tensorflow as tf
from PIL import Image

from kerasmodels.data.digits import SIDE
from kerasmodels.data.images import list_images, read_image
from kerasmodels.errors import DataError

_PHOTO = 160


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
    size: int = 64,
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
    # Light on dark: digits of any color on any ground are learned from only after thousands of steps.
    scene *= 0.6
    shown = 1 + whole(3, (count,), objects) if vary else tf.fill([count], objects)
    digits = []
    for number in range(objects):
        first = 10 * (number + 1)
        chosen = whole(first, (count,), len(labels))
        factor = tf.exp(draws(first + 1, (count,), np.log(sizes[0]), np.log(sizes[1])))
        angle = draws(first + 2, (count,), -np.pi / 3, np.pi / 3)
        center = draws(first + 3, (count, 2), within[0] * size, within[1] * size)
        cosine, sine = tf.cos(angle) / factor, tf.sin(angle) / factor
        middle = (SIDE - 1) / 2
        zeros = tf.zeros(count)
        left = middle - cosine * center[:, 0] + sine * center[:, 1]
        top = middle - sine * center[:, 0] - cosine * center[:, 1]
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
        color = draws(first + 4, (count, 1, 1, 3), 160, 255)
        scene = scene * (1 - alpha) + color * alpha
        area = factor**2 * tf.reduce_sum(tf.cast(digit > 0.5, tf.float32), (1, 2, 3))
        digits.append(Pasted(alpha, tf.gather(labels, chosen), area))
    return scene, digits


class GroundTruth(NamedTuple):
    """The boxes and labels of the digits on scenes.

    boxes (N, objects, 4), x1, y1, x2, y2 in pixels; labels (N, objects), -1 where there is no digit; counts (N,
    objects), 1.0, or 0.0 for digits that are hidden by more than a half or tiny, and where there is none.
    """

    boxes: tf.Tensor
    labels: tf.Tensor
    counts: tf.Tensor


def ground_truth(digits: Sequence[Pasted]) -> GroundTruth:
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
    return GroundTruth(*(tf.stack(parts[::-1], 1) for parts in zip(*found, strict=True)))
