"""Labeling each pixel of a photo."""

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tensorflow as tf
import tyro

from kerasmodels.config import PositiveInt, check
from kerasmodels.data import read_image, write_image
from kerasmodels.data.images import SUFFIXES, check_photo
from kerasmodels.data.segmentation import legend, overlay, voc_palette, write_label_map
from kerasmodels.data.tiles import tiles
from kerasmodels.family import RunReport, Task
from kerasmodels.segmenter import Segmenter
from kerasmodels.servables import served
from kerasmodels.tasks import TrainedOptions
from kerasmodels.tasks.pictures import check_result, check_targets

Refine = Callable[[np.ndarray, np.ndarray, Mapping[str, Any]], np.ndarray]
"""(photo, probabilities (H, W, classes), the values of a `dense_crf.Config`) -> probabilities: `dense_crf.refine`."""
TILE = 1025
"""Largest side of what a network sees at once, pixels."""


class LabelOptions(TrainedOptions):
    """Label each pixel of a photo with what it shows."""

    photo: Annotated[Path, tyro.conf.Positional]
    """The photo, of any size."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The label map to write: a PNG with PASCAL VOC's palette, whose indices are the labels."""
    overlay: Path | None = None
    """Also write the photo with the labels over it."""
    legend: Path | None = None
    """Also write a picture of the colors and what they mean."""
    crf: tyro.conf.FlagCreatePairsOff[bool] = False
    """Move the labels onto the photo's edges, by the config's fully connected CRF."""
    tile: PositiveInt = TILE
    """Largest side of what the network sees at once, pixels, its margin included."""

    def validate(self) -> None:
        """Raise UsageError for names of results that do not do."""
        check(self.out.suffix.lower() == ".png", "a name ending in .png: label maps are not compressed", str(self.out))
        targets = [path for path in (self.out, self.overlay, self.legend) if path is not None]
        for path in targets:
            check(path.suffix.lower() in SUFFIXES, "a picture name such as overlay.png", str(path))
        check_targets(targets, [self.photo])


def segment(
    model: Segmenter, photo: np.ndarray, tile: int = TILE, refine: Refine | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Labels and probabilities of each pixel of a photo.

    Args:
        model: a trained segmenter.
        photo: (H, W, 3) RGB of any size, uint8 or floats of 0-255.
        tile: largest side of what the network sees at once, pixels, its margin included. Tiles of networks that pad
            nothing fit together without a seam, those of others overlap; what a context module does, it does to all
            positions at once.
        refine: what moves labels onto the photo's edges, with the kernels of the config: `models.dense_crf.refine`.

    Returns:
        labels (H, W) uint8, probabilities (H, W, classes) float32.

    Raises:
        UsageError: a tile that is all margin and overlap.
        DataError: see `check_photo`; or a network that gives no probabilities to refine.
    """
    config = model.config
    if check_photo(photo).dtype != np.uint8:
        photo = np.clip(np.rint(photo), 0, 255).astype("uint8")
    cells = (tile - config.field) // config.stride + 1
    least = 2 * config.overlap * config.stride + config.field
    check(cells > 2 * config.overlap, f"tiles of at least {least} pixels", tile)
    if max(photo.shape[:2]) + 2 * config.margin <= tile:
        probabilities = served(model, "segment")(image=photo[None])["probabilities"][0]
    else:
        probabilities = _in_tiles(model, photo, cells)
    if refine is not None:
        probabilities = refine(photo, probabilities, config.crf)
    return probabilities.argmax(-1).astype("uint8"), probabilities


def _in_tiles(model: Segmenter, photo: np.ndarray, cells: int) -> np.ndarray:
    """Probabilities (H, W, classes) from tiles of at most so many positions a side."""
    config = model.config
    stride, overlap, more = config.stride, config.overlap, int(config.corners)
    # As `Segmenter.probabilities` does it: first to whole positions, then the margin.
    after = [-(side - more) % stride for side in photo.shape[:2]]
    padded = photo
    for by in ([(0, a) for a in after], [(config.margin, config.margin)] * 2):
        padded = np.pad(padded, (*by, (0, 0)), mode="reflect" if min(padded.shape[:2]) > 1 else "edge")
    size = [side + more_pixels for side, more_pixels in zip(photo.shape[:2], after, strict=True)]
    rows, columns = ((side - more) // stride + more for side in size)
    maps = np.empty((1, rows, columns, config.classes), "float32")
    for tile in tiles(rows, columns, cells - 2 * overlap, overlap):
        down, across = (slice(stride * seen.start, stride * (seen.stop - 1) + config.field) for seen in tile.seen)
        found = model.score_map(tf.constant(padded[down, across][None], tf.float32), training=False)
        maps[0][tile.own] = found[0].numpy()[tile.inner]
    logits = model.enlarged(model.with_context(tf.constant(maps)), size)
    return tf.nn.softmax(logits)[0, : photo.shape[0], : photo.shape[1]].numpy()


def label_photo(options: LabelOptions, family: str, refine: Refine) -> RunReport:
    """Label a photo with a trained network, and write what the options ask for."""
    trained = options.trained(family)
    for target in (options.out, options.overlay):
        if target is not None:
            check_result(target, options.photo)
    photo = read_image(options.photo)
    model = trained.load()
    begin, names = time.perf_counter(), model.config.label_names()
    labels, _ = segment(model, photo, options.tile, refine if options.crf else None)
    found, counts = np.unique(labels, return_counts=True)
    facts: dict[str, Any] = {
        "size": f"{photo.shape[1]} x {photo.shape[0]}",
        "labels": ", ".join(f"{names[k]}: {100 * n / labels.size:.1f} %" for k, n in zip(found, counts, strict=True)),
        "seconds": round(time.perf_counter() - begin, 2),
    }
    written, colors = [write_label_map(options.out, labels)], voc_palette()[: model.config.classes]
    if options.overlay is not None:
        written.append(write_image(options.overlay, overlay(photo, labels, colors)))
    if options.legend is not None:
        written.append(write_image(options.legend, legend([names[k] for k in found], colors[found])))
    return RunReport(tuple(written), facts)


def label_task(family: str, refine: Refine) -> Task:
    """The task of a family of segmenters; `refine` is for --crf."""
    return Task(LabelOptions, lambda options: label_photo(options, family, refine))
