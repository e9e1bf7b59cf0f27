"""What `kerasmodels reproduce cyclegan` measures: two kinds of made pictures whose true pairs are known."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from kerasmodels.data import write_image
from kerasmodels.family import Row
from kerasmodels.metrics import checkerboard

if TYPE_CHECKING:
    from kerasmodels.models.cyclegan import CycleGAN

SIDE = 32


def shapes(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A picture of the first kind: three shapes, red to green, most of them reddish. (height, width, 3) uint8.

    Instance normalisation takes from every picture its mean and its contrast. The grey ground and the white frame,
    which are the same in all, let a network find out what they were.
    """
    picture = Image.new("HSV", (width, height), (0, 0, 70))
    draw = ImageDraw.Draw(picture)
    side = min(height, width)
    for _ in range(3):
        x, y = random.uniform(0, width), random.uniform(0, height)
        r = random.uniform(0.12, 0.3) * side
        colour = (int(86 * random.uniform() ** 2), 210, int(random.integers(140, 256)))
        kind = random.integers(3)
        if kind == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=colour)
        elif kind == 1:
            draw.rectangle((x - r, y - r, x + r, y + r), fill=colour)
        else:
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=colour)
    draw.rectangle((0, 0, width - 1, height - 1), outline=(0, 0, 255))
    return np.asarray(picture.convert("RGB"))


def striped(picture: np.ndarray) -> np.ndarray:
    """The same as a picture of the second kind: hues mirrored, red to magenta and green to cyan, and diagonal stripes.

    Mirrored and not turned: without pairs only the frequency of colours tells the one from the other, and networks
    choose the smaller change.
    """
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(picture).convert("HSV")), -1, 0)
    rows, columns = np.indices(hue.shape)
    dark = (rows + columns) // 3 % 2 == 0
    changed = [np.uint8(213) - hue, saturation, np.where(dark, 0.7 * value, value).astype("uint8")]
    return np.asarray(Image.fromarray(np.stack(changed, axis=-1), "HSV").convert("RGB"))


def known_pairs(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Unpaired training on both kinds; then the true pairs are looked at."""
    steps, count = (40, 40) if quick else (7000, 1000)
    random = np.random.default_rng(0)
    a = np.stack([shapes(SIDE, SIDE, random) for _ in range(count)])
    b = np.stack([striped(shapes(SIDE, SIDE, random)) for _ in range(count)])
    unseen = np.stack([shapes(SIDE, SIDE, random) for _ in range(100)])
    truth = np.stack([striped(picture) for picture in unseen])
    found, strips = {}, [unseen, truth]
    for name, weight in (("cycles", 10.0), ("no cycles", 0.0)):
        begin = time.perf_counter()
        model = _trained(a, b, steps, weight)
        seconds = time.perf_counter() - begin
        there = model.predict(unseen, verbose=0)
        back = 127.5 + 127.5 * model.b_to_a.predict(there / 127.5 - 1, verbose=0)
        # For pictures of -1 to 1, as the loss has them.
        found[name] = [float(np.abs(x - y).mean() / 127.5) for x, y in ((there, truth), (back, unseen))] + [seconds]
        strips.append(np.rint(there).astype("uint8"))
    rows = [np.concatenate(list(strip[:12]), axis=1) for strip in strips]
    sheet = Image.fromarray(np.concatenate(rows))
    write_image(figures / "cyclegan_shapes.png", np.asarray(sheet.resize((2 * sheet.width, 2 * sheet.height), 0)))
    (paired, cycle, seconds), (without, _, _) = found["cycles"], found["no cycles"]
    unchanged = float(np.abs(unseen.astype("float32") - truth).mean() / 127.5)
    return [
        Row(
            f"known pairs, {steps} steps: mean difference to the true picture (-1 to 1; unchanged: {unchanged:.3f})",
            "not given",
            round(paired, 4),
            "<= 0.10",
            paired <= 0.10,
        ),
        Row(
            "known pairs: mean difference after there and back", "not given", round(cycle, 4), "<= 0.05", cycle <= 0.05
        ),
        Row(
            "known pairs: mean difference to the true picture without the cycle and identity losses",
            "worse (table 4)",
            round(without, 4),
            "above that with them",
            without > paired,
        ),
        Row("known pairs: seconds of training", "not given", round(seconds, 1), "<= 1200", seconds <= 1200),
    ]


def checkerboards(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Generators that have learnt nothing yet, of both kinds of upsampling: what a layer's form leaves in a picture."""
    from kerasmodels.models.cyclegan import Config, CycleGAN

    seeds, side = (1, 64) if quick else (5, 128)
    pictures = np.stack([shapes(side, side, np.random.default_rng(seed)) for seed in range(8)])
    scores: dict[str, list[float]] = {"transposed": [], "resize": []}
    shown = []
    kinds: tuple[Literal["transposed", "resize"], ...] = ("transposed", "resize")
    for upsampling in kinds:
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            model = CycleGAN(Config(filters=16, blocks=2, judge_filters=4, size=side, upsampling=upsampling))
            made = np.asarray(model(pictures))
            # Untrained, all pictures are grey: on the scale of what they show.
            made = 127.5 + 40 * (made - made.mean((1, 2), keepdims=True)) / made.std((1, 2), keepdims=True)
            scores[upsampling].append(max(checkerboard(made, stride) for stride in (2, 4)))
        shown.append(np.clip(np.rint(made[0, :48, :48]), 0, 255).astype("uint8").repeat(6, 0).repeat(6, 1))
    write_image(figures / "cyclegan_checkerboard.png", np.concatenate(shown, axis=1))
    as_they_are = max(checkerboard(pictures, stride) for stride in (2, 4))
    low, high = max(scores["resize"]), min(scores["transposed"])
    return [
        Row(
            f"untrained, {seeds} seeds: frequencies of the upsampling's grid above those around them, dB, the least of "
            "transposed convolutions",
            "not given",
            round(high, 2),
            ">= 10",
            high >= 10,
        ),
        Row("the same: the most of resizing and a convolution", "not given", round(low, 2), "<= 5", low <= 5),
        Row("the same: the pictures that went in", "not given", round(as_they_are, 2), "<= 5", as_they_are <= 5),
    ]


def _trained(a: np.ndarray, b: np.ndarray, steps: int, cycle_weight: float) -> "CycleGAN":
    from kerasmodels.models.cyclegan import Config, CycleGAN, optimizers

    config = Config(
        filters=16,
        blocks=2,
        judge_filters=32,
        size=SIDE,
        upsampling="resize",
        cycle_weight=cycle_weight,
        steps=steps,
        batch=4,
        learning_rate=4e-4,
    )
    keras.utils.set_random_seed(0)
    model = CycleGAN(config)
    model.compile(*optimizers(config))
    streams = [
        tf.data.Dataset.from_tensor_slices(pictures).shuffle(len(pictures), seed).repeat().batch(config.batch, True)
        for seed, pictures in enumerate((a, b))
    ]
    model.fit(tf.data.Dataset.zip(*streams), steps_per_epoch=steps, shuffle=False, verbose=0)
    return model
