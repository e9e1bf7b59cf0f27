"""Pictures in, pictures out: single files, folders with their subfolders, and videos."""

import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image

from kerasmodels.config import PositiveInt, check
from kerasmodels.data import image_size, list_images, read_image, write_image
from kerasmodels.data.images import check_picture_name
from kerasmodels.data.video import is_video, restyle_video
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport
from kerasmodels.tasks import TrainedOptions

Job = tuple[Path, Path]
"""A file, and where to write what becomes of it."""


class PicturesOptions(TrainedOptions):
    """Change pictures, folders of pictures, or videos."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures, folders of pictures, or videos."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture or video to write; a folder if there are several inputs."""
    max_side: PositiveInt | None = None
    """Shrink inputs so that the longer side is at most this, pixels."""

    def validate(self) -> None:
        """Raise UsageError if there is no input."""
        check(len(self.inputs) > 0, "at least one picture, folder or video", self.inputs)


def change_pictures(
    options: PicturesOptions, load: Callable[[], Callable[[np.ndarray], np.ndarray]], **facts: Any
) -> RunReport:
    """Write what a function makes of each picture, and of each frame of a video.

    Args:
        options: which, and where to.
        load: makes the function, (H, W, 3) uint8 -> (H', W', 3) uint8; called when the requests have been looked at.
        **facts: for the report.

    Raises:
        UsageError: two results would be written to one place, an input would be overwritten, or a result does not fit
            into its format.
        DataError: inputs that could not be read or changed; all others are done.
    """
    jobs = picture_jobs(options.inputs, options.out)
    for source, target in jobs:
        if not is_video(source):
            check_result(target, source, options.max_side)
    change, begin, frames = load(), time.perf_counter(), []

    def work(source: Path, target: Path) -> None:
        if is_video(source):
            frames.append(restyle_video(source, target, lambda frame: change(_shrunk(frame, options.max_side))))
        else:
            write_image(target, change(read_image(source, options.max_side)))

    written = each(jobs, work)
    facts |= {"seconds": round(time.perf_counter() - begin, 2)}
    return RunReport(tuple(written), {**facts, "frames": sum(frames)} if frames else facts)


def picture_jobs(inputs: Sequence[Path], out: Path) -> list[Job]:
    """Which file becomes which. One file may be written under any name; several go into a folder under their own.

    Args:
        inputs: pictures, videos, or folders of pictures, whose subfolders are kept.
        out: a file for one file, else a folder.

    Raises:
        UsageError: two results would be written to one place, an input would be overwritten, or a file's name is given
            for several results; see `check_targets`.
        DataError: a folder has no pictures.
    """
    if len(inputs) == 1 and not inputs[0].is_dir():
        if out.is_dir() or not out.suffix:
            jobs = [(inputs[0], out / _target_name(inputs[0]))]
        elif is_video(inputs[0]) != is_video(out):
            kind = "video" if is_video(inputs[0]) else "picture"
            raise UsageError(f"{inputs[0]} is a {kind}: expected a {kind}'s name to write. Received: {str(out)!r}.")
        else:
            jobs = [(inputs[0], out)]
    else:
        if out.suffix and not out.is_dir():
            raise UsageError(f"expected a folder for several results. Received: --out {str(out)!r}, a file's name.")
        jobs = []
        for source in inputs:
            for file in list_images(source) if source.is_dir() else [source]:
                within = file.relative_to(source).parent if source.is_dir() else Path()
                jobs.append((file, out / within / _target_name(file)))
    check_targets([target for _, target in jobs], [source for source, _ in jobs])
    return jobs


def check_targets(targets: Sequence[Path], sources: Sequence[Path]) -> None:
    """Refuse results that would be written over each other or over an input, or that cannot lie where they should.

    Raises:
        UsageError: there are some; or a folder has the name of a result, or the folder of a result that of a file.
    """
    inputs, taken = {source.resolve() for source in sources}, dict[Path, int]()
    for number, target in enumerate(targets):
        place = target.resolve()
        check(place not in inputs, "a place to write where no input is overwritten", str(target))
        if place in taken:
            both = [sources[n] for n in (taken[place], number)] if len(sources) == len(targets) else []
            of = f", what becomes of {both[0]} and of {both[1]}. Give them separately" if both else " twice"
            raise UsageError(f"expected a name of its own for each result. Received: {target}{of}.")
        taken[place] = number
    for place, number in taken.items():
        check(not place.is_dir(), "a file's name to write", f"{targets[number]}, which is a folder")
        blocking = [folder for folder in place.parents if folder in taken or folder.is_file()]
        if blocking:
            raise UsageError(f"expected folders above {targets[number]}. Received: {blocking[0]}, which is a file.")


def check_result(target: Path, photo: Path, max_side: int | None = None) -> None:
    """Refuse, before any work, a result of a photo's size that its format cannot hold.

    Raises:
        UsageError: see `check_picture_name`. A photo that cannot be read is told when it is its turn.
    """
    try:
        height, width = image_size(photo)
    except DataError:
        height, width = 1, 1
    scale = 1.0 if max_side is None else min(1.0, max_side / max(height, width))
    check_picture_name(target, round(scale * height), round(scale * width))


def each(jobs: Sequence[Job], work: Callable[[Path, Path], object]) -> list[Path]:
    """Call `work(source, target)` for each job; of several, one that fails does not stop the others.

    Returns:
        The targets.

    Raises:
        DataError: some failed; all others are done. It names them.
    """
    written, failures = [], []
    for source, target in jobs:
        try:
            work(source, target)
            written.append(target)
        except DataError as error:
            if len(jobs) == 1:
                raise
            failures.append(str(error))
    if failures:
        raise DataError(f"{len(written)} of {len(jobs)} inputs are done; the others could not be: {' '.join(failures)}")
    return written


def check_memory(picture: np.ndarray, bytes_per_pixel: int) -> None:
    """Refuse a picture (H, W, ...) whose change needs more memory than is free.

    Raises:
        DataError: it does; the message has the size that would fit.
    """
    height, width = picture.shape[:2]
    need, have = height * width * bytes_per_pixel, _free_memory()
    if need > have:
        side = int(max(height, width) * (0.8 * have / need) ** 0.5)
        raise DataError(
            f"a picture of {width} x {height} pixels needs about {need / 1e9:.0f} GB of memory, and "
            f"{have / 1e9:.0f} GB are free. Shrink it: --max-side {side}."
        )


def _free_memory() -> int:
    """Bytes that can still be used, as far as the system tells."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _shrunk(picture: np.ndarray, max_side: int | None) -> np.ndarray:
    if max_side is None or max(picture.shape[:2]) <= max_side:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _target_name(source: Path) -> str:
    same = source.suffix.lower() in (".jpg", ".jpeg")
    return source.stem + (".mp4" if is_video(source) else source.suffix if same else ".png")
