"""Files: written whole or not at all, and read without running anything that lies in them.

Trained weights are plain .npz files: one array per model variable, keyed by variable path.
"""

import glob
import hashlib
import json
import os
import shutil
import tempfile
import zipfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kerasmodels import reading
from kerasmodels.errors import WeightsError, storage_error

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

if TYPE_CHECKING:
    import keras
    import numpy as np

_PART = ".part"
"""Ending of temporary files: `.NAME.xxxxxxxx.part`, locked by the process that writes it as long as it lives."""


# --- locks: the system's own, which end with the process that holds them


def _lock(descriptor: int, wait: bool = True) -> bool:
    """Lock an open file or folder. Returns whether the system can do that there.

    Raises:
        BlockingIOError: another process has it, and `wait` is False.
    """
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        raise
    except OSError:  # such as some network drives
        return False
    return True


@contextmanager
def locked(folder: str | Path, wait: bool = True) -> Iterator[None]:
    """Hold the lock of a folder, which no other block like this one holds meanwhile, in any process.

    It is no file, and ends with the process. Where the system cannot lock folders (Windows, some network drives), the
    block runs without.

    Raises:
        BlockingIOError: another process has it, and `wait` is False.
    """
    if fcntl is None:
        yield
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        _lock(descriptor, wait)
        yield
    finally:
        os.close(descriptor)


def clean(folder: str | Path, name: str = "*") -> None:
    """Remove what killed processes left of files that were to be called `name` (a glob pattern) in a folder."""
    for left in Path(folder).glob(f".{name}.????????{_PART}"):
        with suppress(OSError), open(left, "r+b") as file:
            if _lock(file.fileno(), wait=False):
                left.unlink(missing_ok=True)


@contextmanager
def scratch(folder: Path, prefix: str) -> Iterator[Path]:
    """A new folder inside `folder` for as long as the block runs. Those of killed processes are removed first."""
    with locked(folder):
        for left in folder.glob(f"{prefix}????????"):
            with suppress(OSError), locked(left, wait=False):
                if fcntl is not None:
                    shutil.rmtree(left, ignore_errors=True)
        made = Path(tempfile.mkdtemp(prefix=prefix, dir=folder))
        descriptor = None if fcntl is None else os.open(made, os.O_RDONLY)
        if descriptor is not None:
            _lock(descriptor)
    try:
        yield made
    finally:
        shutil.rmtree(made, ignore_errors=True)
        if descriptor is not None:
            os.close(descriptor)


# --- files


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Call `write(file)` on a temporary file beside `path`, then rename it over `path`.

    Whatever goes wrong, `path` is either its old self or the whole new file. What a killed process left of an earlier
    try is removed.

    Raises:
        StorageError: it cannot be written there.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        clean(path.parent, glob.escape(path.name))
        with _temporary(path) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # NamedTemporaryFile is private to its owner; the result should be as readable as any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def _temporary(path: Path) -> Any:
    """A new file beside `path`, locked."""
    while True:
        file = tempfile.NamedTemporaryFile(  # noqa: SIM115
            dir=path.parent, prefix=f".{path.name}.", suffix=_PART, delete=False
        )
        _lock(file.fileno())
        if os.fstat(file.fileno()).st_nlink:
            return file
        file.close()  # another process took it for a killed one's, before it was locked


def check_writable(path: str | Path) -> None:
    """Find out before long work, not after it, that `path` cannot be written. Its folder is made.

    Raises:
        StorageError: it cannot.
    """
    try:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=Path(path).parent).close()
    except OSError as error:
        raise storage_error(path, error) from error


def write_text(path: str | Path, text: str) -> Path:
    """Write `text` as UTF-8, atomically. What of a file's name is none, such as Latin-1's, becomes `\\udce9`."""
    return write_atomic(path, lambda file: file.write(text.encode(errors="backslashreplace")))


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically."""
    return write_text(path, json.dumps(value, indent=2, default=str) + "\n")


def sha256(path: str | Path) -> str:
    """Hex digest of the file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_npz(path: str | Path, arrays: "Mapping[str, np.ndarray]") -> Path:
    """Write arrays as .npz, uncompressed (trained weights hardly shrink), atomically. Equal arrays give equal bytes.

    Raises:
        ValueError: a key with a NUL, where names in such files end.
        StorageError: it cannot be written there.
    """
    import numpy as np

    for key in arrays:
        if "\0" in key:
            raise ValueError(f"expected keys without NUL characters. Received: {key!r}.")

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for key, value in arrays.items():
                # A fixed date, so that the digest of a file depends on its content only.
                with archive.open(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)

    return write_atomic(path, write)


def load_npz(path: str | Path) -> "dict[str, np.ndarray]":
    """Read a .npz of plain arrays.

    Raises:
        WeightsError: it is not there, not a whole .npz file, or unpacks to much more than it has.
    """
    try:
        return reading.read_npz(path)
    except FileNotFoundError:
        raise WeightsError(f"no weights file at {path}.") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable .npz weights file ({error}).") from error


def model_arrays(model: "keras.Model", dtype: str | None = None) -> "dict[str, np.ndarray]":
    """Every weight of the model by variable path; floating ones as `dtype` if given."""
    import numpy as np

    arrays = {v.path: np.asarray(v.value) for v in model.weights}
    if len(arrays) != len(model.weights):
        raise ValueError("two variables of the model share one path: give its layers distinct names")
    if dtype is None:
        return arrays
    return {k: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a for k, a in arrays.items()}


def assign_arrays(model: "keras.Model", arrays: "Mapping[str, np.ndarray]", source: str | Path) -> None:
    """Set every weight of the model from `arrays`, all or nothing.

    Raises:
        WeightsError: a variable is missing, left over, of another shape, or not finite.
    """
    import numpy as np

    variables = {v.path: v for v in model.weights}
    missing, extra = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
    wrong = [
        f"{k}: expected {tuple(v.shape)}, received {arrays[k].shape}"
        for k, v in variables.items()
        if k in arrays and tuple(v.shape) != arrays[k].shape
    ]
    if missing or extra or wrong:
        found = [*(f"missing {k}" for k in missing), *(f"unexpected {k}" for k in extra), *wrong]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise WeightsError(
            f"the weights in {source} belong to another network than {model.name!r} "
            f"({len(arrays)} arrays for {len(variables)} variables): {'; '.join(found[:3])}{more}. "
            "Use the config they were trained with (it lies beside them)."
        )
    for key, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise WeightsError(f"the weights in {source} are damaged: {key} holds NaN or infinite values.")
    for key, variable in variables.items():
        variable.assign(arrays[key].astype(np.dtype(variable.dtype) if variable.dtype != "bfloat16" else np.float32))
