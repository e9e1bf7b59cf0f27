"""Telling digits apart, finding them on photos, and drawing where the network looks."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
import tyro
from annotated_types import Interval
from PIL import Image, ImageDraw, ImageFont

from kerasmodels import storage
from kerasmodels.config import Fraction, check
from kerasmodels.data import image_size, read_image, write_image
from kerasmodels.data.images import check_photo, check_picture_name, resized
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport
from kerasmodels.layers import DeformableConv2D
from kerasmodels.servables import served
from kerasmodels.tasks import TrainedOptions
from kerasmodels.tasks.pictures import check_targets

PANEL = 280
"""Side of each drawing, pixels."""
COLORS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe")
"""Of the digits 0 to 9."""
_LARGEST = 320
"""Longest side of a photo that a detector sees unless told otherwise, pixels: its digits are 10 to 60 pixels high."""


class DigitOptions(TrainedOptions):
    """Tell which digit photos show, or find all digits on them; and draw where the network looked.

    What it does depends on what was trained: with `--variant detector`, digits are found.
    """

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Photos: of one handwritten digit each, dark on light or light on dark; for a detector, of any number."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write: a row for each photo."""
    show_offsets: tyro.conf.FlagCreatePairsOff[bool] = False
    """Draw, on the photo, where the deformable convolutions of one unit sample, and beside it that unit's effective
    receptive field; for a unit on the digit and for one beside it. For a detector: where the bins of each box look."""
    size: Annotated[int, Interval(ge=8, le=2048)] | None = None
    """Side to which the photo is shrunk before it is looked at, pixels. Left out: 28, as the network was trained; for a
    detector, the longest side, 320 at most."""
    least: Fraction = 0.5
    """Detector: only digits of at least this score, 0-1."""
    boxes: Path | None = None
    """Detector: also write what was found, as JSON."""

    def validate(self) -> None:
        """Raise UsageError if there is no photo, or for places to write that do not do."""
        check(len(self.inputs) > 0, "at least one photo", self.inputs)
        check_targets([path for path in (self.out, self.boxes) if path is not None], self.inputs)
        check_picture_name(self.out)


def classify(model: Any, photo: np.ndarray, size: int = 28) -> tuple[np.ndarray, np.ndarray]:
    """Which digit a photo shows.

    Args:
        model: a trained classifier.
        photo: (H, W, 3) RGB of one digit, uint8 or floats of 0-255.
        size: side of what the network sees, pixels.

    Returns:
        the digit as the network sees it (size, size, 1) uint8, and the probabilities of 0 to 9 (10,).

    Raises:
        DataError: the photo is even, or see `check_photo`.
    """
    digit = as_digit(_as_bytes(photo), size)
    return digit, served(model, "classify")(digits=digit[None])["probabilities"][0]


def detect(
    model: Any, photo: np.ndarray, size: int = _LARGEST, least: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The digits on a photo.

    Args:
        model: a trained detector.
        photo: (H, W, 3) RGB, uint8 or floats of 0-255.
        size: longest side of what the network sees, pixels; larger photos are shrunk.
        least: score of those that count, 0-1.

    Returns:
        boxes (D, 4), x1, y1, x2, y2 in pixels of the photo; labels (D,), 0 to 9; scores (D,), best first.

    Raises:
        DataError: see `check_photo`.
    """
    seen, scale = _shrunk(photo, size)
    boxes, labels, scores = certain(served(model, "detect")(image=seen[None]), 0, least)
    return boxes * scale, labels, scores


def bins_of(model: Any, photo: np.ndarray, boxes: np.ndarray, size: int = _LARGEST) -> np.ndarray:
    """Where the bins look that tell the digit in each box (D, 4): (D, bins^2, 4), pixels of the photo."""
    seen, scale = _shrunk(photo, size)
    return model.bins_of(seen, boxes / scale) * scale


def _shrunk(photo: np.ndarray, size: int) -> tuple[np.ndarray, np.ndarray]:
    """The photo, its longest side at most `size` pixels; and what its boxes are multiplied by to fit the photo."""
    photo = _as_bytes(photo)
    shrink = min(1.0, size / max(photo.shape[:2]))
    height, width = (max(1, round(shrink * side)) for side in photo.shape[:2])
    seen = np.clip(np.round(resized(photo, height, width)), 0, 255).astype("uint8") if shrink < 1 else photo
    return seen, np.tile([photo.shape[1] / width, photo.shape[0] / height], 2)


def _as_bytes(photo: np.ndarray) -> np.ndarray:
    return photo if check_photo(photo).dtype == np.uint8 else np.clip(np.rint(photo), 0, 255).astype("uint8")


def certain(
    found: Mapping[str, np.ndarray], number: int, least: float = 0.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, labels and scores of one picture, those of at least that score (and not of empty slots)."""
    good = (found["scores"][number] >= least) & (found["labels"][number] >= 0)
    return found["boxes"][number][good], found["labels"][number][good], found["scores"][number][good]


def as_digit(photo: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 1) uint8, white on black: the paper, however unevenly lit, is taken away."""
    gray = Image.fromarray(photo).convert("L").resize((size, size), Image.Resampling.LANCZOS)
    values = np.asarray(gray, "float64")
    if values.max() - values.min() < 8:
        raise DataError("expected a photo of a digit. Received: one of even gray.")
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


# --- files ------------------------------------------------------------------------------------------------------------


def run_on_digits(options: DigitOptions) -> RunReport:
    """Classify or detect what the options ask for, draw and write it."""
    trained = options.trained("deformable_net")
    model = trained.load()
    if model.config.task == "detect":
        return _detect(options, model)
    if options.boxes is not None:
        raise UsageError(f"--boxes is for detectors. Received: {trained.name}, a classifier. Train --variant detector.")
    return _classify(options, model)


def _classify(options: DigitOptions, model: Any) -> RunReport:
    check_picture_name(options.out, PANEL * len(options.inputs))
    rows, facts = [], {}
    for path in options.inputs:
        photo = read_image(path)
        digit, probabilities = classify(model, photo, options.size or 28)
        best = int(np.argmax(probabilities))
        facts[_label(path, options.inputs)] = f"{best} ({100 * probabilities[best]:.1f} %)"
        large = np.asarray(Image.fromarray(photo).resize((PANEL, PANEL), Image.Resampling.LANCZOS))
        panels = [large, np.asarray(Image.fromarray(digit[..., 0]).resize((PANEL, PANEL), 0).convert("RGB"))]
        if options.show_offsets:
            for unit in (center_of(digit), (0.12, 0.12)):
                panels += [
                    draw_samples(model.network, digit, unit, large),
                    draw_effective_field(model.network, digit, unit, large),
                ]
        rows.append(np.concatenate(panels, axis=1))
    return RunReport((write_image(options.out, np.concatenate(rows, axis=0)),), facts)


def _label(path: Path, inputs: tuple[Path, ...]) -> str:
    """A photo's name; with its folder where others have the same."""
    return path.name if sum(path.name == other.name for other in inputs) == 1 else str(path)


def _enlarged(height: int, width: int) -> float:
    """How large a photo is drawn."""
    return min(2.0, 2 * PANEL / max(height, width))


def _detect(options: DigitOptions, model: Any) -> RunReport:
    sizes = [image_size(path) for path in options.inputs]
    check_picture_name(options.out, sum(round(height * _enlarged(height, width)) for height, width in sizes))
    rows, facts, listed = [], {}, []
    for path in options.inputs:
        photo = read_image(path)
        size = options.size or _LARGEST
        boxes, labels, scores = detect(model, photo, size, options.least)
        facts[_label(path, options.inputs)] = (
            ", ".join(f"{label} ({100 * s:.0f} %)" for label, s in zip(labels, scores, strict=True)) or "-"
        )
        scale = _enlarged(*photo.shape[:2])
        panels = [draw_boxes(photo, boxes, labels, scores, scale)]
        if options.show_offsets:
            panels.append(draw_bins(photo, bins_of(model, photo, boxes, size), labels, scale))
        rows.append(np.concatenate(panels, axis=1))
        found = [
            {"digit": int(label), "score": round(float(s), 4), "box": np.round(box, 1).tolist()}
            for box, label, s in zip(boxes, labels, scores, strict=True)
        ]
        listed.append({"photo": path.name, "height": photo.shape[0], "width": photo.shape[1], "found": found})
    widest = max(row.shape[1] for row in rows)
    whole = [np.pad(row, ((0, 0), (0, widest - row.shape[1]), (0, 0)), constant_values=255) for row in rows]
    written = [write_image(options.out, np.concatenate(whole, axis=0))]
    if options.boxes is not None:
        written.append(storage.write_json(options.boxes, {"photos": listed}))
    return RunReport(tuple(written), facts)


# --- drawings ---------------------------------------------------------------------------------------------------------


def center_of(digit: np.ndarray) -> tuple[float, float]:
    """The center of what is white: row and column as parts of the height and width."""
    weight = np.asarray(digit, "float64")[..., 0] + 1e-9
    rows, columns = np.indices(weight.shape)
    return (
        float((rows * weight).sum() / weight.sum() / weight.shape[0]),
        float((columns * weight).sum() / weight.sum() / weight.shape[1]),
    )


def sampling_positions(network: keras.Model, digit: np.ndarray, unit: tuple[float, float]) -> list[np.ndarray]:
    """Where one unit of the last deformable convolution looks, and where what it sees looks, and so on.

    Args:
        network: of a `DeformableNet`.
        digit: (H, W, 1), 0-255.
        unit: its place, as parts of the height and width.

    Returns:
        one array (P, 2) for each deformable convolution, the last one first: rows and columns in pixels of the digit,
        9 of the first layer met, 81 of the next, 729 of the third. As in figure 6 of the paper.

    Raises:
        UsageError: the network has no deformable convolution.
    """
    moved = [layer for layer in network.layers if isinstance(layer, DeformableConv2D)]
    if not moved:
        raise UsageError("the network has no deformable convolution, so no offsets to show.")
    inner = keras.Model(network.input, [layer.input for layer in moved])
    inputs = inner(digit[None].astype("float32"))
    inputs = [inputs] if len(moved) == 1 else inputs
    found: list[np.ndarray] = []
    places: np.ndarray | None = None
    for layer, x in zip(reversed(moved), reversed(inputs), strict=True):
        offsets = np.asarray(keras.ops.cast(layer.offsets(x)[0], "float32"))[0]
        rows, columns = offsets.shape[:2]
        if places is None:
            places = np.array([[unit[0] * rows, unit[1] * columns]])
        # The unit nearest to each place; offsets exist at units only.
        near = np.clip(np.round(places), 0, [rows - 1, columns - 1]).astype(int)
        taps = np.stack(np.meshgrid(*(np.arange(k) - 1 for k in layer.kernel_size), indexing="ij"), -1).reshape(1, 9, 2)
        moves = offsets[near[:, 0], near[:, 1]].reshape(-1, 9, 2)
        places = (near[:, None] * np.array(layer.strides) + taps + moves).reshape(-1, 2)
        scale = np.array(digit.shape[:2]) / np.array([int(n) for n in x.shape[1:3]])
        found.append((places + 0.5) * scale - 0.5)
    return found


def draw_samples(
    network: keras.Model, digit: np.ndarray, unit: tuple[float, float], photo: np.ndarray | None = None
) -> np.ndarray:
    """The photo with dots where the unit looks; the unit itself is the green dot."""
    if photo is None:
        photo = np.asarray(Image.fromarray(np.uint8(digit[..., 0])).resize((PANEL, PANEL), 0).convert("RGB"))
    drawing = Image.fromarray(photo)
    draw = ImageDraw.Draw(drawing)
    scale = PANEL / np.array(digit.shape[:2])
    try:
        levels = sampling_positions(network, digit, unit)
    except UsageError:
        return photo
    dots = (levels[-1] + 0.5) * scale
    for y, x in dots:
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(230, 40, 40))
    y, x = np.array(unit) * PANEL
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(40, 220, 60), outline=(0, 0, 0))
    return np.asarray(drawing)


def draw_effective_field(
    network: keras.Model, digit: np.ndarray, unit: tuple[float, float], photo: np.ndarray
) -> np.ndarray:
    """The photo, light where a change of it changes the unit: the gradient of the unit's mean, by size."""
    moved = [layer for layer in network.layers if isinstance(layer, DeformableConv2D)]
    last = keras.Model(network.input, moved[-1].output)
    x = tf.constant(digit[None].astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = last(x)
        row, column = (min(int(u * n), n - 1) for u, n in zip(unit, y.shape[1:3], strict=True))
        total = tf.reduce_mean(y[0, row, column])
    size = np.abs(tape.gradient(total, x).numpy())[0, ..., 0]
    size = np.asarray(
        Image.fromarray(np.uint8(255 * np.sqrt(size / max(float(size.max()), 1e-12)))).resize((PANEL, PANEL)),
        "float32",
    )
    return (photo * (0.25 + 0.75 * size[..., None] / 255)).astype("uint8")


def draw_boxes(
    photo: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, scale: float = 2.0
) -> np.ndarray:
    """The photo (H, W, 3), `scale` times as large, with boxes (D, 4) in its pixels, labels and scores in %."""
    size = tuple(max(1, round(side * scale)) for side in photo.shape[1::-1])
    drawing = Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(drawing), ImageFont.load_default(size=13)
    for box, label, score in zip(boxes, labels, scores, strict=True):
        corners = [float(v) * scale for v in box]
        draw.rectangle(corners, outline=COLORS[label], width=2)
        text = f"{label} {100 * score:.0f}"
        place = (corners[0], max(0.0, corners[1] - 15))
        draw.rectangle(draw.textbbox(place, text, font=font), fill="black")
        draw.text(place, text, fill=COLORS[label], font=font)
    return np.asarray(drawing)


def draw_bins(photo: np.ndarray, bins: np.ndarray, labels: np.ndarray, scale: float = 2.0) -> np.ndarray:
    """The photo (H, W, 3), `scale` times as large, with the bins (D, bins, 4) of each box in its pixels."""
    drawing = Image.fromarray(draw_boxes(photo, np.zeros((0, 4)), labels[:0], labels[:0], scale))
    draw = ImageDraw.Draw(drawing)
    for own, label in zip(bins, labels, strict=True):
        for box in own:
            draw.rectangle([float(v) * scale for v in box], outline=COLORS[label])
    return np.asarray(drawing)
