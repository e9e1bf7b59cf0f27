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
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.config import NonNegative, NonNegativeInt, Positive, PositiveInt, check
from kerasmodels.family import Family, stream
from kerasmodels.layers import (
    DoublingConv2DTranspose,
    InstanceNormalization,
    PolyphaseConv2D,
    ReflectionPadding2D,
    ResidualBlock,
    Resize2D,
)
from kerasmodels.losses.adversarial import LEAST_SQUARES, cycle_consistency
from kerasmodels.ops.pictures import to_unit
from kerasmodels.tasks.translate import translate_task, translations
from kerasmodels.training.image_pool import ImagePool
from kerasmodels.translator import Translator, TranslatorConfig, unpaired_crops

__all__ = ["Config", "CycleGAN"]


class Config(TranslatorConfig):
    """What to train, from two folders `a` and `b` of crops of `size` pixels. The defaults are the paper's."""

    filters: PositiveInt = 64
    """Channels of the generators at full size; four times as many in the residual blocks."""
    blocks: NonNegativeInt = 9
    """Residual blocks (the paper: 6 for 128 pixels, 9 from 256 on)."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """transposed: convolution of stride 1/2; resize: nearest neighbor, then a convolution."""
    discriminator_filters: PositiveInt = 64
    """Channels of the discriminators' first layer."""

    cycle_weight: NonNegative = 10.0
    """Weight of cycle consistency: the mean absolute difference between a picture and its reconstruction (lambda)."""
    identity_weight: NonNegative = 0.5
    """Weight of the identity loss, as a part of cycle_weight: what a generator changes of pictures that are of its
    target domain already."""
    adversarial_weight: NonNegative = 1.0
    """Weight of the discriminators' part in the generators' loss."""
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


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, 0.02)


def _generator(config: Config, name: str) -> keras.Model:
    """(N, H, W, 3), -1 to 1 -> the same; H and W multiples of 4."""

    def convolution(x: Any, filters: int, kernel: int, label: str, strides: int = 1) -> Any:
        return layers.Conv2D(filters, kernel, strides, kernel_initializer=_normal(), name=f"{name}_{label}")(x)

    def normalized(x: Any, label: str) -> Any:
        x = InstanceNormalization(center=False, scale=False, name=f"{name}_{label}_norm")(x)
        return layers.ReLU(name=f"{name}_{label}_relu")(x)

    def upsampled(x: Any, filters: int, label: str) -> Any:
        if config.upsampling == "transposed":
            return DoublingConv2DTranspose(filters, kernel_initializer=_normal(), name=f"{name}_{label}")(x)
        x = Resize2D(2, name=f"{name}_{label}_resize")(x)
        return convolution(layers.ZeroPadding2D(1, name=f"{name}_{label}_pad")(x), filters, 3, label)

    x = picture = keras.Input((None, None, 3), name="picture")
    x = ReflectionPadding2D(3, name=f"{name}_first_pad")(x)
    x = normalized(convolution(x, config.filters, 7, "first"), "first")
    for i in (1, 2):
        x = layers.ZeroPadding2D(1, name=f"{name}_down{i}_pad")(x)
        x = normalized(convolution(x, config.filters * 2**i, 3, f"down{i}", strides=2), f"down{i}")
    for i in range(config.blocks):
        x = ResidualBlock(4 * config.filters, "instance", "reflect", affine=False, name=f"{name}_block{i + 1}")(x)
    for i in (1, 2):
        x = normalized(upsampled(x, config.filters * 4 // 2**i, f"up{i}"), f"up{i}")
    x = ReflectionPadding2D(3, name=f"{name}_last_pad")(x)
    # Conv2D, computed in half the time where there are only three filters.
    x = PolyphaseConv2D(3, 7, kernel_initializer=_normal(), name=f"{name}_last")(x)
    return keras.Model(picture, ops.tanh(ops.cast(x, "float32")), name=name)


def _discriminator(config: Config, name: str) -> keras.Model:
    """PatchGAN, C64-C128-C256-C512: (N, H, W, 3), -1 to 1 -> (N, h, w, 1), a score for each window of 70 x 70 pixels,
    8 pixels apart."""

    def convolution(x: Any, filters: int, strides: int, number: int) -> Any:
        x = layers.ZeroPadding2D(1, name=f"{name}_{number}_pad")(x)
        return layers.Conv2D(filters, 4, strides, kernel_initializer=_normal(), name=f"{name}_{number}")(x)

    x = picture = keras.Input((None, None, 3), name="picture")
    for i in range(4):
        x = convolution(x, config.discriminator_filters * 2**i, 2 if i < 3 else 1, i)
        if i > 0:
            x = InstanceNormalization(center=False, scale=False, name=f"{name}_{i}_norm")(x)
        x = layers.LeakyReLU(0.2, name=f"{name}_{i}_relu")(x)
    return keras.Model(picture, ops.cast(convolution(x, 1, 1, 4), "float32"), name=name)


# --- model ------------------------------------------------------------------------------------------------------------


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


@keras.saving.register_keras_serializable("kerasmodels")
class CycleGAN(Translator):
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
        "a_to_b": partial(_generator, name="a_to_b"),
        "b_to_a": partial(_generator, name="b_to_a"),
        "discriminator_a": partial(_discriminator, name="discriminator_a"),
        "discriminator_b": partial(_discriminator, name="discriminator_b"),
    }
    trained_by = {  # noqa: RUF012
        "generators": ("a_to_b", "b_to_a"),
        "discriminators": ("discriminator_a", "discriminator_b"),
    }
    multiple = 4

    def loss_terms(self) -> Sequence[str]:
        return ("loss", "adversarial", "cycle", "identity", "discriminator_a", "discriminator_b")

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        half, rate = self.config.steps // 2, self.config.learning_rate
        if half:
            rate = _ConstantThenLinear(rate, half, self.config.steps - half)
        return keras.optimizers.Adam(rate, beta_1=0.5, beta_2=0.999)

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer, loss, **kwargs)
        # Generated pictures of earlier steps, so that the discriminators do not forget them.
        self._pools = {domain: ImagePool(self.config.pool, self.seed_generator) for domain in "ab"}

    def fit(self, x: Any = None, *args: Any, **kwargs: Any) -> Any:
        """As `PaperModel.fit`."""
        if isinstance(x, tf.data.Dataset):
            # What is generated of domain B has the size of what it was made from, and the other way around.
            for domain, spec in zip("ba", x.element_spec, strict=False):
                self._pools[domain].begin(tuple(spec.shape[1:]))
        return super().fit(x, *args, **kwargs)

    def train_step(self, data: Any) -> dict[str, Any]:
        """The generators' update, then the discriminators'."""
        a, b, *_ = (to_unit(pictures) for pictures in data)
        config = self.config
        with tf.GradientTape() as tape:
            if config.identity_weight:
                # Each generator is given pictures of its target domain, too.
                fake_b, identity_b = _in_one_pass(self.a_to_b, a, b)
                fake_a, identity_a = _in_one_pass(self.b_to_a, b, a)
                identity = cycle_consistency(b, identity_b) + cycle_consistency(a, identity_a)
            else:
                fake_b, fake_a, identity = self.a_to_b(a, training=True), self.b_to_a(b, training=True), 0.0
            adversarial = LEAST_SQUARES.generator(self.discriminator_b(fake_b))
            adversarial += LEAST_SQUARES.generator(self.discriminator_a(fake_a))
            reconstructed_a, reconstructed_b = self.b_to_a(fake_b, training=True), self.a_to_b(fake_a, training=True)
            cycle = cycle_consistency(a, reconstructed_a) + cycle_consistency(b, reconstructed_b)
            loss = config.adversarial_weight * adversarial + config.cycle_weight * cycle
            loss += config.cycle_weight * config.identity_weight * identity
        self.minimize("generators", loss, tape)
        pooled_a, pooled_b = self._pools["a"](fake_a), self._pools["b"](fake_b)
        with tf.GradientTape() as tape:
            loss_a = LEAST_SQUARES.discriminator(*_in_one_pass(self.discriminator_a, a, pooled_a))
            loss_b = LEAST_SQUARES.discriminator(*_in_one_pass(self.discriminator_b, b, pooled_b))
            discriminators = loss_a + loss_b
        self.minimize("discriminators", discriminators, tape)
        self.report(loss=loss, adversarial=adversarial, cycle=cycle, identity=identity)
        self.report(discriminator_a=loss_a, discriminator_b=loss_b)
        return self.reported()

    def training_state(self) -> dict[str, np.ndarray]:
        """The pools, for checkpoints."""
        return {f"{domain}/{key}": value for domain, pool in self._pools.items() for key, value in pool.state().items()}

    def set_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `training_state()` back."""
        for domain, pool in self._pools.items():
            pool.set_state({key[2:]: value for key, value in state.items() if key.startswith(f"{domain}/")})


def _in_one_pass(network: keras.Model, first: Any, second: Any) -> list[Any]:
    """The network's outputs for two batches, in one pass, which takes less time than two."""
    together = network(tf.concat([first, second], axis=0), training=True)
    return tf.split(together, [tf.shape(first)[0], tf.shape(second)[0]], num=2)


# --- family -----------------------------------------------------------------------------------------------------------


FAMILY = Family(
    name="cyclegan",
    config=Config,
    variants=VARIANTS,
    model=CycleGAN,
    servables=CycleGAN.servables,
    task=translate_task("cyclegan"),
    source=stream(unpaired_crops),
    preview=translations,
)
