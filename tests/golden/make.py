"""Writes tests/golden/<family>.npz: inputs, and what the tiny config and every preset make of them.

    python -m tests.golden.make [FAMILY or FAMILY:KIND ...]

Run it when the outputs are meant to change or a preset is new, look at the difference, and say why in the commit.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmodels import registry, weights
from kerasmodels.family import Family
from tests.tiny_families import TINY, family_of

FOLDER = Path(__file__).parent
RANDOM = "random"
"""Label of the tiny config, with seeded random weights if it has any."""


def path_of(key: str) -> Path:
    """The file of a row of `TINY`."""
    return FOLDER / f"{key.replace(':', '-')}.npz"


def models(key: str) -> dict[str, tuple[Any, keras.Model]]:
    """Config and model of the tiny config, with seeded random weights if it has any, and of the presets of its kind."""
    family, config = registry.family(family_of(key)), TINY[key].config
    keras.utils.set_random_seed(0)
    found = {RANDOM: (config, family.model(config))}
    for preset, trained in weights.presets(family.name).items():
        _, own, model = trained.load()
        if type(model) is type(found[RANDOM][1]):
            found[preset] = (own, model)
    return found


def inputs(key: str, config: Any, model: keras.Model) -> dict[str, np.ndarray]:
    """One example for every servable, by `servable/input`."""
    return {
        f"{servable}/{name}": value
        for servable, row in registry.family(family_of(key)).servables(model, config).items()
        for name, value in row.example(TINY[key].dims, 0).items()
    }


def answers(family: Family, config: Any, model: keras.Model, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model's servables make of the inputs, by `servable/output`."""
    found = {}
    for name, servable in family.servables(model, config).items():
        called = servable.call(**{spec.name: given[f"{name}/{spec.name}"] for spec in servable.inputs})
        found |= {f"{name}/{key}": np.asarray(value) for key, value in called.items()}
    return found


def main() -> None:
    """Write the files of the named families, or of all."""
    for name in sys.argv[1:] or TINY:
        family, found = registry.family(family_of(name)), models(name)
        given = inputs(name, *found[RANDOM])
        arrays = {f"input/{key}": value for key, value in given.items()}
        for label, (config, model) in found.items():
            # A preset of another size than the tiny config's is given inputs of its own.
            own = {k: v for k, v in inputs(name, config, model).items() if v.shape != given[k].shape}
            arrays |= {f"input of {label}/{key}": value for key, value in own.items()}
            arrays |= {f"{label}/{key}": value for key, value in answers(family, config, model, given | own).items()}
        path = weights.save_npz(path_of(name), arrays)
        print(f"{path}: {path.stat().st_size} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
