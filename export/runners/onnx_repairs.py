"""What other runtimes stumble over in tf2onnx's graphs, written differently. Needs nothing but onnx."""

from collections.abc import Iterator

import onnx


def repaired(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model`, which computes the same to the bit.

    - A loop's variable that its body hands on as it is goes through an Identity: OpenVINO refuses to load such a body
      otherwise.
    - Nearest neighbors are found by half_pixel and round_prefer_ceil in place of tf_half_pixel_for_nn, which has been
      deprecated since opset 13 and of which ONNX Runtime warns in each session.
    """
    for node in _nodes(model.graph):
        attributes = {attribute.name: attribute for attribute in node.attribute}
        if node.op_type == "Loop":
            _hand_on(attributes["body"].g)
        mode = attributes.get("coordinate_transformation_mode")
        if node.op_type == "Resize" and mode is not None and mode.s == b"tf_half_pixel_for_nn":
            mode.s = b"half_pixel"
            kept = [attribute for attribute in node.attribute if attribute.name != "nearest_mode"]
            del node.attribute[:]
            node.attribute.extend([*kept, onnx.helper.make_attribute("nearest_mode", "round_prefer_ceil")])
    return model


def _nodes(graph: onnx.GraphProto) -> Iterator[onnx.NodeProto]:
    for node in graph.node:
        yield node
        for attribute in node.attribute:
            if attribute.type == onnx.AttributeProto.GRAPH:
                yield from _nodes(attribute.g)


def _hand_on(body: onnx.GraphProto) -> None:
    """Its inputs: the iteration, the condition, the variables; its outputs: the condition, the variables, scans."""
    given = [value.name for value in body.input]
    for number, value in enumerate(body.output):
        if value.name in given:
            made = f"{value.name}_handed_on_{number}"
            body.node.append(onnx.helper.make_node("Identity", [value.name], [made], name=made))
            value.name = made
