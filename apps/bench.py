"""`kerasmodels bench FAMILY`: one family in every runtime, side by side."""

import dataclasses
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro
from rich.console import RenderableType

from kerasmodels import presets, registry, storage
from kerasmodels.apps import provenance
from kerasmodels.apps.command import Outcome, line, load_family, parse, plain, table
from kerasmodels.errors import UsageError

if TYPE_CHECKING:
    from kerasmodels.export.bench import Timing


@dataclass(frozen=True)
class Options:
    family: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FAMILY")]
    """Name of the family, as `kerasmodels list` shows it."""
    preset: str | None = None
    """Time this preset. Left out: an untrained model of the variant, which takes as long as a trained one."""
    variant: str = "paper"
    """Which variant, if no preset."""
    sizes: tuple[str, ...] = ()
    """Sizes of the input: 256, or 256x384 (height x width). Left out: the family's choice."""
    threads: tuple[int, ...] = (1, 2)
    """Numbers of threads for LiteRT and ONNX Runtime."""
    rounds: int = 20
    """Timed calls of each; every round times all of them once."""
    calibration: Path | None = None
    """Folder of pictures for int8. Left out: made-up ones, with which its quality is not to be judged."""
    out: Path | None = None
    """Also write the result to this JSON file."""


def main(argv: Sequence[str]) -> Outcome:
    """Time one call, batch 1, in every runtime."""
    options = parse(Options, argv, "kerasmodels bench", "Time one call in Keras, SavedModel, LiteRT and ONNX Runtime.")
    name = registry.row(options.family).name
    trained = presets.preset(name, options.preset) if options.preset is not None else None
    if options.rounds < 1 or not options.threads or min(options.threads) < 1:
        raise UsageError(f"expected rounds and threads >= 1. Received: {options.rounds}, {options.threads}.")
    family = load_family(name)
    model = trained.load() if trained is not None else family.model(family.variant(options.variant))
    from kerasmodels.export.bench import bench

    untrained = "" if family.source is None else ", untrained"
    servable_name, servable = next(iter(family.servables(model).items()))
    rows = bench(
        servable,
        sizes=options.sizes or (None,),
        rounds=options.rounds,
        threads=options.threads,
        calibration=options.calibration,
        progress=lambda text: print(text, file=sys.stderr),
    )
    result = {
        "family": name,
        "model": f"preset {options.preset}" if trained is not None else f"variant {options.variant}{untrained}",
        "servable": servable_name,
        "parameters": model.count_params(),
        "command": line("bench", argv),
        "date": provenance.now(),
        "versions": provenance.versions(),
        "machine": provenance.machine(),
        "timings": {_key(row): dataclasses.asdict(row) for row in rows},
    }
    headers = ("runtime", "precision", "threads", "size", "median ms", "min ms", "to tf.function", "PSNR dB", "note")
    shown: list[RenderableType] = [
        f"{name}, {result['model']}: one call, batch 1",
        table(headers, [dataclasses.astuple(row) for row in rows]),
    ]
    if options.out is not None:
        shown.append(f"written: {storage.write_json(options.out, plain(result))}")
    return Outcome(result, shown)


def _key(row: "Timing") -> str:
    """By which pages quote it, such as litert-int8-2-256x256."""
    parts = (row.runtime, row.precision, row.threads, row.size)
    return "-".join(str(part).lower().replace(" ", "_") for part in parts if part is not None)
