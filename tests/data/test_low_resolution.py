"""Pictures at low resolution: how they are made, and how two folders are paired."""

import shutil

import numpy as np
import pytest
from PIL import Image

from kerasmodels.data import degrade, low_resolution_pairs, paired, photo_crops, write_image
from kerasmodels.errors import DataError
from kerasmodels.ops import imresize
from tests.cases import photo


def folder_of(path, count=3, height=40, width=52):
    for number in range(count):
        write_image(path / f"{number}.png", photo(number, height, width))
    return path


def test_degrade_is_bicubic_by_itself():
    picture = photo(0, 41, 50)
    expected = np.clip(np.rint(imresize(picture[None], 1 / 4)[0]), 0, 255)
    np.testing.assert_array_equal(degrade(picture, 4), expected)


def test_blur_noise_and_jpeg_each_do_something():
    picture = photo(0, 80, 80)
    plain = degrade(picture, 2).astype(float)
    spread = [np.std(np.diff(degrade(picture, 2, blur=(s, s)).astype(float), axis=1)) for s in (0, 1, 3)]
    assert spread[0] > spread[1] > spread[2]
    noise = degrade(picture, 2, noise=(8, 8)) - plain
    assert 6 < noise.std() < 9
    off = [np.abs(degrade(picture, 2, jpeg=(q, q)) - plain).mean() for q in (20, 90)]
    assert off[0] > 2 * off[1] > 0


def test_draws_are_reproducible():
    kinds = {"blur": (0, 2), "noise": (0, 8), "jpeg": (25, 95)}
    one, same, other = (degrade(photo(0, 40, 40), 2, random=np.random.default_rng(seed), **kinds) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert np.any(one != other)


def test_the_stream(tmp_path):
    """Pairs belong together, the stream continues anywhere, and pieces are cut out as they are."""
    photos = folder_of(tmp_path / "photos")
    made = list(low_resolution_pairs(photos, 4, 16, 2, seed=5).take(4))
    for low, high in made:
        assert (low.shape, high.shape) == ((2, 4, 4, 3), (2, 16, 16, 3))
        for small, large in zip(low.numpy(), high.numpy(), strict=True):
            np.testing.assert_array_equal(small, degrade(large, 4))
    (later,) = low_resolution_pairs(photos, 4, 16, 2, seed=5, start=3).take(1)
    for mine, expected in zip(later, made[3], strict=True):
        np.testing.assert_array_equal(mine, expected)
    crops = next(iter(photo_crops(photos, 16, 1, seed=5, native=True)))[0].numpy()
    whole = [photo(n, 40, 52) for n in range(3)]
    windows = [np.lib.stride_tricks.sliding_window_view(w, (16, 16, 3)).reshape(-1, 16, 16, 3) for w in whole]
    assert any((w == c).all((1, 2, 3)).any() for w in windows for c in (crops, crops[:, ::-1]))


def test_pairs_of_two_folders(tmp_path):
    photos = folder_of(tmp_path / "HR")
    for number in range(3):
        write_image(tmp_path / "LR" / f"{number}.png", photo(number, 40, 52)[::4, ::4])
    assert [(a.name, b.name) for a, b in paired(photos, tmp_path / "LR", 4)] == [(f"{n}.png",) * 2 for n in range(3)]
    for low, high in low_resolution_pairs(photos, 4, 16, 2, low=tmp_path / "LR").take(3):
        for small, large in zip(low.numpy(), high.numpy(), strict=True):
            # A mirrored piece has the pixels that were sampled at its other end.
            assert any((small == large[::4, first::4]).all() for first in (0, 3))


def test_one_folder_with_names_that_say_which(tmp_path):
    for number in range(2):
        write_image(tmp_path / f"img_{number}_SRF_4_HR.png", photo(number, 16, 24))
        write_image(tmp_path / f"img_{number}_SRF_4_LR.png", photo(number, 4, 6))
    found = paired(tmp_path, tmp_path, 4)
    assert [(a.name[-6:-4], b.name[-6:-4]) for a, b in found] == [("HR", "LR")] * 2


def test_folders_that_do_not_pair(tmp_path):
    photos, low = folder_of(tmp_path / "HR"), tmp_path / "LR"
    for number in range(3):
        write_image(low / f"{number}.png", photo(number, 10, 13))
    assert len(paired(photos, low, 4)) == 3
    with pytest.raises(DataError, match="2 times as large"):
        paired(photos, low, 2)
    (low / "1.png").rename(low / "one.png")
    with pytest.raises(DataError, match=r"without a partner.*1\.png.*one\.png"):
        paired(photos, low, 4)
    shutil.copy(low / "0.png", low / "1.png")
    Image.open(low / "0.png").save(low / "0.jpg")
    with pytest.raises(DataError, match="one picture of each name"):
        paired(photos, low, 4)
