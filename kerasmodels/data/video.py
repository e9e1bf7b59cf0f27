"""Reading and writing video, frame by frame. Needs the `video` extra (imageio with the ffmpeg wheel)."""

import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from kerasmodels.errors import DataError, KerasModelsError, storage_error
from kerasmodels.storage import write_atomic

SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".webm")
"""File name endings taken for videos."""
# The containers of those names. ffmpeg knows many more, among them playlists, which have it open other files.
_CONTAINERS = "avi,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2"


def is_video(path: str | Path) -> bool:
    """Whether the file is named like a video."""
    return Path(path).suffix.lower() in SUFFIXES


def restyle_video(source: Path, target: Path, frame: Callable[[np.ndarray], np.ndarray]) -> int:
    """Write a video of `frame(picture)` for every picture of another, at its speed; sound is not kept.

    Args:
        source: a video file.
        target: written beside its place and renamed when whole.
        frame: (H, W, 3) uint8 -> (h, w, 3) uint8, always of one size; an odd last row or column is dropped.

    Returns:
        The number of frames.

    Raises:
        DataError: the video cannot be read, or the `video` extra is not installed.
        StorageError: it cannot be written there.
    """
    imageio = _imageio()
    if not source.is_file():
        raise DataError(f"no video at {source}.")
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    count = 0
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with imageio.get_reader(source, "ffmpeg", input_params=["-format_whitelist", _CONTAINERS]) as reader:
            rate = reader.get_meta_data()["fps"]
            # Players want even sizes; macro_block_size 2 would rescale, so the last row and column are dropped instead.
            with imageio.get_writer(partial, "ffmpeg", fps=rate, macro_block_size=1, output_params=_even()) as writer:
                for picture in reader:
                    writer.append_data(frame(np.asarray(picture)[..., :3]))
                    count += 1
        if not count:
            raise DataError(f"{source} has no frames.")
        os.replace(partial, target)
    except KerasModelsError:
        raise
    except OSError as error:
        if error.errno is None:
            raise _unreadable(source, error) from error
        raise storage_error(target, error) from error
    except (RuntimeError, ValueError, KeyError, IndexError) as error:
        raise _unreadable(source, error) from error
    finally:
        partial.unlink(missing_ok=True)
    return count


def write_video(target: Path, pictures: Iterable[np.ndarray], rate: float) -> None:
    """Write pictures (H, W, 3) uint8, all of one size, as a video; an odd last row or column is dropped.

    Args:
        target: written beside its place and renamed when whole.
        pictures: at least one.
        rate: of them in a second.

    Raises:
        DataError: the `video` extra is not installed, or ffmpeg fails.
        StorageError: it cannot be written there.
    """
    imageio = _imageio()
    partial = target.with_name(f".{target.stem}.partial{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with imageio.get_writer(partial, "ffmpeg", fps=rate, macro_block_size=1, output_params=_even()) as writer:
            for picture in pictures:
                writer.append_data(picture)
        os.replace(partial, target)
    except OSError as error:
        raise storage_error(target, error) from error
    except (RuntimeError, ValueError) as error:
        raise DataError(f"{target} cannot be made ({error}).") from error
    finally:
        partial.unlink(missing_ok=True)


def write_gif(target: Path, pictures: Sequence[np.ndarray], milliseconds: int) -> None:
    """Write pictures (H, W, 3) or (H, W) uint8, at least one, as a .gif that repeats itself.

    Args:
        target: replaced when it is whole.
        pictures: all of one size.
        milliseconds: each is shown for.

    Raises:
        StorageError: it cannot be written there.
    """
    first, *others = map(Image.fromarray, pictures)
    saved = {"save_all": True, "append_images": others, "duration": milliseconds, "loop": 0}
    write_atomic(target, lambda file: first.save(file, "GIF", **saved))


def _unreadable(source: Path, error: Exception) -> DataError:
    why = (str(error).splitlines() or [type(error).__name__])[0]
    return DataError(f"{source} cannot be read as a video ({why}).")


def _even() -> list[str]:
    return ["-vf", "crop=trunc(iw/2)*2:trunc(ih/2)*2"]


def _imageio() -> Any:
    try:
        import imageio.v2 as imageio
        import imageio_ffmpeg  # noqa: F401
    except ImportError as error:
        raise DataError(
            f"videos need the `video` extra: pip install 'kerasmodels[video]' (missing: {error.name})."
        ) from error
    return imageio
