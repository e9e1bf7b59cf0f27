"""Padding that Keras does not have."""

from typing import Any

import keras
import numpy as np
from keras import ops

Padding = tuple[tuple[int, int], tuple[int, int]]
"""((top, bottom), (left, right)), pixels."""


@keras.saving.register_keras_serializable("kerasmodels")
class ReflectionPadding2D(keras.layers.Layer):
    """Pad height and width by mirroring the picture about its border pixels (which are not repeated).

    Written as two gathers of rows and columns: exactly `ops.pad(mode="reflect")`, but LiteRT's MIRROR_PAD kernel, which
    that becomes, is several times slower. Unlike `ops.pad`, a padding larger than the picture is allowed: the
    reflection goes on back and forth, as in `numpy.pad`.

    Args:
        padding: pixels added on every side, or ((top, bottom), (left, right)).

    Shapes:
        (N, H, W, C) -> (N, H + top + bottom, W + left + right, C); H and W may be unknown.

    Raises:
        ValueError: padding is negative or not of one of the two forms.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> row = np.array([1.0, 2.0, 3.0]).reshape(1, 1, 3, 1)
        >>> np.ravel(km.layers.ReflectionPadding2D(((0, 0), (2, 2)))(row)).astype(int).tolist()
        [3, 2, 1, 2, 3, 2, 1]
    """

    def __init__(self, padding: int | Padding = 1, **kwargs: Any):
        super().__init__(**kwargs)
        if isinstance(padding, int):
            padding = ((padding, padding), (padding, padding))
        try:
            (top, bottom), (left, right) = padding
            valid = all(isinstance(p, int) and p >= 0 for p in (top, bottom, left, right))
        except (TypeError, ValueError):
            valid = False
        if not valid:
            raise ValueError(
                "padding must be an int >= 0 or ((top, bottom), (left, right)) of such ints. "
                f"Received: padding={padding!r}"
            )
        self.padding = ((top, bottom), (left, right))

    def call(self, inputs: Any) -> Any:
        sizes = inputs.shape[1:3]
        once = all(s is not None and max(p) < s for s, p in zip(sizes, self.padding, strict=True))
        if once and keras.backend.backend() == "tensorflow":
            return _with_pad_gradient(inputs, self.padding)
        return _padded(inputs, self.padding)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, h, w, c = input_shape
        (top, bottom), (left, right) = self.padding
        return (n, None if h is None else h + top + bottom, None if w is None else w + left + right, c)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}


def _padded(x: Any, padding: Padding) -> Any:
    for axis, (before, after) in zip((1, 2), padding, strict=True):
        if before or after:
            x = _take(x, _reflected(x, axis, before, after), axis)
    return x


def _with_pad_gradient(inputs: Any, padding: Padding) -> Any:
    """`_padded`, with the gradient TensorFlow has for `tf.pad`: that of a gather is a slow scatter."""
    import tensorflow as tf

    @tf.custom_gradient
    def padded(x: Any) -> Any:
        def gradient(dy: Any) -> Any:
            return tf.raw_ops.MirrorPadGrad(input=dy, paddings=((0, 0), *padding, (0, 0)), mode="REFLECT")

        return _padded(x, padding), gradient

    return padded(inputs)


def _reflected(x: Any, axis: int, before: int, after: Any) -> Any:
    """The index along `axis` that each padded position shows."""
    size = x.shape[axis]
    if size is not None:
        period = max(2 * (size - 1), 1)
        at = np.abs(np.arange(-before, size + after)) % period
        return np.minimum(at, period - at if size > 1 else 0).astype("int32")
    size = ops.shape(x)[axis]
    period = ops.maximum(2 * (size - 1), 1)
    at = ops.mod(ops.abs(ops.arange(-before, size + after, dtype="int32")), period)
    return ops.minimum(ops.minimum(at, period - at), size - 1)


def _take(x: Any, indices: Any, axis: int) -> Any:
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        # ops.take would add four operators that treat negative indices, of which there are none.
        return tf.gather(x, indices, axis=axis)
    return ops.take(x, ops.convert_to_tensor(indices), axis=axis)


def reflect_to_multiple(x: Any, multiple: int) -> Any:
    """Mirror rows and columns after the last so that height and width become multiples of `multiple`.

    (N, H, W, C), sizes known or not -> (N, H', W', C). Returns `x` itself if its known size already is.
    """
    if all(size is not None and size % multiple == 0 for size in x.shape[1:3]):
        return x
    for axis in (1, 2):
        size = x.shape[axis]
        size = ops.shape(x)[axis] if size is None else size
        # Not -size % multiple: runtimes disagree on the sign of a negative number's remainder.
        after = (multiple - size % multiple) % multiple
        x = _take(x, _reflected(x, axis, 0, after), axis)
    return x
