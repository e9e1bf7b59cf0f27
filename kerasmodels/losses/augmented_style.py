"""Style by regions: each class of a segmentation takes its look from the same class of the reference.

Without it the sky's colors reach the buildings, because a Gram matrix does not know where in the picture its features
come from.
"""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmodels.losses.perceptual import _area_weights, _hidden, _tap_weights, gram_matrix, style_distance


def masks_at_taps(backbone: keras.Model, masks: Any) -> dict[str, np.ndarray]:
    """Masks of a picture, taken through the network beside the picture.

    Every 3x3 convolution spreads what a pixel sees by one pixel, so it averages the masks over 3x3 pixels (over fewer
    at the border, as nothing is known beyond it); every pooling halves them by area averaging, to the very size of the
    features. Both are averages: masks that sum to 1 everywhere do so at every layer.

    Args:
        backbone: a chain of layers such as `backbones.VGG19`, its outputs a dict of taps.
        masks: (K, H, W), 0-1, one for each class.

    Returns:
        tap -> (K, h, w) float32, the size of the tap's features for a picture of (H, W).

    Raises:
        ValueError: masks of another shape or range.

    Reference:
        Luan et al. 2017, section 3.2; the averaging is that of the released code, which counts pixels beyond the border
        as 0.
    """
    masks = np.asarray(masks, "float32")
    if masks.ndim != 3 or not masks.size or not (masks.min() >= 0 and masks.max() <= 1.0001):
        raise ValueError(f"expected masks (K, H, W) with values 0-1. Received shape: {masks.shape}.")
    taps = {id(output): tap for tap, output in backbone.output.items()}
    found: dict[str, np.ndarray] = {}
    for layer in backbone.layers:
        if isinstance(layer, keras.layers.Conv2D):
            masks = _spread(masks, tuple(layer.kernel_size))
        elif isinstance(layer, (keras.layers.MaxPooling2D, keras.layers.AveragePooling2D)):
            masks = _halved(masks, tuple(layer.strides), rounded_up=layer.padding == "same")
        if id(layer.output) in taps:
            found[taps[id(layer.output)]] = masks
    return found


def _spread(masks: np.ndarray, kernel: tuple[int, ...]) -> np.ndarray:
    """The mean over the kernel's window, of those pixels of it that lie in the picture."""
    for axis, width in zip((1, 2), kernel, strict=True):
        size, reach = masks.shape[axis], width // 2
        if not reach:
            continue
        sums = np.concatenate([np.zeros_like(masks.take([0], axis)), np.cumsum(masks, axis, "float64")], axis)
        ends = np.minimum(np.arange(size) + reach + 1, size)
        starts = np.maximum(np.arange(size) - reach, 0)
        shape = [-1 if a == axis else 1 for a in range(3)]
        masks = (sums.take(ends, axis) - sums.take(starts, axis)) / (ends - starts).reshape(shape)
    return np.clip(masks, 0, 1).astype("float32")


def _halved(masks: np.ndarray, strides: tuple[int, ...], rounded_up: bool) -> np.ndarray:
    for axis, stride in zip((1, 2), strides, strict=True):
        size = masks.shape[axis]
        target = -(-size // stride) if rounded_up else size // stride
        masks = np.moveaxis(np.tensordot(_area_weights(size, target), masks, (1, axis)), 0, axis)
    return np.clip(masks, 0, 1).astype("float32")


class AugmentedStyle(keras.losses.Loss):
    """Style reconstruction region by region. `y_true` is not looked at.

    For each class k, with masks m_k taken through the network (`masks_at_taps`) and Gram matrices G_k of the features
    times m_k (`gram_matrix`),

        sum over taps of weight * sum over k of mean(m_k) * style_distance(G_k, G_k of the reference).

    With one class whose masks are 1 everywhere this is `GramStyle`. Classes that the reference does not have would be
    drawn to a Gram matrix of zero, that is to black: there must be none (`data.merge_orphans`). Classes that only the
    reference has have no effect.

    Args:
        backbone: see `masks_at_taps`.
        reference: (H, W, 3) or (1, H, W, 3), RGB 0-255.
        reference_masks: (K, H, W), 0-1.
        masks: (K, h, w), 0-1, of the pictures that get the style, of their size.
        weights: tap -> weight; None for 1 for each tap of the backbone.

    Shapes:
        y_pred (N, h, w, 3), RGB 0-255 -> (N,) before reduction.

    Raises:
        ValueError: shapes that do not fit, a class with no pixel in the reference, an unknown tap.

    Example: `AugmentedStyle(VGG19(["relu1_1", "relu2_1"]), reference, reference_masks, masks)`.

    Reference:
        Luan et al. 2017, equation 3, in the released code's normalization.
    """

    def __init__(
        self,
        backbone: keras.Model,
        reference: Any,
        reference_masks: Any,
        masks: Any,
        weights: Mapping[str, float] | None = None,
        name: str = "augmented_style",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self._backbone: Any = _hidden(backbone)
        self.weights = _tap_weights(backbone, weights)
        picture = np.asarray(reference, "float32")
        picture = picture[None] if picture.ndim == 3 else picture
        there, here = np.asarray(reference_masks, "float32"), np.asarray(masks, "float32")
        if picture.ndim != 4 or picture.shape[0] != 1 or picture.shape[1:3] != there.shape[1:] or picture.shape[3] != 3:
            raise ValueError(
                "expected a reference (H, W, 3) and masks (K, H, W) of its size. "
                f"Received shapes: {np.shape(reference)} and {there.shape}."
            )
        if here.ndim != 3 or len(here) != len(there):
            raise ValueError(f"expected as many masks as the reference has, {len(there)}. Received: {here.shape}.")
        used = here.reshape(len(here), -1).any(1)
        empty = [k for k in np.flatnonzero(used) if not there[k].any()]
        if empty or not used.any():
            raise ValueError(f"every class of the picture must occur in the reference. Received, without it: {empty}.")
        at_taps, there_at_taps = masks_at_taps(backbone, here[used]), masks_at_taps(backbone, there[used])
        features = backbone(picture)
        self.targets: dict[str, list[Any]] = {}
        self._regions: dict[str, list[_Region]] = {}
        for tap in self.weights:
            self._regions[tap] = [_Region(m) for m in at_taps[tap]]
            self.targets[tap] = [ops.stop_gradient(_Region(m).gram(features[tap])) for m in there_at_taps[tap]]

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.from_features(self._backbone()(y_pred))

    def from_features(self, features: Mapping[str, Any]) -> Any:
        """The same from features already at hand: dict tap -> (N, h, w, c)."""
        return sum(
            weight * region.share * style_distance(region.gram(features[tap]), target)
            for tap, weight in self.weights.items()
            for region, target in zip(self._regions[tap], self.targets[tap], strict=True)
        )


class _Region:
    """One class at one tap: the box that holds it, its mask there, and its share of the picture."""

    def __init__(self, mask: np.ndarray):
        rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
        # A class can fade out on the way through the network, if it was a few pixels.
        top, left = (int(x[0]) if len(x) else 0 for x in (rows, columns))
        bottom, right = (int(x[-1]) + 1 if len(x) else 1 for x in (rows, columns))
        self.start, self.size = (top, left), (bottom - top, right - left)
        self.share = float(mask.mean())
        self.mask = ops.convert_to_tensor(mask[None, top:bottom, left:right].astype("float32"))

    def gram(self, features: Any) -> Any:
        """Outside the box all products are 0, so only what is inside is multiplied."""
        batch, channels = ops.shape(features)[0], features.shape[-1]
        inside = ops.slice(features, (0, *self.start, 0), (batch, *self.size, channels))
        return gram_matrix(inside, self.mask)
