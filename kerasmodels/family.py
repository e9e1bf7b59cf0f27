"""The contract every family fulfills, and the words for what leaves the building.

A family is one paper in one file of `kerasmodels/models/`, ending in `FAMILY = Family(...)`. Everything else in the
library (CLI, training, export, conformance tests, docs) sees families only through the types below.
This module imports neither Keras nor TensorFlow.
"""

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol

from kerasmodels.config import Config
from kerasmodels.errors import UsageError, unknown_name

if TYPE_CHECKING:
    import keras
    import numpy as np
    import tensorflow as tf

Precision = Literal["fp32", "fp16", "int8", "dynamic"]


@dataclass(frozen=True)
class TensorSpec:
    """A named input or output of a servable.

    Args:
        name: the name clients use.
        shape: an int for a fixed dimension, a str for one that may vary; the str is its name in every artifact.
        dtype: NumPy dtype name; or "string": UTF-8, which only SavedModel has.
        doc: meaning, units and range, e.g. "RGB picture, 0-255".
        kind: "image" if it is an sRGB picture batch (N, H, W, 3) uint8; artifacts may then also accept and return the
            bytes of picture files.
        atol: for outputs, the largest absolute difference to Keras that counts as equal in fp32.
        extremes: for inputs that are no pictures, values of the documented range that artifacts are also checked on:
            the whole tensor of each, and a random mix of them. Empty where only examples make sense.
        classes: for outputs that hold numbers of classes, or one value for each class in the last axis: their names,
            in order. Artifacts carry them.
        follows: for an output that another one decides, as labels decide the picture painted with them: its name. It is
            judged by the share of equal values, as labels are.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    doc: str
    kind: Literal["tensor", "image"] = "tensor"
    atol: float = 1e-4
    extremes: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    follows: str = ""

    def fits(self, array: "np.ndarray") -> bool:
        """Whether an array has the dtype; strings may be bytes of a fixed length, or objects."""
        return array.dtype.kind in "SUO" if self.dtype == "string" else array.dtype.name == self.dtype

    def bind(self, dims: Mapping[str, int | None]) -> tuple[int | None, ...]:
        """The shape with its named dimensions replaced by `dims[name]`."""
        return tuple(dims[d] if isinstance(d, str) else d for d in self.shape)


@dataclass(frozen=True)
class Servable:
    """One callable that can leave the building, pre- and post-processing included.

    Args:
        call: takes one tensor per input, as keyword arguments, and returns a dict of outputs. TensorFlow and
            `keras.ops` only, traceable with unknown dimensions, rank <= 4.
        model: the Keras model whose variables `call` reads (artifacts hold those and nothing else).
        inputs, outputs: their specs. A dimension name means the same number wherever it appears.
        example: (dims, seed) -> one realistic input per name with the named dimensions bound; used to verify, warm up,
            time and calibrate.
        dims: the value of each named dimension where an artifact must have a fixed one (LiteRT).
        check_dims: further values of the named dimensions that a dynamic artifact must also agree on.
        min_psnr: quality gate (dB) of the reduced precisions against the fp32 Keras model, over the range of outputs
            that are pictures or floats.
        min_equal: their gate for outputs that are decisions, such as labels: the share of equal values.
        align: (expected, found) -> found, for outputs whose slots have no order of their own, such as a detector's: in
            reduced precision, what was found is put in the order of what was expected before they are compared.
        doc: one line for the model card.
        without: (format, precision) that cannot exist -> why, in one sentence with what to use instead. Asking for one
            is an error that says so.
        unequal: name of a hostile input (see `kerasmodels.export.hostile`) -> why artifacts cannot be equal to Keras on
            it, in one sentence. Finite they must be all the same; the difference is measured and shown with the reason.
    """

    call: Callable[..., "dict[str, tf.Tensor]"]
    model: "keras.Model"
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
    example: Callable[[Mapping[str, int], int], "dict[str, np.ndarray]"]
    dims: Mapping[str, int]
    check_dims: tuple[Mapping[str, int], ...] = ()
    min_psnr: Mapping[str, float] = field(default_factory=lambda: {"fp16": 40.0, "dynamic": 25.0, "int8": 25.0})
    min_equal: Mapping[str, float] = field(default_factory=lambda: {"fp16": 0.99, "dynamic": 0.95, "int8": 0.95})
    align: "Callable[[Mapping[str, np.ndarray], Mapping[str, np.ndarray]], Mapping[str, np.ndarray]] | None" = None
    doc: str = ""
    without: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unequal: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, form: str, precision: str) -> str:
        """Why there is no artifact of that format and precision; empty if there is one."""
        if precision != "fp32" and not self.model.variables:
            return "it has no weights to reduce; export it in fp32."
        return self.without.get((form, precision), "")


class Source(Protocol):
    """Where the batches of a training come from. It may depend on the model, as a replay memory does.

    `stream` makes one of a function; a source that keeps something between batches is a class of its own.
    """

    def batches(self, model: "keras.Model", start: int) -> "tf.data.Dataset":
        """Endless batches for `fit`, from batch number `start` on."""

    def state(self) -> "Mapping[str, np.ndarray]":
        """What decides the next batches besides their number; checkpoints keep it."""

    def set_state(self, state: "Mapping[str, np.ndarray]") -> None:
        """Put `state()` back; called before `batches`."""


@dataclass(frozen=True)
class _Stream:
    make: "Callable[[int], tf.data.Dataset]"

    def batches(self, model: "keras.Model", start: int) -> "tf.data.Dataset":
        return self.make(start)

    def state(self) -> "Mapping[str, np.ndarray]":
        return {}

    def set_state(self, state: "Mapping[str, np.ndarray]") -> None:
        pass


def stream(make: "Callable[[Any, int], tf.data.Dataset]") -> Callable[[Any], Source]:
    """A family's `source` that needs neither model nor state: `make` is (config, start) -> batches from `start` on."""
    return lambda config: _Stream(partial(make, config))


def _nothing(config: Any, start: int) -> "tf.data.Dataset":
    import tensorflow as tf

    return tf.data.Dataset.from_tensors(tf.zeros((1, 0))).repeat()


without_examples = stream(_nothing)
"""The `source` of a family whose model holds all that its training looks at, such as a picture that is optimized:
batches (1, 0), one example without values, so that `fit` counts steps."""


@dataclass(frozen=True)
class RunReport:
    """What a task did: files written, in order, and facts worth showing (seconds, sizes, answers)."""

    outputs: tuple[Path, ...] = ()
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Task:
    """What users do with a trained model: `kerasmodels run FAMILY`.

    Args:
        options: a `Config`; its fields are the flags, its docstring is the help.
        run: options -> RunReport. Files are read and written here; the work on arrays is a function of its own, which
            a server can call, too.
    """

    options: type
    run: Callable[[Any], RunReport]


@dataclass(frozen=True)
class Claim:
    """One measured claim of a paper.

    Args:
        key: its name in results/<family>.json, by which docs quote it: letters, digits and _; it does not change.
        text: what was measured, with its unit.
        paper: what the paper says of it.
        ours: what was measured here.
        at_least, at_most, equals: the gate. A claim without one is a measurement: neither passed nor missed.
    """

    key: str
    text: str
    paper: str
    ours: float | str | bool
    at_least: float | None = None
    at_most: float | None = None
    equals: float | str | bool | None = None

    @property
    def passed(self) -> bool | None:
        """Whether every gate is met; None without one."""
        met = [
            met(self.ours, bound)
            for met, bound in ((operator.ge, self.at_least), (operator.le, self.at_most), (operator.eq, self.equals))
            if bound is not None
        ]
        return all(bool(each) for each in met) if met else None

    def to_dict(self) -> dict[str, Any]:
        """As results/<family>.json holds it, by its key."""
        gate = {name: getattr(self, name) for name in ("at_least", "at_most", "equals")}
        return {
            "text": self.text,
            "paper": self.paper,
            "ours": self.ours,
            "gate": {name: bound for name, bound in gate.items() if bound is not None} or None,
            "passed": self.passed,
        }


@dataclass(frozen=True)
class Experiment:
    """Shows one of the paper's effects with numbers and pictures, on the model that users get.

    Args:
        line: what it shows, in one line.
        measure: (data folder or None, folder for figures, quick) -> claims. Raises DataError if it needs a folder it
            was not given.
        private: its figures show pictures that may not be passed on, so they are no part of the project.
    """

    line: str
    measure: Callable[["Path | None", Path, bool], Sequence[Claim]]
    private: bool = False


@dataclass(frozen=True)
class Family:
    """One paper, able to build, fit, run, serve and reproduce. Its claims are `kerasmodels.claims.<name>.EXPERIMENTS`.

    Args:
        name: registry name.
        config: a `Config`; the paper's values are its defaults. Where there is something to train it is a
            `TrainingConfig`, and its fields are the flags of `train`.
        variants: named configs: "paper", for a family that trains "quick", and others.
        model: (config, dtype=...) -> the untrained `keras.Model`, uncompiled; mostly a `PaperModel`. It has `config`.
            Needs no data and no downloads; but where there is nothing to train it may be a pretrained network, and
            raise WeightsError if its weights are not cached.
        servables: model -> name -> Servable; the first is the default.
        task: what users do with it.
        source: config -> Source; raises UsageError or DataError if the config names no usable data. None: there is
            nothing to train (the family is a solver or a visualization); its registry row says so too.
        preview: model -> name -> uint8 (H, W, 3) picture, or text, for galleries; None if there is nothing to see.
    """

    name: str
    config: type[Config]
    variants: Mapping[str, Any]
    model: "Callable[..., keras.Model]"
    servables: "Callable[[Any], Mapping[str, Servable]]"
    task: Task
    source: Callable[[Any], Source] | None = None
    preview: "Callable[[Any], Mapping[str, np.ndarray | str]] | None" = None

    def build(self, config: Any) -> "keras.Model":
        """The model as `train` begins with it: compiled, with the config's dtype policy and first weights."""
        model: Any = self.model(config, dtype=config.precision)
        model.initialize()
        model.compile()
        return model

    def batches(self, config: Any, model: "keras.Model | None" = None, start: int = 0) -> "tf.data.Dataset":
        """What `fit` reads, from batch number `start` on.

        Args:
            config: names the data.
            model: the one that is trained; only a source that depends on it needs it.
            start: number of the first batch.

        Raises:
            UsageError: there is nothing to train, or the config names no data.
            DataError: the data cannot be used.
        """
        return self.sourced(config).batches(model, start)

    def sourced(self, config: Any) -> Source:
        """The source of a training with this config.

        Raises:
            UsageError: there is nothing to train, or the config names no data.
            DataError: the data cannot be used.
        """
        if self.source is None:
            raise nothing_to_train(self.name)
        return self.source(config)

    def variant(self, name: str) -> Any:
        """The named config.

        Raises:
            UsageError: no such variant.
        """
        if name not in self.variants:
            raise unknown_name(f"variant of {self.name}", name, self.variants)
        return self.variants[name]


def nothing_to_train(name: str) -> UsageError:
    """The error for training family `name`, which has nothing to train."""
    return UsageError(
        f"expected a family that is trained. Received: {name!r}, which has nothing to train: "
        f"use it right away with `kerasmodels run {name}` (its flags: `kerasmodels run {name} --help`)."
    )
