"""`kerasmodels export SOURCE`: artifacts from a run folder or a preset, each executed and compared with Keras."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro

from kerasmodels import presets, registry
from kerasmodels.apps.command import Outcome, load_tensorflow, parse
from kerasmodels.export import formats as table
from kerasmodels.family import Precision

DESCRIPTION = "Formats:\n" + "\n".join(
    f"  {form.name}  {form.line} ({', '.join(form.precisions)})" for form in table.FORMATS
)


@dataclass(frozen=True)
class Options:
    source: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="SOURCE")]
    """A run folder, FAMILY/PRESET such as fast_style/wave, or a FAMILY that has nothing to train."""
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


def main(argv: Sequence[str]) -> Outcome:
    """Export, verify, and say how to go on."""
    options = parse(Options, argv, "kerasmodels export", DESCRIPTION)
    table.select(options.formats, options.precision)
    if options.source not in registry.ready():
        presets.find(options.source)
    load_tensorflow()
    from kerasmodels.export import export

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
        progress=lambda text: print(text, file=sys.stderr),
    )
    return Outcome(report.to_dict(), [report.table(), *report.next_steps])
