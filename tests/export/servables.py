"""Small real servables: picture nets (instance norm as few operators, resize, sizes rounded up) and one over series."""

from collections.abc import Callable, Mapping

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec


@keras.saving.register_keras_serializable("kerasmodels-tests")
class InstanceNorm(keras.layers.Layer):
    """Instance normalization as seven operators."""

    def build(self, shape: tuple[int | None, ...]) -> None:
        self.gamma = self.add_weight(shape=(shape[-1],), initializer="ones")
        self.beta = self.add_weight(shape=(shape[-1],), initializer="zeros")

    def call(self, x: tf.Tensor) -> tf.Tensor:
        mean = keras.ops.mean(x, axis=(1, 2), keepdims=True)
        variance = keras.ops.mean(keras.ops.square(x - mean), axis=(1, 2), keepdims=True)
        return (x - mean) * keras.ops.rsqrt(variance + 1e-5) * self.gamma + self.beta


@keras.saving.register_keras_serializable("kerasmodels-tests")
class Double(keras.layers.Layer):
    """Nearest resize to twice the size, also when the size is not known beforehand."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        size = tf.shape(x)[1:3] * 2
        return tf.image.resize(x, size, method="nearest")


def photo_like(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Smooth colors with edges and a little noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0 : dims["height"], 0 : dims["width"]]
    waves = [128 + 90 * np.sin((x * rng.normal() + y * rng.normal()) / 6 + c) for c in range(3)]
    picture = np.stack(waves, -1)[None] + rng.normal(0, 6, (dims["batch"], dims["height"], dims["width"], 3))
    picture[:, : dims["height"] // 2] *= 0.6
    return {"image": np.clip(picture, 0, 255).astype("uint8")}


def make_picture_servable(
    norm: Callable[[], keras.layers.Layer] = InstanceNorm, call: Callable[..., dict[str, tf.Tensor]] | None = None
) -> Servable:
    """uint8 picture in, uint8 picture of the same (even) size out."""
    keras.utils.set_random_seed(3)
    inputs = x = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 3, padding="same", use_bias=False)(x)
    x = keras.layers.Activation("relu")(norm()(x))
    x = keras.layers.Conv2D(16, 3, strides=2, padding="same", name="down")(x)
    x = keras.layers.Activation("relu")(norm()(x))
    x = Double()(x)
    outputs = keras.layers.Conv2D(3, 3, padding="same", activation="tanh", name="paint")(x)
    model = keras.Model(inputs, outputs, name="picture_net")

    def stylize(image: tf.Tensor) -> dict[str, tf.Tensor]:
        y = model(tf.cast(image, tf.float32) / 127.5 - 1.0, training=False)
        return {"stylized": tf.cast(tf.clip_by_value(tf.round(y * 127.5 + 127.5), 0.0, 255.0), tf.uint8)}

    shape = ("batch", "height", "width", 3)
    return Servable(
        call=call or stylize,
        model=model,
        inputs=(TensorSpec("image", shape, "uint8", "RGB picture, 0-255", kind="image"),),
        outputs=(TensorSpec("stylized", shape, "uint8", "the picture repainted, 0-255", kind="image"),),
        example=photo_like,
        dims={"batch": 1, "height": 32, "width": 40},
        check_dims=({"height": 24, "width": 16}, {"height": 48, "width": 34}),
        doc="A small test net that repaints pictures.",
    )


def make_rounding_servable() -> Servable:
    """Pictures of any size: mirrored up to a multiple of 4, convolved, cut back. Arithmetic on sizes, negative too."""
    keras.utils.set_random_seed(4)
    inputs = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(8, 4, strides=4, activation="tanh")(inputs)
    model = keras.Model(inputs, keras.layers.Conv2DTranspose(3, 4, strides=4, activation="sigmoid")(x))

    def repaint(image: tf.Tensor) -> dict[str, tf.Tensor]:
        x, size = tf.cast(image, tf.float32) / 255.0, tf.shape(image)
        for axis in (1, 2):
            at = tf.range(size[axis] + -size[axis] % 4)
            x = tf.gather(x, tf.minimum(at, 2 * (size[axis] - 1) - at), axis=axis)
        y = model(x, training=False)[:, : size[1], : size[2], :]
        return {"repainted": tf.cast(tf.round(255.0 * y), tf.uint8)}

    shape = ("batch", "height", "width", 3)
    return Servable(
        call=repaint,
        model=model,
        inputs=(TensorSpec("image", shape, "uint8", "RGB picture, 0-255", kind="image"),),
        outputs=(TensorSpec("repainted", shape, "uint8", "RGB picture, 0-255", kind="image"),),
        example=photo_like,
        dims={"batch": 1, "height": 32, "width": 40},
        check_dims=({"height": 33, "width": 18}, {"height": 47, "width": 21}),
    )


def make_float_servable() -> Servable:
    """Two inputs, two outputs, one of them an index: what is no picture."""
    keras.utils.set_random_seed(5)
    series, scale = keras.Input((None, 4), name="series"), keras.Input((4,), name="scale")
    hidden = keras.layers.Dense(16, activation="tanh")(series)
    pooled = keras.ops.mean(hidden, axis=1)
    scores = keras.layers.Dense(5, name="scores")(keras.layers.Concatenate()([pooled, scale]))
    model = keras.Model([series, scale], scores, name="float_net")

    def classify(series: tf.Tensor, scale: tf.Tensor) -> dict[str, tf.Tensor]:
        scores = model([series, scale], training=False)
        return {"scores": scores, "best": tf.argmax(scores, axis=-1, output_type=tf.int32)}

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        rng = np.random.default_rng(seed)
        return {
            "series": rng.normal(size=(dims["batch"], dims["time"], 4)).astype("float32"),
            "scale": rng.normal(size=(dims["batch"], 4)).astype("float32"),
        }

    return Servable(
        call=classify,
        model=model,
        inputs=(
            TensorSpec("series", ("batch", "time", 4), "float32", "measurements, no unit"),
            TensorSpec("scale", ("batch", 4), "float32", "their scales"),
        ),
        outputs=(
            TensorSpec("scores", ("batch", 5), "float32", "logits", atol=1e-5),
            TensorSpec("best", ("batch",), "int32", "index of the best class"),
        ),
        example=example,
        dims={"batch": 1, "time": 7},
        check_dims=({"time": 3}, {"time": 12}),
        doc="A small test net over series.",
    )
