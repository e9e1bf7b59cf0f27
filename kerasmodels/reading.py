"""Files that anyone may have made, read within bounds and with one kind of error for all that can be wrong inside.

Every function here raises OSError (the file system will not give the file) or ValueError (its content, in words), and
nothing else; the readers of weights, pictures and records turn both into their own errors. Nothing of a file is
executed, and nothing is unpacked beyond `most_unpacked`.
"""

import gzip
import io
import json
import math
import os
import struct
import tarfile
import tomllib
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    import keras
    import numpy as np

_FREE = 256 << 20
_FACTOR = 32
_PIECE = 1 << 20
_TEXT = 64 << 20
_DEPTH = 64
_HEADER = 10_000


def most_unpacked(packed: int) -> int:
    """Bytes that a compressed file of `packed` bytes may unpack to: 256 MiB, or 32 times its own size if that is more.

    Weights and pictures hardly shrink, so a file beyond was made to fill the memory.
    """
    return max(_FREE, _FACTOR * packed)


def check_unpacked(unpacked: int, packed: int) -> None:
    """Raise ValueError if a file of `packed` bytes unpacks to too much."""
    if unpacked > most_unpacked(packed):
        raise ValueError(
            f"it would unpack to {unpacked / 1e6:,.0f} MB or more, and a file of {packed / 1e6:,.1f} MB may unpack to "
            f"{most_unpacked(packed) / 1e6:,.0f} MB; if you trust it, unpack it yourself"
        )


@contextmanager
def damaged() -> Iterator[None]:
    """What libraries raise for broken content (zlib, tokenize, struct and many more) becomes a ValueError."""
    try:
        yield
    except (OSError, ValueError):
        raise
    except Exception as error:
        raise ValueError(f"{type(error).__name__}: {error}") from error


# --- compressed files


@contextmanager
def unpacked(path: Path) -> Iterator[tuple[IO[bytes] | gzip.GzipFile, int]]:
    """A file opened to be read in pieces, through gzip if it is named .gz, and the most bytes that it may hold."""
    with open(path, "rb") as file, damaged():
        size = os.fstat(file.fileno()).st_size
        if path.suffix != ".gz":
            yield file, size
            return
        with gzip.GzipFile(fileobj=file) as content:
            yield content, most_unpacked(size)


def exactly(file: IO[bytes] | gzip.GzipFile, count: int) -> bytearray:
    """The next `count` bytes, which take memory only as they come."""
    content = bytearray()
    while len(content) < count:
        piece = file.read(min(_PIECE, count - len(content)))
        if not piece:
            raise ValueError(f"expected {count:,} bytes, received {len(content):,}")
        content += piece
    return content


@contextmanager
def opened_zip(path: str | Path) -> Iterator[zipfile.ZipFile]:
    """A zip file whose members do not unpack to too much."""
    with open(path, "rb") as file, damaged():
        size = os.fstat(file.fileno()).st_size
        with zipfile.ZipFile(file) as archive:
            members = archive.infolist()
            for member in members:
                if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise ValueError(f"member {member.filename!r} is compressed in an unknown way")
                if member.compress_size > size or (
                    member.compress_type == zipfile.ZIP_STORED and member.file_size != member.compress_size
                ):
                    raise ValueError(f"member {member.filename!r} is said to be larger than the file")
            check_unpacked(sum(member.file_size for member in members), size)
            yield archive


def zip_members(path: str | Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The content of those members whose names are wanted."""
    with opened_zip(path) as archive:
        return {name: archive.read(name) for name in archive.namelist() if wanted(name)}


def tar_members(path: str | Path, wanted: Callable[[str], bool]) -> dict[str, bytes]:
    """The content of those members of a .tar.gz whose names are wanted."""
    size = os.stat(path).st_size
    content = bytearray()
    with damaged():
        # Decompressed to its end, where the checksum is; tarfile alone would not look at it.
        with gzip.open(path) as file:
            while piece := file.read(_PIECE):
                content += piece
                check_unpacked(len(content), size)
        found: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(content), mode="r:") as archive:
            for member in archive:
                if not member.isfile() or not wanted(member.name):
                    continue
                # A sparse member promises holes of any size.
                if member.issparse() or member.size > len(content):
                    raise ValueError(f"member {member.name!r} is said to be larger than the file")
                opened = archive.extractfile(member)
                found[member.name] = b"" if opened is None else opened.read()
    return found


# --- NumPy's files


def read_npy(path: str | Path) -> "np.ndarray":
    """The array in a .npy file; numbers and text only, no pickles."""
    with open(path, "rb") as file, damaged():
        return _array(file, os.fstat(file.fileno()).st_size)


def read_npz(path: str | Path, only: str | None = None) -> "dict[str, np.ndarray]":
    """The arrays in an .npz file by name, or only that one; numbers and text only, no pickles."""
    found = {}
    with opened_zip(path) as archive:
        for member in archive.infolist():
            name = member.filename.removesuffix(".npy")
            if name == member.filename or only not in (None, name):
                continue
            with archive.open(member) as file:
                found[name] = _array(file, member.file_size)
                # The checksum is looked at where the member ends.
                while file.read(_PIECE):
                    pass
    return found


def _array(file: IO[bytes], size: int) -> "np.ndarray":
    import numpy as np

    version = np.lib.format.read_magic(file)
    if version not in ((1, 0), (2, 0)):
        raise ValueError(f"version {version} of NumPy's format")
    read, form = {
        (1, 0): (np.lib.format.read_array_header_1_0, "<H"),
        (2, 0): (np.lib.format.read_array_header_2_0, "<I"),
    }[version]
    length = exactly(file, struct.calcsize(form))
    (count,) = struct.unpack(form, length)
    if count > _HEADER:
        raise ValueError(f"a header of {count:,} bytes")
    header = io.BytesIO(length + exactly(file, count))
    with warnings.catch_warnings():
        # NumPy warns of headers that Python 2 wrote, which it reads well.
        warnings.simplefilter("ignore")
        shape, by_columns, dtype = read(header, max_header_size=_HEADER)
    if dtype.kind not in "biufcSU" or dtype.fields or dtype.subdtype or not dtype.itemsize:
        raise ValueError(f"values of type {dtype}, which are neither numbers nor text")
    if any(n < 0 for n in shape):
        raise ValueError(f"the shape {shape}")
    count = math.prod(shape) * dtype.itemsize
    if count > size - file.tell():
        raise ValueError(f"its header promises {count:,} bytes, and {size - file.tell():,} follow")
    content = np.empty(count, np.uint8)
    at = 0
    while at < count:
        piece = file.read(min(_PIECE, count - at))
        if not piece:
            raise ValueError(f"expected {count:,} bytes, received {at:,}")
        content[at : at + len(piece)] = np.frombuffer(piece, np.uint8)
        at += len(piece)
    values = content.view(dtype) if count else np.empty(0, dtype)
    return values.reshape(shape[::-1]).T if by_columns else values.reshape(shape)


# --- Keras' .h5


def read_keras(path: str | Path, compiled: bool = False) -> "keras.Model":
    """The model in a .keras file. Nothing of it is executed but the code of Keras and of registered classes.

    Args:
        path: the file.
        compiled: with the optimizer, loss and metrics it was saved with, if any, but not the optimizer's state.
    """
    import keras

    with damaged():
        config = parse_json(zip_members(path, lambda name: name == "config.json")["config.json"])
        _check_known(config)
        # Keras raises many kinds, and the constructors of layers any.
        model = keras.saving.load_model(path, compile=False, safe_mode=True)
        if compiled and config.get("compile_config"):
            model.compile_from_config(config["compile_config"])
        return model


def _check_known(config: Any) -> None:
    """Raise ValueError if a model's config names code that is neither Keras' nor registered."""
    from keras.saving import get_custom_objects

    waiting, registered = [config], get_custom_objects()
    while waiting:
        value = waiting.pop()
        if isinstance(value, dict):
            waiting += value.values()
            module = value.get("module")
            known = module in (None, "keras", "builtins") or str(module).startswith("keras.")
            if "class_name" in value and not known and value.get("registered_name") not in registered:
                raise ValueError(f"{value['class_name']!r} of the module {module!r} is not registered")
        elif isinstance(value, list):
            waiting += value


def check_h5(path: str | Path) -> None:
    """Look at an HDF5 file before it is read: everything must lie in it, and none may unpack to too much."""
    import h5py

    size, total = os.stat(path).st_size, 0
    with damaged(), h5py.File(path, "r") as root:
        waiting, known = [root], set()
        while waiting:
            group = waiting.pop()
            for name in group:
                if isinstance(group.get(name, getlink=True), h5py.ExternalLink):
                    raise ValueError(f"{group.name}/{name} lies in another file")
                item = group.get(name)
                if item is None or (address := h5py.h5o.get_info(item.id).addr) in known:
                    continue
                known.add(address)
                if isinstance(item, h5py.Group):
                    waiting.append(item)
                elif isinstance(item, h5py.Dataset):
                    if item.external or item.is_virtual:
                        raise ValueError(f"{item.name} lies in another file")
                    total += item.nbytes
                    check_unpacked(total, size)


# --- records


def parse_json(text: str | bytes) -> Any:
    """JSON that is not nested deeper than any of our records is."""
    with damaged():
        value = json.loads(text)
    level = [value]
    for _ in range(_DEPTH):
        level = [
            inner
            for outer in level
            if isinstance(outer, dict | list)
            for inner in (outer.values() if isinstance(outer, dict) else outer)
        ]
        if not level:
            return value
    raise ValueError(f"it is nested more than {_DEPTH} deep")


def read_json(path: str | Path) -> dict[str, Any]:
    """The object in a JSON file, which is UTF-8."""
    value = parse_json(_text(path))
    if not isinstance(value, dict):
        raise ValueError(f"expected an object {{...}}, received a {type(value).__name__}")
    return value


def read_toml(path: str | Path) -> dict[str, Any]:
    """The values in a TOML file."""
    with damaged():
        return tomllib.loads(_text(path))


def _text(path: str | Path) -> str:
    with open(path, "rb") as file:
        content = file.read(_TEXT + 1)
    if len(content) > _TEXT:
        raise ValueError(f"it has more than {_TEXT >> 20} MiB")
    return content.decode()
