"""`dry_run`: what a training would need, from two real steps that leave nothing behind."""

import math
import sys
import time
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from kerasmodels.family import Family
from kerasmodels.training.callbacks import StepCallback


def dry_run(family: Family, config: Any) -> dict[str, Any]:
    """Build the model, train two steps on real batches, and say what was seen. Writes nothing.

    Returns:
        family; batch: shapes and dtypes of a training batch; outputs: the model's output shapes (empty if it has no
        fixed graph); servables: input and output shapes of each; parameters: trainable, non_trainable; losses: each
        term of the first step; seconds_first_step (tracing included); seconds_per_step (of the second);
        steps; estimated_seconds for all of them; peak_memory_mb of this process (None where the system does not tell),
        and peak_gpu_memory_mb if there is a GPU.

    Raises:
        UsageError: there is nothing to train, or the config is out of range.
        DataError: the data cannot be used.
    """
    source = family.sourced(config)
    keras.utils.set_random_seed(config.seed)
    model = family.build(config)
    data = source.batches(model, 0)
    steps = _FirstSteps()
    model.fit(data, steps_per_epoch=2 * model.steps_per_execution, callbacks=[steps], shuffle=False, verbose=0)
    per_step = steps.seconds[-1] / model.steps_per_execution
    gpu = {"peak_gpu_memory_mb": _gpu_memory_mb()} if tf.config.list_physical_devices("GPU") else {}
    return {
        "family": family.name,
        "batch": keras.tree.map_structure(_describe, data.element_spec),
        "outputs": [str(tuple(t.shape)) for t in getattr(model, "outputs", None) or ()],
        "servables": {
            name: {
                "inputs": {spec.name: [*spec.shape, spec.dtype] for spec in servable.inputs},
                "outputs": {spec.name: [*spec.shape, spec.dtype] for spec in servable.outputs},
            }
            for name, servable in family.servables(model).items()
        },
        "parameters": {
            "trainable": _count(model.trainable_weights),
            "non_trainable": _count(model.non_trainable_weights),
        },
        "losses": steps.losses,
        "seconds_first_step": round(steps.seconds[0], 4),
        "seconds_per_step": round(per_step, 4),
        "steps": config.steps,
        "estimated_seconds": round(steps.seconds[0] + per_step * config.steps, 1),
        "peak_memory_mb": _peak_memory_mb(),
        **gpu,
    }


class _FirstSteps(StepCallback):
    """The losses of the first call of the train function, and how long each call took."""

    def __init__(self) -> None:
        super().__init__()
        self.losses: dict[str, float] = {}
        self.seconds: list[float] = []

    def on_train_batch_begin(self, batch: int, logs: Any = None) -> None:
        self._began = time.perf_counter()

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        self.seconds.append(time.perf_counter() - self._began)
        if not self.losses:
            self.losses = {name: float(value) for name, value in logs.items()}


def _describe(spec: tf.TensorSpec) -> str:
    return f"{tuple(spec.shape)} {spec.dtype.name}"


def _count(variables: list[keras.Variable]) -> int:
    return sum(math.prod(v.shape) for v in variables)


def _peak_memory_mb() -> float | None:
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def _gpu_memory_mb() -> float:
    return round(tf.config.experimental.get_memory_info("GPU:0")["peak"] / 2**20, 1)
