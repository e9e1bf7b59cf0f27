"""The documentation as a site: every link leads somewhere, and nothing is fetched from elsewhere."""

import json
import runpy
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

from kerasmodels import registry


@pytest.fixture(scope="module")
def site(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("site")
    runpy.run_path(str(root / "docs" / "site.py"))["build"](out)
    return out


class _Page(HTMLParser):
    """What a page links to, what it loads, and the anchors in it."""

    def __init__(self, text: str):
        super().__init__()
        self.links, self.loads, self.anchors = list[str](), list[str](), set[str]()
        self.feed(text)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        known = {key: value or "" for key, value in attributes}
        self.anchors |= {known[key] for key in ("id", "name") if key in known}
        if tag == "a" and "href" in known:
            self.links.append(known["href"])
        loaded = known.get("src") or (known.get("href") if tag == "link" else None)
        if loaded and known.get("rel") not in ("canonical", "prev", "next"):
            self.loads.append(loaded)


def _pages(site: Path) -> Iterator[tuple[Path, _Page]]:
    for file in sorted(site.rglob("*.html")):
        if file.name != "404.html":  # its links are from the root of a server
            yield file, _Page(file.read_text())


def test_every_link_leads_somewhere(site: Path) -> None:
    pages, wrong = dict(_pages(site)), []
    assert len(pages) > len(registry.ROWS) + 8
    for file, page in pages.items():
        for link in [*page.links, *page.loads]:
            parts = urlsplit(link)
            if parts.scheme in ("http", "https", "mailto", "data"):
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            missing = not target.is_file()
            if missing or (parts.fragment and target in pages and unquote(parts.fragment) not in pages[target].anchors):
                wrong.append(f"{file.name}: {link}")
    assert [text for text in wrong if "#__" not in text] == []


def test_nothing_is_fetched_from_elsewhere(site: Path) -> None:
    assert [load for _, page in _pages(site) for load in page.loads if urlsplit(load).netloc] == []


def test_the_gallery_shows_every_family(site: Path) -> None:
    page = _Page((site / "gallery.html").read_text())
    assert {row.name for row in registry.ROWS} <= page.anchors
    shown = {link.partition(".")[0] for link in page.links}
    assert {row.name for row in registry.ROWS} <= shown
    assert (site / "gallery.html").read_text().count("No picture is shipped of it.") <= 2


def test_missed_claims_are_shown(site: Path, root: Path) -> None:
    text = (site / "claims.html").read_text()
    found = [
        json.loads((root / "results" / f"{row.name}.json").read_text())
        for row in registry.ROWS
        if (root / "results" / f"{row.name}.json").is_file()
    ]
    missed = [claim for result in found for claim in result["claims"].values() if claim["passed"] is False]
    assert f"{len(missed)} missed it" in text
    # At the top, and in the family's own table.
    assert text.count("<strong>missed</strong>") == 2 * len(missed)


def test_search_knows_the_pages(site: Path) -> None:
    index = json.loads((site / "search" / "search_index.json").read_text())
    words = " ".join(entry["text"] for entry in index["docs"])
    assert "Hokusai" in words or "painting" in words
    assert {f"{row.name}.html" for row in registry.ROWS} <= {entry["location"] for entry in index["docs"]}
