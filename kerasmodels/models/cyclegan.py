"""CycleGAN: translation between two domains of pictures, learned from two folders without any pairs.

Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017; the
authors' PyTorch code, whose weights `kerasmodels.ports.cyclegan` reads.

Reproduced: generators of 9 and 6 blocks (11,378,179 and 7,837,699 parameters), the 70 x 70 PatchGAN discriminator
(2,764,737), least squares, cycle consistency and identity losses, the pool of 50 pictures, the linear decay, the order
of updates.

| departure from the paper | why |
|---|---|
| crops of 60 to 100 % of a photo's shorter side; the code cuts 256 of 286 pixels | one stream for all families |
| steps instead of epochs; the rate is constant for the first half of them | folders of any length |
| in all variants but "paper", `upsampling="resize"`: nearest resize, then a convolution | no checkerboard |
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.config import NonNegative, NonNegativeInt, Positive, PositiveInt, TrainingConfig, check
from kerasmodels.data import unpaired
from kerasmodels.errors import DataError
from kerasmodels.family import Family, Servable, stream
from kerasmodels.layers import InstanceNormalization, PolyphaseConv2D, ReflectionPadding2D, ResidualBlock, Resize2D
from kerasmodels.losses.adversarial import LEAST_SQUARES, cycle_consistency
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import DIRECTIONS, translation
from kerasmodels.tasks.translate import translate_task, translations
from kerasmodels.training.image_pool import ImagePool

__all__ = ["Config", "CycleGAN"]


class Config(TrainingConfig):
    """What to train. The defaults are the paper's."""

    a: Path | None = None
    """A folder of pictures of domain A."""
    b: Path | None = None
    """A folder of pictures of domain B; nothing needs to match."""

    filters: PositiveInt = 64
    """Channels of the generators at full size; four times as many in the residual blocks."""
    blocks: NonNegativeInt = 9
    """Residual blocks (the paper: 6 for 128 pixels, 9 from 256 on)."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """transposed: convolution of stride 1/2; resize: nearest neighbor, then a convolution."""
    discriminator_filters: PositiveInt = 64
    """Channels of the discriminators' first layer."""

    size: int = 256
    """Side of the training crops, pixels."""
    cycle_weight: NonNegative = 10.0
    """Of the mean absolute difference between a picture and its reconstruction."""
    identity_weight: NonNegative = 0.5
    """As a part of cycle_weight: what a generator may change of pictures that are of its target domain already."""
    adversarial_weight: NonNegative = 1.0
    """Of the discriminators' part in the generators' loss."""
    pool: NonNegativeInt = 50
    """Generated pictures of earlier steps that the discriminators are shown again."""

    steps: PositiveInt = 200000
    """Training steps (batches)."""
    batch: PositiveInt = 1
    """Pictures of each domain in a step."""
    learning_rate: Positive = 2e-4
    """Of Adam (0.5, 0.999); it falls to 0 over the second half of the steps."""

    def validate(self) -> None:
        """Raise UsageError unless the size suits the networks' strides."""
        check(self.size >= 32 and self.size % 4 == 0, "size, a multiple of 4 and at least 32", self.size)


VARIANTS = {
    "paper": Config(),
    "paper_128": Config(blocks=6, size=128),
    "mobile": Config(
        filters=24,
        blocks=6,
        upsampling="resize",
        discriminator_filters=32,
        size=128,
        steps=10000,
        precision="mixed_bfloat16",
    ),
    "quick": Config(filters=12, blocks=3, upsampling="resize", discriminator_filters=16, size=64, steps=600),
}


# --- networks ---------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class _WithoutFirst(layers.Layer):
    """Without the first row and the first column: `Cropping2D`, whose gradient uses one core only."""

    def call(self, inputs: Any) -> Any:
        return tf.slice(inputs, (0, 1, 1, 0), (-1, -1, -1, -1))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, *sizes, c = input_shape
        return (n, *(None if size is None else size - 1 for size in sizes), c)


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, 0.02)


def _generator(config: Config, name: str) -> keras.Model:
    """(N, H, W, 3), -1 to 1 -> the same; H and W multiples of 4."""

    def convolution(x: Any, filters: int, kernel: int, label: str, strides: int = 1, reflect: bool = False) -> Any:
        around = ReflectionPadding2D if reflect else layers.ZeroPadding2D
        x = around(kernel // 2, name=f"{name}_{label}_pad")(x)
        options: dict[str, Any] = {"kernel_initializer": _normal(), "name": f"{name}_{label}"}
        if filters == 3:
            return PolyphaseConv2D(filters, kernel, **options)(x)
        return layers.Conv2D(filters, kernel, strides, **options)(x)

    def normalized(x: Any, label: str) -> Any:
        x = InstanceNormalization(center=False, scale=False, name=f"{name}_{label}_norm")(x)
        return layers.ReLU(name=f"{name}_{label}_relu")(x)

    def upsampled(x: Any, filters: int, label: str) -> Any:
        if config.upsampling == "resize":
            return convolution(Resize2D(2, name=f"{name}_{label}_resize")(x), filters, 3, label)
        # Torch's transposed convolution with padding 1 and output padding 1: samples 1 to 2n of the full result.
        x = layers.Conv2DTranspose(filters, 3, 2, kernel_initializer=_normal(), name=f"{name}_{label}")(x)
        return _WithoutFirst(name=f"{name}_{label}_crop")(x)

    x = picture = keras.Input((None, None, 3), name="picture")
    x = normalized(convolution(x, config.filters, 7, "first", reflect=True), "first")
    for i in (1, 2):
        x = normalized(convolution(x, config.filters * 2**i, 3, f"down{i}", strides=2), f"down{i}")
    for i in range(config.blocks):
        x = ResidualBlock(4 * config.filters, "instance", "reflect", affine=False, name=f"{name}_block{i + 1}")(x)
    for i in (1, 0):
        x = normalized(upsampled(x, config.filters * 2**i, f"up{2 - i}"), f"up{2 - i}")
    x = convolution(x, 3, 7, "last", reflect=True)
    return keras.Model(picture, ops.tanh(ops.cast(x, "float32")), name=name)


def _discriminator(config: Config, name: str) -> keras.Model:
    """(N, H, W, 3), -1 to 1 -> (N, h, w, 1): a score for each window of 70 x 70 pixels, 8 pixels apart."""
    x = picture = keras.Input((None, None, 3), name="picture")
    layout = [(1, 2, False), (2, 2, True), (4, 2, True), (8, 1, True), (0, 1, False)]
    for i, (factor, strides, norm) in enumerate(layout):
        x = layers.ZeroPadding2D(1, name=f"{name}_{i}_pad")(x)
        filters = factor * config.discriminator_filters or 1
        x = layers.Conv2D(filters, 4, strides, kernel_initializer=_normal(), name=f"{name}_{i}")(x)
        if norm:
            x = InstanceNormalization(center=False, scale=False, name=f"{name}_{i}_norm")(x)
        if factor:
            x = layers.LeakyReLU(0.2, name=f"{name}_{i}_relu")(x)
    return keras.Model(picture, ops.cast(x, "float32"), name=name)


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class CycleGAN(PaperModel):
    """Two generators and two discriminators. Called, it translates from domain A to domain B.

    Args:
        config, dtype: see `PaperModel`.
        a_to_b, b_to_a: networks of one's own: (N, H, W, 3), -1 to 1 -> the same.
        discriminator_a, discriminator_b: networks of one's own: (N, H, W, 3) -> (N, ...) scores.

    Shapes:
        (N, H, W, 3) RGB 0-255 -> (N, H, W, 3) RGB 0-255; H and W multiples of 4. `fit` takes pairs (a, b) of such
        batches, all of one size, in which nothing needs to match: `data.unpaired`, or two arrays.

    Raises:
        DataError: in `fit`, pictures whose size is not known before they are read, or which changes; `pool=0` takes
            them.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.CycleGAN(km.models.CycleGAN.Config(filters=4, blocks=1, discriminator_filters=4))
        >>> tuple(model(np.zeros((1, 32, 40, 3), "float32")).shape)
        (1, 32, 40, 3)

    Reference:
        Zhu et al. 2017, equations 1 to 4.
    """

    Config = Config
    family_name = "cyclegan"
    one_device = "its discriminators are shown pictures from one pool of earlier ones"
    networks = {  # noqa: RUF012
        **{name: partial(_generator, name=name) for name in DIRECTIONS},
        **{name: partial(_discriminator, name=name) for name in ("discriminator_a", "discriminator_b")},
    }

    def __init__(self, config: Any = None, **kwargs: Any) -> None:
        super().__init__(config, **kwargs)
        self._pools: dict[str, ImagePool] = {}

    def loss_terms(self) -> Sequence[str]:
        return ("loss", "adversarial", "cycle", "identity", "discriminator_a", "discriminator_b")

    def optimizer_groups(self) -> dict[str, list[keras.Variable]]:
        return {
            "generators": [*self.a_to_b.trainable_variables, *self.b_to_a.trainable_variables],
            "discriminators": [*self.discriminator_a.trainable_variables, *self.discriminator_b.trainable_variables],
        }

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        half, rate = self.config.steps // 2, self.config.learning_rate
        if half:
            rate = _ConstantThenLinear(rate, half, self.config.steps - half)
        return keras.optimizers.Adam(rate, beta_1=0.5, beta_2=0.999)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return _to_rgb(self.a_to_b(_unit(inputs), training=training))

    def train_step(self, data: Any) -> dict[str, Any]:
        """The generators' update, then the discriminators'."""
        a, b, *_ = (_unit(pictures) for pictures in data)
        config = self.config
        with tf.GradientTape() as tape:
            if config.identity_weight:
                # Each generator is given pictures of its target domain, too.
                (fake_b, same_b), (fake_a, same_a) = _both(self.a_to_b, a, b), _both(self.b_to_a, b, a)
                identity = cycle_consistency(b, same_b) + cycle_consistency(a, same_a)
            else:
                fake_b, fake_a, identity = self.a_to_b(a, training=True), self.b_to_a(b, training=True), tf.zeros(())
            adversarial = LEAST_SQUARES.generator(self.discriminator_b(fake_b))
            adversarial += LEAST_SQUARES.generator(self.discriminator_a(fake_a))
            reconstructed_a, reconstructed_b = self.b_to_a(fake_b, training=True), self.a_to_b(fake_a, training=True)
            cycle = cycle_consistency(a, reconstructed_a) + cycle_consistency(b, reconstructed_b)
            loss = config.adversarial_weight * adversarial + config.cycle_weight * cycle
            loss += config.cycle_weight * config.identity_weight * identity
        self.minimize("generators", loss, tape)
        fake_a, fake_b = self._pooled("a", fake_a), self._pooled("b", fake_b)
        with tf.GradientTape() as tape:
            loss_a = LEAST_SQUARES.discriminator(*_both(self.discriminator_a, a, fake_a))
            loss_b = LEAST_SQUARES.discriminator(*_both(self.discriminator_b, b, fake_b))
            discriminators = loss_a + loss_b
        self.minimize("discriminators", discriminators, tape)
        self.report(loss=loss, adversarial=adversarial, cycle=cycle, identity=identity)
        self.report(discriminator_a=loss_a, discriminator_b=loss_b)
        return self.reported()

    def _pooled(self, domain: str, fake: Any) -> Any:
        """Generated pictures, some of them exchanged for those of earlier steps."""
        if not self.config.pool:
            return fake
        shape = tuple(fake.shape[1:])
        if None in shape or (domain in self._pools and self._pools[domain].shape != shape):
            raise DataError(
                "expected pictures of one size, known before they are read, for the pool of generated ones. "
                f"Received shape: {tuple(fake.shape)}. Set it with tf.ensure_shape, compile anew for another one, or "
                "train with pool=0."
            )
        return self._pool(domain, shape)(fake)

    def _pool(self, domain: str, shape: tuple[int, ...]) -> ImagePool:
        if domain not in self._pools:
            self._pools[domain] = ImagePool(self.config.pool, shape, self.seed_generator)
        return self._pools[domain]

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer, loss, **kwargs)
        self._pools = {}

    def training_state(self) -> dict[str, np.ndarray]:
        """The pools, for checkpoints."""
        return {f"{domain}/{key}": value for domain, pool in self._pools.items() for key, value in pool.state().items()}

    def set_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `training_state()` back."""
        for domain in {key.partition("/")[0] for key in state}:
            kept = {key: state[f"{domain}/{key}"] for key in ("kept", "count")}
            self._pool(domain, kept["kept"].shape[1:]).set_state(kept)


def _both(network: keras.Model, first: Any, second: Any) -> list[Any]:
    """The network's outputs for two batches, in one pass, which takes less time than two."""
    together = network(tf.concat([first, second], axis=0), training=True)
    return tf.split(together, [tf.shape(first)[0], tf.shape(second)[0]], num=2)


def _unit(pictures: Any) -> Any:
    return ops.cast(pictures, "float32") / 127.5 - 1.0


def _to_rgb(pictures: Any) -> Any:
    return ops.clip(127.5 + 127.5 * pictures, 0.0, 255.0)


@keras.saving.register_keras_serializable("kerasmodels")
class _ConstantThenLinear(keras.optimizers.schedules.LearningRateSchedule):
    """`rate` for `constant` steps, then along a line to 0, which the step after the last would have."""

    def __init__(self, rate: float, constant: int, falling: int):
        super().__init__()
        self.rate, self.constant, self.falling = rate, constant, falling

    def __call__(self, step: Any) -> Any:
        done = ops.maximum(ops.cast(step, "float32") - self.constant, 0.0)
        return self.rate * ops.maximum(1.0 - done / self.falling, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "constant": self.constant, "falling": self.falling}


# --- family -----------------------------------------------------------------------------------------------------------


def _batches(config: Config, start: int) -> tf.data.Dataset:
    return unpaired(config.a, config.b, config.size, config.batch, config.seed, start)


def _servables(model: CycleGAN) -> dict[str, Servable]:
    def servable(direction: str) -> Servable:
        network = getattr(model, direction)
        return translation(
            network,
            lambda image: _to_rgb(network(_unit(image), training=False)),
            direction=direction,
            multiple=4,
            side=None,
            size=model.config.size,
        )

    return {direction: servable(direction) for direction in DIRECTIONS}


FAMILY = Family(
    name="cyclegan",
    config=Config,
    variants=VARIANTS,
    model=CycleGAN,
    servables=_servables,
    task=translate_task("cyclegan"),
    source=stream(_batches),
    preview=translations,
)
