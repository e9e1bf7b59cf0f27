"""The objective of photographic style transfer: the style of a reference, region by region, on what stays a photo."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasmodels.losses.augmented_style import AugmentedStyle
from kerasmodels.losses.matting import MattingLaplacian
from kerasmodels.losses.perceptual import Content
from kerasmodels.losses.total_variation import total_variation


class PhotorealisticObjective:
    """The weighted terms of the loss of a picture: content, style, total_variation and affine.

    Everything that does not depend on the picture is computed here, once.

    Args:
        vgg: a network with the taps that the weights name.
        photo, reference: (H, W, 3), RGB 0-255, each of its own size.
        masks, reference_masks: (K, H, W), 0-1, their regions in one order.
        content_weights, style_weights: tap -> weight.
        total_variation_weight, affine_weight: of the other terms; without an affine weight there is no affine term.

    Reference:
        Luan et al. 2017, equation 4.
    """

    def __init__(
        self,
        vgg: keras.Model,
        photo: np.ndarray,
        reference: np.ndarray,
        masks: np.ndarray,
        reference_masks: np.ndarray,
        *,
        content_weights: Mapping[str, float],
        style_weights: Mapping[str, float],
        total_variation_weight: float = 0.0,
        affine_weight: float = 0.0,
    ):
        self.vgg = vgg
        self.total_variation_weight, self.affine_weight = total_variation_weight, affine_weight
        features = vgg(photo[None].astype("float32"))
        self.target = {tap: ops.stop_gradient(features[tap]) for tap in content_weights}
        self.content = Content(vgg, content_weights)
        self.style = AugmentedStyle(vgg, reference, reference_masks, masks, style_weights)
        self._affine = affine_energy(photo) if affine_weight else None

    def terms(self, picture: Any) -> dict[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> name -> (1,)."""
        features = self.vgg(picture)
        found = {
            "content": self.content.from_features(self.target, features),
            "style": self.style.from_features(features),
            "total_variation": self.total_variation_weight * total_variation(picture),
        }
        if self._affine is not None:
            found["affine"] = self.affine_weight * self._affine(picture)
        return found


def affine_energy(photo: np.ndarray) -> Any:
    """picture (1, H, W, 3) RGB 0-255 -> (1,), its energy under the photo's matting Laplacian, both taken to 0-1.

    Compiled by itself: a hundred small passes over the picture become a few.
    """
    laplacian = MattingLaplacian(photo[None].astype("float32") / 255)

    @tf.function(jit_compile=True, autograph=False)
    def evaluated(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return laplacian.energy(picture / 255), laplacian(picture / 255) * (2 / 255)

    # Traced at once: TensorFlow warns of many functions made at one line, of which each has its own photo.
    traced = evaluated.get_concrete_function(tf.TensorSpec((1, *photo.shape), tf.float32))

    @tf.custom_gradient
    def energy(picture: tf.Tensor) -> Any:
        value, slope = traced(picture)
        return value, lambda upstream: tf.reshape(upstream, (-1, 1, 1, 1)) * slope

    return energy
