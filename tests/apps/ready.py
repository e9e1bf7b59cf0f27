"""A whole family that has nothing to train."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmodels import registry
from kerasmodels.config import Config as Base
from kerasmodels.config import Positive
from kerasmodels.family import Family, RunReport, Servable, Task, TensorSpec

if TYPE_CHECKING:
    import keras

ROW = registry.Row("ready", (), "Nobody: On Less, 2026", "double numbers", trains=False, module=__name__)


class Config(Base):
    """A factor."""

    factor: Positive = 2.0
    """Of the numbers (paper: 2)."""


class RunOptions(Base):
    """Double a number."""

    number: float = 1.0
    """The number."""


def model(config: Config) -> "keras.Model":
    import keras

    inputs = keras.Input((None,), name="numbers")
    net = keras.Model(inputs, keras.layers.Rescaling(config.factor)(inputs), name="ready")
    net.family_name, net.config = "ready", config
    return net


def servables(net: "keras.Model") -> Mapping[str, Servable]:
    def example(dims: Mapping[str, int], seed: int) -> dict[str, Any]:
        return {"numbers": np.random.default_rng(seed).random((dims["batch"], dims["count"]), "float32")}

    shape = ("batch", "count")
    return {
        "double": Servable(
            call=lambda numbers: {"doubled": net(numbers)},
            model=net,
            inputs=(TensorSpec("numbers", shape, "float32", "numbers, 0-1"),),
            outputs=(TensorSpec("doubled", shape, "float32", "numbers, 0-2"),),
            example=example,
            dims={"batch": 1, "count": 3},
            doc="Doubles numbers.",
        )
    }


FAMILY = Family(
    name="ready",
    config=Config,
    variants={"paper": Config()},
    model=model,
    servables=servables,
    task=Task(RunOptions, lambda options: RunReport((), {"doubled": 2 * options.number})),
)
EXPERIMENTS: dict = {}
