"""Convolutions with holes: a kernel's weights `atrous_rate` positions apart see far, at no more weights."""

from collections.abc import Sequence
from typing import Any

import keras
from keras import layers, ops

from kerasmodels.layers.dropout import NamedDropout


class _Atrous:
    """What the three convolutions share: the name of the rate, and padding that exports as one operator."""

    # Of the Keras layer that comes after this one in each class.
    kernel_size: tuple[int, ...]
    dilation_rate: tuple[int, ...]
    strides: tuple[int, ...]
    padding: str
    data_format: str
    rank: int
    kernel: Any
    use_bias: bool
    bias: Any
    activation: Any

    def __init__(self, filters: int, *kernel_size: Any, atrous_rate: int | Sequence[int] = 1, **kwargs: Any):
        if not kernel_size:
            (kernel_size,) = (kwargs.pop("kernel_size", ()),)
            kernel_size = (kernel_size,)
        # Keras 1 took the sides of the kernel one by one.
        size = kernel_size[0] if len(kernel_size) == 1 else tuple(kernel_size)
        if "dilation_rate" in kwargs:
            raise ValueError(f"the rate is given as atrous_rate. Received: dilation_rate={kwargs['dilation_rate']!r}")
        rate = atrous_rate if isinstance(atrous_rate, int) else tuple(atrous_rate)
        super().__init__(filters, size, dilation_rate=rate, **kwargs)  # type: ignore[call-arg]

    @property
    def atrous_rate(self) -> tuple[int, ...]:
        """Distance between two weights of the kernel, positions, for each axis."""
        return self.dilation_rate

    def call(self, inputs: Any) -> Any:
        if self.data_format == "channels_last":
            return super().call(inputs)  # type: ignore[misc]
        # Keras adds the bias by ops.add, which takes a vector of any axis for one of the last axis that it fits.
        causal = self.padding == "causal"
        if causal:
            inputs = ops.pad(inputs, ((0, 0), (0, 0), ((self.kernel_size[0] - 1) * self.dilation_rate[0], 0)))
        y = ops.conv(
            inputs,
            self.kernel,
            strides=self.strides,
            padding="valid" if causal else self.padding,
            dilation_rate=self.dilation_rate,
            data_format=self.data_format,
        )
        if self.use_bias:
            y = y + ops.reshape(self.bias, (1, -1, *(1 for _ in self.kernel_size)))
        return y if self.activation is None else self.activation(y)

    def convolution_op(self, inputs: Any, kernel: Any) -> Any:
        plain = set(self.strides) == {1} and self.data_format == "channels_last"
        if self.padding != "same" or not plain:
            return super().convolution_op(inputs, kernel)  # type: ignore[misc]
        # With the padding known, runtimes need no arithmetic on the picture's size.
        reach = [(k - 1) * rate for k, rate in zip(self.kernel_size, self.dilation_rate, strict=True)]
        padded = ops.pad(inputs, ((0, 0), *((r // 2, r - r // 2) for r in reach), (0, 0)))
        return ops.conv(
            padded, kernel, strides=1, padding="valid", dilation_rate=self.dilation_rate, data_format=self.data_format
        )

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()  # type: ignore[misc]
        rate = config.pop("dilation_rate")
        return {**config, "atrous_rate": rate}


@keras.saving.register_keras_serializable("kerasmodels")
class AtrousConvolution1D(_Atrous, layers.Conv1D):
    """`Conv1D` with holes, by the name it had in Keras 1. All else as `AtrousConvolution2D`.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.AtrousConvolution1D(4, 3, atrous_rate=8)(np.ones((1, 40, 2))).shape)
        (1, 24, 4)
    """


@keras.saving.register_keras_serializable("kerasmodels")
class AtrousConvolution2D(_Atrous, layers.Conv2D):
    """`Conv2D` with holes, by the name it had in Keras 1: y[i] = sum_k x[i + rate k] w[k].

    Equal to `Conv2D(dilation_rate=atrous_rate)`, to the convolution with zeros stuffed between the kernel's weights,
    and to a dense convolution of each of the rate x rate subsampled pictures. A kernel of k sees k + (k - 1)(rate - 1)
    pixels. With padding "same" the zeros are added beforehand, so that exported graphs hold one padding and one
    convolution, whatever is known of the picture's size.

    Args:
        filters: channels of the output.
        kernel_size: weights on each side, as one number or a pair; or, as in Keras 1, two numbers: (64, 3, 3).
        atrous_rate: distance between two weights, pixels; 1 is an ordinary convolution.
        **kwargs: as `keras.layers.Conv2D`, without dilation_rate.

    Shapes:
        (N, H, W, C) -> (N, H', W', filters), with padding "valid" H' = H - (k - 1) rate.

    Raises:
        ValueError: dilation_rate is given, or what `Conv2D` refuses (strides and a rate above 1 together).

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.AtrousConvolution2D(8, 3, 3, atrous_rate=(2, 4))(np.ones((1, 20, 20, 3))).shape)
        (1, 16, 12, 8)

    Reference:
        Chen et al.: DeepLab, 2016, equation 1; Yu, Koltun: Multi-Scale Context Aggregation by Dilated Convolutions,
        ICLR 2016, equation 2.
    """


@keras.saving.register_keras_serializable("kerasmodels")
class AtrousConvolution3D(_Atrous, layers.Conv3D):
    """`Conv3D` with holes. All else as `AtrousConvolution2D`.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.AtrousConvolution3D(2, 3, atrous_rate=2)(np.ones((1, 9, 8, 7, 1))).shape)
        (1, 5, 4, 3, 2)
    """


@keras.saving.register_keras_serializable("kerasmodels")
class AtrousSpatialPyramidPooling(layers.Layer):
    """Convolutions of several rates side by side, their outputs summed (DeepLab v2; v3 concatenates instead).

    Args:
        filters: channels of the output, such as the number of classes.
        rates: of the branches (paper: 6, 12, 18, 24).
        kernel_size: of the first convolution of each branch.
        hidden: channels of layers with ReLU before the last of each branch: () for one convolution a branch, as after
            ResNet; (1024, 1024) for fc6, fc7 and fc8 of VGG16. Those after the first are 1 x 1.
        dropout: after each of them.
        kernel_initializer: of the last convolution of each branch (paper: normal, 0.01).
        hidden_initializer: of those before it (the paper's are VGG16's fc6 and fc7).

    Shapes:
        (N, H, W, C) -> (N, H, W, filters).

    Raises:
        ValueError: no rates.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> head = km.layers.AtrousSpatialPyramidPooling(21)
        >>> tuple(head(np.ones((1, 41, 41, 64))).shape), head.count_params()  # 4 (3 x 3 x 64 x 21 + 21)
        ((1, 41, 41, 21), 48468)

    Reference:
        Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab, 2016, section 3.2 and figure 7.
    """

    def __init__(
        self,
        filters: int,
        rates: Sequence[int] = (6, 12, 18, 24),
        kernel_size: int = 3,
        hidden: Sequence[int] = (),
        dropout: float = 0.5,
        kernel_initializer: Any = None,
        hidden_initializer: Any = "he_normal",
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if not rates:
            raise ValueError(f"expected at least one rate. Received: rates={rates!r}")
        self.filters, self.rates, self.kernel_size = int(filters), tuple(rates), kernel_size
        self.hidden, self.dropout = tuple(hidden), float(dropout)
        initializer = kernel_initializer or keras.initializers.RandomNormal(stddev=0.01)
        self.kernel_initializer = keras.initializers.get(initializer)
        self.hidden_initializer = keras.initializers.get(hidden_initializer)
        self.branches = [self._branch(rate) for rate in self.rates]

    def _branch(self, rate: int) -> list[layers.Layer]:
        channels, steps = (*self.hidden, self.filters), list[layers.Layer]()
        for number, count in enumerate(channels):
            last = number == len(channels) - 1
            initializer = self.kernel_initializer if last else self.hidden_initializer
            arguments: dict[str, Any] = {
                "padding": "same",
                "activation": None if last else "relu",
                "kernel_initializer": initializer.__class__.from_config(initializer.get_config()),
                "dtype": self.dtype_policy,
                "name": f"rate{rate}_{number + 1}",
            }
            if number == 0:
                steps.append(AtrousConvolution2D(count, self.kernel_size, atrous_rate=rate, **arguments))
            else:
                steps.append(layers.Conv2D(count, 1, **arguments))
            if not last and self.dropout:
                steps.append(
                    NamedDropout(self.dropout, dtype=self.dtype_policy, name=f"rate{rate}_dropout{number + 1}")
                )
        return steps

    def build(self, input_shape: Any) -> None:
        for branch in self.branches:
            shape = input_shape
            for step in branch:
                step.build(shape)
                shape = step.compute_output_shape(shape)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        total = None
        for branch in self.branches:
            x = inputs
            for step in branch:
                x = step(x, training=training) if isinstance(step, NamedDropout) else step(x)
            total = x if total is None else ops.add(total, x)
        return total

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.filters)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "rates": self.rates,
            "kernel_size": self.kernel_size,
            "hidden": self.hidden,
            "dropout": self.dropout,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "hidden_initializer": keras.initializers.serialize(self.hidden_initializer),
        }
