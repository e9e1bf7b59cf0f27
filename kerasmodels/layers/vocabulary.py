"""Words or parts of words as the weights of a layer: saved, exported and shipped with the model."""

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

END, UNKNOWN = 0, 1
"""Ids of the end of a sequence, and of what is not in the vocabulary."""
Tokens = Literal["words", "subwords"]
_MARK = "▁"
_SPACE = "[\t\n\f\r \u00a0\u202f]+"
# Classes that Python's and TensorFlow's regular expressions understand alike.
_PUNCTUATION = "[!-/:-@\\[-`{-~\u00ab\u00bb\u2018\u2019\u201c\u201d\u201e\u2013\u2014\u2026\u00bf\u00a1]"
_SPLITS = {
    "words": ((_SPACE, "\n"),),
    "subwords": ((_SPACE, _MARK), (f"^{_MARK}+|{_MARK}+$", ""), ("^", _MARK), (_MARK, f"\n{_MARK}"),
                 (f"({_MARK}?{_PUNCTUATION})", "\n\\1\n")),
}  # fmt: skip


def split(text: str, tokens: Tokens) -> list[str]:
    """The words of a text.

    Args:
        text: a line.
        tokens: "words", what lies between white space; or "subwords", where punctuation is a word of its own and each
            word that follows white space begins with "▁", so that nothing of the text is lost.

    Example:
        >>> split("A man, smiling.", "subwords")
        ['▁A', '▁man', ',', '▁smiling', '.']
    """
    for pattern, replacement in _SPLITS[tokens]:
        text = re.sub(pattern, replacement, text)
    return [word for word in text.split("\n") if word and (word != _MARK or tokens == "words")]


@keras.saving.register_keras_serializable("kerasmodels")
class Vocabulary(keras.layers.Layer):
    """A list of words or parts of words, their ids, and the way back. Id 0 ends a sequence, 1 is unknown.

    The list is a weight, (size, width) bytes in UTF-8, so that it is saved with the model; it is empty at first. Parts
    of words are found from the left, each the longest in the list; a word with a letter that no part has is unknown.

    Args:
        size: how many ids, those of the end and of the unknown included.
        tokens: "words" or "subwords", see `split`.
        width: bytes of the longest entry.

    Example:
        >>> import kerasmodels as km
        >>> words = km.layers.Vocabulary(6, "subwords")
        >>> words.fill(["▁a", "▁man", "s"])
        >>> words.encode("a mans hat"), words.decode([2, 3, 4])
        ([2, 3, 4, 1], 'a mans')
    """

    def __init__(self, size: int, tokens: Tokens = "words", width: int = 32, **kwargs: Any):
        super().__init__(**kwargs)
        self.size, self.tokens, self.width = size, tokens, width
        self.entries = self.add_weight(
            name="entries", shape=(size, width), dtype="uint8", initializer="zeros", trainable=False, autocast=False
        )
        self._known: tuple[bytes, list[str], dict[str, int]] | None = None
        self._cut: dict[str, list[int]] = {}
        self.built = True

    def fill(self, words: Iterable[str]) -> None:
        """Take the first words, as many as there are ids for; those of more than `width` bytes are left out."""
        encoded = [word.encode() for word in words]
        encoded = [word for word in encoded if word and len(word) <= self.width][: self.size - 2]
        table = np.zeros((self.size, self.width), "uint8")
        for row, word in enumerate(encoded, 2):
            table[row, : len(word)] = np.frombuffer(word, "uint8")
        self.entries.assign(table)

    def words(self) -> list[str]:
        """The entries by id; "" for the two special ones and for ids that are not used."""
        return self._now()[1]

    def encode(self, text: str) -> list[int]:
        """The ids of a line, without the end."""
        return next(self.encode_all([text]))

    def encode_all(self, lines: Iterable[str]) -> Iterator[list[int]]:
        """The ids of each line, without the end."""
        _, _, ids = self._now()
        for line in lines:
            found: list[int] = []
            for word in split(line, self.tokens):
                if word in ids or self.tokens == "words":
                    found.append(ids.get(word, UNKNOWN))
                    continue
                if word not in self._cut:
                    self._cut[word] = self._parts(word, ids)
                found += self._cut[word]
            yield found

    def decode(self, ids: Sequence[int]) -> str:
        """The text of ids, up to the first end; what is unknown is <unk>."""
        words, found = self.words(), []
        for i in ids:
            if i == END:
                break
            found.append(f"{_MARK}<unk>" if i == UNKNOWN and self.tokens == "subwords" else words[i] or "<unk>")
        return joined(found, self.tokens)

    def _now(self) -> tuple[bytes, list[str], dict[str, int]]:
        """The list as it is: weights may have been assigned since."""
        table = np.asarray(self.entries.value)
        raw = table.tobytes()
        if self._known is None or self._known[0] != raw:
            words = [row.tobytes().rstrip(b"\0").decode(errors="replace") for row in table]
            ids = {word: i for i, word in reversed(list(enumerate(words))) if word}
            self._known, self._cut = (raw, words, ids), {}
        return self._known

    def _parts(self, word: str, ids: dict[str, int]) -> list[int]:
        found, at = [], 0
        while at < len(word):
            ends = (end for end in range(min(len(word), at + self.width), at, -1) if word[at:end] in ids)
            end = next(ends, 0)
            if not end:
                return [UNKNOWN]
            found.append(ids[word[at:end]])
            at = end
        return found

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "size": self.size, "tokens": self.tokens, "width": self.width}


def joined(words: Sequence[str], tokens: Tokens) -> str:
    """Entries of a vocabulary as a text."""
    return " ".join(words) if tokens == "words" else "".join(words).replace(_MARK, " ").strip()


def most_frequent(lines: Iterable[str], size: int) -> list[str]:
    """The most frequent words of lines, split at white space, the most frequent first; equal ones in the alphabet's
    order."""
    counts: dict[str, int] = {}
    for line in lines:
        for word in split(line, "words"):
            counts[word] = counts.get(word, 0) + 1
    return sorted(counts, key=lambda word: (-counts[word], word))[:size]


def learned_subwords(lines: Iterable[str], size: int) -> list[str]:
    """Parts of words by WordPiece, of Hugging Face's `tokenizers`.

    Raises:
        ImportError: `tokenizers` is not installed.
    """
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.WordPiece(unk_token="<unk>", continuing_subword_prefix=""))
    tokenizer.pre_tokenizer = pre_tokenizers.Split("\n", "removed")
    trainer = trainers.WordPieceTrainer(
        vocab_size=size, min_frequency=2, show_progress=False, special_tokens=[], continuing_subword_prefix=""
    )
    tokenizer.train_from_iterator(("\n".join(split(line, "subwords")) for line in lines), trainer)
    found = tokenizer.get_vocab()
    return sorted(found, key=lambda word: (found[word], word))


# --- within a graph ---------------------------------------------------------------------------------------------------


def graph_entries(vocabulary: Vocabulary) -> tf.Tensor:
    """The entries as strings (size,), read from the layer's weight; "" for the special ones."""
    letters = tf.constant([b"", *(bytes([byte]) for byte in range(1, 256))])
    return tf.strings.reduce_join(tf.gather(letters, tf.cast(vocabulary.entries.value, tf.int32)), axis=1)


def graph_encode(vocabulary: Vocabulary, texts: tf.Tensor) -> tf.Tensor:
    """Texts (N,) in UTF-8 -> ids (N, T) int32, each row ended and filled up by `END`: as `Vocabulary.encode`.

    There is no lookup table in it, whose state an exported graph would have to carry: words are found by their hashes.
    """
    for pattern, replacement in _SPLITS[vocabulary.tokens]:
        texts = tf.strings.regex_replace(texts, pattern, replacement)
    words = tf.strings.split(texts, "\n")
    wanted = words.flat_values != ""
    if vocabulary.tokens == "subwords":
        wanted &= words.flat_values != _MARK
    words = tf.ragged.boolean_mask(words, words.with_flat_values(wanted))
    find = _finder(graph_entries(vocabulary))
    if vocabulary.tokens == "words":
        ids = words.with_flat_values(tf.maximum(find(words.flat_values), UNKNOWN))
    else:
        parts = _graph_parts(words.flat_values, find, vocabulary.width)
        ids = words.with_flat_values(parts).merge_dims(1, 2)
    ended = tf.concat([ids, tf.fill([tf.shape(texts)[0], 1], END)], axis=1)
    return ended.to_tensor(END)


def graph_decode(vocabulary: Vocabulary, ids: tf.Tensor) -> tf.Tensor:
    """Ids (..., T), all `END` behind the first -> texts (...): as `Vocabulary.decode`."""
    entries = graph_entries(vocabulary)
    subwords = vocabulary.tokens == "subwords"
    found = tf.where(entries == "", tf.constant("<unk>"), entries)
    found = tf.tensor_scatter_nd_update(found, [[END], [UNKNOWN]], ["", f"{_MARK}<unk>" if subwords else "<unk>"])
    texts = tf.strings.reduce_join(tf.gather(found, ids), axis=-1, separator="" if subwords else " ")
    return tf.strings.strip(tf.strings.regex_replace(texts, _MARK, " ") if subwords else texts)


def _finder(entries: tf.Tensor) -> Callable[[tf.Tensor], tf.Tensor]:
    """A function of strings of any shape: the id of each, -1 if there is none."""
    hashes = tf.strings.to_hash_bucket_fast(entries, 2**62)
    order = tf.argsort(hashes, stable=True)
    ordered = tf.gather(hashes, order)

    def find(words: tf.Tensor) -> tf.Tensor:
        flat = tf.reshape(words, [-1])
        place = tf.searchsorted(ordered, tf.strings.to_hash_bucket_fast(flat, 2**62))
        found = tf.gather(order, tf.minimum(place, tf.size(order) - 1))
        known = (tf.gather(entries, found) == flat) & (flat != "")
        return tf.reshape(tf.where(known, tf.cast(found, tf.int32), -1), tf.shape(words))

    return find


def _graph_parts(words: tf.Tensor, find: Callable[[tf.Tensor], tf.Tensor], width: int) -> tf.RaggedTensor:
    """Words (W,) -> the ids of the parts of each (W, None), the longest part first found; see `Vocabulary`."""
    sizes = tf.strings.length(words, unit="UTF8_CHAR")
    lengths = tf.range(width, 0, -1)

    def unfinished(at: tf.Tensor, found: tf.Tensor) -> tf.Tensor:
        return tf.reduce_any(at < sizes)

    def cut(at: tf.Tensor, found: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        count = tf.size(words)
        begins, sizes_left = tf.repeat(at[:, None], width, axis=1), tf.repeat(lengths[None], count, axis=0)
        left = tf.strings.substr(words[:, None], begins, sizes_left, unit="UTF8_CHAR")
        ids = find(left)
        first = tf.argmax(tf.cast(ids >= 0, tf.int32), axis=1, output_type=tf.int32)
        here = tf.gather(ids, first, batch_dims=1)
        taken = tf.strings.length(tf.gather(left, first, batch_dims=1), unit="UTF8_CHAR")
        going, lost = at < sizes, here < 0
        found = tf.concat([found, tf.where(going, tf.where(lost, UNKNOWN, here), -1)[:, None]], axis=1)
        return tf.where(going & ~lost, at + taken, sizes), found

    start = tf.zeros_like(sizes), tf.zeros([tf.size(words), 0], tf.int32)
    shapes = tf.TensorShape([None]), tf.TensorShape([None, None])
    _, found = tf.while_loop(unfinished, cut, start, shapes)
    # A word with a part that is in no entry is unknown as a whole.
    lost = tf.reduce_any(found == UNKNOWN, axis=1, keepdims=True)
    alone = tf.concat([tf.fill([tf.size(words), 1], UNKNOWN), tf.fill(tf.shape(found), -1)], axis=1)
    found = tf.where(lost, alone, tf.concat([found, tf.fill([tf.size(words), 1], -1)], axis=1))
    return tf.ragged.boolean_mask(found, found >= 0)
