"""RNN Encoder-Decoder: a sequence becomes a vector, and the vector another sequence.

Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio: Learning Phrase Representations using RNN
Encoder-Decoder for Statistical Machine Translation, EMNLP 2014; its supplement; the authors' code (GroundHog).
Attention: Bahdanau, Cho, Bengio, ICLR 2015; Luong, Pham, Manning, EMNLP 2015.

Reproduced: the gated hidden unit, a decoder that sees the context in every step, the maxout readout, matrices of
low rank, Adadelta; 17,250,300 weights as in section 4.1 (17,269,501 with the biases of the code, `groundhog`).

| departure from the paper | why |
|---|---|
| c is the last state, as in section 2.2; `summary` adds the supplement's c = tanh(V h), 1,000,000 weights | the text |
| the first word of the decoder is the end's embedding, which nothing else uses; the code's is zero | one table |
| pairs are sorted by length within ten batches, and longer ones than `max_length` left out, as the code does | time |
| with `attention` the encoder reads in both directions, and a mean of its states takes the place of c | of 2015 |
| Luong's score is used at Bahdanau's place, before the unit's step | one decoder |
| the word penalty and the features within Moses are not here | no Moses; `score` writes the feature |
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.config import Fraction, NonNegative, Positive, PositiveInt, TrainingConfig, check
from kerasmodels.data.text import BadLines, Complaints, Pair, bucketed, read_pairs, read_parallel
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import Family, Servable, Task
from kerasmodels.layers import (
    BahdanauAttention,
    GatedSequence,
    GatedUnit,
    LowRankDense,
    LuongAttention,
    Maxout,
    Vocabulary,
)
from kerasmodels.layers.gated_unit import Steps
from kerasmodels.layers.vocabulary import END, Tokens, graph_decode, graph_encode, learned_subwords, most_frequent
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import encoder_decoder
from kerasmodels.tasks import phrases

__all__ = ["Config", "RNNEncoderDecoder"]


class Config(TrainingConfig):
    """What to train. The defaults are the paper's."""

    pairs: Path | None = None
    """Pairs of texts: lines with a tab between, or a phrase table of Moses (source ||| target ||| ...); may be .gz."""
    source: Path | None = None
    """Instead of pairs: a file of source texts, a line each; may be .gz."""
    target: Path | None = None
    """Their translations, in the same order."""
    bad_lines: BadLines = "stop"
    """At lines that cannot be used: stop, or skip."""

    tokens: Tokens = "words"
    """words: what lies between white space, the most frequent ones; subwords: parts of words, learned by WordPiece
    (needs the extra kerasmodels[text] for training)."""
    source_words: PositiveInt = 15000
    """Size of the source's vocabulary, that of unknown words included; the end of a sequence comes on top."""
    target_words: PositiveInt = 15000
    """Size of the target's."""
    max_length: PositiveInt = 30
    """Longer sequences are left out of the training."""

    units: PositiveInt = 1000
    """Length of the hidden states."""
    rank: PositiveInt = 100
    """Of the matrices of words: length of the embeddings, and of what the last matrix is multiplied with."""
    maxout: PositiveInt = 500
    """Maxout units of the readout, each the larger of two."""
    summary: bool = False
    """The context is tanh(V h), as in the supplement, not the last state h itself."""
    context_reset: bool = True
    """The decoder's reset gate multiplies the context, too, as in the supplement; the code adds it outside."""
    biases: bool = False
    """Biases where the code has them."""
    attention: Literal["none", "bahdanau", "luong"] = "none"
    """Each step has a context of its own: a mean of the encoder's states, weighted by their scores."""
    dropout: Fraction = 0.0
    """Part of the embeddings and of the readout that is left out in training."""

    optimizer: Literal["adadelta", "adam"] = "adadelta"
    """adadelta: rho 0.95, epsilon 1e-6."""
    clip: NonNegative = 0.0
    """Largest norm of the gradient; 0 for any. The code's is 1."""
    steps: PositiveInt = 500000
    """Updates."""
    batch: PositiveInt = 64
    """Pairs in an update."""
    learning_rate: Positive = 1.0
    """Adadelta's is meant to be 1, which is not Keras' default."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        both = (self.source is None) == (self.target is None)
        check(both, "source and target, or none of them", (self.source, self.target))
        check(self.pairs is None or self.source is None, "pairs, or source and target", (self.pairs, self.source))
        check(min(self.source_words, self.target_words) > 1, "vocabularies of 2 words", self.source_words)
        check(self.dropout < 1, "dropout < 1", self.dropout)


VARIANTS = {
    "paper": Config(),
    "groundhog": Config(biases=True, context_reset=False, clip=1.0),
    "attention": Config(attention="bahdanau", biases=True, context_reset=False, clip=1.0, max_length=50),
    "quick": Config(
        attention="luong", biases=True, context_reset=False, clip=1.0, max_length=50, tokens="subwords",
        source_words=3000, target_words=3000, units=256, rank=128, maxout=200, dropout=0.2, optimizer="adam",
        learning_rate=2e-3, steps=3000,
    ),
}  # fmt: skip


# --- networks ---------------------------------------------------------------------------------------------------------


def counted(ids: Any) -> Any:
    """Which ids of sequences count: (N, T) -> bool, those up to the first end, itself included."""
    ended = ops.cast(ops.equal(ids, END), "int32")
    return ops.equal(ops.cumsum(ended, axis=1) - ended, 0)


class _Words(layers.Layer):
    """Embeddings (..., ) -> (..., rank), with a bias if the config has biases."""

    def __init__(self, words: int, config: Config, **kwargs: Any):
        super().__init__(**kwargs)
        normal = keras.initializers.RandomNormal(0.0, 0.01 if config.optimizer == "adadelta" else 0.1)
        self.table = layers.Embedding(words + 1, config.rank, normal, name="table", dtype=self.dtype_policy)
        self.dropout = layers.Dropout(config.dropout, seed=config.seed, dtype=self.dtype_policy)
        self.rank, self.biases = config.rank, config.biases

    def build(self, input_shape: Any) -> None:
        self.table.build(input_shape)
        self.bias = self.add_weight(name="bias", shape=(self.rank,), initializer="zeros") if self.biases else None

    def call(self, ids: Any, training: bool | None = None) -> Any:
        # As `ops.take`, without what that does for negative ids.
        found = tf.gather(ops.convert_to_tensor(self.table.embeddings), ids)
        found = ops.cast(found, self.compute_dtype)
        found = found if self.bias is None else found + ops.cast(self.bias, self.compute_dtype)
        return self.dropout(found, training=training)


def _unit(config: Config, name: str, context: int = 0) -> GatedUnit:
    return GatedUnit(
        config.units,
        context,
        reset="after" if context and config.context_reset else "before",
        bias="candidate" if config.biases else "none",
        stddev=0.01 if config.optimizer == "adadelta" else 0.05,
        name=name,
    )


class Encoder(layers.Layer):
    """Ids (N, S) -> the context (N, units), and with attention the states (N, S, 2 units) and which count (N, S)."""

    def __init__(self, config: Config, **kwargs: Any):
        super().__init__(**kwargs)
        self.words = _Words(config.source_words, config, name="words")
        self.forward = GatedSequence(_unit(config, "forward_unit"), name="forward")
        self.backward = None
        if config.attention != "none":
            self.backward = GatedSequence(_unit(config, "backward_unit"), backward=True, name="backward")
        self.summary = layers.Dense(config.units, "tanh", config.biases, name="summary") if config.summary else None
        self.rank, self.units = config.rank, config.units

    def build(self, input_shape: Any) -> None:
        self.words.build(input_shape)
        for sequence in (self.forward, self.backward):
            if sequence is not None:
                sequence.build((None, None, self.rank))
        if self.summary is not None:
            self.summary.build((None, self.units))

    def call(self, source: Any, training: bool | None = None) -> dict[str, Any]:
        counts = counted(source)
        embedded = self.words(source, training=training)
        states = self.forward(embedded, counts)
        # A state stays where a step does not count, so that the last one is that of the sequence's own end.
        found = {"context": states[:, -1]}
        if self.backward is not None:
            behind = self.backward(embedded, counts)
            # The first state of the way back has seen all of the sequence, its beginning last (Bahdanau 2015).
            found["context"] = behind[:, 0]
            found["memory"] = ops.concatenate([states, behind], axis=-1)
            found["counts"] = ops.cast(counts, "float32")
        if self.summary is not None:
            found["context"] = self.summary(found["context"])
        return found


class Decoder(layers.Layer):
    """Previous ids (N, T) and what the encoder found -> logits (N, T, words) of the next.

    `prepare` and `step` do the same one id at a time: `prepare` computes what all steps share.
    """

    def __init__(self, config: Config, **kwargs: Any):
        super().__init__(**kwargs)
        normal = keras.initializers.RandomNormal(0.0, 0.01 if config.optimizer == "adadelta" else 0.05)
        self.words = _Words(config.target_words, config, name="words")
        self.context = config.units if config.attention == "none" else 2 * config.units
        self.unit = _unit(config, "unit", self.context)
        self.initial = layers.Dense(config.units, "tanh", config.biases, normal, name="initial")
        kinds: Mapping[str, Callable[[], Any]] = {
            "none": lambda: None,
            "bahdanau": lambda: BahdanauAttention(config.units, name="attention"),
            "luong": lambda: LuongAttention(name="attention"),
        }
        self.attention = kinds[config.attention]()
        wide = 2 * config.maxout
        self.from_state = layers.Dense(wide, None, config.biases, normal, name="readout_state")
        self.from_word = layers.Dense(wide, None, False, normal, name="readout_word")
        self.from_context = layers.Dense(wide, None, False, normal, name="readout_context")
        self.maxout = Maxout(config.maxout, name="maxout")
        self.dropout = layers.Dropout(config.dropout, seed=config.seed + 1)
        self.logits = LowRankDense(
            config.target_words + 1, config.rank, config.biases,
            stddev=0.01 if config.optimizer == "adadelta" else 0.1, name="logits",
        )  # fmt: skip
        self.units, self.rank, self.wide = config.units, config.rank, wide
        self.rnn = layers.RNN(
            Steps(self._advance, [config.units], config.units, dtype=self.dtype_policy), return_sequences=True
        )

    def build(self, input_shape: Any) -> None:
        self.words.build(input_shape)
        self.unit.build((None, self.rank))
        self.initial.build((None, self.units))
        if self.attention is not None:
            self.attention.build((None, self.units), (None, None, self.context))
        self.from_state.build((None, self.units))
        self.from_word.build((None, self.rank))
        self.from_context.build((None, self.context))
        self.logits.build((None, self.wide // 2))

    def prepare(self, encoded: Mapping[str, Any]) -> tuple[Any, list[Any]]:
        """The first state (N, units), and what all steps share."""
        state = self.initial(encoded["context"])
        if self.attention is None:
            context = encoded["context"]
            return state, [self.unit.project_context(context), self.from_context(context)]
        # What unit and readout make of a mean is the mean of what they make of each state: one product for all steps.
        memory = ops.cast(encoded["memory"], self.compute_dtype)
        values = ops.concatenate([self.unit.project_context(memory), self.from_context(memory)], axis=-1)
        return state, [values, self.attention.keys(memory), encoded["counts"]]

    def step(self, previous: Any, state: Any, shared: Sequence[Any]) -> tuple[Any, Any]:
        """One id: previous (N,), state (N, units), `shared` -> logits (N, words) of the next, the new state."""
        embedded = self.words(previous)
        output, (state, *_) = self._advance(self.unit.project(embedded), [state, *shared])
        return self._readout(embedded, output, shared), state

    def call(self, previous: Any, encoded: Mapping[str, Any], training: bool | None = None) -> Any:
        embedded = self.words(previous, training=training)
        state, shared = self.prepare(encoded)
        outputs = self.rnn(self.unit.project(embedded), initial_state=[state, *shared])
        return self._readout(embedded, outputs, shared, training)

    def _advance(self, projected: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The unit's step -> the new state, behind it the readout's context if each step has its own; the states."""
        state, *shared = states
        if self.attention is None:
            state = self.unit.step(projected, state, shared[0])
            return state, [state, *shared]
        mean, _ = self.attention(state, *shared)
        state = self.unit.step(projected, state, mean[:, : 3 * self.units])
        return ops.concatenate([state, mean[:, 3 * self.units :]], axis=-1), [state, *shared]

    def _readout(self, embedded: Any, outputs: Any, shared: Sequence[Any], training: bool | None = None) -> Any:
        wide = self.from_state(outputs[..., : self.units]) + self.from_word(embedded)
        if self.attention is not None:
            wide = wide + outputs[..., self.units :]
        else:
            wide = wide + (shared[1] if len(wide.shape) == 2 else ops.expand_dims(shared[1], 1))
        return ops.cast(self.logits(self.dropout(self.maxout(wide), training=training)), "float32")


def _built(kind: Callable[..., Any], config: Config, name: str) -> Any:
    layer = kind(config, name=name)
    layer.build((None, None))
    return layer


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class RNNEncoderDecoder(PaperModel):
    """Encoder, decoder and their vocabularies. Called, it tells how likely a target is, given a source.

    Args:
        config, dtype: see `PaperModel`.

    Shapes:
        (source (N, S), target (N, T)), ids, each row ended and filled up by 0 -> log p(target | source) (N,), natural
        logarithms. `fit` takes the same pairs.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.RNNEncoderDecoder({"units": 8, "source_words": 20, "target_words": 20})
        >>> tuple(model((np.array([[3, 4, 0]]), np.array([[5, 0]]))).shape)
        (1,)

    Reference:
        Cho et al. 2014, section 2.2, equation 4.
    """

    Config = Config
    family_name = "rnn_encoder_decoder"
    one_device = "its loss is the mean over the words of the whole batch, of which each device has another number"
    networks = {  # noqa: RUF012
        "encoder": lambda config: _built(Encoder, config, "encoder"),
        "decoder": lambda config: _built(Decoder, config, "decoder"),
        "source_vocabulary": lambda config: Vocabulary(
            config.source_words + 1, config.tokens, name="source_vocabulary"
        ),
        "target_vocabulary": lambda config: Vocabulary(
            config.target_words + 1, config.tokens, name="target_vocabulary"
        ),
    }

    def loss_terms(self) -> Sequence[str]:
        return ("loss", "per_token")

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        rate, clip = self.config.learning_rate, self.config.clip or None
        if self.config.optimizer == "adam":
            return keras.optimizers.Adam(rate, global_clipnorm=clip)
        return keras.optimizers.Adadelta(rate, rho=0.95, epsilon=1e-6, global_clipnorm=clip)

    def initialize(self) -> None:
        """Learn the vocabularies from the texts, where no other weights come with theirs."""
        super().initialize()
        if self.config.start_from is None:
            for side, texts in zip(("source", "target"), zip(*_texts(self.config), strict=True), strict=True):
                vocabulary, distinct = getattr(self, f"{side}_vocabulary"), list(dict.fromkeys(texts))
                if self.config.tokens == "words":
                    vocabulary.fill(most_frequent(distinct, vocabulary.size))
                else:
                    try:
                        vocabulary.fill(learned_subwords(distinct, vocabulary.size - 2))
                    except ImportError as error:
                        raise UsageError(
                            "learning subwords needs the package tokenizers. Install it with "
                            "`pip install 'kerasmodels[text]'`, or train with --tokens words."
                        ) from error

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        source, target = inputs
        target = ops.cast(target, "int32")
        previous = ops.concatenate([ops.full_like(target[:, :1], END), target[:, :-1]], axis=1)
        logits = self.decoder(previous, self.encoder(ops.cast(source, "int32"), training=training), training=training)
        likely = -tf.nn.sparse_softmax_cross_entropy_with_logits(target, logits)
        return ops.sum(likely * ops.cast(counted(target), "float32"), axis=1)

    def encode(self, source: Any) -> tuple[Any, list[Any]]:
        """Source ids (N, S) -> the decoder's first state, and what all its steps share."""
        return self.decoder.prepare(self.encoder(source))

    def translate(self, texts: Sequence[str], **options: Any) -> list[list[tuple[str, float]]]:
        """Translations of texts, for each the best first, with scores; see `tasks.phrases.translate`."""
        return phrases.translate(self, texts, **options)

    def train_step(self, data: Any) -> dict[str, Any]:
        source, target, _ = keras.utils.unpack_x_y_sample_weight(data)
        with tf.GradientTape() as tape:
            likely = self((source, target), training=True)
            loss = -ops.mean(likely)
        self.minimize("all", loss, tape)
        words = ops.sum(ops.cast(counted(target), "float32"))
        self.report(loss=loss, per_token=-ops.sum(likely) / words)
        return self.reported()


# --- family -----------------------------------------------------------------------------------------------------------


def _texts(config: Config) -> list[Pair]:
    """The distinct pairs that the config names: how often one occurs is left to the other features of a phrase table.

    Raises:
        UsageError: it names none.
        DataError: they cannot be read, or there are none.
    """
    if config.pairs is None and config.source is None:
        raise UsageError("training needs pairs of texts: --pairs FILE, or --source FILE and --target FILE.")
    complaints = Complaints(config.bad_lines)
    if config.pairs is not None:
        found = read_pairs(config.pairs, complaints)
    else:
        found = read_parallel(config.source, config.target, complaints)  # type: ignore[arg-type]
    pairs = list(dict.fromkeys(found))
    complaints.warn()
    if not pairs:
        raise DataError(f"expected pairs of texts. Received: none in {config.pairs or config.source}.")
    return pairs


class _Pairs:
    """Batches of the pairs, in the ids of the model's vocabularies."""

    def __init__(self, config: Config):
        self.config = config

    def batches(self, model: Any, start: int) -> tf.data.Dataset:
        config, most, (sources, targets) = self.config, self.config.max_length, zip(*_texts(self.config), strict=True)
        ids = zip(model.source_vocabulary.encode_all(sources), model.target_vocabulary.encode_all(targets), strict=True)
        short = [
            pair for pair in ids if 0 < len(pair[0]) <= config.max_length and 0 < len(pair[1]) <= config.max_length
        ]
        if not short:
            raise DataError(f"expected pairs of at most {most} tokens. Received: only longer ones.")
        rows = tf.TensorSpec((None, None), tf.int32)

        def made() -> Iterator[tuple[np.ndarray, np.ndarray]]:
            return bucketed(short, config.batch, config.seed, start)

        return tf.data.Dataset.from_generator(made, output_signature=(rows, rows)).prefetch(2)

    def state(self) -> Mapping[str, np.ndarray]:
        return {}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        pass


def _servables(model: RNNEncoderDecoder) -> dict[str, Servable]:
    units, wide = model.config.units, 2 * model.config.maxout
    shared: dict[str, tuple[tuple[int | str, ...], str]] = {
        "unit_context": (("batch", 3 * units), "what the context adds to the unit's gates"),
        "readout_context": (("batch", wide), "what the context adds to the readout"),
    }
    if model.decoder.attention is not None:
        shared = {
            "values": (("batch", "length", 3 * units + wide), "what each state of the encoder adds, if looked at"),
            "keys": (("batch", "length", units), "what the scores of each state are made of"),
        }
    return encoder_decoder(
        model,
        encode=model.encode,
        step=model.decoder.step,
        counts=None if model.decoder.attention is None else lambda source: ops.cast(counted(source), "float32"),
        texts=(
            lambda texts: graph_encode(model.source_vocabulary, texts),
            lambda ids: graph_decode(model.target_vocabulary, ids),
            lambda: [word.strip("▁") for word in model.source_vocabulary.words() if word.strip("▁")],
        ),
        score=lambda source, target: model((source, target)),
        shared=shared,
        units=units,
        words=(model.config.source_words + 1, model.config.target_words + 1),
        longest=model.config.max_length,
        width=5,
        length_penalty=0.6,
    )


FAMILY = Family(
    name="rnn_encoder_decoder",
    config=Config,
    variants=VARIANTS,
    model=RNNEncoderDecoder,
    servables=_servables,
    task=Task(phrases.PhrasesOptions, lambda options: phrases.run(options, "rnn_encoder_decoder")),
    source=_Pairs,
)
