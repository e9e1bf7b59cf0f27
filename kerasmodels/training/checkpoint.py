"""Checkpoints: everything that decides the next step, in one .npz read without pickle.

That is: the model's variables (seed generators are among them), every optimizer's variables, the step, Python's and
NumPy's random states, what the model's `training_state()` carries (image pools), and the state of the source (replay
memories). A stream needs no state: it restarts at a batch number.

A model that draws random numbers while training must own a `keras.random.SeedGenerator`; unseeded TensorFlow ops keep
their position where no checkpoint can read it.
"""

import json
import random
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmodels import reading, storage
from kerasmodels.errors import DivergedError, TrainingError, WeightsError
from kerasmodels.family import Source

KEEP = 2


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint read back: steps done, seconds spent, and the arrays for `restore`."""

    path: Path
    step: int
    seconds: float
    about: Mapping[str, Any]
    arrays: Mapping[str, np.ndarray]


def optimizers(model: keras.Model) -> dict[str, keras.optimizers.Optimizer]:
    """The model's optimizers by attribute name, `optimizer` among them, also from lists and dicts of them.

    Raises:
        TrainingError: one besides `model.optimizer` is not built, so it has nothing to save or restore yet.
    """
    found: dict[str, keras.optimizers.Optimizer] = {}
    for name, value in sorted(vars(model).items()):
        # TensorFlow's own record of the attributes.
        if name.startswith("_self_"):
            continue
        entries = value if isinstance(value, dict) else dict(enumerate(value)) if isinstance(value, list) else None
        named = {name: value} if entries is None else {f"{name}.{key}": entry for key, entry in entries.items()}
        for key, entry in named.items():
            if isinstance(entry, keras.optimizers.Optimizer) and all(entry is not o for o in found.values()):
                found[key] = entry
    main: Any = getattr(model, "optimizer", None)
    for name, optimizer in found.items():
        if optimizer.built:
            continue
        if optimizer is not main:
            raise TrainingError(
                f"expected every optimizer of {model.name!r} to be built before training. Received: {name}, which is "
                f"not. Call `self.{name}.build(its trainable variables)` in the model's `compile`."
            )
        optimizer.build(model.trainable_variables)
    return found


def learning_rates(model: keras.Model) -> dict[str, float]:
    """What the next step of each optimizer goes by, with its schedule."""
    # Under a strategy the rate is a variable of every device.
    found = {name: keras.ops.convert_to_numpy(each.learning_rate) for name, each in optimizers(model).items()}
    return {name: float(rate) for name, rate in found.items()}


def save(
    model: keras.Model, source: Source, folder: Path, step: int, seconds: float, config: Mapping[str, Any]
) -> Path:
    """Write folder/step-NNNNNN.npz, then drop all but the newest `KEEP`.

    Raises:
        DivergedError: a variable of the model is not finite; nothing is written.
        StorageError: it cannot be written; the earlier checkpoints are untouched.
    """
    arrays: dict[str, Any] = {}
    for i, variable in enumerate(model.variables):
        value = variable.numpy()
        if np.issubdtype(value.dtype, np.floating) and not np.isfinite(value).all():
            bad = float(value[~np.isfinite(value)][0])
            raise DivergedError(step, f"variable {variable.path}", bad, "Train anew with a lower learning rate.")
        arrays[f"model/{i:05d}"] = value
    for name, optimizer in optimizers(model).items():
        for i, variable in enumerate(optimizer.variables):
            arrays[f"optimizer/{name}/{i:05d}"] = variable.numpy()
    kept = {"state": getattr(model, "training_state", dict)(), "source": source.state()}
    arrays |= {f"{owner}/{key}": np.asarray(value) for owner, state in kept.items() for key, value in state.items()}
    for key, value in arrays.items():
        if value.dtype.hasobject:
            raise TypeError(f"expected arrays of numbers as state. Received: {key} of {value.dtype}.")
    kind, keys, *rest = np.random.get_state(legacy=True)
    about = {
        "step": step,
        "seconds": seconds,
        "config": dict(config),
        "learning_rates": learning_rates(model),
        "python_random": random.getstate(),
        "numpy_random": [kind, np.asarray(keys).tolist(), *rest],
    }
    arrays["about"] = np.frombuffer(json.dumps(about).encode(), np.uint8)
    path = folder / f"step-{step:06d}.npz"
    storage.save_npz(path, arrays)
    for old in paths(folder)[KEEP:]:
        old.unlink(missing_ok=True)
    return path


def paths(folder: Path) -> list[Path]:
    """The checkpoints in a folder, newest first."""
    found = [p for p in folder.glob("step-*.npz") if re.fullmatch(r"step-\d+", p.stem)]
    return sorted(found, key=lambda p: int(p.stem[5:]), reverse=True)


def read(path: Path) -> Checkpoint:
    """Read one checkpoint whole.

    Raises:
        TrainingError: it is damaged.
    """
    try:
        arrays = storage.load_npz(path)
        about = reading.parse_json(arrays.pop("about").tobytes())
        kind, keys, *rest = about["numpy_random"]
        version, internal, gauss = about["python_random"]
        # Tried on generators of their own, so that `restore` cannot fail half-way.
        np.random.RandomState().set_state((kind, np.array(keys, np.uint32), *rest))
        random.Random().setstate((version, tuple(internal), gauss))
        return Checkpoint(path, int(about["step"]), float(about["seconds"]), about, arrays)
    except (WeightsError, ValueError, KeyError, TypeError, OverflowError, AttributeError) as error:
        raise TrainingError(f"{path} is damaged ({error})") from error


def restore(model: keras.Model, source: Source, checkpoint: Checkpoint) -> None:
    """Put everything of the checkpoint back, all or nothing.

    Raises:
        TrainingError: it is of another model.
    """
    targets = {f"model/{i:05d}": v for i, v in enumerate(model.variables)}
    for name, optimizer in optimizers(model).items():
        targets |= {f"optimizer/{name}/{i:05d}": v for i, v in enumerate(optimizer.variables)}
    states: dict[str, dict[str, np.ndarray]] = {"state": {}, "source": {}}
    arrays: dict[str, np.ndarray] = {}
    for key, array in checkpoint.arrays.items():
        owner, _, name = key.partition("/")
        states.get(owner, arrays)[name if owner in states else key] = array
    if targets.keys() != arrays.keys():
        raise TrainingError(
            f"{checkpoint.path} is of another model: expected {len(targets)} variables, received {len(arrays)}"
        )
    for key, variable in targets.items():
        if tuple(variable.shape) != arrays[key].shape:
            raise TrainingError(
                f"{checkpoint.path} is of another model: expected shape {tuple(variable.shape)} for {variable.path}, "
                f"received {arrays[key].shape}"
            )
    for key, variable in targets.items():
        variable.assign(arrays[key])
    if hasattr(model, "set_training_state"):
        model.set_training_state(states["state"])
    source.set_state(states["source"])
    version, internal, gauss = checkpoint.about["python_random"]
    random.setstate((version, tuple(internal), gauss))
    kind, keys, *rest = checkpoint.about["numpy_random"]
    np.random.set_state((kind, np.array(keys, np.uint32), *rest))
