"""Pictures and texts on disk as arrays and `tf.data` streams."""

from kerasmodels.data.grids import grid
from kerasmodels.data.images import list_images, photo_crops, read_image, write_image

__all__ = ["grid", "list_images", "photo_crops", "read_image", "write_image"]
