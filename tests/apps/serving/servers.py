"""A server in a process of its own, new versions of what it serves, and requests that no server should like."""

import io
import json
import os
import re
import signal
import subprocess
import sys
import threading
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper
from PIL import Image

from kerasmodels import storage
from kerasmodels.apps.serving.client import Client

ROOT = Path(__file__).parents[3]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}


class Running:
    """A server that answers at `url` until it is told to end."""

    def __init__(self, folder: Path, *flags: str, verb: str = "serve", port: int = 0):
        command = [sys.executable, "-m", "kerasmodels", verb, str(folder), f"--port={port}", "--threads=1", *flags]
        self.process = subprocess.Popen(
            command, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True, env=ENVIRONMENT, cwd=ROOT
        )
        self.lines: list[str] = []
        self.url = ""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            found = re.search(r"at (http://\S+)$", line)
            if found:
                self.url = found[1]
                break
        # Whatever it says later must be read, or it would wait.
        self._reader = threading.Thread(target=self.lines.extend, args=(self.process.stderr,), daemon=True)
        self._reader.start()
        if not self.url:
            self.close()
            raise AssertionError("".join(self.lines))

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def ask(self, path: str, body: bytes | None = None, headers: Any = None, retries: int = 0) -> Any:
        """What a new client is answered: content and headers."""
        client = Client(self.url, retries=retries)
        try:
            return client.ask(path, body, headers)
        finally:
            client.close()

    def json(self, path: str, value: Any = None) -> Any:
        """What it answers to JSON, or to GET without a value."""
        return json.loads(self.ask(path, None if value is None else json.dumps(value).encode())[0])

    def memory(self) -> int:
        """Bytes that it has in memory (Linux)."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def end(self, seconds: float = 30) -> int:
        """SIGTERM; returns the exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(seconds)

    def close(self) -> None:
        """Whatever happened, it is gone."""
        self.process.kill()
        self.process.wait()
        self._reader.join()
        assert self.process.stderr is not None
        self.process.stderr.close()


@contextmanager
def running(folder: Path, *flags: str, verb: str = "serve", port: int = 0) -> Iterator[Running]:
    """A server for as long as the block runs; it must end well."""
    server = Running(folder, *flags, verb=verb, port=port)
    try:
        yield server
        assert server.process.poll() is None, "".join(server.lines)
        assert server.end() == 0, "".join(server.lines)
    finally:
        server.close()


def new_version(folder: Path, name: str, times: float = 2.0) -> None:
    """Put another ONNX file in place of a model's, as an export does: the file first, then the index.

    One of its kernels is `times` as large, so that answers tell which version gave them.
    """
    index = json.loads((folder / "export.json").read_text())
    (artifact,) = (a for a in index["models"][name]["artifacts"] if a["format"] == "onnx")
    path = folder / artifact["path"]
    model = onnx.load(path)
    kernel = [t for t in model.graph.initializer if len(t.dims) == 2 and t.data_type == onnx.TensorProto.FLOAT][-1]
    kernel.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(kernel) * np.float32(times), kernel.name))
    storage.write_atomic(path, lambda file: file.write(model.SerializeToString()))
    artifact["sha256"] = storage.sha256(path)
    storage.write_json(folder / "export.json", index)


def picture_file(height: int = 24, width: int = 32, kind: str = "PNG", seed: int = 0) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), "uint8")
    written = io.BytesIO()
    Image.fromarray(pixels).save(written, kind)
    return written.getvalue()


def bomb(side: int = 30_000) -> bytes:
    """A PNG of a few hundred kilobytes at most that promises side x side pixels."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checked = kind + content
        return len(content).to_bytes(4, "big") + checked + zlib.crc32(checked).to_bytes(4, "big")

    header = side.to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    return (
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", header)
        + chunk(b"IDAT", zlib.compress(bytes(10_000)))
        + chunk(b"IEND", b"")
    )


Asked = tuple[str, str, bytes, dict[str, str]]
"""Method, path, body and headers."""


def hostile(seed: int, model: str = "waves", series: str = "series") -> Asked:
    """A request that is wrong in some way, another one for each seed. A few are right by chance."""
    rng = np.random.default_rng(seed)
    good = {"instances": [{"series": np.zeros((3, 4)).tolist(), "scale": [0.0] * 4}]}
    headers: dict[str, str] = {}

    def value(depth: int = 0) -> Any:
        """Any JSON."""
        choice = rng.integers(0, 9 if depth < 4 else 6)
        simple = [None, True, -1, 1e308, "x" * int(rng.integers(0, 50)), float(rng.normal())]
        if choice < 6:
            return simple[choice]
        if choice < 8:
            return [value(depth + 1) for _ in range(rng.integers(0, 4))]
        keys = ["b64", "name", "shape", "data", "instances", "inputs", "datatype", "series", "scale", "parameters"]
        return {str(rng.choice(keys)): value(depth + 1) for _ in range(rng.integers(0, 4))}

    def spoiled(content: bytes) -> bytes:
        damaged = bytearray(content)
        for _ in range(rng.integers(1, 12)):
            damaged[rng.integers(0, len(damaged))] = rng.integers(0, 256)
        return bytes(damaged)

    kind = int(rng.integers(0, 14))
    path, body = f"/v1/models/{series}:predict", b""
    if kind == 0:  # other JSON
        body = json.dumps(value()).encode()
    elif kind == 1:  # the right form with wrong parts
        wrong = json.loads(json.dumps(good))
        wrong["instances"][0][str(rng.choice(["series", "scale", "other"]))] = value()
        body = json.dumps(wrong).encode()
    elif kind == 2:  # damaged JSON
        body = spoiled(json.dumps(good).encode())
    elif kind == 3:  # shapes
        shape = rng.integers(0, 5, rng.integers(0, 5)).tolist()
        body = json.dumps({"inputs": {"series": np.zeros(shape).tolist(), "scale": [[0, 0, 0, 0]]}}).encode()
    elif kind == 4:  # nested deep
        body = b'{"instances":' + b"[" * int(rng.integers(1, 200_000))
    elif kind == 5:  # V2
        tensor = {"name": "series", "shape": value(), "datatype": str(rng.choice(["FP32", "BYTES", "UINT8", "X"]))}
        tensor |= {"data": value(), "parameters": value()}
        path, body = (
            f"/v2/models/{series}/infer",
            json.dumps({"inputs": [tensor, value()], "outputs": value()}).encode(),
        )
    elif kind == 6:  # V2, binary
        sizes = [int(rng.integers(-5, 2**40)) for _ in range(2)]
        tensors = [
            {"name": n, "shape": [1, 4], "datatype": "FP32", "parameters": {"binary_data_size": s}}
            for n, s in zip(("series", "scale"), sizes, strict=True)
        ]
        head = json.dumps({"inputs": tensors}).encode()
        path, body = f"/v2/models/{series}/infer", head + rng.bytes(32)
        headers["Inference-Header-Content-Length"] = str(rng.choice([len(head), -1, 10**9, len(head) + 3, "x"]))
    elif kind == 7:  # cut short
        content = picture_file(kind=str(rng.choice(["JPEG", "PNG", "WEBP", "GIF"])))
        path, body = f"/pictures/{model}", content[: rng.integers(0, len(content))]
    elif kind == 8:  # damaged
        path, body = f"/pictures/{model}", spoiled(picture_file(kind=str(rng.choice(["JPEG", "PNG", "TIFF", "BMP"]))))
    elif kind == 9:
        path, body = f"/pictures/{model}", bomb(int(rng.integers(2_000, 60_000)))
    elif kind == 10:  # queries
        name, told = (
            rng.choice(["format", "output", "max_side"]),
            rng.choice(["-1", "0", "1e9", "../x", "%00", "9" * 400]),
        )
        path, body = f"/pictures/{model}?{name}={told}", picture_file()
    elif kind == 11:  # out of the folder
        steps = str(rng.choice(["../", "..%2f", "%2e%2e/", "....//", "..%5c", "%00"])) * int(rng.integers(1, 8))
        head = str(rng.choice(["/", "/v1/models/", "/pictures/", "/v2/models/", "/models/"]))
        return "GET", head + steps + "etc/passwd", b"", headers
    elif kind == 12:  # methods and versions
        end = str(
            rng.choice(["", "/versions/-1", "/versions/99999999999999999999", "/versions/x", ":classify", ":regress"])
        )
        return str(rng.choice(["PUT", "DELETE", "PATCH", "POST", "GET"])), f"/v1/models/{series}{end}", b"{}", headers
    else:  # bytes
        path = str(rng.choice([path, f"/v2/models/{series}/infer", f"/pictures/{model}"]))
        body = rng.bytes(int(rng.integers(0, 5_000)))
    return "POST", path, body, headers
