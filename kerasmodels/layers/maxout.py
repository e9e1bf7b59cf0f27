"""Readouts: maxout units, and a product of two matrices in place of a large one."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class Maxout(keras.layers.Layer):
    """Of each group of neighboring features the largest.

    (tensorflow-addons' layer of this name groups features that are `units` apart.)

    Args:
        units: how many groups; the number of features is a multiple.

    Shapes:
        (..., k units) -> (..., units), of rank 2 or 3.

    Raises:
        ValueError: the number of features is no multiple of `units`.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> km.layers.Maxout(2)(np.array([[1.0, 5.0, 4.0, 2.0]], "float32")).numpy().tolist()
        [[5.0, 4.0]]

    Reference:
        Goodfellow et al.: Maxout Networks, ICML 2013; Cho et al. 2014, supplement A.1.2.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape: Any) -> None:
        if input_shape[-1] % self.units:
            raise ValueError(f"expected a multiple of units={self.units} features. Received: shape {input_shape}.")

    def call(self, x: Any) -> Any:
        shape = ops.shape(x)
        return ops.max(ops.reshape(x, (*shape[:-1], self.units, x.shape[-1] // self.units)), axis=-1)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("kerasmodels")
class LowRankDense(keras.layers.Layer):
    """A dense layer whose matrix is the product of two narrow ones, without an activation between or behind.

    Args:
        units: length of the output.
        rank: columns of the first matrix, rows of the second: (D + units) rank weights in place of D units.
        use_bias: add a bias, initially 0.
        stddev: of the normal distribution that both are drawn from.

    Shapes:
        (..., D) -> (..., units).

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> layer = km.layers.LowRankDense(15001, 100)
        >>> tuple(layer(np.zeros((2, 500), "float32")).shape), layer.count_params()
        ((2, 15001), 1550100)

    Reference:
        Cho et al. 2014, section 4.1: rank-100 matrices for input and output words.
    """

    def __init__(self, units: int, rank: int, use_bias: bool = False, stddev: float = 0.01, **kwargs: Any):
        super().__init__(**kwargs)
        self.units, self.rank, self.use_bias, self.stddev = units, rank, use_bias, stddev

    def build(self, input_shape: Any) -> None:
        normal = keras.initializers.RandomNormal(0.0, self.stddev)
        self.left = self.add_weight(name="left", shape=(input_shape[-1], self.rank), initializer=normal)
        self.right = self.add_weight(name="right", shape=(self.rank, self.units), initializer=normal)
        self.bias = self.add_weight(name="bias", shape=(self.units,), initializer="zeros") if self.use_bias else None

    def call(self, x: Any) -> Any:
        x = ops.matmul(ops.matmul(x, self.left), self.right)
        return x if self.bias is None else x + self.bias

    def compute_output_shape(self, input_shape: Any) -> Any:
        return (*input_shape[:-1], self.units)

    def get_config(self) -> dict[str, Any]:
        own = {"units": self.units, "rank": self.rank, "use_bias": self.use_bias, "stddev": self.stddev}
        return {**super().get_config(), **own}
