"""Boxes: how much they overlap, as offsets from other boxes, and the best of those that overlap.

A box is (x1, y1, x2, y2), the positions of its edges in pixels: the one around the whole of a picture of width W and
height H is (0, 0, W, H).
"""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmodels.ops.bilinear import shape_of

LARGEST = float(np.log(1000 / 16))
"""Logarithm of the factor by which a box can grow: no infinities (R-FCN's code)."""


def box_iou(first: Any, second: Any) -> Any:
    """Intersection over union of every box with every other.

    Args:
        first: (N, A, 4).
        second: (N, B, 4), or (1, B, 4).

    Returns:
        (N, A, B), 0-1; 0 for boxes without an area.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> a, b = np.array([[[0.0, 0, 2, 2]]]), np.array([[[1.0, 0, 3, 2], [5, 5, 6, 6]]])
        >>> [round(float(v), 3) for v in km.ops.box_iou(a, b)[0, 0]]
        [0.333, 0.0]
    """
    one, two = (ops.cast(ops.convert_to_tensor(b), "float32") for b in (first, second))
    # Rank 3 throughout: a side of all pairs at a time.
    x1, y1, x2, y2 = (ops.expand_dims(one[:, :, k], 2) for k in range(4))
    u1, v1, u2, v2 = (ops.expand_dims(two[:, :, k], 1) for k in range(4))
    wide = ops.maximum(ops.subtract(ops.minimum(x2, u2), ops.maximum(x1, u1)), 0.0)
    high = ops.maximum(ops.subtract(ops.minimum(y2, v2), ops.maximum(y1, v1)), 0.0)
    both = ops.multiply(wide, high)
    sizes = [
        ops.multiply(ops.maximum(right - left, 0.0), ops.maximum(bottom - top, 0.0))
        for left, top, right, bottom in ((x1, y1, x2, y2), (u1, v1, u2, v2))
    ]
    union = sizes[0] + sizes[1] - both
    return ops.divide(both, ops.maximum(union, 1e-6))


def encode_boxes(boxes: Any, anchors: Any) -> Any:
    """Boxes as offsets from anchors: of the middle, in the anchor's sides, and the logarithms of the sides' ratios.

    Args:
        boxes, anchors: (..., 4), of the same shape or of shapes that go together. Sides are at least a pixel here.

    Returns:
        (..., 4): dx, dy, log of the width's ratio, log of the height's.

    Reference:
        Girshick et al.: Rich Feature Hierarchies for Accurate Object Detection, CVPR 2014, appendix C.
    """
    (x, y, w, h), (ax, ay, aw, ah) = (_middles(b) for b in (boxes, anchors))
    return ops.stack([(x - ax) / aw, (y - ay) / ah, ops.log(w / aw), ops.log(h / ah)], axis=-1)


def decode_boxes(offsets: Any, anchors: Any) -> Any:
    """The boxes that `encode_boxes` made these offsets (..., 4) from; a box is at most 62.5 times its anchor.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> box, anchor = np.array([[3.0, 4, 9, 20]]), np.array([[0.0, 0, 10, 10]])
        >>> np.round(np.asarray(km.ops.decode_boxes(km.ops.encode_boxes(box, anchor), anchor)), 3).tolist()
        [[3.0, 4.0, 9.0, 20.0]]
    """
    offsets = ops.cast(offsets, "float32")
    x, y, w, h = _middles(anchors)
    dx, dy, dw, dh = (offsets[..., k] for k in range(4))
    x, y = dx * w + x, dy * h + y
    w, h = (ops.multiply(ops.exp(ops.minimum(d, LARGEST)), side * 0.5) for d, side in ((dw, w), (dh, h)))
    return ops.stack([x - w, y - h, x + w, y + h], axis=-1)


def _middles(boxes: Any) -> tuple[Any, Any, Any, Any]:
    boxes = ops.cast(ops.convert_to_tensor(boxes), "float32")
    x1, y1, x2, y2 = (boxes[..., k] for k in range(4))
    return (x1 + x2) * 0.5, (y1 + y2) * 0.5, ops.maximum(x2 - x1, 1.0), ops.maximum(y2 - y1, 1.0)


def clip_boxes(boxes: Any, height: Any, width: Any) -> Any:
    """Boxes (..., 4) inside the picture; those outside it or without an area become a pixel of its border."""
    height, width = (ops.cast(side, "float32") for side in (height, width))
    x1, y1, x2, y2 = (boxes[..., k] for k in range(4))
    x1, y1 = (ops.minimum(ops.maximum(low, 0.0), side - 1.0) for low, side in ((x1, width), (y1, height)))
    x2 = ops.maximum(ops.minimum(x2, width), x1 + 1.0)
    y2 = ops.maximum(ops.minimum(y2, height), y1 + 1.0)
    return ops.stack([x1, y1, x2, y2], axis=-1)


def rows_of(values: Any, index: Any) -> Any:
    """The rows of each example: values (N, M, C) and index (N, K), 0 to M - 1 -> (N, K, C)."""
    n, m, channels = shape_of(values)
    _, k = shape_of(index)
    # Not ops.add, here and below: it takes (N, 1) for a bias where N is the number of columns (Keras 3.15).
    flat = ops.cast(index, "int32") + ops.expand_dims(ops.arange(n, dtype="int32") * m, 1)
    flat = ops.reshape(flat, (-1,))
    values = ops.reshape(values, (-1, channels))
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # ops.take would add operators for negative indices, of which there are none.
        found = tf.gather(values, flat)
    else:
        found = ops.take(values, flat, axis=0)
    return ops.reshape(found, (-1, k, channels))


def non_max_suppression(
    boxes: Any, scores: Any, iou: float, count: int, *, classes: Any = None, least: float = 0.0, rounds: int = 12
) -> tuple[Any, Any]:
    """The boxes of high score that do not overlap one of higher score.

    Greedy suppression, box after box, is a loop of unknown length, and the operators for it differ between runtimes.
    Here all boxes are judged at once in each round: kept is what no box kept in the round before suppresses. After
    round r this is the greedy answer for every box that hangs on a chain of at most r suppressions; the default is
    more than occurs among boxes of a picture. What comes is of fixed size.

    Args:
        boxes: (N, M, 4), M known.
        scores: (N, M); among equal ones the first is the higher.
        iou: a box suppresses those of lower score that it overlaps by more than this.
        count: how many to return; the first of all, if fewer are kept than that.
        classes: None, or (N, M): only boxes of the same class suppress each other.
        least: boxes of a score not above this are not kept.
        rounds: see above.

    Returns:
        index (N, count) int32, best first, and kept (N, count) float32, 1 or 0: the ones come first.

    Raises:
        ValueError: more boxes wanted than there are, or an option out of range.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> boxes = np.array([[[0.0, 0, 9, 9], [0, 0, 9, 10], [20, 20, 30, 30]]])
        >>> index, kept = km.ops.non_max_suppression(boxes, np.array([[0.5, 0.9, 0.3]]), iou=0.5, count=3)
        >>> np.asarray(index)[0, :2].tolist(), np.asarray(kept)[0].tolist()
        ([1, 2], [1.0, 1.0, 0.0])

    Reference:
        Zheng et al.: Enhancing Geometric Factors in Model Learning and Inference for Object Detection, 2020, section
        3.3 (Cluster-NMS), where it is proven equal to greedy suppression.
    """
    boxes, scores = (ops.cast(ops.convert_to_tensor(a), "float32") for a in (boxes, scores))
    total = boxes.shape[1]
    if total is None or not 1 <= count <= total:
        raise ValueError(f"count must be 1 to the number of boxes, {total}. Received: count={count}")
    if not 0 <= iou <= 1 or rounds < 1:
        raise ValueError(f"iou must be 0 to 1, rounds >= 1. Received: iou={iou!r}, rounds={rounds!r}")
    scores, order = ops.top_k(scores, total)
    order = ops.cast(order, "int32")
    ranked = rows_of(boxes, order)
    before = ops.convert_to_tensor(np.triu(np.ones((1, total, total), "float32"), 1))  # [i, j]: i is the better one
    suppresses = ops.multiply(ops.cast(ops.greater(box_iou(ranked, ranked), iou), "float32"), before)
    if classes is not None:
        own = rows_of(ops.expand_dims(ops.cast(ops.convert_to_tensor(classes), "float32"), 2), order)
        same = ops.equal(own, ops.transpose(own, (0, 2, 1)))
        suppresses = ops.multiply(suppresses, ops.cast(same, "float32"))
    counts = ops.cast(ops.greater(ops.expand_dims(scores, 1), least), "float32")
    kept = counts
    for _ in range(min(rounds, total)):
        struck = ops.minimum(ops.matmul(kept, suppresses), 1.0)
        kept = ops.multiply(counts, ops.subtract(1.0, struck))
    kept = ops.reshape(kept, (-1, total))
    # The kept ones first, each part in its order: no two of these are equal.
    place = ops.convert_to_tensor(np.arange(total, 0, -1, dtype="float32")[None])
    ranks, first = ops.top_k(place + kept * float(total), count)
    index = rows_of(ops.expand_dims(order, 2), ops.cast(first, "int32"))
    return ops.reshape(index, (-1, count)), ops.cast(ops.greater(ranks, total + 0.5), "float32")
