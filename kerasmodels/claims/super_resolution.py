"""The claims of `super_resolution`: pixels win at PSNR, features at LPIPS, and photos of the web need more."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from kerasmodels import presets
from kerasmodels.claims import enlarging
from kerasmodels.data import degrade, write_image
from kerasmodels.family import Claim, Experiment
from kerasmodels.tasks.upscale import upscale

SCALE = 4
_WORDS = {"psnr": "PSNR, dB", "ssim": "SSIM", "lpips": "LPIPS (less is better)"}


def benchmarks(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Set5 and Set14: bicubic interpolation, SRCNN, and the presets trained against pixels and against features."""
    pixel, feature = (presets.preset("super_resolution", name).load() for name in ("pixel", "feature"))
    ways: dict[str, enlarging.Enlarge] = {
        "bicubic": enlarging.bicubic(SCALE),
        "srcnn": partial(upscale, presets.preset("srcnn", "x4").load()),
        "pixel": partial(upscale, pixel),
        "feature": partial(upscale, feature),
        "feature_matched": partial(upscale, feature, match=True),
    }
    perceptual, found = enlarging.lpips(data), []
    for name in ("Set5",) if quick else ("Set5", "Set14"):
        pairs = enlarging.pictures(data, name, SCALE)
        results = enlarging.scores(pairs, ways, SCALE, perceptual)
        published = dict(zip(ways, enlarging.PUBLISHED[name, SCALE], strict=False))
        for way, values in results.items():
            told = published.get(way, "").split(" / ")
            for number, (key, words) in enumerate(_WORDS.items()):
                paper = (
                    told[number] + " (9-5-5)" * (way == "srcnn" and number < 2)
                    if len(told) > number > -1 and told[0]
                    else "-"
                )
                text = f"{name} x4, {way.replace('_', ', histogram ')}: {words}"
                ours = round(values[key], 2 if key == "psnr" else 4)
                found.append(Claim(f"{name.lower()}_{way}_{key}", text, paper, ours))
        found += _order(name, results)
        if name == "Set5":
            _draw(figures / "super_resolution_crops.png", pairs, ways)
    return found


def _order(name: str, results: Mapping[str, Mapping[str, float]]) -> list[Claim]:
    pixel, feature = results["pixel"], results["feature"]
    return [
        Claim(
            f"{name.lower()}_pixel_wins_psnr",
            f"{name} x4: PSNR of the pixel preset less that of the feature preset, dB",
            "above 0",
            round(pixel["psnr"] - feature["psnr"], 3),
            at_least=0.001,
        ),
        Claim(
            f"{name.lower()}_feature_wins_lpips",
            f"{name} x4: LPIPS of the pixel preset less that of the feature preset",
            "above 0 (there: what people prefer)",
            round(pixel["lpips"] - feature["lpips"], 4),
            at_least=0.0001,
        ),
    ]


def _draw(path: Path, pairs: list[tuple[np.ndarray, np.ndarray]], ways: Mapping[str, enlarging.Enlarge]) -> None:
    """From left to right: the truth, and what each way makes of its low resolution; the middle of each picture."""
    rows = []
    for truth, low in pairs:
        top, left = (n // 2 - 60 for n in truth.shape[:2])
        made = [truth, *(ways[way](low) for way in ("bicubic", "srcnn", "pixel", "feature"))]
        rows.append(np.concatenate([p[top : top + 120, left : left + 120] for p in made], axis=1))
    write_image(path, np.concatenate(rows, axis=0))


def jpeg(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Set5 at low resolution, saved as JPEG of quality 30 before it is enlarged."""
    models = {name: presets.preset("super_resolution", name).load() for name in ("pixel", "degraded")}
    truths = [truth for truth, _ in enlarging.pictures(data, "Set5", SCALE)]
    pairs = [(truth, degrade(truth, SCALE, jpeg=(30, 30))) for truth in truths]
    ways: dict[str, enlarging.Enlarge] = {
        "bicubic": enlarging.bicubic(SCALE),
        **{name: partial(upscale, model) for name, model in models.items()},
    }
    results = enlarging.scores(pairs, ways, SCALE)
    claims = [
        Claim(f"jpeg_{way}_psnr", f"Set5 x4 from JPEG of quality 30, {way}: PSNR, dB", "-", round(values["psnr"], 2))
        for way, values in results.items()
    ]
    gain = results["degraded"]["psnr"] - results["pixel"]["psnr"]
    text = "Set5 x4 from JPEG of quality 30: what the degraded preset is better than the pixel preset, dB"
    return [*claims, Claim("jpeg_gain", text, "- (not in the paper)", round(gain, 2), at_least=0.3)]


EXPERIMENTS = {
    "benchmarks": Experiment(
        "pixels, features, SRCNN and bicubic interpolation on Set5 and Set14", benchmarks, private=True
    ),
    "jpeg": Experiment("photos that were JPEG files: the degraded preset beside the plain one", jpeg),
}
