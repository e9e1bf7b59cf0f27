"""SRCNN: three convolutions that sharpen the luma of a picture which was enlarged by bicubic interpolation.

Dong, Loy, He, Tang: Image Super-Resolution Using Deep Convolutional Networks, PAMI 2016 (ECCV 2014).

Reproduced: the networks 9-1-5, 9-3-5 and 9-5-5 (8,032, 24,416 and 57,184 weights), their training on pieces of photos,
and that they are better than the interpolation they begin with.

| departure from the paper | why |
|---|---|
| pictures are mirrored at their border once; the released code repeats it at each layer | one padding |
| in "quick" and "x4", Adam; the paper: SGD, the last layer ten times slower | minutes, not days |
| in these, `initial="identity"`: the first network passes its input on | it begins as good as bicubic interpolation |
| in these, larger pieces of fewer photos | most of a piece of 33 pixels is border |
"""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from annotated_types import Interval
from keras import layers, ops

from kerasmodels.config import Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data import low_resolution_pairs
from kerasmodels.family import Family, Servable, stream
from kerasmodels.layers import ReflectionPadding2D
from kerasmodels.ops import imresize, rgb_to_luma, rgb_to_ycbcr, ycbcr_to_rgb
from kerasmodels.optimizers import LayerwiseSGD
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import upscaling
from kerasmodels.tasks.upscale import upscale_task

__all__ = ["SRCNN", "Config"]


class Config(TrainingConfig):
    """What to train. The defaults are the paper's."""

    photos: Path | None = None
    """A folder of photos, searched with its subfolders (the paper: 91 of them)."""
    low: Path | None = None
    """The same photos at low resolution, by name; left out, they are made by bicubic interpolation."""
    scale: Annotated[int, Interval(ge=2, le=8)] = 3
    """By which pictures are enlarged."""
    kernels: tuple[PositiveInt, PositiveInt, PositiveInt] = (9, 1, 5)
    """Sides of the three convolutions, pixels; odd."""
    filters: tuple[PositiveInt, PositiveInt] = (64, 32)
    """Of the first two convolutions."""
    initial: Literal["gaussian", "identity"] = "gaussian"
    """gaussian: of standard deviation 0.001; identity: the network passes its input on, among random filters."""
    size: PositiveInt = 33
    """Side of the pieces of photos, pixels."""
    optimizer: Literal["sgd", "adam"] = "sgd"
    """sgd: momentum 0.9, the last layer ten times slower; adam: down to a hundredth of the rate along a cosine."""
    learning_rate: Positive = 1e-4
    """Of the first two layers under sgd; of all under adam."""
    batch: PositiveInt = 128
    """Pieces a step."""
    steps: PositiveInt = 6_250_000
    """Training steps (batches)."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        check(all(k % 2 for k in self.kernels), "odd kernels", self.kernels)
        least = 2 * self.margin + 1
        check(self.size >= least, f"size >= {least}, of which the convolutions leave a pixel", self.size)

    @property
    def margin(self) -> int:
        """Pixels that the convolutions take away on each side."""
        return sum(k // 2 for k in self.kernels)


_QUICK: dict[str, Any] = {
    "initial": "identity",
    "optimizer": "adam",
    "learning_rate": 1e-3,
    "size": 160,
    "batch": 3,
    "steps": 2200,
    "precision": "mixed_bfloat16",
}
VARIANTS = {
    "paper": Config(),
    "large": Config(kernels=(9, 5, 5)),
    "quick": Config(**_QUICK),
    "x4": Config(**{**_QUICK, "steps": 400, "learning_rate": 5e-4}, scale=4, start_from="srcnn/x3"),
}


# --- network ----------------------------------------------------------------------------------------------------------


def _network(config: Config) -> keras.Model:
    """Luma 0-255 (N, H, W, 1), enlarged -> (N, H - 2 margin, W - 2 margin, 1)."""
    start = [keras.initializers.RandomNormal(stddev=0.001, seed=config.seed + i) for i in range(3)]
    if config.initial == "identity":
        start[:2] = [keras.initializers.HeNormal(seed=config.seed + i) for i in range(2)]
        start = [_Identity(each) for each in start]
    x = luma = keras.Input((None, None, 1), name="luma")
    x = layers.Rescaling(1 / 255, name="to_unit")(x)
    widths = (*config.filters, 1)
    for i, (filters, kernel) in enumerate(zip(widths, config.kernels, strict=True)):
        activation = "relu" if i < 2 else None
        x = layers.Conv2D(filters, kernel, activation=activation, kernel_initializer=start[i], name=f"conv{i + 1}")(x)
    return keras.Model(luma, layers.Rescaling(255.0, dtype="float32", name="to_luma")(x), name="network")


class _Identity(keras.initializers.Initializer):
    """The first filter passes the first channel on; the others are another initializer's."""

    def __init__(self, others: keras.initializers.Initializer):
        self.others = others

    def __call__(self, shape: Any, dtype: Any = None, **kwargs: Any) -> Any:
        kernel = np.array(ops.convert_to_numpy(self.others(shape, dtype)))
        kernel[..., 0] = 0
        kernel[shape[0] // 2, shape[1] // 2, 0, 0] = 1
        if shape[3] == 1:
            others = np.array(ops.convert_to_numpy(self.others(shape, dtype)))
            kernel[:, :, 1:, 0] = others[:, :, 1:, 0]
        return ops.convert_to_tensor(kernel)


# --- model ------------------------------------------------------------------------------------------------------------


def _half_squares(truth: Any, guess: Any) -> Any:
    """Half the sum of squared differences, white being 1, of each example: the loss of the released code."""
    return 0.5 * ops.sum(ops.square((ops.cast(guess, "float32") - ops.cast(truth, "float32")) / 255.0), axis=(1, 2, 3))


@keras.saving.register_keras_serializable("kerasmodels")
class SRCNN(PaperModel):
    """Three convolutions over the enlarged luma.

    Args:
        config, dtype: see `PaperModel`.
        network: a network of one's own: luma 0-255 -> luma 0-255, `config.margin` pixels smaller on each side.

    Shapes:
        (N, H, W, 1), luma 0-255 of BT.601's studio range, enlarged by bicubic interpolation -> (N, H - 2 m, W - 2 m, 1)
        with m = `config.margin`. `fit` takes pairs of such. `upscaled` takes RGB pictures.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.SRCNN()
        >>> tuple(model(np.zeros((1, 33, 33, 1), "float32")).shape), sum(w.size for w in model.get_weights())
        ((1, 21, 21, 1), 8129)

    Reference:
        Dong et al. 2016, section 3.
    """

    Config = Config
    family_name = "srcnn"
    networks = {"network": _network}  # noqa: RUF012

    def loss_terms(self) -> Sequence[str]:
        return ()

    def default_loss(self) -> Any:
        return _half_squares

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        config = self.config
        if config.optimizer == "sgd":
            return LayerwiseSGD(config.learning_rate, 0.9, factors={"conv3": 0.1})
        return keras.optimizers.Adam(keras.optimizers.schedules.CosineDecay(config.learning_rate, config.steps, 0.01))

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    @property
    def reach(self) -> int:
        """How many pixels of a picture around a piece of it `upscaled` looks at."""
        return 1 - math.floor((0.5 - self.config.margin) / self.config.scale - 0.5)

    late_reach = reach
    """All of it is `late`'s."""

    def upscaled(self, image: Any) -> Any:
        """Pictures enlarged: (N, H, W, 3) RGB 0-255 -> (N, scale H, scale W, 3), not clipped."""
        return self.late(self.early(image), image)

    def early(self, image: Any) -> Any:
        """What is done at low resolution: pictures -> Y, Cb, Cr."""
        return rgb_to_ycbcr(image)

    def late(self, features: Any, image: Any) -> Any:
        """What is done at full resolution: Y, Cb, Cr -> pictures enlarged."""
        large = imresize(features, self.config.scale)
        luma = self.network(ReflectionPadding2D(self.config.margin, dtype="float32")(large[..., :1]), training=False)
        return ycbcr_to_rgb(ops.concatenate([luma, large[..., 1:]], axis=-1))


# --- family -----------------------------------------------------------------------------------------------------------


def _batches(config: Config, start: int) -> tf.data.Dataset:
    photos = needed(config.photos, "a folder of photos: --photos DIR")
    scale, margin = config.scale, config.margin
    # The pieces at low resolution have whole pixels; what is more than asked for is cut off.
    side = math.ceil(config.size / scale) * scale

    def luma(low: tf.Tensor, high: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        enlarged = imresize(rgb_to_luma(low), scale)[:, : config.size, : config.size]
        return enlarged, rgb_to_luma(high)[:, margin : config.size - margin, margin : config.size - margin]

    pairs = low_resolution_pairs(photos, scale, side, config.batch, config.seed, start, low=config.low)
    return pairs.map(luma, num_parallel_calls=1).prefetch(2)


def _servables(model: SRCNN) -> dict[str, Servable]:
    return {"upscale": upscaling(model.network, model.upscaled, model.config.scale)}


FAMILY = Family(
    name="srcnn",
    config=Config,
    variants=VARIANTS,
    model=SRCNN,
    servables=_servables,
    task=upscale_task("srcnn"),
    source=stream(_batches),
)
