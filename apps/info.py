"""`kerasmodels info FAMILY`: everything about one family, from its own code."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import tyro
from rich.console import RenderableType
from rich.table import Table

from kerasmodels import claims, presets, registry
from kerasmodels.apps.command import Outcome, load_family, parse, table
from kerasmodels.errors import WeightsError


@dataclass(frozen=True)
class Options:
    family: Annotated[tyro.conf.Positional[str], tyro.conf.arg(metavar="FAMILY")]
    """Name of the family, as `kerasmodels list` shows it."""


def main(argv: Sequence[str]) -> Outcome:
    """Variants, parameters, inputs and outputs, presets and experiments of one family."""
    options = parse(Options, argv, "kerasmodels info", "Variants, inputs and outputs, presets, experiments.")
    row = registry.row(options.family)
    family = load_family(row.name)
    config = family.config()
    try:
        model = family.model(config)
        size = f"{model.count_params():,} parameters"
    except WeightsError as error:  # It shows a network that others have trained.
        model, size = None, f"What it serves is shown once its network is there: {error}"
    result = {
        **dataclasses.asdict(row),
        "parameters": None if model is None else model.count_params(),
        "variants": {name: variant.to_dict() for name, variant in family.variants.items()},
        "servables": {
            name: {"doc": servable.doc, "inputs": servable.inputs, "outputs": servable.outputs}
            for name, servable in ({} if model is None else family.servables(model)).items()
        },
        "presets": {name: dict(preset.card) for name, preset in presets.presets(row.name).items()},
        "experiments": {name: experiment.line for name, experiment in claims.experiments(row.name).items()},
    }
    shown: list[RenderableType] = [
        f"{row.name}: {row.line}\n{row.paper}\n{size}",
        _variants(result["variants"]),
        _servables(result["servables"]),
        _pairs("preset", {name: str(card.get("line", "")) for name, card in result["presets"].items()}),
        _pairs("experiment", result["experiments"]),
        f"Flags: kerasmodels run {row.name} --help"
        + (f"; kerasmodels train {row.name} --help" if row.trains else ". There is nothing to train."),
    ]
    return Outcome(result, shown)


def _variants(variants: Mapping[str, Mapping[str, Any]]) -> Table:
    """A column per variant; after the first, only the values that differ from it."""
    first, *others = variants
    rows = [
        (field, value, *("" if variants[other][field] == value else variants[other][field] for other in others))
        for field, value in variants[first].items()
    ]
    return table(("config", first, *others), rows)


def _servables(servables: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [
        (name, way.removesuffix("s"), spec.name, " x ".join(map(str, spec.shape)), spec.dtype, spec.doc)
        for name, servable in servables.items()
        for way in ("inputs", "outputs")
        for spec in servable[way]
    ]
    return table(("servable", "", "name", "shape", "type", "meaning"), rows)


def _pairs(header: str, lines: Mapping[str, str]) -> Table:
    return table((header, ""), lines.items() or [("none", "")])
