"""Dependencies point one way, as docs/architecture.md draws them."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from kerasmodels.export.formats import FORMATS

ABOVE = ("models", "claims", "export", "apps")
FORBIDDEN = {
    **dict.fromkeys(("layers", "ops", "losses", "metrics", "optimizers", "backbones"), (*ABOVE, "tasks", "servables")),
    **dict.fromkeys(("data", "servables", "tasks", "training"), ABOVE),
    "models": ("claims", "export", "apps"),
    "claims": ("apps",),
    "export": ("models", "claims", "apps", "tasks"),
}
"""Room -> rooms that nothing in it imports."""


def _imported(file: Path) -> Iterator[str]:
    """Dotted names of what a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


@pytest.mark.parametrize("room", FORBIDDEN)
def test_nothing_imports_what_lies_above_it(room: str, root: Path) -> None:
    files = sorted((root / ("export" if room == "export" else f"kerasmodels/{room}")).rglob("*.py"))
    assert files
    wrong = [
        f"{file.relative_to(root)} imports {name}"
        for file in files
        for name in _imported(file)
        if name.startswith("kerasmodels.") and name.split(".")[1] in FORBIDDEN[room]
    ]
    assert wrong == []


def test_formats_are_known_to_the_table_and_their_own_modules_alone(root: Path) -> None:
    """Whatever else exports, verifies or times goes through `Format` and `Exporter`, and branches by no name."""
    own = {"formats.py", *(f"{form.home}.py" for form in FORMATS)}
    words = {word for form in FORMATS for word in (form.name, form.title, form.suffix)} - {""}
    files = [file for file in (root / "export").glob("*.py") if file.name not in own]
    assert len(files) > 5
    wrong = [
        f"{file.name}:{node.lineno} says {node.value!r}"
        for file in files
        for node in ast.walk(ast.parse(file.read_text()))
        if isinstance(node, ast.Constant) and node.value in words
    ]
    assert wrong == []


def test_rooms_are_on_the_map(root: Path) -> None:
    """Every module and folder of the library has its place in docs/architecture.md."""
    page = (root / "docs" / "architecture.md").read_text()
    rooms = [p.name for p in (root / "kerasmodels").iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()]
    assert [room for room in rooms if not room.startswith("__") and f"kerasmodels/{room})" not in page] == []
