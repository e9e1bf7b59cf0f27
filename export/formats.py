"""The one table of formats. Validation, the CLI, the documentation and the tests all read it.

Importing this module imports no TensorFlow; the modules that do the work are imported when they are needed.
"""

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from kerasmodels.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Format:
    """One kind of artifact.

    Args:
        name: what users write.
        suffix: of the file; empty for a folder.
        line: what it is for, in one line.
        precisions: the supported ones, the default first.
        options: which options of `export` it heeds.
        runtime: what executes it when it is verified.
        dynamic: whether its named dimensions (batch, height, ...) may vary unless the user fixes them.
        home: the module with `make`, `operators`, `read_metadata` and `next_steps`.
    """

    name: str
    suffix: str
    line: str
    precisions: tuple[str, ...]
    options: tuple[str, ...]
    runtime: str
    dynamic: bool
    home: str

    @property
    def module(self) -> ModuleType:
        """The module that makes and reads this format."""
        return importlib.import_module(f"kerasmodels.export.{self.home}")


FORMATS = (
    Format(
        name="saved_model",
        suffix="",
        line="a folder for TensorFlow Serving: tensors or JPEG/PNG bytes in, any size, any batch",
        precisions=("fp32",),
        options=(),
        runtime="tensorflow",
        dynamic=True,
        home="to_saved_model",
    ),
    Format(
        name="litert",
        suffix=".tflite",
        line="a file for phones and small computers: built-in operators only, one fixed size by default",
        precisions=("fp32", "fp16", "dynamic", "int8"),
        options=("size", "calibration", "allow_flex"),
        runtime="ai_edge_litert",
        dynamic=False,
        home="to_litert",
    ),
    Format(
        name="onnx",
        suffix=".onnx",
        line="a file for ONNX Runtime and everything that speaks ONNX: any size, any batch",
        precisions=("fp32", "fp16", "int8"),
        options=("calibration", "older_onnx"),
        runtime="onnxruntime",
        dynamic=True,
        home="to_onnx",
    ),
)
NAMES = tuple(f.name for f in FORMATS)
PRECISIONS = ("fp32", "fp16", "dynamic", "int8")


def find(name: str) -> Format:
    """The format called `name`.

    Raises:
        UsageError: there is none.
    """
    for candidate in FORMATS:
        if candidate.name == name:
            return candidate
    raise unknown_name("format", name, NAMES)


def select(names: str | Sequence[str], precision: str) -> tuple[Format, ...]:
    """The formats of a request, in the table's order, each able to hold `precision`.

    Args:
        names: format names, or one string of them separated by commas.
        precision: one of PRECISIONS.

    Raises:
        UsageError: an unknown name, none at all, or a format that does not support the precision.
    """
    wanted = [n.strip() for n in names.split(",")] if isinstance(names, str) else list(names)
    chosen = {find(name).name for name in wanted if name}
    if not chosen:
        raise UsageError(f"expected at least one format of {', '.join(NAMES)}. Received: {names!r}.")
    if precision not in PRECISIONS:
        raise unknown_name("precision", precision, PRECISIONS)
    formats = tuple(f for f in FORMATS if f.name in chosen)
    lacking = [f.name for f in formats if precision not in f.precisions]
    if lacking:
        table = "; ".join(f"{f.name}: {', '.join(f.precisions)}" for f in FORMATS)
        able = [f.name for f in FORMATS if precision in f.precisions]
        raise UsageError(
            f"{' and '.join(lacking)} does not support precision {precision!r}. Supported are {table}. "
            f"For {precision!r} ask for formats {','.join(able)}."
        )
    return formats


def read_metadata(path: str | Path) -> dict[str, Any]:
    """What an artifact says of itself: name, description, version, author, license, inputs, outputs, source.

    Args:
        path: a .tflite or .onnx file, or a SavedModel's version folder.

    Raises:
        UsageError: not an artifact of a known format, or it carries no such metadata.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError(f"expected an exported artifact. Received: {str(path)!r}, which does not exist.")
    suffix = "" if path.is_dir() else path.suffix
    for candidate in FORMATS:
        if candidate.suffix == suffix:
            try:
                return candidate.module.read_metadata(path)
            except (KeyError, ValueError, OSError) as error:
                raise UsageError(
                    f"expected a {candidate.name} artifact written by kerasmodels. Received: {str(path)!r} ({error})."
                ) from error
    raise UsageError(
        f"expected a folder or a file ending in {', '.join(f.suffix for f in FORMATS if f.suffix)}. "
        f"Received: {str(path)!r}."
    )
