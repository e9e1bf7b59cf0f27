"""Neural style: pixels are optimized until VGG sees a photo's content in a painting's style.

Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016 (A Neural Algorithm of
Artistic Style, 2015). Colors and regions after Gatys et al.: Controlling Perceptual Factors in Neural Style Transfer,
CVPR 2017. `formulation="course"` is that of DeepLearning.AI's Convolutional Neural Networks, week 4.

Reproduced: the objective and its optimization by L-BFGS from white noise. The picture is the model's only weight.

| departure from the paper | why |
|---|---|
| content term: a quarter of the mean square; `formulation="gatys"` is the paper's half of the sum | same at any size |
| Gram matrices are divided by their own number of positions: E_l where sizes are equal | painting and photo differ |
| `train` uses Adam (rate 10, as the neural-style code); `run` uses L-BFGS, as the paper | `fit` is first-order |
| a total variation term of small weight; 0 is the paper's | less grain from noise |
| large pictures are made coarse to fine (`levels`) | strokes keep their size relative to the picture, in less time |
| served: gradient descent with momentum on the normalized gradient | see `servables.optimization` |
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import Annotated, Literal

import keras
import numpy as np
import tyro
from annotated_types import Interval

from kerasmodels import backbones, runs
from kerasmodels import config as base
from kerasmodels.backbones.sources import layer_names
from kerasmodels.config import NonNegative, NonNegativeInt, Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data import image_size, read_image, read_mask, resized
from kerasmodels.data.color import luminance, match_colors, match_luminance, with_colors_of
from kerasmodels.errors import DataError, UsageError, unknown_name
from kerasmodels.family import Family, RunReport, Servable, Task, without_examples
from kerasmodels.layers import Picture
from kerasmodels.losses.portable import PortableStyle
from kerasmodels.losses.style_transfer import Formulation, StyleTransfer
from kerasmodels.servables.optimization import optimization
from kerasmodels.tasks.optimize import OptimizeOptions, optimize
from kerasmodels.tasks.pictures import check_targets
from kerasmodels.training.picture import PictureModel, Stage, to_uint8

__all__ = ["Config", "Look", "NeuralStyle", "RunOptions", "content_at", "finished", "loss_network", "read_pictures"]


class Look(base.Config):
    """What the picture should look like: the fields that `train` and `run` share."""

    style: tuple[Path, ...] = ()
    """The painting, or several."""
    style_weights: tuple[NonNegative, ...] = ()
    """How much each painting counts; left out, all the same. They are divided by their sum."""
    masks: tuple[Path, ...] = ()
    """One picture a painting, of the content's shape: white where that painting is to be used."""
    style_masks: tuple[Path, ...] = ()
    """One picture a painting, of the painting's shape: white where its style is to be learned from."""

    size: PositiveInt = 512
    """The longer side of the result, pixels."""
    style_scale: Annotated[float, Interval(gt=0, le=8)] = 1.0
    """The paintings' longer side, as a multiple of `size`: smaller means finer strokes."""
    start: Literal["noise", "content", "style"] = "noise"
    """What the picture shows at first (paper: white noise). content converges several times faster."""
    colors: Literal["style", "luminance", "match"] = "style"
    """style: the painting's; luminance: only brightness is painted, the content's colors stay; match: the painting is
    given the content's colors first."""

    network: Literal["vgg19", "vgg16"] = "vgg19"
    """The loss network (paper: VGG19)."""
    vgg: str = "auto"
    """Its weights: auto (vgg19: the normalized ones, as in the paper), a source of `kerasmodels weights`, a file, or
    random."""
    pooling: Literal["avg", "max"] = "avg"
    """The network's poolings (paper: average)."""
    formulation: Formulation = "course"
    """The content term per layer: a quarter of the mean square (course) or half the sum (gatys) of differences; the
    style term is the same in both. relative: both terms as parts of their targets' own size, whatever the network."""
    content_layers: tuple[str, ...] = ("relu4_2",)
    """Layers that must keep the content (paper: conv4_2, which stands for its output after the ReLU)."""
    content_layer_weights: tuple[NonNegative, ...] = ()
    """Weights of these layers; left out, 1 / their number."""
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    """Layers whose Gram matrices must match the painting's."""
    style_layer_weights: tuple[NonNegative, ...] = ()
    """Weights of these layers; left out, 1 / their number (paper: 1/5)."""
    content_weight: NonNegative = 1.0
    """Weight of the content term (alpha). The course's 10 and 40 belong to a network that is not normalized."""
    style_weight: NonNegative = 50.0
    """Weight of the style term (beta)."""
    tv_weight: NonNegative = 1e-4
    """Weight of total variation per value of the picture, squared levels (paper: none)."""

    seed: NonNegativeInt = 0
    """Of the noise."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        for name in ("style_weights", "masks", "style_masks"):
            given = getattr(self, name)
            check(len(given) in (0, len(self.style)), f"as many {name} as paintings, {len(self.style)}", given)
        for layers, weights in (
            (self.content_layers, self.content_layer_weights),
            (self.style_layers, self.style_layer_weights),
        ):
            check(len(weights) in (0, len(layers)), f"a weight for each of the layers {layers}", weights)
            for name in layers:
                if name not in layer_names(self.network):
                    raise unknown_name(f"layer of {self.network}", name, layer_names(self.network))
            check(len(set(layers)) == len(layers), "each layer once", layers)
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        check(not self.style_weights or sum(self.style_weights) > 0, "a positive style weight", self.style_weights)
        least = self.smallest_side
        check(self.size >= least, f"size >= {least}, which the network's poolings need", self.size)

    @property
    def smallest_side(self) -> int:
        """The smallest side that leaves two positions at the deepest layer; with one, there is nothing to reflect."""
        order = layer_names(self.network)
        deepest = max(order.index(name) for name in (*self.content_layers, *self.style_layers))
        return 2 ** (1 + sum(name.startswith("pool") for name in order[: deepest + 1]))


class Config(Look, TrainingConfig):
    """One picture to make with Adam, in a run folder."""

    content: Path | None = None
    """The photo."""
    height: PositiveInt | None = None
    """Height of the result, pixels; left out, by the content's shape and `size`."""
    width: PositiveInt | None = None
    """Width of the result, pixels."""
    steps: PositiveInt = 1000
    """Steps of Adam."""
    batch: Literal[1] = 1
    """There is one picture."""
    learning_rate: Positive = 10.0
    """Of Adam, levels of 0-255."""

    def __post_init__(self) -> None:
        # The shape becomes part of the config, so that a run can be loaded where its content is not.
        if self.content is not None and self.height is None and self.width is None:
            try:
                height, width = image_size(self.content)
            except DataError:
                return  # reading it says what is wrong with it
            for name, side in (("height", height), ("width", width)):
                object.__setattr__(self, name, max(1, round(side * self.size / max(height, width))))

    @property
    def shape(self) -> tuple[int, int]:
        """Height and width of the picture; a square of `size` while nothing else is known."""
        return self.height or self.size, self.width or self.size

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        super().validate()
        check((self.height is None) == (self.width is None), "height and width, or neither", (self.height, self.width))
        check(
            min(self.shape) >= self.smallest_side,
            f"a picture of at least {self.smallest_side} pixels each way, which the network's poolings need",
            f"{self.shape[1]} x {self.shape[0]}",
        )


VARIANTS = {
    "paper": Config(),
    "quick": Config(start="content", size=256, steps=150),
}


# --- the pictures and the loss network --------------------------------------------------------------------------------


@dataclass(frozen=True)
class Pictures:
    """What the objective is made of: content (H, W, 3), styles (h, w, 3), float, 0-255, and masks, 0-1."""

    content: np.ndarray
    styles: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...]
    style_masks: tuple[np.ndarray, ...]


def read_pictures(config: Config) -> Pictures:
    """The pictures of a config at their sizes, their colors treated as the config says.

    Raises:
        UsageError: no content or no painting is named.
        DataError: a picture or mask cannot be used.
    """
    photo = needed(config.content, "a photo to paint: --content PATH")
    needed(config.style or None, "a painting: --style PATH")
    content = content_at(config, *config.shape)
    styles, style_masks = [], []
    for i, path in enumerate(config.style):
        painting = read_image(path)
        scale = config.size * config.style_scale / max(painting.shape[:2])
        height, width = (round(side * scale) for side in painting.shape[:2])
        if min(height, width) < config.smallest_side:
            raise DataError(
                f"expected paintings of at least {config.smallest_side} pixels each way. Received: {path}, which is "
                f"{width} x {height} at style scale {config.style_scale:g}. Raise the scale or the size."
            )
        if config.style_masks:
            style_masks.append(read_mask(config.style_masks[i], painting.shape[:2], (height, width), path))
        styles.append(np.clip(resized(painting, height, width), 0, 255))
    masks = tuple(read_mask(path, config.shape, config.shape, photo) for path in config.masks)
    if config.colors == "luminance":
        styles = [match_luminance(style, content) for style in styles]
        content = luminance(content)
    elif config.colors == "match":
        styles = [match_colors(style, content) for style in styles]
    return Pictures(content, tuple(styles), masks, tuple(style_masks))


def content_at(config: Config, height: int, width: int) -> np.ndarray:
    """The photo at a size, (height, width, 3) float32, 0-255."""
    photo = read_image(needed(config.content, "a photo to paint: --content PATH"), 2 * max(height, width))
    return np.clip(resized(photo, height, width), 0, 255)


def loss_network(look: Look, dtype: str = "float32") -> keras.Model:
    """VGG19 or VGG16, with the layers of the objective as taps.

    Raises:
        UsageError: an unknown layer.
        WeightsError: its weights are missing.
    """
    taps = dict.fromkeys((*look.content_layers, *look.style_layers))
    source: str | None = look.vgg
    if look.vgg == "auto" and look.network == "vgg19":
        source = "normalized"
    build = backbones.VGG19 if look.network == "vgg19" else backbones.VGG16
    return build(taps, weights=None if source == "random" else source, pooling=look.pooling, dtype=dtype)


def _weights(look: Look) -> tuple[dict[str, float], dict[str, float]]:
    """Tap -> weight, of the content and of the style."""
    both = []
    for weight, layers, given in (
        (look.content_weight, look.content_layers, look.content_layer_weights),
        (look.style_weight, look.style_layers, look.style_layer_weights),
    ):
        each = given or [1 / max(1, len(layers))] * len(layers)
        both.append({tap: weight * w for tap, w in zip(layers, each, strict=True)})
    return both[0], both[1]


# --- model ------------------------------------------------------------------------------------------------------------


def _noise(config: Config) -> Picture:
    return Picture(*config.shape, np.random.default_rng(config.seed).uniform(0, 255, (*config.shape, 3)))


@keras.saving.register_keras_serializable("kerasmodels")
class NeuralStyle(PictureModel):
    """The picture, white noise at first. Compiled, it has the objective of the config's photo and paintings.

    Args:
        config, dtype, picture: see `PictureModel`.

    Shapes:
        anything -> (1, H, W, 3), RGB 0-255, not clipped.

    Example:
        >>> import kerasmodels as km
        >>> tuple(km.models.NeuralStyle(km.models.NeuralStyle.Config(height=48, width=64))(None).shape)
        (1, 48, 64, 3)

    Reference:
        Gatys et al. 2016, section 2.
    """

    Config = Config
    family_name = "neural_style"
    networks = {"picture": _noise}  # noqa: RUF012

    def loss_terms(self) -> Sequence[str]:
        return ("loss", "content", "style", "total_variation")

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        # Gradients of a mean over a large picture are as small as Adam's usual epsilon, which would damp the steps.
        return keras.optimizers.Adam(self.config.learning_rate, epsilon=1e-12)

    @cached_property
    def pictures(self) -> Pictures:
        """What the config names, read when first needed. See `read_pictures` for errors."""
        return read_pictures(self.config)

    def initialize(self) -> None:
        """Show what the config says to start with."""
        if self.config.start == "content":
            self.picture.show(self.pictures.content)
        elif self.config.start == "style":
            self.picture.show(resized(self.pictures.styles[0], *self.config.shape))
        super().initialize()

    def default_objective(self) -> StyleTransfer:
        config, pictures = self.config, self.pictures
        return StyleTransfer(
            loss_network(config, self.compute_dtype),
            pictures.content,
            pictures.styles,
            *_weights(config),
            config.tv_weight,
            config.formulation,
            shares=config.style_weights,
            masks=pictures.masks,
            style_masks=pictures.style_masks,
        )


def finished(config: Config, pixels: np.ndarray) -> np.ndarray:
    """Pixels (H, W, 3), 0-255, as a picture, uint8; with `colors="luminance"`, in the content's colors."""
    if config.colors == "luminance":
        pixels = with_colors_of(pixels, content_at(config, *pixels.shape[:2]))
    return to_uint8(pixels)


# --- family -----------------------------------------------------------------------------------------------------------


def _servables(model: NeuralStyle) -> dict[str, Servable]:
    """They hold the loss network. The pixels of a run are its result, and stay."""
    config, vgg = model.config, loss_network(model.config)

    def objective() -> PortableStyle:
        return PortableStyle(vgg, *_weights(config), config.tv_weight, config.formulation)

    return optimization(vgg, objective, rate=config.learning_rate / 10)


class RunOptions(OptimizeOptions, Look):
    """Paint a photo in the style of one or several paintings."""

    content: Annotated[Path, tyro.conf.Positional]
    """The photo."""
    start: Literal["noise", "content", "style"] = "content"
    """What the picture shows at first; noise, the paper's, takes several times as long."""
    start_from: Path | None = None
    """Go on from an earlier result: a picture, or a run folder."""
    steps: PositiveInt = 200
    """Iterations."""
    learning_rate: Positive = 10.0
    """Of Adam, levels of 0-255."""
    levels: PositiveInt | None = None
    """Sizes on the way to `size`, each half the next; each larger one gets half the iterations. Left out: as many as
    bring the first down to 256 pixels or less. 1 is the paper's."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        super().validate()
        check(len(self.style) > 0, "a painting: --style PATH", self.style)
        check_targets([self.out], [self.content, *self.style, *self.masks, *self.style_masks])

    def sizes(self) -> list[int]:
        """The longer side at each level, coarse to fine."""
        sizes = [self.size]
        while len(sizes) < (self.levels or 99) and (self.levels is not None or sizes[0] > _LARGEST_START):
            sizes.insert(0, round(sizes[0] / 2))
        return sizes


_LARGEST_START = 256


def _run(options: RunOptions) -> RunReport:
    image_size(options.content)  # Wrong files are told at once.
    look = Look.part_of(options)
    configs = [
        Config(
            **{**look.to_dict(), "size": size},
            content=options.content,
            steps=max(1, options.steps // 2**i),
            learning_rate=options.learning_rate,
        )
        for i, size in enumerate(options.sizes())
    ]
    begin = None if options.start_from is None else _earlier(options.start_from)

    def stage(config: Config) -> Stage:
        def model(before: np.ndarray | None) -> NeuralStyle:
            made: NeuralStyle = FAMILY.build(config)
            shown = begin if before is None else before
            if shown is not None:
                made.picture.show(resized(shown, *config.shape))
            return made

        return Stage(config.steps, model)

    return optimize(options, [stage(config) for config in configs], partial(finished, configs[-1]))


def _earlier(path: Path) -> np.ndarray:
    """The picture in a file or in a run folder."""
    if not path.is_dir():
        return read_image(path).astype("float32")
    trained = runs.RunFolder(path).trained()
    if trained.family != "neural_style":
        raise UsageError(f"expected a picture or a run of neural_style. Received: {path}, a run of {trained.family}.")
    return trained.load().pixels()


FAMILY = Family(
    name="neural_style",
    config=Config,
    variants=VARIANTS,
    model=NeuralStyle,
    servables=_servables,
    task=Task(RunOptions, _run),
    source=without_examples,
    preview=lambda model: {"picture": finished(model.config, model.pixels())},
)
