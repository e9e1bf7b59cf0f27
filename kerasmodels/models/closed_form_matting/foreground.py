"""The colours of foreground and background under a known alpha, coarse to fine.

Reference: Germer, Uelwer, Conrad, Harmeling 2020, "Fast multi-level foreground estimation".
"""

import math

import numpy as np

from kerasmodels.data.images import check_photo
from kerasmodels.errors import DataError


def estimate_foreground(
    image: np.ndarray,
    alpha: np.ndarray,
    regularization: float = 1e-5,
    small_iterations: int = 10,
    big_iterations: int = 2,
    small_size: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """F and B with image = alpha F + (1 - alpha) B, each smooth where alpha is.

    At every size both start from the next smaller one, and each pixel then solves for its two colours with its four
    neighbours' held, some times over.

    Args:
        image: (H, W, 3), floats of 0-1 or uint8.
        alpha: (H, W), 0-1.
        regularization: how much neighbours must agree where alpha is flat.
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


def check_shares(values: np.ndarray, name: str) -> np.ndarray:
    """The values as an array; raises DataError unless they are shares, 0-1 to a hundredth."""
    values = np.asarray(values)
    if values.size and not (values.min() >= -0.01 and values.max() <= 1.01):
        raise DataError(
            f"expected {name} of 0-1. Received: {values.min():g} to {values.max():g}. Divide by 255 if it is of 0-255."
        )
    return values


def _resized(x: np.ndarray, height: int, width: int) -> np.ndarray:
    """To the nearest pixel."""
    rows = np.arange(height) * x.shape[0] // height
    columns = np.arange(width) * x.shape[1] // width
    return x[rows[:, None], columns]


def _neighbours(x: np.ndarray) -> tuple[np.ndarray, ...]:
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
    weights = [regularization + np.abs(a - other) for other in _neighbours(a)]
    total = sum(weights)
    b = 1 - a
    ff, fb, bb = a * a + total, a * b, b * b + total
    scale = 1 / (ff * bb - fb * fb)
    for _ in range(rounds):
        f = a * image + sum(w * other for w, other in zip(weights, _neighbours(front), strict=True))
        g = b * image + sum(w * other for w, other in zip(weights, _neighbours(back), strict=True))
        front = np.clip((bb * f - fb * g) * scale, 0, 1)
        back = np.clip((ff * g - fb * f) * scale, 0, 1)
    return front, back
