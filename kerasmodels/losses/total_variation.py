"""Total variation of pictures."""

from typing import Any

import keras
from keras import ops


def total_variation(images: Any) -> Any:
    """Half the sum of squared differences between neighbouring pixels, per picture.

    But in the last row and column its gradient is that of the released fast-neural-style and neural-style code, which
    define the gradient only.

    Args:
        images: (N, H, W, C), any unit.

    Returns:
        (N,), the unit squared. It is a sum: it grows with the number of pixels.
    """
    images = ops.cast(images, "float32")
    n, h, w, c = ops.shape(images)
    # Not images[:, 1:]: TensorFlow takes several times as long for the gradient of that.
    down = ops.subtract(
        ops.slice(images, (0, 1, 0, 0), (n, h - 1, w, c)), ops.slice(images, (0, 0, 0, 0), (n, h - 1, w, c))
    )
    right = ops.subtract(
        ops.slice(images, (0, 0, 1, 0), (n, h, w - 1, c)), ops.slice(images, (0, 0, 0, 0), (n, h, w - 1, c))
    )
    axes = (1, 2, 3)
    return 0.5 * ops.add(ops.sum(ops.square(down), axis=axes), ops.sum(ops.square(right), axis=axes))


@keras.saving.register_keras_serializable("kerasmodels")
class TotalVariation(keras.losses.Loss):
    """`total_variation` of `y_pred`; `y_true` is not looked at.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> flat = np.full((2, 8, 8, 3), 9.0)
        >>> float(km.losses.TotalVariation()(flat, flat))
        0.0

    Reference:
        Johnson et al. 2016, section 3.2; weight 1e-6 to 1e-4 on 0-255 pictures.
    """

    def __init__(self, name: str = "total_variation", **kwargs: Any):
        super().__init__(name=name, **kwargs)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return total_variation(y_pred)
