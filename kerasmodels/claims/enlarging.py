"""What the claims of super-resolution share: the benchmarks' pictures, and how close enlargements come to the truth."""

from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import numpy as np

from kerasmodels.data import paired, read_as_stored
from kerasmodels.errors import DataError
from kerasmodels.metrics import LPIPS, PSNR, SSIM
from kerasmodels.ops import imresize

Enlarge = Callable[[np.ndarray], np.ndarray]
"""(h, w) or (h, w, 3) uint8 -> the same form, larger."""

PUBLISHED = {
    ("Set5", 3): ("30.39 / 0.8682", "32.75 / 0.9090"),
    ("Set5", 4): ("28.42 / 0.8104", "30.48 / 0.8628"),
    ("Set14", 4): ("26.00 / 0.7027", "27.50 / 0.7513"),
}
"""PSNR and SSIM of bicubic interpolation and of SRCNN 9-5-5 as papers quote them."""


def pictures(data: Path | None, name: str, scale: int) -> list[tuple[np.ndarray, np.ndarray]]:
    """Truth and low resolution of a benchmark, as the files have them: gray ones stay gray.

    Raises:
        DataError: there is none below the folder.
    """
    found = sorted(data.rglob(f"{name}/image_SRF_{scale}")) if data is not None and data.is_dir() else []
    if not found:
        raise DataError(
            f"expected --data DIR with a folder {name}/image_SRF_{scale} of pictures ending in HR.png and LR.png. "
            f"Received: {data}."
        )
    pairs = []
    for high, low in paired(found[0], found[0], scale):
        truth, small = read_as_stored(high), read_as_stored(low)
        if truth.ndim == 2 and small.ndim == 3:
            small = small[..., 0]
        pairs.append((truth, small))
    return pairs


def lpips(data: Path | None) -> LPIPS:
    """The metric, with the weights in the first .npz below the folder that has its heads.

    Raises:
        DataError: none has.
    """
    for file in sorted(data.rglob("*.npz")) if data is not None else []:
        try:
            with np.load(file) as arrays:
                if "lpips_lin0" in arrays.files:
                    return LPIPS(file)
        except (OSError, ValueError):
            continue
    raise DataError(f"expected an .npz with VGG16 and lpips_lin0 to lpips_lin4 below {data}. Received: none such.")


def bicubic(scale: int) -> Enlarge:
    """Interpolation, rounded and clipped."""

    def enlarge(low: np.ndarray) -> np.ndarray:
        made = imresize(low.reshape(1, *low.shape[:2], -1), scale)
        return np.clip(np.rint(made), 0, 255).astype("uint8")[0].reshape(*made.shape[1:3], *low.shape[2:])

    return enlarge


def scores(
    pairs: list[tuple[np.ndarray, np.ndarray]], ways: Mapping[str, Enlarge], scale: int, perceptual: LPIPS | None = None
) -> dict[str, dict[str, float]]:
    """Each way's mean PSNR and SSIM (luma of the studio range, a border of `scale` pixels left out), and LPIPS."""
    found: dict[str, dict[str, float]] = {}
    for name, enlarge in ways.items():
        metrics = {"psnr": PSNR(border=scale), "ssim": SSIM(border=scale)}
        values: dict[str, list[float]] = {key: [] for key in (*metrics, *(["lpips"] if perceptual else []))}
        for truth, made in _made(pairs, enlarge):
            for key, metric in metrics.items():
                values[key].append(float(metric.per_picture(truth, made)[0]))
            if perceptual is not None:
                rgb = [np.repeat(p, 3, axis=-1) if p.shape[-1] == 1 else p for p in (truth, made)]
                values["lpips"].append(float(perceptual.per_picture(*rgb)[0]))
        found[name] = {key: float(np.mean(each)) for key, each in values.items()}
    return found


def _made(pairs: list[tuple[np.ndarray, np.ndarray]], enlarge: Enlarge) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    for truth, low in pairs:
        made = enlarge(low)
        yield tuple(p.reshape(1, *truth.shape[:2], -1) for p in (truth, made))  # type: ignore[misc]
