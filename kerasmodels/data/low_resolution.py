"""Pictures at low resolution beside the pictures they were made of: what super-resolution learns from."""

import io
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from kerasmodels.data.images import image_size, list_images, photo_crops
from kerasmodels.errors import DataError

if TYPE_CHECKING:
    import tensorflow as tf

Range = tuple[float, float]
"""Least and most: what is between is drawn evenly for each picture."""


def degrade(
    picture: np.ndarray,
    scale: float,
    *,
    blur: Range = (0.0, 0.0),
    noise: Range = (0.0, 0.0),
    jpeg: tuple[int, int] | None = None,
    random: np.random.Generator | None = None,
) -> np.ndarray:
    """A picture at low resolution, as a camera and the web may have made it: blur, resize, noise, JPEG, in this order.

    Args:
        picture: (H, W, 3), RGB 0-255.
        scale: by which it becomes smaller, as `ops.imresize` does it.
        blur: standard deviation of a Gaussian, pixels of `picture`.
        noise: standard deviation of Gaussian noise, levels of 0-255.
        jpeg: quality of a JPEG file, 1-95; None for none.
        random: draws from the ranges; None for `default_rng(0)`.

    Returns:
        (ceil(H / scale), ceil(W / scale), 3) uint8.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> photo = np.random.default_rng(0).uniform(0, 255, (64, 48, 3))
        >>> km.data.degrade(photo, 4, blur=(0, 2), noise=(0, 10), jpeg=(30, 95)).shape
        (16, 12, 3)
    """
    from scipy.ndimage import gaussian_filter

    from kerasmodels.ops.imresize import exact, resample, taps

    random = np.random.default_rng(0) if random is None else random
    low = np.asarray(picture, "float32")
    sigma, grain = random.uniform(*blur), random.uniform(*noise)
    if sigma > 0:
        low = gaussian_filter(low, (sigma, sigma, 0), mode="reflect")
    for axis in (0, 1):
        low = resample(low, axis, taps(low.shape[axis], 1 / exact(scale)))
    if grain > 0:
        low = low + random.normal(0, grain, low.shape)
    made = np.clip(np.rint(low), 0, 255).astype("uint8")
    if jpeg is None:
        return made
    file = io.BytesIO()
    Image.fromarray(made).save(file, "JPEG", quality=int(random.integers(jpeg[0], jpeg[1] + 1)))
    return np.asarray(Image.open(file))


def low_resolution_pairs(
    photos: str | Path,
    scale: int,
    size: int,
    batch: int,
    seed: int = 0,
    start: int = 0,
    *,
    low: str | Path | None = None,
    blur: Range = (0.0, 0.0),
    noise: Range = (0.0, 0.0),
    jpeg: tuple[int, int] | None = None,
) -> "tf.data.Dataset":
    """An endless, reproducible stream of pieces of photos, at low and at full resolution.

    Args:
        photos: a folder, searched with its subfolders. Pieces are cut out as they are.
        scale: between the two.
        size: side of the pieces at full resolution, a multiple of `scale`.
        batch, seed, start: see `photo_crops`.
        low: a folder with the same photos at low resolution, taken or made elsewhere: see `paired`.
        blur, noise, jpeg: how they are made where there is no `low`; see `degrade`.

    Returns:
        Dataset of pairs: (batch, size / scale, size / scale, 3) and (batch, size, size, 3), float32, RGB 0-255.

    Raises:
        DataError: see `photo_crops` and `paired`.
    """
    import tensorflow as tf

    side = size // scale
    if low is not None:
        return _cut_pairs(paired(photos, low, scale), scale, size, batch, seed, start)

    def pair(number: "tf.Tensor", high: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
        def made(number: np.ndarray, high: np.ndarray) -> np.ndarray:
            random = np.random.default_rng([seed, int(number)])
            return degrade(high, scale, blur=blur, noise=noise, jpeg=jpeg, random=random).astype("float32")

        small = tf.numpy_function(made, [number, high], tf.float32)
        return tf.ensure_shape(small, (side, side, 3)), high

    pieces = photo_crops(photos, size, 1, seed, start * batch, native=True).unbatch()
    numbers = tf.data.Dataset.range(start * batch, np.iinfo("int64").max)
    pairs = tf.data.Dataset.zip(numbers, pieces).map(pair, num_parallel_calls=2)
    return pairs.batch(batch, drop_remainder=True).prefetch(2)


def paired(high: str | Path, low: str | Path, scale: int) -> list[tuple[Path, Path]]:
    """The pictures of a folder and those at low resolution of another, by name.

    Names are compared without their ending and without the parts HR and LR, as in img_001_SRF_4_HR.png. The two may be
    one folder if their names say which is which.

    Returns:
        [(high, low), ...], sorted.

    Raises:
        DataError: pictures without a partner, two of one name, or a pair whose sizes are not as `scale` says.
    """
    sides: list[dict[str, Path]] = []
    for folder, mine, other in ((high, "HR", "LR"), (low, "LR", "HR")):
        named: dict[str, Path] = {}
        for file in list_images(folder):
            words = file.stem.replace("-", "_").split("_")
            if other in words and mine not in words:
                continue
            key = "_".join(word for word in words if word != mine)
            if key in named:
                raise DataError(f"expected one picture of each name. Received: {named[key]} and {file}.")
            named[key] = file
        sides.append(named)
    alone = [str(named[key]) for named in sides for key in sorted(sides[0].keys() ^ sides[1].keys()) if key in named]
    if alone or not sides[0]:
        some = ", ".join(alone[:3]) + (f" and {len(alone) - 3} more" if len(alone) > 3 else "")
        raise DataError(
            f"expected pictures of the same names in {high} (full resolution) and {low} (low resolution). "
            f"Received, without a partner: {some or 'all of them'}."
        )
    found = [(sides[0][key], sides[1][key]) for key in sorted(sides[0])]
    for large, small in found:
        sizes = image_size(large), image_size(small)
        if any(a != scale * b for a, b in zip(*sizes, strict=True)):
            raise DataError(
                f"expected {large} to be {scale} times as large as {small}. Received: {sizes[0][1]} x {sizes[0][0]} "
                f"and {sizes[1][1]} x {sizes[1][0]} pixels."
            )
    return found


def _cut_pairs(
    files: list[tuple[Path, Path]], scale: int, size: int, batch: int, seed: int, start: int
) -> "tf.data.Dataset":
    import tensorflow as tf

    from kerasmodels.data.images import read_image

    side = size // scale
    for large, small in files:
        if min(image_size(small)) < side:
            raise DataError(f"expected pictures of at least {size} pixels a side, the crops' size. Received: {large}.")

    def cut(number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        epoch, position = divmod(int(number), len(files))
        large, small = files[np.random.default_rng([seed, epoch]).permutation(len(files))[position]]
        random = np.random.default_rng([seed, epoch, position])
        fine, coarse = read_image(large), read_image(small)
        y, x = (int(random.integers(0, n - side + 1)) for n in coarse.shape[:2])
        pieces = [p[k * y : k * (y + side), k * x : k * (x + side)] for p, k in ((coarse, 1), (fine, scale))]
        turn = -1 if random.random() < 0.5 else 1
        return pieces[0][:, ::turn].astype("float32"), pieces[1][:, ::turn].astype("float32")

    def pair(number: "tf.Tensor") -> "tuple[tf.Tensor, tf.Tensor]":
        small, large = tf.numpy_function(cut, [number], (tf.float32, tf.float32))
        return tf.ensure_shape(small, (side, side, 3)), tf.ensure_shape(large, (size, size, 3))

    numbers = tf.data.Dataset.range(start * batch, np.iinfo("int64").max)
    return numbers.map(pair, num_parallel_calls=2).batch(batch, drop_remainder=True).prefetch(2)
