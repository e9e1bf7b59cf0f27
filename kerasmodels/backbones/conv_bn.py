"""Convolutions with batch normalization, of which ResNets and trunks for phones consist."""

from typing import Any

import keras
from keras import layers

from kerasmodels.layers import AtrousConvolution2D, DeformableConv2D


def first_kernel(scale: float = 1.0) -> keras.initializers.Initializer:
    """Initializer of the first convolution: pictures less their mean deviate by about 64, divided by `scale`."""
    return keras.initializers.VarianceScaling(2 / (64 / scale) ** 2)


class ConvBN:
    """Makes convolutions with batch normalization and a ReLU, in stages whose weights may be frozen.

    Args:
        epsilon: of batch normalization.
        batch_norm: frozen, its statistics, scales and shifts stay as they are; trained.
        frozen: stages at the beginning that keep their weights.
    """

    def __init__(self, epsilon: float, batch_norm: str, frozen: int = 0):
        self.epsilon, self.batch_norm, self.frozen = epsilon, batch_norm, frozen
        self.trainable = True

    def stage(self, number: int) -> None:
        """What follows belongs to this stage; the first is 1."""
        self.trainable = number > self.frozen

    def normalized(self, x: Any, name: str, activation: str | None) -> Any:
        """Batch normalization, and relu, relu6 or nothing."""
        x = layers.BatchNormalization(
            epsilon=self.epsilon,
            trainable=self.trainable and self.batch_norm == "trained",
            name=f"{name}_bn",
        )(x)
        if activation is None:
            return x
        most = 6.0 if activation == "relu6" else None
        return layers.ReLU(most, name=f"{name}_relu")(x)

    def __call__(
        self,
        x: Any,
        channels: int,
        kernel: int,
        name: str,
        *,
        stride: int = 1,
        rate: int = 1,
        activation: str | None = "relu",
        deformable: bool = False,
        initializer: Any = "he_normal",
    ) -> Any:
        """A convolution without bias, normalized."""
        shared: dict[str, Any] = {
            "padding": "same",
            "use_bias": False,
            "kernel_initializer": initializer,
            "trainable": self.trainable,
            "name": name,
        }
        if deformable:
            x = DeformableConv2D(channels, kernel, dilation_rate=rate, **shared)(x)
        elif rate > 1:
            x = AtrousConvolution2D(channels, kernel, atrous_rate=rate, **shared)(x)
        else:
            x = layers.Conv2D(channels, kernel, stride, **shared)(x)
        return self.normalized(x, name, activation)

    def depthwise(self, x: Any, kernel: int, name: str, *, stride: int, rate: int, activation: str) -> Any:
        """A kernel for each channel, without bias, normalized."""
        padding = "same"
        if stride == 1:
            # With the padding known, runtimes need no arithmetic on the picture's size.
            zeros = rate * (kernel - 1) // 2
            x = layers.ZeroPadding2D(zeros, name=f"{name}_pad")(x)
            padding = "valid"
        x = layers.DepthwiseConv2D(
            kernel,
            stride,
            padding,
            dilation_rate=rate,
            use_bias=False,
            depthwise_initializer="he_normal",
            trainable=self.trainable,
            name=name,
        )(x)
        return self.normalized(x, name, activation)
