"""Padding that Keras does not have."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import ops

Padding = tuple[tuple[int, int], ...]
"""(before, after) for each positional axis, positions."""


class _ReflectionPadding(keras.layers.Layer):
    """`padding`, an int or a pair for each of `axes` positional axes, added by mirroring."""

    axes: int

    def __init__(self, padding: Any = 1, **kwargs: Any):
        super().__init__(**kwargs)
        pairs = ((padding, padding),) * self.axes if isinstance(padding, int) else padding
        try:
            pairs = tuple((before, after) for before, after in pairs)
            valid = len(pairs) == self.axes and all(isinstance(p, int) and p >= 0 for pair in pairs for p in pair)
        except (TypeError, ValueError):
            valid = False
        if not valid:
            form = {1: "(before, after)", 2: "((top, bottom), (left, right))"}.get(self.axes, "three (before, after)")
            raise ValueError(f"padding must be an int >= 0 or {form} of such ints. Received: padding={padding!r}")
        self.padding = pairs

    def call(self, inputs: Any) -> Any:
        sizes = inputs.shape[1:-1]
        once = all(s is not None and max(p) < s for s, p in zip(sizes, self.padding, strict=True))
        if once and keras.backend.backend() == "tensorflow":
            return _with_pad_gradient(inputs, self.padding)
        return _padded(inputs, self.padding)

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, *sizes, c = input_shape
        return (n, *(None if s is None else s + sum(p) for s, p in zip(sizes, self.padding, strict=True)), c)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "padding": self.padding}


@keras.saving.register_keras_serializable("kerasmodels")
class ReflectionPadding1D(_ReflectionPadding):
    """Pad signals by mirroring them about their first and last value (which are not repeated).

    All else as `ReflectionPadding2D`.

    Args:
        padding: positions added at both ends, or (before, after).

    Shapes:
        (N, L, C) -> (N, before + L + after, C); L may be unknown.

    Raises:
        ValueError: padding is negative or not of one of the two forms.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> np.ravel(km.layers.ReflectionPadding1D((0, 3))(np.array([[[1.0], [2.0], [3.0]]]))).astype(int).tolist()
        [1, 2, 3, 2, 1, 2]
    """

    axes = 1

    def __init__(self, padding: int | tuple[int, int] | Padding = 1, **kwargs: Any):
        pair = isinstance(padding, (tuple, list)) and len(padding) == 2
        super().__init__((padding,) if pair else padding, **kwargs)


@keras.saving.register_keras_serializable("kerasmodels")
class ReflectionPadding2D(_ReflectionPadding):
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

    axes = 2


@keras.saving.register_keras_serializable("kerasmodels")
class ReflectionPadding3D(_ReflectionPadding):
    """Pad volumes by mirroring them about their outermost planes (which are not repeated).

    All else as `ReflectionPadding2D`.

    Args:
        padding: positions added on every side, or (before, after) for each of the three axes.

    Shapes:
        (N, D, H, W, C) -> (N, D', H', W', C); sizes may be unknown.

    Raises:
        ValueError: padding is negative or not of one of the two forms.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> tuple(km.layers.ReflectionPadding3D(2)(np.ones((1, 4, 5, 6, 1))).shape)
        (1, 8, 9, 10, 1)
    """

    axes = 3


def _padded(x: Any, padding: Padding) -> Any:
    for axis, (before, after) in enumerate(padding, 1):
        if before or after:
            x = _take(x, _reflected(x, axis, before, after), axis)
    return x


def _with_pad_gradient(inputs: Any, padding: Padding) -> Any:
    """`_padded`, with the gradient TensorFlow has for `tf.pad`: that of a gather is a slow scatter."""
    import tensorflow as tf

    @tf.custom_gradient
    def padded(x: Any) -> Any:
        def gradient(dy: Any) -> Any:
            def folded() -> Any:
                return tf.raw_ops.MirrorPadGrad(input=dy, paddings=((0, 0), *padding, (0, 0)), mode="REFLECT")

            # It refuses a batch of none.
            if x.shape[0]:
                return folded()
            return tf.cond(tf.shape(x)[0] > 0, folded, lambda: tf.zeros_like(x))

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


def reflect_to_multiple(x: Any, multiple: int, more: int = 0) -> Any:
    """Mirror rows and columns after the last so that height and width become multiples of `multiple`, plus `more`.

    (N, H, W, C), sizes known or not, at least `more` -> (N, H', W', C). Returns `x` itself if its known size already
    is such.
    """
    if all(size is not None and size >= more and (size - more) % multiple == 0 for size in x.shape[1:3]):
        return x
    for axis in (1, 2):
        size = x.shape[axis]
        size = ops.shape(x)[axis] if size is None else size
        # Not -size % multiple: runtimes disagree on the sign of a negative number's remainder.
        after = (multiple - (size - more) % multiple) % multiple
        x = _take(x, _reflected(x, axis, 0, after), axis)
    return x


def on_multiples(x: Any, multiple: int, function: Callable[[Any], Any], more: int = 0) -> Any:
    """`function`, which needs heights and widths that are multiples of `multiple`, for any height and width.

    Args:
        x: (N, H, W, C), sizes known or not.
        multiple, more: see `reflect_to_multiple`, which makes the function's input.
        function: (N, H', W', C) -> (N, H', W', K).

    Returns:
        (N, H, W, K).
    """
    padded = reflect_to_multiple(x, multiple, more)
    y = function(padded)
    _, height, width, _ = ops.shape(x)
    return y if padded is x else y[:, :height, :width, :]
