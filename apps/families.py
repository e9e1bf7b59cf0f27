"""`kerasmodels list`: families, their presets, and what each can do, without importing any of them."""

import dataclasses
from collections.abc import Sequence

from kerasmodels import presets, registry
from kerasmodels.apps.command import HelpRequest, Outcome, table
from kerasmodels.errors import UsageError

COMMANDS = ("run", "train", "export", "reproduce", "bench")


def main(argv: Sequence[str]) -> Outcome:
    """All families and presets, from the registry and the presets' cards only."""
    # Parsed by hand: importing the parsing library would take a third of the time this command may take.
    if argv and argv[0] in ("-h", "--help"):
        raise HelpRequest("usage: kerasmodels list\n\nFamilies, their presets, and what each can do.")
    if argv:
        raise UsageError(f"expected no arguments: kerasmodels list. Received: {' '.join(argv)}.")
    families = [
        {
            **dataclasses.asdict(row),
            "commands": [command for command in COMMANDS if row.trains or command != "train"],
            "presets": {name: str(preset.card.get("line", "")) for name, preset in presets.presets(row.name).items()},
        }
        for row in registry.ROWS
    ]
    rows = [(f["name"], f["line"], "\n".join(f["presets"]) or "none", f["paper"]) for f in families]
    ready = registry.ready()
    except_for = f" ({', '.join(ready)}: nothing to train)" if ready else ""
    hint = f"Each can: {', '.join(COMMANDS)}{except_for}. Presets are also sources: kerasmodels export FAMILY/PRESET"
    return Outcome({"families": families}, [table(("family", "what it does", "presets", "paper"), rows), hint])
