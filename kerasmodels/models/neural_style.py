"""Neural style: pixels are optimised until VGG sees a photo's content in a painting's style.

Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016 (A Neural Algorithm of
Artistic Style, 2015). Colours and regions after Gatys et al.: Controlling Perceptual Factors in Neural Style Transfer,
CVPR 2017. `formulation="course"` is that of DeepLearning.AI's Convolutional Neural Networks, week 4.

Reproduced: the objective and its optimisation by L-BFGS from white noise. The picture is the model's only weight.

| departure from the paper | why |
|---|---|
| content term: a quarter of the mean square; `formulation="gatys"` is the paper's half of the sum | same at any size |
| Gram matrices are divided by their own number of positions: E_l where sizes are equal | painting and photo differ |
| `train` uses Adam (rate 10, as the neural-style code); `run` uses L-BFGS, as the paper | `fit` is first-order |
| a total variation term of small weight; 0 is the paper's | less grain from noise |
| large pictures are made coarse to fine (`levels`) | strokes keep their size relative to the picture, in less time |
| served: gradient descent with momentum on the normalised gradient | see `_stylize` |
"""

import dataclasses
import re
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from keras import ops
from PIL import Image, ImageDraw

from kerasmodels import backbones, weights
from kerasmodels.data import image_size, read_image, resized, write_image
from kerasmodels.data.colour import luminance, match_colours, match_luminance, to_yuv, with_colours_of
from kerasmodels.data.images import SUFFIXES
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
from kerasmodels.losses import Content, GramStyle, style_distance, total_variation
from kerasmodels.losses.portable import PortableStyle
from kerasmodels.training.picture import Painted, PictureModel, Stage, optimize_picture, step_numbers, to_uint8

TERMS = ("content", "style", "total_variation")


@dataclass(frozen=True)
class Look:
    """What the picture should look like: the fields that `train` and `run` share."""

    style: tuple[Path, ...] = ()
    """The painting, or several."""
    style_weights: tuple[float, ...] = ()
    """How much each painting counts; left out, all the same. They are divided by their sum."""
    masks: tuple[Path, ...] = ()
    """One picture a painting, of the content's shape: white where that painting is to be used."""
    style_masks: tuple[Path, ...] = ()
    """One picture a painting, of the painting's shape: white where its style is to be learnt from."""

    size: int = 512
    """The longer side of the result, pixels."""
    style_scale: float = 1.0
    """The paintings' longer side, as a multiple of `size`: smaller means finer strokes."""
    start: Literal["noise", "content", "style"] = "noise"
    """What the picture shows at first (paper: white noise). content converges several times faster."""
    colours: Literal["style", "luminance", "match"] = "style"
    """style: the painting's; luminance: only brightness is painted, the content's colours stay; match: the painting is
    given the content's colours first."""

    network: Literal["vgg19", "vgg16"] = "vgg19"
    """The network that looks (paper: VGG19)."""
    vgg: str = "auto"
    """Its weights: auto (vgg19: the normalised ones, as in the paper), a source of `kerasmodels weights`, a file, or
    random."""
    pooling: Literal["avg", "max"] = "avg"
    """The network's poolings (paper: average)."""
    formulation: Literal["course", "gatys", "relative"] = "course"
    """The content term per layer: a quarter of the mean square (course) or half the sum (gatys) of differences; the
    style term is the same in both. relative: both terms as parts of their targets' own size, whatever the network."""
    content_layers: tuple[str, ...] = ("conv4_2",)
    """Layers that must keep the content."""
    content_layer_weights: tuple[float, ...] = ()
    """Weights of these layers; left out, 1 / their number."""
    style_layers: tuple[str, ...] = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
    """Layers whose Gram matrices must match the painting's."""
    style_layer_weights: tuple[float, ...] = ()
    """Weights of these layers; left out, 1 / their number (paper: 1/5)."""
    content_weight: float = 1.0
    """Weight of the content term (alpha). The course's 10 and 40 belong to a network that is not normalised."""
    style_weight: float = 50.0
    """Weight of the style term (beta)."""
    tv_weight: float = 1e-4
    """Weight of total variation per value of the picture, squared levels (paper: none)."""

    seed: int = 0
    """Of the noise."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        for name in ("start", "colours", "network", "pooling", "formulation"):
            known = {f.name: f.type for f in dataclasses.fields(Look)}[name].__args__  # type: ignore[union-attr]
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        for name in ("style_weights", "masks", "style_masks"):
            given = getattr(self, name)
            check(len(given) in (0, len(self.style)), f"as many {name} as paintings, {len(self.style)}", given)
        for layers, given in (
            (self.content_layers, self.content_layer_weights),
            (self.style_layers, self.style_layer_weights),
        ):
            check(len(given) in (0, len(layers)), f"a weight for each of the layers {layers}", given)
            check(len(set(layers)) == len(layers), "each layer once", layers)
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        every = (*self.style_weights, *self.content_layer_weights, *self.style_layer_weights)
        every += (self.content_weight, self.style_weight, self.tv_weight)
        check(all(0 <= w < float("inf") for w in every), "weights that are finite and >= 0", every)
        check(not self.style_weights or sum(self.style_weights) > 0, "a positive style weight", self.style_weights)
        check(self.size >= _smallest(self), f"size >= {_smallest(self)}, which the network's poolings need", self.size)
        check(0 < self.style_scale <= 8, "style_scale in (0, 8]", self.style_scale)


@dataclass(frozen=True)
class Config(Look):
    """One picture to make with Adam, in a run folder."""

    content: Path | None = None
    """The photo."""
    height: int | None = None
    """Height of the result, pixels; left out, by the content's shape and `size`."""
    width: int | None = None
    """Width of the result, pixels."""
    steps: int = 1000
    """Steps of Adam."""
    batch: int = 1
    """Pictures a step: there is one."""
    learning_rate: float = 10.0
    """Of Adam, levels of 0-255."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Of the network. The picture stays float32."""

    def __post_init__(self) -> None:
        # The shape becomes part of the config, so that a run can be loaded where its content is not.
        if self.content is not None and self.height is None and self.width is None:
            try:
                height, width = image_size(self.content)
            except DataError:
                return  # `build` says what is wrong with it
            for name, side in (("height", height), ("width", width)):
                object.__setattr__(self, name, max(1, round(side * self.size / max(height, width))))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture; a square of `size` while nothing else is known."""
        return self.height or self.size, self.width or self.size

    def validate(self) -> None:
        super().validate()
        check(self.batch == 1, "batch = 1: there is one picture", self.batch)
        check(self.steps > 0, "steps > 0", self.steps)
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)
        check(self.precision in ("float32", "mixed_bfloat16"), "a known precision", self.precision)
        check((self.height is None) == (self.width is None), "height and width, or neither", (self.height, self.width))
        check(
            min(self.shape) >= _smallest(self),
            f"a picture of at least {_smallest(self)} pixels each way, which the network's poolings need",
            f"{self.shape[1]} x {self.shape[0]}",
        )


def _smallest(look: Look) -> int:
    """The smallest side that leaves two positions at the deepest layer; with one, there is nothing to reflect."""
    blocks = [re.search(r"\d", name) for name in (*look.content_layers, *look.style_layers)]
    return 2 ** max((int(block[0]) for block in blocks if block), default=1)


VARIANTS = {
    "paper": Config(),
    "quick": Config(start="content", size=256, steps=150),
}


# --- objective --------------------------------------------------------------------------------------------------------


class StyleTransfer:
    """The objective: weighted terms of how far a picture is from the content's content and the paintings' style.

    Everything that does not depend on the picture is computed here, once.

    Args:
        look: layers, weights and formulation.
        vgg: a network with the look's layers as taps.
        content: (H, W, 3), RGB 0-255.
        styles: the paintings, (h, w, 3), RGB 0-255, each of its own size.
        masks: one (H, W), 0-1, for each painting; or none at all.
        style_masks: one (h, w), 0-1, for each painting; or none at all.

    Reference:
        Gatys et al. 2016, equations 1 to 7.
    """

    def __init__(
        self,
        look: Look,
        vgg: keras.Model,
        content: np.ndarray,
        styles: Sequence[np.ndarray],
        masks: Sequence[np.ndarray | None] = (),
        style_masks: Sequence[np.ndarray | None] = (),
    ):
        self._vgg = vgg
        self.tv_weight = look.tv_weight
        features = vgg(np.asarray(content, "float32")[None])
        self.target = {tap: ops.stop_gradient(features[tap]) for tap in look.content_layers}
        self.content = Content(
            vgg,
            {
                tap: look.content_weight * w * _content_factor(look.formulation, self.target[tap])
                for tap, w in _layer_weights(look.content_layers, look.content_layer_weights).items()
            },
        )
        shares = np.asarray(look.style_weights or [1.0] * len(styles)) / sum(look.style_weights or [len(styles)])
        layer_weights = _layer_weights(look.style_layers, look.style_layer_weights)
        self.styles = []
        for i, (style, share) in enumerate(zip(styles, shares, strict=True)):
            loss = GramStyle(
                vgg, style, layer_weights, style_masks[i] if style_masks else None, masks[i] if masks else None
            )
            loss.weights = {
                tap: float(look.style_weight * share * w * _style_factor(look.formulation, loss.targets[tap]))
                for tap, w in layer_weights.items()
            }
            self.styles.append(loss)

    def terms(self, picture: Any) -> dict[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> the weighted terms, name -> (1,)."""
        features = self._vgg(picture)
        found = {
            "content": self.content.from_features(self.target, features),
            "style": sum(style.from_features(features) for style in self.styles),
        }
        if self.tv_weight:
            found["total_variation"] = self.tv_weight / float(np.prod(picture.shape[1:])) * total_variation(picture)
        return found


def _content_factor(formulation: str, target: Any) -> float:
    """What `losses.content_distance`, a mean of squares, is multiplied by."""
    if formulation == "gatys":
        return float(np.prod(target.shape)) / 2
    return 0.25 if formulation == "course" else 1 / _positive(ops.mean(ops.square(ops.cast(target, "float32"))))


def _style_factor(formulation: str, target: Any) -> float:
    """What `losses.style_distance` is multiplied by. C^2 / 4 makes it E_l and J_s, which are the same."""
    channels = target.shape[-1]
    return 1 / _positive(style_distance(0.0, target)[0]) if formulation == "relative" else channels**2 / 4


def _positive(value: Any) -> float:
    return max(float(value), 1e-12)


def _layer_weights(layers: Sequence[str], given: Sequence[float]) -> dict[str, float]:
    return dict(zip(layers, given or [1 / len(layers)] * len(layers), strict=True))


def _network(look: Look, precision: str = "float32") -> keras.Model:
    """The network that looks, with the layers of the objective as taps.

    Raises:
        UsageError: an unknown layer.
        WeightsError: its weights are missing.
    """
    taps = dict.fromkeys((*look.content_layers, *look.style_layers))
    source: str | None = look.vgg
    if look.vgg == "auto" and look.network == "vgg19":
        source = "normalised"
    build = backbones.VGG19 if look.network == "vgg19" else backbones.VGG16
    return build(
        taps,
        weights=None if source == "random" else source,
        pooling=look.pooling,
        dtype=precision.removeprefix("mixed_"),
    )


@dataclass(frozen=True)
class _Pictures:
    """What the objective is made of: content (H, W, 3), styles (h, w, 3), float, 0-255, and masks, 0-1."""

    content: np.ndarray
    styles: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...]
    style_masks: tuple[np.ndarray, ...]


def _read_pictures(config: Config) -> _Pictures:
    """The pictures of a config at their sizes, their colours treated as the config says."""
    if config.content is None:
        raise UsageError("expected a photo to paint: --content PATH. Received: none.")
    if not config.style:
        raise UsageError("expected a painting: --style PATH. Received: none.")
    content = _content(config, *config.shape)
    styles, style_masks = [], []
    for i, path in enumerate(config.style):
        painting = read_image(path)
        scale = config.size * config.style_scale / max(painting.shape[:2])
        height, width = (round(side * scale) for side in painting.shape[:2])
        if min(height, width) < _smallest(config):
            raise DataError(
                f"expected paintings of at least {_smallest(config)} pixels each way. Received: {path}, which is "
                f"{width} x {height} at style scale {config.style_scale:g}. Raise the scale or the size."
            )
        if config.style_masks:
            style_masks.append(_mask(config.style_masks[i], painting.shape[:2], (height, width), path))
        styles.append(np.clip(resized(painting, height, width), 0, 255))
    masks = tuple(_mask(path, content.shape[:2], content.shape[:2], config.content) for path in config.masks)
    if config.colours == "luminance":
        styles = [match_luminance(style, content) for style in styles]
        content = luminance(content)
    elif config.colours == "match":
        styles = [match_colours(style, content) for style in styles]
    return _Pictures(content, tuple(styles), masks, tuple(style_masks))


def _content(config: Config, height: int, width: int) -> np.ndarray:
    assert config.content is not None
    return np.clip(resized(read_image(config.content, 2 * max(height, width)), height, width), 0, 255)


def _mask(path: Path, of: tuple[int, ...], size: tuple[int, ...], whose: Path) -> np.ndarray:
    """A mask at the size of what it masks. It may be larger or smaller, but not of another shape."""
    mask = np.mean(read_image(path), axis=-1) / 255
    if abs(np.log(mask.shape[0] / mask.shape[1] * of[1] / of[0])) > 0.03:
        raise DataError(
            f"expected a mask of the shape of {whose}, {of[1]} x {of[0]} or a multiple. Received: {path}, which is "
            f"{mask.shape[1]} x {mask.shape[0]}."
        )
    mask = np.clip(resized(mask, *size), 0, 1)
    if mask.max() < 0.5:
        raise DataError(f"expected a mask with some white in it. Received: {path}, which has none.")
    return mask


# --- trainer ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class NeuralStyle(PictureModel):
    """The picture. Compile it with a `StyleTransfer`; before that it shows white noise.

    Args:
        config: a `NeuralStyle.Config` (or its values as a dict).

    Shapes:
        anything -> (1, H, W, 3), RGB 0-255, not clipped.

    Example:
        >>> import kerasmodels as km
        >>> tuple(km.models.NeuralStyle(km.models.NeuralStyle.Config(height=48, width=64))(None).shape)
        (1, 48, 64, 3)
    """

    Config: TypeAlias = Config
    family_name = "neural_style"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, **kwargs: Any):
        config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        config.validate()
        super().__init__(*config.shape, TERMS, **{"name": "neural_style", "dtype": config.precision, **kwargs})
        self.config = config
        self.picture.show(np.random.default_rng(config.seed).uniform(0, 255, (*config.shape, 3)))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config)}


def _build(config: Config) -> NeuralStyle:
    """The model with Adam and the objective of the config's pictures, showing what it is to start with."""
    config.validate()
    pictures = _read_pictures(config)
    model = NeuralStyle(config)
    if config.start == "content":
        model.picture.show(pictures.content)
    elif config.start == "style":
        model.picture.show(resized(pictures.styles[0], *config.shape))
    objective = StyleTransfer(
        config,
        _network(config, config.precision),
        pictures.content,
        pictures.styles,
        pictures.masks,
        pictures.style_masks,
    )
    # XLA makes convolutions slower on CPUs.
    model.compile(keras.optimizers.Adam(config.learning_rate), objective, jit_compile=False)
    return model


def _datasets(config: Config, start: int = 0) -> Datasets:
    return Datasets(train=step_numbers(start))


def _finish(config: Config) -> Callable[[np.ndarray], np.ndarray]:
    """What becomes of the pixels before they are a picture: with `colours="luminance"`, the content's colours."""

    def coloured(pixels: np.ndarray) -> np.ndarray:
        return to_uint8(with_colours_of(pixels, _content(config, *pixels.shape[:2])))

    return coloured if config.colours == "luminance" else to_uint8


def _preview(model: NeuralStyle, config: Config) -> dict[str, np.ndarray]:
    return {"picture": _finish(config)(model.pixels())}


# --- servables --------------------------------------------------------------------------------------------------------


_MOMENTUM = 0.9


def _moved(
    picture: tf.Tensor, velocity: tf.Tensor, slope: tf.Tensor, rate: tf.Tensor | float
) -> tuple[tf.Tensor, tf.Tensor]:
    """One step of gradient descent with momentum on the gradient divided by its root mean square.

    So `rate` is in levels of 0-255, whatever the loss weighs. Adam, which divides every entry of the first gradient by
    itself, would turn rounding differences between runtimes into whole levels: its first step is the sign.
    """
    # Divided by the largest entry first: squares of small numbers would vanish.
    slope = slope / (tf.reduce_max(tf.abs(slope)) + 1e-30)
    slope = slope / tf.sqrt(tf.reduce_mean(slope * slope) + 1e-30)
    velocity = _MOMENTUM * velocity + slope
    return picture - rate * velocity, velocity


def _servables(model: NeuralStyle, config: Config) -> dict[str, Servable]:
    """What leaves the building holds the network that looks. The pixels of a run are its result, and stay."""
    vgg = _network(config)
    written = PortableStyle(
        vgg,
        {
            tap: config.content_weight * w
            for tap, w in _layer_weights(config.content_layers, config.content_layer_weights).items()
        },
        {
            tap: config.style_weight * w
            for tap, w in _layer_weights(config.style_layers, config.style_layer_weights).items()
        },
        config.tv_weight,
        config.formulation,
    )
    rate = config.learning_rate / 10

    def stylize(content: tf.Tensor, style: tf.Tensor, steps: tf.Tensor) -> dict[str, tf.Tensor]:
        photo, painting = tf.cast(content, tf.float32), tf.cast(style, tf.float32)
        # What every step needs alike is computed outside the loop.
        written.prepare()
        targets = written.targets(photo, painting)

        def body(step: tf.Tensor, picture: tf.Tensor, velocity: tf.Tensor, loss: tf.Tensor) -> tuple[tf.Tensor, ...]:
            loss, slope = written.gradient(picture, targets)
            left = tf.cast(steps - step, tf.float32) / tf.cast(steps, tf.float32)
            picture, velocity = _moved(picture, velocity, slope, rate * left)
            picture.set_shape(content.shape)
            velocity.set_shape(content.shape)
            return step + 1, picture, velocity, loss

        start = (tf.constant(0), photo, tf.zeros_like(photo), tf.zeros(()))
        _, picture, _, loss = tf.while_loop(lambda step, *_: step < steps, body, start, parallel_iterations=1)
        return {"stylized": tf.cast(tf.round(tf.clip_by_value(picture, 0.0, 255.0)), tf.uint8), "loss": loss}

    def step(
        picture: tf.Tensor, velocity: tf.Tensor, content: tf.Tensor, style: tf.Tensor, rate: tf.Tensor
    ) -> dict[str, tf.Tensor]:
        targets = written.targets(tf.cast(content, tf.float32), tf.cast(style, tf.float32))
        loss, slope = written.gradient(picture, targets)
        picture, velocity = _moved(picture, velocity, slope, rate)
        return {"next_picture": picture, "next_velocity": velocity, "loss": loss}

    size, style_size = (1, "height", "width", 3), (1, "style_height", "style_width", 3)
    content = TensorSpec("content", size, "uint8", "the photo, RGB 0-255, at least 32 pixels each way", "image")
    style = TensorSpec("style", style_size, "uint8", "the painting, RGB 0-255, at least 32 pixels each way", "image")
    dims = {"height": 192, "width": 256, "style_height": 160, "style_width": 208}
    other = ({"height": 97, "width": 130, "style_height": 128, "style_width": 75},)
    return {
        "stylize": Servable(
            call=stylize,
            model=vgg,
            inputs=(content, style, TensorSpec("steps", (), "int32", "gradient steps; 100 to 300 make a picture")),
            outputs=(
                TensorSpec("stylized", size, "uint8", "the photo in the painting's style, RGB 0-255", "image"),
                TensorSpec("loss", (), "float32", "the objective before the last step", atol=1e-3),
            ),
            example=lambda dims, seed: {**_example(dims, seed, "content", "style"), "steps": np.int32(3)},
            dims=dims,
            check_dims=other,
            doc="paints a photo in the style of a painting, by optimisation",
        ),
        "step": Servable(
            call=step,
            model=vgg,
            inputs=(
                TensorSpec("picture", size, "float32", "the picture so far, RGB 0-255; at first the content"),
                TensorSpec("velocity", size, "float32", "what the step before answered; at first zeros"),
                content,
                style,
                TensorSpec("rate", (), "float32", "length of the step, levels of 0-255; 1, falling to 0"),
            ),
            outputs=(
                TensorSpec("next_picture", size, "float32", "the picture after the step", atol=1e-2),
                TensorSpec("next_velocity", size, "float32", "for the next step", atol=1e-2),
                TensorSpec("loss", (), "float32", "the objective of the picture given", atol=1e-3),
            ),
            example=_example_step,
            dims=dims,
            check_dims=other,
            doc="one step of painting a photo in the style of a painting",
        ),
    }


def _example(dims: Mapping[str, int], seed: int, *names: str) -> dict[str, np.ndarray]:
    """Made-up pictures: smooth waves, an edge, grain; `style` at the painting's size."""
    random = np.random.default_rng(seed)
    found = {}
    for name in names:
        prefix = "style_" if name == "style" else ""
        height, width = dims[f"{prefix}height"], dims[f"{prefix}width"]
        y, x = np.mgrid[0:height, 0:width] / max(height, width)
        a, b, phase = random.uniform(4, 40, (3, 2, 3))
        picture = 128 + 60 * np.sin(x[..., None] * a[0] + phase[0]) + 60 * np.sin(y[..., None] * b[1] + phase[1])
        picture[x + y > random.uniform(0.5, 1.2)] *= 0.5
        found[name] = np.clip(picture + random.normal(0, 8, picture.shape), 0, 255).astype("uint8")[None]
    return found


def _example_step(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    pictures = _example(dims, seed, "content", "style")
    random = np.random.default_rng(seed)
    picture = pictures["content"] + random.normal(0, 5, pictures["content"].shape)
    velocity = random.normal(0, 1, picture.shape)
    state = {"picture": picture.astype("float32"), "velocity": velocity.astype("float32")}
    return {**state, **pictures, "rate": np.float32(1.0)}


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, kw_only=True)
class RunOptions(Look):
    """Paint a photo in the style of one or several paintings."""

    content: Annotated[Path, tyro.conf.Positional]
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write."""
    start: Literal["noise", "content", "style"] = "content"
    """What the picture shows at first; noise, the paper's, takes several times as long."""
    start_from: Path | None = None
    """Go on from an earlier result: a picture, or a run folder."""
    method: Literal["lbfgs", "adam", "cg"] = "lbfgs"
    """L-BFGS (paper) needs the fewest evaluations; adam needs the least memory."""
    steps: int = 200
    """Iterations."""
    learning_rate: float = 10.0
    """Of Adam, levels of 0-255."""
    levels: int | None = None
    """Sizes on the way to `size`, each half the next; each larger one gets half the iterations. Left out: as many as
    bring the first down to 256 pixels or less. 1 is the paper's."""
    preview_every: int = 50
    """Iterations between two previews, which are written to --out; 0 for none."""
    log: Path | None = None
    """A new folder for the loss curve (log.csv), all previews, and gallery.html."""


_LARGEST_START = 256


def _run(options: RunOptions) -> RunReport:
    options.validate()
    check(len(options.style) > 0, "a painting: --style PATH", options.style)
    check(options.steps > 0, "steps > 0", options.steps)
    check(options.preview_every >= 0, "preview_every >= 0", options.preview_every)
    check(options.levels is None or options.levels > 0, "levels > 0", options.levels)
    image_size(options.content)
    inputs = {p.resolve() for p in (options.content, *options.style, *options.masks, *options.style_masks)}
    check(options.out.resolve() not in inputs, "a place to write where no input is overwritten", str(options.out))
    values = {f.name: getattr(options, f.name) for f in dataclasses.fields(Look)}
    sizes = _sizes(options)
    configs = [
        Config(
            **{**values, "size": size},
            content=options.content,
            steps=max(1, options.steps // 2**i),
            learning_rate=options.learning_rate,
        )
        for i, size in enumerate(sizes)
    ]
    for config in configs:
        config.validate()
    begin = None if options.start_from is None else _earlier(options.start_from)

    def stage(config: Config) -> Stage:
        def model(before: np.ndarray | None) -> NeuralStyle:
            made = _build(config)
            shown = begin if before is None else before
            if shown is not None:
                made.picture.show(resized(shown, *config.shape))
            return made

        return Stage(config.steps, model)

    done = optimize_picture(
        [stage(config) for config in configs],
        options.out,
        method=options.method,
        finish=_finish(configs[-1]),
        log=options.log,
        preview_every=options.preview_every,
    )
    facts = {
        "size": f"{done.picture.shape[1]} x {done.picture.shape[0]}",
        "method": options.method,
        "iterations": done.steps,
        "evaluations": done.evaluations,
        "loss": f"{done.loss:.5g}",
        **{name: f"{value:.5g}" for name, value in done.terms.items()},
        "seconds": round(done.seconds, 1),
    }
    logged = () if options.log is None else (options.log / "log.csv", options.log / "gallery.html")
    return RunReport((options.out, *logged), facts)


def _sizes(options: RunOptions) -> list[int]:
    """The longer side at each level, coarse to fine."""
    sizes = [options.size]
    while len(sizes) < (options.levels or 99):
        if options.levels is None and sizes[0] <= _LARGEST_START:
            break
        sizes.insert(0, round(sizes[0] / 2))
    return sizes


def _earlier(path: Path) -> np.ndarray:
    """The picture in a file or in a run folder."""
    if not path.is_dir():
        return read_image(path).astype("float32")
    trained = weights.run(path)
    if trained.family != "neural_style":
        raise UsageError(f"expected a picture or a run of neural_style. Received: {path}, a run of {trained.family}.")
    return trained.load()[2].pixels()


# --- experiments ------------------------------------------------------------------------------------------------------


def _objective(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """The objective at a small size: what L-BFGS reaches from white noise, beside Adam, and what becomes of colours.

    The paper has no table; its claim is that the procedure works. Photos are scikit-image's.
    """
    painting = _painting(data, "starry_night")
    size, steps = (64, 60) if quick else (128, 300)
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        photo = _photo("chelsea", Path(folder))
        config = Config(content=photo, style=(painting,), size=size)

        def optimized(config: Config, method: str, steps: int) -> tuple[dict[str, float], Painted, np.ndarray]:
            model = _build(config)
            before = model.terms()
            out = Path(folder, f"{method}.png")
            done = optimize_picture(
                [Stage(steps, lambda _: model)],
                out,
                method=method,
                finish=_finish(config),
                preview_every=0,
                progress=False,
            )
            return before, done, model.pixels()

        before, lbfgs, _ = optimized(config, "lbfgs", steps)
        _, adam, _ = optimized(config, "adam", lbfgs.evaluations)
        grey = dataclasses.replace(config, start="content", colours="luminance")
        _, kept, pixels = optimized(grey, "lbfgs", steps // 5)
        content = _content(config, *config.shape)
        uv = np.abs(to_yuv(with_colours_of(pixels, content)) - to_yuv(content))[..., 1:].max() / 255
        matched = _read_pictures(dataclasses.replace(config, colours="match")).styles[0].reshape(-1, 3)
        wanted = content.reshape(-1, 3)
        moments = max(
            float(np.abs(matched.mean(0) - wanted.mean(0)).max() / 255),
            float(np.abs(np.cov(matched.T) - np.cov(wanted.T)).max() / 255**2),
        )
    drop = before["style"] / lbfgs.terms["style"]
    write_image(figures / "neural_style_curve.png", _curves({"L-BFGS": lbfgs.history[0], "Adam": adam.history[0]}))
    strip = np.concatenate([to_uint8(content), lbfgs.picture, adam.picture, kept.picture], axis=1)
    write_image(figures / "neural_style_objective.png", strip)
    ratio = lbfgs.loss / adam.loss
    evaluations = lbfgs.evaluations
    return [
        Row(
            f"style term of white noise over that after {steps} L-BFGS iterations ({size} px)",
            "not given",
            round(drop, 1),
            ">= 100",
            drop >= 100,
        ),
        Row(
            f"objective after {evaluations} evaluations: L-BFGS's over Adam's, both from noise",
            "L-BFGS works best",
            round(ratio, 4),
            "< 1",
            ratio < 1,
        ),
        Row(
            "luminance only: largest change of U and V before clipping, of 1",
            "colours are kept (CVPR 2017)",
            float(f"{uv:.3g}"),
            "<= 1/255",
            bool(uv <= 1 / 255),
        ),
        Row(
            "colour matching: mean and covariance of the painting against the photo's, of 1",
            "equal (CVPR 2017)",
            float(f"{moments:.3g}"),
            "<= 1e-4",
            moments <= 1e-4,
        ),
    ]


def _paintings(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Two photos of scikit-image in the styles of two paintings, as `kerasmodels run` makes them."""
    size, steps = (96, 30) if quick else (512, 150)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        for name, style in (("chelsea", "starry_night"), ("coffee", "the_scream")):
            photo, out = _photo(name, Path(folder)), figures / f"neural_style_{name}_{style}.jpg"
            options = RunOptions(content=photo, style=(_painting(data, style),), out=out, size=size, steps=steps)
            config = Config(content=photo, style=options.style, size=size, start="content")
            before = _build(config).terms()
            report = _run(dataclasses.replace(options, preview_every=0))
            drop = before["style"] / float(report.facts["style"])
            rows.append(
                Row(
                    f"{name} in the style of {style}, {size} px: style term of the photo over that of the result",
                    "not given",
                    round(drop, 1),
                    ">= 30",
                    drop >= 30,
                )
            )
            result = read_image(out)
            content = to_uint8(_content(config, *result.shape[:2]))
            write_image(out, np.concatenate([content, result], axis=1))
    return rows


def _photo(name: str, folder: Path) -> Path:
    """A photo of scikit-image as a file."""
    try:
        import skimage.data
    except ImportError as error:
        raise DataError("the photos are those of scikit-image: pip install scikit-image.") from error
    return write_image(folder / f"{name}.png", getattr(skimage.data, name)())


def _painting(data: Path | None, name: str) -> Path:
    found = [] if data is None else sorted(p for p in data.rglob(f"{name}.*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(
            "expected --data DIR with pictures of the paintings starry_night and the_scream, found by file name at any "
            f"depth. Received: {data}, which has no {name}."
        )
    return found[0]


def _curves(histories: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Losses over iterations, both on logarithmic scales, with names."""
    image = Image.new("RGB", (640, 400), "white")
    draw = ImageDraw.Draw(image)
    every = np.log10(np.concatenate([np.asarray(h) for h in histories.values()]))
    low, high, longest = every.min(), every.max(), np.log10(max(len(h) for h in histories.values()))
    draw.rectangle((60, 20, 620, 360), outline="black")
    for text, at in (("1", (58, 366)), (f"{10**longest:.0f} iterations", (540, 366))):
        draw.text(at, text, "black")
    for value in (low, high):
        draw.text((6, 354 - 340 * (value - low) / (high - low)), f"{10**value:.3g}", "black")
    for i, (name, history) in enumerate(histories.items()):
        colour = ("#b4532a", "#2a6fb4", "#3a8f4d")[i % 3]
        points = [
            (60 + 560 * np.log10(step) / longest, 360 - 340 * (np.log10(loss) - low) / (high - low))
            for step, loss in enumerate(history, 1)
        ]
        draw.line(points, fill=colour, width=2)
        draw.text((480, 40 + 16 * i), name, colour)
    return np.asarray(image)


FAMILY = Family(
    name="neural_style",
    config=Config,
    variants=VARIANTS,
    model=NeuralStyle,
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "objective": Experiment("L-BFGS from white noise, beside Adam; what becomes of colours", _objective),
        "paintings": Experiment("two photos in the styles of two paintings, at 512 pixels", _paintings),
    },
    preview=_preview,
)
