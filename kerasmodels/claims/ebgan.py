"""The claims of `ebgan`: the theorems on a line, a grid of networks, energies of unseen digits, few labels.

Every generator and discriminator here is trained by `EBGAN.train_step`. The arms that are compared with it differ in
the config, or in the losses of a subclass.
"""

import dataclasses
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.claims.evidence import trained
from kerasmodels.data import write_image
from kerasmodels.data.digits import read_digits
from kerasmodels.data.grids import latents, tiled
from kerasmodels.data.stacks import balanced, drawn_batches
from kerasmodels.family import Claim, Experiment
from kerasmodels.losses.adversarial import STANDARD, AdversarialLosses, energy, pulling_away
from kerasmodels.models.ebgan import CLASSES, EBGAN, VARIANTS, Config
from kerasmodels.tasks.energies import anomaly_map

# --- the theorems -----------------------------------------------------------------------------------------------------


def theorem(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The game of section 2.2 with a generator of any distribution and a discriminator of any energies, 16 points."""
    from kerasmodels.data import plots

    margin, rounds = 10.0, 2000 if quick else 40000
    real = np.random.default_rng(0).dirichlet(np.full(16, 0.5))
    game = played(real, margin, rounds)
    last_moves = played(real, margin, 500, remember=False).values
    spread = float(real @ np.abs(game.energies - real @ game.energies) / margin)
    places = np.unique(np.geomspace(1, rounds, 200).astype(int)) - 1
    values = {"V (margin 10)": (places + 1, np.array(game.values)[places])}
    write_image(figures / "ebgan_theorem.png", plots.curves(values, "rounds", logarithmic=("x",)))

    codes = np.random.default_rng(1).normal(size=(12, 5)).astype("float32")
    pairs = [
        (codes[i] @ codes[j] / np.linalg.norm(codes[i]) / np.linalg.norm(codes[j])) ** 2
        for i in range(12)
        for j in range(12)
        if i != j
    ]
    fake = tf.constant([3.0, 9.9, 10.1, 30.0])
    with tf.GradientTape() as tape:
        tape.watch(fake)
        loss = energy(margin).discriminator(tf.zeros(4), fake)
    off_slopes = float(np.abs(tape.gradient(loss, fake).numpy() - np.array([-0.25, -0.25, 0.0, 0.0])).max())
    return [
        Claim(
            "value",
            f"best answers to all earlier moves, {rounds} rounds: V against the margin, relative difference",
            "V = m at equilibrium (theorem 1)",
            round(abs(game.values[-1] / margin - 1), 5),
            at_most=0.02,
        ),
        Claim(
            "distribution",
            "total variation between the generator's distribution and the data's",
            "0 at equilibrium (theorem 1)",
            round(0.5 * float(np.abs(game.generated - real).sum()), 5),
            at_most=0.02,
        ),
        Claim(
            "energies",
            "energies: mean difference from their mean where the data are, in margins",
            "0: almost everywhere a constant (theorem 2)",
            round(spread, 5),
            at_most=0.02,
        ),
        Claim(
            "value_of_last_moves",
            "best answers to the last move alone: V from and to, in margins, over the last 100 of 500 rounds",
            "not given",
            f"{min(last_moves[-100:]) / margin:.2f} to {max(last_moves[-100:]) / margin:.2f}",
        ),
        Claim(
            "pulling_away_orthogonal",
            "pulling-away term of orthogonal codes",
            "0 (equation 4)",
            float(pulling_away(np.eye(6))),
            at_least=-1e-6,
            at_most=1e-6,
        ),
        Claim(
            "pulling_away_equal",
            "pulling-away term of equal codes",
            "1 (equation 4)",
            float(pulling_away(np.ones((6, 3)))),
            at_least=1 - 1e-6,
            at_most=1 + 1e-6,
        ),
        Claim(
            "pulling_away_loop",
            "pulling-away term against a loop over all pairs, difference",
            "equal",
            abs(float(pulling_away(codes)) - float(np.mean(pairs))),
            at_most=1e-6,
        ),
        Claim(
            "slopes",
            "slope of the discriminator's loss against -1 / N within the margin and 0 beyond, largest difference",
            "equal (equation 1)",
            off_slopes,
            at_most=1e-6,
        ),
    ]


@dataclass(frozen=True)
class Played:
    """Where a game ended: the generator's distribution, the discriminator's energies, and V after every round."""

    generated: np.ndarray
    energies: np.ndarray
    values: list[float]


def played(real: np.ndarray, margin: float, rounds: int, remember: bool = True) -> Played:
    """Both sides answer as well as can be, in turns: the discriminator first (lemma 1), then the generator.

    Args:
        real: (K,) probabilities of the data on K points.
        margin: m.
        rounds: turns of both.
        remember: answer to the mean of the other's earlier moves (fictitious play, which converges, because the game
            differs from one of zero sum by what the other cannot change); else to the last move alone, which does not.
    """
    generated, energies = np.full(len(real), 1.0 / len(real)), np.zeros(len(real))
    values = []
    for turn in range(1, rounds + 1):
        # Of all energies, m where too much is generated and 0 elsewhere minimize V.
        answer = np.where(real < generated, margin, 0.0)
        energies = energies + (answer - energies) / (turn if remember else 1)
        point = np.zeros(len(real))
        point[energies.argmin()] = 1.0
        generated = generated + (point - generated) / ((turn + 1) if remember else 1)
        values.append(float(real @ energies + generated @ np.maximum(margin - energies, 0.0)))
    return Played(generated, energies, values)


# --- a grid of networks -----------------------------------------------------------------------------------------------

LAYERS = tuple((of_generator, of_discriminator) for of_generator in (2, 3, 4, 5) for of_discriminator in (2, 4))
SEEDS = 1


class _GAN(EBGAN):
    """A standard GAN of the same networks: `EBGAN`'s step with Goodfellow's losses, and scores for energies."""

    def energy_of(self, pictures: Any, reconstruction: Any) -> Any:
        return reconstruction[:, 0]

    def adversarial(self, margin: Any) -> AdversarialLosses:
        return STANDARD


def grid(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Table 1 and figures 2 and 3 in small: 8 pairs of networks, three objectives; 400 and 128 units."""
    from kerasmodels.data import plots

    pictures, _ = read_digits(data, "train")
    steps = 20 if quick else 1600
    shapes, seeds = (LAYERS[:2], 1) if quick else (LAYERS, SEEDS)
    classifier, accuracy = _classifier(data, 100 if quick else 1500)
    arms: dict[str, Callable[[Config], EBGAN]] = {
        "EBGAN": EBGAN,
        "EBGAN-PT": lambda config: EBGAN(dataclasses.replace(config, pulling_away=0.1)),
        "GAN": _gan,
    }
    found: dict[str, list[_Evaluated]] = {arm: [] for arm in arms}
    for shape in shapes:
        for seed in range(seeds):
            for arm, make in arms.items():
                keras.utils.set_random_seed(seed)
                model = make(_small_config(shape, seed))
                _fit(model, pictures, steps)
                generated = np.asarray(model.predict(latents(1, 1000, 100, 0), batch_size=250, verbose=0))
                found[arm].append(_evaluated(generated, classifier))
    sheets = [tiled(max(of, key=lambda each: each.score).pictures[:100], 10, 10) for of in found.values()]
    gap = np.full((sheets[0].shape[0], 12, 3), 255, "uint8")
    write_image(figures / "ebgan_grid.png", np.concatenate([sheets[0], gap, sheets[1], gap, sheets[2]], axis=1))
    scores = {arm: (np.linspace(0, 100, len(of)), np.sort([each.score for each in of])) for arm, of in found.items()}
    write_image(figures / "ebgan_grid_scores.png", plots.curves(scores, "% of the runs, worst to best", "score I'"))

    part = {arm: float(np.mean([each.classes >= 8 for each in of])) for arm, of in found.items()}
    entropy = {arm: round(float(np.mean([each.entropy for each in of])), 4) for arm, of in found.items()}

    def quartiles(arm: str) -> str:
        low, middle, high = np.percentile([each.score for each in found[arm]], (25, 50, 75))
        return f"{middle:.2f} ({low:.2f} to {high:.2f})"

    return [
        Claim(
            "grid_digits",
            f"{_source(data)}, {len(found['GAN'])} runs of {steps} steps each: part of EBGAN's with 8 or more of 10 "
            "digits; gate: GAN's",
            "more reliable than GAN (figure 2)",
            round(part["EBGAN"], 4),
            at_least=round(part["GAN"], 4),
        ),
        Claim("grid_digits_gan", "the same for GAN", "less", round(part["GAN"], 4)),
        Claim(
            "grid_digits_pt",
            "the same for EBGAN-PT",
            "more reliable than EBGAN (figure 2)",
            round(part["EBGAN-PT"], 4),
            at_least=round(part["GAN"], 4),
        ),
        *(
            Claim(key, f"score I' of {arm}: median (quartiles)", "figures 2 and 3", quartiles(arm))
            for key, arm in (("score", "EBGAN"), ("score_pt", "EBGAN-PT"), ("score_gan", "GAN"))
        ),
        Claim(
            "entropy_pt",
            "entropy of the generated digits (nats, at most 2.303), mean of the runs: EBGAN-PT; gate: EBGAN's",
            "the term spreads samples (section 2.4)",
            entropy["EBGAN-PT"],
            at_least=entropy["EBGAN"],
        ),
        Claim("entropy", "the same: EBGAN", "not given", entropy["EBGAN"]),
        Claim("entropy_gan", "the same: GAN", "not given", entropy["GAN"]),
        Claim(
            "classifier_accuracy",
            "accuracy of the classifier that counts the digits, %",
            "not given",
            round(100 * accuracy, 2),
            at_least=95,
        ),
    ]


def _source(data: Path | None) -> str:
    return "MNIST" if data is not None else "scikit-learn's digits"


def _small_config(shape: tuple[int, int], seed: int) -> Config:
    return Config(
        network="mlp",
        size=28,
        channels=1,
        generator_layers=shape[0],
        generator_width=400,
        discriminator_layers=shape[1],
        discriminator_width=128,
        margin=10.0,
        pulling_away=0.0,
        learning_rate=1e-3,
        seed=seed,
    )


def _gan(config: Config) -> EBGAN:
    """The same generator, and a discriminator as deep and wide that ends in a score."""
    # A margin that goes somewhere is not watched, and there is none here.
    config = dataclasses.replace(config, final_margin=config.margin)
    parts = EBGAN(config)
    for variable in parts.encoder.trainable_variables:
        if variable.name == "kernel":
            # From weights as small as an auto-encoder begins with (deviation 0.002), it hardly learns.
            variable.assign(10.0 * variable)
    code = keras.Input(parts.encoder.output_shape[1:])
    decoder = keras.Model(code, keras.layers.Dense(1)(code))
    return _GAN(config, generator=parts.generator, encoder=parts.encoder, decoder=decoder)


def _fit(model: EBGAN, pictures: np.ndarray, steps: int, labeled: tuple[np.ndarray, np.ndarray] | None = None) -> None:
    model.compile()
    trained(model, drawn_batches(pictures, model.config.batch, model.config.seed, labeled=labeled), steps)


@dataclass(frozen=True)
class _Evaluated:
    """What a classifier says of generated pictures: the score I', the entropy of the classes (nats), classes found."""

    pictures: np.ndarray
    score: float
    entropy: float
    classes: int


def _evaluated(pictures: np.ndarray, classifier: keras.Model) -> _Evaluated:
    logs = np.asarray(tf.nn.log_softmax(classifier.predict(pictures / 255.0, batch_size=250, verbose=0)), "float64")
    mean = np.exp(logs).mean(axis=0)
    # The square in the paper's formula, E KL(p(y) || p(y|x))^2, is the mark of a footnote.
    score = float((mean * (np.log(mean + 1e-12) - logs.mean(axis=0))).sum())
    sure = np.bincount(logs.argmax(1)[logs.max(1) >= np.log(0.9)], minlength=10)
    entropy = float(-(mean * np.log(mean + 1e-12)).sum())
    return _Evaluated(pictures, score, entropy, int((sure >= 0.01 * len(logs)).sum()))


def _classifier(data: Path | None, steps: int) -> tuple[keras.Model, float]:
    """A small convolutional network for digits of 0-1, and its accuracy on the test set."""
    keras.utils.set_random_seed(0)
    layers = keras.layers
    network = keras.Sequential(
        [
            keras.Input((28, 28, 1)),
            layers.Conv2D(16, 5, 2, activation="relu"),
            layers.Conv2D(32, 5, 2, activation="relu"),
            layers.Flatten(),
            layers.Dense(10),
        ]
    )
    network.compile(
        keras.optimizers.Adam(2e-3), keras.losses.SparseCategoricalCrossentropy(from_logits=True), metrics=["accuracy"]
    )
    (pictures, labels), (unseen, truth) = read_digits(data, "train"), read_digits(data, "test")
    stream = tf.data.Dataset.from_tensor_slices((pictures, labels)).shuffle(len(labels), 0).repeat().batch(64, True)
    network.fit(stream.map(lambda x, y: (x / 255, y)), steps_per_epoch=steps, shuffle=False, verbose=0)
    return network, float(network.evaluate(unseen / 255.0, truth, batch_size=500, verbose=0)[1])


# --- energies of the unseen -------------------------------------------------------------------------------------------


def anomaly(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Ten trainings, each without one digit; then the energies of the test set, that digit included."""
    (pictures, labels), (unseen, truth) = read_digits(data, "train"), read_digits(data, "test")
    steps, held_out = (20, range(2)) if quick else (300, range(10))
    config = dataclasses.replace(_small_config((3, 2), 0), discriminator_width=64, pulling_away=0.1)
    # Below every energy, the margin leaves the auto-encoder alone with the real pictures.
    arms = {"EBGAN": config, "auto-encoder alone": dataclasses.replace(config, margin=1e-9, final_margin=1e-9)}
    areas: dict[str, list[float]] = {arm: [] for arm in arms}
    shown = []
    for digit in held_out:
        for arm, of_arm in arms.items():
            keras.utils.set_random_seed(0)
            model = EBGAN(of_arm)
            _fit(model, pictures[labels != digit], steps)
            energies = np.concatenate(
                [np.asarray(model.energies(unseen[i : i + 500])) for i in range(0, len(unseen), 500)]
            )
            areas[arm].append(area(energies[truth == digit], energies[truth != digit]))
            if arm == "EBGAN":
                picked = unseen[np.flatnonzero(truth == digit)[0]], unseen[np.flatnonzero(truth != digit)[0]]
                shown.append(np.concatenate([anomaly_map(model, picture[..., 0])[1] for picture in picked], axis=1))
    write_image(figures / "ebgan_anomaly.png", np.concatenate(shown))
    ours, alone = areas.values()
    return [
        Claim(
            "roc_area",
            f"{_source(data)}: area under the ROC curve of the energy, a digit never seen against the others; "
            f"median of {len(ours)} digits",
            "not given",
            round(float(np.median(ours)), 4),
            at_least=0.7,
        ),
        Claim("roc_area_by_digit", "of EBGAN, digit by digit", "not given", _listed(held_out, ours)),
        Claim(
            "roc_area_by_digit_alone", "of an auto-encoder alone, digit by digit", "not given", _listed(held_out, alone)
        ),
        Claim("roc_area_alone", "median of an auto-encoder alone", "not given", round(float(np.median(alone)), 4)),
    ]


def _listed(digits: Sequence[int], areas: Sequence[float]) -> str:
    return ", ".join(f"{digit}: {value:.3f}" for digit, value in zip(digits, areas, strict=True))


def area(high: np.ndarray, low: np.ndarray) -> float:
    """The part of all pairs of which the first is higher than the second: the area under the ROC curve."""
    from scipy.stats import rankdata

    ranks = rankdata(np.concatenate([high, low]))[: len(high)]
    return float((ranks.sum() - len(high) * (len(high) + 1) / 2) / (len(high) * len(low)))


# --- few labels -------------------------------------------------------------------------------------------------------


class _LabelsAlone(EBGAN):
    """The classifier on the encoder: `EBGAN`'s step without the losses of energies."""

    def adversarial(self, margin: Any) -> AdversarialLosses:
        return AdversarialLosses(
            lambda real, fake: 0.0 * (keras.ops.mean(real) + keras.ops.mean(fake)),
            lambda fake: 0.0 * keras.ops.mean(fake),
        )


def labeled(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 4.2 in small: 100 labels, the same network with and without the energies, two seeds."""
    (pictures, labels), (unseen, truth) = read_digits(data, "train"), read_digits(data, "test")
    steps, seeds = (20, 1) if quick else (1000, 2)
    arms: dict[str, tuple[type[EBGAN], float]] = {
        "decaying": (EBGAN, 0.0),
        "staying": (EBGAN, 10.0),
        "alone": (_LabelsAlone, 0.0),
    }
    errors: dict[str, list[float]] = {arm: [] for arm in arms}
    for seed in range(seeds):
        for arm, (kind, final) in arms.items():
            config = dataclasses.replace(VARIANTS["labeled"], steps=steps, seed=seed, final_margin=final)
            few = balanced(pictures, labels, config.labeled, CLASSES, seed)
            keras.utils.set_random_seed(seed)
            model: Any = kind(config)
            # Labels alone: no other picture is seen, not even by the running means of batch normalization.
            _fit(model, few[0] if arm == "alone" else pictures, steps, few)
            network = keras.Model(model.encoder.inputs[0], model.classifier(model.encoder.outputs[0]))
            scores = network.predict(unseen / 127.5 - 1.0, batch_size=500, verbose=0)
            errors[arm].append(100 * float(np.mean(scores.argmax(1) != truth)))
    found = {arm: round(float(np.mean(of)), 2) for arm, of in errors.items()}
    return [
        Claim(
            "labeled_error",
            f"{_source(data)}, 100 labels, {steps} steps, mean of {seeds} seeds: test error in %, the margin going to "
            "0; gate: that of labels alone",
            "1.04 (with a ladder network, to the end)",
            found["decaying"],
            at_most=found["alone"],
        ),
        Claim("labeled_error_staying", "the same with a margin that stays", "worse (section 4.2)", found["staying"]),
        Claim("labeled_error_alone", "the same network with labels alone", "not given", found["alone"]),
    ]


EXPERIMENTS = {
    "theorem": Experiment("a game on a line, played to its equilibrium; the terms by hand", theorem),
    "grid": Experiment("a grid of networks on digits: EBGAN, with pulling-away, and GAN", grid),
    "anomaly": Experiment("the energy of digits of a class never seen", anomaly, private=True),
    "labeled": Experiment("digits told apart from 100 labels", labeled),
}
