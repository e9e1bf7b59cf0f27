"""The claims of `deeplab`: the sizes of its networks, and what ASPP and the CRF add on streets."""

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
from PIL import Image

from kerasmodels.backbones import sources
from kerasmodels.claims.evidence import find_data
from kerasmodels.data import read_image, write_image
from kerasmodels.data.segmentation import (
    CAMVID_NAMES,
    IGNORE,
    Pair,
    label_pairs,
    legend,
    overlay,
    read_truth,
    voc_palette,
)
from kerasmodels.family import Claim, Experiment
from kerasmodels.metrics import SegmentationIoU
from kerasmodels.metrics.segmentation import boundary_band
from kerasmodels.models import dense_crf
from kerasmodels.models.deeplab import FAMILY, VARIANTS, Config, score_network
from kerasmodels.optimizers.layerwise_sgd import caffe_rate
from kerasmodels.tasks.label import segment
from kerasmodels.training import train

SIZES = {
    "large_fov": ("VGG16 LargeFOV", 20_505_429),
    "aspp_s": ("VGG16 ASPP-S", 37_877_652),
    "aspp_l": ("VGG16 ASPP-L", 37_877_652),
    "paper": ("ResNet-101 ASPP", 44_048_532),
}
"""The paper's networks by variant, and their parameters for 21 classes."""


def parameters(config: Config) -> int:
    """Weights, and scales and shifts of batch normalization, counted without making them."""
    with keras.StatelessScope(initialize_variables=False):
        net = score_network(config)
        return sum(int(np.prod(w.shape)) for w in net.weights if not w.path.rpartition("/")[2].startswith("moving_"))


def sizes(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Parameters (tables 1 and 2; ResNet from its layers), and the poly schedule (section 4.1.2)."""
    rate: Any = caffe_rate(1e-3, "poly", 20000, 1)
    off = max(abs(float(rate(step)) - 1e-3 * (1 - step / 20000) ** 0.9) for step in (0, 10000, 19999))
    return [
        *(
            Claim(
                f"{variant}_parameters",
                f"parameters of {name}, C = 21",
                f"{expected:,}",
                parameters(VARIANTS[variant]),
                equals=expected,
            )
            for variant, (name, expected) in SIZES.items()
        ),
        Claim(
            "poly",
            "poly: learning rate at steps 0, 10000 and 19999 against 1e-3 (1 - step / 20000)^0.9, largest difference",
            "equal",
            off,
            at_most=1e-9,
        ),
    ]


# --- CamVid -----------------------------------------------------------------------------------------------------------

ARMS = {"LargeFOV": (12,), "ASPP": (6, 12, 18, 24)}
"""Rates of the branches: all else is the variant `mobile`."""
_KEYS = {"LargeFOV": "large_fov", "ASPP": "aspp", "ASPP + CRF": "aspp_crf"}
_QUICK: dict[str, Any] = {"pretrained": "random", "blocks": (1,) * 7, "width": 0.1, "crop": 65, "steps": 2, "batch": 1}
_SMOOTH = ((1.0, 1.0), (3.0, 3.0))
_APPEARANCE = ((30.0, 5.0), (50.0, 3.0), (67.0, 6.0))
_WEIGHTS = (2.0, 4.0, 6.0)


def camvid(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """LargeFOV against ASPP, same trunk, pictures, seed and steps, and a CRF chosen on the training pictures."""
    what = "CamVid as SegNet's tutorial has it (train, trainannot, test, testannot)"
    folder = find_data(data, "trainannot", what).parent
    train_pairs, test_pairs = (label_pairs(folder / part, folder / f"{part}annot") for part in ("train", "test"))
    if quick:
        train_pairs, test_pairs = train_pairs[:2], test_pairs[:2]
    guesses, seconds = {}, {}
    for name, rates in ARMS.items():
        config = dataclasses.replace(
            VARIANTS["mobile"],
            rates=rates,
            photos=folder / "train",
            masks=folder / "trainannot",
            **(_QUICK if quick else {}),
        )
        model, seconds[name] = _trained(name, config)
        guesses[name] = [_guess(model, pair) for pair in test_pairs]
        if name == "ASPP":
            crf = _chosen_crf(model, train_pairs[::6], config, quick)
    photos = [read_image(pair.photo) for pair in test_pairs]
    guesses["ASPP + CRF"] = [
        dense_crf.refine(photo, guess, crf) for photo, guess in zip(photos, guesses["ASPP"], strict=True)
    ]
    truths = [_truth(pair) for pair in test_pairs]
    labels = {name: [guess.argmax(-1) for guess in found] for name, found in guesses.items()}
    _figure(figures / "deeplab_camvid.png", photos, truths, labels)
    return _claims(truths, labels, crf, seconds, quick)


def _trained(name: str, config: Config) -> tuple[Any, float]:
    """The model of a run that is kept in the cache: made, gone on with, or found there finished."""
    # Where the pictures lie does not matter.
    values = {k: v for k, v in config.to_dict().items() if k not in ("photos", "masks")}
    mark = hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:12]
    folder = sources.cache().parent / "experiments" / f"deeplab-{name.lower()}-{mark}"
    begun = (folder / "run.json").is_file()
    command = f"kerasmodels train deeplab --variant mobile --rates {' '.join(map(str, config.rates))}"
    result = train(
        FAMILY,
        None if begun else config,
        folder,
        resume=begun,
        command=command,
        save_every=20,
        preview_every=0,
    )
    return result.model, result.seconds


def _guess(model: Any, pair: Pair) -> np.ndarray:
    return segment(model, read_image(pair.photo))[1]


def _truth(pair: Pair) -> np.ndarray:
    return read_truth(pair, len(CAMVID_NAMES), (len(CAMVID_NAMES), IGNORE)).astype("int32")


def _iou(truths: Sequence[np.ndarray], guesses: Sequence[np.ndarray], band: int | None = None) -> float:
    """Over all pixels of all pictures, or those at most `band` from a border of the truth."""
    measured = SegmentationIoU(len(CAMVID_NAMES), IGNORE, from_scores=False)
    for truth, guess in zip(truths, guesses, strict=True):
        seen = truth if band is None else np.where(boundary_band(truth, band, IGNORE), truth, IGNORE)
        measured.update_state(seen, guess)
    return float(measured.result())


def _chosen_crf(model: Any, pairs: Sequence[Pair], config: Config, quick: bool) -> dense_crf.Config:
    """The parameters with the best mean IoU on training pictures: kernels for one weight, then the weight."""
    truths, photos = [_truth(pair) for pair in pairs], [read_image(pair.photo) for pair in pairs]
    guesses = [_guess(model, pair) for pair in pairs]

    def score(crf: dense_crf.Config) -> float:
        refined = [dense_crf.refine(p, g, crf).argmax(-1) for p, g in zip(photos, guesses, strict=True)]
        return _iou(truths, refined)

    def with_kernels(smooth: tuple[float, float], appearance: tuple[float, float]) -> dense_crf.Config:
        return dataclasses.replace(
            dense_crf.Config(labels=config.classes, **config.crf),
            gaussian_sxy=smooth[0],
            gaussian_compat=smooth[1],
            bilateral_sxy=appearance[0],
            bilateral_srgb=appearance[1],
        )

    kernels = [(_SMOOTH[0], _APPEARANCE[0])] if quick else itertools.product(_SMOOTH, _APPEARANCE)
    best = max((with_kernels(*each) for each in kernels), key=score)
    weights = _WEIGHTS[:1] if quick else _WEIGHTS
    return max((dataclasses.replace(best, bilateral_compat=weight) for weight in weights), key=score)


def _claims(
    truths: Sequence[np.ndarray],
    labels: dict[str, list[np.ndarray]],
    crf: dense_crf.Config,
    seconds: dict[str, float],
    quick: bool,
) -> list[Claim]:
    paper = {"LargeFOV": "65.76", "ASPP": "68.96", "ASPP + CRF": "71.57"}
    whole = {name: 100 * _iou(truths, found) for name, found in labels.items()}
    near = {name: 100 * _iou(truths, found, 3) for name, found in labels.items()}
    found = []
    for name, value in whole.items():
        trained = f", trained for {seconds[name] / 60:.0f} minutes" if name in seconds else ""
        text = f"mean IoU of {name} on CamVid's test pictures, %{trained}"
        found.append(Claim(f"iou_{_KEYS[name]}", text, paper[name], value))
    for name, value in near.items():
        text = f"mean IoU of {name} within 3 pixels of a border, %"
        found.append(Claim(f"border_iou_{_KEYS[name]}", text, "not given", value))
    for key, better, worse, values, what in (
        ("gain_aspp", "ASPP", "LargeFOV", whole, "mean IoU"),
        ("gain_crf", "ASPP + CRF", "ASPP", whole, "mean IoU"),
        ("border_gain_crf", "ASPP + CRF", "ASPP", near, "mean IoU within 3 pixels of a border"),
    ):
        theirs = f"{float(paper[better]) - float(paper[worse]):+.2f} (VOC)" if values is whole else "> 0"
        gain = round(values[better] - values[worse], 3)
        text = f"{what}, {better} less {worse}, points"
        found.append(Claim(key, text, theirs, gain, at_least=None if quick else 1e-3))
    chosen = (
        f"smooth {crf.gaussian_sxy:g} px x {crf.gaussian_compat:g}, appearance {crf.bilateral_sxy:g} px, "
        f"{crf.bilateral_srgb:g} levels x {crf.bilateral_compat:g}"
    )
    text = "the CRF's kernels, chosen on training pictures"
    return [*found, Claim("crf_kernels", text, "w1 3-6, 30-100 px, 3-6 levels", chosen)]


def _figure(
    path: Path, photos: Sequence[np.ndarray], truths: Sequence[np.ndarray], labels: dict[str, list[np.ndarray]]
) -> None:
    """A row for each of four pictures: photo, truth, and each arm's labels; the legend below."""
    palette = voc_palette()[: len(CAMVID_NAMES)]
    rows = []
    for at in np.unique(np.linspace(0, len(photos) - 1, 4).astype(int)):
        maps = [truths[at], *(found[at] for found in labels.values())]
        rows.append(np.concatenate([photos[at], *(overlay(photos[at], m, palette, 0.7) for m in maps)], axis=1))
    sheet = Image.fromarray(np.concatenate(rows))
    sheet = sheet.resize((sheet.width * 2 // 3, sheet.height * 2 // 3), Image.Resampling.LANCZOS)
    key = legend(CAMVID_NAMES, palette)
    below = np.full((key.shape[0], sheet.width, 3), 255, "uint8")
    below[:, : key.shape[1]] = key[:, : sheet.width]
    write_image(path, np.concatenate([np.asarray(sheet), below]))


EXPERIMENTS = {
    "sizes": Experiment("parameters of the paper's networks, and the poly schedule", sizes),
    "camvid": Experiment("LargeFOV, ASPP, and ASPP with a CRF on streets", camvid, private=True),
}
