"""Made-up inputs of servables: what artifacts are verified, calibrated and timed on. Equal for equal (dims, seed)."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

Draw = Callable[[np.random.Generator, int, int], np.ndarray]
"""(random, height, width) -> a picture (H, W, C) of any range."""


def drawn(dims: Mapping[str, Any], seed: int, draw: Draw) -> np.ndarray:
    """(batch, height, width, C) uint8, one picture after another from one stream of random numbers."""
    random = np.random.default_rng(seed)
    pictures = [draw(random, dims["height"], dims["width"]) for _ in range(dims["batch"])]
    return np.stack([np.clip(picture, 0, 255).astype("uint8") for picture in pictures])


def example_images(dims: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Pictures with the look of photos, as "image": smooth regions, edges and a little grain."""

    def draw(random: np.random.Generator, h: int, w: int) -> np.ndarray:
        y, x = np.mgrid[0:h, 0:w] / max(h, w)
        top, bottom = random.uniform(0, 255, (2, 3))
        picture = top + (bottom - top) * y[..., None]
        for _ in range(12):
            cx, cy, radius = random.uniform(0, 1), random.uniform(0, 1), random.uniform(0.03, 0.3)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            shade = 1 + random.uniform(-0.5, 0.5) * (x - cx)[..., None] / radius
            picture = np.where(inside[..., None], random.uniform(0, 255, 3) * shade, picture)
        return picture + random.normal(0, 4, picture.shape)

    return {"image": drawn(dims, seed, draw)}


def example_shapes(dims: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Discs of several colors before a gradient, with a little grain, as "image"."""

    def draw(random: np.random.Generator, h: int, w: int) -> np.ndarray:
        y, x = np.mgrid[0:h, 0:w] / max(h, w)
        picture = random.uniform(0, 255, 3) * (0.5 + 0.5 * y[..., None])
        for _ in range(8):
            cx, cy, radius = random.uniform(0, 1), random.uniform(0, 1), random.uniform(0.05, 0.3)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            picture = np.where(inside[..., None], random.uniform(0, 255, 3), picture)
        return picture + random.normal(0, 5, (h, w, 3))

    return {"image": drawn(dims, seed, draw)}


def example_noise(dims: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Noise of all sizes, as natural pictures have it, as "image". No two places are equal, so a maximum has one."""

    def draw(random: np.random.Generator, h: int, w: int) -> np.ndarray:
        picture = np.full((h, w, 3), 128.0)
        for side in (2, 4, 8, 16, 64):
            coarse = random.uniform(-1, 1, (min(side, h), min(side, w), 3))
            for c in range(3):
                channel = Image.fromarray(coarse[..., c].astype("float32"))
                picture[..., c] += 40 * np.asarray(channel.resize((w, h), Image.Resampling.BICUBIC))
        return picture + random.normal(0, 6, picture.shape)

    return {"image": drawn(dims, seed, draw)}


def example_strokes(dims: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Strokes of several colors before a gradient, with a little grain, as "image"."""

    def draw(random: np.random.Generator, h: int, w: int) -> np.ndarray:
        y, x = np.mgrid[0:h, 0:w] / max(h, w)
        ground = random.uniform(0, 255, 3) * (0.5 + 0.5 * (y + x)[..., None] / 2)
        drawing = Image.fromarray(np.clip(ground + random.normal(0, 4, ground.shape), 0, 255).astype("uint8"))
        for _ in range(3):
            middle, reach = random.uniform(0.2, 0.8, 2) * (w, h), random.uniform(6, 20)
            points = [tuple(middle + random.uniform(-reach, reach, 2)) for _ in range(4)]
            color = tuple(int(c) for c in random.uniform(0, 255, 3))
            ImageDraw.Draw(drawing).line(points, fill=color, width=3, joint="curve")
        return np.asarray(drawing)

    return {"image": drawn(dims, seed, draw)}


def example_digits(dims: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """A stroke of random direction, white on black, as "digits", (batch, height, width, 1)."""

    def draw(random: np.random.Generator, h: int, w: int) -> np.ndarray:
        drawing = Image.new("L", (w, h))
        points = [tuple(random.uniform(0.15, 0.85, 2) * (w, h)) for _ in range(4)]
        ImageDraw.Draw(drawing).line(points, fill=255, width=max(2, h // 10), joint="curve")
        return np.asarray(drawing)[..., None]

    return {"digits": drawn(dims, seed, draw)}
