"""Colors of one picture in another. Pictures are arrays (H, W, 3), RGB 0-255, float or uint8; results are float64.

Gatys, Ecker, Bethge, Hertzmann, Shechtman: Controlling Perceptual Factors in Neural Style Transfer, CVPR 2017,
section 5.
"""

import numpy as np

RGB_TO_YUV = np.array([[0.299, 0.587, 0.114], [-0.14713, -0.28886, 0.436], [0.615, -0.51499, -0.10001]])
"""Rec. 601: luminance Y and the color differences U and V, in the unit of RGB."""


def to_yuv(picture: np.ndarray) -> np.ndarray:
    """RGB -> Y, U, V, in the same unit."""
    return np.asarray(picture, "float64") @ RGB_TO_YUV.T


def luminance(picture: np.ndarray) -> np.ndarray:
    """Y in all three channels: the picture in gray."""
    return np.repeat(to_yuv(picture)[..., :1], 3, axis=-1)


def with_colors_of(picture: np.ndarray, colored: np.ndarray) -> np.ndarray:
    """The luminance of `picture` with the U and V of `colored`, of the same size. Values may leave 0-255."""
    yuv = to_yuv(colored)
    yuv[..., 0] = to_yuv(picture)[..., 0]
    return yuv @ np.linalg.inv(RGB_TO_YUV).T


def match_luminance(picture: np.ndarray, to: np.ndarray) -> np.ndarray:
    """The luminance of `picture`, in gray, shifted and scaled to the mean and standard deviation of that of `to`."""
    y, target = luminance(picture), luminance(to)
    return (y - y.mean()) * (target.std() / max(float(y.std()), 1e-6)) + target.mean()


def match_colors(picture: np.ndarray, to: np.ndarray) -> np.ndarray:
    """`picture` after the affine map of its colors that gives them the mean and the covariance of those of `to`.

    x -> A x + b with A = S_to^(1/2) S_picture^(-1/2). Colors that vary by less than a thousandth of a level in some
    direction (a gray picture) are not stretched in it. Values may leave 0-255.
    """
    colors = np.reshape(np.asarray(picture, "float64"), (-1, 3))
    target = np.reshape(np.asarray(to, "float64"), (-1, 3))

    def power(covariance: np.ndarray, exponent: float) -> np.ndarray:
        values, vectors = np.linalg.eigh(covariance)
        present = values > 1e-6
        return (vectors * np.where(present, np.where(present, values, 1.0) ** exponent, 0.0)) @ vectors.T

    mean, goal = colors.mean(axis=0), target.mean(axis=0)
    turn = power(np.cov(target.T), 0.5) @ power(np.cov(colors.T), -0.5)
    return np.reshape((colors - mean) @ turn.T + goal, np.shape(picture))


def match_histogram(picture: np.ndarray, to: np.ndarray) -> np.ndarray:
    """`picture` with the levels of `to`: each channel's, as often as there. One level stays one level.

    Args:
        picture, to: (H, W, C), each of its own size, of one dtype: uint8 or uint16.

    Returns:
        As `picture`.
    """
    result = np.empty_like(picture)
    for channel in range(picture.shape[-1]):
        mine, theirs = picture[..., channel].ravel(), to[..., channel].ravel()
        shares = []
        for values in (mine, theirs):
            counts = np.bincount(values, minlength=np.iinfo(picture.dtype).max + 1)
            shares.append((counts, (np.cumsum(counts) - counts / 2) / values.size))
        levels = np.flatnonzero(shares[1][0])
        table = np.interp(shares[0][1], shares[1][1][levels], levels)
        result[..., channel] = np.rint(table).astype(picture.dtype)[picture[..., channel]]
    return result


def match_colors_by_region(
    photo: np.ndarray, reference: np.ndarray, masks: np.ndarray, reference_masks: np.ndarray
) -> np.ndarray:
    """The photo under one affine color map for each region: mean and covariance become the reference's.

    Of the maps that do so, the one that moves colors least. Contrast below some 8 levels is not enlarged much, as it
    is noise.

    Args:
        photo, reference: (H, W, 3), each of its own size.
        masks, reference_masks: (K, H, W), 0-1, of the photo and of the reference.

    Returns:
        (H, W, 3) float32; values may leave 0-255.
    """
    from scipy.linalg import sqrtm

    result = np.zeros(photo.shape)
    for mine, theirs in zip(masks, reference_masks, strict=True):
        moments = []
        for picture, mask in ((photo, mine), (reference, theirs)):
            weight = mask[..., None] / max(mask.sum(), 1e-9)
            mean = (picture * weight).sum((0, 1))
            centered = (picture - mean).reshape(-1, 3)
            covariance = centered.T @ (centered * weight.reshape(-1, 1)) + 64 * np.eye(3)
            moments.append((mean, covariance))
        (mean, own), (target_mean, target) = moments
        root = np.real(sqrtm(own))
        inverse = np.linalg.inv(root)
        colors = inverse @ np.real(sqrtm(root @ target @ root)) @ inverse
        result += mine[..., None] * ((photo - mean) @ colors + target_mean)
    return result.astype("float32")
