"""Translating pictures between two domains: what models of two generators, one for each direction, have in common."""

from typing import Any, Literal

import numpy as np

from kerasmodels.config import check
from kerasmodels.data import list_images, read_image
from kerasmodels.data.images import check_photo
from kerasmodels.data.stacks import fitted
from kerasmodels.data.unpaired import domains
from kerasmodels.family import RunReport, Task
from kerasmodels.servables import served
from kerasmodels.tasks.pictures import PicturesOptions, change_pictures
from kerasmodels.translator import DIRECTIONS


class TranslateOptions(PicturesOptions):
    """Translate pictures, folders of pictures, or videos from one domain into the other."""

    direction: Literal["a_to_b", "b_to_a"] = "a_to_b"
    """From which domain into which."""


def translate(model: Any, picture: np.ndarray, direction: str = "a_to_b") -> np.ndarray:
    """A picture in the other domain.

    Args:
        model: a trained one of two generators, such as `CycleGAN`.
        picture: (H, W, 3) RGB, uint8 or floats of 0-255, of any size; for a model that takes one size only it is cut
            to that shape in the middle and resized.
        direction: "a_to_b" or "b_to_a".

    Returns:
        uint8, of the picture's size, or the model's.

    Raises:
        UsageError: another direction.
        DataError: no such picture, or floats of 0-1.
    """
    check(direction in DIRECTIONS, f"direction in {DIRECTIONS}", direction)
    picture = np.clip(np.rint(check_photo(picture, name="a picture")), 0, 255).astype("uint8")
    _, height, width, channels = getattr(model, direction).input_shape
    if height is not None:
        picture = fitted(picture, height, width, channels)
    return served(model, direction)(image=picture[None])["translated"][0]


def translations(model: Any) -> dict[str, np.ndarray]:
    """For each direction four of the training's pictures; below each its translation, and its reconstruction."""
    size, shown = model.config.size, {}
    for direction, back, folder in zip(
        DIRECTIONS, DIRECTIONS[::-1], domains(model.config.a, model.config.b), strict=True
    ):
        columns = []
        for path in list_images(folder)[:4]:
            picture = fitted(read_image(path), size, size, 3)
            translated = translate(model, picture, direction)
            columns.append(np.concatenate([picture, translated, translate(model, translated, back)]))
        shown[direction] = np.concatenate(columns, axis=1)
    return shown


def translate_pictures(options: TranslateOptions, family: str) -> RunReport:
    """Translate and write what the options ask for.

    Raises:
        UsageError, DataError: see `change_pictures`.
    """
    trained = options.trained(family)

    def load() -> Any:
        model = trained.load()
        return lambda picture: translate(model, picture, options.direction)

    return change_pictures(options, load, model=trained.name, direction=options.direction)


def translate_task(family: str) -> Task:
    """The task of a family with a generator for each direction."""
    return Task(TranslateOptions, lambda options: translate_pictures(options, family))
