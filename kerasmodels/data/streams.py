"""Endless streams of batches that can begin anywhere, as `fit` reads them."""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import tensorflow as tf


def numbered(batch: "Callable[[tf.Tensor], Any]", start: int = 0) -> "tf.data.Dataset":
    """The batches of the numbers `start`, `start + 1` and so on, in this order, made while `fit` computes.

    Args:
        batch: a batch's number, int64 -> the batch. TensorFlow only; what is random in it is drawn by
            `tf.random.stateless_...` with a seed made of the number, so that a stream may begin anywhere.
        start: number of the first batch.
    """
    import tensorflow as tf

    return tf.data.Dataset.range(start, 2**50).map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)
