"""ONNX: batch and size may vary, dimensions carry their names, metadata inside the file."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx

import kerasmodels
from kerasmodels import storage
from kerasmodels.export import children
from kerasmodels.export.deployment import Server, manifests
from kerasmodels.export.formats import Exporter
from kerasmodels.export.report import Artifact, snippet
from kerasmodels.family import Servable, TensorSpec

if TYPE_CHECKING:
    from kerasmodels.export.order import Order
    from kerasmodels.ops.deformable import Form

OPSET = 18
"""The newest that tf2onnx writes; a file with operators of our own has a newer one."""
METADATA = "kerasmodels"
TRITON = "triton"
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

    def deployment(self, out: Path, models: Mapping[str, Mapping[str, Any]]) -> dict[str, str | Path]:
        """Triton's repository, whose batcher puts only requests of equal shapes together, and manifests."""
        files: dict[str, str | Path] = {}
        for name, model in models.items():
            # The last one that was made, in full precision if there is one.
            best = max(model["artifacts"], key=lambda artifact: artifact["precision"] == "fp32")
            versions = [int(p.name) for p in (out / TRITON / name).glob("*") if p.name.isdecimal()]
            latest = out / TRITON / name / str(max(versions, default=0)) / "model.onnx"
            unchanged = latest.exists() and storage.sha256(latest) == best["sha256"]
            number = max(versions, default=0) + (not unchanged)
            files[f"{TRITON}/{name}/{number}/model.onnx"] = out / best["path"]
            files[f"{TRITON}/{name}/config.pbtxt"] = triton_config(name, best)
        server = Server(
            name="triton",
            image="${TRITON_IMAGE:?the name of a tritonserver image, with its tag}",
            folder=TRITON,
            mounted="/models",
            command=["tritonserver"],
            arguments=["--model-repository=/models", "--strict-readiness=true", "--exit-timeout-secs=30"],
            ports={"http": 8000, "grpc": 8001, "metrics": 8002},
            ready="/v2/health/ready",
            notes=["Requests of equal shapes are batched, see dynamic_batching in each config.pbtxt."],
        )
        return {**files, **manifests("triton", server)}

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


def triton_config(name: str, artifact: Mapping[str, Any]) -> str:
    """A model's config.pbtxt: what may vary is -1, and the batch is left to Triton where all tensors have one."""
    specs = [*artifact["inputs"], *artifact["outputs"]]
    batched = all(spec["shape"][:1] == ["batch"] and "batch" not in spec["shape"][1:] for spec in specs)

    def tensor(spec: Mapping[str, Any]) -> str:
        shape = spec["shape"][1:] if batched else spec["shape"]
        dims = ", ".join(str(-1 if isinstance(size, str) else size) for size in shape)
        # Triton wants at least one dimension beside the batch.
        reshape = "" if dims else " reshape: { shape: [ ] }"
        return f'  {{ name: "{spec["name"]}" data_type: {_TRITON[spec["dtype"]]} dims: [ {dims or 1} ]{reshape} }}'

    def warm(spec: Mapping[str, Any]) -> str:
        bound = [artifact["dims"].get(size, 1) if isinstance(size, str) else size for size in spec["shape"]]
        dims = ", ".join(map(str, bound[1:] if batched else bound))
        what = f"data_type: {_TRITON[spec['dtype']]} dims: [ {dims or 1} ] zero_data: true"
        return f'    inputs {{ key: "{spec["name"]}" value: {{ {what} }} }}'

    inputs, outputs = (",\n".join(tensor(spec) for spec in artifact[way]) for way in ("inputs", "outputs"))
    lines = [f'name: "{name}"', 'platform: "onnxruntime_onnx"', f"max_batch_size: {8 if batched else 0}"]
    lines += [f"input [\n{inputs}\n]", f"output [\n{outputs}\n]"]
    if batched:
        lines += ["# Only requests of equal shapes are put together.", "dynamic_batching { }"]
    warmed = "\n".join(warm(spec) for spec in artifact["inputs"])
    batch = "    batch_size: 1\n" if batched else ""
    lines += ["model_warmup [", f'  {{\n    name: "zeros"\n{batch}{warmed}\n  }}', "]"]
    return "\n".join(lines) + "\n"


_TRITON = {
    "bool": "TYPE_BOOL",
    "uint8": "TYPE_UINT8",
    "int8": "TYPE_INT8",
    "int32": "TYPE_INT32",
    "int64": "TYPE_INT64",
    "float16": "TYPE_FP16",
    "float32": "TYPE_FP32",
    "float64": "TYPE_FP64",
}


def _bytes(servable: Servable) -> int:
    """Of its weights."""
    return sum(v.value.shape.num_elements() * v.value.dtype.size for v in servable.model.variables)


EXPORTER = Onnx()
