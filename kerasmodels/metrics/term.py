"""The mean of a loss's term, as `fit` reports it."""

from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class TermMean(keras.metrics.Mean):
    """The mean over steps of a number, such as a term of a loss; the same to the last bit with the same seed.

    TensorFlow joins the additions of a mean's scalar with those the scalar is made of, in no certain order: reported
    losses of two runs may then differ in their last bit. Here what is added is a vector of one, which is left alone.

    Example:
        >>> import kerasmodels as km
        >>> mean = km.metrics.TermMean(name="cycle")
        >>> mean.update_state(1.0), mean.update_state(2.0), float(mean.result())
        (None, None, 1.5)
    """

    def update_state(self, values: Any, sample_weight: Any = None) -> None:
        super().update_state(ops.reshape(values, (-1,)), sample_weight)
