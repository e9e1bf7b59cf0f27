"""The operator that stands for a deformable convolution becomes ONNX's DeformConv. Needs nothing but onnx."""

import json
from typing import Any

import onnx

MARK = "kerasmodels.DeformConv "
"""As `kerasmodels.ops.deformable` writes it; this runs where only onnx and TensorFlow are imported."""
OPSET, IR = 19, 9
"""The first with DeformConv."""


def deform_conv(ctx: Any, node: Any, name: str, args: Any) -> None:
    """tf2onnx's handler of PyFunc: pictures, kernel, offsets, bias and mask, channels last, to ONNX's order."""
    token = node.get_attr_str("token")
    if not token.startswith(MARK):
        raise ValueError(f"{name} calls Python code, which no ONNX file can")
    about = json.loads(token.removeprefix(MARK))
    given, outputs, dtype = list(node.input), list(node.output), ctx.get_dtype(node.input[0])
    shape = ctx.get_shape(outputs[0]) or [-1] * 4
    ctx.remove_node(node.name)

    def transposed(tensor: str, order: list[int]) -> str:
        return ctx.make_node("Transpose", [tensor], attr={"perm": order}).output[0]

    first = [0, 3, 1, 2]
    pictures, kernel, offsets, bias, *mask = given
    inputs = [transposed(pictures, first), transposed(kernel, [3, 2, 0, 1]), transposed(offsets, first), bias]
    inputs += [transposed(tensor, first) for tensor in mask]
    # With the name of the operator it replaces, tf2onnx would lose the transposition after it.
    own = f"{name}_DeformConv"
    made = ctx.make_node("DeformConv", inputs, attr=about, name=own, shapes=[[shape[i] for i in first]], dtypes=[dtype])
    ctx.make_node(
        "Transpose", made.output, attr={"perm": [0, 2, 3, 1]}, outputs=outputs, shapes=[shape], dtypes=[dtype]
    )


def raised(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` under the opset that its operators need: tf2onnx's are the same in this one."""
    if any(node.op_type == "DeformConv" for node in model.graph.node):
        for opset in model.opset_import:
            if opset.domain in ("", "ai.onnx"):
                opset.version = max(opset.version, OPSET)
        model.ir_version = max(model.ir_version, IR)
    return model
