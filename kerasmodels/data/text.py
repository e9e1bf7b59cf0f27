"""Pairs of texts on disk: tab-separated, two parallel files, or a phrase table of Moses; each may be gzipped."""

import gzip
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, zip_longest
from pathlib import Path
from typing import Literal

import numpy as np

from kerasmodels import reading
from kerasmodels.errors import DataError

BadLines = Literal["stop", "skip"]
SEPARATOR = " ||| "
"""Between the fields of a line of a phrase table."""
Pair = tuple[str, str]
"""Source and target."""


@dataclass
class Complaints:
    """What to do about lines that cannot be used: stop at the first, or leave them out and count them."""

    bad_lines: BadLines
    count: int = 0
    first: str = ""

    def about(self, path: Path, number: int, expected: str, received: object) -> None:
        """A bad line.

        Raises:
            DataError: where the first one is to stop.
        """
        text = f"{path}, line {number}: expected {expected}. Received: {received!r:.120}."
        if self.bad_lines == "stop":
            raise DataError(f"{text} Mend it, or leave such lines out with --bad-lines skip.")
        self.count += 1
        self.first = self.first or text

    def warn(self) -> None:
        """Say how many lines were left out, if any."""
        if self.count:
            warnings.warn(f"{self.count} lines were left out; the first: {self.first}", stacklevel=3)


def read_lines(path: str | Path) -> Iterator[bytes]:
    """The lines of a file, through gzip if it is named .gz, one at a time and without their ends.

    Raises:
        DataError: the file cannot be read, or its compressed content is damaged.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file, reading.damaged():
            for line in gzip.GzipFile(fileobj=file) if path.suffix == ".gz" else file:
                yield line.rstrip(b"\r\n")
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise DataError(f"expected a readable text file. Received: {str(path)!r} ({why}).") from error


def read_texts(path: str | Path, complaints: Complaints) -> Iterator[tuple[int, str]]:
    """The lines of a UTF-8 file with their numbers, from 1 on; for others there is a complaint."""
    for number, line in enumerate(read_lines(path), 1):
        try:
            yield number, line.decode()
        except UnicodeDecodeError:
            complaints.about(Path(path), number, "text in UTF-8", line)


def read_pairs(path: str | Path, complaints: Complaints) -> Iterator[Pair]:
    """The pairs of a file of tab-separated lines, or of a phrase table (`source ||| target ||| ...`).

    Raises:
        DataError: the file cannot be read, or a line of it where it shall stop at such.
    """
    path = Path(path)
    for number, line in read_texts(path, complaints):
        fields = line.split(SEPARATOR) if SEPARATOR in line else line.split("\t")
        if len(fields) < 2 or not fields[0].strip() or not fields[1].strip():
            complaints.about(path, number, "source and target with a tab or ||| between", line)
            continue
        yield fields[0].strip(), fields[1].strip()


def read_parallel(source: str | Path, target: str | Path, complaints: Complaints) -> Iterator[Pair]:
    """The pairs of two files, of which each line of one translates the same line of the other.

    Raises:
        DataError: a file cannot be read, they have not the same number of lines, or a line cannot be used where it
            shall stop at such.
    """
    source, target = Path(source), Path(target)
    for number, (a, b) in enumerate(zip_longest(read_lines(source), read_lines(target)), 1):
        if a is None or b is None:
            shorter = source if a is None else target
            raise DataError(
                f"expected two files whose lines belong together. Received: {shorter} ends after {number - 1} lines, "
                f"{target if a is None else source} does not. Find the line from which on they are shifted."
            )
        texts = []
        for path, line in ((source, a), (target, b)):
            try:
                text = line.decode().strip()
            except UnicodeDecodeError:
                complaints.about(path, number, "text in UTF-8", line)
                break
            if not text:
                complaints.about(path, number, "a text", text)
                break
            texts.append(text)
        if len(texts) == 2:
            yield texts[0], texts[1]


def padded(sequences: Sequence[Sequence[int]], end: int = 0, length: int | None = None) -> np.ndarray:
    """Sequences of ids as rows that end: (N, longest + 1) int32, filled up with the id of the end."""
    width = max(map(len, sequences), default=0) + 1 if length is None else length
    rows = np.full((len(sequences), width), end, "int32")
    for row, ids in zip(rows, sequences, strict=True):
        row[: min(len(ids), width - 1)] = list(ids)[: width - 1]
    return rows


def bucketed(
    pairs: Sequence[tuple[Sequence[int], Sequence[int]]], batch: int, seed: int, start: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Endless batches of pairs of about one length, each pair once in an epoch, in an order drawn for each epoch.

    Ten batches are drawn at a time and sorted by length, as the paper's code does. The last, smaller batch of an epoch
    is left out, unless it is the only one.

    Args:
        pairs: ids of source and target, without their ends.
        batch: pairs in a batch.
        seed: of the order.
        start: number of the first batch.
    """
    size = min(batch, len(pairs))
    each = max(1, len(pairs) // size)
    for epoch in range(start // each, 2**62):
        random = np.random.default_rng([seed, epoch])
        order = random.permutation(len(pairs))[: each * size]
        groups = []
        for begin in range(0, len(order), 10 * size):
            group = sorted(order[begin : begin + 10 * size], key=lambda i: (len(pairs[i][1]), len(pairs[i][0])))
            parts = [group[i : i + size] for i in range(0, len(group), size)]
            groups.append([parts[i] for i in random.permutation(len(parts))])
        batches = list(chain.from_iterable(groups))
        first = start - epoch * each if epoch == start // each else 0
        for chosen in batches[first:]:
            yield padded([pairs[i][0] for i in chosen]), padded([pairs[i][1] for i in chosen])
