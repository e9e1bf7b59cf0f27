"""Pictures and texts on disk as arrays and `tf.data` streams."""

from kerasmodels.data.grids import grid
from kerasmodels.data.images import (
    image_size,
    list_images,
    photo_crops,
    read_as_stored,
    read_drawing,
    read_image,
    read_mask,
    resized,
    write_image,
)
from kerasmodels.data.low_resolution import degrade, low_resolution_pairs, paired
from kerasmodels.data.regions import merge_orphans, read_labels, region_masks
from kerasmodels.data.stacks import picture_stack, read_idx
from kerasmodels.data.unpaired import unpaired

__all__ = [
    "degrade",
    "grid",
    "image_size",
    "list_images",
    "low_resolution_pairs",
    "merge_orphans",
    "paired",
    "photo_crops",
    "picture_stack",
    "read_as_stored",
    "read_drawing",
    "read_idx",
    "read_image",
    "read_labels",
    "read_mask",
    "region_masks",
    "resized",
    "unpaired",
    "write_image",
]
