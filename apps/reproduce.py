"""`kerasmodels reproduce FAMILY`: measure the paper's claims; the only writer of results/."""

import functools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import tyro
from rich.text import Text

from kerasmodels import reading, registry
from kerasmodels.apps import provenance
from kerasmodels.apps.command import Outcome, line, load_family, parse, plain, table
from kerasmodels.errors import DataError, UsageError, unknown_name
from kerasmodels.family import Experiment
from kerasmodels.weights import write_atomic, write_json


@dataclass(frozen=True)
class Options:
    family: tyro.conf.Positional[str]
    """Name of the family, as `kerasmodels list` shows it."""
    data: Path | None = None
    """Folder with the data that an experiment needs; its error says which, if it needs any."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Smaller and shorter, to see that it works; goes to results/quick unless --out is given."""
    only: tuple[str, ...] = ()
    """Just these experiments; the rows of the others stay as they were measured before."""
    out: Path | None = None
    """Folder for FAMILY.json and the figures. Left out: results."""


def main(argv: Sequence[str]) -> Outcome:
    """Run the family's experiments and write what they measured; exit code 1 if a gate was missed.

    `results/<family>.json` has `rows` (experiment, claim, paper, ours, gate, passed), and `measured`: for each
    experiment its command, seed, versions, seconds, date, machine and figures. It is written after each experiment, so
    that an interruption loses at most one.
    """
    description = "Measure the paper's claims. Exit code 1: a gate was missed."
    options = parse(Options, argv, "kerasmodels reproduce", description)
    name = registry.row(options.family).name
    family = load_family(name)
    if "--only" in argv and not options.only:
        known = ", ".join(family.experiments)
        raise UsageError(f"expected the name of an experiment after --only. Received: none. Known: {known}.")
    for wanted in options.only:
        if wanted not in family.experiments:
            raise unknown_name(f"experiment of {name}", wanted, family.experiments)
    chosen = {n: e for n, e in family.experiments.items() if not options.only or n in options.only}
    if options.data is not None and not options.data.is_dir():
        raise DataError(f"expected a folder at --data. Received: {str(options.data)!r}, which is none.")
    out = options.out or Path("results", *(["quick"] if options.quick else []))
    path = out / f"{name}.json"
    result = _earlier(path, name, family.experiments)
    for experiment_name, experiment in chosen.items():
        print(f"{experiment_name}: {experiment.line}", file=sys.stderr)
        began = time.perf_counter()
        rows, figures = _measure(experiment, options, out)
        measured = {
            "command": line("reproduce", [_name_of(argument) for argument in argv]),
            "quick": options.quick,
            "seed": getattr(family.config(), "seed", None),
            "seconds": round(time.perf_counter() - began, 1),
            "date": provenance.now(),
            "versions": provenance.versions(),
            "machine": provenance.machine(),
            "figures": figures,
        }
        others = [row for row in result["rows"] if row["experiment"] != experiment_name]
        new = [{"experiment": experiment_name, **row} for row in rows]
        result["rows"] = _ordered([*others, *new], family.experiments)
        result["measured"][experiment_name] = measured
        write_json(path, result)
    failed = [row for row in result["rows"] if row["experiment"] in chosen and not row["passed"]]
    shown = [
        (
            *(row[key] for key in ("experiment", "claim", "paper")),
            f"{row['ours']:.4g}" if isinstance(row["ours"], float) else row["ours"],
            row["gate"],
            Text("passed", "green") if row["passed"] else Text("missed", "bold red"),
        )
        for row in result["rows"]
    ]
    headers = ("experiment", "claim", "paper", "ours", "gate", "")
    return Outcome({"path": path, **result}, [table(headers, shown), f"written: {path}"], 1 if failed else 0)


def _measure(experiment: Experiment, options: Options, out: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The rows, and the names of the figures, which are moved into `out` only once the experiment has ended."""
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        rows = plain(experiment.measure(options.data, Path(folder), options.quick))
        figures = sorted(p for p in Path(folder).rglob("*") if p.is_file())
        for figure in figures:
            target = out / figure.relative_to(folder)
            write_atomic(target, functools.partial(_copy, figure))
        return rows, [figure.relative_to(folder).as_posix() for figure in figures]


def _name_of(argument: str) -> str:
    """An absolute path by its last part: results are passed on, and where one machine keeps its data helps nobody."""
    flag, equals, value = argument.rpartition("=")
    return flag + equals + Path(value).name if Path(value).is_absolute() else argument


def _copy(source: Path, target: IO[bytes]) -> None:
    target.write(source.read_bytes())


def _earlier(path: Path, family: str, experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """What was measured before, of experiments that still exist."""
    try:
        earlier = reading.read_json(path) if path.exists() else {"rows": [], "measured": {}}
        with reading.damaged():
            rows = [row for row in earlier["rows"] if row["experiment"] in experiments]
            measured = {name: value for name, value in earlier["measured"].items() if name in experiments}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} was not written by this command ({error}). Move it away and measure again.") from error
    return {"family": family, "paper": registry.row(family).paper, "rows": rows, "measured": measured}


def _ordered(rows: list[dict[str, Any]], experiments: Mapping[str, Experiment]) -> list[dict[str, Any]]:
    order = list(experiments)
    return sorted(rows, key=lambda row: order.index(row["experiment"]))
