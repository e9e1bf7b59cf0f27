"""How likely points are under a mixture of Gaussians that is known exactly."""

import numpy as np

from kerasmodels.errors import DataError, KerasModelsError


def mixture_log_likelihood(points: np.ndarray, centers: np.ndarray, deviation: float) -> np.ndarray:
    """The exact log-likelihood of each point under equal, round Gaussians, by TensorFlow Probability.

    Args:
        points: (N, D).
        centers: (K, D), of the Gaussians, each as likely as the others.
        deviation: of all of them, the points' unit.

    Returns:
        (N,) float64, nats.

    Raises:
        DataError: points and centers of different dimensions, or a deviation that is not above 0.
        KerasModelsError: TensorFlow Probability is not installed.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> km.metrics.mixture_log_likelihood(np.zeros((1, 2)), np.zeros((1, 2)), 1.0).round(4)
        array([-1.8379])
    """
    points, centers = np.asarray(points, "float64"), np.asarray(centers, "float64")
    if points.ndim != 2 or centers.ndim != 2 or points.shape[1] != centers.shape[1] or not deviation > 0:
        raise DataError(
            "expected points (N, D), centers (K, D) and a deviation above 0. "
            f"Received shapes: {points.shape} and {centers.shape}, {deviation}."
        )
    try:
        import tensorflow_probability as tfp
    except ImportError as error:
        raise KerasModelsError(
            f"exact likelihoods need TensorFlow Probability ({error}). Install it: pip install 'kerasmodels[prob]'"
        ) from error
    mixture = tfp.distributions.MixtureSameFamily(
        tfp.distributions.Categorical(logits=np.zeros(len(centers))),
        tfp.distributions.MultivariateNormalDiag(centers, np.full(centers.shape, float(deviation))),
    )
    return mixture.log_prob(points).numpy()
