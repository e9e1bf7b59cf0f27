"""Every public layer survives `.keras` bit by bit and runs on every Keras backend it claims to."""

import keras
import numpy as np
import pytest

from kerasmodels import layers

LAYERS = {
    "InstanceNormalization": lambda: layers.InstanceNormalization(1e-4, gamma_initializer="random_uniform"),
    "ReflectionPadding2D": lambda: layers.ReflectionPadding2D(((1, 2), (3, 4))),
    "ResidualBlock": lambda: layers.ResidualBlock(4, "batch", "reflect"),
    "Resize2D": lambda: layers.Resize2D(3, "bilinear"),
}
ELSEWHERE = {
    "LocalAffineSmoothing": "takes two pictures: test_local_affine.py",
    "Picture": "does not look at its input: test_picture.py",
}


def test_every_public_layer_is_here():
    assert sorted([*LAYERS, *ELSEWHERE]) == sorted(layers.__all__)


@pytest.mark.parametrize("name", LAYERS)
def test_saved_and_loaded_equal(name, tmp_path):
    x = np.random.default_rng(0).normal(size=(2, 9, 8, 4)).astype("float32")
    inputs = keras.Input((9, 8, 4))
    model = keras.Model(inputs, LAYERS[name]()(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("name", LAYERS)
def test_trains_in_mixed_precision(name):
    inputs = keras.Input((8, 8, 4))
    x = keras.layers.Conv2D(4, 1)(inputs)
    layer = LAYERS[name]()
    layer = type(layer).from_config({**layer.get_config(), "dtype": keras.DTypePolicy("mixed_bfloat16")})
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D(dtype="float32")(layer(x) * 2))
    model.compile("sgd", "mse", jit_compile=False)
    losses = model.fit(np.ones((2, 8, 8, 4)), np.ones((2, 4)), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
