"""`kerasmodels export SOURCE`: artifacts from a run folder or a preset, each executed and compared with Keras."""

import importlib
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from kerasmodels import presets, reading, registry
from kerasmodels.apps.command import Outcome, load_tensorflow, parse
from kerasmodels.data.images import read_image
from kerasmodels.errors import DataError, UsageError
from kerasmodels.export import formats as table
from kerasmodels.family import Precision

DESCRIPTION = "Formats:\n" + "\n".join(
    f"  {form.name}  {form.line} ({', '.join(form.precisions)})" for form in table.FORMATS
)


@dataclass(frozen=True)
class Options:
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A .keras file; a run folder; FAMILY/PRESET such as fast_style/wave; or a FAMILY that has nothing to train."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])] = Path("served")
    """Folder for the artifacts; what else is in it stays."""
    formats: tuple[str, ...] = table.NAMES
    """Which formats."""
    size: str | None = None
    """Size of LiteRT files: 256, 256x384 (height x width) or dynamic. Left out: the family's choice."""
    precision: Precision = "fp32"
    """Of the numbers inside: fp32, fp16, dynamic (8-bit weights) or int8."""
    name: str | None = None
    """What the artifacts are called. Left out: as the run folder or preset, in letters that every server takes."""
    servable: str | None = None
    """Which of the family's servables. Left out: the first; `kerasmodels info FAMILY` lists them."""
    allow_flex: tyro.conf.FlagCreatePairsOff[bool] = False
    """Accept LiteRT files that need TensorFlow's own operators beside the built-in ones."""
    older_onnx: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write ONNX files for runtimes without the operators of opset 19, such as DeformConv: slower."""
    calibration: Path | None = None
    """For int8: folder of pictures like those the model will see."""
    example: Path | None = None
    """For a .keras file: what it takes, to verify with: .npy, .npz with an array for each input, or a picture."""
    preprocess: Literal["none", "unit", "tf", "torch", "caffe"] | None = None
    """For a .keras file that takes an RGB picture: from 0-255 to what it takes: none, unit (0-1), or tf, torch or
    caffe as keras.applications has them. It becomes a part of the artifacts."""
    classes: Path | None = None
    """For a .keras file: a text file with the names of the classes, a line each."""
    server: Annotated[Literal["serving", "triton"] | None, tyro.conf.arg(name="for")] = None
    """Also write what TensorFlow Serving or Triton needs: its configuration, a docker-compose file, a Kubernetes
    manifest."""
    imports: Annotated[tuple[str, ...], tyro.conf.arg(name="import")] = ()
    """For a .keras file: Python modules that register its layers; they are executed."""


def main(argv: Sequence[str]) -> Outcome:
    """Export, verify, and say how to go on."""
    options = parse(Options, argv, "kerasmodels export", DESCRIPTION)
    chosen = table.select(options.formats, options.precision)
    if options.server is not None and options.server not in (form.server for form in chosen):
        needed = next(form.name for form in table.FORMATS if form.server == options.server)
        raise UsageError(f"expected --formats with {needed} for --for {options.server}. Received: {options.formats}.")
    own = Path(options.source).suffix == ".keras"
    if own and not Path(options.source).is_file():
        raise UsageError(f"expected a .keras file. Received: {options.source!r}, which does not exist.")
    if not own and options.source not in registry.ready():
        presets.find(options.source)
    load_tensorflow()
    from kerasmodels.export import export

    sys.path.insert(0, "")
    for module in options.imports:
        _import(module)

    report = export(
        options.source,
        options.out,
        formats=options.formats,
        size=options.size,
        precision=options.precision,
        servable=options.servable,
        name=options.name,
        allow_flex=options.allow_flex,
        older_onnx=options.older_onnx,
        calibration=options.calibration,
        example=_example(options.example),
        preprocess=options.preprocess,
        classes=_lines(options.classes),
        progress=lambda text: print(text, file=sys.stderr),
    )
    if options.server is None:
        return Outcome(report.to_dict(), [report.table(), *report.next_steps])
    from kerasmodels.export import deployment

    written = deployment.write(options.out, options.server)
    shown = [report.table(), *map(str, written), f"docker compose -f {shlex.quote(str(written[-2]))} up"]
    return Outcome({**report.to_dict(), "deployment": written}, shown)


def _import(module: str) -> None:
    try:
        importlib.import_module(module)
    except Exception as error:
        # The user's own code runs.
        raise UsageError(
            f"expected a Python module that can be imported from here. Received: --import {module}, which raises "
            f"{type(error).__name__}: {error}"
        ) from error


def _example(path: Path | None) -> Any:
    """Arrays of a file; of an .npz a dict, or its only array."""
    if path is None:
        return None
    if path.suffix not in (".npy", ".npz"):
        return read_image(path).astype("float32")
    try:
        found = reading.read_npz(path) if path.suffix == ".npz" else reading.read_npy(path)
    except (OSError, ValueError) as error:
        raise DataError(f"expected {path} to hold arrays that were saved by NumPy. Received: {error}.") from error
    return next(iter(found.values())) if isinstance(found, dict) and len(found) == 1 else found


def _lines(path: Path | None) -> list[str] | None:
    if path is None:
        return None
    try:
        return [line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise DataError(f"expected {path} to be a text file with a class in each line. Received: {error}.") from error
