"""Sheets of made pictures, and the energies of given ones."""

import csv
import io
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import tensorflow as tf
import tyro

from kerasmodels import presets, storage
from kerasmodels.data import read_image, write_image
from kerasmodels.data.grids import sheet
from kerasmodels.data.stacks import fitted
from kerasmodels.data.targets import files_and_targets
from kerasmodels.family import RunReport, check
from kerasmodels.models.ebgan.config import Config
from kerasmodels.models.ebgan.model import EBGAN, servables


def preview(model: EBGAN, config: Config) -> dict[str, np.ndarray]:
    return {"samples": sheet(model, 8, 8, seed=0)}


@dataclass(frozen=True)
class RunOptions:
    """Make pictures; or, given some, tell how unlike the training's they are, and where."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The sheet of pictures to write; for given pictures that of the first, or a folder if there are several."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Pictures, or folders of pictures, whose energies to tell. None: make new ones."""
    preset: str | None = None
    """Shipped weights; `kerasmodels list` names them."""
    run: Path | None = None
    """A run folder, instead of a preset."""
    rows: int = 8
    """Rows of made pictures."""
    columns: int = 8
    """Made pictures in a row."""
    seed: int = 0
    """Another seed, other pictures."""
    between: bool = False
    """Each row goes from one picture to another."""


def run(options: RunOptions) -> RunReport:
    check(options.rows > 0 and options.columns > 0, "rows > 0 and columns > 0", (options.rows, options.columns))
    trained = presets.chosen("ebgan", options.preset, options.run)
    if not options.inputs:
        _, config, model = trained.load()
        path = write_image(options.out, sheet(model, options.rows, options.columns, options.seed, options.between))
        return RunReport((path,), {"pictures": options.rows * options.columns, "size": config.size})
    pairs = files_and_targets(options.inputs, options.out)
    _, config, model = trained.load()
    written, found = [], {}
    for file, target in pairs:
        found[str(file)], picture = looked_at(model, read_image(file))
        written.append(write_image(target, picture))
    strangest = sorted(found.items(), key=lambda pair: -pair[1])
    if len(written) > 1 or options.inputs[0].is_dir():
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([("picture", "energy"), *((name, f"{value:.6g}") for name, value in strangest)])
        text = table.getvalue()
        written.append(storage.write_atomic(options.out / "energies.csv", lambda f: f.write(text.encode())))
    shown = {name: round(value, 4) for name, value in strangest[:10]}
    return RunReport(tuple(written), {"highest energies": shown, "energy": config.energy, "margin": config.margin})


def looked_at(model: EBGAN, picture: np.ndarray) -> tuple[float, np.ndarray]:
    """The energy of one picture, and the picture beside what the judge makes of it and where they differ.

    Args:
        model: a trained one.
        picture: (H, W, 3) uint8, RGB 0-255, of any size; cut to a square in the middle and resized as in training.

    Returns:
        The energy, and (size, 3 * size, 3) uint8, at least 128 pixels high: small ones are enlarged. In the last part
        white is a difference of half the range.
    """
    size, channels = model.config.size, model.config.channels
    given = fitted(picture, size, size, channels)
    answer = servables(model, model.config)["energy"].call(image=tf.constant(given[None]))
    different = np.sqrt(np.asarray(answer["map"])[0] / channels)
    grey = np.clip(255 * different, 0, 255).astype("uint8")[..., None]
    parts = [np.broadcast_to(part, (size, size, 3)) for part in (given, np.asarray(answer["rebuilt"])[0], grey)]
    enlarged = np.concatenate(parts, axis=1).repeat(-(-128 // size), 0).repeat(-(-128 // size), 1)
    return float(answer["energy"][0]), enlarged
