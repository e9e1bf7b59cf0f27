"""The page: its files, the browser's runtimes beside it, and a static copy of all with the models of an export."""

import shutil
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import IO, Any

from kerasmodels import storage
from kerasmodels.errors import UsageError, storage_error
from kerasmodels.export.place import INDEX, Place

PAGE = Path(__file__).parents[1] / "web"
FILES = (
    "index.html",
    "app.js",
    "pixels.js",
    "worker.js",
    "sw.js",
    "style.css",
    "icon.svg",
    "manifest.webmanifest",
)
RUNTIME = PAGE / "runtime"
"""Where `make web` puts the browser's runtimes; they are no part of the project."""
LITERT = {
    "@litertjs/core/dist/index.js": "litert.js",
    "@litertjs/wasm-utils/dist/index.js": "wasm-utils.js",
    "@litertjs/core/wasm/litert_wasm_internal.js": "litert_wasm_internal.js",
    "@litertjs/core/wasm/litert_wasm_internal.wasm": "litert_wasm_internal.wasm",
    "@litertjs/core/wasm/litert_wasm_compat_internal.js": "litert_wasm_compat_internal.js",
    "@litertjs/core/wasm/litert_wasm_compat_internal.wasm": "litert_wasm_compat_internal.wasm",
}
ONNX = {
    "onnxruntime-web/dist/ort.wasm.min.mjs": "ort.wasm.min.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.mjs": "ort-wasm-simd-threaded.mjs",
    "onnxruntime-web/dist/ort-wasm-simd-threaded.wasm": "ort-wasm-simd-threaded.wasm",
}
TYPES = {
    ".html": "text/html",
    ".js": "text/javascript",
    ".mjs": "text/javascript",
    ".css": "text/css",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webmanifest": "application/manifest+json",
    ".json": "application/json",
}


def take_runtimes(modules: Path, to: Path = RUNTIME) -> list[Path]:
    """Copy what the page needs from npm's folder of modules.

    A worker resolves no bare names of modules, so that the one which LiteRT.js imports becomes a path.

    Raises:
        UsageError: a package is not there.
        StorageError: it cannot be written there.
    """
    written = []
    for source, name in {**LITERT, **ONNX}.items():
        try:
            content = (modules / source).read_bytes()
        except OSError as error:
            raise UsageError(
                f"expected the packages @litertjs/core, @litertjs/wasm-utils and onnxruntime-web in {modules}. "
                f"Received: no {source} ({error.strerror}). `make web` installs them."
            ) from error
        content = content.replace(b'"@litertjs/wasm-utils"', b'"./wasm-utils.js"') if name == "litert.js" else content
        written.append(storage.write_atomic(to / name, partial(_write, content)))
    return written


def _write(content: bytes, file: IO[bytes]) -> None:
    file.write(content)


def artifacts(out: Path) -> dict[str, Path]:
    """The files of an export that a browser runs, by their path in it: those that were verified, and no others."""
    found = {}
    for model in Place(out).read_index().values():
        for artifact in model["artifacts"]:
            path = (out / artifact["path"]).resolve()
            if artifact["verified"] and path.is_relative_to(out.resolve()) and path.is_file():
                found[artifact["path"]] = path
    return found


def write_static(folder: Path, to: Path, runtimes: Path = RUNTIME) -> list[Path]:
    """Write the page with the models of an export, for any server of files.

    Raises:
        UsageError: the runtimes are not there, or the folder is no export.
        StorageError: it cannot be written there.
    """
    needed = [*LITERT.values(), *ONNX.values()]
    missing = [name for name in needed if not (runtimes / name).is_file()]
    if missing:
        raise UsageError(f"expected the browser's runtimes in {runtimes}. Received: no {missing[0]}. Run: make web")
    files: dict[str, Path] = {name: PAGE / name for name in FILES}
    files |= {f"runtime/{name}": runtimes / name for name in needed}
    files |= {f"served/{name}": path for name, path in {**artifacts(folder), INDEX: folder / INDEX}.items()}
    if len(files) == len(FILES) + len(needed) + 1:
        raise UsageError(f"expected {folder} to hold LiteRT or ONNX files. Received none.")
    # The page asks whether there is a studio behind it.
    written = [storage.write_json(to / "studio.json", None)]
    for name, source in files.items():
        target = to / name
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, target)
        except OSError as error:
            raise storage_error(target, error) from error
        written.append(target)
    return written


def main(arguments: Sequence[str]) -> Any:
    """`make web` calls this with npm's folder of modules."""
    written = take_runtimes(Path(arguments[0]))
    size = sum(path.stat().st_size for path in written)
    print(f"{len(written)} files, {size / 1e6:.1f} MB, in {RUNTIME}")


if __name__ == "__main__":
    main(sys.argv[1:])
