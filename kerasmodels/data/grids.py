"""Laying pictures out in a grid."""

from collections.abc import Sequence

import numpy as np
from PIL import Image


def grid(rows: Sequence[Sequence[np.ndarray | None]], cell: int = 96, apart: int = 0) -> np.ndarray:
    """Rows of square patches on white, each shown `cell` pixels large, 2 pixels apart; None is an empty place.

    Args:
        rows: of (r, r, 3) uint8 patches; small ones are enlarged without smoothing.
        cell: side of each, pixels.
        apart: this many patches at the beginning of a row stand apart from the others.

    Returns:
        (H, W, 3) uint8.
    """
    columns, gap = max(map(len, rows)), 2
    width = columns * (cell + gap) + gap + (4 * gap if apart else 0)
    picture = np.full((len(rows) * (cell + gap) + gap, width, 3), 255, "uint8")
    for i, row in enumerate(rows):
        for j, patch in enumerate(row):
            if patch is not None:
                smooth = Image.Resampling.LANCZOS if cell < 4 * patch.shape[0] else Image.Resampling.NEAREST
                top, left = gap + i * (cell + gap), gap + j * (cell + gap) + (4 * gap if apart and j >= apart else 0)
                picture[top : top + cell, left : left + cell] = Image.fromarray(patch).resize((cell, cell), smooth)
    return picture
