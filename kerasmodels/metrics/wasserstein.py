"""Exact distances between samples: what a critic can only estimate."""

import numpy as np

from kerasmodels.errors import DataError


def wasserstein(a: np.ndarray, b: np.ndarray) -> float:
    """The exact earth mover's distance (W1, Euclidean) between two samples.

    On a line by sorting; in more dimensions by the best one-to-one assignment, whose time grows with the cube of the
    number of points: about a second for 1,000.

    Args:
        a, b: (N,) and (M,), or (N, D) and (N, D): points, each of the same weight; any unit.

    Returns:
        The distance, in the unit of the points.

    Raises:
        DataError: the shapes do not fit together, a sample is empty, or a value is not finite.

    Example:
        >>> import kerasmodels as km
        >>> km.metrics.wasserstein([0, 1, 3], [5, 6, 8])
        5.0
        >>> km.metrics.wasserstein([[0, 0], [0, 1]], [[3, 5], [3, 4]])
        5.0

    Reference:
        Arjovsky et al. 2017, equation 1.
    """
    from scipy.optimize import linear_sum_assignment
    from scipy.spatial.distance import cdist
    from scipy.stats import wasserstein_distance

    a, b = np.asarray(a, "float64"), np.asarray(b, "float64")
    line = a.ndim == b.ndim == 1
    if not line and not (a.ndim == b.ndim == 2 and a.shape == b.shape):
        raise DataError(
            "expected points on a line, (N,) and (M,), or as many points in both samples, (N, D) and (N, D). "
            f"Received shapes: {a.shape} and {b.shape}."
        )
    if not a.size or not b.size or not np.isfinite(a).all() or not np.isfinite(b).all():
        raise DataError(f"expected samples of finite numbers, none empty. Received shapes: {a.shape} and {b.shape}.")
    if line:
        return float(wasserstein_distance(a, b))
    costs = cdist(a, b)
    return float(costs[linear_sum_assignment(costs)].mean())


def covered_modes(points: np.ndarray, centers: np.ndarray, radius: float, least: int = 1) -> tuple[int, float]:
    """How many modes a sample reaches, and what part of the sample lies on one.

    Args:
        points: (N, D).
        centers: (K, D), the modes.
        radius: a point belongs to the nearest mode if it is no further from it than this; the points' unit.
        least: so many points make a mode covered.

    Returns:
        Modes covered, 0 to K, and the part of all points that belong to a mode, 0-1.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> km.metrics.covered_modes(np.array([[0.1, 0], [9, 9]]), np.array([[0, 0], [5, 5]]), radius=1)
        (1, 0.5)
    """
    distances = np.linalg.norm(np.asarray(points)[:, None] - np.asarray(centers)[None], axis=-1)
    nearest, near = distances.argmin(1), distances.min(1) <= radius
    counts = np.bincount(nearest[near], minlength=len(centers))
    return int((counts >= least).sum()), float(near.mean())
