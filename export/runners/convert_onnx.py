"""Convert a SavedModel to an ONNX file, in full, half or 8-bit precision.

Job: saved_model, out, opset, precision (fp32, fp16, int8), calibration (.npz with "<i>/<input>") or None, inputs and
outputs (list of {name, shape, doc}; a str in a shape names a dimension that may vary), metadata (str -> str), producer,
version, doc.
Answer: versions.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import tensorflow as tf
import tf2onnx
from job_protocol import answer  # type: ignore[import-not-found]
from onnx_deform_conv import deform_conv, raised  # type: ignore[import-not-found]
from onnx_fusions import instance_normalization  # type: ignore[import-not-found]
from onnx_repairs import repaired  # type: ignore[import-not-found]
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quant_pre_process, quantize_static
from onnxruntime.transformers.float16 import convert_float_to_float16
from onnxruntime.transformers.onnx_model import OnnxModel
from tf2onnx import tf_loader

# With statistics computed at run time (instance normalization), quantizing more than the weighted operators costs
# both accuracy and speed; without them (folded batch normalization), everything quantized is fastest.
STATISTICS = {"ReduceMean", "ReduceSum", "InstanceNormalization"}
FLOATS = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)
WEIGHTED = ["Conv", "ConvTranspose", "Gemm", "MatMul"]


class Examples(CalibrationDataReader):
    """The calibration examples, one after the other."""

    def __init__(self, path: str):
        examples: dict[str, dict[str, np.ndarray]] = {}
        with np.load(path) as data:
            for key in data.files:
                index, name = key.split("/", 1)
                examples.setdefault(index, {})[name] = data[key]
        self._left = iter(examples.values())

    def get_next(self) -> dict[str, np.ndarray] | None:
        return next(self._left, None)


def floor_modulo(ctx: Any, node: Any, name: str, args: Any) -> None:
    """FloorMod with the divisor's sign, as TensorFlow has it; tf2onnx truncates integers, so -97 mod 4 became -1."""
    (x, y), floats = node.input, ctx.get_dtype(node.input[0]) in FLOATS
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, list(node.output)
    ctx.remove_node(node.name)
    if floats:
        quotient = ctx.make_node("Floor", ctx.make_node("Div", [x, y]).output)
        product = ctx.make_node("Mul", [quotient.output[0], y])
        ctx.make_node("Sub", [x, product.output[0]], name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)
    else:
        ctx.make_node("Mod", [x, y], name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def floor_division(ctx: Any, node: Any, name: str, args: Any) -> None:
    """FloorDiv that rounds down, also negative integers."""
    (x, y), floats = node.input, ctx.get_dtype(node.input[0]) in FLOATS
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, list(node.output)
    ctx.remove_node(node.name)
    if floats:
        quotient = ctx.make_node("Div", [x, y])
        ctx.make_node("Floor", quotient.output, name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)
    else:
        exact = ctx.make_node("Sub", [x, ctx.make_node("Mod", [x, y]).output[0]])
        ctx.make_node("Div", [exact.output[0], y], name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


def complementary_error(ctx: Any, node: Any, name: str, args: Any) -> None:
    """Erfc, which Keras' exact GELU is made of and ONNX lacks, as 1 - Erf."""
    (x,), dtype = node.input, onnx.helper.tensor_dtype_to_np_dtype(ctx.get_dtype(node.input[0]))
    shapes, dtypes, outputs = node.output_shapes, node.output_dtypes, list(node.output)
    ctx.remove_node(node.name)
    one = ctx.make_const(f"{node.name}_one", np.ones((), dtype)).output[0]
    error = ctx.make_node("Erf", [x]).output[0]
    ctx.make_node("Sub", [one, error], name=node.name, outputs=outputs, shapes=shapes, dtypes=dtypes)


HANDLERS: dict[str, tuple[Any, list[Any]]] = {
    "Erfc": (complementary_error, []),
    "FloorMod": (floor_modulo, []),
    "FloorDiv": (floor_division, []),
    "PyFunc": (deform_conv, []),
}


def traced(job: dict[str, Any]) -> onnx.ModelProto:
    """The SavedModel's default signature as an ONNX graph."""
    loaded = tf.saved_model.load(job["saved_model"])
    signature = loaded.signatures["serving_default"]
    specs = signature.structured_input_signature[1]
    wanted = [tf.TensorSpec(specs[i["name"]].shape, specs[i["name"]].dtype, name=i["name"]) for i in job["inputs"]]

    @tf.function(input_signature=wanted)
    def function(*arrays: tf.Tensor) -> dict[str, tf.Tensor]:
        return signature(**{i["name"]: array for i, array in zip(job["inputs"], arrays, strict=True)})

    # As tf2onnx.convert.from_function does it, less what only costs time: it makes a function of the frozen graph.
    concrete = function.get_concrete_function()
    inputs, outputs = [t.name for t in concrete.inputs if t.dtype != tf.resource], [t.name for t in concrete.outputs]
    names = tf2onnx.convert.tensor_names_from_structed(concrete, inputs, outputs)

    def converted(optimize: Callable[[Any], Any]) -> onnx.ModelProto:
        with tf.device("/CPU:0"), tf.Graph().as_default() as graph:
            tf.import_graph_def(frozen, name="")
            made = tf2onnx.tfonnx.process_tf_graph(
                graph,
                continue_on_error=True,
                opset=job["opset"],
                custom_op_handlers=HANDLERS,
                input_names=inputs,
                output_names=outputs,
                tensors_to_rename=names,
            )
        return optimize(made).make_model(job["name"])

    with tf.device("/CPU:0"):
        frozen = tf_loader.fix_freezing_errors_part2(tf_loader.convert_variables_to_constants_large_model(concrete))
        with tf.Graph().as_default():
            frozen = tf_loader.tf_optimize(inputs, outputs, frozen)
    try:
        return raised(converted(optimized))
    except Exception as error:
        print(f"again, without what failed ({type(error).__name__}: {error})", file=sys.stderr)
        return raised(converted(tf2onnx.optimizer.optimize_graph))


def optimized(graph: Any) -> Any:
    """tf2onnx's optimizations in its order, over and over until none of them finds anything.

    Its own loop copies the whole graph before each, which takes half of a conversion and keeps many copies of the
    weights, writes it all as protobuf after each, which none of them reads, and ends with a round that finds nothing.
    """
    steps = list(tf2onnx.optimizer._get_optimizers().values())
    number = last = 0
    while number < last + len(steps):
        step = steps[number % len(steps)]()
        step.opt_iteration = number // len(steps)
        graph, number = step._optimize(graph), number + 1
        if step.graph_been_opt:
            graph.delete_unused_nodes(graph.outputs)
            last = number
    graph.topological_sort(graph.get_nodes())
    return graph


def halved(model: onnx.ModelProto) -> onnx.ModelProto:
    """Half precision inside, inputs and outputs as they were; arithmetic on sizes stays exact."""
    # tf2onnx gives an empty constant where an input is not given; the float16 converter would cast it.
    empty = {tensor.name for tensor in model.graph.initializer if list(tensor.dims) == [0]}
    constant = {tensor.name for tensor in model.graph.initializer}
    sizes: set[str] = set()  # tensors computed from shapes alone; tf2onnx uses floats up to 1e9 among them
    for node in model.graph.node:
        if node.op_type == "Resize":
            node.input[:] = ["" if name in empty else name for name in node.input]
        inner = [name for name in node.input if name and name not in constant]
        if node.op_type == "Shape" or (inner and all(name in sizes for name in inner)):
            sizes.update(node.output)
    # Positions in half precision would be off by pixels, and ONNX Runtime has no such DeformConv on a CPU.
    exact = [n.name for n in model.graph.node if n.op_type == "DeformConv" or sizes.issuperset(n.output)]
    half = OnnxModel(convert_float_to_float16(model, keep_io_types=True, node_block_list=exact))
    # For each node that reads a tensor in single precision the converter adds a cast, all of the same name.
    named = {node.output[0]: node for node in reversed(half.model.graph.node)}
    once = [node for node in half.model.graph.node if named[node.output[0]] is node]
    del half.model.graph.node[:]
    half.model.graph.node.extend(once)
    # Between two nodes that stay in single precision the converter goes down and up again: take the way around.
    source = {node.output[0]: node for node in half.model.graph.node if node.op_type == "Cast"}
    around: dict[str, str] = {}
    for name, up in source.items():
        down = source.get(up.input[0])
        if down is not None and _target(up) == onnx.TensorProto.FLOAT and _target(down) == onnx.TensorProto.FLOAT16:
            around[name] = down.input[0]
    for node in half.model.graph.node:
        node.input[:] = [around.get(name, name) for name in node.input]
    half.remove_unused_constant()
    half.prune_graph()
    half.topological_sort()  # the casts it adds stand behind the nodes that read them
    return half.model


def _target(cast: onnx.NodeProto) -> int:
    return next(attribute.i for attribute in cast.attribute if attribute.name == "to")


def quantized(job: dict[str, Any], model: onnx.ModelProto) -> onnx.ModelProto:
    """Static 8-bit quantization, as QuantizeLinear/DequantizeLinear pairs."""
    whole, ready, small = (Path(job["out"]).with_suffix(f".{step}.onnx") for step in ("whole", "ready", "small"))
    try:
        onnx.save(model, whole)
        quant_pre_process(whole, ready, skip_symbolic_shape=True)
        statistics = any(node.op_type in STATISTICS for node in model.graph.node)
        quantize_static(
            ready,
            small,
            Examples(job["calibration"]),
            quant_format=QuantFormat.QDQ,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            per_channel=True,
            op_types_to_quantize=WEIGHTED if statistics else None,
        )
        return onnx.load(small)
    finally:
        for path in (whole, ready, small):
            path.unlink(missing_ok=True)


def describe(job: dict[str, Any], model: onnx.ModelProto) -> None:
    """Names of dimensions, documentation and metadata."""
    for values, specs in ((model.graph.input, job["inputs"]), (model.graph.output, job["outputs"])):
        by_name = {spec["name"]: spec for spec in specs}
        for value in values:
            if value.name not in by_name:
                continue
            spec = by_name[value.name]
            value.doc_string = spec["doc"]
            shape = value.type.tensor_type.shape
            del shape.dim[:]
            for size in spec["shape"]:
                dim = shape.dim.add()
                if isinstance(size, str):
                    dim.dim_param = size
                else:
                    dim.dim_value = size
    # Inner shapes are optional, and tf2onnx gives their dimensions names of its own.
    del model.graph.value_info[:]
    del model.metadata_props[:]
    onnx.helper.set_model_props(model, job["metadata"])
    model.graph.doc_string = model.doc_string = job["doc"]
    model.graph.name = job["name"]
    model.producer_name, model.producer_version = job["producer"], job["version"]


def convert(job: dict[str, Any]) -> dict[str, Any]:
    model = repaired(instance_normalization(traced(job)))
    describe(job, model)
    if job["precision"] == "fp16":
        model = halved(model)
    elif job["precision"] == "int8":
        model = quantized(job, model)
    describe(job, model)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, job["out"])
    return {
        "versions": {"tensorflow": tf.__version__, "tf2onnx": tf2onnx.__version__, "onnx": onnx.__version__},
        "opset": next(o.version for o in model.opset_import if o.domain in ("", "ai.onnx")),
    }


if __name__ == "__main__":
    answer(convert)
