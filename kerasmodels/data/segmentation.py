"""Label maps on disk: palette pictures, colour-coded annotations, overlays and legends, and streams for training."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from kerasmodels.data.images import _opened, image_size, list_images, read_image
from kerasmodels.errors import DataError
from kerasmodels.weights import write_atomic

if TYPE_CHECKING:
    import tensorflow as tf

IGNORE = 255
"""Label of pixels that do not count, in the format of PASCAL VOC."""

VOC_NAMES = (
    *("background", "aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
"""Labels 0 to 20 of PASCAL VOC."""
CAMVID_NAMES = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist"),
)
"""Labels 0 to 10 of CamVid as SegNet numbers them; 11 is unlabelled."""

_MOST_COLOURS = 64
"""An annotation with more was blended or saved with loss."""


def voc_palette() -> np.ndarray:
    """The 256 colours of PASCAL VOC's label maps, (256, 3) uint8: black, maroon, green, olive, ...

    Bit b of a label's three lowest bits, and so on, becomes bit 7 - b of red, green and blue.

    >>> voc_palette()[[0, 1, 2, 15, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [224, 224, 192]]
    """
    label = np.arange(256)
    colours = np.zeros((256, 3), int)
    for place in range(8):
        for channel in range(3):
            colours[:, channel] |= ((label >> (3 * place + channel)) & 1) << (7 - place)
    return colours.astype("uint8")


def read_label_map(path: str | Path) -> np.ndarray:
    """The labels in a palette or grey PNG, as PASCAL VOC and CamVid store them.

    Returns:
        (H, W) uint8: the palette's indices, or the grey levels.

    Raises:
        DataError: it cannot be read, or it is a colour picture: the labels must be numbers.
    """
    with _opened(path) as image:
        if image.mode in ("P", "L", "1"):
            return np.asarray(image.convert("L") if image.mode == "1" else image, "uint8")
        mode = image.mode
    raise DataError(
        f"expected a label map with one number a pixel (a palette or grey PNG). Received: {path}, whose mode is {mode}."
    )


def write_label_map(path: str | Path, labels: np.ndarray, palette: np.ndarray | None = None) -> Path:
    """Write labels (H, W), 0-255, as a palette PNG, atomically. palette: (K, 3) uint8, VOC's by default.

    Raises:
        DataError: labels that do not fit into a byte.
        StorageError: it cannot be written there.
    """
    if labels.size and (labels.min() < 0 or labels.max() > 255):
        raise DataError(f"expected labels of 0 to 255. Received: {labels.min()} to {labels.max()}.")
    image = Image.fromarray(np.ascontiguousarray(labels, "uint8"))
    image.putpalette(np.ravel(voc_palette() if palette is None else palette).astype("uint8").tobytes())
    return write_atomic(Path(path), lambda file: image.save(file, "PNG"))


def read_annotation(path: str | Path, black: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """An annotation painted in any colours: one colour a label, black where nothing is known.

    Args:
        path: a picture without blended colours. Where a palette picture has index 255, nothing is known, either.
        black: black is a label, too, as the background of PASCAL VOC.

    Returns:
        labels, colours: (H, W) int32 with -1 where nothing is known, and (L, 3) uint8. Labels are numbered in the order
        of red + 256 green + 65536 blue.

    Raises:
        DataError: it cannot be read, it has no label or more than 64, as a picture that was saved with loss has.
    """
    ignored = None
    with _opened(path) as image:
        if image.mode == "P":
            ignored = np.asarray(image) == IGNORE
            picture = np.asarray(image.convert("RGB"))
    if ignored is None:
        picture = read_image(path)
        ignored = np.zeros(picture.shape[:2], bool)
    codes = picture[..., 2].astype("int32")
    for channel in (1, 0):
        codes *= 256
        codes += picture[..., channel]
    unknown = ignored if black else ignored | (codes == 0)
    found = np.unique(codes[~unknown])
    if not len(found):
        raise DataError(f"expected labels in {path}. Received: nothing but unknown pixels (black, or index 255).")
    if len(found) > _MOST_COLOURS:
        raise DataError(
            f"expected one colour a label, at most {_MOST_COLOURS}, in {path}. Received: {len(found)} colours, as in a "
            "picture with blended edges or saved as JPEG. Paint without smoothing and save as PNG."
        )
    labels = np.empty(codes.shape, "int32")
    # In pieces: the places that are found take twice the memory of the labels.
    for at in range(0, codes.size, 1 << 20):
        labels.reshape(-1)[at : at + (1 << 20)] = np.searchsorted(found, codes.reshape(-1)[at : at + (1 << 20)])
    labels[unknown] = -1
    return labels, np.stack([found & 255, found >> 8 & 255, found >> 16], axis=1).astype("uint8")


def overlay(photo: np.ndarray, labels: np.ndarray, colours: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """The photo with its labels' colours over it, and lines where labels meet.

    Args:
        photo: (H, W, 3) uint8.
        labels: (H, W) integers; those outside the table leave the photo as it is.
        colours: (L, 3) uint8.
        opacity: of the colours, 0-1.

    Returns:
        (H, W, 3) uint8.
    """
    known = (labels >= 0) & (labels < len(colours))
    painted = photo.astype("float32")
    painted[known] = (1 - opacity) * painted[known] + opacity * colours[labels[known]]
    meet = np.zeros(labels.shape, bool)
    meet[:-1] |= labels[:-1] != labels[1:]
    meet[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    painted[meet] = 255
    return np.rint(painted).astype("uint8")


def legend(names: Sequence[str], colours: np.ndarray, row: int = 18) -> np.ndarray:
    """A picture of the labels' names beside their colours, one a row of `row` pixels: (H, W, 3) uint8, on white."""
    width = 2 * row + 12 + max((7 * len(name) for name in names), default=0)
    picture = Image.new("RGB", (width, row * len(names) + 4), "white")
    draw = ImageDraw.Draw(picture)
    for number, (name, colour) in enumerate(zip(names, colours, strict=False)):
        top = number * row + 3
        draw.rectangle((4, top, 4 + row, top + row - 4), fill=tuple(int(c) for c in colour), outline="black")
        draw.text((row + 12, top), name, fill="black")
    return np.asarray(picture)


# --- folders of pictures and label maps -------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """A picture and its label map."""

    photo: Path
    mask: Path


def label_pairs(photos: str | Path, masks: str | Path) -> list[Pair]:
    """The label maps in a folder, each with the picture of the same name in another folder.

    Fits PASCAL VOC (JPEGImages and SegmentationClass: only some photos have a label map) and CamVid (train and
    trainannot).

    Raises:
        DataError: a folder is missing or empty, or a label map has no picture.
    """
    named = {path.stem: path for path in list_images(photos)}
    pairs = []
    for mask in list_images(masks):
        if mask.stem not in named:
            raise DataError(f"expected a picture {mask.stem}.* in {photos}, for the label map {mask}. Received: none.")
        pairs.append(Pair(named[mask.stem], mask))
    return pairs


def count_labels(pairs: Sequence[Pair], classes: int, ignore: Sequence[int] = (IGNORE,)) -> np.ndarray:
    """How often each label occurs, (classes,) int64; all label maps are read and checked on the way.

    Raises:
        DataError: a map with a label that is neither a class nor to be ignored, or of another size than its picture.
    """
    total = np.zeros(256, "int64")
    for pair in pairs:
        mask = read_label_map(pair.mask)
        if mask.shape != image_size(pair.photo):
            height, width = image_size(pair.photo)
            raise DataError(
                f"expected {pair.mask} to be of its picture's size, {width} x {height} pixels. "
                f"Received: {mask.shape[1]} x {mask.shape[0]}."
            )
        counts = np.bincount(mask.ravel(), minlength=256)
        strange = [i for i in np.flatnonzero(counts) if i >= classes and i not in ignore]
        if strange:
            raise DataError(
                f"expected labels 0 to {classes - 1}, or {', '.join(map(str, ignore))} for pixels to ignore, in "
                f"{pair.mask}. Received: {', '.join(map(str, strange))}."
            )
        total += counts
    total[list(ignore)] = 0
    return total[:classes]


def class_weights(counts: np.ndarray) -> np.ndarray:
    """Weights that make rare classes count: median frequency over frequency (SegNet); 0 for classes that never occur.

    >>> class_weights(np.array([800, 100, 0, 100])).tolist()
    [0.125, 1.0, 0.0, 1.0]
    """
    share = counts / max(1, counts.sum())
    occurring = share[share > 0]
    median = np.median(occurring) if occurring.size else 0.0
    return np.divide(median, share, out=np.zeros(len(share)), where=share > 0)


def segmentation_crops(
    pairs: Sequence[Pair],
    size: int,
    batch: int,
    seed: int = 0,
    start: int = 0,
    *,
    margin: int = 0,
    scales: tuple[float, float] = (1.0, 1.0),
    flip: bool = True,
    ignore: Sequence[int] = (IGNORE,),
) -> "tf.data.Dataset":
    """An endless, reproducible stream of random crops of pictures and their label maps, cut alike.

    Each example depends on (seed, its number) alone, as in `photo_crops`. Beyond its edge a picture is mirrored, and
    has no label.

    Args:
        pairs: of `label_pairs`.
        size: side of the labels' crops, pixels.
        batch: examples a batch.
        seed: another seed, another stream.
        start: number of the first batch.
        margin: the picture's crop reaches this much further on every side.
        scales: picture and labels are scaled by a random factor between these.
        flip: mirror half of the examples.
        ignore: labels that become 255.

    Returns:
        Dataset of ((batch, size + 2 margin, size + 2 margin, 3) float32 RGB 0-255, (batch, size, size) int32).
    """
    import tensorflow as tf

    count = len(pairs)

    def crop(index: np.ndarray, draws: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        pair = pairs[int(index)]
        photo, mask = read_image(pair.photo), read_label_map(pair.mask)
        factor = scales[0] + (scales[1] - scales[0]) * float(draws[0])
        if factor != 1:
            width, height = (max(1, round(factor * side)) for side in (mask.shape[1], mask.shape[0]))
            photo = np.asarray(Image.fromarray(photo).resize((width, height), Image.Resampling.BILINEAR))
            mask = np.asarray(Image.fromarray(mask).resize((width, height), Image.Resampling.NEAREST))
        mask = np.where(np.isin(mask, ignore), IGNORE, mask).astype("int32")
        # Where the crop begins; a picture smaller than the crop lies somewhere in it.
        top, left = (
            int(np.floor(min(0, side - size) + float(d) * (abs(side - size) + 1)))
            for side, d in zip(mask.shape, draws[1:3], strict=True)
        )
        rows, columns = (np.arange(first - margin, first + size + margin) for first in (top, left))
        seen = photo[np.ix_(_mirrored(rows, photo.shape[0]), _mirrored(columns, photo.shape[1]))]
        labels = np.full((size, size), IGNORE, "int32")
        inside = [slice(max(0, -f), max(0, min(size, s - f))) for f, s in zip((top, left), mask.shape, strict=True)]
        labels[tuple(inside)] = mask[max(0, top) : max(0, top + size), max(0, left) : max(0, left + size)]
        if flip and draws[3] < 0.5:
            seen, labels = seen[:, ::-1], labels[:, ::-1]
        return np.ascontiguousarray(seen, "float32"), np.ascontiguousarray(labels)

    def example(index: "tf.Tensor") -> tuple["tf.Tensor", "tf.Tensor"]:
        epoch, position = index // count, index % count
        key = tf.cast(tf.stack([tf.constant(seed, tf.int64), epoch]), tf.uint32)
        shuffled = tf.random.experimental.index_shuffle(
            tf.cast(position, tf.uint32), key, tf.constant(count - 1, tf.uint32)
        )
        draws = tf.random.stateless_uniform((4,), tf.stack([tf.constant(seed, tf.int64), index]))
        photo, labels = tf.numpy_function(crop, [shuffled, draws], (tf.float32, tf.int32))
        side = size + 2 * margin
        return tf.ensure_shape(photo, (side, side, 3)), tf.ensure_shape(labels, (size, size))

    stream = tf.data.Dataset.range(start * batch, np.iinfo("int64").max)
    return stream.map(example, num_parallel_calls=2).batch(batch, drop_remainder=True).prefetch(2)


def _mirrored(at: np.ndarray, size: int) -> np.ndarray:
    """Positions along a side, mirrored about its first and last, back and forth."""
    period = max(2 * (size - 1), 1)
    at = np.abs(at) % period
    return np.minimum(at, period - at if size > 1 else 0)
