"""The authors' published weights of dilated nets: .caffemodel files, read without Caffe."""

import math
from pathlib import Path
from typing import Any

import numpy as np
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory, unknown_fields
from google.protobuf.message import DecodeError

from kerasmodels.errors import WeightsError

_MOST_AXES = 32
"""Of a blob (Caffe's kMaxBlobAxes)."""
_FIELDS = {
    "Net": {"layers": (2, "OldLayer"), "layer": (100, "Layer")},
    "Layer": {"name": (1, "bytes"), "blobs": (7, "Blob")},
    "OldLayer": {"name": (4, "bytes"), "blobs": (6, "Blob")},
    "Blob": {
        **{name: (number, "int32") for number, name in enumerate(("num", "channels", "height", "width"), 1)},
        "data": (5, "bytes"),
        "double_data": (8, "bytes"),
        "shape": (7, "Shape"),
    },
    "Numbers": {"data": (5, "float"), "double_data": (8, "double")},
    "Shape": {"dim": (1, "int64")},
}
"""What is read of caffe.proto, all of it repeated: message -> field -> (number, type). Packed floats are bytes on the
wire, and read as such they become arrays at once; `Numbers` reads those of files that do not pack them."""


def _messages() -> dict[str, Any]:
    file = descriptor_pb2.FileDescriptorProto(name="kerasmodels/caffe.proto", package="kerasmodels.caffe")
    for message, fields in _FIELDS.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            field = described.field.add(
                name=name, number=number, label=descriptor_pb2.FieldDescriptorProto.LABEL_REPEATED
            )
            if kind in _FIELDS:
                field.type, field.type_name = field.TYPE_MESSAGE, f".{file.package}.{kind}"
            else:
                field.type = getattr(field, f"TYPE_{kind.upper()}")
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{file.package}.{name}")) for name in _FIELDS
    }


def read_caffemodel(path: str | Path) -> dict[str, list[np.ndarray]]:
    """Layer name -> its blobs as Caffe keeps them: kernels (out, in, rows, columns), biases (out,), float32.

    Both layouts are read: `layer` (field 100) and the older `layers` (field 2).

    Raises:
        WeightsError: the file is missing, is no .caffemodel, is cut short, or holds numbers that are not finite.
    """
    messages = _messages()
    try:
        net = messages["Net"].FromString(Path(path).read_bytes())
        found = {}
        for layer in (*net.layers, *net.layer):
            if layer.blobs:
                name = b"".join(layer.name[-1:]).decode()
                found[name] = [_blob(blob, messages["Numbers"]) for blob in layer.blobs]
    except OSError as error:
        raise WeightsError(f"expected a .caffemodel file at {path}. Received: {error.strerror}.") from error
    except (DecodeError, ValueError) as error:
        raise WeightsError(f"{path} is no .caffemodel, or is cut short ({error}). Get the file again.") from error
    if not found:
        raise WeightsError(f"expected layers with weights in {path}. Received: none. Is it a .caffemodel file?")
    return found


def _blob(blob: Any, numbers: Any) -> np.ndarray:
    """The array of a BlobProto; no copy of it where its numbers are packed."""
    if any(field.field_number in (5, 8) for field in unknown_fields.UnknownFieldSet(blob)):
        plain = numbers.FromString(blob.SerializeToString())
        parts = [np.fromiter(values, kind, len(values)) for values, kind in _numbers(plain)]
    else:
        parts = [np.frombuffer(b"".join(packed), kind) for packed, kind in _numbers(blob)]
    with np.errstate(over="ignore"):
        filled = [part.astype("float32", copy=False) for part in parts if part.size]
    values = filled[0] if len(filled) == 1 else np.concatenate([np.zeros(0, "float32"), *filled])
    shape = [int(dim) for given in blob.shape for dim in given.dim]
    if not blob.shape:
        # As Caffe once wrote it: four sizes, of which a bias has the last alone.
        sizes = [sum(field[-1:]) for field in (blob.num, blob.channels, blob.height, blob.width)]
        shape = sizes if max(sizes[:3]) > 1 else sizes[3:]
    if len(shape) > _MOST_AXES or min(shape, default=0) < 0 or math.prod(shape) != values.size:
        raise ValueError(f"{values.size} values for the shape {tuple(shape)[:_MOST_AXES]}")
    if not np.isfinite(values).all():
        raise ValueError("NaN or infinite values")
    return values.reshape(shape)


def _numbers(message: Any) -> tuple[tuple[Any, str], ...]:
    return (message.data, "<f4"), (message.double_data, "<f8")


def load_caffemodel(model: Any, path: Path) -> None:
    """Put the weights of a .caffemodel into a `DilatedNet`, all or nothing.

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
    ready = []
    for layer in (layer for part in parts for layer in part.layers if layer.weights):
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
        ready.append((layer, arrays))
    for layer, arrays in ready:
        layer.set_weights(arrays)
