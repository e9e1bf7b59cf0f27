"""Models as people write them, none of the families': what tests and benchmarks/foreign_models.py export."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from keras import layers

from kerasmodels.layers import DeformableConv2D


def autoencoder() -> keras.Model:
    """Convolutions, as in Keras' example."""
    x = image = keras.Input((28, 28, 1))
    x = layers.Conv2D(8, 3, activation="relu", padding="same")(x)
    x = layers.MaxPooling2D(2, padding="same")(x)
    x = layers.Conv2DTranspose(8, 3, strides=2, activation="relu", padding="same")(x)
    return keras.Model(image, layers.Conv2D(1, 3, activation="sigmoid", padding="same")(x), name="autoencoder")


def lstm_classifier() -> keras.Model:
    """Sequences of any length."""
    return keras.Sequential(
        [
            keras.Input((None,), dtype="int32"),
            layers.Embedding(50, 8, mask_zero=True),
            layers.Bidirectional(layers.LSTM(8)),
            layers.Dense(1, activation="sigmoid"),
        ],
        name="lstm_classifier",
    )


def gru_tagger() -> keras.Model:
    """An answer at each time."""
    x = sequence = keras.Input((None, 4))
    x = layers.GRU(8, return_sequences=True)(x)
    return keras.Model(sequence, layers.TimeDistributed(layers.Dense(2))(x), name="gru_tagger")


def unet() -> keras.Model:
    """Pictures of any size."""
    image = keras.Input((None, None, 3))
    wide = layers.Conv2D(8, 3, padding="same", activation="relu")(image)
    x = layers.MaxPooling2D()(wide)
    x = layers.UpSampling2D()(layers.Conv2D(16, 3, padding="same", activation="relu")(x))
    x = layers.Concatenate()([wide, x])
    return keras.Model(image, layers.Conv2D(2, 1, activation="softmax", name="mask")(x), name="unet")


def transformer() -> keras.Model:
    """A block with attention."""
    x = sequence = keras.Input((None, 16))
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(2, 8)(x, x))
    y = layers.Dense(16)(layers.Dense(32, activation="gelu")(x))
    x = layers.GlobalAveragePooling1D()(layers.LayerNormalization()(x + y))
    return keras.Model(sequence, layers.Dense(3)(x), name="transformer")


def with_lambda() -> keras.Model:
    numbers = keras.Input((8,))
    squared = layers.Lambda(lambda x: x**2 + 1.0)(layers.Dense(4)(numbers))
    return keras.Model(numbers, squared, name="with_lambda")


def normalized() -> keras.Model:
    """`Normalization` keeps its mean as a tensor beside its variables."""
    known = layers.Normalization()
    known.adapt(np.random.default_rng(0).normal(5, 3, (100, 6)).astype("float32"))
    return keras.Sequential([keras.Input((6,)), known, layers.Dense(3, activation="softmax")], name="normalized")


def string_lookup() -> keras.Model:
    word = keras.Input((1,), dtype="string", name="word")
    x = layers.StringLookup(vocabulary=["a", "the", "model"], output_mode="one_hot")(word)
    return keras.Model(word, layers.Dense(2)(x), name="string_lookup")


def two_inputs() -> keras.Model:
    """Dicts on both sides."""
    age, history = keras.Input((4,), name="age"), keras.Input((3, 5), name="history")
    score = layers.Dense(1)(layers.Concatenate()([age, layers.Flatten()(history)]))
    outputs = {"score": score, "kind": layers.Dense(3, activation="softmax")(age)}
    return keras.Model({"age": age, "history": history}, outputs, name="two_inputs")


def nested() -> keras.Model:
    inner = keras.Sequential([keras.Input((16,)), layers.Dense(8, activation="relu"), layers.Dropout(0.5)])
    numbers = keras.Input((16,))
    x = inner(numbers)
    heads = [layers.Dense(1, name="left")(x), layers.Dense(2, name="right")(x)]
    return keras.Model(numbers, heads, name="nested")


class Subclassed(keras.Model):
    """Two arguments."""

    def __init__(self, **kwargs: Any):
        super().__init__(**kwargs)
        self.first, self.second = layers.Dense(4), layers.Dense(4)

    def call(self, left: Any, right: Any, training: bool | None = None) -> Any:
        return {"sum": self.first(left) + self.second(right)}


def mixed_precision() -> keras.Model:
    """Trained in bfloat16, served in float32."""
    x = image = keras.Input((None, None, 3))
    for layer in (layers.Conv2D(4, 3), layers.BatchNormalization(), layers.GlobalAveragePooling2D()):
        layer.dtype_policy = "mixed_bfloat16"
        x = layer(x)
    return keras.Model(image, layers.Dense(2, dtype="float32")(x), name="mixed_precision")


def deformable() -> keras.Model:
    """One of our layers in somebody's model."""
    x = image = keras.Input((None, None, 3))
    x = DeformableConv2D(8, 3)(layers.Conv2D(8, 3, padding="same", activation="relu")(x))
    return keras.Model(image, layers.GlobalAveragePooling2D()(x), name="deformable")


def volumes() -> keras.Model:
    x = volume = keras.Input((8, 16, 16, 1))
    x = layers.GlobalAveragePooling3D()(layers.Conv3D(4, 3)(x))
    return keras.Model(volume, layers.Dense(2)(x), name="volumes")


def mobilenet() -> keras.Model:
    return keras.applications.MobileNetV2(weights=None, alpha=0.35, input_shape=(96, 96, 3), classes=10)


def efficientnet() -> keras.Model:
    return keras.applications.EfficientNetB0(weights=None, classes=10)


def resnet() -> keras.Model:
    return keras.applications.ResNet50(weights=None, include_top=False, pooling="avg")


def convnext() -> keras.Model:
    return keras.applications.ConvNeXtTiny(weights=None, input_shape=(64, 64, 3), include_top=False)


def _two_arrays() -> dict[str, np.ndarray]:
    random = np.random.default_rng(0)
    return {"left": random.random((5, 3), "float32"), "right": random.random((5, 2), "float32")}


MODELS: dict[str, tuple[Callable[[], keras.Model], dict[str, Any]]] = {
    "autoencoder": (autoencoder, {}),
    "lstm_classifier": (lstm_classifier, {}),
    "gru_tagger": (gru_tagger, {}),
    "unet": (unet, {"preprocess": "unit"}),
    "transformer": (transformer, {}),
    "with_lambda": (with_lambda, {}),
    "normalized": (normalized, {}),
    "string_lookup": (string_lookup, {}),
    "two_inputs": (two_inputs, {}),
    "nested": (nested, {}),
    "subclassed": (Subclassed, {"example": _two_arrays()}),
    "mixed_precision": (mixed_precision, {}),
    "deformable": (deformable, {}),
    "volumes": (volumes, {}),
    "MobileNetV2": (mobilenet, {"preprocess": "tf"}),
    "EfficientNetB0": (efficientnet, {"preprocess": "none"}),
    "ResNet50": (resnet, {"preprocess": "caffe"}),
    "ConvNeXtTiny": (convnext, {}),
}
"""By name, with the arguments of `export` that it needs."""
