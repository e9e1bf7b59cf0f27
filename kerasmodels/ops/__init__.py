"""Operators that `keras.ops` lacks, written in it; on TensorFlow with kernels and gradients of their own."""

from kerasmodels.ops.beam_search import Hypotheses, beam_search
from kerasmodels.ops.boxes import box_iou, clip_boxes, decode_boxes, encode_boxes, non_max_suppression
from kerasmodels.ops.deformable import deform_conv2d, traced_as
from kerasmodels.ops.imresize import imresize
from kerasmodels.ops.luma import rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb
from kerasmodels.ops.roi_pooling import roi_pool

__all__ = [
    "Hypotheses",
    "beam_search",
    "box_iou",
    "clip_boxes",
    "decode_boxes",
    "deform_conv2d",
    "encode_boxes",
    "imresize",
    "non_max_suppression",
    "rgb_to_luma",
    "rgb_to_ycbcr",
    "roi_pool",
    "traced_as",
    "ycbcr_to_rgb",
]
