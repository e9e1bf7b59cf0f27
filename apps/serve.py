"""`kerasmodels serve DIR`: an HTTP server for the models of an export folder."""

import logging
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from kerasmodels.apps.command import Outcome, parse
from kerasmodels.config import check
from kerasmodels.errors import KerasModelsError, UsageError, storage_error

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from kerasmodels.apps.serving.server import Serving

DESCRIPTION = """Answer requests for the models that `kerasmodels export` wrote: TensorFlow Serving's REST paths, the V2
(KServe) protocol, pictures (POST /pictures/MODEL), health and metrics. docs/serving.md has all paths."""


@dataclass(frozen=True)
class Options:
    folder: Annotated[tyro.conf.Positional[Path], tyro.conf.arg(metavar="DIR")]
    """The folder of `kerasmodels export`, with its export.json."""
    host: str = "127.0.0.1"
    """Where to listen. Others than this machine reach 0.0.0.0, without encryption or a password."""
    port: int = 8501
    """0 is any free one."""
    grpc_port: int | None = None
    """Also answer TensorFlow Serving's gRPC PredictionService there; needs tensorflow-serving-api."""
    models: tuple[str, ...] = ()
    """Which models. Left out: all."""
    format: Literal["onnx", "saved_model", "litert"] | None = None
    """Which artifacts. Left out: of each model the first of these that it has."""
    batch: int = 8
    """Rows that are computed together at most, from requests of equal shapes."""
    requests: int = 64
    """Requests in hand at a time; what comes beyond is told to come later (429)."""
    timeout: float = 30.0
    """Seconds that a request may take to arrive, and to be answered."""
    body: int = 32
    """MiB of a request at most."""
    pixels: float = 4.0
    """Millions of pixels, in and out, of a request at most."""
    threads: int | None = None
    """Of each runtime. Left out: as many as it likes."""
    poll: float = 1.0
    """Seconds between looks for new versions."""
    drain: float = 0.0
    """Seconds after SIGTERM in which it still takes requests, but says that it is not ready."""
    share_port: tyro.conf.FlagCreatePairsOff[bool] = False
    """Let another server listen at the same port, such as the next one while this one ends."""


def main(argv: Sequence[str]) -> Outcome:
    """Serve until SIGTERM or Ctrl-C."""
    options = parse(Options, argv, "kerasmodels serve", DESCRIPTION)
    return serve(options)


def serve(options: Options, further: "Callable[[Serving], Sequence[BaseRoute]] | None" = None) -> Outcome:
    """Serve the models of a folder, and what `further` makes routes of."""
    for name in ("batch", "requests", "timeout", "body", "pixels", "poll"):
        check(getattr(options, name) > 0, f"--{name} above 0", getattr(options, name))
    check(options.threads is None or options.threads > 0, "--threads above 0", options.threads)
    check(options.drain >= 0, "--drain of at least 0", options.drain)
    for flag, port in (("--port", options.port), ("--grpc-port", options.grpc_port)):
        check(port is None or 0 <= port <= 65_535, f"{flag} from 0 to 65535", port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", stream=sys.stderr)
    os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    try:
        from kerasmodels.apps.serving import server
    except ImportError as error:
        raise KerasModelsError(f"{error}. Install what serving needs: pip install 'kerasmodels[serve]'.") from error
    from kerasmodels.apps.serving.models import Limits, Repository

    metrics = server.Metrics()
    limits = Limits(rows=options.batch, pixels=round(options.pixels * 1e6), seconds=options.timeout)
    repository = Repository(
        options.folder, limits, options.format, options.models, options.threads, watched=metrics.watch
    )
    try:
        made = server.listening(options.host, options.port, options.share_port)
    except OSError as error:
        raise UsageError(
            f"expected an address to listen at. Received: {options.host}:{options.port} ({error.strerror or error}). "
            "Choose another --port; 0 is any free one."
        ) from error
    with made:
        try:
            repository.start(options.poll)
        except OSError as error:
            raise storage_error(options.folder, error) from error
        port = made.getsockname()[1]
        settings = server.Settings(
            options.host, port, options.requests, options.body << 20, options.timeout, options.drain, options.timeout
        )
        if options.host not in server.LOOPBACK:
            print(f"note: whoever reaches {options.host}:{port} may use it; there is no password.", file=sys.stderr)
        serving = server.Serving(repository, settings, metrics)
        grpc_server = None
        if options.grpc_port is not None:
            from kerasmodels.apps.serving import prediction_service

            grpc_server = prediction_service.start(repository, options.host, options.grpc_port, options.body << 20)
        server.run(serving, made, further(serving) if further else ())
        if grpc_server is not None:
            grpc_server.stop(options.timeout).wait()
    return Outcome({"served": [model.name for model in repository.models]})
