"""The HTTP server: routes, limits, metrics, and an orderly end."""

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import prometheus_client as prometheus
import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp, Receive, Scope, Send

import kerasmodels
from kerasmodels.apps.serving import tensors
from kerasmodels.apps.serving.batching import Arrays, Closed
from kerasmodels.apps.serving.models import Model, Repository, described
from kerasmodels.errors import KerasModelsError, ServingError

log = logging.getLogger("kerasmodels.serve")
LOOPBACK = ("127.0.0.1", "localhost", "::1")
SMALL = 65_536
"""Bytes of JSON that are read and written beside everything else; more is done in a thread."""
INFERENCE_HEADER = "inference-header-content-length"
Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Settings:
    """What the server takes on.

    Args:
        host, port: where it listens.
        requests: that it has in hand at a time; 429 is what others are told.
        body: bytes of a request.
        seconds: that a request may take to arrive; the model's `Limits` say how long it may be computed.
        drain: seconds between SIGTERM, when it says that it is not ready, and the end of listening.
        grace: seconds that requests in hand are given after that.
    """

    host: str = "127.0.0.1"
    port: int = 8501
    requests: int = 64
    body: int = 32 << 20
    seconds: float = 30.0
    drain: float = 0.0
    grace: float = 30.0


class Metrics:
    """What Prometheus is told."""

    def __init__(self) -> None:
        self.registry = prometheus.CollectorRegistry()
        seconds = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)

        def made(kind: Any, name: str, doc: str, labels: Sequence[str] = (), **options: Any) -> Any:
            return kind(f"kerasmodels_{name}", doc, labels, registry=self.registry, **options)

        self.requests = made(
            prometheus.Counter, "requests", "Requests that were answered", ("model", "protocol", "code")
        )
        self.seconds = made(
            prometheus.Histogram,
            "request_seconds",
            "From a request's arrival to its answer",
            ("model", "protocol"),
            buckets=seconds,
        )
        self.computed = made(prometheus.Histogram, "call_seconds", "Calls of the runtime", ("model",), buckets=seconds)
        self.rows = made(
            prometheus.Histogram, "call_rows", "Rows of a call", ("model",), buckets=(1, 2, 4, 8, 16, 32, 64, 128)
        )
        self.in_hand = made(prometheus.Gauge, "requests_in_hand", "Requests that are being read, computed or written")
        self.waiting = made(prometheus.Gauge, "requests_waiting", "Requests in a model's queue", ("model",))
        self.version = made(prometheus.Gauge, "model_version", "The version that is served", ("model",))
        self.loads = made(prometheus.Counter, "model_loads", "Versions loaded, or not", ("model", "outcome"))

    def watch(self, event: str, *details: Any) -> None:
        """What a repository tells."""
        if event == "computed":
            name, rows, seconds = details
            self.computed.labels(name).observe(seconds)
            self.rows.labels(name).observe(rows)
        elif event == "loaded":
            model, seconds = details
            self.loads.labels(model.name, "loaded").inc()
            self.version.labels(model.name).set(model.version)
            log.info("%s version %s loaded from %s in %.1f s", model.name, model.version, model.path, seconds)
        else:
            name, trouble = details
            self.loads.labels(name, "failed").inc()
            log.error("%s could not be loaded: %s", name, trouble)

    def text(self, repository: Repository) -> bytes:
        """In Prometheus' format."""
        for model in repository.models:
            self.waiting.labels(model.name).set(model.waiting)
        return prometheus.generate_latest(self.registry)


@dataclass
class Serving:
    """What all requests share."""

    repository: Repository
    settings: Settings
    metrics: Metrics
    in_hand: int = 0
    draining: bool = False
    ending: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """Called when the server ends."""
    decoding: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(2))
    """Pictures and long JSON are worked on two at a time: each may take memory."""

    @property
    def ready(self) -> bool:
        """Whether new requests should be sent here."""
        return self.repository.ready and not self.draining

    async def worked(self, work: Callable[..., Any], *given: Any) -> Any:
        """Call `work` in a thread."""
        async with self.decoding:
            return await run_in_threadpool(work, *given)

    async def body(self, request: Request) -> bytes:
        """The body, within the limits.

        Raises:
            ServingError: 413, 408.
        """
        most = self.settings.body
        told = request.headers.get("content-length", "0")
        if told.isdecimal() and int(told) > most:
            raise ServingError(413, f"expected at most {most:,} bytes. Received: {int(told):,}.")
        if request.headers.get("content-encoding", "identity") != "identity":
            raise ServingError(415, "expected a body that is not compressed.")
        content = bytearray()
        try:
            async with asyncio.timeout(self.settings.seconds):
                async for piece in request.stream():
                    content += piece
                    if len(content) > most:
                        raise ServingError(413, f"expected at most {most:,} bytes. Received: more.")
        except TimeoutError:
            raise ServingError(408, f"expected a request within {self.settings.seconds:g} s.") from None
        return bytes(content)

    async def computed(self, model: Model, arrays: Mapping[str, Any], version: int | None) -> Arrays:
        """The outputs of the model's version that is served now."""
        return await _answered(self.repository.submit(model.name, arrays, version))

    async def picture(
        self, model: Model, body: bytes, kind: str, wanted: str | None, side: int | None, version: int | None = None
    ) -> bytes:
        """What the model makes of the picture in a file, as a PNG, a JPEG or JSON.

        Args:
            model: takes one picture.
            body: the file.
            kind: one of `tensors.TYPES`.
            wanted: an output; None for the first that is a picture, or all of them in JSON.
            side: pixels that the longer side is shrunk to; None for as it is.
            version: see `Repository.submit`.

        Raises:
            ServingError: 400, 413 or 415.
        """
        spec = tensors.picture_input(model)

        def read() -> Any:
            return tensors.fitted(tensors.read_picture(body, model, side), spec)

        given = await self.worked(read)
        found = await self.computed(model, {spec["name"]: given[None]}, version)

        def write() -> bytes:
            if kind == "json":
                told = tensors.summary(found, model)
                if wanted is not None:
                    told["outputs"] = {wanted: told["outputs"][wanted]}
                return tensors.text(told)
            specs = {output["name"]: output for output in model.outputs}
            for name in [wanted] if wanted else sorted(specs, key=lambda n: not tensors.takes_picture(specs[n])):
                image = tensors.drawn(found[name][0], specs[name])
                if image is not None:
                    return tensors.encoded(image, kind)
            raise ServingError(
                400, f"expected an output that is a picture; {model.name} has {list(specs)}. Ask for JSON."
            )

        return await self.worked(write)


async def _answered(future: "Future[Arrays]") -> Arrays:
    try:
        return await asyncio.wrap_future(future)
    except KerasModelsError:
        raise
    except asyncio.CancelledError:
        future.cancel()
        raise
    except Exception as error:
        # Shapes that a model's own arithmetic refuses, such as pictures that are too small, end in its runtime.
        log.warning("the runtime refused: %s", error)
        told = str(error).strip().splitlines()
        raise ServingError(400, f"the model could not compute this: {told[-1][:300] if told else error}") from None


def guarded(serving: Serving, protocol: str, handler: Handler) -> Handler:
    """The handler with its errors as answers, counted and timed, and only so many at a time as the settings say."""

    async def answered(request: Request) -> Response:
        began, name = time.perf_counter(), request.path_params.get("name", "")
        known = name if any(model.name == name for model in serving.repository.models) else ""
        if serving.in_hand >= serving.settings.requests:
            response = _error(429, f"{serving.in_hand} requests are in hand. Try again later.")
            response.headers["retry-after"] = "1"
        elif not serving.repository.ready:
            response = _error(503, "the models are being loaded. Try again later.")
            response.headers["retry-after"] = "1"
        else:
            serving.in_hand += 1
            serving.metrics.in_hand.set(serving.in_hand)
            try:
                response = await handler(request)
            except ServingError as error:
                response = _error(error.status, str(error))
            except KerasModelsError as error:
                response = _error(400, str(error))
            except ClientDisconnect:
                response = _error(499, "the client left.")
            except MemoryError:
                response = _error(503, "there is not enough memory for this now.")
            except Exception:
                log.exception("%s %s", request.method, request.url.path)
                response = _error(500, "this is a fault of the server; its log says more.")
            finally:
                serving.in_hand -= 1
                serving.metrics.in_hand.set(serving.in_hand)
        if response.status_code in (408, 413):
            response.headers["connection"] = "close"  # what is left of the body is not read
        serving.metrics.requests.labels(known, protocol, response.status_code).inc()
        serving.metrics.seconds.labels(known, protocol).observe(time.perf_counter() - began)
        return response

    return answered


def _error(status: int, message: str) -> Response:
    return Response(tensors.text({"error": message}), status, media_type="application/json")


def as_json(value: Any) -> Response:
    return Response(tensors.text(value), media_type="application/json")


def _version(request: Request) -> int | None:
    told = request.path_params.get("version")
    if told is None:
        return None
    if not told.isdecimal() or len(told) > 18:
        raise ServingError(404, f"expected a version's number. Received: {told[:40]!r}.")
    return int(told)


def routes(serving: Serving) -> list[Route]:
    """Everything that is answered."""
    repository, metrics = serving.repository, serving.metrics

    def model_of(request: Request) -> Model:
        return repository.find(request.path_params["name"], _version(request))

    # --- TensorFlow Serving

    async def predict(request: Request) -> Response:
        model, body = model_of(request), await serving.body(request)

        def read() -> tuple[list[Arrays], bool, str]:
            parsed = tensors.parse(body)
            return *tensors.from_predict(parsed, model), str(parsed.get("signature_name", ""))

        calls, by_row, signature = read() if len(body) < SMALL and b'"b64"' not in body else await serving.worked(read)
        answers = await asyncio.gather(*(serving.computed(model, call, _version(request)) for call in calls))

        def write() -> bytes:
            return tensors.text(tensors.to_predict(answers, model, by_row, signature))

        large = sum(array.nbytes for answer in answers for array in answer.values()) > SMALL
        content = await serving.worked(write) if large else write()
        return Response(content, media_type="application/json")

    async def status(request: Request) -> Response:
        model = model_of(request)
        state = {"version": str(model.version), "state": "AVAILABLE"}
        return as_json({"model_version_status": [{**state, "status": {"error_code": "OK", "error_message": ""}}]})

    async def metadata(request: Request) -> Response:
        model = model_of(request)

        def tensor(spec: Mapping[str, Any]) -> dict[str, Any]:
            sizes = [{"size": str(-1 if isinstance(n, str) else n), "name": ""} for n in spec["shape"]]
            dtype = {"float32": "DT_FLOAT", "float64": "DT_DOUBLE", "float16": "DT_HALF"}.get(spec["dtype"])
            shape = {"dim": sizes, "unknown_rank": False}
            return {"dtype": dtype or f"DT_{spec['dtype'].upper()}", "tensor_shape": shape, "name": spec["name"]}

        signature = {
            "inputs": {spec["name"]: tensor(spec) for spec in model.inputs},
            "outputs": {spec["name"]: tensor(spec) for spec in model.outputs},
            "method_name": "tensorflow/serving/predict",
        }
        spec = {"name": model.name, "signature_name": "", "version": str(model.version)}
        return as_json(
            {
                "model_spec": spec,
                "metadata": {"signature_def": {"signature_def": {"serving_default": signature}}},
            }
        )

    async def other_call(request: Request) -> Response:
        model_of(request)
        raise ServingError(400, f"expected :predict. Received: :{request.path_params['call'][:40]}.")

    # --- V2

    async def server(request: Request) -> Response:
        return as_json(
            {"name": "kerasmodels", "version": kerasmodels.__version__, "extensions": ["binary_tensor_data"]}
        )

    async def v2_metadata(request: Request) -> Response:
        model = model_of(request)

        def tensor(spec: Mapping[str, Any]) -> dict[str, Any]:
            shape = [-1 if isinstance(size, str) else size for size in spec["shape"]]
            return {"name": spec["name"], "datatype": tensors.DATATYPES[spec["dtype"]], "shape": shape}

        return as_json(
            {
                "name": model.name,
                "versions": [str(model.version)],
                "platform": model.artifact["runtime"],
                "inputs": [tensor(spec) for spec in model.inputs],
                "outputs": [tensor(spec) for spec in model.outputs],
            }
        )

    async def v2_ready(request: Request) -> Response:
        model = model_of(request)
        return as_json({"name": model.name, "ready": serving.ready})

    async def infer(request: Request) -> Response:
        model, body = model_of(request), await serving.body(request)
        told = request.headers.get(INFERENCE_HEADER)
        if told is not None and (not told.isdecimal() or len(told) > 12 or int(told) > len(body)):
            raise ServingError(400, f"expected {INFERENCE_HEADER} of at most {len(body)}. Received: {told[:40]!r}.")
        size = len(body) if told is None else int(told)

        def read() -> tuple[dict[str, Any], Arrays]:
            header = tensors.parse(body[:size])
            return header, tensors.from_infer(header, body[size:])

        header, arrays = read() if size < SMALL else await serving.worked(read)
        found = await serving.computed(model, arrays, _version(request))

        def write() -> tuple[bytes, list[bytes]]:
            answer, pieces = tensors.to_infer(found, model, header)
            return tensors.text(answer), pieces

        large = sum(array.nbytes for array in found.values()) > SMALL
        content, pieces = await serving.worked(write) if large else write()
        if not pieces:
            return Response(content, media_type="application/json")
        headers = {INFERENCE_HEADER: str(len(content))}
        return Response(b"".join([content, *pieces]), headers=headers, media_type="application/octet-stream")

    async def repository_index(request: Request) -> Response:
        return as_json([{"name": m.name, "version": str(m.version), "state": "READY"} for m in repository.models])

    # --- pictures

    async def picture(request: Request) -> Response:
        model, query = model_of(request), request.query_params
        kind = query.get("format") or ("json" if "json" in request.headers.get("accept", "") else "png")
        if kind not in tensors.TYPES:
            raise ServingError(400, f"unknown format {kind[:40]!r}. Known: {', '.join(tensors.TYPES)}.")
        names = [output["name"] for output in model.outputs]
        wanted = query.get("output")
        if wanted is not None and wanted not in names:
            raise ServingError(400, f"unknown output {wanted[:40]!r}. Known: {', '.join(names)}.")
        side = query.get("max_side")
        if side is not None and not (side.isdecimal() and 0 < len(side) < 6 and int(side)):
            raise ServingError(400, f"expected max_side as a number of pixels. Received: {side[:40]!r}.")
        content = await serving.picture(
            model, await serving.body(request), kind, wanted, int(side) if side else None, _version(request)
        )
        return Response(content, media_type=tensors.TYPES[kind])

    async def models(request: Request) -> Response:
        return as_json({"models": [described(model) for model in repository.models]})

    # --- health

    async def live(request: Request) -> Response:
        return as_json({"live": True})

    async def ready(request: Request) -> Response:
        return as_json({"ready": True}) if serving.ready else _error(503, "not ready")

    async def monitoring(request: Request) -> Response:
        return Response(metrics.text(repository), media_type=prometheus.CONTENT_TYPE_LATEST)

    def route(path: str, handler: Handler, protocol: str, method: str = "POST") -> Route:
        return Route(path, guarded(serving, protocol, handler), methods=[method])

    made = []
    for middle in ("", "/versions/{version}"):
        made += [
            route(f"/v1/models/{{name}}{middle}:predict", predict, "rest"),
            route(f"/v1/models/{{name}}{middle}:{{call}}", other_call, "rest"),
            route(f"/v1/models/{{name}}{middle}/metadata", metadata, "rest", "GET"),
            route(f"/v1/models/{{name}}{middle}", status, "rest", "GET"),
            route(f"/v2/models/{{name}}{middle}/infer", infer, "v2"),
            route(f"/v2/models/{{name}}{middle}/ready", v2_ready, "v2", "GET"),
            route(f"/v2/models/{{name}}{middle}", v2_metadata, "v2", "GET"),
            route(f"/pictures/{{name}}{middle}", picture, "pictures"),
        ]
    return [
        *made,
        Route("/v2", server),
        Route("/v2/repository/index", repository_index, methods=["POST"]),
        Route("/v2/health/live", live),
        Route("/v2/health/ready", ready),
        Route("/healthz", live),
        Route("/readyz", ready),
        Route("/models", models),
        Route("/metrics", monitoring),
        Route("/monitoring/prometheus/metrics", monitoring),
    ]


class _Local:
    """Refuses what a web page elsewhere sends to this machine: other origins, and names that lead here by DNS."""

    def __init__(self, app: ASGIApp, names: Sequence[str] | None):
        self._app, self._names = app, names

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            headers = {key: value.decode("latin-1") for key, value in scope["headers"]}
            host, origin = headers.get(b"host", ""), headers.get(b"origin")
            name = host.rpartition(":")[0] if not host.endswith("]") and ":" in host else host
            foreign = self._names is not None and name.strip("[]") not in self._names
            if foreign or (origin is not None and origin.partition("://")[2] != host):
                await _error(403, "requests from other web sites are refused.")(scope, receive, send)
                return
        await self._app(scope, receive, send)


class _Draining:
    """While the server ends, each answer says that its connection is closed."""

    def __init__(self, app: ASGIApp, serving: Serving):
        self._app, self._serving = app, serving

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_close(message: Any) -> None:
            if message["type"] == "http.response.start" and self._serving.draining:
                message["headers"] = [*message.get("headers", []), (b"connection", b"close")]
            await send(message)

        await self._app(scope, receive, with_close if scope["type"] == "http" else send)


def application(serving: Serving, further: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The ASGI application."""

    async def not_found(request: Request, error: Exception) -> Response:
        return _error(404, f"nothing is at {request.url.path[:200]!r}. See /models.")

    async def not_allowed(request: Request, error: Exception) -> Response:
        return _error(405, f"{request.method} is not what {request.url.path[:200]!r} answers.")

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        # By now, signals are handled.
        names = ", ".join(f"{model.name} ({model.artifact['path']})" for model in serving.repository.models)
        host = f"[{serving.settings.host}]" if ":" in serving.settings.host else serving.settings.host
        log.info("serving %s at http://%s:%d", names, host, serving.settings.port)
        yield
        for end in serving.ending:
            await end()
        await run_in_threadpool(serving.repository.close, serving.settings.grace)

    app = Starlette(
        routes=[*routes(serving), *further],
        exception_handlers={404: not_found, 405: not_allowed},
        lifespan=lifespan,
    )
    names = LOOPBACK if serving.settings.host in LOOPBACK else None
    return _Draining(_Local(app, names), serving)


class _Server(uvicorn.Server):
    """Says for a while that it is not ready before it ends."""

    def __init__(self, config: uvicorn.Config, serving: Serving):
        super().__init__(config)
        self._serving = serving

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        # uvicorn's own raises the signal again at the end: an orderly end would look like a killed process.
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, frame: Any) -> None:
        if self._serving.draining or not self._serving.settings.drain or sig == signal.SIGINT:
            self._serving.draining = True
            super().handle_exit(sig, frame)
            return
        self._serving.draining = True
        log.info("no longer ready; ending in %g s", self._serving.settings.drain)
        loop = asyncio.get_running_loop()
        loop.call_later(self._serving.settings.drain, super().handle_exit, sig, frame)


def listening(host: str, port: int, shared: bool = False) -> socket.socket:
    """A socket that listens; port 0 is any free one.

    Args:
        host, port: where.
        shared: let another server listen there, too, such as the next one in a rolling update.

    Raises:
        OSError: the address cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio sends small answers without delay only where the protocol is named.
    made = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if shared:
            made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        made.bind((host, port))
        made.listen(2048)
    except OSError:
        made.close()
        raise
    return made


def run(serving: Serving, made: socket.socket, further: Sequence[BaseRoute] = ()) -> None:
    """Answer requests until SIGTERM or SIGINT, then answer those in hand, and return."""
    config = uvicorn.Config(
        application(serving, further),
        http="h11",
        ws="none",
        lifespan="on",
        access_log=False,
        log_level="warning",
        server_header=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=max(1, round(serving.settings.grace)),
        limit_concurrency=None,
    )
    _Server(config, serving).run(sockets=[made])


__all__ = ["Closed", "Metrics", "Serving", "Settings", "application", "listening", "run"]
