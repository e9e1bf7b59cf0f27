"""Reusable `keras.layers.Layer`s. Those written in `keras.ops` also run on the JAX and torch backends."""

from kerasmodels.layers.atrous import (
    AtrousConvolution1D,
    AtrousConvolution2D,
    AtrousConvolution3D,
    AtrousSpatialPyramidPooling,
)
from kerasmodels.layers.attention import BahdanauAttention, LuongAttention
from kerasmodels.layers.chain_crf import ChainCRF
from kerasmodels.layers.crf import DenseCRF
from kerasmodels.layers.deformable import DeformableConv2D
from kerasmodels.layers.gated_unit import GatedSequence, GatedUnit
from kerasmodels.layers.local_affine import LocalAffineSmoothing
from kerasmodels.layers.maxout import LowRankDense, Maxout
from kerasmodels.layers.memory import NTMCell
from kerasmodels.layers.normalization import InstanceNormalization
from kerasmodels.layers.padding import ReflectionPadding1D, ReflectionPadding2D, ReflectionPadding3D
from kerasmodels.layers.picture import Picture
from kerasmodels.layers.polyphase import PolyphaseConv2D
from kerasmodels.layers.residual import ResidualBlock
from kerasmodels.layers.resize import Resize2D
from kerasmodels.layers.roi_pooling import (
    DeformablePSRoIPooling,
    DeformableRoIPooling,
    PSRoIPooling,
    RoIPooling,
)
from kerasmodels.layers.transposed import DoublingConv2DTranspose
from kerasmodels.layers.vocabulary import Vocabulary

__all__ = [
    "AtrousConvolution1D",
    "AtrousConvolution2D",
    "AtrousConvolution3D",
    "AtrousSpatialPyramidPooling",
    "BahdanauAttention",
    "ChainCRF",
    "DeformableConv2D",
    "DeformablePSRoIPooling",
    "DeformableRoIPooling",
    "DenseCRF",
    "DoublingConv2DTranspose",
    "GatedSequence",
    "GatedUnit",
    "InstanceNormalization",
    "LocalAffineSmoothing",
    "LowRankDense",
    "LuongAttention",
    "Maxout",
    "NTMCell",
    "PSRoIPooling",
    "Picture",
    "PolyphaseConv2D",
    "ReflectionPadding1D",
    "ReflectionPadding2D",
    "ReflectionPadding3D",
    "ResidualBlock",
    "Resize2D",
    "RoIPooling",
    "Vocabulary",
]
