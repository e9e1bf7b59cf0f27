"""Our side of the benchmark of the encoder-decoder, and Keras' GRU, as workers of `interleaved`; jobs: train, decode.

A step of training is what `fit` executes for one batch.
"""

import dataclasses
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from interleaved import Job, Prepared, serve

from kerasmodels.models import RNNEncoderDecoder
from kerasmodels.models.rnn_encoder_decoder import VARIANTS
from kerasmodels.servables.text import search


def with_keras_gru(reset_after: bool) -> keras.Model:
    """The network of Keras' layers: a GRU that sees the context beside each word, the paper's readout."""
    config, layers = VARIANTS["paper"], keras.layers
    source, previous = keras.Input((None,), dtype="int32"), keras.Input((None,), dtype="int32")
    context = layers.GRU(config.units, reset_after=reset_after)(
        layers.Embedding(config.source_words + 1, config.rank)(source)
    )
    words = layers.Embedding(config.target_words + 1, config.rank)(previous)
    beside = context[:, None] * keras.ops.ones_like(words[..., :1])
    states = layers.GRU(config.units, return_sequences=True, reset_after=reset_after)(
        layers.Concatenate()([words, beside]), initial_state=layers.Dense(config.units, "tanh")(context)
    )
    wide = layers.Dense(2 * config.maxout)(layers.Concatenate()([states, words, beside]))
    narrow = keras.ops.max(layers.Reshape((-1, config.maxout, 2))(wide), axis=-1)
    return keras.Model([source, previous], layers.Dense(config.target_words + 1)(layers.Dense(config.rank)(narrow)))


def prepare(job: Job) -> Prepared:
    tf.config.threading.set_intra_op_parallelism_threads(job["threads"])
    tf.config.threading.set_inter_op_parallelism_threads(job["threads"])
    keras.utils.set_random_seed(0)
    config, shape = VARIANTS["paper"], (job["batch"], job["length"])
    random = np.random.default_rng(0)
    source, target = (random.integers(2, config.source_words, shape, "int32") for _ in range(2))
    source[:, -1] = target[:, -1] = 0
    facts: dict[str, Any] = {
        "versions": {"tensorflow": tf.__version__, "keras": keras.__version__},
        "tokens": int(np.prod(shape)),
    }
    if job["task"] == "train":
        batch: Any
        if job["network"] == "keras":
            model: Any = with_keras_gru(job["reset_after"])
            model.compile(
                keras.optimizers.Adadelta(1.0, rho=0.95, epsilon=1e-6),
                keras.losses.SparseCategoricalCrossentropy(from_logits=True),
                jit_compile=False,
            )
            batch = ((source, np.pad(target[:, :-1], [(0, 0), (1, 0)])), target)
        else:
            model = RNNEncoderDecoder(dataclasses.replace(config, batch=job["batch"]))
            model.compile()
            batch = (source, target)
        facts["weights"] = sum(int(np.prod(v.shape)) for v in model.trainable_variables)
        model.make_train_function()
        data = iter(tf.data.Dataset.from_tensors(batch).repeat())
        return lambda: float(model.train_function(data)["loss"]), facts
    model = RNNEncoderDecoder(config)
    searched = tf.function(
        lambda source: search(source, model.encode, model.decoder.step, job["length"], 5, 1, 0.6),
        input_signature=[tf.TensorSpec((None, None), tf.int32)],
    )
    given = tf.constant(source)
    # Untrained, it ends nowhere, as the peer does not: as many tokens.
    facts["ended"] = int(np.sum(searched(given)["ids"].numpy() == 0))
    return lambda: searched(given)["ids"].numpy(), facts


if __name__ == "__main__":
    serve(prepare)
