"""Adam for embeddings: a step costs what the rows of its batch cost."""

from typing import Any

import keras
import tensorflow as tf
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class LazyAdam(keras.optimizers.Adam):
    """Adam that leaves alone the rows of an embedding, and their moments, that a batch did not look up.

    Keras' Adam moves every row in every step. This one updates the rows that the gradient (a `tf.IndexedSlices`) names,
    each once with the sum of its gradients; dense gradients are Adam's. It is tensorflow-addons' optimizer of this
    name, and another algorithm than Adam: moments of rare rows do not fade between their updates.

    Args:
        learning_rate, beta_1, beta_2, epsilon, **kwargs: as `keras.optimizers.Adam`, but for `amsgrad`.

    Raises:
        ValueError: `amsgrad` is asked for.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> layer = keras.layers.Embedding(1000, 4)
        >>> model = keras.Sequential([keras.Input((3,)), layer, keras.layers.Flatten(), keras.layers.Dense(1)])
        >>> model.compile(km.optimizers.LazyAdam(0.1), "mse")
        >>> before = layer.embeddings.numpy()
        >>> model.train_on_batch(np.array([[1, 1, 7]]), np.ones((1, 1))) > 0
        True
        >>> np.flatnonzero((layer.embeddings.numpy() != before).any(axis=1)).tolist()
        [1, 7]
    """

    def __init__(self, learning_rate: Any = 0.001, **kwargs: Any):
        if kwargs.pop("amsgrad", False):
            raise ValueError("expected amsgrad=False. Received: amsgrad=True. Use keras.optimizers.Adam for it.")
        super().__init__(learning_rate, **kwargs)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        if not isinstance(gradient, tf.IndexedSlices):
            return super().update_step(gradient, variable, learning_rate)
        rows, place = tf.unique(gradient.indices)
        values = tf.math.unsorted_segment_sum(tf.cast(gradient.values, variable.dtype), place, tf.size(rows))
        step = ops.cast(self.iterations + 1, variable.dtype)
        beta_1, beta_2 = (ops.cast(beta, variable.dtype) for beta in (self.beta_1, self.beta_2))
        rate = ops.cast(learning_rate, variable.dtype)
        rate = rate * ops.sqrt(1 - ops.power(beta_2, step)) / (1 - ops.power(beta_1, step))
        index = self._get_variable_index(variable)
        moments = []
        for moment, beta, new in (
            (self._momentums[index], beta_1, values),
            (self._velocities[index], beta_2, values * values),
        ):
            kept = beta * tf.gather(moment.value, rows) + (1 - beta) * new
            moment.value.scatter_update(tf.IndexedSlices(kept, rows))
            moments.append(kept)
        change = rate * moments[0] / (ops.sqrt(moments[1]) + self.epsilon)
        # Keras hands over TensorFlow's own variable.
        raw = variable.value if isinstance(variable, keras.Variable) else variable
        raw.scatter_sub(tf.IndexedSlices(change, rows))
        return None

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        config.pop("amsgrad")
        return config
