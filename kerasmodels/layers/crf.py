"""The fully connected conditional random field, as a layer for the end of a segmentation network."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.layers import pairwise
from kerasmodels.layers.pairwise import Filter

NORMALIZATIONS = ("symmetric", "before", "after", "none")
METHODS = ("lattice", "window", "exact")
EXACT_PIXELS = 128 * 128
"""The exact form has a matrix of the square of this many values."""


@keras.saving.register_keras_serializable("kerasmodels")
class DenseCRF(keras.layers.Layer):
    """Mean field inference in a CRF in which every pixel is joined to every other.

    Labels spread between pixels that are close (the Gaussian, "smoothness" kernel), and between pixels of alike color
    that may be far apart (the bilateral, "appearance" kernel): edges of the labeling move onto edges of the picture.
    With Q the softmax of the answer so far, an iteration computes

        answer = logits - sum_m mu_m(K_m Q),   K[i, j] = exp(-|f_i - f_j|^2 / 2),   mu(x) = -w x (Potts)

    with f = (x, y) / sxy for the Gaussian kernel and f = ((x, y) / sxy, (r, g, b) / srgb) for the bilateral one. These
    are the semantics of pydensecrf: kernels are normalized, and the sum includes j = i.

    Args:
        iterations: of mean field; 0 returns the logits.
        gaussian_sxy: standard deviation of the Gaussian kernel, pixels; a number, or (x, y).
        gaussian_compat: its weight w; or a vector (L,) or matrix (L, L) mu, as in pydensecrf; 0: no such kernel.
        bilateral_sxy: standard deviation of the bilateral kernel in space, pixels; a number, or (x, y).
        bilateral_srgb: and in color, levels of 0-255; a number, or (r, g, b).
        bilateral_compat: its weight, as above.
        normalization: n K n with n = (K 1)^(-1/2) ("symmetric"), K n or n K with n = 1 / (K 1) ("before", "after"), or
            K itself ("none").
        method: how K is applied. "lattice": a permutohedral lattice, in time proportional to the number of pixels
            (TensorFlow and SavedModel). "window": only pixels at most `radius * stride` away count, and the bilateral
            kernel works on a field `stride` times smaller (ConvCRF); made of operators that LiteRT and ONNX have.
            "exact": all pairs, up to 16,384 pixels.
        learned: train the weights: an (L, L) matrix for each kernel and one of compatibilities (CRF as RNN, 3 L^2
            parameters), which start as the Potts model of the two weights.
        radius, stride: of the window.

    Shapes:
        [logits (N, H, W, L), picture (N, H, W, 3) RGB 0-255] -> (N, H, W, L) logits, float32 whatever the policy; the
        softmax of them is Q. H and W may be unknown. Logits are the logarithms of probabilities, or minus the unary
        energy. Gradients flow into the logits and the weights; into the picture, where the method is not "lattice".

    Raises:
        ValueError: an argument out of range, a weight for another number of labels, or sizes that differ.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> picture = np.zeros((1, 12, 12, 3)); picture[:, :, 6:] = 255  # two halves
        >>> guess = np.zeros((1, 12, 12, 2)); guess[:, :, :6, 0] = guess[:, :, 6:, 1] = 1
        >>> guess[:, 2:4, 2:4, 1] = 2  # a wrong spot
        >>> crf = km.layers.DenseCRF(bilateral_sxy=8, method="exact")
        >>> int(np.argmax(crf([guess, picture])[0], axis=-1)[:, :6].sum())
        0

    Reference:
        Kraehenbuehl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011;
        Zheng et al.: Conditional Random Fields as Recurrent Neural Networks, ICCV 2015 (`learned`); Teichmann,
        Cipolla: Convolutional CRFs for Semantic Segmentation, 2018 (`method="window"`).
    """

    def __init__(
        self,
        iterations: int = 10,
        gaussian_sxy: float | Sequence[float] = 3.0,
        gaussian_compat: Any = 3.0,
        bilateral_sxy: float | Sequence[float] = 80.0,
        bilateral_srgb: float | Sequence[float] = 13.0,
        bilateral_compat: Any = 10.0,
        normalization: Literal["symmetric", "before", "after", "none"] = "symmetric",
        method: Literal["lattice", "window", "exact"] = "lattice",
        learned: bool = False,
        radius: int = 5,
        stride: int = 4,
        **kwargs: Any,
    ):
        super().__init__(**{"autocast": False, **kwargs})
        for name, given, known in (("normalization", normalization, NORMALIZATIONS), ("method", method, METHODS)):
            if given not in known:
                raise ValueError(f"{name} must be one of {known}. Received: {name}={given!r}")
        for name, number, least in (("iterations", iterations, 0), ("radius", radius, 1), ("stride", stride, 1)):
            if int(number) != number or number < least:
                raise ValueError(f"{name} must be an integer >= {least}. Received: {name}={number!r}")
        self.iterations, self.radius, self.stride = int(iterations), int(radius), int(stride)
        self.gaussian_sxy = _deviations("gaussian_sxy", gaussian_sxy, 2)
        self.bilateral_sxy = _deviations("bilateral_sxy", bilateral_sxy, 2)
        self.bilateral_srgb = _deviations("bilateral_srgb", bilateral_srgb, 3)
        self.gaussian_compat = _compatibility("gaussian_compat", gaussian_compat)
        self.bilateral_compat = _compatibility("bilateral_compat", bilateral_compat)
        self.normalization, self.method, self.learned = normalization, method, bool(learned)
        if learned and not all(isinstance(c, float) for c in (self.gaussian_compat, self.bilateral_compat)):
            raise ValueError("learned weights start from two numbers. Received: a vector or matrix as compat.")
        self.supports_jit = method != "lattice"

    def build(self, input_shape: Any) -> None:
        labels = input_shape[0][-1]
        for name in ("gaussian_compat", "bilateral_compat"):
            shape = np.shape(getattr(self, name))
            if any(side != labels for side in shape):
                raise ValueError(f"expected {name} for {labels} labels. Received: shape {shape}.")
        if self.learned:

            def matrix(name: str, diagonal: float) -> Any:
                # Inference is float32 whatever the policy, and so is what it reads of them.
                return self.add_weight(
                    shape=(labels, labels),
                    initializer=lambda s, dtype=None: diagonal * keras.ops.eye(s[0], dtype=dtype),
                    autocast=False,
                    name=name,
                )

            self.gaussian_weights = matrix("gaussian_weights", float(self.gaussian_compat))
            self.bilateral_weights = matrix("bilateral_weights", float(self.bilateral_compat))
            self.compatibility = matrix("compatibility", -1.0)

    def call(self, inputs: Sequence[Any]) -> Any:
        logits, picture = (tf.cast(x, tf.float32) for x in inputs)
        sizes = [(a, b) for a, b in zip(logits.shape[:3], picture.shape[:3], strict=True) if None not in (a, b)]
        if any(a != b for a, b in sizes) or picture.shape[-1] != 3:
            raise ValueError(
                "expected logits (N, H, W, L) and a picture (N, H, W, 3) of one size. "
                f"Received: {tuple(logits.shape)} and {tuple(picture.shape)}."
            )
        pixels = np.prod([side or 1 for side in picture.shape[1:3]])
        if self.method == "exact" and pixels > EXACT_PIXELS:
            raise ValueError(
                f"expected at most {EXACT_PIXELS} pixels for method='exact'. Received: {tuple(picture.shape[1:3])}. "
                "Use method='lattice'."
            )
        if not self.iterations:
            return logits
        message = self._message(picture)

        def step(answer: tf.Tensor) -> tf.Tensor:
            return tf.ensure_shape(logits + message(tf.nn.softmax(answer)), logits.shape)

        if self.method == "window" and self.iterations > 1:
            # A loop: hundreds of operators an iteration would make a large file.
            return tf.while_loop(
                lambda number, _: number < self.iterations,
                lambda number, answer: (number + 1, step(answer)),
                (tf.constant(0), logits),
                # XLA's gradient must know how many there are.
                maximum_iterations=self.iterations,
            )[1]
        answer = logits
        for _ in range(self.iterations):
            answer = step(answer)
        return answer

    def _message(self, picture: tf.Tensor) -> Filter:
        """What the pixels tell each other: Q -> what is added to the logits."""
        if self.learned:
            gaussian, bilateral = (self._kernel(picture, i) for i in range(2))
            weights = (self.gaussian_weights, self.bilateral_weights, self.compatibility)
            of_gaussian, of_bilateral, compatibility = (tf.cast(tf.convert_to_tensor(w), tf.float32) for w in weights)

            def learned(q: tf.Tensor) -> tf.Tensor:
                heard = tf.matmul(gaussian(q), of_gaussian) + tf.matmul(bilateral(q), of_bilateral)
                return -tf.matmul(heard, compatibility)

            return learned
        parts: list[Filter] = []
        for i, compat in enumerate((self.gaussian_compat, self.bilateral_compat)):
            if isinstance(compat, float):
                if compat:
                    parts.append(self._kernel(picture, i, compat))
            else:
                parts.append(_subtracted(self._kernel(picture, i), compat))
        return lambda q: tf.add_n([part(q) for part in parts]) if parts else tf.zeros_like(q)

    def _kernel(self, picture: tf.Tensor, which: int, weight: float = 1.0) -> Filter:
        """weight times the normalized Gaussian (which = 0) or bilateral (1) filter, (N, H, W, L) -> the same."""
        sxy, srgb = (self.gaussian_sxy, None) if which == 0 else (self.bilateral_sxy, self.bilateral_srgb)
        if self.method == "lattice":
            return pairwise.on_lattice(pairwise.features(picture, sxy, srgb), self.normalization, weight)
        if self.method == "exact":
            kernel = pairwise.exact_kernel(pairwise.features(picture, sxy, srgb))
        elif srgb is None:
            kernel = pairwise.window_gaussian(sxy, self.radius * self.stride)
        else:
            window = (self.radius, self.stride)
            return pairwise.window_bilateral(picture, sxy, srgb, *window, self.normalization, weight)
        return pairwise.normalized(kernel, picture, self.normalization, weight)

    def compute_output_shape(self, input_shape: Any) -> Any:
        return input_shape[0]

    def get_config(self) -> dict[str, Any]:
        names = ["iterations", "gaussian_sxy", "gaussian_compat", "bilateral_sxy", "bilateral_srgb"]
        names += ["bilateral_compat", "normalization", "method", "learned", "radius", "stride"]
        return {**super().get_config(), **{name: getattr(self, name) for name in names}}


def _subtracted(kernel: Filter, compat: Any) -> Filter:
    """mu(K x) subtracted, for a vector (L,) or a matrix (L, L), of which the symmetric part counts."""
    table = np.asarray(compat, "float32")
    if table.ndim == 1:
        return lambda q: -table * kernel(q)
    return lambda q: -tf.matmul(kernel(q), tf.constant(0.5 * (table + table.T)))


def _deviations(name: str, given: Any, count: int) -> tuple[float, ...]:
    values = np.broadcast_to(np.asarray(given, "float64"), (count,)) if np.ndim(given) == 0 else np.asarray(given)
    if values.shape != (count,) or not (values > 0).all() or not np.isfinite(values).all():
        raise ValueError(f"{name} must be a number > 0, or {count} of them. Received: {name}={given!r}")
    return tuple(float(value) for value in values)


def _compatibility(name: str, given: Any) -> Any:
    values = np.asarray(given, "float64")
    square = values.ndim < 2 or values.shape[0] == values.shape[1]
    if values.ndim > 2 or not square or not np.isfinite(values).all():
        raise ValueError(f"{name} must be a number, a vector (L,) or a matrix (L, L). Received: {name}={given!r}")
    return float(values) if values.ndim == 0 else values.tolist()
