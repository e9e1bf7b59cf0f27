"""Pictures found by optimization: a model whose only weight is a picture, and what drives it.

`PictureModel` is an ordinary Keras model, so `fit` and `train` know what to do with it. `optimize_picture` is for a
user who wants the picture and no run folder: it drives one model after another, with any optimizer, and writes what it
has whenever asked.
"""

import errno
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasmodels import optimizers, storage
from kerasmodels.data import write_image
from kerasmodels.data.images import check_picture_name
from kerasmodels.errors import DivergedError, UsageError, storage_error, unknown_name
from kerasmodels.family import without_examples
from kerasmodels.layers import Picture
from kerasmodels.paper_model import PaperModel
from kerasmodels.training.callbacks import Gallery, Log, NaNStop, StepCallback, due
from kerasmodels.training.interrupts import Interrupted, stop_on_signal
from kerasmodels.training.progress import display

METHODS = ("lbfgs", "cg", "adam")


class Objective(Protocol):
    """What a `PictureModel` is compiled with: the weighted terms of the loss of a picture, whose sum is minimized."""

    def terms(self, picture: Any) -> Mapping[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> term name -> scalar or (1,)."""


def _picture(config: Any) -> Picture:
    return Picture(*config.shape)


class PictureModel(PaperModel):
    """A model whose only trained weight is a picture. It is trained with an `Objective` in the place of a loss.

    A subclass names its `Config`, which has `shape`, its `loss_terms` and its `default_objective`. Inputs are not
    looked at (`family.without_examples`). The objective, and any network in it, is not saved with the model.

    Args:
        config, dtype: see `PaperModel`; dtype is for the objective's network, the picture is float32.
        picture: a `layers.Picture` to begin with.

    Shapes:
        anything -> (1, height, width, 3), RGB 0-255, not clipped.
    """

    one_device = "there is one picture, and no batch to share"
    networks: ClassVar[Mapping[str, Callable[[Any], keras.Layer]]] = {"picture": _picture}
    objective: Objective | None = None
    _terms_of_now: Callable[[], Mapping[str, Any]] | None = None

    def default_objective(self) -> Objective:
        """What `compile` takes if it is given none."""
        raise UsageError("the model has no objective of its own. Give one: `model.compile(optimizer, objective)`.")

    def call(self, inputs: Any = None, training: bool | None = None) -> Any:
        return self.picture(inputs)

    def compile(  # type: ignore[override]
        self, optimizer: Any = None, objective: Objective | None = None, **kwargs: Any
    ) -> None:
        """As `PaperModel.compile`, with an objective instead of a loss; None for the one that the config describes."""
        super().compile(optimizer, **kwargs)
        # Behind Keras' back: it would take a network inside for a part of the model, and save it.
        object.__setattr__(self, "objective", self.default_objective() if objective is None else objective)
        object.__setattr__(self, "_terms_of_now", None)

    def weighted_terms(self, picture: Any) -> dict[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> term name -> scalar: the objective's terms, whose sum is minimized."""
        if self.objective is None:
            raise UsageError("the model has no objective yet. Call `model.compile(optimizer, objective)` first.")
        return {name: ops.sum(value) for name, value in self.objective.terms(picture).items()}

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        return sum(self.weighted_terms(y_pred).values())

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update of the picture."""
        with tf.GradientTape() as tape:
            terms = self.weighted_terms(self(None))
            loss = sum(terms.values())
        self.minimize("all", loss, tape)
        self.report(loss=loss, **terms)
        return self.reported()

    def terms(self) -> dict[str, float]:
        """The weighted terms of the objective at the present picture; their sum is the loss."""
        now = self._terms_of_now
        if now is None:
            # Traced at once: TensorFlow warns of many functions made at one line, of which each has its own model.
            now = tf.function(lambda: self.weighted_terms(self(None)), autograph=False).get_concrete_function()
            object.__setattr__(self, "_terms_of_now", now)
        return {name: float(value) for name, value in now().items()}

    def pixels(self) -> np.ndarray:
        """The picture as it is now, (H, W, 3) float32, RGB 0-255, not clipped."""
        return self.picture.pixels.numpy()[0]


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """RGB 0-255 of any range and type, rounded and clipped."""
    return np.clip(np.rint(pixels), 0, 255).astype("uint8")


@dataclass(frozen=True)
class Stage:
    """A part of an optimization.

    Args:
        steps: iterations at most.
        model: (the picture that the stage before ended with, (H, W, 3) float32, None in the first) -> a compiled model
            whose picture is where to begin.
    """

    steps: int
    model: Callable[[np.ndarray | None], PictureModel]


@dataclass(frozen=True)
class Painted:
    """What `optimize_picture` did.

    Attributes:
        picture: (H, W, 3) uint8, as written.
        steps: iterations made.
        evaluations: times the loss and its gradient were computed.
        seconds: for all of it.
        loss: the last one.
        terms: its weighted terms.
        history: the loss before each iteration and after the last, of each stage.
    """

    picture: np.ndarray
    steps: int
    evaluations: int
    seconds: float
    loss: float
    terms: Mapping[str, float]
    history: tuple[tuple[float, ...], ...] = field(repr=False)


def optimize_picture(
    stages: Sequence[Stage],
    out: str | Path,
    *,
    method: str = "lbfgs",
    finish: Callable[[np.ndarray], np.ndarray] = to_uint8,
    log: str | Path | None = None,
    preview_every: int = 50,
    log_every: int = 10,
    progress: bool | None = None,
) -> Painted:
    """Drive one stage after the other and write the picture.

    Ctrl-C and SIGTERM finish the iteration, write the picture so far and raise `Interrupted`.

    Args:
        stages: at least one.
        out: the picture to write; also while it is being made, every `preview_every` iterations.
        method: "adam", by `fit` with the optimizer the model was compiled with; or "lbfgs" or "cg", by
            `optimizers.minimize`.
        finish: what becomes of the pixels (H, W, 3) float32 before they are written: uint8.
        log: a folder for log.csv, the previews, TensorBoard's curves and gallery.html, as in a run folder.
        preview_every: iterations between two previews; 0 for none.
        log_every: iterations between two lines of progress and of the log.
        progress: True for a bar, False for none, None for a bar on a terminal and plain lines elsewhere.

    Raises:
        UsageError: no stages, an unknown method, or a log folder with a log in it.
        DivergedError: a term became NaN or infinite, named with its step; `out` has the last preview.
        Interrupted: see above.
        StorageError: `out` or `log` cannot be written.
    """
    if method not in METHODS:
        raise unknown_name("method", method, METHODS)
    if not stages or min(stage.steps for stage in stages) < 1:
        raise UsageError(f"expected stages of at least 1 step. Received: {[stage.steps for stage in stages]}.")
    out, log = Path(out), None if log is None else Path(log)
    if log is not None and (log / "log.csv").exists():
        raise UsageError(f"expected a new folder to log into. Received: {str(log)!r}, which has a log.csv.")
    _check_writable(out)
    total, done, evaluations, began = sum(stage.steps for stage in stages), 0, 0, time.perf_counter()
    pixels: np.ndarray | None = None
    histories: list[tuple[float, ...]] = []
    with ExitStack() as stack:
        shown = stack.enter_context(display(progress, 0, total))
        notice = "stopping after this step; Ctrl-C again aborts at once"
        stop = stack.enter_context(stop_on_signal(lambda: shown.say(notice)))
        writer = None
        if log is not None:
            log.mkdir(parents=True, exist_ok=True)
            writer = stack.enter_context(closing(tf.summary.create_file_writer(os.fsencode(log / "tensorboard"))))
        for stage in stages:
            model = stage.model(pixels)
            numbers = Log(
                None if log is None else log / "log.csv",
                log_every,
                done + stage.steps,
                1,
                shown,
                writer,
                start=done,
                seconds=time.perf_counter() - began,
            )
            live = _Live(done, out, finish, preview_every, stop.is_set)
            callbacks = [NaNStop(done), numbers]
            if log is not None:
                preview = lambda m: {"picture": finish(m.pixels())}  # noqa: E731
                callbacks.append(Gallery(log, preview, preview_every, done, writer))
            callbacks.append(live)
            drive = _by_fit if method == "adam" else _by_minimize
            history, count = drive(model, method, stage.steps, done, callbacks, log_every)
            histories.append(history)
            evaluations += count
            done, pixels = live.step, model.pixels()
            if stop.is_set():
                break
        assert pixels is not None
        picture = finish(pixels)
        write_image(out, picture)
    if stop.is_set() and done < total:
        raise Interrupted(f"stopped at step {done} of {total}; the picture so far is in {out}.")
    terms = model.terms()
    return Painted(
        picture=picture,
        steps=done,
        evaluations=evaluations,
        seconds=time.perf_counter() - began,
        loss=sum(terms.values()),
        terms=terms,
        history=tuple(histories),
    )


def _check_writable(out: Path) -> None:
    """Raise now what `write_image` would raise after minutes of work."""
    check_picture_name(out)
    if out.is_dir():
        raise storage_error(out, IsADirectoryError(errno.EISDIR, "a folder"))
    storage.check_writable(out)


class _Live(StepCallback):
    """Writes the picture so far when due, and stops when asked to."""

    def __init__(self, start: int, out: Path, finish: Callable[..., np.ndarray], every: int, asked: Callable[[], bool]):
        super().__init__(start)
        self.out, self.finish, self.every, self.asked = out, finish, every, asked

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        if self.asked():
            self.model.stop_training = True
        if due(self.every, before, step):
            write_image(self.out, self.finish(self.model.pixels()))


class _History(keras.callbacks.Callback):
    """The loss of every step, from the running means that Keras hands out."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self.model.reset_metrics()

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.losses.append(float((logs or {})["loss"]))


def _by_fit(
    model: PictureModel,
    method: str,
    steps: int,
    start: int,
    callbacks: Sequence[keras.callbacks.Callback],
    every: int,
) -> tuple[tuple[float, ...], int]:
    history = _History()
    examples = without_examples(model.config).batches(model, start)
    model.fit(examples, steps_per_epoch=steps, callbacks=[history, *callbacks], shuffle=False, verbose=0)
    return (*history.losses, sum(model.terms().values())), len(history.losses)


def _by_minimize(
    model: PictureModel,
    method: str,
    steps: int,
    start: int,
    callbacks: Sequence[keras.callbacks.Callback],
    every: int,
) -> tuple[tuple[float, ...], int]:
    """`optimizers.minimize`, with Keras callbacks called as `fit` calls them."""
    calls = keras.callbacks.CallbackList(list(callbacks), model=model)
    model.stop_training = False
    before = 0

    def report(iteration: int, value: float) -> bool:
        nonlocal before
        logs = {"loss": value}
        if due(every, start + before, start + iteration) or iteration >= steps:
            logs |= model.terms()
        before = iteration
        calls.on_train_batch_end(iteration - 1, logs)
        calls.on_train_batch_begin(iteration)
        return bool(model.stop_training)

    calls.on_train_begin()
    calls.on_epoch_begin(0)
    calls.on_train_batch_begin(0)
    try:
        result = optimizers.minimize(
            model,
            (np.zeros((1, 0), "float32"),),
            method,
            max_iterations=steps,
            tolerance=0.0,
            # One level of 0-255 everywhere.
            first_length=float(np.sqrt(model.picture.pixels.shape.num_elements())),
            callback=report,
            callback_every=1,
        )
    except DivergedError as error:
        bad = [(name, value) for name, value in model.terms().items() if not np.isfinite(value)]
        if not bad:
            raise
        name, value = bad[0]
        raise DivergedError(
            start + error.step, name, value, f"Put less weight on {name}, or begin elsewhere."
        ) from error
    calls.on_epoch_end(0)
    calls.on_train_end()
    return result.history, result.evaluations
