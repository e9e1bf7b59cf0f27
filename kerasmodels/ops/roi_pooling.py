"""Averages over the bins of regions of interest."""

from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmodels.errors import DataError
from kerasmodels.ops import bilinear
from kerasmodels.ops.deformable import form

LEAST = 0.1
"""Height and width that a region has at least, in pixels of the features."""


def roi_pool(
    features: Any,
    rois: Any,
    offsets: Any = None,
    *,
    size: int = 7,
    samples: int = 4,
    scale: float = 1 / 16,
    gamma: float = 0.1,
    position_sensitive: bool = False,
) -> Any:
    """Average the features over size x size bins of each region, moved by offsets if there are any.

    A region reaches from the upper left edge of pixel (x1, y1) to the lower right edge of pixel (x2, y2) of the
    picture. Each bin is the mean of samples x samples bilinear samples at the upper left corners of as many equal parts
    of it. Samples beyond the features' outer pixels' edges are left out; a bin that has none is 0.

    Args:
        features: (N, H, W, C).
        rois: (R, 5): number of the picture in the batch, x1, y1, x2, y2 in the picture's pixels, taken as whole.
        offsets: None, or (R, size, size, 2 classes): by how many times gamma its region's height and width each bin is
            moved down and to the right. With several classes, those of each equal part of the outputs.
        size: bins along each side.
        samples: along each side of a bin.
        scale: pixels of the features per pixel of the picture.
        gamma: unit of the offsets; the paper's is 0.1.
        position_sensitive: the C = size^2 outputs channels are `outputs` for each bin, row by row, and each bin is
            pooled from its own.

    Returns:
        (R, size, size, C), or (R, size, size, outputs) if position-sensitive.

    Raises:
        ValueError: an option out of range, or shapes that do not belong together.
        DataError: a region of no area, outside its picture, or of a picture that is not in the batch. Looked for where
            the values are known, so not while a graph is traced: there, what is outside is 0.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.ops.roi_pool(np.ones((1, 6, 8, 3)), np.array([[0, 16, 16, 95, 79]]), size=2).shape)
        (1, 2, 2, 3)

    Reference:
        Dai et al.: Deformable Convolutional Networks, ICCV 2017, section 2.2, equations 5 and 6; the positions of the
        samples are those of the authors' code.
    """
    for name, value in (("size", size), ("samples", samples)):
        if not isinstance(value, int) or value < 1:
            raise ValueError(f"{name} must be an int >= 1. Received: {name}={value!r}")
    if not scale > 0:
        raise ValueError(f"scale must be positive. Received: scale={scale!r}")
    features = ops.convert_to_tensor(features)
    if keras.backend.standardize_dtype(features.dtype) not in ("float16", "bfloat16", "float32"):
        features = ops.cast(features, "float32")
    if len(features.shape) != 4 or features.shape[-1] is None:
        raise ValueError(f"features must be (N, H, W, C), C known. Received shape {tuple(features.shape)}")
    if len(rois.shape) != 2 or rois.shape[-1] != 5:
        raise ValueError(f"rois must be (R, 5): picture, x1, y1, x2, y2. Received shape {tuple(rois.shape)}")
    bins, channels = size * size, features.shape[-1]
    if position_sensitive and channels % bins:
        raise ValueError(f"position-sensitive features need a multiple of {bins} channels. Received: {channels}")
    outputs = channels // bins if position_sensitive else channels
    classes = 1
    if offsets is not None:
        offsets = ops.cast(ops.convert_to_tensor(offsets), "float32")
        classes, rest = divmod(offsets.shape[-1] or 0, 2)
        wanted = (rois.shape[0], size, size)
        fits = len(offsets.shape) == 4 and all(
            None in (w, got) or w == got for w, got in zip(wanted, offsets.shape[:3], strict=True)
        )
        if not fits or rest or classes < 1 or outputs % classes or (classes > 1 and not position_sensitive):
            raise ValueError(
                f"offsets must be {(*wanted, '2 classes')}, with more than one class only for position-sensitive "
                f"features, whose {outputs} outputs they divide. Received shape {tuple(offsets.shape)}"
            )
    n, height, width, _ = bilinear.shape_of(features)
    _check_rois(rois, n, height, width, scale)
    rois = ops.cast(ops.convert_to_tensor(rois), "float32")

    picture = ops.minimum(ops.maximum(ops.cast(rois[:, 0], "int32"), 0), ops.cast(n, "int32") - 1)
    corners = ops.round(rois[:, 1:])
    begin = ops.stack([corners[:, 1], corners[:, 0]], axis=-1) * scale - 0.5
    end = (ops.stack([corners[:, 3], corners[:, 2]], axis=-1) + 1.0) * scale - 0.5
    extent = ops.maximum(end - begin, LEAST)
    begin, extent = (ops.reshape(a, (-1, 1, 1, 2)) for a in (begin, extent))
    share = ops.convert_to_tensor(_shares(size, samples))
    if offsets is not None:
        moved = ops.reshape(offsets, (-1, bins * classes, 1, 2)) * gamma
        share = ops.add(ops.convert_to_tensor(np.repeat(_shares(size, samples), classes, 1)), moved)
    position = ops.add(begin, ops.multiply(extent, share))

    limit = ops.cast(ops.stack([ops.convert_to_tensor(s, "int32") for s in (height, width)]), "float32")
    counts = ops.logical_and(ops.greater_equal(position, -0.5), ops.less_equal(position, limit - 0.5))
    counts = ops.cast(ops.logical_and(counts[:, :, :, 0], counts[:, :, :, 1]), "float32")
    factors = ops.divide(counts, ops.maximum(ops.sum(counts, axis=2, keepdims=True), 1.0))
    position = ops.minimum(ops.maximum(position, 0.0), limit - 1.0)

    parts = bins * classes if position_sensitive else 1
    places = bins * classes * samples * samples
    part = np.repeat(np.arange(bins * classes), samples * samples) if position_sensitive else np.zeros(places)
    start = ops.add(
        ops.expand_dims(picture * (height * width * parts), -1), ops.convert_to_tensor(part[None].astype("int32"))
    )
    found = bilinear.sample(
        ops.reshape(features, (-1, channels // parts)),
        ops.reshape(position, (-1, 2)),
        ops.reshape(factors, (-1,)),
        ops.reshape(start, (-1,)),
        (height, width),
        (width * parts, parts),
        fast=form() == "fast",
    )
    found = ops.sum(ops.reshape(found, (-1, samples * samples, channels // parts)), axis=1)
    return ops.reshape(found, (-1, size, size, outputs))


def _shares(size: int, samples: int) -> np.ndarray:
    """(1, bins, samples of a bin, 2): where they lie in a region of height and width 1."""
    edge = np.arange(size)[:, None] / size + np.arange(samples) / (size * samples)
    y = np.broadcast_to(edge[:, None, :, None], (size, size, samples, samples))
    x = np.broadcast_to(edge[None, :, None, :], (size, size, samples, samples))
    return np.stack([y, x], axis=-1).reshape(1, size * size, samples * samples, 2).astype("float32")


def _check_rois(rois: Any, n: Any, height: Any, width: Any, scale: float) -> None:
    """Where everything is known now."""
    if not (isinstance(rois, np.ndarray) or hasattr(rois, "numpy")):
        return
    if not all(isinstance(v, int) for v in (n, height, width)):
        return
    known = np.asarray(rois, "float64")
    picture, left, top, right, bottom = known.T
    wide, high = width / scale, height / scale
    for wrong, what in (
        (~np.isfinite(known).all(axis=1), "finite numbers"),
        ((picture < 0) | (picture >= n), f"pictures 0 to {n - 1}, as there are in the batch"),
        ((right <= left) | (bottom <= top), "x2 > x1 and y2 > y1, an area"),
        (
            (right < 0) | (bottom < 0) | (left > wide - 1) | (top > high - 1),
            f"a part of the picture, which is {wide:g} pixels wide and {high:g} high (features / scale)",
        ),
    ):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise DataError(
                f"expected regions (picture, x1, y1, x2, y2) of {what}. "
                f"Received: rois[{row}] = {known[row].tolist()}. Clip or drop such regions first."
            )
