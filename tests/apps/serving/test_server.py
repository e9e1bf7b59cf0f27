"""What is asked of a running server: TensorFlow Serving's JSON, V2, pictures; wrong requests; new versions; its end."""

import base64
import concurrent.futures
import http.client
import io
import json
import shutil
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kerasmodels import storage
from kerasmodels.apps.serving import tensors
from kerasmodels.apps.serving.client import Client
from kerasmodels.data.images import read_image
from kerasmodels.errors import ServingError
from kerasmodels.export.runners.runtimes import DEFAULT, Loaded, onnxruntime
from tests.apps.serving.servers import Running, bomb, hostile, new_version, picture_file, running


@pytest.fixture(scope="module")
def waves(folder: Path) -> Loaded:
    """The same model, called without a server."""
    return onnxruntime(str(folder / "waves.onnx"), 1)


@pytest.fixture(scope="module")
def series(folder: Path) -> Loaded:
    return onnxruntime(str(folder / "series.onnx"), 1)


def _series(rows: int, seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {k: rng.normal(size=s).astype("float32") for k, s in (("series", (rows, 6, 4)), ("scale", (rows, 4)))}


def _pixels(content: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def _b64(content: bytes) -> dict[str, str]:
    return {"b64": base64.b64encode(content).decode()}


# --- TensorFlow Serving's JSON


def test_rows_and_columns_are_what_the_runtime_answers(server: Running, series: Loaded) -> None:
    given = _series(3)
    wanted = series.call(DEFAULT, given)
    rows = [{k: v[i].tolist() for k, v in given.items()} for i in range(3)]
    by_row = server.json("/v1/models/series:predict", {"instances": rows})["predictions"]
    columns = {k: v.tolist() for k, v in given.items()}
    by_column = server.json("/v1/models/series/versions/1:predict", {"inputs": columns})["outputs"]
    for name, values in wanted.items():
        assert np.allclose([row[name] for row in by_row], values, atol=1e-6)
        assert np.allclose(by_column[name], values, atol=1e-6)


def test_files_of_several_sizes_and_one_that_is_none(server: Running, waves: Loaded) -> None:
    files = [picture_file(16, 20), picture_file(30, 12, "JPEG")]
    request = {"signature_name": "serve_bytes", "instances": [_b64(file) for file in files]}
    answers = server.json("/v1/models/waves:predict", request)["predictions"]
    for file, answer in zip(files, answers, strict=True):
        wanted = waves.call(DEFAULT, {"image": read_image(file)[None]})["stylized"][0]
        assert np.array_equal(np.array(answer), wanted)
    # And the same as files.
    pngs = server.json("/v1/models/waves:predict", {**request, "signature_name": "serve_png"})["predictions"]
    for png, answer in zip(pngs, answers, strict=True):
        assert np.array_equal(read_image(base64.b64decode(png["b64"])), np.array(answer))
    request["instances"].append(_b64(b"no picture"))
    with pytest.raises(ServingError, match="not a picture") as error:
        server.json("/v1/models/waves:predict", request)
    assert error.value.status == 415


def test_status_and_metadata(server: Running) -> None:
    (status,) = server.json("/v1/models/waves")["model_version_status"]
    assert (status["version"], status["state"]) == ("1", "AVAILABLE")
    told = server.json("/v1/models/series/metadata")["metadata"]["signature_def"]["signature_def"]
    sizes = [dim["size"] for dim in told["serving_default"]["inputs"]["series"]["tensor_shape"]["dim"]]
    assert sizes == ["-1", "-1", "4"]


# --- V2


def test_v2_in_json_and_in_binary(server: Running, series: Loaded) -> None:
    given = _series(2)
    wanted = series.call(DEFAULT, given)
    inputs = [
        {"name": k, "shape": list(v.shape), "datatype": "FP32", "data": v.ravel().tolist()} for k, v in given.items()
    ]
    answer = server.json("/v2/models/series/infer", {"id": "7", "inputs": inputs, "outputs": [{"name": "best"}]})
    (only,) = answer["outputs"]
    assert (answer["id"], only["name"], only["datatype"], only["shape"]) == ("7", "best", "INT32", [2])
    assert only["data"] == wanted["best"].tolist()
    content, headers = server.ask("/v2/models/series/infer", *tensors.infer_request(given))
    found = tensors.infer_answer(content, headers)
    assert all(np.array_equal(found[name], wanted[name]) for name in wanted)


def test_v2_health_and_metadata(server: Running) -> None:
    assert server.json("/v2/health/live") == {"live": True}
    assert server.json("/v2/health/ready") == {"ready": True}
    assert server.json("/v2/models/waves/ready")["ready"]
    (tensor,) = server.json("/v2/models/waves")["inputs"]
    assert tensor == {"name": "image", "datatype": "UINT8", "shape": [-1, -1, -1, 3]}
    assert [model["name"] for model in server.json("/v2/repository/index", {})] == ["series", "waves"]


# --- pictures


def test_a_picture_in_a_picture_out(server: Running, waves: Loaded) -> None:
    file = picture_file(30, 40, "JPEG")
    wanted = waves.call(DEFAULT, {"image": read_image(file)[None]})["stylized"][0]
    content, headers = server.ask("/pictures/waves", file)
    assert headers["content-type"] == "image/png"
    assert np.array_equal(_pixels(content), wanted)
    content, headers = server.ask("/pictures/waves?format=jpeg&output=stylized&max_side=20", file)
    assert headers["content-type"] == "image/jpeg"
    assert _pixels(content).shape == (16, 20, 3)  # 15 x 20, and the net makes even sizes
    told = json.loads(server.ask("/pictures/waves?format=json", file)[0])
    assert told["outputs"]["stylized"]["shape"] == [30, 40, 3]


def test_pictures_are_fitted_where_the_size_is_fixed(folder: Path) -> None:
    with running(folder, "--format", "litert") as fixed:
        content, _ = fixed.ask("/pictures/waves", picture_file(100, 100))
        assert _pixels(content).shape == (32, 40, 3)
        with pytest.raises(ServingError, match="expected image of uint8 \\(1, 32, 40, 3\\)"):
            fixed.json("/v1/models/waves:predict", {"instances": [np.zeros((8, 8, 3), int).tolist()]})
        rows = [np.full((32, 40, 3), n, int).tolist() for n in (0, 200)]
        both = fixed.json("/v1/models/waves:predict", {"instances": rows})["predictions"]
        assert both[1] == fixed.json("/v1/models/waves:predict", {"instances": rows[1:]})["predictions"][0]
        assert [model["name"] for model in fixed.json("/models")["models"]] == ["waves"]


# --- wrong requests

WRONG: list[tuple[str, Any, int, str]] = [
    ("/v1/models/nobody:predict", {"instances": [1]}, 404, "unknown model 'nobody'. Known: series, waves"),
    ("/v1/models/waves/versions/9:predict", {"instances": [1]}, 404, "served in version 1"),
    ("/v1/models/waves:classify", {}, 400, "expected :predict"),
    ("/v1/models/waves:predict", [1], 400, "expected a JSON object"),
    ("/v1/models/waves:predict", {}, 400, '"instances" or "inputs"'),
    ("/v1/models/waves:predict", {"instances": [[[[1, 2], [1]]]]}, 400, "nested lists of uint8"),
    ("/v1/models/waves:predict", {"instances": [[[[300, 1, 1]]]]}, 400, "beyond 0 to 255"),
    ("/v1/models/waves:predict", {"instances": [[[[0.5, 1, 1]]]]}, 400, "not whole"),
    ("/v1/models/waves:predict", {"instances": [[[["a", "b", "c"]]]]}, 400, "nested lists of uint8"),
    ("/v1/models/waves:predict", {"instances": [[[[1, 2]]]]}, 400, r"uint8 \(batch, height, width, 3\)"),
    ("/v1/models/waves:predict", {"signature_name": "x", "instances": [1]}, 400, "unknown signature 'x'"),
    ("/v1/models/waves:predict", {"instances": [{"b64": "!"}]}, 400, "base64"),
    ("/v1/models/series:predict", {"instances": [{"series": [[0] * 4]}]}, 400, "expected the inputs"),
    ("/v1/models/series:predict", {"inputs": {"series": [[[0] * 4]], "scale": [[0] * 4] * 2}}, 400, "as many rows"),
    ("/v2/models/series/infer", {"inputs": [{"name": "series"}]}, 400, "unknown datatype None"),
    (
        "/v2/models/series/infer",
        {"inputs": [{"name": "series", "shape": [1, 1, 4], "datatype": "FP32", "data": [1]}]},
        400,
        "expected series to be FP32",
    ),
    ("/pictures/series", {}, 400, "expected a model that takes one picture"),
    ("/pictures/waves?output=x", {}, 400, "unknown output 'x'. Known: stylized"),
    ("/pictures/waves?format=gif", {}, 400, "unknown format 'gif'"),
    ("/nothing", {}, 404, "nothing is at"),
]


@pytest.mark.parametrize(("path", "value", "status", "words"), WRONG)
def test_what_is_wrong_is_said(server: Running, path: str, value: Any, status: int, words: str) -> None:
    with pytest.raises(ServingError, match=words) as error:
        server.json(path, value)
    assert error.value.status == status


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (picture_file(kind="JPEG")[:200], 415),
        (b"", 415),
        (bomb(), 413),
        (bomb(2_500), 413),
        (bytes(40 << 20), 413),
    ],
)
def test_what_is_no_picture_or_too_large_is_refused(server: Running, content: bytes, status: int) -> None:
    with pytest.raises(ServingError) as error:
        server.ask("/pictures/waves", content)
    # The server may close before the client has sent all of a body that is too large.
    assert error.value.status == status or (status == 413 and len(content) > 32 << 20 and error.value.status == 504)


def _raw(server: Running, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", server.port), timeout=10) as connection:
        connection.sendall(request)
        return int(connection.makefile("rb").readline().split()[1])


def test_pages_of_other_sites_are_refused(server: Running) -> None:
    host = f"127.0.0.1:{server.port}".encode()
    assert _raw(server, b"GET /models HTTP/1.1\r\nHost: " + host + b"\r\n\r\n") == 200
    assert _raw(server, b"GET /models HTTP/1.1\r\nHost: example.org\r\n\r\n") == 403
    other = b"\r\nOrigin: http://example.org\r\n\r\n"
    assert _raw(server, b"GET /models HTTP/1.1\r\nHost: " + host + other) == 403


def _ask(server: Running, seed: int) -> int:
    method, path, body, headers = hostile(seed)
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    try:
        connection.request(method, path, body, headers)
        answer = connection.getresponse()
        answer.read()
        return answer.status
    finally:
        connection.close()


def _fuzzed(server: Running, count: int) -> None:
    began = server.memory()
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        statuses = list(pool.map(lambda seed: _ask(server, seed), range(count)))
    assert not {status for status in statuses if status >= 500}
    assert {200, 400, 404, 405, 413, 415} <= set(statuses)
    assert server.json("/healthz") == {"live": True}
    assert server.memory() - began < 500e6


def test_hostile_requests(server: Running) -> None:
    _fuzzed(server, 300)


@pytest.mark.slow
def test_ten_thousand_hostile_requests(server: Running) -> None:
    _fuzzed(server, 10_000)


# --- load


def test_more_than_it_takes_on_is_told_to_come_later(folder: Path) -> None:
    body = json.dumps({"instances": [np.zeros((100, 120, 3), int).tolist()]}).encode()
    with running(folder, "--requests", "2") as small:

        def ask(_: int) -> int:
            try:
                small.ask("/v1/models/waves:predict", body)
            except ServingError as error:
                return 429 if "429" in str(error) else error.status
            return 200

        with concurrent.futures.ThreadPoolExecutor(8) as pool:
            statuses = list(pool.map(ask, range(24)))
        assert set(statuses) == {200, 429}
        assert small.ask("/v1/models/waves:predict", body, retries=20)


def test_equal_shapes_are_computed_together(server: Running) -> None:
    body, headers = tensors.infer_request(_series(1))

    def ask(_: int) -> None:
        client = Client(server.url)
        for _ in range(40):
            client.ask("/v2/models/series/infer", body, headers)
        client.close()

    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        list(pool.map(ask, range(8)))
    text = server.ask("/metrics")[0].decode()
    told = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    rows = float(told['kerasmodels_call_rows_sum{model="series"}'])
    calls = float(told['kerasmodels_call_rows_count{model="series"}'])
    assert rows >= 320
    assert calls < rows
    assert float(told['kerasmodels_requests_total{code="200",model="series",protocol="v2"}']) >= 320


@pytest.fixture
def own(folder: Path, tmp_path: Path) -> Path:
    """A copy that may be changed."""
    return Path(shutil.copytree(folder, tmp_path / "served"))


class _Load:
    """Clients that ask all the time; every request must be answered."""

    def __init__(self, url: str, clients: int = 4):
        self.answers: list[float] = []
        self.trouble: list[str] = []
        self._stop = threading.Event()
        self._url = url
        self._threads = [threading.Thread(target=self._ask) for _ in range(clients)]
        for thread in self._threads:
            thread.start()

    def _ask(self) -> None:
        client = Client(self._url, deadline=20)
        body, headers = tensors.infer_request(_series(1))
        while not self._stop.is_set():
            try:
                found = tensors.infer_answer(*client.ask("/v2/models/series/infer", body, headers))
                self.answers.append(float(found["scores"][0, 0]))
            except ServingError as error:
                self.trouble.append(str(error))
        client.close()

    def wait(self, count: int) -> None:
        """Until there are so many more answers, or trouble."""
        count += len(self.answers)
        until = time.monotonic() + 30
        while len(self.answers) < count and not self.trouble and time.monotonic() < until:
            time.sleep(0.02)

    def end(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()


@pytest.fixture
def loads() -> Iterator[list[_Load]]:
    made: list[_Load] = []
    yield made
    for load in made:
        load.end()


def test_a_new_version_takes_over_without_a_lost_request(own: Path, loads: list[_Load], series: Loaded) -> None:
    before = float(series.call(DEFAULT, _series(1))["scores"][0, 0])
    with running(own, "--poll", "0.1") as server:
        load = _Load(server.url)
        loads.append(load)
        load.wait(20)
        new_version(own, "series")
        after = float(onnxruntime(str(own / "series.onnx"), 1).call(DEFAULT, _series(1))["scores"][0, 0])
        assert abs(after - before) > 1e-3
        until = time.monotonic() + 20
        while abs(load.answers[-1] - before) < 1e-4 and time.monotonic() < until:
            time.sleep(0.05)
        load.end()
        assert load.trouble == []
        assert {round(answer, 4) for answer in load.answers} == {round(before, 4), round(after, 4)}
        assert server.json("/v2/models/series")["versions"] == ["2"]
        # A file that is no model leaves the last version in place.
        index = json.loads((own / "export.json").read_text())
        (own / "series.onnx").write_bytes(b"no model")
        index["models"]["series"]["artifacts"][0]["sha256"] = storage.sha256(own / "series.onnx")
        storage.write_json(own / "export.json", index)
        until = time.monotonic() + 20
        while not any("could not be loaded" in line for line in server.lines) and time.monotonic() < until:
            time.sleep(0.05)
        assert "series could not be loaded" in server.lines[-1]
        assert server.json("/v2/models/series")["versions"] == ["2"]


def test_sigterm_answers_what_is_in_hand_and_the_next_server_the_rest(own: Path, loads: list[_Load]) -> None:
    first = Running(own, "--share-port")
    try:
        load = _Load(first.url)
        loads.append(load)
        load.wait(20)
        with running(own, "--share-port", port=first.port) as second:
            assert second.port == first.port
            assert first.end() == 0
            count = len(load.answers)
            load.wait(20)
            load.end()
            assert load.trouble == []
            assert len(load.answers) > count
    finally:
        first.close()


def test_it_is_not_ready_while_it_drains(folder: Path) -> None:
    server = Running(folder, "--drain", "1.5")
    try:
        server.process.terminate()
        time.sleep(0.5)
        with pytest.raises(ServingError, match="not ready"):
            server.ask("/readyz")
        content, headers = server.ask("/pictures/waves", picture_file())
        assert content
        assert headers["connection"] == "close"
        assert server.process.wait(20) == 0
    finally:
        server.close()
