"""Convolution at positions that the network chooses, in the form that is fastest where it runs."""

import contextlib
import contextvars
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

import keras
import numpy as np
from keras import ops

from kerasmodels.ops import bilinear

Form = Literal["fast", "portable", "marked"]
MARK = "kerasmodels.DeformConv "
"""Begins the token of the operator that stands for ONNX's DeformConv while a graph is written for it."""
FAR = -1e6
"""Stands for an offset that is no number: outside any picture."""


@dataclass
class Tracing:
    """What is traced meanwhile, and whether any of it depends on `form`."""

    form: Form
    asked: bool = False


_tracing: contextvars.ContextVar[Tracing] = contextvars.ContextVar("tracing", default=Tracing("fast"))  # noqa: B039


@contextlib.contextmanager
def traced_as(form: Form) -> Iterator[Tracing]:
    """How deformable convolutions and RoI poolings are written into graphs traced meanwhile.

    Args:
        form: "fast": the fastest of this TensorFlow; "portable": gathers and elementwise operators alone, which every
            converter and compiler knows; "marked": as portable, but each deformable convolution is one PyFunc operator
            that cannot be executed and whose token, `MARK` and JSON, says what ONNX operator it stands for.

    Yields:
        The record of it: another form gives the same graph as long as it is not `asked`.
    """
    tracing = Tracing(form)
    before = _tracing.set(tracing)
    try:
        yield tracing
    finally:
        _tracing.reset(before)


def form() -> Form:
    """What `traced_as` was given, if it is on."""
    tracing = _tracing.get()
    tracing.asked = True
    return tracing.form


@dataclass(frozen=True)
class _Geometry:
    """Where a convolution looks: (rows, columns) each.

    Args:
        kernel, strides, dilation: sizes.
        before: pixels of zeros above and to the left.
        parts: deformable groups.
    """

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilation: tuple[int, int]
    before: tuple[int, int]
    parts: int

    @property
    def taps(self) -> int:
        return self.kernel[0] * self.kernel[1]


def deform_conv2d(
    inputs: Any,
    offsets: Any,
    kernel: Any,
    mask: Any = None,
    bias: Any = None,
    *,
    strides: int | tuple[int, int] = 1,
    padding: Any = "valid",
    dilation_rate: int | tuple[int, int] = 1,
    groups: int = 1,
    data_format: str = "channels_last",
) -> Any:
    """A convolution whose taps are moved, at every output position, by the offsets given.

        y(p0) = sum over taps t of  kernel_t . x(p0 + p_t + offset_t(p0)) [mask_t(p0)]

    x between pixels is bilinear, and zero outside the picture: a sample at row <= -1 or >= H, or column <= -1 or >= W,
    is 0, and of a sample nearer than a pixel to the border the corners outside count as 0. The gradient of an offset is
    the difference of the corners of the cell it lies in, so also at whole positions it is not zero. Equal to
    `torchvision.ops.deform_conv2d` and to ONNX's DeformConv (opset 19).

    An offset that is NaN or infinite samples 0 and gets gradient 0: nothing outside the picture is ever read. Positions
    are computed in float32 whatever the dtype of the inputs.

    On the TensorFlow backend sampling is compiled, once for every shape of the inputs, and has a gradient of its own
    that keeps eight numbers a sample and not the pixels it saw.

    Args:
        inputs: (N, H, W, C), or (N, C, H, W) with data_format "channels_first".
        offsets: in pixels, (N, H', W', 2 G kh kw) or (N, 2 G kh kw, H', W'), for G deformable groups: the channels
            2 (g kh kw + t) and 2 (g kh kw + t) + 1 are the rows and columns by which tap t (row by row) is moved for
            the g-th of G equal parts of the channels. G follows from the number of channels. H', W': the output's.
        kernel: (kh, kw, C / groups, filters).
        mask: None or factors of the samples, (N, H', W', G kh kw) or (N, G kh kw, H', W').
        bias: None or (filters,).
        strides, dilation_rate: ints >= 1.
        padding: "valid", "same" (as in `keras.layers.Conv2D`), or pixels of zeros: an int, (rows, columns), or
            ((top, bottom), (left, right)).
        groups: of the convolution.
        data_format: "channels_last" or "channels_first".

    Returns:
        (N, H', W', filters) or (N, filters, H', W'), of the inputs' dtype if that is float32 or shorter, else float32.

    Raises:
        ValueError: an option out of range, or shapes that do not belong together.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> x, offsets = np.random.rand(1, 8, 9, 4), np.zeros((1, 6, 7, 18))
        >>> tuple(km.ops.deform_conv2d(x, offsets, np.ones((3, 3, 4, 2))).shape)
        (1, 6, 7, 2)

    Reference:
        Dai et al.: Deformable Convolutional Networks, ICCV 2017, equations 2-4; the mask is equation 1 of Zhu et al.:
        Deformable ConvNets v2, CVPR 2019.
    """
    x = ops.convert_to_tensor(inputs)
    if keras.backend.standardize_dtype(x.dtype) not in ("float16", "bfloat16", "float32"):
        x = ops.cast(x, "float32")
    dtype = x.dtype
    offsets = ops.cast(ops.convert_to_tensor(offsets), "float32")
    kernel = ops.cast(ops.convert_to_tensor(kernel), dtype)
    mask = None if mask is None else ops.cast(ops.convert_to_tensor(mask), "float32")
    bias = None if bias is None else ops.cast(ops.convert_to_tensor(bias), dtype)
    if data_format not in ("channels_last", "channels_first"):
        raise ValueError(f"data_format must be 'channels_last' or 'channels_first'. Received: {data_format!r}")
    for name, value in (("inputs", x), ("offsets", offsets), ("kernel", kernel), ("mask", mask)):
        if value is not None and len(value.shape) != 4:
            raise ValueError(f"{name} must have rank 4. Received shape {tuple(value.shape)}")
    if data_format == "channels_first":
        x, offsets = (ops.transpose(a, (0, 2, 3, 1)) for a in (x, offsets))
        mask = None if mask is None else ops.transpose(mask, (0, 2, 3, 1))
    strides, dilation = pair("strides", strides), pair("dilation_rate", dilation_rate)
    size = tuple(kernel.shape[:2])
    pads = pads_of(padding, size, strides, dilation, tuple(x.shape[1:3]))
    if pads is None:
        x, pads = _padded_same(x, size, strides, dilation), ((0, 0), (0, 0))
    geometry = _check(x, offsets, kernel, mask, bias, strides, dilation, pads, groups)
    if form() == "marked":
        y = _marked(x, offsets, kernel, mask, bias, geometry, pads, groups)
    else:
        y = _product(sampled(x, offsets, mask, geometry), kernel, bias, geometry, offsets, groups)
    return ops.transpose(y, (0, 3, 1, 2)) if data_format == "channels_first" else y


def pair(name: str, value: int | tuple[int, int]) -> tuple[int, int]:
    """(rows, columns) of an option that may be one int.

    Raises:
        ValueError: not one or two ints >= 1.
    """
    both = (value, value) if isinstance(value, int) else tuple(value)
    if len(both) != 2 or any(not isinstance(v, int) or v < 1 for v in both):
        raise ValueError(f"{name} must be an int >= 1 or two of them. Received: {name}={value!r}")
    return both


def pads_of(
    padding: Any,
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    size: tuple[int | None, ...],
) -> tuple[tuple[int, int], tuple[int, int]] | None:
    """((top, bottom), (left, right)) in pixels; None for "same" if it depends on a size that is unknown.

    Raises:
        ValueError: none of the kinds of padding.
    """
    if padding == "valid":
        return ((0, 0), (0, 0))
    if padding == "same":
        found = []
        for k, s, d, n in zip(kernel, strides, dilation, size, strict=True):
            if n is None and s != 1:
                return None
            total = d * (k - 1) if n is None else max((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
            found.append((total // 2, total - total // 2))
        return (found[0], found[1])
    both = (padding, padding) if isinstance(padding, int) else padding
    if isinstance(both, tuple | list) and len(both) == 2:
        sides = [(p, p) if isinstance(p, int) else tuple(p) for p in both if isinstance(p, int | tuple | list)]
        if len(sides) == 2 and all(len(s) == 2 and all(isinstance(v, int) and v >= 0 for v in s) for s in sides):
            return (sides[0], sides[1])
    raise ValueError(
        "padding must be 'valid', 'same', an int >= 0, (rows, columns) or ((top, bottom), (left, right)). "
        f"Received: padding={padding!r}"
    )


def output_size(
    size: tuple[int | None, ...],
    kernel: tuple[int, int],
    strides: tuple[int, int],
    dilation: tuple[int, int],
    padding: Any,
) -> tuple[int | None, int | None]:
    """Height and width of the output, None where unknown."""
    pads = pads_of(padding, kernel, strides, dilation, size) or ((0, 0), (0, 0))
    rows, columns = (
        None if n is None else (n + sum(p) - d * (k - 1) - 1) // s + 1
        for n, p, k, s, d in zip(size, pads, kernel, strides, dilation, strict=True)
    )
    return rows, columns


def _check(
    x: Any,
    offsets: Any,
    kernel: Any,
    mask: Any,
    bias: Any,
    strides: tuple[int, int],
    dilation: tuple[int, int],
    pads: tuple[tuple[int, int], tuple[int, int]],
    groups: int,
) -> _Geometry:
    rows, columns, inner, filters = kernel.shape
    channels, taps = x.shape[-1], rows * columns
    if channels is None or offsets.shape[-1] is None:
        raise ValueError(
            f"the numbers of channels must be known. Received: inputs {tuple(x.shape)}, offsets {tuple(offsets.shape)}"
        )
    if groups < 1 or channels != inner * groups or filters % groups:
        raise ValueError(
            f"groups must divide the {channels} channels into parts of the kernel's {inner} and the {filters} filters. "
            f"Received: groups={groups}, kernel {tuple(kernel.shape)}"
        )
    parts, rest = divmod(offsets.shape[-1], 2 * taps)
    if rest or not parts:
        raise ValueError(
            f"a kernel of {rows}x{columns} needs offsets of {2 * taps} channels, or a multiple of it for several "
            f"deformable groups. Received: {offsets.shape[-1]} channels"
        )
    if channels % parts:
        raise ValueError(
            f"the number of deformable groups must divide the {channels} channels. "
            f"Received: {parts} deformable groups ({offsets.shape[-1]} channels of offsets / {2 * taps})"
        )
    if mask is not None and mask.shape[-1] != parts * taps:
        raise ValueError(f"mask must have {parts * taps} channels. Received: {mask.shape[-1]}")
    if bias is not None and tuple(bias.shape) != (filters,):
        raise ValueError(f"bias must have shape ({filters},). Received: {tuple(bias.shape)}")
    size = output_size(tuple(x.shape[1:3]), (rows, columns), strides, dilation, pads)
    if any(n is not None and n < 1 for n in size):
        raise ValueError(f"the kernel does not fit into inputs of shape {tuple(x.shape)} with padding {pads}")
    for name, array in (("offsets", offsets), ("mask", mask)):
        if array is None:
            continue
        wanted = (x.shape[0], *size)
        if any(None not in (w, got) and w != got for w, got in zip(wanted, array.shape[:3], strict=True)):
            raise ValueError(
                f"{name} must have the batch, height and width of the output, {wanted}. "
                f"Received: {tuple(array.shape[:3])}"
            )
    return _Geometry((rows, columns), strides, dilation, (pads[0][0], pads[1][0]), parts)


def _padded_same(x: Any, kernel: tuple[int, int], strides: tuple[int, int], dilation: tuple[int, int]) -> Any:
    """With the zeros of "same" at a height and width known at run time only."""
    import tensorflow as tf

    sides = []
    for n, k, s, d in zip(tf.unstack(tf.shape(x)[1:3]), kernel, strides, dilation, strict=True):
        total = tf.maximum((-(-n // s) - 1) * s + d * (k - 1) + 1 - n, 0)
        sides.append([total // 2, total - total // 2])
    return tf.pad(x, [[0, 0], *sides, [0, 0]])


def sampled(x: Any, offsets: Any, mask: Any, geometry: _Geometry) -> Any:
    """The values under all taps.

    Args:
        x: (N, H, W, C).
        offsets: (N, H', W', 2 G taps) float32.
        mask: None or (N, H', W', G taps).
        geometry: where the taps look.

    Returns:
        (N H' W', taps C); within a tap the channels are in order.
    """
    parts, taps = geometry.parts, geometry.taps
    n, height, width, channels = bilinear.shape_of(x)
    _, rows, columns, _ = bilinear.shape_of(offsets)
    moved = ops.add(ops.reshape(offsets, (-1, rows * columns, parts * taps, 2)), _grid(rows, columns, geometry))
    positions = ops.reshape(moved, (-1, parts, taps, 2))
    factors = None if mask is None else ops.reshape(mask, (-1, parts, taps))
    if parts > 1:
        positions = ops.transpose(positions, (0, 2, 1, 3))
        factors = None if factors is None else ops.transpose(factors, (0, 2, 1))
    # A row for each part of the channels of each pixel: (pixel, part).
    pixels = ops.reshape(x, (-1, channels // parts))
    start = bilinear.starts(n, height * width * parts, rows * columns * taps, parts)
    found = bilinear.sample(
        pixels,
        ops.reshape(positions, (-1, 2)),
        None if factors is None else ops.reshape(factors, (-1,)),
        start,
        (height, width),
        (width * parts, parts),
        fast=form() == "fast",
    )
    return ops.reshape(found, (-1, taps * channels))


def _grid(rows: Any, columns: Any, geometry: _Geometry) -> Any:
    """(1, H' W', G taps, 2): the position of each tap, not yet moved."""
    known = isinstance(rows, int) and isinstance(columns, int)
    look = [np.arange(k) * d for k, d in zip(geometry.kernel, geometry.dilation, strict=True)]
    taps = np.stack(np.meshgrid(*look, indexing="ij"), axis=-1).reshape(1, 1, -1, 2)
    taps = np.tile(taps, (1, 1, geometry.parts, 1)) - np.reshape(geometry.before, (1, 1, 1, 2))
    strides = geometry.strides
    if known:
        y, x = np.meshgrid(np.arange(rows) * strides[0], np.arange(columns) * strides[1], indexing="ij")
        corners = np.stack([y.ravel(), x.ravel()], axis=-1).reshape(1, -1, 1, 2)
        return ops.convert_to_tensor((corners + taps).astype("float32"))
    index = ops.arange(rows * columns)
    y, x = ops.floor_divide(index, columns) * strides[0], ops.mod(index, columns) * strides[1]
    corners = ops.reshape(ops.stack([y, x], axis=-1), (1, -1, 1, 2))
    return ops.add(ops.cast(corners, "float32"), ops.convert_to_tensor(taps.astype("float32")))


def _product(found: Any, kernel: Any, bias: Any, geometry: _Geometry, offsets: Any, groups: int) -> Any:
    """(N H' W', taps C) times the kernel, plus the bias: (N, H', W', filters)."""
    _, rows, columns, _ = bilinear.shape_of(offsets)
    inner, filters = kernel.shape[2:]
    if groups == 1:
        y = ops.matmul(found, ops.reshape(kernel, (-1, filters)))
    else:
        found = ops.reshape(found, (-1, geometry.taps, groups, inner))
        found = ops.reshape(ops.transpose(found, (2, 0, 1, 3)), (groups, -1, geometry.taps * inner))
        kernel = ops.reshape(kernel, (-1, groups, filters // groups))
        y = ops.transpose(ops.matmul(found, ops.transpose(kernel, (1, 0, 2))), (1, 0, 2))
        y = ops.reshape(y, (-1, filters))
    if bias is not None:
        y = _plus(y, bias)
    return ops.reshape(y, (-1, rows, columns, filters))


def _plus(y: Any, bias: Any) -> Any:
    """TensorFlow adds this kind of bias within the product before it."""
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.nn.bias_add(y, bias)
    return ops.add(y, bias)


def _marked(
    x: Any,
    offsets: Any,
    kernel: Any,
    mask: Any,
    bias: Any,
    geometry: _Geometry,
    pads: tuple[tuple[int, int], tuple[int, int]],
    groups: int,
) -> Any:
    """An operator that stands for ONNX's; its inputs are those of DeformConv, channels last."""
    import tensorflow as tf

    filters = kernel.shape[-1]
    about = {
        "kernel_shape": geometry.kernel,
        "strides": geometry.strides,
        "dilations": geometry.dilation,
        "pads": [pads[0][0], pads[1][0], pads[0][1], pads[1][1]],
        "offset_group": geometry.parts,
        "group": groups,
    }
    # Runtimes compare positions with the borders, which no comparison with NaN would catch.
    offsets = tf.where(tf.math.is_nan(offsets), tf.constant(FAR), offsets)
    bias = tf.zeros(filters) if bias is None else bias
    arrays = [tf.cast(a, tf.float32) for a in (x, kernel, offsets, bias, *(() if mask is None else (mask,)))]
    (y,) = tf.raw_ops.PyFunc(input=arrays, token=MARK + json.dumps(about), Tout=[tf.float32])
    # Unlike a shape that is only set, this one survives in the file.
    y = tf.ensure_shape(y, (x.shape[0], offsets.shape[1], offsets.shape[2], filters))
    return tf.cast(y, x.dtype)
