"""The user's task: photos in, what they show and where the network looked out."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image

from kerasmodels import presets, storage
from kerasmodels.data import read_image, write_image
from kerasmodels.data.images import resized
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport, check
from kerasmodels.models.deformable_net.detector import DeformableDetector, certain, moved_bins
from kerasmodels.models.deformable_net.drawings import PANEL, bins_on, boxes_on, effective_field, looked_at, middle

_LARGEST = 320
"""Longest side of a photo that a detector sees unless told otherwise, pixels: its digits are 10 to 60 pixels high."""


@dataclass(frozen=True)
class RunOptions:
    """Tell which digit photos show, or find all digits on them; and draw where the network looked.

    What it does depends on what was trained: with `--variant detector`, digits are found.
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Photos: of one handwritten digit each, dark on light or light on dark; for a detector, of any number."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write: a row for each photo."""
    run: Path | None = None
    """The run folder of a trained network."""
    preset: str | None = None
    """Instead: shipped weights; `kerasmodels list` names them."""
    show_offsets: tyro.conf.FlagCreatePairsOff[bool] = False
    """Draw, on the photo, where the deformable convolutions of one unit sample, and beside it that unit's effective
    receptive field; for a unit on the digit and for one beside it. For a detector: where the bins of each box look."""
    size: int | None = None
    """Side to which the photo is shrunk before it is looked at, pixels. Left out: 28, as the network was trained; for a
    detector, the longest side, 320 at most."""
    least: float = 0.5
    """Detector: only digits of at least this score, 0-1."""
    boxes: Path | None = None
    """Detector: also write what was found, as JSON."""


def run(options: RunOptions) -> RunReport:
    trained = presets.chosen("deformable_net", options.preset, options.run)
    check(bool(options.inputs), "at least one photo", options.inputs)
    check(options.size is None or 8 <= options.size <= 2048, "size, 8 to 2048 pixels", options.size)
    check(0 <= options.least <= 1, "least, 0 to 1", options.least)
    targets = [path.resolve() for path in (options.out, options.boxes) if path is not None]
    check(len(set(targets)) == len(targets), "a name of its own for each result", str(options.out))
    for path in options.inputs:
        check(path.resolve() not in targets, "a place where no photo is overwritten", str(path))
    _, _, model = trained.load()
    if isinstance(model, DeformableDetector):
        return _detect(options, model)
    if options.boxes is not None:
        raise UsageError(f"--boxes is for detectors. Received: {trained.name}, a classifier. Train --variant detector.")
    return _classify(options, model)


def _classify(options: RunOptions, model: Any) -> RunReport:
    rows, facts = [], {}
    for path in options.inputs:
        photo = read_image(path)
        digit = as_digit(photo, options.size or 28)
        probabilities = np.asarray(model(digit[None].astype("float32")))[0]
        best = int(np.argmax(probabilities))
        facts[path.name] = f"{best} ({100 * probabilities[best]:.1f} %)"
        large = np.asarray(Image.fromarray(photo).resize((PANEL, PANEL), Image.Resampling.LANCZOS))
        panels = [large, np.asarray(Image.fromarray(digit[..., 0]).resize((PANEL, PANEL), 0).convert("RGB"))]
        if options.show_offsets:
            for unit in (middle(digit), (0.12, 0.12)):
                panels += [
                    looked_at(model.network, digit, unit, large),
                    effective_field(model.network, digit, unit, large),
                ]
        rows.append(np.concatenate(panels, axis=1))
    return RunReport((write_image(options.out, np.concatenate(rows, axis=0)),), facts)


def _detect(options: RunOptions, model: DeformableDetector) -> RunReport:
    rows, facts, listed = [], {}, []
    for path in options.inputs:
        photo = read_image(path)
        longest = max(photo.shape[:2])
        shrink = min(1.0, (options.size or _LARGEST) / longest)
        height, width = (max(1, round(shrink * side)) for side in photo.shape[:2])
        seen = np.clip(np.round(resized(photo, height, width)), 0, 255).astype("uint8") if shrink < 1 else photo
        found = {name: np.asarray(value) for name, value in model.detect(seen[None]).items()}
        boxes, labels, scores = certain(found, 0, options.least)
        facts[path.name] = (
            ", ".join(f"{label} ({100 * s:.0f} %)" for label, s in zip(labels, scores, strict=True)) or "-"
        )
        back = np.tile([photo.shape[1] / width, photo.shape[0] / height], 2)
        scale = min(2.0, 2 * PANEL / longest)
        panels = [boxes_on(photo, boxes * back, labels, scores, scale)]
        if options.show_offsets:
            panels.append(bins_on(photo, moved_bins(model, seen, boxes) * back, labels, scale))
        rows.append(np.concatenate(panels, axis=1))
        things = [
            {"digit": int(label), "score": round(float(s), 4), "box": np.round(box * back, 1).tolist()}
            for box, label, s in zip(boxes, labels, scores, strict=True)
        ]
        listed.append({"photo": path.name, "height": photo.shape[0], "width": photo.shape[1], "found": things})
    widest = max(row.shape[1] for row in rows)
    whole = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    written = [write_image(options.out, np.concatenate(whole, axis=0))]
    if options.boxes is not None:
        written.append(storage.write_json(options.boxes, {"photos": listed}))
    return RunReport(tuple(written), facts)


def as_digit(photo: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 1) uint8, white on black: the paper, however unevenly lit, is taken away."""
    grey = Image.fromarray(photo).convert("L").resize((size, size), Image.Resampling.LANCZOS)
    values = np.asarray(grey, "float64")
    if values.max() - values.min() < 8:
        raise DataError("expected a photo of a digit. Received: one of even grey.")
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    if np.median(border) > np.mean([values.min(), values.max()]):  # what lies along the edges is the paper
        values = -values
    y, x = np.indices(values.shape)
    plane = np.stack([np.ones(values.size), y.ravel(), x.ravel()], axis=1)
    paper = np.ones(values.size, bool)
    ink = values.ravel()
    for _ in range(4):
        light = plane @ np.linalg.lstsq(plane[paper], values.ravel()[paper], rcond=None)[0]
        ink = values.ravel() - light
        paper = ink < 0.3 * ink.max()
    share = (ink / ink.max()).reshape(values.shape)
    # A fifth is grain and shadow.
    return np.round(255 * np.clip((share - 0.2) / 0.7, 0, 1))[..., None].astype("uint8")
