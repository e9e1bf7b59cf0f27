"""Large pictures in pieces, whatever their sizes."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from kerasmodels.data.tiles import tiles


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 50), st.integers(0, 50))
def test_each_pixel_is_decided_once_with_all_around_it(height: int, width: int, side: int, overlap: int) -> None:
    pixels = np.arange(height * width).reshape(height, width)
    decided = np.zeros_like(pixels)
    for tile in tiles(height, width, side, overlap):
        decided[tile.own] += 1
        seen = pixels[tile.seen]
        np.testing.assert_array_equal(seen[tile.inner], pixels[tile.own])
        assert pixels[tile.own].size > 0
        for axis, length in enumerate((height, width)):
            own, around = tile.own[axis], tile.seen[axis]
            assert own.stop - own.start <= side
            assert around.start == max(0, own.start - overlap)
            assert around.stop == min(length, own.stop + overlap)
    assert (decided == 1).all()


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(1, 25), st.integers(1, 25), st.integers(1, 12), st.integers(0, 3))
def test_what_looks_as_far_as_the_overlap_finds_no_seam(height: int, width: int, side: int, reach: int) -> None:
    """Sums over all pixels at most `reach` away, with nothing around the picture."""

    def sums(values: np.ndarray) -> np.ndarray:
        padded = np.pad(values, reach)
        windows = np.lib.stride_tricks.sliding_window_view(padded, (2 * reach + 1, 2 * reach + 1))
        return windows.sum((2, 3))

    picture = np.random.default_rng(0).integers(0, 100, (height, width))
    tiled = np.full_like(picture, -1)
    for tile in tiles(height, width, side, reach):
        tiled[tile.own] = sums(picture[tile.seen])[tile.inner]
    np.testing.assert_array_equal(tiled, sums(picture))
