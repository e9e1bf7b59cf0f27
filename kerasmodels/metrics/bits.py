"""How many bits a model needs to say a sequence."""

from typing import Any

import numpy as np
from keras import ops


def bits_per_sequence(targets: Any, logits: Any, weights: Any) -> Any:
    """The code length of each sequence of target bits under a model: its cross-entropy in bits, added up.

    Neither an average over bits, nor a count of wrong ones: a model that knows nothing needs a bit for each bit.

    Args:
        targets: (N, T, K), 0 or 1.
        logits: (N, T, K) of their probabilities to be 1.
        weights: (N, T): 1 for the steps that count, else 0.

    Returns:
        (N,) float32.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> float(km.metrics.bits_per_sequence(np.ones((1, 5, 8)), np.zeros((1, 5, 8)), np.ones((1, 5)))[0])
        40.0
    """
    targets, logits = ops.cast(targets, "float32"), ops.cast(logits, "float32")
    nats = ops.softplus(logits) - targets * logits
    return ops.sum(ops.sum(nats, axis=2) * ops.cast(weights, "float32"), axis=1) / float(np.log(2.0))
