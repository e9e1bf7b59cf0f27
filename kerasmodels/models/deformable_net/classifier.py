"""Which digit a picture shows."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import layers
from PIL import Image, ImageDraw

from kerasmodels.data.digits import SIDE, read_digits, warped
from kerasmodels.family import Datasets, Servable, TensorSpec, config_to_dict
from kerasmodels.models.deformable_net.config import CLASSES, Config
from kerasmodels.models.deformable_net.drawings import looked_at, middle
from kerasmodels.models.deformable_net.trunk import adam, config_of, trunk
from kerasmodels.training import devices


def _network(config: Config, dtype: str) -> keras.Model:
    """(N, H, W, 1) 0-255 -> (N, 10) probabilities; the trunk, and the mean over H and W."""
    inputs = keras.Input((None, None, 1), name="digits")
    x = trunk(config, layers.Rescaling(1 / 255, dtype=dtype, name="scale")(inputs), dtype)
    x = layers.GlobalAveragePooling2D(dtype=dtype, name="pool")(x)
    x = layers.Dense(CLASSES, dtype=dtype, name="classes")(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32", name="probabilities")(x), name="network")


def _freeze(network: keras.Model, trained: str) -> None:
    """Leave trainable what `Config.trained` says."""
    if trained == "all":
        return
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = "normalization" in trained
        else:
            for variable in layer.weights:
                variable.trainable = "offsets" in trained and variable.name.startswith("offset_")


@keras.saving.register_keras_serializable("kerasmodels")
class DeformableNet(devices.SharesBatches, keras.Model):
    """The classifier.

    Args:
        config: a `DeformableNet.Config` (or its values as a dict).
        precision: dtype policy of the layers.

    Shapes:
        (N, H, W, 1), 0-255, white on black -> (N, 10) probabilities; trained at 28 x 28.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> config = km.models.DeformableNet.Config(filters=(4, 8), strides=(2, 2), deformable=1)
        >>> tuple(km.models.DeformableNet(config)(np.zeros((2, 28, 28, 1), "float32")).shape)
        (2, 10)
    """

    Config: TypeAlias = Config
    family_name = "deformable_net"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "deformable_net", **kwargs})
        self.config = config_of(config)
        self.precision = precision
        self.network = _network(self.config, precision)
        _freeze(self.network, self.config.trained)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def model(config: Config) -> DeformableNet:
    """The classifier with its first weights."""
    return DeformableNet(config, precision=config.precision)


def build(config: Config) -> DeformableNet:
    """The model with Adam and cross entropy, ready for `fit`."""
    classifier = model(config)
    # XLA makes convolutions slower on CPUs; what it is good for is compiled by itself inside the layer.
    classifier.compile(
        adam(config),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return classifier


def datasets(config: Config, start: int = 0) -> Datasets:
    pictures, labels = read_digits(config.digits, "train")

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seed = tf.stack([tf.cast(config.seed, tf.int64), number])
        rows = tf.random.stateless_uniform((config.batch,), seed, 0, len(labels), tf.int32)
        return warped(tf.gather(pictures, rows), config.warp, seed + 1), tf.gather(labels, rows)

    numbers = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    train = numbers.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)
    return Datasets(train, held_out(config))


def held_out(config: Config, most: int | None = None) -> tf.data.Dataset:
    """The test digits, warped once and for all."""
    pictures, labels = (array[:most] for array in read_digits(config.digits, "test"))
    moved = warped(tf.constant(pictures), config.warp, tf.constant([7, 7], tf.int64))
    return tf.data.Dataset.from_tensor_slices((moved, labels)).batch(250)


def servables(model: DeformableNet, config: Config) -> dict[str, Servable]:
    network = model.network

    def classify(digits: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.cast(network(tf.cast(digits, tf.float32), training=False), tf.float32)}

    return {
        "classify": Servable(
            call=classify,
            model=network,
            inputs=(
                TensorSpec(
                    "digits", ("batch", "height", "width", 1), "uint8", "handwritten digits, white on black, 0-255"
                ),
            ),
            outputs=(TensorSpec("probabilities", ("batch", CLASSES), "float32", "of the classes 0 to 9"),),
            example=_example_digits,
            dims={"batch": 1, "height": SIDE, "width": SIDE},
            check_dims=({"batch": 2, "height": 33, "width": 30},),
            doc="tells which handwritten digit a picture shows, by deformable convolutions",
        )
    }


def _example_digits(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Strokes of random direction."""
    random = np.random.default_rng(seed)
    n, height, width = (dims[name] for name in ("batch", "height", "width"))
    found = np.zeros((n, height, width, 1), "uint8")
    for picture in found:
        drawing = Image.new("L", (width, height))
        points = [tuple(random.uniform(0.15, 0.85, 2) * (width, height)) for _ in range(4)]
        ImageDraw.Draw(drawing).line(points, fill=255, width=max(2, height // 10), joint="curve")
        picture[..., 0] = np.asarray(drawing)
    return {"digits": found}


def preview(model: DeformableNet, config: Config) -> dict[str, np.ndarray]:
    """Test digits with the places that the last deformable convolution looks at."""
    pictures, _ = next(iter(held_out(config, most=3)))
    shown = [looked_at(model.network, picture, middle(picture)) for picture in np.asarray(pictures)]
    return {"samples": np.concatenate(shown, axis=1)}
