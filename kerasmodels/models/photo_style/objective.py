"""What is minimised."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasmodels.losses import AugmentedStyle, MattingLaplacian, content_distance, total_variation
from kerasmodels.models.photo_style.config import Config
from kerasmodels.models.photo_style.pair import Pair, loss_network

_FEATURE_SCALE = 340.0
"""Our estimate of the mean activation of Oxford's VGG19 around conv4_2, from losses that users of the released code
report; in the rescaled network it is about 1. It puts content and style on the scale the paper's lambda is meant for.
"""


class PhotorealisticObjective:
    """The weighted terms of the loss of a picture: content, style, total_variation and affine.

    Args:
        config: weights of the terms and layers of the network.
        pair: what the picture is compared with.
        affine: whether the affine term is there at all; stage 1 goes without.
        vgg: the network with all taps the config names, if there is one already.
    """

    def __init__(self, config: Config, pair: Pair, affine: bool = True, vgg: keras.Model | None = None):
        taps = dict.fromkeys((config.content_layer, *config.style_layers))
        self.config = config
        self.vgg = vgg if vgg is not None else loss_network(config, tuple(taps))
        photo = pair.photo[None].astype("float32")
        self._content = ops.stop_gradient(self.vgg(photo)[config.content_layer])
        self._style = AugmentedStyle(
            self.vgg,
            pair.reference,
            pair.reference_masks,
            pair.masks,
            dict.fromkeys(config.style_layers, config.style_weight * _FEATURE_SCALE**4),
        )
        self._affine = affine_energy(pair.photo) if affine and config.affine_weight else None

    def terms(self, picture: Any) -> dict[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> name -> (1,)."""
        features = self.vgg(picture)
        content = content_distance(features[self.config.content_layer], self._content)
        found = {
            "content": self.config.content_weight * _FEATURE_SCALE**2 * content,
            "style": self._style.from_features(features),
            "total_variation": self.config.tv_weight * total_variation(picture),
        }
        if self._affine is not None:
            found["affine"] = self.config.affine_weight * self._affine(picture)
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
