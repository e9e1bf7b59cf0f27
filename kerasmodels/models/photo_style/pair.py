"""The two photos, their regions, and the photo in the reference's colours."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import keras
import numpy as np
from PIL import Image

from kerasmodels.backbones import VGG19
from kerasmodels.data import read_image, regions
from kerasmodels.errors import DataError, UsageError
from kerasmodels.layers.local_affine import guided_filter
from kerasmodels.models.photo_style.config import Config


@dataclass(frozen=True)
class Pair:
    """The two photos at the sizes they are compared at, and their regions.

    Attributes:
        photo, reference: (H, W, 3) uint8.
        masks, reference_masks: (K, H, W) float32, 0-1, K classes in one order.
    """

    photo: np.ndarray
    reference: np.ndarray
    masks: np.ndarray
    reference_masks: np.ndarray


def read_pair(config: Config) -> Pair:
    """The pictures and masks that a config names.

    Raises:
        UsageError: no photo or no reference is named, or height and width are not in the photo's proportions.
        DataError: a picture or mask cannot be used.
    """
    if config.photo is None or config.reference is None:
        raise UsageError("expected a photo and a reference: --photo PICTURE --reference PICTURE.")
    photo, reference = readable(config.photo), readable(config.reference)
    height, width = photo.shape[:2]
    fits = abs(config.width * height - config.height * width) <= max(height, width) * 1.5
    if not fits:
        want = round(config.width * height / width)
        raise UsageError(
            f"expected height and width in the proportions of {config.photo}, which is {width} x {height}: such as "
            f"--width {config.width} --height {want}. Received: width {config.width}, height {config.height}."
        )
    scale = config.reference_size / max(reference.shape[:2])
    there = tuple(max(16, round(side * min(1.0, scale))) for side in reference.shape[:2])
    labels = None
    if config.mask is not None and config.reference_mask is not None:
        mine, theirs = regions.read_both_labels(config.mask, config.reference_mask)
        mine = regions.fit_labels(mine, height, width, f"the mask {config.mask}")
        theirs = regions.fit_labels(theirs, reference.shape[0], reference.shape[1], f"the mask {config.reference_mask}")
        labels = mine, theirs
    photo, reference = resized(photo, config.height, config.width), resized(reference, *there)
    if labels is None and config.auto_masks > 1:
        labels = automatic_labels(config, photo, reference)
    if labels is None:
        return Pair(photo, reference, *(np.ones((1, *p.shape[:2]), "float32") for p in (photo, reference)))
    mine, theirs = labels
    mine = regions.merge_orphans(mine, _substantial(theirs))
    classes = np.unique(mine)
    masks = regions.region_masks(mine, classes, config.height, config.width)
    reference_masks = regions.region_masks(theirs, classes, *there)
    if config.mask is None:
        masks = _along_edges(photo, masks)
    return Pair(photo, reference, masks, reference_masks)


def _along_edges(photo: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Coarse masks (K, H, W), their borders drawn to the photo's edges; they still sum to 1."""
    guide, values = (photo[None] / np.float32(255)), np.moveaxis(masks, 0, -1)[None]
    fine = np.moveaxis(np.asarray(guided_filter(guide, values, radius=8, edge=0.05))[0], -1, 0)
    fine = np.clip(fine, 0, 1)
    return fine / np.maximum(fine.sum(0), 1e-6)


def _substantial(labels: np.ndarray) -> np.ndarray:
    """The labels on more than two thousandths of the picture."""
    found, counts = np.unique(labels, return_counts=True)
    return found[counts >= 0.002 * labels.size]


def automatic_labels(config: Config, photo: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (h, w) of two photos (H, W, 3), an eighth of their size, by clustering VGG19's features of both together.

    Features are taken relative to the mean of their own photo, so that day and night fall into the same clusters, with
    the height in the picture as one more: the sky is above.
    """
    from scipy.ndimage import gaussian_filter

    vgg = loss_network(config, ("relu4_1",))
    found = []
    for picture in (photo, reference):
        features = np.asarray(vgg(picture[None].astype("float32"))["relu4_1"][0], "float64")
        features = gaussian_filter(np.log1p(np.maximum(features, 0)), (1, 1, 0))
        features = (features - features.mean((0, 1))) / (features.std() + 1e-9)
        features /= features.shape[-1] ** 0.5
        rows = np.linspace(-1, 1, features.shape[0])[:, None, None] * np.ones((1, features.shape[1], 1))
        found.append(np.concatenate([features, 0.5 * rows], axis=-1))
    mine, theirs = regions.cluster(found, config.auto_masks, config.seed)
    return mine, theirs


def colour_matched(pair: Pair) -> np.ndarray:
    """The photo under one affine colour map for each region: mean and covariance become the reference's, (H, W, 3).

    Of the maps that do so, the one that moves colours least. Contrast below some 8 levels is not enlarged much, as it
    is noise.
    """
    from scipy.linalg import sqrtm

    result = np.zeros(pair.photo.shape)
    for mine, theirs in zip(pair.masks, pair.reference_masks, strict=True):
        moments = []
        for picture, mask in ((pair.photo, mine), (pair.reference, theirs)):
            weight = mask[..., None] / max(mask.sum(), 1e-9)
            mean = (picture * weight).sum((0, 1))
            centred = (picture - mean).reshape(-1, 3)
            covariance = centred.T @ (centred * weight.reshape(-1, 1)) + 64 * np.eye(3)
            moments.append((mean, covariance))
        (mean, own), (target_mean, target) = moments
        root = np.real(sqrtm(own))
        inverse = np.linalg.inv(root)
        colours = inverse @ np.real(sqrtm(root @ target @ root)) @ inverse
        result += mine[..., None] * ((pair.photo - mean) @ colours + target_mean)
    return result.astype("float32")


def readable(path: Path) -> np.ndarray:
    picture = read_image(path)
    if min(picture.shape[:2]) < 16:
        raise DataError(
            f"expected a picture of at least 16 x 16 pixels. Received: {path}, {picture.shape[1]} x {picture.shape[0]}."
        )
    return picture


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def loss_network(config: Config, taps: Sequence[str]) -> keras.Model:
    source = None if config.vgg == "random" else config.vgg
    return VGG19(taps, weights=source, dtype=config.precision.removeprefix("mixed_"))
