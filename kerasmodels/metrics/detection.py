"""How well boxes are found: mean average precision."""

from collections.abc import Mapping

import numpy as np

from kerasmodels.errors import DataError


class MeanAveragePrecision:
    """Mean over the classes of average precision, over all pictures seen so far.

    All boxes found, best score first, are given to what is there: a box that overlaps a thing of its class enough finds
    it, if no better box has; else it is an error, also if it is the second of the same thing. Average precision is the
    area below the curve of precision over recall, made monotone (PASCAL VOC since 2010). Classes that do not occur do
    not count. Not a `keras.metrics.Metric`: no box may be forgotten before the last is seen.

    Args:
        classes: their number.
        iou: the least intersection over union with which a thing is found.

    Raises:
        ValueError: an option out of range.
        DataError: `update` is given arrays that do not belong together, a box without an area, or a class that there
            is not.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> metric = km.metrics.MeanAveragePrecision(classes=2, iou=0.5)
        >>> metric.update(
        ...     boxes=np.array([[0, 0, 9, 9], [50, 50, 60, 60]]), labels=np.array([1, 1]), scores=np.array([0.8, 0.9]),
        ...     true_boxes=np.array([[0, 0, 10, 10]]), true_labels=np.array([1]),
        ... )
        >>> metric.result()  # found by the second best box: precision 1/2 at recall 1
        0.5

    Reference:
        Everingham et al.: The PASCAL Visual Object Classes Challenge, IJCV 2010, section 4.2, but with all
        points.
    """

    def __init__(self, classes: int, iou: float = 0.5):
        if classes < 1 or not 0 < iou <= 1:
            raise ValueError(f"expected classes >= 1 and 0 < iou <= 1. Received: classes={classes}, iou={iou}")
        self.classes, self.iou = classes, iou
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self._scores: list[list[float]] = [[] for _ in range(self.classes)]
        self._hits: list[list[bool]] = [[] for _ in range(self.classes)]
        self._things = np.zeros(self.classes, int)

    def update(
        self,
        boxes: np.ndarray,
        labels: np.ndarray,
        scores: np.ndarray,
        true_boxes: np.ndarray,
        true_labels: np.ndarray,
        counts: np.ndarray | None = None,
    ) -> None:
        """Add a picture.

        Args:
            boxes, labels, scores: what was found: (D, 4) x1, y1, x2, y2, (D,) 0 to classes - 1, and (D,).
            true_boxes, true_labels: what is there: (T, 4) and (T,).
            counts: None, or (T,): False for a thing that need not be found (VOC's "difficult"); a box that finds it is
                neither right nor wrong.
        """
        boxes, true_boxes = (_boxes(b) for b in (boxes, true_boxes))
        labels, true_labels = (np.asarray(a).astype(int).reshape(-1) for a in (labels, true_labels))
        scores = np.asarray(scores, "float64").reshape(-1)
        counts = np.ones(len(true_labels), bool) if counts is None else np.asarray(counts).astype(bool).reshape(-1)
        sizes = [len(a) for a in (boxes, labels, scores, true_boxes, true_labels, counts)]
        if len(set(sizes[:3])) > 1 or len(set(sizes[3:])) > 1:
            raise DataError(
                "expected as many boxes as labels and scores, and as many true boxes as true labels. "
                f"Received: {sizes[:3]} and {sizes[3:]}."
            )
        known = np.concatenate([labels, true_labels])
        if np.any((known < 0) | (known >= self.classes)) or not np.isfinite(scores).all():
            raise DataError(
                f"expected labels 0 to {self.classes - 1} and finite scores. "
                f"Received: labels {np.unique(known).tolist()}, scores {scores.tolist()}. Drop empty slots first."
            )
        overlap = overlaps(boxes, true_boxes)
        for label in np.unique(known):
            there = np.flatnonzero(true_labels == label)
            self._things[label] += int(counts[there].sum())
            taken = np.zeros(len(true_labels), bool)
            mine = np.flatnonzero(labels == label)
            for box in mine[np.argsort(-scores[mine], kind="stable")]:
                # The thing it overlaps most decides, free or not.
                best = there[np.argmax(overlap[box, there])] if len(there) else None
                hit = best is not None and overlap[box, best] >= self.iou
                if hit and not counts[best]:
                    continue
                self._scores[label].append(float(scores[box]))
                self._hits[label].append(bool(hit and not taken[best]))
                if hit:
                    taken[best] = True

    def per_class(self) -> np.ndarray:
        """Average precision of each class, (classes,) 0-1; NaN for one that does not occur."""
        return np.array([self._average(label) for label in range(self.classes)])

    def result(self) -> float:
        """The mean over the classes that occur; NaN if none does."""
        values = self.per_class()
        return float(np.nanmean(values)) if np.any(np.isfinite(values)) else float("nan")

    def _average(self, label: int) -> float:
        if not self._things[label]:
            return float("nan")
        scores = np.array(self._scores[label])
        order = np.argsort(-scores, kind="stable")
        found = np.cumsum(np.array(self._hits[label], bool)[order])
        # Boxes of equal score come together: which of them is first means nothing.
        last = np.append(scores[order][1:] != scores[order][:-1], True) if len(order) else np.zeros(0, bool)
        recall = found[last] / self._things[label]
        precision = (found / np.arange(1, len(order) + 1))[last]
        highest = np.maximum.accumulate(precision[::-1])[::-1]
        return float(np.sum(np.diff(recall, prepend=0.0) * highest))


def align_detections(expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`found` with its slots in the order of `expected`: pairs of boxes that overlap most, over all.

    Args:
        expected, found: `boxes` (N, D, 4) and further arrays (N, D, ...) of so many slots.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> boxes = np.array([[[0, 0, 9, 9], [5, 5, 8, 8]]], "float32")
        >>> found = {"boxes": boxes[:, ::-1], "scores": np.array([[0.7, 0.6]])}
        >>> km.metrics.align_detections({"boxes": boxes}, found)["scores"].tolist()
        [[0.6, 0.7]]
    """
    from scipy.optimize import linear_sum_assignment

    aligned = {name: array.copy() for name, array in found.items()}
    for picture, (wanted, boxes) in enumerate(zip(expected["boxes"], found["boxes"], strict=True)):
        # Slots left over have boxes without an area, which overlap nothing, not even each other.
        with np.errstate(invalid="ignore"):
            overlap = np.nan_to_num(overlaps(wanted.astype("float64"), boxes.astype("float64")))
        rows, columns = linear_sum_assignment(-overlap)
        for name, array in found.items():
            aligned[name][picture, rows] = array[picture, columns]
    return aligned


def overlaps(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (A, 4) and (B, 4): (A, B)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    both = np.prod(np.maximum(high - low, 0), axis=-1)
    one, two = (np.prod(b[:, 2:] - b[:, :2], axis=-1) for b in (first, second))
    return both / (one[:, None] + two[None] - both)


def _boxes(boxes: np.ndarray) -> np.ndarray:
    boxes = np.asarray(boxes, "float64")
    boxes = boxes.reshape(-1, 4) if boxes.size == 0 else boxes
    if boxes.ndim != 2 or boxes.shape[1] != 4:
        raise DataError(f"expected boxes (D, 4): x1, y1, x2, y2. Received shape: {boxes.shape}.")
    wrong = ~np.isfinite(boxes).all(axis=1) | (boxes[:, 2:] <= boxes[:, :2]).any(axis=1)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise DataError(
            f"expected boxes (x1, y1, x2, y2) with x2 > x1 and y2 > y1. Received: boxes[{row}] = {boxes[row].tolist()}."
        )
    return boxes
