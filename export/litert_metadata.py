"""Metadata inside a .tflite file: the standard TFLite kind, and ours as JSON.

The standard one is a flatbuffer `ModelMetadata` (file identifier M001) in the buffer that the model's metadata list
calls TFLITE_METADATA; Android Studio, MediaPipe and others read it. It is built field by field here, since the package
with the generated code (tflite-support) does not install beside TensorFlow. The numbers are the fields' positions in
metadata_schema.fbs.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

STANDARD = "TFLITE_METADATA"
OWN = "KERASMODELS_METADATA"
_IMAGE_PROPERTIES = 2  # of the union ContentProperties
_RGB = 1  # of the enum ColorSpaceType
# The versions in which fields were added to the schema; ours are all in the first.
_MIN_PARSER_VERSION = "1.0.0"


class _AlignedBuffer(schema.BufferT):
    """A buffer whose data starts at a multiple of 16 bytes in the file, as the schema asks of writers."""

    def Pack(self, builder: flatbuffers.Builder) -> int:
        data = None
        if self.data is not None and len(self.data):
            content = np.asarray(self.data, np.uint8).tobytes()
            builder.StartVector(1, len(content), 16)
            builder.head = builder.Head() - len(content)
            builder.Bytes[builder.Head() : builder.Head() + len(content)] = content
            data = builder.EndVector()
        schema.BufferStart(builder)
        if data is not None:
            schema.BufferAddData(builder, data)
        return schema.BufferEnd(builder)


def attach(path: Path, metadata: Mapping[str, Any]) -> None:
    """Write `metadata` into the .tflite file, replacing what it had of the two kinds."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    entries = [entry for entry in model.metadata or [] if entry.name.decode() not in (STANDARD, OWN)]
    for name, content in ((STANDARD, _standard(metadata)), (OWN, json.dumps(metadata).encode())):
        entries.append(schema.MetadataT(name=name, buffer=len(model.buffers)))
        model.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
    model.metadata = entries
    model.description = metadata["description"]
    model.buffers = [_AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(path.stat().st_size + 65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()))


def read(path: Path, name: str) -> bytes:
    """The content of one metadata buffer.

    Raises:
        KeyError: the file has none of that name.
    """
    model = schema.Model.GetRootAs(path.read_bytes())
    for i in range(model.MetadataLength()):
        entry = model.Metadata(i)
        if entry.Name().decode() == name:
            return model.Buffers(entry.Buffer()).DataAsNumpy().tobytes()
    raise KeyError(f"no metadata called {name}")


def _standard(metadata: Mapping[str, Any]) -> bytes:
    builder = flatbuffers.Builder(4096)

    def table(slots: int, add: Sequence[tuple[Callable[..., None], int, int]]) -> int:
        builder.StartObject(slots)
        for put, slot, value in add:
            put(slot, value, 0)
        return builder.EndObject()

    def offsets(values: Sequence[int]) -> int:
        builder.StartVector(4, len(values), 4)
        for value in reversed(values):
            builder.PrependUOffsetTRelative(value)
        return builder.EndVector()

    text, child = builder.CreateString, builder.PrependUOffsetTRelativeSlot

    def tensor(spec: Mapping[str, Any]) -> int:
        fields = [(child, 0, text(spec["name"])), (child, 1, text(spec["doc"]))]
        fields.append((child, 2, offsets([text(str(size)) for size in spec["shape"]])))
        if spec["kind"] == "image":
            image = table(2, [(builder.PrependInt8Slot, 0, _RGB)])
            content = table(3, [(builder.PrependUint8Slot, 0, _IMAGE_PROPERTIES), (child, 1, image)])
            fields.append((child, 3, content))
        return table(7, fields)

    inputs = offsets([tensor(spec) for spec in metadata["inputs"]])
    outputs = offsets([tensor(spec) for spec in metadata["outputs"]])
    graph = offsets([table(10, [(child, 2, inputs), (child, 3, outputs)])])
    fields = [(child, slot, text(metadata[key])) for slot, key in ((0, "name"), (1, "description"), (2, "version"))]
    fields.append((child, 3, graph))
    fields += [(child, slot, text(metadata[key])) for slot, key in ((4, "author"), (5, "license"))]
    fields.append((child, 7, text(_MIN_PARSER_VERSION)))
    builder.Finish(table(8, fields), file_identifier=b"M001")
    return bytes(builder.Output())
