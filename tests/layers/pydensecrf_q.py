"""Writes pydensecrf_q.npz: what pydensecrf makes of the picture and logits below, for every case.

python tests/layers/pydensecrf_q.py         # where pydensecrf2 is installed (made with 1.1)
"""

from pathlib import Path
from typing import Any

import numpy as np

LABELS, ITERATIONS = 3, 4
CASES: dict[str, dict[str, Any]] = {
    "default": {},
    "before": {"normalization": "before"},
    "after": {"normalization": "after"},
    "none": {"normalization": "none"},
    "gaussian": {"bilateral_compat": 0, "gaussian_sxy": (2, 4)},
    "bilateral": {"gaussian_compat": 0, "bilateral_sxy": (9, 5), "bilateral_srgb": (20, 40, 10), "bilateral_compat": 4},
    "vector": {"gaussian_compat": [-1, -2, -3], "bilateral_compat": [-5, -1, -2]},
    "matrix": {
        "gaussian_compat": [[-3, 0.5, 0], [0.5, -2, 1], [0, 1, -3]],
        "bilateral_compat": [[-4, 1, 2], [0, -5, 0.5], [1, 0, -3]],
    },
}
"""Arguments of `DenseCRF`, beside those in `DEFAULTS`."""
DEFAULTS = {"gaussian_sxy": 3, "gaussian_compat": 3, "bilateral_sxy": 30, "bilateral_srgb": 13, "bilateral_compat": 10}


def picture_and_logits() -> tuple[np.ndarray, np.ndarray]:
    """Three regions of alike colors with soft edges and grain, (25, 19, 3) uint8; noisy logits (25, 19, 3) float32."""
    random = np.random.default_rng(7)
    y, x = np.mgrid[:25, :19]
    region = (x + 0.5 * y > 15).astype(int) + (y > 17)
    colors = np.array([[90.0, 120, 60], [120, 110, 80], [60, 70, 140]])
    picture = colors[region] + 10 * np.sin(x / 4 + y / 6)[..., None] + random.normal(0, 4, (25, 19, 3))
    logits = np.eye(LABELS)[region] + random.normal(0, 1, (25, 19, LABELS))
    return np.clip(picture, 0, 255).astype("uint8"), logits.astype("float32")


def main() -> None:
    import pydensecrf.densecrf as dcrf

    names = {
        "symmetric": dcrf.NORMALIZE_SYMMETRIC,
        "before": dcrf.NORMALIZE_BEFORE,
        "after": dcrf.NORMALIZE_AFTER,
        "none": dcrf.NO_NORMALIZATION,
    }
    picture, logits = picture_and_logits()
    height, width = picture.shape[:2]
    found = {}
    for case, change in CASES.items():
        given = {**DEFAULTS, "normalization": "symmetric", **change}
        field = dcrf.DenseCRF2D(width, height, LABELS)
        field.setUnaryEnergy(np.ascontiguousarray(-logits.reshape(-1, LABELS).T))
        compat = {k: np.array(given[k], "float32") if np.ndim(given[k]) else given[k] for k in given if "compat" in k}
        kind = {"kernel": dcrf.DIAG_KERNEL, "normalization": names[given["normalization"]]}
        if case != "bilateral":
            field.addPairwiseGaussian(sxy=given["gaussian_sxy"], compat=compat["gaussian_compat"], **kind)
        if case != "gaussian":
            field.addPairwiseBilateral(
                sxy=given["bilateral_sxy"],
                srgb=given["bilateral_srgb"],
                rgbim=np.ascontiguousarray(picture),
                compat=compat["bilateral_compat"],
                **kind,
            )
        found[case] = np.array(field.inference(ITERATIONS)).T.reshape(height, width, LABELS).astype("float32")
    np.savez_compressed(Path(__file__).with_suffix(".npz"), **found)


if __name__ == "__main__":
    main()
