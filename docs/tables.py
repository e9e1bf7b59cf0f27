"""Writes the tables of families into README.md and docs/index.md, from the registry, and the table of models that are
none of theirs into docs/your_model.md and of the browser into docs/web.md, from benchmarks/results:
python docs/tables.py"""

import json
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


def foreign() -> str:
    """A row for each model of benchmarks/foreign_models.py: proven, or refused and why."""
    found = json.loads((ROOT / "benchmarks" / "results" / "foreign_models.json").read_text())
    lines = ["| model | SavedModel | LiteRT | ONNX |", "|---|---|---|---|"]
    for name, outcome in found.items():
        lines.append(f"| {name} | " + " | ".join(outcome.values()) + " |")
    return "\n".join(lines)


def browser() -> str:
    """A row for each model and runtime of benchmarks/web.py."""
    found = json.loads((ROOT / "benchmarks" / "results" / "web.json").read_text())["models"]
    lines = ["| model | runtime | largest difference | equal |", "|---|---|---:|---:|"]
    for row in sorted(found, key=lambda row: (row["runtime"], row["model"])):
        largest, equal = f"{row['max_difference']:.2g}", f"{100 * row['equal']:.3f} %"
        lines.append(f"| {row['model']} | {row['runtime']} | {largest} | {equal} |")
    return "\n".join(lines)


PLACES = {
    "README.md": table("docs/", True),
    "docs/index.md": table("", False),
    "docs/your_model.md": foreign(),
    "docs/web.md": browser(),
}


def filled(text: str, made: str) -> str:
    """A page with the table between its marks."""
    return re.sub(r"(<!-- table -->\n).*?(\n<!-- / -->)", lambda m: m[1] + made + m[2], text, flags=re.DOTALL)


if __name__ == "__main__":
    for name, made in PLACES.items():
        (ROOT / name).write_text(filled((ROOT / name).read_text(), made))
