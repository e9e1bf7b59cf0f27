"""Figures with axes: what is given can be seen, and nothing but what is given decides the pixels."""

import sys
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from kerasmodels import claims, data
from kerasmodels.data import plots
from kerasmodels.errors import KerasModelsError


def of_color(picture: np.ndarray, color: str) -> np.ndarray:
    """(H, W): where a picture has this color, or nearly."""
    return (np.abs(picture - np.array([int(color[i : i + 2], 16) for i in (1, 3, 5)])) < 25).all(-1)


def test_curves_and_points_are_drawn_where_they_are() -> None:
    xs = np.linspace(0, 1, 50)
    picture = plots.curves({"up": (xs, xs), "down": (xs, 1 - xs)}, "x", "y", points={"high": {0.5: 3.0}})
    assert picture.shape == (400, 640, 3)
    assert picture.dtype == np.uint8
    up, down, high = (of_color(picture[:, :450], color) for color in plots.COLORS[:3])
    assert 200 < np.argwhere(up)[:, 0].mean() < 400
    left = np.argwhere(up[:, :200])[:, 0].mean(), np.argwhere(down[:, :200])[:, 0].mean()
    assert left[0] > left[1] + 20
    assert np.argwhere(high)[:, 0].max() < 100


def test_a_power_is_a_line_on_logarithmic_scales() -> None:
    xs = np.geomspace(1, 1e4, 50)
    picture = plots.curves({"power": (xs, xs**-3.0)}, "x", logarithmic=("x", "y"))
    rows, columns = np.nonzero(of_color(picture[:, :450], plots.COLORS[0]))
    assert np.corrcoef(rows, columns)[0, 1] > 0.999


def test_groups_of_points_have_colors_of_their_own_and_stay_within_the_panel() -> None:
    # One point alone is too small for a pixel of its color.
    groups = [np.full((40, 2), point) for point in ((-1.0, 0.0), (1.0, 50.0))]
    picture = plots.scatter({"one": groups, "none": []}, np.array([[0.0, 0.0]]), radius=0.5, limit=2.0)
    assert picture.shape == (360, 720, 3)
    first, second = (np.argwhere(of_color(picture, color)) for color in plots.COLORS[:2])
    assert first[:, 1].max() < second[:, 1].min() < 360
    assert second[:, 0].max() < first[:, 0].min()


def test_settings_of_matplotlib_are_neither_used_nor_changed() -> None:
    def drawn() -> np.ndarray:
        return plots.curves({"a": (np.arange(3.0), np.arange(3.0))}, "x")

    plain = drawn()
    with matplotlib.rc_context({"lines.linewidth": 9.0, "axes.facecolor": "black", "font.size": 20.0}):
        np.testing.assert_array_equal(drawn(), plain)
        assert matplotlib.rcParams["lines.linewidth"] == 9.0


@pytest.mark.parametrize(
    ("family", "experiment"),
    [
        ("wgan", "lines"),
        ("wgan", "gaussians"),
        ("ebgan", "theorem"),
        ("ebgan", "grid"),
        ("discogan", "mixture"),
        ("neural_style", "objective"),
    ],
)
def test_without_matplotlib_claims_say_so_before_they_measure(
    family: str, experiment: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = claims.experiments(family)[experiment].measure
    monkeypatch.setitem(sys.modules, "matplotlib", None)
    monkeypatch.delitem(sys.modules, "kerasmodels.data.plots")
    monkeypatch.delattr(data, "plots")
    with pytest.raises(KerasModelsError, match=r"pip install 'kerasmodels\[plots\]'"):
        measure(None, tmp_path, True)
    assert not list(tmp_path.iterdir())
