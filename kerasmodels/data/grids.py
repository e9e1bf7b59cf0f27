"""Laying pictures out in a grid, and what a generator is given to fill one."""

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


def latents(rows: int, columns: int, length: int, seed: int, between: bool = False) -> np.ndarray:
    """Standard normal numbers for a generator, one vector for each place of a grid.

    Args:
        rows, columns: of the grid.
        length: of a vector.
        seed: another seed, other numbers.
        between: each row goes from one random vector to another, on a straight line.

    Returns:
        (rows * columns, length) float32, row by row.
    """
    random = np.random.default_rng(seed)
    if not between:
        return random.standard_normal((rows * columns, length)).astype("float32")
    ends = random.standard_normal((rows, 2, 1, length))
    way = np.linspace(0, 1, columns)[None, :, None]
    return ((1 - way) * ends[:, 0] + way * ends[:, 1]).reshape(rows * columns, length).astype("float32")


def tiled(pictures: np.ndarray, rows: int, columns: int) -> np.ndarray:
    """Pictures side by side, row by row.

    Args:
        pictures: (rows * columns, H, W, 1 or 3), 0-255.
        rows, columns: of the grid.

    Returns:
        (rows * H, columns * W, 3) uint8.
    """
    height, width = pictures.shape[1:3]
    laid = np.rint(pictures).astype("uint8").reshape(rows, columns, height, width, -1).swapaxes(1, 2)
    laid = laid.reshape(rows * height, columns * width, -1)
    return np.broadcast_to(laid, (*laid.shape[:2], 3)).copy()
