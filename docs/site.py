"""Builds the pages into a static site: python docs/site.py [OUT] (build/site if left out).

Pages are gathered in build/pages, where everything that they show lies below one folder; links to code, which the site
does not hold, become the code's path. Three pages are made here: a gallery with a picture of every family, all claims
with the missed ones first, and what runs where.
"""

import json
import os
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from kerasmodels import registry

ROOT = Path(__file__).resolve().parents[1]
PICTURES = (".png", ".jpg", ".svg")
LINK = re.compile(r"(!?\[)((?:[^\[\]]|\[[^\]]*\])*)\]\(([^)#\s]*)(#[^)\s]*)?\)")


def gather(out: Path) -> None:
    """Put all pages and pictures into a folder, with links that hold there."""
    shutil.rmtree(out, ignore_errors=True)
    pages = {ROOT / "README.md": "index.md", ROOT / "CONTRIBUTING.md": "CONTRIBUTING.md"}
    pages |= {ROOT / "CHANGELOG.md": "CHANGELOG.md"}
    pages |= {page: page.name for page in sorted((ROOT / "docs").glob("*.md")) if page.name != "index.md"}
    pages |= {ROOT / "docs" / "index.md": "pages.md"}
    for page, name in pages.items():
        _write(out / name, _moved(page.read_text(), page, pages, out))
    _write(out / "gallery.md", _moved(gallery(), ROOT / "docs" / "gallery.md", pages, out))
    _write(out / "claims.md", _moved(claims(), ROOT / "docs" / "claims.md", pages, out))
    _write(out / "runtimes.md", _moved(runtimes(), ROOT / "docs" / "runtimes.md", pages, out))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _moved(text: str, page: Path, pages: dict[Path, str], out: Path) -> str:
    """The text of a page with its links as they are in the gathered folder; pictures are copied there."""

    def link(found: re.Match[str]) -> str:
        opening, words, target, anchor = found[1], found[2], found[3], found[4] or ""
        if not target or re.match(r"https?:|mailto:", target):
            return found[0]
        # A picture may be inside the words of a link.
        words = LINK.sub(link, words)
        file = Path(os.path.normpath(page.parent / target))
        if file in pages:
            return f"{opening}{words}]({pages[file]}{anchor})"
        if file.suffix in PICTURES and file.is_file():
            copy = out / "pictures" / file.name
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, copy)
            return f"{opening}{words}](pictures/{file.name})"
        # Code is shown by its path.
        path = file.relative_to(ROOT).as_posix()
        return words if path in words or "`" in words else f"{words} (`{path}`)"

    # What stands in blocks of code is no link.
    parts = re.split(r"(^```.*?^```$)", text, flags=re.DOTALL | re.MULTILINE)
    return "".join(part if part.startswith("```") else LINK.sub(link, part) for part in parts)


def picture_of(name: str) -> tuple[str, Path] | None:
    """The first picture on a family's page, and what it says of it."""
    page = ROOT / "docs" / f"{name}.md"
    found = re.search(r"!\[([^\]]*)\]\(([^)\s]+)\)", page.read_text())
    return (found[1], Path(os.path.normpath(page.parent / found[2]))) if found else None


def gallery() -> str:
    """A picture of every family."""
    lines = ["# Gallery", "", "What each family does, in a picture. Each leads to its page.", ""]
    for row in registry.ROWS:
        lines += [f"## [{row.name}]({row.name}.md)", "", f"{row.line[0].upper()}{row.line[1:]}. *{row.paper}*", ""]
        found = picture_of(row.name)
        if found is None:
            lines += ["No picture is shipped of it.", ""]
        else:
            says, file = found
            place = os.path.relpath(file, ROOT / "docs")
            lines += [f"[![{says}]({place})]({row.name}.md)", "", f"{says}.", ""]
    return "\n".join(lines)


def _cell(value: Any) -> str:
    if isinstance(value, float):
        value = f"{value:.4g}"
    return str(value).replace("|", "\\|").replace("\n", " ")


def claims() -> str:
    """Every claim that was measured, the missed ones first."""
    found = []
    for row in registry.ROWS:
        file = ROOT / "results" / f"{row.name}.json"
        if file.is_file():
            found += [(row.name, claim) for claim in json.loads(file.read_text())["claims"].values()]
    missed = [(name, claim) for name, claim in found if claim["passed"] is False]
    passed, measured = (sum(claim["passed"] is value for _, claim in found) for value in (True, None))
    lines = [
        "# Claims",
        "",
        f"{len(found)} numbers from `kerasmodels reproduce`, on the models that users get: {passed} passed their gate, "
        f"**{len(missed)} missed it**, {measured} are measurements without a gate.",
        "",
        "## Missed",
        "",
        *_claim_table(missed),
    ]
    for row in registry.ROWS:
        own = [(name, claim) for name, claim in found if name == row.name]
        lines += ["", f"## [{row.name}]({row.name}.md)", ""]
        lines += _claim_table(own) if own else ["Nothing of it has been measured."]
    return "\n".join([*lines, ""])


def _claim_table(rows: list[tuple[str, dict[str, Any]]]) -> list[str]:
    words = {True: "passed", False: "**missed**", None: "measured"}
    signs = {"at_least": "at least", "at_most": "at most", "equals": "equal to"}
    lines = ["| family | what was measured | the paper | here | gate | |", "|---|---|---|---|---|---|"]
    for name, claim in rows:
        gate = ", ".join(f"{signs[k]} {_cell(v)}" for k, v in (claim["gate"] or {}).items())
        cells = [name, claim["text"], claim["paper"], claim["ours"], gate, words[claim["passed"]]]
        lines.append("| " + " | ".join(_cell(cell) for cell in cells) + " |")
    return lines


def runtimes() -> str:
    """What was executed where: the page in the browser, and models of others."""
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))["PLACES"]
    lines = ["# Runtimes", ""]
    lines += [
        "Every artifact is executed in TensorFlow, LiteRT or ONNX Runtime and compared with Keras before it is "
        "written; its `export.json` and model card say how far off it was. Below is what was measured beyond that.",
        "",
        "## In the browser",
        "",
        "The page ([web.md](web.md)) in headless Chromium, on a real photo, beside Python's runtime of the same file:",
        "",
        tables["docs/web.md"],
    ]
    lines += ["", "## Models of others", "", "See [your_model.md](your_model.md).", "", tables["docs/your_model.md"]]
    return "\n".join([*lines, ""])


def build(out: Path) -> None:
    """Gather and build; a link that leads nowhere is an error.

    Raises:
        subprocess.CalledProcessError: MkDocs found something wrong.
    """
    gather(ROOT / "build" / "pages")
    settings = (ROOT / "docs" / "mkdocs.yml").read_text()
    families = "".join(f"\n      - {row.name}: {row.name}.md" for row in registry.ROWS)
    _write(ROOT / "build" / "mkdocs.yml", settings.replace("- Families: []", f"- Families:{families}"))
    environment = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--clean", "--site-dir", str(out)]
    subprocess.run([*command, "--config-file", str(ROOT / "build" / "mkdocs.yml")], check=True, env=environment)


if __name__ == "__main__":
    build(Path(sys.argv[1] if len(sys.argv) > 1 else ROOT / "build" / "site").resolve())
