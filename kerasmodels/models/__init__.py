"""One file per paper."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasmodels.models.closed_form_matting import ClosedFormMatting
    from kerasmodels.models.deformable_net import DeformableNet
    from kerasmodels.models.fast_style import FastStyle
    from kerasmodels.models.feature_patches import FeaturePatches
    from kerasmodels.models.neural_style import NeuralStyle
    from kerasmodels.models.photo_style import PhotoStyle

__all__ = ["ClosedFormMatting", "DeformableNet", "FastStyle", "FeaturePatches", "NeuralStyle", "PhotoStyle"]

_MODULES = {
    "ClosedFormMatting": "closed_form_matting",
    "DeformableNet": "deformable_net",
    "FastStyle": "fast_style",
    "FeaturePatches": "feature_patches",
    "NeuralStyle": "neural_style",
    "PhotoStyle": "photo_style",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")
