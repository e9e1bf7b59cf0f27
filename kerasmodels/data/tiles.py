"""Large pictures in pieces."""

from collections.abc import Iterator
from dataclasses import dataclass

Box = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True)
class Tile:
    """A piece of a picture.

    Attributes:
        own: what it decides; every pixel is some tile's own, and of one only.
        seen: what it looks at for that: `own` and what overlaps with other tiles.
        inner: `own` within `seen`.
    """

    own: Box
    seen: Box
    inner: Box


def tiles(height: int, width: int, side: int, overlap: int) -> Iterator[Tile]:
    """The tiles of a picture, row by row.

    Args:
        height, width: of the picture.
        side: of what a tile decides, at most.
        overlap: how far it sees beyond that to each side, where the picture goes on.
    """
    for rows in _along(height, side, overlap):
        for columns in _along(width, side, overlap):
            own, seen, inner = zip(rows, columns, strict=True)
            yield Tile(own, seen, inner)


def _along(length: int, side: int, overlap: int) -> Iterator[tuple[slice, slice, slice]]:
    for first in range(0, length, side):
        last, begin = min(first + side, length), max(0, first - overlap)
        yield slice(first, last), slice(begin, min(last + overlap, length)), slice(first - begin, last - begin)
