"""What the page is given by `kerasmodels studio`: its files, work of whole families on this machine, and a gallery."""

import asyncio
import collections
import contextlib
import json
import re
import secrets
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.responses import FileResponse, Response
from starlette.routing import Route

from kerasmodels import presets, reading, registry, storage
from kerasmodels.apps.serving import tensors, web
from kerasmodels.apps.serving.server import Serving, as_json, guarded
from kerasmodels.data.images import read_image, write_image
from kerasmodels.errors import DataError, ServingError
from kerasmodels.export.place import INDEX

FAMILIES: Mapping[str, Sequence[str]] = {
    "fast_style": ("--out", "{made}"),
    "cyclegan": ("--out", "{made}"),
    "super_resolution": ("--out", "{made}"),
    "srcnn": ("--out", "{made}"),
    "deeplab": ("--out", "{labels}", "--overlay", "{made}"),
    "dilated_net": ("--out", "{labels}", "--overlay", "{made}"),
}
"""Families that `run` takes one photo for -> how it is told where to write the picture that is shown."""
WAITING = 8
"""Jobs that may wait."""
HEADERS = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}


@dataclass
class _Job:
    family: str
    preset: str
    photo: bytes
    state: str = "waiting"
    message: str = "waiting"
    began: float = field(default_factory=time.monotonic)


class _Jobs:
    """Work of whole families: `kerasmodels run`, one at a time, in a process of its own, which ends with the server."""

    def __init__(self, gallery: Path, seconds: float = 600):
        self.gallery, self._seconds = gallery, seconds
        self._known: collections.OrderedDict[str, _Job] = collections.OrderedDict()
        self._one = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, family: str, preset: str, photo: bytes) -> str:
        """Returns the job's id. Raises ServingError (429) if too many wait."""
        if sum(job.state in ("waiting", "running") for job in self._known.values()) > WAITING:
            raise ServingError(429, f"{WAITING} others wait already. Try again later.")
        number = secrets.token_hex(8)
        self._known[number] = _Job(family, preset, photo)
        while len(self._known) > 100:
            self._known.popitem(last=False)
        task = asyncio.get_running_loop().create_task(self._work(number, self._known[number]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return number

    def told(self, number: str) -> dict[str, Any]:
        """How far a job is. Raises ServingError (404) if there is none."""
        job = self._known.get(number)
        if job is None:
            raise ServingError(404, "there is no such work.")
        message = job.message
        if job.state == "running":
            message = f"{message} ({time.monotonic() - job.began:.0f} s)"
        return {"state": job.state, "message": message}

    async def _work(self, number: str, job: _Job) -> None:
        async with self._one:
            job.state, job.message, job.began = "running", "loading", time.monotonic()
            try:
                await self._run(number, job)
                job.state, job.message = "done", "done"
            except Exception as error:
                job.state, job.message = "failed", str(error)
            finally:
                job.photo = b""

    async def _run(self, number: str, job: _Job) -> None:
        with tempfile.TemporaryDirectory() as place:
            photo, made = Path(place, "photo.png"), Path(place, "made.png")
            await asyncio.to_thread(lambda: write_image(photo, read_image(job.photo)))
            names = {"made": str(made), "labels": str(Path(place, "labels.png"))}
            told = [word.format(**names) for word in FAMILIES[job.family]]
            command = [sys.executable, "-m", "kerasmodels", "run", job.family, str(photo), *told, "--json"]
            process = await asyncio.create_subprocess_exec(
                *command,
                *(["--preset", job.preset] if job.preset else []),
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.DEVNULL,
                stdin=asyncio.subprocess.DEVNULL,
            )
            job.message = "computing"
            try:
                out, _ = await asyncio.wait_for(process.communicate(), self._seconds)
            finally:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
            answer = json.loads(out)
            if process.returncode:
                # Names of our own temporary files would say nothing to people.
                raise DataError(str(answer["error"]["message"]).replace(str(photo), "the photo"))
            keep(self.gallery, number, made.read_bytes(), f"{job.family} {job.preset}".strip())

    async def end(self) -> None:
        """Stop what runs and waits."""
        for task in list(self._tasks):
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)


def keep(gallery: Path, number: str, picture: bytes, title: str) -> None:
    """Put a picture into the gallery."""
    storage.write_atomic(gallery / f"{number}.png", lambda file: file.write(picture))
    storage.write_json(gallery / f"{number}.json", {"title": title, "time": time.time()})


def kept(gallery: Path) -> list[dict[str, Any]]:
    """The pictures of the gallery, the newest first."""
    found: list[dict[str, Any]] = []
    for file in gallery.glob("*.json") if gallery.is_dir() else []:
        with contextlib.suppress(OSError, ValueError):
            told = reading.read_json(file)
            if re.fullmatch("[0-9a-f]{16}", file.stem) and file.with_suffix(".png").is_file():
                found.append({"file": f"{file.stem}.png", "title": str(told["title"]), "time": float(told["time"])})
    return sorted(found, key=lambda picture: -float(picture["time"]))[:200]


def routes(serving: Serving, folder: Path, gallery: Path) -> list[Route]:
    """The page's files, and what it asks for."""
    jobs = _Jobs(gallery)
    serving.ending.append(jobs.end)
    here = all((web.RUNTIME / name).is_file() for name in (*web.LITERT.values(), *web.ONNX.values()))

    def file(path: Path) -> Response:
        headers = {**HEADERS, "Cache-Control": "no-cache"}
        return FileResponse(path, media_type=web.TYPES.get(path.suffix, "application/octet-stream"), headers=headers)

    async def page(request: Request) -> Response:
        name = request.path_params.get("file", "index.html")
        if name not in web.FILES:
            raise ServingError(404, f"nothing is at {request.url.path[:200]!r}.")
        return file(web.PAGE / name)

    async def runtime(request: Request) -> Response:
        name = request.path_params["file"]
        if name not in (*web.LITERT.values(), *web.ONNX.values()) or not (web.RUNTIME / name).is_file():
            raise ServingError(404, f"there is no runtime {name[:100]!r}. `make web` fetches them.")
        return file(web.RUNTIME / name)

    async def served(request: Request) -> Response:
        name = request.path_params["file"]
        found = {**web.artifacts(folder), INDEX: folder / INDEX}.get(name)
        if found is None or not found.is_file():
            raise ServingError(404, f"there is no file {name[:100]!r} in the export.")
        return file(found)

    async def settings(request: Request) -> Response:
        offered = [
            {"family": row.name, "preset": name, "line": str(preset.card.get("line") or row.line)}
            for row in registry.ROWS
            if row.name in FAMILIES
            for name, preset in presets.presets(row.name).items()
        ]
        models = [model.name for model in serving.repository.models]
        return as_json({"runtimes": here, "models": models, "jobs": offered})

    async def picture(request: Request) -> Response:
        model = serving.repository.find(request.path_params["name"])
        wanted = next((spec["name"] for spec in model.outputs if tensors.takes_picture(spec)), None)
        content = await serving.picture(model, await serving.body(request), "png", wanted, None)
        keep(gallery, secrets.token_hex(8), content, model.name)
        return Response(content, media_type="image/png")

    async def begin(request: Request) -> Response:
        family, preset = request.query_params.get("family", ""), request.query_params.get("preset", "")
        if family not in FAMILIES or preset not in presets.presets(family):
            raise ServingError(404, f"there is no {family[:40]!r} with the preset {preset[:40]!r}.")
        return as_json({"id": jobs.begin(family, preset, await serving.body(request))})

    async def job(request: Request) -> Response:
        return as_json(jobs.told(request.path_params["id"]))

    async def pictures(request: Request) -> Response:
        return as_json({"pictures": kept(gallery)})

    async def kept_picture(request: Request) -> Response:
        name = request.path_params["file"]
        if not re.fullmatch(r"[0-9a-f]{16}\.png", name) or not (gallery / name).is_file():
            raise ServingError(404, "there is no such picture in the gallery.")
        return file(gallery / name)

    made = {
        ("GET", "/"): page,
        ("GET", "/runtime/{file}"): runtime,
        ("GET", "/served/{file:path}"): served,
        ("GET", "/studio.json"): settings,
        ("POST", "/studio/pictures/{name}"): picture,
        ("POST", "/studio/jobs"): begin,
        ("GET", "/studio/jobs/{id}"): job,
        ("GET", "/studio/gallery"): pictures,
        ("GET", "/studio/gallery/{file}"): kept_picture,
        ("GET", "/{file}"): page,
    }
    return [
        Route(path, guarded(serving, "studio", handler), methods=[method]) for (method, path), handler in made.items()
    ]
