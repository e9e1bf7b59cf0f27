"""SGD as Caffe does it: a learning rate for each kind of weight, and weight decay as a part of the gradient."""

from collections.abc import Mapping
from typing import Any, Literal

import keras
from keras import ops

from kerasmodels.training import devices


def caffe_rate(
    learning_rate: float, policy: Literal["constant", "step", "poly"], steps: int, step_every: int, power: float = 0.9
) -> Any:
    """A learning rate by Caffe's policies, for each step anew.

    Args:
        learning_rate: of the first step.
        policy: constant; step, a tenth every `step_every` steps; poly, (1 - step / steps)^power.
        steps: of the whole training.
        step_every: see `policy`.
        power: see `policy` (ParseNet, DeepLab v2: 0.9).

    Returns:
        A number, or a schedule.

    Example:
        >>> round(float(caffe_rate(1e-3, "poly", steps=100, step_every=1)(50)), 6)  # 1e-3 * 0.5 ** 0.9
        0.000536
    """
    if policy == "step":
        return keras.optimizers.schedules.ExponentialDecay(learning_rate, step_every, 0.1, staircase=True)
    if policy == "poly":
        return keras.optimizers.schedules.PolynomialDecay(learning_rate, steps, 0.0, power=power)
    return float(learning_rate)


@keras.saving.register_keras_serializable("kerasmodels")
class LayerwiseSGD(keras.optimizers.SGD):
    """SGD with momentum whose learning rate is multiplied variable by variable.

    v <- momentum v - factor rate (gradient + decay w);  w <- w + v. The decay spares biases, as Caffe's recipes for
    segmentation do (`decay_mult: 0`).

    Args:
        learning_rate: a number or a schedule.
        momentum: 0-1.
        decay: of weights that are no biases (papers: 5e-4).
        factors: part of a variable's path -> factor of its learning rate; all that fit are multiplied. Caffe's biases
            learn twice as fast: {"bias": 2}; DeepLab's last layer ten times: {"bias": 2, "head/": 10}.
        **kwargs: as `keras.optimizers.SGD`, but for nesterov and weight_decay.

    Example:
        >>> import kerasmodels as km
        >>> km.optimizers.LayerwiseSGD(1e-3, 0.9, 5e-4, {"bias": 2, "head/": 10}).factor("net/head/conv/bias")
        20.0

    Reference:
        Yu, Koltun 2016 and Chen et al. 2016 (released solvers).
    """

    def __init__(
        self,
        learning_rate: Any = 1e-3,
        momentum: float = 0.9,
        decay: float = 0.0,
        factors: Mapping[str, float] | None = None,
        **kwargs: Any,
    ):
        super().__init__(learning_rate, momentum, **kwargs)
        self.decay, self.factors = float(decay), dict(factors or {})

    def factor(self, path: str) -> float:
        """What the learning rate of the variable with this path is multiplied by."""
        product = 1.0
        for part, factor in self.factors.items():
            product *= factor if part in path else 1.0
        return product

    def apply(self, grads: Any, trainable_variables: Any = None) -> Any:
        # Keras clips each device's gradients and adds them up afterwards: of what is clipped here it sees equal parts.
        if devices.count() > 1 and (self.clipnorm or self.global_clipnorm or self.clipvalue):
            grads = list(grads)
            there = [i for i, gradient in enumerate(grads) if gradient is not None]
            whole = self._clip_gradients(devices.sum_over_devices([grads[i] for i in there]))
            for i, gradient in zip(there, whole, strict=True):
                grads[i] = gradient / devices.count()
        return super().apply(grads, trainable_variables)

    def update_step(self, gradient: Any, variable: Any, learning_rate: Any) -> None:
        # What comes here may be TensorFlow's variable, which has no path.
        path = self._trainable_variables[self._get_variable_index(variable)].path
        if self.decay and not path.endswith("bias"):
            gradient = ops.add(gradient, ops.multiply(ops.cast(self.decay, gradient.dtype), variable))
        super().update_step(gradient, variable, ops.multiply(learning_rate, self.factor(path)))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay, "factors": self.factors}
