import numpy as np

from kerasmodels.data import grid
from kerasmodels.data.grids import latents, tiled


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


def test_numbers_for_a_generator_go_from_one_end_to_the_other():
    given = latents(2, 5, 7, seed=3, between=True).reshape(2, 5, 7)
    np.testing.assert_allclose(np.diff(given, 2, axis=1), 0, atol=1e-6)
    assert (given[0, 0] != given[1, 0]).any()
    apart = latents(2, 5, 7, seed=3)
    assert apart.shape == (10, 7)
    assert len(np.unique(apart)) == 70
    np.testing.assert_array_equal(apart, latents(2, 5, 7, seed=3))


def test_pictures_are_laid_row_by_row():
    pictures = np.arange(6.0)[:, None, None, None] + np.zeros((6, 2, 3, 1))
    laid = tiled(pictures, 2, 3)
    assert laid.shape == (4, 9, 3)
    assert laid[::2, ::3, 0].tolist() == [[0, 1, 2], [3, 4, 5]]
