"""What a picture should look like, and how it is made."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasmodels.backbones.sources import layer_names
from kerasmodels.data import image_size
from kerasmodels.errors import DataError, unknown_name
from kerasmodels.family import check

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
    content_layers: tuple[str, ...] = ("relu4_2",)
    """Layers that must keep the content (paper: conv4_2, which stands for its output after the ReLU)."""
    content_layer_weights: tuple[float, ...] = ()
    """Weights of these layers; left out, 1 / their number."""
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
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
            for name in layers:
                if name not in layer_names(self.network):
                    raise unknown_name(f"layer of {self.network}", name, layer_names(self.network))
            check(len(set(layers)) == len(layers), "each layer once", layers)
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        every = (*self.style_weights, *self.content_layer_weights, *self.style_layer_weights)
        every += (self.content_weight, self.style_weight, self.tv_weight)
        check(all(0 <= w < float("inf") for w in every), "weights that are finite and >= 0", every)
        check(not self.style_weights or sum(self.style_weights) > 0, "a positive style weight", self.style_weights)
        check(
            self.size >= smallest_side(self),
            f"size >= {smallest_side(self)}, which the network's poolings need",
            self.size,
        )
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
            min(self.shape) >= smallest_side(self),
            f"a picture of at least {smallest_side(self)} pixels each way, which the network's poolings need",
            f"{self.shape[1]} x {self.shape[0]}",
        )


def smallest_side(look: Look) -> int:
    """The smallest side that leaves two positions at the deepest layer; with one, there is nothing to reflect."""
    order = layer_names(look.network)
    deepest = max(order.index(name) for name in (*look.content_layers, *look.style_layers))
    return 2 ** (1 + sum(name.startswith("pool") for name in order[: deepest + 1]))


VARIANTS = {
    "paper": Config(),
    "quick": Config(start="content", size=256, steps=150),
}
