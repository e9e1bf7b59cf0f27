"""One file per paper. Classes are imported when they are first asked for: `kerasmodels.models.WGAN`."""

import importlib
from typing import Any

from kerasmodels import registry

_MODULES = {model: row.module for row in registry.ROWS for model in row.models}
__all__ = sorted(_MODULES)


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(_MODULES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")


def __dir__() -> list[str]:
    return list(__all__)
