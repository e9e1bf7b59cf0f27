"""Fast style transfer: one forward pass repaints a photo in the style of the painting the network was trained for.

Johnson, Alahi, Fei-Fei: Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016, with its
supplementary material; the released code is jcjohnson/fast-neural-style; instance normalization after Ulyanov,
Vedaldi, Lempitsky 2016.

Reproduced: the transformation network (1,679,235 parameters), its training on any folder of photos against a VGG16 loss
network, and the claim that one pass reaches the objective that hundreds of optimization steps reach.

| departure from the paper | why |
|---|---|
| instance normalization; the paper's is `normalization="batch"` | the released code's default |
| content at relu3_3; the paper's text says relu2_2 (`content_layer`) | the released code's default |
| VGG's features are taken to the scale of 0-255 pictures | one set of loss weights for all weights of VGG |
| output 127.5 + 150 tanh(x); the released code adds VGG's channel means | no constant of the loss network is served |
| in all variants but "paper", `upsampling="resize"`: nearest resize, then a convolution | no checkerboard |
| in "mobile", `padding="reflect"`: around every convolution, not 40 pixels around the picture | half the arithmetic |
| photos are cropped at random; the paper takes whole COCO pictures, resized | a few hundred photos suffice |
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from annotated_types import Ge
from keras import layers, ops

from kerasmodels.backbones import VGG16
from kerasmodels.backbones.sources import layer_names
from kerasmodels.config import NonNegative, NonNegativeInt, Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data import list_images, photo_crops, read_image
from kerasmodels.errors import DataError
from kerasmodels.family import Family, RunReport, Servable, Task, stream
from kerasmodels.layers import (
    DoublingConv2DTranspose,
    InstanceNormalization,
    PolyphaseConv2D,
    ReflectionPadding2D,
    ResidualBlock,
    Resize2D,
)
from kerasmodels.losses import Perceptual
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import image_to_image, served
from kerasmodels.tasks.pictures import PicturesOptions, change_pictures, check_memory

__all__ = ["Config", "FastStyle", "perceptual_loss", "stylize"]


class Config(TrainingConfig):
    """What to train. The defaults are the paper's, or the released code's where the two differ."""

    style: Path | None = None
    """The painting: a picture file."""
    photos: Path | None = None
    """A folder of photos to train on (the paper: 80,000 of MS-COCO; a few hundred do)."""

    channels: tuple[PositiveInt, PositiveInt, PositiveInt] = (32, 64, 128)
    """Channels at full, half and quarter size."""
    blocks: NonNegativeInt = 5
    """Residual blocks."""
    end_kernel: PositiveInt = 9
    """Kernel of the first and the last convolution, pixels; odd."""
    normalization: Literal["instance", "batch"] = "instance"
    """After every convolution but the last. Batch normalization folds away and survives int8."""
    padding: Literal["start", "reflect"] = "start"
    """start: reflect the picture by 40 pixels, residual blocks without padding; reflect: around every convolution."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """transposed: convolution of stride 1/2; resize: nearest neighbor, then a convolution."""

    size: Annotated[int, Ge(32)] = 256
    """Side of the training crops, pixels; a multiple of 4."""
    style_size: Annotated[int, Ge(32)] = 256
    """The painting's longer side is shrunk to this, pixels: smaller means finer strokes."""
    content_layer: str = "relu3_3"
    """VGG16 layer that must keep the photo's content."""
    content_weight: NonNegative = 1.0
    """Weight of the content term."""
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    """VGG16 layers whose Gram matrices must match the painting's."""
    style_weight: NonNegative = 5.0
    """Weight of each style layer."""
    tv_weight: NonNegative = 1e-6
    """Weight of total variation: 1e-6 to 1e-4."""
    vgg: str = "auto"
    """VGG16 weights: auto, a source of `kerasmodels weights`, or a file."""

    steps: PositiveInt = 40000
    """Training steps (batches)."""
    batch: PositiveInt = 4
    """Photos a step."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0. Adam's first steps can drive tanh into saturation for good."""
    final_learning_rate: Positive | None = None
    """After the warmup the learning rate falls to this along a cosine; left out, it stays constant, as in the paper."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        check(self.end_kernel % 2 == 1, "an odd end_kernel", self.end_kernel)
        check(self.size % 4 == 0, "size, a multiple of 4", self.size)
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        check(self.warmup_steps < self.steps, "warmup_steps < steps", (self.warmup_steps, self.steps))
        rates = (self.last_rate, self.learning_rate)
        check(rates[0] <= rates[1], "final_learning_rate <= learning_rate", rates)

    @property
    def last_rate(self) -> float:
        """The learning rate at the end."""
        return self.learning_rate if self.final_learning_rate is None else self.final_learning_rate


_MOBILE = Config(
    channels=(16, 32, 48),
    end_kernel=5,
    padding="reflect",
    upsampling="resize",
    size=160,
    style_size=384,
    style_weight=40.0,
    tv_weight=3e-5,
    warmup_steps=100,
    final_learning_rate=1e-5,
    precision="mixed_bfloat16",
    steps=3000,
)
VARIANTS = {
    "paper": Config(),
    "mobile": _MOBILE,
    "quick": dataclasses.replace(_MOBILE, start_from="fast_style/wave", size=128, steps=600),
}


# --- network ----------------------------------------------------------------------------------------------------------


def _transformation_network(config: Config) -> keras.Model:
    """RGB 0-255 (N, H, W, 3) -> RGB (N, H, W, 3), -22.5 to 277.5; H and W multiples of 4."""
    full, half, quarter = config.channels
    reflect = config.padding == "reflect"

    def normalized(x: Any, name: str) -> Any:
        if config.normalization == "instance":
            x = InstanceNormalization(name=f"{name}_norm")(x)
        else:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def padded(x: Any, pixels: int, name: str) -> Any:
        return (ReflectionPadding2D if reflect else layers.ZeroPadding2D)(pixels, name=f"{name}_pad")(x)

    def convolution(x: Any, filters: int, kernel: int, name: str, strides: int = 1) -> Any:
        x = padded(x, kernel // 2, name) if kernel > 1 else x
        return layers.Conv2D(filters, kernel, strides, name=name)(x)

    def upsampled(x: Any, filters: int, name: str) -> Any:
        if config.upsampling == "transposed":
            return DoublingConv2DTranspose(filters, name=name)(x)
        return convolution(Resize2D(2, name=f"{name}_resize")(x), filters, 3, name)

    x = picture = keras.Input((None, None, 3), name="rgb")
    x = layers.Rescaling(1 / 127.5, -1.0, name="to_unit")(x)
    if not reflect:
        # Every residual block takes away 4 pixels at quarter size on each axis.
        x = ReflectionPadding2D(8 * config.blocks, name="start_pad")(x)
    x = normalized(convolution(x, full, config.end_kernel, "conv1"), "conv1")
    x = normalized(convolution(x, half, 3, "down1", strides=2), "down1")
    x = normalized(convolution(x, quarter, 3, "down2", strides=2), "down2")
    for i in range(1, config.blocks + 1):
        x = ResidualBlock(quarter, config.normalization, "reflect" if reflect else "valid", name=f"block{i}")(x)
    x = normalized(upsampled(x, half, "up1"), "up1")
    x = normalized(upsampled(x, full, "up2"), "up2")
    x = padded(x, config.end_kernel // 2, "conv2") if config.end_kernel > 1 else x
    # Conv2D, computed in half the time where there are only three filters.
    x = ops.tanh(ops.cast(PolyphaseConv2D(3, config.end_kernel, name="conv2")(x), "float32"))
    x = layers.Rescaling(150.0, 127.5, dtype="float32", name="to_rgb")(x)
    return keras.Model(picture, x, name="transformation")


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class FastStyle(PaperModel):
    """The transformation network. `fit` on photos trains it against what VGG16 sees in them and in a painting.

    Args:
        config, dtype: see `PaperModel`.
        network: a transformation network of one's own: RGB 0-255 -> RGB.

    Shapes:
        (N, H, W, 3) RGB 0-255 -> (N, H, W, 3) RGB, -22.5 to 277.5 (clip it to 0-255); H and W multiples of 4. `fit`
        takes photos of this form, or pairs (input, photo whose content its output must have).

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.FastStyle(km.models.FastStyle.Config(channels=(4, 8, 8)))
        >>> tuple(model(np.zeros((1, 64, 48, 3), "float32")).shape)
        (1, 64, 48, 3)

    Reference:
        Johnson et al. 2016, section 3.
    """

    Config = Config
    family_name = "fast_style"
    networks = {"network": _transformation_network}  # noqa: RUF012

    def loss_terms(self) -> Sequence[str]:
        return ("loss", "content", "style", "total_variation")

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        config, rate = self.config, self.config.learning_rate
        if config.warmup_steps or config.last_rate < rate:
            # From 0 (or, without a warmup, from the learning rate) up to the learning rate, then down to the last.
            rate = keras.optimizers.schedules.CosineDecay(
                0.0 if config.warmup_steps else rate,
                config.steps - config.warmup_steps,
                alpha=config.last_rate / rate,
                warmup_target=rate if config.warmup_steps else None,
                warmup_steps=config.warmup_steps,
            )
        return keras.optimizers.Adam(rate)

    def compile(self, optimizer: Any = None, loss: Perceptual | None = None, **kwargs: Any) -> None:
        """Compile with the paper's optimizer and loss, or others.

        Args:
            optimizer, **kwargs: see `PaperModel.compile`.
            loss: None for `perceptual_loss(config)`, in the dtype that the network computes in.

        Raises:
            UsageError, DataError, WeightsError: see `perceptual_loss`.
        """
        super().compile(optimizer, **kwargs)
        self.loss = perceptual_loss(self.config, self.compute_dtype) if loss is None else loss

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update, on a batch of photos or of pairs (photos, photos whose content is wanted)."""
        photos, targets, _ = self.unpacked(data)
        with tf.GradientTape() as tape:
            terms = self.loss.terms(photos if targets is None else targets, self(photos, training=True))
            loss = ops.mean(sum(terms.values()))
        self.minimize("all", loss, tape)
        self.report(loss=loss, **terms)
        return self.reported()


def perceptual_loss(config: Config, dtype: str = "float32") -> Perceptual:
    """The loss of the config's painting, on RGB 0-255 pictures; VGG16 computes in `dtype`.

    Raises:
        UsageError: no painting is named, or an unknown layer.
        DataError: the painting cannot be read, or is a thin strip.
        WeightsError: VGG16 weights are missing.
    """
    painting = read_image(needed(config.style, "a painting: --style PATH"), max_side=config.style_size)
    taps = dict.fromkeys((config.content_layer, *config.style_layers))
    height, width = painting.shape[:2]
    names = layer_names("vgg16")
    seen = names[: max((names.index(tap) for tap in taps if tap in names), default=0) + 1]
    least = 2 ** sum(name.startswith("pool") for name in seen)
    if min(height, width) < least:
        raise DataError(
            f"expected a painting of at least {least} pixels each way, which the network's poolings need. Received: "
            f"{config.style}, which is {width} x {height} at --style-size {config.style_size}. Crop it, or raise that."
        )
    vgg = VGG16(taps, weights=config.vgg, dtype=dtype)
    # Features grow in proportion to the pictures' scale, contents with its square and Gram distances with its fourth
    # power. The weights of the loss are meant for 0-255.
    scale = 1 / float(np.mean(np.ravel(vgg.get_layer("preprocess").scale)))
    return Perceptual(
        vgg,
        painting,
        content={config.content_layer: config.content_weight * scale**2},
        style=dict.fromkeys(config.style_layers, config.style_weight * scale**4),
        total_variation_weight=config.tv_weight,
    )


def stylize(model: FastStyle, picture: np.ndarray) -> np.ndarray:
    """A picture repainted: (H, W, 3) uint8 -> (H, W, 3) uint8.

    Raises:
        DataError: it is too large for the memory that is free.
    """
    # Of the full-size feature maps 7 are alive at once, at most (6.2 measured with `mobile`, 3.4 with `paper`).
    check_memory(picture, 7 * 4 * model.config.channels[0])
    return served(model, "stylize")(image=picture[None])["stylized"][0]


# --- family -----------------------------------------------------------------------------------------------------------


def _batches(config: Config, start: int) -> tf.data.Dataset:
    photos = needed(config.photos, "a folder of photos: --photos DIR")
    return photo_crops(photos, config.size, config.batch, config.seed, start)


def _servables(model: FastStyle) -> dict[str, Servable]:
    return {
        "stylize": image_to_image(
            model.network,
            lambda image: model.network(tf.cast(image, tf.float32), training=False),
            output="stylized",
            doc="repaints pictures in the style of one painting",
            multiple=4,
            what=("RGB pictures", "the same pictures repainted"),
        )
    }


def _preview(model: FastStyle) -> dict[str, np.ndarray]:
    """The first photos of the training folder, each beside its repainting."""
    photos = {path.stem: read_image(path, max_side=model.config.size) for path in list_images(model.config.photos)[:2]}
    return {name: np.concatenate([photo, stylize(model, photo)], axis=1) for name, photo in photos.items()}


class StylizeOptions(PicturesOptions):
    """Repaint photos, folders of photos, or videos."""


def _run(options: StylizeOptions) -> RunReport:
    trained = options.trained("fast_style")

    def load() -> Any:
        model = trained.load()
        return lambda picture: stylize(model, picture)

    return change_pictures(options, load, model=trained.name)


FAMILY = Family(
    name="fast_style",
    config=Config,
    variants=VARIANTS,
    model=FastStyle,
    servables=_servables,
    task=Task(StylizeOptions, _run),
    source=stream(_batches),
    preview=_preview,
)
