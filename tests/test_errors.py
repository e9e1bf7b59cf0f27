"""What is left of an error inside TensorFlow's graphs: its cause, the file, and advice."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.errors import DataError, KerasModelsError, graph_error


def _fit(read: Callable[[Any], Any]) -> Callable[[], Any]:
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.compile("sgd", "mse")
    rows = tf.data.Dataset.range(9).map(lambda i: tf.ensure_shape(tf.numpy_function(read, [i], tf.float32), (1, 4)))
    return lambda: model.fit(rows.map(lambda x: (x, tf.zeros((1, 2)))), shuffle=False, verbose=0)


def _damaged(number: Any) -> None:
    raise DataError("p/1.png is damaged.\nGet it again.")


def _fault(number: Any) -> None:
    raise ZeroDivisionError("no such thing")


@tf.function(input_signature=[tf.TensorSpec([None, None])] * 2)
def _product(a: Any, b: Any) -> Any:
    return a @ b


@tf.function(autograph=False)
def _large(side: Any) -> Any:
    return tf.reduce_sum(tf.random.normal((side, side)))


@tf.function(autograph=False)
def _checked(count: Any) -> Any:
    with tf.control_dependencies([tf.debugging.assert_positive(count, "expected some. Received: none.")]):
        return tf.identity(count)


@pytest.mark.parametrize(
    ("call", "kind", "words"),
    [
        (_fit(_damaged), DataError, r"^p/1\.png is damaged\.\nGet it again\.$"),
        (
            _fit(_fault),
            KerasModelsError,
            r"^TensorFlow failed \(in PyFunc\): ZeroDivisionError: no such thing\. .*--debug",
        ),
        (
            lambda: _product(tf.ones((2, 3)), tf.ones((2, 3))),
            KerasModelsError,
            r"\(in .*\): Matrix size-incompatible",
        ),
        (
            lambda: _large(tf.constant(10_000_000)),
            KerasModelsError,
            r"^out of memory\. Use .*smaller batch.* What failed: OOM .*\[10000000,10000000\]",
        ),
        (lambda: _checked(tf.constant(0)), KerasModelsError, r"^expected some\. Received: none\.$"),
        (
            lambda: np.zeros((10**9, 10**9)),
            KerasModelsError,
            r"^out of memory\. Use .*smaller batch.* What failed: Unable to allocate",
        ),
    ],
)
def test_causes(call: Callable[[], Any], kind: type, words: str) -> None:
    with pytest.raises(Exception) as caught:  # noqa: PT011
        call()
    found = graph_error(caught.value)
    assert type(found) is kind
    with pytest.raises(kind, match=f"(?s){words}"):
        raise found


def test_other_errors_are_not_explained_away() -> None:
    assert graph_error(ValueError("x")) is None
