"""A picture as a weight."""

import keras
import numpy as np
import pytest

from kerasmodels.layers import Picture


def pixels(height: int = 5, width: int = 7) -> np.ndarray:
    return np.random.default_rng(0).uniform(-20, 280, (height, width, 3)).astype("float32")


def test_it_answers_with_the_picture_whatever_it_is_given():
    layer = Picture(5, 7, pixels())
    np.testing.assert_array_equal(layer(np.zeros((4, 9)))[0], pixels())
    np.testing.assert_array_equal(layer(None)[0], pixels())
    assert [(tuple(v.shape), v.dtype) for v in layer.trainable_weights] == [((1, 5, 7, 3), "float32")]


def test_the_config_has_no_pixels():
    layer = Picture(5, 7, pixels())
    config = layer.get_config()
    assert (config["height"], config["width"]) == (5, 7)
    assert "pixels" not in config
    again = Picture.from_config(config)
    np.testing.assert_array_equal(again(None), np.full((1, 5, 7, 3), 127.5))


def test_a_saved_model_keeps_them(tmp_path):
    inputs = keras.Input((1,))
    model = keras.Model(inputs, Picture(5, 7, pixels())(inputs))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras")(np.zeros((1, 1)))[0], pixels())


def test_it_stays_float32_in_mixed_precision():
    layer = Picture(5, 7, pixels(), dtype="mixed_bfloat16")
    np.testing.assert_array_equal(layer(None)[0], pixels())
    assert layer.pixels.dtype == "float32"


@pytest.mark.parametrize("shape", [(7, 5, 3), (5, 7), (5, 7, 4), (2, 5, 7, 3)])
def test_pixels_of_another_shape(shape):
    with pytest.raises(ValueError, match=r"\(5, 7, 3\)"):
        Picture(5, 7, np.zeros(shape))


@pytest.mark.parametrize("size", [(0, 3), (3, -1), (2.5, 3)])
def test_sizes_that_are_none(size):
    with pytest.raises(ValueError, match="height and width"):
        Picture(*size)
