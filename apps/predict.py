"""`kerasmodels predict FILE... --url URL -o OUT`: ask a server, again while it is busy, until a deadline."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any
from urllib.parse import quote, urlencode

import tyro
from rich.console import RenderableType

from kerasmodels import reading, storage
from kerasmodels.apps.command import Outcome, parse, table
from kerasmodels.config import check
from kerasmodels.errors import DataError, ServingError, UsageError, unknown_name

if TYPE_CHECKING:
    from kerasmodels.apps.serving.client import Client

DESCRIPTION = """Send pictures, or arrays, to a server of `kerasmodels serve`, and write what comes back. Lost
connections and busy servers are asked again."""


@dataclass(frozen=True)
class Options:
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures or folders of pictures; or one .npz with an array for each input of the model."""
    url: str = "http://127.0.0.1:8501"
    """The server."""
    model: str | None = None
    """Which of its models. Left out: the only one."""
    out: Annotated[Path | None, tyro.conf.arg(aliases=["-o"])] = None
    """The picture to write, or a folder if there are several; .npz for arrays; .json for what can be said in words.
    Left out: JSON is shown."""
    output: str | None = None
    """Which of the model's outputs. Left out: the first that is a picture."""
    max_side: int | None = None
    """Shrink pictures so that the longer side is at most this, pixels."""
    deadline: float = 60.0
    """Seconds for each request, all tries included."""
    retries: int = 5
    """How often a request is sent again at most."""


def main(argv: Sequence[str]) -> Outcome:
    """Ask, and write or show the answers."""
    options = parse(Options, argv, "kerasmodels predict", DESCRIPTION)
    check(len(options.inputs) > 0, "at least one picture, folder or .npz", options.inputs)
    check(options.deadline > 0, "--deadline above 0", options.deadline)
    check(options.retries >= 0, "--retries of at least 0", options.retries)
    for path in options.inputs:
        if not path.exists():  # before a server is waited for
            raise DataError(f"{path} cannot be read (it does not exist).")
    from kerasmodels.apps.serving.client import Client

    client = Client(options.url, options.deadline, options.retries)
    try:
        return _asked(client, options)
    finally:
        client.close()


def _asked(client: "Client", options: Options) -> Outcome:
    models = json.loads(client.ask("/models")[0])["models"]
    names = [model["name"] for model in models]
    if options.model is None and len(names) > 1:
        raise UsageError(f"expected --model with one of {', '.join(names)}. Received: none.")
    name = options.model or names[0]
    if name not in names:
        raise unknown_name("model", name, names)
    arrays = [path for path in options.inputs if path.suffix == ".npz"]
    if arrays:
        if len(options.inputs) > 1:
            raise UsageError(f"expected one .npz and nothing else. Received: {', '.join(map(str, options.inputs))}.")
        return _arrays(client, name, arrays[0], options.out)
    return _pictures(client, name, options)


def _pictures(client: "Client", name: str, options: Options) -> Outcome:
    from kerasmodels.data.images import SUFFIXES, list_images
    from kerasmodels.tasks.pictures import each, picture_jobs

    def ask(source: Path, kind: str) -> bytes:
        query = {"format": kind, "output": options.output, "max_side": options.max_side}
        query = {key: value for key, value in query.items() if value is not None}
        try:
            content = source.read_bytes()
        except OSError as error:
            raise DataError(f"{source} cannot be read ({error.strerror}).") from error
        try:
            return client.ask(f"/pictures/{quote(name)}?{urlencode(query)}", content)[0]
        except ServingError as error:
            if error.status in (413, 415):  # one file of several
                raise DataError(f"{source}: {error}") from None
            raise

    if options.out is None or options.out.suffix == ".json":
        files = [file for path in options.inputs for file in (list_images(path) if path.is_dir() else [path])]
        answers = {str(file): json.loads(ask(file, "json")) for file in files}
        if options.out is not None:
            storage.write_json(options.out, answers)
            return Outcome({"model": name, "outputs": [options.out]}, [str(options.out)])
        shown: list[RenderableType] = []
        for file, answer in answers.items():
            rows = [(key, _told(value)) for key, value in answer["outputs"].items()]
            shown += [f"{file}: {name}", table(("output", ""), rows)]
        return Outcome({"model": name, "answers": answers}, shown)
    check(options.out.suffix.lower() in ("", *SUFFIXES), "a picture's name, a folder, .npz or .json", str(options.out))

    def work(source: Path, target: Path) -> None:
        if target.suffix.lower() in (".jpg", ".jpeg"):
            written = ask(source, "jpeg")
        elif target.suffix.lower() == ".png":
            written = ask(source, "png")
        else:
            raise UsageError(f"expected a name ending in .png or .jpg. Received: {str(target)!r}.")
        storage.write_atomic(target, lambda file: file.write(written))

    written = each(picture_jobs(options.inputs, options.out), work)
    return Outcome({"model": name, "outputs": written, "retried": client.retried}, [str(path) for path in written])


def _told(output: dict[str, Any]) -> str:
    if "share" in output:
        return ", ".join(f"{label}: {100 * share:.1f} %" for label, share in output["share"].items())
    text = json.dumps(output.get("data", f"{' x '.join(map(str, output['shape']))} of {output['dtype']}"))
    return text if len(text) < 300 else f"{text[:300]} ..."


def _arrays(client: "Client", name: str, path: Path, out: Path | None) -> Outcome:
    import numpy as np

    from kerasmodels.apps.serving import tensors

    try:
        given = reading.read_npz(path)
    except (OSError, ValueError) as error:
        raise DataError(f"expected {path} to hold arrays that were saved by NumPy. Received: {error}.") from error
    if out is not None and out.suffix != ".npz":
        raise UsageError(f"expected a name ending in .npz for arrays. Received: {str(out)!r}.")
    body, headers = tensors.infer_request(given)
    content, told = client.ask(f"/v2/models/{quote(name)}/infer", body, headers)
    found = tensors.infer_answer(content, told)
    if out is not None:
        storage.save_npz(out, found)
        return Outcome({"model": name, "outputs": [out]}, [str(out)])
    rows = [(key, f"{value.dtype} {value.shape}", np.array2string(value, threshold=20)) for key, value in found.items()]
    return Outcome({"model": name, "answer": found}, [table(("output", "shape", ""), rows)])
