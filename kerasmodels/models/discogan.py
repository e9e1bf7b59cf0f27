"""DiscoGAN: relations between two domains of pictures, discovered without any pairs, and translation along them.

Kim, Cha, Kim, Lee, Kim: Learning to Discover Cross-Domain Relations with Generative Adversarial Networks, ICML 2017;
the authors' PyTorch code.

Reproduced: generators of 5,513,856 parameters (7,153,480 with the code's extra layers) and discriminators of 2,765,568;
what the paper minimizes (`mode="paper"`) and what the code does (`mode="code"`): feature matching, the rate of the
reconstruction, and turns in which every third is the discriminators'; the two objectives that the paper compares with;
the mixtures of figure 3.

| departure from the paper | why |
|---|---|
| crops of 60 to 100 % of a photo's shorter side; the code resizes whole pictures | one stream for all families |
| colors in the order RGB; the code has BGR | the order of everything here |
| sizes other than 64: as many stages, and a last kernel of a 16th of the side | quick looks |
| `mode="code"`: in the discriminators' turns the generators' losses are not computed | they are not used |
"""

from collections.abc import Sequence
from functools import partial
from typing import Annotated, Any, Literal

import keras
import tensorflow as tf
from annotated_types import Ge
from keras import layers, ops

from kerasmodels.config import Fraction, NonNegative, NonNegativeInt, Positive, PositiveInt, check
from kerasmodels.family import Family, stream
from kerasmodels.losses.adversarial import STANDARD, feature_matching
from kerasmodels.tasks.translate import translate_task, translations
from kerasmodels.translator import Translator, TranslatorConfig, unpaired_crops

__all__ = ["Config", "DiscoGAN"]

_STRIDE = 16


class Config(TranslatorConfig):
    """What to train, from two folders `a` and `b`. The defaults are the paper's."""

    size: int = 64
    """Side of the training crops, pixels."""
    filters: PositiveInt = 64
    """Channels of the first maps; eight times as many in the smallest."""
    extra_layers: bool = False
    """Two more layers in the middle of the generators, with 100 numbers between them; only pictures of `size` then."""

    objective: Literal["discogan", "recongan", "gan"] = "discogan"
    """recongan and gan are what the paper compares with: from A to B only, with reconstruction and without. (The code's
    --model_arch.) What they leave out is not trained: discriminator_a and, with gan, b_to_a."""
    mode: Literal["paper", "code"] = "paper"
    """paper: adversarial and reconstruction losses, all networks in each step; code: the fields below too."""
    feature_weight: Fraction = 0.9
    """code: of feature matching in the generators' adversarial part; the rest is the discriminators' scores."""
    first_rate: Fraction = 0.01
    """code: part of the reconstruction in the generators' loss at first."""
    rate: Fraction = 0.5
    """code: that part after `rate_from` steps; 0.9 for the angles of cars."""
    rate_from: NonNegativeInt = 10000
    """code: steps with `first_rate`."""
    discriminator_every: Annotated[int, Ge(2)] = 3
    """code: every n-th step updates the discriminators, the others the generators."""
    weight_decay: NonNegative = 1e-4
    """Times a weight, added to its gradient (not decoupled). The code: 1e-5."""

    steps: PositiveInt = 50000
    """Training steps (batches)."""
    batch: PositiveInt = 200
    """Pictures of each domain in a step. The code: 64."""
    learning_rate: Positive = 2e-4
    """Of Adam (0.5, 0.999)."""

    def validate(self) -> None:
        """Raise UsageError unless the size suits the networks' strides."""
        check(
            self.size >= 2 * _STRIDE and self.size % _STRIDE == 0,
            f"size, a multiple of {_STRIDE} and at least {2 * _STRIDE}",
            self.size,
        )


VARIANTS = {
    "paper": Config(),
    "code": Config(mode="code", batch=64, weight_decay=1e-5),
    "quick": Config(mode="code", batch=16, weight_decay=1e-5, filters=16, rate_from=200, steps=600),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def _norm(name: str) -> keras.layers.Layer:
    return layers.BatchNormalization(momentum=0.9, epsilon=1e-5, name=f"{name}_norm")


def _generator(config: Config, name: str) -> keras.Model:
    """(N, H, W, 3), 0 to 1 -> the same; H and W multiples of 16."""
    side = config.size if config.extra_layers else None

    def layer(kind: type, x: Any, filters: int, label: str, kernel: int = 4, strides: int = 2) -> Any:
        padding = "same" if strides > 1 else "valid"
        return kind(filters, kernel, strides, padding, use_bias=False, name=f"{name}_{label}")(x)

    def leaky(x: Any, label: str, normalized: bool = True) -> Any:
        x = _norm(f"{name}_{label}")(x) if normalized else x
        return layers.LeakyReLU(0.2, name=f"{name}_{label}_relu")(x)

    def relu(x: Any, label: str) -> Any:
        return layers.ReLU(name=f"{name}_{label}_relu")(_norm(f"{name}_{label}")(x))

    x = picture = keras.Input((side, side, 3), name="picture")
    for i in range(4):
        x = leaky(layer(layers.Conv2D, x, config.filters * 2**i, f"down{i}"), f"down{i}", normalized=i > 0)
    if config.extra_layers:
        x = leaky(layer(layers.Conv2D, x, 100, "to_code", config.size // _STRIDE, 1), "to_code")
        x = relu(layer(layers.Conv2DTranspose, x, 8 * config.filters, "of_code", config.size // _STRIDE, 1), "of_code")
    for i in (2, 1, 0):
        x = relu(layer(layers.Conv2DTranspose, x, config.filters * 2**i, f"up{i}"), f"up{i}")
    x = layer(layers.Conv2DTranspose, x, 3, "last")
    return keras.Model(picture, ops.sigmoid(ops.cast(x, "float32")), name=name)


def _discriminator(config: Config, name: str) -> keras.Model:
    """(N, size, size, 3), 0 to 1 -> three maps of features, and a score for each picture (N, 1)."""
    x = picture = keras.Input((config.size, config.size, 3), name="picture")
    features = []
    for i in range(4):
        x = layers.Conv2D(config.filters * 2**i, 4, 2, "same", use_bias=False, name=f"{name}_down{i}")(x)
        x = _norm(f"{name}_down{i}")(x) if i else x
        x = layers.LeakyReLU(0.2, name=f"{name}_down{i}_relu")(x)
        features += [x] if i else []
    x = layers.Conv2D(1, config.size // _STRIDE, use_bias=False, name=f"{name}_last")(x)
    score = ops.cast(layers.Flatten(name=f"{name}_score")(x), "float32")
    return keras.Model(picture, [*features, score], name=name)


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class DiscoGAN(Translator):
    """Two generators and two discriminators. Called, it translates from domain A to domain B.

    Args:
        config, dtype: see `PaperModel`.
        a_to_b, b_to_a: networks of one's own: (N, ...), 0 to 1 -> the same.
        discriminator_a, discriminator_b: networks of one's own: (N, ...) -> features of any number of layers, and
            scores (N, 1).

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

    Config = Config
    family_name = "discogan"
    one_device = "its losses compare the means of whole batches, and steps take turns"
    networks = {  # noqa: RUF012
        "a_to_b": partial(_generator, name="a_to_b"),
        "b_to_a": partial(_generator, name="b_to_a"),
        "discriminator_a": partial(_discriminator, name="discriminator_a"),
        "discriminator_b": partial(_discriminator, name="discriminator_b"),
    }
    multiple = _STRIDE

    def loss_terms(self) -> Sequence[str]:
        terms = ("loss", "adversarial", "reconstruction", "discriminator_a", "discriminator_b")
        return (*terms, "features") if self.config.mode == "code" else terms

    @property
    def trained_by(self) -> dict[str, tuple[str, ...]]:  # type: ignore[override]
        """What the objective has; what it leaves out is not trained."""
        return {
            "generators": ("a_to_b",) if self.config.objective == "gan" else ("a_to_b", "b_to_a"),
            "discriminators": ("discriminator_b",)
            if self.config.objective != "discogan"
            else ("discriminator_a", "discriminator_b"),
        }

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        return keras.optimizers.Adam(self.config.learning_rate, beta_1=0.5, beta_2=0.999, epsilon=1e-8)

    def to_network(self, pictures: Any) -> Any:
        return ops.cast(pictures, "float32") / 255.0

    def from_network(self, pictures: Any) -> Any:
        return 255.0 * pictures

    def train_step(self, data: Any) -> dict[str, Any]:
        """paper: the generators' update, then the discriminators'; code: one of the two."""
        a, b, *_ = (self.to_network(pictures) for pictures in data)
        if self.config.mode == "paper":
            self._update_discriminators(a, b, *self._update_generators(a, b))
        else:
            # Either is updated once a step, so together they count the steps.
            step = sum(ops.cast(optimizer.iterations, "int64") for optimizer in self.optimizers.values())
            tf.cond(
                step % self.config.discriminator_every == 0,
                lambda: self._update_discriminators(a, b, self.b_to_a(b, training=True), self.a_to_b(a, training=True)),
                lambda: self._update_generators(a, b, step)[:0],
            )
        return self.reported()

    def _update_generators(self, a: Any, b: Any, step: Any = None) -> tuple[Any, ...]:
        """One update; the generated pictures of A and of B before it."""
        config = self.config
        with tf.GradientTape() as tape:
            fake_b, fake_a = self.a_to_b(a, training=True), self.b_to_a(b, training=True)
            reconstructed_a, reconstructed_b = self.b_to_a(fake_b, training=True), self.a_to_b(fake_a, training=True)
            terms = [self._generator_terms(self.discriminator_b, b, fake_b, a, reconstructed_a)]
            if config.objective == "discogan":
                terms.insert(0, self._generator_terms(self.discriminator_a, a, fake_a, b, reconstructed_b))
            adversarial, features, reconstruction = (sum(values) for values in zip(*terms, strict=True))
            self.report(adversarial=adversarial, reconstruction=reconstruction)
            if config.mode == "paper":
                loss = adversarial + (0.0 if config.objective == "gan" else reconstruction)
            else:
                self.report(features=features)
                loss = (1.0 - config.feature_weight) * adversarial + config.feature_weight * features
                if config.objective != "gan":
                    rate = ops.where(step < config.rate_from, config.first_rate, config.rate)
                    loss = (1.0 - rate) * loss + rate * reconstruction
        self.minimize("generators", loss, tape)
        self.report(loss=loss)
        return fake_a, fake_b

    def _generator_terms(
        self, discriminator: keras.Model, real: Any, fake: Any, source: Any, reconstructed: Any
    ) -> tuple[Any, Any, Any]:
        """Of one direction: adversarial loss, feature matching (0 if it is not used), reconstruction."""
        *fake_features, score = discriminator(fake, training=True)
        features: Any = 0.0
        if self.config.mode == "code":
            features = feature_matching(discriminator(real, training=True)[:-1], fake_features)
        return STANDARD.generator(score), features, ops.mean(ops.square(reconstructed - source))

    def _update_discriminators(self, a: Any, b: Any, fake_a: Any, fake_b: Any) -> tuple[Any, ...]:
        # The code halves the sum of the cross-entropies of real and of generated pictures.
        part = 0.5 if self.config.mode == "code" else 1.0
        with tf.GradientTape() as tape:
            loss_a, loss_b = (
                part * STANDARD.discriminator(network(real, training=True)[-1], network(fake, training=True)[-1])
                for network, real, fake in ((self.discriminator_a, a, fake_a), (self.discriminator_b, b, fake_b))
            )
            loss = loss_a + loss_b
        self.minimize("discriminators", loss, tape)
        self.report(discriminator_a=loss_a, discriminator_b=loss_b)
        return ()

    def minimize(self, group: str, loss: Any, tape: tf.GradientTape) -> None:
        # Keras' own weight decay is decoupled from the gradient; PyTorch's, in this code, is not.
        variables = self.optimizer_groups()[group]
        pairs = zip(tape.gradient(loss, variables), variables, strict=True)
        decayed = [gradient + self.config.weight_decay * variable for gradient, variable in pairs]
        self.optimizers[group].apply(decayed, variables)


# --- family -----------------------------------------------------------------------------------------------------------


FAMILY = Family(
    name="discogan",
    config=Config,
    variants=VARIANTS,
    model=DiscoGAN,
    servables=DiscoGAN.servables,
    task=translate_task("discogan"),
    source=stream(unpaired_crops),
    preview=translations,
)
