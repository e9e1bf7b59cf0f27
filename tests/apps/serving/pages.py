"""The page in headless Chromium, used as a visitor does, and compared with Python."""

import base64
import functools
import http.server
import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps

from kerasmodels.export.runners.runtimes import DEFAULT, RUNTIMES

CHROMIUM = next(
    (found for found in map(shutil.which, ("chromium", "chromium-browser", "google-chrome")) if found), None
)
FAKE_CAMERA = ("--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")


@contextmanager
def files_of(folder: Path) -> Iterator[str]:
    """A plain server of files, as anyone has one."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        extensions_map = {**http.server.SimpleHTTPRequestHandler.extensions_map, ".mjs": "text/javascript"}  # noqa: RUF012

        def log_message(self, *args: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=str(folder)))
    thread = threading.Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Page:
    """The page in a browser, used as a visitor does."""

    def __init__(self, page: Any, url: str):
        self.page, self.url, self.requests, self.faults = page, url, list[str](), list[str]()
        page.set_default_timeout(180_000)
        page.on("request", lambda request: self.requests.append(request.url))
        page.on("pageerror", lambda error: self.faults.append(str(error)))
        page.on("console", self._said)
        self.open()

    def _said(self, message: Any) -> None:
        # LiteRT writes all of its remarks as errors.
        if message.type == "error" and not message.text.startswith(("INFO:", "WARNING:")):
            self.faults.append(message.text)

    def open(self) -> None:
        self.page.goto(self.url)
        self.page.wait_for_selector("body[data-ready]", timeout=180_000)

    def choose(self, model: str, engine: str | None = None) -> None:
        self.page.select_option("#model", label=model)
        if engine is not None:
            self.page.select_option("#engine", value=engine)

    def photo(self, file: Path) -> None:
        self.page.set_input_files("#file", str(file))
        self.until(lambda: not self.page.text_content("#status").startswith("Reading"), 60)

    def run(self, seconds: float = 300) -> str:
        """Go; returns what is said when it is done."""
        self.page.click("#run")
        self.until(lambda: self.page.text_content("#status").startswith("Done") or bool(self.trouble()), seconds)
        assert not self.trouble(), self.trouble()
        return self.page.text_content("#status")

    def until(self, happened: Callable[[], bool], seconds: float) -> None:
        """Wait. The page's own policy forbids what Playwright would wait with."""
        end = time.monotonic() + seconds
        while not happened():
            assert time.monotonic() < end, self.page.text_content("#status")
            self.page.wait_for_timeout(100)

    def trouble(self) -> str:
        return "" if self.page.is_hidden("#error") else self.page.text_content("#error")

    def last(self) -> list[tuple[dict[str, np.ndarray], dict[str, np.ndarray]]]:
        """What the model was given and gave, of each call."""
        told = self.page.evaluate(
            """() => {
              const plain = (arrays) => Object.fromEntries(Object.entries(arrays).map(([name, { data, shape }]) => {
                const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength);
                let text = "";
                const piece = 32768;
                for (let i = 0; i < bytes.length; i += piece) {
                  text += String.fromCharCode(...bytes.subarray(i, i + piece));
                }
                return [name, { kind: data.constructor.name, shape: Array.from(shape), text: btoa(text) }];
              }));
              return last.inputs.map((inputs, i) => [plain(inputs), plain(last.outputs[i])]);
            }"""
        )
        return [tuple({k: _array(v) for k, v in arrays.items()} for arrays in call) for call in told]  # type: ignore[misc]


def _array(told: dict[str, Any]) -> np.ndarray:
    dtype = told["kind"].removesuffix("Array").removesuffix("Clamped").replace("Big", "").lower()
    return np.frombuffer(base64.b64decode(told["text"]), dtype).reshape(told["shape"])


@contextmanager
def browser(*flags: str) -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", *flags])
        try:
            yield made
        finally:
            made.close()


def strokes(page: Page) -> None:
    """Paint the middle as what stays, and the edges as what goes."""
    box = page.page.locator("#input").bounding_box()
    for value, lines in {
        "255": [((0.45, 0.35), (0.55, 0.65))],
        "0": [((0.04, 0.06), (0.96, 0.06)), ((0.04, 0.94), (0.96, 0.94))],
    }.items():
        page.page.check(f"input[name=brush][value='{value}']")
        for (x1, y1), (x2, y2) in lines:
            page.page.mouse.move(box["x"] + x1 * box["width"], box["y"] + y1 * box["height"])
            page.page.mouse.down()
            page.page.mouse.move(box["x"] + x2 * box["width"], box["y"] + y2 * box["height"], steps=12)
            page.page.mouse.up()


def fit(photo: np.ndarray, like: np.ndarray) -> np.ndarray:
    """The photo as Pillow brings it to the size of what the page gave a model."""
    height, width = like.shape[1:3]
    return np.asarray(ImageOps.fit(Image.fromarray(photo), (width, height), Image.Resampling.BILINEAR))


def compared(page: Page, file: Path, photo: np.ndarray, runtime: str) -> dict[str, Any]:
    """The page's last answer beside that of Python's runtime."""
    loaded, largest, equal, given_equal = RUNTIMES[runtime](str(file), 1), 0.0, 1.0, True
    for inputs, outputs in page.last():
        if "image" in inputs:
            given_equal &= bool(np.array_equal(inputs["image"][0], fit(photo, inputs["image"])))
        wanted = loaded.call(DEFAULT, inputs)
        for name, values in outputs.items():
            if name == "probabilities":
                continue  # what is seen are the labels
            reference = np.asarray(wanted[name]).reshape(values.shape)
            labels = name == "labels"
            difference = np.abs(values.astype("float64") - reference.astype("float64"))
            if name == "alpha":
                difference *= 255  # levels
            if labels or name == "overlay":
                equal = min(equal, float((difference == 0).mean()))
            else:
                largest = max(largest, float(difference.max()))
                equal = min(equal, float((difference == 0).mean())) if values.dtype == np.uint8 else equal
    return {"max_difference": largest, "equal": equal, "photo_as_pillow_reads_it": given_equal}
