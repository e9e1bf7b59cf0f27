"""Pictures and texts on disk as arrays and `tf.data` streams."""

from kerasmodels.data.grids import grid
from kerasmodels.data.images import image_size, list_images, photo_crops, read_image, resized, write_image

__all__ = ["grid", "image_size", "list_images", "photo_crops", "read_image", "resized", "write_image"]
