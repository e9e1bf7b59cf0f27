"""Label maps on disk: palette pictures, colour-coded annotations, overlays and legends."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from kerasmodels.data.images import _opened, read_image
from kerasmodels.errors import DataError
from kerasmodels.weights import write_atomic

IGNORE = 255
"""Label of pixels that do not count, in the format of PASCAL VOC."""

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
            picture = np.asarray(image.convert("RGB"), "int32")
    if ignored is None:
        picture = read_image(path).astype("int32")
        ignored = np.zeros(picture.shape[:2], bool)
    codes = picture @ np.array([1, 256, 65536])
    unknown = ignored if black else ignored | (codes == 0)
    found = np.unique(codes[~unknown])
    if not len(found):
        raise DataError(f"expected labels in {path}. Received: nothing but unknown pixels (black, or index 255).")
    if len(found) > _MOST_COLOURS:
        raise DataError(
            f"expected one colour a label, at most {_MOST_COLOURS}, in {path}. Received: {len(found)} colours, as in a "
            "picture with blended edges or saved as JPEG. Paint without smoothing and save as PNG."
        )
    labels = np.where(unknown, -1, np.searchsorted(found, codes)).astype("int32")
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
