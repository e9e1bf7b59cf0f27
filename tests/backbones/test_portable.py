"""The written-out gradient of VGG is the one TensorFlow derives."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.backbones import VGG16, PortableVGG, sources
from tests.cases import write_vgg16

TAPS = ["relu1_1", "conv2_2", "pool2"]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory):
    return write_vgg16(tmp_path_factory.mktemp("vgg") / "vgg16.npz")


def reflected(weights, monkeypatch) -> str:
    """The same weights, in the convention of the normalized set: reflection padding, poolings that round up."""
    loaded = sources.load("vgg16", weights)
    changed = dataclasses.replace(loaded, convention=sources.NORMALIZED)
    monkeypatch.setattr(sources, "load", lambda network, weights: changed)
    return "normalized"


@pytest.mark.parametrize("padding", ["zeros", "reflect"])
@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize(("size", "known"), [((16, 24), True), ((21, 30), True), ((23, 17), False)])
def test_features_and_gradient(weights, monkeypatch, padding, pooling, size, known):
    vgg = VGG16(TAPS, weights=reflected(weights, monkeypatch) if padding == "reflect" else weights, pooling=pooling)
    assert vgg.get_layer("conv1_1").padding == ("valid" if padding == "reflect" else "same")
    portable = PortableVGG(vgg)
    random = np.random.default_rng(0)
    picture = tf.constant(random.uniform(0, 255, (1, *size, 3)), tf.float32)
    with tf.GradientTape() as tape:
        tape.watch(picture)
        features = vgg(picture)
        pull = {tap: tf.constant(random.normal(size=f.shape), tf.float32) for tap, f in features.items()}
        value = sum(tf.reduce_sum(pull[tap] * f) for tap, f in features.items())
    expected = tape.gradient(value, picture)

    shape = picture.shape if known else (None, None, None, 3)

    @tf.function(input_signature=[tf.TensorSpec(shape, tf.float32)])
    def both(x):
        maps = portable.forward(x)
        return portable.taps(maps), portable.backward(maps, pull)

    taps, gradient = both(picture)
    for tap, f in features.items():
        np.testing.assert_allclose(taps[tap], f, rtol=1e-4, atol=1e-4 * float(tf.reduce_max(tf.abs(f))))
    scale = float(tf.reduce_max(tf.abs(expected)))
    np.testing.assert_allclose(gradient, expected, rtol=0, atol=1e-5 * scale)


def test_a_prepared_network_gives_the_same(weights):
    vgg = VGG16(TAPS, weights=weights, pooling="avg")
    portable = PortableVGG(vgg)
    picture = np.random.default_rng(1).uniform(0, 255, (2, 18, 20, 3)).astype("float32")
    maps = portable.forward(picture)
    before = portable.backward(maps, portable.taps(maps))
    portable.prepare()
    np.testing.assert_array_equal(portable.backward(maps, portable.taps(maps)), before)


def test_equal_maxima_share_the_gradient(weights):
    vgg = VGG16(["pool1"], weights=weights, pooling="max")
    portable = PortableVGG(vgg)
    maps = portable.forward(np.full((1, 8, 8, 3), 200, "float32"))
    gradient = portable.backward(maps, portable.taps(maps))
    assert np.isfinite(gradient).all()
