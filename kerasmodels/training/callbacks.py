"""What happens after a training step: the NaN stop, the log, the pictures, the checkpoint.

Models track each loss term as a `keras.metrics.Mean` named by the term, so a step's `logs` are running means since the
last reset. A NaN stays NaN in a running mean: the step where it first shows is the step that made it.
"""

import csv
import math
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from PIL import Image

from kerasmodels import storage
from kerasmodels.errors import DivergedError, KerasModelsError, StorageError, storage_error
from kerasmodels.training.gallery import write_gallery
from kerasmodels.training.progress import Display


class StepCallback(keras.callbacks.Callback):
    """Counts steps across epochs, resumes and `steps_per_execution`; subclasses fill in `on_step`.

    Args:
        start: steps done before this `fit`.
    """

    def __init__(self, start: int = 0):
        super().__init__()
        self.step = start
        self._batch = -1

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self._batch = -1

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        before = self.step
        self.step += batch - self._batch
        self._batch = batch
        self.on_step(before, self.step, logs or {})

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        """Steps `before` + 1 to `step` (mostly one) are done; `logs` are running means."""


def due(every: int, before: int, step: int) -> bool:
    """Whether a multiple of `every` lies in (before, step]; never if `every` is 0."""
    return every > 0 and step // every > before // every


class NaNStop(StepCallback):
    """Stops `fit` with `DivergedError` at the first step whose loss is NaN or infinite, naming the term.

    Example:
        >>> import keras, numpy as np, kerasmodels as km
        >>> model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> _ = model.fit(np.ones((4, 2)), np.ones((4, 1)), callbacks=[km.training.NaNStop()], verbose=0)
    """

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        bad = [name for name, value in logs.items() if not math.isfinite(value)]
        if not bad:
            return
        # The total is not finite because a term is not; the term says more.
        term = next((name for name in bad if name != "loss"), bad[0])
        rate = learning_rate(self.model)
        lower = "a lower learning rate" + ("" if rate is None else f" than {rate:g}")
        raise DivergedError(step, term, float(logs[term]), f"Train anew with {lower}, or less weight on {term}.")


class Gallery(StepCallback):
    """Saves previews, pictures or texts, while training and keeps folder/gallery.html up to date.

    A page that cannot be made is told on stderr, and made again the next time: it is no reason to end a training.

    Args:
        folder: where samples/ and gallery.html go.
        preview: model -> name -> uint8 (H, W, 3) picture, or text. It must leave the model's variables as they are.
            Without it, `model.preview()` is used if there is one; else the page has none.
        every: steps between previews; 0 for none but those of `finish`.
        start: steps done before this `fit`.
        writer: a TensorBoard writer that also gets the pictures, as one grid.

    Raises:
        StorageError: the folder cannot be written.
    """

    def __init__(
        self,
        folder: str | Path,
        preview: Callable[[keras.Model], Mapping[str, np.ndarray | str]] | None = None,
        every: int = 200,
        start: int = 0,
        writer: "tf.summary.SummaryWriter | None" = None,
    ):
        super().__init__(start)
        self.folder, self.preview, self.every, self.writer = Path(folder), preview, every, writer
        self.saved = -1

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        if due(self.every, before, step):
            self.save()

    def on_train_end(self, logs: Any = None) -> None:
        if self.every:
            self.save()

    def save(self) -> None:
        """Save this step's pictures, unless that was done, and rewrite the page."""
        if self.saved != self.step:
            self.saved = self.step
            self._save(self._previews())
        try:
            write_gallery(self.folder)
        except StorageError:
            raise
        except KerasModelsError as error:
            print(f"warning: gallery.html is not brought up to date: {error}", file=sys.stderr)

    def _previews(self) -> Mapping[str, np.ndarray | str]:
        if self.preview is not None:
            return self.preview(self.model)
        return self.model.preview() if hasattr(self.model, "preview") else {}

    def _save(self, previews: Mapping[str, np.ndarray | str]) -> None:
        pictures = []
        for name, preview in previews.items():
            safe = re.sub(r"[^\w.-]+", "_", name)
            path = self.folder / "samples" / f"step-{self.step:06d}-{safe}"
            if isinstance(preview, str):
                storage.write_text(path.with_name(f"{path.name}.txt"), preview)
            else:
                pictures.append(preview)
                storage.write_atomic(
                    path.with_name(f"{path.name}.png"), partial(Image.fromarray(preview).save, format="PNG")
                )
        if pictures and self.writer is not None:
            with summaries(self.writer, self.folder):
                tf.summary.image("previews", grid(pictures)[None], self.step)


def grid(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """uint8 (h, w, 3) pictures on one near-square sheet, smaller ones on gray."""
    height, width = (max(p.shape[axis] for p in pictures) for axis in (0, 1))
    columns = math.ceil(math.sqrt(len(pictures)))
    rows = math.ceil(len(pictures) / columns)
    sheet = np.full((rows * height, columns * width, 3), 128, np.uint8)
    for i, picture in enumerate(pictures):
        top, left = i // columns * height, i % columns * width
        sheet[top : top + picture.shape[0], left : left + picture.shape[1]] = picture
    return sheet


class Log(StepCallback):
    """Every `every` steps, the means over those steps: a row of log.csv, TensorBoard scalars, the display.

    Resetting the metrics at each interval is what makes a row the mean of its own steps. The first row after a resume
    in the middle of an interval covers the steps since the resume.

    Args:
        path: log.csv, appended to; None for no file.
        every: steps in an interval.
        last: the last step of the training, which ends an interval too.
        batch: examples in a step, for examples/s.
        writer: of TensorBoard's events, beside log.csv; None for none.
        seconds: seconds the run took before this `fit`.
    """

    def __init__(
        self,
        path: Path | None,
        every: int,
        last: int,
        batch: int,
        display: Display,
        writer: "tf.summary.SummaryWriter | None",
        start: int = 0,
        seconds: float = 0.0,
    ):
        super().__init__(start)
        self.path, self.every, self.last, self.batch = path, every, last, batch
        self.display, self.writer = display, writer
        self.means: dict[str, float] = {}
        self._spent_before, self._began = seconds, time.perf_counter()
        self._interval_seconds = 0.0
        self._interval_steps = 0
        self._first = True

    @property
    def seconds(self) -> float:
        """Seconds the run has taken, over all its resumes."""
        return self._spent_before + time.perf_counter() - self._began

    def on_train_begin(self, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._batch_began = time.perf_counter()

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        # The first call traces the graph; its time says nothing about the speed, unless there is no other.
        if self._first and self.every > 1:
            self._first = False
        else:
            self._interval_seconds += time.perf_counter() - self._batch_began
            self._interval_steps += step - before
        self.display.advance(step)
        if due(self.every, before, step) or step >= self.last:
            self._report(step, logs)

    def _report(self, step: int, logs: Mapping[str, float]) -> None:
        self.means = {name: float(logs[name]) for name in sorted(logs, key=lambda name: name != "loss")}
        rate = learning_rate(self.model)
        speed = self.batch * self._interval_steps / self._interval_seconds if self._interval_seconds else math.nan
        self._interval_seconds, self._interval_steps = 0.0, 0
        row: dict[str, Any] = {"step": step, "seconds": f"{self.seconds:.3f}"}
        row |= {name: repr(value) for name, value in self.means.items()}
        row |= {"learning_rate": "" if rate is None else f"{rate:.6g}"}
        row |= {"examples/s": "" if math.isnan(speed) else f"{speed:.3f}"}
        if self.path is not None:
            self._append(self.path, row)
            self._summarize(self.path.parent, step, rate, speed)
        self.display.report(step, self.means, speed)
        self.model.reset_metrics()

    def _summarize(self, folder: Path, step: int, rate: float | None, speed: float) -> None:
        if self.writer is None:
            return
        with summaries(self.writer, folder):
            for name, value in self.means.items():
                tf.summary.scalar(name, value, step)
            if rate is not None:
                tf.summary.scalar("learning_rate", rate, step)
            if not math.isnan(speed):
                tf.summary.scalar("examples_per_second", speed, step)

    @staticmethod
    def _append(path: Path, row: Mapping[str, Any]) -> None:
        try:
            with open(path, "a", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(row), lineterminator="\n")
                if file.tell() == 0:
                    writer.writeheader()
                writer.writerow(row)
        except OSError as error:
            raise storage_error(path, error) from error


@contextmanager
def summaries(writer: "tf.summary.SummaryWriter", folder: Path) -> Iterator[None]:
    """`writer` as TensorBoard's default, flushed on leaving.

    Raises:
        StorageError: the events cannot be written.
    """
    try:
        with writer.as_default():
            yield
        writer.flush()
    except tf.errors.OpError as error:
        raise StorageError(f"cannot write TensorBoard events in {folder}: {error.message}") from error


def learning_rate(model: keras.Model) -> float | None:
    """The current learning rate of `model.optimizer`; None if it has none."""
    optimizer = getattr(model, "optimizer", None)
    return None if optimizer is None else float(optimizer.learning_rate.numpy())
