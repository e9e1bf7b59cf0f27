"""Reading, writing and streaming pictures. In memory a picture is always (H, W, 3) uint8, sRGB, upright."""

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from kerasmodels.errors import DataError, UsageError
from kerasmodels.storage import write_atomic

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File name endings of pictures: those looked for in a folder, and those that can be written."""


def read_image(path: str | Path, max_side: int | None = None) -> np.ndarray:
    """Read a picture of any common kind as upright RGB.

    EXIF rotation is applied; grey becomes three equal channels; 16-bit is scaled, not cut, to 8; CMYK and palettes are
    converted; transparency is laid over white; of an animation, the first frame is read.

    Args:
        path: the file.
        max_side: shrink the picture so that its longer side is at most this many pixels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: it is missing, not a picture, cut short, or larger than Pillow's limit against decompression bombs
            (179 million pixels).
    """
    with _opened(path) as image:
        return np.asarray(_upright_rgb(image, max_side))


def image_size(path: str | Path) -> tuple[int, int]:
    """Height and width of the upright picture in a file, from its header.

    Raises:
        DataError: it is missing or not a picture.
    """
    with _opened(path) as image:
        width, height = image.size
        # Orientations 5 to 8 of EXIF are turned by a quarter.
        return (width, height) if image.getexif().get(0x0112, 1) >= 5 else (height, width)


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture (H, W, 3), or a mask (H, W), of any range at another size, by Lanczos' filter: float32."""
    if picture.ndim == 2:
        return np.asarray(Image.fromarray(picture.astype("float32")).resize((width, height), Image.Resampling.LANCZOS))
    return np.stack([resized(channel, height, width) for channel in np.moveaxis(picture, -1, 0)], axis=-1)


@contextmanager
def _opened(path: str | Path) -> Iterator[Image.Image]:
    """The picture in a file. What is wrong with it, even if found later while it is decoded, becomes a DataError."""
    try:
        with warnings.catch_warnings():
            # Pillow warns from half its limit on; a large photo is nothing to warn of.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            image = Image.open(path)
        with image:
            yield image
    except FileNotFoundError:
        raise DataError(f"no picture at {path}.") from None
    except IsADirectoryError:
        raise DataError(f"expected a picture file. Received the folder {path}.") from None
    except PermissionError:
        raise DataError(f"{path} may not be read. Change its permissions.") from None
    except UnidentifiedImageError:
        raise DataError(
            f"{path} is not a picture that can be read, whatever its name says "
            f"({_beginning(path)}). Expected JPEG, PNG, WebP, TIFF, BMP or GIF."
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path} is too large: at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels are read. Shrink it first."
        ) from None
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DataError(f"{path} is damaged or cut short ({error}). Get the file again.") from error


def _upright_rgb(image: Image.Image, max_side: int | None = None) -> Image.Image:
    if max_side is not None and max(image.size) > max_side:
        # JPEG decoders shrink by 2, 4 or 8 for free; twice the wanted size keeps full quality.
        image.draft("RGB", (2 * max_side, 2 * max_side))
    turned = ImageOps.exif_transpose(image)
    if turned.mode.startswith("I") or turned.mode == "F":
        values = np.asarray(turned, "float64")
        brightest = values.max(initial=0)
        if turned.mode.startswith("I;16"):
            top = 65535.0
        elif turned.mode == "F" and brightest <= 1:
            top = 1.0
        else:  # 32 bits do not tell the range
            top = 255.0 if brightest <= 255 else 65535.0
        turned = Image.fromarray(np.clip(np.rint(values * (255.0 / top)), 0, 255).astype("uint8"))
    if "transparency" in turned.info and turned.mode in ("1", "L", "P", "RGB"):
        turned = turned.convert("RGBA")
    if turned.mode in ("RGBA", "LA", "PA", "RGBa", "La"):
        over = turned.convert("RGBA")
        turned = Image.alpha_composite(Image.new("RGBA", over.size, "white"), over)
    rgb = turned.convert("RGB")
    if max_side is not None and max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return rgb


def _beginning(path: str | Path) -> str:
    with open(path, "rb") as file:
        start = file.read(24)
    return f"it begins with {start!r}" if start else "it is empty"


def write_image(path: str | Path, image: np.ndarray) -> Path:
    """Write a (H, W, 3) uint8 picture, atomically; the suffix chooses the format (JPEG at quality 95).

    Raises:
        UsageError: the suffix is none of `SUFFIXES`.
        StorageError: it cannot be written there.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"expected a picture name such as out.png or out.jpg. Received: {str(path)!r}.")
    picture = Image.fromarray(np.ascontiguousarray(image))
    kind = Image.registered_extensions()[suffix]
    return write_atomic(path, lambda file: picture.save(file, kind, **({"quality": 95} if kind == "JPEG" else {})))


def list_images(folder: str | Path) -> list[Path]:
    """All pictures below a folder, sorted by name.

    Raises:
        DataError: there is no such folder, or no file in it is named like a picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"expected a folder of pictures. Received: {str(folder)!r}, which is not a folder.")
    found = sorted(
        Path(root, name)
        for root, _, names in os.walk(folder, followlinks=True)
        for name in names
        if name.lower().endswith(SUFFIXES)
    )
    if not found:
        raise DataError(f"no pictures in {folder}. Expected files ending in {', '.join(SUFFIXES)}.")
    return found


def check_same_size(name: str, values: np.ndarray, photo: np.ndarray) -> None:
    """Raise DataError unless `values`, (H, W, ...), are of the photo's size. `name` is for the error."""
    if values.shape[:2] != photo.shape[:2]:
        raise DataError(
            f"expected {name} to be of the photo's size, {photo.shape[1]} x {photo.shape[0]} pixels. "
            f"Received: {values.shape[1]} x {values.shape[0]}."
        )


def photo_crops(folder: str | Path, size: int, batch: int, seed: int = 0, start: int = 0) -> "tf.data.Dataset":
    """An endless, reproducible stream of random square crops of the photos in a folder.

    Every epoch visits every photo once in a new order. A crop's side is 60% to 100% of the photo's shorter side; it is
    resized to `size` and mirrored half the time. Each example depends on (seed, its number) alone, so a stream that
    begins at batch `start` continues exactly where one that was read to there ended.

    Args:
        folder: searched with its subfolders.
        size: side of the crops, pixels.
        batch: pictures per batch.
        seed: another seed, another stream.
        start: number of the first batch.

    Returns:
        Dataset of (batch, size, size, 3) float32, RGB 0-255.

    Raises:
        DataError: see `list_images`; or a file named like a picture is none. One that is cut short shows only when it
            is decoded: the stream then fails with a `tf.errors.InvalidArgumentError` that names it.
    """
    import tensorflow as tf

    files = list_images(folder)
    for file in files:
        # This reads the header only: a wrong file is better reported now than hours into a training.
        with _opened(file):
            pass
    names = tf.constant([str(f) for f in files])
    count = len(files)

    def crop(name: bytes, draws: np.ndarray) -> np.ndarray:
        with _opened(os.fsdecode(name)) as image:
            short = min(image.size)
            side = short * (1 - 0.4 * float(draws[0]))
            if side > 2 * size:
                before = image.size
                image.draft("RGB", (int(before[0] * 2 * size / side), int(before[1] * 2 * size / side)))
                side *= image.size[0] / before[0]
            picture = _upright_rgb(image)
        side = min(side, *picture.size)
        left, top = (picture.width - side) * float(draws[1]), (picture.height - side) * float(draws[2])
        box = (left, top, left + side, top + side)
        square = np.asarray(picture.resize((size, size), Image.Resampling.LANCZOS, box=box), "float32")
        return square[:, ::-1].copy() if draws[3] < 0.5 else square

    def example(index: "tf.Tensor") -> "tf.Tensor":
        epoch, position = index // count, index % count
        key = tf.cast(tf.stack([tf.constant(seed, tf.int64), epoch]), tf.uint32)
        shuffled = tf.random.experimental.index_shuffle(
            tf.cast(position, tf.uint32), key, tf.constant(count - 1, tf.uint32)
        )
        draws = tf.random.stateless_uniform((4,), tf.stack([tf.constant(seed, tf.int64), index]))
        picture = tf.numpy_function(crop, [names[tf.cast(shuffled, tf.int32)], draws], tf.float32)
        return tf.ensure_shape(picture, (size, size, 3))

    stream = tf.data.Dataset.range(start * batch, np.iinfo("int64").max)
    return stream.map(example, num_parallel_calls=2).batch(batch, drop_remainder=True).prefetch(2)
