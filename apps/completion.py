"""`kerasmodels completion SHELL`: a script that lets the shell complete commands, families and flags."""

import contextlib
import dataclasses
import importlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Annotated, Any, Literal

import tyro

from kerasmodels import registry
from kerasmodels.apps.command import Outcome, load_tensorflow, parse
from kerasmodels.apps.train import options_of


@dataclass(frozen=True)
class Options:
    shell: tyro.conf.Positional[Literal["bash", "zsh", "fish"]]
    """Which shell the script is for."""


def main(argv: Sequence[str]) -> Outcome:
    """The script, on stdout. It is made by the parser that reads the commands, of all families there are."""
    from kerasmodels.apps.cli import VERBS

    options = parse(Options, argv, "kerasmodels completion", "Print a script for shell completion.")
    load_tensorflow()
    families = {name: registry.family(name) for name in registry.names()}
    runs = {name: family.task.options for name, family in families.items()}
    trains = {name: options_of(family) for name, family in families.items() if family.source is not None}
    kinds: dict[str, Any] = {"run": _choice("Run", runs), "train": _choice("Train", trains)}
    for verb, (module, _) in VERBS.items():
        if verb not in kinds:
            kinds[verb] = getattr(importlib.import_module(f"kerasmodels.apps.{module}"), "Options", _Nothing)
    written = io.StringIO()
    with contextlib.suppress(SystemExit), contextlib.redirect_stdout(written):
        tyro.cli(
            _union(kinds),
            prog="kerasmodels",
            args=["--tyro-print-completion", options.shell],
            config=(tyro.conf.OmitArgPrefixes, tyro.conf.OmitSubcommandPrefixes),
        )
    return Outcome({"shell": options.shell, "script": written.getvalue()}, [written.getvalue()])


@dataclass(frozen=True)
class _Nothing:
    """No flags."""


def _choice(name: str, kinds: dict[str, Any]) -> type:
    """A command that begins with a family."""
    return dataclasses.make_dataclass(name, [("family", _union(kinds))])


def _union(kinds: dict[str, Any]) -> Any:
    return reduce(or_, [Annotated[kind, tyro.conf.subcommand(name)] for name, kind in kinds.items()])
