"""The authors' published weights: .caffemodel files, read without Caffe.

A .caffemodel is a protocol buffer (caffe.proto, NetParameter) of layers with names and blobs. Only what is needed of it
is read here; what a field number means is in the table of each function.
"""

import array
import math
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from kerasmodels.errors import WeightsError


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Layer name -> its blobs as Caffe keeps them: kernels (out, in, rows, columns), biases (out,), float32.

    Both layouts are read: `layer` (field 100) and the older `layers` (field 2).

    Raises:
        WeightsError: the file is missing, is no .caffemodel, or is cut short.
    """
    try:
        data = Path(path).read_bytes()
    except OSError as error:
        raise WeightsError(f"expected a .caffemodel file at {path}. Received: {error.strerror}.") from error
    found: dict[str, list[np.ndarray]] = {}
    try:
        for number, value in _fields(memoryview(data)):
            # NetParameter: (name, blobs) of a layer are fields 1 and 7, of the older kind 4 and 6.
            if number in (100, 2) and isinstance(value, memoryview):
                name_at, blobs_at = (1, 7) if number == 100 else (4, 6)
                fields = list(_fields(value))
                (name, *_) = [bytes(_as(memoryview, v)).decode() for n, v in fields if n == name_at] or [""]
                blobs = [_blob(_as(memoryview, v)) for n, v in fields if n == blobs_at]
                if blobs:
                    found[name] = blobs
    except (ValueError, IndexError, struct.error) as error:
        raise WeightsError(f"{path} is no .caffemodel, or is cut short ({error}). Get the file again.") from error
    if not found:
        raise WeightsError(f"expected layers with weights in {path}. Received: none. Is it a .caffemodel file?")
    return found


def _blob(data: memoryview) -> np.ndarray:
    """BlobProto: num, channels, height, width are fields 1 to 4, floats 5, shape (of dims, field 1) 7, doubles 8."""
    old, shape = [0, 0, 0, 0], None
    parts: list[Any] = []
    for number, value in _fields(data):
        if number in (1, 2, 3, 4):
            old[number - 1] = _as(int, value)
        elif number in (5, 8) and isinstance(value, memoryview):
            parts.append(np.frombuffer(value, "<f4" if number == 5 else "<f8"))
        elif number in (5, 8):
            # One number a field: they are gathered, because an array for each would take 20 times the file.
            if not parts or not isinstance(parts[-1], array.array):
                parts.append(array.array("f" if number == 5 else "d"))
            parts[-1].append(_as(float, value))
        elif number == 7:
            shape = []
            for n, dim in _fields(_as(memoryview, value)):
                if n == 1:
                    shape += list(_varints(dim)) if isinstance(dim, memoryview) else [_as(int, dim)]
    values = np.concatenate([np.asarray(part) for part in parts]) if parts else np.zeros(0)
    if shape is None:
        shape = old if old[0] > 1 or old[1] > 1 or old[2] > 1 else old[3:]
    if len(shape) > 32 or math.prod(shape) != values.size:
        raise ValueError(f"{values.size} values for the shape {tuple(shape)[:32]}")
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite values")
    return values.reshape(shape).astype("float32")


def _as(kind: type, value: Any) -> Any:
    if not isinstance(value, kind):
        raise ValueError(f"a field of type {type(value).__name__} where {kind.__name__} belongs")
    return value


def _fields(data: memoryview) -> Iterator[tuple[int, Any]]:
    """Number and value of each field of a message: an int, a float, or the bytes of what has a length."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        value: Any
        if kind == 0:
            value, at = _varint(data, at)
        elif kind == 1:
            value, at = struct.unpack_from("<d", data, at)[0], at + 8
        elif kind == 5:
            value, at = struct.unpack_from("<f", data, at)[0], at + 4
        elif kind == 2:
            length, at = _varint(data, at)
            value, at = data[at : at + length], at + length
            if at > len(data):
                raise ValueError("a field reaches beyond the end")
        else:
            raise ValueError(f"wire type {kind}")
        yield tag >> 3, value


def _varint(data: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return value, at
        if shift > 63:
            raise ValueError("a number of more than 64 bits")


def _varints(data: memoryview) -> Iterator[int]:
    at = 0
    while at < len(data):
        value, at = _varint(data, at)
        yield value


def load_caffemodel(model: Any, path: Path) -> None:
    """Put the weights of a .caffemodel into a `DilatedNet`.

    Kernels are turned from (out, in, rows, columns) to (rows, columns, in, out), the first one's input from blue,
    green, red to red, green, blue. The context module is named ct_conv... in the VOC network and ctx_conv... in the
    others, and the front end's last layer fc-final or final; a file without a context module leaves ours as it is.

    Raises:
        WeightsError: a layer is missing, or has another shape.
    """
    found = read_caffemodel(path)
    parts = [model.front]
    if model.context is not None and any(name.startswith(("ct_", "ctx_")) for name in found):
        parts.append(model.context)
    for part in parts:
        for layer in part.layers:
            if not layer.weights:
                continue
            names = [layer.name, layer.name.replace("ctx_", "ct_"), layer.name.replace("final", "fc-final")]
            (name, *_) = [n for n in names if n in found] or [""]
            if not name:
                raise WeightsError(f"expected a layer {layer.name} in {path}. Received: {', '.join(found)}.")
            kernel = found[name][0].transpose(2, 3, 1, 0) if found[name][0].ndim == 4 else found[name][0]
            if layer.name == "conv1_1":
                kernel = kernel[:, :, ::-1]
            arrays = [kernel, *found[name][1:]]
            shapes = [tuple(a.shape) for a in arrays]
            expected = [tuple(w.shape) for w in layer.weights]
            if shapes != expected:
                raise WeightsError(
                    f"expected weights of the shapes {expected} for {layer.name} in {path}. Received: {shapes}. "
                    "Give the classes, rates and context that it was trained with (--help lists them)."
                )
            layer.set_weights(arrays)
