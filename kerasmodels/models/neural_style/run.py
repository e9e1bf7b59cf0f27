"""The user's task: a photo and paintings in, a picture out."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from kerasmodels import runs
from kerasmodels.data import image_size, read_image, resized
from kerasmodels.errors import UsageError
from kerasmodels.family import RunReport, check
from kerasmodels.models.neural_style.config import Config, Look
from kerasmodels.models.neural_style.trainer import NeuralStyle, build, finish
from kerasmodels.training.picture import Stage, optimize_picture


@dataclass(frozen=True, kw_only=True)
class RunOptions(Look):
    """Paint a photo in the style of one or several paintings."""

    content: Annotated[Path, tyro.conf.Positional]
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write."""
    start: Literal["noise", "content", "style"] = "content"
    """What the picture shows at first; noise, the paper's, takes several times as long."""
    start_from: Path | None = None
    """Go on from an earlier result: a picture, or a run folder."""
    method: Literal["lbfgs", "adam", "cg"] = "lbfgs"
    """L-BFGS (paper) needs the fewest evaluations; adam needs the least memory."""
    steps: int = 200
    """Iterations."""
    learning_rate: float = 10.0
    """Of Adam, levels of 0-255."""
    levels: int | None = None
    """Sizes on the way to `size`, each half the next; each larger one gets half the iterations. Left out: as many as
    bring the first down to 256 pixels or less. 1 is the paper's."""
    preview_every: int = 50
    """Iterations between two previews, which are written to --out; 0 for none."""
    log: Path | None = None
    """A new folder for the loss curve (log.csv), all previews, and gallery.html."""


_LARGEST_START = 256


def run(options: RunOptions) -> RunReport:
    options.validate()
    check(len(options.style) > 0, "a painting: --style PATH", options.style)
    check(options.steps > 0, "steps > 0", options.steps)
    check(options.preview_every >= 0, "preview_every >= 0", options.preview_every)
    check(options.levels is None or options.levels > 0, "levels > 0", options.levels)
    image_size(options.content)
    inputs = {p.resolve() for p in (options.content, *options.style, *options.masks, *options.style_masks)}
    check(options.out.resolve() not in inputs, "a place to write where no input is overwritten", str(options.out))
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(Look)}
    sizes = _sizes(options)
    configs = [
        Config(
            **{**values, "size": size},
            content=options.content,
            steps=max(1, options.steps // 2**i),
            learning_rate=options.learning_rate,
        )
        for i, size in enumerate(sizes)
    ]
    for config in configs:
        config.validate()
    begin = None if options.start_from is None else _earlier(options.start_from)

    def stage(config: Config) -> Stage:
        def model(before: np.ndarray | None) -> NeuralStyle:
            made = build(config)
            shown = begin if before is None else before
            if shown is not None:
                made.picture.show(resized(shown, *config.shape))
            return made

        return Stage(config.steps, model)

    done = optimize_picture(
        [stage(config) for config in configs],
        options.out,
        method=options.method,
        finish=finish(configs[-1]),
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


def _sizes(options: RunOptions) -> list[int]:
    """The longer side at each level, coarse to fine."""
    sizes = [options.size]
    while len(sizes) < (options.levels or 99):
        if options.levels is None and sizes[0] <= _LARGEST_START:
            break
        sizes.insert(0, round(sizes[0] / 2))
    return sizes


def _earlier(path: Path) -> np.ndarray:
    """The picture in a file or in a run folder."""
    if not path.is_dir():
        return read_image(path).astype("float32")
    trained = runs.RunFolder(path).trained()
    if trained.family != "neural_style":
        raise UsageError(f"expected a picture or a run of neural_style. Received: {path}, a run of {trained.family}.")
    return trained.load()[2].pixels()
