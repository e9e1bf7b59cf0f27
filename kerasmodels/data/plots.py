"""Curves and points as pictures, for the figures of claims. Needs the `plots` extra (matplotlib).

Figures are drawn with matplotlib's Agg and its default style, whatever a user's matplotlibrc says, and without pyplot:
equal arguments give equal pixels, and nothing of it stays. Importing this module without matplotlib is an error, so
that it comes before the measurements and not after them.
"""

from collections.abc import Collection, Iterable, Mapping
from itertools import cycle

import numpy as np

from kerasmodels.errors import KerasModelsError

try:
    from matplotlib import style
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
except ImportError as error:
    raise KerasModelsError(
        f"figures with axes need matplotlib ({error}). Install it: pip install 'kerasmodels[plots]'."
    ) from error

COLORS = ("#b4532a", "#2a6fb4", "#3a8f4d", "#7a4fa3", "#a08a10")
"""Of curves and of groups of points, in order."""


def curves(
    lines: Mapping[str, tuple[np.ndarray, np.ndarray]],
    x_label: str,
    y_label: str = "",
    points: Mapping[str, Mapping[float, float]] | None = None,
    logarithmic: Collection[str] = (),
) -> np.ndarray:
    """Curves and single points over one pair of axes, with a legend.

    Args:
        lines: name -> (xs, ys).
        x_label, y_label: what the axes show.
        points: name -> {x: y}.
        logarithmic: "x" and "y", of the axes whose scale is; else they are linear.

    Returns:
        (400, 640, 3) uint8.
    """
    with style.context("default"):
        figure = Figure((6.4, 4.0), dpi=100, layout="constrained")
        axes = figure.add_subplot(xlabel=x_label, ylabel=y_label)
        axes.set(**{f"{axis}scale": "log" for axis in logarithmic})
        colors = cycle(COLORS)
        for name, (xs, ys) in lines.items():
            axes.plot(xs, ys, color=next(colors), label=name)
        for name, some in (points or {}).items():
            axes.plot(list(some), list(some.values()), "o", color=next(colors), label=name)
        axes.grid(alpha=0.3)
        axes.legend()
        return _pixels(figure)


def scatter(panels: Mapping[str, Iterable[np.ndarray]], centers: np.ndarray, radius: float, limit: float) -> np.ndarray:
    """Points of the plane in panels side by side, each group in a color of its own.

    Args:
        panels: title -> groups of points (N, 2); those outside are drawn at the edge.
        centers: (K, 2), around which gray rings are drawn in every panel.
        radius: of the rings.
        limit: each panel shows both coordinates from -limit to limit.

    Returns:
        (360, 360 for each panel, 3) uint8.
    """
    with style.context("default"):
        figure = Figure((3.6 * len(panels), 3.6), dpi=100, layout="constrained")
        for number, (title, groups) in enumerate(panels.items(), 1):
            axes = figure.add_subplot(1, len(panels), number, title=title, aspect="equal")
            axes.set(xlim=(-limit, limit), ylim=(-limit, limit))
            turn = np.linspace(0, 2 * np.pi, 60)
            for x, y in centers:
                axes.plot(x + radius * np.cos(turn), y + radius * np.sin(turn), color="0.6", linewidth=1)
            for points, color in zip(groups, cycle(COLORS), strict=False):
                axes.plot(*np.clip(points, -limit, limit).T, ".", color=color, markersize=2, clip_on=False)
        return _pixels(figure)


def labeled(points: np.ndarray, labels: Iterable[str]) -> np.ndarray:
    """Points of the plane (N, 2), each with its label beside it.

    Returns:
        (900, 1200, 3) uint8.
    """
    with style.context("default"):
        figure = Figure((12, 9), dpi=100, layout="constrained")
        axes = figure.add_subplot()
        axes.plot(*np.asarray(points).T, ".", color=COLORS[0], markersize=4)
        axes.margins(x=0.12)
        for (x, y), label in zip(points, labels, strict=True):
            # A dollar sign would begin a formula.
            axes.annotate(label.replace("$", r"\$"), (x, y), (3, 2), textcoords="offset points", fontsize=8)
        axes.set(xticks=[], yticks=[])
        return _pixels(figure)


def _pixels(figure: Figure) -> np.ndarray:
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3].copy()
