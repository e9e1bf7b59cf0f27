"""A whole family that trains in seconds. `python tests/apps/tiny.py ...` is the command line with only that family."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from kerasmodels import registry
from kerasmodels.errors import DataError
from kerasmodels.family import Datasets, Experiment, Family, Row, RunReport, Servable, TensorSpec, check

if TYPE_CHECKING:
    import keras

ROW = registry.Row("tiny", __name__, "Nobody: On Nothing, 2026", "learn to copy noise")


@dataclass(frozen=True)
class Config:
    """One convolution."""

    steps: int = 6
    """Training steps."""
    batch: int = 2
    """Pictures per step."""
    learning_rate: float = 0.01
    """Of SGD (paper: 0.01)."""
    seed: int = 0
    """Of everything random."""
    layers: tuple[str, ...] = ("a", "b")
    """Names without effect."""
    bias: bool = True
    """Whether the convolution has one."""

    def validate(self) -> None:
        """Raise UsageError if a value is out of range."""
        check(self.steps >= 1, "steps to be at least 1", self.steps)


@dataclass(frozen=True)
class RunOptions:
    """Count the bytes of a file."""

    file: tyro.conf.Positional[Path]
    """The file."""
    out: Path = Path("count.txt")
    """Where to write their number."""


def model(config: Config) -> "keras.Model":
    import keras

    keras.utils.set_random_seed(config.seed)
    inputs = keras.Input((None, None, 3), name="image")
    # Named, because automatic names count up within a process, and weights are kept by name.
    outputs = keras.layers.Conv2D(3, 3, padding="same", use_bias=config.bias, name="copy")(inputs)
    return keras.Model(inputs, outputs, name="tiny")


def build(config: Config) -> "keras.Model":
    import keras

    built = model(config)
    built.compile(keras.optimizers.SGD(config.learning_rate), "mse")
    return built


def datasets(config: Config, start: int = 0) -> Datasets:
    import tensorflow as tf

    def batch(index: Any) -> tuple[Any, Any]:
        noise = tf.random.stateless_uniform((config.batch, 8, 8, 3), seed=(config.seed, index))
        return noise, noise

    return Datasets(tf.data.Dataset.counter(start, dtype=tf.int32).map(batch))


def servables(net: "keras.Model", config: Config) -> Mapping[str, Servable]:
    import numpy as np

    shape = ("batch", "height", "width", 3)

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        shape = (dims["batch"], dims["height"], dims["width"], 3)
        return {"image": np.random.default_rng(seed).random(shape, "float32")}

    return {
        "copy": Servable(
            call=lambda image: {"copied": net(image, training=False)},
            model=net,
            inputs=(TensorSpec("image", shape, "float32", "numbers, 0-1"),),
            outputs=(TensorSpec("copied", shape, "float32", "numbers, about 0-1"),),
            example=example,
            dims={"batch": 1, "height": 8, "width": 8},
            check_dims=({"height": 6, "width": 10},),
            doc="Copies noise.",
        )
    }


def run(options: RunOptions) -> RunReport:
    if options.file.name == "bug":
        raise ZeroDivisionError("a fault of the program")
    if options.file.name == "interrupt":
        raise KeyboardInterrupt
    if not options.file.is_file():
        raise DataError(f"expected a file. Received: {str(options.file)!r}.")
    print("noise on stdout")
    size = options.file.stat().st_size
    options.out.write_text(str(size))
    return RunReport((options.out,), {"bytes": size})


def _passes(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    import numpy as np

    (figures / "figure.txt").write_text("quick" if quick else "full")
    return [Row("one is one", "1", np.float32(1.5), "at least 1", np.bool_(True))]


def _needs_data(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    if data is None:
        raise DataError("expected a folder at --data. Received: none.")
    return [
        Row("there are files", "many", float(len(list(data.iterdir()))), "more than 1", len(list(data.iterdir())) > 1)
    ]


FAMILY = Family(
    name="tiny",
    config=Config,
    variants={"paper": Config(), "quick": Config(steps=2, layers=("q",)), "blunt": Config(bias=False)},
    model=model,
    build=build,
    datasets=datasets,
    servables=servables,
    run_options=RunOptions,
    run=run,
    experiments={
        "one": Experiment("that one is one", _passes),
        "files": Experiment("that there are files", _needs_data),
    },
)

if __name__ == "__main__":
    from kerasmodels.apps.cli import main

    # As a script this module is __main__, and the registry finds families by the name of their module.
    sys.path.insert(0, str(Path(__file__).parent))
    registry.ROWS = (registry.Row("tiny", "tiny", ROW.paper, ROW.line),)
    sys.exit(main())
