"""The objective of neural style with its gradient, in operators that every export format has.

Equal to `losses.Content`, `losses.GramStyle` and `losses.total_variation` for one picture, one painting and no masks;
the gradient is written out as `backbones.portable` explains.
"""

from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from kerasmodels.backbones.portable import PortableVGG


class PortableStyle:
    """How far a picture is from a content and a style, and in which direction.

    Args:
        vgg: a network of `backbones` in float32, with all taps named below.
        content_weights, style_weights: tap -> weight.
        total_variation_weight: of the total variation divided by the number of values.
        formulation: "course", a quarter of the mean square of content differences; "gatys", half the sum; "relative",
            both terms as parts of their targets' own size. The style term is E_l in the first two.

    Reference:
        Gatys et al. 2016, equations 1 to 6.
    """

    def __init__(
        self,
        vgg: keras.Model,
        content_weights: Mapping[str, float],
        style_weights: Mapping[str, float],
        total_variation_weight: float = 0.0,
        formulation: str = "course",
    ):
        self._vgg = PortableVGG(vgg)
        self.content_weights, self.style_weights = dict(content_weights), dict(style_weights)
        self.total_variation_weight, self.formulation = total_variation_weight, formulation

    def prepare(self) -> None:
        """See `PortableVGG.prepare`."""
        self._vgg.prepare()

    def targets(self, content: tf.Tensor, style: tf.Tensor) -> dict[str, tf.Tensor]:
        """Features of the content by tap, and Gram matrices of the painting by "gram/" and tap."""
        seen = self._vgg.taps(self._vgg.forward(content))
        painted = self._vgg.taps(self._vgg.forward(style))
        found = {tap: seen[tap] for tap in self.content_weights}
        return found | {f"gram/{tap}": _gram(painted[tap])[0] for tap in self.style_weights}

    def gradient(self, picture: tf.Tensor, targets: Mapping[str, tf.Tensor]) -> tuple[tf.Tensor, tf.Tensor]:
        """The loss, a scalar, and its gradient with respect to the picture."""
        maps = self._vgg.forward(picture)
        features = self._vgg.taps(maps)
        loss, pull = tf.zeros(()), {}
        for tap, weight in self.content_weights.items():
            difference = features[tap] - targets[tap]
            factor = weight * self._content_factor(targets[tap])
            loss += factor * tf.reduce_sum(difference * difference)
            pull[tap] = 2.0 * factor * difference
        for tap, weight in self.style_weights.items():
            gram, flat = _gram(features[tap])
            difference = gram - targets[f"gram/{tap}"]
            factor = weight * self._style_factor(targets[f"gram/{tap}"])
            loss += factor * tf.reduce_sum(difference * difference)
            # G = F^T F is symmetric, so both factors of F give the same.
            push = tf.matmul(flat, difference) * (4.0 * factor / tf.cast(tf.shape(flat)[0], tf.float32))
            push = tf.reshape(push, tf.shape(features[tap]))
            pull[tap] = pull[tap] + push if tap in pull else push
        slope = self._vgg.backward(maps, pull)
        if self.total_variation_weight:
            variation, rough = _total_variation(picture)
            factor = self.total_variation_weight / tf.cast(tf.size(picture), tf.float32)
            loss, slope = loss + factor * variation, slope + factor * rough
        return loss, slope

    def _content_factor(self, target: tf.Tensor) -> Any:
        """What the sum of squares of content differences is multiplied by."""
        if self.formulation == "gatys":
            return 0.5
        if self.formulation == "course":
            return 0.25 / tf.cast(tf.size(target), tf.float32)
        return 1.0 / tf.maximum(tf.reduce_sum(target * target), 1e-12)

    def _style_factor(self, target: tf.Tensor) -> Any:
        """The same for Gram matrices, which are divided by their positions only."""
        if self.formulation != "relative":
            return 0.25 / float(target.shape[0]) ** 2
        return 1.0 / tf.maximum(tf.reduce_sum(target * target), 1e-12)


def _gram(features: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """(1, h, w, C) -> F^T F / (h w), (C, C), and F, (h w, C)."""
    flat = tf.reshape(features, (-1, features.shape[-1]))
    # Scaled before the product, so that the sum stays within what 16 bits can hold.
    scaled = flat / tf.sqrt(tf.cast(tf.shape(flat)[0], tf.float32))
    return tf.matmul(scaled, scaled, transpose_a=True), flat


def _total_variation(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
    """`losses.total_variation` of one picture, and its gradient."""
    value, gradient = tf.zeros(()), tf.zeros_like(picture)
    for axis in (1, 2):
        size = tf.shape(picture)[axis] - 1
        count = [size if i == axis else -1 for i in range(4)]
        ahead = tf.slice(picture, [int(i == axis) for i in range(4)], count)
        step = ahead - tf.slice(picture, (0, 0, 0, 0), count)
        value += 0.5 * tf.reduce_sum(step * step)
        gradient += tf.pad(step, [(int(i == axis), 0) for i in range(4)])
        gradient -= tf.pad(step, [(0, int(i == axis)) for i in range(4)])
    return value, gradient
