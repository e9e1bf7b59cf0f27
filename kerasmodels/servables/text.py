"""Servables of a model that turns one sequence of ids into another."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec
from kerasmodels.ops import beam_search

_LOOP = "the values within its loop are not calibrated. Export it in fp32, or the servable step."
_HALF = "its loop would stay in single precision. Export it in fp32, or the servable step."
_TEXTS = "there are no texts in its format. Export it as SavedModel, or the servable translate, which takes ids."
_IDS = "an id is right or wrong, and not nearly right. Export it in fp32, or the servables encode and step."


def encoder_decoder(
    model: keras.Model,
    *,
    encode: Callable[[Any], tuple[Any, Sequence[Any]]],
    step: Callable[[Any, Any, Sequence[Any]], tuple[Any, Any]],
    counts: Callable[[Any], Any] | None,
    score: Callable[[Any, Any], Any],
    texts: tuple[Callable[[Any], Any], Callable[[Any], Any], Callable[[], Sequence[str]]],
    shared: Mapping[str, tuple[tuple[int | str, ...], str]],
    units: int,
    words: tuple[int, int],
    longest: int,
    width: int,
    length_penalty: float,
) -> dict[str, Servable]:
    """Five servables: `score` a pair, `translate` by beam search, with ids or with texts; its parts, `encode`, `step`.

    Args:
        model: whose variables the functions read.
        encode: source ids (N, S) -> state (N, units), and tensors that all steps share.
        step: ids (N,), state, shared -> logits (N, words) and the next state.
        counts: where `step` shall know which ids of the source count: source ids (N, S) -> (N, S), which `encode` gives
            behind the shared tensors that have a name, and `step` takes there. The servable makes it of the source.
        texts: texts (N,) -> source ids (N, S); ids (..., T) -> texts (...); words for examples.
        score: ids (N, S), ids (N, T) -> natural logarithm of the probability (N,).
        shared: name of each shared tensor -> its shape, with "batch" and "length", and what it is.
        units: length of the state.
        words: ids of the source and of the target.
        longest: ids of a result, at most.
        width, length_penalty: of the beam.
    """
    ids = "ids of the {}'s vocabulary, each row ended and filled up by 0"
    source = TensorSpec("source", ("batch", "length"), "int32", ids.format("source"))
    state = TensorSpec("state", ("batch", units), "float32", "the decoder's state")
    common = tuple(TensorSpec(name, shape, "float32", what) for name, (shape, what) in shared.items())

    def call_encode(source: tf.Tensor) -> dict[str, tf.Tensor]:
        first, found = encode(source)
        return {"state": first, **dict(zip(shared, found, strict=False))}

    def call_step(previous: tf.Tensor, state: tf.Tensor, **given: tf.Tensor) -> dict[str, tf.Tensor]:
        behind = [] if counts is None else [counts(given["source"])]
        logits, after = step(previous, state, [*(given[name] for name in shared), *behind])
        # Two names, for a client that feeds what it gets back must not mix them up.
        return {"log_probabilities": tf.nn.log_softmax(logits), "next_state": after}

    def call_translate(source: tf.Tensor) -> dict[str, tf.Tensor]:
        return search(source, encode, step, longest, width, width, length_penalty)

    def call_score(source: tf.Tensor, target: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"log_probability": score(source, target)}

    def example_step(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        read = example_source({"length": 7, **dims}, seed)
        given = {name: np.asarray(value) for name, value in call_encode(**read).items()}
        previous = np.random.default_rng(seed).integers(2, words[1], dims["batch"], "int32")
        return {"previous": previous, **given, **(read if counts is not None else {})}

    def example_texts(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        random, known = np.random.default_rng(seed), texts[2]() or ["?"]
        lines = [" ".join(random.choice(known, random.integers(3, 9))) for _ in range(dims["batch"])]
        return {"texts": np.array([line.encode() for line in lines])}

    def call_texts(given: tf.Tensor) -> dict[str, tf.Tensor]:
        encode_texts, decode, _ = texts
        found = call_translate(encode_texts(given))
        return {"translations": decode(found["ids"]), "scores": found["scores"]}

    def example_source(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        return {"source": example_ids((dims["batch"], dims["length"]), words[0], seed)}

    def example_pair(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        target = example_ids((dims["batch"], dims["length"]), words[1], seed + 1000)
        return {**example_source(dims, seed), "target": target}

    looped = {("litert", "int8"): _LOOP, ("onnx", "int8"): _LOOP, ("onnx", "fp16"): _HALF}
    reduced = ("fp16", "dynamic", "int8")
    whole = {(form, kind): _IDS for form in ("litert", "onnx") for kind in reduced}
    fixed, sizes = {"batch": 1, "length": 20}, ({"batch": 1, "length": 7}, {"batch": 3, "length": 12})
    return {
        "score": Servable(
            call=call_score,
            model=model,
            inputs=(source, TensorSpec("target", ("batch", "length"), "int32", ids.format("target"))),
            outputs=(
                TensorSpec(
                    "log_probability", ("batch",), "float32", "of the target, given the source; natural", atol=1e-3
                ),
            ),
            example=example_pair,
            dims=fixed,
            check_dims=sizes,
            doc="how likely one phrase is as the translation of another",
            without=looped,
        ),
        "translate": Servable(
            call=call_translate,
            model=model,
            inputs=(source,),
            outputs=(
                TensorSpec("ids", ("batch", width, longest), "int32", f"{ids.format('target')}, the best first"),
                TensorSpec(
                    "scores", ("batch", width), "float32", "log-probability over the length's penalty", atol=1e-3
                ),
            ),
            example=example_source,
            dims=fixed,
            check_dims=sizes,
            doc=f"translates by a whole search with a beam of {width}",
            without=whole,
        ),
        "translate_texts": Servable(
            call=lambda texts: call_texts(texts),
            model=model,
            inputs=(TensorSpec("texts", ("batch",), "string", "texts in UTF-8"),),
            outputs=(
                TensorSpec("translations", ("batch", width), "string", "texts in UTF-8, the best first"),
                TensorSpec("scores", ("batch", width), "float32", "log-probability over length penalty", atol=1e-3),
            ),
            example=example_texts,
            dims={"batch": 1},
            check_dims=({"batch": 3},),
            doc=f"translates texts by a whole search with a beam of {width}; the vocabulary is inside",
            without={(form, kind): _TEXTS for form in ("litert", "onnx") for kind in ("fp32", *reduced)},
        ),
        "encode": Servable(
            call=call_encode,
            model=model,
            inputs=(source,),
            outputs=(state, *common),
            example=example_source,
            dims=fixed,
            check_dims=sizes,
            doc="reads a source; what it gives is what `step` begins with",
            without=looped,
        ),
        "step": Servable(
            call=call_step,
            model=model,
            inputs=(
                TensorSpec("previous", ("batch",), "int32", "the ids before; 0 at first"),
                state,
                *common,
                *([source] if counts is not None else []),
            ),
            outputs=(
                TensorSpec("log_probabilities", ("batch", words[1]), "float32", "of the next id, natural"),
                TensorSpec("next_state", ("batch", units), "float32", "the decoder's next state"),
            ),
            example=example_step,
            dims=fixed if counts is not None else {"batch": 1},
            check_dims=sizes if counts is not None else ({"batch": 3},),
            doc="one step of the decoder, with its state in and out",
        ),
    }


def search(
    source: Any,
    encode: Callable[[Any], tuple[Any, Sequence[Any]]],
    step: Callable[[Any, Any, Sequence[Any]], tuple[Any, Any]],
    longest: int,
    width: int,
    best: int,
    length_penalty: float,
) -> dict[str, Any]:
    """A beam search: source ids (N, S) -> ids (N, best, longest) and scores (N, best); see `encoder_decoder`."""
    first, found = encode(source)
    repeated = [tf.repeat(each, width, axis=0) for each in found]
    hypotheses = beam_search(
        lambda previous, state: step(previous, state, repeated),
        first,
        tf.zeros_like(source[:, 0]),
        width=width,
        length=longest,
        best=best,
        length_penalty=length_penalty,
    )
    return {"ids": hypotheses.ids, "scores": hypotheses.scores}


def example_ids(shape: tuple[int, int], words: int, seed: int) -> np.ndarray:
    """Random ids, the first row without padding, the others of random lengths, ended and filled up by 0."""
    random = np.random.default_rng(seed)
    found = random.integers(2, words, shape, "int32")
    lengths = random.integers(1, shape[1], shape[0])
    lengths[0] = shape[1] - 1
    return np.where(np.arange(shape[1]) < lengths[:, None], found, 0).astype("int32")
