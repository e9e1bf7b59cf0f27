"""Super-resolution with perceptual losses: a network that enlarges photos 4 or 8 times and adds what they lack.

Johnson, Alahi, Fei-Fei: Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016, with its
supplementary material. Style transfer, the paper's other half, is `fast_style`.

Reproduced: the networks for x4 and x8 (401,859 and 438,915 parameters), their training against VGG16's features or
against pixels, and that pixels win at PSNR and features at what people see.

| departure from the paper | why |
|---|---|
| output 127.5 + 150 tanh(x) (the paper: tanh, scaled to 0-255) | black and white are reached |
| in all variants but "paper", `residual=True`: added to the bicubic interpolation, without tanh | minutes, not days |
| in these, `blur=(0, 0)`; the paper's is 1 | the benchmarks' pictures at low resolution have none |
| in "feature", it goes on from the preset `pixel`; the paper begins with random weights | minutes, not days |
| "degraded": blur, noise and JPEG of random strength, which the paper does not have | photos as people have them |
| pieces of photos as they are, not shrunk photos of MS-COCO | a few hundred photos suffice |
"""

import dataclasses
import math
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.backbones import VGG16
from kerasmodels.config import NonNegative, NonNegativeInt, Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data import low_resolution_pairs
from kerasmodels.family import Family, Servable, stream
from kerasmodels.layers import PolyphaseConv2D, ResidualBlock, Resize2D
from kerasmodels.losses import Perceptual
from kerasmodels.ops import imresize
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import upscaling
from kerasmodels.tasks.upscale import upscale_task
from kerasmodels.training import devices

__all__ = ["Config", "SuperResolution"]


class Config(TrainingConfig):
    """What to train. The defaults are the paper's."""

    photos: Path | None = None
    """A folder of photos, searched with its subfolders (the paper: 10,000 of MS-COCO)."""
    low: Path | None = None
    """The same photos at low resolution, by name; left out, they are made as blur, noise and jpeg say."""
    scale: Literal[2, 4, 8] = 4
    """By which pictures are enlarged."""
    channels: PositiveInt = 64
    """Of all feature maps."""
    blocks: NonNegativeInt = 4
    """Residual blocks."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """transposed: convolutions of stride 1/2; resize: nearest neighbor, then a convolution."""
    residual: bool = False
    """Add the output to the bicubic interpolation of the picture."""

    objective: Literal["feature", "pixel"] = "feature"
    """feature: what VGG16 sees in two pictures; pixel: their mean squared difference."""
    layer: str = "relu2_2"
    """VGG16 layer of the feature loss."""
    vgg: str = "auto"
    """VGG16 weights: auto, a source of `kerasmodels weights`, or a file."""

    size: PositiveInt = 288
    """Side of the pieces of photos, pixels; a multiple of the scale."""
    blur: tuple[NonNegative, NonNegative] = (1.0, 1.0)
    """Before a photo is shrunk: least and most standard deviation of a Gaussian, pixels."""
    noise: tuple[NonNegative, NonNegative] = (0.0, 0.0)
    """In the shrunk photo: least and most standard deviation, levels of 0-255."""
    jpeg: tuple[PositiveInt, PositiveInt] | None = None
    """Of the shrunk photo: least and most JPEG quality, 1-95; none: no JPEG."""

    steps: PositiveInt = 200_000
    """Training steps (batches)."""
    batch: PositiveInt = 4
    """Pieces a step."""
    warmup_steps: NonNegativeInt = 0
    """Steps over which the learning rate rises from 0."""
    final_learning_rate: Positive | None = None
    """The learning rate decays to this along a cosine; left out, it stays constant, as in the paper."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        check(self.size % self.scale == 0, "size, a multiple of scale", (self.size, self.scale))
        for name in ("blur", "noise", "jpeg"):
            span = getattr(self, name)
            check(span is None or span[0] <= span[1], f"{name}, the least before the most", span)
        check(self.jpeg is None or self.jpeg[1] <= 95, "JPEG qualities of 1 to 95", self.jpeg)
        rate = self.final_learning_rate
        check(self.warmup_steps < self.steps, "warmup_steps < steps", (self.warmup_steps, self.steps))
        check(rate is None or rate <= self.learning_rate, "final_learning_rate <= learning_rate", rate)


_SMALL = Config(
    residual=True,
    objective="pixel",
    blur=(0.0, 0.0),
    size=96,
    batch=4,
    steps=420,
    learning_rate=5e-4,
    warmup_steps=40,
    final_learning_rate=1e-5,
    precision="mixed_bfloat16",
)
VARIANTS = {
    "paper": Config(),
    "x8": Config(scale=8),
    "pixel": _SMALL,
    "quick": dataclasses.replace(_SMALL, start_from="super_resolution/pixel", learning_rate=3e-4, steps=100),
    "feature": dataclasses.replace(
        _SMALL, objective="feature", start_from="super_resolution/pixel", learning_rate=1e-4, steps=60
    ),
    "degraded": dataclasses.replace(
        _SMALL,
        blur=(0.0, 2.0),
        noise=(0.0, 8.0),
        jpeg=(25, 95),
        start_from="super_resolution/pixel",
        learning_rate=3e-4,
        steps=120,
    ),
}


# --- network ----------------------------------------------------------------------------------------------------------


def _network(config: Config) -> keras.Model:
    """RGB 0-255 (N, H, W, 3) -> (N, scale H, scale W, 3): RGB -22.5 to 277.5, or what is added to the interpolation."""
    width = config.channels

    def normalized(x: Any, name: str) -> Any:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
        return layers.ReLU(name=f"{name}_relu")(x)

    def doubled(x: Any, name: str) -> Any:
        if config.upsampling == "resize":
            return layers.Conv2D(width, 3, padding="same", name=name)(Resize2D(2, name=f"{name}_resize")(x))
        # Torch's transposed convolution with padding 1 and output padding 1: samples 1 to 2n of the full result.
        x = layers.Conv2DTranspose(width, 3, 2, padding="valid", name=name)(x)
        return layers.Cropping2D(((1, 0), (1, 0)), name=f"{name}_crop")(x)

    picture = keras.Input((None, None, 3), name="rgb")
    x = layers.Rescaling(1 / 127.5, -1.0, name="to_unit")(picture)
    x = normalized(layers.Conv2D(width, 9, padding="same", name="conv1")(x), "conv1")
    for i in range(1, config.blocks + 1):
        x = ResidualBlock(width, "batch", "same", name=f"block{i}")(x)
    for i in range(1, int(math.log2(config.scale)) + 1):
        x = normalized(doubled(x, f"up{i}"), f"up{i}")
    # Small weights: a network that is added to the interpolation begins as next to nothing.
    start = keras.initializers.RandomNormal(stddev=1e-3, seed=config.seed) if config.residual else "glorot_uniform"
    x = layers.ZeroPadding2D(4, name="conv2_pad")(x)
    x = ops.cast(PolyphaseConv2D(3, 9, kernel_initializer=start, name="conv2")(x), "float32")
    if config.residual:
        # What is added is some levels. A larger factor would multiply each step of the last layer's 5184 weights, too.
        return keras.Model(picture, layers.Rescaling(8.0, dtype="float32", name="to_rgb")(x), name="network")
    return keras.Model(
        picture, layers.Rescaling(150.0, 127.5, dtype="float32", name="to_rgb")(ops.tanh(x)), name="network"
    )


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class SuperResolution(PaperModel):
    """A network that enlarges photos.

    Args:
        config, dtype: see `PaperModel`.
        network: a network of one's own: RGB 0-255 -> what the config's network makes of it, looking no further.

    Shapes:
        (N, H, W, 3) RGB 0-255 -> (N, scale H, scale W, 3), not clipped. `fit` takes pairs of such.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.SuperResolution(km.models.SuperResolution.Config(channels=8, blocks=1))
        >>> tuple(model(np.zeros((1, 24, 31, 3), "float32")).shape)
        (1, 96, 124, 3)

    Reference:
        Johnson et al. 2016, sections 3 and 4.2.
    """

    Config = Config
    family_name = "super_resolution"
    networks = {"network": _network}  # noqa: RUF012
    _parts: Any = None

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        config = self.config
        last = config.learning_rate if config.final_learning_rate is None else config.final_learning_rate
        rate = keras.optimizers.schedules.CosineDecay(
            0.0 if config.warmup_steps else config.learning_rate,
            config.steps - config.warmup_steps,
            alpha=last / config.learning_rate,
            warmup_target=config.learning_rate if config.warmup_steps else None,
            warmup_steps=config.warmup_steps,
        )
        return keras.optimizers.Adam(rate)

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        """Compile with the paper's optimizer and the config's loss, or others.

        Args:
            optimizer, **kwargs: see `PaperModel.compile`.
            loss: of (pictures, network's pictures), RGB 0-255; None for what the config says, where VGG16 computes in
                the dtype that the network computes in.

        Raises:
            UsageError, WeightsError: see `backbones.VGG16`.
        """
        super().compile(optimizer, **kwargs)
        self.loss = _objective(self.config, self.compute_dtype) if loss is None else loss

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        made = self.network(inputs, training=training)
        if not self.config.residual:
            return made
        return ops.add(imresize(ops.cast(inputs, "float32"), self.config.scale), made)

    def train_step(self, data: Any) -> dict[str, Any]:
        """One update on a batch of pairs, at low and at full resolution."""
        low, high, _ = keras.utils.unpack_x_y_sample_weight(devices.not_empty(data))
        # Of each picture: the reduction of a Keras loss would be a device's part already, which `minimize` makes of it.
        each = self.loss.call if isinstance(self.loss, keras.losses.Loss) else self.loss
        with tf.GradientTape() as tape:
            loss = ops.mean(each(high, self(low, training=True)))
        self.minimize("all", loss, tape)
        self.report(loss=loss)
        return self.reported()

    @property
    def reach(self) -> int:
        """How many pixels of a picture around a piece of it the network looks at."""
        return 4 + 2 * self.config.blocks + self._reach_of_upsampling

    @property
    def late_reach(self) -> int:
        """How many of them `late` looks at."""
        return self.reach if "network" in self._given else self._reach_of_upsampling

    @property
    def _reach_of_upsampling(self) -> int:
        before = -4
        for _ in range(int(math.log2(self.config.scale))):
            before = (before - 1) // 2
        return -before

    def upscaled(self, image: Any) -> Any:
        """Pictures enlarged: (N, H, W, 3) RGB 0-255 -> (N, scale H, scale W, 3), not clipped."""
        rgb = ops.cast(image, "float32")
        return self.late(self.early(rgb), rgb)

    def early(self, image: Any) -> Any:
        """What the residual blocks make of pictures, whose reach is large: (N, H, W, 3) -> (N, H, W, channels)."""
        return self._halves()[0](image, training=False)

    def late(self, features: Any, image: Any) -> Any:
        """The rest, which takes most of the memory: what `early` makes, and the pictures, -> pictures enlarged."""
        made = self._halves()[1](features, training=False)
        return ops.add(imresize(image, self.config.scale), made) if self.config.residual else made

    def _halves(self) -> tuple[keras.Model, keras.Model]:
        """The network up to its last residual block, and what follows; one's own follows as a whole."""
        if self._parts is None:
            picture, made = self.network.input, self.network.output
            name = f"block{self.config.blocks}" if self.config.blocks else "conv1_relu"
            parts = keras.Model(picture, picture), self.network
            if "network" not in self._given:
                middle = self.network.get_layer(name).output
                parts = keras.Model(picture, middle), keras.Model(middle, made)
            # Behind a function: Keras would take them for further networks of the model.
            self._parts = lambda: parts
        return self._parts()


def _objective(config: Config, dtype: str) -> Any:
    if config.objective == "pixel":
        return lambda truth, guess: ops.mean(ops.square((guess - truth) / 127.5), axis=(1, 2, 3))
    vgg = VGG16((config.layer,), weights=config.vgg, dtype=dtype)
    # As of 0-255 pictures, whatever the weights take.
    scale = 1 / float(np.mean(np.ravel(vgg.get_layer("preprocess").scale)))
    return Perceptual(vgg, content={config.layer: scale**2})


# --- family -----------------------------------------------------------------------------------------------------------


def _batches(config: Config, start: int) -> tf.data.Dataset:
    photos = needed(config.photos, "a folder of photos: --photos DIR")
    return low_resolution_pairs(
        photos,
        config.scale,
        config.size,
        config.batch,
        config.seed,
        start,
        low=config.low,
        blur=config.blur,
        noise=config.noise,
        jpeg=config.jpeg,
    )


def _servables(model: SuperResolution) -> dict[str, Servable]:
    return {"upscale": upscaling(model.network, model.upscaled, model.config.scale)}


FAMILY = Family(
    name="super_resolution",
    config=Config,
    variants=VARIANTS,
    model=SuperResolution,
    servables=_servables,
    task=upscale_task("super_resolution"),
    source=stream(_batches),
)
