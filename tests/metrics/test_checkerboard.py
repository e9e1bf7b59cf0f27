"""The checkerboard of upsampling: there in transposed convolutions, not in resizing ones nor in photos."""

import keras
import numpy as np
import pytest

from kerasmodels.errors import DataError, UsageError
from kerasmodels.layers import Resize2D
from kerasmodels.metrics import checkerboard


def pictures(*upsampling: keras.layers.Layer, channels: int = 8) -> np.ndarray:
    """What layers make of smooth positive maps, as those after a ReLU are; scaled to 0-255."""
    random = np.random.default_rng(0)
    maps = random.normal(size=(4, 16, 16, channels)).astype("float32")
    maps = np.maximum(maps + 1, 0)
    made = keras.Sequential([*upsampling]).predict(maps, verbose=0)
    low, high = made.min(), made.max()
    return 255 * (made - low) / (high - low)


@pytest.mark.parametrize("seed", range(3))
def test_transposed_convolutions_score_high_and_resizing_ones_low(seed):
    keras.utils.set_random_seed(seed)
    layers = keras.layers
    uneven = pictures(layers.Conv2DTranspose(8, 3, 2, "same"), layers.Conv2DTranspose(3, 3, 2, "same"))
    even = pictures(layers.Conv2DTranspose(8, 4, 2, "same"), layers.Conv2DTranspose(3, 4, 2, "same"))
    resized = pictures(
        Resize2D(2), layers.Conv2D(8, 3, padding="same"), Resize2D(2), layers.Conv2D(3, 3, padding="same")
    )
    for stride in (2, 4):
        assert checkerboard(uneven, stride) > 8
        assert checkerboard(even, stride) > 8
        assert checkerboard(resized, stride) < 5


def test_photos_score_low():
    data = pytest.importorskip("skimage.data", reason="the photos are scikit-image's: pip install scikit-image")
    for photo in (data.astronaut(), data.chelsea(), data.coffee(), data.rocket()):
        for stride in (2, 4):
            assert checkerboard(photo, stride) < 6


def test_grids_of_colors_alone_do_not_count():
    """Brightness without a pattern, colors with one, as JPEG files have it."""
    photo = np.random.default_rng(4).normal(128, 20, (64, 64, 1)) + np.zeros(3)
    pattern = 20 * (np.arange(64) % 2)[:, None]
    photo[..., 0] += pattern
    assert checkerboard(photo) > 10
    photo[..., 1] -= pattern * 0.299 / 0.587
    assert checkerboard(photo) < 3


def test_what_is_added_is_found_in_the_order_of_its_size():
    photo = np.random.default_rng(1).normal(128, 20, (64, 96, 3))
    y, x = np.mgrid[0:64, 0:96]
    for pattern, stride in (((x + y) % 2, 2), (x % 2, 2), (y % 4 == 0, 4), (x % 3 == 1, 3)):
        scores = [checkerboard(photo + size * pattern[..., None], stride) for size in (0, 10, 20, 40)]
        assert scores[0] < 6
        assert scores == sorted(scores)
        assert scores[-1] > 15


def test_it_does_not_depend_on_brightness_nor_contrast_nor_order():
    photo = np.random.default_rng(2).normal(128, 20, (3, 64, 64, 3)) + 15 * (np.arange(64) % 2)[:, None]
    score = checkerboard(photo)
    assert checkerboard(photo + 30) == pytest.approx(score, abs=1e-6)
    assert checkerboard(photo[::-1]) == pytest.approx(score, abs=1e-6)
    # All but the allowance for rounding.
    assert checkerboard(0.5 * photo) == pytest.approx(score, abs=0.05)
    assert checkerboard(photo.transpose(0, 2, 1, 3)) == pytest.approx(score, abs=1e-6)


def test_pictures_without_anything_in_them():
    flat = np.full((1, 64, 64, 3), 77.0)
    assert checkerboard(flat) == pytest.approx(0, abs=1e-6)
    # Below one step of 0-255 nothing can be seen.
    assert checkerboard(flat + 0.01 * (np.arange(64) % 2)[:, None]) < 3


def test_sides_that_are_no_multiple_of_the_stride():
    photo = np.random.default_rng(3).normal(128, 20, (67, 71, 1))
    assert checkerboard(photo, 4) < 3
    assert checkerboard(photo + 20 * (np.arange(71) % 4 == 0)[:, None], 4) > 10


def test_mistakes():
    with pytest.raises(UsageError, match="stride of at least 2"):
        checkerboard(np.zeros((64, 64, 3)), 1)
    with pytest.raises(DataError, match=r"at least 32 pixels.*\(1, 31, 64, 3\)"):
        checkerboard(np.zeros((31, 64, 3)))
    with pytest.raises(DataError, match="at least 32 pixels"):
        checkerboard(np.zeros((64, 64)))
    with pytest.raises(DataError, match="finite"):
        checkerboard(np.full((64, 64, 3), np.nan))
