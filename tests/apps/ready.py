"""A whole family that has nothing to train."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from kerasmodels import registry
from kerasmodels.family import Family, RunReport, Servable, TensorSpec, check

if TYPE_CHECKING:
    import keras

ROW = registry.Row("ready", __name__, "Nobody: On Less, 2026", "double numbers", trains=False)


@dataclass(frozen=True)
class Config:
    """A factor."""

    factor: float = 2.0
    """Of the numbers (paper: 2)."""

    def validate(self) -> None:
        """Raise UsageError if a value is out of range."""
        check(self.factor > 0, "factor > 0", self.factor)


@dataclass(frozen=True)
class RunOptions:
    """Double a number."""

    number: float = 1.0
    """The number."""


def model(config: Config) -> "keras.Model":
    import keras

    inputs = keras.Input((None,), name="numbers")
    net = keras.Model(inputs, keras.layers.Rescaling(config.factor)(inputs), name="ready")
    net.family_name, net.config = "ready", config
    return net


def servables(net: "keras.Model", config: Config) -> Mapping[str, Servable]:
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
    build=None,
    datasets=None,
    servables=servables,
    run_options=RunOptions,
    run=lambda options: RunReport((), {"doubled": 2 * options.number}),
    experiments={},
)
