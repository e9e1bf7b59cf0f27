"""What discriminator and generator minimize, and what is added to it.

In every function `real` and `fake` are the discriminator's (a critic's) scores of real and of generated examples:
(N, ...), all of which count alike. Both sides minimize. Each function returns a scalar.

| losses | the discriminator minimizes | the generator minimizes |
|---|---|---|
| `STANDARD` | mean softplus(-real) + mean softplus(fake) | mean softplus(-fake), the non-saturating form |
| `LEAST_SQUARES` | (mean (real - 1)^2 + mean fake^2) / 2 | mean (fake - 1)^2 |
| `WASSERSTEIN` | mean fake - mean real | - mean fake |
| `energy(margin)` | mean real + mean max(0, margin - fake) | mean fake |

References: Goodfellow et al. 2014; Mao et al. 2017 (least squares, with CycleGAN's factor); Arjovsky et al. 2017
(Wasserstein), Gulrajani et al. 2017 (gradient penalty); Zhao et al. 2017 (energies, pulling-away term); Kim et al. 2017
and Salimans et al. 2016 (feature matching); Zhu et al. 2017 (cycles).
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import keras
from keras import ops

from kerasmodels.errors import DataError, UsageError


class AdversarialLosses(NamedTuple):
    """The losses of both sides.

    Args:
        discriminator: (real, fake) -> scalar, for the discriminator or critic.
        generator: fake -> scalar.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> real, fake = np.array([2.0, 4.0]), np.array([1.0, 1.0])
        >>> float(km.losses.WASSERSTEIN.discriminator(real, fake)), float(km.losses.WASSERSTEIN.generator(fake))
        (-2.0, -1.0)
    """

    discriminator: Callable[[Any, Any], Any]
    generator: Callable[[Any], Any]


def _float(scores: Any) -> Any:
    return ops.cast(scores, "float32")


STANDARD = AdversarialLosses(
    lambda real, fake: ops.mean(ops.softplus(-_float(real))) + ops.mean(ops.softplus(_float(fake))),
    lambda fake: ops.mean(ops.softplus(-_float(fake))),
)
"""Scores are logits. The generator maximizes log D(G(z)), which does not saturate (Goodfellow 2014, section 3)."""

LEAST_SQUARES = AdversarialLosses(
    lambda real, fake: 0.5 * (ops.mean(ops.square(_float(real) - 1.0)) + ops.mean(ops.square(_float(fake)))),
    lambda fake: ops.mean(ops.square(_float(fake) - 1.0)),
)
"""As CycleGAN uses it: only the discriminator's loss is halved, which slows it down."""

WASSERSTEIN = AdversarialLosses(
    lambda real, fake: ops.mean(_float(fake)) - ops.mean(_float(real)),
    lambda fake: -ops.mean(_float(fake)),
)
"""Minus the critic's loss estimates the distance, if the critic is 1-Lipschitz (Arjovsky et al. 2017, equation 2)."""


def energy(margin: Any) -> AdversarialLosses:
    """Scores are energies, at least 0, low for what looks real; those of fakes above `margin` no longer count.

    Args:
        margin: m, in the unit of the energies, a number or a scalar tensor. One above the largest possible energy never
            closes.

    Raises:
        UsageError: the margin is not above 0.

    Reference:
        Zhao et al. 2017, equations 1 and 2.
    """
    if isinstance(margin, int | float) and not margin > 0:
        raise UsageError(f"expected a margin above 0. Received: {margin}.")
    return AdversarialLosses(
        lambda real, fake: ops.mean(_float(real)) + ops.mean(ops.relu(margin - _float(fake))),
        lambda fake: ops.mean(_float(fake)),
    )


def pulling_away(codes: Any) -> Any:
    """How alike the codes of a batch are: the mean squared cosine of all pairs of different examples.

    Args:
        codes: (N, ...), N at least 2, such as an auto-encoder's codes of generated pictures; any unit.

    Returns:
        Scalar, 0 (all orthogonal) to 1 (all alike).

    Raises:
        DataError: there is only one example, so no pair.

    Reference:
        Zhao et al. 2017, equation 4; weight 0.1 in the generator's loss, and none in the discriminator's.
    """
    codes = ops.reshape(_float(codes), (ops.shape(codes)[0], -1))
    count = codes.shape[0]
    if count is not None and count < 2:
        raise DataError(f"expected codes of at least 2 examples. Received shape: {tuple(codes.shape)}.")
    unit = codes * ops.rsqrt(ops.maximum(ops.sum(ops.square(codes), axis=1, keepdims=True), 1e-12))
    cosines = ops.square(ops.matmul(unit, ops.transpose(unit)))
    n = ops.cast(ops.shape(codes)[0], "float32")
    # Each example with itself makes 1 on the diagonal.
    return (ops.sum(cosines) - ops.sum(ops.square(ops.sum(ops.square(unit), axis=1)))) / (n * (n - 1.0))


def feature_matching(real: Sequence[Any], fake: Sequence[Any]) -> Any:
    """How far the discriminator's mean features of generated examples are from those of real ones.

    Args:
        real, fake: features of each layer, (N, ...), with the same shapes but for N.

    Returns:
        Scalar: the sum over layers of the mean squared difference of the means over examples.

    Raises:
        DataError: not as many layers in both.

    Reference:
        Salimans et al. 2016, section 3.1, as DiscoGAN's code sums it over layers.
    """
    if len(real) != len(fake) or not real:
        raise DataError(f"expected features of the same layers. Received {len(real)} of real, {len(fake)} of fake.")
    total = 0.0
    for a, b in zip(real, fake, strict=True):
        total = total + ops.mean(ops.square(ops.mean(_float(a), axis=0) - ops.mean(_float(b), axis=0)))
    return total


def cycle_consistency(pictures: Any, reconstruction: Any) -> Any:
    """The mean absolute difference between pictures and their reconstruction; also the identity loss, with G(y) for it.

    Args:
        pictures, reconstruction: of one shape and unit.

    Returns:
        Scalar, the unit of the pictures.

    Reference:
        Zhu et al. 2017, equation 2 (weight 10) and section 5.2 (identity, half of it), for pictures of -1 to 1.
    """
    return ops.mean(ops.abs(_float(pictures) - _float(reconstruction)))


def clip_weights(variables: Iterable[keras.Variable], bound: float) -> None:
    """Put every entry of the variables back into [-bound, bound]: the critic's weights after each of its updates.

    Not to be mistaken for Keras' `clipvalue`, which clips gradients.

    Reference:
        Arjovsky et al. 2017, algorithm 1, line 7: 0.01.
    """
    for variable in variables:
        variable.assign(ops.clip(variable, -bound, bound))


def gradient_penalty(critic: Callable[[Any], Any], real: Any, fake: Any, mix: Any) -> Any:
    """How far the critic's slope is from 1 between real and generated examples. TensorFlow only.

    Args:
        critic: (N, ...) -> (N, ...) scores; each of one example alone (no batch normalization).
        real, fake: (N, ...) of one shape and unit.
        mix: (N,), for each example its place between the generated one (0) and the real one (1), uniform in 0-1.

    Returns:
        Scalar, the mean of (|gradient| - 1)^2, each example's gradient by itself; differentiable once more.

    Reference:
        Gulrajani et al. 2017, equation 3; weight 10 for pictures, 0.1 for their toy data.
    """
    import tensorflow as tf

    real, fake = _float(real), _float(fake)
    mix = ops.reshape(mix, (-1, *([1] * (len(real.shape) - 1))))
    between = mix * real + (1.0 - mix) * fake
    with tf.GradientTape() as tape:
        tape.watch(between)
        scores = ops.sum(_float(critic(between)))
    slopes = tape.gradient(scores, between)
    # A little below the root, or its derivative at 0 would be infinite.
    lengths = ops.sqrt(ops.sum(ops.square(slopes), axis=tuple(range(1, len(real.shape)))) + 1e-12)
    return ops.mean(ops.square(lengths - 1.0))
