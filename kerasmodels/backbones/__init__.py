"""Pretrained networks with named taps. Each owns its preprocessing: pictures go in as RGB 0-255.

`sources` (where weights come from) imports no TensorFlow; the networks load on first use.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasmodels.backbones.portable import PortableVGG
    from kerasmodels.backbones.vgg import VGG16, VGG19

_HOMES = {"PortableVGG": "portable", "VGG16": "vgg", "VGG19": "vgg"}

__all__ = ["VGG16", "VGG19", "PortableVGG"]


def __getattr__(name: str) -> Any:
    if name in __all__:
        return getattr(importlib.import_module(f"kerasmodels.backbones.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")
