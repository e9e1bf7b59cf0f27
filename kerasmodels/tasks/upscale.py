"""Pictures enlarged piece by piece: what is in memory does not grow with them, and the pieces leave no seams."""

import math
import sys
import time
import weakref
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels.config import Positive, PositiveInt
from kerasmodels.data import read_as_stored, write_image
from kerasmodels.data.color import match_histogram
from kerasmodels.data.png import PngWriter
from kerasmodels.data.video import is_video, restyle_video
from kerasmodels.errors import DataError
from kerasmodels.family import RunReport, Task
from kerasmodels.ops.imresize import exact, resample, resized_length, taps
from kerasmodels.runs import Trained
from kerasmodels.storage import write_atomic
from kerasmodels.tasks.pictures import PicturesOptions, check_memory, each, picture_jobs

_TILE = 384


class UpscaleOptions(PicturesOptions):
    """Enlarge pictures, folders of pictures, or videos."""

    scale: Positive | None = None
    """By which pictures are enlarged; left out, the network's own factor. Else its result is resized."""
    tile: PositiveInt = _TILE
    """Side of the pieces, pixels of the input: less needs less memory. The result is the same."""
    match_histogram: bool = False
    """Give the result the levels of the input, as Johnson et al. do. It is then written as a whole."""


def upscale(
    model: Any, picture: np.ndarray, scale: float | None = None, tile: int = _TILE, match: bool = False
) -> np.ndarray:
    """A picture enlarged.

    Args:
        model: `models.SRCNN` or `models.SuperResolution`, or one that has `early`, `late` and their reach as they have.
        picture: (H, W) gray, (H, W, 2) gray and alpha, (H, W, 3) RGB or (H, W, 4) RGBA; uint8 or uint16. Alpha is
            resized by cubic interpolation.
        scale: None for the model's. By another, what the model makes is resized.
        tile: side of the pieces, pixels of `picture`.
        match: see `data.color.match_histogram`.

    Returns:
        (ceil(scale H), ceil(scale W)) and channels, of the picture's dtype.

    Raises:
        DataError: the picture is of another form, or its result does not fit into memory.
    """
    strips = Strips(model, picture, scale, tile)
    check_memory(picture, strips.bytes_per_pixel)
    made = np.concatenate(list(strips), axis=0)
    return strips.matched(made) if match else made


class Strips:
    """The rows of an enlarged picture, in strips from top to bottom.

    Every strip consists of tiles. The model looks at a tile with `reach` pixels around it, which is all that its
    pixels depend on: they are those of the whole picture, to the last bit.

    Args:
        model, picture, scale, tile: see `upscale`.

    Attributes:
        shape: of the whole result.
        count: of the tiles.

    Raises:
        DataError: the picture is of another form.
    """

    def __init__(self, model: Any, picture: np.ndarray, scale: float | None, tile: int):
        channels = picture.shape[2] if picture.ndim == 3 else 1
        if picture.ndim not in (2, 3) or channels > 4 or picture.dtype not in (np.uint8, np.uint16) or not picture.size:
            raise DataError(
                "expected a picture (H, W), or (H, W, 1 to 4), of uint8 or uint16. "
                f"Received: {picture.dtype} of shape {picture.shape}."
            )
        self._model, self._picture = model, picture.reshape(*picture.shape[:2], channels)
        self._flat = picture.ndim == 2
        self.scale = Fraction(model.config.scale) if scale is None else exact(scale)
        height, width = (resized_length(n, self.scale) for n in picture.shape[:2])
        if not height * width or max(height, width) > 2**31 - 1:
            raise DataError(f"expected a result of at least a pixel. Received: a scale of {float(self.scale):g}.")
        self.shape = (height, width, *picture.shape[2:])
        self._side = max(1, math.floor(tile * self.scale))
        self.count = math.ceil(height / self._side) * math.ceil(width / self._side)

    @property
    def bytes_per_pixel(self) -> int:
        """Of the whole result, for each pixel of the picture."""
        return math.ceil(2 * self._picture.shape[2] * self._picture.dtype.itemsize * self.scale**2)

    def matched(self, made: np.ndarray) -> np.ndarray:
        """The whole result with the levels of the picture; alpha stays."""
        result, colors = made.reshape(*self.shape[:2], -1).copy(), self._colors
        result[..., :colors] = match_histogram(result[..., :colors], self._picture[..., :colors])
        return result.reshape(self.shape)

    def __iter__(self) -> Iterator[np.ndarray]:
        height, width = self.shape[:2]
        for top in range(0, height, self._side):
            bottom = min(top + self._side, height)
            tiles = [self._tile((top, bottom), (x, min(x + self._side, width))) for x in range(0, width, self._side)]
            strip = np.concatenate(tiles, axis=1)
            yield strip[..., 0] if self._flat else strip

    @property
    def _colors(self) -> int:
        channels = self._picture.shape[2]
        return channels - 1 if channels in (2, 4) else channels

    def _tile(self, rows: tuple[int, int], columns: tuple[int, int]) -> np.ndarray:
        """The result's pixels of those rows and columns, (h, w, C)."""
        own, white = self._model.config.scale, np.iinfo(self._picture.dtype).max
        sizes = self._picture.shape[:2]
        spans = [_Span(own * n, self.scale / own, *span) for n, span in zip(sizes, (rows, columns), strict=True)]
        seen = [
            slice(max(0, span.first // own - self._model.reach), min(n, -(-span.last // own) + self._model.reach))
            for span, n in zip(spans, sizes, strict=True)
        ]
        piece = self._picture[seen[0], seen[1], : self._colors].astype("float32") * np.float32(255 / white)
        if self._colors == 1:
            piece = np.repeat(piece, 3, axis=-1)
        wanted = [slice(span.first // own, -(-span.last // own)) for span in spans]
        made = _enlarged(self._model, piece[np.newaxis], seen, wanted)
        inner = [
            slice(span.first - own * part.start, span.last - own * part.start)
            for span, part in zip(spans, wanted, strict=True)
        ]
        made = made[inner[0], inner[1]]
        for axis, span in enumerate(spans):
            made = span.resampled(made, axis)
        if self._colors == 1:
            red, green, blue = np.split(made, 3, axis=-1)
            made = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
        if self._colors < self._picture.shape[2]:
            alphas = [_Span(n, self.scale, *span) for n, span in zip(sizes, (rows, columns), strict=True)]
            alpha = self._picture[alphas[0].first : alphas[0].last, alphas[1].first : alphas[1].last, -1:]
            alpha = alpha.astype("float32") * np.float32(255 / white)
            for axis, span in enumerate(alphas):
                alpha = span.resampled(alpha, axis)
            made = np.concatenate([made, alpha], axis=-1)
        return np.rint(np.clip(made, 0, 255) * (white / 255)).astype(self._picture.dtype)


class _Span:
    """Pixels of a resized axis, and which pixels of the axis they are made of: `first` to before `last`."""

    def __init__(self, length: int, scale: Fraction, begin: int, end: int):
        self._taps = [] if scale == 1 else taps(length, scale, first=begin, count=end - begin)
        self.first = min((int(index.min()) for index, _ in self._taps), default=begin)
        self.last = max((int(index.max()) + 1 for index, _ in self._taps), default=end)

    def resampled(self, x: np.ndarray, axis: int) -> np.ndarray:
        """The pixels, of `x`, the axis from `first` to `last`."""
        if not self._taps:
            return x
        return resample(x, axis, [(index - self.first, weight) for index, weight in self._taps])


_PART = 512
"""Side of the pieces of a tile that are at full resolution at once, pixels of the result."""

_calls: "weakref.WeakKeyDictionary[Any, tuple[Any, Any]]" = weakref.WeakKeyDictionary()


def _compiled(model: Any) -> tuple[Any, Any]:
    """The model's `early` and `late`, compiled once for all sizes."""
    if model not in _calls:
        import tensorflow as tf

        held = weakref.ref(model)
        picture = tf.TensorSpec([1, None, None, 3], tf.float32)
        early = tf.function(lambda image: held().early(image), input_signature=[picture], autograph=False)  # type: ignore
        channels = early.get_concrete_function().structured_outputs.shape[-1]
        features = tf.TensorSpec([1, None, None, channels], tf.float32)
        late = tf.function(
            lambda found, image: held().late(found, image),  # type: ignore[union-attr]
            input_signature=[features, picture],
            autograph=False,
        )
        _calls[model] = early, late
    return _calls[model]


def _enlarged(model: Any, piece: np.ndarray, seen: Sequence[slice], wanted: Sequence[slice]) -> np.ndarray:
    """The rows and columns `wanted` of a picture, enlarged, from its rows and columns `seen`, `piece` (1, h, w, 3)."""
    early, late = _compiled(model)
    own, reach, side = model.config.scale, model.late_reach, max(1, _PART // model.config.scale)
    features, strips = early(piece), []

    def parts(axis: int) -> Iterator[tuple[slice, slice]]:
        """What a part looks at, within `piece`, and where its result lies in what is made of that."""
        for begin in range(wanted[axis].start, wanted[axis].stop, side):
            end = min(begin + side, wanted[axis].stop)
            first, last = max(begin - reach, seen[axis].start), min(end + reach, seen[axis].stop)
            looked = slice(first - seen[axis].start, last - seen[axis].start)
            yield looked, slice(own * (begin - first), own * (end - first))

    for rows, kept_rows in parts(0):
        strip = []
        for columns, kept in parts(1):
            made = late(features[:, rows, columns], piece[:, rows, columns])
            strip.append(made[0, kept_rows, kept].numpy())
        strips.append(np.concatenate(strip, axis=1))
    return np.concatenate(strips, axis=0)


def upscale_task(family: str) -> Task:
    """The task of a family whose network enlarges pictures."""
    return Task(UpscaleOptions, lambda options: upscale_files(options, options.trained(family)))


def upscale_files(options: UpscaleOptions, trained: Trained) -> RunReport:
    """Write each picture, and each frame of a video, enlarged.

    Raises:
        UsageError: two results would be written to one place, or an input would be overwritten.
        DataError: inputs that could not be read or enlarged; all others are done.
    """
    jobs = picture_jobs(options.inputs, options.out)
    model, begin, frames = trained.load(), time.perf_counter(), []
    sizes: list[tuple[int, ...]] = []

    def frame(picture: np.ndarray) -> np.ndarray:
        made = upscale(model, _shrunk(picture, options.max_side), options.scale, options.tile, options.match_histogram)
        progress.advance(made.shape)
        return made

    def work(source: Path, target: Path) -> None:
        if is_video(source):
            frames.append(restyle_video(source, target, frame))
            return
        picture = _shrunk(read_as_stored(source), options.max_side)
        strips = Strips(model, picture, options.scale, options.tile)
        _write(target, strips, picture, options.match_histogram, progress)
        sizes.append(strips.shape)

    progress = _Progress()
    written = each(jobs, work)
    facts: dict[str, Any] = {"model": trained.name, "seconds": round(time.perf_counter() - begin, 2)}
    if len(sizes) == 1:
        facts["size"] = f"{sizes[0][1]} x {sizes[0][0]}"
    return RunReport(tuple(written), {**facts, "frames": sum(frames)} if frames else facts)


def _write(target: Path, strips: Strips, picture: np.ndarray, match: bool, progress: "_Progress") -> None:
    channels, streamed = (strips.shape[2] if len(strips.shape) == 3 else 1), target.suffix.lower() == ".png"
    if not streamed and (picture.dtype != np.uint8 or (channels in (2, 4) and target.suffix.lower() not in _ALPHA)):
        what = "16 bits" if picture.dtype != np.uint8 else "transparency"
        raise DataError(f"expected a .png to write, as this picture has {what}. Received: {str(target)!r}.")
    if match or not streamed:
        check_memory(picture, strips.bytes_per_pixel)
    rows = progress.over(strips, target.name)
    if match or not streamed:
        made = np.concatenate(list(rows), axis=0)
        made = strips.matched(made) if match else made
        if not streamed:
            write_image(target, made[..., [0, 0, 0, 1]] if channels == 2 else made)
            return
        rows = iter([made])

    def write(file: Any) -> None:
        writer = PngWriter(file, strips.shape[0], strips.shape[1], channels, picture.dtype)
        for strip in rows:
            writer.write(strip)
        writer.close()

    write_atomic(target, write)


_ALPHA = (".png", ".webp", ".tif", ".tiff")
"""Formats that have transparency."""


def _shrunk(picture: np.ndarray, max_side: int | None) -> np.ndarray:
    longest = max(picture.shape[:2])
    if max_side is None or longest <= max_side:
        return picture
    made = picture
    for axis in (0, 1):
        length = picture.shape[axis]
        wanted = max(1, round(length * max_side / longest))
        made = resample(made, axis, taps(length, Fraction(wanted, length)))
    return np.rint(np.clip(made, 0, np.iinfo(picture.dtype).max)).astype(picture.dtype)


class _Progress:
    """Lines on stderr while a picture or a video takes longer than some seconds."""

    def __init__(self) -> None:
        self._frames, self._told = 0, time.monotonic()

    def over(self, strips: Strips, name: str) -> Iterator[np.ndarray]:
        """The strips, and what is done of them."""
        done = 0
        for strip in strips:
            done += len(strip)
            self._tell(f"{name}: {100 * done // strips.shape[0]} % of {strips.shape[1]} x {strips.shape[0]} pixels")
            yield strip

    def advance(self, shape: tuple[int, ...]) -> None:
        """One more frame of a video is done."""
        self._frames += 1
        self._tell(f"frame {self._frames}, {shape[1]} x {shape[0]} pixels")

    def _tell(self, line: str) -> None:
        if time.monotonic() - self._told >= _SECONDS_BETWEEN_LINES:
            self._told = time.monotonic()
            print(line, file=sys.stderr, flush=True)


_SECONDS_BETWEEN_LINES = 5.0
