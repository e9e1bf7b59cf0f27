"""What models are judged by."""

from kerasmodels.metrics.segmentation import SegmentationIoU, boundary_band, boundary_iou

__all__ = ["SegmentationIoU", "boundary_band", "boundary_iou"]
