"""Classic deep-learning papers in today's Keras, trained with `fit` and shipped with proof.

Public names load on first use, so `import kerasmodels` costs milliseconds and no TensorFlow:

    import kerasmodels as km
    km.layers.InstanceNormalization      # a layer for your own model
    km.losses.GramStyle                  # a loss for your own `fit`
    km.models.FastStyle                  # a paper
    km.export.export(...)                # SavedModel, LiteRT and ONNX, each executed and compared
"""

import importlib
import os
from typing import Any

from kerasmodels import saved_names

__version__ = "0.1.0"

__all__ = [
    "backbones",
    "claims",
    "config",
    "data",
    "errors",
    "export",
    "family",
    "layers",
    "losses",
    "metrics",
    "models",
    "ops",
    "optimizers",
    "paper_model",
    "ports",
    "presets",
    "registry",
    "runs",
    "servables",
    "storage",
    "tasks",
    "training",
]

_here = os.path.dirname(os.path.abspath(__file__))
if not os.path.isdir(os.path.join(_here, "export")):
    # A source checkout: export/ and apps/ lie beside this folder; the wheel puts them inside.
    __path__.append(os.path.dirname(_here))

saved_names.install()


def __getattr__(name: str) -> Any:
    if name in __all__:
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted([*__all__, "__version__"])
