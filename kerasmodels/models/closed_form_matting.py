"""Closed-form matting: alpha, the share of the foreground in each pixel, as the minimum of a quadratic function.

Levin, Lischinski, Weiss: A Closed-Form Solution to Natural Image Matting, PAMI 2008 (CVPR 2006); the authors' MATLAB
code; foreground colors after Germer, Uelwer, Conrad, Harmeling 2020.

Reproduced: alpha as the minimum of alpha^T L alpha under the user's constraints, soft (lambda = 100, as the authors
solve it) or exact (known pixels eliminated, as pymatting does), to a relative residual of 1e-7.

| departure from the paper | why |
|---|---|
| conjugate gradients with our own multigrid, not a direct solver | no matrix, any size, exports |
| foreground and background by Germer's multilevel method | seconds in place of minutes; smoother |
| `run` holds known pixels exactly unless told otherwise; the paper's is `softness=100` | a trimap means what it says |
| every window counts; the authors skip those whose nine pixels are all known | it changes nothing that is unknown |
| artifacts compute in float32, for a fixed number of iterations | runtimes have no float64 everywhere |
| in float32 neighbors are held together by 2e-6 | between flat blocks the paper's 1e-7 drowns in rounding |

There is nothing to train.
"""

import functools
from collections.abc import Callable, Mapping
from typing import Annotated, Any

import keras
import numpy as np
import tensorflow as tf
from annotated_types import Interval

from kerasmodels import config as base
from kerasmodels.config import Positive, PositiveInt
from kerasmodels.data.images import check_photo, check_same_size
from kerasmodels.errors import DataError
from kerasmodels.family import Family, RunReport, Servable, Task, TensorSpec
from kerasmodels.losses import MattingLaplacian
from kerasmodels.models.closed_form_matting_solver import Solution, solve_alpha
from kerasmodels.paper_model import PaperModel
from kerasmodels.tasks.cut_out import BACKGROUND, FOREGROUND, CutOutOptions, check_shares, write_cut_out

__all__ = ["ClosedFormMatting", "Config", "matte"]


class Config(base.Config):
    """What to minimize, and how far."""

    epsilon: Positive = 1e-7
    """Regularizes the colors' covariance in a window (paper: 1e-7 for pictures of 0-1)."""
    softness: Positive | None = 100.0
    """Lambda: what a known pixel pays for another alpha (paper: 100). None: known pixels are held exactly."""
    tolerance: Annotated[float, Interval(gt=0, lt=1)] = 1e-7
    """Relative residual at which the iteration ends."""
    iterations: PositiveInt = 500
    """At most."""
    served_iterations: PositiveInt = 120
    """What exported artifacts do, always."""


VARIANTS = {"paper": Config(), "exact": Config(softness=None)}


class Options(CutOutOptions):
    __doc__ = CutOutOptions.__doc__

    softness: Positive | None = None
    """Lambda of the paper (its value: 100): marked pixels may change a little. Left out: they are held exactly."""


# --- alpha of a photo -------------------------------------------------------------------------------------------------


@functools.cache
def _solver(config: Config, compiled: bool) -> Callable[..., Solution]:
    """The solver as a graph, for pictures of all sizes if XLA need not know theirs."""
    solve = functools.partial(
        solve_alpha,
        epsilon=config.epsilon,
        softness=config.softness,
        iterations=config.iterations,
        tolerance=config.tolerance,
        compiled=compiled,
    )
    if compiled:
        return tf.function(solve, autograph=False)
    specs = [tf.TensorSpec((1, None, None, channels), tf.float64) for channels in (3, 1, 1)]
    return tf.function(solve, input_signature=specs, autograph=False)


def matte(
    photo: np.ndarray, known: np.ndarray, values: np.ndarray, config: Config | None = None, compiled: bool | None = None
) -> tuple[np.ndarray, Solution]:
    """Alpha of a photo, in float64.

    Args:
        photo: (H, W, 3), uint8 or floats of 0-1.
        known: (H, W), where alpha is known: bool, or 0 and 1.
        values: (H, W), alpha there, 0-1.
        config: how; the paper's by default.
        compiled: see `solve_alpha`; None: from half a megapixel on.

    Returns:
        Alpha (H, W), 0-1, and what the solver says.

    Raises:
        DataError: the sizes differ, the photo is not uint8 and not of 0-1, `known` or `values` have another range, or
            not both foreground and background are known somewhere.

    Example:
        >>> import numpy as np
        >>> photo = np.linspace(0, 1, 12 * 9 * 3).reshape(12, 9, 3)
        >>> known, values = np.zeros((12, 9)), np.zeros((12, 9))
        >>> known[0] = known[-1] = values[-1] = 1
        >>> alpha, _ = matte(photo, known, values, Config(softness=None))
        >>> bool(alpha[0].max() == 0 and alpha[-1].min() == 1)
        True
    """
    config = config or Config()
    photo, known = check_photo(photo, white=1.0), np.asarray(known)
    for given in (known, values):
        check_same_size("the constraints", np.asarray(given), photo)
    if not ((known == 0) | (known == 1)).all():
        raise DataError(
            f"expected `known` of bool, or 0 and 1. Received: {known.dtype} of {known.min():g} to {known.max():g}. "
            "`trimap_of` makes it of a trimap."
        )
    known, values = known > 0, check_shares(values, "known alpha").astype("float64")
    if not (known & (values > 0.5)).any() or not (known & (values <= 0.5)).any():
        lacking = "foreground (white)" if not (known & (values > 0.5)).any() else "background (black)"
        raise DataError(
            f"expected known foreground and known background. Received constraints without any {lacking}: "
            "mark some of both."
        )
    image = np.asarray(photo, "float64") / (255 if photo.dtype == np.uint8 else 1)
    box: tuple[slice, ...] = (slice(None), slice(None))
    if config.softness is None and not known.all():
        # Pixels further away share no window with an unknown one.
        box = tuple(slice(max(0, u.min() - 2), u.max() + 3) for u in np.nonzero(~known))
    if config.softness is None and known.all():
        return values, Solution(tf.constant(values[None, ..., None]), tf.zeros([1]), tf.constant(0))
    parts = [x[box].reshape(1, *x[box].shape[:2], -1) for x in (image, known.astype("float64"), values)]
    solution = _solver(config, parts[0].size > 1.5e6 if compiled is None else compiled)(*map(tf.constant, parts))
    alpha = values * known
    alpha[box] = np.clip(solution.alpha.numpy()[0, ..., 0], 0, 1)
    return alpha, solution


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class ClosedFormMatting(PaperModel):
    """The solver as a model without weights, in float32 and with a fixed number of iterations.

    Args:
        config, dtype: see `PaperModel`. It computes in float32 whatever the dtype.

    Shapes:
        {"image": (N, H, W, 3) RGB 0-255, "trimap": (N, H, W, 1) 0-255} -> alpha (N, H, W, 1), 0-1. In the trimap at
        least 230 is foreground, at most 25 background, the rest unknown.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.ClosedFormMatting({"served_iterations": 5})
        >>> trimap = np.repeat(np.array([0, 128, 128, 255], "uint8"), 3).reshape(1, 1, 12, 1).repeat(8, 1)
        >>> tuple(model({"image": trimap.repeat(3, -1), "trimap": trimap}).shape)
        (1, 8, 12, 1)

    Reference:
        Levin et al. 2008, equations 12 and 14.
    """

    Config = Config
    family_name = "closed_form_matting"

    def call(self, inputs: Mapping[str, Any]) -> Any:
        image = tf.cast(inputs["image"], tf.float32) / 255.0
        trimap = tf.cast(inputs["trimap"], tf.float32)
        front = tf.cast(trimap >= FOREGROUND, tf.float32)
        known = front + tf.cast(trimap <= BACKGROUND, tf.float32)
        # Eagerly, thousands of small operations one by one would take ten times as long.
        solve = _as_graph(self.config) if tf.executing_eagerly() else _served(self.config)
        solution = solve(image, known, front)
        return tf.clip_by_value(solution.alpha, 0.0, 1.0)


def _served(config: Config) -> Callable[..., Solution]:
    return functools.partial(
        solve_alpha,
        epsilon=config.epsilon,
        softness=config.softness,
        iterations=config.served_iterations,
        tolerance=None,
    )


@functools.cache
def _as_graph(config: Config) -> Callable[..., Solution]:
    specs = [tf.TensorSpec((None, None, None, channels), tf.float32) for channels in (3, 1, 1)]
    return tf.function(_served(config), input_signature=specs, autograph=False)


# --- family -----------------------------------------------------------------------------------------------------------

_UNDETERMINED = (
    "blocks of one color without a known pixel have no alpha of their own but what epsilon, 1e-7, ties them to their "
    "neighbors by, so float32's rounding, which every runtime does in its own order, moves theirs by some hundredths."
)


def _servables(model: ClosedFormMatting) -> dict[str, Servable]:
    config = model.config

    def alpha_of(image: tf.Tensor, trimap: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"alpha": model({"image": image, "trimap": trimap})}

    def energy(image: tf.Tensor, alpha: tf.Tensor) -> dict[str, tf.Tensor]:
        laplacian = MattingLaplacian(tf.cast(image, tf.float32) / 255.0, config.epsilon)
        pixels = tf.cast(tf.reduce_prod(tf.shape(image)[1:3]), tf.float32)
        return {"energy": laplacian.energy(alpha) / pixels}

    pictures, maps = ("batch", "height", "width", 3), ("batch", "height", "width", 1)
    photo = TensorSpec("image", pictures, "uint8", "RGB photos, 0-255, at least 3 x 3", "image")
    meaning = "at least 230: foreground; at most 25: background; else unknown"
    trimap = TensorSpec("trimap", maps, "uint8", meaning, extremes=(0, 128, 255))
    alpha = TensorSpec("alpha", maps, "float32", "share of the foreground, 0-1", atol=2e-3, extremes=(0, 1))
    shared: dict[str, Any] = {
        "model": model,
        "dims": {"batch": 1, "height": 96, "width": 128},
        "check_dims": ({"batch": 1, "height": 61, "width": 47}, {"batch": 2, "height": 40, "width": 64}),
    }
    return {
        "matte": Servable(
            call=alpha_of,
            inputs=(photo, trimap),
            outputs=(alpha,),
            example=_example,
            doc=f"alpha of photos with trimaps, by {config.served_iterations} iterations in float32",
            unequal={"flat": _UNDETERMINED},
            **shared,
        ),
        "energy": Servable(
            call=energy,
            inputs=(photo, alpha),
            outputs=(TensorSpec("energy", ("batch",), "float32", "alpha^T L alpha per pixel", atol=1e-4),),
            example=lambda dims, seed: {
                "image": (example := _example(dims, seed))["image"],
                "alpha": example["trimap"].astype("float32") / 255,
            },
            doc="how far maps are from an affine function of the colors in every 3 x 3 window",
            **shared,
        ),
    }


def _example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Soft discs over a gradient with a little grain, and trimaps as a user would draw them."""
    pictures, trimaps = [], []
    for number in range(dims["batch"]):
        image, alpha, _ = synthetic_composite(dims["height"], dims["width"], 100 * seed + number)
        noise = np.random.default_rng(seed).normal(0, 2, image.shape)
        pictures.append(np.clip(np.rint(255 * image + noise), 0, 255).astype("uint8"))
        trimaps.append(np.where(alpha <= 0, 0, np.where(alpha >= 1, 255, 128)).astype("uint8")[..., None])
    return {"image": np.stack(pictures), "trimap": np.stack(trimaps)}


def synthetic_composite(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture (0-1) of which everything is known: smooth colors before smooth colors, and strands between.

    Returns:
        The picture (H, W, 3), alpha (H, W), and the strokes of a user, (H, W) bool: 8 % of the pixels, all where alpha
        is 0 or 1.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width] / min(height, width)
    angle = np.arctan2(y - y.max() / 2, x - x.max() / 2)
    strands = 0.06 * np.sin(9 * angle + random.uniform(0, 6)) + 0.03 * np.sin(23 * angle + random.uniform(0, 6))
    radius = np.hypot(y - y.max() / 2, x - x.max() / 2)
    alpha = np.clip((0.36 + strands - radius) / 0.12, 0, 1)

    def colors() -> np.ndarray:
        first, across, down = random.uniform(0.2, 0.8, 3), *random.uniform(-0.15, 0.15, (2, 3))
        return np.clip(first + across * (x - x.max() / 2)[..., None] + down * (y - y.max() / 2)[..., None], 0, 1)

    front, back = colors(), colors()
    # Complementary, so that the two can be told apart.
    front = np.clip(front + np.sign(front.mean((0, 1)) - back.mean((0, 1))) * 0.2, 0, 1)
    image = alpha[..., None] * front + (1 - alpha)[..., None] * back
    sure = (alpha <= 0) | (alpha >= 1)
    stripes = (np.arange(width)[None] + 2 * np.arange(height)[:, None]) % 29 < 4
    strokes = sure & stripes & (random.uniform(size=sure.shape) < 0.8)
    return image, alpha, strokes


def _cut_out(options: Options) -> RunReport:
    config = Config(softness=options.softness)
    return write_cut_out(options, lambda photo, known, values: matte(photo, known, values, config))


FAMILY = Family(
    name="closed_form_matting",
    config=Config,
    variants=VARIANTS,
    model=ClosedFormMatting,
    servables=_servables,
    task=Task(Options, _cut_out),
)
