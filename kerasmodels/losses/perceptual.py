"""Perceptual losses: distances between what a pretrained network sees in two pictures.

A backbone is any callable from pictures (N, H, W, 3), RGB 0-255, to a dict tap name -> features (N, h, w, c), such as
`kerasmodels.backbones.VGG16(taps=...)`. Every loss runs it once for all its taps. Features are compared in float32, so
the backbone itself may compute in bfloat16.

Nothing here is about two dimensions: with a backbone of 1-D or 3-D convolutions, `picture` below stands for a signal
(L, C) or a volume (D, H, W, C), and a mask for one weight per position of it.

The backbone is not saved with a model that was compiled with one of these losses: load such a model with
`keras.models.load_model(path, compile=False)`.
"""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmodels.losses.total_variation import total_variation

Backbone = Callable[[Any], Mapping[str, Any]]


def gram_matrix(features: Any, mask: Any = None) -> Any:
    """Inner products between the channels of a feature map, over its positions.

    Args:
        features: (N, positions..., C), any number of positional axes.
        mask: (N, positions...) or broadcastable, weights 0-1 of the positions; None for all.

    Returns:
        (N, C, C): sum over positions of mask^2 f f^T, divided by C times the number of positions (the sum of the mask
        if there is one), as in Johnson et al. 2016, equation 3.
    """
    channels = features.shape[-1]
    flat = ops.cast(ops.reshape(features, (ops.shape(features)[0], -1, channels)), "float32")
    if mask is None:
        count = ops.cast(ops.shape(flat)[1], "float32")
    else:
        weight = ops.cast(ops.broadcast_to(mask, ops.shape(features)[:-1]), "float32")
        weight = ops.reshape(weight, (ops.shape(flat)[0], -1, 1))
        flat = ops.multiply(flat, weight)
        # A region that does not occur has a Gram matrix of zero, not of 0 / 0.
        count = ops.reshape(ops.maximum(ops.sum(weight, axis=(1, 2)), 1.0), (-1, 1, 1))
    return ops.divide(ops.matmul(ops.transpose(flat, (0, 2, 1)), flat), count * channels)


def content_distance(features: Any, target: Any) -> Any:
    """Mean squared difference of two feature maps, per example: (N, ..., C), (N, ..., C) -> (N,)."""
    difference = ops.subtract(ops.cast(features, "float32"), ops.cast(target, "float32"))
    return ops.mean(ops.square(difference), axis=tuple(range(1, len(features.shape))))


def style_distance(gram: Any, target: Any) -> Any:
    """Mean squared difference of two Gram matrices, per example: (N, C, C), (N or 1, C, C) -> (N,).

    The mean over C^2 is the released code's; the paper writes the squared Frobenius norm, its sum.
    """
    return ops.mean(ops.square(ops.subtract(gram, target)), axis=(1, 2))


class Content(keras.losses.Loss):
    """Feature reconstruction: `content_distance` between what the backbone sees in `y_pred` and in `y_true`.

    Args:
        backbone: see the module.
        weights: tap -> weight; None for 1 for each tap of the backbone.

    Shapes:
        y_true, y_pred (N, H, W, 3), RGB 0-255 -> (N,) before reduction.

    Raises:
        ValueError: a weight for a tap the backbone does not have.

    Reference:
        Johnson et al. 2016, equation 2.
    """

    def __init__(
        self, backbone: Backbone, weights: Mapping[str, float] | None = None, name: str = "content", **kwargs: Any
    ):
        super().__init__(name=name, **kwargs)
        self._backbone = _hidden(backbone)
        self.weights = _tap_weights(backbone, weights)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.from_features(self._backbone()(y_true), self._backbone()(y_pred))

    def from_features(self, target: Mapping[str, Any], features: Mapping[str, Any]) -> Any:
        """The same from features already at hand: dicts tap -> (N, h, w, c)."""
        return sum(w * content_distance(features[tap], target[tap]) for tap, w in self.weights.items())


class GramStyle(keras.losses.Loss):
    """Style reconstruction: `style_distance` to the Gram matrices of a style picture. `y_true` is not looked at.

    The targets are computed once, here.

    Args:
        backbone: see the module.
        style_image: (H, W, 3) or (1, H, W, 3), RGB 0-255; its size sets the size of the brush strokes. For backbones of
            signals or volumes, one of these, with or without the leading 1.
        weights: tap -> weight; None for 1 for each tap of the backbone.
        style_mask: (H, W), 0-1: the region of the style picture to learn from; None for all.
        mask: (h, w), 0-1: the region of `y_pred` that gets the style; None for all. Masks are shrunk to each tap's size
            by area averaging.

    Shapes:
        y_pred (N, H, W, 3), RGB 0-255 -> (N,) before reduction.

    Raises:
        ValueError: the style picture or a mask is not of that shape, or a weight names a tap the backbone lacks.

    Reference:
        Gatys et al. 2016; Johnson et al. 2016, equations 3 and 4.
    """

    def __init__(
        self,
        backbone: Backbone,
        style_image: Any,
        weights: Mapping[str, float] | None = None,
        style_mask: Any = None,
        mask: Any = None,
        name: str = "style",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self._backbone = _hidden(backbone)
        self.weights = _tap_weights(backbone, weights)
        style = _one_example(backbone, np.asarray(style_image, "float32"))
        self.mask = None if mask is None else _checked_mask(mask, style.ndim - 2)
        style_mask = None if style_mask is None else _checked_mask(style_mask, style.ndim - 2)
        features = backbone(style)
        self.targets = {
            tap: ops.stop_gradient(gram_matrix(features[tap], _mask_for(style_mask, features[tap])))
            for tap in self.weights
        }

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return self.from_features(self._backbone()(y_pred))

    def from_features(self, features: Mapping[str, Any]) -> Any:
        """The same from features already at hand: dict tap -> (N, h, w, c)."""
        return sum(
            weight * style_distance(gram_matrix(features[tap], _mask_for(self.mask, features[tap])), self.targets[tap])
            for tap, weight in self.weights.items()
        )


class Perceptual(keras.losses.Loss):
    """A weighted sum of content, style and total variation, the backbone run once per picture.

    Args:
        backbone: see the module; it must have all taps named below.
        style_image: (H, W, 3), RGB 0-255, or None for no style (super-resolution).
        content: tap -> weight.
        style: tap -> weight.
        total_variation_weight: factor of `losses.total_variation`.

    Shapes:
        y_true (N, H, W, 3): the content picture; y_pred: the same shape. Both RGB 0-255 -> (N,) before reduction.

    Raises:
        ValueError: no term at all, style weights without a style picture or the reverse, or see `Content` and
            `GramStyle`.

    Example: `net.compile("adam", loss=Perceptual(VGG16(taps=["relu2_2", "relu3_3"]), painting, content={"relu3_3": 1},
    style={"relu2_2": 5, "relu3_3": 5}))`, then `net.fit` on pairs (photo, photo).

    Reference:
        Johnson et al. 2016, section 3.
    """

    def __init__(
        self,
        backbone: Backbone,
        style_image: Any = None,
        content: Mapping[str, float] | None = None,
        style: Mapping[str, float] | None = None,
        total_variation_weight: float = 0.0,
        name: str = "perceptual",
        **kwargs: Any,
    ):
        super().__init__(name=name, **kwargs)
        self._backbone = _hidden(backbone)
        self.content = Content(backbone, content) if content else None
        if bool(style) != (style_image is not None):
            raise ValueError("style weights and style_image go together: give both or neither.")
        if not (content or style or total_variation_weight):
            raise ValueError("no term to sum: give content, style or total_variation_weight.")
        self.style = GramStyle(backbone, style_image, style) if style else None
        self.total_variation_weight = float(total_variation_weight)

    def target(self, y_true: Any) -> dict[str, Any]:
        """What `terms` must know of the content picture: tap -> features. Compute it once where the picture stays."""
        if self.content is None:
            return {}
        features = self._backbone()(y_true)
        return {tap: ops.stop_gradient(features[tap]) for tap in self.content.weights}

    def terms(self, y_true: Any, y_pred: Any) -> dict[str, Any]:
        """Each weighted term per example, name -> (N,); their sum is the loss. `y_true` may be its `target` instead."""
        features = self._backbone()(y_pred)
        found = {}
        if self.content is not None:
            target = y_true if isinstance(y_true, Mapping) else self.target(y_true)
            found["content"] = self.content.from_features(target, features)
        if self.style is not None:
            found["style"] = self.style.from_features(features)
        if self.total_variation_weight:
            found["total_variation"] = self.total_variation_weight * total_variation(y_pred)
        return found

    def call(self, y_true: Any, y_pred: Any) -> Any:
        return sum(self.terms(y_true, y_pred).values())


def _hidden(backbone: Backbone) -> Callable[[], Backbone]:
    """The backbone behind a function: Keras would otherwise save its weights with every model that has the loss."""
    return lambda: backbone


def _tap_weights(backbone: Backbone, weights: Mapping[str, float] | None) -> dict[str, float]:
    outputs = getattr(backbone, "output", None)
    taps = list(outputs) if isinstance(outputs, Mapping) else None
    if weights is None:
        if taps is None:
            raise ValueError("weights must be given, tap -> weight, as the backbone does not tell its taps.")
        return dict.fromkeys(taps, 1.0)
    for tap in weights:
        if taps is not None and tap not in taps:
            raise ValueError(f"the backbone has no tap {tap!r}. It has: {', '.join(taps)}")
    return {tap: float(w) for tap, w in weights.items()}


def _one_example(backbone: Backbone, style: np.ndarray) -> np.ndarray:
    """`style` as a batch of one, (1, positions..., C), checked against what the backbone takes if it tells."""
    takes = getattr(getattr(backbone, "input", None), "shape", None)
    rank = len(takes) if takes is not None else style.ndim + (style.ndim > 0 and style.shape[0] != 1)
    one = style[None] if style.ndim == rank - 1 else style
    fits = one.ndim == rank >= 3 and one.shape[0] == 1
    if not (fits and (takes is None or takes[-1] in (None, one.shape[-1]))):
        channels = "C" if takes is None or takes[-1] is None else takes[-1]
        form = {3: f"signal (L, {channels})", 4: f"picture (H, W, {channels})", 5: f"volume (D, H, W, {channels})"}
        if (rank, channels) == (4, 3):
            form[4] = "RGB picture (H, W, 3), values 0-255"
        raise ValueError(f"style_image must be one {form.get(rank, form[4])}. Received shape: {style.shape}")
    return one


def _checked_mask(mask: Any, axes: int) -> np.ndarray:
    mask = np.asarray(mask, "float32")
    if mask.ndim != axes or not (mask.min() >= 0 and mask.max() <= 1):
        form = {1: "(L,)", 2: "(H, W)", 3: "(D, H, W)"}.get(axes, f"of {axes} axes")
        raise ValueError(
            f"a mask must be {form} with values 0-1. Received shape {mask.shape}, values {mask.min()} to {mask.max()}"
        )
    return mask


def _mask_for(mask: np.ndarray | None, features: Any) -> Any:
    """The mask at the features' size, (1, positions...), or None."""
    if mask is None:
        return None
    size = tuple(features.shape[1:-1])
    if None in size:
        raise ValueError("a mask needs pictures of a known size.")
    for axis, length in enumerate(size):
        shrunk = np.tensordot(_area_weights(mask.shape[axis], length), mask, (1, axis))
        mask = np.moveaxis(shrunk, 0, axis)
    return ops.convert_to_tensor(mask[None].astype("float32"))


def _area_weights(source: int, target: int) -> np.ndarray:
    """(target, source) matrix that averages `source` pixels over `target` equal intervals."""
    edges = np.linspace(0, source, target + 1)
    pixels = np.arange(source)
    overlap = np.minimum(edges[1:, None], pixels + 1) - np.maximum(edges[:-1, None], pixels)
    return np.clip(overlap, 0, None) * target / source
