"""How well label maps agree: mean intersection over union, everywhere or near the borders of things."""

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class SegmentationIoU(keras.metrics.Metric):
    """Mean over the classes of intersection over union, over all pixels seen so far; pixels to ignore do not count.

    Keras' own `MeanIoU(ignore_class=255)` also wants 256 classes' worth of labels; here a label to ignore may lie
    outside the classes. Classes that occur neither in truth nor in prediction do not count (PASCAL VOC).

    Args:
        classes: their number.
        ignore: label of pixels that do not count; None: all count.
        from_scores: predictions are scores (N, H, W, classes), of which the largest is meant; else labels (N, H, W).

    Shapes:
        y_true (N, H, W) or (N, H, W, 1) integers, y_pred as `from_scores` says -> a scalar, 0-1.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> iou = km.metrics.SegmentationIoU(3, from_scores=False)
        >>> iou.update_state(np.array([[0, 0, 1, 255]]), np.array([[0, 1, 1, 2]]))
        >>> float(iou.result())  # 1/2 for each of the classes 0 and 1; 2 was never there
        0.5

    Reference:
        Everingham et al.: The PASCAL Visual Object Classes Challenge, IJCV 2015, section 2.
    """

    def __init__(self, classes: int, ignore: int | None = 255, from_scores: bool = True, name: str = "iou", **kw: Any):
        super().__init__(name=name, **kw)
        if classes < 1:
            raise ValueError(f"expected classes >= 1. Received: classes={classes}")
        self.classes, self.ignore, self.from_scores = int(classes), ignore, bool(from_scores)
        # 32 bits would stop counting at 2^24 pixels.
        self.confusion = self.add_weight(
            shape=(classes, classes), initializer="zeros", dtype="float64", name="confusion"
        )

    def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any = None) -> None:
        truth = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        if self.from_scores:
            # Not argmax: Keras' does not export, and this is the first of equals, too.
            y_pred = ops.top_k(y_pred, 1)[1]
        guess = ops.reshape(ops.cast(y_pred, "int32"), (-1,))
        counts = ops.logical_and(truth >= 0, truth < self.classes)
        if self.ignore is not None:
            counts = ops.logical_and(counts, truth != self.ignore)
        counts = ops.cast(ops.logical_and(counts, ops.logical_and(guess >= 0, guess < self.classes)), "int32")
        pairs = ops.where(counts > 0, truth * self.classes + guess, self.classes**2)
        found = ops.bincount(pairs, minlength=self.classes**2 + 1)[: self.classes**2]
        self.confusion.assign_add(ops.cast(ops.reshape(found, (self.classes, self.classes)), "float64"))

    def per_class(self) -> np.ndarray:
        """Intersection over union of each class, (classes,) float64; NaN for one that never occurred."""
        confusion = ops.convert_to_numpy(self.confusion)
        both = np.diag(confusion)
        union = confusion.sum(0) + confusion.sum(1) - both
        return np.divide(both, union, out=np.full(self.classes, np.nan), where=union > 0)

    def result(self) -> Any:
        confusion = ops.convert_to_tensor(self.confusion)
        both = ops.diagonal(confusion)
        union = ops.sum(confusion, axis=0) + ops.sum(confusion, axis=1) - both
        occurs = ops.cast(union > 0, "float64")
        return ops.divide(ops.sum(ops.divide(both, ops.maximum(union, 1.0))), ops.maximum(ops.sum(occurs), 1.0))

    def get_config(self) -> dict[str, Any]:
        own = {"classes": self.classes, "ignore": self.ignore, "from_scores": self.from_scores}
        return {**super().get_config(), **own}


def boundary_band(labels: np.ndarray, width: int = 3, ignore: int = 255) -> np.ndarray:
    """(H, W) bool: pixels at most `width` from a border between two labels (a trimap of the labeling).

    Borders with the label to ignore do not count, and no pixel of that label is in the band.

    >>> boundary_band(np.array([[0, 0, 0, 0, 1, 1, 1]]), width=2)[0].astype(int).tolist()
    [0, 0, 1, 1, 1, 1, 0]

    Reference:
        Kohli, Ladicky, Torr: Robust Higher Order Potentials, IJCV 2009; Kraehenbuehl, Koltun 2011, section 6.1.
    """
    from scipy.ndimage import distance_transform_edt

    known = labels != ignore
    border = np.zeros(labels.shape, bool)
    for axis in (0, 1):
        first, second = (tuple(s if a == axis else slice(None) for a in (0, 1)) for s in (slice(-1), slice(1, None)))
        differs = (labels[first] != labels[second]) & known[first] & known[second]
        border[first] |= differs
        border[second] |= differs
    if not border.any():
        return border
    # A pixel at the border is 0 from it, which is half a pixel: the band has 2 width pixels across.
    return (distance_transform_edt(~border) <= width - 1) & known


def boundary_iou(truth: np.ndarray, guess: np.ndarray, classes: int, width: int = 3, ignore: int = 255) -> float:
    """Mean intersection over union of two label maps (H, W), in the band around the borders of the truth.

    >>> truth = np.array([[0, 0, 0, 0, 1, 1, 1]])
    >>> boundary_iou(truth, np.array([[0, 0, 0, 1, 1, 1, 1]]), classes=2, width=2)  # 1/2 and 2/3
    0.5833333333333333
    """
    measured = SegmentationIoU(classes, ignore, from_scores=False)
    measured.update_state(np.where(boundary_band(truth, width, ignore), truth, ignore), guess)
    return float(measured.result())
