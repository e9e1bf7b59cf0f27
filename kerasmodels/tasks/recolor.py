"""Colors that were found for a small version of a photo, on the photo itself."""

import numpy as np
import tensorflow as tf

from kerasmodels.data.images import check_photo
from kerasmodels.layers import LocalAffineSmoothing
from kerasmodels.ops.pictures import to_levels


def recolored(photo: np.ndarray, small: np.ndarray, stylized: np.ndarray) -> np.ndarray:
    """The photo in the colors of `stylized`, (H, W, 3) uint8. Large photos are worked on in bands.

    Args:
        photo: (H, W, 3), RGB 0-255.
        small: (h, w, 3), the photo at the size of `stylized`.
        stylized: (h, w, 3), RGB 0-255.

    Raises:
        DataError: see `check_photo`.
    """
    for picture, name in ((photo, "a photo"), (small, "a small photo"), (stylized, "a stylized photo")):
        check_photo(picture, name=name)
    maps = _maps(*(tf.constant(p[None].astype("float32") / 255) for p in (small, stylized)))
    height, width = photo.shape[:2]
    # As `tf.image.resize` places rows, half a pixel from the edge.
    places = np.clip((np.arange(height) + 0.5) * small.shape[0] / height - 0.5, 0, small.shape[0] - 1)
    step = max(1, _BAND // width)
    bands = [
        _band(maps, tf.constant(photo[None, top : top + step]), tf.constant(places[top : top + step], tf.float32))
        for top in range(0, height, step)
    ]
    return np.concatenate([band.numpy()[0] for band in bands])


_BAND = 1 << 20
"""Pixels of a band: 48 maps of it are 200 MB."""


@tf.function(reduce_retracing=True, autograph=False)
def _maps(small: tf.Tensor, stylized: tf.Tensor) -> dict[str, tf.Tensor]:
    return LocalAffineSmoothing().maps(small, stylized)


@tf.function(reduce_retracing=True, autograph=False)
def _band(maps: dict[str, tf.Tensor], photo: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Rows of the photo, which lie at `places` of the maps' rows, under the maps."""
    above = tf.floor(places)
    below = tf.minimum(tf.cast(above, tf.int32) + 1, tf.shape(maps["offsets"])[1] - 1)
    share = tf.reshape(places - above, (1, -1, 1, 1))
    size = tf.shape(photo)[1:3]

    def enlarged(x: tf.Tensor) -> tf.Tensor:
        rows = (1 - share) * tf.gather(x, tf.cast(above, tf.int32), axis=1) + share * tf.gather(x, below, axis=1)
        return tf.image.resize(rows, size)

    large = {name: x if name == "overall" else enlarged(x) for name, x in maps.items()}
    return to_levels(LocalAffineSmoothing().apply(large, tf.cast(photo, tf.float32) / 255))
