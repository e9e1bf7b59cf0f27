"""Pictures of handwritten digits, and what scaling and turning makes of them."""

from pathlib import Path
from typing import TYPE_CHECKING, Literal

import numpy as np

from kerasmodels.data.stacks import read_idx
from kerasmodels.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

SIDE = 28
Warp = Literal["none", "scaled", "rotated"]
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}


def read_digits(folder: str | Path | None, split: Literal["train", "test"]) -> tuple[np.ndarray, np.ndarray]:
    """Pictures and classes.

    Args:
        folder: with MNIST's four files (IDX, also compressed as .gz); None for the 1,797 digits that come with
            scikit-learn, enlarged from 8 to 20 pixels and laid in the middle, of which the last 360 are the test.
        split: "train" or "test".

    Returns:
        (N, 28, 28, 1) uint8, white on black, and (N,) int32, 0 to 9.

    Raises:
        DataError: a file is missing or is none of these, or scikit-learn is not installed.
    """
    if folder is None:
        return _sklearn_digits(split)
    pictures, labels = (read_idx(_found(Path(folder), name)) for name in FILES[split])
    if pictures.shape[1:] != (SIDE, SIDE) or labels.shape != pictures.shape[:1] or labels.max(initial=0) > 9:
        raise DataError(
            f"expected pictures of {SIDE} x {SIDE} and as many labels 0 to 9 in {folder}. "
            f"Received: pictures {pictures.shape}, labels {labels.shape} up to {labels.max(initial=0)}."
        )
    return pictures[..., None], labels.astype("int32")


def _found(folder: Path, name: str) -> Path:
    path = next((p for p in (folder / name, folder / f"{name}.gz") if p.is_file()), None)
    if path is None:
        raise DataError(f"expected MNIST's file {name} or {name}.gz in {folder}, which has neither.")
    return path


def _sklearn_digits(split: str) -> tuple[np.ndarray, np.ndarray]:
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise DataError(
            "expected a folder with MNIST's files, or scikit-learn for its small digits: pip install scikit-learn."
        ) from error
    from PIL import Image

    found = load_digits()
    pictures = np.zeros((len(found.images), SIDE, SIDE), "uint8")
    for picture, small in zip(pictures, found.images, strict=True):
        gray = Image.fromarray((small * (255 / 16)).astype("uint8"))
        picture[4:24, 4:24] = np.asarray(gray.resize((20, 20), Image.Resampling.BICUBIC))
    part = slice(-360, None) if split == "test" else slice(-360)
    return pictures[part, ..., None], found.target[part].astype("int32")


def warped(pictures: "tf.Tensor", warp: Warp, seed: "tf.Tensor") -> "tf.Tensor":
    """Pictures scaled or turned at random, bilinear.

    Args:
        pictures: (N, H, W, 1) uint8 or float.
        warp: "scaled": each axis by its own factor, made smaller by U(1, 2.5), and shifted by U(-0.2, 0.2) of the
            side; "rotated": turned by U(-90, 90) degrees about the middle; "none": as they are.
        seed: (2,) int.

    Returns:
        (N, H, W, 1) float32.
    """
    import tensorflow as tf

    pictures = tf.cast(pictures, tf.float32)
    if warp == "none":
        return pictures
    n, height, width = (tf.shape(pictures)[axis] for axis in range(3))
    middle = [(tf.cast(side, tf.float32) - 1) / 2 for side in (width, height)]
    draws = tf.random.stateless_uniform((n, 4), seed)
    zeros = tf.zeros(n)
    if warp == "scaled":
        x_factor, y_factor = (1 + 1.5 * draws[:, k] for k in range(2))
        shifts = [(0.4 * draws[:, 2 + k] - 0.2) * 2 * middle[k] for k in range(2)]
        terms = [x_factor, zeros, zeros, y_factor]
    else:
        angle = (draws[:, 0] - 0.5) * np.pi
        shifts = [zeros, zeros]
        terms = [tf.cos(angle), -tf.sin(angle), tf.sin(angle), tf.cos(angle)]
    # Where a pixel of the result comes from: middle + matrix (pixel - middle - shift).
    ends = [middle[k] + shifts[k] for k in range(2)]
    starts = [middle[k] - terms[2 * k] * ends[0] - terms[2 * k + 1] * ends[1] for k in range(2)]
    transforms = tf.stack([terms[0], terms[1], starts[0], terms[2], terms[3], starts[1], zeros, zeros], axis=1)
    return tf.raw_ops.ImageProjectiveTransformV3(
        images=pictures,
        transforms=transforms,
        output_shape=tf.stack([height, width]),
        fill_value=0.0,
        interpolation="BILINEAR",
        fill_mode="CONSTANT",
    )
