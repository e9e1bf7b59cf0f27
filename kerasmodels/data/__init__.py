"""Pictures and texts on disk as arrays and `tf.data` streams."""

from kerasmodels.data.images import list_images, photo_crops, read_image, write_image
from kerasmodels.data.regions import merge_orphans, read_labels, region_masks

__all__ = [
    "list_images",
    "merge_orphans",
    "photo_crops",
    "read_image",
    "read_labels",
    "region_masks",
    "write_image",
]
