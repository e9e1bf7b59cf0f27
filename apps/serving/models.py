"""The models of an export folder: chosen, loaded, warmed up, and replaced when a new version comes."""

import dataclasses
import math
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels.apps.serving.batching import Arrays, Closed, Worker
from kerasmodels.errors import KerasModelsError, ServingError, UsageError, unknown_name
from kerasmodels.export import formats
from kerasmodels.export.place import INDEX, Place, digest
from kerasmodels.export.runners.runtimes import DEFAULT, RUNTIMES, Loaded

ORDER = ("onnx", "saved_model", "litert")
"""Formats, the preferred first: ONNX takes any size and any batch, and loads without TensorFlow."""


@dataclass(frozen=True)
class Limits:
    """What a request may ask for.

    Args:
        rows: of a call; requests of equal shapes are put together up to this.
        request_rows: of one request.
        pixels: of the pictures of one request, and of those that are made from them.
        seconds: that a request may wait and compute.
    """

    rows: int = 8
    request_rows: int = 1024
    pixels: int = 4_000_000
    seconds: float = 30.0


@dataclass(frozen=True)
class Chosen:
    """The artifact of a model that is served."""

    path: Path
    artifact: Mapping[str, Any]
    about: Mapping[str, Any]

    @property
    def number(self) -> int | None:
        """Its version if it lies in a folder of that name."""
        return int(self.path.name) if self.path.name.isdecimal() else None


class Model:
    """One version of a model, loaded.

    Args:
        name: of the model.
        version: its number.
        chosen: the artifact.
        limits: see `Limits`.
        threads: of its runtime; None for the runtime's own choice.
        computed: told the rows and seconds of each call.
    """

    def __init__(
        self,
        name: str,
        version: int,
        chosen: Chosen,
        limits: Limits,
        threads: int | None = None,
        computed: Callable[[int, float], None] = lambda rows, seconds: None,
    ):
        self.name, self.version, self.limits = name, version, limits
        self.path, self.artifact, self.about = chosen.path, chosen.artifact, chosen.about
        self.inputs: Sequence[Mapping[str, Any]] = self.artifact["inputs"]
        self.outputs: Sequence[Mapping[str, Any]] = self.artifact["outputs"]
        form = formats.find(self.artifact["format"])
        self._loaded: Loaded = RUNTIMES[form.runtime](str(self.path), threads)
        # LiteRT fixes the batch; only what is free in all of them can be put together.
        batch = {(spec["shape"] or [None])[0] for spec in (*self.inputs, *self.outputs)}
        deep = {size for spec in (*self.inputs, *self.outputs) for size in spec["shape"][1:]}
        most = {"batch": limits.rows, 1: 1}.get(batch.pop()) if len(batch) == 1 and "batch" not in deep else None
        self.most_rows = most
        self.growth = 1.0
        self.warm_up()
        self._worker = Worker(self._call, most, computed)

    def _call(self, arrays: Arrays) -> Mapping[str, np.ndarray]:
        return self._loaded.call(DEFAULT, arrays)

    def warm_up(self) -> None:
        """Compute something, so that the first request finds everything loaded; and see how large answers are."""
        dims, arrays = self.artifact["dims"], {}
        for spec in self.inputs:
            if spec["dtype"] == "string":
                return
            shape = [dims.get(size, 1) if isinstance(size, str) else size for size in spec["shape"]]
            arrays[spec["name"]] = np.full(shape, 128 if spec["dtype"] == "uint8" else 0, spec["dtype"])
        found = self._call(arrays)
        given = max((math.prod(a.shape[:3]) for a in arrays.values() if a.ndim == 4), default=0)
        made = max((math.prod(np.shape(a)[:3]) for a in found.values() if np.ndim(a) == 4), default=0)
        self.growth = max(1.0, made / given) if given else 1.0

    def check(self, arrays: Mapping[str, np.ndarray]) -> Arrays:
        """The inputs, if they are those that the model takes.

        Raises:
            ServingError: 400 for other names, dtypes and shapes; 413 for more than `limits` allow.
        """
        names = [spec["name"] for spec in self.inputs]
        if set(arrays) != set(names):
            raise ServingError(400, f"expected the inputs {names}. Received: {sorted(map(str, arrays))}.")
        sizes: dict[str, int] = {}
        for spec in self.inputs:
            array = arrays[spec["name"]]
            kind = "string" if array.dtype.kind in "SUO" else array.dtype.name
            wanted = f"{spec['name']} of {spec['dtype']} {_shown(spec['shape'])}"
            if kind != spec["dtype"] or array.ndim != len(spec["shape"]):
                raise ServingError(400, f"expected {wanted}. Received: {kind} {_shown(array.shape)}.")
            for axis, (name, size) in enumerate(zip(spec["shape"], array.shape, strict=True)):
                if axis == 0 and self.most_rows is not None:
                    known = max(1, size)
                else:
                    known = sizes.setdefault(name, max(1, size)) if isinstance(name, str) else name
                if size != known:
                    raise ServingError(400, f"expected {wanted}. Received: {_shown(array.shape)}.")
        first = [len(arrays[name]) for name in names] if self.most_rows is not None else [1]
        if len(set(first)) > 1:
            raise ServingError(
                400, f"expected as many rows of each input. Received: {dict(zip(names, first, strict=True))}."
            )
        if first[0] > self.limits.request_rows:
            most = self.limits.request_rows
            raise ServingError(413, f"expected at most {most} rows in a request. Received: {first[0]}.")
        for array in arrays.values():
            if array.ndim == 4:
                self.check_pixels(math.prod(array.shape[:3]))
        return dict(arrays)

    def check_pixels(self, pixels: int) -> None:
        """Raise ServingError (413) if pictures of so many pixels, or what is made of them, are too large."""
        most = int(self.limits.pixels / self.growth)
        if pixels > most:
            grown = f", as {self.name} makes {self.growth:g} times as many of them" if self.growth > 1 else ""
            raise ServingError(
                413, f"expected at most {most:,} pixels in a request{grown}. Received: {pixels:,}. Shrink the picture."
            )

    def submit(self, arrays: Arrays) -> "Future[Arrays]":
        """Ask for the outputs of inputs that were checked. Raises `Closed` if another version has taken over."""
        return self._worker.submit(arrays, self.limits.seconds)

    @property
    def waiting(self) -> int:
        """Requests in its queue."""
        return len(self._worker)

    def close(self) -> None:
        """Answer what waits, then end."""
        self._worker.close()

    def join(self, seconds: float) -> None:
        """Wait until it has ended."""
        self._worker.join(seconds)


def _shown(shape: Sequence[int | str]) -> str:
    return "(" + ", ".join(map(str, shape)) + ")"


def choose(out: Path, model: Mapping[str, Any], only: str | None) -> Chosen | None:
    """The artifact of a model to serve: verified, in full precision if there is one, of the preferred format.

    Args:
        out: the export folder.
        model: its entry in export.json.
        only: a format, or None for any.
    """
    found = []
    for place, artifact in enumerate(model["artifacts"]):
        path = (out / artifact["path"]).resolve()
        if not artifact["verified"] or not path.is_relative_to(out.resolve()) or not path.exists():
            continue
        if only not in (None, artifact["format"]) or artifact["format"] not in ORDER:
            continue
        chosen = Chosen(path, artifact, model["about"])
        rank = (artifact["precision"] != "fp32", ORDER.index(artifact["format"]), -(chosen.number or place))
        found.append((rank, chosen))
    return min(found, key=lambda pair: pair[0])[1] if found else None


class Repository:
    """The models of an export folder, kept as it is.

    Args:
        out: a folder with an `export.json`.
        limits: see `Limits`.
        only: a format, or None for the preferred one of each model.
        names: models to serve; all if empty.
        threads: of each runtime.
        watched: called with ("loaded" | "failed" | "computed", model, ...) for logs and metrics.
    """

    def __init__(
        self,
        out: Path,
        limits: Limits,
        only: str | None = None,
        names: Sequence[str] = (),
        threads: int | None = None,
        watched: Callable[..., None] = lambda *event: None,
    ):
        self.out, self.limits = out, limits
        self._only, self._names, self._threads, self._watched = only, names, threads, watched
        self._models: dict[str, Model] = {}
        self._digests: dict[str, str] = {}
        self._failed: dict[str, str] = {}
        self._leaving: list[Model] = []
        self._stop = threading.Event()
        self._watcher: threading.Thread | None = None
        self._seen: tuple[int, ...] | None = None
        self.ready = False

    def _state(self) -> tuple[int, ...] | None:
        """What changes when export.json is written anew; None if it is not there."""
        try:
            found = (self.out / INDEX).stat()
        except OSError:
            return None
        return found.st_mtime_ns, found.st_ino, found.st_size

    def index(self) -> dict[str, Any]:
        """The models that export.json lists.

        Raises:
            UsageError: there is no such file, or it is none of ours, or it lacks models that were asked for.
        """
        models = Place(self.out).read_index()
        if not models:
            raise UsageError(
                f"expected a folder that `kerasmodels export` wrote. Received: {str(self.out)!r}, which has no {INDEX} "
                "with models. Make one: kerasmodels export fast_style/wave --out served/"
            )
        for name in self._names:
            if name not in models:
                raise unknown_name("model", name, models)
        return {name: model for name, model in models.items() if not self._names or name in self._names}

    def start(self, every: float) -> None:
        """Load all models, then look for new versions `every` so many seconds, in a thread.

        Raises:
            UsageError: see `index`; or none of the models can be served.
        """
        problems = self.refresh()
        if not self._models:
            raise UsageError(f"none of the models in {self.out} can be served. {' '.join(problems)}")
        self.ready = True

        def watch() -> None:
            while not self._stop.wait(every):
                try:
                    # An export writes it last, so that what it describes is there.
                    if self._state() != self._seen:
                        self.refresh()
                except Exception as error:  # It goes on with what it has.
                    self._watched("failed", INDEX, str(error))

        self._watcher = threading.Thread(target=watch, daemon=True)
        self._watcher.start()

    def refresh(self) -> list[str]:
        """Load what is new, drop what is gone. Returns what could not be loaded, and why."""
        self._seen = self._state()
        index, problems = self.index(), []
        for name, entry in index.items():
            try:
                chosen = choose(self.out, entry, self._only)
                if chosen is None:
                    raise UsageError(f"{name} has no verified artifact{f' as {self._only}' if self._only else ''}.")
                sha256 = chosen.artifact["sha256"]
                if self._digests.get(name) == sha256:
                    continue
                self._load(name, chosen)
                self._digests[name] = sha256
                self._failed.pop(name, None)
            except Exception as error:  # Runtimes raise anything for files they do not like.
                problems.append(f"{name}: {error}")
                if self._failed.get(name) != str(error):
                    self._failed[name] = str(error)
                    self._watched("failed", name, str(error))
        for name in set(self._models) - set(index):
            self._leaving.append(self._models.pop(name))
            self._leaving[-1].close()
            self._digests.pop(name, None)
        self._leaving = [model for model in self._leaving if model.waiting]
        return problems

    def _load(self, name: str, chosen: Chosen) -> None:
        """Put a version in place of the last one, which answers what it was asked before."""
        # An export writes export.json last: an artifact that it does not describe yet is loaded when it does.
        if digest(chosen.path) != chosen.artifact["sha256"]:
            raise KerasModelsError(f"{chosen.path} is not the file that {INDEX} describes.")
        before = self._models.get(name)
        number = chosen.number or (before.version + 1 if before else 1)
        began = time.perf_counter()
        model = Model(name, number, chosen, self.limits, self._threads, lambda *a: self._watched("computed", name, *a))
        self._models[name] = model
        if before is not None:
            before.close()
            self._leaving.append(before)
        self._watched("loaded", model, time.perf_counter() - began)

    def find(self, name: str, version: int | None = None) -> Model:
        """A model that is served.

        Raises:
            ServingError: 404, there is none of that name and version.
        """
        model = self._models.get(name)
        if model is None:
            raise ServingError(404, f"unknown model {name!r}. Known: {', '.join(sorted(self._models)) or 'none'}.")
        if version is not None and version != model.version:
            raise ServingError(404, f"{name} is served in version {model.version}. Received: version {version}.")
        return model

    def submit(self, name: str, arrays: Mapping[str, np.ndarray], version: int | None = None) -> "Future[Arrays]":
        """Check inputs and ask for the outputs, of the version that is served now.

        Raises:
            ServingError: see `find` and `Model.check`.
        """
        while True:
            model = self.find(name, version)
            try:
                return model.submit(model.check(arrays))
            except Closed:
                if self._models.get(name) is model:
                    raise ServingError(503, "the server is shutting down.") from None

    @property
    def models(self) -> list[Model]:
        """All that are served, by name."""
        return [self._models[name] for name in sorted(self._models)]

    def close(self, seconds: float = 30.0) -> None:
        """Answer what waits, then end."""
        self._stop.set()
        everything = [*self._models.values(), *self._leaving]
        for model in everything:
            model.close()
        until = time.monotonic() + seconds
        for model in everything:
            model.join(max(0.0, until - time.monotonic()))


def described(model: Model) -> dict[str, Any]:
    """What is told of a model: its artifact without the measurements."""
    kept = ("format", "precision", "path", "sha256", "bytes", "dims")
    return {
        "name": model.name,
        "version": model.version,
        **{key: model.artifact[key] for key in kept},
        "description": model.about["description"],
        "license": model.about["license"],
        "inputs": list(model.inputs),
        "outputs": list(model.outputs),
        "batch": model.most_rows,
        "limits": dataclasses.asdict(model.limits),
    }
