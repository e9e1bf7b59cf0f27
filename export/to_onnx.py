"""ONNX: batch and size may vary, dimensions carry their names, metadata inside the file."""

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

import kerasmodels
from kerasmodels.export import children
from kerasmodels.export.formats import Exporter
from kerasmodels.export.report import Artifact, snippet
from kerasmodels.family import Servable, TensorSpec

if TYPE_CHECKING:
    from kerasmodels.export.order import Order
    from kerasmodels.ops.deformable import Form

OPSET = 18
"""The newest that tf2onnx writes; a file with operators of our own has a newer one."""
METADATA = "kerasmodels"
LARGE = 2**27
"""Bytes of weights."""


class Onnx(Exporter):
    """A single file."""

    def make(self, orders: "Sequence[Order]") -> list[dict[str, Any]]:
        jobs = [_job(order) for order in orders]
        # Protobuf's usual implementation keeps all the copies that tf2onnx makes of weights until the end: 70 times
        # their size. The one in Python frees them, but is four times slower at graphs of many nodes.
        large = any(_bytes(order.servable) > LARGE for order in orders)
        settings = {"PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION": "python"} if large else {}
        whats = [f"converting {order.name} to ONNX" for order in orders]
        answers = children.call("convert_onnx", jobs, whats, orders[0].work, settings)
        for order, answer in zip(orders, answers, strict=True):
            if order.older_onnx and order.sources.same(order.bound()):
                answer["note"] = f"has no operator newer than opset {OPSET}: --older-onnx changed nothing."
        return answers

    def operators(self, path: Path) -> dict[str, int]:
        """Those of subgraphs included."""
        found: Counter[str] = Counter()

        def walk(graph: onnx.GraphProto) -> None:
            for node in graph.node:
                found[node.op_type] += 1
                for attribute in node.attribute:
                    if attribute.type == onnx.AttributeProto.GRAPH:
                        walk(attribute.g)

        walk(onnx.load(str(path)).graph)
        return dict(found.most_common())

    def read_metadata(self, path: Path) -> dict[str, Any]:
        try:
            properties = {p.key: p.value for p in onnx.load(str(path)).metadata_props}
        except Exception as error:
            # protobuf's own error for a damaged file has a different class in each of its implementations
            raise ValueError(f"not an ONNX file: {error}") from error
        return json.loads(properties[METADATA])

    def limits(self, artifacts: Sequence[Artifact]) -> list[str]:
        opsets = ", ".join(sorted({str(row.opset) for row in artifacts}))
        return [
            f"opset {opsets}; fp16 is for GPUs, on CPUs it is not faster. OpenVINO computes in bfloat16 on processors "
            'that have it, unless it is told {"INFERENCE_PRECISION_HINT": "f32"}: positions and labels would be wrong.'
        ]

    def next_steps(self, artifact: Artifact, servable: Servable, path: Path) -> list[str]:
        """A Python snippet that runs the file."""
        feeds = ", ".join(f"{spec.name!r}: {spec.name}" for spec in servable.inputs)
        run = (
            f"session = InferenceSession({str(path)!r}, providers=['CPUExecutionProvider'])\n"
            f"result = dict(zip([o.name for o in session.get_outputs()], session.run(None, {{{feeds}}})))"
        )
        return [snippet("onnxruntime", "from onnxruntime import InferenceSession", run, artifact, servable)]


def _job(order: "Order") -> dict[str, Any]:
    """What the converter is asked for; writes what it reads."""
    form: Form = "portable" if order.older_onnx else "marked"
    source = order.sources.find(order.work / "onnx_source", order.bound(), form)
    texts = {key: str(order.metadata[key]) for key in ("name", "description", "version", "author", "license", "source")}

    def described(specs: tuple[TensorSpec, ...]) -> list[dict[str, Any]]:
        return [{"name": spec.name, "shape": list(spec.shape), "doc": spec.doc} for spec in specs]

    return {
        "saved_model": str(source),
        "out": str(order.path),
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


def _bytes(servable: Servable) -> int:
    """Of its weights."""
    return sum(v.value.shape.num_elements() * v.value.dtype.size for v in servable.model.variables)


EXPORTER = Onnx()
