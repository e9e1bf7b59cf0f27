"""Which part of the picture a unit of a convolutional network sees, by exact arithmetic on the network's graph.

A convolution or pooling with kernel k (dilated: (k - 1) * rate + 1), stride s and p positions of padding before the
first one turns a field of size r, jump j and start b into

    r + (k - 1) j,        j s,        b - p j.

Padding that mirrors changes which values stand outside the picture, not where: a position whose field lies inside the
picture sees that field exactly; one at the border may also see what is mirrored there. Where several branches meet, the
field is the smallest interval that holds theirs.

Reference: Araujo, Norris, Sim: Computing Receptive Fields of Convolutional Neural Networks, Distill 2019.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import keras

from kerasmodels.errors import UsageError, unknown_name
from kerasmodels.layers import ReflectionPadding1D, ReflectionPadding2D, ReflectionPadding3D


@dataclass(frozen=True)
class ReceptiveField:
    """What the positions of a layer's output see of the network's input; one number per positional axis, pixels.

    Attributes:
        size: positions of the input that one position of the output sees.
        jump: input positions between two neighboring output positions.
        start: the first input position that output position 0 sees; negative where it sees padding.
    """

    size: tuple[int, ...]
    jump: tuple[int, ...]
    start: tuple[int, ...]

    def box(self, position: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """(first, end) on each axis of what the output position sees; it may reach beyond the picture."""
        firsts = [b + int(p) * j for b, p, j in zip(self.start, position, self.jump, strict=True)]
        return tuple((first, first + r) for first, r in zip(firsts, self.size, strict=True))

    def center(self, position: Sequence[int]) -> tuple[float, ...]:
        """The middle of `box(position)`, where pixel 0 has its middle at 0."""
        return tuple((first + end - 1) / 2 for first, end in self.box(position))

    def inside(self, position: Sequence[int], size: Sequence[int]) -> bool:
        """Whether the output position sees pixels of a picture of that size only, no padding.

        A padded position, of whichever layer, has a box that leaves the picture. (The one exception is padding that
        follows a cropping: it stands where pixels were.)
        """
        return all(first >= 0 and end <= n for (first, end), n in zip(self.box(position), size, strict=True))

    def then(self, next_layer: "ReceptiveField") -> "ReceptiveField":
        """The field of a layer with the field `next_layer` that follows this one."""
        return ReceptiveField(
            tuple(r + (k - 1) * j for r, k, j in zip(self.size, next_layer.size, self.jump, strict=True)),
            tuple(j * s for j, s in zip(self.jump, next_layer.jump, strict=True)),
            tuple(b + p * j for b, p, j in zip(self.start, next_layer.start, self.jump, strict=True)),
        )


def receptive_field(model: keras.Model, layer: str) -> ReceptiveField:
    """The receptive field of a layer's output, from the graph of a functional or sequential model.

    Args:
        model: one input; convolutions, poolings, padding, cropping, and what works on each position by itself, between
            it and the layer; branches may part and meet.
        layer: name of a layer or operation.

    Raises:
        UsageError: no layer of that name; on the way to it a layer that sees all positions (such as a global pooling),
            that is unknown here or used more than once, or whose "same" padding depends on a size the model leaves
            open; branches of different strides meet.

    Example:
        >>> import kerasmodels as km
        >>> vgg = km.backbones.VGG16(["relu3_3"], weights=None)
        >>> km.backbones.receptive_field(vgg, "relu3_3")
        ReceptiveField(size=(40, 40), jump=(4, 4), start=(-18, -18))
    """
    if isinstance(model, keras.Sequential):
        model = keras.Model(model.inputs, model.outputs)
    operations = {operation.name: operation for operation in model.operations}
    if layer not in operations:
        raise unknown_name(f"layer of {model.name}", layer, operations)
    producers = {id(tensor): op for op in model.operations for tensor in keras.tree.flatten(op.output)}
    axes = len(model.inputs[0].shape) - 2
    pixels = ReceptiveField((1,) * axes, (1,) * axes, (0,) * axes)
    found: dict[str, ReceptiveField] = {}

    def field(operation: Any) -> ReceptiveField:
        if isinstance(operation, keras.layers.InputLayer):
            return pixels
        if operation.name not in found:
            sources = []
            for tensor in keras.tree.flatten(operation.input):
                if id(tensor) not in producers:
                    raise UsageError(
                        f"{operation.name} follows a layer that is used more than once, or a model within the model, "
                        "which this arithmetic does not follow. Build the model of layers that are used once."
                    )
                sources.append(field(producers[id(tensor)]))
            found[operation.name] = _union(operation.name, sources).then(_own(operation, axes))
        return found[operation.name]

    return field(operations[layer])


def _union(name: str, fields: Sequence[ReceptiveField]) -> ReceptiveField:
    if len({field.jump for field in fields}) > 1:
        raise UsageError(f"branches of different strides meet at {name}. Received: {[f.jump for f in fields]}.")
    starts = tuple(map(min, zip(*(field.start for field in fields), strict=True)))
    ends = map(max, zip(*(tuple(b + r for b, r in zip(f.start, f.size, strict=True)) for f in fields), strict=True))
    return ReceptiveField(tuple(end - b for end, b in zip(ends, starts, strict=True)), fields[0].jump, starts)


_CONVOLUTIONS = tuple(
    getattr(keras.layers, name)
    for name in (
        "Conv1D",
        "Conv2D",
        "Conv3D",
        "DepthwiseConv1D",
        "DepthwiseConv2D",
        "SeparableConv1D",
        "SeparableConv2D",
    )
)
_POOLINGS = tuple(getattr(keras.layers, f"{kind}Pooling{n}D") for kind in ("Max", "Average") for n in (1, 2, 3))
_PADDINGS = (
    *(getattr(keras.layers, f"ZeroPadding{n}D") for n in (1, 2, 3)),
    *(ReflectionPadding1D, ReflectionPadding2D, ReflectionPadding3D),
)
_CROPPINGS = tuple(getattr(keras.layers, f"Cropping{n}D") for n in (1, 2, 3))
_POINTWISE = frozenset(
    (
        # layers
        *("Activation", "ReLU", "LeakyReLU", "PReLU", "ELU", "Softmax", "Identity", "Dense", "BatchNormalization"),
        *("Rescaling", "Normalization", "GaussianDropout", "GaussianNoise", "AlphaDropout", "Dropout"),
        *("SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D"),
        *("Add", "Subtract", "Multiply", "Average", "Maximum", "Minimum", "Concatenate"),
        # operations of keras.ops
        *("Absolute", "Cast", "Clip", "Divide", "Elu", "Exp", "Flip", "Gelu", "Log", "LogSoftmax", "Negative", "Power"),
        *("Relu", "Relu6", "Sigmoid", "Silu", "Softplus", "Sqrt", "Square", "Tanh", "TrueDivide"),
    )
)


def _own(operation: Any, axes: int) -> ReceptiveField:
    """What one position of the operation's output sees of its own input."""
    ones, zeros = (1,) * axes, (0,) * axes
    if isinstance(operation, _CONVOLUTIONS):
        # A separable convolution tells its dilation, or its stride, as one number.
        rates, strides = (_per_axis(v, axes) for v in (operation.dilation_rate, operation.strides))
        size = tuple((k - 1) * rate + 1 for k, rate in zip(operation.kernel_size, rates, strict=True))
        return ReceptiveField(size, strides, _padding_before(operation, size, strides))
    if isinstance(operation, _POOLINGS):
        strides = tuple(operation.strides)
        return ReceptiveField(
            tuple(operation.pool_size), strides, _padding_before(operation, operation.pool_size, strides)
        )
    if isinstance(operation, _PADDINGS):
        return ReceptiveField(ones, ones, tuple(-before for before, _ in _pairs(operation.padding)))
    if isinstance(operation, _CROPPINGS):
        return ReceptiveField(ones, ones, tuple(before for before, _ in _pairs(operation.cropping)))
    kind = type(operation).__name__ if type(operation).__module__.partition(".")[0] == "keras" else ""
    if kind == "Pad" and tuple(operation.pad_width[0]) == tuple(operation.pad_width[-1]) == (0, 0):
        return ReceptiveField(ones, ones, tuple(-before for before, _ in operation.pad_width[1:-1]))
    # Along a positional axis these two would move things.
    if kind in _POINTWISE and (kind not in ("Concatenate", "Flip") or operation.axis in (-1, axes + 1)):
        return ReceptiveField(ones, ones, zeros)
    raise UsageError(
        f"the receptive field ends at {operation.name}: a {type(operation).__name__} sees all positions, or is unknown "
        "here. Ask for a layer before it."
    )


def _per_axis(value: Any, axes: int) -> tuple[int, ...]:
    return (value,) * axes if isinstance(value, int) else tuple(value)


def _pairs(padding: Any) -> Any:
    """((before, after), ...); the 1-D layers of Keras have one pair only."""
    return (padding,) if isinstance(padding[0], int) else padding


def _padding_before(layer: Any, kernel: Sequence[int], strides: Sequence[int]) -> tuple[int, ...]:
    """Minus the positions that the layer itself pads before the first one."""
    if layer.padding == "valid":
        return (0,) * len(kernel)
    if layer.padding == "causal":
        return tuple(1 - k for k in kernel)
    first = 2 if layer.data_format == "channels_first" else 1
    before = []
    for k, s, n in zip(kernel, strides, layer.input.shape[first:], strict=False):
        # "same" pads so that the last of ceil(n / s) positions fits: between k - s and k - 1 in all, by n.
        needed = [max(k - s, 0), k - 1] if n is None else [max((-(-n // s) - 1) * s + k - n, 0)]
        if len({total // 2 for total in needed}) > 1:
            raise UsageError(
                f"where the positions of {layer.name} lie depends on the picture's size: its padding is 'same' and its "
                "stride is above 1. Build the model with an input of known size."
            )
        before.append(-(needed[0] // 2))
    return tuple(before)
