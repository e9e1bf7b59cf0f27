"""A whole family that trains in seconds. `python tests/apps/tiny.py ...` is the command line with only that family."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from kerasmodels import registry
from kerasmodels.config import Config as Base
from kerasmodels.config import PositiveInt, TrainingConfig
from kerasmodels.errors import DataError
from kerasmodels.family import Claim, Experiment, Family, RunReport, Servable, Task, TensorSpec, stream

if TYPE_CHECKING:
    import keras
    import tensorflow as tf

ROW = registry.Row("tiny", (), "Nobody: On Nothing, 2026", "learn to copy noise", module=__name__)


class Config(TrainingConfig):
    """One convolution."""

    steps: PositiveInt = 6
    """Training steps."""
    batch: PositiveInt = 2
    """Pictures per step."""
    learning_rate: float = 0.01
    """Of SGD (paper: 0.01)."""
    layers: tuple[str, ...] = ("a", "b")
    """Names without effect."""
    bias: bool = True
    """Whether the convolution has one."""


class RunOptions(Base):
    """Count the bytes of a file."""

    file: tyro.conf.Positional[Path]
    """The file."""
    out: Path = Path("count.txt")
    """Where to write their number."""


def model(config: Config, dtype: str | None = None) -> "keras.Model":
    import keras

    class Tiny(keras.Model):
        def initialize(self) -> None:
            """It begins at random."""

        def compile(self, optimizer: Any = None, loss: Any = "mse", **kwargs: Any) -> None:
            super().compile(optimizer or keras.optimizers.SGD(config.learning_rate), loss, **kwargs)

    keras.utils.set_random_seed(config.seed)
    inputs = keras.Input((None, None, 3), name="image")
    # Named, because automatic names count up within a process, and weights are kept by name.
    outputs = keras.layers.Conv2D(3, 3, padding="same", use_bias=config.bias, name="copy")(inputs)
    return Tiny(inputs, outputs, name="tiny")


def batches(config: Config, start: int = 0) -> "tf.data.Dataset":
    import tensorflow as tf

    def batch(index: Any) -> tuple[Any, Any]:
        noise = tf.random.stateless_uniform((config.batch, 8, 8, 3), seed=(config.seed, index))
        return noise, noise

    return tf.data.Dataset.counter(start, dtype=tf.int32).map(batch)


def servables(net: "keras.Model") -> Mapping[str, Servable]:
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


def _passes(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    import numpy as np

    (figures / "figure.txt").write_text("quick" if quick else "full")
    return [
        Claim("one", "one is one", "1", np.float32(1.5), at_least=1),
        Claim("two", "two is measured", "2", 2.0),
    ]


def _needs_data(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    if data is None:
        raise DataError("expected a folder at --data. Received: none.")
    return [Claim("files", "there are files", "many", float(len(list(data.iterdir()))), at_least=2)]


FAMILY = Family(
    name="tiny",
    config=Config,
    variants={"paper": Config(), "quick": Config(steps=2, layers=("q",)), "blunt": Config(bias=False)},
    model=model,
    servables=servables,
    task=Task(RunOptions, run),
    source=stream(batches),
)
EXPERIMENTS = {
    "one": Experiment("that one is one", _passes),
    "files": Experiment("that there are files", _needs_data),
}

if __name__ == "__main__":
    from kerasmodels.apps.cli import main

    # As a script this module is __main__, and the registry finds families by the name of their module.
    sys.path.insert(0, str(Path(__file__).parent))
    registry.ROWS = (registry.Row("tiny", (), ROW.paper, ROW.line, module="tiny"),)
    sys.exit(main())
