"""Metadata inside a .tflite file: the standard TFLite kind, and ours as JSON.

The standard one is a flatbuffer `ModelMetadata` (file identifier M001) in the buffer that the model's metadata list
calls TFLITE_METADATA; Android Studio, MediaPipe and others read it. It is built field by field here, since the package
with the generated code (tflite-support) does not install beside TensorFlow. The numbers are the fields' positions in
metadata_schema.fbs.

The standard one describes tensors by their places in the graph's lists, and knows nothing of signatures: `attach` puts
these lists in the order of the specs, and gives the tensors their names. Names of classes go where Android looks for
them: into text files in a ZIP archive behind the flatbuffer.
"""

import io
import json
import zipfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

from kerasmodels.family import Servable, TensorSpec

STANDARD = "TFLITE_METADATA"
OWN = "KERASMODELS_METADATA"
_IMAGE_PROPERTIES = 2  # of the union ContentProperties
_RGB = 1  # of the enum ColorSpaceType
_AXIS_LABELS, _VALUE_LABELS = 2, 3  # of the enum AssociatedFileType
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


def attach(path: Path, metadata: Mapping[str, Any], servable: Servable) -> None:
    """Write `metadata` into the .tflite file, replacing what it had of the two kinds; see the module."""
    model = schema.ModelT.InitFromPackedBuf(path.read_bytes(), 0)
    _put_in_order(model, servable)
    entries = [entry for entry in model.metadata or [] if entry.name.decode() not in (STANDARD, OWN)]
    for name, content in ((STANDARD, _standard(metadata, servable)), (OWN, json.dumps(metadata).encode())):
        entries.append(schema.MetadataT(name=name, buffer=len(model.buffers)))
        model.buffers.append(schema.BufferT(data=np.frombuffer(content, np.uint8)))
    model.metadata = entries
    model.description = metadata["description"]
    model.buffers = [_AlignedBuffer(data=buffer.data) for buffer in model.buffers]
    builder = flatbuffers.Builder(path.stat().st_size + 65536)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    path.write_bytes(bytes(builder.Output()) + _label_files(servable))


def _put_in_order(model: schema.ModelT, servable: Servable) -> None:
    """Let the main graph list its inputs and outputs as the specs do, under their names."""
    (signature,) = model.signatureDefs
    graph = model.subgraphs[signature.subgraphIndex]
    for specs, kind in ((servable.inputs, "inputs"), (servable.outputs, "outputs")):
        places = {entry.name.decode(): entry.tensorIndex for entry in getattr(signature, kind)}
        setattr(graph, kind, [places[spec.name] for spec in specs])
        for spec in specs:
            graph.tensors[places[spec.name]].name = spec.name.encode()


def _label_files(servable: Servable) -> bytes:
    """A ZIP archive of the names of classes; nothing, if no output has any."""
    content = io.BytesIO()
    named = [spec for spec in servable.outputs if spec.classes]
    if named:
        with zipfile.ZipFile(content, "w") as archive:
            for spec in named:
                archive.writestr(zipfile.ZipInfo(_label_file(spec)), "\n".join(spec.classes) + "\n")
    return content.getvalue()


def _label_file(spec: TensorSpec) -> str:
    return f"{spec.name}.txt"


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


def _standard(metadata: Mapping[str, Any], servable: Servable) -> bytes:
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

    def tensor(spec: TensorSpec) -> int:
        fields = [(child, 0, text(spec.name)), (child, 1, text(spec.doc))]
        fields.append((child, 2, offsets([text(str(size)) for size in spec.shape])))
        if spec.classes:
            kind = _AXIS_LABELS if spec.dtype.startswith("float") else _VALUE_LABELS
            labels = [(child, 0, text(_label_file(spec))), (builder.PrependInt8Slot, 2, kind)]
            fields.append((child, 6, offsets([table(4, labels)])))
        if spec.kind == "image":
            image = table(2, [(builder.PrependInt8Slot, 0, _RGB)])
            content = table(3, [(builder.PrependUint8Slot, 0, _IMAGE_PROPERTIES), (child, 1, image)])
            fields.append((child, 3, content))
        return table(7, fields)

    inputs = offsets([tensor(spec) for spec in servable.inputs])
    outputs = offsets([tensor(spec) for spec in servable.outputs])
    graph = offsets([table(10, [(child, 2, inputs), (child, 3, outputs)])])
    fields = [(child, slot, text(metadata[key])) for slot, key in ((0, "name"), (1, "description"), (2, "version"))]
    fields.append((child, 3, graph))
    fields += [(child, slot, text(metadata[key])) for slot, key in ((4, "author"), (5, "license"))]
    fields.append((child, 7, text(_MIN_PARSER_VERSION)))
    builder.Finish(table(8, fields), file_identifier=b"M001")
    return bytes(builder.Output())
