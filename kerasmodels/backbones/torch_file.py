"""Weights that PyTorch saved, read without PyTorch.

`torch.save` writes a pickle that names storages, and the storages: in a zip since PyTorch 1.6, one after the other
before. Nothing of a file is executed: the only names it may use are those of tensors, of the types of their numbers and
of ordered dictionaries.
"""

import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np

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


def read_torch(path: str | Path) -> dict[str, np.ndarray]:
    """The tensors of a state dict.

    Args:
        path: a file of `torch.save(network.state_dict(), path)`, of any version of PyTorch.

    Returns:
        name -> array, in the file's order and with its dtypes; bfloat16 is not read.

    Raises:
        WeightsError: the file is missing, damaged, or holds something else than a dictionary of tensors.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            zipped = zipfile.is_zipfile(file)
            file.seek(0)
            found = _from_zip(path) if zipped else _from_stream(file)
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}.") from error
    except Exception as error:
        # Pickles of other things, and damaged ones, raise all kinds of errors.
        raise WeightsError(
            f"expected a state dict that PyTorch saved. Received: {path} ({type(error).__name__}: {error}). "
            "Save one with torch.save(network.state_dict(), path)."
        ) from error
    arrays = {name: value for name, value in found.items() if isinstance(value, np.ndarray)}
    if not arrays:
        raise WeightsError(f"expected tensors in {path}. Received: a dictionary of {sorted(map(str, found))[:5]}.")
    return arrays


def tensor(state: Mapping[str, np.ndarray], key: str, path: str | Path) -> np.ndarray:
    """The array of that name in what `read_torch` found in `path`.

    Raises:
        WeightsError: there is none.
    """
    if key not in state:
        raise WeightsError(f"expected {key} in {path}. Received: {', '.join([*state][:4])} ...")
    return state[key]


def normalisation(state: Mapping[str, np.ndarray], key: str, path: str | Path) -> list[np.ndarray]:
    """Scale, shift, mean and variance of the batch normalisation of that name.

    Raises:
        WeightsError: one is not there.
    """
    return [tensor(state, f"{key}.{name}", path) for name in ("weight", "bias", "running_mean", "running_var")]


def convolution_kernel(value: np.ndarray) -> np.ndarray:
    """(out, in, rows, columns) to (rows, columns, in, out)."""
    return value.transpose(2, 3, 1, 0)


class _Storage:
    """A storage whose numbers are read when they are first needed."""

    def __init__(self, dtype: str):
        self.dtype = np.dtype(dtype)
        self.values: np.ndarray | None = None


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes], storage: Callable[[str, str], _Storage]):
        super().__init__(file)
        self._storage = storage
        self._waiting: list[Any] = []

    def persistent_load(self, pid: Any) -> _Storage:
        kind, storage_type, key, *_ = pid
        if kind != "storage":
            raise pickle.UnpicklingError(f"unknown reference {kind!r}")
        return self._storage(str(key), storage_type)

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) == ("collections", "OrderedDict"):
            return OrderedDict
        if module in ("torch", "torch.storage") and name in _STORAGES:
            return _STORAGES[name]
        if module == "torch._utils" and name in ("_rebuild_tensor", "_rebuild_tensor_v2"):
            return _Tensor
        if (module, name) == ("torch._utils", "_rebuild_parameter"):
            return lambda tensor, *_: tensor
        raise pickle.UnpicklingError(f"it uses {module}.{name}, which no state dict needs")


class _Tensor:
    """A view of a storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple[int, ...], stride: tuple[int, ...], *_: Any):
        self._storage, self._offset, self._size, self._stride = storage, offset, size, stride

    def array(self) -> np.ndarray:
        values, width = self._storage.values, self._storage.dtype.itemsize
        last = self._offset + sum((n - 1) * s for n, s in zip(self._size, self._stride, strict=True))
        if values is None or min(self._offset, *self._size, *self._stride, 0) < 0 or last >= values.size:
            raise ValueError("a tensor lies outside its storage")
        strides = tuple(s * width for s in self._stride)
        return np.lib.stride_tricks.as_strided(values[self._offset :], self._size, strides, writeable=False).copy()


def _from_zip(path: Path) -> dict[str, Any]:
    with zipfile.ZipFile(path) as archive:
        (root,) = (name[: -len("data.pkl")] for name in archive.namelist() if name.endswith("data.pkl"))
        storages: dict[str, _Storage] = {}

        def storage(key: str, dtype: str) -> _Storage:
            if key not in storages:
                storages[key] = _Storage(dtype)
                storages[key].values = np.frombuffer(archive.read(f"{root}data/{key}"), storages[key].dtype)
            return storages[key]

        with archive.open(f"{root}data.pkl") as file:
            return _arrays(_Reader(file, storage).load())


def _from_stream(file: IO[bytes]) -> dict[str, Any]:
    storages: dict[str, _Storage] = {}

    def storage(key: str, dtype: str) -> _Storage:
        return storages.setdefault(key, _Storage(dtype))

    readers = [_Reader(file, storage).load() for _ in range(2)]
    if readers[0] != _MAGIC:
        raise ValueError("it does not begin as such files do")
    _Reader(file, storage).load()  # about the machine
    saved = _Reader(file, storage).load()
    for key in _Reader(file, storage).load():
        count = int.from_bytes(file.read(8), "little")
        dtype = storages[key].dtype
        storages[key].values = np.frombuffer(file.read(count * dtype.itemsize), dtype, count)
    return _arrays(saved)


def _arrays(saved: Any) -> dict[str, Any]:
    if not isinstance(saved, dict):
        raise ValueError(f"it holds a {type(saved).__name__}")
    return {str(name): value.array() if isinstance(value, _Tensor) else value for name, value in saved.items()}
