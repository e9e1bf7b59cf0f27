"""Total variation of pictures, signals and volumes."""

from typing import Any

import keras
from keras import ops


def total_variation(images: Any) -> Any:
    """Half the sum of squared differences between neighboring pixels, per picture.

    But in the last row and column its gradient is that of the released fast-neural-style and neural-style code, which
    define the gradient only.

    Args:
        images: (N, positions..., C), any unit: pictures (N, H, W, C), signals (N, L, C), volumes (N, D, H, W, C).

    Returns:
        (N,), the unit squared. It is a sum: it grows with the number of pixels.
    """
    images = ops.cast(images, "float32")
    shape = ops.shape(images)
    rank = len(shape)
    total = 0.0
    for axis in range(1, rank - 1):
        # Not images[:, 1:]: TensorFlow takes several times as long for the gradient of that.
        size = [length - 1 if a == axis else length for a, length in enumerate(shape)]
        here, next_one = [0] * rank, [int(a == axis) for a in range(rank)]
        step = ops.subtract(ops.slice(images, next_one, size), ops.slice(images, here, size))
        total = ops.add(total, ops.sum(ops.square(step), axis=tuple(range(1, rank))))
    return ops.multiply(total, 0.5)


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
