"""Operators that `keras.ops` lacks, written in it; on TensorFlow with kernels and gradients of their own."""

from kerasmodels.ops.deformable import deform_conv2d, traced_as
from kerasmodels.ops.roi_pooling import roi_pool

__all__ = ["deform_conv2d", "roi_pool", "traced_as"]
