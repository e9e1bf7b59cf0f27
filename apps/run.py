"""`kerasmodels run FAMILY ...`: the family's task on the user's files."""

from collections.abc import Sequence
from typing import Any

from rich.console import RenderableType

from kerasmodels.apps.command import Outcome, load_family, parse, table, take_family


def main(argv: Sequence[str]) -> Outcome:
    """Run a family; its flags are the fields of its `run_options`."""
    name, rest = take_family("run", argv)
    family = load_family(name)
    description = (family.task.options.__doc__ or "").strip()
    options: Any = parse(family.task.options, rest, f"kerasmodels run {name}", description)
    report = family.task.run(options)
    result = {"family": name, "outputs": report.outputs, "facts": report.facts}
    shown: list[RenderableType] = [str(path) for path in report.outputs]
    if report.facts:
        shown.append(table(("", ""), report.facts.items()))
    return Outcome(result, shown)
