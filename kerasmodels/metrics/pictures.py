"""How close pictures are to the truth: PSNR, SSIM and LPIPS. What is not named is where published numbers differ."""

import abc
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kerasmodels import storage
from kerasmodels.backbones import VGG16
from kerasmodels.errors import WeightsError
from kerasmodels.ops.luma import rgb_to_luma

Channel = Literal["rgb", "studio", "full"]
"""What is compared: all channels as they are, or the luma of RGB in one of `ops.luma.Luma`'s conventions."""


class _PictureMetric(keras.metrics.Mean, abc.ABC):
    """The mean over pictures of a number that each pair of pictures has."""

    @abc.abstractmethod
    def per_picture(self, y_true: Any, y_pred: Any) -> Any:
        """Of each pair: (N, H, W, C), (N, H, W, C) -> (N,)."""

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        super().update_state(self.per_picture(y_true, y_pred), sample_weight)


class _Compared(_PictureMetric):
    def __init__(self, channel: Channel = "studio", border: int = 0, name: str | None = None, **kwargs: Any):
        super().__init__(name=name or type(self).__name__.lower(), **kwargs)
        if channel not in ("rgb", "studio", "full"):
            raise ValueError(f"channel must be 'rgb', 'studio' or 'full'. Received: {channel!r}")
        if not isinstance(border, int) or border < 0:
            raise ValueError(f"border must be an int >= 0. Received: {border!r}")
        self.channel, self.border = channel, border

    def _prepared(self, y_true: Any, y_pred: Any) -> tuple[Any, Any]:
        pair = []
        for x in (ops.convert_to_tensor(y_true), ops.convert_to_tensor(y_pred)):
            if len(x.shape) != 4 or x.shape[-1] not in (1, 3):
                raise ValueError(f"expected pictures (N, H, W, 1 or 3). Received shape: {tuple(x.shape)}")
            x = ops.cast(x, "float32")
            if self.channel != "rgb" and x.shape[-1] == 3:
                x = rgb_to_luma(x, self.channel)
            if self.border:
                x = x[:, self.border : -self.border, self.border : -self.border, :]
            pair.append(x)
        if tuple(pair[0].shape[1:]) != tuple(pair[1].shape[1:]) or 0 in pair[0].shape[1:]:
            raise ValueError(
                f"expected pictures of one size, larger than {2 * self.border} pixels. "
                f"Received: {tuple(y_true.shape)} and {tuple(y_pred.shape)}, border={self.border}"
            )
        return pair[0], pair[1]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "channel": self.channel, "border": self.border}


@keras.saving.register_keras_serializable("kerasmodels")
class PSNR(_Compared):
    """Peak signal-to-noise ratio, dB, of pictures of 0-255: 10 log10(255^2 / mean squared error), mean over pictures.

    Args:
        channel: "studio", the luma of BT.601 as MATLAB's `rgb2ycbcr` has it (16-235), which papers of super-resolution
            mean by "Y"; "full", the luma of 0-255 that JPEG, OpenCV and Pillow have (lower by 1.3 dB for the same
            picture); "rgb", all three. Pictures of one channel are compared as they are.
        border: pixels on every side that do not count; by custom the scale.

    Shapes:
        y_true, y_pred (N, H, W, 1 or 3), 0-255 -> a scalar; `per_picture` gives (N,). Of equal pictures it is 100.

    Raises:
        ValueError: an unknown channel, or pictures of other shapes, of two sizes, or smaller than the border.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> psnr = km.metrics.PSNR("rgb")
        >>> psnr.update_state(np.full((1, 8, 8, 3), 100), np.full((1, 8, 8, 3), 101))
        >>> round(float(psnr.result()), 2)  # 20 log10(255)
        48.13
    """

    def per_picture(self, y_true: Any, y_pred: Any) -> Any:
        truth, guess = self._prepared(y_true, y_pred)
        error = ops.mean(ops.square(ops.subtract(truth, guess)), axis=(1, 2, 3))
        return 10.0 * ops.log10(255.0**2 / ops.maximum(error, 255.0**2 * 1e-10))


@keras.saving.register_keras_serializable("kerasmodels")
class SSIM(_Compared):
    """Structural similarity of pictures of 0-255, in a Gaussian window of 11 x 11 pixels; mean over pictures.

    Args:
        channel, border: see `PSNR`. Of several channels it is the mean.

    Shapes:
        y_true, y_pred (N, H, W, 1 or 3), 0-255, at least 11 pixels a side within the border -> a scalar, at most 1.

    Raises:
        ValueError: see `PSNR`, or pictures smaller than the window.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> picture = np.random.default_rng(0).uniform(0, 255, (1, 32, 32, 3))
        >>> ssim = km.metrics.SSIM("rgb")
        >>> ssim.update_state(picture, picture), round(float(ssim.result()), 4)
        (None, 1.0)

    Reference:
        Wang, Bovik, Sheikh, Simoncelli: Image Quality Assessment, IEEE Transactions on Image Processing, 2004
        (sigma 1.5, K1 0.01, K2 0.03).
    """

    def per_picture(self, y_true: Any, y_pred: Any) -> Any:
        truth, guess = self._prepared(y_true, y_pred)
        if min(truth.shape[1:3]) < _WINDOW:
            raise ValueError(f"expected at least {_WINDOW} pixels a side. Received: {tuple(truth.shape)}")
        mean, other = _blurred(truth), _blurred(guess)
        variance = _blurred(ops.square(truth)) - ops.square(mean)
        other_variance = _blurred(ops.square(guess)) - ops.square(other)
        covariance = _blurred(truth * guess) - mean * other
        c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
        top = (2 * mean * other + c1) * (2 * covariance + c2)
        bottom = (ops.square(mean) + ops.square(other) + c1) * (variance + other_variance + c2)
        return ops.mean(top / bottom, axis=(1, 2, 3))


_WINDOW = 11


def _blurred(x: Any) -> Any:
    at = np.arange(_WINDOW) - _WINDOW // 2
    weights = np.exp(-(at**2) / (2 * 1.5**2))
    weights /= weights.sum()
    for axis in (1, 2):
        parts = []
        for i, weight in enumerate(weights):
            span = [slice(None)] * 4
            span[axis] = slice(i, x.shape[axis] - _WINDOW + 1 + i)
            parts.append(float(weight) * x[tuple(span)])
        x = sum(parts[1:], parts[0])
    return x


_TAPS = ("relu1_2", "relu2_2", "relu3_3", "relu4_3", "relu5_3")


class LPIPS(_PictureMetric):
    """Learned perceptual distance of pictures, by VGG16 and linear weights of its channels; mean over pictures.

    Args:
        weights: an .npz with VGG16's convolutions (torchvision's, keys block1_conv1_kernel ...) and the heads
            lpips_lin0 to lpips_lin4, (64,), (128,), (256,), (512,), (512,), of version 0.1.

    Shapes:
        y_true, y_pred (N, H, W, 3), RGB 0-255, at least 16 pixels a side -> a scalar; 0 for equal pictures, and
        the less the more alike.

    Raises:
        WeightsError: the file has no such heads, or see `backbones.VGG16`.

    Reference:
        Zhang, Isola, Efros, Shechtman, Wang: The Unreasonable Effectiveness of Deep Features, CVPR 2018.
    """

    def __init__(self, weights: str | Path, name: str = "lpips", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        try:
            arrays = storage.load_npz(weights)
            self._heads = [np.ravel(arrays[f"lpips_lin{i}"]).astype("float32") for i in range(len(_TAPS))]
        except (OSError, ValueError, KeyError) as error:
            raise WeightsError(
                f"expected an .npz with VGG16's weights and lpips_lin0 to lpips_lin4. Received: {weights} ({error})."
            ) from error
        vgg = VGG16(_TAPS, weights=weights)
        self._vgg = lambda pictures: vgg(pictures)  # Keras would otherwise keep its weights with every metric

    def per_picture(self, y_true: Any, y_pred: Any) -> Any:
        mine, theirs = (self._vgg(ops.cast(ops.convert_to_tensor(x), "float32")) for x in (y_true, y_pred))
        total = 0.0
        for tap, head in zip(_TAPS, self._heads, strict=True):
            difference = ops.square(_unit(mine[tap]) - _unit(theirs[tap]))
            total = total + ops.mean(ops.sum(difference * head, axis=-1), axis=(1, 2))
        return total


def _unit(features: Any) -> Any:
    return features / (ops.sqrt(ops.sum(ops.square(features), axis=-1, keepdims=True)) + 1e-10)
