"""Optimization for training: classic methods on functions that can be drawn, and on a model of your own.

Goodfellow, Bengio, Courville: Deep Learning, MIT Press, 2016, chapter 8; Nocedal, Wright: Numerical Optimization, 2006.

Reproduced: every first-order rule of the chapter, conjugate gradients, Newton's method, BFGS and L-BFGS, coordinate
descent, Polyak averaging, greedy pretraining and continuation, in `kerasmodels.optimizers`; what theory says of each,
and a network for the Burgers equation that needs L-BFGS.

| departure from the book | why |
|---|---|
| Newton's equation is solved by conjugate gradients on Hessian-vector products | no matrix, any number of weights |
| a line search satisfies the strong Wolfe conditions, where the book says only "line search" | what L-BFGS needs |
| Nesterov's rules keep the point that looks ahead, as Keras does | gradients are taken where the weights are |
| delta of AdaGrad lies within the square root, as its square | where Keras has it; equal to seven digits |

There is nothing to train: the model is a test function with its gradient.
"""

from collections.abc import Mapping
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasmodels import config as base
from kerasmodels.config import Positive
from kerasmodels.family import Family, Servable, Task, TensorSpec
from kerasmodels.paper_model import PaperModel
from kerasmodels.tasks.compare_optimizers import OBJECTIVES, CompareOptions, compare

__all__ = ["Config", "ObjectiveFunction"]


class Config(base.Config):
    """Which test function."""

    objective: Literal["rosenbrock", "quadratic", "beale"] = "rosenbrock"
    """Rosenbrock's valley, a quadratic bowl, or Beale's function."""
    scale: Positive = 1.0
    """Factor of the values."""


VARIANTS = {
    "paper": Config(),
    "quadratic": Config(objective="quadratic"),
    "beale": Config(objective="beale"),
}


@keras.saving.register_keras_serializable("kerasmodels")
class ObjectiveFunction(PaperModel):
    """A test function of two variables.

    Shapes:
        (N, 2) -> (N,), float32.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> float(km.models.ObjectiveFunction()(np.array([[-1.0, 1.0]], "float32"))[0])
        4.0

    Reference:
        Rosenbrock 1960; Beale 1958.
    """

    Config = Config
    family_name = "optimization"

    def call(self, inputs: Any) -> Any:
        return self.config.scale * OBJECTIVES[self.config.objective].function(tf.cast(inputs, tf.float32))


def _servables(model: ObjectiveFunction) -> dict[str, Servable]:
    objective = OBJECTIVES[model.config.objective]

    def values(points: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"values": model(points)}

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        low, high = objective.window
        points = np.random.default_rng(seed).uniform(low, high, (dims["batch"], 2))
        return {"points": points.astype("float32")}

    return {
        "values": Servable(
            call=values,
            model=model,
            inputs=(TensorSpec("points", ("batch", 2), "float32", "points of the plane"),),
            outputs=(TensorSpec("values", ("batch",), "float32", "the function there", atol=0.05),),
            example=example,
            dims={"batch": 1},
            check_dims=({"batch": 3},),
            doc=f"{model.config.objective}: a test function for optimizers",
        ),
    }


FAMILY = Family(
    name="optimization",
    config=Config,
    variants=VARIANTS,
    model=ObjectiveFunction,
    servables=_servables,
    task=Task(CompareOptions, compare),
)
