"""What a picture becomes under color maps that change slowly over it: the last step of photographic style transfer."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class LocalAffineSmoothing(keras.layers.Layer):
    """Rebuild a stylized photo as color maps applied to the photo itself.

    Around every pixel an affine map from the photo's colors to the stylized picture's is fitted on a 3x3 window; the
    maps are averaged with those of the neighborhood, but not across the photo's edges; each pixel's map is applied to
    the photo. What is left of the stylized picture is its colors: edges and detail are the photo's own.

    The released code differs in three places. (1) It averages with a joint bilateral filter (Gaussian of 5 pixels, 961
    neighbors each); here it is a guided filter, whose cost does not grow with the radius and which is made of
    poolings and products, so that it exports to every format. (2) Its fits are drawn to a constant color where a
    window has no contrast; here they are drawn to the affine map that fits the whole picture best, so that a picture
    that *is* such a map comes back as it is. (3) Its Gaussian of 5 pixels is two box averages of radius 6 here, which
    spread as far.

    Args:
        radius: of the box averages, pixels.
        edge: a step of the photo's colors, 0-1, that the averaging stops at.
        ridge: draws the fits to the picture's overall map; the squared unit of the photo, summed over the window.

    Shapes:
        [photo (N, H, W, 3), stylized (N, H, W, 3)], both 0-1, of any (unknown) size -> (N, H, W, 3), about 0-1. The
        arithmetic is float32 whatever the dtype policy.

    Raises:
        ValueError: an argument out of range.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> photo = np.random.default_rng(0).uniform(size=(1, 20, 30, 3)).astype("float32")
        >>> evening = photo @ np.diag([0.9, 0.5, 0.4]).astype("float32") + 0.1
        >>> bool(np.abs(km.layers.LocalAffineSmoothing()([photo, evening]) - evening).max() < 1e-3)
        True

    Reference:
        Luan et al. 2017, supplementary material; He, Sun, Tang: Guided image filtering, ECCV 2010.
    """

    def __init__(self, radius: int = 6, edge: float = 0.01, ridge: float = 1e-3, **kwargs: Any):
        super().__init__(**kwargs)
        if radius < 1 or not edge > 0 or not ridge > 0:
            raise ValueError(
                f"expected radius >= 1, edge > 0 and ridge > 0. Received: radius={radius}, edge={edge}, ridge={ridge}."
            )
        self.radius, self.edge, self.ridge = int(radius), float(edge), float(ridge)

    def call(self, inputs: Sequence[Any]) -> Any:
        photo, stylized = (ops.cast(x, "float32") for x in inputs)
        return self.apply(self.maps(photo, stylized), photo)

    def maps(self, photo: Any, stylized: Any) -> dict[str, Any]:
        """The color maps before the last step: what `apply` needs to map the photo, or a larger version of it.

        Returns:
            "overall" (N, 1, 1, 12), and "slopes" (N, H, W, 36) and "offsets" (N, H, W, 12): each of a pixel's 12
            coefficients is itself an affine function of the color there, which keeps it sharp at edges.
        """
        overall = _affine_fit(photo, stylized, _mean_of_all, 1e-7)
        rest = ops.subtract(stylized, _mapped(overall, photo))
        fitted = _affine_fit(photo, rest, lambda x: _box_mean(x, 1), self.ridge / 9)
        coefficients = ops.concatenate(fitted, axis=-1)
        smooth = _guided_maps(photo, coefficients, self.radius, self.edge)
        return {
            "overall": ops.concatenate(overall, axis=-1),
            "slopes": smooth[:, :, :, :36],
            "offsets": smooth[:, :, :, 36:],
        }

    def apply(self, maps: dict[str, Any], photo: Any) -> Any:
        """The photo (N, H, W, 3), 0-1, under the maps, which must have its size."""
        overall = [maps["overall"][:, :, :, 3 * i : 3 * i + 3] for i in range(4)]
        slopes = [maps["slopes"][:, :, :, 12 * i : 12 * i + 12] for i in range(3)]
        local = _mapped([*slopes, maps["offsets"]], photo)
        local = [local[:, :, :, 3 * i : 3 * i + 3] for i in range(4)]
        return ops.add(_mapped(overall, photo), _mapped(local, photo))

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "radius": self.radius, "edge": self.edge, "ridge": self.ridge}


def guided_filter(guide: Any, values: Any, radius: int, edge: float) -> Any:
    """Values smoothed within regions of the guide, and sharpened to its edges.

    Args:
        guide: (N, H, W, 3), 0-1.
        values: (N, H, W, K), any unit.
        radius: of the two box averages, pixels.
        edge: a step of the guide's colors, 0-1, that the averaging stops at.

    Returns:
        (N, H, W, K), the unit of the values, at places a little beyond their range.

    Reference:
        He, Sun, Tang: Guided image filtering, ECCV 2010.
    """
    k = values.shape[-1]
    maps = _guided_maps(guide, values, radius, edge)
    return _mapped([maps[:, :, :, k * i : k * (i + 1)] for i in range(4)], guide)


def _guided_maps(guide: Any, values: Any, radius: int, edge: float) -> Any:
    """(N, H, W, 4 K): for each of the K values its slopes on red, green and blue, and its offset, window by window."""
    fitted = _affine_fit(guide, values, lambda x: _box_mean(x, radius), edge**2)
    return _box_mean(ops.concatenate(fitted, axis=-1), radius)


def _mean_of_all(x: Any) -> Any:
    return ops.mean(x, axis=(1, 2), keepdims=True)


def _box_mean(x: Any, radius: int) -> Any:
    """The mean over (2 radius + 1)^2 pixels around each, of those that lie in the picture."""
    width = 2 * radius + 1
    x = ops.average_pool(x, (width, 1), 1, padding="same", data_format="channels_last")
    return ops.average_pool(x, (1, width), 1, padding="same", data_format="channels_last")


def _channels(x: Any) -> list[Any]:
    return [x[:, :, :, i : i + 1] for i in range(3)]


def _mapped(coefficients: Sequence[Any], photo: Any) -> Any:
    """red * r + green * g + blue * b + offset, for coefficients [red, green, blue, offset] of (N, H, W, K) each."""
    *slopes, result = coefficients
    for slope, channel in zip(slopes, _channels(photo), strict=True):
        result = ops.add(result, ops.multiply(slope, channel))
    return result


def _affine_fit(photo: Any, values: Any, mean: Callable[[Any], Any], ridge: float) -> list[Any]:
    """Least squares of values (N, H, W, K) on the photo's three channels, over the windows that `mean` averages.

    Returns:
        [red, green, blue, offset], each (N, H, W, K) or as small as `mean` makes it. The slopes' squares are weighed
        with `ridge`.
    """
    channels = _channels(photo)
    squares = [ops.multiply(channels[i], channels[j]) for i in range(3) for j in range(i, 3)]
    products = [ops.multiply(channel, values) for channel in channels]
    averages = mean(ops.concatenate([photo, *squares, values, *products], axis=-1))
    k = values.shape[-1]
    center, middle = _channels(averages), averages[:, :, :, 9 : 9 + k]
    r, g, b = center
    rr, rg, rb, gg, gb, bb = (averages[:, :, :, i : i + 1] for i in range(3, 9))
    right = [
        ops.subtract(averages[:, :, :, 9 + k * i : 9 + k * (i + 1)], ops.multiply(center[i - 1], middle))
        for i in (1, 2, 3)
    ]
    # Covariances, the diagonal never below the ridge whatever rounding does, then Gaussian elimination: inverting by
    # determinants would lose all digits where the three channels are nearly alike.
    rr, gg, bb = (
        ops.add(ops.maximum(ops.subtract(square, ops.square(c)), 0.0), ridge)
        for square, c in ((rr, r), (gg, g), (bb, b))
    )
    rg, rb, gb = ops.subtract(rg, r * g), ops.subtract(rb, r * b), ops.subtract(gb, g * b)
    by_rg, by_rb = ops.divide(rg, rr), ops.divide(rb, rr)
    gg = ops.maximum(ops.subtract(gg, by_rg * rg), ridge)
    gb = ops.subtract(gb, by_rg * rb)
    by_gb = ops.divide(gb, gg)
    bb = ops.maximum(ops.subtract(ops.subtract(bb, by_rb * rb), by_gb * gb), ridge)
    right[1] = ops.subtract(right[1], by_rg * right[0])
    right[2] = ops.subtract(ops.subtract(right[2], by_rb * right[0]), by_gb * right[1])
    blue = ops.divide(right[2], bb)
    green = ops.divide(ops.subtract(right[1], gb * blue), gg)
    red = ops.divide(ops.subtract(ops.subtract(right[0], rg * green), rb * blue), rr)
    offset = ops.subtract(middle, _mapped([red, green, blue, ops.zeros_like(middle)], averages))
    return [red, green, blue, offset]
