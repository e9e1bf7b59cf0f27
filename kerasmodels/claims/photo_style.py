"""The claims of `photo_style`: the authors' pairs, measured beside the pictures that they published."""

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf

from kerasmodels.claims.evidence import find_data
from kerasmodels.data import write_image
from kerasmodels.family import Claim, Experiment
from kerasmodels.losses import PhotorealisticObjective
from kerasmodels.models.photo_style import Config, at_size, objective, read_pair, readable, stages
from kerasmodels.tasks.recolor import recolored
from kerasmodels.training.picture import Stage, optimize_picture, to_uint8

PAIRS = (1, 2, 7, 30, 58)
"""Of the authors' pairs, those that are measured."""


def on_pair(number: int) -> Experiment:
    """One of the authors' pairs, our two stages beside theirs, all at one size.

    Paper: figures 1 and 4; the authors' pictures are tmp_results (stage 1) and final_results of the released code.
    """

    def measure(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
        size, iterations = (128, 25) if quick else (256, 100)
        photo, files = files_of_pair(data, number)
        height, width = (round(side * size / max(photo.shape[:2])) for side in photo.shape[:2])
        config = Config(height=height, width=width, reference_size=size, steps=1, plain_steps=0)
        config = dataclasses.replace(config, **files)
        pair = read_pair(config)
        compared = objective(config, pair)
        begin = time.perf_counter()
        plain, first = descend(stages(dataclasses.replace(config, steps=iterations, plain_steps=iterations), pair)[0])
        after = stages(dataclasses.replace(config, steps=iterations, plain_steps=0), pair)[0]
        affine, second = descend(after, plain)
        seconds = time.perf_counter() - begin
        result = recolored(pair.photo, pair.photo, np.clip(affine, 0, 255))
        folder = config.photo.parents[1] if config.photo else Path()
        theirs = [
            at_size(readable(folder / name), height, width)
            for name in (f"tmp_results/out{number}_t_1000.png", f"final_results/best{number}_t_1000.png")
        ]
        strip = [pair.photo, to_uint8(plain), to_uint8(affine), result, *theirs]
        write_image(figures / f"photo_style_pair{number}.jpg", np.concatenate(strip, axis=1))
        own, one, two, their_one, their_two = (terms_of(compared, p) for p in (pair.photo, plain, affine, *theirs))
        last = terms_of(compared, result)
        kept, their_kept = structure(pair.photo, result), structure(pair.photo, theirs[1])
        name = f"pair {number} ({width} x {height}, {iterations} + {iterations} iterations)"
        shares = (
            (
                "affine",
                "affine energy after stage 2, as a part of stage 1's",
                f"{their_two['affine'] / their_one['affine']:.3f} (the authors' pictures)",
                two["affine"] / one["affine"],
                0.1,
            ),
            (
                "style",
                "style loss after stage 2, as a part of stage 1's",
                f"{their_two['style'] / their_one['style']:.2f} (the authors' pictures)",
                two["style"] / one["style"],
                2.0,
            ),
            (
                "result_style",
                "style loss of the smoothed result, as a part of the photo's own",
                f"{their_two['style'] / own['style']:.4f} (the authors' picture)",
                last["style"] / own["style"],
                0.1,
            ),
        )
        return [
            *(
                Claim(f"pair{number}_{key}", f"{name}: {text}", paper, round(ours, 4), at_most=most)
                for key, text, paper, ours, most in shares
            ),
            Claim(
                f"pair{number}_structure",
                f"{name}: edge structure that the result shares with the photo",
                f"{their_kept:.3f} (the authors' picture)",
                round(kept, 4),
                at_least=round(their_kept, 3),
            ),
            Claim(
                f"pair{number}_seconds",
                f"{name}: seconds for an evaluation of the loss and its gradient, on a machine with other work",
                "not given; 3 to 5 minutes in all on its GPU",
                round(seconds / (first + second), 2),
            ),
        ]

    line = f"the authors' pair {number}: what the affine term does, beside their pictures"
    return Experiment(line, measure, private=True)


def files_of_pair(data: Path | None, number: int) -> tuple[np.ndarray, dict[str, Any]]:
    """The photo, and the fields of a config that name a pair's files."""
    what = "the folders input, style, segmentation, tmp_results and final_results of the authors' examples"
    photo = find_data(data, f"input/in{number}.png", what)
    folder = photo.parents[1]
    files = {
        "photo": photo,
        "reference": folder / f"style/tar{number}.png",
        "mask": folder / f"segmentation/in{number}.png",
        "reference_mask": folder / f"segmentation/tar{number}.png",
    }
    return readable(photo), files


def descend(stage: Stage, start: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """A stage by L-BFGS: the pixels it ends with, and the evaluations it took."""
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        last: list[np.ndarray] = []

        def keep(pixels: np.ndarray) -> np.ndarray:
            last[:] = [pixels]
            return to_uint8(pixels)

        staged = Stage(stage.steps, lambda _: stage.model(start))
        done = optimize_picture([staged], Path(folder) / "picture.png", finish=keep, preview_every=0)
        return last[0], done.evaluations


def terms_of(compared: PhotorealisticObjective, picture: np.ndarray) -> dict[str, float]:
    terms = compared.terms(tf.constant(picture[None].astype("float32")))
    return {name: float(value[0]) for name, value in terms.items()}


def structure(photo: np.ndarray, picture: np.ndarray) -> float:
    """How much of the photo's edges and texture a picture of other colors shows, 0-1.

    The mean, over windows of 7 x 7 pixels, of the absolute correlation of luminance (the third factor of SSIM, without
    its sign, because light may turn dark). Windows where the photo is flat, with a deviation under 2 levels, do not
    count.

    Args:
        photo, picture: (H, W, 3), RGB 0-255.
    """
    from scipy.ndimage import uniform_filter

    x, y = (p.astype("float64") @ (0.299, 0.587, 0.114) for p in (photo, picture))
    mean_x, mean_y = uniform_filter(x, 7), uniform_filter(y, 7)
    variance_x = np.maximum(uniform_filter(x * x, 7) - mean_x**2, 0)
    variance_y = np.maximum(uniform_filter(y * y, 7) - mean_y**2, 0)
    covariance = uniform_filter(x * y, 7) - mean_x * mean_y
    counted = variance_x >= 4
    shared = (np.abs(covariance) + 0.5) / (np.sqrt(variance_x * variance_y) + 0.5)
    return float(np.minimum(shared, 1)[counted].mean()) if counted.any() else 1.0


def memory(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """What a run at the paper's size needs, in a process of its own."""
    size = 256 if quick else 700
    _, files = files_of_pair(data, 30)
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        command = [sys.executable, "-m", "kerasmodels", "run", "photo_style", str(files["photo"]), "--json"]
        command += ["-o", f"{folder}/out.png", "--size", str(size), "--iterations", "3"]
        for name in ("reference", "mask", "reference_mask"):
            command += [f"--{name.replace('_', '-')}", str(files[name])]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    facts = json.loads(answer)["facts"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    name = f"pair 30 at {facts['size']}, {facts['regions']} regions"
    return [
        Claim("memory", f"{name}: peak memory of a run, GB", "a 12 GB GPU", round(peak, 2), at_most=12),
        Claim(
            "seconds",
            f"{name}: seconds of a run of 3 + 3 iterations, start to end, for each of its evaluations",
            "not given",
            round(facts["seconds"] / facts["evaluations"], 2),
        ),
    ]


EXPERIMENTS = {
    **{f"pair{number}": on_pair(number) for number in PAIRS},
    "memory": Experiment("peak memory and time at the paper's size", memory),
}
