"""Beam search for any step: a cell, a decoder, a language model. It runs within a graph, and so it can be exported."""

from collections.abc import Callable
from typing import Any, NamedTuple

import keras
from keras import ops

_FAR = -1e9
"""Log-probability of what cannot happen; finite, so that it can be added up."""


class Hypotheses(NamedTuple):
    """What a beam search found, the best first.

    Attributes:
        ids: (N, best, length) int32, filled up with the id of the end.
        scores: (N, best) float32: the log-probability of the ids and the end, over the length's penalty.
        lengths: (N, best) int32, without the end. One of full length may not have ended.
    """

    ids: Any
    scores: Any
    lengths: Any


def beam_search(
    step: Callable[[Any, Any], tuple[Any, Any]],
    state: Any,
    start: Any,
    *,
    width: int,
    length: int,
    end: int = 0,
    length_penalty: float = 0.0,
    best: int = 1,
    early_stop: bool = True,
) -> Hypotheses:
    """The likeliest sequences, searched with a beam.

    A hypothesis of n ids has the score log p / ((5 + n) / 6)^length_penalty (Wu et al. 2016, without coverage). Its end
    counts from the step after it on, as in tensorflow-addons' BeamSearchDecoder, which finds the same ids. A hypothesis
    that has ended stays in the beam as long as its score is among the best. With width=1 this is greedy search.

    Args:
        step: (previous ids (M,) int32, state) -> (logits (M, V), next state), M = N width; V is fixed. What does not
            change from step to step need not go through the state: repeat it `width` times and let `step` see it.
        state: a tensor (N, ...) or a nest of them, none of more than 3 axes where it shall be exported to LiteRT.
        start: (N,) ids that the first step is given.
        width: hypotheses in the beam.
        length: of the longest result; it is the most steps that are taken.
        end: id that ends a sequence.
        length_penalty: 0 compares log-probabilities; 1 nearly the mean of an id. From 0 on.
        best: how many results for each example, at most `width`.
        early_stop: end as soon as nothing in the beam can get among the best any more, which changes no result; else
            when all hypotheses have ended.

    Raises:
        ValueError: `width`, `length` or `best` is out of range, or the penalty negative.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> table = np.log([[0.1, 0.5, 0.4], [0.6, 0.2, 0.2], [0.9, 0.05, 0.05]]).astype("float32")
        >>> found = km.ops.beam_search(
        ...     lambda previous, state: (keras.ops.take(table, previous, axis=0), state),
        ...     np.zeros((1, 1), "float32"), np.array([0]), width=2, length=4, best=2)
        >>> found.ids.numpy().tolist(), [round(float(p), 2) for p in np.exp(found.scores[0])]
        ([[[2, 0, 0, 0], [1, 0, 0, 0]]], [0.36, 0.3])

    Reference:
        Graves: Sequence Transduction with Recurrent Neural Networks, 2012; Wu et al.: Google's Neural Machine
        Translation System, 2016, equation 14.
    """
    if not (width >= best >= 1 and length >= 1 and length_penalty >= 0):
        raise ValueError(
            "expected width >= best >= 1, length >= 1 and length_penalty >= 0. Received: "
            f"width={width}, best={best}, length={length}, length_penalty={length_penalty}."
        )
    count, places = ops.shape(start)[0], ops.arange(length, dtype="int32")

    def repeated(x: Any) -> Any:
        return ops.repeat(ops.convert_to_tensor(x), width, axis=0)

    def scored(log_p: Any, lengths: Any) -> Any:
        return log_p / ((5.0 + lengths) / 6.0) ** length_penalty if length_penalty else log_p

    def searched(at: Any, previous: Any, state: Any, beam: dict[str, Any]) -> tuple[Any, ...]:
        logits, state = step(previous, state)
        words = logits.shape[-1]
        ends = ops.cast(ops.equal(ops.arange(words, dtype="int32"), end), "float32")
        likely = ops.reshape(ops.log_softmax(ops.cast(logits, "float32")), (count, width, words))
        over = ops.expand_dims(beam["ended"], -1)
        total = ops.expand_dims(beam["log_p"], -1) + ops.where(over > 0, _FAR * (1 - ends), likely)
        longer = ops.expand_dims(beam["lengths"], -1) + (1 - over) * (1 - ends)
        scores, chosen = ops.top_k(ops.reshape(scored(total, longer), (count, width * words)), width)
        # Where all have ended, nothing is sorted any more: no example's results depend on the others of its batch.
        rest = ops.min(beam["ended"], axis=1, keepdims=True) > 0
        chosen = ops.where(rest, ops.arange(width, dtype="int32") * words + end, ops.cast(chosen, "int32"))
        scores = ops.where(rest, beam["scores"], scores)
        parent = chosen // words
        word = chosen - parent * words
        first = ops.expand_dims(ops.arange(count, dtype="int32"), 1)
        rows = ops.reshape(first * width + parent, (-1,))

        def inherited(x: Any) -> Any:
            return ops.take(x, rows, axis=0)

        def of_parents(x: Any) -> Any:
            return ops.reshape(inherited(ops.reshape(x, (count * width, *x.shape[2:]))), (count, width, *x.shape[2:]))

        before = of_parents(beam["ended"])
        beam = {
            "ids": ops.where(ops.equal(places, at), ops.expand_dims(word, -1), of_parents(beam["ids"])),
            "log_p": ops.take(ops.reshape(total, (-1,)), first * (width * words) + chosen, axis=0),
            "scores": scores,
            "lengths": of_parents(beam["lengths"]) + (1 - before),
            "ended": ops.maximum(before, ops.cast(ops.equal(word, end), "float32")),
            "rested": before,
        }
        return at + 1, ops.reshape(word, (-1,)), keras.tree.map_structure(inherited, state), beam

    def goes_on(at: Any, previous: Any, state: Any, beam: dict[str, Any]) -> Any:
        ended = beam["ended"]
        done = ops.min(ended, axis=1) > 0
        if early_stop:
            # The others cannot get beyond: log-probabilities only fall, and no penalty exceeds that of the full length.
            final = beam["rested"] if length_penalty else ended
            most = scored(beam["log_p"], ended * beam["lengths"] + (1 - ended) * length)
            hope = ops.max((1 - final) * most + final * _FAR, axis=1, keepdims=True)
            settled = ops.sum(final * ops.cast(beam["scores"] >= hope, "float32"), axis=1)
            done = ops.logical_or(done, settled >= best)
        return ops.logical_and(at < length, ops.min(ops.cast(done, "int32")) < 1)

    zeros = ops.zeros((count, width), "float32")
    beam = {
        "ids": ops.full((count, width, length), end, "int32"),
        "log_p": zeros + _FAR * ops.cast(ops.arange(width) > 0, "float32"),
        **dict.fromkeys(("scores", "lengths", "ended", "rested"), zeros),
    }
    previous = ops.cast(repeated(start), "int32")
    state = keras.tree.map_structure(repeated, state)
    *_, beam = ops.while_loop(goes_on, searched, (ops.zeros((), "int32"), previous, state, beam))
    ids = beam["ids"][:, :best]
    ended = ops.cumsum(ops.cast(ops.equal(ids, end), "int32"), axis=2)
    lengths = ops.sum(ops.cast(ops.equal(ended, 0), "int32"), axis=2)
    return Hypotheses(ids, beam["scores"][:, :best], lengths)
