"""Curves and points as pictures, for the figures of experiments."""

from collections.abc import Mapping

import numpy as np
from PIL import Image, ImageDraw

COLOURS = ("#b4532a", "#2a6fb4", "#3a8f4d", "#7a4fa3")
"""Of curves, in order."""


def plot(
    curves: Mapping[str, tuple[np.ndarray, np.ndarray]], points: Mapping[str, Mapping[float, float]], below: str
) -> np.ndarray:
    """Curves and single points on linear scales, their names above the frame.

    Args:
        curves: name -> (xs, ys).
        points: name -> {x: y}.
        below: what the x axis shows.

    Returns:
        (400, 640, 3) uint8.
    """
    image = Image.new("RGB", (640, 400), "white")
    draw = ImageDraw.Draw(image)
    xs = np.concatenate([x for x, _ in curves.values()])
    ys = np.concatenate([*(y for _, y in curves.values()), *([list(p.values()) for p in points.values()]), [0.0]])
    left, right, low, high = xs.min(), xs.max(), ys.min(), ys.max() * 1.05

    def place(x: float, y: float) -> tuple[float, float]:
        return 60 + 560 * (x - left) / (right - left), 360 - 340 * (y - low) / (high - low)

    draw.rectangle((60, 20, 620, 360), outline="black")
    for text, at in ((f"{left:.3g}", (58, 366)), (f"{right:.3g}", (596, 366)), (below, (300, 366))):
        draw.text(at, text, "black")
    for value in (low, high):
        draw.text((12, place(left, value)[1] - 6), f"{value:.3g}", "black")
    for i, (name, (x, y)) in enumerate(curves.items()):
        draw.line([place(*p) for p in zip(x, y, strict=True)], fill=COLOURS[i], width=2)
        draw.text((64 + 150 * i, 4), name, COLOURS[i])
    for i, (name, some) in enumerate(points.items(), start=len(curves)):
        for point in some.items():
            across, down = place(*point)
            draw.ellipse((across - 4, down - 4, across + 4, down + 4), fill=COLOURS[i])
        draw.text((64 + 150 * i, 4), name, COLOURS[i])
    return np.asarray(image)
