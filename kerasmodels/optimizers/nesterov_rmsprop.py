"""RMSProp with Nesterov momentum, and the first-order rules of the Deep Learning book with its constants."""

from collections.abc import Callable
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class NesterovRMSprop(keras.optimizers.Optimizer):
    """RMSProp with Nesterov momentum: the gradient is taken where momentum leads, and scaled by its mean square.

    r <- rho r + (1 - rho) g^2;  v <- momentum v - rate g / sqrt(r + epsilon);  w <- w + v, with g at w + momentum v.
    As with Keras' SGD, what the model holds is the point that looks ahead, w + momentum v, where gradients are taken.

    Args:
        learning_rate: a number or a schedule.
        rho: decay of the mean square, 0-1.
        momentum: alpha, 0-1.
        epsilon: delta, within the square root.
        **kwargs: as any Keras optimizer's.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile(NesterovRMSprop(1e-2), "mse")

    Reference:
        Goodfellow, Bengio, Courville 2016, algorithm 8.6.
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        rho: float = 0.9,
        momentum: float = 0.9,
        epsilon: float = 1e-6,
        name: str = "nesterov_rmsprop",
        **kwargs: Any,
    ):
        super().__init__(learning_rate=learning_rate, name=name, **kwargs)
        self.rho, self.momentum, self.epsilon = float(rho), float(momentum), float(epsilon)

    def build(self, variables: Any) -> None:
        if self.built:
            return
        super().build(variables)
        self._squares = self.add_optimizer_variables(variables, "mean_square")
        self._velocities = self.add_optimizer_variables(variables, "velocity")

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        square, velocity = self._squares[index], self._velocities[index]
        gradient = ops.cast(gradient, variable.dtype)
        rate = ops.cast(learning_rate, variable.dtype)
        self.assign(square, self.rho * square + (1 - self.rho) * ops.square(gradient))
        down = rate * gradient * ops.rsqrt(square + self.epsilon)
        self.assign(velocity, self.momentum * velocity - down)
        self.assign_add(variable, self.momentum * velocity - down)

    def get_config(self) -> dict[str, Any]:
        own = {"rho": self.rho, "momentum": self.momentum, "epsilon": self.epsilon}
        return {**super().get_config(), **own}


@keras.saving.register_keras_serializable("kerasmodels")
class BookAdam(keras.optimizers.Adam):
    """Adam as printed: the moments are corrected, and then epsilon is added to the root.

    Keras folds both corrections into the rate, which makes epsilon larger in the first steps, and rounds the betas to
    float32.

    Args:
        As `keras.optimizers.Adam`, but for amsgrad. epsilon is 1e-8.

    Reference:
        Kingma, Ba 2015, algorithm 1; Goodfellow, Bengio, Courville 2016, algorithm 8.7.
    """

    def __init__(self, learning_rate: Any = 1e-3, epsilon: float = 1e-8, **kwargs: Any):
        super().__init__(learning_rate, epsilon=epsilon, **kwargs)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        index = self._get_variable_index(variable)
        first, second = self._momentums[index], self._velocities[index]
        gradient, rate = ops.cast(gradient, variable.dtype), ops.cast(learning_rate, variable.dtype)
        step = ops.cast(self.iterations + 1, variable.dtype)
        self.assign(first, self.beta_1 * first + (1 - self.beta_1) * gradient)
        self.assign(second, self.beta_2 * second + (1 - self.beta_2) * ops.square(gradient))
        mean = first / (1 - self.beta_1**step)
        self.assign_sub(variable, rate * mean / (ops.sqrt(second / (1 - self.beta_2**step)) + self.epsilon))


def _sgd(learning_rate: float = 1e-2, steps: int | None = None) -> keras.optimizers.Optimizer:
    """Algorithm 8.1; with `steps`, the rate falls linearly to 1 % by that step and stays there (8.14)."""
    rate: Any = learning_rate
    if steps is not None:
        rate = keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.01 * learning_rate, power=1.0)
    return keras.optimizers.SGD(rate)


def _momentum(learning_rate: float = 1e-2) -> keras.optimizers.Optimizer:
    """Algorithm 8.2, alpha 0.9."""
    return keras.optimizers.SGD(learning_rate, momentum=0.9)


def _nesterov(learning_rate: float = 1e-2) -> keras.optimizers.Optimizer:
    """Algorithm 8.3, alpha 0.9."""
    return keras.optimizers.SGD(learning_rate, momentum=0.9, nesterov=True)


def _adagrad(learning_rate: float = 1e-2) -> keras.optimizers.Optimizer:
    """Algorithm 8.4: the sum of squares begins at 0 (Keras' at 0.1), delta 1e-7 beside the root: 1e-14 within."""
    return keras.optimizers.Adagrad(learning_rate, initial_accumulator_value=0.0, epsilon=1e-14)


def _rmsprop(learning_rate: float = 1e-3) -> keras.optimizers.Optimizer:
    """Algorithm 8.5, rho 0.9, delta 1e-6."""
    return keras.optimizers.RMSprop(learning_rate, rho=0.9, epsilon=1e-6)


BOOK: dict[str, Callable[..., keras.optimizers.Optimizer]] = {
    "sgd": _sgd,
    "momentum": _momentum,
    "nesterov": _nesterov,
    "adagrad": _adagrad,
    "rmsprop": _rmsprop,
    "nesterov_rmsprop": NesterovRMSprop,
    "adam": BookAdam,
}
"""Name -> (learning_rate) -> a fresh optimizer for `compile`, with the book's constants (Goodfellow, Bengio, Courville
2016, algorithms 8.1 to 8.7)."""
