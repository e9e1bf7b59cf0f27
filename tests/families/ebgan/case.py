"""The family in miniature, for the conformance battery."""

from pathlib import Path
from typing import Any

from kerasmodels.data import write_image
from kerasmodels.models import ebgan
from tests.cases import Case, photo, small_pictures


def _ebgan_task(folder: Path, run: Path | None, out: Path) -> Any:
    for number, (height, width) in enumerate(((20, 33), (9, 40))):
        write_image(folder / "seen" / f"{number}.png", photo(number, height, width))
    return ebgan.FAMILY.task.options(inputs=(folder / "seen",), out=out / "maps", run=run)


CASE = Case(
    # Weights begin near 0: a high rate, so that the discriminator is more than a constant after 4 steps.
    config=ebgan.Config(size=16, filters=8, latent=12, margin=20.0, noise=0.1, batch=3, learning_rate=0.05, steps=4),
    data=small_pictures,
    dims={"batch": 1},
    task=_ebgan_task,
)
