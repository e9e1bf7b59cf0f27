"""Inputs that no photo resembles, but a poster, a screenshot or a black video frame does.

Smooth examples with a little grain hide what rounding does to a map without any variance, or to a system of equations
that flat colors leave open. So every artifact is also executed on these.
"""

from collections.abc import Callable, Iterator, Mapping

import numpy as np

from kerasmodels.family import Servable, TensorSpec

BLOCK = 8
"""Side of the blocks of one color, pixels."""


def _flat(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    n, height, width, channels = shape
    blocks = random.integers(0, 256, (n, -(-height // BLOCK), -(-width // BLOCK), channels))
    return blocks.repeat(BLOCK, 1).repeat(BLOCK, 2)[:, :height, :width]


def _saturated(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    """A ramp most of which is cut off at black and at white."""
    ramp = np.linspace(-400, 655, shape[2])[:, None] + random.uniform(-100, 100, shape[3])
    return np.broadcast_to(np.clip(np.rint(ramp), 0, 255), shape)


def _checkerboard(shape: tuple[int, ...], random: np.random.Generator) -> np.ndarray:
    y, x = np.indices(shape[1:3])
    return np.broadcast_to(255 * ((y + x) % 2)[:, :, None], shape)


PICTURES: Mapping[str, Callable[[tuple[int, ...], np.random.Generator], np.ndarray]] = {
    "flat": _flat,
    "black": lambda shape, random: np.zeros(shape),
    "white": lambda shape, random: np.full(shape, 255),
    "noise": lambda shape, random: random.integers(0, 256, shape),
    "checkerboard": _checkerboard,
    "two-valued": lambda shape, random: np.broadcast_to(255 * random.integers(0, 2, (*shape[:3], 1)), shape),
    "saturated": _saturated,
}
"""Of shape (N, H, W, 3), 0-255."""


def inputs(
    servable: Servable, example: Mapping[str, np.ndarray], seed: int = 0
) -> Iterator[tuple[str, dict[str, np.ndarray]]]:
    """The hostile inputs of a servable: name, and an array per input of the shapes of `example`.

    Pictures become each of `PICTURES`. A tensor with `extremes` goes through its example, itself filled with each of
    them, and a random mix, as the pictures change; without pictures, through all but the example. Other inputs stay
    those of the example. There are none if no input is a picture or has extremes.
    """
    pictures = any(spec.kind == "image" for spec in servable.inputs)
    others = [spec for spec in servable.inputs if spec.kind != "image" and spec.extremes]
    if pictures:
        names = list(PICTURES)
    else:
        most = max((spec.extremes for spec in others), key=len, default=())
        names = [*(f"all {value:g}" for value in most), "extremes mixed"] if most else []
    for number, name in enumerate(names):
        random = np.random.default_rng([seed, number])
        arrays = dict(example)
        for spec in servable.inputs:
            shape = example[spec.name].shape
            if spec.kind == "image":
                arrays[spec.name] = PICTURES[name](shape, random).astype("uint8")
            elif spec.extremes:
                turns = _turns(spec, example[spec.name], random)
                turns = turns if pictures else turns[1:]
                arrays[spec.name] = turns[number % len(turns)]
        yield name, arrays


def _turns(spec: TensorSpec, example: np.ndarray, random: np.random.Generator) -> list[np.ndarray]:
    mixed = random.choice(spec.extremes, example.shape).astype(example.dtype)
    return [example, *(np.full_like(example, value) for value in spec.extremes), mixed]
