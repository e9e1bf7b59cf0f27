"""The contract every family fulfils, and the words for what leaves the building.

A family is one paper in one file of `kerasmodels/models/`, ending in `FAMILY = Family(...)`. Everything else in the
library (CLI, training, export, conformance tests, docs) sees families only through the types below.
This module imports neither Keras nor TensorFlow.
"""

import dataclasses
import json
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

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
        dtype: NumPy dtype name.
        doc: meaning, units and range, e.g. "RGB picture, 0-255".
        kind: "image" if it is an sRGB picture batch (N, H, W, 3) uint8; artifacts may then also accept JPEG/PNG bytes.
        atol: for outputs, the largest absolute difference to Keras that counts as equal in fp32.
        extremes: for inputs that are no pictures, values of the documented range that artifacts are also checked on:
            the whole tensor of each, and a random mix of them. Empty where only examples make sense.
    """

    name: str
    shape: tuple[int | str, ...]
    dtype: str
    doc: str
    kind: Literal["tensor", "image"] = "tensor"
    atol: float = 1e-4
    extremes: tuple[float, ...] = ()

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
        min_psnr: quality gate (dB) of the reduced precisions against the fp32 Keras model, over the outputs' range.
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
    doc: str = ""
    without: Mapping[tuple[str, str], str] = field(default_factory=dict)
    unequal: Mapping[str, str] = field(default_factory=dict)

    def lacks(self, form: str, precision: str) -> str:
        """Why there is no artifact of that format and precision; empty if there is one."""
        if precision != "fp32" and not self.model.variables:
            return "it has no weights to reduce; export it in fp32."
        return self.without.get((form, precision), "")


@dataclass(frozen=True)
class Datasets:
    """What `fit` reads. `train` is endless and deterministic; `validation` is finite, or None."""

    train: "tf.data.Dataset"
    validation: "tf.data.Dataset | None" = None


@dataclass(frozen=True)
class RunReport:
    """What `run` did: files written, in order, and facts worth showing (seconds, sizes)."""

    outputs: tuple[Path, ...]
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Row:
    """One measured claim of `reproduce`. `passed` is whether `ours` meets `gate`."""

    claim: str
    paper: str
    ours: float | str
    gate: str
    passed: bool


@dataclass(frozen=True)
class Experiment:
    """Shows one of the paper's effects with numbers and pictures.

    Args:
        line: what it shows, in one line.
        measure: (data folder or None, folder for figures, quick) -> rows. Raises DataError if it needs a folder it was
            not given.
        private: its figures show pictures that may not be passed on, so they are no part of the project.
    """

    line: str
    measure: Callable[["Path | None", Path, bool], Sequence[Row]]
    private: bool = False


@dataclass(frozen=True)
class Family:
    """One paper, able to build, fit, run, serve and reproduce.

    Args:
        name: registry name.
        config: frozen dataclass; the paper's values are its defaults. It has `validate()` raising UsageError. Where
            there is something to train, its fields are the flags of `train`, and it has at least `steps`, `batch`,
            `learning_rate` and `seed`.
        variants: named configs: "paper", for a family that trains "quick", and others.
        model: config -> the untrained `keras.Model`, uncompiled. Needs no data and no downloads; but where there is
            nothing to train it may be a pretrained network, and raise WeightsError if its weights are not cached.
        build: config -> the same model, compiled. Plain `fit(datasets(config).train)` trains it. None: there is nothing
            to train (the family is a solver or a visualisation); its registry row says so too.
        datasets: (config, start) -> Datasets whose training stream begins at batch number `start`. None if `build` is.
        servables: (model, config) -> name -> Servable; the first is the default.
        preview: (model, config) -> name -> uint8 (H, W, 3) picture for galleries, or None.
        run_options: frozen dataclass; its fields are the flags of `run`.
        run: run_options -> RunReport, the user's task on files.
        experiments: name -> Experiment.
    """

    name: str
    config: type
    variants: Mapping[str, Any]
    model: "Callable[[Any], keras.Model]"
    build: "Callable[[Any], keras.Model] | None"
    datasets: Callable[[Any, int], Datasets] | None
    servables: "Callable[[keras.Model, Any], Mapping[str, Servable]]"
    run_options: type
    run: Callable[[Any], RunReport]
    experiments: Mapping[str, Experiment]
    preview: "Callable[[keras.Model, Any], dict[str, np.ndarray]] | None" = None

    def trainer(self) -> "tuple[Callable[[Any], keras.Model], Callable[[Any, int], Datasets]]":
        """`build` and `datasets`.

        Raises:
            UsageError: there is nothing to train.
        """
        if self.build is None or self.datasets is None:
            raise nothing_to_train(self.name)
        return self.build, self.datasets

    def variant(self, name: str) -> Any:
        """The named config.

        Raises:
            UsageError: no such variant.
        """
        if name not in self.variants:
            raise unknown_name(f"variant of {self.name}", name, self.variants)
        return self.variants[name]

    def config_from_dict(self, values: Mapping[str, Any]) -> Any:
        """The config with these values, missing fields at their defaults (the inverse of `config_to_dict`).

        Raises:
            UsageError: an unknown field, or a value of another type or out of range.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"expected a table of {self.name}'s config. Received: {type(values).__name__}.")
        declared = {f.name: f.type for f in dataclasses.fields(self.config)}
        unknown = [key for key in values if key not in declared]
        if unknown:
            raise unknown_name(f"field of {self.name}'s config", unknown[0], declared)
        given = {key: _from_json(value, declared[key]) for key, value in values.items()}

        def check_types(choices: bool) -> None:
            for key, value in given.items():
                if not _fits(value, declared[key], choices):
                    words = getattr(declared[key], "__name__", "") or str(declared[key])
                    raise UsageError(f"expected {key} of {self.name}'s config as {words}. Received: {value!r}.")

        check_types(choices=False)
        config = self.config(**given)
        # It knows best what to say of a wrong choice.
        config.validate()
        check_types(choices=True)
        return config


def nothing_to_train(name: str) -> UsageError:
    """The error for training family `name`, which has nothing to train."""
    return UsageError(
        f"expected a family that is trained. Received: {name!r}, which has nothing to train: "
        f"use it right away with `kerasmodels run {name}` (its flags: `kerasmodels run {name} --help`)."
    )


def _from_json(value: Any, declared: Any) -> Any:
    """A field's value from its JSON form: lists were tuples, and strings of Path fields paths."""
    if isinstance(value, list):
        (element, *_) = typing.get_args(declared) or (None,)
        return tuple(_from_json(v, element) for v in value)
    if isinstance(value, str) and (declared is Path or Path in typing.get_args(declared)):
        return Path(value)
    return value


def _fits(value: Any, declared: Any, choices: bool) -> bool:
    """Whether the value is of the declared type, and of a Literal's choices one; other types are not looked at."""
    kind, parts = typing.get_origin(declared), typing.get_args(declared)
    if kind is typing.Annotated:
        return _fits(value, parts[0], choices)
    if kind in (typing.Union, types.UnionType):
        return any(_fits(value, part, choices) for part in parts)
    if kind is typing.Literal:
        return any(type(value) is type(part) and (value == part or not choices) for part in parts)
    if kind is tuple:
        if not isinstance(value, tuple) or (parts[-1] is not ... and len(value) != len(parts)):
            return False
        return all(_fits(v, parts[0] if parts[-1] is ... else parts[i], choices) for i, v in enumerate(value))
    if declared in (int, float):
        return isinstance(value, int if declared is int else int | float) and not isinstance(value, bool)
    return not isinstance(declared, type) or isinstance(value, kind or declared)


def config_to_dict(config: Any) -> dict[str, Any]:
    """The config as plain JSON values."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def check(condition: bool, expected: str, received: Any) -> None:
    """Raise UsageError(expected, received) unless `condition`; for `Config.validate`."""
    if not condition:
        raise UsageError(f"expected {expected}. Received: {received!r}.")
