"""Residual blocks of image-to-image networks."""

from typing import Any

import keras

from kerasmodels.layers.normalization import InstanceNormalization
from kerasmodels.layers.padding import ReflectionPadding2D


@keras.saving.register_keras_serializable("kerasmodels")
class ResidualBlock(keras.layers.Layer):
    """conv3x3 - norm - ReLU - conv3x3 - norm, added to the input; nothing after the sum.

    Args:
        filters: channels in and out.
        normalization: "instance" or "batch" (epsilon 1e-5, momentum 0.9, as in Torch).
        padding: "valid": no padding, the identity branch is cropped by 2 pixels on each side (Johnson 2016, so that no
            zero is ever seen in the middle of the network); "reflect" or "same" keep the size.
        affine: instance normalization learns a scale and a shift of each channel.

    Shapes:
        (N, H, W, filters) -> (N, H - 4, W - 4, filters) with "valid", else the input's.

    Raises:
        ValueError: an unknown option, or an input with another number of channels.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.ResidualBlock(8)(np.ones((1, 20, 20, 8))).shape)
        (1, 16, 16, 8)

    Reference:
        He et al. 2016; Johnson et al. 2016, supplementary material.
    """

    def __init__(
        self,
        filters: int,
        normalization: str = "instance",
        padding: str = "valid",
        affine: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if normalization not in ("instance", "batch"):
            raise ValueError(f"normalization must be 'instance' or 'batch'. Received: {normalization!r}")
        if padding not in ("valid", "reflect", "same"):
            raise ValueError(f"padding must be 'valid', 'reflect' or 'same'. Received: {padding!r}")
        self.filters = filters
        self.normalization = normalization
        self.padding = padding
        self.affine = affine
        conv_padding = "same" if padding == "same" else "valid"
        policy = self.dtype_policy
        self.conv1 = keras.layers.Conv2D(filters, 3, padding=conv_padding, dtype=policy, name="conv1")
        self.norm1 = _normalization(normalization, affine, policy, "norm1")
        self.conv2 = keras.layers.Conv2D(filters, 3, padding=conv_padding, dtype=policy, name="conv2")
        self.norm2 = _normalization(normalization, affine, policy, "norm2")
        self.pad = ReflectionPadding2D(1, dtype=policy, name="pad") if padding == "reflect" else None

    def build(self, input_shape: tuple[int | None, ...]) -> None:
        if input_shape[-1] != self.filters:
            raise ValueError(f"{self.name} adds its input: expected {self.filters} channels. Received: {input_shape}")
        for part in (self.conv1, self.norm1, self.conv2, self.norm2):
            part.build((*input_shape[:-1], self.filters))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        x = self.conv1(self.pad(inputs) if self.pad else inputs)
        x = keras.ops.relu(self.norm1(x, training=training) if self.normalization == "batch" else self.norm1(x))
        x = self.conv2(self.pad(x) if self.pad else x)
        x = self.norm2(x, training=training) if self.normalization == "batch" else self.norm2(x)
        if self.padding != "valid":
            return keras.ops.add(x, inputs)
        # Not inputs[:, 2:-2, 2:-2]: TensorFlow takes several times as long for the gradient of that.
        n, h, w, c = keras.ops.shape(inputs)
        return keras.ops.add(x, keras.ops.slice(inputs, (0, 2, 2, 0), (n, h - 4, w - 4, c)))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        if self.padding != "valid":
            return input_shape
        n, h, w, c = input_shape
        return (n, None if h is None else h - 4, None if w is None else w - 4, c)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "normalization": self.normalization,
            "padding": self.padding,
            "affine": self.affine,
        }


def _normalization(kind: str, affine: bool, policy: Any, name: str) -> keras.layers.Layer:
    if kind == "batch":
        return keras.layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=policy, name=name)
    return InstanceNormalization(center=affine, scale=affine, dtype=policy, name=name)
