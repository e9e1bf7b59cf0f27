"""Draws super_resolution.png: middles of scikit-image's astronaut (NASA, public domain) and cat (CC0)."""

from functools import partial
from pathlib import Path

import numpy as np
from skimage import data

from kerasmodels import presets
from kerasmodels.claims.enlarging import bicubic
from kerasmodels.data import degrade, write_image
from kerasmodels.tasks.upscale import upscale

HERE = Path(__file__).parent


def main() -> None:
    ways = {"bicubic": bicubic(4)}
    for name in ("pixel", "feature"):
        ways[name] = partial(upscale, presets.preset("super_resolution", name).load())
    rows = []
    for photo, top, left in ((data.astronaut(), 40, 150), (data.chelsea(), 60, 150)):
        truth = photo[: photo.shape[0] // 4 * 4, : photo.shape[1] // 4 * 4]
        made = [truth, *(way(degrade(truth, 4)) for way in ways.values())]
        rows.append(np.concatenate([p[top : top + 160, left : left + 160] for p in made], axis=1))
    write_image(HERE / "super_resolution.png", np.concatenate(rows, axis=0))


if __name__ == "__main__":
    main()
