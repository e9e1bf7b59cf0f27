"""Weights that PyTorch saved, read without PyTorch.

`torch.save` writes a pickle that names storages, and the storages: in a zip since PyTorch 1.6, one after the other
before. Nothing of a file is executed: the pickle is read as data (`pickled`), and what it says of a tensor is held
against the bytes that are there.
"""

import io
import math
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np

from kerasmodels import reading
from kerasmodels.backbones import pickled
from kerasmodels.errors import WeightsError

_MAGIC = 0x1950A86A20F9469CFC6C
_STORAGES = {
    "DoubleStorage": "<f8",
    "FloatStorage": "<f4",
    "HalfStorage": "<f2",
    "LongStorage": "<i8",
    "IntStorage": "<i4",
    "ShortStorage": "<i2",
    "CharStorage": "i1",
    "ByteStorage": "u1",
    "BoolStorage": "?",
}
_DTYPES = {f"{module}.{name}": np.dtype(d) for module in ("torch", "torch.storage") for name, d in _STORAGES.items()}
_TENSORS = ("torch._utils._rebuild_tensor", "torch._utils._rebuild_tensor_v2")
_PARAMETER = "torch._utils._rebuild_parameter"
_NAMES = frozenset({pickled.ORDERED, *_DTYPES, *_TENSORS, _PARAMETER})


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict.

    Args:
        path: a file of `torch.save(network.state_dict(), path)`, of any version of PyTorch.

    Returns:
        name -> array that may not be written to, in the file's order and with its dtypes; bfloat16 is not read.

    Raises:
        WeightsError: the file is missing, damaged, unpacks to much more than it has, or holds something else than a
            dictionary of tensors.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            return _from_zip(path) if zipped else from_stream(file)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise WeightsError(
            f"expected a state dict that PyTorch saved. Received: {path} ({error}). "
            "Save one with torch.save(network.state_dict(), path)."
        ) from error


def tensor(state: Mapping[str, np.ndarray], key: str, path: str | Path) -> np.ndarray:
    """The array of that name in what `read_torch` found in `path`.

    Raises:
        WeightsError: there is none.
    """
    if key not in state:
        raise WeightsError(f"expected {key} in {path}. Received: {', '.join([*state][:4])} ...")
    return state[key]


def normalization(state: Mapping[str, np.ndarray], key: str, path: str | Path) -> list[np.ndarray]:
    """Scale, shift, mean and variance of the batch normalization of that name.

    Raises:
        WeightsError: one is not there.
    """
    return [tensor(state, f"{key}.{name}", path) for name in ("weight", "bias", "running_mean", "running_var")]


def convolution_kernel(value: np.ndarray) -> np.ndarray:
    """(out, in, rows, columns) to (rows, columns, in, out)."""
    return value.transpose(2, 3, 1, 0)


@dataclass(frozen=True, slots=True)
class _Storage:
    """What a file says of a storage."""

    key: str
    dtype: np.dtype
    count: int


class _Storages:
    """The storages that a file names, by key."""

    def __init__(self) -> None:
        self.found: dict[str, _Storage] = {}

    def reference(self, pid: Any) -> _Storage:
        """The storage of a persistent id: "storage", its class, key, device, number of values and, formerly, a view."""
        if type(pid) is not tuple or len(pid) not in (5, 6) or pid[0] != "storage" or pid[5:] not in ((), (None,)):
            raise ValueError("it refers to something else than a storage")
        kind, key, count = pid[1], pid[2], pid[4]
        if type(kind) is not pickled.Global or kind.name not in _DTYPES or type(key) is not str or not _sizes([count]):
            raise ValueError("a storage without a type, a name or a size")
        storage = _Storage(key, _DTYPES[kind.name], count)
        if self.found.setdefault(key, storage) != storage:
            raise ValueError(f"two sizes or types for the storage {key}")
        return self.found[key]


def _from_zip(path: Path) -> dict[str, np.ndarray]:
    with reading.opened_zip(path) as archive:
        roots = [name.removesuffix("data.pkl") for name in archive.namelist() if name.endswith("data.pkl")]
        if len(roots) != 1:
            raise ValueError(f"expected one data.pkl, received {len(roots)}")
        storages, values = _Storages(), {}
        saved = pickled.load(io.BytesIO(archive.read(f"{roots[0]}data.pkl")), _NAMES, storages.reference)
        for key, storage in storages.found.items():
            member = archive.getinfo(f"{roots[0]}data/{key}")
            if member.file_size != storage.count * storage.dtype.itemsize:
                raise ValueError(f"{storage.count:,} values are said to be in the {member.file_size:,} bytes of {key}")
            values[key] = np.frombuffer(archive.read(member), storage.dtype)
        return _arrays(saved, values)


def from_stream(file: IO[bytes]) -> dict[str, np.ndarray]:
    """The tensors of a state dict that PyTorch saved before 1.6; the file can be sought.

    Raises:
        ValueError: it is damaged, or holds something else.
    """
    storages, values = _Storages(), {}
    magic, _version, _machine = [pickled.load(file, ()) for _ in range(3)]
    if magic != _MAGIC:
        raise ValueError("it does not begin as such files do")
    saved = pickled.load(file, _NAMES, storages.reference)
    keys = pickled.load(file, ())
    if type(keys) is not list or not all(type(key) is str and key in storages.found for key in keys):
        raise ValueError("it holds storages that no tensor is in")
    for key in keys:
        storage = storages.found[key]
        if int.from_bytes(reading.exactly(file, 8), "little") != storage.count:
            raise ValueError(f"expected {storage.count:,} values in the storage {key}")
        values[key] = np.frombuffer(bytes(reading.exactly(file, storage.count * storage.dtype.itemsize)), storage.dtype)
    return _arrays(saved, values)


def _arrays(saved: Any, values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    if type(saved) is not dict:
        raise ValueError(f"it holds a {type(saved).__name__}")
    found = {}
    for name, value in saved.items():
        if type(value) is pickled.Call and value.name == _PARAMETER and value.arguments:
            value = value.arguments[0]
        if type(value) is pickled.Call:
            found[str(name)] = _tensor(value, str(name), values)
    if not found:
        raise ValueError(f"it holds no tensors, but {sorted(map(str, saved))[:5]}")
    return found


def _tensor(call: pickled.Call, name: str, values: Mapping[str, np.ndarray]) -> np.ndarray:
    """The view of a storage that a tensor is."""
    if call.name not in _TENSORS or len(call.arguments) < 4 or call.state is not None:
        raise ValueError(f"{name} is no plain tensor")
    storage, offset, size, stride = call.arguments[:4]
    if type(storage) is not _Storage or storage.key not in values or type(size) is not tuple:
        raise ValueError(f"the tensor {name} has no storage or no size")
    if type(stride) is not tuple or len(stride) != len(size) or len(size) > 32 or not _sizes([offset, *size, *stride]):
        raise ValueError(f"the tensor {name} has a size or strides that cannot be")
    held, count = values[storage.key], math.prod(size)
    if not count:
        return np.zeros(size, held.dtype)
    # With strides of 0 a tensor of any size would lie inside.
    if count > held.size or offset + sum((n - 1) * s for n, s in zip(size, stride, strict=True)) >= held.size:
        raise ValueError(f"the tensor {name} lies outside its storage, or is larger")
    strides = tuple(s * held.itemsize for s in stride)
    return np.lib.stride_tricks.as_strided(held[offset:], size, strides, writeable=False)


def _sizes(values: list[Any]) -> bool:
    return all(type(value) is int and 0 <= value < 1 << 48 for value in values)
