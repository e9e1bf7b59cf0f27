"""`kerasmodels studio DIR`: the page in the browser, with a server behind it; or written to a folder for any server."""

from collections.abc import Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING

from kerasmodels.apps import serve
from kerasmodels.apps.command import Outcome, parse

if TYPE_CHECKING:
    from starlette.routing import BaseRoute

    from kerasmodels.apps.serving.server import Serving

DESCRIPTION = """A page in the browser for the models that `kerasmodels export` wrote: photos and the camera in;
styles, labels, cut-outs, digits out. It computes on the visitor's device, where `make web` has fetched the browser's
runtimes, and on this machine, where the families run at full size, too."""


@dataclass(frozen=True)
class Options(serve.Options):
    gallery: Path = Path("gallery")
    """Folder for what this machine makes."""
    static: Path | None = None
    """Write the page, the runtimes and the models into this folder instead, for any server of files."""


def main(argv: Sequence[str]) -> Outcome:
    """Serve the page until SIGTERM or Ctrl-C, or write it."""
    options = parse(Options, argv, "kerasmodels studio", DESCRIPTION)
    if options.static is not None:
        from kerasmodels.apps.serving import web

        written = web.write_static(options.folder, options.static)
        size = sum(path.stat().st_size for path in written) / 1e6
        shown = [f"{len(written)} files, {size:.1f} MB", f"python -m http.server --bind 127.0.0.1 -d {options.static}"]
        return Outcome({"outputs": written, "megabytes": round(size, 1)}, shown)
    plain = serve.Options(**{field.name: getattr(options, field.name) for field in fields(serve.Options)})

    def further(serving: "Serving") -> "Sequence[BaseRoute]":
        from kerasmodels.apps.serving import studio

        return studio.routes(serving, options.folder, options.gallery)

    return serve.serve(plain, further)
