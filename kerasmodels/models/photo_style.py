"""Photographic style transfer: a photo takes the colours and the light of another photo, and stays a photo.

Luan, Paris, Shechtman, Bala: Deep Photo Style Transfer, CVPR 2017; the released code is
luanfujun/deep-photo-styletransfer.

Reproduced: style by semantic regions, the photorealism term on the matting Laplacian (its value and its gradient), the
two stages of the optimisation, the local affine smoothing at the end, and on the authors' own pairs what the term does:
the result is a local affine map of the photo's colours, at little cost in style.

| departure from the paper | why |
|---|---|
| VGG19 rescaled to mean activation 1 (Gatys); Oxford's own weights in the paper | the set that can be had |
| features count 340 times, which is about the size of Oxford's at conv4_2 | the paper's other weights then hold |
| `style_weight` 2 for each layer; the code has 100 | the rescaled network gives all layers equal parts |
| stage 1 begins with the photo, its colours matched linearly, region by region (`start`); the code with noise | \
a few hundred iterations suffice |
| masks are averaged over the pixels inside the picture; the code counts zeros beyond its border | they sum to 1 |
| masks are fractions of pixels; the code's are cut from resized colours, which leaves gaps at edges | the same |
| labels that the reference lacks take the nearest label that it has; the paper's network picks among its labels | \
label pictures have no second choice |
| the affine term's value is added to the loss; the code adds its gradient only | a line search needs both |
| smoothing by a guided filter; the code has a joint bilateral filter (`layers.LocalAffineSmoothing`) | it exports |
"""

import dataclasses
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from keras import ops
from PIL import Image

from kerasmodels import weights
from kerasmodels.backbones import VGG19
from kerasmodels.data import read_image, write_image
from kerasmodels.data import regions as label_pictures
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import (
    Datasets,
    Experiment,
    Family,
    Row,
    RunReport,
    Servable,
    TensorSpec,
    check,
    config_to_dict,
)
from kerasmodels.layers import LocalAffineSmoothing, Picture
from kerasmodels.layers.local_affine import guided_filter
from kerasmodels.losses import AugmentedStyle, MattingLaplacian, content_distance, total_variation
from kerasmodels.training.picture import PictureModel, Stage, optimize_picture, step_numbers, to_uint8

_FEATURE_SCALE = 340.0
"""Mean activation of Oxford's VGG19 at conv4_2 on pictures of 0-255; in the rescaled network it is about 1."""


@dataclass(frozen=True)
class Config:
    """What to make. The defaults are the paper's, or the released code's where the two differ."""

    photo: Path | None = None
    """The photo that gets the style."""
    reference: Path | None = None
    """The photo that has it."""
    mask: Path | None = None
    """The photo's regions, a picture in nine colours (see `data.read_labels`)."""
    reference_mask: Path | None = None
    """The reference's regions; regions of one colour belong together."""
    auto_masks: int = 0
    """Without masks: find this many regions by clustering what VGG19 sees in the two photos; 0 for none."""

    height: int = 525
    """Of the result, pixels; with `width` in the photo's proportions."""
    width: int = 700
    """Of the result, pixels."""
    reference_size: int = 700
    """The reference's longer side is shrunk to this, pixels."""
    start: Literal["matched", "photo", "noise"] = "matched"
    """What the first stage begins with. matched: the photo, each region's mean colour and covariance made the
    reference's."""

    content_layer: str = "relu4_2"
    """VGG19 layer that must keep the photo's content."""
    content_weight: float = 5.0
    """Weight of the content term."""
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    """VGG19 layers whose Gram matrices must match the reference's, region by region."""
    style_weight: float = 2.0
    """Weight of each style layer."""
    affine_weight: float = 1e4
    """Weight of the photorealism term (lambda), which is measured on pictures of 0-1."""
    tv_weight: float = 1e-3
    """Weight of total variation."""
    vgg: str = "normalised"
    """VGG19 weights: normalised, which the weights of the terms are meant for; another source or a file; or random."""

    steps: int = 2000
    """Iterations of both stages together."""
    plain_steps: int = 1000
    """How many of them are stage 1, without the affine term."""
    batch: int = 1
    """There is one picture."""
    learning_rate: float = 2.0
    """Of Adam under `kerasmodels train`, levels of 0-255. `kerasmodels run` uses L-BFGS, as the paper does."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Of VGG19. The picture and all other terms stay float32."""
    seed: int = 0
    """Of the noise to begin with, and of the clustering."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(min(self.height, self.width) >= 16, "height and width >= 16", (self.height, self.width))
        check(self.reference_size >= 16, "reference_size >= 16", self.reference_size)
        check(0 <= self.auto_masks <= 9, "0 to 9 auto_masks", self.auto_masks)
        both = (self.mask is None) == (self.reference_mask is None)
        check(both, "mask and reference_mask together, or neither", (self.mask, self.reference_mask))
        check(not (self.auto_masks and self.mask), "mask or auto_masks, not both", (self.mask, self.auto_masks))
        for name, known in (("start", ("matched", "photo", "noise")), ("precision", ("float32", "mixed_bfloat16"))):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        factors = (self.content_weight, self.style_weight, self.affine_weight, self.tv_weight)
        check(min(factors) >= 0, "weights >= 0 (content, style, affine, tv)", factors)
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        check(self.steps > 0, "steps > 0", self.steps)
        check(0 <= self.plain_steps <= self.steps, "0 <= plain_steps <= steps", (self.plain_steps, self.steps))
        check(self.batch == 1, "batch = 1: there is one picture", self.batch)
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)


VARIANTS = {
    "paper": Config(),
    "quick": Config(height=192, width=256, reference_size=256, steps=200, plain_steps=100),
}


# --- objective --------------------------------------------------------------------------------------------------------


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
    if config.photo is None or config.reference is None:
        raise UsageError("expected a photo and a reference: --photo PICTURE --reference PICTURE.")
    photo, reference = _readable(config.photo), _readable(config.reference)
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
        mine = label_pictures.read_labels(config.mask)
        mine = label_pictures.fit_labels(mine, height, width, f"the mask {config.mask}")
        theirs = label_pictures.read_labels(config.reference_mask)
        theirs = label_pictures.fit_labels(
            theirs, reference.shape[0], reference.shape[1], f"the mask {config.reference_mask}"
        )
        labels = mine, theirs
    photo, reference = _resized(photo, config.height, config.width), _resized(reference, *there)
    if labels is None and config.auto_masks > 1:
        labels = automatic_labels(config, photo, reference)
    if labels is None:
        return Pair(photo, reference, *(np.ones((1, *p.shape[:2]), "float32") for p in (photo, reference)))
    mine, theirs = labels
    mine = label_pictures.merge_orphans(mine, _substantial(theirs))
    classes = np.unique(mine)
    masks = label_pictures.region_masks(mine, classes, config.height, config.width)
    reference_masks = label_pictures.region_masks(theirs, classes, *there)
    if config.mask is None:
        masks = _along_edges(photo, masks)
    return Pair(photo, reference, masks, reference_masks)


def _along_edges(photo: np.ndarray, masks: np.ndarray) -> np.ndarray:
    """Coarse masks (K, H, W), their borders drawn to the photo's edges; they still sum to 1."""
    guide, values = (photo[None] / np.float32(255)), np.moveaxis(masks, 0, -1)[None]
    fine = np.moveaxis(np.asarray(guided_filter(guide, values, radius=8, edge=0.05))[0], -1, 0)
    fine = np.clip(fine, 0, 1)
    return fine / np.maximum(fine.sum(0), 1e-6)


def _substantial(labels: np.ndarray) -> np.ndarray:
    """The labels on more than two thousandths of the picture."""
    found, counts = np.unique(labels, return_counts=True)
    return found[counts >= 0.002 * labels.size]


def automatic_labels(config: Config, photo: np.ndarray, reference: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Labels (h, w) of two photos (H, W, 3), an eighth of their size, by clustering VGG19's features of both together.

    Features are taken relative to the mean of their own photo, so that day and night fall into the same clusters, with
    the height in the picture as one more: the sky is above.
    """
    from scipy.ndimage import gaussian_filter

    vgg = _vgg(config, ("relu4_1",))
    found = []
    for picture in (photo, reference):
        features = np.asarray(vgg(picture[None].astype("float32"))["relu4_1"][0], "float64")
        features = gaussian_filter(np.log1p(np.maximum(features, 0)), (1, 1, 0))
        features = (features - features.mean((0, 1))) / (features.std() + 1e-9)
        features /= features.shape[-1] ** 0.5
        rows = np.linspace(-1, 1, features.shape[0])[:, None, None] * np.ones((1, features.shape[1], 1))
        found.append(np.concatenate([features, 0.5 * rows], axis=-1))
    mine, theirs = label_pictures.cluster(found, config.auto_masks, config.seed)
    return mine, theirs


def _readable(path: Path) -> np.ndarray:
    picture = read_image(path)
    if min(picture.shape[:2]) < 16:
        raise DataError(
            f"expected a picture of at least 16 x 16 pixels. Received: {path}, {picture.shape[1]} x {picture.shape[0]}."
        )
    return picture


def _resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    if picture.shape[:2] == (height, width):
        return picture
    return np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.LANCZOS))


def _vgg(config: Config, taps: Sequence[str]) -> keras.Model:
    source = None if config.vgg == "random" else config.vgg
    return VGG19(taps, weights=source, dtype=config.precision.removeprefix("mixed_"))


class PhotorealisticObjective:
    """The weighted terms of the loss of a picture: content, style, total_variation and affine.

    Args:
        config: weights of the terms and layers of the network.
        pair: what the picture is compared with.
        affine: whether the affine term is there at all; stage 1 goes without.
        vgg: the network with all taps the config names, if there is one already.
    """

    def __init__(self, config: Config, pair: Pair, affine: bool = True, vgg: keras.Model | None = None):
        taps = dict.fromkeys((config.content_layer, *config.style_layers))
        self.config = config
        self.vgg = vgg if vgg is not None else _vgg(config, tuple(taps))
        photo = pair.photo[None].astype("float32")
        self._content = ops.stop_gradient(self.vgg(photo)[config.content_layer])
        self._style = AugmentedStyle(
            self.vgg,
            pair.reference,
            pair.reference_masks,
            pair.masks,
            dict.fromkeys(config.style_layers, config.style_weight * _FEATURE_SCALE**4),
        )
        self._affine = _affine_energy(pair.photo) if affine and config.affine_weight else None

    def terms(self, picture: Any) -> dict[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> name -> (1,)."""
        features = self.vgg(picture)
        content = content_distance(features[self.config.content_layer], self._content)
        found = {
            "content": self.config.content_weight * _FEATURE_SCALE**2 * content,
            "style": self._style.from_features(features),
            "total_variation": self.config.tv_weight * total_variation(picture),
        }
        if self._affine is not None:
            found["affine"] = self.config.affine_weight * self._affine(picture)
        return found


def _affine_energy(photo: np.ndarray) -> Any:
    """picture (1, H, W, 3) RGB 0-255 -> (1,), its energy under the photo's matting Laplacian, both taken to 0-1.

    Compiled by itself: a hundred small passes over the picture become a few.
    """
    laplacian = MattingLaplacian(photo[None].astype("float32") / 255)

    @tf.function(jit_compile=True, autograph=False)
    def evaluated(picture: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        return laplacian.energy(picture / 255), laplacian(picture / 255) * (2 / 255)

    # Traced at once: TensorFlow warns of many functions made at one line, of which each has its own photo.
    traced = evaluated.get_concrete_function(tf.TensorSpec((1, *photo.shape), tf.float32))

    @tf.custom_gradient
    def energy(picture: tf.Tensor) -> Any:
        value, slope = traced(picture)
        return value, lambda upstream: tf.reshape(upstream, (-1, 1, 1, 1)) * slope

    return energy


# --- trainer ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class PhotoStyle(PictureModel):
    """The picture as the only trainable weight, beside the photo it is made from.

    Args:
        config: a `PhotoStyle.Config` (or its values as a dict).
        precision: dtype policy of the objective's network.

    Shapes:
        step numbers (1, 1) -> (1, height, width, 3) RGB 0-255, not clipped.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.PhotoStyle(km.models.PhotoStyle.Config(height=24, width=32))
        >>> tuple(model(np.zeros((1, 1), "float32")).shape)
        (1, 24, 32, 3)
    """

    Config: TypeAlias = Config
    family_name = "photo_style"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        self_config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self_config.validate()
        terms = ("content", "style", "total_variation", "affine")
        super().__init__(
            self_config.height, self_config.width, terms, **{"name": "photo_style", "dtype": precision, **kwargs}
        )
        self.config, self.precision = self_config, precision
        self.photo = Picture(self.config.height, self.config.width, name="photo", trainable=False)
        self.affine_from = self.config.plain_steps
        noise = np.random.default_rng(self.config.seed).normal(127.5, 25.0, (*self.photo.pixels.shape[1:],))
        self.picture.show(noise)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The sum of the terms at step number `x`: the affine term counts from `affine_from` on."""
        if self.objective is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        terms = {name: ops.sum(value) for name, value in self.objective.terms(y_pred).items()}
        if "affine" in terms:
            terms["affine"] *= ops.cast(ops.sum(x) >= self.affine_from, "float32")
        for mean in self._term_means:
            if mean.name in terms:
                mean.update_state(terms[mean.name])
        return sum(terms.values())

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _model_of(config: Config, pair: Pair, start: np.ndarray | None = None) -> PhotoStyle:
    """The model with the photo, showing `start`, (H, W, 3) RGB 0-255; None for what the config says."""
    model = PhotoStyle(config, precision=config.precision)
    model.photo.show(pair.photo)
    if start is None and config.start != "noise":
        start = colour_matched(pair) if config.start == "matched" else pair.photo
    if start is not None:
        model.picture.show(start)
    return model


def colour_matched(pair: Pair) -> np.ndarray:
    """The photo under one affine colour map for each region: mean and covariance become the reference's, (H, W, 3).

    Of the maps that do so, the one that moves colours least. Contrast below some 8 levels is not enlarged much, as it
    is noise.
    """
    from scipy.linalg import sqrtm

    result = np.zeros(pair.photo.shape)
    for mine, theirs in zip(pair.masks, pair.reference_masks, strict=True):
        moments = []
        for picture, mask in ((pair.photo, mine), (pair.reference, theirs)):
            weight = mask[..., None] / max(mask.sum(), 1e-9)
            mean = (picture * weight).sum((0, 1))
            centred = (picture - mean).reshape(-1, 3)
            covariance = centred.T @ (centred * weight.reshape(-1, 1)) + 64 * np.eye(3)
            moments.append((mean, covariance))
        (mean, own), (target_mean, target) = moments
        root = np.real(sqrtm(own))
        inverse = np.linalg.inv(root)
        colours = inverse @ np.real(sqrtm(root @ target @ root)) @ inverse
        result += mine[..., None] * ((pair.photo - mean) @ colours + target_mean)
    return result.astype("float32")


def _build(config: Config) -> PhotoStyle:
    """The model with Adam and the objective of the config's pair, ready for `fit`."""
    config.validate()
    pair = read_pair(config)
    model = _model_of(config, pair)
    adam = keras.optimizers.Adam(config.learning_rate)
    model.compile(adam, PhotorealisticObjective(config, pair), jit_compile=False)
    return model


def _stages(config: Config, pair: Pair) -> list[Stage]:
    """Both stages for `optimize_picture`; the second begins with what the first ends with."""
    vgg = _vgg(config, tuple(dict.fromkeys((config.content_layer, *config.style_layers))))

    def model(affine: bool) -> Any:
        def made(pixels: np.ndarray | None) -> PhotoStyle:
            found = _model_of(config, pair, pixels)
            found.affine_from = 0
            found.compile("adam", PhotorealisticObjective(config, pair, affine, vgg), jit_compile=False)
            found.optimizer.learning_rate = config.learning_rate
            return found

        return made

    counts = ((config.plain_steps, False), (config.steps - config.plain_steps, True))
    return [Stage(count, model(affine)) for count, affine in counts if count]


def _datasets(config: Config, start: int = 0) -> Datasets:
    return Datasets(train=step_numbers(start))


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: PhotoStyle, config: Config) -> dict[str, Servable]:
    smoothing = LocalAffineSmoothing()
    pictures = [keras.Input((None, None, 3), name=name) for name in ("photo", "stylised")]
    smoother = keras.Model(pictures, smoothing(pictures), name="smoothing")

    def recolour(image: tf.Tensor) -> dict[str, tf.Tensor]:
        small = tf.convert_to_tensor(model.photo.pixels) / 255
        found = smoothing.maps(small, tf.convert_to_tensor(model.picture.pixels) / 255)
        static = image.shape[1:3]
        size = list(static) if None not in static else tf.shape(image)[1:3]
        maps = {name: x if name == "overall" else tf.image.resize(x, size) for name, x in found.items()}
        return {"recoloured": _to_levels(smoothing.apply(maps, tf.cast(image, tf.float32) / 255))}

    def smooth(photo: tf.Tensor, stylised: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "smoothed": _to_levels(smoother([tf.cast(photo, tf.float32) / 255, tf.cast(stylised, tf.float32) / 255]))
        }

    def picture_of(name: str, doc: str, atol: float = 1e-4) -> TensorSpec:
        return TensorSpec(name, ("batch", "height", "width", 3), "uint8", doc, "image", atol=atol)

    dims = {"batch": 1, "height": 256, "width": 256}
    other_dims = ({"batch": 1, "height": 97, "width": 130}, {"batch": 2, "height": 64, "width": 128})
    return {
        "recolour": Servable(
            call=recolour,
            model=model,
            inputs=(picture_of("image", "the photo of the run at any size, RGB 0-255"),),
            outputs=(picture_of("recoloured", "the photo in its new colours, RGB 0-255", 1),),
            example=lambda dims, seed: {"image": _example_pictures(dims, seed)},
            dims=dims,
            check_dims=other_dims,
            doc="gives a photo, at its full size, the colours that were found for it at a smaller one",
        ),
        "smooth": Servable(
            call=smooth,
            model=smoother,
            inputs=(
                picture_of("photo", "photos, RGB 0-255, of any size"),
                picture_of("stylised", "the same photos, stylised by whatever means, RGB 0-255"),
            ),
            outputs=(picture_of("smoothed", "the photos in the stylised pictures' colours, RGB 0-255", 1),),
            example=_example_pair,
            dims=dims,
            check_dims=other_dims,
            doc="turns a stylised photo back into a photo: local colour maps, applied to the original",
        ),
    }


def _to_levels(picture: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(tf.clip_by_value(picture * 255, 0.0, 255.0)), tf.uint8)


def _example_pictures(dims: Mapping[str, int], seed: int) -> np.ndarray:
    """Pictures with the look of photos: smooth regions, edges and a little grain."""
    random = np.random.default_rng(seed)
    n, h, w = dims["batch"], dims["height"], dims["width"]
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    found = []
    for _ in range(n):
        waves = [np.sin(x * random.uniform(2, 12) + y * random.uniform(2, 12) + random.uniform(0, 6)) for _ in range(3)]
        picture = 128 + 80 * np.stack(waves, axis=-1)
        picture[x + y > random.uniform(0.5, 1.2)] *= 0.6
        found.append(np.clip(picture + random.normal(0, 4, picture.shape), 0, 255))
    return np.stack(found).astype("uint8")


def _example_pair(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Photos, and the same with other colours and brush strokes."""
    photo = _example_pictures(dims, seed)
    random = np.random.default_rng([seed, 1])
    colours = np.eye(3) * random.uniform(0.4, 1.0, 3) + random.uniform(-0.1, 0.2, (3, 3))
    strokes = 12 * np.sin(np.arange(dims["width"]) / 2)[None, None, :, None]
    stylised = photo @ colours + strokes + random.normal(0, 6, photo.shape)
    return {"photo": photo, "stylised": np.clip(stylised, 0, 255).astype("uint8")}


def _preview(model: PhotoStyle, config: Config) -> dict[str, np.ndarray]:
    """The picture as it is, and made photorealistic."""
    smooth = _servables(model, config)["smooth"].call
    picture = to_uint8(model.pixels())
    photo = to_uint8(model.photo.pixels.numpy()[0])
    smoothed = smooth(photo=tf.constant(photo[None]), stylised=tf.constant(picture[None]))["smoothed"][0].numpy()
    return {"picture": picture, "smoothed": smoothed}


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Give a photo the colours and the light of another (--reference), or finish a stylised one (--stylised)."""

    photo: Annotated[Path, tyro.conf.Positional]
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write; also written while it is being made."""
    reference: Path | None = None
    """The photo whose style is wanted."""
    mask: Path | None = None
    """The photo's regions, in blue, green, black, white, red, yellow, grey, lightblue and purple."""
    reference_mask: Path | None = None
    """The reference's regions: regions of one colour take their style from each other."""
    auto_masks: int = 0
    """Without masks: find this many regions in both photos; 0 for none."""
    stylised: Path | None = None
    """Instead of a reference: the photo as some other method stylised it. Only the smoothing is done."""
    run: Path | None = None
    """Instead of a reference: a run folder of `kerasmodels train photo_style`, whose colours the photo gets."""
    size: int = 700
    """Longer side to optimise at, pixels."""
    full_size: tyro.conf.FlagCreatePairsOff[bool] = False
    """Write the result at the photo's own size: the colours found at --size are applied to the whole photo."""
    iterations: int = 300
    """Of each of the two stages."""
    method: Literal["lbfgs", "adam"] = "lbfgs"
    """The optimiser."""
    style_weight: float = Config.style_weight
    """More of it, more of the reference."""
    affine_weight: float = Config.affine_weight
    """More of it, more of a photo."""
    smooth: tyro.conf.FlagCreatePairsOff[bool] = True
    """Leave out for the picture as optimised, without the smoothing: --no-smooth."""
    log: Path | None = None
    """A folder for the curve and pictures of the way."""
    vgg: str = Config.vgg
    """VGG19 weights."""
    seed: int = 0
    """Of the clustering."""


def _run(options: RunOptions) -> RunReport:
    ways = {name: getattr(options, name) for name in ("reference", "stylised", "run")}
    if sum(value is not None for value in ways.values()) != 1:
        given = [f"--{name}" for name, value in ways.items() if value is not None]
        raise UsageError(f"expected one of --reference, --stylised and --run. Received: {' '.join(given) or 'none'}.")
    if options.out.resolve() in {p.resolve() for p in (options.photo, options.reference, options.stylised) if p}:
        raise UsageError(f"expected a place to write where no input is overwritten. Received: {options.out}.")
    begin = time.perf_counter()
    if options.reference is not None:
        return _transfer(options)
    photo = _readable(options.photo)
    if options.stylised is not None:
        stylised = _readable(options.stylised)
        if abs(np.log(stylised.shape[0] * photo.shape[1] / (stylised.shape[1] * photo.shape[0]))) > 0.02:
            raise DataError(
                f"expected {options.stylised} in the proportions of {options.photo}. Received: {stylised.shape[1]} x "
                f"{stylised.shape[0]} and {photo.shape[1]} x {photo.shape[0]}."
            )
        result = recoloured(photo, _resized(photo, *stylised.shape[:2]), stylised)
    else:
        trained = weights.run(options.run or "")
        if trained.family != "photo_style":
            raise UsageError(f"expected a run of photo_style. Received: {options.run}, a run of {trained.family}.")
        model = trained.load()[2]
        result = recoloured(photo, model.photo.pixels.numpy()[0], model.pixels())
    path = write_image(options.out, result)
    return RunReport((path,), {"seconds": round(time.perf_counter() - begin, 2)})


def _transfer(options: RunOptions) -> RunReport:
    photo = _readable(options.photo)
    check(options.size >= 16, "size >= 16", options.size)
    check(options.iterations > 0, "iterations > 0", options.iterations)
    scale = min(1.0, options.size / max(photo.shape[:2]))
    height, width = (max(16, round(side * scale)) for side in photo.shape[:2])
    config = Config(
        photo=options.photo,
        reference=options.reference,
        mask=options.mask,
        reference_mask=options.reference_mask,
        auto_masks=options.auto_masks,
        height=height,
        width=width,
        reference_size=options.size,
        steps=2 * options.iterations,
        plain_steps=options.iterations,
        style_weight=options.style_weight,
        affine_weight=options.affine_weight,
        vgg=options.vgg,
        seed=options.seed,
    )
    config.validate()
    pair = read_pair(config)

    def finish(pixels: np.ndarray) -> np.ndarray:
        if not options.smooth:
            return to_uint8(pixels)
        return recoloured(photo if options.full_size else pair.photo, pair.photo, np.clip(pixels, 0, 255))

    done = optimize_picture(_stages(config, pair), options.out, method=options.method, finish=finish, log=options.log)
    facts = {
        "size": f"{done.picture.shape[1]} x {done.picture.shape[0]}",
        "regions": len(pair.masks),
        "iterations": done.steps,
        "evaluations": done.evaluations,
        **{name: f"{value:.4g}" for name, value in done.terms.items()},
        "seconds": round(done.seconds, 1),
    }
    return RunReport((options.out,), facts)


def recoloured(photo: np.ndarray, small: np.ndarray, stylised: np.ndarray) -> np.ndarray:
    """The photo in the colours of `stylised`, (H, W, 3) uint8.

    Args:
        photo: (H, W, 3), RGB 0-255.
        small: (h, w, 3), the photo at the size of `stylised`.
        stylised: (h, w, 3), RGB 0-255.
    """
    return _recoloured(*(tf.constant(p[None].astype("float32") / 255) for p in (photo, small, stylised)))[0].numpy()


@tf.function(reduce_retracing=True, autograph=False)
def _recoloured(photo: tf.Tensor, small: tf.Tensor, stylised: tf.Tensor) -> tf.Tensor:
    smoothing = LocalAffineSmoothing()
    found = smoothing.maps(small, stylised)
    size = tf.shape(photo)[1:3]
    maps = {name: x if name == "overall" else tf.image.resize(x, size) for name, x in found.items()}
    return _to_levels(smoothing.apply(maps, photo))


# --- experiments ------------------------------------------------------------------------------------------------------


_PAIRS = (1, 2, 7, 30, 58)
"""Of the authors' pairs, those that are measured."""


def _on_pair(number: int) -> Experiment:
    """One of the authors' pairs, our two stages beside theirs, all at one size.

    Paper: figures 1 and 4; the authors' pictures are tmp_results (stage 1) and final_results of the released code.
    """

    def measure(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
        size, iterations = (128, 25) if quick else (256, 100)
        photo, files = _files_of_pair(data, number)
        height, width = (round(side * size / max(photo.shape[:2])) for side in photo.shape[:2])
        config = Config(**files, height=height, width=width, reference_size=size, steps=1, plain_steps=0)
        pair = read_pair(config)
        objective = PhotorealisticObjective(config, pair)
        begin = time.perf_counter()
        plain, first = _descend(_stages(dataclasses.replace(config, steps=iterations, plain_steps=iterations), pair)[0])
        after = _stages(dataclasses.replace(config, steps=iterations, plain_steps=0), pair)[0]
        affine, second = _descend(after, plain)
        seconds = time.perf_counter() - begin
        result = recoloured(pair.photo, pair.photo, np.clip(affine, 0, 255))
        folder = config.photo.parents[1] if config.photo else Path()
        theirs = [
            _resized(_readable(folder / name), height, width)
            for name in (f"tmp_results/out{number}_t_1000.png", f"final_results/best{number}_t_1000.png")
        ]
        strip = [pair.photo, to_uint8(plain), to_uint8(affine), result, *theirs]
        write_image(figures / f"photo_style_pair{number}.jpg", np.concatenate(strip, axis=1))
        own, one, two, their_one, their_two = (_terms(objective, p) for p in (pair.photo, plain, affine, *theirs))
        last = _terms(objective, result)
        kept, their_kept = structure(pair.photo, result), structure(pair.photo, theirs[1])
        name = f"pair {number} ({width} x {height}, {iterations} + {iterations} iterations)"
        return [
            _row(
                f"{name}: affine energy after stage 2, as a part of stage 1's",
                f"{their_two['affine'] / their_one['affine']:.3f} (the authors' pictures)",
                two["affine"] / one["affine"],
                0.1,
            ),
            _row(
                f"{name}: style loss after stage 2, as a part of stage 1's",
                f"{their_two['style'] / their_one['style']:.2f} (the authors' pictures)",
                two["style"] / one["style"],
                2.0,
            ),
            _row(
                f"{name}: style loss of the smoothed result, as a part of the photo's own",
                f"{their_two['style'] / own['style']:.4f} (the authors' picture)",
                last["style"] / own["style"],
                0.1,
            ),
            Row(
                f"{name}: edge structure that the result shares with the photo",
                f"{their_kept:.3f} (the authors' picture)",
                round(kept, 4),
                f">= {their_kept:.3f}",
                kept >= round(their_kept, 3),
            ),
            Row(
                f"{name}: seconds for an evaluation of the loss and its gradient, on a machine with other work",
                "not given; 3 to 5 minutes in all on its GPU",
                round(seconds / (first + second), 2),
                "for information",
                True,
            ),
        ]

    return Experiment(f"the authors' pair {number}: what the affine term does, beside their pictures", measure)


def _row(claim: str, paper: str, ours: float, most: float) -> Row:
    return Row(claim, paper, round(ours, 4), f"<= {most:g}", ours <= most)


def _files_of_pair(data: Path | None, number: int) -> tuple[np.ndarray, dict[str, Path]]:
    """The photo, and the fields of a config that name a pair's files."""
    found = None if data is None else next(iter(sorted(data.rglob(f"input/in{number}.png"))), None)
    if found is None:
        raise DataError(
            "expected --data DIR with the folders input, style, segmentation, tmp_results and final_results of the "
            f"authors' examples. Received: {data}, without input/in{number}.png."
        )
    folder = found.parents[1]
    files = {
        "photo": found,
        "reference": folder / f"style/tar{number}.png",
        "mask": folder / f"segmentation/in{number}.png",
        "reference_mask": folder / f"segmentation/tar{number}.png",
    }
    return _readable(found), files


def _descend(stage: Stage, start: np.ndarray | None = None) -> tuple[np.ndarray, int]:
    """A stage by L-BFGS: the pixels it ends with, and the evaluations it took."""
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        last: list[np.ndarray] = []

        def keep(pixels: np.ndarray) -> np.ndarray:
            last[:] = [pixels]
            return to_uint8(pixels)

        staged = Stage(stage.steps, lambda _: stage.model(start))
        done = optimize_picture([staged], Path(folder) / "picture.png", finish=keep, preview_every=0)
        return last[0], done.evaluations


def _terms(objective: PhotorealisticObjective, picture: np.ndarray) -> dict[str, float]:
    terms = objective.terms(tf.constant(picture[None].astype("float32")))
    return {name: float(value[0]) for name, value in terms.items()}


def structure(photo: np.ndarray, picture: np.ndarray) -> float:
    """How much of the photo's edges and texture a picture of other colours shows, 0-1.

    The mean, over windows of 7 x 7 pixels, of the absolute correlation of luminance (the third factor of SSIM, without
    its sign, because light may turn dark). Windows where the photo is flat, with a deviation under 2 levels, do not
    count.

    Args:
        photo, picture: (H, W, 3), RGB 0-255.
    """
    from scipy.ndimage import uniform_filter

    x, y = (p.astype("float64") @ (0.299, 0.587, 0.114) for p in (photo, picture))
    mean_x, mean_y = uniform_filter(x, 7), uniform_filter(y, 7)
    variance_x = np.maximum(uniform_filter(x * x, 7) - mean_x**2, 0)
    variance_y = np.maximum(uniform_filter(y * y, 7) - mean_y**2, 0)
    covariance = uniform_filter(x * y, 7) - mean_x * mean_y
    counted = variance_x >= 4
    shared = (np.abs(covariance) + 0.5) / (np.sqrt(variance_x * variance_y) + 0.5)
    return float(np.minimum(shared, 1)[counted].mean()) if counted.any() else 1.0


def _memory(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """What a run at the paper's size needs, in a process of its own."""
    size = 256 if quick else 700
    _, files = _files_of_pair(data, 30)
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        command = [sys.executable, "-m", "kerasmodels", "run", "photo_style", str(files["photo"]), "--json"]
        command += ["-o", f"{folder}/out.png", "--size", str(size), "--iterations", "3"]
        for name in ("reference", "mask", "reference_mask"):
            command += [f"--{name.replace('_', '-')}", str(files[name])]
        answer = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    facts = json.loads(answer)["facts"]
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    name = f"pair 30 at {facts['size']}, {facts['regions']} regions"
    return [
        Row(f"{name}: peak memory of a run, GB", "a 12 GB GPU", round(peak, 2), "<= 12", peak <= 12),
        Row(
            f"{name}: seconds of a run of 3 + 3 iterations, start to end, for each of its evaluations",
            "not given",
            round(facts["seconds"] / facts["evaluations"], 2),
            "for information",
            True,
        ),
    ]


FAMILY = Family(
    name="photo_style",
    config=Config,
    variants=VARIANTS,
    model=lambda config: PhotoStyle(config, precision=config.precision),
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        **{f"pair{number}": _on_pair(number) for number in _PAIRS},
        "memory": Experiment("peak memory and time at the paper's size", _memory),
    },
    preview=_preview,
)
