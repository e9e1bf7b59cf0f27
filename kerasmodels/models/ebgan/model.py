"""The trainer, what it reads, and what is served of it."""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels import registry, weights
from kerasmodels.data import list_images
from kerasmodels.data.stacks import picture_stack, random_batches, read_idx
from kerasmodels.data.unpaired import warn_of_small
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import Datasets, Servable, TensorSpec, config_to_dict
from kerasmodels.losses.adversarial import energy, pulling_away
from kerasmodels.metrics import TermMean
from kerasmodels.models.ebgan.config import CLASSES, Config
from kerasmodels.models.ebgan.networks import decoder, encoder, generator
from kerasmodels.training import devices
from kerasmodels.training.callbacks import StepCallback


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
    one_device = "the judge compares the pictures of a whole batch, and its running means are put back within a step"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "ebgan", **kwargs})
        self.config = (
            config if isinstance(config, Config) else registry.family(self.family_name).config_from_dict(config or {})
        )
        self.config.validate()
        self.precision = precision
        self.generator = generator(self.config, precision)
        self.encoder = encoder(self.config, precision)
        code = self.encoder.output_shape[1:]
        self.decoder = decoder(self.config, precision, code)
        self.classes = None
        if self.config.labelled:
            given = keras.Input(code, name="code")
            flat = layers.Flatten(dtype=precision, name="classes_flat")(given)
            scores = layers.Dense(CLASSES, dtype=precision, name="classes_last")(flat)
            self.classes = keras.Model(given, ops.cast(scores, "float32"), name="classes")
        self.draws = keras.random.SeedGenerator(self.config.seed, name="draws")
        terms: tuple[str, ...] = ("loss", "real", "fake", "below_margin", "generator")
        terms += ("pulling_away",) if self.config.pulling_away else ()
        terms += ("classes",) if self.config.labelled else ()
        self.term_means = {term: TermMean(name=term) for term in terms}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return to_bytes(self.generator(inputs, training=training))

    def energies(self, pictures: Any) -> Any:
        """(N, size, size, channels), 0-255 -> (N,): high for what is unlike the pictures it was trained on."""
        pictures = unit(pictures)
        return self.energy_of(pictures, self.decoder(self.encoder(pictures, training=False), training=False))

    def energy_of(self, pictures: Any, rebuilt: Any) -> Any:
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
        devices.check_model(self)
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

    def _running_means(self) -> list[keras.Variable]:
        found = [*self.encoder.non_trainable_variables, *self.decoder.non_trainable_variables]
        return [variable for variable in found if variable.name.startswith("moving_")]

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
        real, margin = unit(pictures), self.margin()
        fake = self.generator(self._latent(ops.shape(real)[0]), training=True)
        game = energy(margin)
        with tf.GradientTape() as tape:
            of_real = self._judged(real, self._noisy(real))[1]
            wrong: Any = 0.0
            if self.classes is not None:
                scores = self.classes(self.encoder(self._noisy(unit(shown)), training=True), training=True)
                wrong = ops.mean(keras.losses.sparse_categorical_crossentropy(labels, scores, from_logits=True))
                self.term_means["classes"].update_state(wrong)
            # What the judge is given afterwards are real pictures: its running means must be of those alone.
            means = [tf.identity(variable.value) for variable in self._running_means()]
            of_fake = self._judged(fake, fake)[1]
            loss = game.judge(of_real, of_fake) + self.config.label_weight * wrong
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
        for variable, value in zip(self._running_means(), means, strict=True):
            variable.assign(value)
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
        return codes, self.energy_of(pictures, self.decoder(codes, training=True))

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


def unit(pictures: Any) -> Any:
    return ops.cast(pictures, "float32") / 127.5 - 1.0


def to_bytes(pictures: Any) -> Any:
    return ops.clip(127.5 + 127.5 * pictures, 0.0, 255.0)


def _source(config: Config) -> Path:
    if config.pictures is None:
        raise UsageError("training needs pictures: --pictures DIR, or an IDX file.")
    if config.labelled and config.labels is None:
        raise UsageError(f"expected --labels FILE with the classes of the {config.labelled} labelled pictures.")
    return config.pictures


def build(config: Config) -> EBGAN:
    """The model with Adam for each side, ready for `fit`."""
    _source(config)
    model = EBGAN(config, precision=config.precision)
    if config.start_from is not None:
        weights.find(config.start_from).assign_to(model)
    model.compile(*(keras.optimizers.Adam(config.learning_rate, beta_1=0.5, beta_2=0.999) for _ in range(2)))
    return model


def datasets(config: Config, start: int = 0) -> Datasets:
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
    tensors = [tf.constant(array) for array in (pictures, *labelled)]

    def draw(step: tf.Tensor) -> Any:
        drawn = random_batches(tensors[0], tf.constant([batch]), seed, step)
        if not labelled:
            return drawn
        # The same draw of both arrays.
        return (drawn, *(random_batches(array, tf.constant([batch]), seed + 1, step) for array in tensors[1:]))

    steps = tf.data.Dataset.range(start, np.iinfo("int64").max)
    return Datasets(train=steps.map(draw, num_parallel_calls=1).prefetch(2))


# --- servables --------------------------------------------------------------------------------------------------------


def servables(model: EBGAN, config: Config) -> dict[str, Servable]:
    shape = ("batch", config.size, config.size, config.channels)
    kind: Any = "image" if config.channels == 3 else "tensor"
    given = TensorSpec("image", shape, "uint8", "pictures, 0-255", kind)

    def generate(latent: tf.Tensor) -> dict[str, tf.Tensor]:
        made = to_bytes(model.generator(latent, training=False))
        return {"pictures": tf.cast(tf.round(made), tf.uint8)}

    def judge(image: tf.Tensor) -> dict[str, tf.Tensor]:
        pictures = unit(image)
        rebuilt = model.decoder(model.encoder(pictures, training=False), training=False)
        return {
            "energy": model.energy_of(pictures, rebuilt),
            "map": tf.reduce_sum(tf.square(rebuilt - pictures), axis=3),
            "rebuilt": tf.cast(tf.round(to_bytes(rebuilt)), tf.uint8),
        }

    def classify(image: tf.Tensor) -> dict[str, tf.Tensor]:
        assert model.classes is not None
        return {"classes": tf.nn.softmax(model.classes(model.encoder(unit(image), training=False), training=False))}

    def pictures(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        return {"image": _example_pictures((dims["batch"], *shape[1:]), seed)}

    # Only the variables of one side leave with a servable.
    judged = keras.Model(model.encoder.inputs[0], model.decoder(model.encoder.outputs[0]), name="judge")
    found = {
        "generate": Servable(
            call=generate,
            model=model.generator,
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
            model=keras.Model(model.encoder.inputs[0], model.classes(model.encoder.outputs[0]), name="classifier"),
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
