"""Likelihoods under a known mixture, beside the formula."""

import numpy as np
import pytest
from scipy.special import logsumexp

from kerasmodels.errors import DataError
from kerasmodels.metrics import mixture_log_likelihood


@pytest.mark.parametrize("deviation", [0.02, 1.5])
def test_equals_the_formula(deviation: float) -> None:
    random = np.random.default_rng(0)
    points, centers = random.normal(size=(50, 3)), random.normal(size=(4, 3))
    squares = ((points[:, None] - centers) ** 2).sum(-1)
    each = -0.5 * squares / deviation**2 - 1.5 * np.log(2 * np.pi * deviation**2)
    np.testing.assert_allclose(
        mixture_log_likelihood(points, centers, deviation), logsumexp(each, axis=1) - np.log(4), rtol=1e-12
    )


@pytest.mark.parametrize(
    ("points", "centers", "deviation"), [((2, 3), (2, 2), 1.0), ((2,), (2, 2), 1.0), ((2, 2), (1, 2), 0.0)]
)
def test_what_is_no_mixture_of_such_points(points, centers, deviation) -> None:
    with pytest.raises(DataError, match="deviation above 0"):
        mixture_log_likelihood(np.zeros(points), np.zeros(centers), deviation)
