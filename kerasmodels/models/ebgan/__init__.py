"""Energy-based GAN: the judge is an auto-encoder, and what it cannot rebuild has a high energy.

Zhao, Mathieu, LeCun: Energy-based Generative Adversarial Network, ICLR 2017. There is no code by the authors.

Reproduced: the fully connected networks of the grid (table 1), the convolutional ones for 64, 128 and 256 pixels
(appendix C), the margin, the pulling-away term, the semi-supervised game whose margin decays; the two theorems.

| departure from the paper | why |
|---|---|
| the energy is the Euclidean norm of the difference, pixels from -1 to 1 (`energy="norm"`) | the paper's equation; \
margins of 10, 20 and 80 are in this unit |
| the judge ends in tanh | energies are bounded, so a margin that no energy reaches is known before the training |
| learning rate 2e-4 for convolutional networks; the paper's is known for the grid alone (1e-3) | that of DCGAN |
| sizes 16 and 32: the networks for 64 pixels without their outermost stages | small pictures |
| `labelled`: a denoising auto-encoder with a layer of classes; the paper has a ladder network | one judge for all |
| pictures are drawn with replacement | a stream that can begin anywhere |
"""

import csv
import io
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from keras import layers, ops

from kerasmodels import weights
from kerasmodels.data import list_images, read_image, write_image
from kerasmodels.data.grids import latents, tiled
from kerasmodels.data.stacks import fitted, picture_stack, random_batches, read_idx
from kerasmodels.data.targets import files_and_targets
from kerasmodels.data.unpaired import warn_of_small
from kerasmodels.errors import DataError, UsageError
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
from kerasmodels.losses.adversarial import energy, pulling_away
from kerasmodels.models.ebgan import experiments
from kerasmodels.training.callbacks import StepCallback

__all__ = ["EBGAN", "Config", "MarginWatch", "looked_at"]

CLASSES = 10


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's for faces."""

    pictures: Path | None = None
    """A folder of pictures, or an IDX file such as MNIST's train-images-idx3-ubyte."""
    labels: Path | None = None
    """The IDX file of the pictures' classes, 0 to 9, for `labelled`."""
    start_from: str | None = None
    """Begin with these weights instead of random ones: a run folder or a preset."""

    network: Literal["convolutional", "mlp"] = "convolutional"
    """convolutional: the paper's for photos; mlp: fully connected, the paper's for digits."""
    size: int = 64
    """Side of the pictures, pixels: 16, 32, 64, 128 or 256 for convolutional."""
    channels: int = 3
    """3 for RGB, 1 for grey."""
    filters: int = 64
    """convolutional: channels of the judge's first maps; the generator's last ones have as many or twice as many."""
    generator_layers: int = 5
    """mlp: layers of weights of the generator (nLayerG)."""
    generator_width: int = 800
    """mlp: units of its hidden layers (sizeG)."""
    judge_layers: int = 2
    """mlp: layers of weights of the judge, of which the decoder is one (nLayerD)."""
    judge_width: int = 1024
    """mlp: units of its hidden layers (sizeD)."""
    dropout: bool = False
    """mlp: drop half of the judge's hidden units while it trains (dropoutD)."""
    latent: int = 100
    """Length of the generator's input, standard normal."""

    energy: Literal["norm", "mean"] = "norm"
    """norm: Euclidean length of the difference; mean: mean square, as some implementations have it. Pixels -1 to 1."""
    margin: float = 20.0
    """Made pictures of a higher energy no longer count; the paper: 20 for faces, 80 for bedrooms, 10 for digits."""
    final_margin: float | None = None
    """The margin goes to this, on a straight line over the steps; left out, it stays. The paper: 0 with labels."""
    pulling_away: float = 0.1
    """Weight of the pulling-away term in the generator's loss; 0 for none."""
    noise: float = 0.0
    """Deviation of normal noise on what the judge is shown of real pictures, which it must remove; pixels -1 to 1."""
    labelled: int = 0
    """Pictures whose classes are used, as many of each; 0: none, and no layer of classes."""
    label_weight: float = 10.0
    """Of the cross-entropy of classes, in the judge's loss."""

    steps: int = 50000
    """Updates of the generator, and of the judge."""
    batch: int = 64
    """Pictures in each update; at least 2, for the pulling-away term."""
    learning_rate: float = 2e-4
    """Of both networks; the paper's grid: 1e-3."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 halves the time where the processor has bfloat16 instructions. Weights stay float32."""
    seed: int = 0
    """Of the pictures' order, the generator's input and, under `kerasmodels train`, of the initial weights."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range, and some energy can reach the margin."""
        for name, known in (
            ("network", ("convolutional", "mlp")),
            ("energy", ("norm", "mean")),
            ("precision", ("float32", "mixed_bfloat16")),
            ("channels", (1, 3)),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        if self.network == "convolutional":
            check(self.size in _STAGES, f"size in {tuple(_STAGES)} for convolutional", self.size)
        check(self.size >= 4, "size >= 4", self.size)
        for name in ("filters", "generator_width", "judge_width", "latent", "steps", "learning_rate", "margin"):
            check(getattr(self, name) > 0, f"{name} > 0", getattr(self, name))
        for name in ("generator_layers", "judge_layers", "batch"):
            check(getattr(self, name) >= 2, f"{name} >= 2", getattr(self, name))
        for name in ("pulling_away", "noise", "labelled", "label_weight"):
            check(getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name))
        check(self.labelled % CLASSES == 0, f"labelled, a multiple of {CLASSES}", self.labelled)
        check(self.final_margin is None or self.final_margin >= 0, "final_margin >= 0", self.final_margin)
        largest = self.largest_energy
        check(
            max(self.margin, self.final_margin or 0) < largest,
            f"a margin below {largest:g}, the largest energy ({self.energy}) that {self.size} x {self.size} x "
            f"{self.channels} pixels from -1 to 1 can have: the hinge of a higher one never closes",
            self.margin if self.final_margin is None else (self.margin, self.final_margin),
        )

    @property
    def largest_energy(self) -> float:
        """Of a picture of which each pixel is rebuilt as its opposite: a margin must be below."""
        return 4.0 if self.energy == "mean" else 2.0 * self.size * self.channels**0.5


_DIGITS = Config(network="mlp", size=28, channels=1, margin=10.0, learning_rate=1e-3, steps=20000)
VARIANTS = {
    "paper": Config(),
    "bedrooms": Config(margin=80.0),
    "paper_128": Config(size=128, noise=0.1),
    "paper_256": Config(size=256, noise=0.1),
    "digits": _DIGITS,
    "labelled": Config(
        network="mlp",
        size=28,
        channels=1,
        generator_layers=3,
        judge_layers=3,
        judge_width=512,
        margin=10.0,
        final_margin=0.0,
        pulling_away=0.0,
        noise=0.3,
        labelled=100,
        learning_rate=1e-3,
        steps=20000,
    ),
    "quick": Config(
        network="mlp",
        size=28,
        channels=1,
        generator_layers=3,
        generator_width=400,
        judge_width=128,
        margin=10.0,
        learning_rate=1e-3,
        steps=1000,
    ),
}


# --- networks ---------------------------------------------------------------------------------------------------------

# Channels, in units of `filters`: the generator's maps from 4 x 4 pixels on, and the encoder's.
_STAGES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    16: ((4, 2), (1, 2)),
    32: ((8, 4, 2), (1, 2)),
    64: ((16, 8, 4, 2), (1, 2, 4)),
    128: ((16, 8, 4, 2, 1), (1, 2, 4, 8)),
    256: ((32, 16, 8, 4, 2, 1), (1, 2, 4, 8)),
}


@dataclass(frozen=True)
class _Build:
    """Layers of one network: how their weights begin, their dtype, and their names."""

    deviation: float
    dtype: str
    name: str

    def options(self, label: str) -> dict[str, Any]:
        return {"dtype": self.dtype, "name": f"{self.name}_{label}"}

    def weighted(self, label: str) -> dict[str, Any]:
        return {"kernel_initializer": keras.initializers.RandomNormal(0.0, self.deviation), **self.options(label)}

    def hidden(self, layer: type, x: Any, *sizes: Any, label: str, normalized: bool = True) -> Any:
        """A layer of weights, normalised over the batch (its bias would then be for nothing), and a ReLU."""
        x = layer(*sizes, use_bias=not normalized, **self.weighted(label))(x)
        if normalized:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, **self.options(f"{label}_norm"))(x)
        return layers.ReLU(**self.options(f"{label}_relu"))(x)


def _generator(config: Config, dtype: str) -> keras.Model:
    """(N, latent) -> (N, size, size, channels), -1 to 1."""
    make = _Build(0.02, dtype, "generator")
    x = given = keras.Input((config.latent,), name="latent")
    if config.network == "mlp":
        for i in range(1, config.generator_layers):
            x = make.hidden(layers.Dense, x, config.generator_width, label=f"hidden{i}")
        x = _dense_picture(x, config, make)
    else:
        first, *others = (config.filters * factor for factor in _STAGES[config.size][0])
        # A transposed convolution of one pixel that covers 4 x 4 is a dense layer.
        x = layers.Reshape((1, 1, config.latent), **make.options("point"))(x)
        x = make.hidden(layers.Conv2DTranspose, x, first, 4, label="up0")
        for i, filters in enumerate(others, 1):
            x = make.hidden(layers.Conv2DTranspose, x, filters, 4, 2, "same", label=f"up{i}")
        x = layers.Conv2DTranspose(config.channels, 4, 2, "same", **make.weighted("last"))(x)
    return keras.Model(given, ops.tanh(ops.cast(x, "float32")), name="generator")


def _encoder(config: Config, dtype: str) -> keras.Model:
    """(N, size, size, channels), -1 to 1 -> codes, the flat (N, judge_width) or maps."""
    make = _Build(0.002, dtype, "encoder")
    x = given = keras.Input((config.size, config.size, config.channels), name="picture")
    if config.network == "mlp":
        x = layers.Flatten(**make.options("flat"))(x)
        for i in range(1, config.judge_layers):
            # The judge's first layer is not normalised.
            x = make.hidden(layers.Dense, x, config.judge_width, label=f"hidden{i}", normalized=i > 1)
            if config.dropout:
                x = layers.Dropout(0.5, **make.options(f"hidden{i}_dropout"))(x)
    else:
        for i, factor in enumerate(_STAGES[config.size][1]):
            filters = config.filters * factor
            x = make.hidden(layers.Conv2D, x, filters, 4, 2, "same", label=f"down{i}", normalized=i > 0)
    return keras.Model(given, x, name="encoder")


def _decoder(config: Config, dtype: str, code: tuple[int, ...]) -> keras.Model:
    """codes -> (N, size, size, channels), -1 to 1."""
    make = _Build(0.002, dtype, "decoder")
    x = given = keras.Input(code, name="code")
    if config.network == "mlp":
        x = _dense_picture(x, config, make)
    else:
        for i, factor in enumerate(_STAGES[config.size][1][-2::-1]):
            x = make.hidden(layers.Conv2DTranspose, x, config.filters * factor, 4, 2, "same", label=f"up{i}")
        x = layers.Conv2DTranspose(config.channels, 4, 2, "same", **make.weighted("last"))(x)
    return keras.Model(given, ops.tanh(ops.cast(x, "float32")), name="decoder")


def _dense_picture(x: Any, config: Config, make: _Build) -> Any:
    shape = (config.size, config.size, config.channels)
    x = layers.Dense(int(np.prod(shape)), **make.weighted("last"))(x)
    return layers.Reshape(shape, **make.options("picture"))(x)


# --- trainer ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class EBGAN(keras.Model):
    """Generator, and a judge of an encoder and a decoder. Called, it generates; `fit` on real pictures trains both.

    Args:
        config: an `EBGAN.Config` (or its values as a dict).
        precision: dtype policy of the layers.

    Shapes:
        (N, latent), standard normal -> pictures (N, size, size, channels), 0-255. `fit` takes batches of real pictures
        (batch, size, size, channels), 0-255; with `labelled`, (pictures, pictures of known classes, their classes).

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.EBGAN(km.models.EBGAN.Config(size=16, filters=4, latent=8, margin=5.0))
        >>> made = model(np.zeros((2, 8), "float32"))
        >>> tuple(made.shape), tuple(model.energies(made).shape)
        ((2, 16, 16, 3), (2,))

    Reference:
        Zhao et al. 2017, equations 1, 2 and 4, section 2.3.
    """

    Config: TypeAlias = Config
    family_name = "ebgan"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "ebgan", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.precision = precision
        self.generator = _generator(self.config, precision)
        self.encoder = _encoder(self.config, precision)
        code = self.encoder.output_shape[1:]
        self.decoder = _decoder(self.config, precision, code)
        self.classes = None
        if self.config.labelled:
            given = keras.Input(code, name="code")
            flat = layers.Flatten(dtype=precision, name="classes_flat")(given)
            scores = layers.Dense(CLASSES, dtype=precision, name="classes_last")(flat)
            self.classes = keras.Model(given, ops.cast(scores, "float32"), name="classes")
        self.draws = keras.random.SeedGenerator(self.config.seed, name="draws")
        terms = ("loss", "real", "fake", "below_margin", "generator")
        terms += ("pulling_away",) if self.config.pulling_away else ()
        terms += ("classes",) if self.config.labelled else ()
        self.term_means = {term: keras.metrics.Mean(name=term) for term in terms}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return _bytes(self.generator(inputs, training=training))

    def energies(self, pictures: Any) -> Any:
        """(N, size, size, channels), 0-255 -> (N,): high for what is unlike the pictures it was trained on."""
        pictures = _unit(pictures)
        return self._energy(pictures, self.decoder(self.encoder(pictures, training=False), training=False))

    def _energy(self, pictures: Any, rebuilt: Any) -> Any:
        squares = ops.square(ops.cast(rebuilt, "float32") - pictures)
        if self.config.energy == "mean":
            return ops.mean(squares, axis=(1, 2, 3))
        # A little below the root, or its derivative at 0 would be infinite.
        return ops.sqrt(ops.sum(squares, axis=(1, 2, 3)) + 1e-12)

    def compile(self, optimizer: Any = "adam", judge_optimizer: Any = "adam", **kwargs: Any) -> None:
        """Compile with an optimizer for each side.

        Args:
            optimizer: of the generator.
            judge_optimizer: of the encoder, the decoder and the layer of classes.
            **kwargs: see `keras.Model.compile`. XLA makes convolutions slower on CPUs, so `jit_compile` is False.
        """
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        self.judge_optimizer = keras.optimizers.get(judge_optimizer)
        self.optimizer.build(self.generator.trainable_variables)
        self.judge_optimizer.build(self._judges())

    def fit(self, *args: Any, callbacks: Any = None, **kwargs: Any) -> Any:
        """As `keras.Model.fit`; a `MarginWatch` is among the callbacks."""
        if callbacks is None or isinstance(callbacks, keras.callbacks.Callback | list | tuple):
            several = [callbacks] if isinstance(callbacks, keras.callbacks.Callback) else [*(callbacks or [])]
            # First, so that it sees the means before a log resets them.
            callbacks = [MarginWatch(int(np.asarray(self.optimizer.iterations))), *several]
        return super().fit(*args, callbacks=callbacks, **kwargs)

    def _judges(self) -> list[keras.Variable]:
        networks = [self.encoder, self.decoder, *([self.classes] if self.classes is not None else [])]
        return [variable for network in networks for variable in network.trainable_variables]

    def margin(self) -> Any:
        """The margin of the next step."""
        config = self.config
        if config.final_margin is None:
            return config.margin
        done = ops.cast(self.optimizer.iterations, "float32") / max(config.steps - 1, 1)
        return config.margin + ops.minimum(done, 1.0) * (config.final_margin - config.margin)

    def train_step(self, data: Any) -> dict[str, Any]:
        """The judge's update, then the generator's."""
        if self.config.labelled:
            pictures, shown, labels = data
        else:
            pictures, *_ = keras.utils.unpack_x_y_sample_weight(data)
        real, margin = _unit(pictures), self.margin()
        fake = self.generator(self._latent(ops.shape(real)[0]), training=True)
        game = energy(margin)
        with tf.GradientTape() as tape:
            of_real = self._judged(real, self._noisy(real))[1]
            of_fake = self._judged(fake, fake)[1]
            loss = game.judge(of_real, of_fake)
            if self.classes is not None:
                scores = self.classes(self.encoder(self._noisy(_unit(shown)), training=True), training=True)
                wrong = ops.mean(keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True))
                self.term_means["classes"].update_state(wrong)
                loss += self.config.label_weight * wrong
        variables = self._judges()
        self.judge_optimizer.apply(tape.gradient(loss, variables), variables)
        below = ops.mean(ops.cast(of_fake < margin, "float32"))
        with tf.GradientTape() as tape:
            made = self.generator(self._latent(ops.shape(real)[0]), training=True)
            codes, of_made = self._judged(made, made)
            pulled = game.generator(of_made)
            if self.config.pulling_away:
                alike = pulling_away(codes)
                self.term_means["pulling_away"].update_state(alike)
                pulled += self.config.pulling_away * alike
        variables = self.generator.trainable_variables
        self.optimizer.apply(tape.gradient(pulled, variables), variables)
        for name, value in (
            ("loss", loss),
            ("real", ops.mean(of_real)),
            ("fake", ops.mean(of_fake)),
            ("below_margin", below),
            ("generator", pulled),
        ):
            self.term_means[name].update_state(value)
        return {name: mean.result() for name, mean in self.term_means.items()}

    def _judged(self, pictures: Any, shown: Any) -> tuple[Any, Any]:
        """Codes of what is shown, and energies of the pictures."""
        codes = self.encoder(shown, training=True)
        return codes, self._energy(pictures, self.decoder(codes, training=True))

    def _noisy(self, pictures: Any) -> Any:
        if not self.config.noise:
            return pictures
        return pictures + self.config.noise * keras.random.normal(ops.shape(pictures), seed=self.draws)

    def _latent(self, count: Any) -> Any:
        return keras.random.normal((count, self.config.latent), seed=self.draws)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.term_means.values())

    def get_compile_config(self) -> dict[str, Any] | None:
        # Two optimizers are more than Keras restores: what is loaded can be used, or compiled anew.
        return None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


class MarginWatch(StepCallback):
    """Says, once each, what makes a margin useless. `EBGAN.fit` has one; a margin that moves is not watched.

    For `patience` steps in a row the margin was below the energy that even real pictures keep, so that nothing can be
    told apart by it; or no made picture was below the margin, so that the judge does not see them.

    Args:
        start: steps done before this `fit`.
        patience: steps.
    """

    def __init__(self, start: int = 0, patience: int = 500):
        super().__init__(start)
        self.patience = patience
        self.said: list[str] = []
        self._sums: dict[str, tuple[float, float]] = {}
        self._high = self._idle = 0

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        margin, kind = self.model.config.margin, self.model.config.energy
        real, fake, below = (self._latest(term) for term in ("real", "fake", "below_margin"))
        if self.model.config.final_margin is not None:
            return
        self._high = self._high + step - before if real >= margin else 0
        self._idle = self._idle + step - before if below == 0 else 0
        if self._high >= self.patience:
            self._say(
                "the margin is too low",
                f"for {self._high} steps real pictures kept a mean energy ({kind}) of {real:.4g} or so, above the "
                f"margin {margin:g}: the judge cannot hold them below it and made ones above it. Raise --margin to "
                f"{2 * real:.3g} or so.",
            )
        elif self._idle >= self.patience:
            self._say(
                "the hinge is never active",
                f"for {self._idle} steps no made picture had an energy ({kind}) below the margin {margin:g} "
                f"(mean {fake:.4g}): the judge does not see them. Raise --margin, or lower --learning-rate.",
            )

    def _latest(self, term: str) -> float:
        """Of the steps since the last call alone: the model's means go on until someone resets them."""
        mean = self.model.term_means[term]
        total, count = float(mean.total), float(mean.count)
        before, counted = self._sums.get(term, (0.0, 0.0))
        self._sums[term] = total, count
        return (total - before) / (count - counted) if count > counted else total / max(count, 1.0)

    def _say(self, what: str, why: str) -> None:
        if what not in self.said:
            self.said.append(what)
            print(f"warning: {what}: {why}", file=sys.stderr)


def _unit(pictures: Any) -> Any:
    return ops.cast(pictures, "float32") / 127.5 - 1.0


def _bytes(pictures: Any) -> Any:
    return ops.clip(127.5 + 127.5 * pictures, 0.0, 255.0)


def _source(config: Config) -> Path:
    if config.pictures is None:
        raise UsageError("training needs pictures: --pictures DIR, or an IDX file.")
    if config.labelled and config.labels is None:
        raise UsageError(f"expected --labels FILE with the classes of the {config.labelled} labelled pictures.")
    return config.pictures


def _build(config: Config) -> EBGAN:
    """The model with Adam for each side, ready for `fit`."""
    _source(config)
    model = EBGAN(config, precision=config.precision)
    if config.start_from is not None:
        trained = weights.find(config.start_from)
        weights.assign(model, weights.load_npz(trained.path), trained.path)
    model.compile(*(keras.optimizers.Adam(config.learning_rate, beta_1=0.5, beta_2=0.999) for _ in range(2)))
    return model


def _datasets(config: Config, start: int = 0) -> Datasets:
    source = _source(config)
    if source.is_dir():
        warn_of_small(list_images(source), config.size)
    pictures = picture_stack(source, config.size, config.size, config.channels)
    if len(pictures) < 2:
        raise DataError(
            f"expected at least 2 pictures. Received: one, in {config.pictures}. A kind is learnt from many."
        )
    if not config.labelled:
        return stream(pictures, config.batch, config.seed, start)
    assert config.labels is not None
    labels = read_idx(config.labels)
    if labels.shape != pictures.shape[:1] or labels.max(initial=0) >= CLASSES:
        raise DataError(
            f"expected a class from 0 to {CLASSES - 1} for each of the {len(pictures)} pictures in {config.labels}. "
            f"Received: labels {labels.shape} up to {labels.max(initial=0)}."
        )
    return stream(pictures, config.batch, config.seed, start, *known(pictures, labels, config.labelled, config.seed))


def known(pictures: np.ndarray, labels: np.ndarray, count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """`count` of the pictures and their classes, as many of each class.

    Raises:
        DataError: a class has too few.
    """
    order = np.random.default_rng(seed).permutation(len(labels))
    of_class = [order[labels[order] == number][: count // CLASSES] for number in range(CLASSES)]
    for number, found in enumerate(of_class):
        if len(found) < count // CLASSES:
            raise DataError(
                f"expected at least {count // CLASSES} pictures of each class for {count} labelled ones. "
                f"Received: {len(found)} of class {number}."
            )
    chosen = np.concatenate(of_class)
    return pictures[chosen], labels[chosen].astype("int32")


def stream(pictures: np.ndarray, batch: int, seed: int = 0, start: int = 0, *labelled: np.ndarray) -> Datasets:
    """Batches of pictures drawn with replacement; with those of known classes and the classes, if given."""

    def draw(step: tf.Tensor) -> Any:
        drawn = random_batches(pictures, tf.constant([batch]), seed, step)
        if not labelled:
            return drawn
        # The same draw of both arrays.
        return (drawn, *(random_batches(array, tf.constant([batch]), seed + 1, step) for array in labelled))

    steps = tf.data.Dataset.range(start, np.iinfo("int64").max)
    return Datasets(train=steps.map(draw, num_parallel_calls=1).prefetch(2))


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: EBGAN, config: Config) -> dict[str, Servable]:
    shape = ("batch", config.size, config.size, config.channels)
    kind: Any = "image" if config.channels == 3 else "tensor"
    given = TensorSpec("image", shape, "uint8", "pictures, 0-255", kind)

    def generate(latent: tf.Tensor) -> dict[str, tf.Tensor]:
        made = _bytes(model.generator(latent, training=False))
        return {"pictures": tf.cast(tf.round(made), tf.uint8)}

    def judge(image: tf.Tensor) -> dict[str, tf.Tensor]:
        pictures = _unit(image)
        rebuilt = model.decoder(model.encoder(pictures, training=False), training=False)
        return {
            "energy": model._energy(pictures, rebuilt),
            "map": tf.reduce_sum(tf.square(rebuilt - pictures), axis=3),
            "rebuilt": tf.cast(tf.round(_bytes(rebuilt)), tf.uint8),
        }

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        assert model.classes is not None
        return {"classes": tf.nn.softmax(model.classes(model.encoder(_unit(image), training=False), training=False))}

    def pictures(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        return {"image": _example_pictures((dims["batch"], *shape[1:]), seed)}

    # Only the variables of one side leave with a servable.
    judged = keras.Model(model.encoder.inputs, model.decoder(model.encoder.outputs[0]), name="judge")
    found = {
        "generate": Servable(
            call=generate,
            model=model.generator,
            inputs=(TensorSpec("latent", ("batch", config.latent), "float32", "standard normal numbers"),),
            outputs=(TensorSpec("pictures", shape, "uint8", "made pictures, 0-255", atol=1),),
            example=lambda dims, seed: {
                "latent": np.random.default_rng(seed).standard_normal((dims["batch"], config.latent), "float32")
            },
            dims={"batch": 1},
            check_dims=({"batch": 3},),
            doc="makes pictures like those it was trained on",
        ),
        "energy": Servable(
            call=judge,
            model=judged,
            inputs=(given,),
            outputs=(
                TensorSpec(
                    "energy", ("batch",), "float32", f"high for what is unlike them ({config.energy})", atol=1e-3
                ),
                TensorSpec("map", shape[:3], "float32", "squared differences, pixels -1 to 1: where it is", atol=1e-3),
                TensorSpec("rebuilt", shape, "uint8", "what the judge makes of the pictures, 0-255", atol=1),
            ),
            example=pictures,
            dims={"batch": 1},
            check_dims=({"batch": 3},),
            doc="tells how unlike the pictures it was trained on a picture is, and where",
        ),
    }
    if model.classes is not None:
        found["classify"] = Servable(
            call=classify,
            model=keras.Model(model.encoder.inputs, model.classes(model.encoder.outputs[0]), name="classifier"),
            inputs=(given,),
            outputs=(TensorSpec("classes", ("batch", CLASSES), "float32", "probabilities of the classes"),),
            example=pictures,
            dims={"batch": 1},
            check_dims=({"batch": 3},),
            doc="tells the classes apart of which it has seen some examples",
        )
    return found


def _example_pictures(shape: Sequence[Any], seed: int) -> np.ndarray:
    """Smooth made-up pictures."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[0 : shape[1], 0 : shape[2]] / shape[1]
    count = (shape[0], 1, 1, shape[3])
    up, across = (random.uniform(1, 9, count) for _ in range(2))
    waves = np.sin(up * y[None, ..., None] + across * x[None, ..., None] + random.uniform(0, 6, count))
    return np.clip(128 + 110 * waves, 0, 255).astype("uint8")


def _preview(model: EBGAN, config: Config) -> dict[str, np.ndarray]:
    return {"samples": sheet(model, 8, 8, seed=0)}


def sheet(model: EBGAN, rows: int, columns: int, seed: int, between: bool = False) -> np.ndarray:
    """Made pictures on one sheet.

    Args:
        model: the generator's.
        rows, columns: of pictures.
        seed: of the generator's input.
        between: each row goes from one input to another, on a straight line.

    Returns:
        (rows * size, columns * size, 3) uint8.
    """
    given = latents(rows, columns, model.config.latent, seed, between)
    return tiled(model.predict(given, batch_size=64, verbose=0), rows, columns)


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Make pictures; or, given some, tell how unlike the training's they are, and where."""

    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The sheet of pictures to write; for given pictures that of the first, or a folder if there are several."""
    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional] = ()
    """Pictures, or folders of pictures, whose energies to tell. None: make new ones."""
    preset: str | None = None
    """Shipped weights; `kerasmodels list` names them."""
    run: Path | None = None
    """A run folder, instead of a preset."""
    rows: int = 8
    """Rows of made pictures."""
    columns: int = 8
    """Made pictures in a row."""
    seed: int = 0
    """Another seed, other pictures."""
    between: bool = False
    """Each row goes from one picture to another."""


def _run(options: RunOptions) -> RunReport:
    if (options.preset is None) == (options.run is None):
        raise UsageError("expected one of --preset NAME and --run FOLDER.")
    check(options.rows > 0 and options.columns > 0, "rows > 0 and columns > 0", (options.rows, options.columns))
    trained = weights.preset("ebgan", options.preset) if options.preset is not None else weights.run(options.run or "")
    check(trained.family == "ebgan", "a run of ebgan", f"a run of {trained.family}")
    if not options.inputs:
        _, config, model = trained.load()
        path = write_image(options.out, sheet(model, options.rows, options.columns, options.seed, options.between))
        return RunReport((path,), {"pictures": options.rows * options.columns, "size": config.size})
    pairs = files_and_targets(options.inputs, options.out)
    _, config, model = trained.load()
    written, found = [], {}
    for file, target in pairs:
        found[str(file)], picture = looked_at(model, read_image(file))
        written.append(write_image(target, picture))
    strangest = sorted(found.items(), key=lambda pair: -pair[1])
    if len(written) > 1 or options.inputs[0].is_dir():
        table = io.StringIO()
        writer = csv.writer(table, lineterminator="\n")
        writer.writerows([("picture", "energy"), *((name, f"{value:.6g}") for name, value in strangest)])
        text = table.getvalue()
        written.append(weights.write_atomic(options.out / "energies.csv", lambda f: f.write(text.encode())))
    shown = {name: round(value, 4) for name, value in strangest[:10]}
    return RunReport(tuple(written), {"highest energies": shown, "energy": config.energy, "margin": config.margin})


def looked_at(model: EBGAN, picture: np.ndarray) -> tuple[float, np.ndarray]:
    """The energy of one picture, and the picture beside what the judge makes of it and where they differ.

    Args:
        model: a trained one.
        picture: (H, W, 3) uint8, RGB 0-255, of any size; cut to a square in the middle and resized as in training.

    Returns:
        The energy, and (size, 3 * size, 3) uint8, at least 128 pixels high: small ones are enlarged. In the last part
        white is a difference of half the range.
    """
    size, channels = model.config.size, model.config.channels
    given = fitted(picture, size, size, channels)
    answer = _servables(model, model.config)["energy"].call(image=tf.constant(given[None]))
    different = np.sqrt(np.asarray(answer["map"])[0] / channels)
    grey = np.clip(255 * different, 0, 255).astype("uint8")[..., None]
    parts = [np.broadcast_to(part, (size, size, 3)) for part in (given, np.asarray(answer["rebuilt"])[0], grey)]
    enlarged = np.concatenate(parts, axis=1).repeat(-(-128 // size), 0).repeat(-(-128 // size), 1)
    return float(answer["energy"][0]), enlarged


FAMILY = Family(
    name="ebgan",
    config=Config,
    variants=VARIANTS,
    model=EBGAN,
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "theorem": Experiment("a game on a line, played to its equilibrium; the terms by hand", experiments.theorem),
        "grid": Experiment("a grid of networks on digits: EBGAN, with pulling-away, and GAN", experiments.grid),
        "anomaly": Experiment("the energy of digits of a class never seen", experiments.anomaly),
        "labelled": Experiment("digits told apart from 100 labels", experiments.labelled),
    },
    preview=_preview,
)
