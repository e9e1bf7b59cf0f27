"""The claims of `ntm`: the paper's tasks, learned by `NTM.fit` from endless examples, none of which comes twice.

So the loss of a training is measured on what the model has not seen. It is in bits per sequence.
"""

import dataclasses
import itertools
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.data import write_image
from kerasmodels.family import Claim, Experiment
from kerasmodels.metrics import bits_per_sequence
from kerasmodels.models.ntm import FAMILY, NTM, VARIANTS, Config

_EACH = 2000
"""Sequences that a value of a learning curve is the mean of."""


class _Curve(keras.callbacks.Callback):
    """The loss over each `_EACH` sequences; the training ends when `enough` says so of the model."""

    def __init__(self, batch: int, enough: Any = None):
        super().__init__()
        self.every, self.enough = _EACH // batch, enough
        self.values: list[float] = []

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if (batch + 1) % self.every == 0:
            self.values.append(float((logs or {})["loss"]))
            self.model.reset_metrics()
            print(f"{len(self.values) * _EACH} sequences: {self.values[-1]:.3f} bits", file=sys.stderr)
            if self.enough is not None and self.enough(self.values):
                self.model.stop_training = True


class _Trainings:
    """Trainings of one config from several seeds, in one model, so that XLA compiles its steps once."""

    def __init__(self, config: Config):
        self.config, self.model = config, FAMILY.build(config)
        self.model.compile(steps_per_execution=_EACH // config.batch // 10)
        self._optimizer = [np.array(variable) for variable in self.model.optimizer.variables]

    def run(self, seed: int, sequences: int, enough: Any = None) -> list[float]:
        """The curve of the training from this seed, of so many sequences at most."""
        config = dataclasses.replace(self.config, seed=seed)
        keras.utils.set_random_seed(seed)
        for mine, fresh in zip(self.model.variables, NTM(config).variables, strict=True):
            mine.assign(fresh)
        for variable, value in zip(self.model.optimizer.variables, self._optimizer, strict=True):
            variable.assign(value)
        curve = _Curve(config.batch, enough)
        self.model.fit(FAMILY.batches(config), steps_per_epoch=sequences // config.batch, callbacks=[curve], verbose=0)
        return curve.values


def _bits(model: NTM, size: Sequence[int], count: int = 100) -> float:
    """Mean bits per sequence over fresh examples of one size."""
    example = model.config.made_task().batch(np.random.default_rng([999, *size]), count, [(n, n) for n in size])
    logits = tf.function(lambda inputs: model(inputs, training=False), autograph=False)(tf.constant(example.inputs))
    return float(np.mean(bits_per_sequence(example.targets, logits, example.weights)))


def _xs(curve: Sequence[float]) -> tuple[np.ndarray, np.ndarray]:
    """A curve over thousands of sequences."""
    return _EACH / 1000 * (np.arange(len(curve)) + 1), np.array(curve)


# --- copy -------------------------------------------------------------------------------------------------------------

LENGTHS = (10, 20, 30, 40, 60, 80, 100, 120)


def copy(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 4.1: ten seeds of the variant `paper`, each until it copies 40 vectors, too, or to its end."""
    from kerasmodels.data import plots

    config = VARIANTS["paper"]
    seeds, most = (2, 6000) if quick else (10, config.steps * config.batch)
    trainings = _Trainings(config)
    model, curves, long = trainings.model, [], []
    best: tuple[float, list[np.ndarray]] = (np.inf, [])
    for seed in range(seeds):

        def enough(values: Sequence[float]) -> bool:
            return values[-1] <= 0.1 and _bits(model, (40,)) <= 0.5

        curves.append(trainings.run(seed, most, enough))
        long.append(_bits(model, (40,)))
        if long[-1] < best[0]:
            best = long[-1], [np.array(variable) for variable in model.variables]
        print(f"seed {seed}: {len(curves[-1]) * _EACH} sequences, {curves[-1][-1]:.3f} bits, length 40: {long[-1]:.3f}")
    firsts = [next((_EACH * (i + 1) for i, v in enumerate(curve) if v <= 0.1), None) for curve in curves]
    good = sum(first is not None and bits <= 1.0 for first, bits in zip(firsts, long, strict=True))
    for variable, value in zip(model.variables, best[1], strict=True):
        variable.assign(value)
    general = {length: _bits(model, (length,), 50) for length in LENGTHS}
    lines = {f"seed {seed}": _xs(curve) for seed, curve in enumerate(curves)}
    write_image(
        figures / "ntm_copy_curves.png",
        plots.curves(lines, "thousand sequences", "bits per sequence", logarithmic=("y",)),
    )
    found = {"the seed best at 40": (np.array(LENGTHS), np.array(list(general.values())))}
    write_image(figures / "ntm_copy_lengths.png", plots.curves(found, "length", "bits per sequence"))
    reached = sorted(first for first in firsts if first is not None)
    return [
        Claim(
            "copy_seeds",
            f"copy: of {seeds} seeds, those with <= 0.1 bits per sequence within 100,000 and <= 1 at length 40",
            "about 0.1 after 100,000 sequences (figure 3)",
            float(good),
            at_least=None if quick else 9,
        ),
        Claim(
            "copy_sequences",
            f"copy: sequences until the mean of {_EACH} is <= 0.1 bits, median of the seeds that reach it",
            "100,000 (figure 3)",
            float(np.median(reached)) if reached else "none",
        ),
        Claim("copy_length_40", "copy: bits at length 40, the worst seed", "not given", round(max(long), 4)),
        *(
            Claim(
                f"copy_length_{length}_best",
                f"copy: bits per sequence at length {length}, the seed best at 40",
                "few errors up to 120 (figure 4)",
                round(bits, 3),
            )
            for length, bits in general.items()
        ),
    ]


# --- the other tasks, beside an LSTM ----------------------------------------------------------------------------------


def _learned(task: str, paper: str, figures: Path, quick: bool) -> tuple[list[Claim], NTM]:
    """Curves of the variant and of an LSTM on the same sequences; claims, and the NTM."""
    from kerasmodels.data import plots

    config = VARIANTS[task]
    sequences = 2 * _EACH if quick else config.steps * config.batch
    config = dataclasses.replace(config, steps=sequences // config.batch)
    curves, models = {}, {}
    lstm = dataclasses.replace(config, network="lstm", units=128, layers=3, heads=1)
    for name, each in {"NTM": config, "LSTM": lstm}.items():
        training = _Trainings(each)
        curves[name], models[name] = training.run(0, sequences), training.model
    lines = {name: _xs(curve) for name, curve in curves.items()}
    write_image(
        figures / f"ntm_{task}.png",
        plots.curves(lines, "thousand sequences", "bits per sequence", logarithmic=("y",)),
    )
    last = {name: round(curve[-1], 3) for name, curve in curves.items()}
    found = [
        Claim(f"{task}_bits", f"{task}: bits per sequence after {sequences} sequences", paper, last["NTM"]),
        Claim(f"{task}_bits_lstm", f"{task}: the same of an LSTM, 3 layers of 128", "worse", last["LSTM"]),
        Claim(
            f"{task}_below_lstm",
            f"{task}: the LSTM's bits less the NTM's",
            "above 0",
            round(last["LSTM"] - last["NTM"], 3),
            at_least=None if quick else 0.0,
        ),
    ]
    return found, models["NTM"]


def repeat_copy(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 4.2."""
    return _learned("repeat_copy", "near 0 (figure 7)", figures, quick)[0]


def associative_recall(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 4.3, and more items than were trained on."""
    found, model = _learned("associative_recall", "near 0 after 30,000 sequences (figure 10)", figures, quick)
    text = "associative_recall: bits per sequence with 12 items, twice as many as it has seen"
    return [*found, Claim("associative_recall_12_items", text, "1.5 with 15 items (figure 11)", _bits(model, (12,)))]


def ngrams(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 4.4: beside the optimum for the same 1,000 sequences."""
    found, model = _learned("ngrams", "133.5 to 134 (figure 13)", figures, quick)
    task: Any = model.config.made_task()
    drawn = task.batch(np.random.default_rng([999, 200]), 100 if quick else 1000, task.ranges)
    optimum = float(task.optimal_bits(drawn.targets[..., 0].astype(int)).mean())
    over = _bits(model, (200,), len(drawn.targets)) - optimum
    text = "ngrams: bits per sequence above the optimum for the same sequences"
    return [
        *found,
        Claim("ngrams_optimum", "ngrams: the optimum for these sequences", "133.4 on average", round(optimum, 3)),
        Claim("ngrams_over_optimum", text, "0.1 to 0.6", round(over, 3), at_most=None if quick else 2.0),
    ]


def priority_sort(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Section 4.5."""
    return _learned("priority_sort", "18 to 20; LSTM 58 (figure 18)", figures, quick)[0]


# --- numbers that stay numbers ----------------------------------------------------------------------------------------


def stability(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Trainings with memories of many sizes, in each precision, at a rate that is too high."""
    broken, steps = [], 5 if quick else 60
    tasks: tuple[Literal["copy", "priority_sort"], ...] = ("copy", "priority_sort")
    grid = list(
        itertools.product(
            (8, 1024) if quick else (8, 16, 32, 64, 128, 256, 512, 1024),
            ("float32", "mixed_bfloat16", "mixed_float16"),
            tasks,
        )
    )
    for rows, dtype, task in grid:
        config = Config(
            task=task, largest=(8,), rows=rows, batch=8, optimizer="adam", learning_rate=1e-2, steps=steps, xla=False
        )
        keras.utils.set_random_seed(0)
        model = NTM(config, dtype=dtype)
        model.compile()
        losses = model.fit(FAMILY.batches(config), steps_per_epoch=steps, verbose=0).history["loss"]
        if not (np.isfinite(losses).all() and all(np.isfinite(np.array(v)).all() for v in model.variables)):
            broken.append((rows, dtype, task))
    text = f"trainings of {len(grid)} (rows, precisions, tasks; {steps} steps at rate 0.01) that became NaN or infinite"
    return [Claim("never_nan", text, "not given", float(len(broken)), equals=0.0)]


EXPERIMENTS = {
    "copy": Experiment("copying is learned, and goes on beyond the lengths seen", copy),
    "repeat_copy": Experiment("repeated copying, beside an LSTM", repeat_copy),
    "associative_recall": Experiment("recall by content, beside an LSTM, and of more items", associative_recall),
    "ngrams": Experiment("prediction near the Bayes optimum, beside an LSTM", ngrams),
    "priority_sort": Experiment("sorting, beside an LSTM", priority_sort),
    "stability": Experiment("no size of the memory and no precision gives a NaN", stability),
}
