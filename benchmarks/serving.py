"""What the server costs and stands: overhead, throughput over REST, V2 and gRPC, batching, 10^5 requests through a
version switch and SIGTERM, overload, 10^4 hostile requests. Writes results/serving.json.

FOLDER is an export of fast_style/wave and wgan/digits. Clients and server share the machine; each client is a thread of
a process of its own, so that it does not wait for the server's interpreter.
"""

import argparse
import concurrent.futures
import json
import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from kerasmodels import storage
from kerasmodels.apps.serving import tensors
from kerasmodels.apps.serving.client import Client
from kerasmodels.data.images import read_image
from kerasmodels.errors import ServingError
from kerasmodels.export.runners.runtimes import DEFAULT, onnxruntime
from tests.apps.serving.servers import Running, hostile, new_version, picture_file, running

RESULTS = Path(__file__).parent / "results" / "serving.json"
PICTURE, DIGITS = "fast_style-wave", "wgan-digits"


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(share * len(values)))]


def told(seconds: list[float], wall: float) -> dict[str, float]:
    return {
        "requests": len(seconds),
        "per_second": round(len(seconds) / wall, 1),
        "p50_ms": round(1e3 * percentile(seconds, 0.5), 2),
        "p99_ms": round(1e3 * percentile(seconds, 0.99), 2),
    }


# --- clients


def rest(url: str, seed: int) -> Callable[[], object]:
    client, row = Client(url), np.random.default_rng(seed).normal(size=128).round(4).tolist()
    body = json.dumps({"instances": [row]}).encode()
    return lambda: client.ask(f"/v1/models/{DIGITS}:predict", body)


def v2(url: str, seed: int) -> Callable[[], object]:
    client = Client(url)
    given = {"latent": np.random.default_rng(seed).normal(size=(1, 128)).astype("float32")}
    body, headers = tensors.infer_request(given)
    return lambda: client.ask(f"/v2/models/{DIGITS}/infer", body, headers)


def grpc_client(url: str, seed: int) -> Callable[[], object]:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

    request = predict_pb2.PredictRequest()
    request.model_spec.name = DIGITS
    values = np.random.default_rng(seed).normal(size=(1, 128)).astype("float32")
    request.inputs["latent"].CopyFrom(tf.make_tensor_proto(values))
    stub = prediction_service_pb2_grpc.PredictionServiceStub(grpc.insecure_channel(url))
    return lambda: stub.Predict(request, timeout=30)


def pictures(url: str, seed: int) -> Callable[[], object]:
    client, file = Client(url), picture_file(128, 128, "JPEG", seed)
    return lambda: client.ask(f"/pictures/{PICTURE}", file)


MAKERS = {"rest": rest, "v2": v2, "grpc": grpc_client, "pictures": pictures}


def _clients(kind: str, url: str, count: int, seconds: float, pipe: Any) -> None:
    """A process with `count` clients, which ask for so many seconds once they are told to begin."""
    asks = [MAKERS[kind](url, seed) for seed in range(count)]
    asks[0]()
    pipe.send("ready")
    pipe.recv()
    until, times, errors = time.perf_counter() + seconds, list[float](), Counter[str]()

    def work(ask: Callable[[], object]) -> None:
        while (began := time.perf_counter()) < until:
            try:
                ask()
                times.append(time.perf_counter() - began)
            except Exception as error:
                errors[str(error)[:80]] += 1

    with concurrent.futures.ThreadPoolExecutor(count) as pool:
        list(pool.map(work, asks))
    pipe.send((times, dict(errors)))


def load(kind: str, url: str, count: int, seconds: float) -> dict[str, Any]:
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(target=_clients, args=(kind, url, count, seconds, theirs))
    process.start()
    ours.recv()
    ours.send("go")
    times, errors = ours.recv()
    process.join()
    return {**told(times, seconds), "errors": sum(errors.values()), **({"kinds": errors} if errors else {})}


# --- experiments


def _in_turns(
    folder: Path, url: str, model: str, arrays: Any, file: bytes | None, rounds: int
) -> tuple[list[float], list[float], float]:
    """Milliseconds of the runtime alone, and through the server; and the runtime's own processor time for a call."""
    direct, client = onnxruntime(str(folder / f"{model}.onnx"), 1), Client(url)
    given = {"image": read_image(file)[None]} if file is not None else arrays
    path, body, headers = f"/pictures/{model}", file, {}
    if file is None:
        path = f"/v2/models/{model}/infer"
        body, headers = tensors.infer_request(given)
    alone, served = list[float](), list[float]()
    client.ask(path, body, headers)
    direct.call(DEFAULT, given)
    cpu = 0.0
    for _ in range(rounds):
        began, began_cpu = time.perf_counter(), time.process_time()
        direct.call(DEFAULT, given)
        middle = time.perf_counter()
        cpu += time.process_time() - began_cpu
        client.ask(path, body, headers)
        served.append(1e3 * (time.perf_counter() - middle))
        alone.append(1e3 * (middle - began))
    client.close()
    return alone, served, 1e3 * cpu / rounds


def _cpu_seconds(pid: int) -> float:
    """That a process has taken (Linux)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def overhead(folder: Path, rounds: int) -> dict[str, Any]:
    """One client and the runtime itself, in turns."""
    found = {}
    rng = np.random.default_rng(0)
    with running(folder) as server:
        cases = {
            "digits, V2 binary": (DIGITS, {"latent": rng.normal(size=(1, 128)).astype("float32")}, None),
            "picture of 128 x 128, V2 binary": (
                PICTURE,
                {"image": rng.integers(0, 256, (1, 128, 128, 3)).astype("uint8")},
                None,
            ),
            "picture of 128 x 128, JPEG in, PNG out": (PICTURE, None, picture_file(128, 128, "JPEG")),
        }
        for name, (model, arrays, file) in cases.items():
            began = _cpu_seconds(server.process.pid)
            alone, served, own = _in_turns(folder, server.url, model, arrays, file, rounds)
            cpu = 1e3 * (_cpu_seconds(server.process.pid) - began) / (rounds + 1)
            found[name] = {
                "runtime_ms": round(statistics.median(alone), 2),
                "served_ms": round(statistics.median(served), 2),
                "overhead_ms": round(statistics.median(served) - statistics.median(alone), 2),
                # Of the tenth of the calls that waited least for the machine's other work.
                "overhead_undisturbed_ms": round(percentile(served, 0.1) - percentile(alone, 0.1), 2),
                "runtime_cpu_ms": round(own, 2),
                "server_cpu_ms": round(cpu, 2),
                "overhead_cpu_ms": round(cpu - own, 2),
            }
    return found


def throughput(folder: Path, seconds: float) -> dict[str, Any]:
    """1, 4 and 16 clients; requests of equal shapes computed together or one by one, by two servers in turns."""
    found: dict[str, Any] = {}
    with (
        running(folder, "--batch", "16", "--requests", "256", "--grpc-port", "18599") as together,
        running(folder, "--batch", "1", "--requests", "256", "--grpc-port", "18598") as alone,
    ):
        for kind in MAKERS:
            for clients in (1, 4, 16):
                for rows, server, port in ((16, together, 18599), (1, alone, 18598)):
                    key = f"{kind}, {clients} clients, batches of {rows} at most"
                    url = f"127.0.0.1:{port}" if kind == "grpc" else server.url
                    began = _cpu_seconds(server.process.pid)
                    found[key] = load(kind, url, clients, seconds)
                    cpu = _cpu_seconds(server.process.pid) - began
                    found[key]["server_cpu_ms"] = round(1e3 * cpu / max(1, found[key]["requests"]), 2)
                    print(key, found[key], flush=True)
    for kind in MAKERS:
        both = [found[f"{kind}, 16 clients, batches of {rows} at most"]["server_cpu_ms"] for rows in (1, 16)]
        # In processor time, which the machine's other work does not change.
        found[f"{kind}: batching gain at 16 clients"] = round(both[0] / both[1], 2)
    found["errors"] = sum(row["errors"] for row in found.values() if isinstance(row, dict))
    return found


def endurance(folder: Path, count: int) -> dict[str, Any]:
    """`count` requests of 16 clients, through a version switch and the SIGTERM of a server that another one follows."""
    with tempfile.TemporaryDirectory() as place:
        own = Path(shutil.copytree(folder, Path(place) / "served", ignore=shutil.ignore_patterns("saved_model")))
        first = Running(own, "--share-port", "--models", DIGITS, "--poll", "0.2", "--requests", "64")
        left, lock, answered = iter(range(count)), threading.Lock(), [0]
        lost, digests, retried = list[str](), Counter[str](), [0]

        def work(seed: int) -> None:
            client = Client(first.url, deadline=60)
            given = {"latent": np.full((1, 128), 0.1, "float32")}
            body, headers = tensors.infer_request(given)
            while True:
                with lock:
                    if next(left, None) is None:
                        break
                try:
                    content, told_ = client.ask(f"/v2/models/{DIGITS}/infer", body, headers)
                    pixels = tensors.infer_answer(content, told_)["pictures"]
                    with lock:
                        answered[0] += 1
                        digests[str(int(pixels.astype("int64").sum()))] += 1
                except ServingError as error:
                    lost.append(str(error))
            with lock:
                retried[0] += client.retried
            client.close()

        began = time.perf_counter()
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(16)]
        for thread in threads:
            thread.start()

        def until(share: float) -> None:
            while answered[0] + len(lost) < share * count:
                time.sleep(0.05)

        until(0.25)
        new_version(own, DIGITS)
        until(0.6)
        second = Running(own, "--share-port", "--models", DIGITS, "--requests", "64", port=first.port)
        code = first.end(60)
        for thread in threads:
            thread.join()
        first.close()
        ended = second.end(60)
        second.close()
        return {
            "requests": count,
            "answered": answered[0],
            "lost": len(lost),
            "sent_again": retried[0],
            "versions_seen": len(digests),
            "exit_codes": [code, ended],
            "seconds": round(time.perf_counter() - began, 1),
            **({"trouble": lost[:3]} if lost else {}),
        }


def overload(folder: Path, seconds: float) -> dict[str, Any]:
    """64 clients without patience ask a server that takes on 8 at a time."""
    with running(folder, "--requests", "8") as server:
        statuses: Counter[str] = Counter()
        until = time.monotonic() + seconds

        def work(seed: int) -> None:
            client, file = Client(server.url, retries=0), picture_file(128, 128, "JPEG", seed)
            while time.monotonic() < until:
                try:
                    client.ask(f"/pictures/{PICTURE}", file)
                    statuses["200"] += 1
                except ServingError as error:
                    statuses["429" if "429" in str(error) else str(error)[:60]] += 1
                    time.sleep(0.02)
            client.close()

        with concurrent.futures.ThreadPoolExecutor(64) as pool:
            list(pool.map(work, range(64)))
        server.ask(f"/pictures/{PICTURE}", picture_file(128, 128, "JPEG"), retries=10)
        return {"answers": dict(statuses), "answers_afterwards": True, "memory_mb": round(server.memory() / 1e6)}


def fuzz(folder: Path, count: int) -> dict[str, Any]:
    """Hostile requests; the server must go on, and nothing may be a fault of its own."""
    import http.client

    with running(folder) as server:
        before = server.memory()

        def ask(seed: int) -> str:
            method, path, body, headers = hostile(seed, PICTURE, DIGITS)
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=60)
            try:
                connection.request(method, path, body, headers)
                answer = connection.getresponse()
                answer.read()
                return str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                return type(error).__name__
            finally:
                connection.close()

        with concurrent.futures.ThreadPoolExecutor(4) as pool:
            statuses = Counter(pool.map(ask, range(count)))
        assert server.json("/healthz") == {"live": True}
        return {
            "requests": count,
            "statuses": dict(sorted(statuses.items())),
            "crashes": int(server.process.poll() is not None),
            "server_faults": sum(n for status, n in statuses.items() if status.startswith("5")),
            "memory_growth_mb": round((server.memory() - before) / 1e6),
        }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="*", default=["overhead", "throughput", "endurance", "overload", "fuzz"])
    parser.add_argument("--quick", action="store_true", help="a twentieth of it, and nothing is written")
    options = parser.parse_args()
    less = 20 if options.quick else 1
    experiments = {
        "overhead": lambda: overhead(options.folder, 100 // less),
        "throughput": lambda: throughput(options.folder, 4 / less),
        "endurance": lambda: endurance(options.folder, 100_000 // less),
        "overload": lambda: overload(options.folder, 10 / less),
        "fuzz": lambda: fuzz(options.folder, 10_000 // less),
    }
    found = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    for name in options.only:
        load_before = os.getloadavg()[0]
        found[name] = {**experiments[name](), "load_average": [round(load_before, 1), round(os.getloadavg()[0], 1)]}
        print(name, json.dumps(found[name], indent=2), flush=True)
        if not options.quick:
            storage.write_json(RESULTS, found)


if __name__ == "__main__":
    main()
