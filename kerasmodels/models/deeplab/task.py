"""The user's task: a photo in, what each pixel shows out."""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kerasmodels.family import RunReport
from kerasmodels.models import dense_crf
from kerasmodels.models.deeplab.model import segment_picture
from kerasmodels.models.dilated_net.task import label_photo


@dataclass(frozen=True)
class RunOptions:
    """Label each pixel of a photo with what it shows."""

    photo: tyro.conf.Positional[Path]
    """The photo, of any size."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The label map to write: a PNG with PASCAL VOC's palette, whose indices are the labels."""
    run: Path | None = None
    """A run folder of `kerasmodels train deeplab`."""
    preset: str | None = None
    """Instead: shipped weights; `kerasmodels list` names them."""
    overlay: Path | None = None
    """Also write the photo with the labels over it."""
    legend: Path | None = None
    """Also write a picture of the colours and what they mean."""
    crf: tyro.conf.FlagCreatePairsOff[bool] = False
    """Move the labels onto the photo's edges, by the config's fully connected CRF."""
    tile: int = 1025
    """Largest side of what is worked on at once, pixels."""


def run(options: RunOptions) -> RunReport:
    def label(model: Any, config: Any, photo: np.ndarray) -> np.ndarray:
        refine = partial(dense_crf.refine, config=config.crf) if options.crf else None
        return segment_picture(model, photo, options.tile, refine)

    return label_photo(options, "deeplab", label, lambda config: config.label_names())
