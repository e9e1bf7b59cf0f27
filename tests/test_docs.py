"""What README and docs/ say is true: examples run, commands parse, numbers are the measured ones, links work."""

import dataclasses
import doctest
import importlib
import json
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from kerasmodels import claims, export, registry, storage, training
from kerasmodels.apps import cli
from kerasmodels.apps.command import HelpRequest
from tests import cases

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]

BLOCK = re.compile(r"(?P<run><!-- run -->\n)?^```(?P<language>\w+)\n(?P<code>.*?)^```$", re.DOTALL | re.MULTILINE)
FIGURE = re.compile(r"<!-- (?P<file>[\w/.-]+\.json): (?P<path>[^<>]+?) -->(?P<text>.*?)<!-- / -->", re.DOTALL)
NUMBER = re.compile(r"-?\d[\d,]*(?:\.\d+)?(?:e-?\d+)?")


def _blocks(language: str) -> Iterator[tuple[Path, int, re.Match[str]]]:
    for page in PAGES:
        for number, block in enumerate(BLOCK.finditer(page.read_text()), 1):
            if block["language"] == language:
                yield page, number, block


def _examples() -> list[Any]:
    found = [(page, number, block) for page, number, block in _blocks("python") if block["run"]]
    return [pytest.param(b["code"], id=f"{page.relative_to(ROOT)}-{number}") for page, number, b in found]


@pytest.mark.parametrize("code", _examples())
def test_python_example_runs(code: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    exec(compile(code, "example", "exec"), {"__name__": "__main__"})


def test_the_family_of_contributing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The worked example is written to files, registered, trained, used, exported and measured."""
    codes = [block["code"] for page, _, block in _blocks("python") if page.name == "CONTRIBUTING.md"]
    files = {code.split()[1].rstrip(","): code for code in codes}
    row = eval(files.pop("kerasmodels/registry.py"), {"Row": registry.Row})
    monkeypatch.setattr(registry, "ROWS", (*registry.ROWS, row))
    # Keras forgets the class afterwards.
    monkeypatch.setitem(keras.saving.get_custom_objects(), f"kerasmodels>{row.models[0]}", None)
    for name, code in files.items():
        storage.write_text(tmp_path / name, code)
        folder = Path(name).parent if name.startswith("kerasmodels/") else Path(name).parents[1]
        package = importlib.import_module(".".join(folder.parts))
        monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path / folder)])
    family, case = registry.family(row.name), cases.case_of(row.name)
    config = dataclasses.replace(case.config, **case.data(tmp_path))
    training.train(family, config, tmp_path / "run", progress=False)
    report = family.task.run(case.task(tmp_path, tmp_path / "run", tmp_path / "out"))
    assert [path.name for path in report.outputs] == ["clean.png"]
    assert export.export(tmp_path / "run", tmp_path / "served", formats=["litert"]).artifacts
    (claim,) = claims.experiments(row.name)["noise"].measure(None, tmp_path, True)
    assert claim.passed, claim


def _modules() -> list[str]:
    """Every module but the scripts, found by file: in a checkout the package's path also holds the checkout itself."""
    homes = {"kerasmodels": "kerasmodels", "kerasmodels.export": "export", "kerasmodels.apps": "apps"}
    found = []
    for package, folder in homes.items():
        for file in sorted((ROOT / folder).rglob("*.py")):
            name = ".".join((package, *file.relative_to(ROOT / folder).with_suffix("").parts)).removesuffix(".__init__")
            if ".runners" not in name and not name.endswith("__main__"):
                found.append(name)
    return found


@pytest.mark.parametrize("module", _modules())
def test_doctests(module: str) -> None:
    assert doctest.testmod(importlib.import_module(module), optionflags=doctest.ELLIPSIS).failed == 0


def _commands() -> list[Any]:
    found = []
    for page, _, block in _blocks("bash"):
        for line in block["code"].splitlines():
            words = shlex.split(line, comments=True)
            if words and words[0] == "kerasmodels":
                found.append(pytest.param(words[1:], id=f"{page.stem}: {' '.join(words[1:4])}"))
    return found


@pytest.mark.parametrize("words", _commands())
def test_command_is_understood(words: list[str]) -> None:
    """Each command is parsed for real, with --help at its end, and so not carried out."""
    verb, *rest = words[: words.index("|")] if "|" in words else words
    assert verb in cli.VERBS
    known = importlib.import_module(f"kerasmodels.apps.{cli.VERBS[verb][0]}")
    with pytest.raises(HelpRequest) as request:
        known.main([*rest[:1], "--help"] if verb in ("run", "train") else ["--help"])
    flags = {word.partition("=")[0] for word in rest if word.startswith("-")} - {"--json", "--debug"}
    assert [flag for flag in flags if not re.search(rf"(?<![\w-]){flag}(?![\w-])", str(request.value))] == []


def quoted_equals(text: str, stored: float) -> bool:
    """Whether `text` holds one number, and it is `stored` rounded to the decimals that are quoted.

    >>> quoted_equals("**1,234.6** times", 1234.56), quoted_equals("1,235", 1234.56), quoted_equals("1,234", 1234.56)
    (True, True, False)
    >>> quoted_equals("2e-5", 2.1e-5), quoted_equals("12 of 13", 12.0)
    (True, False)
    """
    numbers = NUMBER.findall(text)
    if len(numbers) != 1:
        return False
    digits, _, exponent = numbers[0].replace(",", "").partition("e")
    unit = 10.0 ** (int(exponent or 0) - len(digits.partition(".")[2]))
    quoted = float(digits) * 10.0 ** int(exponent or 0)
    return abs(quoted - stored) <= 0.5 * unit * (1 + 1e-9)


def test_quoted_equals_itself() -> None:
    assert doctest.run_docstring_examples(quoted_equals, {"quoted_equals": quoted_equals}) is None
    assert quoted_equals("26.4 dB", 26.35)
    assert not quoted_equals("26.4 dB", 26.3)
    assert not quoted_equals("no number", 1.0)


def stored(value: Any, path: str) -> Any:
    """What lies under a path of keys; entries of lists are called by their name or claim, never by their position.

    >>> stored({"rows": [{"name": "a / b", "ms": 1}, {"shape": "x", "name": "c", "ms": 2}]}, "rows/a / b/ms")
    1
    >>> stored([{"shape": "x", "name": "c", "ms": 2}, {"shape": "y", "name": "c", "ms": 3}], "y: c/ms")
    3
    """
    for key in re.split(r"(?<! )/(?! )", path):
        if isinstance(value, list):
            names = [(row.get("claim"), row.get("name"), f"{row.get('shape')}: {row.get('name')}") for row in value]
            (value,) = (row for row, known in zip(value, names, strict=True) if key in known)
        else:
            value = value[key]
    return value


def test_stored_values_have_names() -> None:
    assert doctest.run_docstring_examples(stored, {"stored": stored}) is None
    with pytest.raises(ValueError, match="unpack"):
        stored({"rows": [{"name": "a"}]}, "rows/0")


def test_quoted_numbers_are_the_measured_ones() -> None:
    wrong = []
    for page in PAGES:
        for figure in FIGURE.finditer(BLOCK.sub("", page.read_text())):
            value = stored(json.loads((ROOT / figure["file"]).read_text()), figure["path"])
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not (quoted_equals(figure["text"], value) if number else str(value) in figure["text"]):
                wrong.append(f"{page.name}: {figure['file']} {figure['path']} is {value}, quoted {figure['text']!r}")
    assert wrong == []


def test_results_were_written_by_the_command() -> None:
    for file in (ROOT / "results").glob("*.json"):
        result = json.loads(file.read_text())
        if "claims" in result:
            assert {claim["experiment"] for claim in result["claims"].values()} == result["measured"].keys()
            assert all(m["command"].startswith("kerasmodels reproduce ") for m in result["measured"].values())
            assert not re.search(r"[ =]/", " ".join(m["command"] for m in result["measured"].values())), file
            experiments = claims.experiments(result["family"])
            for name, measured in result["measured"].items():
                there = {figure for figure in measured["figures"] if (file.parent / figure).is_file()}
                assert experiments[name].private or there == set(measured["figures"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", page.read_text())
    links += re.findall(r"<img[^>]*src=\"(?!https?://)([^\"]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_tables_of_families_are_the_registry_s() -> None:
    tables = runpy.run_path(str(ROOT / "docs" / "tables.py"))
    for name, made in tables["PLACES"].items():
        text = (ROOT / name).read_text()
        assert made in text, "run: python docs/tables.py"
    assert all((ROOT / "docs" / f"{row.name}.md").is_file() for row in registry.ROWS)


@pytest.mark.parametrize("verb", cli.VERBS)
def test_command_is_in_the_docs(verb: str) -> None:
    assert re.search(rf"^\| `{verb}\b", (ROOT / "docs" / "cli.md").read_text(), re.MULTILINE)
