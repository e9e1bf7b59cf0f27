"""Telling how unlike the training's pictures others are, and where; or generating such pictures."""

import csv
import io
import os
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kerasmodels.config import check
from kerasmodels.data import read_image, write_image
from kerasmodels.data.images import check_photo
from kerasmodels.data.stacks import fitted
from kerasmodels.data.video import is_video
from kerasmodels.errors import DataError
from kerasmodels.family import RunReport, Task
from kerasmodels.servables import served
from kerasmodels.storage import write_text
from kerasmodels.tasks.generate import GenerateOptions, write_sheet
from kerasmodels.tasks.pictures import each, picture_jobs


class EnergiesOptions(GenerateOptions):
    """Generate pictures; or, given some, tell how unlike the training's they are, and where."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Pictures, or folders of pictures, whose energies to tell. None: generate new ones."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The sheet of pictures to write; for given pictures the anomaly map, or a folder of maps if there are several."""

    def validate(self) -> None:
        """Raise UsageError if an input is a video, or for a name that no picture can have."""
        if not self.inputs:
            super().validate()
        for path in self.inputs:
            check(not is_video(path), "pictures, or folders of pictures", str(path))


def anomaly_map(model: Any, picture: np.ndarray) -> tuple[float, np.ndarray]:
    """The energy of a picture, and where it comes from.

    Args:
        model: a trained one, such as `EBGAN`, whose servable is "energy".
        picture: (H, W, 3) or (H, W), uint8 or floats of 0-255, of any size; cut to a square in the middle and resized
            as in training.

    Returns:
        The energy, and (size, 3 * size, 3) uint8, at least 128 pixels high (small ones are enlarged): the picture, its
        reconstruction, and the anomaly map, in which white is a difference of half the range.

    Raises:
        DataError: no such picture, or floats of 0-1.
    """
    picture = np.clip(np.rint(check_photo(picture, name="a picture", gray=True)), 0, 255).astype("uint8")
    size, channels = model.config.size, model.config.channels
    picture = fitted(picture[..., 0] if picture.shape[2:] == (1,) else picture, size, size, channels)
    found = served(model, "energy")(image=picture[None])
    different = np.sqrt(found["anomaly_map"][0] / channels)
    gray = np.clip(255 * different, 0, 255).astype("uint8")[..., None]
    parts = [np.broadcast_to(part, (size, size, 3)) for part in (picture, found["reconstruction"][0], gray)]
    enlarged = np.concatenate(parts, axis=1).repeat(-(-128 // size), 0).repeat(-(-128 // size), 1)
    return float(found["energy"][0]), enlarged


def write_energies(options: EnergiesOptions, family: str) -> RunReport:
    """Write the anomaly maps that the options ask for and, for several pictures, energies.csv, the highest first.

    Raises:
        UsageError: two results would be written to one place, or an input would be overwritten.
        DataError: pictures that could not be read; all others are done, and are in energies.csv.
    """
    jobs = picture_jobs(options.inputs, options.out)
    model = options.trained(family).load()
    energies: dict[str, float] = {}

    def work(source: Path, target: Path) -> None:
        # Names need not be UTF-8, but tables and reports are.
        name = os.fsencode(source).decode(errors="backslashreplace")
        energies[name], picture = anomaly_map(model, read_image(source))
        write_image(target, picture)

    written, failure = [], None
    try:
        written = each(jobs, work)
    except DataError as error:
        failure = error
    highest = sorted(energies.items(), key=lambda pair: -pair[1])
    if len(jobs) > 1 or options.inputs[0].is_dir():
        table = io.StringIO()
        rows = [("picture", "energy"), *((name, f"{value:.6g}") for name, value in highest)]
        csv.writer(table, lineterminator="\n").writerows(rows)
        written.append(write_text(options.out / "energies.csv", table.getvalue()))
    if failure is not None:
        raise failure
    shown = {name: round(value, 4) for name, value in highest[:10]}
    facts = {"highest energies": shown, "energy": model.config.energy, "margin": model.config.margin}
    return RunReport(tuple(written), facts)


def energies_task(family: str) -> Task:
    """The task of a family whose servables are "generate" and "energy"."""
    return Task(
        EnergiesOptions,
        lambda options: write_energies(options, family) if options.inputs else write_sheet(options, family),
    )
