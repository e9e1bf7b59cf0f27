"""Closed-form matting: from a photo and a few strokes to alpha, the cut-out and a new background.

Levin, Lischinski, Weiss: A Closed-Form Solution to Natural Image Matting, PAMI 2008 (CVPR 2006); the authors' MATLAB
code; foreground colours after Germer, Uelwer, Conrad, Harmeling 2020.

Reproduced: alpha as the minimum of alpha^T L alpha under the user's constraints, soft (lambda = 100, as the authors
solve it) or exact (known pixels eliminated, as pymatting does), to a relative residual of 1e-7.

| departure from the paper | why |
|---|---|
| conjugate gradients with our own multigrid (`solver`) in place of a direct solver | no matrix, any size, exports |
| foreground and background by Germer's multilevel method | seconds in place of minutes; smoother |
| known pixels are held exactly by default; the paper's is `softness=100` | a trimap means what it says |
| every window counts; the authors skip those whose nine pixels are all known | it changes nothing that is unknown |
| artifacts compute in float32, for a fixed number of iterations | runtimes have no float64 everywhere |

There is nothing to train.
"""

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from PIL import Image, ImageOps

from kerasmodels.data import read_drawing, read_image, write_image
from kerasmodels.data.images import check_photo
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import Experiment, Family, Row, RunReport, Servable, TensorSpec, check, config_to_dict
from kerasmodels.losses import MattingLaplacian, matting_laplacian_matrix
from kerasmodels.models.closed_form_matting.foreground import check_shares, estimate_foreground
from kerasmodels.models.closed_form_matting.solver import Solution, solve_alpha

__all__ = ["ClosedFormMatting", "Config", "estimate_foreground", "matte", "scribbled", "solve_alpha", "trimap_of"]


@dataclass(frozen=True)
class Config:
    """What to minimise, and how far."""

    epsilon: float = 1e-7
    """Regularises the colours' covariance in a window (paper: 1e-7 for pictures of 0-1)."""
    softness: float | None = 100.0
    """Lambda: what a known pixel pays for another alpha (paper: 100). None: known pixels are held exactly."""
    tolerance: float = 1e-7
    """Relative residual at which the iteration ends."""
    iterations: int = 500
    """At most."""
    served_iterations: int = 120
    """What exported artifacts do, always."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(self.epsilon > 0, "epsilon > 0", self.epsilon)
        check(self.softness is None or self.softness > 0, "softness > 0, or none", self.softness)
        check(0 < self.tolerance < 1, "0 < tolerance < 1", self.tolerance)
        check(self.iterations > 0, "iterations > 0", self.iterations)
        check(self.served_iterations > 0, "served_iterations > 0", self.served_iterations)


VARIANTS = {"paper": Config(), "exact": Config(softness=None)}


# --- constraints ------------------------------------------------------------------------------------------------------


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
    picture = check_photo(picture, name="a trimap", grey=True)
    grey = picture.reshape(*picture.shape[:2], -1).mean(-1)
    front, back = grey >= 0.9 * 255, grey <= 0.1 * 255
    return front | back, front.astype("float64")


def scribbled(photo: np.ndarray, scribbles: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Which pixels were drawn over in white or black, and their alpha.

    Args:
        photo: (H, W, 3) uint8.
        scribbles: the same photo with white strokes on the foreground and black ones on the background.

    Returns:
        known, alpha: (H, W) bool and float64.

    Raises:
        DataError: the two differ nearly everywhere: it is another photo, or its file was compressed with loss; or see
            `check_photo`.
    """
    photo, scribbles = check_photo(photo), check_photo(scribbles, name="scribbles")
    _check_same_size("scribbles", scribbles, photo)
    drawn = (photo != scribbles).any(-1)
    if drawn.mean() > 0.9:
        raise DataError(
            "expected the photo itself with strokes on it. Received scribbles that differ from the photo nearly "
            "everywhere: another photo, or one saved as JPEG. Save it as PNG, or give a trimap."
        )
    known, alpha = trimap_of(scribbles)
    return known & drawn, alpha * drawn


def _check_same_size(what: str, picture: np.ndarray, photo: np.ndarray) -> None:
    if picture.shape[:2] != photo.shape[:2]:
        raise DataError(
            f"expected the {what} to be of the photo's size, {photo.shape[1]} x {photo.shape[0]} pixels. "
            f"Received: {picture.shape[1]} x {picture.shape[0]}."
        )


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
    config.validate()
    photo, known = check_photo(photo, white=1.0), np.asarray(known)
    for given in (known, values):
        _check_same_size("constraints", np.asarray(given), photo)
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
class ClosedFormMatting(keras.Model):
    """The solver as a model without weights, in float32 and with a fixed number of iterations.

    Args:
        config: a `ClosedFormMatting.Config` (or its values as a dict).

    Shapes:
        {"image": (N, H, W, 3) RGB 0-255, "trimap": (N, H, W, 1) 0-255} -> alpha (N, H, W, 1), 0-1. In the trimap at
        least 230 is foreground, at most 25 background, the rest unknown.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.ClosedFormMatting({"served_iterations": 5})
        >>> trimap = np.repeat(np.array([0, 128, 128, 255], "uint8"), 3).reshape(1, 1, 12, 1).repeat(8, 1)
        >>> tuple(model({"image": trimap.repeat(3, -1), "trimap": trimap}).shape)
        (1, 8, 12, 1)
    """

    Config: TypeAlias = Config
    family_name = "closed_form_matting"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, **kwargs: Any):
        super().__init__(**{"name": "closed_form_matting", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.built = True

    def call(self, inputs: Mapping[str, Any]) -> Any:
        image = tf.cast(inputs["image"], tf.float32) / 255.0
        trimap = tf.cast(inputs["trimap"], tf.float32)
        front = tf.cast(trimap >= 0.9 * 255, tf.float32)
        known = front + tf.cast(trimap <= 0.1 * 255, tf.float32)
        # Eagerly, thousands of small operations one by one would take ten times as long.
        solve = _as_graph(self.config) if tf.executing_eagerly() else _served(self.config)
        solution = solve(image, known, front)
        return tf.clip_by_value(solution.alpha, 0.0, 1.0)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config)}


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


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: ClosedFormMatting, config: Config) -> dict[str, Servable]:
    def alpha_of(image: tf.Tensor, trimap: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"alpha": model({"image": image, "trimap": trimap})}

    def energy(image: tf.Tensor, alpha: tf.Tensor) -> dict[str, tf.Tensor]:
        laplacian = MattingLaplacian(tf.cast(image, tf.float32) / 255.0, config.epsilon)
        pixels = tf.cast(tf.reduce_prod(tf.shape(image)[1:3]), tf.float32)
        return {"energy": laplacian.energy(alpha) / pixels}

    pictures, maps = ("batch", "height", "width", 3), ("batch", "height", "width", 1)
    photo = TensorSpec("image", pictures, "uint8", "RGB photos, 0-255, at least 3 x 3", "image")
    trimap = TensorSpec("trimap", maps, "uint8", "at least 230: foreground; at most 25: background; else unknown")
    alpha = TensorSpec("alpha", maps, "float32", "share of the foreground, 0-1", atol=2e-3)
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
            doc="how far maps are from an affine function of the colours in every 3 x 3 window",
            **shared,
        ),
    }


def _example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Soft discs over a gradient with a little grain, and trimaps as a user would draw them."""
    pictures, trimaps = [], []
    for number in range(dims["batch"]):
        image, alpha, _ = _composite(dims["height"], dims["width"], 100 * seed + number)
        noise = np.random.default_rng(seed).normal(0, 2, image.shape)
        pictures.append(np.clip(np.rint(255 * image + noise), 0, 255).astype("uint8"))
        trimaps.append(np.where(alpha <= 0, 0, np.where(alpha >= 1, 255, 128)).astype("uint8")[..., None])
    return {"image": np.stack(pictures), "trimap": np.stack(trimaps)}


def _composite(height: int, width: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A picture (0-1) of which everything is known: smooth colours before smooth colours, and strands between.

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

    def colours() -> np.ndarray:
        first, across, down = random.uniform(0.2, 0.8, 3), *random.uniform(-0.15, 0.15, (2, 3))
        return np.clip(first + across * (x - x.max() / 2)[..., None] + down * (y - y.max() / 2)[..., None], 0, 1)

    front, back = colours(), colours()
    # Complementary, so that the two can be told apart.
    front = np.clip(front + np.sign(front.mean((0, 1)) - back.mean((0, 1))) * 0.2, 0, 1)
    image = alpha[..., None] * front + (1 - alpha)[..., None] * back
    sure = (alpha <= 0) | (alpha >= 1)
    stripes = (np.arange(width)[None] + 2 * np.arange(height)[:, None]) % 29 < 4
    strokes = sure & stripes & (random.uniform(size=sure.shape) < 0.8)
    return image, alpha, strokes


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Cut something out of a photo, or put it before another background."""

    photo: tyro.conf.Positional[Path]
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write: the cut-out with transparency (.png, .webp, .tif), or with --background the new picture."""
    trimap: Path | None = None
    """Picture of the photo's size: white is foreground, black background, grey unknown."""
    scribbles: Path | None = None
    """Instead of a trimap: the photo with white strokes on the foreground and black ones on the background (PNG)."""
    alpha: Path | None = None
    """Also write alpha, as a grey picture."""
    foreground: Path | None = None
    """Also write the foreground's colours, without transparency."""
    background: Path | None = None
    """Put the cut-out before this picture; it is scaled to cover the photo and cropped."""
    softness: float | None = None
    """Lambda of the paper (its value: 100): marked pixels may change a little. Left out: they are held exactly."""


_TRANSPARENT = (".png", ".webp", ".tif", ".tiff")


def _run(options: RunOptions) -> RunReport:
    if (options.trimap is None) == (options.scribbles is None):
        raise UsageError("expected one of --trimap PICTURE and --scribbles PICTURE.")
    if options.background is None:
        check(
            options.out.suffix.lower() in _TRANSPARENT, f"a name ending in {', '.join(_TRANSPARENT)}", str(options.out)
        )
    sources = [p.resolve() for p in (options.photo, options.trimap, options.scribbles, options.background) if p]
    targets = [p for p in (options.out, options.alpha, options.foreground) if p]
    for target in targets:
        check(target.resolve() not in sources, "a place to write where no input is overwritten", str(target))
    check(
        len({t.resolve() for t in targets}) == len(targets),
        "a name of its own for each result",
        list(map(str, targets)),
    )
    config = Config(softness=options.softness)
    config.validate()
    photo = read_image(options.photo)
    if min(photo.shape[:2]) < 3:
        raise DataError(
            f"expected a photo of at least 3 x 3 pixels, the size of a window. Received: {photo.shape[1]} x "
            f"{photo.shape[0]}."
        )
    if options.trimap is not None:
        trimap = read_drawing(options.trimap)
        _check_same_size("trimap", trimap, photo)
        known, values = trimap_of(trimap)
    else:
        known, values = scribbled(photo, read_drawing(options.scribbles or ""))
    behind = None if options.background is None else read_image(options.background)

    begin = time.perf_counter()
    alpha, solution = matte(photo, known, values, config)
    solved = time.perf_counter()
    front, _ = estimate_foreground(photo / np.float32(255), alpha)
    facts = {
        "unknown": f"{100 * (1 - known.mean()):.0f} %",
        "iterations": int(solution.iterations),
        "residual": float(solution.residual[0]),
        "seconds for alpha": round(solved - begin, 2),
        "seconds for the foreground": round(time.perf_counter() - solved, 2),
    }
    if behind is None:
        made = np.concatenate([front, alpha[..., None]], axis=-1)
    else:
        size = (photo.shape[1], photo.shape[0])
        fitted = np.asarray(ImageOps.fit(Image.fromarray(behind), size, Image.Resampling.LANCZOS)) / 255
        made = alpha[..., None] * front + (1 - alpha)[..., None] * fitted
    written = [write_image(options.out, _bytes(made))]
    if options.alpha is not None:
        written.append(write_image(options.alpha, _bytes(alpha)))
    if options.foreground is not None:
        written.append(write_image(options.foreground, _bytes(front)))
    return RunReport(tuple(written), facts)


def _bytes(values: np.ndarray) -> np.ndarray:
    return np.rint(255 * np.clip(values, 0, 1)).astype("uint8")


# --- experiments ------------------------------------------------------------------------------------------------------


def _levin(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """The authors' own result on a photo with scribbles, as their MATLAB code computed it."""
    found = sorted(data.rglob("matlab_alpha.png")) if data is not None else []
    if not found:
        raise DataError(
            "expected --data DIR with a folder, at any depth, of source.png, scribbles.png and matlab_alpha.png: the "
            f"test data of the project closed-form-matting. Received: {data}."
        )
    folder = found[0].parent
    photo = read_image(folder / "source.png")
    known, values = scribbled(photo, read_drawing(folder / "scribbles.png"))
    theirs = read_image(folder / "matlab_alpha.png")[..., 0] / 255
    alpha, solution = matte(photo, known, values)
    difference = 255 * float(np.abs(alpha - theirs).mean())
    front, back = estimate_foreground(photo / 255, alpha)
    left = np.abs(photo / 255 - alpha[..., None] * front - (1 - alpha)[..., None] * back)
    exact, _ = matte(photo, known, values, Config(softness=None))
    served = _served_alpha(photo, known, values)
    return [
        Row(
            "alpha against the authors' (MATLAB) on their example, mean difference in levels of 255",
            "0",
            round(difference, 4),
            "<= 1",
            difference <= 1,
        ),
        Row("iterations to a relative residual of 1e-7", "a direct solver", int(solution.iterations), "-", True),
        Row(
            "the same with known pixels held exactly, mean difference in levels",
            "not given",
            round(255 * float(np.abs(exact - theirs).mean()), 4),
            "<= 1",
            255 * float(np.abs(exact - theirs).mean()) <= 1,
        ),
        Row(
            "what is exported (float32, fixed iterations) against float64, mean difference in levels",
            "not given",
            round(255 * float(np.abs(served - alpha).mean()), 4),
            "<= 1",
            255 * float(np.abs(served - alpha).mean()) <= 1,
        ),
        Row(
            "alpha F + (1 - alpha) B against the photo, mean difference, 0-1",
            "not given",
            round(float(left.mean()), 5),
            "<= 0.01",
            float(left.mean()) <= 0.01,
        ),
    ]


def _served_alpha(photo: np.ndarray, known: np.ndarray, values: np.ndarray) -> np.ndarray:
    trimap = np.where(known, 255 * values, 128).astype("uint8")
    call = tf.function(ClosedFormMatting(Config()).call)
    return call({"image": photo[None], "trimap": trimap[None, ..., None]}).numpy()[0, ..., 0]


def _known_truth(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """A composite whose alpha is known, from strokes on 5-10 % of it."""
    import scipy.sparse.linalg

    image, truth, strokes = _composite(60 if quick else 120, 80 if quick else 160)
    exact = Config(softness=None)
    alpha, solution = matte(image, strokes, truth, exact)
    error = float(np.abs(alpha - truth).mean())
    matrix, unknown = matting_laplacian_matrix(image), ~strokes.ravel()
    rest = truth.ravel()[~unknown]
    direct = truth.ravel().copy()
    direct[unknown] = scipy.sparse.linalg.spsolve(
        matrix[unknown][:, unknown].tocsc(), -(matrix[unknown][:, ~unknown] @ rest)
    )
    off = float(np.abs(alpha.ravel() - np.clip(direct, 0, 1)).max())
    front, back = estimate_foreground(image, alpha)
    left = float(np.abs(image - alpha[..., None] * front - (1 - alpha)[..., None] * back).mean())
    shown = [image, np.where(strokes, truth, 0.5)[..., None] + 0 * image, alpha[..., None] + 0 * image]
    new = alpha[..., None] * front + (1 - alpha)[..., None] * np.array([0.1, 0.5, 0.2])
    write_image(figures / "closed_form_matting_composite.png", _bytes(np.concatenate([*shown, new], axis=1)))
    return [
        Row(
            f"alpha of a known composite from strokes on {100 * strokes.mean():.0f} % of it, mean error",
            "exact where colours are smooth (theorem 1)",
            round(error, 5),
            "<= 0.01",
            error <= 0.01,
        ),
        Row("conjugate gradients against a direct solver, largest difference", "0", off, "<= 1e-5", off <= 1e-5),
        Row("iterations to a relative residual of 1e-7", "not given", int(solution.iterations), "-", True),
        Row(
            "alpha F + (1 - alpha) B against the picture, mean difference", "0", round(left, 5), "<= 0.01", left <= 0.01
        ),
    ]


FAMILY = Family(
    name="closed_form_matting",
    config=Config,
    variants=VARIANTS,
    model=ClosedFormMatting,
    build=None,
    datasets=None,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "levin": Experiment("the authors' own alpha on their own example", _levin),
        "composite": Experiment("a picture whose alpha is known", _known_truth),
    },
)
