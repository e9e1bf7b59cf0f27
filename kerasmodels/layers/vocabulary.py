"""Words or parts of words as the weights of a layer: saved, exported and shipped with the model."""

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Literal

import keras
import numpy as np

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
