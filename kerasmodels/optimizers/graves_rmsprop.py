"""RMSProp as Graves trains recurrent networks: centered, with momentum."""

from typing import Any

import keras


@keras.saving.register_keras_serializable("kerasmodels")
class GravesRMSprop(keras.optimizers.RMSprop):
    """RMSProp that divides by a running standard deviation of the gradient, with momentum.

    n <- rho n + (1 - rho) d^2;  g <- rho g + (1 - rho) d;  v <- momentum v - rate d / sqrt(n - g^2 + epsilon);
    w <- w + v. That is Keras' own with `centered=True`, whose epsilon is inside the root; here its constants are the
    papers'.

    Args:
        learning_rate: a number or a schedule.
        rho, momentum, epsilon: as above.
        **kwargs: as `keras.optimizers.RMSprop`. Graves clips each element of a gradient: `clipvalue=10.0`.

    Example:
        >>> import kerasmodels as km
        >>> km.optimizers.GravesRMSprop(clipvalue=10.0).momentum
        0.9

    Reference:
        Graves: Generating Sequences With Recurrent Neural Networks, 2013, equations 38 to 41.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-4,
        rho: float = 0.95,
        momentum: float = 0.9,
        epsilon: float = 1e-4,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, rho, momentum, epsilon, **{**kwargs, "centered": True})
