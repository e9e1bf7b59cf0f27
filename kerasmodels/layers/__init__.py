"""Reusable `keras.layers.Layer`s. Those written in `keras.ops` also run on the JAX and torch backends."""

from kerasmodels.layers.local_affine import LocalAffineSmoothing
from kerasmodels.layers.normalization import InstanceNormalization
from kerasmodels.layers.padding import ReflectionPadding2D
from kerasmodels.layers.picture import Picture
from kerasmodels.layers.residual import ResidualBlock
from kerasmodels.layers.resize import Resize2D

__all__ = [
    "InstanceNormalization",
    "LocalAffineSmoothing",
    "Picture",
    "ReflectionPadding2D",
    "ResidualBlock",
    "Resize2D",
]
