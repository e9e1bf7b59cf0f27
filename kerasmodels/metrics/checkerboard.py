"""The checkerboard that a generator's upsampling leaves in its pictures, found by its frequencies."""

import numpy as np

from kerasmodels.errors import DataError, UsageError

_BRIGHTNESS = np.array([0.299, 0.587, 0.114])
_PEAK = 1
"""A frequency fills this many bins to each side, because of the window."""
_GUARD = 2
"""Bins so far from it count neither as it nor as its neighborhood."""


def checkerboard(pictures: np.ndarray, stride: int = 2) -> float:
    """How far the frequencies of a sampling grid stand out of the spectrum around them.

    A layer that upsamples by s repeats its pattern every s pixels. Whatever it leaves in the pictures lies at the
    frequencies (i / s, j / s) cycles a pixel, which in pictures of things are like their neighbors.
    At each of them the mean power of all pictures, under a Hann window, is divided by that of the neighborhood: along
    the axes of the frequencies that are not 0, because upright and level edges have their own cross in the spectrum.
    Of RGB the brightness is looked at, because cameras and JPEG files sample the colors on a grid of their own.
    Differences below one step of 0-255 do not count.

    Args:
        pictures: (N, H, W, C) or (H, W, C), C 3 for RGB or 1, 0-255, such as a generator makes; many small ones do.
        stride: the upsampling to look for: a layer's stride, or the product of several.

    Returns:
        The largest of these ratios in decibels: -5 to 5 for photos, 10 and more where there is a pattern to be seen.
        A pattern of one stride also shows at its multiples.

    Raises:
        UsageError: a stride below 2.
        DataError: the pictures are smaller than 16 strides, or their values are not finite.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> photo = np.random.default_rng(0).uniform(50, 200, (1, 64, 64, 3))
        >>> marked = photo + 20 * (np.arange(64) % 2)[:, None]
        >>> km.metrics.checkerboard(photo) < 5, km.metrics.checkerboard(marked) > 15
        (True, True)

    Reference:
        The cause: Odena, Dumoulin, Olah: Deconvolution and Checkerboard Artifacts, Distill 2016. The measure is ours.
    """
    if stride < 2:
        raise UsageError(f"expected a stride of at least 2. Received: {stride}.")
    pictures = np.asarray(pictures, "float64")
    pictures = pictures[None] if pictures.ndim == 3 else pictures
    least = min(pictures.shape[1:3], default=0)
    if pictures.ndim != 4 or pictures.shape[-1] not in (1, 3) or not len(pictures) or least < 16 * stride:
        raise DataError(
            f"expected pictures (N, H, W, 1 or 3) of at least {16 * stride} pixels a side for stride {stride}. "
            f"Received shape: {pictures.shape}."
        )
    if not np.isfinite(pictures).all():
        raise DataError("expected pictures of finite numbers. Received: NaN or infinite ones.")
    # Whole periods, so that each frequency is one bin.
    height, width = (side // stride * stride for side in pictures.shape[1:3])
    pictures = pictures[:, :height, :width] @ (_BRIGHTNESS if pictures.shape[-1] == 3 else np.ones(1))
    pictures = pictures - pictures.mean(axis=(1, 2), keepdims=True)
    window = np.outer(_hann(height), _hann(width))
    spectra = np.fft.fft2(pictures * window, axes=(1, 2))
    # Rounding to steps of 1 has a variance of 1 / 12, spread evenly.
    power = np.mean(np.abs(spectra) ** 2, axis=0) + np.square(window).sum() / 12
    reach = min(height, width) // (2 * stride)
    ratios = []
    for i in range(stride):
        for j in range(stride):
            if i or j:
                peak, around = _around((i, j), (height, width), stride, reach)
                ratios.append(power[peak].mean() / power[around].mean())
    return float(10 * np.log10(max(ratios)))


def _hann(length: int) -> np.ndarray:
    return 0.5 - 0.5 * np.cos(2 * np.pi * (np.arange(length) + 0.5) / length)


def _around(
    frequency: tuple[int, int], shape: tuple[int, int], stride: int, reach: int
) -> tuple[tuple[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]:
    """The bins of a frequency, and those of its neighborhood up to `reach`, as index arrays."""
    spans = [np.arange(-reach, reach + 1) if part else np.arange(-_PEAK, _PEAK + 1) for part in frequency]
    down, across = np.meshgrid(*spans, indexing="ij")
    away = np.maximum(np.abs(down), np.abs(across))
    places = [
        (offsets + part * side // stride) % side
        for offsets, part, side in zip((down, across), frequency, shape, strict=True)
    ]
    found = []
    for chosen in (away <= _PEAK, (away > _GUARD) & (away < reach)):
        found.append((places[0][chosen], places[1][chosen]))
    return found[0], found[1]
