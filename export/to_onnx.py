"""ONNX: batch and size may vary, dimensions carry their names, metadata inside the file."""

import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

import kerasmodels
from kerasmodels.export import children
from kerasmodels.family import Servable, TensorSpec

if TYPE_CHECKING:
    from kerasmodels.export.order import Order
    from kerasmodels.export.report import Artifact

OPSET = 18
"""The newest that tf2onnx writes; a file with operators of our own has a newer one."""
METADATA = "kerasmodels"
LARGE = 2**27
"""Bytes of weights."""


def make(order: "Order", out: Path) -> dict[str, Any]:
    """Write the file `out`; returns versions and the opset."""
    from kerasmodels.export import signatures

    source = order.work / "onnx_source"
    signatures.write(order.servable, source, order.bound(), form="portable" if order.older_onnx else "marked")
    texts = {key: str(order.metadata[key]) for key in ("name", "description", "version", "author", "license", "source")}

    def described(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "shape": list(spec.shape), "doc": spec.doc} for spec in specs]

    job = {
        "saved_model": str(source),
        "out": str(out),
        "opset": OPSET,
        "precision": order.precision,
        "calibration": order.save_calibration(),
        "inputs": described(order.servable.inputs),
        "outputs": described(order.servable.outputs),
        "metadata": {**texts, METADATA: json.dumps(order.metadata)},
        "name": order.name,
        "producer": "kerasmodels",
        "version": kerasmodels.__version__,
        "doc": order.metadata["description"],
    }
    # Protobuf's usual implementation keeps all the copies that tf2onnx makes of weights until the end: 70 times
    # their size. The one in Python frees them, but is four times slower at graphs of many nodes.
    large = sum(v.value.shape.num_elements() * v.value.dtype.size for v in order.servable.model.variables) > LARGE
    settings = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"} if large else {}
    return children.call("convert_onnx", job, "converting to ONNX", out.parent, settings)


def operators(path: Path) -> dict[str, int]:
    """How often each operator occurs, subgraphs included, most frequent first."""
    found: Counter[str] = Counter()

    def walk(graph: onnx.GraphProto) -> None:
        for node in graph.node:
            found[node.op_type] += 1
            for attribute in node.attribute:
                if attribute.type == onnx.AttributeProto.GRAPH:
                    walk(attribute.g)

    walk(onnx.load(str(path)).graph)
    return dict(found.most_common())


def read_metadata(path: Path) -> dict[str, Any]:
    """What `make` wrote into the file."""
    try:
        properties = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
    except Exception as error:
        # protobuf's own error for a damaged file has a different class in each of its implementations
        raise ValueError(f"not an ONNX file: {error}") from error
    return json.loads(properties[METADATA])


def next_steps(artifact: "Artifact", servable: Servable, path: Path) -> list[str]:
    """A Python snippet that runs the file."""
    from kerasmodels.export.report import snippet

    feeds = ", ".join(f"{spec.name!r}: {spec.name}" for spec in servable.inputs)
    run = (
        f"session = InferenceSession({str(path)!r}, providers=['CPUExecutionProvider'])\n"
        f"result = dict(zip([o.name for o in session.get_outputs()], session.run(None, {{{feeds}}})))"
    )
    return [snippet("from onnxruntime import InferenceSession", run, artifact, servable)]
