"""Transposed convolution as PyTorch's code of the papers has it."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("kerasmodels")
class DoublingConv2DTranspose(keras.layers.Conv2DTranspose):
    """A transposed convolution of 3 x 3 and stride 2 that doubles height and width, sampled as PyTorch's.

    With padding 1 and output padding 1, PyTorch keeps samples 1 to 2n of the full result; Keras' padding "same" keeps 0
    to 2n - 1.

    Args:
        filters, **kwargs: as `keras.layers.Conv2DTranspose`; kernel, strides and padding are given.

    Shapes:
        (N, H, W, C) -> (N, 2 H, 2 W, filters); H and W may be unknown.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.DoublingConv2DTranspose(8)(np.ones((1, 4, 5, 3))).shape)
        (1, 8, 10, 8)
    """

    def __init__(self, filters: int, **kwargs: Any):
        if kwargs.pop("data_format", None) == "channels_first":
            raise ValueError("expected channels last. Received: data_format='channels_first'.")
        given = {"kernel_size": 3, "strides": 2, "padding": "valid", "data_format": "channels_last"}
        super().__init__(filters, **{**kwargs, **given})

    def call(self, inputs: Any) -> Any:
        full = super().call(inputs)
        if keras.backend.backend() != "tensorflow":
            return full[:, 1:, 1:]
        import tensorflow as tf

        # The gradient of a strided slice uses one core only.
        return tf.slice(full, (0, 1, 1, 0), (-1, -1, -1, -1))

    def compute_output_shape(self, input_shape: Any) -> Any:
        n, *sides, c = super().compute_output_shape(input_shape)
        return (n, *(None if side is None else side - 1 for side in sides), c)
