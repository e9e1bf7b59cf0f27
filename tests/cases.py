"""What makes the conformance battery quick: for every family a case in miniature, and what their made-up data share.

tests/families/<name>/ holds a family's case.py (and case_<kind>.py where a config makes models of several kinds), the
golden outputs of each, and the tests of its own.
"""

import importlib
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmodels import runs, storage
from kerasmodels.backbones import sources
from kerasmodels.data import write_image
from kerasmodels.data.digits import FILES
from kerasmodels.data.segmentation import write_label_map
from kerasmodels.family import Family

FOLDER = Path(__file__).parent / "families"


@dataclass(frozen=True)
class Case:
    """A family in miniature.

    Args:
        config: a network of a few thousand weights and 4 training steps if it trains, without data. At least one kernel
            should have 1024 weights: LiteRT leaves smaller ones alone when it reduces weights to 8 bits.
        data: writes made-up data into a folder and returns the fields of the config that name it.
        dims: small values of the servables' named dimensions; no picture side should be a multiple of the network's
            stride, so that padding is seen too.
        task: (folder, run, out) -> the task's options that use the weights of the run folder `run`, None where there is
            nothing to train. It writes its inputs into `folder`; results go into the folder `out`.
    """

    config: Any
    data: Callable[[Path], Mapping[str, Any]]
    dims: Mapping[str, int]
    task: Callable[[Path, Path | None, Path], Any]


def family_of(key: str) -> str:
    """The family of a case: `family`, or `family:kind` where a config makes models of several kinds."""
    return key.partition(":")[0]


def names() -> list[str]:
    """All cases, found by their files; none is imported."""
    found = sorted(FOLDER.glob("*/case*.py"))
    return [f"{path.parent.name}{path.stem.removeprefix('case').replace('_', ':')}" for path in found]


def case_of(key: str) -> Case:
    """The case of a key; one whose file is named by the kind alone is no part of the battery."""
    family, _, kind = key.partition(":")
    name = kind if (FOLDER / family / f"{kind}.py").is_file() else f"case{kind and f'_{kind}'}"
    return importlib.import_module(f"tests.families.{family}.{name}").CASE


def golden_path(key: str) -> Path:
    """The golden outputs of a case."""
    family, _, kind = key.partition(":")
    return FOLDER / family / f"golden{kind and f'_{kind}'}.npz"


def untrained(family: Family, config: Any, folder: Path) -> Any:
    """A run folder with a new model's weights, as a training would leave one: for what is done with a run.

    Returns:
        The model.
    """
    keras.utils.set_random_seed(config.seed)
    model = family.model(config)
    storage.save_npz(folder / "weights.npz", storage.model_arrays(model))
    storage.write_json(folder / "run.json", {**runs.new_card(family.name, config, None), "state": "done"})
    return model


def photo(seed: int, height: int, width: int) -> np.ndarray:
    """A made-up picture: smooth colors, an edge, a little grain. RGB 0-255, uint8."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    waves = [np.sin(x * random.uniform(2, 12) + y * random.uniform(2, 12) + random.uniform(0, 6)) for _ in range(3)]
    picture = 128 + 90 * np.stack(waves, axis=-1)
    picture[x + y > random.uniform(0.6, 1.2)] *= 0.5
    return np.clip(picture + random.normal(0, 4, picture.shape), 0, 255).astype("uint8")


def write_vgg16(path: Path) -> Path:
    """Weights of VGG16 that were never trained, in torchvision's keys; they keep the size of what passes through."""
    random = np.random.default_rng(0)
    arrays = {}
    for key, shape in sources.shapes("vgg16").items():
        layer, kind = key.removeprefix("conv").split("/")
        spread = (2 / np.prod(shape[:-1])) ** 0.5 if kind == "kernel" else 0.1
        block, number = layer.split("_")
        arrays[f"block{block}_conv{number}_{kind}"] = spread * random.standard_normal(shape, "float32")
    np.savez(path, **arrays)
    return path


def labeled_photos(folder: Path) -> Mapping[str, Any]:
    for number in range(3):
        picture = photo(number, 48 + 8 * number, 64)
        write_image(folder / "photos" / f"{number}.png", picture)
        labels = picture[..., 0] // 86
        labels[:5] = 255
        write_label_map(folder / "masks" / f"{number}.png", labels)
    return {"photos": folder / "photos", "masks": folder / "masks"}


TINY_LABELS: dict[str, Any] = {
    "names": ("sky", "house", "road"),
    "crf_iterations": 2,
    "crf_gaussian_compat": 0.2,
    "crf_bilateral_compat": 0.2,
    "crf_bilateral_sxy": 20,
    "crf_radius": 1,
    "crf_stride": 2,
}


def digits(folder: Path) -> Mapping[str, Any]:
    random = np.random.default_rng(0)
    (folder / "mnist").mkdir()
    for images, labels in FILES.values():
        classes = random.integers(0, 10, 24, "uint8")
        pictures = np.stack([photo(int(c), 28, 28)[..., 0] for c in classes])
        for name, array in ((images, pictures), (labels, classes)):
            header = struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape)
            (folder / "mnist" / name).write_bytes(header + array.tobytes())
    return {"digits": folder / "mnist"}


def unpaired_pictures(folder: Path) -> Mapping[str, Any]:
    for name in "ab":
        for number in range(3):
            write_image(folder / name / f"{number}.png", photo(ord(name) + number, 40, 48))
    return {"a": folder / "a", "b": folder / "b"}


def small_pictures(folder: Path) -> Mapping[str, Any]:
    for number in range(5):
        write_image(folder / "pictures" / f"{number}.png", photo(number, 20, 24))
    return {"pictures": folder / "pictures"}
