"""What models are measured by."""

from kerasmodels.metrics.bits import bits_per_sequence
from kerasmodels.metrics.checkerboard import checkerboard
from kerasmodels.metrics.detection import MeanAveragePrecision, align_detections
from kerasmodels.metrics.mixture import mixture_log_likelihood
from kerasmodels.metrics.pictures import LPIPS, PSNR, SSIM
from kerasmodels.metrics.segmentation import SegmentationIoU, boundary_band, boundary_iou
from kerasmodels.metrics.term import TermMean
from kerasmodels.metrics.wasserstein import covered_modes, wasserstein

__all__ = [
    "LPIPS",
    "PSNR",
    "SSIM",
    "MeanAveragePrecision",
    "SegmentationIoU",
    "TermMean",
    "align_detections",
    "bits_per_sequence",
    "boundary_band",
    "boundary_iou",
    "checkerboard",
    "covered_modes",
    "mixture_log_likelihood",
    "wasserstein",
]
