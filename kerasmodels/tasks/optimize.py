"""Pictures found by optimization: one is written, and seen while it is made."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from kerasmodels.config import Config, NonNegativeInt
from kerasmodels.family import RunReport
from kerasmodels.training.picture import Stage, optimize_picture, to_uint8


class OptimizeOptions(Config):
    """Optimize the pixels of a picture."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write; also written while it is being made."""
    method: Literal["lbfgs", "adam", "cg"] = "lbfgs"
    """L-BFGS needs the fewest evaluations; adam needs the least memory."""
    preview_every: NonNegativeInt = 50
    """Iterations between two previews, which are written to --out; 0 for none."""
    log: Path | None = None
    """A new folder for the loss curve (log.csv), all previews, and gallery.html."""


def optimize(
    options: OptimizeOptions, stages: Sequence[Stage], finish: Callable[[np.ndarray], np.ndarray] = to_uint8
) -> RunReport:
    """Drive the stages, write the picture, and report what was done. See `optimize_picture` for errors."""
    done = optimize_picture(
        stages,
        options.out,
        method=options.method,
        finish=finish,
        log=options.log,
        preview_every=options.preview_every,
    )
    facts = {
        "size": f"{done.picture.shape[1]} x {done.picture.shape[0]}",
        "method": options.method,
        "iterations": done.steps,
        "evaluations": done.evaluations,
        "loss": f"{done.loss:.5g}",
        **{name: f"{value:.5g}" for name, value in done.terms.items()},
        "seconds": round(done.seconds, 1),
    }
    logged = () if options.log is None else (options.log / "log.csv", options.log / "gallery.html")
    return RunReport((options.out, *logged), facts)
