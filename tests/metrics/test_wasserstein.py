"""Exact distances between samples."""

import itertools

import numpy as np
import pytest

from kerasmodels.errors import DataError
from kerasmodels.metrics import covered_modes, wasserstein


def test_equals_the_best_of_all_assignments():
    a, b = np.random.default_rng(0).normal(size=(2, 6, 2))
    best = min(np.linalg.norm(a - b[list(order)], axis=1).mean() for order in itertools.permutations(range(6)))
    assert wasserstein(a, b) == pytest.approx(best)


def test_line_and_plane_agree():
    a, b = np.random.default_rng(1).normal(size=(2, 40))
    flat = [np.stack([x, np.zeros(40)], 1) for x in (a, b)]
    assert wasserstein(a, b) == pytest.approx(wasserstein(*flat))
    assert wasserstein(a, a) == 0
    assert wasserstein(a, b) == pytest.approx(wasserstein(b, a))


def test_a_shift_is_its_length():
    points = np.random.default_rng(2).normal(size=(50, 3))
    assert wasserstein(points, points + (3, 0, 4)) == pytest.approx(5)  # noqa: RUF005
    assert wasserstein([0.0, 1.0], [2.0]) == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("a", "b", "message"),
    [
        (np.zeros((2, 2)), np.zeros((3, 2)), r"as many points.*\(2, 2\) and \(3, 2\)"),
        (np.zeros((2, 2)), np.zeros(2), "as many points"),
        ([], [1.0], "none empty"),
        ([np.nan], [1.0], "finite"),
    ],
)
def test_samples_that_cannot_be_compared(a, b, message):
    with pytest.raises(DataError, match=message):
        wasserstein(a, b)


def test_modes():
    centers = np.array([[0, 0], [10, 0], [0, 10.0]])
    points = np.array([[0.5, 0], [0, 0.5], [10, 0.2], [5, 5]])
    assert covered_modes(points, centers, radius=1) == (2, 0.75)
    assert covered_modes(points, centers, radius=1, least=2) == (1, 0.75)
