"""Operators that stand for several, for runtimes that compute them in fewer passes. Needs nothing but onnx."""

from typing import NamedTuple

import numpy as np
import onnx
from onnx import numpy_helper


class _Group(NamedTuple):
    """The nodes that normalize `source`, the last of which makes the result."""

    source: str
    nodes: list[onnx.NodeProto]
    epsilon: float
    scale: np.ndarray | None
    shift: np.ndarray | None


class _Graph:
    """Who makes and who reads each tensor."""

    def __init__(self, graph: onnx.GraphProto):
        self.constants = {tensor.name: tensor for tensor in graph.initializer}
        self.makers = {output: node for node in graph.node for output in node.output}
        self.readers: dict[str, list[onnx.NodeProto]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.results = {value.name for value in graph.output}

    def value(self, name: str) -> np.ndarray | None:
        return numpy_helper.to_array(self.constants[name]) if name in self.constants else None

    def next(self, node: onnx.NodeProto | None, kind: str) -> onnx.NodeProto | None:
        """The only node that reads the result of `node`, if it is of that kind."""
        if node is None or node.output[0] in self.results:
            return None
        readers = self.readers.get(node.output[0], [])
        return readers[0] if len(readers) == 1 and readers[0].op_type == kind else None

    def averages(self, node: onnx.NodeProto | None, source: str) -> bool:
        """Is it the mean of `source` over height and width?"""
        while node is not None and node.op_type in ("Reshape", "Transpose"):  # of (N, C, 1, 1): the order stays
            node = self.makers.get(node.input[0])
        if node is None or node.op_type != "ReduceMean" or node.input[0] != source or len(node.input) < 2:
            return False
        axes = self.value(node.input[1])
        return axes is not None and axes.tolist() == [2, 3]

    def per_channel(self, node: onnx.NodeProto, known: str) -> np.ndarray | None:
        """The node's other operand than `known`, if it is a constant (1, C, 1, 1)."""
        other = self.value(next(name for name in node.input if name != known))
        return other.ravel() if other is not None and other.ndim == 4 and other.size == other.shape[1] else None

    def group(self, centered: onnx.NodeProto) -> _Group | None:
        """What begins with this subtraction: (x - mean) [scale] / sqrt(variance + epsilon) [+ shift]."""
        (source, mean), own = centered.input, centered.output[0]
        readers = self.readers.get(own, [])
        square = next((n for n in readers if n.op_type == "Mul" and list(n.input) == [own, own]), None)
        # The square reads it twice, the product with the factor once.
        if square is None or len(readers) != 3 or not self.averages(self.makers.get(mean), source):
            return None
        variance = self.next(square, "ReduceMean")
        added = self.next(variance, "Add")
        inverse = self.next(self.next(added, "Sqrt"), "Reciprocal")
        if variance is None or added is None or inverse is None or not self.averages(variance, square.output[0]):
            return None
        epsilon = self.value(added.input[1])
        if epsilon is None or epsilon.size != 1:
            return None
        nodes, factor, scale = [centered, square, variance, added, inverse], inverse, None
        product = self.next(factor, "Mul")
        if product is not None and own not in product.input:
            scale = self.per_channel(product, factor.output[0])
            nodes, factor, product = (
                [*nodes, product],
                product,
                self.next(product, "Mul") if scale is not None else None,
            )
        if product is None or set(product.input) != {own, factor.output[0]}:
            return None
        total = self.next(product, "Add")
        shift = self.per_channel(total, product.output[0]) if total is not None else None
        nodes = [*nodes, product] if total is None or shift is None else [*nodes, product, total]
        return _Group(source, nodes, float(epsilon.ravel()[0]), scale, shift)


def instance_normalization(model: onnx.ModelProto) -> onnx.ModelProto:
    """`model` with one InstanceNormalization for each group of operators that computes it over height and width."""
    graph = _Graph(model.graph)
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    channels = {
        info.name: info.type.tensor_type.shape.dim[1].dim_value
        for info in (*inferred.value_info, *inferred.input)
        if len(info.type.tensor_type.shape.dim) == 4
    }
    fused: dict[str, onnx.NodeProto] = {}
    for node in model.graph.node:
        group = graph.group(node) if node.op_type == "Sub" else None
        if group is None:
            continue
        shapes = (channels.get(group.source, 0), channels.get(group.nodes[1].output[0], 0))
        count = next((len(a) for a in (group.scale, group.shift) if a is not None), max(shapes))
        if not count:
            continue
        name = group.nodes[-1].output[0]
        for suffix, array, default in (("scale", group.scale, 1.0), ("shift", group.shift, 0.0)):
            array = np.full(count, default) if array is None else array
            model.graph.initializer.append(numpy_helper.from_array(array.astype("float32"), f"{name}_{suffix}"))
        fused[name] = onnx.helper.make_node(
            "InstanceNormalization",
            [group.source, f"{name}_scale", f"{name}_shift"],
            [name],
            name=f"{name}_InstanceNormalization",
            epsilon=group.epsilon,
        )
    nodes = [fused.get(node.output[0], node) for node in model.graph.node]
    # What the groups consisted of feeds nothing any more; from the end, so that whole chains fall away.
    needed = {value.name for value in model.graph.output}
    kept: list[onnx.NodeProto] = []
    for node in reversed(nodes):
        if not fused or needed.intersection(node.output):
            kept.append(node)
            needed.update(_read(node))
    del model.graph.node[:]
    model.graph.node.extend(reversed(kept))
    constants = [tensor for tensor in model.graph.initializer if not fused or tensor.name in needed]
    del model.graph.initializer[:]
    model.graph.initializer.extend(constants)
    return model


def _read(node: onnx.NodeProto) -> set[str]:
    """All names a node reads, those that its subgraphs take from outside included."""
    inner = [a.g for a in node.attribute if a.type == onnx.AttributeProto.GRAPH]
    names = set(node.input)
    for graph in inner:
        names.update(name for part in graph.node for name in _read(part))
        names.update(value.name for value in graph.output)
    return names
