"""Convolution that learns where to look."""

from typing import Any

import keras
from keras import ops

from kerasmodels.ops import deform_conv2d
from kerasmodels.ops.deformable import output_size, pads_of, pair


@keras.saving.register_keras_serializable("kerasmodels")
class DeformableConv2D(keras.layers.Layer):
    """`Conv2D` whose taps are moved, at every position, by offsets that are computed from the input or given.

    Called with the input alone, a convolution of the same kernel size, strides, padding and dilation computes the
    offsets; its weights begin at zero, so the layer begins as the `Conv2D` with the same kernel (times 1/2 if it is
    modulated). Called with a list, the second tensor is the offsets, and if it is modulated the third the mask.

    Args:
        filters, kernel_size, strides, padding, dilation_rate, groups, activation, use_bias, kernel_initializer,
            bias_initializer, kernel_regularizer: as `keras.layers.Conv2D`; `padding` may also be pixels, as
            `ops.deform_conv2d` takes them.
        data_format: "channels_last", "channels_first", or None for Keras' default.
        deformable_groups: parts of the channels that have offsets of their own. The paper's DeepLab has 1, its R-FCN 4.
        modulated: version 2: each sample is multiplied by the sigmoid of one more channel.
        offset_rate: factor of the gradient of the offset convolution's weights, which with SGD is a factor of its
            learning rate (the paper's beta is 1). Optimizers that divide gradients by their size, as Adam, undo it.

    Weights:
        kernel (kh, kw, C / groups, filters), bias (filters,), and unless offsets are given offset_kernel
        (kh, kw, C, G kh kw (3 if modulated, else 2)) and offset_bias: first all offsets, then all masks.

    Shapes:
        (N, H, W, C) -> (N, H', W', filters), H and W known or not; with offsets (N, H', W', 2 G kh kw) and mask
        (N, H', W', G kh kw). With "channels_first", channels come second.

    Raises:
        ValueError: an option out of range; offsets or mask of the wrong number of channels or size; deformable groups
            that do not divide the channels.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> layer = km.layers.DeformableConv2D(6, 3, padding="same", dilation_rate=2)
        >>> tuple(layer(np.ones((1, 9, 8, 4))).shape)
        (1, 9, 8, 6)

    Reference:
        Dai et al.: Deformable Convolutional Networks, ICCV 2017, section 2.1. Zhu et al.: Deformable ConvNets v2, CVPR
        2019, section 3.2.
    """

    def __init__(
        self,
        filters: int,
        kernel_size: int | tuple[int, int],
        strides: int | tuple[int, int] = 1,
        padding: Any = "valid",
        data_format: str | None = None,
        dilation_rate: int | tuple[int, int] = 1,
        groups: int = 1,
        deformable_groups: int = 1,
        modulated: bool = False,
        activation: Any = None,
        use_bias: bool = True,
        kernel_initializer: Any = "glorot_uniform",
        bias_initializer: Any = "zeros",
        kernel_regularizer: Any = None,
        offset_rate: float = 1.0,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        for name, value in (("filters", filters), ("groups", groups), ("deformable_groups", deformable_groups)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int >= 1. Received: {name}={value!r}")
        if filters % groups:
            raise ValueError(f"groups must divide the {filters} filters. Received: groups={groups}")
        if offset_rate < 0:
            raise ValueError(f"offset_rate must be >= 0. Received: offset_rate={offset_rate!r}")
        self.filters = filters
        self.kernel_size = pair("kernel_size", kernel_size)
        self.strides = pair("strides", strides)
        self.dilation_rate = pair("dilation_rate", dilation_rate)
        self.padding = padding if isinstance(padding, str | int) else keras.tree.map_structure(int, tuple(padding))
        pads_of(self.padding, self.kernel_size, self.strides, self.dilation_rate, (None, None))
        self.data_format = data_format or keras.config.image_data_format()
        if self.data_format not in ("channels_last", "channels_first"):
            raise ValueError(f"data_format must be 'channels_last' or 'channels_first'. Received: {data_format!r}")
        self.groups = groups
        self.deformable_groups = deformable_groups
        self.modulated = modulated
        self.activation = keras.activations.get(activation)
        self.use_bias = use_bias
        self.kernel_initializer = keras.initializers.get(kernel_initializer)
        self.bias_initializer = keras.initializers.get(bias_initializer)
        self.kernel_regularizer = keras.regularizers.get(kernel_regularizer)
        self.offset_rate = offset_rate

    @property
    def _channel_axis(self) -> int:
        return -1 if self.data_format == "channels_last" else 1

    @property
    def _taps(self) -> int:
        """Moved taps, of all deformable groups."""
        return self.deformable_groups * self.kernel_size[0] * self.kernel_size[1]

    def build(self, input_shape: Any) -> None:
        shapes = _shapes(input_shape)
        shape = shapes[0]
        channels = shape[self._channel_axis] if len(shape) == 4 else None
        if channels is None:
            raise ValueError(f"{self.name} needs pictures with a known number of channels. Received shape {shape}")
        for name, parts in (("groups", self.groups), ("deformable_groups", self.deformable_groups)):
            if channels % parts:
                raise ValueError(f"{name} must divide the {channels} channels. Received: {name}={parts}")
        most = 3 if self.modulated else 2
        if len(shapes) not in (1, most):
            together = "input, offsets and mask" if self.modulated else "input and offsets"
            raise ValueError(f"{self.name} takes the input alone or {together}. Received: {len(shapes)} tensors")
        for name, given, count in zip(("offsets", "mask"), shapes[1:], (2 * self._taps, self._taps), strict=False):
            if len(given) != 4 or given[self._channel_axis] != count:
                raise ValueError(
                    f"{name} of {self.name} must have {count} channels: "
                    f"{'2 x ' if name == 'offsets' else ''}{self.deformable_groups} deformable groups x "
                    f"{self.kernel_size[0]} x {self.kernel_size[1]}. Received shape {given}"
                )
        kernel = (*self.kernel_size, channels // self.groups, self.filters)
        self.kernel = self.add_weight(
            name="kernel", shape=kernel, initializer=self.kernel_initializer, regularizer=self.kernel_regularizer
        )
        if self.use_bias:
            self.bias = self.add_weight(name="bias", shape=(self.filters,), initializer=self.bias_initializer)
        self.own_offsets = len(shapes) == 1
        if self.own_offsets:
            count = self._taps * most
            self.offset_kernel = self.add_weight(
                name="offset_kernel", shape=(*self.kernel_size, channels, count), initializer="zeros"
            )
            self.offset_bias = self.add_weight(name="offset_bias", shape=(count,), initializer="zeros")

    def offsets(self, inputs: Any) -> tuple[Any, Any]:
        """The offsets in pixels that the layer computes from its input, and the mask or None; shapes as above.

        Raises:
            ValueError: the layer was built to be given them.
        """
        if not self.built:
            self.build(inputs.shape)
        if not self.own_offsets:
            raise ValueError(f"{self.name} is given its offsets and computes none")
        inputs = ops.cast(ops.convert_to_tensor(inputs), self.compute_dtype)
        kernel, bias = (self._slowed(ops.cast(w, self.compute_dtype)) for w in (self.offset_kernel, self.offset_bias))
        last = self.data_format == "channels_last"
        axes = (1, 2) if last else (2, 3)
        pads = pads_of(self.padding, self.kernel_size, self.strides, self.dilation_rate,
                       tuple(inputs.shape[a] for a in axes))  # fmt: skip
        mode = "valid"
        if pads is None:
            mode = "same"
        elif any(map(any, pads)):
            zeros = ((0, 0), *pads, (0, 0)) if last else ((0, 0), (0, 0), *pads)
            inputs = ops.pad(inputs, zeros)
        y = ops.conv(inputs, kernel, self.strides, mode, self.data_format, self.dilation_rate)
        # Not ops.add, which takes a vector of any axis for a bias and adds it along the last axis that it fits.
        y = y + (bias if last else ops.reshape(bias, (1, -1, 1, 1)))
        if not self.modulated:
            return y, None
        cut = 2 * self._taps
        moves, logits = (y[..., :cut], y[..., cut:]) if last else (y[:, :cut], y[:, cut:])
        return moves, ops.sigmoid(logits)

    def _slowed(self, weight: Any) -> Any:
        if self.offset_rate == 1:
            return weight
        return ops.add(self.offset_rate * weight, ops.stop_gradient((1 - self.offset_rate) * weight))

    def call(self, inputs: Any) -> Any:
        if isinstance(inputs, list | tuple):
            x, offsets, *rest = inputs
            mask = rest[0] if rest else None
        else:
            x = inputs
            offsets, mask = self.offsets(x)
        y = deform_conv2d(
            x,
            offsets,
            self.kernel,
            mask,
            self.bias if self.use_bias else None,
            strides=self.strides,
            padding=self.padding,
            dilation_rate=self.dilation_rate,
            groups=self.groups,
            data_format=self.data_format,
        )
        return self.activation(y)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        shape = _shapes(input_shape)[0]
        last = self.data_format == "channels_last"
        size = tuple(shape[1:3] if last else shape[2:4])
        size = output_size(size, self.kernel_size, self.strides, self.dilation_rate, self.padding)
        return (shape[0], *size, self.filters) if last else (shape[0], self.filters, *size)

    def get_config(self) -> dict[str, Any]:
        return {
            **super().get_config(),
            "filters": self.filters,
            "kernel_size": self.kernel_size,
            "strides": self.strides,
            "padding": self.padding,
            "data_format": self.data_format,
            "dilation_rate": self.dilation_rate,
            "groups": self.groups,
            "deformable_groups": self.deformable_groups,
            "modulated": self.modulated,
            "activation": keras.activations.serialize(self.activation),
            "use_bias": self.use_bias,
            "kernel_initializer": keras.initializers.serialize(self.kernel_initializer),
            "bias_initializer": keras.initializers.serialize(self.bias_initializer),
            "kernel_regularizer": keras.regularizers.serialize(self.kernel_regularizer),
            "offset_rate": self.offset_rate,
        }


def _shapes(input_shape: Any) -> list[tuple[int | None, ...]]:
    """Of every tensor the layer is called with."""
    several = isinstance(input_shape[0], list | tuple)
    return [tuple(s) for s in input_shape] if several else [tuple(input_shape)]
