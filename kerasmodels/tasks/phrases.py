"""What users do with a trained encoder-decoder: translate texts, score phrase tables, find phrases of like meaning."""

import gzip
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import IO, Annotated, Any, Literal

import numpy as np
import tensorflow as tf
import tyro

from kerasmodels import storage
from kerasmodels.config import NonNegative, PositiveInt, check
from kerasmodels.data.text import SEPARATOR, BadLines, Complaints, padded, read_lines, read_texts
from kerasmodels.errors import DataError
from kerasmodels.family import RunReport
from kerasmodels.servables.text import search
from kerasmodels.tasks import TrainedOptions
from kerasmodels.tasks.pictures import check_targets

CHUNK = 64
"""Texts that are translated at once, and lines of a table that are scored at once are 16 times as many."""
_LONGEST = 1000
"""Tokens of a text; memory grows with it."""
_MOST_BYTES = 10_000
"""Of the two phrases of a line."""


class PhrasesOptions(TrainedOptions):
    """Translate texts, add a score to a phrase table of Moses, or find phrases of like meaning."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """translate: files of texts, a line each; without any, the standard input. score: a phrase table. neighbors: a file
    of phrases, a line each. Each may be .gz."""
    do: Literal["translate", "score", "neighbors"] = "translate"
    """translate: a line of target text for each line. score: each line of the table gets p(target | source) as its last
    score, and is else as it was. neighbors: the phrases as points of a plane."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """What to write; .gz is compressed. translate: left out, the standard output. neighbors: a picture."""
    bad_lines: BadLines = "stop"
    """At lines that cannot be used: stop; or skip them: translate writes an empty line, score the line as it was."""
    beam: PositiveInt = 5
    """Hypotheses that are kept in each step; 1 is greedy."""
    n_best: PositiveInt = 1
    """translate: results for each line; with more than 1, or with scores, lines are `number ||| text ||| score`."""
    scores: bool = False
    """translate: write the scores, too."""
    length_penalty: NonNegative = 0.6
    """translate: 0 compares log-probabilities, 1 nearly their means."""
    max_length: PositiveInt = 60
    """translate: tokens of a result, at most."""
    near: str | None = None
    """neighbors: also list the phrases nearest to this one."""

    def validate(self) -> None:
        """Raise UsageError where options contradict each other."""
        check(self.n_best <= self.beam, "n_best <= beam", (self.n_best, self.beam))
        if self.do != "translate":
            check(len(self.inputs) == 1, f"one file to {self.do}", self.inputs)
            check(self.out is not None, "a file to write: --out FILE", self.out)
        if self.out is not None:
            check_targets([self.out], self.inputs)


def batched(items: Iterable[Any], size: int) -> Iterator[tuple[Any, ...]]:
    """Tuples of `size` items, the last maybe shorter (Python 3.12 has it in itertools)."""
    left = iter(items)
    while chunk := tuple(islice(left, size)):
        yield chunk


# --- arrays -----------------------------------------------------------------------------------------------------------


def translate(
    model: Any,
    texts: Sequence[str],
    beam: int = 5,
    n_best: int = 1,
    length_penalty: float = 0.6,
    max_length: int = 60,
) -> list[list[tuple[str, float]]]:
    """Translations of texts, for each the best first, with their scores.

    Args:
        model: a trained encoder-decoder.
        texts: one sequence each.
        beam, n_best, length_penalty, max_length: see `kerasmodels.ops.beam_search`.

    Raises:
        UsageError: n_best is larger than the beam.
    """
    check(n_best <= beam, "n_best <= beam", (n_best, beam))
    return list(_translated(model, iter(texts), beam, n_best, length_penalty, max_length))


def score(model: Any, pairs: Sequence[tuple[str, str]]) -> np.ndarray:
    """log p(target | source), natural, of each pair, (N,) float64."""
    sources = list(model.source_vocabulary.encode_all(source for source, _ in pairs))
    targets = list(model.target_vocabulary.encode_all(target for _, target in pairs))
    return _Scorer(model)(sources, targets)


def vectors(model: Any, phrases: Sequence[str]) -> np.ndarray:
    """The contexts c of phrases, (N, units) float32."""
    encoded = list(model.source_vocabulary.encode_all(phrases))
    order, found = sorted(range(len(encoded)), key=lambda i: len(encoded[i])), dict[int, np.ndarray]()
    for chosen in batched(order, 256):
        made = model.encoder(padded([encoded[i] for i in chosen]))["context"]
        found |= dict(zip(chosen, np.asarray(made, "float32"), strict=True))
    return np.stack([found[i] for i in range(len(encoded))])


def nearest(points: np.ndarray, index: int, count: int = 10) -> list[int]:
    """The points (N, D) of largest cosine with one of them, the nearest first, itself left out."""
    unit = points / np.maximum(np.linalg.norm(points, axis=1, keepdims=True), 1e-12)
    order = np.argsort(-(unit @ unit[index]), kind="stable")
    return [int(i) for i in order if i != index][:count]


def plane(points: np.ndarray) -> np.ndarray:
    """The points (N, D) in the plane of their two principal components, (N, 2)."""
    centered = points - points.mean(axis=0)
    _, _, axes = np.linalg.svd(centered, full_matrices=False)
    return centered @ axes[:2].T


class _Scorer:
    """log p of pairs of ids, a bucket of like lengths at a time, compiled once."""

    def __init__(self, model: Any):
        rows = tf.TensorSpec((None, None), tf.int32)
        self._score = tf.function(lambda source, target: model((source, target)), input_signature=(rows, rows))

    def __call__(self, sources: Sequence[Sequence[int]], targets: Sequence[Sequence[int]]) -> np.ndarray:
        found = np.zeros(len(sources))
        order = sorted(range(len(sources)), key=lambda i: (len(targets[i]), len(sources[i])))
        for chosen in batched(order, 128):
            rows = [padded([ids[i] for i in chosen]) for ids in (sources, targets)]
            found[list(chosen)] = np.asarray(self._score(*map(tf.constant, rows)), "float64")
        return found


def _translated(
    model: Any, texts: Iterator[str], beam: int, n_best: int, length_penalty: float, max_length: int
) -> Iterator[list[tuple[str, float]]]:
    @tf.function(input_signature=[tf.TensorSpec((None, None), tf.int32)])
    def searched(source: tf.Tensor) -> dict[str, tf.Tensor]:
        return search(source, model.encode, model.decoder.step, max_length, beam, n_best, length_penalty)

    for chunk in batched(texts, CHUNK):
        encoded = list(model.source_vocabulary.encode_all(chunk))
        order, found = sorted(range(len(chunk)), key=lambda i: len(encoded[i])), {}
        for chosen in batched(order, 16):
            made = searched(tf.constant(padded([encoded[i] for i in chosen])))
            for i, ids, scores in zip(chosen, made["ids"].numpy(), made["scores"].numpy(), strict=True):
                found[i] = [
                    (model.target_vocabulary.decode(row), float(value)) for row, value in zip(ids, scores, strict=True)
                ]
        yield from (found[i] for i in range(len(chunk)))


# --- files ------------------------------------------------------------------------------------------------------------


def run(options: PhrasesOptions, family: str) -> RunReport:
    """Do what the options ask for."""
    if options.do == "neighbors":
        # It says so if matplotlib is missing, before any work.
        from kerasmodels.data import plots  # noqa: F401
    model = options.trained(family).load()
    return {"translate": _translate_files, "score": _score_table, "neighbors": _draw}[options.do](model, options)


def _translate_files(model: Any, options: PhrasesOptions) -> RunReport:
    complaints, begin = Complaints(options.bad_lines), time.perf_counter()
    empty: set[int] = set()

    def texts() -> Iterator[str]:
        number = 0
        for path in options.inputs or (None,):
            for at, line in enumerate(sys.stdin.buffer if path is None else read_lines(path), 1):
                number += 1
                text = _usable(model, line.rstrip(b"\r\n"), path or Path("standard input"), at, complaints)
                if not text:
                    empty.add(number)
                yield text

    lines = 0

    def written() -> Iterator[str]:
        nonlocal lines
        arguments = options.beam, options.n_best, options.length_penalty, options.max_length
        for lines, hypotheses in enumerate(_translated(model, texts(), *arguments), 1):
            if options.n_best == 1 and not options.scores:
                yield "" if lines in empty else hypotheses[0][0]
            else:
                for text, value in hypotheses:
                    yield SEPARATOR.join((str(lines), "" if lines in empty else text, f"{value:.4f}"))

    if options.out is None:
        for line in written():
            print(line)
        complaints.warn()
        return RunReport()
    path = _write_lines(options.out, (line.encode() for line in written()))
    complaints.warn()
    return RunReport((path,), {"lines": lines, "seconds": round(time.perf_counter() - begin, 1)})


def _usable(model: Any, line: bytes, path: Path, number: int, complaints: Complaints) -> str:
    """The text of a line; empty, after a complaint, if it is not UTF-8 or too long. An empty line is one."""
    try:
        text = line.decode()
    except UnicodeDecodeError:
        complaints.about(path, number, "text in UTF-8", line)
        return ""
    if len(text) > _LONGEST and len(model.source_vocabulary.encode(text)) > _LONGEST:
        complaints.about(path, number, f"a text of at most {_LONGEST} tokens", text)
        return ""
    return text


def _score_table(model: Any, options: PhrasesOptions) -> RunReport:
    """Stream through the table; memory holds a chunk of its lines."""
    (source,), out = options.inputs, options.out
    assert out is not None  # `validate` has seen to it
    complaints, scorer, begin = Complaints(options.bad_lines), _Scorer(model), time.perf_counter()
    count = 0

    def written() -> Iterator[bytes]:
        nonlocal count
        for chunk in batched(enumerate(read_lines(source), 1), 16 * CHUNK):
            fields = [_fields(line, source, number, complaints) for number, line in chunk]
            good = [row for row in fields if row is not None]
            sources = list(model.source_vocabulary.encode_all(row[0].decode() for row in good))
            targets = list(model.target_vocabulary.encode_all(row[1].decode() for row in good))
            likely = iter(np.exp(scorer(sources, targets)))
            for (_, line), row in zip(chunk, fields, strict=True):
                count += 1
                if row is None:
                    yield line
                    continue
                row[2] = row[2].rstrip() + f" {next(likely):.6g}".encode()
                yield SEPARATOR.encode().join(row)

    path = _write_lines(out, written())
    complaints.warn()
    seconds = time.perf_counter() - begin
    facts = {"lines": count, "left as they were": complaints.count, "lines/s": round(count / seconds)}
    return RunReport((path,), facts)


def _fields(line: bytes, path: Path, number: int, complaints: Complaints) -> list[bytes] | None:
    """The fields of a line of a phrase table; None, after a complaint, if it is not one."""
    row = line.split(SEPARATOR.encode())
    try:
        good = len(row) >= 3 and bool(row[0].decode().strip()) and bool(row[1].decode().strip())
        good = (
            good and all(np.isfinite(float(value)) for value in row[2].split()) and len(row[0]) + len(row[1]) < 10_000
        )
    except ValueError:
        good = False
    if not good:
        complaints.about(path, number, "source ||| target ||| scores ..., in UTF-8", line)
    return row if good else None


def _draw(model: Any, options: PhrasesOptions) -> RunReport:
    from kerasmodels.data import plots, write_image

    complaints = Complaints(options.bad_lines)
    phrases = list(dict.fromkeys(text.strip() for _, text in read_texts(options.inputs[0], complaints) if text.strip()))
    complaints.warn()
    if len(phrases) < 3:
        raise DataError(f"expected at least 3 phrases. Received: {len(phrases)} in {options.inputs[0]}.")
    if options.near is not None and options.near not in phrases:
        phrases.append(options.near)
    points = vectors(model, phrases)
    assert options.out is not None  # `validate` has seen to it
    path = write_image(options.out, plots.labeled(plane(points), phrases))
    facts: dict[str, Any] = {"phrases": len(phrases)}
    if options.near is not None:
        found = nearest(points, phrases.index(options.near))
        facts["nearest"] = "; ".join(phrases[i] for i in found)
    return RunReport((path,), facts)


def _write_lines(path: Path, lines: Iterable[bytes]) -> Path:
    def write(file: IO[bytes]) -> None:
        if path.suffix == ".gz":
            # Without a time in it, so that equal lines give equal files.
            with gzip.GzipFile(filename="", fileobj=file, mode="wb", mtime=0) as packed:
                packed.writelines(line + b"\n" for line in lines)
        else:
            file.writelines(line + b"\n" for line in lines)

    return storage.write_atomic(path, write)
