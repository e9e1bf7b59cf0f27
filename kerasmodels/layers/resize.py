"""Resizing feature maps, at sizes known or unknown, in every export format."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class Resize2D(keras.layers.Layer):
    """Enlarge height and width by a whole factor.

    Equal to `keras.layers.UpSampling2D`, which in Keras 3.15 cannot be bilinear at unknown sizes and becomes a reshape
    and a TILE in LiteRT; this is one resize operator at any size.

    Args:
        scale: the factor, an int >= 1.
        interpolation: "nearest" or "bilinear" (half-pixel centers).

    Shapes:
        (N, H, W, C) -> (N, scale * H, scale * W, C); on the TensorFlow backend H and W may be unknown.

    Raises:
        ValueError: another scale or interpolation.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.Resize2D(2)(np.ones((1, 4, 5, 3))).shape)
        (1, 8, 10, 3)
    """

    def __init__(self, scale: int = 2, interpolation: str = "nearest", **kwargs: Any):
        super().__init__(**kwargs)
        if not isinstance(scale, int) or scale < 1:
            raise ValueError(f"scale must be an int >= 1. Received: scale={scale!r}")
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(f"interpolation must be 'nearest' or 'bilinear'. Received: {interpolation!r}")
        self.scale = scale
        self.interpolation = interpolation

    def call(self, inputs: Any) -> Any:
        if keras.backend.backend() != "tensorflow":
            size = (inputs.shape[1] * self.scale, inputs.shape[2] * self.scale)
            return ops.image.resize(inputs, size, self.interpolation, data_format="channels_last")
        return _resize_tf(inputs, self.scale, self.interpolation)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, h, w, c = input_shape
        return (n, None if h is None else h * self.scale, None if w is None else w * self.scale, c)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "scale": self.scale, "interpolation": self.interpolation}


def _resize_tf(inputs: Any, scale: int, interpolation: str) -> Any:
    import tensorflow as tf

    static = inputs.shape[1:3]
    # A size known at trace time stays a constant: phones then get fixed shapes.
    size = [s * scale for s in static] if None not in static else tf.shape(inputs)[1:3] * scale
    if interpolation == "bilinear":
        return tf.cast(tf.image.resize(inputs, size), inputs.dtype)

    @tf.custom_gradient
    def nearest(x: Any) -> Any:
        # TensorFlow's own gradient of this operator is one slow thread; the sum over each block is a pooling.
        def gradient(dy: Any) -> Any:
            return tf.nn.avg_pool2d(dy, scale, scale, "VALID") * tf.cast(scale * scale, dy.dtype)

        return tf.image.resize(x, size, method="nearest"), gradient

    resized = nearest(inputs)
    resized.set_shape(inputs.shape[:1] + [None if s is None else s * scale for s in static] + inputs.shape[3:])
    return resized


def resize_corners(x: Any, size: Any) -> Any:
    """Bilinear resizing that keeps the centers of the corner pixels where they are.

    A network of stride s that pads its convolutions alike on all sides has its positions at the pixels 0, s, 2s ...:
    the maps of a picture of s k + 1 pixels have k + 1 positions, and this enlarges them to s k + 1 without a shift
    (`tf.image.resize` would shift them by up to half a stride).

    Args:
        x: (N, h, w, C).
        size: (H, W), numbers or a tensor.

    Returns:
        (N, H, W, C) of x's dtype.

    Example:
        >>> import numpy as np
        >>> row = np.array([0.0, 8.0, 4.0], "float32").reshape(1, 1, 3, 1)
        >>> resize_corners(row, (1, 5))[0, 0, :, 0].numpy().tolist()
        [0.0, 4.0, 8.0, 6.0, 4.0]
    """
    import tensorflow as tf

    large = tf.raw_ops.ResizeBilinear(images=x, size=size, align_corners=True)
    return tf.cast(large, x.dtype)
