"""Energy-based GAN: the discriminator is an auto-encoder, and its reconstruction error is the energy of a picture.

Zhao, Mathieu, LeCun: Energy-based Generative Adversarial Network, ICLR 2017. There is no code by the authors.

Reproduced: the fully connected networks of the grid (table 1), the convolutional ones for 64, 128 and 256 pixels
(appendix C), the margin, the pulling-away term, semi-supervised training with a margin that decays; the two theorems.

| departure from the paper | why |
|---|---|
| the energy is the Euclidean norm of the difference, pixels from -1 to 1 (`energy="norm"`) | the paper's equation; \
margins of 10, 20 and 80 are in this unit |
| the decoder ends in tanh | energies are bounded, so a margin that no energy reaches is known before the training |
| learning rate 2e-4 for convolutional networks; the paper's is known for the grid alone (1e-3) | that of DCGAN |
| sizes 16 and 32: the networks for 64 pixels without their outermost stages | small pictures |
| `labeled`: a denoising auto-encoder with a classifier on its codes; the paper has a ladder network | one network \
for all |
| the discriminator's running means (batch normalization) are of real pictures | it is given real ones afterwards |
| pictures are drawn with replacement | a stream that can begin anywhere |
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import keras
import numpy as np
import tensorflow as tf
from annotated_types import Ge, MultipleOf
from keras import layers, ops

from kerasmodels.config import NonNegative, Positive, PositiveInt, TrainingConfig, check, needed
from kerasmodels.data import list_images
from kerasmodels.data.stacks import balanced, drawn_batches, picture_stack, read_idx
from kerasmodels.data.unpaired import warn_of_small
from kerasmodels.errors import DataError
from kerasmodels.family import Family, Servable, TensorSpec, stream
from kerasmodels.losses.adversarial import AdversarialLosses, energy, pulling_away
from kerasmodels.ops.pictures import to_rgb, to_unit
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import example_images, generate
from kerasmodels.tasks.energies import energies_task
from kerasmodels.tasks.generate import sheet
from kerasmodels.training.margin_watch import MarginWatch

__all__ = ["EBGAN", "Config"]

CLASSES = 10

# Channels, in units of `filters`: the generator's maps from 4 x 4 pixels on, and the encoder's.
_STAGES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    16: ((4, 2), (1, 2)),
    32: ((8, 4, 2), (1, 2)),
    64: ((16, 8, 4, 2), (1, 2, 4)),
    128: ((16, 8, 4, 2, 1), (1, 2, 4, 8)),
    256: ((32, 16, 8, 4, 2, 1), (1, 2, 4, 8)),
}


class Config(TrainingConfig):
    """What to train. The defaults are the paper's for faces."""

    pictures: Path | None = None
    """A folder of pictures, or an IDX file such as MNIST's train-images-idx3-ubyte."""
    labels: Path | None = None
    """The IDX file of the pictures' classes, 0 to 9, for `labeled`."""

    network: Literal["convolutional", "mlp"] = "convolutional"
    """convolutional: the paper's for photos; mlp: fully connected, the paper's for digits."""
    size: Annotated[int, Ge(4)] = 64
    """Side of the pictures, pixels: 16, 32, 64, 128 or 256 for convolutional."""
    channels: Literal[1, 3] = 3
    """3 for RGB, 1 for gray."""
    filters: PositiveInt = 64
    """convolutional: channels of the encoder's first maps; the generator's last have as many or twice as many."""
    generator_layers: Annotated[int, Ge(2)] = 5
    """mlp: layers of weights of the generator (nLayerG)."""
    generator_width: PositiveInt = 800
    """mlp: units of its hidden layers (sizeG)."""
    discriminator_layers: Annotated[int, Ge(2)] = 2
    """mlp: layers of weights of the discriminator, of which the decoder is one (nLayerD)."""
    discriminator_width: PositiveInt = 1024
    """mlp: units of its hidden layers (sizeD)."""
    dropout: bool = False
    """mlp: drop half of the discriminator's hidden units while it trains (dropoutD)."""
    latent: PositiveInt = 100
    """Length of the generator's input, standard normal."""

    energy: Literal["norm", "mean"] = "norm"
    """norm: Euclidean length of the difference; mean: mean square, as some implementations have it. Pixels -1 to 1."""
    margin: Positive = 20.0
    """Generated pictures of a higher energy do not count; the paper: 20 for faces, 80 for bedrooms, 10 for digits."""
    final_margin: NonNegative | None = None
    """The margin goes to this, on a straight line over the steps; left out, it stays. The paper: 0 with labels."""
    pulling_away: NonNegative = 0.1
    """Weight of the pulling-away term in the generator's loss; 0 for none."""
    noise: NonNegative = 0.0
    """Deviation of normal noise on the discriminator's real inputs, which it must remove; pixels -1 to 1."""
    labeled: Annotated[int, Ge(0), MultipleOf(CLASSES)] = 0
    """Pictures whose classes are used, as many of each; 0: none, and no classifier."""
    label_weight: NonNegative = 10.0
    """Of the classifier's cross-entropy, in the discriminator's loss."""

    steps: PositiveInt = 50000
    """Updates of the generator, and of the discriminator."""
    batch: Annotated[int, Ge(2)] = 64
    """Pictures in each update; at least 2, for the pulling-away term."""
    learning_rate: Positive = 2e-4
    """Of both sides; the paper's grid: 1e-3."""

    def validate(self) -> None:
        """Raise UsageError unless there is a network for the size, and some energy can reach the margin."""
        if self.network == "convolutional":
            check(self.size in _STAGES, f"size in {tuple(_STAGES)} for convolutional", self.size)
        largest = self.largest_energy
        check(
            max(self.margin, self.final_margin or 0) < largest,
            f"a margin below {largest:g}, the largest energy ({self.energy}) that {self.size} x {self.size} x "
            f"{self.channels} pixels from -1 to 1 can have: the hinge of a higher one never closes",
            self.margin if self.final_margin is None else (self.margin, self.final_margin),
        )

    @property
    def largest_energy(self) -> float:
        """Of a picture of which each pixel is reconstructed as its opposite: a margin must be below."""
        return 4.0 if self.energy == "mean" else 2.0 * self.size * self.channels**0.5


_DIGITS: dict[str, Any] = {"network": "mlp", "size": 28, "channels": 1, "margin": 10.0, "learning_rate": 1e-3}
VARIANTS = {
    "paper": Config(),
    "bedrooms": Config(margin=80.0),
    "paper_128": Config(size=128, noise=0.1),
    "paper_256": Config(size=256, noise=0.1),
    "digits": Config(steps=20000, **_DIGITS),
    "labeled": Config(
        generator_layers=3,
        discriminator_layers=3,
        discriminator_width=512,
        final_margin=0.0,
        pulling_away=0.0,
        noise=0.3,
        labeled=100,
        steps=20000,
        **_DIGITS,
    ),
    "quick": Config(generator_layers=3, generator_width=400, discriminator_width=128, steps=1000, **_DIGITS),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def _hidden(layer: type, x: Any, *sizes: Any, name: str, deviation: float, normalized: bool = True) -> Any:
    """A layer of weights, normalized over the batch (its bias would then be for nothing), and a ReLU."""
    x = layer(*sizes, use_bias=not normalized, kernel_initializer=_normal(deviation), name=name)(x)
    if normalized:
        x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")(x)
    return layers.ReLU(name=f"{name}_relu")(x)


def _normal(deviation: float) -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, deviation)


def _last(config: Config, x: Any, name: str, deviation: float) -> Any:
    """The layer that makes a picture, -1 to 1."""
    shape = (config.size, config.size, config.channels)
    if config.network == "mlp":
        x = layers.Dense(int(np.prod(shape)), kernel_initializer=_normal(deviation), name=f"{name}_last")(x)
        x = layers.Reshape(shape, name=f"{name}_picture")(x)
    else:
        last = layers.Conv2DTranspose(
            config.channels, 4, 2, "same", kernel_initializer=_normal(deviation), name=f"{name}_last"
        )
        x = last(x)
    return ops.tanh(ops.cast(x, "float32"))


def _generator(config: Config) -> keras.Model:
    """(N, latent) -> (N, size, size, channels), -1 to 1."""
    x = latent = keras.Input((config.latent,), name="latent")
    if config.network == "mlp":
        for i in range(1, config.generator_layers):
            x = _hidden(layers.Dense, x, config.generator_width, name=f"generator_hidden{i}", deviation=0.02)
    else:
        first, *others = (config.filters * factor for factor in _STAGES[config.size][0])
        # A transposed convolution of one pixel that covers 4 x 4 is a dense layer.
        x = layers.Reshape((1, 1, config.latent), name="generator_point")(x)
        x = _hidden(layers.Conv2DTranspose, x, first, 4, name="generator_up0", deviation=0.02)
        for i, filters in enumerate(others, 1):
            x = _hidden(layers.Conv2DTranspose, x, filters, 4, 2, "same", name=f"generator_up{i}", deviation=0.02)
    return keras.Model(latent, _last(config, x, "generator", 0.02), name="generator")


def _encoder(config: Config) -> keras.Model:
    """(N, size, size, channels), -1 to 1 -> codes, the flat (N, discriminator_width) or maps."""
    x = picture = keras.Input((config.size, config.size, config.channels), name="picture")
    if config.network == "mlp":
        x = layers.Flatten(name="encoder_flat")(x)
        for i in range(1, config.discriminator_layers):
            # The discriminator's first layer is not normalized.
            name = f"encoder_hidden{i}"
            x = _hidden(layers.Dense, x, config.discriminator_width, name=name, deviation=0.002, normalized=i > 1)
            if config.dropout:
                x = layers.Dropout(0.5, name=f"{name}_dropout")(x)
    else:
        for i, factor in enumerate(_STAGES[config.size][1]):
            filters, name = config.filters * factor, f"encoder_down{i}"
            x = _hidden(layers.Conv2D, x, filters, 4, 2, "same", name=name, deviation=0.002, normalized=i > 0)
    return keras.Model(picture, x, name="encoder")


def _code(config: Config) -> tuple[int, ...]:
    """The shape of a picture's code."""
    if config.network == "mlp":
        return (config.discriminator_width,)
    stages = _STAGES[config.size][1]
    side = config.size // 2 ** len(stages)
    return (side, side, config.filters * stages[-1])


def _decoder(config: Config) -> keras.Model:
    """codes -> (N, size, size, channels), -1 to 1."""
    x = code = keras.Input(_code(config), name="code")
    if config.network == "convolutional":
        for i, factor in enumerate(_STAGES[config.size][1][-2::-1]):
            filters, name = config.filters * factor, f"decoder_up{i}"
            x = _hidden(layers.Conv2DTranspose, x, filters, 4, 2, "same", name=name, deviation=0.002)
    return keras.Model(code, _last(config, x, "decoder", 0.002), name="decoder")


def _classifier(config: Config) -> keras.Model | None:
    """codes -> (N, 10) logits; None without labels."""
    if not config.labeled:
        return None
    code = keras.Input(_code(config), name="code")
    scores = layers.Dense(CLASSES, name="classifier_last")(layers.Flatten(name="classifier_flat")(code))
    return keras.Model(code, ops.cast(scores, "float32"), name="classifier")


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class EBGAN(PaperModel):
    """Generator, and a discriminator of encoder and decoder. Called, it generates; `fit` on real pictures trains both.

    Args:
        config, dtype: see `PaperModel`.
        generator: a network of one's own: (N, latent) -> (N, ...), -1 to 1.
        encoder: a network of one's own: (N, ...) -> codes (N, ...).
        decoder: a network of one's own: codes -> (N, ...), -1 to 1.
        classifier: a network of one's own: codes -> (N, 10) logits.

    Shapes:
        (N, latent), standard normal -> pictures (N, size, size, channels), 0-255. `fit` takes batches of real pictures
        (batch, size, size, channels), 0-255; with `labeled`, (pictures, pictures of known classes, their classes).

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.EBGAN(km.models.EBGAN.Config(size=16, filters=4, latent=8, margin=5.0))
        >>> generated = model(np.zeros((2, 8), "float32"))
        >>> tuple(generated.shape), tuple(model.energies(generated).shape)
        ((2, 16, 16, 3), (2,))

    Reference:
        Zhao et al. 2017, equations 1, 2 and 4, section 2.3.
    """

    Config = Config
    family_name = "ebgan"
    one_device = "the discriminator compares the pictures of a whole batch, and a step puts its running means back"
    networks = {  # noqa: RUF012
        "generator": _generator,
        "encoder": _encoder,
        "decoder": _decoder,
        "classifier": _classifier,
    }
    trained_by = {  # noqa: RUF012
        "generator": ("generator",),
        "discriminator": ("encoder", "decoder", "classifier"),
    }

    def loss_terms(self) -> Sequence[str]:
        return (
            *("loss", "real", "fake", "below_margin", "generator"),
            *(["pulling_away"] if self.config.pulling_away else []),
            *(["classes"] if self.config.labeled else []),
        )

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(self.config.learning_rate, beta_1=0.5, beta_2=0.999)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return to_rgb(self.generator(inputs, training=training))

    def energies(self, pictures: Any) -> Any:
        """(N, size, size, channels), 0-255 -> (N,): high for what is unlike the pictures it was trained on."""
        pictures = to_unit(pictures)
        return self.energy_of(pictures, self.decoder(self.encoder(pictures, training=False), training=False))

    def energy_of(self, pictures: Any, reconstruction: Any) -> Any:
        """(N, ...) pictures and their reconstructions, -1 to 1 -> energies (N,)."""
        squares = ops.square(ops.cast(reconstruction, "float32") - pictures)
        axes = tuple(range(1, len(squares.shape)))
        if self.config.energy == "mean":
            return ops.mean(squares, axis=axes)
        # A little below the root, or its derivative at 0 would be infinite.
        return ops.sqrt(ops.sum(squares, axis=axes) + 1e-12)

    def adversarial(self, margin: Any) -> AdversarialLosses:
        """The losses of both sides, of energies."""
        return energy(margin)

    def fit(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; a `MarginWatch` is among the callbacks."""
        if callbacks is None or isinstance(callbacks, keras.callbacks.Callback | list | tuple):
            several = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else [*(callbacks or [])]
            # First, so that it sees the means before a log resets them.
            callbacks = [MarginWatch(int(np.asarray(self.optimizer.iterations))), *several]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    def margin(self) -> Any:
        """The margin of the next step."""
        config = self.config
        if config.final_margin is None:
            return config.margin
        done = ops.cast(self.optimizer.iterations, "float32") / max(config.steps - 1, 1)
        return config.margin + ops.minimum(done, 1.0) * (config.final_margin - config.margin)

    def train_step(self, data: Any) -> dict[str, Any]:
        """The discriminator's update, then the generator's."""
        pictures, *known = data if isinstance(data, tuple) else (data,)
        real, margin = to_unit(pictures), self.margin()
        losses, count = self.adversarial(margin), ops.shape(real)[0]
        fake = self.generator(self._latent(count), training=True)
        with tf.GradientTape() as tape:
            real_energies = self._discriminated(real, self._noisy(real))[1]
            class_loss = self._class_loss(*known) if self.classifier is not None else 0.0
            # What the discriminator is given afterwards are real pictures: its running means must be of those alone.
            means = [tf.identity(variable.value) for variable in self._running_means()]
            fake_energies = self._discriminated(fake, fake)[1]
            loss = losses.discriminator(real_energies, fake_energies) + self.config.label_weight * class_loss
        self.minimize("discriminator", loss, tape)
        with tf.GradientTape() as tape:
            fake = self.generator(self._latent(count), training=True)
            codes, energies = self._discriminated(fake, fake)
            generator_loss = losses.generator(energies)
            if self.config.pulling_away:
                alike = pulling_away(codes)
                self.report(pulling_away=alike)
                generator_loss += self.config.pulling_away * alike
        self.minimize("generator", generator_loss, tape)
        for variable, value in zip(self._running_means(), means, strict=True):
            variable.assign(value)
        below = ops.mean(ops.cast(fake_energies < margin, "float32"))
        self.report(loss=loss, real=ops.mean(real_energies), fake=ops.mean(fake_energies), below_margin=below)
        self.report(generator=generator_loss)
        return self.reported()

    def _discriminated(self, pictures: Any, inputs: Any) -> tuple[Any, Any]:
        """Codes of the inputs, and energies of the pictures that their reconstructions should be."""
        codes = self.encoder(inputs, training=True)
        return codes, self.energy_of(pictures, self.decoder(codes, training=True))

    def _class_loss(self, pictures: Any, labels: Any) -> Any:
        scores = self.classifier(self.encoder(self._noisy(to_unit(pictures)), training=True), training=True)
        loss = ops.mean(keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True))
        self.report(classes=loss)
        return loss

    def _running_means(self) -> list[keras.Variable]:
        found = [*self.encoder.non_trainable_variables, *self.decoder.non_trainable_variables]
        return [variable for variable in found if variable.name.startswith("moving_")]

    def _noisy(self, pictures: Any) -> Any:
        if not self.config.noise:
            return pictures
        return pictures + self.config.noise * keras.random.normal(ops.shape(pictures), seed=self.seed_generator)

    def _latent(self, count: Any) -> Any:
        return keras.random.normal((count, self.config.latent), seed=self.seed_generator)


# --- family -----------------------------------------------------------------------------------------------------------


def _batches(config: Config, start: int) -> tf.data.Dataset:
    source = needed(config.pictures, "pictures: --pictures DIR, or an IDX file")
    if source.is_dir():
        warn_of_small(list_images(source), config.size)
    pictures = picture_stack(source, config.size, config.size, config.channels)
    if len(pictures) < 2:
        raise DataError(f"expected at least 2 pictures. Received: one, in {source}. A domain is learned from many.")
    if not config.labeled:
        return drawn_batches(pictures, config.batch, config.seed, start)
    labels = read_idx(needed(config.labels, f"--labels FILE with the classes of the {config.labeled} labeled pictures"))
    if labels.shape != pictures.shape[:1] or labels.max(initial=0) >= CLASSES:
        raise DataError(
            f"expected a class from 0 to {CLASSES - 1} for each of the {len(pictures)} pictures in {config.labels}. "
            f"Received: labels {labels.shape} up to {labels.max(initial=0)}."
        )
    labeled = balanced(pictures, labels, config.labeled, CLASSES, config.seed)
    return drawn_batches(pictures, config.batch, config.seed, start, labeled)


def _servables(model: EBGAN) -> dict[str, Servable]:
    config = model.config
    shape = ("batch", config.size, config.size, config.channels)
    image = TensorSpec("image", shape, "uint8", "pictures, 0-255", "image")
    if config.channels == 1:
        image = TensorSpec("image", shape, "uint8", "gray pictures, 0-255", extremes=(0, 128, 255))

    def codes(image: tf.Tensor) -> Any:
        return model.encoder(to_unit(image), training=False)

    def energy(image: tf.Tensor) -> dict[str, tf.Tensor]:
        pictures, reconstruction = to_unit(image), model.decoder(codes(image), training=False)
        return {
            "energy": model.energy_of(pictures, reconstruction),
            "anomaly_map": tf.reduce_sum(tf.square(reconstruction - pictures), axis=3),
            "reconstruction": tf.cast(tf.round(to_rgb(reconstruction)), tf.uint8),
        }

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"classes": tf.nn.softmax(model.classifier(codes(image), training=False))}

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        pictures = example_images({"height": config.size, "width": config.size, **dims}, seed)["image"]
        return {"image": pictures[..., : config.channels]}

    def of_pictures(call: Any, behind: keras.Model, doc: str, *outputs: TensorSpec) -> Servable:
        # Only the variables that the servable reads leave with it.
        part = keras.Model(model.encoder.inputs[0], behind(model.encoder.outputs[0]), name=call.__name__)
        return Servable(call, part, (image,), outputs, example, {"batch": 1}, ({"batch": 3},), doc=doc)

    found = {
        "generate": generate(model.generator, to_rgb, "generates pictures like those it was trained on"),
        "energy": of_pictures(
            energy,
            model.decoder,
            "tells how unlike the pictures it was trained on a picture is, and where",
            TensorSpec("energy", ("batch",), "float32", f"high for anomalies ({config.energy})", atol=1e-3),
            TensorSpec("anomaly_map", shape[:3], "float32", "squared differences, pixels -1 to 1", atol=1e-3),
            TensorSpec("reconstruction", shape, "uint8", "the auto-encoder's, 0-255", image.kind, atol=1),
        ),
    }
    if model.classifier is not None:
        found["classify"] = of_pictures(
            classify,
            model.classifier,
            "tells classes apart, learned from few examples",
            TensorSpec("classes", ("batch", CLASSES), "float32", "probabilities of the classes"),
        )
    return found


FAMILY = Family(
    name="ebgan",
    config=Config,
    variants=VARIANTS,
    model=EBGAN,
    servables=_servables,
    task=energies_task("ebgan"),
    source=stream(_batches),
    preview=lambda model: {"samples": sheet(model, 8, 8)},
)
