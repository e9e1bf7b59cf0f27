"""Photographic style transfer: a photo takes the colors and the light of another photo, and stays a photo.

Luan, Paris, Shechtman, Bala: Deep Photo Style Transfer, CVPR 2017; the released code is
luanfujun/deep-photo-styletransfer.

Reproduced: style by semantic regions, the photorealism term on the matting Laplacian (its value and its gradient), the
two stages of the optimization, the local affine smoothing at the end, and on the authors' own pairs what the term does:
the result is a local affine map of the photo's colors, at little cost in style.

| departure from the paper | why |
|---|---|
| VGG19 rescaled to mean activation 1 (Gatys); Oxford's own weights in the paper | the set that can be had |
| features count 340 times, our estimate of their size in Oxford's weights | the paper's lambda then holds |
| `style_weight` 2 for each layer; the code has 100 | chosen by eye and by our gates |
| stage 1 begins with the photo, its colors matched linearly, region by region (`start`); the code with noise | \
a few hundred iterations suffice |
| masks are averaged over the pixels inside the picture; the code counts zeros beyond its border | they sum to 1 |
| masks are fractions of pixels; the code's are cut from resized colors, which leaves gaps at edges | the same |
| labels that the reference lacks take the nearest label that it has; the paper's network picks among its labels | \
label pictures have no second choice |
| the affine term's value is added to the loss; the code adds its gradient only | a line search needs both |
| smoothing by a guided filter; the code has a joint bilateral filter (`layers.LocalAffineSmoothing`) | it exports |
"""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tyro
from annotated_types import Ge, Interval
from keras import ops

from kerasmodels import config as base
from kerasmodels import runs
from kerasmodels.backbones import VGG19
from kerasmodels.config import NonNegative, NonNegativeInt, Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data import read_image, regions, resized, write_image
from kerasmodels.data.color import match_colors_by_region
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import Family, RunReport, Task, without_examples
from kerasmodels.layers import Picture
from kerasmodels.losses.photorealistic import PhotorealisticObjective
from kerasmodels.servables.recoloring import recoloring
from kerasmodels.tasks.optimize import OptimizeOptions, optimize
from kerasmodels.tasks.pictures import check_result, check_targets
from kerasmodels.tasks.recolor import recolored
from kerasmodels.training.picture import PictureModel, Stage, to_uint8

__all__ = ["Config", "Pair", "PhotoStyle", "RunOptions", "objective", "read_pair", "stages"]


class Transfer(base.Config):
    """Which style a photo gets, and how much of it: the fields that `train` and `run` share."""

    reference: Path | None = None
    """The photo whose style is wanted."""
    mask: Path | None = None
    """The photo's regions, a picture in blue, green, black, white, red, yellow, gray, lightblue and purple."""
    reference_mask: Path | None = None
    """The reference's regions: regions of one color take their style from each other."""
    auto_masks: Annotated[int, Interval(ge=0, le=9)] = 0
    """Without masks: find this many regions by clustering what VGG19 sees in the two photos; 0 for none."""
    style_weight: NonNegative = 2.0
    """Weight of each style layer: more of it, more of the reference."""
    affine_weight: NonNegative = 1e4
    """Weight of the photorealism term (lambda), measured on pictures of 0-1: more of it, more of a photo."""
    vgg: str = "normalized"
    """VGG19 weights: normalized, which the weights of the terms are meant for; another source or a file; or random."""
    seed: NonNegativeInt = 0
    """Of the clustering, and of the noise that a picture may begin with."""


class Config(Transfer, TrainingConfig):
    """What to make. The defaults are the paper's, or the released code's where the two differ."""

    photo: Path | None = None
    """The photo that gets the style."""

    height: Annotated[int, Ge(16)] = 525
    """Of the result, pixels; with `width` in the photo's proportions."""
    width: Annotated[int, Ge(16)] = 700
    """Of the result, pixels."""
    reference_size: Annotated[int, Ge(16)] = 700
    """The reference's longer side is shrunk to this, pixels."""
    start: Literal["matched", "photo", "noise"] = "matched"
    """What the first stage begins with. matched: the photo, each region's mean color and covariance made the
    reference's."""

    content_layer: str = "relu4_2"
    """VGG19 layer that must keep the photo's content."""
    content_weight: NonNegative = 5.0
    """Weight of the content term."""
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    """VGG19 layers whose Gram matrices must match the reference's, region by region."""
    tv_weight: NonNegative = 1e-3
    """Weight of total variation."""

    steps: PositiveInt = 2000
    """Iterations of both stages together."""
    plain_steps: NonNegativeInt = 1000
    """How many of them are stage 1, without the affine term."""
    batch: Literal[1] = 1
    """There is one picture."""
    learning_rate: Positive = 2.0
    """Of Adam under `kerasmodels train`, levels of 0-255. `kerasmodels run` uses L-BFGS, as the paper does."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        both = (self.mask is None) == (self.reference_mask is None)
        given = " and ".join(str(path) for path in (self.mask, self.reference_mask) if path is not None)
        check(both, "mask and reference_mask together, or neither", given)
        check(not (self.auto_masks and self.mask), "mask or auto_masks, not both", (self.mask, self.auto_masks))
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        check(self.plain_steps <= self.steps, "plain_steps <= steps", (self.plain_steps, self.steps))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture."""
        return self.height, self.width


VARIANTS = {
    "paper": Config(),
    "quick": Config(height=192, width=256, reference_size=256, steps=200, plain_steps=100),
}


# --- the two photos ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pair:
    """The two photos at the sizes they are compared at, and their regions.

    Attributes:
        photo, reference: (H, W, 3) uint8.
        masks, reference_masks: (K, H, W) float32, 0-1, K classes in one order.
    """

    photo: np.ndarray
    reference: np.ndarray
    masks: np.ndarray
    reference_masks: np.ndarray


def read_pair(config: Config) -> Pair:
    """The pictures and masks that a config names.

    Raises:
        UsageError: no photo or no reference is named, or height and width are not in the photo's proportions.
        DataError: a picture or mask cannot be used.
    """
    what = "a photo and a reference: --photo PICTURE --reference PICTURE"
    photo, reference = (readable(needed(path, what)) for path in (config.photo, config.reference))
    height, width = photo.shape[:2]
    fits = abs(config.width * height - config.height * width) <= max(height, width) * 1.5
    if not fits:
        want = round(config.width * height / width)
        raise UsageError(
            f"expected height and width in the proportions of {config.photo}, which is {width} x {height}: such as "
            f"--width {config.width} --height {want}. Received: width {config.width}, height {config.height}."
        )
    scale = config.reference_size / max(reference.shape[:2])
    there = tuple(max(16, round(side * min(1.0, scale))) for side in reference.shape[:2])
    labels = None
    if config.mask is not None and config.reference_mask is not None:
        mine, theirs = regions.read_both_labels(config.mask, config.reference_mask)
        mine = regions.fit_labels(mine, height, width, f"the mask {config.mask}")
        theirs = regions.fit_labels(theirs, reference.shape[0], reference.shape[1], f"the mask {config.reference_mask}")
        labels = mine, theirs
    photo, reference = at_size(photo, config.height, config.width), at_size(reference, *there)
    if labels is None and config.auto_masks > 1:
        labels = _automatic_labels(config, photo, reference)
    if labels is None:
        return Pair(photo, reference, *(np.ones((1, *p.shape[:2]), "float32") for p in (photo, reference)))
    masks, reference_masks = regions.matched_masks(*labels, photo.shape[:2], there)
    return Pair(photo, reference, regions.along_edges(masks, photo) if config.mask is None else masks, reference_masks)


def _automatic_labels(config: Config, photo: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (h, w) of two photos (H, W, 3), an eighth of their size, by clustering VGG19's features of both together.

    Features are taken relative to the mean of their own photo, so that day and night fall into the same clusters, with
    the height in the picture as one more: the sky is above.
    """
    from scipy.ndimage import gaussian_filter

    vgg = loss_network(config, ("relu4_1",))
    found = []
    for picture in (photo, reference):
        features = np.asarray(vgg(picture[None].astype("float32"))["relu4_1"][0], "float64")
        features = gaussian_filter(np.log1p(np.maximum(features, 0)), (1, 1, 0))
        features = (features - features.mean((0, 1))) / (features.std() + 1e-9)
        features /= features.shape[-1] ** 0.5
        rows = np.linspace(-1, 1, features.shape[0])[:, None, None] * np.ones((1, features.shape[1], 1))
        found.append(np.concatenate([features, 0.5 * rows], axis=-1))
    mine, theirs = regions.cluster(found, config.auto_masks, config.seed)
    return mine, theirs


def readable(path: Path) -> np.ndarray:
    """A picture that VGG19 can see something in. Raises DataError if it is none."""
    picture = read_image(path)
    if min(picture.shape[:2]) < 16:
        raise DataError(
            f"expected a picture of at least 16 x 16 pixels. Received: {path}, {picture.shape[1]} x {picture.shape[0]}."
        )
    return picture


def at_size(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture (H, W, 3) uint8 at another size."""
    return to_uint8(resized(picture, height, width))


# --- the objective ----------------------------------------------------------------------------------------------------


def loss_network(config: Config, taps: Sequence[str] = (), dtype: str = "float32") -> keras.Model:
    """VGG19 with these taps, or all that the config names.

    Raises:
        UsageError: an unknown layer.
        WeightsError: its weights are missing.
    """
    taps = taps or tuple(dict.fromkeys((config.content_layer, *config.style_layers)))
    source = None if config.vgg == "random" else config.vgg
    return VGG19(taps, weights=source, dtype=dtype)


_FEATURE_SCALE = 340.0
"""Our estimate of the mean activation of Oxford's VGG19 around conv4_2, from losses that users of the released code
report; in the rescaled network it is about 1. It puts content and style on the scale the paper's lambda is meant for.
"""


def objective(
    config: Config, pair: Pair, affine: bool = True, vgg: keras.Model | None = None
) -> PhotorealisticObjective:
    """What is minimized for a pair; stage 1 goes without the affine term. `vgg`: `loss_network(config)`, if at hand."""
    return PhotorealisticObjective(
        loss_network(config) if vgg is None else vgg,
        pair.photo,
        pair.reference,
        pair.masks,
        pair.reference_masks,
        content_weights={config.content_layer: config.content_weight * _FEATURE_SCALE**2},
        style_weights=dict.fromkeys(config.style_layers, config.style_weight * _FEATURE_SCALE**4),
        total_variation_weight=config.tv_weight,
        affine_weight=config.affine_weight if affine else 0.0,
    )


# --- model ------------------------------------------------------------------------------------------------------------


def _noise(config: Config) -> Picture:
    return Picture(*config.shape, np.random.default_rng(config.seed).normal(127.5, 25.0, (*config.shape, 3)))


def _photo(config: Config) -> Picture:
    return Picture(*config.shape, name="photo", trainable=False)


@keras.saving.register_keras_serializable("kerasmodels")
class PhotoStyle(PictureModel):
    """The picture as the only trainable weight, beside the photo it is made from.

    Args:
        config, dtype, picture: see `PictureModel`.
        photo: a `layers.Picture` of the photo.

    Shapes:
        anything -> (1, height, width, 3) RGB 0-255, not clipped.

    Example:
        >>> import kerasmodels as km
        >>> tuple(km.models.PhotoStyle(km.models.PhotoStyle.Config(height=24, width=32))(None).shape)
        (1, 24, 32, 3)

    Reference:
        Luan et al. 2017, section 3.
    """

    Config = Config
    family_name = "photo_style"
    networks = {"picture": _noise, "photo": _photo}  # noqa: RUF012

    def loss_terms(self) -> Sequence[str]:
        return ("loss", "content", "style", "total_variation", "affine")

    @cached_property
    def pair(self) -> Pair:
        """What the config names, read when first needed. See `read_pair` for errors."""
        return read_pair(self.config)

    def initialize(self) -> None:
        """Show the photo, and what the config says to start with."""
        self.begin(self.pair)
        super().initialize()

    def begin(self, pair: Pair) -> None:
        """Show a pair's photo, and what the config says to start with."""
        self.photo.show(pair.photo)
        if self.config.start == "matched":
            self.picture.show(match_colors_by_region(*dataclasses.astuple(pair)))
        elif self.config.start == "photo":
            self.picture.show(pair.photo)

    def default_objective(self) -> PhotorealisticObjective:
        return objective(self.config, self.pair, vgg=loss_network(self.config, dtype=self.compute_dtype))

    def weighted_terms(self, picture: Any) -> dict[str, Any]:
        """The objective's terms; the affine term counts from step `plain_steps` of the optimizer on."""
        terms = super().weighted_terms(picture)
        if "affine" in terms:
            terms["affine"] *= ops.cast(self.optimizer.iterations >= self.config.plain_steps, "float32")
        return terms


def stages(config: Config, pair: Pair) -> list[Stage]:
    """Both stages for `optimize_picture`; the second begins with what the first ends with."""
    vgg = loss_network(config)

    def stage(steps: int, affine: bool) -> Stage:
        def model(pixels: np.ndarray | None) -> PhotoStyle:
            made = PhotoStyle(dataclasses.replace(config, plain_steps=0))
            made.begin(pair)
            if pixels is not None:
                made.picture.show(pixels)
            made.compile(objective=objective(config, pair, affine, vgg))
            return made

        return Stage(steps, model)

    counts = ((config.plain_steps, False), (config.steps - config.plain_steps, True))
    return [stage(count, affine) for count, affine in counts if count]


# --- family -----------------------------------------------------------------------------------------------------------


class RunOptions(OptimizeOptions, Transfer):
    """Give a photo the colors and the light of another (--reference), or finish a stylized one (--stylized)."""

    photo: Annotated[Path, tyro.conf.Positional]
    """The photo."""
    stylized: Path | None = None
    """Instead of a reference: the photo as some other method stylized it. Only the smoothing is done."""
    run: Path | None = None
    """Instead of a reference: a run folder of `kerasmodels train photo_style`, whose colors the photo gets."""
    size: Annotated[int, Ge(16)] = 700
    """Longer side to optimize at, pixels."""
    full_size: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the result at the photo's own size: the colors found at --size are applied to the whole photo."""
    iterations: PositiveInt = 300
    """Of each of the two stages."""
    smooth: tyro.conf.FlagCreatePairsOff[bool] = True
    """Leave out for the picture as optimized, without the smoothing: --no-smooth."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        ways = {name: getattr(self, name) for name in ("reference", "stylized", "run")}
        given = " ".join(f"--{name}" for name, value in ways.items() if value is not None)
        check(len(given.split()) == 1, "one of --reference, --stylized and --run", given or "none")
        check_targets([self.out], [path for path in (self.photo, self.reference, self.stylized) if path is not None])


def _run(options: RunOptions) -> RunReport:
    if options.reference is None or options.full_size:
        check_result(options.out, options.photo)
    if options.reference is not None:
        return _transfer(options)
    photo = readable(options.photo)
    if options.stylized is not None:
        stylized = readable(options.stylized)
        if abs(np.log(stylized.shape[0] * photo.shape[1] / (stylized.shape[1] * photo.shape[0]))) > 0.02:
            raise DataError(
                f"expected {options.stylized} in the proportions of {options.photo}. Received: {stylized.shape[1]} x "
                f"{stylized.shape[0]} and {photo.shape[1]} x {photo.shape[0]}."
            )
        small = at_size(photo, *stylized.shape[:2])
    else:
        trained = runs.RunFolder(options.run or Path()).trained()
        if trained.family != "photo_style":
            raise UsageError(f"expected a run of photo_style. Received: {options.run}, a run of {trained.family}.")
        model = trained.load()
        small, stylized = model.photo.pixels.numpy()[0], np.clip(model.pixels(), 0, 255)
    path = write_image(options.out, recolored(photo, small, stylized))
    return RunReport((path,), {"size": f"{photo.shape[1]} x {photo.shape[0]}"})


def _transfer(options: RunOptions) -> RunReport:
    photo = readable(options.photo)
    scale = min(1.0, options.size / max(photo.shape[:2]))
    # Long strips are not shrunk below what VGG19 can see.
    scale = max(scale, 16 / min(photo.shape[:2]))
    height, width = (round(side * scale) for side in photo.shape[:2])
    config = Config(
        **Transfer.part_of(options).to_dict(),
        photo=options.photo,
        height=height,
        width=width,
        reference_size=options.size,
        steps=2 * options.iterations,
        plain_steps=options.iterations,
    )
    pair = read_pair(config)

    def finish(pixels: np.ndarray) -> np.ndarray:
        if not options.smooth:
            return to_uint8(pixels)
        return recolored(photo if options.full_size else pair.photo, pair.photo, np.clip(pixels, 0, 255))

    report = optimize(options, stages(config, pair), finish)
    return RunReport(report.outputs, {**report.facts, "regions": len(pair.masks)})


def _preview(model: PhotoStyle) -> dict[str, np.ndarray]:
    """The picture as it is, and made photorealistic."""
    picture, photo = to_uint8(model.pixels()), to_uint8(model.photo.pixels.numpy()[0])
    return {"picture": picture, "smoothed": recolored(photo, photo, picture)}


FAMILY = Family(
    name="photo_style",
    config=Config,
    variants=VARIANTS,
    model=PhotoStyle,
    servables=lambda model: recoloring(model, model.photo, model.picture),
    task=Task(RunOptions, _run),
    source=without_examples,
    preview=_preview,
)
