"""Training: a run folder that can be resumed exactly, stopped at any time, and looked at while it grows.

    result = km.training.train(family, config, "runs/mine")
    km.training.train(family, None, "runs/mine", resume=True)      # goes on where it stopped, bit-equal on CPU

`NaNStop` and `Gallery` are ordinary Keras callbacks and also serve in your own `fit`.
Names load on first use, so importing this package costs no TensorFlow.
"""

import importlib
from typing import Any

_HOMES = {
    "train": "loop",
    "TrainResult": "loop",
    "dry_run": "estimate",
    "Interrupted": "interrupts",
    "Gallery": "callbacks",
    "NaNStop": "callbacks",
    "write_gallery": "gallery",
    "PictureModel": "picture",
    "Stage": "picture",
    "optimize_picture": "picture",
}

__all__ = [
    "Gallery",
    "Interrupted",
    "NaNStop",
    "PictureModel",
    "Stage",
    "TrainResult",
    "dry_run",
    "optimize_picture",
    "train",
    "write_gallery",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
