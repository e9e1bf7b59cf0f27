"""PSNR, SSIM and LPIPS: formulas, conventions, and the published numbers of bicubic interpolation."""

import os
from pathlib import Path

import keras
import numpy as np
import pytest

from kerasmodels.data import paired, read_as_stored
from kerasmodels.errors import WeightsError
from kerasmodels.metrics import LPIPS, PSNR, SSIM
from kerasmodels.ops import imresize
from tests.cases import photo, write_vgg16

DATA = Path(os.environ.get("KERASMODELS_DATA", "nowhere")) / "superres"


def noisy(picture, seed=0, spread=12):
    noise = np.random.default_rng(seed).normal(0, spread, picture.shape)
    return np.clip(picture + noise, 0, 255).astype("float32")


@pytest.mark.skipif(not DATA.is_dir(), reason="needs Set5 and Set14 below $KERASMODELS_DATA")
@pytest.mark.parametrize(
    ("name", "scale", "psnr", "ssim"),
    [("Set5", 3, 30.39, 0.8682), ("Set5", 4, 28.42, 0.8104), ("Set14", 4, 26.0, 0.7027)],
)
def test_published_numbers_of_bicubic_interpolation(name, scale, psnr, ssim):
    folder = DATA / name / f"image_SRF_{scale}"
    metrics = PSNR(border=scale), SSIM(border=scale)
    for high, low in paired(folder, folder, scale):
        truth, small = (np.atleast_3d(read_as_stored(p))[None] for p in (high, low))
        if truth.shape[-1] < small.shape[-1]:
            small = small[..., :1]
        made = np.clip(np.rint(imresize(small, scale)), 0, 255)
        for metric in metrics:
            metric.update_state(truth, made)
    assert abs(float(metrics[0].result()) - psnr) <= 0.05
    assert abs(float(metrics[1].result()) - ssim) <= 0.002


def test_psnr_is_the_formula():
    one, other = (photo(n, 20, 24)[None].astype("float32") for n in (0, 1))
    expected = 10 * np.log10(255**2 / np.mean((one - other)[:, 3:-3, 3:-3].astype("float64") ** 2))
    np.testing.assert_allclose(PSNR("rgb", border=3).per_picture(one, other), [expected], rtol=1e-5)
    assert float(PSNR().per_picture(one, one)[0]) == pytest.approx(100, abs=1e-3)


def test_conventions_differ_by_what_is_said():
    """219 / 255 of the contrast: 1.32 dB. Gray pictures are taken as they are."""
    one = photo(0, 20, 24)[None]
    studio, full = (float(PSNR(c).per_picture(one, noisy(one))[0]) for c in ("studio", "full"))
    assert studio - full == pytest.approx(20 * np.log10(255 / 219), abs=0.01)
    gray = one[..., :1]
    values = [float(PSNR(c).per_picture(gray, noisy(gray))[0]) for c in ("studio", "full", "rgb")]
    assert len(set(values)) == 1


def test_ssim_is_that_of_a_convolution():
    from scipy.ndimage import correlate

    one, other = (p[..., 0].astype("float64") for p in (photo(0, 30, 26), noisy(photo(0, 30, 26))))
    at = np.exp(-((np.arange(11) - 5) ** 2) / (2 * 1.5**2))
    window = np.outer(at, at) / np.outer(at, at).sum()
    mean = lambda x: correlate(x, window)[5:-5, 5:-5]  # noqa: E731
    a, b = mean(one), mean(other)
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    top = (2 * a * b + c1) * (2 * (mean(one * other) - a * b) + c2)
    bottom = (a**2 + b**2 + c1) * (mean(one**2) - a**2 + mean(other**2) - b**2 + c2)
    found = SSIM("rgb").per_picture(one[None, ..., None], other[None, ..., None])
    np.testing.assert_allclose(found, [(top / bottom).mean()], atol=1e-5)


def test_the_mean_is_over_pictures():
    one = np.stack([photo(n, 20, 24) for n in range(3)])
    other = np.stack([noisy(p, n, 4 + 10 * n) for n, p in enumerate(one)])
    for metric in (PSNR(), SSIM()):
        each = np.asarray(metric.per_picture(one, other))
        metric.update_state(one[:1], other[:1])
        metric.update_state(one[1:], other[1:])
        assert float(metric.result()) == pytest.approx(each.mean(), rel=1e-5)
        again = type(metric).from_config(metric.get_config())
        assert (again.channel, again.border) == (metric.channel, metric.border)


@pytest.mark.parametrize("metric", [PSNR(border=2), SSIM(border=2)])
@pytest.mark.parametrize(
    "shapes", [((1, 20, 20, 3), (1, 20, 21, 3)), ((1, 4, 4, 3), (1, 4, 4, 3)), ((20, 20, 3), (20, 20, 3))]
)
def test_wrong_pictures(metric, shapes):
    with pytest.raises(ValueError, match="Received"):
        metric.per_picture(*(np.zeros(shape, "float32") for shape in shapes))


def test_wrong_arguments():
    with pytest.raises(ValueError, match="channel"):
        PSNR("y")
    with pytest.raises(ValueError, match="border"):
        SSIM(border=-1)


def test_in_fit():
    model = keras.Sequential([keras.Input((16, 16, 3)), keras.layers.Conv2D(3, 1)])
    model.compile("sgd", "mse", metrics=[PSNR("rgb"), SSIM("rgb")])
    logs = model.evaluate(np.zeros((2, 16, 16, 3)), np.zeros((2, 16, 16, 3)), verbose=0, return_dict=True)
    assert logs["psnr"] == pytest.approx(100, abs=1e-3)
    assert logs["ssim"] == pytest.approx(1, abs=1e-5)


def test_lpips(tmp_path):
    """Zero for equal pictures, and the sum over taps of weighted squared differences of unit vectors."""
    from kerasmodels.backbones import VGG16

    arrays = dict(np.load(write_vgg16(tmp_path / "vgg.npz")))
    heads = {f"lpips_lin{i}": np.full(n, 0.1 * (i + 1), "float32") for i, n in enumerate((64, 128, 256, 512, 512))}
    np.savez(tmp_path / "both.npz", **arrays, **heads)
    lpips = LPIPS(tmp_path / "both.npz")
    one, other = photo(0, 32, 40)[None], noisy(photo(0, 32, 40)[None])
    assert float(lpips.per_picture(one, one)[0]) == 0
    taps = [f"relu{block}_{i}" for block, i in ((1, 2), (2, 2), (3, 3), (4, 3), (5, 3))]
    vgg = VGG16(taps, weights=tmp_path / "both.npz")
    expected = 0.0
    for number, tap in enumerate(taps):
        units = []
        for picture in (one, other):
            features = np.asarray(vgg(picture.astype("float32"))[tap], "float64")
            units.append(features / np.linalg.norm(features, axis=-1, keepdims=True))
        expected += 0.1 * (number + 1) * ((units[0] - units[1]) ** 2).sum(-1).mean()
    assert float(lpips.per_picture(one, other)[0]) == pytest.approx(expected, rel=1e-4)
    with pytest.raises(WeightsError, match="lpips_lin0"):
        LPIPS(tmp_path / "vgg.npz")
    with pytest.raises(WeightsError, match="no weights file"):
        LPIPS(tmp_path / "none.npz")
