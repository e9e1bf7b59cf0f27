"""Local affine smoothing: what it must leave alone, what it must take away."""

import keras
import numpy as np
import pytest

from kerasmodels.layers import LocalAffineSmoothing
from kerasmodels.layers.local_affine import guided_filter

RANDOM = np.random.default_rng(0)


def photo(height=40, width=52):
    """Smooth regions with an edge and fine texture, 0-1."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    picture = np.stack([0.5 + 0.2 * np.sin(5 * x + 3 * k * y) for k in range(3)], -1)
    picture[x + y > 0.8] *= 0.5
    picture += 0.03 * RANDOM.normal(size=picture.shape)
    return np.clip(picture, 0, 1)[None].astype("float32")


PHOTO = photo()
MATRIX = np.array([[0.6, 0.1, -0.2], [0.2, 0.5, 0.1], [0.0, -0.3, 0.9]], "float32")


def test_one_affine_map_of_all_colors_comes_back():
    evening = PHOTO @ MATRIX + np.float32([0.1, 0.2, 0.05])
    np.testing.assert_allclose(LocalAffineSmoothing()([PHOTO, evening]), evening, atol=1e-3)


def test_the_photo_comes_back():
    np.testing.assert_allclose(LocalAffineSmoothing()([PHOTO, PHOTO]), PHOTO, atol=1e-3)


def test_two_maps_on_two_sides_of_an_edge_stay_apart():
    dark = PHOTO.mean(-1, keepdims=True) < 0.35
    picture = np.where(dark, PHOTO @ MATRIX, 1 - PHOTO).astype("float32")
    got = np.asarray(LocalAffineSmoothing()([PHOTO, picture]))
    assert np.sqrt(np.mean((got - picture) ** 2)) < 0.05


def test_strokes_that_the_photo_does_not_have_go_away():
    evening = PHOTO @ MATRIX + 0.1
    strokes = 0.1 * np.sin(np.arange(PHOTO.shape[2]) * 1.3)[None, None, :, None]
    got = np.asarray(LocalAffineSmoothing()([PHOTO, (evening + strokes).astype("float32")]))
    assert np.abs(got - evening).mean() < 0.35 * np.abs(strokes).mean()


def test_flat_pictures_have_no_slopes_to_divide_by():
    flat = np.full((1, 9, 11, 3), 0.3, "float32")
    np.testing.assert_allclose(LocalAffineSmoothing()([flat, flat + 0.2]), 0.5, atol=1e-5)
    noise = RANDOM.uniform(size=flat.shape).astype("float32")
    got = np.asarray(LocalAffineSmoothing(radius=20)([flat, noise]))
    np.testing.assert_allclose(got, np.broadcast_to(noise.mean((1, 2)), got.shape), atol=0.02)


def test_the_fit_on_a_window_equals_least_squares():
    """One 3x3 picture and no averaging: the ridge regression of the released code, drawn to the overall map."""
    small, target = (RANDOM.uniform(size=(1, 3, 3, 3)).astype("float32") for _ in range(2))
    layer = LocalAffineSmoothing(radius=1, edge=1e4)  # edges of any size are averaged over
    x, y = small.reshape(9, 3).astype("float64"), target.reshape(9, 3).astype("float64")
    design = np.concatenate([x, np.ones((9, 1))], 1)
    overall = np.linalg.lstsq(design, y, rcond=None)[0]
    maps = layer.maps(small, target)
    got = np.asarray(maps["overall"]).reshape(4, 3)
    np.testing.assert_allclose(got, overall, atol=2e-3)


def test_the_guided_filter_keeps_sums_and_draws_borders_to_edges():
    masks = np.zeros((1, 40, 52, 2), "float32")
    dark = PHOTO.mean(-1) < 0.35
    masks[..., 0] = np.roll(dark, 2, axis=2)  # a mask that is two pixels off
    masks[..., 1] = 1 - masks[..., 0]
    fine = np.asarray(guided_filter(PHOTO, masks, radius=6, edge=0.05))
    np.testing.assert_allclose(fine.sum(-1), 1, atol=1e-3)
    assert ((fine[..., 0] > 0.5) != dark).mean() < 0.5 * ((masks[..., 0] > 0.5) != dark).mean()


def test_gradients_are_finite():
    import tensorflow as tf

    x = tf.Variable(PHOTO)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(LocalAffineSmoothing()([PHOTO, x]) ** 2)
    assert np.isfinite(tape.gradient(value, x)).all()


def test_saved_and_loaded(tmp_path):
    inputs = [keras.Input((None, None, 3)) for _ in range(2)]
    model = keras.Model(inputs, LocalAffineSmoothing(4, 0.02, 1e-2)(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    given = [PHOTO, PHOTO[:, ::-1]]
    np.testing.assert_array_equal(loaded(given), model(given))
    assert model(given).dtype == "float32"


@pytest.mark.parametrize("wrong", [{"radius": 0}, {"edge": 0.0}, {"ridge": -1.0}])
def test_arguments_out_of_range(wrong):
    with pytest.raises(ValueError, match="expected radius"):
        LocalAffineSmoothing(**wrong)
