"""Configs: frozen dataclasses whose annotations say which values are allowed.

    class Config(TrainingConfig):
        width: PositiveInt = 64
        \"\"\"Filters of the widest maps.\"\"\"

A subclass becomes a dataclass by itself. Values are checked and converted when it is made, wherever they come from:
keywords, flags, a JSON card, a TOML file. A config that exists is valid. `validate` checks what relates several fields.
This module imports neither Keras nor TensorFlow.
"""

import dataclasses
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self, TypeVar, dataclass_transform, get_args, get_type_hints

import pydantic.dataclasses
import pydantic_core
from annotated_types import Ge, Gt, Interval

from kerasmodels import reading
from kerasmodels.errors import UsageError, unknown_name

PositiveInt = Annotated[int, Gt(0)]
NonNegativeInt = Annotated[int, Ge(0)]
Positive = Annotated[float, Gt(0), pydantic.AllowInfNan(False)]
NonNegative = Annotated[float, Ge(0), pydantic.AllowInfNan(False)]
Finite = Annotated[float, pydantic.AllowInfNan(False)]
Fraction = Annotated[float, Interval(ge=0, le=1)]
"""From 0 to 1."""

_T = TypeVar("_T")


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Config:
    """Base of all configs and of the options of all tasks.

    Raises:
        UsageError: when made: an unknown field, a value of the wrong type or out of range, fields that contradict.
    """

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        pydantic.dataclasses.dataclass(frozen=True, kw_only=True)(cls)
        checked = cls.__init__

        def __init__(self: Any, *args: Any, **values: Any) -> None:
            known = {field.name for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
            for name in values:
                if name not in known:
                    raise unknown_name(f"field of {_owner(cls)}", name, known)
            try:
                checked(self, *args, **values)
            except pydantic.ValidationError as error:
                raise _usage_error(error) from None
            self.validate()

        cls.__init__ = __init__  # type: ignore[method-assign]

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other; every field by itself is in range already."""

    def to_dict(self) -> dict[str, Any]:
        """The values as JSON has them: `type(self).from_dict` makes an equal config of them."""
        values = ((f.name, getattr(self, f.name)) for f in dataclasses.fields(self))  # type: ignore[arg-type]
        return {name: pydantic_core.to_jsonable_python(value) for name, value in values}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any], start: "Self | None" = None) -> Self:
        """The config with these values, as JSON and TOML have them; all others are those of `start`, or the defaults.

        Raises:
            UsageError: an unknown field, or a value of another type or out of range.
        """
        if not isinstance(values, Mapping):
            raise UsageError(f"expected the fields of {_owner(cls)} by name. Received: {values!r:.80}.")
        values = {**values, **{name: None for name in _not_none(cls) if values.get(name) == "none"}}  # see `to_toml`
        config = cls(**values) if start is None else dataclasses.replace(start, **values)  # type: ignore[type-var]
        try:
            # Numbers in quotes, and true for 1, are let through above, because flags are text.
            cls.__pydantic_validator__.validate_json(  # type: ignore
                pydantic_core.to_json(_texts(dict(values), _unicode)), strict=True
            )
        except pydantic.ValidationError as error:
            raise _usage_error(error) from None
        return config

    @classmethod
    def part_of(cls, options: "Config") -> Self:
        """The config whose fields `options` has among others, under the same names; the rest are the defaults."""
        names = [field.name for field in dataclasses.fields(cls)]  # type: ignore[arg-type]
        return cls(**{name: getattr(options, name) for name in names if hasattr(options, name)})

    @classmethod
    def from_toml(cls, path: str | Path, start: "Self | None" = None) -> Self:
        """The config with the values of a TOML file; all others are those of `start`, or the defaults.

        Raises:
            UsageError: the file cannot be read, is no TOML, or a value does not fit.
        """
        try:
            values = reading.read_toml(Path(path))
        except OSError as error:
            raise UsageError(f"expected a TOML file. Received: {str(path)!r} ({error.strerror}).") from error
        except ValueError as error:
            raise UsageError(f"{path} is not valid TOML: {error}.") from error
        try:
            return cls.from_dict(_texts(values, lambda text: text), start)
        except UsageError as error:
            raise UsageError(f"{path}: {error}") from None

    def to_toml(self) -> str:
        """The config as TOML, a line for each field.

        TOML has no null: what is None is left out, or is the string "none" where the default is a number. A file's name
        that is no Unicode is {bytes = "..."}, its bytes as Latin-1.
        """
        unset = dict.fromkeys(_not_none(type(self)), "none")
        values = {key: unset.get(key) if value is None else value for key, value in self.to_dict().items()}
        return "".join(f"{key} = {_toml(value)}\n" for key, value in values.items() if value is not None)


class TrainingConfig(Config):
    """Fields of every config that is trained."""

    start_from: str | None = None
    """Begin with these weights instead of random ones: a run folder, or a preset such as fast_style/wave."""
    steps: PositiveInt = 10000
    """Training steps (batches)."""
    batch: PositiveInt = 32
    """Examples in a step."""
    learning_rate: Positive = 1e-3
    """Of the optimizer."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Of the training alone: mixed_bfloat16 halves the time where the processor has such instructions. Weights stay
    float32, and so does what is exported."""
    seed: NonNegativeInt = 0
    """Of the data's order, of random numbers in the training and, under `kerasmodels train`, of the initial weights."""


def check(condition: bool, expected: str, received: Any) -> None:
    """Raise UsageError(expected, received) unless `condition`; for `Config.validate`."""
    if not condition:
        raise UsageError(f"expected {expected}. Received: {received!r}.")


def needed(value: _T | None, what: str) -> _T:
    """A value of the config that its training cannot do without; raise UsageError(what) if it was left out."""
    if value is None:
        raise UsageError(f"training needs {what}.")
    return value


def _not_none(cls: type) -> list[str]:
    """The fields that are numbers by default, and may be None."""
    hints = get_type_hints(cls)
    fields = dataclasses.fields(cls)
    return [f.name for f in fields if isinstance(f.default, int | float) and type(None) in get_args(hints[f.name])]


def _owner(cls: type) -> str:
    """Whose fields they are: "wgan's Config"."""
    return f"{cls.__module__.rpartition('.')[2]}'s {cls.__qualname__}"


def _usage_error(error: pydantic.ValidationError) -> UsageError:
    return UsageError(" ".join(_in_words(problem) for problem in error.errors()))


def _in_words(problem: Mapping[str, Any]) -> str:
    """A violation that pydantic found, as one sentence."""
    field, *places = problem["loc"] or ("values",)
    where = str(field) + "".join(f"[{place}]" for place in places if isinstance(place, int))
    wanted = re.sub("^Input (should be|is not) |, (unable|got) .*|for <class.*", "", str(problem["msg"]))
    limits = {"gt": ">", "ge": ">=", "lt": "<", "le": "<="}
    signs = [f"{limits[key]} {value:g}" for key, value in problem.get("ctx", {}).items() if key in limits]
    expected = f"{where} {signs[0]}" if signs else f"{where}: {wanted}"
    return f"expected {expected}. Received: {where}={problem['input']!r}."


def _texts(value: Any, change: Callable[[str], str]) -> Any:
    """The value with every text in it changed, and with names that are no Unicode as Python has them (`to_toml`)."""
    if isinstance(value, str):
        return change(value)
    if isinstance(value, list | tuple):
        return [_texts(entry, change) for entry in value]
    if isinstance(value, Mapping):
        if value.keys() == {"bytes"} and isinstance(value["bytes"], str) and max(value["bytes"], default="") <= "\xff":
            return change(os.fsdecode(value["bytes"].encode("latin-1")))
        return {key: _texts(entry, change) for key, entry in value.items()}
    return value


def _unicode(text: str) -> str:
    return text.encode(errors="replace").decode()


def _toml(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list):
        return f"[{', '.join(map(_toml, value))}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml(key)} = {_toml(entry)}" for key, entry in value.items()) + "}"
    if isinstance(value, str) and value != _unicode(value):
        return f"{{bytes = {_toml(os.fsencode(value).decode('latin-1'))}}}"
    return pydantic_core.to_json(value).decode().replace("\x7f", "\\u007f")
