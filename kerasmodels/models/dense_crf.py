"""The fully connected CRF: mean field inference moves rough labels onto the edges of the picture they belong to.

Kraehenbuehl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011; the authors'
code as wrapped by pydensecrf (lucasb-eyer/pydensecrf); the windowed form after Teichmann, Cipolla: Convolutional CRFs
for Semantic Segmentation, 2018.

Reproduced: mean field inference with the Gaussian and the bilateral kernel on a permutohedral lattice, equal to
pydensecrf's to seven digits; a labeling with a quarter of its pixels wrong made right; labels drawn with a broad brush
moved onto the edges of the picture.

| departure from the paper | why |
|---|---|
| five iterations and the widths and weights of pydensecrf's example; the paper has ten, and learns them (`paper`) | \
what users know |
| kernels are normalized on both sides, and the sums include the pixel itself | so does the authors' code |
| what is served in all formats (`refine`) sees a window, on a smaller field | LiteRT and ONNX have no lattice |
| pictures over four megapixels are worked on in tiles that overlap | the lattice of a tile fits into memory |

There is nothing to train here; `layers.DenseCRF(learned=True)` is the form that trains within a network (CRF as RNN).
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from annotated_types import Interval

from kerasmodels import config as base
from kerasmodels.config import Finite, NonNegativeInt, Positive, PositiveInt, check
from kerasmodels.data.images import check_photo
from kerasmodels.data.tiles import Box, tiles
from kerasmodels.errors import DataError
from kerasmodels.family import Family, Servable, Task, TensorSpec
from kerasmodels.layers import DenseCRF
from kerasmodels.layers.crf import METHODS
from kerasmodels.paper_model import PaperModel
from kerasmodels.tasks.refine_labels import RefineOptions, probabilities_of, write_labels

__all__ = ["Config", "FullyConnectedCRF", "probabilities_of", "refine"]


class Kernels(base.Config):
    """The two kernels, and how far to go."""

    iterations: NonNegativeInt = 5
    """Of mean field (pydensecrf's example: 5; the paper: 10)."""
    gaussian_sxy: Positive = 3.0
    """Standard deviation of the Gaussian ("smoothness") kernel, pixels."""
    gaussian_compat: Finite = 3.0
    """Its weight: more of it, fewer specks."""
    bilateral_sxy: Positive = 80.0
    """Standard deviation of the bilateral ("appearance") kernel in space, pixels: how far labels reach."""
    bilateral_srgb: Positive = 13.0
    """And in color, levels of 0-255: what counts as the same color."""
    bilateral_compat: Finite = 10.0
    """Its weight: more of it, closer to the photo's edges."""


class Config(Kernels):
    """The kernels, how they are normalized, and what is served."""

    labels: Annotated[int, Interval(ge=2, le=256)] = 21
    """Number of labels of what is served; `refine` takes any number."""
    normalization: Literal["symmetric", "before", "after", "none"] = "symmetric"
    """On which side the kernels are normalized (pydensecrf: symmetric)."""
    radius: PositiveInt = 5
    """Of the window of the servable `refine`, in steps of `stride` (ConvCRF: 5)."""
    stride: PositiveInt = 4
    """How many times smaller the field is that the window's bilateral kernel works on (ConvCRF: 4)."""


class Options(RefineOptions, Kernels):
    __doc__ = RefineOptions.__doc__


VARIANTS = {
    "paper": Config(iterations=10),
    "pydensecrf": Config(),
    # As the PyTorch port of DeepLab v2 applies it (kazuto1011/deeplab-pytorch, configs/voc12.yaml).
    "deeplab": Config(
        iterations=10, gaussian_sxy=1, gaussian_compat=3, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4
    ),
}

_SMALLEST = 1e-5
"""Probabilities below are raised to it, as in pydensecrf's `unary_from_softmax`."""


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class FullyConnectedCRF(PaperModel):
    """Probabilities and a picture -> refined probabilities.

    Args:
        config: a `FullyConnectedCRF.Config` (or its values as a dict).
        method: how the kernels are applied, as in `layers.DenseCRF`.
        **kwargs: see `PaperModel`.

    Shapes:
        {"image": (N, H, W, 3) RGB 0-255, "probabilities": (N, H, W, L)} -> (N, H, W, L), float32, 0-1.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> crf = km.models.FullyConnectedCRF(km.models.FullyConnectedCRF.Config(iterations=2))
        >>> rough = np.full((1, 16, 24, 3), 1 / 3, "float32")
        >>> tuple(crf({"image": np.zeros((1, 16, 24, 3), "uint8"), "probabilities": rough}).shape)
        (1, 16, 24, 3)

    Reference:
        Kraehenbuehl, Koltun 2011, algorithm 1.
    """

    Config = Config
    family_name = "dense_crf"

    def __init__(self, config: Any = None, method: Any = "lattice", **kwargs: Any):
        super().__init__(config, **kwargs)
        self.method = method
        values = {name: value for name, value in self.config.to_dict().items() if name != "labels"}
        self.crf = DenseCRF(**values, method=method)
        self.crf.built = True

    def call(self, inputs: Mapping[str, Any]) -> Any:
        probabilities = tf.cast(inputs["probabilities"], tf.float32)
        logits = tf.math.log(tf.maximum(probabilities, _SMALLEST))
        return tf.nn.softmax(self.crf([logits, tf.cast(inputs["image"], tf.float32)]))

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "method": self.method}


# --- whole pictures ---------------------------------------------------------------------------------------------------

_TILE = 1 << 22
"""Most pixels that are worked on at once: working on them takes about 3 GB."""


def refine(
    photo: np.ndarray,
    probabilities: np.ndarray,
    config: Config | Mapping[str, Any] | None = None,
    method: str = "lattice",
) -> np.ndarray:
    """The probabilities of a photo's labels after inference.

    Args:
        photo: (H, W, 3) RGB, uint8 or floats of 0-255.
        probabilities: (H, W, L), 0-1.
        config: of the CRF, or its values as a dict; pydensecrf's by default.
        method: lattice, window or exact.

    Returns:
        (H, W, L) float32. Photos of more than four megapixels are worked on in tiles that overlap by the bilateral
        kernel's width on each side.

    Raises:
        DataError: the sizes differ, a size is 0, there is one label only, or there are values that are no
            probabilities; or the photo is of 0-1, or another kind of numbers.

    Example:
        >>> import numpy as np
        >>> photo = np.zeros((12, 16, 3), "uint8"); photo[:, 8:] = 255
        >>> rough = probabilities_of(np.where(np.arange(16) < 3, 0, np.where(np.arange(16) > 12, 1, -1))[None]
        ...                          .repeat(12, 0), 2)
        >>> refine(photo, rough).argmax(-1)[0].tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    config = config if isinstance(config, Config) else Config.from_dict(config or {})
    check(method in METHODS, f"method in {METHODS}", method)
    photo = check_photo(photo)
    if probabilities.ndim != 3 or photo.shape[:2] != probabilities.shape[:2]:
        raise DataError(
            f"expected probabilities (H, W, labels) of the photo's size, {photo.shape[1]} x {photo.shape[0]}. "
            f"Received: shape {probabilities.shape}."
        )
    if 0 in probabilities.shape or probabilities.shape[2] < 2:
        raise DataError(f"expected at least one pixel and two labels. Received: shape {probabilities.shape}.")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or probabilities.max() > 1 + 1e-3:
        raise DataError(
            "expected probabilities, 0-1. Received: values from "
            f"{probabilities.min():.3g} to {probabilities.max():.3g}, {np.isnan(probabilities).sum()} of them NaN. "
            "Apply a softmax to scores first."
        )
    infer = _inference(config, method, probabilities.shape[2])

    def at(box: Box) -> np.ndarray:
        given = {"image": photo[box], "probabilities": probabilities[box]}
        return infer({name: tf.constant(value[None].astype("float32")) for name, value in given.items()})[0].numpy()

    height, width = photo.shape[:2]
    if height * width <= _TILE:
        return at((slice(height), slice(width)))
    margin = int(np.ceil(max(config.bilateral_sxy, 3 * config.gaussian_sxy)))
    side = max(64, int(_TILE**0.5) - 2 * margin)
    refined = np.empty(probabilities.shape, "float32")
    for tile in tiles(height, width, side, margin):
        refined[tile.own] = at(tile.seen)[tile.inner]
    return refined


@functools.lru_cache(maxsize=16)
def _inference(config: Config, method: str, labels: int) -> Any:
    """The model as a function, compiled once for pictures of all sizes if that makes it quicker."""
    model = FullyConnectedCRF(config, method)
    if method != "window":
        return model  # a few large operations
    maps = {"image": 3, "probabilities": labels}
    specs = {name: tf.TensorSpec((None, None, None, channels), tf.float32) for name, channels in maps.items()}
    return tf.function(model.call, input_signature=[specs], autograph=False)


# --- family -----------------------------------------------------------------------------------------------------------


def _servables(model: FullyConnectedCRF) -> dict[str, Servable]:
    config = model.config

    def by(method: str) -> Any:
        crf = FullyConnectedCRF(config, method)

        def refine(image: tf.Tensor, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
            refined = crf({"image": image, "probabilities": probabilities})
            return {"refined": refined, "labels": tf.argmax(refined, axis=3, output_type=tf.int32)}

        return refine

    pictures, maps = ("batch", "height", "width", 3), ("batch", "height", "width", config.labels)
    shared: dict[str, Any] = {
        "model": model,
        "inputs": (
            TensorSpec("image", pictures, "uint8", "RGB pictures, 0-255", "image"),
            TensorSpec("probabilities", maps, "float32", "a network's softmax for them, 0-1"),
        ),
        "outputs": (
            TensorSpec("refined", maps, "float32", "probabilities after mean field inference, 0-1", atol=1e-3),
            TensorSpec("labels", maps[:3], "int32", "the likeliest label of each pixel"),
        ),
        "example": lambda dims, seed: _example(dims, seed, config.labels),
        "dims": {"batch": 1, "height": 96, "width": 128},
        "check_dims": ({"batch": 1, "height": 61, "width": 47}, {"batch": 2, "height": 40, "width": 64}),
    }
    why = "its lattice has as many vertices as the picture has colors, which no operator of this format can make; "
    why += "serve `refine`, or use SavedModel."
    return {
        "refine": Servable(
            call=by("window"),
            doc=f"labels refined by the picture: {config.iterations} iterations in a window of "
            f"{(2 * config.radius + 1) * config.stride} pixels",
            **shared,
        ),
        "refine_fully": Servable(
            call=by("lattice"),
            doc=f"labels refined by the picture: {config.iterations} iterations between all pixels",
            without={(form, "fp32"): why for form in ("litert", "onnx")},
            **shared,
        ),
    }


def _example(dims: Mapping[str, int], seed: int, labels: int) -> dict[str, np.ndarray]:
    """Pictures of patches of color, and the noisy guesses of a network on blocks of pixels."""
    random = np.random.default_rng(seed)
    n, h, w = dims["batch"], dims["height"], dims["width"]
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    images, guesses = [], []
    for _ in range(n):
        truth = np.zeros((h, w), int)
        for label in range(1, min(labels, 6)):
            cx, cy, radius = random.uniform(0, x.max()), random.uniform(0, y.max()), random.uniform(0.1, 0.3)
            truth[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = label
        colors = random.uniform(30, 225, (labels, 3))
        image = colors[truth] * (1 - 0.2 * y[..., None]) + random.normal(0, 4, (h, w, 3))
        coarse = truth[2::4, 2::4].repeat(4, 0).repeat(4, 1)
        coarse = np.pad(coarse, ((0, max(0, h - coarse.shape[0])), (0, max(0, w - coarse.shape[1]))), mode="edge")
        scores = 3 * np.eye(labels)[coarse[:h, :w]] + random.normal(0, 1, (h, w, labels))
        e = np.exp(scores)
        images.append(np.clip(image, 0, 255).astype("uint8"))
        guesses.append((e / e.sum(-1, keepdims=True)).astype("float32"))
    return {"image": np.stack(images), "probabilities": np.stack(guesses)}


def _refiner(options: Options) -> Callable[[np.ndarray, np.ndarray], np.ndarray]:
    config = Config.from_dict(Kernels.part_of(options).to_dict())
    return lambda photo, probabilities: refine(photo, probabilities, config, options.method)


FAMILY = Family(
    name="dense_crf",
    config=Config,
    variants=VARIANTS,
    model=FullyConnectedCRF,
    servables=_servables,
    task=Task(Options, lambda options: write_labels(options, _refiner(options))),
)
