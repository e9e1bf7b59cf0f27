"""How long one call takes in every runtime, side by side in one process.

Rounds are interleaved: each round times every contestant once, so that whatever else the machine does hits all alike.
"""

import contextlib
import functools
import math
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

import kerasmodels
from kerasmodels.errors import ExportError, KerasModelsError, UsageError, storage_error, unknown_name
from kerasmodels.export.formats import FORMATS, PRECISIONS, Format
from kerasmodels.export.order import Calibration, Order, Size, bind, calibration_examples
from kerasmodels.export.runners.runtimes import DEFAULT, RUNTIMES
from kerasmodels.export.signatures import Sources, outputs_of
from kerasmodels.family import Servable

BASELINE = "Keras tf.function"


@dataclass(frozen=True)
class Timing:
    """One contestant.

    Args:
        runtime: what executed it.
        precision: fp32, fp16, dynamic or int8.
        threads: it was given; None for TensorFlow, whose thread pools belong to the whole process.
        size: of the inputs, such as "256x256".
        median_ms, min_ms: of all rounds, for batch 1; None if it could not run.
        ratio: its median to that of "Keras tf.function" at the same size; below 1 is faster.
        psnr: of its outputs to Keras' on this input, in dB; None if nothing differs.
        note: why it could not run.
    """

    runtime: str
    precision: str
    threads: int | None
    size: str
    median_ms: float | None
    min_ms: float | None
    ratio: float | None
    psnr: float | None
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)


Call = Callable[[], Mapping[str, np.ndarray]]


@dataclass(frozen=True)
class _Contestant:
    runtime: str
    precision: str
    threads: int | None
    prepare: Callable[[], Call]


def bench(
    servable: Servable,
    *,
    sizes: Sequence[Size] = (None,),
    rounds: int = 20,
    threads: Sequence[int] = (1, 2),
    precisions: Sequence[str] = PRECISIONS,
    calibration: Calibration = None,
    progress: Callable[[str], None] | None = None,
) -> list[Timing]:
    """Time Keras (eager, tf.function, XLA) and every format in its runtime on batch 1.

    Args:
        servable: what to time.
        sizes: as for `export`; None is the servable's own.
        rounds: calls timed of each contestant.
        threads: numbers of threads for the runtimes that take one: LiteRT and ONNX Runtime.
        precisions: of the formats with a choice, as far as each supports them and the servable has them.
        calibration: for int8, as for `export`.
        progress: called with one line of text as each step begins.

    Returns:
        Rows by size, in a fixed order. A contestant that cannot run has a note instead of times.

    Raises:
        UsageError: a size or calibration that does not fit the servable, an unknown precision, or no rounds.
    """
    for precision in precisions:
        if precision not in PRECISIONS:
            raise unknown_name("precision", precision, PRECISIONS)
    if rounds < 1:
        raise UsageError(f"expected at least one round. Received: rounds={rounds}.")
    say = progress or (lambda line: None)
    rows: list[Timing] = []
    for size in sizes:
        dims, _ = bind(servable, size)
        label = "x".join(str(value) for name, value in dims.items() if name != "batch")
        examples = (
            calibration_examples(servable, dims, calibration)
            if "int8" in precisions and servable.model.variables
            else ()
        )
        inputs = servable.example(dims, 0)
        try:
            with tempfile.TemporaryDirectory(prefix="kerasmodels-bench-") as folder:
                contestants = list(_contestants(servable, dims, examples, inputs, threads, precisions, Path(folder)))
                rows += _race(contestants, label, rounds, say)
        except KerasModelsError:
            raise
        except OSError as error:
            raise storage_error(tempfile.gettempdir(), error) from error
    return rows


def _race(contestants: Sequence[_Contestant], size: str, rounds: int, say: Callable[[str], None]) -> list[Timing]:
    calls: dict[int, Call] = {}
    notes: dict[int, str] = {}
    quality: dict[int, float | None] = {}
    expected: Mapping[str, np.ndarray] = {}
    for index, entry in enumerate(contestants):
        say(f"{size}: preparing {entry.runtime} {entry.precision}" + (f" x{entry.threads}" if entry.threads else ""))
        try:
            with _silent():
                calls[index] = entry.prepare()
                answer = calls[index]()
        except (ExportError, tf.errors.OpError, RuntimeError, ValueError) as error:
            calls.pop(index, None)
            notes[index] = str(error).strip().partition("\n")[0][:200]
            continue
        expected = expected or answer
        quality[index] = _psnr(expected, answer)
    times: dict[int, list[float]] = {index: [] for index in calls}
    order = list(calls)
    say(f"{size}: {rounds} rounds of {len(order)} contestants")
    for number in range(rounds):
        # Another one goes first each time: none always runs in the shadow of the same neighbor.
        turn = number % len(order)
        for index in order[turn:] + order[:turn]:
            began = time.perf_counter()
            calls[index]()
            times[index].append(1000 * (time.perf_counter() - began))
    medians = {index: statistics.median(values) for index, values in times.items()}
    base = next((medians[i] for i, entry in enumerate(contestants) if entry.runtime == BASELINE and i in medians), None)
    rows = []
    for index, entry in enumerate(contestants):
        median = medians.get(index)
        rows.append(
            Timing(
                entry.runtime,
                entry.precision,
                entry.threads,
                size,
                None if median is None else round(median, 3),
                None if median is None else round(min(times[index]), 3),
                None if median is None or base is None else round(median / base, 3),
                quality.get(index),
                notes.get(index, ""),
            )
        )
    return rows


def _psnr(expected: Mapping[str, np.ndarray], answer: Mapping[str, np.ndarray]) -> float | None:
    worst: float | None = None
    for name, want in expected.items():
        exact = np.asarray(want, np.float64)
        error = float(np.square(exact - np.asarray(answer[name], np.float64)).mean())
        spread = 255.0 if want.dtype == np.uint8 else float(np.ptp(exact)) or 1.0
        if error:
            psnr = round(10 * math.log10(spread**2 / error), 1)
            worst = psnr if worst is None else min(worst, psnr)
    return worst


def _contestants(
    servable: Servable,
    dims: Mapping[str, int],
    examples: Sequence[Mapping[str, np.ndarray]],
    inputs: Mapping[str, np.ndarray],
    threads: Sequence[int],
    precisions: Sequence[str],
    folder: Path,
) -> Iterator[_Contestant]:
    tensors, sources = {name: tf.constant(value) for name, value in inputs.items()}, Sources(servable)

    def keras_call(compiled: bool, jit: bool) -> Call:
        def eager(**arrays: tf.Tensor) -> dict[str, tf.Tensor]:
            return outputs_of(servable, arrays)

        function = tf.function(eager, jit_compile=jit) if compiled else eager
        return lambda: {name: value.numpy() for name, value in function(**tensors).items()}

    yield _Contestant("Keras eager", "fp32", None, lambda: keras_call(False, False))
    yield _Contestant(BASELINE, "fp32", None, lambda: keras_call(True, False))
    yield _Contestant("Keras XLA", "fp32", None, lambda: keras_call(True, True))

    @functools.cache
    def make(form: Format, precision: str) -> Path:
        work = folder / f"{form.name}-{precision}"
        work.mkdir()
        about = {"name": "bench", "description": servable.doc, "version": kerasmodels.__version__}
        about |= {"author": "", "license": "", "source": ""}
        order = Order(
            servable,
            sources,
            "bench",
            dims,
            frozenset(dims) if form.dynamic else frozenset(),
            precision,
            work,
            f"bench{form.suffix}",
            {**about, "inputs": [], "outputs": []},
            calibration=tuple(examples) if precision == "int8" else (),
        )
        form.exporter.make([order])
        return order.path

    def artifact(form: Format, precision: str, count: int | None) -> Call:
        loaded = RUNTIMES[form.runtime](str(make(form, precision)), count)
        return lambda: loaded.call(DEFAULT, dict(inputs))

    for form in FORMATS:
        # A format in one precision only leaves nothing to choose.
        able = [p for p in form.precisions if p in precisions] if len(form.precisions) > 1 else form.precisions
        for precision in able:
            there = not servable.lacks(form.name, precision)
            for count in (threads if form.threads else (None,)) if there else ():
                prepare = functools.partial(artifact, form, precision, count)
                yield _Contestant(form.title, precision, count, prepare)


@contextlib.contextmanager
def _silent() -> Iterator[None]:
    """Send what C++ code prints to standard error nowhere: runtimes announce themselves when they are loaded."""
    sys.stderr.flush()
    kept = os.dup(2)
    nowhere = os.open(os.devnull, os.O_WRONLY)
    try:
        os.dup2(nowhere, 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(nowhere)
