"""Making rough labels, painted ones or a network's, follow the edges of the photo they belong to."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import tyro

from kerasmodels import reading
from kerasmodels.config import Config, check
from kerasmodels.data import read_image, write_image
from kerasmodels.data.images import SUFFIXES, check_same_size
from kerasmodels.data.segmentation import overlay, read_annotation, voc_palette
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport
from kerasmodels.tasks.pictures import check_result, check_targets


def probabilities_of(labels: np.ndarray, count: int, sure: float = 0.7) -> np.ndarray:
    """An annotation as probabilities (pydensecrf's `unary_from_labels`).

    Args:
        labels: (H, W) integers, 0 to count - 1; negative where nothing is known.
        count: number of labels, at least 2.
        sure: probability that an annotated pixel is right, above 1 / count and below 1.

    Returns:
        (H, W, count) float32: `sure` for the label, the rest shared by the others; all alike where nothing is known.

    Raises:
        DataError: one label only, or one that is not below `count`.
        UsageError: `sure` out of range.
    """
    if count < 2:
        raise DataError("expected at least two labels: with one there is nothing to decide. Received: 1.")
    if labels.max(initial=0) >= count:
        raise DataError(f"expected labels below {count}. Received: {labels.max()}.")
    check(1 / count < sure < 1, f"a probability above {1 / count:.3g} (chance) and below 1", sure)
    known = (labels >= 0)[..., None]
    chosen = np.eye(count, dtype="float32")[np.maximum(labels, 0)]
    annotated = np.where(chosen > 0, sure, (1 - sure) / (count - 1))
    return np.where(known, annotated, 1 / count).astype("float32")


class RefineOptions(Config):
    """Make rough labels follow a photo's edges: strokes in colors (--labels), or a network's (--probabilities)."""

    image: Path
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The label picture to write, in the annotation's colors (for probabilities: PASCAL VOC's)."""
    labels: Path | None = None
    """Picture of the photo's size, PNG: a color for each label, black where nothing is known."""
    probabilities: Path | None = None
    """Instead: a NumPy file (.npy) of probabilities, (H, W, labels) or (labels, H, W)."""
    overlay: Path | None = None
    """Also write the photo with the labels over it."""
    black: tyro.conf.FlagCreatePairsOff[bool] = False
    """Black is a label, too: PASCAL VOC's background."""
    gt_prob: float = 0.7
    """Probability that an annotated pixel is right."""
    method: Literal["lattice", "window"] = "lattice"
    """window: only pixels nearby, as exported models work."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        if (self.labels is None) == (self.probabilities is None):
            raise UsageError("expected one of --labels PICTURE and --probabilities FILE.npy.")
        for target in (self.out, self.overlay or self.out):
            check(target.suffix.lower() in SUFFIXES, "a picture name such as out.png", str(target))


def write_labels(options: RefineOptions, refine: Callable[[np.ndarray, np.ndarray], np.ndarray]) -> RunReport:
    """Write the refined labels that the options ask for.

    Args:
        options: of which photo.
        refine: (H, W, 3) uint8, (H, W, L) probabilities -> (H, W, L).

    Raises:
        UsageError: an input would be overwritten, two results would be written to one place, or `gt_prob` is out of
            range.
        DataError: an input cannot be read, or does not belong to the photo.
        StorageError: see `write_image`.
    """
    targets = [path for path in (options.out, options.overlay) if path]
    check_targets(targets, [path for path in (options.image, options.labels, options.probabilities) if path])
    for target in targets:
        check_result(target, options.image)
    photo = read_image(options.image)
    if options.labels is not None:
        labels, colors = read_annotation(options.labels, options.black)
        check_same_size(str(options.labels), labels, photo)
        given = probabilities_of(labels, len(colors), options.gt_prob)
        facts: dict[str, Any] = {"labels": len(colors), "annotated": f"{100 * (labels >= 0).mean():.1f} %"}
    else:
        given = _read_probabilities(Path(options.probabilities or ""), photo)
        colors = voc_palette()[: given.shape[-1]]
        facts = {"labels": given.shape[-1]}
    began = time.perf_counter()
    found = refine(photo, given).argmax(-1)
    facts["seconds"] = round(time.perf_counter() - began, 2)
    facts["pixels that changed"] = f"{100 * (found != given.argmax(-1)).mean():.1f} %"
    written = [write_image(options.out, colors[found])]
    if options.overlay is not None:
        written.append(write_image(options.overlay, overlay(photo, found, colors)))
    return RunReport(tuple(written), facts)


def _read_probabilities(path: Path, photo: np.ndarray) -> np.ndarray:
    try:
        values = reading.read_npy(path)
    except (OSError, ValueError) as error:
        raise DataError(f"expected a NumPy file (.npy) at {path}. Received: {error}.") from error
    if values.ndim != 3 or values.dtype.kind not in "biuf":
        raise DataError(
            f"expected one array (H, W, labels) of numbers in {path}. Received: {values.dtype} of shape {values.shape}."
        )
    if values.shape[:2] != photo.shape[:2] and values.shape[1:] == photo.shape[:2]:
        values = np.moveaxis(values, 0, -1)
    check_same_size(str(path), values, photo)
    check(values.shape[-1] <= 256, "at most 256 labels", values.shape[-1])
    return values.astype("float32")
