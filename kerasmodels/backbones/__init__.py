"""Pretrained networks with named taps, and the arithmetic of what their units see.

Each network owns its preprocessing: pictures go in as RGB 0-255. `sources` (where weights come from) imports no
TensorFlow; all else loads on first use. `mobile` has trunks for phones, to build other networks on.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasmodels.backbones.portable import PortableVGG
    from kerasmodels.backbones.receptive_fields import ReceptiveField, receptive_field
    from kerasmodels.backbones.vgg import VGG16, VGG19

__all__ = ["VGG16", "VGG19", "PortableVGG", "ReceptiveField", "receptive_field"]

_HOMES = {
    "PortableVGG": "portable",
    "ReceptiveField": "receptive_fields",
    "VGG16": "vgg",
    "VGG19": "vgg",
    "receptive_field": "receptive_fields",
}


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"kerasmodels.backbones.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")
