"""The claims of `fast_style`: one pass of every preset, beside hundreds of steps on the pixels."""

import dataclasses
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from kerasmodels import presets
from kerasmodels.data import list_images, read_image, write_image
from kerasmodels.errors import DataError
from kerasmodels.family import Claim, Experiment
from kerasmodels.losses import Perceptual
from kerasmodels.models.fast_style import perceptual_loss, stylize
from kerasmodels.optimizers import minimize


def one_pass(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Every preset on photos it never saw, against L-BFGS on the pixels of each photo, from noise.

    Paper: section 4.1, figure 5 and table 1. The loss network is the preset's, in float32.
    """
    if data is None or not data.is_dir():
        raise DataError(
            "expected --data DIR with the presets' paintings (found by file name, at any depth) and a folder `content` "
            f"of photos they were not trained on. Received: {data}."
        )
    folder = next((f for f in sorted(data.rglob("content")) if f.is_dir()), None)
    if folder is None:
        raise DataError(f"no folder `content` of photos in {data}.")
    photos = [_square(read_image(p), 256) for p in list_images(folder)][: 1 if quick else 2]
    iterations = 30 if quick else 60
    claims: list[Claim] = []
    seconds_iteration, seconds_pass = [], []
    for name, trained in presets.presets("fast_style").items():
        model = trained.load()
        file = Path(str(model.config.style)).name
        painting = next(iter(sorted(data.rglob(file))), None)
        if painting is None:
            raise DataError(f"the painting of preset {name}, {file}, is not in {data}.")
        loss = perceptual_loss(dataclasses.replace(model.config, style=painting))
        own, ours, best, reached, strip = [], [], [], [], []
        for photo in photos:
            painted = stylize(model, photo)
            values = [float(loss(_batch(photo), _batch(picture))) for picture in (photo, painted)]
            curve, optimum, seconds = _optimize(loss, photo, iterations)
            own.append(values[0])
            ours.append(values[1])
            best.append(curve[-1])
            reached.append(next((i for i, value in enumerate(curve) if value <= values[1]), iterations))
            seconds_iteration.append(seconds)
            seconds_pass.append(_seconds(partial(stylize, model, photo)))
            strip.append(np.concatenate([photo, painted, optimum], axis=0))
        write_image(figures / f"objective_{name}.jpg", np.concatenate(strip, axis=1))
        ratio = float(np.mean(np.divide(ours, own)))
        claims += [
            Claim(
                f"{name}_one_pass",
                f"{name}: objective of one pass, as a part of the photo's own (mean of {len(photos)} unseen photos)",
                "figure 5: far below the photo, near the optimum",
                round(ratio, 4),
                at_most=0.25,
            ),
            Claim(
                f"{name}_lbfgs",
                f"{name}: objective of {iterations} L-BFGS iterations from noise, as a part of the photo's own",
                "figure 5: a little below one pass",
                round(float(np.mean(np.divide(best, own))), 4),
            ),
            Claim(
                f"{name}_iterations",
                f"{name}: L-BFGS iterations from noise until the pixels reach the objective of one pass (median)",
                "50 to 100 (figure 5)",
                float(np.median(reached)),
                at_least=30,
            ),
        ]
    if not claims:
        raise DataError("no presets are shipped, so there is nothing to measure.")
    speed = 500 * float(np.median(seconds_iteration)) / float(np.median(seconds_pass))
    return [
        *claims,
        Claim(
            "speed",
            "500 L-BFGS iterations take this many times as long as one pass (256 x 256, this machine)",
            "about 1000 (three orders of magnitude, on its GPU)",
            round(speed, 1),
            at_least=100,
        ),
    ]


def _batch(picture: np.ndarray) -> np.ndarray:
    return picture[None].astype("float32")


def _optimize(loss: Perceptual, photo: np.ndarray, iterations: int) -> tuple[list[float], np.ndarray, float]:
    """L-BFGS on the pixels, beginning with mid-gray and a little white noise (section 4.1 of the paper).

    Returns the objectives before each iteration and at the end, the last picture, and the seconds an iteration takes.
    """
    noise = np.random.default_rng(0).normal(127.5, 1.0, (1, *photo.shape))
    target, pixels = loss.target(_batch(photo)), tf.Variable(noise, dtype=tf.float32)
    times = []
    result = minimize(
        lambda: tf.reduce_sum(list(loss.terms(target, pixels).values())),
        variables=[pixels],
        max_iterations=iterations,
        first_length=1000.0,
        callback=lambda iteration, value: times.append(time.perf_counter()),
    )
    # The first report also covers the compilation.
    seconds = float(np.median(np.diff(times))) / 10
    picture = np.rint(np.clip(pixels.numpy()[0], 0, 255)).astype("uint8")
    return list(result.history), picture, seconds


def _seconds(call: Callable[[], Any], rounds: int = 5) -> float:
    call()
    durations = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        durations.append(time.perf_counter() - begin)
    return float(np.median(durations))


def _square(photo: np.ndarray, side: int) -> np.ndarray:
    """The middle of the photo, `side` pixels wide and high."""
    short = min(photo.shape[:2])
    top, left = (photo.shape[0] - short) // 2, (photo.shape[1] - short) // 2
    middle = Image.fromarray(photo[top : top + short, left : left + short])
    return np.asarray(middle.resize((side, side), Image.Resampling.LANCZOS))


EXPERIMENTS = {"objective": Experiment("one forward pass against hundreds of optimization steps", one_pass)}
