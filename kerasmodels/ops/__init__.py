"""Operators that `keras.ops` lacks. All run on every Keras backend."""

from kerasmodels.ops.deformable import deform_conv2d, traced_as
from kerasmodels.ops.roi_pooling import roi_pool

__all__ = ["deform_conv2d", "roi_pool", "traced_as"]
