"""The user's task: a photo in, what each pixel shows out."""

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from kerasmodels.family import RunReport
from kerasmodels.models import dense_crf
from kerasmodels.models.deeplab.model import segment_picture
from kerasmodels.models.segmentation import LabelOptions, label_photo


@dataclass(frozen=True)
class RunOptions(LabelOptions):
    """Label each pixel of a photo with what it shows."""

    tile: int = 1025
    """Largest side of what is worked on at once, pixels."""


def run(options: RunOptions) -> RunReport:
    def label(model: Any, photo: np.ndarray) -> np.ndarray:
        refine = partial(dense_crf.refine, config=model.config.crf) if options.crf else None
        return segment_picture(model, photo, options.tile, refine)

    return label_photo(options, "deeplab", label)
