"""gallery.html, and what the terminal shows."""

import html.parser
import io
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmodels.training import Gallery, progress, train, write_gallery
from kerasmodels.training.callbacks import grid
from tests.training.autoencoder import FAMILY, SIZE, Config, preview

_VOID = {"meta", "img", "polyline"}


class Page(html.parser.HTMLParser):
    """Every address in a page, its visible text, and whether its tags nest."""

    def __init__(self, text: str):
        super().__init__()
        self.addresses: list[str] = []
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "action", "data")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in _VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def test_gallery_is_self_contained(whole: Path) -> None:
    text = (whole / "gallery.html").read_text(encoding="utf-8")
    page = Page(text)
    assert page.open == []
    # The newest picture of both series, and the three of each on the way.
    assert len(page.addresses) == 2 + 2 * 3
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    for address in page.addresses:
        text = text.replace(address, "")  # base64 may spell anything
    assert not any(outside in text for outside in ("http:", "https:", "//", "url(", "@import", "<script", "<link"))
    assert page.tags.count("polyline") == 3
    assert "done" in page.text
    assert "step 12 of 12" in page.text
    for name in ("autoencoder", "content", "smoothness", "learning_rate", "tensorflow"):
        assert name in page.text
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text


def test_text_from_the_user_is_escaped(tmp_path: Path) -> None:
    config = Config(steps=2, note="<script>alert(1)</script>")
    train(FAMILY, config, tmp_path / "<b>", command="kerasmodels <i>", log_every=1, progress=False)
    page = Page((tmp_path / "<b>" / "gallery.html").read_text(encoding="utf-8"))
    assert page.open == []
    assert not {"script", "i"} & set(page.tags)
    assert "<script>alert(1)</script>" in page.text


def test_long_runs_stay_small(tmp_path: Path) -> None:
    (tmp_path / "samples").mkdir()
    for step in range(0, 3000, 100):
        Image.effect_noise((600, 400), 50).convert("RGB").save(tmp_path / "samples" / f"step-{step:06d}-noise.png")
    log = "step,loss\n" + "".join(f"{step},{1e6 / step}\n" for step in range(10, 200000, 10)) + "200000,"
    (tmp_path / "log.csv").write_text(log)
    text = write_gallery(tmp_path).read_text(encoding="utf-8")
    page = Page(text)
    assert len(page.addresses) == 1 + 12
    assert "12 of 30" in page.text
    assert "Step 2900" in page.text
    assert "log scale" in page.text
    assert len(text) < 3e6


def test_callback_in_a_plain_fit(tmp_path: Path) -> None:
    model = FAMILY.build(Config())
    gallery = Gallery(tmp_path, preview, every=2)
    data = FAMILY.batches(Config())
    model.fit(data, steps_per_epoch=2, epochs=2, callbacks=[gallery], shuffle=False, verbose=0)
    assert {p.name[:11] for p in (tmp_path / "samples").iterdir()} == {"step-000002", "step-000004"}
    with Image.open(tmp_path / "samples" / "step-000004-rebuilt.png") as picture:
        assert picture.size == (SIZE, SIZE)
    assert len(Page((tmp_path / "gallery.html").read_text(encoding="utf-8")).addresses) == 2 + 4


def test_grid_holds_pictures_of_any_size() -> None:
    sizes = [(4, 6), (8, 3), (2, 2)]
    pictures = [np.full((*size, 3), i, np.uint8) for i, size in enumerate(sizes)]
    sheet = grid(pictures)
    assert sheet.shape == (16, 12, 3)
    assert (sheet[:4, :6] == 0).all()
    assert (sheet[:8, 6:9] == 1).all()
    assert (sheet[8:10, :2] == 2).all()
    assert (sheet[10:, 6:] == 128).all()


def test_plain_lines_are_rare(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with progress.display(None, 100, 200) as display:
        for step in range(101, 201):
            now += 1.0
            display.advance(step)
            display.report(step, {"loss": 12345.678, "content": 0.5}, 3.21)
    captured = capsys.readouterr()
    assert captured.out == ""
    lines = captured.err.splitlines()
    assert [line.split()[1] for line in lines] == [f"{s}/200" for s in (*range(101, 200, 10), 200)]
    assert lines[5] == "step 151/200  loss 1.235e+04  content 0.5  3.2 examples/s  0:00:49 to go"


def test_bar_on_a_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "160")
    with progress.display(None, 0, 4) as display:
        display.advance(2)
        display.report(2, {"content": 0.25}, 8)
        display.say("[note] text")
    text = terminal.getvalue()
    assert "2/4" in text
    assert "content 0.25" in text
    assert "8.0 examples/s" in text
    assert "[note] text" in text
    assert capsys.readouterr().out == ""
