"""`kerasmodels predict`, and the client that asks again."""

import http.server
import json
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from kerasmodels.apps import cli, predict
from kerasmodels.apps.serving.client import Client
from kerasmodels.data.images import read_image
from kerasmodels.errors import DataError, ServingError, UsageError
from kerasmodels.export.runners.runtimes import DEFAULT, onnxruntime
from tests.apps.serving.servers import Running, picture_file

Ask = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def ask(server: Running, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ask:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photo.jpg").write_bytes(picture_file(30, 40, "JPEG"))

    def call(*arguments: str) -> tuple[int, dict[str, Any]]:
        capfd.readouterr()
        code = cli.main(["predict", *arguments, "--url", server.url, "--json"])
        return code, json.loads(capfd.readouterr().out)

    return call


def test_a_picture(ask: Ask, folder: Path) -> None:
    code, told = ask("photo.jpg", "--model", "waves", "-o", "out.png")
    assert (code, told["outputs"]) == (0, ["out.png"])
    waves = onnxruntime(str(folder / "waves.onnx"), 1)
    wanted = waves.call(DEFAULT, {"image": read_image("photo.jpg")[None]})["stylized"][0]
    assert np.array_equal(read_image("out.png"), wanted)
    code, told = ask("photo.jpg", "--model", "waves")
    assert told["answers"]["photo.jpg"]["outputs"]["stylized"]["shape"] == [30, 40, 3]


def test_a_folder_of_pictures_one_of_which_is_none(ask: Ask, tmp_path: Path) -> None:
    for name in ("a.png", "b.png"):
        (tmp_path / "photos" / name).parent.mkdir(exist_ok=True)
        (tmp_path / "photos" / name).write_bytes(picture_file())
    assert ask("photos", "--model", "waves", "-o", "out/")[0] == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.png", "b.png"]
    (tmp_path / "photos" / "b.png").write_text("a text file")
    code, told = ask("photos", "--model", "waves", "-o", "out/")
    assert code == 1
    assert "1 of 2 inputs are done" in told["error"]["message"]
    assert "not a picture" in told["error"]["message"]


def test_arrays(ask: Ask, folder: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    given = {k: rng.normal(size=s).astype("float32") for k, s in (("series", (2, 6, 4)), ("scale", (2, 4)))}
    np.savez(tmp_path / "in.npz", **given)
    assert ask("in.npz", "--model", "series", "-o", "out.npz")[0] == 0
    with np.load(tmp_path / "out.npz") as found:
        for name, values in onnxruntime(str(folder / "series.onnx"), 1).call(DEFAULT, given).items():
            assert np.array_equal(found[name], values)


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["photo.jpg"], 2, "expected --model with one of series, waves"),
        (["photo.jpg", "--model", "wave"], 2, "Did you mean 'waves'"),
        (["none.jpg", "--model", "waves"], 1, "none.jpg cannot be read"),
        (["photo.jpg", "--model", "waves", "-o", "out.gif"], 2, "ending in .png or .jpg"),
        (["photo.jpg", "--model", "series"], 1, "expected a model that takes one picture"),
        ([], 2, "at least one picture"),
    ],
)
def test_what_is_wrong_is_said(ask: Ask, arguments: list[str], code: int, words: str) -> None:
    found, told = ask(*arguments)
    assert (found, words in told["error"]["message"]) == (code, True), told


class _Moody(http.server.BaseHTTPRequestHandler):
    """Does what its server's list of moods says: hang up, an HTTP status, or an answer."""

    moods: list[Any]

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        mood = self.moods.pop(0)
        if mood == "hang up":
            self.close_connection = True
            self.connection.close()
            return
        self.send_response(mood)
        self.send_header("content-length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def moody() -> Iterator[Callable[..., str]]:
    made = []

    def start(*moods: Any) -> str:
        handler = type("Handler", (_Moody,), {"moods": list(moods)})
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        made.append(server)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in made:
        server.shutdown()
        server.server_close()


def test_lost_connections_and_busy_servers_are_asked_again(moody: Callable[..., str]) -> None:
    client = Client(moody("hang up", 503, 429, 200), deadline=20)
    assert client.ask("/", b"x")[0] == b"ok"
    assert client.retried == 3
    client.close()


def test_refusals_are_not_asked_again(moody: Callable[..., str]) -> None:
    client = Client(moody(400, 200), deadline=20)
    with pytest.raises(ServingError, match="refused: ok") as error:
        client.ask("/", b"x")
    assert (error.value.status, client.retried) == (400, 0)
    client.close()


def test_a_deadline_and_a_number_of_tries_end_it(moody: Callable[..., str]) -> None:
    for options, tries in (
        ({"deadline": 0.3, "retries": 1000}, r"in \d tries and 0.3 s"),
        ({"retries": 1}, "in 2 tries"),
    ):
        client = Client(moody(*[503] * 50), **options)
        with pytest.raises(ServingError, match=tries):
            client.ask("/", b"x")
        client.close()


def test_nobody_there() -> None:
    with pytest.raises(ServingError, match="Start one: kerasmodels serve"):
        Client("http://127.0.0.1:1", retries=0).ask("/")
    for url in ("ftp://a", "http://", "http://a:x"):
        with pytest.raises(UsageError, match="expected a server"):
            Client(url)


def test_a_missing_file_is_said_before_anybody_is_asked(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        predict.main([str(tmp_path / "photo.jpg"), "--url", "http://127.0.0.1:1", "--retries", "0"])
