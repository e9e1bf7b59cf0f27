"""Label maps on disk: palette pictures, color-coded annotations, overlays and legends, and streams for training."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw

from kerasmodels.data.images import _opened, _upright, check_photo, image_size, list_images, read_drawing, read_image
from kerasmodels.errors import DataError
from kerasmodels.storage import write_atomic

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
"""Labels 0 to 10 of CamVid as SegNet numbers them; 11 is unlabeled."""

_MOST_COLORS = 64
"""An annotation with more was blended or saved with loss."""


def voc_palette() -> np.ndarray:
    """The 256 colors of PASCAL VOC's label maps, (256, 3) uint8: black, maroon, green, olive, ...

    Bit b of a label's three lowest bits, and so on, becomes bit 7 - b of red, green and blue.

    >>> voc_palette()[[0, 1, 2, 15, 255]].tolist()
    [[0, 0, 0], [128, 0, 0], [0, 128, 0], [192, 128, 128], [224, 224, 192]]
    """
    label = np.arange(256)
    colors = np.zeros((256, 3), int)
    for place in range(8):
        for channel in range(3):
            colors[:, channel] |= ((label >> (3 * place + channel)) & 1) << (7 - place)
    return colors.astype("uint8")


def read_label_map(path: str | Path) -> np.ndarray:
    """The labels in a palette or gray PNG, as PASCAL VOC and CamVid store them: numbers, whatever their colors.

    Returns:
        (H, W) uint8: the palette's indices, or the gray levels; of a picture of one bit, 0 and 1.

    Raises:
        DataError: it cannot be read, or it is not beyond doubt which number a pixel has: it is a color picture, has
            another number of bits, or was saved with loss.
    """
    return _numbers(path)[0]


def _numbers(path: str | Path) -> tuple[np.ndarray, np.ndarray | None]:
    """`read_label_map`, and the colors of its palette (K, 3), if it has one."""
    with _opened(path) as image:
        stored = str([tile.args for tile in getattr(image, "tile", ())])
        kind = f"whose mode is {image.mode}"
        if image.format in ("JPEG", "MPO"):
            kind = "a JPEG, which changes numbers"
        elif image.mode == "L" and re.search("'L;[24I]", stored):
            kind = "whose gray levels have 2 or 4 bits or 0 for white: numbers to some programs and shades to others"
        elif image.mode in ("P", "L", "1"):
            picture = _upright(image)
            colors = picture.getpalette("RGB") if picture.mode == "P" else None
            # As a picture its white would be 255; as labels one bit is 0 or 1.
            return np.asarray(picture, "uint8"), None if colors is None else np.reshape(colors, (-1, 3))
    raise DataError(
        f"expected a label map with one number a pixel (a palette or gray PNG of 8 bits). Received: {path}, {kind}. "
        "Write the numbers of the labels, such as with data.segmentation.write_label_map; what a color means, only "
        "you know."
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
    """An annotation painted in any colors: one color a label, black where nothing is known.

    Args:
        path: a picture without blended colors. With a palette, its colors count, not its indices; only where PASCAL
            VOC's palette has index 255, nothing is known, either.
        black: black is a label, too, as the background of PASCAL VOC.

    Returns:
        labels, colors: (H, W) int32 with -1 where nothing is known, and (L, 3) uint8. Labels are numbered in the order
        of red + 256 green + 65536 blue.

    Raises:
        DataError: it cannot be read, a pixel is transparent, or it has no label or more than 64, as a picture that was
            saved with loss has; or index 255 has another color than in PASCAL VOC's palette.
    """
    picture = read_drawing(path)
    ignored = np.zeros(picture.shape[:2], bool)
    with _opened(path) as image:
        if image.mode == "P":
            ignored = np.asarray(_upright(image)) == IGNORE
    some_ignored = bool(ignored.any())
    if some_ignored:
        colors = picture[ignored]
        strange = colors[(colors != voc_palette()[IGNORE]).any(-1) & (colors != 0).any(-1)]
        if len(strange):
            raise DataError(
                f"expected index 255 of the palette of {path} to be PASCAL VOC's color of unknown pixels, "
                f"{tuple(voc_palette()[IGNORE].tolist())}. Received: RGB {tuple(strange[0].tolist())}, which may be a "
                "label, too. Save it without a palette, as RGB, with black where nothing is known."
            )
    codes = picture[..., 2].astype("int32")
    for channel in (1, 0):
        codes *= 256
        codes += picture[..., channel]
    # By tables of all colors, and in pieces: sorting millions of pixels, or their places, takes seconds and memory.
    pieces = [slice(at, at + (1 << 20)) for at in range(0, codes.size, 1 << 20)]
    flat, known = codes.reshape(-1), ~ignored.reshape(-1)
    seen = np.zeros(1 << 24, bool)
    for piece in pieces:
        seen[flat[piece][known[piece]] if some_ignored else flat[piece]] = True
    seen[0] &= black
    found = np.flatnonzero(seen).astype("int32")
    if not len(found):
        raise DataError(f"expected labels in {path}. Received: nothing but unknown pixels (black, or index 255).")
    if len(found) > _MOST_COLORS:
        raise DataError(
            f"expected one color a label, at most {_MOST_COLORS}, in {path}. Received: {len(found)} colors, as in a "
            "picture with blended edges or saved as JPEG. Paint without smoothing and save as PNG."
        )
    numbers = np.full(1 << 24, -1, "int8")
    numbers[found] = np.arange(len(found))
    labels = np.empty(codes.shape, "int32")
    for piece in pieces:
        labels.reshape(-1)[piece] = numbers[flat[piece]]
    labels[ignored] = -1
    return labels, np.stack([found & 255, found >> 8 & 255, found >> 16], axis=1).astype("uint8")


def overlay(photo: np.ndarray, labels: np.ndarray, colors: np.ndarray, opacity: float = 0.55) -> np.ndarray:
    """The photo with its labels' colors over it, and lines where labels meet.

    Args:
        photo: (H, W, 3) uint8.
        labels: (H, W) integers; those outside the table leave the photo as it is.
        colors: (L, 3) uint8.
        opacity: of the colors, 0-1.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: see `check_photo`.
    """
    check_photo(photo)
    known = (labels >= 0) & (labels < len(colors))
    painted = photo.astype("float32")
    painted[known] = (1 - opacity) * painted[known] + opacity * colors[labels[known]]
    meet = np.zeros(labels.shape, bool)
    meet[:-1] |= labels[:-1] != labels[1:]
    meet[:, :-1] |= labels[:, :-1] != labels[:, 1:]
    painted[meet] = 255
    return np.rint(painted).astype("uint8")


def legend(names: Sequence[str], colors: np.ndarray, row: int = 18) -> np.ndarray:
    """A picture of the labels' names beside their colors, one a row of `row` pixels: (H, W, 3) uint8, on white."""
    width = 2 * row + 12 + max((7 * len(name) for name in names), default=0)
    picture = Image.new("RGB", (width, row * len(names) + 4), "white")
    draw = ImageDraw.Draw(picture)
    for number, (name, color) in enumerate(zip(names, colors, strict=False)):
        top = number * row + 3
        draw.rectangle((4, top, 4 + row, top + row - 4), fill=tuple(int(c) for c in color), outline="black")
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

    Sub-folders belong to the name: masks/street/1.png goes with photos/street/1.jpg and no other. Fits PASCAL VOC
    (JPEGImages and SegmentationClass: only some photos have a label map) and CamVid (train and trainannot).

    Raises:
        DataError: a folder is missing or empty, or a label map has no picture, or more than one, or is it.
    """
    named, pairs = _by_name(photos), []
    for name, found in _by_name(masks).items():
        partners = named.get(name, [])
        if len(found) > 1:
            raise DataError(f"expected one label map {name}.* in {masks}. Received: {_listed(found)}. Keep one.")
        if not partners:
            others = [path for other, paths in named.items() if other.name == name.name for path in paths]
            elsewhere = f"none there, but {_listed(others)}: use the same sub-folders for both" if others else "none"
            raise DataError(
                f"expected a picture {name}.* in {photos}, for the label map {found[0]}. Received: {elsewhere}."
            )
        if len(partners) > 1:
            raise DataError(
                f"expected one picture {name}.* in {photos}, for the label map {found[0]}. Received: "
                f"{_listed(partners)}. Keep one."
            )
        if partners[0].samefile(found[0]):
            raise DataError(
                f"expected pictures and their label maps. Received: {found[0]} as both. Keep them in two folders."
            )
        pairs.append(Pair(partners[0], found[0]))
    return pairs


def _by_name(folder: str | Path) -> dict[Path, list[Path]]:
    """The pictures below a folder by their path in it, without the suffix."""
    named: dict[Path, list[Path]] = {}
    for path in list_images(folder):
        named.setdefault(path.relative_to(folder).with_suffix(""), []).append(path)
    return named


def _listed(paths: Sequence[Path]) -> str:
    return ", ".join(map(str, paths[:3])) + (", ..." if len(paths) > 3 else "")


def read_truth(pair: Pair, classes: int, ignore: Sequence[int] = (IGNORE,)) -> np.ndarray:
    """The label map of a pair, checked: (H, W) uint8, 0 to classes - 1, and 255 for labels to ignore.

    Raises:
        DataError: a label that is neither a class nor to be ignored, or another size than the picture's.
    """
    mask = _checked(pair, read_label_map(pair.mask), classes, ignore)
    return np.where(np.isin(mask, ignore), IGNORE, mask).astype("uint8")


def _checked(pair: Pair, mask: np.ndarray, classes: int, ignore: Sequence[int]) -> np.ndarray:
    if mask.shape != image_size(pair.photo):
        height, width = image_size(pair.photo)
        raise DataError(
            f"expected {pair.mask} to be of its picture's size, {width} x {height} pixels. "
            f"Received: {mask.shape[1]} x {mask.shape[0]}."
        )
    strange = [label for label in np.unique(mask).tolist() if label >= classes and label not in ignore]
    if strange:
        white = " White of a black and white mask must be written as 1, not 255." if 255 in strange else ""
        raise DataError(
            f"expected labels 0 to {classes - 1}, or {', '.join(map(str, ignore)) or 'none'} for pixels to ignore, in "
            f"{pair.mask}. Received: {', '.join(map(str, strange))}. Name more --classes, or labels to --ignore.{white}"
        )
    return mask


def count_labels(pairs: Sequence[Pair], classes: int, ignore: Sequence[int] = (IGNORE,)) -> np.ndarray:
    """How often each label occurs, (classes,) int64; all label maps are read and checked on the way.

    Raises:
        DataError: a map with a label that is neither a class nor to be ignored, or of another size than its picture;
            an index that has one color in one map's palette and another in another's; or fewer than two labels in all
            of them, which is nothing to learn: masks of 0 and 255, for example, where 255 is ignored.
    """
    total = np.zeros(256, "int64")
    painted: dict[int, tuple[tuple[int, ...], Path]] = {}
    for pair in pairs:
        mask, palette = _numbers(pair.mask)
        counts = np.bincount(_checked(pair, mask, classes, ignore).ravel(), minlength=256)
        total += counts
        colors = [] if palette is None else palette.tolist()
        for label in np.flatnonzero(counts[: len(colors)]).tolist():
            color = tuple(colors[label])
            first, where = painted.setdefault(label, (color, pair.mask))
            if first != color:
                raise DataError(
                    f"expected label {label} to have one color in all palettes. Received: RGB {first} in {where} and "
                    f"RGB {color} in {pair.mask}. If the colors are what was meant, the numbers are not: write the "
                    "same number for the same thing, such as with data.segmentation.write_label_map."
                )
    found = ", ".join(
        f"{label} on {100 * total[label] / total.sum():.3g} %{' (ignored)' if label in ignore else ''}"
        for label in np.flatnonzero(total).tolist()
    )
    total[list(ignore)] = 0
    if np.count_nonzero(total) < 2:
        folder = f" of {pairs[0].mask.parent}" if pairs else ""
        raise DataError(
            f"expected at least two labels in the label maps{folder}, or there is nothing to learn. Received: "
            f"{found or 'none'}. Masks in black and white, 0 and 255, must be written as labels, 0 and 1; labels that "
            "do not count are named with --ignore."
        )
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
