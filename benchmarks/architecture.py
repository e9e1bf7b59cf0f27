"""How much of the code is paper and how much is plumbing, and how far a new family reaches. Reads source only.

    python benchmarks/architecture.py [CHECKOUT]

Plumbing is what a family says because it lives here, not because of its paper: imports, how it is built, compiled,
saved and described, its training data, options, files and previews, its place in the registry.
"""

import ast
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path

PLUMBING = re.compile(
    r"_?(build|datasets|batches|source|run|task|preview|servables?|example\w*|validate|compile|metrics|loss_terms|"
    r"optimizer_groups|default_optimizer|get_config|get_compile_config|from_config|training_state|set_training_state|"
    r"start_from|report|reported|__init__|FAMILY|VARIANTS|EXPERIMENTS|__all__|\w*Options)"
)
POSITION = re.compile(r"<!-- [\w/.-]+\.json: (?:[^<>]*/)?\d+(?:/[^<>]*)? -->")
SHARED = (
    *("family", "config", "paper_model", "segmenter", "translator"),
    *("storage", "weights", "runs", "presets", "registry"),
)


def lines(path: Path) -> int:
    """Lines that are not empty."""
    return sum(1 for line in path.read_text().splitlines() if line.strip())


def plumbing(path: Path) -> int:
    """Lines of a file that are plumbing: whole definitions by their names, and imports."""
    source = path.read_text().splitlines()

    def count(node: ast.stmt) -> int:
        first = min([node.lineno, *(d.lineno for d in getattr(node, "decorator_list", []))])
        return sum(1 for line in source[first - 1 : node.end_lineno] if line.strip())

    def walk(body: list[ast.stmt]) -> Iterator[int]:
        for node in body:
            if isinstance(node, ast.Import | ast.ImportFrom):
                yield count(node)
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if isinstance(target, ast.Name) and PLUMBING.fullmatch(target.id):
                    yield count(node)
            elif isinstance(node, ast.FunctionDef | ast.ClassDef):
                if PLUMBING.fullmatch(node.name):
                    yield count(node)
                elif isinstance(node, ast.ClassDef):
                    yield from walk(node.body)

    return sum(walk(ast.parse("\n".join(source)).body))


def measure(root: Path) -> dict[str, object]:
    """The figures of a checkout."""
    package = root / "kerasmodels"
    groups = {name: sorted((package / name).rglob("*.py")) for name in ("models", "claims", "ports")}
    rooms = [p for name in ("training", "servables", "tasks") for p in sorted((package / name).rglob("*.py"))]
    groups["shared"] = [path for name in SHARED if (path := package / f"{name}.py").is_file()] + rooms
    # Evidence is no plumbing, wherever it lies.
    families = [p for p in groups["models"] if p.stem not in ("__init__", "experiments", "scenes", "regions")]
    families += [p for p in groups["models"] if p.stem == "__init__" and p.parent.name != "models"]
    registry = (package / "registry.py").read_text()
    names = re.findall(r'^ {8}"([a-z_]+)",$', registry, re.MULTILINE)
    claims = [
        claim
        for path in sorted((root / "results").glob("*.json"))
        for claim in (lambda r: [*r.get("rows", []), *r.get("claims", {}).values()])(json.loads(path.read_text()))
    ]
    ungated = [c for c in claims if not c["gate"] or re.match("for (comparison|information)|-$", str(c["gate"]))]
    pages = [root / "README.md", *sorted((root / "docs").glob("*.md"))]
    return {
        "lines": {name: sum(map(lines, paths)) for name, paths in groups.items()},
        "lines_in_all": sum(sum(map(lines, paths)) for paths in groups.values()),
        "families": len(names),
        "plumbing_a_family": round(sum(map(plumbing, families)) / max(1, len(names))),
        "files_a_family": round(len(families) / max(1, len(names)), 1),
        "claims": len(claims),
        "claims_without_gate": len(ungated),
        "claims_without_gate_shown_as_passed": sum(c["passed"] is True for c in ungated),
        "quotes_by_position": sum(len(POSITION.findall(page.read_text())) for page in pages),
    }


if __name__ == "__main__":
    print(json.dumps(measure(Path(sys.argv[1] if len(sys.argv) > 1 else ".")), indent=2))
