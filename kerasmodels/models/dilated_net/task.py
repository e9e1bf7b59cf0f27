"""The user's task: a photo in, what each pixel shows out."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from kerasmodels.family import RunReport
from kerasmodels.models import dense_crf
from kerasmodels.models.dilated_net.model import segment_picture
from kerasmodels.models.segmentation import LabelOptions, label_photo


@dataclass(frozen=True)
class RunOptions(LabelOptions):
    """Label each pixel of a photo with what it shows."""

    tile: int = 900
    """Largest side of what the front end sees at once, pixels, its margin included."""


def run(options: RunOptions) -> RunReport:
    def label(model: Any, photo: np.ndarray) -> np.ndarray:
        probabilities = segment_picture(model, photo, options.tile)
        if options.crf:
            probabilities = dense_crf.refine(photo, probabilities, model.config.crf)
        return probabilities.argmax(-1)

    return label_photo(options, "dilated_net", label)
