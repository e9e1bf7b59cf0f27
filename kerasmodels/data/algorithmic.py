"""Tasks whose answers are computed: endless examples of copying, recalling, counting and sorting bits.

The five tasks of Graves, Wayne, Danihelka: Neural Turing Machines, 2014, section 4. An example is inputs (T, C),
targets (T, K) of bits, and weights (T,): 1 where the answer is asked for, else 0. While it is, the inputs are zeros.
"""

import abc
import itertools
import math
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar, NamedTuple

import numpy as np

from kerasmodels.config import check
from kerasmodels.errors import DataError

__all__ = ["TASKS", "AlgorithmicTask", "AssociativeRecall", "Copy", "Example", "NGrams", "PrioritySort", "RepeatCopy"]


class Example(NamedTuple):
    """Inputs (..., T, C), targets (..., T, K) and weights (..., T) of one example or of a batch, float32."""

    inputs: np.ndarray
    targets: np.ndarray
    weights: np.ndarray


class AlgorithmicTask(abc.ABC):
    """A task: how large its examples are, and how they are drawn and laid out in time.

    Args:
        bits: of each vector; None for the paper's.
        largest: the largest sizes to train on, in the order of `sizes`; None for the paper's.

    Attributes:
        name: of the task.
        sizes: what sizes an example has, such as its length.
        ranges: the least and the largest of each in training, both included.
        channels: C and K, of inputs and of targets.

    Raises:
        UsageError: a size below the least.
    """

    name: ClassVar[str]
    sizes: ClassVar[tuple[str, ...]]
    paper: ClassVar[tuple[int, tuple[int, ...]]]
    """Bits, and the largest sizes."""
    least: ClassVar[tuple[int, ...]]
    fixed: ClassVar[bool] = False
    """Whether all examples have the largest size."""
    extra: ClassVar[tuple[int, int]]
    """Channels of inputs and of targets besides the bits."""

    def __init__(self, bits: int | None = None, largest: Sequence[int] | None = None):
        self.bits = self.paper[0] if bits is None else bits
        self.largest = tuple(self.paper[1] if largest is None else largest)
        check(self.bits >= 1, "bits >= 1", bits)
        check(len(self.largest) == len(self.sizes), f"the largest {' and '.join(self.sizes)}", largest)
        for name, least, most in zip(self.sizes, self.least, self.largest, strict=True):
            check(most >= least, f"{name} >= {least} in {self.name}", most)
        self.ranges = tuple(zip(self.largest if self.fixed else self.least, self.largest, strict=True))
        self.channels = (self.bits + self.extra[0], self.bits + self.extra[1])

    @abc.abstractmethod
    def frames(self, size: Sequence[int]) -> int:
        """T of an example of this size."""

    def held(self, size: Sequence[int]) -> int:
        """How many vectors of an example of this size have to be kept at once."""
        return size[0]

    @abc.abstractmethod
    def draw(self, random: np.random.Generator, size: Sequence[int]) -> Example:
        """An example of this size."""

    def batch(
        self, random: np.random.Generator, count: int, ranges: Sequence[tuple[int, int]], frames: int | None = None
    ) -> Example:
        """Examples whose sizes are drawn uniformly from ranges, padded behind with zeros to the largest's frames."""
        frames = self.frames([most for _, most in ranges]) if frames is None else frames
        inputs, targets = (np.zeros((count, frames, channels), "float32") for channels in self.channels)
        weights = np.zeros((count, frames), "float32")
        for row in range(count):
            example = self.draw(random, [int(random.integers(least, most + 1)) for least, most in ranges])
            for whole, part in zip((inputs, targets, weights), example, strict=True):
                whole[row, : len(part)] = part
        return Example(inputs, targets, weights)

    def batches(self, count: int, seed: int, start: int = 0) -> Iterator[Example]:
        """Endless training batches from number `start` on; each is drawn from its number and the seed alone.

        The sizes are those of `ranges`, uniformly. Those of one batch are near one another: each range is cut into
        parts of about 5 values, so that little is padded and few lengths in time occur.
        """
        groups = list(itertools.product(*(_parts(least, most) for least, most in self.ranges)))
        shares = np.array([math.prod(most - least + 1 for least, most in group) for group in groups], "float64")
        for number in itertools.count(start):
            random = np.random.default_rng([seed, number])
            yield self.batch(random, count, groups[random.choice(len(groups), p=shares / shares.sum())])

    def _vectors(self, random: np.random.Generator, count: int) -> np.ndarray:
        return random.integers(0, 2, (count, self.bits)).astype("float32")

    def checked(self, vectors: Any) -> np.ndarray:
        """Vectors (..., bits) of zeros and ones, float32.

        Raises:
            DataError: they are not, or of another width.
        """
        array = np.asarray(vectors, "float32")
        if array.ndim < 2 or array.shape[-1] != self.bits or not np.isin(array, (0, 1)).all():
            raise DataError(
                f"expected vectors of {self.bits} bits, each 0 or 1, for {self.name}. Received: shape {array.shape}, "
                f"values {array.min(initial=0):g} to {array.max(initial=0):g}."
            )
        return array

    def _laid_out(self, inputs: np.ndarray, answer: np.ndarray) -> Example:
        """Inputs, and after them the answer."""
        frames = len(inputs) + len(answer)
        example = Example(
            np.zeros((frames, self.channels[0]), "float32"),
            np.zeros((frames, self.channels[1]), "float32"),
            np.zeros(frames, "float32"),
        )
        example.inputs[: len(inputs)] = inputs
        example.targets[len(inputs) :] = answer
        example.weights[len(inputs) :] = 1.0
        return example


def _parts(least: int, most: int) -> list[tuple[int, int]]:
    """A range in parts of about 5 values."""
    edges = np.linspace(least - 1, most, max(1, round((most - least + 1) / 5)) + 1).round().astype(int)
    return [(int(a) + 1, int(b)) for a, b in itertools.pairwise(edges)]


class Copy(AlgorithmicTask):
    """Say again what was said (section 4.1): 1 to 20 vectors of 8 bits. Last input channel: the end of the vectors."""

    name, sizes, paper, least, extra = "copy", ("length",), (8, (20,)), (1,), (1, 0)

    def frames(self, size: Sequence[int]) -> int:
        return 2 * size[0] + 1

    def draw(self, random: np.random.Generator, size: Sequence[int]) -> Example:
        return self.encode(self._vectors(random, size[0]))

    def encode(self, vectors: np.ndarray) -> Example:
        """The example of vectors (length, bits)."""
        vectors = self.checked(vectors)
        inputs = np.zeros((len(vectors) + 1, self.channels[0]))
        inputs[:-1, : self.bits] = vectors
        inputs[-1, self.bits] = 1
        return self._laid_out(inputs, vectors)


class RepeatCopy(AlgorithmicTask):
    """Say it several times, and then that this was all (section 4.2): 1 to 10 vectors of 8 bits, 1 to 10 times.

    Input channels after the bits: the end of the vectors, and in the same step how often, scaled to mean 0 and variance
    1 over 1 to 10. Last target channel: the end.
    """

    name, sizes, paper, least, extra = "repeat_copy", ("length", "repeats"), (8, (10, 10)), (1, 1), (2, 1)

    def frames(self, size: Sequence[int]) -> int:
        return size[0] * (size[1] + 1) + 2

    def draw(self, random: np.random.Generator, size: Sequence[int]) -> Example:
        return self.encode(self._vectors(random, size[0]), size[1])

    def encode(self, vectors: np.ndarray, repeats: int) -> Example:
        """The example of vectors (length, bits)."""
        vectors = self.checked(vectors)
        inputs = np.zeros((len(vectors) + 1, self.channels[0]))
        inputs[:-1, : self.bits] = vectors
        most = self.largest[1]
        inputs[-1, self.bits :] = 1, (repeats - (most + 1) / 2) / max(1e-9, math.sqrt((most**2 - 1) / 12))
        answer = np.zeros((repeats * len(vectors) + 1, self.channels[1]))
        answer[:-1, : self.bits] = np.tile(vectors, (repeats, 1))
        answer[-1, self.bits] = 1
        return self._laid_out(inputs, answer)


class AssociativeRecall(AlgorithmicTask):
    """Say the item after the one that is asked for (section 4.3): 2 to 6 items of 3 vectors of 6 bits.

    Input channels after the bits: before each item; before and after the query.
    """

    name, sizes, paper, least, extra = "associative_recall", ("items",), (6, (6,)), (2,), (2, 0)
    item = 3
    """Vectors of an item."""

    def held(self, size: Sequence[int]) -> int:
        return self.item * size[0]

    def frames(self, size: Sequence[int]) -> int:
        return (self.item + 1) * size[0] + 2 * self.item + 2

    def draw(self, random: np.random.Generator, size: Sequence[int]) -> Example:
        items = random.integers(0, 2, (size[0], self.item, self.bits)).astype("float32")
        return self.encode(items, int(random.integers(size[0] - 1)))

    def encode(self, items: np.ndarray, query: int) -> Example:
        """The example of items (count, 3, bits): asked with number `query`, the answer is the one after it.

        Raises:
            DataError: no item comes after it.
        """
        if not 0 <= query < len(items) - 1:
            raise DataError(
                f"expected to be asked for an item that another follows, 0 to {len(items) - 2}. Received: {query}."
            )
        items = self.checked(items)
        inputs = np.zeros((len(items) * (self.item + 1) + self.item + 2, self.channels[0]))
        for number, item in enumerate(items):
            first = number * (self.item + 1)
            inputs[first, self.bits] = 1
            inputs[first + 1 : first + 1 + self.item, : self.bits] = item
        asked = len(items) * (self.item + 1)
        inputs[[asked, asked + self.item + 1], self.bits + 1] = 1
        inputs[asked + 1 : asked + 1 + self.item, : self.bits] = items[query]
        return self._laid_out(inputs, items[query + 1])


class NGrams(AlgorithmicTask):
    """Predict the next bit (section 4.4): 200 bits whose probability depends on the 5 before them.

    Each sequence has its own table of 32 probabilities, drawn from Beta(1/2, 1/2). The first 5 bits are fair coins. All
    200 are to be predicted; the input is the bit before.
    """

    name, sizes, paper, least, extra = "ngrams", ("length",), (1, (200,)), (6,), (0, 0)
    fixed = True
    context = 5
    """Bits that the next one depends on."""

    def __init__(self, bits: int | None = None, largest: Sequence[int] | None = None):
        super().__init__(bits, largest)
        check(self.bits == 1, "bits = 1 in ngrams", bits)

    def held(self, size: Sequence[int]) -> int:
        return 1  # counts of several contexts fit into one row

    def frames(self, size: Sequence[int]) -> int:
        return size[0]

    def draw(self, random: np.random.Generator, size: Sequence[int]) -> Example:
        return self.encode(self.sequences(random, 1, size[0])[0])

    def sequences(self, random: np.random.Generator, count: int, length: int) -> np.ndarray:
        """Bits (count, length), int64."""
        tables = random.beta(0.5, 0.5, (count, 2**self.context))
        bits = random.integers(0, 2, (count, length))
        draws, rows = random.uniform(size=(count, length)), np.arange(count)
        before = bits[:, : self.context] @ (1 << np.arange(self.context)[::-1])
        for step in range(self.context, length):
            bits[:, step] = draws[:, step] < tables[rows, before]
            before = (2 * before + bits[:, step]) % 2**self.context
        return bits

    def encode(self, bits: np.ndarray) -> Example:
        """The example of a sequence (length,)."""
        bits = self.checked(np.reshape(bits, (-1, 1)))[:, 0]
        inputs = np.zeros((len(bits), 1), "float32")
        inputs[1:, 0] = bits[:-1]
        return Example(inputs, bits[:, np.newaxis].astype("float32"), np.ones(len(bits), "float32"))

    def optimal_bits(self, bits: np.ndarray) -> np.ndarray:
        """What the Bayes-optimal predictor needs for sequences (count, length): bits for each, (count,).

        It has counted N1 ones and N0 zeros after each context, and says (N1 + 1/2) / (N1 + N0 + 1); the first 5 bits
        take one each. 133.4 on average over sequences of 200 bits.
        """
        count, length = bits.shape
        seen, rows = np.full((count, 2**self.context, 2), 0.5), np.arange(count)
        total = np.full(count, float(self.context))
        before = bits[:, : self.context] @ (1 << np.arange(self.context)[::-1])
        for step in range(self.context, length):
            now = bits[:, step]
            total -= np.log2(seen[rows, before, now] / seen[rows, before].sum(axis=1))
            seen[rows, before, now] += 1
            before = (2 * before + now) % 2**self.context
        return total


class PrioritySort(AlgorithmicTask):
    """Say those of highest priority, in order (section 4.5): 20 vectors of 8 bits, the first 16 of which are asked for.

    Input channels after the bits: the priority, uniform in -1 to 1; and the end.
    """

    name, sizes, paper, least, extra = "priority_sort", ("length",), (8, (20,)), (2,), (2, 0)
    fixed = True

    def frames(self, size: Sequence[int]) -> int:
        return size[0] + 1 + self.answers(size[0])

    def answers(self, length: int) -> int:
        """How many of so many vectors are asked for: four of five."""
        return max(1, 4 * length // 5)

    def draw(self, random: np.random.Generator, size: Sequence[int]) -> Example:
        return self.encode(self._vectors(random, size[0]), random.uniform(-1, 1, size[0]))

    def encode(self, vectors: np.ndarray, priorities: np.ndarray) -> Example:
        """The example of vectors (length, bits) and priorities (length,), -1 to 1."""
        vectors = self.checked(vectors)
        inputs = np.zeros((len(vectors) + 1, self.channels[0]))
        inputs[:-1, : self.bits] = vectors
        inputs[:-1, self.bits] = priorities
        inputs[-1, self.bits + 1] = 1
        order = np.argsort(-np.asarray(priorities), kind="stable")[: self.answers(len(vectors))]
        return self._laid_out(inputs, vectors[order])


TASKS: dict[str, type[AlgorithmicTask]] = {
    task.name: task for task in (Copy, RepeatCopy, AssociativeRecall, NGrams, PrioritySort)
}
"""By name."""
