"""Pooling of regions of interest, with bins that stay and bins that move."""

from typing import Any

import keras
from keras import ops

from kerasmodels.ops import roi_pool


class _RoIPooling(keras.layers.Layer):
    """What all four have in common."""

    position_sensitive = False

    def __init__(self, size: int = 7, samples: int = 4, scale: float = 1 / 16, **kwargs: Any):
        super().__init__(**kwargs)
        for name, value in (("size", size), ("samples", samples)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(f"{name} must be an int >= 1. Received: {name}={value!r}")
        if not scale > 0:
            raise ValueError(f"scale must be positive. Received: scale={scale!r}")
        self.size = size
        self.samples = samples
        self.scale = scale
        # Coordinates of regions in bfloat16 would be off by pixels; features are cast in `call`.
        self.autocast = False

    def _pool(self, features: Any, rois: Any, offsets: Any = None, gamma: float = 0.1) -> Any:
        return roi_pool(
            ops.cast(features, self.compute_dtype),
            rois,
            offsets,
            size=self.size,
            samples=self.samples,
            scale=self.scale,
            gamma=gamma,
            position_sensitive=self.position_sensitive,
        )

    def _outputs(self, channels: int | None) -> int:
        if channels is None:
            raise ValueError(f"{self.name} needs a known number of channels")
        if not self.position_sensitive:
            return channels
        if channels % self.size**2:
            raise ValueError(f"{self.name} needs a multiple of {self.size**2} channels. Received: {channels}")
        return channels // self.size**2

    def _built_for(self, input_shape: Any, count: int) -> list[tuple[int | None, ...]]:
        shapes = [tuple(s) for s in input_shape] if isinstance(input_shape[0], list | tuple) else [tuple(input_shape)]
        if len(shapes) != count or len(shapes[0]) != 4 or len(shapes[1]) != 2:
            wanted = "[features (N, H, W, C), rois (R, 5)" + (", offset maps]" if count == 3 else "]")
            raise ValueError(f"{self.name} takes {wanted}. Received shapes {shapes}")
        return shapes

    def build(self, input_shape: Any) -> None:
        self._outputs(self._built_for(input_shape, 2)[0][-1])

    def call(self, inputs: Any) -> Any:
        return self._pool(*inputs)

    def compute_output_shape(self, input_shape: Any) -> tuple[int | None, ...]:
        return (input_shape[1][0], self.size, self.size, self._outputs(input_shape[0][-1]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "samples": self.samples, "scale": self.scale}


@keras.saving.register_keras_serializable("kerasmodels")
class RoIPooling(_RoIPooling):
    """Average the features over size x size bins of each region.

    Args:
        size: bins along each side.
        samples: bilinear samples along each side of a bin.
        scale: pixels of the features per pixel of the picture, 1/16 after four strides of 2.

    Shapes:
        [features (N, H, W, C), rois (R, 5)] -> (R, size, size, C). A region is the number of its picture in the batch,
        x1, y1, x2, y2 in pixels of the picture; see `ops.roi_pool`.

    Raises:
        ValueError: an option out of range, or inputs of other shapes.
        DataError: called with known values: a region of no area, outside the picture, or of no picture.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> features, rois = np.ones((2, 6, 8, 5)), np.array([[1, 0, 0, 63, 63], [0, 16, 8, 90, 90]])
        >>> tuple(km.layers.RoIPooling(3)([features, rois]).shape)
        (2, 3, 3, 5)

    Reference:
        Girshick: Fast R-CNN, ICCV 2015, with the mean of equation 5 of Dai et al. 2017 in place of the maximum.
    """


@keras.saving.register_keras_serializable("kerasmodels")
class PSRoIPooling(_RoIPooling):
    """Average over the bins of each region, each bin from channels of its own.

    Args:
        size, samples, scale: as `RoIPooling`.

    Shapes:
        [scores (N, H, W, size^2 outputs), rois (R, 5)] -> (R, size, size, outputs). The channels are `outputs` for each
        bin, row by row. R-FCN's votes are the mean of the result over its two middle axes.

    Raises:
        ValueError, DataError: as `RoIPooling`.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.PSRoIPooling(3)([np.ones((1, 6, 8, 18)), np.array([[0, 0, 0, 63, 63]])]).shape)
        (1, 3, 3, 2)

    Reference:
        Dai, Li, He, Sun: R-FCN, NeurIPS 2016, equation 1.
    """

    position_sensitive = True


@keras.saving.register_keras_serializable("kerasmodels")
class DeformableRoIPooling(_RoIPooling):
    """`RoIPooling` whose bins are moved by offsets that a fully connected layer computes from what it pools.

    The fully connected layer begins at zero, so the layer begins as `RoIPooling`.

    Args:
        size, samples, scale: as `RoIPooling`.
        gamma: unit of the offsets, as a share of the region's height and width.
        offset_rate: factor of the gradient of the fully connected layer's weights; with SGD, of its learning rate.

    Shapes, Raises:
        as `RoIPooling`.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.DeformableRoIPooling(3)([np.ones((1, 6, 8, 5)), np.array([[0, 0, 0, 63, 63]])]).shape)
        (1, 3, 3, 5)

    Reference:
        Dai et al.: Deformable Convolutional Networks, ICCV 2017, section 2.2, equation 5.
    """

    def __init__(
        self,
        size: int = 7,
        samples: int = 4,
        scale: float = 1 / 16,
        gamma: float = 0.1,
        offset_rate: float = 0.01,
        **kwargs: Any,
    ):
        super().__init__(size, samples, scale, **kwargs)
        if offset_rate < 0:
            raise ValueError(f"offset_rate must be >= 0. Received: offset_rate={offset_rate!r}")
        self.gamma = gamma
        self.offset_rate = offset_rate

    def build(self, input_shape: Any) -> None:
        channels = self._outputs(self._built_for(input_shape, 2)[0][-1])
        bins = self.size**2
        self.offset_kernel = self.add_weight(
            name="offset_kernel", shape=(bins * channels, 2 * bins), initializer="zeros"
        )
        self.offset_bias = self.add_weight(name="offset_bias", shape=(2 * bins,), initializer="zeros")

    def call(self, inputs: Any) -> Any:
        features, rois = inputs
        pooled = self._pool(features, rois)
        kernel, bias = (
            ops.cast(self.offset_rate * w + ops.stop_gradient((1 - self.offset_rate) * w), self.compute_dtype)
            for w in (ops.convert_to_tensor(self.offset_kernel), ops.convert_to_tensor(self.offset_bias))
        )
        offsets = ops.add(ops.matmul(ops.reshape(pooled, (-1, kernel.shape[0])), kernel), bias)
        offsets = ops.reshape(offsets, (-1, self.size, self.size, 2))
        return self._pool(features, rois, offsets, self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma, "offset_rate": self.offset_rate}


@keras.saving.register_keras_serializable("kerasmodels")
class DeformablePSRoIPooling(_RoIPooling):
    """`PSRoIPooling` whose bins are moved by offsets that are pooled, position-sensitively, from maps of their own.

    Args:
        size, samples, scale: as `RoIPooling`.
        gamma: unit of the offsets, as a share of the region's height and width.

    Shapes:
        [scores (N, H, W, size^2 outputs), rois (R, 5), offset maps (N, H, W, 2 size^2 classes)]
        -> (R, size, size, outputs). The offset maps come of a 1x1 convolution that begins at zero; `classes` divides
        `outputs`, and each class has bins of its own.

    Raises:
        ValueError, DataError: as `RoIPooling`.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> scores, maps, rois = np.ones((1, 6, 8, 18)), np.zeros((1, 6, 8, 18)), np.array([[0, 0, 0, 63, 63]])
        >>> tuple(km.layers.DeformablePSRoIPooling(3)([scores, rois, maps]).shape)
        (1, 3, 3, 2)

    Reference:
        Dai et al.: Deformable Convolutional Networks, ICCV 2017, section 2.2, equation 6.
    """

    position_sensitive = True

    def __init__(self, size: int = 7, samples: int = 4, scale: float = 1 / 16, gamma: float = 0.1, **kwargs: Any):
        super().__init__(size, samples, scale, **kwargs)
        self.gamma = gamma

    def build(self, input_shape: Any) -> None:
        shapes = self._built_for(input_shape, 3)
        outputs, maps = self._outputs(shapes[0][-1]), self._outputs(shapes[2][-1])
        if maps % 2 or outputs % max(1, maps // 2):
            raise ValueError(
                f"offset maps of {self.name} must have 2 x {self.size**2} x classes channels, classes dividing the "
                f"{outputs} outputs. Received: {shapes[2][-1]}"
            )

    def offsets(self, inputs: Any) -> Any:
        """(R, size, size, 2 classes): down and to the right, in units of gamma times the region's height and width."""
        _, rois, maps = inputs
        return self._pool(maps, rois)

    def call(self, inputs: Any) -> Any:
        scores, rois, _ = inputs
        return self._pool(scores, rois, self.offsets(inputs), self.gamma)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "gamma": self.gamma}
