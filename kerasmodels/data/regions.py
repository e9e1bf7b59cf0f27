"""Label pictures: which region of a photo is what, painted in nine colors or found by clustering."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmodels.data.images import _opened, _upright, read_drawing
from kerasmodels.data.segmentation import voc_palette
from kerasmodels.errors import DataError, UsageError

COLORS: Mapping[str, tuple[int, int, int]] = {
    "blue": (0, 0, 255),
    "green": (0, 255, 0),
    "black": (0, 0, 0),
    "white": (255, 255, 255),
    "red": (255, 0, 0),
    "yellow": (255, 255, 0),
    "gray": (128, 128, 128),
    "lightblue": (0, 255, 255),
    "purple": (255, 0, 255),
}
"""The colors of a label picture, RGB 0-255; a label is a color's number in this order."""

TOLERANCE = 25.5
"""How far a channel may be from a color of the table and still be that color, of 255 (Luan et al.: 0.1)."""

_LEAST = 0.002  # of the picture: a region smaller than this has no statistics worth matching


def read_labels(path: str | Path) -> np.ndarray:
    """Read a label picture: each pixel becomes the number of its color in `COLORS`.

    Pixels between two regions, where a drawing program blends the colors, take the nearest color that occurs in the
    picture as an area. A picture with a palette of other colors (as segmentation networks write them, such as PASCAL
    VOC's) needs none of the table: its palette's indices are the labels. With a palette of the nine, the colors count.

    Returns:
        (H, W) uint8.

    Raises:
        DataError: it cannot be read, a pixel is transparent, or an area has a color that is none of the nine, or of a
            palette some are and some are not; the message names it.
    """
    return _labels_and_palette(path)[0]


def read_both_labels(mine: str | Path, theirs: str | Path) -> tuple[np.ndarray, np.ndarray]:
    """`read_labels` of two pictures whose labels are to mean the same.

    Raises:
        DataError: see `read_labels`; or one's labels are colors and the other's a palette's indices, or an index of
            both has two colors.
    """
    (first, one), (second, other) = _labels_and_palette(mine), _labels_and_palette(theirs)
    if (one is None) != (other is None):
        numbered, painted = (mine, theirs) if other is None else (theirs, mine)
        raise DataError(
            f"expected both masks in the nine colors ({', '.join(COLORS)}), or both with one palette of others. "
            f"Received: {painted}, in the nine, and {numbered}, with a palette of others. Paint both alike."
        )
    if one is not None and other is not None:
        for label in np.intersect1d(first, second).tolist():
            colors = tuple(one[label].tolist()), tuple(other[label].tolist())
            if colors[0] != colors[1]:
                raise DataError(
                    f"expected index {label} to have one color in the palettes of both masks. Received: RGB "
                    f"{colors[0]} in {mine} and RGB {colors[1]} in {theirs}. Save both as RGB in the nine colors "
                    f"({', '.join(COLORS)}), or with one palette."
                )
    return first, second


def _labels_and_palette(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """`read_labels`, and the palette (K, 3) if its indices were taken."""
    picture = read_drawing(path)
    with _opened(path) as image:
        if image.mode != "P":
            return labels_of(picture, str(path)), None
        indices = np.asarray(_upright(image), "uint8")
        palette = np.reshape(image.getpalette("RGB") or [], (-1, 3)).astype("int16")
    palette = np.pad(palette, ((0, 256 - len(palette)), (0, 0)))
    used = np.flatnonzero(np.bincount(indices.ravel(), minlength=256))
    count = max(2, int(used[-1]) + 1)
    table = np.array(list(COLORS.values()), "int16")
    far = np.abs(palette[used][:, None] - table).max(-1)
    near = far.min(1) <= TOLERANCE
    # Also where all indices have about one color, as in a palette that nobody set.
    same = len(used) > 1 and near.all() and len(np.unique(far.argmin(1))) == 1
    if same or (palette[:count] == voc_palette()[:count]).all():
        return indices, palette
    substantial = np.bincount(indices.ravel(), minlength=256)[used] >= _LEAST * indices.size
    background = (used == 0) & (palette[used] == 0).all(1)
    if (~near & substantial).any() and not (near & substantial & ~background).any():
        return indices, palette
    return labels_of(picture, str(path)), None


def labels_of(picture: np.ndarray, name: str = "the label picture") -> np.ndarray:
    """`read_labels` of a picture at hand: (H, W, 3) uint8 -> (H, W) uint8. `name` is for the error."""
    table = np.array(list(COLORS.values()), "int16")
    far = np.stack([np.abs(picture.astype("int16") - color).max(-1) for color in table])
    nearest, distance = far.argmin(0), far.min(0)
    near = distance <= TOLERANCE
    # Blends at edges are thin: white beside black makes a line of gray. What fills 3x3 pixels evenly is meant.
    spread = _spread_of_window(picture)
    inside = near & (spread <= 2 * TOLERANCE)
    present = np.bincount(nearest[inside], minlength=len(table)) >= max(1, 2e-4 * near.size)
    strange = ~near if not present.any() else far[present].min(0) > TOLERANCE
    meant = strange & (spread <= 4)
    if meant.sum() >= max(9, _LEAST * meant.size) or not present.any():
        colors, times = np.unique(picture[meant if meant.any() else strange].reshape(-1, 3), axis=0, return_counts=True)
        found = tuple(int(c) for c in colors[times.argmax()])
        raise DataError(
            f"expected the colors {', '.join(COLORS)} in {name}. Received: RGB {found} on about "
            f"{100 * meant.mean():.1f}% of it, nearest to {list(COLORS)[int(np.abs(table - found).max(1).argmin())]}. "
            "Paint that region in one of the nine."
        )
    return np.flatnonzero(present)[far[present].argmin(0)].astype("uint8")


def _spread_of_window(picture: np.ndarray) -> np.ndarray:
    """(H, W): the largest difference between two pixels of the 3x3 window around each, over the channels."""
    from scipy.ndimage import maximum_filter, minimum_filter

    values = picture.astype("int16")
    return (maximum_filter(values, (3, 3, 1)) - minimum_filter(values, (3, 3, 1))).max(-1)


def fit_labels(labels: np.ndarray, height: int, width: int, name: str = "the mask") -> np.ndarray:
    """The label picture at a photo's size (nearest neighbor).

    Raises:
        DataError: its proportions are not the photo's, to 3%: it belongs to another picture.
    """
    if labels.shape == (height, width):
        return labels
    h, w = labels.shape
    # A pixel more or less is no other picture, whatever it does to the proportions of a small one.
    if abs(np.log(h * width / (w * height))) > 0.03 and max(abs(h - height), abs(w - width)) > 2:
        raise DataError(
            f"expected {name} in its picture's proportions, such as {width} x {height} pixels. Received: {w} x {h}. "
            "Give the mask that was painted for this picture."
        )
    return np.asarray(Image.fromarray(labels).resize((width, height), Image.Resampling.NEAREST))


def merge_orphans(labels: np.ndarray, known: Sequence[int] | np.ndarray, least: float = _LEAST) -> np.ndarray:
    """`labels` (H, W) without those not in `known`: each such pixel takes the label of the nearest pixel that is.

    The paper lets its segmentation network choose among the reference's labels only; a label picture has no second
    choice, but regions that touch are likelier to be alike than any other two.

    Args:
        labels: (H, W) integers.
        known: the labels to keep, such as those of the reference.
        least: a known label on less of the picture than this part is an orphan, too: its statistics mean nothing.

    Raises:
        DataError: no label is known.
    """
    from scipy.ndimage import distance_transform_edt

    kept = [k for k in np.unique(labels) if k in np.asarray(known) and (labels == k).mean() >= least]
    if not kept:
        raise DataError(
            "expected the masks of picture and reference to share a color. "
            f"Received: {_names(labels)} and {_names(np.asarray(known))}."
        )
    fine = np.isin(labels, kept)
    if fine.all():
        return labels
    rows, columns = distance_transform_edt(~fine, return_distances=False, return_indices=True)
    return labels[rows, columns]


def _names(labels: np.ndarray) -> str:
    names = dict(enumerate(COLORS))
    return ", ".join(names.get(int(k), str(k)) for k in np.unique(labels))


def region_masks(labels: np.ndarray, classes: Sequence[int] | np.ndarray, height: int, width: int) -> np.ndarray:
    """One mask for each class, (K, height, width) float32, 0-1: what part of each pixel belongs to it.

    The labels are shrunk (area averaging) or enlarged (bilinear) after they were told apart, as fractions: not as
    colors, which would make new labels at edges. Where every pixel has one of the classes the masks sum to 1.
    """
    shrunk = height * width <= labels.size
    how = Image.Resampling.BOX if shrunk else Image.Resampling.BILINEAR
    masks = [np.asarray(Image.fromarray((labels == k).astype("float32")).resize((width, height), how)) for k in classes]
    return np.clip(np.stack(masks), 0, 1)


def cluster(features: Sequence[np.ndarray], classes: int, seed: int = 0) -> list[np.ndarray]:
    """Label pictures by k-means over the features of several pictures together, so that labels mean the same in all.

    Args:
        features: for each picture (h, w, C): colors, activations of a network ...
        classes: clusters, 1 to 9.
        seed: of the first centers (k-means++).

    Returns:
        (h, w) uint8 for each picture, numbered by size, largest first.

    Raises:
        UsageError: another number of classes.
    """
    from scipy.cluster.vq import kmeans2

    if not 1 <= classes <= len(COLORS):
        raise UsageError(f"expected 1 to {len(COLORS)} classes. Received: {classes}.")
    points = np.concatenate([f.reshape(-1, f.shape[-1]) for f in features]).astype("float64")
    best: Any = None
    for attempt in range(4):
        # k-means ends in a local optimum, so the best of a few beginnings is taken.
        centers, chosen = kmeans2(
            points, classes, minit="++", rng=np.random.default_rng([seed, attempt]), missing="warn"
        )
        cost = float(((points - centers[chosen]) ** 2).sum())
        if best is None or cost < best[0]:
            best = (cost, chosen)
    order = np.argsort(-np.bincount(best[1], minlength=classes))
    rank = np.empty(classes, "uint8")
    rank[order] = np.arange(classes)
    ends = np.cumsum([f.shape[0] * f.shape[1] for f in features])
    parts = np.split(rank[best[1]], ends[:-1])
    return [part.reshape(f.shape[:2]) for part, f in zip(parts, features, strict=True)]


def matched_masks(
    labels: np.ndarray, others: np.ndarray, size: tuple[int, int], other_size: tuple[int, int]
) -> tuple[np.ndarray, np.ndarray]:
    """One mask for each region of a picture, and of what it belongs to in another; see `merge_orphans`.

    Args:
        labels, others: of the two pictures, (h, w) integers.
        size, other_size: height and width of the masks.

    Returns:
        (K, *size) and (K, *other_size) float32, 0-1.

    Raises:
        DataError: they share no label.
    """
    found, counts = np.unique(others, return_counts=True)
    labels = merge_orphans(labels, found[counts >= _LEAST * others.size])
    classes = np.unique(labels)
    return region_masks(labels, classes, *size), region_masks(others, classes, *other_size)


def along_edges(masks: np.ndarray, photo: np.ndarray) -> np.ndarray:
    """Coarse masks (K, H, W), their borders drawn to the edges of a photo (H, W, 3) uint8; they still sum to 1."""
    from kerasmodels.layers.local_affine import guided_filter

    guide, values = (photo[None] / np.float32(255)), np.moveaxis(masks, 0, -1)[None]
    fine = np.moveaxis(np.asarray(guided_filter(guide, values, radius=8, edge=0.05))[0], -1, 0)
    fine = np.clip(fine, 0, 1)
    return fine / np.maximum(fine.sum(0), 1e-6)
