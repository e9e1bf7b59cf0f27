"""Where units look and what they see, and boxes."""

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw, ImageFont

from kerasmodels.errors import UsageError
from kerasmodels.layers import DeformableConv2D

PANEL = 280
"""Side of each drawing, pixels."""


def middle(digit: np.ndarray) -> tuple[float, float]:
    """The middle of what is white: row and column as parts of the height and width."""
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


def looked_at(
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


def effective_field(
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


COLOURS = ("#e6194b", "#3cb44b", "#ffe119", "#4363d8", "#f58231", "#911eb4", "#46f0f0", "#f032e6", "#bcf60c", "#fabebe")
"""Of the digits 0 to 9."""


def boxes_on(
    photo: np.ndarray, boxes: np.ndarray, labels: np.ndarray, scores: np.ndarray, scale: float = 2.0
) -> np.ndarray:
    """The photo (H, W, 3), `scale` times as large, with boxes (D, 4) in its pixels, labels and scores in %."""
    size = tuple(max(1, round(side * scale)) for side in photo.shape[1::-1])
    drawing = Image.fromarray(photo).resize(size, Image.Resampling.BICUBIC)
    draw, font = ImageDraw.Draw(drawing), ImageFont.load_default(size=13)
    for box, label, score in zip(boxes, labels, scores, strict=True):
        corners = [float(v) * scale for v in box]
        draw.rectangle(corners, outline=COLOURS[label], width=2)
        text = f"{label} {100 * score:.0f}"
        place = (corners[0], max(0.0, corners[1] - 15))
        draw.rectangle(draw.textbbox(place, text, font=font), fill="black")
        draw.text(place, text, fill=COLOURS[label], font=font)
    return np.asarray(drawing)


def bins_on(photo: np.ndarray, bins: np.ndarray, labels: np.ndarray, scale: float = 2.0) -> np.ndarray:
    """The photo (H, W, 3), `scale` times as large, with the bins (D, bins, 4) of each box in its pixels."""
    drawing = Image.fromarray(boxes_on(photo, np.zeros((0, 4)), labels[:0], labels[:0], scale))
    draw = ImageDraw.Draw(drawing)
    for own, label in zip(bins, labels, strict=True):
        for box in own:
            draw.rectangle([float(v) * scale for v in box], outline=COLOURS[label])
    return np.asarray(drawing)
