"""PNG files written row by row, of 8 or 16 bits: large pictures need not be in memory, and Pillow has no 16-bit RGB."""

import struct
import zlib
from typing import IO

import numpy as np

_COLOR_TYPES = {1: 0, 2: 4, 3: 2, 4: 6}
"""PNG's numbers of gray, gray with alpha, RGB and RGBA, by the count of channels."""


class PngWriter:
    """Writes a PNG file to an open binary file, some rows at a time.

    Args:
        file: written from where it is.
        height, width, channels: of the picture; 1 channel is gray, 2 gray with alpha, 3 RGB, 4 RGBA.
        dtype: uint8 or uint16.

    Raises:
        ValueError: another dtype or number of channels; or, by `write`, rows of another form; or, by `close`, too few.

    Example:
        >>> import io, numpy as np
        >>> file = io.BytesIO()
        >>> writer = PngWriter(file, 2, 3, 1, np.uint16)
        >>> for row in ([0, 1, 2], [3, 4, 65535]):
        ...     writer.write(np.array([row], np.uint16))
        >>> writer.close()
        >>> from PIL import Image
        >>> np.asarray(Image.open(file)).tolist()
        [[0, 1, 2], [3, 4, 65535]]

    Reference:
        PNG (Portable Network Graphics) Specification, third edition, W3C.
    """

    def __init__(self, file: IO[bytes], height: int, width: int, channels: int, dtype: type | np.dtype) -> None:
        self.dtype = np.dtype(dtype)
        if channels not in _COLOR_TYPES or self.dtype not in (np.dtype("uint8"), np.dtype("uint16")):
            raise ValueError(f"expected 1 to 4 channels of uint8 or uint16. Received: {channels} of {self.dtype}")
        self._file, self._left, self._row = file, height, (width, channels)
        self._step = channels * self.dtype.itemsize
        self._above = np.zeros(width * self._step, "int16")
        self._squeeze = zlib.compressobj(6)
        file.write(b"\x89PNG\r\n\x1a\n")
        about = struct.pack(">IIBBBBB", width, height, 8 * self.dtype.itemsize, _COLOR_TYPES[channels], 0, 0, 0)
        self._chunk(b"IHDR", about)

    def write(self, rows: np.ndarray) -> None:
        """The next rows: (n, width, channels), or (n, width) of one channel."""
        rows = rows.reshape(len(rows), rows.shape[1], -1)
        if rows.dtype != self.dtype or rows.shape[1:] != self._row or len(rows) > self._left:
            raise ValueError(f"expected {self._left} rows or fewer of {self._row} {self.dtype}. Received: {rows.shape}")
        self._left -= len(rows)
        found = np.ascontiguousarray(rows.astype(self.dtype.newbyteorder(">"))).view("uint8").reshape(len(rows), -1)
        for row in found.astype("int16"):
            self._emit(self._squeeze.compress(self._filtered(row)))
            self._above = row

    def close(self) -> None:
        """Finish the file, which stays open."""
        if self._left:
            raise ValueError(f"{self._left} rows are missing")
        self._emit(self._squeeze.flush())
        self._chunk(b"IEND", b"")

    def _filtered(self, row: np.ndarray) -> bytes:
        """The row by the filter whose differences are smallest, which compress best."""
        above = self._above
        left, corner = np.zeros_like(row), np.zeros_like(row)
        left[self._step :], corner[self._step :] = row[: -self._step], above[: -self._step]
        guess = left + above - corner
        far = [np.abs(guess - each) for each in (left, above, corner)]
        paeth = np.where((far[0] <= far[1]) & (far[0] <= far[2]), left, np.where(far[1] <= far[2], above, corner))
        best = min(
            ((number, (row - other).astype("uint8")) for number, other in ((1, left), (2, above), (4, paeth))),
            key=lambda each: int(np.abs(each[1].view("int8").astype("int16")).sum(dtype="int64")),
        )
        return bytes([best[0]]) + best[1].tobytes()

    def _emit(self, data: bytes) -> None:
        if data:
            self._chunk(b"IDAT", data)

    def _chunk(self, kind: bytes, data: bytes) -> None:
        self._file.write(struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)))
