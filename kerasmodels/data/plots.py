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
_MANY = (*COLORS, "#222222", "#c24f8f", "#4fb0b8", "#8a5a2b", "#888888")


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
        colors = cycle(COLORS if len(lines) <= len(COLORS) else _MANY)
        for name, (xs, ys) in lines.items():
            axes.plot(xs, ys, color=next(colors), label=name)
        for name, some in (points or {}).items():
            axes.plot(list(some), list(some.values()), "o", color=next(colors), label=name)
        axes.grid(alpha=0.3)
        if len(lines) > len(COLORS):  # beside the axes: on them, it would hide some of so many
            figure.legend(loc="outside right upper")
        else:
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


def descents(
    field: tuple[np.ndarray, np.ndarray, np.ndarray],
    paths: Mapping[str, np.ndarray],
    losses: Mapping[str, tuple[np.ndarray, np.ndarray]],
    minimum: tuple[float, float] | None = None,
) -> np.ndarray:
    """Paths over the contours of a function of two variables, and beside them its values over evaluations.

    Args:
        field: xs (W,), ys (H,), values (H, W), of which those that are not finite are left blank.
        paths: name -> points (K, 2).
        losses: name -> (evaluations, values). Logarithmic if all are positive, or nearly: the least are drawn at 1e-16.
        minimum: marked with a star.

    Returns:
        (480, 1100, 3) uint8.
    """
    xs, ys, values = field
    finite = values[np.isfinite(values)]
    with style.context("default"):
        figure = Figure((11.0, 4.8), dpi=100, layout="constrained")
        left, right = figure.subplots(1, 2)
        left.set(xlim=(xs[0], xs[-1]), ylim=(ys[0], ys[-1]), xlabel="x", ylabel="y")
        if finite.size and finite.max() > finite.min():
            # Levels close together near the bottom, where paths end.
            levels = finite.min() + (finite.max() - finite.min()) * np.geomspace(1e-5, 1, 26)
            shown = np.ma.masked_invalid(values)
            left.contour(xs, ys, shown, levels=levels, colors="0.75", linewidths=0.7)
        nonnegative = all((each >= 0).all() for _, each in losses.values())
        for (name, points), color in zip(paths.items(), cycle(_MANY), strict=False):
            left.plot(points[:, 0], points[:, 1], ".-", color=color, linewidth=1.2, markersize=3, label=name)
            counts, each = losses[name]
            right.plot(counts, np.maximum(each, 1e-16) if nonnegative else each, color=color, label=name)
        if minimum is not None:
            left.plot(*minimum, "*", color="black", markersize=11)
        right.set(
            xlabel="evaluations (a Hessian-vector product: two)",
            ylabel="value",
            yscale="log" if nonnegative else "linear",
        )
        right.grid(alpha=0.3)
        right.legend()
        return _pixels(figure)


def heatmaps(panels: Mapping[str, np.ndarray], x_label: str, limits: tuple[float, float] | None = None) -> np.ndarray:
    """Matrices below one another over one axis, each with the same height for a row, but never too low to see.

    Args:
        panels: title -> (rows, columns).
        x_label: of the last one.
        limits: values of the darkest and the lightest color; None: those of each matrix, 0 and 1 at least.

    Returns:
        (H, 800, 3) uint8.
    """
    heights = [min(2.2, max(0.35, 0.05 * len(matrix))) for matrix in panels.values()]
    with style.context("default"):
        figure = Figure((8.0, sum(heights) + 0.42 * len(panels) + 0.4), dpi=100, layout="constrained")
        all_axes = figure.subplots(len(panels), 1, squeeze=False, height_ratios=heights)[:, 0]
        for axes, (title, matrix) in zip(all_axes, panels.items(), strict=True):
            least, most = limits or (min(0.0, float(np.min(matrix))), max(1.0, float(np.max(matrix))))
            axes.imshow(matrix, aspect="auto", interpolation="nearest", cmap="magma", vmin=least, vmax=most)
            axes.set_title(title, fontsize=9, loc="left", pad=3)
            axes.set(yticks=[])
            axes.tick_params(labelsize=8, labelbottom=axes is all_axes[-1])
        all_axes[-1].set_xlabel(x_label, fontsize=9)
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
