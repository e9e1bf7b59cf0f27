"""Pictures of two domains, unpaired."""

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmodels.data.images import image_size, list_images, photo_crops
from kerasmodels.errors import DataError, UsageError

if TYPE_CHECKING:
    import tensorflow as tf


def domains(a: str | Path | None, b: str | Path | None) -> tuple[Path, Path]:
    """Two folders of pictures, looked into.

    Args:
        a, b: folders; None if none was named.

    Raises:
        UsageError: one is None.
        DataError: one is no folder, or has fewer than 2 pictures.
    """
    if a is None or b is None:
        raise UsageError("training needs two folders of pictures: --a DIR --b DIR.")
    for folder in (a, b):
        if len(list_images(folder)) < 2:
            raise DataError(
                f"expected at least 2 pictures of each domain. Received: one, in {folder}. A domain is learned from "
                "many."
            )
    return Path(a), Path(b)


def unpaired(
    a: str | Path | None, b: str | Path | None, size: int, batch: int = 1, seed: int = 0, start: int = 0
) -> "tf.data.Dataset":
    """An endless, reproducible stream of random square crops of two domains' pictures.

    Pictures may have any sizes. Of those smaller than the crops, which are enlarged, stderr is told.

    Args:
        a, b: folders, searched with their subfolders.
        size: side of the crops, pixels.
        batch: pictures of each domain in a batch.
        seed: another seed, another stream.
        start: number of the first batch; see `photo_crops`.

    Returns:
        Dataset of pairs of (batch, size, size, 3) float32, RGB 0-255; the two have nothing to do with each other. It
        does not end: `fit` needs `steps_per_epoch`.

    Raises:
        UsageError, DataError: see `domains` and `photo_crops`.
    """
    import tensorflow as tf

    folders = domains(a, b)
    for folder in folders:
        warn_of_small(list_images(folder), size)
    # Another seed each, or folders of as many pictures would come in step.
    streams = [photo_crops(folder, size, batch, 2 * seed + i, start) for i, folder in enumerate(folders)]
    return tf.data.Dataset.zip(*streams)


def warn_of_small(files: Sequence[Path], size: int) -> None:
    """Tell stderr how many of the pictures have a side below `size` pixels, if any has."""
    small = {file: sides for file in files if min(sides := image_size(file)) < size}
    if small:
        least = min(small, key=lambda file: min(small[file]))
        height, width = small[least]
        print(
            f"warning: {len(small)} of {len(files)} pictures in {least.parent} are smaller than {size} x {size} pixels "
            f"(the smallest, {least.name}: {width} x {height}). They are enlarged, and what is learned from them looks "
            "soft: take larger ones, or a smaller --size.",
            file=sys.stderr,
        )
