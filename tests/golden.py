"""Writes tests/families/<family>/golden.npz: inputs, and what the case's config and every preset make of them.

    python -m tests.golden [FAMILY or FAMILY:KIND ...]

Run it when the outputs are meant to change or a preset is new, look at the difference, and say why in the commit.
"""

import sys
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from kerasmodels import presets, registry, storage
from kerasmodels.family import Family
from tests.cases import case_of, family_of, golden_path, names

RANDOM = "random"
"""Label of the case's config, with seeded random weights if it has any."""


def models(key: str) -> dict[str, Any]:
    """The model of the case's config, with seeded random weights if it has any, and the presets of its kind."""
    family = registry.family(family_of(key))
    keras.utils.set_random_seed(0)
    found: dict[str, Any] = {RANDOM: family.model(case_of(key).config)}
    for preset, trained in presets.presets(family.name).items():
        model = trained.load()
        if type(model) is type(found[RANDOM]):
            found[preset] = model
    return found


def inputs(key: str, model: keras.Model) -> dict[str, np.ndarray]:
    """One example for every servable, by `servable/input`."""
    return {
        f"{servable}/{name}": value
        for servable, row in registry.family(family_of(key)).servables(model).items()
        for name, value in row.example(case_of(key).dims, 0).items()
    }


def outputs(family: Family, model: keras.Model, given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What the model's servables make of the inputs, by `servable/output`."""
    found = {}
    for name, servable in family.servables(model).items():
        called = servable.call(**{spec.name: given[f"{name}/{spec.name}"] for spec in servable.inputs})
        arrays = {key: np.asarray(value) for key, value in called.items()}
        # Strings as bytes of a fixed length, which are written without pickle.
        plain = {key: value.astype("S") if value.dtype == object else value for key, value in arrays.items()}
        found |= {f"{name}/{key}": value for key, value in plain.items()}
    return found


def main() -> None:
    """Write the files of the named families, or of all."""
    for key in sys.argv[1:] or names():
        family, found = registry.family(family_of(key)), models(key)
        given = inputs(key, found[RANDOM])
        arrays = {f"input/{name}": value for name, value in given.items()}
        for label, model in found.items():
            # A preset of another size than the case's is given inputs of its own.
            own = {name: value for name, value in inputs(key, model).items() if value.shape != given[name].shape}
            arrays |= {f"input of {label}/{name}": value for name, value in own.items()}
            arrays |= {f"{label}/{name}": value for name, value in outputs(family, model, given | own).items()}
        path = storage.save_npz(golden_path(key), arrays)
        print(f"{path}: {path.stat().st_size} bytes, {len(arrays)} arrays")


if __name__ == "__main__":
    main()
