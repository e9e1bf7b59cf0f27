"""Vocabularies: splitting, learning, encoding and decoding."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmodels.layers import Vocabulary
from kerasmodels.layers.vocabulary import (
    UNKNOWN,
    graph_decode,
    graph_encode,
    learned_subwords,
    most_frequent,
    split,
)

LINES = [
    "Deux jeunes hommes blancs sont dehors près de buissons.",
    "L'homme (en bleu) court, et l'enfant rit: « oui »!",
    "Des hommes courent dehors.",
] * 3


@settings(max_examples=60)
@given(st.text(st.sampled_from("abé ▁.,'\t-"), max_size=30))
def test_nothing_of_a_text_is_lost(text: str) -> None:
    """But for white space, of which one stays, and the mark, which is taken for it."""
    assert "".join(split(text, "subwords")).replace("▁", " ").split() == text.replace("▁", " ").split()
    assert split(text, "words") == text.split()


def test_subwords() -> None:
    pieces = learned_subwords(LINES, 80)
    vocabulary = Vocabulary(82, "subwords")
    vocabulary.fill(pieces)
    assert vocabulary.words()[2:] == [*pieces, *[""] * (80 - len(pieces))]
    for line in LINES:
        ids = vocabulary.encode(line)
        assert UNKNOWN not in ids
        assert vocabulary.decode([*ids, 0, 5]) == line.replace("« oui »", "« oui »")
    assert vocabulary.encode("Z") == [UNKNOWN]
    assert vocabulary.decode([UNKNOWN]) == "<unk>"


def test_parts_are_those_of_tokenizers() -> None:
    """The same greedy search as WordPiece of Hugging Face's library."""
    from tokenizers import Tokenizer, models

    pieces = learned_subwords(LINES, 60)
    vocabulary = Vocabulary(62, "subwords")
    vocabulary.fill(pieces)
    ids = {"<unk>": UNKNOWN, **{piece: i for i, piece in enumerate(pieces, 2)}}
    theirs = Tokenizer(models.WordPiece(ids, unk_token="<unk>", continuing_subword_prefix=""))
    for word in {word for line in [*LINES, "un homme bleuet Zzz rirent 33"] for word in split(line, "subwords")}:
        mine = vocabulary._parts(word, {w: i for w, i in ids.items() if i != UNKNOWN})
        assert mine == theirs.encode(word).ids, word


def test_words() -> None:
    assert most_frequent(["b a a", "c b a"], 2) == ["a", "b"]
    vocabulary = Vocabulary(5, "words", width=8)
    vocabulary.fill(["a", "much_too_long_to_keep", "é", "c", "d"])
    assert vocabulary.words() == ["", "", "a", "é", "c"]
    assert vocabulary.encode(" é  d\ta ") == [3, UNKNOWN, 2]
    assert vocabulary.decode([3, UNKNOWN, 2]) == "é <unk> a"
    assert vocabulary.encode("") == []


def test_it_is_saved_with_its_model(tmp_path) -> None:
    vocabulary = Vocabulary(4, "subwords", name="vocabulary")
    vocabulary.fill(["▁oui", "non"])
    again = Vocabulary.from_config(vocabulary.get_config())
    assert again.encode("oui") == [UNKNOWN]
    again.set_weights(vocabulary.get_weights())
    assert again.encode("oui") == [2]
    assert keras.backend.standardize_dtype(again.entries.dtype) == "uint8"
    assert np.all(again.entries.numpy() == vocabulary.entries.numpy())


@pytest.mark.parametrize("ids", [[], [0], [0, 3]])
def test_the_end_ends(ids: list[int]) -> None:
    vocabulary = Vocabulary(4, "words")
    vocabulary.fill(["a", "b"])
    assert vocabulary.decode(ids) == ""


@pytest.mark.parametrize("tokens", ["words", "subwords"])
def test_a_graph_encodes_and_decodes_the_same(tokens) -> None:
    vocabulary = Vocabulary(70, tokens)
    vocabulary.fill(learned_subwords(LINES, 60) if tokens == "subwords" else most_frequent(LINES, 60))
    texts = [*LINES[:3], "", "  ", "Zorro court\u00a0dehors, l'éléphant", "homme▁s ▁ ,,", "x" * 40, "des des\thommes "]
    graph = tf.function(
        lambda texts: graph_encode(vocabulary, texts), input_signature=[tf.TensorSpec((None,), tf.string)]
    )
    rows = graph(tf.constant(texts)).numpy()
    for text, row in zip(texts, rows, strict=True):
        expected = vocabulary.encode(text)
        assert row.tolist() == [*expected, *[0] * (rows.shape[1] - len(expected))], text
    decoded = graph_decode(vocabulary, tf.constant(rows))
    assert [text.decode() for text in decoded.numpy()] == [vocabulary.decode(row) for row in rows]
