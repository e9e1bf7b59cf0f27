import numpy as np

from kerasmodels.data import grid


def test_rows_of_patches_of_any_size():
    tiny, large = np.full((5, 5, 3), 7, "uint8"), np.full((50, 50, 3), 9, "uint8")
    picture = grid([[tiny, large], [None]], cell=20, apart=1)
    assert picture.shape == (2 * 22 + 2, 2 * 22 + 2 + 8, 3)
    assert (picture[2:22, 2:22] == 7).all()
    assert (picture[2:22, 32:52] == 9).all()
    assert (picture[24:] == 255).all()
    assert (grid([[tiny, large]], cell=20)[2:22, 24:44] == 9).all()


def test_small_patches_are_enlarged_without_smoothing():
    patch = np.random.default_rng(0).integers(0, 256, (3, 3, 3), dtype="uint8")
    np.testing.assert_array_equal(grid([[patch]], cell=30)[2:32, 2:32], patch.repeat(10, 0).repeat(10, 1))
