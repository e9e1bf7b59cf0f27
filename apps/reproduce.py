"""`kerasmodels reproduce FAMILY`: measure the paper's claims; the only writer of results/."""

import functools
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Annotated, Any

import tyro
from rich.text import Text

from kerasmodels import claims, reading, registry
from kerasmodels.apps import provenance
from kerasmodels.apps.command import Outcome, line, load_family, parse, plain, table
from kerasmodels.errors import DataError, UsageError, unknown_name
from kerasmodels.family import Experiment
from kerasmodels.storage import write_atomic, write_json


@dataclass(frozen=True)
class Options:
    family: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FAMILY")]
    """Name of the family, as `kerasmodels list` shows it."""
    data: Path | None = None
    """Folder with the data that an experiment needs; its error says which, if it needs any."""
    quick: tyro.conf.FlagCreatePairsOff[bool] = False
    """Smaller and shorter, to see that it works; goes to results/quick unless --out is given."""
    only: tuple[str, ...] = ()
    """Just these experiments; the claims of the others stay as they were measured before."""
    out: Path | None = None
    """Folder for FAMILY.json and the figures. Left out: results."""


def main(argv: Sequence[str]) -> Outcome:
    """Run the family's experiments and write what they measured; exit code 1 if a gate was missed.

    `results/<family>.json` has `claims`, each by its key (experiment, text, paper, ours, gate, passed: null where there
    is no gate), and `measured`: for each experiment its command, seed, versions, seconds, date, machine and figures. It
    is written after each experiment, so that an interruption loses at most one.
    """
    description = "Measure the paper's claims. Exit code 1: a gate was missed."
    options = parse(Options, argv, "kerasmodels reproduce", description)
    name = registry.row(options.family).name
    family, experiments = load_family(name), claims.experiments(name)
    if "--only" in argv and not options.only:
        known = ", ".join(experiments)
        raise UsageError(f"expected the name of an experiment after --only. Received: none. Known: {known}.")
    for wanted in options.only:
        if wanted not in experiments:
            raise unknown_name(f"experiment of {name}", wanted, experiments)
    chosen = {n: e for n, e in experiments.items() if not options.only or n in options.only}
    if options.data is not None and not options.data.is_dir():
        raise DataError(f"expected a folder at --data. Received: {str(options.data)!r}, which is none.")
    out = options.out or Path("results", *(["quick"] if options.quick else []))
    path = out / f"{name}.json"
    result = _earlier(path, name, experiments)
    for experiment_name, experiment in chosen.items():
        print(f"{experiment_name}: {experiment.line}", file=sys.stderr)
        began = time.perf_counter()
        found, figures = _measure(experiment, options, out)
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
        kept = {key: claim for key, claim in result["claims"].items() if claim["experiment"] != experiment_name}
        for key in found:
            if key in kept:
                raise ValueError(f"two experiments of {name} have a claim {key!r}")
        new = {key: {"experiment": experiment_name, **claim} for key, claim in found.items()}
        order = list(experiments)
        by_experiment = sorted({**kept, **new}.items(), key=lambda item: order.index(item[1]["experiment"]))
        result["claims"] = dict(by_experiment)
        result["measured"][experiment_name] = measured
        write_json(path, result)
    failed = [c for c in result["claims"].values() if c["experiment"] in chosen and c["passed"] is False]
    shown = [
        (
            *(claim[field] for field in ("experiment", "text", "paper")),
            f"{claim['ours']:.4g}" if isinstance(claim["ours"], float) else claim["ours"],
            ", ".join(f"{name.replace('_', ' ')} {bound}" for name, bound in (claim["gate"] or {}).items()),
            _VERDICTS[claim["passed"]],
        )
        for claim in result["claims"].values()
    ]
    headers = ("experiment", "claim", "paper", "ours", "gate", "")
    return Outcome({"path": path, **result}, [table(headers, shown), f"written: {path}"], 1 if failed else 0)


_VERDICTS = {True: Text("passed", "green"), False: Text("missed", "bold red"), None: Text("measured")}


def _measure(experiment: Experiment, options: Options, out: Path) -> tuple[dict[str, Any], list[str]]:
    """The claims, and the names of the figures, which are moved into `out` only once the experiment has ended."""
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        measured = experiment.measure(options.data, Path(folder), options.quick)
        claims_by_key = {claim.key: plain(claim.to_dict()) for claim in measured}
        if len(claims_by_key) < len(measured):
            raise ValueError(f"two claims of one key: {[claim.key for claim in measured]}")
        figures = sorted(p for p in Path(folder).rglob("*") if p.is_file())
        for figure in figures:
            target = out / figure.relative_to(folder)
            write_atomic(target, functools.partial(_copy, figure))
        return claims_by_key, [figure.relative_to(folder).as_posix() for figure in figures]


def _name_of(argument: str) -> str:
    """An absolute path by its last part: results are passed on, and where one machine keeps its data helps nobody."""
    flag, equals, value = argument.rpartition("=")
    return flag + equals + Path(value).name if Path(value).is_absolute() else argument


def _copy(source: Path, target: IO[bytes]) -> None:
    target.write(source.read_bytes())


def _earlier(path: Path, family: str, experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    """What was measured before, of experiments that still exist."""
    try:
        earlier = reading.read_json(path) if path.exists() else {"claims": {}, "measured": {}}
        with reading.damaged():
            kept = {key: claim for key, claim in earlier["claims"].items() if claim["experiment"] in experiments}
            measured = {name: value for name, value in earlier["measured"].items() if name in experiments}
    except (OSError, ValueError) as error:
        raise DataError(f"{path} was not written by this command ({error}). Move it away and measure again.") from error
    return {"family": family, "paper": registry.row(family).paper, "claims": kept, "measured": measured}
