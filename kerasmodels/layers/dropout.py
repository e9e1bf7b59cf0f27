"""Dropout that checkpoints know by its name."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("kerasmodels")
class NamedDropout(keras.layers.Layer):
    """`Dropout` whose random state has the layer's name; Keras numbers those of all networks of a process.

    Args:
        rate: part of the values that become 0 in training, 0-1; the others grow by 1 / (1 - rate).

    Shapes:
        Any -> the same.

    Example:
        >>> import keras
        >>> bool((NamedDropout(0.5)(keras.ops.ones((1, 8)), training=True) == 2).numpy().any())
        True
    """

    def __init__(self, rate: float, **kwargs: Any):
        super().__init__(**kwargs)
        self.rate = rate
        self.random = keras.random.SeedGenerator(name=f"{self.name}_random")

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return keras.random.dropout(inputs, self.rate, seed=self.random) if training and self.rate else inputs

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "rate": self.rate}
