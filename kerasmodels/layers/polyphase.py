"""Convolutions computed in another order than they are written, because runtimes are faster at it."""

from typing import Any

import keras
from keras import ops

_PHASES = 2


@keras.saving.register_keras_serializable("kerasmodels")
class PolyphaseConv2D(keras.layers.Conv2D):
    """`Conv2D` with stride 1 and valid padding, for very few filters: the last layer of a network that paints.

    Convolution kernels of LiteRT, ONNX Runtime and oneDNN compute 8 to 16 filters at a time; a layer with three leaves
    most of that idle. Here the four outputs of each 2x2 block of pixels are one position of a convolution with stride
    2, four times the filters and a kernel one pixel larger, whose channels are then spread over the block (the
    polyphase form of the filter). The same weights and the same sums of products, in a third to a half of the time for
    3 filters; not worth it from 8 filters on.

    Args:
        filters, kernel_size and all others: as `keras.layers.Conv2D`; strides and dilation_rate must be 1, padding
            "valid", groups 1, data_format "channels_last".

    Shapes:
        (N, H, W, C) -> (N, H - k + 1, W - k + 1, filters); on the TensorFlow backend H and W may be unknown.

    Raises:
        ValueError: another stride, dilation, padding, number of groups or data format.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.PolyphaseConv2D(3, 9)(np.ones((1, 40, 33, 8))).shape)
        (1, 32, 25, 3)

    Reference:
        Vaidyanathan: Multirate Systems and Filter Banks, 1993, section 4.3 (polyphase representation).
    """

    def __init__(self, filters: int, kernel_size: int | tuple[int, int], **kwargs: Any):
        super().__init__(filters, kernel_size, **kwargs)
        for name, only in (
            ("strides", (1, 1)),
            ("dilation_rate", (1, 1)),
            ("padding", "valid"),
            ("groups", 1),
            ("data_format", "channels_last"),
        ):
            if getattr(self, name) != only:
                raise ValueError(f"{name} must be {only}. Received: {name}={getattr(self, name)!r}. Use Conv2D.")

    def call(self, inputs: Any) -> Any:
        reach = [(i, _PHASES - 1 - i) for i in range(_PHASES)]
        kernel = ops.concatenate(
            [ops.pad(self.kernel, (rows, columns, (0, 0), (0, 0))) for rows in reach for columns in reach], axis=-1
        )
        sizes = [None if s is None else s - k + 1 for s, k in zip(inputs.shape[1:3], self.kernel_size, strict=True)]
        if None in sizes:
            y = _convolution_of_any_size(inputs, kernel)
        else:
            odd = [int(s or 0) % _PHASES for s in sizes]
            padded = ops.pad(inputs, ((0, 0), (0, odd[0]), (0, odd[1]), (0, 0))) if any(odd) else inputs
            y = ops.conv(padded, kernel, strides=_PHASES, padding="valid", data_format="channels_last")
        if self.use_bias:
            y = ops.add(y, ops.tile(self.bias, _PHASES**2))
        y = _spread(y, self.filters)
        if None in sizes or any(odd):
            height, width = (n - k + 1 for n, k in zip(ops.shape(inputs)[1:3], self.kernel_size, strict=True))
            y = y[:, :height, :width, :]
        return y if self.activation is None else self.activation(y)


def _convolution_of_any_size(x: Any, kernel: Any) -> Any:
    """One more row and column of zeros is looked at only where the size is odd, and costs no copy."""
    import tensorflow as tf

    more = (0, _PHASES - 1)
    return tf.nn.conv2d(x, kernel, _PHASES, ((0, 0), more, more, (0, 0)))


def _spread(x: Any, filters: int) -> Any:
    """(N, H, W, 4 filters) -> (N, 2 H, 2 W, filters)."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.depth_to_space(x, _PHASES)
    n, h, w, _ = x.shape
    x = ops.transpose(ops.reshape(x, (n, h, w, _PHASES, _PHASES, filters)), (0, 1, 3, 2, 4, 5))
    return ops.reshape(x, (n, h * _PHASES, w * _PHASES, filters))
