"""Leave the building with proof: SavedModel, LiteRT and ONNX, each executed in its own runtime and compared with Keras.

    from kerasmodels import export
    report = export.export(model, "served/")                    # a model of a registered family
    report = export.export("fast_style/wave", "served/", formats=["litert"], precision="fp16")
    report = export.export_servable(servable, "mine", "served/")  # any Keras model of yours

Names load on first use: importing this package imports no TensorFlow.
"""

import importlib
from typing import Any

if __name__ == "export":
    raise ImportError("this package is imported as `kerasmodels.export`, not `export`")

_HOMES = {
    "FORMATS": "formats",
    "Format": "formats",
    "read_metadata": "formats",
    "Artifact": "report",
    "Report": "report",
    "export": "pipeline",
    "export_all": "pipeline",
    "export_servable": "pipeline",
}
__all__ = ["FORMATS", "Artifact", "Format", "Report", "export", "export_all", "export_servable", "read_metadata"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return sorted(__all__)
