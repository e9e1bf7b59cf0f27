"""Colors of one picture in another."""

import numpy as np
import pytest

from kerasmodels.data.color import luminance, match_colors, match_luminance, to_yuv, with_colors_of
from tests.cases import photo


def test_luminance_of_known_colors():
    gray, white = luminance(np.array([[[255, 0, 0], [0, 255, 0], [0, 0, 255]]])), luminance(np.full((1, 1, 3), 200))
    np.testing.assert_allclose(gray[0, :, 0], [76.245, 149.685, 29.07])
    np.testing.assert_allclose(gray[..., 0], gray[..., 2])
    np.testing.assert_allclose(to_yuv(np.full((1, 1, 3), 200))[0, 0], [200, 0, 0], atol=1e-2)
    np.testing.assert_allclose(white, 200)


def test_colors_stay_and_luminance_goes_over():
    content, painted = photo(1, 20, 30), photo(2, 20, 30)
    mixed = to_yuv(with_colors_of(painted, content))
    np.testing.assert_allclose(mixed[..., 1:], to_yuv(content)[..., 1:], atol=1e-9)
    np.testing.assert_allclose(mixed[..., 0], to_yuv(painted)[..., 0], atol=1e-9)
    assert np.abs(to_yuv(painted)[..., 1:] - to_yuv(content)[..., 1:]).max() > 20


def test_matched_colors_have_the_mean_and_covariance():
    content, painting = photo(1, 20, 30) / 255, photo(2, 33, 18) / 255
    matched = match_colors(painting, content)
    assert matched.shape == painting.shape
    np.testing.assert_allclose(matched.mean((0, 1)), content.mean((0, 1)), atol=1e-6)
    ours, wanted = (np.cov(p.reshape(-1, 3).T) for p in (matched, content))
    assert np.abs(np.cov(painting.reshape(-1, 3).T) - wanted).max() > 1e-3
    np.testing.assert_allclose(ours, wanted, atol=1e-4)


@pytest.mark.parametrize("value", [0, 128])
def test_a_gray_painting_is_not_stretched(value):
    matched = match_colors(np.full((8, 9, 3), value), photo(1, 20, 30))
    np.testing.assert_allclose(matched, np.broadcast_to(photo(1, 20, 30).mean((0, 1)), (8, 9, 3)))


def test_matched_luminance():
    content, painting = photo(1, 20, 30), photo(2, 33, 18)
    matched = match_luminance(painting, content)
    assert np.isclose(matched.mean(), luminance(content).mean())
    assert np.isclose(matched.std(), luminance(content).std())
