"""Reading, writing and streaming pictures. In memory a picture is always (H, W, 3) uint8, sRGB, upright."""

import functools
import io
import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
from PIL import ExifTags, Image, ImageCms, JpegImagePlugin, TiffTags, UnidentifiedImageError

from kerasmodels.errors import DataError, KerasModelsError, UsageError
from kerasmodels.storage import write_atomic

if TYPE_CHECKING:
    import tensorflow as tf

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
"""File name endings of pictures: those looked for in a folder, and those that can be written."""
FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF")
"""Pillow's names of what is read. It knows many more, and runs PostScript in an interpreter, whatever a file's name."""

# Bytes that a pixel takes at most on its way to RGB: with more than 8 bits, with transparency, and others. Then what
# any file may take, what it may take besides for each of its own bytes, and the most.
_DEEP, _CLEAR, _PLAIN = 28, 20, 11
_FREE, _FACTOR, _MOST = 700_000_000, 1000, 2_000_000_000
# Pixels that a byte of a JPEG can tell at most: blocks of one color, 64 pixels in a few bits.
_PIXELS_A_BYTE = 200
# The longest side that a format can hold, pixels; the others hold more than any memory does.
_SIDES = {"JPEG": 65_500, "WEBP": 16_383, "GIF": 65_535}


def read_image(path: str | Path | bytes, max_side: int | None = None) -> np.ndarray:
    """Read a picture of any common kind as upright RGB.

    EXIF rotation is applied, and EXIF that makes no sense is passed over; colors of another profile than sRGB (Display
    P3, Adobe RGB, a printer's CMYK) become sRGB's; a profile that cannot be read is passed over, and stderr told; gray
    becomes three equal channels; CMYK without a profile and palettes are converted; transparency is laid over white; of
    an animation, the first frame is read. Of gray pictures
    with more than 8 bits, the kind of number tells what is white: 65535 in unsigned 16 bits (4095 in 12), 1 in floating
    point, where up to a tenth below 0 and above 1 is cut. 32-bit integers (and signed 16-bit) do not tell: they are
    taken for levels of 0-255 if that is what they reach.

    Where colors say what is what (trimaps, masks, annotations), use `read_drawing`.

    Args:
        path: the file, or what is in it.
        max_side: shrink the picture so that its longer side is at most this many pixels.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: it is missing, not a picture of `FORMATS`, cut short, or larger than Pillow's limit against
            decompression bombs (179 million pixels; 100 million with transparency, 71 million of more than 8 bits;
            JPEGs that are not progressive may be larger where `max_side` shrinks them), or a file of so few bytes that
            no picture needs so many pixels; or its numbers are in no range of those above, or not finite.
    """
    with _opened(path, max_side) as image:
        return np.asarray(_upright_rgb(image, max_side))


def read_drawing(path: str | Path) -> np.ndarray:
    """Read a picture whose colors say what is what, such as a trimap, strokes, a mask or an annotation.

    As `read_image`, palettes by their colors, but transparent pixels are refused: they have no color.

    Returns:
        (H, W, 3) uint8.

    Raises:
        DataError: see `read_image`; or a pixel is not fully opaque.
    """
    with _opened(path) as image:
        picture = _with_alpha(_upright(image))
        if "A" in picture.getbands():
            clear = np.asarray(picture.getchannel("A")) < 255
            if clear.any():
                raise DataError(
                    f"expected a color for every pixel of {path}. Received: {100 * clear.mean():.3g} % of it "
                    "transparent, which could mean anything. Fill it with the color that is meant, and save without "
                    "transparency."
                )
        return np.asarray(_rgb(picture))


def read_as_stored(path: str | Path) -> np.ndarray:
    """Read a picture upright with what it has: gray, transparency and 16 bits stay where a file has them.

    Palettes become RGB or RGBA. 16 bits are kept of PNG files, and of gray TIFF files; what else has more than 8 bits,
    and CMYK, becomes what `read_image` makes of it.

    Returns:
        (H, W) gray, (H, W, 2) gray and alpha, (H, W, 3) RGB or (H, W, 4) RGBA; uint8, or uint16 of 0-65535.

    Raises:
        DataError: see `read_image`.
    """
    with _opened(path) as image:
        if image.format == "PNG" and image.mode in ("RGB", "RGBA") and _png_bits(path) == 16:
            return _deep_png(path, image)
        picture = _upright(image)
        picture = picture if picture.mode == "LA" else _with_alpha(picture)
        if picture.mode.startswith("I;16"):
            bits = getattr(picture, "tag_v2", {}).get(_BITS, (16,))[0]
            values = np.asarray(picture).astype("float64") * (65535 / (2.0**bits - 1))
            return np.clip(np.rint(values), 0, 65535).astype("uint16")
        if picture.mode == "1":
            picture = picture.convert("L")
        return np.asarray(picture if picture.mode in ("L", "LA", "RGB", "RGBA") else _rgb(picture))


def _png_bits(path: str | Path) -> int:
    """Bits of a channel, from the header, which lies in one place."""
    with open(path, "rb") as file:
        return file.read(25)[24]


def _deep_png(path: str | Path, image: Image.Image) -> np.ndarray:
    import tensorflow as tf

    try:
        values = tf.io.decode_png(tf.io.read_file(str(path)), dtype=tf.uint16).numpy()
    except tf.errors.InvalidArgumentError as error:
        raise DataError(f"{path} is damaged or cut short ({str(error).splitlines()[0]}). Get it again.") from error
    turn = _TURNS.get(_orientation(image))
    if turn is not None:
        channels = [np.asarray(Image.fromarray(c).transpose(turn)) for c in np.moveaxis(values, -1, 0)]
        values = np.stack(channels, axis=-1)
    return values


def image_size(path: str | Path | bytes) -> tuple[int, int]:
    """Height and width of the upright picture in a file, or in what is in it, from its header.

    Raises:
        DataError: it is missing or not a picture.
    """
    with _opened(path) as image:
        # Pillow says the size of TIFFs as it will turn them.
        tags = getattr(image, "tag_v2", None)
        width, height = image.size if tags is None else (tags[_WIDTH], tags[_HEIGHT])
        # Orientations 5 to 8 are turned by a quarter.
        return (width, height) if _orientation(image) >= 5 else (height, width)


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture (H, W, 3), or a mask (H, W), of any range at another size, by Lanczos' filter: float32."""
    if picture.ndim == 2:
        return np.asarray(Image.fromarray(picture.astype("float32")).resize((width, height), Image.Resampling.LANCZOS))
    return np.stack([resized(channel, height, width) for channel in np.moveaxis(picture, -1, 0)], axis=-1)


def read_mask(path: str | Path, shape: tuple[int, ...], size: tuple[int, ...], whose: str | Path) -> np.ndarray:
    """A mask, white where it counts, at the size of what it masks. It may be larger or smaller, not of another shape.

    Args:
        path: the file.
        shape: height and width of the picture it belongs to.
        size: height and width of the result.
        whose: that picture, for the error.

    Returns:
        `size` float32, 0-1.

    Raises:
        DataError: it cannot be read, is of another shape, has no white in it, or is transparent somewhere.
    """
    mask = np.mean(read_drawing(path), axis=-1) / 255
    if abs(np.log(mask.shape[0] / mask.shape[1] * shape[1] / shape[0])) > 0.03:
        raise DataError(
            f"expected a mask of the shape of {whose}, {shape[1]} x {shape[0]} or a multiple. Received: {path}, which "
            f"is {mask.shape[1]} x {mask.shape[0]}."
        )
    mask = np.clip(resized(mask, *size), 0, 1)
    if mask.max() < 0.5:
        raise DataError(f"expected a mask with some white in it. Received: {path}, which has none.")
    return mask


@contextmanager
def _opened(source: str | Path | bytes, max_side: int | None = None) -> Iterator[Image.Image]:
    """The picture in a file. What is wrong with it, even if found later while it is decoded, becomes a DataError.

    Of a JPEG beyond Pillow's limit one that `max_side` allows to be shrunk while it is decoded.
    """
    path = "the file" if isinstance(source, bytes) else source
    try:
        with warnings.catch_warnings():
            # Pillow warns from half its limit on; a large photo is nothing to warn of.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            # Nor is EXIF that makes no sense, see `_orientation`.
            warnings.simplefilter("ignore", UserWarning)
            image = _open(source, max_side)
        with image:
            _check_memory(path, len(source) if isinstance(source, bytes) else os.stat(source).st_size, image)
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
            f"({_beginning(source)}). Expected JPEG, PNG, WebP, TIFF, BMP or GIF."
        ) from None
    except Image.DecompressionBombError:
        raise DataError(
            f"{path} is too large: at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels are read. Shrink it first."
        ) from None
    except KerasModelsError:
        raise
    except MemoryError as error:
        raise DataError(f"{path} needs more memory than there is. Shrink it first.") from error
    except Exception as error:  # Pillow's decoders raise nearly everything for flipped bits
        raise DataError(f"{path} is damaged or cut short ({error}). Get the file again.") from error


def _file(source: str | Path | bytes) -> IO[bytes]:
    return io.BytesIO(source) if isinstance(source, bytes) else open(source, "rb")


def _open(source: str | Path | bytes, max_side: int | None) -> Image.Image:
    try:
        return Image.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS)
    except Image.DecompressionBombError:
        if max_side is None:
            raise
        with _file(source) as file:
            content = io.BytesIO(file.read()) if file.read(2) == b"\xff\xd8" and not file.seek(0) else None
        if content is None:
            raise
        image = JpegImagePlugin.JpegImageFile(content)
        enough = image.width * image.height <= _PIXELS_A_BYTE * len(content.getbuffer())
        # Of a progressive one the decoder keeps everything, however small it is to become.
        if image.info.get("progressive") or not enough:
            raise
        image.draft("RGB", (2 * max_side, 2 * max_side))
        return image


def _check_memory(path: str | Path, size: int, image: Image.Image) -> None:
    """Raise DataError if decoding takes far more memory than a picture of so few bytes can be worth."""
    deep, clear = image.mode[0] in "IF", image.mode[-1] in "Aa" or "transparency" in image.info
    need = image.width * image.height * (_DEEP if deep else _CLEAR if clear else _PLAIN)
    most = min(_MOST, _FREE + _FACTOR * size)
    if need > most:
        raise DataError(
            f"{path} is too large: {image.width} x {image.height} pixels of mode {image.mode} take {need / 1e9:.1f} GB "
            f"to decode, and a file of {size / 1e6:,.1f} MB may take {most / 1e9:.1f} GB. Shrink it first"
            f"{', or save it with 8 bits' if image.mode not in ('1', 'L', 'P', 'RGB') else ''}."
        )


_WIDTH, _HEIGHT, _BITS = 256, 257, 258  # tags of TIFF

_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes a picture upright, by EXIF's orientation. 1 is upright, and other values mean nothing."""


def _orientation(image: Image.Image) -> int:
    """The orientation that EXIF (or XMP) tells, 1 to 8; 1 if it tells none of these."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            told = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # EXIF can be broken in any way, and Pillow fails in as many; the pixels are whole all the same.
        return 1
    return next((number for number in _TURNS if told == number), 1)


def _upright(image: Image.Image) -> Image.Image:
    """The decoded picture as EXIF turns it. Not by `ImageOps.exif_transpose`, which also writes EXIF anew, or fails."""
    if image.format == "TIFF":
        # Pillow turns TIFFs when it decodes them, as this says, once it has read all that EXIF points at, or failed to.
        orientation, exif = _orientation(image), image.getexif()
        exif[ExifTags.Base.Orientation] = orientation
        for tag in TiffTags.TAGS_V2_GROUPS:
            if tag in exif:
                del exif[tag]
        image.load()
        return image
    image.load()
    turn = _TURNS.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _upright_rgb(image: Image.Image, max_side: int | None = None) -> Image.Image:
    if max_side is not None and max(image.size) > max_side:
        # JPEG decoders shrink by 2, 4 or 8 for free; twice the wanted size keeps full quality.
        image.draft("RGB", (2 * max_side, 2 * max_side))
    picture = _srgb(_with_alpha(_upright(image)), getattr(image, "filename", ""))
    if "A" in picture.getbands():
        picture = Image.alpha_composite(Image.new("RGBA", picture.size, "white"), picture)
    rgb = _rgb(picture)
    if max_side is not None and max(rgb.size) > max_side:
        rgb.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return rgb


def _srgb(picture: Image.Image, path: str | Path) -> Image.Image:
    """The picture with its colors as sRGB has them, if a profile says that they are another space's."""
    profile = picture.info.get("icc_profile")
    if not profile or picture.mode[0] in "IF":
        return picture
    alpha = picture.getchannel("A") if picture.mode == "RGBA" else None
    plain = picture if picture.mode in ("L", "RGB", "CMYK") else picture.convert("RGB")
    try:
        transform = _transform(bytes(profile), plain.mode)
        if transform is None:
            return picture
        changed = transform.apply(plain)
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError) as error:
        _note(
            f"note: the color profile of {path or 'a picture'} is damaged or of another kind of picture ({error}); "
            "its colors are taken for sRGB's."
        )
        return picture
    if alpha is not None:
        changed.putalpha(alpha)
    return changed


@functools.lru_cache(maxsize=8)
def _transform(profile: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """From a profile's colors to sRGB; None if they are that already."""
    source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
    if mode == "RGB" and "sRGB" in ImageCms.getProfileDescription(source):
        return None
    if source.profile.xcolor_space.strip() == "GRAY" and mode == "RGB":
        raise ValueError("a profile of gray in a picture of colors")
    return ImageCms.buildTransform(source, ImageCms.createProfile("sRGB"), mode, "RGB")


@functools.lru_cache(maxsize=1000)
def _note(text: str) -> None:
    """Tell stderr, once a file: training reads each many times."""
    print(text, file=sys.stderr)


def _with_alpha(picture: Image.Image) -> Image.Image:
    """The picture as RGBA if anything in it can be transparent, else as it is."""
    one_color = "transparency" in picture.info and picture.mode in ("1", "L", "P", "RGB")
    return picture.convert("RGBA") if one_color or picture.mode in ("RGBA", "LA", "PA", "RGBa", "La") else picture


def _rgb(picture: Image.Image) -> Image.Image:
    """An opaque picture as RGB, 8 bits a channel; what `read_image` says of numbers with more is decided here."""
    if picture.mode[0] not in "IF":
        return picture.convert("RGB")
    values = np.asarray(picture, "float64")
    finite = np.isfinite(values)
    least, most = (values[finite].min(), values[finite].max()) if finite.any() else (np.nan, np.nan)
    if picture.mode.startswith("I;16"):
        bits = getattr(picture, "tag_v2", {}).get(_BITS, (16,))[0]
        white, meant = 2.0**bits - 1, True
    elif picture.mode == "F":
        white, meant = 1.0, bool(finite.all() and least >= -0.1 and most <= 1.1)
        wanted = "floating-point numbers of 0 (black) to 1 (white)"
    else:
        # Numbers of 0 and 1 alone may be black and white.
        white, meant = 255.0, bool(least >= 0 and most <= 255 and most != 1)
        wanted = "integers of 0 (black) to 255 (white), as their kind does not tell which number is white"
    if not meant:
        others = "" if finite.all() else f", and {(~finite).sum()} that are not finite"
        raise DataError(
            f"expected {wanted}, in {getattr(picture, 'filename', '') or 'a picture'}. Received: {least:g} to "
            f"{most:g}{others}. Save it with 8 bits, or unsigned 16 bits, from black to white."
        )
    return Image.fromarray(np.clip(np.rint(values * (255.0 / white)), 0, 255).astype("uint8")).convert("RGB")


def check_photo(photo: np.ndarray, white: float = 255.0, name: str = "a photo", gray: bool = False) -> np.ndarray:
    """The photo, if what its numbers mean is beyond doubt. Every function that takes a photo as an array asks this.

    Args:
        photo: (H, W, 3), RGB: uint8, which is always 0-255, or floats of 0 to `white`, to a hundredth of it.
        white: what the function that was called says of floats: 255 or 1.
        name: for the error.
        gray: (H, W) and (H, W, 1) will do, too.

    Returns:
        `photo` as an array, unchanged.

    Raises:
        DataError: another shape or dtype, or floats of another range: those of 0-1 where white is 255, too.
    """
    photo = np.asarray(photo)
    form = "(H, W, 3) or (H, W)" if gray else "(H, W, 3)"
    fits = photo.ndim == 3 and photo.shape[-1] in ((1, 3) if gray else (3,))
    if not (fits or (gray and photo.ndim == 2)) or 0 in photo.shape:
        raise DataError(f"expected {name} of shape {form}, of at least one pixel. Received: shape {photo.shape}.")
    if photo.dtype == np.uint8:
        return photo
    check_range(photo, white, f"{name} of uint8, or of floats of 0-{white:g}")
    return photo


def check_range(values: np.ndarray, white: float, wanted: str) -> None:
    """Raise DataError unless the values are floats of black, 0, to white. `wanted` is for the error."""
    least, most = (values.min(), values.max()) if values.size else (0, 0)
    advice = "Give uint8, or floats divided by what white is in them" + (f" times {white:g}." if white != 1 else ".")
    if "float" in values.dtype.name:  # bfloat16 is none of NumPy's
        if white == 255 and 0 < most <= 1.01:
            advice = "Multiply it by 255 if it is of 0-1."
        elif least >= -0.01 * white and most <= 1.01 * white:
            return
        elif not np.isfinite(values).all():
            advice = "Some are not finite: repair the picture first."
        elif white == 1 and least >= 0 and most <= 255:
            advice = "Divide it by 255 if it is of 0-255."
    elif white == 1:
        advice = "Divide it by 255 if it is of 0-255."
    raise DataError(f"expected {wanted}. Received: {values.dtype} of {least:g} to {most:g}. {advice}")


def _beginning(source: str | Path | bytes) -> str:
    with _file(source) as file:
        start = file.read(24)
    return f"it begins with {start!r}" if start else "it is empty"


def check_picture_name(path: str | Path, height: int = 1, width: int = 1) -> None:
    """Find out before long work, not after it, that no picture of this size can be written under a name.

    Raises:
        UsageError: the suffix is none of `SUFFIXES`, or its format cannot hold so many pixels.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in SUFFIXES:
        raise UsageError(f"expected a picture name such as out.png or out.jpg. Received: {str(path)!r}.")
    most = _SIDES.get(Image.registered_extensions()[suffix], max(height, width))
    if max(height, width) > most:
        raise UsageError(
            f"expected a format that can hold {width:,} x {height:,} pixels, such as PNG. Received: {str(path)!r}, "
            f"where {most:,} a side are the most. Name a .png, or make the picture smaller."
        )


def write_image(path: str | Path, image: np.ndarray) -> Path:
    """Write a picture, atomically; the suffix chooses the format (JPEG at quality 95).

    Args:
        path: the file.
        image: uint8, (H, W, 3) RGB; also (H, W) gray, and (H, W, 4) with alpha where the format has that.

    Raises:
        UsageError: see `check_picture_name`.
        DataError: not uint8.
        StorageError: it cannot be written there.
    """
    path = Path(path)
    check_picture_name(path, *image.shape[:2])
    if image.dtype != np.uint8:
        raise DataError(
            f"expected a picture of uint8, 0-255, to write to {path}. Received: {image.dtype} of {image.min():g} to "
            f"{image.max():g}. Scale it to 0-255, round it, and convert it."
        )
    picture = Image.fromarray(np.ascontiguousarray(image))
    kind = Image.registered_extensions()[path.suffix.lower()]
    return write_atomic(path, lambda file: picture.save(file, kind, **({"quality": 95} if kind == "JPEG" else {})))


def list_images(folder: str | Path) -> list[Path]:
    """All pictures below a folder, sorted by name.

    Links to folders are followed, but not back up to where they lie. Left out is what is hidden (Macs put a companion
    `._x.jpg` beside each picture on disks of other systems, or into a folder `__MACOSX`).

    Raises:
        DataError: there is no such folder, or no file in it is named like a picture.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise DataError(f"expected a folder of pictures. Received: {str(folder)!r}, which is not a folder.")
    found = []
    waiting = [(folder, frozenset(map(str, Path(os.path.realpath(folder)).parents)))]
    while waiting:
        here, above = waiting.pop()
        above |= {os.path.realpath(here)}
        try:
            entries = [entry for entry in os.scandir(here) if not entry.name.startswith((".", "__MACOSX"))]
        except OSError as error:
            raise DataError(f"the folder {here} cannot be read ({error.strerror}).") from error
        for entry in entries:
            if os.path.isdir(entry.path):
                if os.path.realpath(entry.path) not in above:
                    waiting.append((here / entry.name, above))
            elif entry.name.lower().endswith(SUFFIXES):
                found.append(here / entry.name)
    found.sort()
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


def photo_crops(
    folder: str | Path, size: int, batch: int, seed: int = 0, start: int = 0, native: bool = False
) -> "tf.data.Dataset":
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
        native: cut `size` x `size` pixels out as they are; only photos smaller than that are resized.

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
    names = tf.constant([os.fsencode(f) for f in files])
    count = len(files)

    def crop(name: bytes, draws: np.ndarray) -> np.ndarray:
        with _opened(os.fsdecode(name)) as image:
            short = min(image.size)
            side = float(size) if native else short * (1 - 0.4 * float(draws[0]))
            if not native and side > 2 * size:
                before = image.size
                image.draft("RGB", (int(before[0] * 2 * size / side), int(before[1] * 2 * size / side)))
                side *= image.size[0] / before[0]
            picture = _upright_rgb(image)
        side = min(side, *picture.size)
        left, top = (picture.width - side) * float(draws[1]), (picture.height - side) * float(draws[2])
        if native:
            left, top = round(left), round(top)
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
