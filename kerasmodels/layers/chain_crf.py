"""A conditional random field over a chain: the likeliest tags of a sequence, and how likely given ones are."""

from typing import Any

import keras
from keras import ops

from kerasmodels.layers.gated_unit import Steps


@keras.saving.register_keras_serializable("kerasmodels")
class ChainCRF(keras.layers.Layer):
    """Linear-chain CRF: each tag has a potential at each place, and each pair of neighboring tags a learned one.

    log p(tags | x) = sum_t x_t[tag_t] + sum_t A[tag_t-1, tag_t] - log Z. Called, it gives the likeliest tags
    (Viterbi); train with `-log_likelihood`. Equal to `tensorflow_addons.text.crf_log_likelihood` and `crf_decode`.

    Args:
        tags: how many there are.

    Shapes:
        potentials (N, T, tags), lengths (N,) int or None for T -> tags (N, T) int32, 0 behind a sequence's length.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> crf, potentials = km.layers.ChainCRF(3), np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
        >>> tags = crf(potentials, np.array([5, 2]))
        >>> tuple(tags.shape), bool((crf.log_likelihood(potentials, tags, np.array([5, 2])) < 0).numpy().all())
        ((2, 5), True)

    Reference:
        Lafferty, McCallum, Pereira: Conditional Random Fields, ICML 2001.
    """

    def __init__(self, tags: int, **kwargs: Any):
        super().__init__(**{"dtype": "float32", **kwargs})
        self.tags = tags
        self.transitions = self.add_weight(name="transitions", shape=(tags, tags), initializer="glorot_uniform")
        self._sums = self._over_time(self._sum)
        self._maxima = self._over_time(self._max)
        self._back = keras.layers.RNN(Steps(self._follow, [1], 1), return_sequences=True, go_backwards=True)
        self.built = True

    def call(self, potentials: Any, lengths: Any = None) -> Any:
        return self.viterbi(potentials, lengths)[0]

    def viterbi(self, potentials: Any, lengths: Any = None) -> tuple[Any, Any]:
        """The likeliest tags (N, T) int32, 0 behind the length, and their score (N,), which is no probability."""
        potentials, counts = self._prepared(potentials, lengths)
        pointers, scores, _ = self._maxima(self._marked(potentials, counts), initial_state=self._begun(potentials))
        _, last = ops.top_k(scores, 1)
        last = ops.cast(last, "float32")
        before = self._back(pointers, initial_state=[last])
        # From the last tag to the first; the pointers of the first place lead to itself.
        found = ops.flip(ops.concatenate([ops.expand_dims(last, 1), before[:, :-1]], axis=1), 1)
        return ops.cast(ops.round(ops.squeeze(found, -1) * counts), "int32"), ops.max(scores, axis=1)

    def log_likelihood(self, potentials: Any, tags: Any, lengths: Any = None) -> Any:
        """log p(tags | potentials), (N,); (N, T) tags behind the length do not count."""
        potentials, counts = self._prepared(potentials, lengths)
        chosen = ops.one_hot(ops.cast(tags, "int32"), self.tags, dtype="float32")
        score = ops.sum(chosen * potentials * ops.expand_dims(counts, -1), axis=(1, 2))
        steps = ops.matmul(chosen[:, :-1], self.transitions) * chosen[:, 1:] * ops.expand_dims(counts[:, 1:], -1)
        return score + ops.sum(steps, axis=(1, 2)) - self.log_partition(potentials, lengths)

    def log_partition(self, potentials: Any, lengths: Any = None) -> Any:
        """log Z, (N,): the logarithm of the sum over all sequences of tags."""
        potentials, counts = self._prepared(potentials, lengths)
        _, sums, _ = self._sums(self._marked(potentials, counts), initial_state=self._begun(potentials))
        return ops.logsumexp(sums, axis=1)

    def _over_time(self, step: Any) -> keras.layers.RNN:
        cell = Steps(step, [self.tags, self.tags], self.tags)
        return keras.layers.RNN(cell, return_sequences=True, return_state=True)

    def _prepared(self, potentials: Any, lengths: Any) -> tuple[Any, Any]:
        """Both as float32; which places count, (N, T)."""
        potentials = ops.cast(potentials, "float32")
        places = ops.cast(ops.arange(ops.shape(potentials)[1]), "int32")
        if lengths is None:
            return potentials, ops.ones_like(potentials[:, :, 0])
        return potentials, ops.cast(places < ops.expand_dims(ops.cast(lengths, "int32"), 1), "float32")

    def _marked(self, potentials: Any, counts: Any) -> Any:
        """The potentials, and behind them 1 where a step is taken: not at the first place, which the state holds."""
        taken = ops.concatenate([ops.zeros_like(counts[:, :1]), counts[:, 1:]], axis=1)
        return ops.concatenate([potentials, ops.expand_dims(taken, -1)], axis=-1)

    def _begun(self, potentials: Any) -> list[Any]:
        """The scores of the first place, and a tag's own number."""
        own = ops.cast(ops.arange(self.tags), "float32")
        return [potentials[:, 0], ops.zeros_like(potentials[:, 0]) + own]

    def _sum(self, marked: Any, states: Any) -> tuple[Any, list[Any]]:
        (before, own), taken = states, marked[:, self.tags :]
        paths = ops.expand_dims(before, -1) + self.transitions
        after = taken * (ops.logsumexp(paths, axis=1) + marked[:, : self.tags]) + (1 - taken) * before
        return after, [after, own]

    def _max(self, marked: Any, states: Any) -> tuple[Any, list[Any]]:
        """The output is each tag's best predecessor."""
        (before, own), taken = states, marked[:, self.tags :]
        paths = ops.expand_dims(before, 1) + ops.transpose(self.transitions)
        values, pointers = ops.top_k(paths, 1)
        after = taken * (ops.squeeze(values, -1) + marked[:, : self.tags]) + (1 - taken) * before
        pointers = taken * ops.cast(ops.squeeze(pointers, -1), "float32") + (1 - taken) * own
        return pointers, [after, own]

    def _follow(self, pointers: Any, states: Any) -> tuple[Any, list[Any]]:
        here = ops.one_hot(ops.cast(ops.squeeze(states[0], -1), "int32"), self.tags, dtype="float32")
        before = ops.sum(here * pointers, axis=1, keepdims=True)
        return before, [before]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "tags": self.tags}
