"""The claims of `cyclegan`: two domains of synthetic pictures whose true pairs are known, but not shown."""

from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import keras
import numpy as np
import tensorflow as tf
from PIL import Image, ImageDraw

from kerasmodels.claims.evidence import trained
from kerasmodels.data import write_image
from kerasmodels.family import Claim, Experiment
from kerasmodels.metrics import checkerboard
from kerasmodels.models.cyclegan import Config, CycleGAN

SIDE = 32


def shapes(height: int, width: int, random: np.random.Generator) -> np.ndarray:
    """A picture of domain A: three shapes, red to green, most of them reddish. (height, width, 3) uint8.

    Instance normalization takes from every picture its mean and its contrast. The gray ground and the white frame,
    which are the same in all, let a network find out what they were.
    """
    picture = Image.new("HSV", (width, height), (0, 0, 70))
    draw = ImageDraw.Draw(picture)
    side = min(height, width)
    for _ in range(3):
        x, y = random.uniform(0, width), random.uniform(0, height)
        r = random.uniform(0.12, 0.3) * side
        color = (int(86 * random.uniform() ** 2), 210, int(random.integers(140, 256)))
        shape = random.integers(3)
        if shape == 0:
            draw.ellipse((x - r, y - r, x + r, y + r), fill=color)
        elif shape == 1:
            draw.rectangle((x - r, y - r, x + r, y + r), fill=color)
        else:
            draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill=color)
    draw.rectangle((0, 0, width - 1, height - 1), outline=(0, 0, 255))
    return np.asarray(picture.convert("RGB"))


def striped(picture: np.ndarray) -> np.ndarray:
    """The same in domain B: hues mirrored, red to magenta and green to cyan, and diagonal stripes.

    Mirrored and not turned: without pairs only the frequency of colors tells the one from the other, and networks
    choose the smaller change.
    """
    hue, saturation, value = np.moveaxis(np.asarray(Image.fromarray(picture).convert("HSV")), -1, 0)
    rows, columns = np.indices(hue.shape)
    dark = (rows + columns) // 3 % 2 == 0
    changed = [np.uint8(213) - hue, saturation, np.where(dark, 0.7 * value, value).astype("uint8")]
    return np.asarray(Image.fromarray(np.stack(changed, axis=-1), "HSV").convert("RGB"))


def known_pairs(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Unpaired training on both domains; then the true pairs are looked at."""
    steps, count = (40, 40) if quick else (7000, 1000)
    random = np.random.default_rng(0)
    a = np.stack([shapes(SIDE, SIDE, random) for _ in range(count)])
    b = np.stack([striped(shapes(SIDE, SIDE, random)) for _ in range(count)])
    unseen = np.stack([shapes(SIDE, SIDE, random) for _ in range(100)])
    truth = np.stack([striped(picture) for picture in unseen])
    off, reconstruction_off, strips = {}, {}, [unseen, truth]
    for name, weight in (("cycles", 10.0), ("no cycles", 0.0)):
        model = _trained(a, b, steps, weight)
        translated = model.predict(unseen, verbose=0)
        reconstructed = 127.5 + 127.5 * model.b_to_a.predict(translated / 127.5 - 1, verbose=0)
        off[name], reconstruction_off[name] = _difference(translated, truth), _difference(reconstructed, unseen)
        strips.append(np.rint(translated).astype("uint8"))
    rows = [np.concatenate(list(strip[:12]), axis=1) for strip in strips]
    sheet = Image.fromarray(np.concatenate(rows))
    write_image(figures / "cyclegan_shapes.png", np.asarray(sheet.resize((2 * sheet.width, 2 * sheet.height), 0)))
    unchanged = _difference(unseen.astype("float32"), truth)
    return [
        Claim(
            "pairs_difference",
            f"known pairs, {steps} steps: mean difference to the true picture (-1 to 1; unchanged: {unchanged:.3f})",
            "not given",
            round(off["cycles"], 4),
            at_most=0.10,
        ),
        Claim(
            "pairs_reconstruction",
            "known pairs: mean difference between pictures and their reconstructions",
            "not given",
            round(reconstruction_off["cycles"], 4),
            at_most=0.05,
        ),
        Claim(
            "pairs_difference_without_cycles",
            "known pairs: mean difference to the true picture without the cycle and identity losses",
            "worse (table 4)",
            round(off["no cycles"], 4),
            at_least=round(off["cycles"], 4),
        ),
    ]


def _difference(pictures: np.ndarray, others: np.ndarray) -> float:
    """The mean absolute difference, for pictures of -1 to 1, as the loss has them."""
    return float(np.abs(pictures - others).mean() / 127.5)


def _trained(a: np.ndarray, b: np.ndarray, steps: int, cycle_weight: float) -> CycleGAN:
    config = Config(
        filters=16,
        blocks=2,
        discriminator_filters=32,
        size=SIDE,
        upsampling="resize",
        cycle_weight=cycle_weight,
        steps=steps,
        batch=4,
        learning_rate=4e-4,
    )
    keras.utils.set_random_seed(0)
    model = CycleGAN(config)
    model.compile()
    streams = [
        tf.data.Dataset.from_tensor_slices(pictures).shuffle(len(pictures), seed).repeat().batch(config.batch, True)
        for seed, pictures in enumerate((a, b))
    ]
    return trained(model, tf.data.Dataset.zip(*streams), steps)


def checkerboards(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Untrained generators with both kinds of upsampling: what a layer's form leaves in a picture."""
    seeds, side = (1, 64) if quick else (5, 128)
    pictures = np.stack([shapes(side, side, np.random.default_rng(seed)) for seed in range(8)])
    scores: dict[str, list[float]] = {"transposed": [], "resize": []}
    shown = []
    ways: tuple[Literal["transposed", "resize"], ...] = ("transposed", "resize")
    for upsampling in ways:
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            model = CycleGAN(Config(filters=16, blocks=2, discriminator_filters=4, size=side, upsampling=upsampling))
            generated = np.asarray(model(pictures))
            # Untrained, all pictures are gray: on the scale of what they show.
            mean, deviation = (f(generated, (1, 2), keepdims=True) for f in (np.mean, np.std))
            generated = 127.5 + 40 * (generated - mean) / deviation
            scores[upsampling].append(max(checkerboard(generated, stride) for stride in (2, 4)))
        shown.append(np.clip(np.rint(generated[0, :48, :48]), 0, 255).astype("uint8").repeat(6, 0).repeat(6, 1))
    write_image(figures / "cyclegan_checkerboard.png", np.concatenate(shown, axis=1))
    return [
        Claim(
            "checkerboard_transposed",
            f"untrained, {seeds} seeds: frequencies of the upsampling's grid above those around them, dB, the least of "
            "transposed convolutions",
            "not given",
            round(min(scores["transposed"]), 2),
            at_least=10,
        ),
        Claim(
            "checkerboard_resize",
            "the same: the most of resizing and a convolution",
            "not given",
            round(max(scores["resize"]), 2),
            at_most=5,
        ),
        Claim(
            "checkerboard_inputs",
            "the same: the pictures that went in",
            "not given",
            round(max(checkerboard(pictures, stride) for stride in (2, 4)), 2),
            at_most=5,
        ),
    ]


EXPERIMENTS = {
    "shapes": Experiment("two domains of pictures whose true pairs are known, but not shown", known_pairs),
    "checkerboard": Experiment("what transposed convolutions leave in pictures, and resizing does not", checkerboards),
}
