"""The user's task: a photo and a reference in, a photo out."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import tyro

from kerasmodels import runs
from kerasmodels.data import write_image
from kerasmodels.data.images import SUFFIXES
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport, check
from kerasmodels.models.photo_style.config import Config
from kerasmodels.models.photo_style.model import recoloured, stages
from kerasmodels.models.photo_style.pair import read_pair, readable, resized
from kerasmodels.training.picture import optimize_picture, to_uint8


@dataclass(frozen=True)
class RunOptions:
    """Give a photo the colours and the light of another (--reference), or finish a stylised one (--stylised)."""

    photo: Annotated[Path, tyro.conf.Positional]
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write; also written while it is being made."""
    reference: Path | None = None
    """The photo whose style is wanted."""
    mask: Path | None = None
    """The photo's regions, in blue, green, black, white, red, yellow, grey, lightblue and purple."""
    reference_mask: Path | None = None
    """The reference's regions: regions of one colour take their style from each other."""
    auto_masks: int = 0
    """Without masks: find this many regions in both photos; 0 for none."""
    stylised: Path | None = None
    """Instead of a reference: the photo as some other method stylised it. Only the smoothing is done."""
    run: Path | None = None
    """Instead of a reference: a run folder of `kerasmodels train photo_style`, whose colours the photo gets."""
    size: int = 700
    """Longer side to optimise at, pixels."""
    full_size: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the result at the photo's own size: the colours found at --size are applied to the whole photo."""
    iterations: int = 300
    """Of each of the two stages."""
    method: Literal["lbfgs", "adam"] = "lbfgs"
    """The optimiser."""
    style_weight: float = Config.style_weight
    """More of it, more of the reference."""
    affine_weight: float = Config.affine_weight
    """More of it, more of a photo."""
    smooth: tyro.conf.FlagCreatePairsOff[bool] = True
    """Leave out for the picture as optimised, without the smoothing: --no-smooth."""
    log: Path | None = None
    """A folder for the curve and pictures of the way."""
    vgg: str = Config.vgg
    """VGG19 weights."""
    seed: int = 0
    """Of the clustering."""


def run(options: RunOptions) -> RunReport:
    ways = {name: getattr(options, name) for name in ("reference", "stylised", "run")}
    if sum(value is not None for value in ways.values()) != 1:
        given = [f"--{name}" for name, value in ways.items() if value is not None]
        raise UsageError(f"expected one of --reference, --stylised and --run. Received: {' '.join(given) or 'none'}.")
    if options.out.resolve() in {p.resolve() for p in (options.photo, options.reference, options.stylised) if p}:
        raise UsageError(f"expected a place to write where no input is overwritten. Received: {options.out}.")
    if options.out.suffix.lower() not in SUFFIXES:
        raise UsageError(f"expected a picture name such as out.png or out.jpg. Received: {str(options.out)!r}.")
    begin = time.perf_counter()
    if options.reference is not None:
        return _transfer(options)
    photo = readable(options.photo)
    if options.stylised is not None:
        stylised = readable(options.stylised)
        if abs(np.log(stylised.shape[0] * photo.shape[1] / (stylised.shape[1] * photo.shape[0]))) > 0.02:
            raise DataError(
                f"expected {options.stylised} in the proportions of {options.photo}. Received: {stylised.shape[1]} x "
                f"{stylised.shape[0]} and {photo.shape[1]} x {photo.shape[0]}."
            )
        result = recoloured(photo, resized(photo, *stylised.shape[:2]), stylised)
    else:
        trained = runs.RunFolder(options.run or "").trained()
        if trained.family != "photo_style":
            raise UsageError(f"expected a run of photo_style. Received: {options.run}, a run of {trained.family}.")
        model = trained.load()[2]
        result = recoloured(photo, model.photo.pixels.numpy()[0], np.clip(model.pixels(), 0, 255))
    path = write_image(options.out, result)
    return RunReport((path,), {"seconds": round(time.perf_counter() - begin, 2)})


def _transfer(options: RunOptions) -> RunReport:
    photo = readable(options.photo)
    check(options.size >= 16, "size >= 16", options.size)
    check(options.iterations > 0, "iterations > 0", options.iterations)
    scale = min(1.0, options.size / max(photo.shape[:2]))
    # Long strips are not shrunk below what VGG19 can see.
    scale = max(scale, 16 / min(photo.shape[:2]))
    height, width = (round(side * scale) for side in photo.shape[:2])
    config = Config(
        photo=options.photo,
        reference=options.reference,
        mask=options.mask,
        reference_mask=options.reference_mask,
        auto_masks=options.auto_masks,
        height=height,
        width=width,
        reference_size=options.size,
        steps=2 * options.iterations,
        plain_steps=options.iterations,
        style_weight=options.style_weight,
        affine_weight=options.affine_weight,
        vgg=options.vgg,
        seed=options.seed,
    )
    config.validate()
    pair = read_pair(config)

    def finish(pixels: np.ndarray) -> np.ndarray:
        if not options.smooth:
            return to_uint8(pixels)
        return recoloured(photo if options.full_size else pair.photo, pair.photo, np.clip(pixels, 0, 255))

    done = optimize_picture(stages(config, pair), options.out, method=options.method, finish=finish, log=options.log)
    facts = {
        "size": f"{done.picture.shape[1]} x {done.picture.shape[0]}",
        "regions": len(pair.masks),
        "iterations": done.steps,
        "evaluations": done.evaluations,
        **{name: f"{value:.4g}" for name, value in done.terms.items()},
        "seconds": round(done.seconds, 1),
    }
    return RunReport((options.out,), facts)
