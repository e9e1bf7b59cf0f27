"""What models of two generators share, one for each way between two kinds of pictures: their task on files."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
import tyro

from kerasmodels import presets, registry
from kerasmodels.data import read_image, write_image
from kerasmodels.data.images import check_photo
from kerasmodels.data.stacks import fitted
from kerasmodels.data.targets import files_and_targets
from kerasmodels.family import RunReport, check

DIRECTIONS = ("a_to_b", "b_to_a")
"""Names of the generators, and of what is served of them."""


def translated(model: keras.Model, picture: np.ndarray, direction: str) -> np.ndarray:
    """One picture, (H, W, 3) uint8, as one of the other kind.

    Args:
        model: a trained one.
        picture: RGB 0-255, of any size; cut in the middle and resized for a model that takes one size only.
        direction: "a_to_b" or "b_to_a".

    Raises:
        UsageError: another direction.
        DataError: see `check_photo`.
    """
    check_photo(picture, name="a picture")
    check(direction in DIRECTIONS, f"direction in {DIRECTIONS}", direction)
    servable = registry.family(model.family_name).servables(model, model.config)[direction]
    _, height, width, channels = servable.inputs[0].shape
    if isinstance(height, int) and isinstance(width, int):
        picture = fitted(picture, height, width, int(channels))
    return np.asarray(servable.call(image=tf.constant(picture[None]))["translated"])[0]


@dataclass(frozen=True)
class RunOptions:
    """Translate pictures, or folders of pictures, from one kind to the other."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures, or folders of pictures."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write; a folder if there are several inputs."""
    preset: str | None = None
    """Shipped weights; `kerasmodels list` names them."""
    run: Path | None = None
    """A run folder, instead of a preset."""
    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    """Which way."""
    max_side: int | None = None
    """Shrink inputs so that the longer side is at most this, pixels."""


def run(family: str, options: Any) -> RunReport:
    """Translate the files of `options`, a `RunOptions`, with a model of the family."""
    check(options.max_side is None or options.max_side > 0, "max_side > 0", options.max_side)
    trained = presets.chosen(family, options.preset, options.run)
    pairs = files_and_targets(options.inputs, options.out)
    model = trained.load()[2]
    written = []
    for file, target in pairs:
        picture = read_image(file, options.max_side)
        written.append(write_image(target, translated(model, picture, options.direction)))
    return RunReport(tuple(written), {"model": trained.name, "direction": options.direction})
