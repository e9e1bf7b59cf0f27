"""Attention of a decoder to the states of an encoder: additive (Bahdanau) and multiplicative (Luong)."""

import abc
from typing import Any

import keras
from keras import ops

_FAR = -1e9
"""Score of what may not be looked at."""


class _Attention(keras.layers.Layer, abc.ABC):
    """Weights that add up to 1 over the memory, and the memory's mean with them.

    Shapes:
        query (N, Q), memory (N, S, M), keys = keys(memory), counts (N, S) bool or None -> mean (N, M), weights (N, S).
    """

    @abc.abstractmethod
    def keys(self, memory: Any) -> Any:
        """What the memory adds to the scores; computed once for all queries."""

    @abc.abstractmethod
    def scores(self, query: Any, keys: Any) -> Any:
        """(N, Q), keys -> (N, S)."""

    def call(self, query: Any, memory: Any, keys: Any = None, counts: Any = None) -> tuple[Any, Any]:
        query, memory = (ops.cast(x, self.compute_dtype) for x in (query, memory))
        scores = ops.cast(self.scores(query, self.keys(memory) if keys is None else keys), "float32")
        if counts is not None:
            scores = scores + _FAR * (1.0 - ops.cast(counts, "float32"))
        weights = ops.cast(ops.softmax(scores, axis=-1), self.compute_dtype)
        return ops.squeeze(ops.matmul(ops.expand_dims(weights, 1), memory), 1), weights


@keras.saving.register_keras_serializable("kerasmodels")
class BahdanauAttention(_Attention):
    """Additive attention: the score of a query and a state is v tanh(W query + U state).

    Args:
        units: length of the sum.

    Shapes:
        query (N, Q), memory (N, S, M), and optionally keys (N, S, units) = keys(memory) and counts (N, S), False where
        the memory is padding -> mean (N, M), weights (N, S).

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> mean, weights = km.layers.BahdanauAttention(8)(np.zeros((2, 5)), np.ones((2, 4, 3)))
        >>> tuple(mean.shape), tuple(weights.shape)
        ((2, 3), (2, 4))

    Reference:
        Bahdanau, Cho, Bengio: Neural Machine Translation by Jointly Learning to Align and Translate, ICLR 2015.
    """

    def __init__(self, units: int, **kwargs: Any):
        super().__init__(**kwargs)
        self.units = units

    def build(self, query_shape: Any, memory_shape: Any, *others: Any) -> None:
        self.query_kernel = self.add_weight(name="query_kernel", shape=(query_shape[-1], self.units))
        self.memory_kernel = self.add_weight(name="memory_kernel", shape=(memory_shape[-1], self.units))
        self.vector = self.add_weight(name="vector", shape=(self.units, 1))

    def keys(self, memory: Any) -> Any:
        return ops.matmul(memory, ops.cast(self.memory_kernel, self.compute_dtype))

    def scores(self, query: Any, keys: Any) -> Any:
        given = ops.expand_dims(ops.matmul(query, ops.cast(self.query_kernel, self.compute_dtype)), 1)
        return ops.squeeze(ops.matmul(ops.tanh(keys + given), ops.cast(self.vector, self.compute_dtype)), -1)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "units": self.units}


@keras.saving.register_keras_serializable("kerasmodels")
class LuongAttention(_Attention):
    """Multiplicative attention: the score of a query and a state is query W state ("general" in the paper).

    Shapes:
        query (N, Q), memory (N, S, M), and optionally keys (N, S, Q) = keys(memory) and counts (N, S), False where the
        memory is padding -> mean (N, M), weights (N, S).

    Reference:
        Luong, Pham, Manning: Effective Approaches to Attention-based Neural Machine Translation, EMNLP 2015.
    """

    def build(self, query_shape: Any, memory_shape: Any, *others: Any) -> None:
        self.memory_kernel = self.add_weight(name="memory_kernel", shape=(memory_shape[-1], query_shape[-1]))

    def keys(self, memory: Any) -> Any:
        return ops.matmul(memory, ops.cast(self.memory_kernel, self.compute_dtype))

    def scores(self, query: Any, keys: Any) -> Any:
        return ops.squeeze(ops.matmul(keys, ops.expand_dims(query, -1)), -1)
