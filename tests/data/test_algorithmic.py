"""The paper's tasks: how examples are laid out, that they can begin anywhere, and what predicting takes at best."""

import itertools

import numpy as np
import pytest

from kerasmodels.data.algorithmic import TASKS, AssociativeRecall, Copy, NGrams, PrioritySort, RepeatCopy
from kerasmodels.errors import DataError, UsageError


def test_copy():
    example = Copy(bits=2).encode(np.array([[1, 0], [1, 1]]))
    np.testing.assert_array_equal(example.inputs, [[1, 0, 0], [1, 1, 0], [0, 0, 1], [0, 0, 0], [0, 0, 0]])
    np.testing.assert_array_equal(example.targets, [[0, 0], [0, 0], [0, 0], [1, 0], [1, 1]])
    np.testing.assert_array_equal(example.weights, [0, 0, 0, 1, 1])


def test_repeat_copy():
    example = RepeatCopy(bits=2).encode(np.array([[1, 0], [1, 1]]), 2)
    assert example.inputs.shape == (8, 4)
    np.testing.assert_array_equal(example.inputs[2, :3], [0, 0, 1])
    np.testing.assert_array_equal(example.targets[3:], [[1, 0, 0], [1, 1, 0], [1, 0, 0], [1, 1, 0], [0, 0, 1]])
    np.testing.assert_array_equal(example.weights, [0, 0, 0, 1, 1, 1, 1, 1])
    counts = [RepeatCopy().encode(np.zeros((1, 8)), n).inputs[1, 9] for n in range(1, 11)]
    assert (np.mean(counts), np.std(counts)) == pytest.approx((0, 1), abs=1e-6)


def test_associative_recall():
    items = np.random.default_rng(0).integers(0, 2, (3, 3, 6))
    example = AssociativeRecall().encode(items, 1)
    assert example.inputs.shape == (3 * 4 + 5 + 3, 8)
    np.testing.assert_array_equal(np.flatnonzero(example.inputs[:, 6]), [0, 4, 8])
    np.testing.assert_array_equal(np.flatnonzero(example.inputs[:, 7]), [12, 16])
    np.testing.assert_array_equal(example.inputs[13:16, :6], items[1])
    np.testing.assert_array_equal(example.targets[17:], items[2])
    with pytest.raises(DataError, match="that another follows, 0 to 1"):
        AssociativeRecall().encode(items, 2)


def test_priority_sort():
    random = np.random.default_rng(0)
    vectors, priorities = random.integers(0, 2, (20, 8)), random.uniform(-1, 1, 20)
    example = PrioritySort().encode(vectors, priorities)
    assert example.inputs.shape == (20 + 1 + 16, 10)
    np.testing.assert_allclose(example.inputs[:20, 8], priorities, atol=1e-6)
    np.testing.assert_array_equal(example.targets[21:], vectors[np.argsort(-priorities)][:16])
    assert example.weights.sum() == 16


def test_ngrams_follow_their_table():
    """Of long sequences, the frequency of a one after each context is its probability in a table of Beta(1/2, 1/2)."""
    task = NGrams()
    bits = task.sequences(np.random.default_rng(0), 200, 4000)
    found = []
    for row in bits[:50]:
        windows = np.lib.stride_tricks.sliding_window_view(row, 6)
        context, following = windows[:, :5] @ [16, 8, 4, 2, 1], windows[:, 5]
        found += [following[context == c].mean() for c in range(32) if (context == c).sum() > 50]
    # Of the arcsine distribution, a third each lies below 1/4, between, and above 3/4.
    shares = np.histogram(found, [0, 0.25, 0.75, 1])[0] / len(found)
    np.testing.assert_allclose(shares, [1 / 3] * 3, atol=0.05)
    example = task.encode(bits[0, :200])
    np.testing.assert_array_equal(example.targets[:, 0], bits[0, :200])
    np.testing.assert_array_equal(example.inputs[1:], example.targets[:-1])
    assert example.inputs[0] == 0


def test_the_optimum_is_beta_bernoulli_s():
    """Against TensorFlow Probability: a context's bits are Beta-binomial, but for the number of their orders."""
    tfp = pytest.importorskip("tensorflow_probability", reason="the `prob` extra is not installed")
    from scipy.special import gammaln

    task = NGrams()
    bits = task.sequences(np.random.default_rng(0), 20, 200)
    expected = []
    for row in bits:
        counts = np.zeros((32, 2))
        for window in np.lib.stride_tricks.sliding_window_view(row, 6):
            counts[window[:5] @ [16, 8, 4, 2, 1], window[5]] += 1
        total = counts.sum(axis=1)
        half = np.float64(0.5)
        likelihood = tfp.distributions.BetaBinomial(total, half, half).log_prob(counts[:, 1]).numpy()
        orders = gammaln(total + 1) - gammaln(counts[:, 0] + 1) - gammaln(counts[:, 1] + 1)
        expected.append(5 - (likelihood - orders).sum() / np.log(2))
    np.testing.assert_allclose(task.optimal_bits(bits), expected, atol=1e-6)


def test_the_optimum_is_133_bits():
    task = NGrams()
    optimum = task.optimal_bits(task.sequences(np.random.default_rng(0), 40_000, 200))
    assert optimum.mean() == pytest.approx(133.4, abs=3 * optimum.std() / 200)


@pytest.mark.parametrize("name", TASKS)
def test_batches_depend_on_seed_and_number_alone(name):
    task = TASKS[name]()
    first = list(itertools.islice(task.batches(3, 5), 4))
    for mine, expected in zip(next(task.batches(3, 5, 3)), first[3], strict=True):
        np.testing.assert_array_equal(mine, expected)
    other = next(task.batches(3, 6, 3))
    assert other.inputs.shape != first[3].inputs.shape or np.any(other.inputs != first[3].inputs)


@pytest.mark.parametrize("name", TASKS)
def test_batches_are_of_the_declared_shapes(name):
    task = TASKS[name]()
    lengths = set()
    for example in itertools.islice(task.batches(4, 0), 40):
        n, frames, channels = example.inputs.shape
        assert (n, channels, example.targets.shape[2]) == (4, *task.channels)
        assert example.weights.shape == (4, frames)
        assert frames <= task.frames(task.largest)
        assert set(np.unique(example.targets)) <= {0, 1}
        assert not example.targets[example.weights == 0].any()
        if name != "ngrams":
            assert not example.inputs[example.weights == 1].any()
        lengths.add(frames)
    assert len(lengths) <= 4


def test_all_sizes_come_equally_often():
    drawn = np.concatenate([example.weights.sum(axis=1) for example in itertools.islice(Copy().batches(64, 0), 200)])
    counts = np.bincount(drawn.astype(int), minlength=21)[1:]
    assert counts.sum() == len(drawn)
    np.testing.assert_allclose(counts / len(drawn), 0.05, atol=0.02)


@pytest.mark.parametrize(
    ("task", "arguments", "message"),
    [
        ("copy", {"largest": (0,)}, "length >= 1 in copy"),
        ("copy", {"largest": (1, 2)}, "the largest length"),
        ("repeat_copy", {"largest": (3, 0)}, "repeats >= 1"),
        ("associative_recall", {"largest": (1,)}, "items >= 2"),
        ("ngrams", {"bits": 2}, "bits = 1 in ngrams"),
    ],
)
def test_sizes_out_of_range(task, arguments, message):
    with pytest.raises(UsageError, match=message):
        TASKS[task](**arguments)


@pytest.mark.parametrize("vectors", [np.full((3, 8), 0.5), np.full((3, 8), 2), np.zeros((3, 7)), np.zeros(8)])
def test_vectors_that_are_not_bits(vectors):
    with pytest.raises(DataError, match="expected vectors of 8 bits, each 0 or 1"):
        Copy().encode(vectors)
