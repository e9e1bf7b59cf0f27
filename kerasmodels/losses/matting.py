"""The matting Laplacian of a picture, as an operator and as a sparse matrix.

It measures how far a map p (an alpha channel, or a channel of another picture) is from being an affine function of the
picture's colors in every 3x3 window. With windows k of 9 pixels, mean color mu_k and covariance Sigma_k,

    L_ij = sum over windows k that contain i and j of
           delta_ij - 1/9 (1 + (I_i - mu_k)^T (Sigma_k + epsilon/9 Identity)^-1 (I_j - mu_k)).

Only windows fully inside the picture count, so a pixel at the border lies in fewer than nine.

The operator keeps one number for each pair of pixels that share a window: 12 per pixel, because L is symmetric and its
rows sum to zero. A sparse matrix needs 25 numbers and 25 column indices per pixel.

References: Levin, Lischinski, Weiss 2008, "A closed-form solution to natural image matting", equation 12. Luan et al.
2017, "Deep photo style transfer", equation 2.
"""

from typing import TYPE_CHECKING, Any

import keras
import numpy as np
from keras import ops

from kerasmodels.data.images import check_range
from kerasmodels.errors import DataError

if TYPE_CHECKING:
    import scipy.sparse

# The nine pixels of a window, (row, column), in reading order.
_WINDOW = tuple((row, column) for row in range(3) for column in range(3))


class MattingLaplacian:
    """The matting Laplacian L of each picture of a batch: set up once, then multiply as often as you like.

    All of it is slices, products, sums and pads of rank 4, of any (unknown) size, so that it can be differentiated,
    compiled and exported. One call is some hundred small operations: under `tf.function(jit_compile=True)` they become
    few passes over the picture, about twice as fast.

    Args:
        image: (N, H, W, 3), 0-1, H and W at least 3. float64 is computed in float64, anything else in float32.
        epsilon: regularizes the windows' covariance; the squared unit of the picture. The larger it is, the more
            a window pays for turning small differences of color into large ones of p.

    Attributes:
        weights: dict (rows, columns) -> (N, H - rows, W - |columns|, 1), minus the entries of L between each pixel and
            the one that many rows below and columns to the right.
        dtype: of `weights` and of every result.

    Raises:
        DataError: the picture has another shape or is smaller than 3x3, or its values are integers or known to lie
            outside 0-1.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> image = np.random.default_rng(0).uniform(size=(1, 8, 8, 3))
        >>> round(float(km.losses.MattingLaplacian(image).energy(image[..., :1])[0]), 3)
        0.0

    Reference:
        Levin, Lischinski, Weiss 2008, equation 12.
    """

    def __init__(self, image: Any, epsilon: float = 1e-7):
        image = checked_image(image, "(N, H, W, 3)", rank=4)
        if not epsilon > 0:
            raise DataError(f"expected epsilon above 0, such as 1e-7. Received: {epsilon}.")
        image = ops.cast(image, _compute_dtype(image))
        self.dtype: str = keras.backend.standardize_dtype(image.dtype)
        self.weights: dict[tuple[int, int], Any] = _pair_weights(_whitened(image, epsilon / 9))
        self._size = tuple(image.shape[:3])

    def __call__(self, p: Any) -> Any:
        """L p, for each channel of p: (N, H, W, K) -> (N, H, W, K).

        Raises:
            DataError: p is not of the picture's size.
        """
        total = None
        for offset, weight, here, there in self._pairs(p):
            flow = ops.multiply(weight, ops.subtract(here, there))
            change = ops.subtract(_at_here(flow, offset), _at_there(flow, offset))
            total = change if total is None else ops.add(total, change)
        return total

    def energy(self, p: Any) -> Any:
        """p^T L p, summed over the channels of p: (N, H, W, K) -> (N,). Its gradient is 2 L p.

        Raises:
            DataError: p is not of the picture's size.
        """
        return sum(
            ops.sum(ops.multiply(weight, ops.square(ops.subtract(here, there))), axis=(1, 2, 3))
            for _, weight, here, there in self._pairs(p)
        )

    def diagonal(self) -> Any:
        """The diagonal of L, (N, H, W, 1)."""
        return sum(ops.add(_at_here(w, offset), _at_there(w, offset)) for offset, w in self.weights.items())

    def neighbors(self) -> Any:
        """Minus each pixel's row of L without the diagonal, (N, H, W, 24): the 5x5 pixels around it, row by row."""
        found = {}
        for (rows, columns), weight in self.weights.items():
            found[rows, columns] = _at_here(weight, (rows, columns))
            found[-rows, -columns] = _at_there(weight, (rows, columns))
        return ops.concatenate([found[offset] for offset in sorted(found)], axis=-1)

    @classmethod
    def of_weights(cls, weights: dict[tuple[int, int], Any], image: Any) -> "MattingLaplacian":
        """The operator of `image` (only its shape is read) from its `weights`, kept or computed elsewhere."""
        made = object.__new__(cls)
        made.weights, made._size = weights, tuple(image.shape[:3])
        made.dtype = keras.backend.standardize_dtype(next(iter(weights.values())).dtype)
        return made

    def astype(self, dtype: str) -> "MattingLaplacian":
        """The same operator with weights and results of another dtype: float32 takes half the time of float64."""
        made = object.__new__(MattingLaplacian)
        made.weights = {offset: ops.cast(weight, dtype) for offset, weight in self.weights.items()}
        made.dtype, made._size = dtype, self._size
        return made

    def _pairs(self, p: Any) -> list[tuple[tuple[int, int], Any, Any, Any]]:
        """For each offset: it, its weights, and p at the two ends of each pair of pixels."""
        p = ops.convert_to_tensor(p)
        shape = tuple(p.shape)
        known = [(a, b) for a, b in zip(shape, self._size, strict=False) if None not in (a, b)]
        if len(shape) != 4 or any(a != b for a, b in known):
            raise DataError(
                f"expected p of shape (N, H, W, K) with N, H, W = {self._size}. Received shape: {shape}. "
                "Resize p or the picture: both need the same size."
            )
        p = ops.cast(p, self.dtype)
        return [
            (
                (rows, columns),
                weight,
                _cut(p, 0, rows, max(0, -columns), max(0, columns)),
                _cut(p, rows, 0, max(0, columns), max(0, -columns)),
            )
            for (rows, columns), weight in self.weights.items()
        ]


def laplacian_product(image: Any, p: Any, epsilon: float = 1e-7) -> Any:
    """L p, for the matting Laplacian L of `image`, without the matrix.

    For more than one product with the same picture make a `MattingLaplacian`.

    Args:
        image: (N, H, W, 3), 0-1.
        p: (N, H, W, K), any unit.
        epsilon: see `MattingLaplacian`.

    Returns:
        (N, H, W, K), the unit of p; float64 if the picture is, else float32.

    Raises:
        DataError: see `MattingLaplacian`.

    Reference:
        Levin, Lischinski, Weiss 2008, equation 12.
    """
    return MattingLaplacian(image, epsilon)(p)


def matting_laplacian_matrix(image: Any, epsilon: float = 1e-7) -> "scipy.sparse.csr_array":
    """The matting Laplacian as an explicit sparse matrix, in float64.

    Args:
        image: (H, W, 3), 0-1.
        epsilon: see `MattingLaplacian`.

    Returns:
        (H W, H W) CSR; pixels are numbered row by row.

    Raises:
        DataError: see `MattingLaplacian`.

    Reference:
        Levin, Lischinski, Weiss 2008, equation 12.
    """
    import scipy.sparse

    image = np.asarray(checked_image(image, "(H, W, 3)", rank=3), "float64")
    height, width = image.shape[:2]
    numbers = np.arange(height * width, dtype="int32").reshape(height, width)
    pixels = np.lib.stride_tricks.sliding_window_view(numbers, (3, 3)).reshape(-1, 9)
    colors = image.reshape(-1, 3)[pixels]
    centered = colors - colors.mean(1, keepdims=True)
    covariance = np.einsum("kic,kid->kcd", centered, centered) / 9 + epsilon / 9 * np.eye(3)
    # Not an inverse: solving keeps the digits that nearly gray windows need.
    affinity = (1 + centered @ np.linalg.solve(covariance, centered.transpose(0, 2, 1))) / 9
    rows, columns = np.repeat(pixels, 9, axis=1).ravel(), np.tile(pixels, (1, 9)).ravel()
    values = (np.eye(9) - (affinity + affinity.transpose(0, 2, 1)) / 2).ravel()
    return scipy.sparse.coo_array((values, (rows, columns)), shape=(numbers.size, numbers.size)).tocsr()


@keras.saving.register_keras_serializable("kerasmodels")
class MattingEnergy(keras.losses.Loss):
    """The photorealism (affine) loss: p^T L p of each channel of `y_pred`, L the matting Laplacian of `y_true`.

    It is 0 where `y_pred` is an affine function of the colors of `y_true` in every 3x3 window: edges stay where they
    are, and no new texture appears.

    Args:
        epsilon: see `MattingLaplacian`.
        max_value: the value of white in `y_true` and `y_pred`; both are divided by it. 255 for pictures of 0-255.

    Shapes:
        y_true (N, H, W, 3), y_pred (N, H, W, K), both 0 to `max_value` -> (N,) before reduction. It is a sum: it grows
        with the number of pixels.

    Raises:
        DataError: see `MattingLaplacian`.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> photo = np.random.default_rng(0).uniform(size=(2, 8, 8, 3)).astype("float32")
        >>> round(float(km.losses.MattingEnergy()(photo, 0.5 * photo + 0.1)), 3)
        0.0

    Reference:
        Luan et al. 2017, equation 2; weight 1e4 for pictures of 0-1.
    """

    def __init__(self, epsilon: float = 1e-7, max_value: float = 1.0, name: str = "matting_energy", **kwargs: Any):
        super().__init__(name=name, **kwargs)
        self.epsilon, self.max_value = float(epsilon), float(max_value)

    def call(self, y_true: Any, y_pred: Any) -> Any:
        image = ops.stop_gradient(ops.divide(y_true, self.max_value))
        return MattingLaplacian(image, self.epsilon).energy(ops.divide(y_pred, self.max_value))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "epsilon": self.epsilon, "max_value": self.max_value}


def checked_image(image: Any, form: str, rank: int) -> Any:
    """A picture for a `MattingLaplacian`, an array or tensor of that rank; raises DataError if it cannot be one."""
    image = image if hasattr(image, "dtype") else np.asarray(image)
    shape, dtype = tuple(image.shape), keras.backend.standardize_dtype(image.dtype)
    if len(shape) != rank or shape[-1] != 3:
        raise DataError(f"expected a picture of shape {form}, RGB. Received shape: {shape}.")
    if any(size is not None and size < 3 for size in shape[-3:-1]):
        raise DataError(f"expected a picture of at least 3x3 pixels, the size of a window. Received shape: {shape}.")
    if "float" not in dtype:
        raise DataError(f"expected a picture of floats, 0-1. Received: {dtype}. Divide it by 255 if it is of 0-255.")
    try:
        values = ops.convert_to_numpy(image)
    except (AttributeError, NotImplementedError, TypeError, ValueError):
        return image  # While a graph is being built nobody knows the values.
    check_range(values, 1.0, "a picture of finite floats 0-1")
    return image


def _compute_dtype(image: Any) -> str:
    return "float64" if keras.backend.standardize_dtype(image.dtype) == "float64" else "float32"


def _cut(x: Any, top: int, bottom: int, left: int, right: int) -> Any:
    """x (N, H, W, C) without that many rows and columns."""
    # Not x[:, top:-bottom]: TensorFlow takes several times as long for the gradient of that.
    batch, height, width, channels = ops.shape(x)
    return ops.slice(x, (0, top, left, 0), (batch, height - top - bottom, width - left - right, channels))


def _padded(x: Any, top: int, bottom: int, left: int, right: int) -> Any:
    return ops.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)))


def _at_here(x: Any, offset: tuple[int, int]) -> Any:
    """A value per pair of pixels, put where the upper pixel of the pair is, 0 elsewhere: (N, H, W, C)."""
    rows, columns = offset
    return _padded(x, 0, rows, max(0, -columns), max(0, columns))


def _at_there(x: Any, offset: tuple[int, int]) -> Any:
    rows, columns = offset
    return _padded(x, rows, 0, max(0, columns), max(0, -columns))


def _total(terms: Any) -> Any:
    first, *others = terms
    for term in others:
        first = ops.add(first, term)
    return first


def _whitened(image: Any, ridge: float) -> list[tuple[Any, Any, Any]]:
    """For each of a window's nine pixels, three coordinates (N, H-2, W-2, 1) of its color.

    In them the inverse of the window's covariance + ridge is the identity. They come by decorrelating green from red,
    then blue from both, which never squares the condition number: inverting the covariance itself would leave no
    correct digit in float32 where a window is nearly gray. The ridge acts as three further pixels, each of one color
    of size sqrt(9 ridge), which is why the variances below have it too.
    """
    windows = [_cut(image, row, 2 - row, column, 2 - column) for row, column in _WINDOW]
    center = windows[4]
    # Relative to the middle pixel first: the mean of small numbers is exact to their size.
    windows = [ops.subtract(w, center) for w in windows]
    mean = ops.multiply(_total(windows), 1 / 9)
    windows = [ops.subtract(w, mean) for w in windows]
    red, green, blue = ([w[:, :, :, c : c + 1] for w in windows] for c in range(3))

    def moment(a: list[Any], b: list[Any]) -> Any:
        return ops.multiply(_total(ops.multiply(x, y) for x, y in zip(a, b, strict=True)), 1 / 9)

    def without(a: list[Any], factor: Any, b: list[Any]) -> list[Any]:
        return [ops.subtract(x, ops.multiply(factor, y)) for x, y in zip(a, b, strict=True)]

    # `green_red` and the like say what the three further pixels, (sqrt(ridge), 0, 0) and so on, have become.
    red_scale = ops.rsqrt(moment(red, red) + ridge)
    red = [ops.multiply(x, red_scale) for x in red]
    green_share, blue_share = moment(green, red), moment(blue, red)
    green, blue = without(green, green_share, red), without(blue, blue_share, red)
    green_red, blue_red = ops.multiply(green_share, red_scale), ops.multiply(blue_share, red_scale)

    green_scale = ops.rsqrt(moment(green, green) + ridge * (1 + ops.square(green_red)))
    green = [ops.multiply(x, green_scale) for x in green]
    blue_share = moment(blue, green) + ridge * ops.multiply(ops.multiply(blue_red, green_red), green_scale)
    blue = without(blue, blue_share, green)
    blue_green = ops.multiply(blue_share, green_scale)

    leftover = ops.subtract(ops.multiply(blue_green, green_red), blue_red)
    blue_scale = ops.rsqrt(moment(blue, blue) + ridge * (1 + ops.square(blue_green) + ops.square(leftover)))
    blue = [ops.multiply(x, blue_scale) for x in blue]
    return list(zip(red, green, blue, strict=True))


def _pair_weights(colors: list[tuple[Any, Any, Any]]) -> dict[tuple[int, int], Any]:
    """Sum over windows of the affinity of each pair of their pixels, by the offset from the first to the second."""
    weights: dict[tuple[int, int], Any] = {}
    for first, ((y1, x1), a) in enumerate(zip(_WINDOW, colors, strict=True)):
        for (y2, x2), b in list(zip(_WINDOW, colors, strict=True))[first + 1 :]:
            affinity = ops.multiply(_total(ops.multiply(u, v) for u, v in zip(a, b, strict=True)) + 1, 1 / 9)
            placed = _padded(affinity, y1, 2 - y2, min(x1, x2), 2 - max(x1, x2))
            offset = (y2 - y1, x2 - x1)
            weights[offset] = placed if offset not in weights else ops.add(weights[offset], placed)
    return weights
