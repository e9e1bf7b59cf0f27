"""Pretrained networks with named taps. Each owns its preprocessing: pictures go in as RGB 0-255.

`sources` (where weights come from) imports no TensorFlow; the networks load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasmodels.backbones.vgg import VGG16, VGG19

__all__ = ["VGG16", "VGG19"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module("kerasmodels.backbones.vgg"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")
