"""`kerasmodels weights [NETWORK]`: get the pretrained weights that training needs, and show what is there."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import tyro
from rich.console import RenderableType

from kerasmodels.apps.command import Outcome, load_tensorflow, parse, table
from kerasmodels.backbones import sources
from kerasmodels.errors import UsageError, unknown_name


@dataclass(frozen=True)
class Options:
    network: tyro.conf.Positional[str | None] = None
    """vgg16 or vgg19. Left out: show the sources and what is cached."""
    source: Annotated[str | None, tyro.conf.arg(name="from")] = None
    """Where the weights come from; the name of a source."""
    path: Path | None = None
    """The original file, if you have it already."""


def main(argv: Sequence[str]) -> Outcome:
    """Convert weights into the cache, or list what can be had and what is there."""
    description = "Convert pretrained weights and cache them with their SHA-256."
    options = parse(Options, argv, "kerasmodels weights", description)
    if options.network is None or options.source is None:
        if options.source is not None or options.path is not None:
            raise UsageError("expected a network: kerasmodels weights NETWORK --from SOURCE. Received: none.")
        return _listed(options.network)
    load_tensorflow()
    path = sources.convert(options.network, options.source, options.path)
    row = next(row for row in sources.cached() if row["path"] == str(path))
    return Outcome(row, [str(path), f"sha256 {row['sha256']}"])


def _listed(network: str | None) -> Outcome:
    if network is not None and network not in sources.NETWORKS:
        raise unknown_name("network", network, sources.NETWORKS)
    known = [s for s in sources.SOURCES.values() if network is None or network in s.networks]
    cached = [row for row in sources.cached() if network in (None, row["network"])]
    sources_table = table(
        ("source", "what it is", "networks", "license"),
        [(source.name, source.line, ", ".join(source.networks), source.license) for source in known],
    )
    cached_table = table(
        ("cached", "source", "MB", "file"),
        [(r["network"], r["source"], round(r.get("bytes", 0) / 1e6), r.get("error", r["path"])) for r in cached],
    )
    networks = (network,) if network else tuple(sources.NETWORKS)
    commands = {n: [c for s in known if n in s.networks for c in s.commands(n)] for n in networks}
    result = {"sources": {s.name: s.line for s in known}, "commands": commands, "cached": cached}
    shown: list[RenderableType] = [sources_table, *(c for n in networks for c in commands[n])]
    shown.append(cached_table if cached else "none is cached yet")
    return Outcome(result, shown)
