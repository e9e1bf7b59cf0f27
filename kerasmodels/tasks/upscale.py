"""Pictures enlarged (being written)."""

from typing import Any

from kerasmodels.tasks.pictures import PicturesOptions


class UpscaleOptions(PicturesOptions):
    """Enlarge."""


def upscale_files(options: UpscaleOptions, trained: Any) -> Any:
    """Not yet."""
    raise NotImplementedError
