"""Wasserstein GAN: a critic that estimates a distance, and a generator that walks down its slope.

Arjovsky, Chintala, Bottou: Wasserstein GAN, ICML 2017; Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville: Improved
Training of Wasserstein GANs, NeurIPS 2017; the authors' code of both.

Reproduced: the DCGAN and MLP networks of the first (3,576,704 and 2,765,568 parameters; 6,880,768 and 6,817,793), the
digits' networks of the second (1,554,177 and 1,030,145), weight clipping and gradient penalty, the critic's schedule.

| departure from the paper | why |
|---|---|
| weights are clipped after each update, as in algorithm 1; the code clips before | the bound holds always |
| `schedule="code"` (100 updates of the critic in the first 25 steps and every 500th) is no default | algorithm 1 |
| a step is one update of the generator and all of the critic's before it | the paper's figures count so |
| pictures are drawn with replacement | a stream that can begin anywhere |
| the digits' generator ends in tanh; the code's in a sigmoid | one scale for all networks, -1 to 1 |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from keras import layers, ops

from kerasmodels import weights
from kerasmodels.data import write_image
from kerasmodels.data.grids import sheet
from kerasmodels.data.stacks import picture_stack, random_batches
from kerasmodels.errors import UsageError
from kerasmodels.family import (
    Datasets,
    Experiment,
    Family,
    RunReport,
    Servable,
    TensorSpec,
    check,
    config_to_dict,
)
from kerasmodels.losses.adversarial import WASSERSTEIN, clip_weights, gradient_penalty
from kerasmodels.metrics import TermMean
from kerasmodels.models.wgan import experiments
from kerasmodels.training import devices

__all__ = ["WGAN", "Config"]


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the first paper's."""

    pictures: Path | None = None
    """A folder of pictures, or an IDX file such as MNIST's train-images-idx3-ubyte."""
    start_from: str | None = None
    """Begin with these weights instead of random ones: a run folder or a preset."""

    network: Literal["dcgan", "mlp", "digits"] = "dcgan"
    """dcgan and mlp: the first paper's; digits: the second's for 28 x 28 pixels, without batch normalisation."""
    size: int = 64
    """Side of the pictures, pixels: 16, 32, 64 ... for dcgan, 28 for digits."""
    channels: int = 3
    """3 for RGB, 1 for grey."""
    width: int = 64
    """Filters of the widest maps (dcgan, digits); 8 times that is a hidden layer of mlp."""
    latent: int = 100
    """Length of the generator's input, standard normal."""

    lipschitz: Literal["clip", "penalty"] = "clip"
    """clip: the first paper's weight clipping, RMSProp; penalty: the second's gradient penalty, Adam (0.5, 0.9)."""
    clip: float = 0.01
    """Bound of the critic's weights."""
    penalty_weight: float = 10.0
    """Lambda of the gradient penalty."""
    critic_steps: int = 5
    """Updates of the critic in a step."""
    schedule: Literal["paper", "code"] = "paper"
    """code: 100 updates of the critic in each of the first 25 steps and in every 500th."""

    steps: int = 100000
    """Updates of the generator."""
    batch: int = 64
    """Pictures in each update."""
    learning_rate: float = 5e-5
    """Of both networks; the second paper's is 1e-4."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 halves the time where the processor has bfloat16 instructions. Weights stay float32."""
    seed: int = 0
    """Of the pictures' order, the generator's input and, under `kerasmodels train`, of the initial weights."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        for name, known in (
            ("network", ("dcgan", "mlp", "digits")),
            ("lipschitz", ("clip", "penalty")),
            ("schedule", ("paper", "code")),
            ("precision", ("float32", "mixed_bfloat16")),
            ("channels", (1, 3)),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        if self.network == "dcgan":
            sizes = tuple(4 * 2**i for i in range(1, 9))
            check(self.size in sizes, f"size in {sizes} for dcgan", self.size)
        elif self.network == "digits":
            check(self.size == 28, "size 28 for the network of digits", self.size)
        check(self.size >= 4, "size >= 4", self.size)
        check(self.width > 0 and self.latent > 0, "width > 0 and latent > 0", (self.width, self.latent))
        check(self.clip > 0, "clip > 0", self.clip)
        check(self.penalty_weight >= 0, "penalty_weight >= 0", self.penalty_weight)
        check(self.critic_steps > 0, "critic_steps > 0", self.critic_steps)
        check(self.steps > 0 and self.batch > 0, "steps > 0 and batch > 0", (self.steps, self.batch))
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)
        if self.lipschitz == "penalty":
            check(self.network != "dcgan", "network mlp or digits with the gradient penalty", self.network)


_DIGITS = Config(
    network="digits",
    size=28,
    channels=1,
    latent=128,
    lipschitz="penalty",
    learning_rate=1e-4,
    batch=50,
    steps=200000,
)
VARIANTS = {
    "paper": Config(),
    "digits": _DIGITS,
    "quick": Config(network="digits", size=28, channels=1, latent=32, width=16, lipschitz="penalty", steps=300),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, 0.02)


def _generator(config: Config, dtype: str) -> keras.Model:
    """(N, latent) -> (N, size, size, channels), -1 to 1."""
    shape = (config.size, config.size, config.channels)
    x = given = keras.Input((config.latent,), name="latent")
    if config.network == "mlp":
        for i in range(3):
            x = layers.Dense(8 * config.width, "relu", dtype=dtype, name=f"generator_hidden{i + 1}")(x)
        x = layers.Reshape(shape, dtype=dtype, name="generator_picture")(
            layers.Dense(int(np.prod(shape)), dtype=dtype, name="generator_last")(x)
        )
    elif config.network == "digits":
        x = layers.Dense(16 * 4 * config.width, "relu", dtype=dtype, name="generator_first")(x)
        x = layers.Reshape((4, 4, 4 * config.width), dtype=dtype, name="generator_first_map")(x)
        for i, filters in enumerate((2 * config.width, config.width)):
            x = layers.Conv2DTranspose(filters, 5, 2, "same", dtype=dtype, name=f"generator_up{i + 1}")(x)
            x = layers.ReLU(dtype=dtype, name=f"generator_up{i + 1}_relu")(x)
            if i == 0:
                # 8 pixels become 7, so that two doublings make 28.
                x = layers.Cropping2D(((0, 1), (0, 1)), dtype=dtype, name="generator_crop")(x)
        x = layers.Conv2DTranspose(config.channels, 5, 2, "same", dtype=dtype, name="generator_last")(x)
    else:
        stages = int(np.log2(config.size // 4))
        x = layers.Reshape((1, 1, config.latent), dtype=dtype, name="generator_point")(x)
        for i in range(stages):
            filters, first = config.width * 2 ** (stages - 1 - i), i == 0
            x = layers.Conv2DTranspose(
                filters,
                4,
                1 if first else 2,
                "valid" if first else "same",
                use_bias=False,
                kernel_initializer=_normal(),
                dtype=dtype,
                name=f"generator_up{i}",
            )(x)
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"generator_up{i}_norm")(x)
            x = layers.ReLU(dtype=dtype, name=f"generator_up{i}_relu")(x)
        x = layers.Conv2DTranspose(
            config.channels,
            4,
            2,
            "same",
            use_bias=False,
            kernel_initializer=_normal(),
            dtype=dtype,
            name="generator_last",
        )(x)
    return keras.Model(given, ops.tanh(ops.cast(x, "float32")), name="generator")


def _critic(config: Config, dtype: str) -> keras.Model:
    """(N, size, size, channels), -1 to 1 -> (N, 1), unbounded."""
    x = given = keras.Input((config.size, config.size, config.channels), name="picture")
    if config.network == "mlp":
        x = layers.Flatten(dtype=dtype, name="critic_flat")(x)
        for i in range(3):
            x = layers.Dense(8 * config.width, "relu", dtype=dtype, name=f"critic_hidden{i + 1}")(x)
        x = layers.Dense(1, dtype=dtype, name="critic_last")(x)
    elif config.network == "digits":
        for i in range(3):
            x = layers.Conv2D(config.width * 2**i, 5, 2, "same", dtype=dtype, name=f"critic_down{i + 1}")(x)
            x = layers.LeakyReLU(0.2, dtype=dtype, name=f"critic_down{i + 1}_relu")(x)
        x = layers.Dense(1, dtype=dtype, name="critic_last")(layers.Flatten(dtype=dtype, name="critic_flat")(x))
    else:
        for i in range(int(np.log2(config.size // 4))):
            x = layers.Conv2D(
                config.width * 2**i,
                4,
                2,
                "same",
                use_bias=False,
                kernel_initializer=_normal(),
                dtype=dtype,
                name=f"critic_down{i}",
            )(x)
            if i:
                x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"critic_down{i}_norm")(x)
            x = layers.LeakyReLU(0.2, dtype=dtype, name=f"critic_down{i}_relu")(x)
        x = layers.Conv2D(1, 4, use_bias=False, kernel_initializer=_normal(), dtype=dtype, name="critic_last")(x)
        x = layers.Flatten(dtype=dtype, name="critic_score")(x)
    return keras.Model(given, ops.cast(x, "float32"), name="critic")


# --- trainer ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class WGAN(keras.Model):
    """Generator and critic. Called, it generates; `fit` on stacks of real pictures trains both.

    Args:
        config: a `WGAN.Config` (or its values as a dict).
        precision: dtype policy of the layers.

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

    Config: TypeAlias = Config
    family_name = "wgan"
    one_device = "the updates of the critic follow one another within a step"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "wgan", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.precision = precision
        self.generator, self.critic = _generator(self.config, precision), _critic(self.config, precision)
        self.draws = keras.random.SeedGenerator(self.config.seed, name="draws")
        terms = ("loss", "distance", "generator", *(["penalty"] if self.config.lipschitz == "penalty" else []))
        self._term_means = {term: TermMean(name=term) for term in terms}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return ops.clip(127.5 + 127.5 * self.generator(inputs, training=training), 0.0, 255.0)

    def compile(self, optimizer: Any = "rmsprop", critic_optimizer: Any = "rmsprop", **kwargs: Any) -> None:
        """Compile with an optimizer for each network.

        Args:
            optimizer: of the generator.
            critic_optimizer: of the critic.
            **kwargs: see `keras.Model.compile`. XLA makes convolutions slower on CPUs, so `jit_compile` is False.
        """
        devices.check_model(self)
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        self.critic_optimizer = keras.optimizers.get(critic_optimizer)
        self.optimizer.build(self.generator.trainable_variables)
        self.critic_optimizer.build(self.critic.trainable_variables)

    def train_step(self, data: Any) -> dict[str, Any]:
        """All updates of the critic, then one of the generator."""
        pictures, *_ = keras.utils.unpack_x_y_sample_weight(data)

        def update(i: Any) -> tuple[Any]:
            self._improve_critic(ops.cast(pictures[i], "float32") / 127.5 - 1.0)
            return (i + 1,)

        tf.while_loop(lambda i: i < tf.shape(pictures)[0], update, (tf.constant(0),), parallel_iterations=1)
        return self._improve_generator(tf.shape(pictures)[1])

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._term_means.values())

    def _latent(self, count: Any) -> Any:
        return keras.random.normal((count, self.config.latent), seed=self.draws)

    def _improve_critic(self, real: Any) -> None:
        count = tf.shape(real)[0]
        fake = self.generator(self._latent(count), training=True)
        with tf.GradientTape() as tape:
            loss = WASSERSTEIN.judge(self.critic(real, training=True), self.critic(fake, training=True))
            self._term_means["distance"].update_state(-loss)
            if self.config.lipschitz == "penalty":
                mix = keras.random.uniform((count,), seed=self.draws)
                penalty = gradient_penalty(lambda x: self.critic(x, training=True), real, fake, mix)
                self._term_means["penalty"].update_state(penalty)
                loss += self.config.penalty_weight * penalty
        self._term_means["loss"].update_state(loss)
        variables = self.critic.trainable_variables
        self.critic_optimizer.apply(tape.gradient(loss, variables), variables)
        if self.config.lipschitz == "clip":
            clip_weights(variables, self.config.clip)

    def _improve_generator(self, count: Any) -> dict[str, Any]:
        variables = self.generator.trainable_variables
        with tf.GradientTape() as tape:
            loss = WASSERSTEIN.generator(self.critic(self.generator(self._latent(count), training=True), training=True))
        self.optimizer.apply(tape.gradient(loss, variables), variables)
        self._term_means["generator"].update_state(loss)
        return {name: mean.result() for name, mean in self._term_means.items()}

    def get_compile_config(self) -> dict[str, Any] | None:
        # Two optimizers are more than Keras restores: what is loaded can be used, or compiled anew.
        return None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _build(config: Config) -> WGAN:
    """The model with the paper's optimizers, ready for `fit`."""
    if config.pictures is None:
        raise UsageError("training needs pictures: --pictures DIR, or an IDX file.")
    model = WGAN(config, precision=config.precision)
    if config.start_from is not None:
        weights.find(config.start_from).assign_to(model)

    def optimizer() -> keras.optimizers.Optimizer:
        if config.lipschitz == "clip":
            return keras.optimizers.RMSprop(config.learning_rate, rho=0.99, epsilon=1e-8)
        return keras.optimizers.Adam(config.learning_rate, beta_1=0.5, beta_2=0.9)

    model.compile(optimizer(), optimizer())
    return model


def _datasets(config: Config, start: int = 0) -> Datasets:
    if config.pictures is None:
        raise UsageError("training needs pictures: --pictures DIR, or an IDX file.")
    pictures = tf.constant(picture_stack(config.pictures, config.size, config.size, config.channels))

    def stack(step: tf.Tensor) -> tf.Tensor:
        updates: Any = config.critic_steps
        if config.schedule == "code":
            updates = tf.where((step < 25) | (step % 500 == 0), 100, config.critic_steps)
        return random_batches(pictures, tf.stack([updates, config.batch]), config.seed, step)

    stream = tf.data.Dataset.range(start, np.iinfo("int64").max)
    return Datasets(train=stream.map(stack, num_parallel_calls=1).prefetch(2))


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: WGAN, config: Config) -> dict[str, Servable]:
    network = model.generator

    def generate(latent: tf.Tensor) -> dict[str, tf.Tensor]:
        made = 127.5 + 127.5 * network(latent, training=False)
        return {"pictures": tf.cast(tf.round(tf.clip_by_value(made, 0.0, 255.0)), tf.uint8)}

    shape = ("batch", config.size, config.size, config.channels)
    return {
        "generate": Servable(
            call=generate,
            model=network,
            inputs=(
                TensorSpec(
                    "latent", ("batch", config.latent), "float32", "standard normal numbers", extremes=(-4, 0, 4)
                ),
            ),
            outputs=(TensorSpec("pictures", shape, "uint8", "made pictures, 0-255", atol=1),),
            example=lambda dims, seed: {
                "latent": np.random.default_rng(seed).standard_normal((dims["batch"], config.latent), "float32")
            },
            dims={"batch": 1},
            check_dims=({"batch": 3},),
            doc="makes pictures like those it was trained on",
        )
    }


def _preview(model: WGAN, config: Config) -> dict[str, np.ndarray]:
    return {"samples": sheet(model, 8, 8, seed=0)}


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Make pictures."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The sheet of pictures to write."""
    preset: str | None = None
    """Shipped weights; `kerasmodels list` names them."""
    run: Path | None = None
    """A run folder, instead of a preset."""
    rows: int = 8
    """Rows of pictures."""
    columns: int = 8
    """Pictures in a row."""
    seed: int = 0
    """Another seed, other pictures."""
    between: bool = False
    """Each row goes from one picture to another."""


def _run(options: RunOptions) -> RunReport:
    check(options.rows > 0 and options.columns > 0, "rows > 0 and columns > 0", (options.rows, options.columns))
    trained = weights.chosen("wgan", options.preset, options.run)
    _, config, model = trained.load()
    path = write_image(options.out, sheet(model, options.rows, options.columns, options.seed, options.between))
    return RunReport((path,), {"pictures": options.rows * options.columns, "size": config.size})


FAMILY = Family(
    name="wgan",
    config=Config,
    variants=VARIANTS,
    model=WGAN,
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "lines": Experiment("two parallel lines: the distance with a slope, and those without", experiments.lines),
        "estimates": Experiment("what a critic estimates, beside the exact distance", experiments.estimates),
        "gaussians": Experiment("eight Gaussians: modes found, and a loss that tells", experiments.gaussians),
    },
    preview=_preview,
)
