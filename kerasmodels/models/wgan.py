"""Wasserstein GAN: a critic that estimates a distance, and a generator that walks down its slope.

Arjovsky, Chintala, Bottou: Wasserstein GAN, ICML 2017; Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville: Improved
Training of Wasserstein GANs, NeurIPS 2017; the authors' code of both.

Reproduced: the DCGAN and MLP networks of the first (3,576,704 and 2,765,568 parameters; 6,880,768 and 6,817,793), the
digits' networks of the second (1,554,177 and 1,030,145), weight clipping and gradient penalty, the critic's schedule.

| departure from the paper | why |
|---|---|
| weights are clipped after each update, as in algorithm 1; the code clips before | the bound holds always |
| 5 updates of the critic in every step; the code has 100 in the first 25 and every 500th (`schedule="code"`) | \
algorithm 1 |
| a step is one update of the generator and all of the critic's before it | the paper's figures count so |
| pictures are drawn with replacement | a stream that can begin anywhere |
| the digits' generator ends in tanh; the code's in a sigmoid | one scale for all networks, -1 to 1 |
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.config import NonNegative, Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data.stacks import picture_stack, random_batches
from kerasmodels.data.streams import numbered
from kerasmodels.family import Family, Servable, stream
from kerasmodels.losses.adversarial import WASSERSTEIN, clip_weights, gradient_penalty
from kerasmodels.ops.pictures import to_rgb, to_unit
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import generate
from kerasmodels.tasks.generate import generate_task, sheet

__all__ = ["WGAN", "Config"]


class Config(TrainingConfig):
    """What to train. The defaults are the first paper's."""

    pictures: Path | None = None
    """A folder of pictures, or an IDX file such as MNIST's train-images-idx3-ubyte."""

    network: Literal["dcgan", "mlp", "digits"] = "dcgan"
    """dcgan and mlp: the first paper's; digits: the second's for 28 x 28 pixels, without batch normalization."""
    size: int = 64
    """Side of the pictures, pixels: 8, 16, 32, 64 ... for dcgan, 28 for digits."""
    channels: Literal[1, 3] = 3
    """3 for RGB, 1 for gray."""
    width: PositiveInt = 64
    """Filters of the widest maps (dcgan, digits); 8 times that is a hidden layer of mlp."""
    latent: PositiveInt = 100
    """Length of the generator's input, standard normal."""

    lipschitz: Literal["clip", "penalty"] = "clip"
    """clip: the first paper's weight clipping, RMSProp; penalty: the second's gradient penalty, Adam (0.5, 0.9)."""
    clip: Positive = 0.01
    """Bound of the critic's weights."""
    penalty_weight: NonNegative = 10.0
    """Lambda of the gradient penalty."""
    critic_steps: PositiveInt = 5
    """Updates of the critic in a step."""
    schedule: Literal["paper", "code"] = "paper"
    """code: 100 updates of the critic in each of the first 25 steps and in every 500th."""

    steps: PositiveInt = 100000
    """Updates of the generator."""
    batch: PositiveInt = 64
    """Pictures in each update."""
    learning_rate: Positive = 5e-5
    """Of both networks; the second paper's is 1e-4."""

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        if self.network == "dcgan":
            sizes = tuple(4 * 2**i for i in range(1, 9))
            check(self.size in sizes, f"size in {sizes} for dcgan", self.size)
            check(self.lipschitz == "clip", "network mlp or digits with the gradient penalty", self.network)
        elif self.network == "digits":
            check(self.size == 28, "size 28 for the network of digits", self.size)
        check(self.size >= 4, "size >= 4", self.size)


VARIANTS = {
    "paper": Config(),
    "digits": Config(
        network="digits",
        size=28,
        channels=1,
        latent=128,
        lipschitz="penalty",
        learning_rate=1e-4,
        batch=50,
        steps=200000,
    ),
    "quick": Config(network="digits", size=28, channels=1, latent=32, width=16, lipschitz="penalty", steps=300),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, 0.02)


def _generator(config: Config) -> keras.Model:
    """(N, latent) -> (N, size, size, channels), -1 to 1."""
    shape = (config.size, config.size, config.channels)
    x = latent = keras.Input((config.latent,), name="latent")
    if config.network == "dcgan":
        convolution: dict[str, Any] = {"use_bias": False, "kernel_initializer": _normal()}
        stages = int(np.log2(config.size // 4))
        x = layers.Reshape((1, 1, config.latent), name="generator_point")(x)
        for i in range(stages):
            filters, name = config.width * 2 ** (stages - 1 - i), f"generator_up{i}"
            strides, padding = (2, "same") if i else (1, "valid")
            x = layers.Conv2DTranspose(filters, 4, strides, padding, name=name, **convolution)(x)
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
            x = layers.ReLU(name=f"{name}_relu")(x)
        x = layers.Conv2DTranspose(config.channels, 4, 2, "same", name="generator_last", **convolution)(x)
    elif config.network == "mlp":
        for i in range(3):
            x = layers.Dense(8 * config.width, "relu", name=f"generator_hidden{i + 1}")(x)
        x = layers.Dense(int(np.prod(shape)), name="generator_last")(x)
        x = layers.Reshape(shape, name="generator_picture")(x)
    else:
        x = layers.Dense(16 * 4 * config.width, "relu", name="generator_first")(x)
        x = layers.Reshape((4, 4, 4 * config.width), name="generator_first_map")(x)
        for i, filters in enumerate((2 * config.width, config.width)):
            x = layers.Conv2DTranspose(filters, 5, 2, "same", name=f"generator_up{i + 1}")(x)
            x = layers.ReLU(name=f"generator_up{i + 1}_relu")(x)
            if i == 0:
                # 8 pixels become 7, so that two doublings make 28.
                x = layers.Cropping2D(((0, 1), (0, 1)), name="generator_crop")(x)
        x = layers.Conv2DTranspose(config.channels, 5, 2, "same", name="generator_last")(x)
    return keras.Model(latent, ops.tanh(ops.cast(x, "float32")), name="generator")


def _critic(config: Config) -> keras.Model:
    """(N, size, size, channels), -1 to 1 -> (N, 1), unbounded."""
    x = picture = keras.Input((config.size, config.size, config.channels), name="picture")
    if config.network == "dcgan":
        convolution: dict[str, Any] = {"use_bias": False, "kernel_initializer": _normal()}
        for i in range(int(np.log2(config.size // 4))):
            name = f"critic_down{i}"
            x = layers.Conv2D(config.width * 2**i, 4, 2, "same", name=name, **convolution)(x)
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x) if i else x
            x = layers.LeakyReLU(0.2, name=f"{name}_relu")(x)
        x = layers.Conv2D(1, 4, name="critic_last", **convolution)(x)
        x = layers.Flatten(name="critic_score")(x)
    elif config.network == "mlp":
        x = layers.Flatten(name="critic_flat")(x)
        for i in range(3):
            x = layers.Dense(8 * config.width, "relu", name=f"critic_hidden{i + 1}")(x)
        x = layers.Dense(1, name="critic_last")(x)
    else:
        for i in range(3):
            x = layers.Conv2D(config.width * 2**i, 5, 2, "same", name=f"critic_down{i + 1}")(x)
            x = layers.LeakyReLU(0.2, name=f"critic_down{i + 1}_relu")(x)
        x = layers.Dense(1, name="critic_last")(layers.Flatten(name="critic_flat")(x))
    return keras.Model(picture, ops.cast(x, "float32"), name="critic")


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class WGAN(PaperModel):
    """Generator and critic. Called, it generates; `fit` on stacks of real pictures trains both.

    Args:
        config, dtype: see `PaperModel`.
        generator: a network of one's own: (N, latent) -> (N, ...), -1 to 1.
        critic: a network of one's own: (N, ...) -> (N, 1).

    Shapes:
        (N, latent), standard normal -> pictures (N, size, size, channels), 0-255. `fit` takes
        (critic updates, batch, size, size, channels), 0-255: real pictures for each update of the critic in a step.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.WGAN(km.models.WGAN.Config(size=16, width=4, latent=8))
        >>> tuple(model(np.zeros((2, 8), "float32")).shape)
        (2, 16, 16, 3)

    Reference:
        Arjovsky et al. 2017, algorithm 1; Gulrajani et al. 2017, algorithm 1.
    """

    Config = Config
    family_name = "wgan"
    one_device = "the updates of the critic follow one another within a step"
    networks = {"generator": _generator, "critic": _critic}  # noqa: RUF012
    trained_by = {"generator": ("generator",), "critic": ("critic",)}  # noqa: RUF012
    adversarial = WASSERSTEIN
    """Of the critic, mean f(fake) - mean f(real), and of the generator, - mean f(fake)."""

    def loss_terms(self) -> Sequence[str]:
        return ("loss", "distance", "generator", *(["penalty"] if self.config.lipschitz == "penalty" else []))

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        if self.config.lipschitz == "clip":
            return keras.optimizers.RMSprop(self.config.learning_rate, rho=0.99, epsilon=1e-8)
        return keras.optimizers.Adam(self.config.learning_rate, beta_1=0.5, beta_2=0.9)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return to_rgb(self.generator(inputs, training=training))

    def train_step(self, data: Any) -> dict[str, Any]:
        """All updates of the critic, each on its own real pictures, then one of the generator."""
        pictures, *_ = self.unpacked(data)
        updates, batch, *_ = tf.unstack(tf.shape(pictures))

        def update(i: Any) -> tuple[Any]:
            self._update_critic(to_unit(pictures[i]))
            return (i + 1,)

        # for i in range(updates), as a loop of the graph: their number is not known when it is made.
        tf.while_loop(lambda i: i < updates, update, (tf.constant(0),), parallel_iterations=1)
        self._update_generator(batch)
        return self.reported()

    def _update_critic(self, real: Any) -> None:
        batch = tf.shape(real)[0]
        fake = self.generator(self._latent(batch), training=True)
        with tf.GradientTape() as tape:
            loss = self.adversarial.discriminator(self.critic(real, training=True), self.critic(fake, training=True))
            distance = -loss
            if self.config.lipschitz == "penalty":
                epsilon = keras.random.uniform((batch,), seed=self.seed_generator)
                penalty = gradient_penalty(lambda x: self.critic(x, training=True), real, fake, epsilon)
                loss += self.config.penalty_weight * penalty
                self.report(penalty=penalty)
        self.minimize("critic", loss, tape)
        if self.config.lipschitz == "clip":
            clip_weights(self.critic.trainable_variables, self.config.clip)
        self.report(loss=loss, distance=distance)

    def _update_generator(self, batch: Any) -> None:
        with tf.GradientTape() as tape:
            fake = self.generator(self._latent(batch), training=True)
            loss = self.adversarial.generator(self.critic(fake, training=True))
        self.minimize("generator", loss, tape)
        self.report(generator=loss)

    def _latent(self, batch: Any) -> Any:
        return keras.random.normal((batch, self.config.latent), seed=self.seed_generator)


# --- family -----------------------------------------------------------------------------------------------------------


def _batches(config: Config, start: int) -> tf.data.Dataset:
    """Stacks (critic updates, batch, size, size, channels) for each step of `WGAN.fit`."""
    source = needed(config.pictures, "pictures: --pictures DIR, or an IDX file")
    pictures = tf.constant(picture_stack(source, config.size, config.size, config.channels))

    def stack(step: tf.Tensor) -> tf.Tensor:
        updates: Any = config.critic_steps
        if config.schedule == "code":
            updates = tf.where((step < 25) | (step % 500 == 0), 100, config.critic_steps)
        return random_batches(pictures, tf.stack([updates, config.batch]), config.seed, step)

    return numbered(stack, start)


def _servables(model: WGAN) -> dict[str, Servable]:
    return {"generate": generate(model.generator, to_rgb, "generates pictures like those it was trained on")}


FAMILY = Family(
    name="wgan",
    config=Config,
    variants=VARIANTS,
    model=WGAN,
    servables=_servables,
    task=generate_task("wgan"),
    source=stream(_batches),
    preview=lambda model: {"samples": sheet(model, 8, 8)},
)
