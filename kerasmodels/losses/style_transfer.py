"""The objective of neural style: a picture with one picture's content in the style of others."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kerasmodels.losses.perceptual import Content, GramStyle, style_distance
from kerasmodels.losses.total_variation import total_variation

Formulation = Literal["course", "gatys", "relative"]


class StyleTransfer:
    """Weighted terms of how far a picture is from the content's content and the paintings' style.

    Everything that does not depend on the picture is computed here, once. `losses.portable.PortableStyle` is the same
    for one painting, in operators that every export format has.

    Args:
        vgg: a network with the taps that the weights name.
        content: (H, W, 3), RGB 0-255.
        styles: the paintings, (h, w, 3), RGB 0-255, each of its own size.
        content_weights, style_weights: tap -> weight.
        total_variation_weight: of the total variation divided by the number of values.
        formulation: the content term per layer is a quarter of the mean square ("course") or half the sum ("gatys") of
            differences; the style term is E_l in both. "relative": both terms as parts of their targets' own size.
        shares: how much each painting counts, divided by their sum; none for all the same.
        masks: one (H, W), 0-1, for each painting: where it is used; or none at all.
        style_masks: one (h, w), 0-1, for each painting: what of it is learned; or none at all.

    Reference:
        Gatys et al. 2016, equations 1 to 7.
    """

    def __init__(
        self,
        vgg: keras.Model,
        content: np.ndarray,
        styles: Sequence[np.ndarray],
        content_weights: Mapping[str, float],
        style_weights: Mapping[str, float],
        total_variation_weight: float = 0.0,
        formulation: Formulation = "course",
        *,
        shares: Sequence[float] = (),
        masks: Sequence[np.ndarray | None] = (),
        style_masks: Sequence[np.ndarray | None] = (),
    ):
        self._vgg = vgg
        self.total_variation_weight = total_variation_weight
        features = vgg(np.asarray(content, "float32")[None])
        self.target = {tap: ops.stop_gradient(features[tap]) for tap in content_weights}
        self.content = Content(
            vgg, {tap: w * _content_factor(formulation, self.target[tap]) for tap, w in content_weights.items()}
        )
        parts = np.asarray(shares or [1.0] * len(styles)) / sum(shares or [len(styles)])
        self.styles = []
        for i, (style, part) in enumerate(zip(styles, parts, strict=True)):
            mask, own = (given[i] if given else None for given in (masks, style_masks))
            loss = GramStyle(vgg, style, style_weights, own, mask)
            loss.weights = {
                tap: float(part * w * _style_factor(formulation, loss.targets[tap])) for tap, w in style_weights.items()
            }
            self.styles.append(loss)

    def terms(self, picture: Any) -> dict[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> the weighted terms, name -> (1,)."""
        features = self._vgg(picture)
        found = {
            "content": self.content.from_features(self.target, features),
            "style": sum(style.from_features(features) for style in self.styles),
        }
        if self.total_variation_weight:
            factor = self.total_variation_weight / float(np.prod(picture.shape[1:]))
            found["total_variation"] = factor * total_variation(picture)
        return found


def _content_factor(formulation: str, target: Any) -> float:
    """What `losses.content_distance`, a mean of squares, is multiplied by."""
    if formulation == "gatys":
        return float(np.prod(target.shape)) / 2
    return 0.25 if formulation == "course" else 1 / _positive(ops.mean(ops.square(ops.cast(target, "float32"))))


def _style_factor(formulation: str, target: Any) -> float:
    """What `losses.style_distance` is multiplied by. C^2 / 4 makes it E_l and J_s, which are the same."""
    channels = target.shape[-1]
    return 1 / _positive(style_distance(0.0, target)[0]) if formulation == "relative" else channels**2 / 4


def _positive(value: Any) -> float:
    return max(float(value), 1e-12)
