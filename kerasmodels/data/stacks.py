"""Many small pictures of one size as one array, for models that draw from them at random."""

import math
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kerasmodels import reading
from kerasmodels.data.images import SUFFIXES, check_photo, list_images, read_image
from kerasmodels.data.streams import numbered
from kerasmodels.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf


def picture_stack(source: str | Path, height: int, width: int, channels: int) -> np.ndarray:
    """Pictures of a folder, or of an IDX file as MNIST and Fashion-MNIST have it, all of one size.

    Args:
        source: a folder, searched with its subfolders; or an IDX file of bytes, also compressed as .gz.
        height, width: pixels. Pictures of another size are cut to this shape in the middle, then resized.
        channels: 3 for RGB, 1 for gray.

    Returns:
        (N, height, width, channels) uint8.

    Raises:
        DataError: there is no picture, or one cannot be read; or the file is no IDX file of pictures.
    """
    source = Path(source)
    if source.is_file() and source.suffix.lower() in SUFFIXES:
        raise DataError(
            f"expected a folder of pictures, or an IDX file. Received: {str(source)!r}, one picture. Name its folder."
        )
    # One by one: photos as cameras make them would fill the memory.
    found = read_idx(source) if source.is_file() else map(read_image, list_images(source))
    return np.stack([fitted(picture, height, width, channels) for picture in found])


def fitted(picture: np.ndarray, height: int, width: int, channels: int) -> np.ndarray:
    """A picture, (H, W, 3) or (H, W) uint8, cut to a shape in the middle, then resized: (height, width, channels).

    Raises:
        DataError: not uint8.
    """
    if check_photo(picture, name="a picture", gray=True).dtype != np.uint8:
        raise DataError(f"expected a picture of uint8. Received: {picture.dtype}. Round it and convert it.")
    image = _fitted(Image.fromarray(picture), height, width).convert("RGB" if channels == 3 else "L")
    return np.asarray(image).reshape(height, width, channels)


def _fitted(picture: Image.Image, height: int, width: int) -> Image.Image:
    scale = min(picture.width / width, picture.height / height)
    left, top = (picture.width - scale * width) / 2, (picture.height - scale * height) / 2
    box = (left, top, picture.width - left, picture.height - top)
    same = picture.size == (width, height)
    return picture if same else picture.resize((width, height), Image.Resampling.LANCZOS, box=box)


def read_idx(path: str | Path) -> np.ndarray:
    """An IDX file of bytes: 0, 0, 8, the number of axes, their sizes as big-endian 32-bit numbers, the bytes.

    Args:
        path: the file, also compressed as .gz.

    Returns:
        uint8, of the shape that the file says.

    Raises:
        DataError: it is missing, or no such file; or a .gz unpacks to more than 256 MiB and 32 times its size.
    """
    path = Path(path)
    try:
        with reading.unpacked(path) as (file, most):
            zeros, kind, rank = struct.unpack(">HBB", reading.exactly(file, 4))
            if zeros or kind != 8:
                raise ValueError("no bytes inside")
            shape = struct.unpack(f">{rank}I", reading.exactly(file, 4 * rank))
            count = math.prod(shape)
            if count > most:
                raise ValueError(
                    f"its header promises {count:,} bytes, and a file of its size may hold {most:,}; "
                    "if you trust a .gz, unpack it yourself"
                )
            content = reading.exactly(file, count)
            if file.read(1):
                raise ValueError(f"more than the {count:,} bytes that its header promises")
        return np.frombuffer(content, "uint8").reshape(shape)
    except (ValueError, OSError) as error:
        raise DataError(f"expected an IDX file of bytes. Received: {path} ({error}).") from error


def random_batches(
    pictures: "np.ndarray | tf.Tensor", counts: "tf.Tensor", seed: int, step: "tf.Tensor"
) -> "tf.Tensor":
    """Pictures drawn with replacement, the same for the same seed and step.

    Args:
        pictures: (N, ...); a tensor made outside of a stream's function is not copied into its graph.
        counts: int32, the leading sizes of what is made.
        seed: of the stream.
        step: int64, number of the draw.

    Returns:
        (*counts, ...).
    """
    import tensorflow as tf

    key = tf.stack([tf.constant(seed, tf.int64), step])
    drawn = tf.random.stateless_uniform(counts, key, maxval=pictures.shape[0], dtype=tf.int32)
    return tf.gather(pictures, drawn)


def drawn_batches(
    pictures: np.ndarray,
    batch: int,
    seed: int = 0,
    start: int = 0,
    labeled: tuple[np.ndarray, np.ndarray] | None = None,
) -> "tf.data.Dataset":
    """Endless batches of pictures drawn with replacement, the same for the same seed.

    Args:
        pictures: (N, size, size, channels), 0-255.
        batch: pictures in a batch.
        seed: another seed, another stream.
        start: number of the first batch.
        labeled: pictures and their classes, of which each batch has as many.
    """
    import tensorflow as tf

    tensors = [tf.constant(array) for array in (pictures, *(labeled or ()))]

    def draw(step: "tf.Tensor") -> "tf.Tensor | tuple[tf.Tensor, ...]":
        # The same draw of labeled pictures and of their classes.
        drawn = [random_batches(array, tf.constant([batch]), seed + (i > 0), step) for i, array in enumerate(tensors)]
        return tuple(drawn) if labeled else drawn[0]

    return numbered(draw, start)


def balanced(
    pictures: np.ndarray, labels: np.ndarray, count: int, classes: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """`count` of the pictures and their classes, as many of each class.

    Raises:
        DataError: a class has too few.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    of_class = [order[labels[order] == number][: count // classes] for number in range(classes)]
    for number, found in enumerate(of_class):
        if len(found) < count // classes:
            raise DataError(
                f"expected at least {count // classes} pictures of each class for {count} labeled ones. "
                f"Received: {len(found)} of class {number}."
            )
    chosen = np.concatenate(of_class)
    return pictures[chosen], labels[chosen].astype("int32")
