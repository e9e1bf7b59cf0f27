"""Every public layer survives `.keras` bit by bit and runs on every Keras backend it claims to."""

import keras
import numpy as np
import pytest

from kerasmodels import layers

LAYERS = {
    "AtrousConvolution1D": lambda: layers.AtrousConvolution1D(4, 3, atrous_rate=2),
    "AtrousConvolution2D": lambda: layers.AtrousConvolution2D(4, (3, 2), atrous_rate=(2, 3), padding="same"),
    "AtrousConvolution3D": lambda: layers.AtrousConvolution3D(4, 2, atrous_rate=2),
    "AtrousSpatialPyramidPooling": lambda: layers.AtrousSpatialPyramidPooling(4, rates=(1, 3), hidden=(5,)),
    "DeformableConv2D": lambda: layers.DeformableConv2D(
        4, (3, 2), 2, ((1, 0), (2, 1)), groups=2, deformable_groups=2, modulated=True, activation="tanh"
    ),
    "GatedSequence": lambda: layers.GatedSequence(layers.GatedUnit(4, bias="all"), backward=True),
    "InstanceNormalization": lambda: layers.InstanceNormalization(1e-4, gamma_initializer="random_uniform"),
    "LowRankDense": lambda: layers.LowRankDense(4, 2, use_bias=True),
    "DoublingConv2DTranspose": lambda: layers.DoublingConv2DTranspose(4, activation="tanh"),
    "PolyphaseConv2D": lambda: layers.PolyphaseConv2D(4, (3, 2), activation="tanh"),
    "ReflectionPadding1D": lambda: layers.ReflectionPadding1D((2, 3)),
    "ReflectionPadding2D": lambda: layers.ReflectionPadding2D(((1, 2), (3, 4))),
    "ReflectionPadding3D": lambda: layers.ReflectionPadding3D(((1, 2), (0, 0), (3, 4))),
    "ResidualBlock": lambda: layers.ResidualBlock(4, "batch", "reflect"),
    "Resize2D": lambda: layers.Resize2D(3, "bilinear"),
}
POSITIONS = {
    "AtrousConvolution1D": (9,),
    "AtrousConvolution3D": (5, 9, 8),
    "GatedSequence": (9,),
    "LowRankDense": (9,),
    "ReflectionPadding1D": (9,),
    "ReflectionPadding3D": (5, 9, 8),
}
"""Of an input, where it is not a picture."""
ELSEWHERE = {
    **dict.fromkeys(("BahdanauAttention", "LuongAttention"), "take a query and a memory: test_gated_unit.py"),
    "ChainCRF": "its tags have no gradient: test_gated_unit.py",
    "GatedUnit": "is a cell: test_gated_unit.py",
    "Maxout": "has fewer outputs than inputs: test_gated_unit.py",
    "Vocabulary": "takes no tensor: test_vocabulary.py",
    "DenseCRF": "takes logits and a picture: test_crf.py",
    **dict.fromkeys(
        ("RoIPooling", "PSRoIPooling", "DeformableRoIPooling", "DeformablePSRoIPooling"),
        "takes regions too: tests/ops/test_roi_pooling.py",
    ),
    "LocalAffineSmoothing": "takes two pictures: test_local_affine.py",
    "NTMCell": "is one step of a recurrent layer: test_memory.py",
    "Picture": "does not look at its input: test_picture.py",
}


def test_every_public_layer_is_here():
    assert sorted([*LAYERS, *ELSEWHERE]) == sorted(layers.__all__)


@pytest.mark.parametrize("name", LAYERS)
def test_saved_and_loaded_equal(name, tmp_path):
    shape = (*POSITIONS.get(name, (9, 8)), 4)
    x = np.random.default_rng(0).normal(size=(2, *shape)).astype("float32")
    inputs = keras.Input(shape)
    model = keras.Model(inputs, LAYERS[name]()(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.predict(x, verbose=0), model.predict(x, verbose=0))


@pytest.mark.parametrize("name", LAYERS)
def test_trains_in_mixed_precision(name):
    shape = (*POSITIONS.get(name, (8, 8)), 4)
    inputs = keras.Input(shape)
    x = keras.layers.Dense(4)(inputs)
    layer = LAYERS[name]()
    layer = type(layer).from_config({**layer.get_config(), "dtype": keras.DTypePolicy("mixed_bfloat16")})
    mean = keras.ops.mean(keras.ops.cast(layer(x), "float32"), axis=tuple(range(1, len(shape))))
    model = keras.Model(inputs, mean)
    model.compile("sgd", "mse", jit_compile=False)
    losses = model.fit(np.ones((2, *shape)), np.ones((2, 4)), epochs=2, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
