"""Making pictures of random numbers."""

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kerasmodels.config import NonNegativeInt, PositiveInt
from kerasmodels.data import write_image
from kerasmodels.data.grids import latents, tiled
from kerasmodels.data.images import check_picture_name
from kerasmodels.family import RunReport, Task
from kerasmodels.servables import served
from kerasmodels.tasks import TrainedOptions
from kerasmodels.tasks.pictures import check_targets


class GenerateOptions(TrainedOptions):
    """Generate pictures."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The sheet of pictures to write."""
    rows: PositiveInt = 8
    """Rows of pictures."""
    columns: PositiveInt = 8
    """Pictures in a row."""
    seed: NonNegativeInt = 0
    """Another seed, other pictures."""
    between: bool = False
    """Each row goes from one picture to another."""

    def validate(self) -> None:
        """Raise UsageError if no picture can have such a name, or lie there."""
        check_picture_name(self.out)
        check_targets([self.out], [])


def sheet(model: Any, rows: int, columns: int, seed: int = 0, between: bool = False) -> np.ndarray:
    """Pictures that a trained model generates, side by side: (rows * H, columns * W, 3) uint8.

    Args:
        model: of a family whose servable "generate" takes standard normal numbers.
        rows, columns: of pictures.
        seed: of its input.
        between: each row goes from one input to another, on a straight line.
    """
    numbers, generate = latents(rows, columns, model.config.latent, seed, between), served(model, "generate")
    batches = [generate(latent=numbers[i : i + 64])["pictures"] for i in range(0, len(numbers), 64)]
    return tiled(np.concatenate(batches), rows, columns)


def write_sheet(options: GenerateOptions, family: str) -> RunReport:
    """Generate and write what the options ask for."""
    model = options.trained(family).load()
    check_picture_name(options.out, options.rows * model.config.size, options.columns * model.config.size)
    path = write_image(options.out, sheet(model, options.rows, options.columns, options.seed, options.between))
    return RunReport((path,), {"pictures": options.rows * options.columns, "size": model.config.size})


def generate_task(family: str) -> Task:
    """The task of a family whose servable "generate" takes standard normal numbers."""
    return Task(GenerateOptions, lambda options: write_sheet(options, family))
