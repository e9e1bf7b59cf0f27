"""The user's task: a photo in, what each pixel shows out."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro

from kerasmodels import weights
from kerasmodels.data import read_image
from kerasmodels.data.images import SUFFIXES, write_image
from kerasmodels.data.segmentation import legend, overlay, voc_palette, write_label_map
from kerasmodels.family import RunReport, check
from kerasmodels.models import dense_crf
from kerasmodels.models.dilated_net.model import segment_picture


@dataclass(frozen=True)
class RunOptions:
    """Label each pixel of a photo with what it shows."""

    photo: tyro.conf.Positional[Path]
    """The photo, of any size."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The label map to write: a PNG with PASCAL VOC's palette, whose indices are the labels."""
    run: Path | None = None
    """A run folder of `kerasmodels train dilated_net`."""
    preset: str | None = None
    """Instead: shipped weights; `kerasmodels list` names them."""
    overlay: Path | None = None
    """Also write the photo with the labels over it."""
    legend: Path | None = None
    """Also write a picture of the colours and what they mean."""
    crf: tyro.conf.FlagCreatePairsOff[bool] = False
    """Then move the labels onto the photo's edges (family dense_crf, ten iterations)."""
    tile: int = 900
    """Largest side of what the front end sees at once, pixels, its margin included."""


def run(options: RunOptions) -> RunReport:
    def label(model: Any, config: Any, photo: np.ndarray) -> np.ndarray:
        probabilities = segment_picture(model, photo, options.tile)
        if options.crf:
            probabilities = dense_crf.refine(photo, probabilities, dense_crf.VARIANTS["paper"])
        return probabilities.argmax(-1)

    return label_photo(options, "dilated_net", label, lambda config: [str(n) for n in range(config.classes)])


def label_photo(
    options: Any,
    family: str,
    label: Callable[[Any, Any, np.ndarray], np.ndarray],
    names: Callable[[Any], Sequence[str]],
) -> RunReport:
    """Label a photo with a trained network, and write what the options ask for.

    Args:
        options: photo, out, run, preset, overlay and legend, as `RunOptions` has them.
        family: whose runs and presets are meant.
        label: (model, config, photo) -> labels (H, W).
        names: config -> what each label means.

    Raises:
        UsageError: neither or both of a run and a preset, another family's, or names for results that do not do.
        DataError: the photo cannot be read.
    """
    trained = weights.chosen(family, options.preset, options.run)
    check(
        options.out.suffix.lower() == ".png", "a name ending in .png: label maps are not compressed", str(options.out)
    )
    targets = [p for p in (options.out, options.overlay, options.legend) if p]
    for target in targets:
        check(target.suffix.lower() in SUFFIXES, "a picture name such as overlay.png", str(target))
        check(target.resolve() != options.photo.resolve(), "a place where the photo is not overwritten", str(target))
    check(len({t.resolve() for t in targets}) == len(targets), "a name of its own for each result", str(options.out))
    photo = read_image(options.photo)
    _, config, model = trained.load()
    begin, meaning = time.perf_counter(), names(config)
    labels = label(model, config, photo)
    found, counts = np.unique(labels, return_counts=True)
    facts: dict[str, Any] = {
        "size": f"{photo.shape[1]} x {photo.shape[0]}",
        "labels": ", ".join(f"{meaning[k]}: {100 * n / labels.size:.1f} %" for k, n in zip(found, counts, strict=True)),
        "seconds": round(time.perf_counter() - begin, 2),
    }
    written, colours = [write_label_map(options.out, labels)], voc_palette()[: config.classes]
    if options.overlay is not None:
        written.append(write_image(options.overlay, overlay(photo, labels, colours)))
    if options.legend is not None:
        written.append(write_image(options.legend, legend([meaning[k] for k in found], colours[found])))
    return RunReport(tuple(written), facts)
