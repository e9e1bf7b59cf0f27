"""DiscoGAN: what two kinds of pictures have in common is found without any pairs, and each becomes the other.

Kim, Cha, Kim, Lee, Kim: Learning to Discover Cross-Domain Relations with Generative Adversarial Networks, ICML 2017;
the authors' PyTorch code.

Reproduced: generators of 5,513,856 parameters (7,153,480 with the code's extra layers) and judges of 2,765,568; what
the paper minimises (`mode="paper"`) and what the code does (`mode="code"`): feature matching, the rate of the
reconstruction, and turns in which every third is the judges'; the mixtures of figure 3.

| departure from the paper | why |
|---|---|
| crops of 60 to 100 % of a photo's shorter side; the code resizes whole pictures | one stream for all families |
| colours in the order RGB; the code has BGR | the order of everything here |
| sizes other than 64: as many stages, and a last kernel of a 16th of the side | quick looks |
| `mode="code"`: in the judges' turns what is said of the generators is not computed | it is not used |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels import weights
from kerasmodels.data import list_images, read_image, unpaired
from kerasmodels.data.stacks import fitted
from kerasmodels.data.unpaired import kinds
from kerasmodels.family import (
    Datasets,
    Experiment,
    Family,
    Servable,
    TensorSpec,
    check,
    config_to_dict,
)
from kerasmodels.layers.padding import on_multiples
from kerasmodels.losses.adversarial import STANDARD, feature_matching
from kerasmodels.metrics import TermMean
from kerasmodels.models.discogan import experiments
from kerasmodels.training import devices, translation
from kerasmodels.training.translation import DIRECTIONS, translated

__all__ = ["Config", "DiscoGAN", "translated"]

STRIDE = 16


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's."""

    a: Path | None = None
    """A folder of pictures of one kind."""
    b: Path | None = None
    """A folder of pictures of the other kind; nothing needs to match."""
    start_from: str | None = None
    """Begin with these weights instead of random ones: a run folder or a preset."""

    size: int = 64
    """Side of the training crops, pixels."""
    filters: int = 64
    """Channels of the first maps; eight times as many in the smallest."""
    extra_layers: bool = False
    """Two more layers in the middle of the generators, with 100 numbers between them; only pictures of `size` then."""

    mode: Literal["paper", "code"] = "paper"
    """paper: adversarial and reconstruction losses, all networks in each step; code: the fields below too."""
    feature_weight: float = 0.9
    """code: of feature matching in the generators' adversarial part; the rest is what the judges say."""
    first_rate: float = 0.01
    """code: part of the reconstruction in the generators' loss at first."""
    rate: float = 0.5
    """code: that part after `rate_from` steps; 0.9 for the angles of cars."""
    rate_from: int = 10000
    """code: steps with `first_rate`."""
    judge_every: int = 3
    """code: each so-manieth step is the judges', the others are the generators'."""
    weight_decay: float = 1e-4
    """Times a weight, added to its gradient (not decoupled). The code: 1e-5."""

    steps: int = 50000
    """Training steps (batches)."""
    batch: int = 200
    """Pictures of each kind in a step. The code: 64."""
    learning_rate: float = 2e-4
    """Of Adam (0.5, 0.999)."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 halves the time where the processor has bfloat16 instructions. Weights stay float32."""
    seed: int = 0
    """Of the streams of crops and, under `kerasmodels train`, of the initial weights."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        for name, known in (("mode", ("paper", "code")), ("precision", ("float32", "mixed_bfloat16"))):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        for name in ("filters", "steps", "batch", "learning_rate"):
            check(getattr(self, name) > 0, f"{name} > 0", getattr(self, name))
        for name in ("feature_weight", "first_rate", "rate"):
            check(0 <= getattr(self, name) <= 1, f"{name} from 0 to 1", getattr(self, name))
        for name in ("rate_from", "weight_decay"):
            check(getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name))
        check(self.judge_every >= 2, "judge_every >= 2, or the generators never have their turn", self.judge_every)
        check(
            self.size >= 2 * STRIDE and self.size % STRIDE == 0,
            f"size, a multiple of {STRIDE} and at least {2 * STRIDE}",
            self.size,
        )


VARIANTS = {
    "paper": Config(),
    "code": Config(mode="code", batch=64, weight_decay=1e-5),
    "quick": Config(mode="code", batch=16, weight_decay=1e-5, filters=16, rate_from=200, steps=600),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def _norm(dtype: str, name: str) -> keras.layers.Layer:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"{name}_norm")


def _generator(config: Config, dtype: str, name: str) -> keras.Model:
    """(N, H, W, 3), 0 to 1 -> the same; H and W multiples of 16."""
    side = config.size if config.extra_layers else None

    def layer(kind: type, x: Any, filters: int, label: str, kernel: int = 4, strides: int = 2) -> Any:
        padding = "same" if strides > 1 else "valid"
        label = f"{name}_{label}"
        return kind(filters, kernel, strides, padding, use_bias=False, dtype=dtype, name=label)(x)

    def leaky(x: Any, label: str, normalized: bool = True) -> Any:
        x = _norm(dtype, f"{name}_{label}")(x) if normalized else x
        return layers.LeakyReLU(0.2, dtype=dtype, name=f"{name}_{label}_relu")(x)

    def relu(x: Any, label: str) -> Any:
        return layers.ReLU(dtype=dtype, name=f"{name}_{label}_relu")(_norm(dtype, f"{name}_{label}")(x))

    x = given = keras.Input((side, side, 3), name="picture")
    for i in range(4):
        x = leaky(layer(layers.Conv2D, x, config.filters * 2**i, f"down{i}"), f"down{i}", normalized=i > 0)
    if config.extra_layers:
        x = leaky(layer(layers.Conv2D, x, 100, "to_code", config.size // STRIDE, 1), "to_code")
        x = relu(layer(layers.Conv2DTranspose, x, 8 * config.filters, "of_code", config.size // STRIDE, 1), "of_code")
    for i in (2, 1, 0):
        x = relu(layer(layers.Conv2DTranspose, x, config.filters * 2**i, f"up{i}"), f"up{i}")
    x = layer(layers.Conv2DTranspose, x, 3, "last")
    return keras.Model(given, ops.sigmoid(ops.cast(x, "float32")), name=name)


def _judge(config: Config, dtype: str, name: str) -> keras.Model:
    """(N, size, size, 3), 0 to 1 -> three maps of features, and a score for each picture (N, 1)."""
    x = given = keras.Input((config.size, config.size, 3), name="picture")
    features = []
    for i in range(4):
        x = layers.Conv2D(config.filters * 2**i, 4, 2, "same", use_bias=False, dtype=dtype, name=f"{name}_down{i}")(x)
        x = _norm(dtype, f"{name}_down{i}")(x) if i else x
        x = layers.LeakyReLU(0.2, dtype=dtype, name=f"{name}_down{i}_relu")(x)
        features += [x] if i else []
    x = layers.Conv2D(1, config.size // STRIDE, use_bias=False, dtype=dtype, name=f"{name}_last")(x)
    score = ops.cast(layers.Flatten(dtype=dtype, name=f"{name}_score")(x), "float32")
    return keras.Model(given, [*features, score], name=name)


# --- trainer ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class DiscoGAN(keras.Model):
    """Two generators and two judges. Called, it translates a to b.

    Args:
        config: a `DiscoGAN.Config` (or its values as a dict).
        precision: dtype policy of the layers.

    Shapes:
        (N, H, W, 3) RGB 0-255 -> (N, H, W, 3) RGB 0-255; H and W multiples of 16. `fit` takes pairs (a, b) of
        (batch, size, size, 3), in which nothing needs to match.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.DiscoGAN(km.models.DiscoGAN.Config(filters=2, size=32))
        >>> tuple(model(np.zeros((1, 32, 48, 3), "float32")).shape)
        (1, 32, 48, 3)

    Reference:
        Kim et al. 2017, equations 3 to 10 and figure 4; discogan/image_translation.py of SKTBrain/DiscoGAN.
    """

    Config: TypeAlias = Config
    family_name = "discogan"
    one_device = "its losses compare the means of whole batches, and steps take turns"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "discogan", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.precision = precision
        self.a_to_b, self.b_to_a = (_generator(self.config, precision, name) for name in DIRECTIONS)
        self.judge_a, self.judge_b = (_judge(self.config, precision, name) for name in ("judge_a", "judge_b"))
        terms: tuple[str, ...] = ("loss", "adversarial", "reconstruction", "judge_a", "judge_b")
        terms += ("features",) if self.config.mode == "code" else ()
        self.term_means = {term: TermMean(name=term) for term in terms}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return 255.0 * self.a_to_b(_unit(inputs), training=training)

    def compile(self, optimizer: Any = "adam", judge_optimizer: Any = "adam", **kwargs: Any) -> None:
        """Compile with an optimizer for the generators and one for the judges.

        Args:
            optimizer: of both generators.
            judge_optimizer: of both judges.
            **kwargs: see `keras.Model.compile`. XLA makes convolutions slower on CPUs, so `jit_compile` is False.
        """
        devices.check_model(self)
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        self.judge_optimizer = keras.optimizers.get(judge_optimizer)
        self.optimizer.build(self._generators())
        self.judge_optimizer.build(self._judges())

    def _generators(self) -> list[keras.Variable]:
        return [*self.a_to_b.trainable_variables, *self.b_to_a.trainable_variables]

    def _judges(self) -> list[keras.Variable]:
        return [*self.judge_a.trainable_variables, *self.judge_b.trainable_variables]

    def train_step(self, data: Any) -> dict[str, Any]:
        """paper: the generators' update, then the judges'; code: one of the two."""
        a, b = (_unit(pictures) for pictures in data)
        if self.config.mode == "paper":
            self._improve_judges(a, b, *self._improve_generators(a, b))
        else:
            # Either is updated once a step, so together they count the steps.
            step = ops.cast(self.optimizer.iterations, "int64") + ops.cast(self.judge_optimizer.iterations, "int64")
            tf.cond(
                step % self.config.judge_every == 0,
                lambda: self._improve_judges(a, b, self.b_to_a(b, training=True), self.a_to_b(a, training=True)),
                lambda: self._improve_generators(a, b, step)[:0],
            )
        return {name: mean.result() for name, mean in self.term_means.items()}

    def _improve_generators(self, a: Any, b: Any, step: Any = None) -> tuple[Any, ...]:
        """One update; what the generators made of b and of a before it."""
        config = self.config
        with tf.GradientTape() as tape:
            as_b, as_a = self.a_to_b(a, training=True), self.b_to_a(b, training=True)
            back_a, back_b = self.b_to_a(as_b, training=True), self.a_to_b(as_a, training=True)
            reconstruction = ops.mean(ops.square(back_a - a)) + ops.mean(ops.square(back_b - b))
            (*seen_a, score_a), (*seen_b, score_b) = (
                judge(made, training=True) for judge, made in ((self.judge_a, as_a), (self.judge_b, as_b))
            )
            adversarial = STANDARD.generator(score_a) + STANDARD.generator(score_b)
            if config.mode == "paper":
                loss = adversarial + reconstruction
            else:
                features = feature_matching(self.judge_a(a, training=True)[:-1], seen_a)
                features += feature_matching(self.judge_b(b, training=True)[:-1], seen_b)
                self.term_means["features"].update_state(features)
                rate = ops.where(step < config.rate_from, config.first_rate, config.rate)
                matched = (1.0 - config.feature_weight) * adversarial + config.feature_weight * features
                loss = (1.0 - rate) * matched + rate * reconstruction
        self._apply(self.optimizer, tape, loss, self._generators())
        for name, value in (("loss", loss), ("adversarial", adversarial), ("reconstruction", reconstruction)):
            self.term_means[name].update_state(value)
        return as_a, as_b

    def _improve_judges(self, a: Any, b: Any, as_a: Any, as_b: Any) -> tuple[Any, ...]:
        # The code halves what the cross-entropies of real and of made pictures sum up to.
        part = 0.5 if self.config.mode == "code" else 1.0
        with tf.GradientTape() as tape:
            wrong_a, wrong_b = (
                part * STANDARD.judge(judge(real, training=True)[-1], judge(made, training=True)[-1])
                for judge, real, made in ((self.judge_a, a, as_a), (self.judge_b, b, as_b))
            )
            loss = wrong_a + wrong_b
        self._apply(self.judge_optimizer, tape, loss, self._judges())
        self.term_means["judge_a"].update_state(wrong_a)
        self.term_means["judge_b"].update_state(wrong_b)
        return ()

    def _apply(self, optimizer: Any, tape: tf.GradientTape, loss: Any, variables: list[keras.Variable]) -> None:
        # Keras' own weight decay is decoupled from the gradient; PyTorch's, in this code, is not.
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        optimizer.apply([gradient + self.config.weight_decay * variable for gradient, variable in pairs], variables)

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self.term_means.values())

    def get_compile_config(self) -> dict[str, Any] | None:
        # Two optimizers are more than Keras restores: what is loaded can be used, or compiled anew.
        return None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _unit(pictures: Any) -> Any:
    return ops.cast(pictures, "float32") / 255.0


def _build(config: Config) -> DiscoGAN:
    """The model with Adam for each side, ready for `fit`."""
    kinds(config.a, config.b)
    model = DiscoGAN(config, precision=config.precision)
    if config.start_from is not None:
        weights.find(config.start_from).assign_to(model)
    model.compile(
        *(keras.optimizers.Adam(config.learning_rate, beta_1=0.5, beta_2=0.999, epsilon=1e-8) for _ in range(2))
    )
    return model


def _datasets(config: Config, start: int = 0) -> Datasets:
    return Datasets(train=unpaired(config.a, config.b, config.size, config.batch, config.seed, start))


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: DiscoGAN, config: Config) -> dict[str, Servable]:
    return {name: _servable(getattr(model, name), name, config) for name in DIRECTIONS}


def _servable(network: keras.Model, name: str, config: Config) -> Servable:
    def translate(image: tf.Tensor) -> dict[str, tf.Tensor]:
        if config.extra_layers:
            made = network(_unit(image), training=False)
        else:
            made = on_multiples(image, STRIDE, lambda x: network(_unit(x), training=False))
        return {"translated": tf.cast(tf.round(255.0 * made), tf.uint8)}

    sides: tuple[Any, Any] = (config.size, config.size) if config.extra_layers else ("height", "width")
    shape = ("batch", *sides, 3)
    some = {} if config.extra_layers else {"height": config.size, "width": config.size}
    others = ({}, {}) if config.extra_layers else ({"height": 49, "width": 66}, {"height": 64, "width": 40})

    def example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        random = np.random.default_rng(seed)
        height, width = (dims.get(name, config.size) for name in ("height", "width"))
        y, x = np.mgrid[0:height, 0:width] / config.size
        pictures = []
        for _ in range(dims["batch"]):
            waves = [np.sin(random.uniform(1, 9) * y + random.uniform(1, 9) * x + random.uniform(0, 6)) for _ in "rgb"]
            pictures.append(128 + 110 * np.stack(waves, axis=-1))
        return {"image": np.clip(np.stack(pictures), 0, 255).astype("uint8")}

    what = "0-255" if config.extra_layers else "0-255, of any size"
    return Servable(
        call=translate,
        model=network,
        inputs=(TensorSpec("image", shape, "uint8", f"RGB pictures of kind {name[0]}, {what}", "image"),),
        outputs=(
            TensorSpec("translated", shape, "uint8", f"the same as pictures of kind {name[-1]}", "image", atol=1),
        ),
        example=example,
        dims={"batch": 1, **some},
        check_dims=({"batch": 1, **others[0]}, {"batch": 2, **others[1]}),
        doc=f"makes pictures of kind {name[-1]} of pictures of kind {name[0]}",
    )


def _preview(model: DiscoGAN, config: Config) -> dict[str, np.ndarray]:
    """Of each kind four pictures; below each what became of it, and what came back."""
    shown = {}
    for name, folder in zip(DIRECTIONS, kinds(config.a, config.b), strict=True):
        columns = []
        for path in list_images(folder)[:4]:
            picture = fitted(read_image(path), config.size, config.size, 3)
            there = translated(model, picture, name)
            back = translated(model, there, DIRECTIONS[name == DIRECTIONS[0]])
            columns.append(np.concatenate([picture, there, back]))
        shown[name] = np.concatenate(columns, axis=1)
    return shown


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions(translation.RunOptions):
    """Translate pictures, or folders of pictures, from one kind to the other."""

    max_side: int | None = None
    """Shrink inputs so that the longer side is at most this, pixels. Best near the size of the training's crops."""


FAMILY = Family(
    name="discogan",
    config=Config,
    variants=VARIANTS,
    model=DiscoGAN,
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=partial(translation.run, "discogan"),
    experiments={
        "mixture": Experiment("five modes become ten: what collapses, and what does not", experiments.mixture),
    },
    preview=_preview,
)
