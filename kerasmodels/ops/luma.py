"""Luma and color differences of pictures, in the two conventions that papers use without naming them."""

from typing import Any, Literal

import numpy as np
from keras import ops

Luma = Literal["studio", "full"]
"""studio: BT.601 as video has it, 16 to 235, MATLAB's `rgb2ycbcr`; full: BT.601 of 0-255, as JPEG has it."""

_BT601 = np.array([[0.299, 0.587, 0.114], [-0.168736, -0.331264, 0.5], [0.5, -0.418688, -0.081312]])
_STUDIO = np.array([[65.481, 128.553, 24.966], [-37.797, -74.203, 112.0], [112.0, -93.786, -18.214]]) / 255
_FORMS = {"studio": (_STUDIO, np.array([16.0, 128.0, 128.0])), "full": (_BT601, np.array([0.0, 128.0, 128.0]))}


def rgb_to_ycbcr(x: Any, luma: Luma = "studio") -> Any:
    """RGB 0-255 (..., 3) -> Y, Cb, Cr (..., 3), not rounded.

    Args:
        x: pictures.
        luma: "studio", MATLAB's `rgb2ycbcr`: Y is 16-235, Cb and Cr 16-240; "full", JPEG's: all are 0-255. Contrasts
            of "studio" are 14 % smaller, so that the same two pictures are 1.3 dB closer to each other in it.

    Raises:
        ValueError: another convention.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> white = np.full((1, 1, 3), 255.0)
        >>> [round(float(np.ravel(km.ops.rgb_to_ycbcr(white, luma))[0])) for luma in ("studio", "full")]
        [235, 255]

    Reference:
        ITU-R BT.601-7, section 2.5; JFIF 1.02.
    """
    matrix, offset = _form(luma)
    return ops.add(_mixed(_float(x), matrix), _constant(offset))


def ycbcr_to_rgb(x: Any, luma: Luma = "studio") -> Any:
    """The inverse of `rgb_to_ycbcr`; values may leave 0-255."""
    matrix, offset = _form(luma)
    return _mixed(ops.subtract(_float(x), _constant(offset)), np.linalg.inv(matrix))


def rgb_to_luma(x: Any, luma: Luma = "studio") -> Any:
    """The Y of `rgb_to_ycbcr` alone: (..., 3) -> (..., 1)."""
    matrix, offset = _form(luma)
    return ops.add(_mixed(_float(x), matrix[:1]), _constant(offset[:1]))


def _form(luma: str) -> tuple[np.ndarray, np.ndarray]:
    if luma not in _FORMS:
        raise ValueError(f"luma must be 'studio' (MATLAB's rgb2ycbcr) or 'full' (JPEG's). Received: {luma!r}")
    return _FORMS[luma]


def _mixed(x: Any, matrix: np.ndarray) -> Any:
    """Each pixel's channels by the rows of `matrix`. Not by `matmul`, whose rounding depends on the pixel's place."""
    parts = [ops.multiply(x[..., i : i + 1], _constant(column)) for i, column in enumerate(matrix.T)]
    return ops.add(ops.add(parts[0], parts[1]), parts[2])


def _constant(values: np.ndarray) -> Any:
    return ops.convert_to_tensor(values.astype("float32"))


def _float(x: Any) -> Any:
    return ops.cast(ops.convert_to_tensor(x), "float32")
