"""VGG and its gradient with respect to the picture, written in operators that every export format has.

What automatic differentiation leaves in a graph (`ReluGrad`, `AvgPoolGrad`, `MirrorPadGrad`, `Conv2DBackpropInput`)
either has no built-in counterpart in LiteRT and ONNX or a slow one. The gradient of VGG is short enough to write out:

| layer | its gradient |
|---|---|
| 3x3 convolution, stride 1 | a convolution with the kernel turned by 180 degrees, channels exchanged |
| reflection padding | the margin added back to where it was read |
| ReLU | the gradient where the output is positive |
| average pooling | each value spread evenly over its block |
| max pooling | each value to where the block has its maximum, evenly if that is at several places |

Only in the last case, ties, does it differ from TensorFlow's, which picks one of the places.
"""

import abc
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf
from keras import layers

from kerasmodels.errors import UsageError
from kerasmodels.layers import Resize2D

Maps = list[tf.Tensor]


class PortableVGG:
    """The same network as a model of `VGG16` or `VGG19`, reading its variables.

    Args:
        model: what `VGG16` or `VGG19` made, in float32.

    Raises:
        UsageError: a model with a layer that is none of VGG's.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> vgg = km.backbones.VGG16(["relu1_2"], weights=None, pooling="avg")
        >>> portable, pictures = km.backbones.PortableVGG(vgg), np.full((1, 32, 24, 3), 128, "float32")
        >>> maps = portable.forward(pictures)
        >>> bool(np.allclose(portable.taps(maps)["relu1_2"], vgg(pictures)["relu1_2"], atol=1e-4))
        True
        >>> tuple(portable.backward(maps, portable.taps(maps)).shape)
        (1, 32, 24, 3)
    """

    def __init__(self, model: keras.Model):
        steps: list[_Step] = []
        for layer in model.operations:
            # The padding that a set of weights wants is a nameless operation before each convolution.
            if isinstance(layer, layers.InputLayer) or type(layer).__name__ == "Pad":
                continue
            if isinstance(layer, layers.Rescaling):
                steps.append(_Scale(layer))
            elif type(layer).__name__ == "Flip":
                steps.append(_Flip(layer))
            elif isinstance(layer, layers.Conv2D):
                steps.append(_Convolution(layer))
            elif isinstance(layer, layers.ReLU):
                steps.append(_ReLU(layer))
            elif isinstance(layer, layers.AveragePooling2D):
                steps.append(_AveragePool(layer))
            elif isinstance(layer, layers.MaxPooling2D):
                steps.append(_MaxPool(layer))
            else:
                raise UsageError(f"expected a network of backbones.vgg. Received: one with the layer {layer.name!r}.")
        self._steps = steps
        self._taps = tuple(model.output)

    def prepare(self) -> None:
        """Turn the kernels for `backward`, which else does it at every call: for use before a loop, in its graph."""
        for step in self._steps:
            step.prepare()

    def forward(self, pictures: Any) -> Maps:
        """RGB 0-255 (N, H, W, 3) float32 -> the picture and the output of every layer, for `taps` and `backward`."""
        maps = [tf.convert_to_tensor(pictures)]
        for step in self._steps:
            maps.append(step.forward(maps[-1]))
        return maps

    def taps(self, maps: Maps) -> dict[str, tf.Tensor]:
        """Tap name -> features (N, h, w, channels)."""
        return {step.name: value for step, value in zip(self._steps, maps[1:], strict=True) if step.name in self._taps}

    def backward(self, maps: Maps, gradients: Mapping[str, tf.Tensor]) -> tf.Tensor:
        """The gradient of a loss with respect to the pictures, (N, H, W, 3).

        Args:
            maps: what `forward` returned.
            gradients: that of the loss with respect to the features, by tap; a tap left out has none.
        """
        found = None
        for step, before, after in zip(self._steps[::-1], maps[-2::-1], maps[:0:-1], strict=True):
            if step.name in gradients:
                found = gradients[step.name] if found is None else found + gradients[step.name]
            if found is not None:
                found = step.backward(found, before, after)
        if found is None:
            raise UsageError(f"expected gradients of some of the taps {self._taps}. Received: {list(gradients)}.")
        return found


class _Step(abc.ABC):
    """A layer with its gradient: (gradient of the output, input, output) -> gradient of the input."""

    def __init__(self, layer: Any):
        self.layer, self.name = layer, layer.name

    def prepare(self) -> None:  # noqa: B027
        """Before the loop, once; most layers have nothing to do."""

    def forward(self, x: tf.Tensor) -> tf.Tensor:
        return self.layer(x)

    @abc.abstractmethod
    def backward(self, g: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor: ...


class _Scale(_Step):
    def backward(self, g: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return g * tf.constant(self.layer.scale, tf.float32)


class _Flip(_Step):
    """RGB to BGR. By gather: REVERSE_V2 has no ONNX counterpart."""

    def forward(self, x: tf.Tensor) -> tf.Tensor:
        return tf.gather(x, [2, 1, 0], axis=3)

    def backward(self, g: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return self.forward(g)


class _Convolution(_Step):
    def __init__(self, layer: Any):
        super().__init__(layer)
        self._turned: tf.Tensor | None = None

    def _turn(self) -> tf.Tensor:
        kernel = self.layer.kernel.value
        order = [2, 1, 0]
        return tf.transpose(tf.gather(tf.gather(kernel, order, axis=0), order, axis=1), (0, 1, 3, 2))

    def prepare(self) -> None:
        self._turned = self._turn()

    def forward(self, x: tf.Tensor) -> tf.Tensor:
        if self.layer.padding == "valid":
            x = _reflected(_reflected(x, 1), 2)
        y = tf.nn.conv2d(x, self.layer.kernel.value, 1, self.layer.padding.upper())
        return tf.nn.bias_add(y, self.layer.bias.value)

    def backward(self, g: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        kernel = self._turn() if self._turned is None else self._turned
        if self.layer.padding == "same":
            return tf.nn.conv2d(g, kernel, 1, "SAME")
        g = tf.nn.conv2d(tf.pad(g, ((0, 0), (1, 1), (1, 1), (0, 0))), kernel, 1, "SAME")
        return _folded(_folded(g, 1), 2)


class _ReLU(_Step):
    def forward(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.relu(x)

    def backward(self, g: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return g * tf.cast(y > 0, g.dtype)


class _Pool(_Step):
    """2x2. An odd size loses its last row ("valid"), or has it for a block of its own ("same")."""

    def __init__(self, layer: Any):
        super().__init__(layer)
        self.ceil = layer.padding == "same"
        self._double = Resize2D(2)

    def spread(self, g: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        """Every value of (N, h, w, C) over its block in the size of `x`."""
        wide = self._double(g)
        if all(size is not None and size % 2 == 0 for size in x.shape[1:3]):
            return wide
        full, have = tf.shape(x), tf.shape(wide)
        if self.ceil:
            wide = tf.slice(wide, (0, 0, 0, 0), full)
        else:
            wide = tf.pad(wide, [(0, 0), (0, full[1] - have[1]), (0, full[2] - have[2]), (0, 0)])
        wide.set_shape(x.shape)
        return wide


class _AveragePool(_Pool):
    def _share(self, x: tf.Tensor) -> tf.Tensor | float:
        """What part of each value's block lies inside the picture."""
        if not self.ceil or all(size is not None and size % 2 == 0 for size in x.shape[1:3]):
            return 1.0
        ones = tf.ones_like(tf.slice(x, (0, 0, 0, 0), (1, -1, -1, 1)))
        return tf.nn.avg_pool2d(_even(ones), 2, 2, "VALID")

    def forward(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.avg_pool2d(_even(x) if self.ceil else x, 2, 2, "VALID") / self._share(x)

    def backward(self, g: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        return self.spread(g / (4.0 * self._share(x)), x)


class _MaxPool(_Pool):
    def forward(self, x: tf.Tensor) -> tf.Tensor:
        return tf.nn.max_pool2d(x, 2, 2, "SAME" if self.ceil else "VALID")

    def backward(self, g: tf.Tensor, x: tf.Tensor, y: tf.Tensor) -> tf.Tensor:
        best = tf.cast(tf.equal(x, self.spread(y, x)), x.dtype)
        ties = 4.0 * tf.nn.avg_pool2d(_even(best) if self.ceil else best, 2, 2, "VALID")
        return best * self.spread(g / ties, x)


def _even(x: tf.Tensor) -> tf.Tensor:
    """Zeros after the last row and column of an odd size."""
    if all(size is not None and size % 2 == 0 for size in x.shape[1:3]):
        return x
    size = tf.shape(x)
    padded = tf.pad(x, [(0, 0), (0, size[1] % 2), (0, size[2] % 2), (0, 0)])
    padded.set_shape([x.shape[0], *(None if s is None else s + s % 2 for s in x.shape[1:3]), x.shape[3]])
    return padded


def _part(x: tf.Tensor, axis: int, start: Any, count: Any) -> tf.Tensor:
    begin, size = [0, 0, 0, 0], [-1, -1, -1, -1]
    begin[axis], size[axis] = start, count
    return tf.slice(x, begin, size)


def _reflected(x: tf.Tensor, axis: int) -> tf.Tensor:
    """One more row (or column) at both ends: the second and the last but one."""
    size = x.shape[axis] if x.shape[axis] is not None else tf.shape(x)[axis]
    return tf.concat([_part(x, axis, 1, 1), x, _part(x, axis, size - 2, 1)], axis)


def _folded(g: tf.Tensor, axis: int) -> tf.Tensor:
    """The gradient of `_reflected`: the first and the last row are added to those they were copied from."""
    size = (g.shape[axis] if g.shape[axis] is not None else tf.shape(g)[axis]) - 2
    first, last = [(0, 0)] * 4, [(0, 0)] * 4
    first[axis], last[axis] = (1, size - 2), (size - 2, 1)
    return _part(g, axis, 1, size) + tf.pad(_part(g, axis, 0, 1), first) + tf.pad(_part(g, axis, size + 1, 1), last)
