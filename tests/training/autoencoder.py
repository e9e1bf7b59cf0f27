"""A real family, small enough for tests: a convolutional autoencoder with dropout and two named loss terms."""

from collections.abc import Mapping
from dataclasses import field
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.config import Config as Options
from kerasmodels.config import PositiveInt, TrainingConfig
from kerasmodels.family import Family, Servable, Task, TensorSpec, stream

SIZE = 16


class Config(TrainingConfig):
    """`poison` is the step whose pictures hold a NaN; 0 for none. `note` stands for any text a user may give."""

    steps: PositiveInt = 12
    batch: PositiveInt = 2
    learning_rate: float = 1e-2
    seed: int = 5
    poison: int = 0
    note: str | None = 'a "quoted" \\ path\n\x7f é 🎨'
    widths: tuple[int, ...] = (4, 8)
    schedule: Mapping[str, float] = field(default_factory=dict)


@keras.saving.register_keras_serializable("kerasmodels_tests")
class Autoencoder(keras.Model):
    """Two named terms, and a state beside the variables: the running mean brightness of what it saw."""

    learning_rate = 1e-2

    def __init__(self, *args: Any, **kwargs: Any):
        super().__init__(*args, **kwargs)
        self.terms = {name: keras.metrics.Mean(name) for name in ("content", "smoothness")}
        self.seen: list[float] = []

    def initialize(self) -> None:
        """It begins at random."""

    def compile(self, optimizer: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer or keras.optimizers.Adam(self.learning_rate), **kwargs)

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None, training=True):  # type: ignore[no-untyped-def]
        content = keras.ops.mean(keras.ops.square(y_pred - x))
        smoothness = 0.01 * keras.ops.mean(keras.ops.square(y_pred[:, 1:] - y_pred[:, :-1]))
        self.terms["content"].update_state(content)
        self.terms["smoothness"].update_state(smoothness)
        return content + smoothness

    def train_step(self, data):  # type: ignore[no-untyped-def]
        # Python's and NumPy's random states decide the training too.
        tf.py_function(lambda: self.seen.append(float(np.random.rand())), [], [])
        return super().train_step(data)

    def training_state(self) -> dict[str, np.ndarray]:
        return {"seen": np.array(self.seen)}

    def set_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        self.seen = state["seen"].tolist()


def model(config: Config, dtype: str | None = None) -> keras.Model:
    inputs = x = keras.Input((SIZE, SIZE, 3), name="picture")
    for width in config.widths:
        x = keras.layers.Conv2D(width, 3, padding="same", activation="relu")(x)
        x = keras.layers.BatchNormalization()(x)
        x = keras.layers.Dropout(0.2)(x)
    made = Autoencoder(inputs, keras.layers.Conv2D(3, 3, padding="same")(x))
    made.config, made.learning_rate = config, config.learning_rate
    return made


def batches(config: Config, start: int) -> tf.data.Dataset:
    """Smooth random pictures in 0-1, each decided by its number in the stream."""

    def picture(number: tf.Tensor) -> tf.Tensor:
        coarse = tf.random.stateless_uniform((4, 4, 3), tf.stack([config.seed, tf.cast(number, tf.int32)]))
        fine = tf.image.resize(coarse, (SIZE, SIZE))
        return tf.where(number // config.batch + 1 == config.poison, np.nan, fine)

    numbers = tf.data.Dataset.range(start * config.batch, np.iinfo(np.int64).max)
    return numbers.map(picture, num_parallel_calls=2).batch(config.batch, drop_remainder=True)


def preview(net: Any) -> dict[str, np.ndarray]:
    picture = next(iter(batches(net.config, 0)))[:1]
    rebuilt = net(picture, training=False).numpy()[0]
    return {
        "rebuilt": np.uint8(np.clip(np.nan_to_num(rebuilt), 0, 1) * 255),
        "original": np.uint8(np.nan_to_num(picture[0]) * 255),
    }


def servables(net: keras.Model) -> dict[str, Servable]:
    shape = ("batch", SIZE, SIZE, 3)
    return {
        "rebuild": Servable(
            call=lambda picture: {"rebuilt": net(picture, training=False)},
            model=net,
            inputs=(TensorSpec("picture", shape, "float32", "RGB, 0-1"),),
            outputs=(TensorSpec("rebuilt", shape, "float32", "RGB, 0-1"),),
            example=lambda dims, seed: {
                "picture": np.random.default_rng(seed).random((dims["batch"], SIZE, SIZE, 3), np.float32)
            },
            dims={"batch": 1},
        )
    }


def run(options: Any) -> Any:
    raise NotImplementedError("training never runs a family on files")


FAMILY = Family(
    name="autoencoder",
    config=Config,
    variants={"paper": Config()},
    model=model,
    servables=servables,
    task=Task(Options, run),
    source=stream(batches),
    preview=preview,
)
