"""Cutting something out of a photo: what a trimap or scribbles say, colors under alpha, and new backgrounds."""

import math
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import tyro
from PIL import Image, ImageOps

from kerasmodels.config import Config, check
from kerasmodels.data import read_drawing, read_image, write_image
from kerasmodels.data.images import check_photo, check_same_size
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import RunReport
from kerasmodels.tasks.pictures import check_result, check_targets

FOREGROUND, BACKGROUND = 0.9 * 255, 0.1 * 255
"""In a trimap: what is as bright as this, or as dark as that. All between is unknown."""


# --- what is known ----------------------------------------------------------------------------------------------------


def trimap_of(picture: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels a trimap knows, and their alpha.

    Args:
        picture: (H, W, 3) or (H, W) uint8: white is foreground (at least 230), black background (at most 25), all
            between is unknown.

    Returns:
        known, alpha: (H, W) bool and float64.

    Raises:
        DataError: see `check_photo`. Read trimaps with `data.read_drawing`, which refuses transparent pixels.
    """
    picture = check_photo(picture, name="a trimap", gray=True)
    gray = picture.reshape(*picture.shape[:2], -1).mean(-1)
    front, back = gray >= FOREGROUND, gray <= BACKGROUND
    return front | back, front.astype("float64")


def scribbled(photo: np.ndarray, scribbles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels were drawn over in white or black, and their alpha.

    Args:
        photo: (H, W, 3) uint8.
        scribbles: the same photo with white strokes on the foreground and black ones on the background.

    Returns:
        known, alpha: (H, W) bool and float64.

    Raises:
        DataError: the two differ nearly everywhere: it is another photo, or its file was compressed with loss; or no
            stroke of a color is seen that parts of the photo have; or see `check_photo`.
    """
    photo, scribbles = check_photo(photo), check_photo(scribbles, name="scribbles")
    check_same_size("the scribbles", scribbles, photo)
    drawn = (photo != scribbles).any(-1)
    if drawn.mean() > 0.9:
        raise DataError(
            "expected the photo itself with strokes on it. Received scribbles that differ from the photo nearly "
            "everywhere: another photo, or one saved as JPEG. Save it as PNG, or give a trimap."
        )
    if not drawn.any():
        raise DataError("expected the photo with strokes on it. Received scribbles without any foreground: the photo.")
    known, alpha = trimap_of(scribbles)
    for color, of, value in (("white", "foreground", 1), ("black", "background", 0)):
        same = known & (alpha == value)
        if not (same & drawn).any() and (same & ~drawn).any():
            raise DataError(
                f"expected {color} strokes on the {of}. Received: none that shows, and {color} parts of the photo, "
                f"where such a stroke changes nothing. Draw some where the photo is not {color}, or give a trimap."
            )
    return known & drawn, alpha * drawn


def check_shares(values: np.ndarray, name: str) -> np.ndarray:
    """The values as an array; raises DataError unless they are shares, 0-1 to a hundredth."""
    values = np.asarray(values)
    if values.size and not (values.min() >= -0.01 and values.max() <= 1.01):
        raise DataError(
            f"expected {name} of 0-1. Received: {values.min():g} to {values.max():g}. Divide by 255 if it is of 0-255."
        )
    return values


# --- colors under alpha -----------------------------------------------------------------------------------------------


def estimate_foreground(
    image: np.ndarray,
    alpha: np.ndarray,
    regularization: float = 1e-5,
    small_iterations: int = 10,
    big_iterations: int = 2,
    small_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """F and B with image = alpha F + (1 - alpha) B, each smooth where alpha is.

    At every size both start from the next smaller one, and each pixel then solves for its two colors with its four
    neighbors' held, some times over.

    Args:
        image: (H, W, 3), floats of 0-1 or uint8.
        alpha: (H, W), 0-1.
        regularization: how much neighbors must agree where alpha is flat.
        small_iterations, big_iterations: rounds at sizes up to `small_size` pixels and above.
        small_size: in pixels, of both sides.

    Returns:
        F and B, (H, W, 3) float32, 0-1.

    Raises:
        DataError: the picture's or alpha's numbers are of another range, or alpha is of another size.

    Reference:
        Germer et al. 2020, algorithm 1. Its pixels take turns; ours change at once, which NumPy does fast.
    """
    image = check_photo(image, white=1.0, name="a picture")
    image = image.astype("float32") / (255 if image.dtype == np.uint8 else 1)
    alpha = check_shares(alpha, "alpha").astype("float32")
    if alpha.shape != image.shape[:2]:
        raise DataError(f"expected alpha of the picture's shape, {image.shape[:2]}. Received: {alpha.shape}.")
    height, width = alpha.shape
    front, back = (np.full((1, 1, 3), 0, "float32") for _ in range(2))
    inside, outside = alpha > 0.9, alpha < 0.1
    front[:] = image[inside].mean(0) if inside.any() else image.mean((0, 1))
    back[:] = image[outside].mean(0) if outside.any() else image.mean((0, 1))
    levels = max(1, math.ceil(math.log2(max(height, width))))
    for level in range(levels + 1):
        h, w = (max(1, round(side ** (level / levels))) for side in (height, width))
        small_image, small_alpha = _resized(image, h, w), _resized(alpha[..., None], h, w)
        front, back = _resized(front, h, w), _resized(back, h, w)
        rounds = small_iterations if max(h, w) <= small_size else big_iterations
        front, back = _relaxed(small_image, small_alpha, front, back, regularization, rounds)
    return front, back


def _resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """To the nearest pixel."""
    rows = np.arange(height) * x.shape[0] // height
    columns = np.arange(width) * x.shape[1] // width
    return x[rows[:, None], columns]


def _neighbors(x: np.ndarray) -> tuple[np.ndarray, ...]:
    """The pixel above, below, to the left and right; at the border, the pixel itself."""
    return (
        np.concatenate([x[:1], x[:-1]]),
        np.concatenate([x[1:], x[-1:]]),
        np.concatenate([x[:, :1], x[:, :-1]], axis=1),
        np.concatenate([x[:, 1:], x[:, -1:]], axis=1),
    )


def _relaxed(
    image: np.ndarray, a: np.ndarray, front: np.ndarray, back: np.ndarray, regularization: float, rounds: int
) -> tuple[np.ndarray, np.ndarray]:
    weights = [regularization + np.abs(a - other) for other in _neighbors(a)]
    total = sum(weights)
    b = 1 - a
    ff, fb, bb = a * a + total, a * b, b * b + total
    scale = 1 / (ff * bb - fb * fb)
    for _ in range(rounds):
        f = a * image + sum(w * other for w, other in zip(weights, _neighbors(front), strict=True))
        g = b * image + sum(w * other for w, other in zip(weights, _neighbors(back), strict=True))
        front = np.clip((bb * f - fb * g) * scale, 0, 1)
        back = np.clip((ff * g - fb * f) * scale, 0, 1)
    return front, back


def composite(front: np.ndarray, alpha: np.ndarray, background: np.ndarray) -> np.ndarray:
    """The foreground before another background.

    Args:
        front: (H, W, 3), 0-1, see `estimate_foreground`.
        alpha: (H, W), 0-1.
        background: (H', W', 3) uint8; it is scaled to cover the foreground, and cropped.

    Returns:
        (H, W, 3) floats, 0-1.
    """
    size = (alpha.shape[1], alpha.shape[0])
    fitted = np.asarray(ImageOps.fit(Image.fromarray(background), size, Image.Resampling.LANCZOS)) / 255
    return alpha[..., None] * front + (1 - alpha)[..., None] * fitted


# --- files ------------------------------------------------------------------------------------------------------------

_TRANSPARENT = (".png", ".webp", ".tif", ".tiff")


class CutOutOptions(Config):
    """Cut something out of a photo, or put it before another background."""

    photo: tyro.conf.Positional[Path]
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write: the cut-out with transparency (.png, .webp, .tif), or with --background the new picture."""
    trimap: Path | None = None
    """Picture of the photo's size: white is foreground, black background, gray unknown."""
    scribbles: Path | None = None
    """Instead of a trimap: the photo with white strokes on the foreground and black ones on the background (PNG)."""
    alpha: Path | None = None
    """Also write alpha, as a gray picture."""
    foreground: Path | None = None
    """Also write the foreground's colors, without transparency."""
    background: Path | None = None
    """Put the cut-out before this picture; it is scaled to cover the photo and cropped."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        if (self.trimap is None) == (self.scribbles is None):
            raise UsageError("expected one of --trimap PICTURE and --scribbles PICTURE.")
        if self.background is None:
            kinds = ", ".join(_TRANSPARENT)
            check(self.out.suffix.lower() in _TRANSPARENT, f"a name ending in {kinds}", str(self.out))


def write_cut_out(
    options: CutOutOptions, matte: Callable[[np.ndarray, np.ndarray, np.ndarray], tuple[np.ndarray, Any]]
) -> RunReport:
    """Write the cut-out, or the photo's new version, that the options ask for.

    Args:
        options: of which photo.
        matte: photo (H, W, 3) uint8, known (H, W) bool, alpha there (H, W) -> alpha (H, W), and what the solver says
            of it.

    Raises:
        UsageError: an input would be overwritten, or two results would be written to one place.
        DataError: an input cannot be read or does not belong to the photo, or nothing is marked.
        StorageError: see `write_image`.
    """
    sources = [p for p in (options.photo, options.trimap, options.scribbles, options.background) if p]
    check_targets([p for p in (options.out, options.alpha, options.foreground) if p], sources)
    for target in (options.out, options.alpha, options.foreground):
        if target is not None:
            check_result(target, options.photo)
    photo = read_image(options.photo)
    if min(photo.shape[:2]) < 3:
        raise DataError(
            f"expected a photo of at least 3 x 3 pixels, the size of a window. Received: {photo.shape[1]} x "
            f"{photo.shape[0]}."
        )
    if options.trimap is not None:
        trimap = read_drawing(options.trimap)
        check_same_size("the trimap", trimap, photo)
        known, values = trimap_of(trimap)
    else:
        known, values = scribbled(photo, read_drawing(options.scribbles or ""))
    behind = None if options.background is None else read_image(options.background)

    began = time.perf_counter()
    alpha, solution = matte(photo, known, values)
    solved = time.perf_counter()
    front, _ = estimate_foreground(photo, alpha)
    facts = {
        "unknown": f"{100 * (1 - known.mean()):.0f} %",
        "iterations": int(solution.iterations),
        "residual": float(solution.residual[0]),
        "seconds for alpha": round(solved - began, 2),
        "seconds for the foreground": round(time.perf_counter() - solved, 2),
    }
    cut = np.concatenate([front, alpha[..., None]], axis=-1)
    result = cut if behind is None else composite(front, alpha, behind)
    results = {options.out: result, options.alpha: alpha, options.foreground: front}
    written = [write_image(path, to_bytes(values)) for path, values in results.items() if path is not None]
    return RunReport(tuple(written), facts)


def to_bytes(values: np.ndarray) -> np.ndarray:
    """Shares or colors of 0-1 as uint8, 0-255."""
    return np.rint(255 * np.clip(values, 0, 1)).astype("uint8")
