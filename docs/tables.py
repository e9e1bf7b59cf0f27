"""Writes the tables of families into README.md and docs/index.md, from the registry: python docs/tables.py"""

import re
from pathlib import Path

from kerasmodels import presets, registry

ROOT = Path(__file__).resolve().parents[1]
NUMBERS = ("no presets", "a preset", "two presets", "three presets", "four presets", "five presets", "six presets")


def state(row: registry.Row) -> str:
    """What works: everything listed does."""
    if not row.trains:
        return "runs, exports, reproduces; nothing to train"
    return f"trains, runs, exports, reproduces; {NUMBERS[len(presets.presets(row.name))]}"


def table(folder: str, with_state: bool) -> str:
    """A row for each family, linking to its page in `folder`."""
    lines = ["| family | what it does | paper |", "|---|---|---|"]
    if with_state:
        lines = ["| family | what it does | state |", "|---|---|---|"]
    for row in registry.ROWS:
        cited = f"{row.line} ({row.paper.partition(',')[0].partition(':')[0]} {row.paper[-4:]})"
        what, last = (cited, state(row)) if with_state else (row.line, row.paper)
        lines.append(f"| [{row.name}]({folder}{row.name}.md) | {what} | {last} |")
    return "\n".join(lines)


PLACES = {"README.md": table("docs/", True), "docs/index.md": table("", False)}


def filled(text: str, made: str) -> str:
    """A page with the table between its marks."""
    return re.sub(r"(<!-- families -->\n).*?(\n<!-- / -->)", lambda m: m[1] + made + m[2], text, flags=re.DOTALL)


if __name__ == "__main__":
    for name, made in PLACES.items():
        (ROOT / name).write_text(filled((ROOT / name).read_text(), made))
