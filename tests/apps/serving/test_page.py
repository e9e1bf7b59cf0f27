"""The page in headless Chromium, and the studio behind it: real photos, wrong input, no network."""

import json
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kerasmodels.apps import cli
from kerasmodels.apps.serving import web
from kerasmodels.data.images import read_image
from kerasmodels.errors import UsageError
from tests.apps.serving import pages
from tests.apps.serving.servers import Running, picture_file, running

# --- without a browser


def test_every_file_of_the_page_is_listed() -> None:
    assert {file.name for file in web.PAGE.iterdir() if file.is_file()} == set(web.FILES)
    text = "".join((web.PAGE / name).read_text() for name in web.FILES)
    assert "https://" not in text, "nothing comes from elsewhere"
    kept = (web.PAGE / "sw.js").read_text()
    assert all(f'"{name}"' in kept for name in web.FILES if name not in ("index.html", "sw.js"))


@pytest.fixture(scope="module")
def studio(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Running, Path]]:
    gallery = tmp_path_factory.mktemp("studio") / "gallery"
    with running(folder, "--gallery", str(gallery), verb="studio") as server:
        yield server, gallery


def test_the_studio_gives_the_page_and_what_was_verified_and_nothing_else(
    studio: tuple[Running, Path], folder: Path
) -> None:
    server, _ = studio
    content, headers = server.ask("/")
    assert (content, headers["content-type"]) == ((web.PAGE / "index.html").read_bytes(), "text/html; charset=utf-8")
    assert server.ask("/served/waves.onnx")[0] == (folder / "waves.onnx").read_bytes()
    assert set(server.json("/served/export.json")["models"]) == {"waves", "series"}
    assert server.json("/studio.json")["models"] == ["series", "waves"]
    for path in ("/served/MODEL_CARD.md", "/served/../export.json", "/studio/gallery/x.png", "/runtime/x", "/x.py"):
        with pytest.raises(Exception, match=r"refused: (there is no|nothing is)"):
            server.ask(path)


def test_what_the_studio_made_is_in_its_gallery(studio: tuple[Running, Path]) -> None:
    server, gallery = studio
    made, _ = server.ask("/studio/pictures/waves", picture_file())
    (first,) = server.json("/studio/gallery")["pictures"]
    assert first["title"] == "waves"
    assert server.ask(f"/studio/gallery/{first['file']}")[0] == made == (gallery / first["file"]).read_bytes()


def test_work_of_families_that_is_wrong_is_said(studio: tuple[Running, Path]) -> None:
    server, _ = studio
    with pytest.raises(Exception, match="there is no 'wgan'"):
        server.ask("/studio/jobs?family=wgan&preset=digits", picture_file())
    number = json.loads(server.ask("/studio/jobs?family=srcnn&preset=x3", b"a text file")[0])["id"]
    until = time.monotonic() + 30
    while (job := server.json(f"/studio/jobs/{number}"))["state"] in ("waiting", "running"):
        assert time.monotonic() < until
        time.sleep(0.05)
    assert job["state"] == "failed"
    assert "the file is not a picture" in job["message"]


def test_a_static_copy_needs_the_runtimes(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Run: make web"):
        web.write_static(folder, tmp_path / "page", runtimes=tmp_path)
    with pytest.raises(UsageError, match="@litertjs/core"):
        web.take_runtimes(tmp_path, tmp_path)


# --- in the browser

needs_browser = pytest.mark.skipif(
    pages.CHROMIUM is None or not (web.RUNTIME / "litert.js").is_file(),
    reason="needs Chromium, and `make web`",
)


@pytest.fixture(scope="module")
def static(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("static") / "page"
    assert cli.main(["studio", str(folder), "--static", str(out)]) == 0
    return out


@pytest.fixture
def open_page() -> Iterator[Callable[..., pages.Page]]:
    with pages.browser() as chromium:
        yield lambda url, **options: pages.Page(chromium.new_context(**options).new_page(), url)


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    import skimage.data

    return Path(shutil.copy(Path(skimage.data.__file__).parent / "rocket.jpg", tmp_path / "rocket.jpg"))


@pytest.mark.slow
@needs_browser
@pytest.mark.parametrize(
    ("engine", "runtime", "file"),
    [
        ("litert", "ai_edge_litert", "waves.tflite"),
        ("onnx", "onnxruntime", "waves.onnx"),
    ],
)
def test_a_real_photo_is_what_python_makes_of_it(
    static: Path, folder: Path, photo: Path, open_page: Any, engine: str, runtime: str, file: str
) -> None:
    with pages.files_of(static) as url:
        page = open_page(url)
        page.choose("waves", engine)
        page.photo(photo)
        assert "on this device" in page.run()
        found = pages.compared(page, folder / file, read_image(photo), runtime)
        assert found["max_difference"] <= 1
        assert found["equal"] > 0.99
        assert [request for request in page.requests if not request.startswith((url, "blob:", "data:"))] == []
        assert page.faults == []


@pytest.mark.slow
@needs_browser
def test_it_works_without_a_network_once_it_was_loaded(static: Path, photo: Path, open_page: Any) -> None:
    with pages.files_of(static) as url:
        page = open_page(url)
        page.choose("waves", "litert")
        page.photo(photo)
        page.run()
        first = page.last()[0][1]["stylized"]
    # The server is gone.
    page.open()
    page.choose("waves", "litert")
    page.photo(photo)
    page.run()
    assert np.array_equal(page.last()[0][1]["stylized"], first)


@pytest.mark.slow
@needs_browser
def test_wrong_input_is_said_in_words(static: Path, photo: Path, open_page: Any, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("a text file")
    Image.new("1", (10_000, 10_000)).save(tmp_path / "large.png")
    (tmp_path / "cut.jpg").write_bytes(photo.read_bytes()[:900])
    broken = Path(shutil.copytree(static, tmp_path / "broken"))
    (broken / "served" / "waves.tflite").write_bytes(b"no model")
    with pages.files_of(broken) as url:
        page = open_page(url)
        for name, words in {
            "notes.txt": "notes.txt is not a picture that can be read here. Choose a photo",
            "large.png": "This picture has 100 megapixels; at most 50 are read here. Make it smaller first",
            "cut.jpg": "cut.jpg is",
        }.items():
            page.photo(tmp_path / name)
            assert words in page.trouble()
        page.page.click("#camera")
        page.until(lambda: "camera" in page.trouble().lower(), 20)
        assert "choose a photo instead" in page.trouble().lower()
        page.choose("waves", "litert")
        page.photo(photo)
        page.page.click("#run")
        page.until(lambda: "could not be loaded" in page.trouble(), 60)
        # The other file of the same model is sound, and the page goes on.
        page.choose("waves", "onnx")
        assert "Done" in page.run()


@pytest.mark.slow
@needs_browser
def test_the_camera(static: Path) -> None:
    with pages.files_of(static) as url, pages.browser(*pages.FAKE_CAMERA) as chromium:
        page = pages.Page(chromium.new_context(permissions=["camera"]).new_page(), url)
        page.choose("waves", "litert")
        page.page.click("#camera")
        page.until(lambda: bool(page.page.evaluate("() => document.getElementById('video').videoWidth")), 30)
        page.page.click("#shoot")
        assert "Done" in page.run()


@pytest.mark.slow
@needs_browser
def test_the_studio_computes_for_the_page(studio: tuple[Running, Path], photo: Path, open_page: Any) -> None:
    server, _ = studio
    page = open_page(server.url)
    page.choose("waves", "server")
    page.photo(photo)
    assert page.run() == "Done, by the server."
    assert page.page.locator("#gallery-pictures img").count() >= 1
    page.choose("srcnn/x3 (full size, on the server)")
    page.run()
    assert page.page.text_content("#output-says").startswith("1920 ")
