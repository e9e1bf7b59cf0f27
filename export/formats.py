"""The one table of formats. Making, verifying, timing, validation, the CLI and the tests all read it.

What a format does beyond its row is in its own module, behind `Exporter`; nothing else knows a format by name.
Importing this module imports no TensorFlow; the modules that do the work are imported when they are needed.
"""

import abc
import importlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasmodels.errors import UsageError, unknown_name

if TYPE_CHECKING:
    from kerasmodels.export.order import Order
    from kerasmodels.export.report import Artifact
    from kerasmodels.family import Servable


class Exporter(abc.ABC):
    """What a format's own module does. The defaults suit a single file that its runtime executes."""

    @abc.abstractmethod
    def make(self, orders: "Sequence[Order]") -> list[dict[str, Any]]:
        """Write `order.path` of each order; conversions share a process.

        Returns:
            Of each: `versions` of the packages that made it, and its `opset` if it has one.
        """

    @abc.abstractmethod
    def operators(self, path: Path) -> dict[str, int]:
        """How often each operator occurs, most frequent first."""

    @abc.abstractmethod
    def read_metadata(self, path: Path) -> dict[str, Any]:
        """What `make` wrote into the artifact.

        Raises:
            KeyError, ValueError, OSError: there is none, or it is no such artifact.
        """

    @abc.abstractmethod
    def limits(self, artifacts: "Sequence[Artifact]") -> list[str]:
        """Sentences for the model card on what these artifacts of one model cannot do."""

    @abc.abstractmethod
    def next_steps(self, artifact: "Artifact", servable: "Servable", path: Path) -> list[str]:
        """Shell lines to copy and paste that use the artifact at `path`."""

    def not_executed(self, path: Path) -> str:
        """Why no runtime here executes this artifact; empty if one does."""
        return ""

    def place(self, out: Path, name: str, file_name: str) -> Path:
        """Where an artifact of the model `name` goes, relative to the output folder."""
        return Path(file_name)

    def deployment(self, out: Path, models: Mapping[str, Mapping[str, Any]]) -> dict[str, str | Path]:
        """What the server of `Format.server` needs: texts, or files to copy, by path relative to `out`.

        Args:
            out: the output folder.
            models: of export.json, with the verified artifacts of this format alone.
        """
        return {}

    def server_files(self, out: Path, names: Sequence[str]) -> dict[str, str]:
        """Text files that a server needs beside verified artifacts of the models `names`, by path relative to `out`."""
        return {}


@dataclass(frozen=True)
class Format:
    """One kind of artifact.

    Args:
        name: what users write.
        title: what tables of timings call its runtime.
        suffix: of the file; empty for a folder.
        line: what it is for, in one line.
        precisions: the supported ones, the default first.
        options: which options of `export` it heeds.
        runtime: what executes it, by its name in `runners/runtimes.py`.
        threads: whether that runtime can be given a number of threads.
        dynamic: whether its named dimensions (batch, height, ...) may vary unless the user fixes them.
        files: whether it also takes a picture as the bytes of a file, through a signature of its own.
        server: whose files `deployment` writes, by the name that users write; empty for none.
        home: the module with its `EXPORTER`.
    """

    name: str
    title: str
    suffix: str
    line: str
    precisions: tuple[str, ...]
    options: tuple[str, ...]
    runtime: str
    threads: bool
    dynamic: bool
    files: bool
    server: str
    home: str

    @property
    def exporter(self) -> Exporter:
        """What makes and reads this format."""
        return importlib.import_module(f"kerasmodels.export.{self.home}").EXPORTER


FORMATS = (
    Format(
        name="saved_model",
        title="SavedModel",
        suffix="",
        line="a folder for TensorFlow Serving: tensors or JPEG/PNG bytes in, any size, any batch",
        precisions=("fp32",),
        options=(),
        runtime="tensorflow",
        threads=False,
        dynamic=True,
        files=True,
        server="serving",
        home="to_saved_model",
    ),
    Format(
        name="litert",
        title="LiteRT",
        suffix=".tflite",
        line="a file for phones and small computers: built-in operators only, one fixed size by default",
        precisions=("fp32", "fp16", "dynamic", "int8"),
        options=("size", "calibration", "allow_flex"),
        runtime="ai_edge_litert",
        threads=True,
        dynamic=False,
        files=False,
        server="",
        home="to_litert",
    ),
    Format(
        name="onnx",
        title="ONNX Runtime",
        suffix=".onnx",
        line="a file for ONNX Runtime and everything that speaks ONNX: any size, any batch",
        precisions=("fp32", "fp16", "int8"),
        options=("calibration", "older_onnx"),
        runtime="onnxruntime",
        threads=True,
        dynamic=True,
        files=False,
        server="triton",
        home="to_onnx",
    ),
)
NAMES = tuple(f.name for f in FORMATS)
SERVERS = tuple(f.server for f in FORMATS if f.server)
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
                return candidate.exporter.read_metadata(path)
            except (KeyError, ValueError, OSError) as error:
                raise UsageError(
                    f"expected a {candidate.name} artifact written by kerasmodels. Received: {str(path)!r} ({error})."
                ) from error
    raise UsageError(
        f"expected a folder or a file ending in {', '.join(f.suffix for f in FORMATS if f.suffix)}. "
        f"Received: {str(path)!r}."
    )
