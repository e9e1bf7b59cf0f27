"""What offsets do, and what batch normalisation does: five arms."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import keras
import numpy as np

from kerasmodels.data import write_image
from kerasmodels.data.digits import Warp
from kerasmodels.family import Row
from kerasmodels.models.deformable_net.classifier import DeformableNet, build, datasets, held_out
from kerasmodels.models.deformable_net.config import Config, Trained
from kerasmodels.models.deformable_net.drawings import looked_at, middle

SEEDS = 3
BASE_STEPS, STEPS, BATCH = 700, 300, 32
_BASE_RATE, _RATE = 3e-3, 1e-3
"""Of Adam at first, for the plain network and for all arms; both fall to zero, so that a short training ends well.
At 3e-3, offsets and batch normalisation together forget what the network knew."""


def arms(warp: Warp) -> Callable[[Path | None, Path, bool], Sequence[Row]]:
    """The experiment of one kind of warp.

    A plain network is trained on digits as they are. Then, on warped digits,
    A: it stays as it is; B: only its batch normalisation is trained on (the control: what the demonstration measured);
    C: its last three convolutions become deformable, only the offsets are trained; D: both; E: all of the plain
    network is trained on.
    What offsets do is C - A and D - B, over the same seeds.
    """

    def measure(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
        base_steps, steps, seeds, most = (200, 100, 1, 500) if quick else (BASE_STEPS, STEPS, SEEDS, None)
        scores: dict[str, list[float]] = {arm: [] for arm in "ABCDE"}
        regular, shown = [], None
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            plain = Config(
                digits=data,
                warp="none",
                deformable=0,
                steps=base_steps,
                batch=BATCH,
                learning_rate=_BASE_RATE,
                schedule="cosine",
                seed=seed,
            )
            base = _fitted(build(plain), plain)
            regular.append(_accuracy(base, plain, most))
            scores["A"].append(_accuracy(base, dataclasses.replace(plain, warp=warp), most))
            changes: tuple[tuple[str, int, Trained], ...] = (
                ("B", 0, "normalization"),
                ("C", 3, "offsets"),
                ("D", 3, "offsets and normalization"),
                ("E", 0, "all"),
            )
            for arm, deformable, trained in changes:
                config = dataclasses.replace(
                    plain,
                    warp=warp,
                    deformable=deformable,
                    trained=trained,
                    steps=steps,
                    learning_rate=_RATE,
                    seed=seed + 100,
                )
                model = build(config)
                take_over(model.network, base.network)
                scores[arm].append(_accuracy(_fitted(model, config), config, most))
                shown = model if arm == "D" and seed == 0 else shown
        assert shown is not None
        digits = np.asarray(next(iter(held_out(dataclasses.replace(shown.config), 6)))[0])
        write_image(
            figures / f"deformable_net_{warp}.png",
            np.concatenate([looked_at(shown.network, digit, middle(digit)) for digit in digits], axis=1),
        )
        source = "MNIST" if data is not None else "scikit-learn's digits"
        return [*_rows(f"{source}, {warp}, {seeds} seeds", warp, regular, scores)]

    return measure


def _rows(name: str, warp: Warp, regular: list[float], scores: Mapping[str, list[float]]) -> list[Row]:
    def percent(values: Sequence[float]) -> float:
        return round(100 * float(np.mean(values)), 2)

    paper = {"A": "56.97 (nearest), 61.15 (bilinear)", "B": "92.72: the published network with all offsets 0"}
    what = {
        "A": "A, the plain network as it is",
        "B": "B, batch normalisation trained on",
        "C": "C, offsets trained, all else as it was",
        "D": "D, offsets and batch normalisation",
        "E": "E, the whole plain network trained on",
    }
    rows = [
        Row(f"{name}: accuracy on digits as they are, %", "98.74", percent(regular), ">= 97", percent(regular) >= 97)
    ]
    for arm, text in what.items():
        published = paper.get(arm, "not given") if warp == "scaled" else "not given"
        spread = f"for information; seeds: {', '.join(f'{100 * v:.2f}' for v in scores[arm])}"
        rows.append(Row(f"{name}: accuracy of {text}, %", published, percent(scores[arm]), spread, True))
    for text, high, low, least in (
        ("what offsets alone do, C - A", "C", "A", 10.0),
        ("what offsets add to batch normalisation, D - B", "D", "B", 0.0),
    ):
        gains = [100 * (a - b) for a, b in zip(scores[high], scores[low], strict=True)]
        rows.append(
            Row(
                f"{name}: {text}, points, the least of all seeds",
                "not given",
                round(min(gains), 2),
                f"> {least:g} with every seed",
                min(gains) > least,
            )
        )
    return rows


def take_over(network: keras.Model, source: keras.Model) -> None:
    """The weights of the same names; offsets stay zero."""
    for layer in source.layers:
        target = (
            {variable.name: variable for variable in network.get_layer(layer.name).weights} if layer.weights else {}
        )
        for variable in layer.weights:
            target[variable.name].assign(variable.value)


def _fitted(model: DeformableNet, config: Config) -> DeformableNet:
    model.fit(datasets(config).train, steps_per_epoch=config.steps, shuffle=False, verbose=0)
    return model


def _accuracy(model: DeformableNet, config: Config, most: int | None) -> float:
    return float(model.evaluate(held_out(config, most), verbose=0)[1])
