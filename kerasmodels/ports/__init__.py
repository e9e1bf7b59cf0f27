"""Weights that other people's code has trained, read without that code: a module for each kind of file.

Modules load on first use: `kerasmodels.ports.cyclegan.from_torch(...)`.
"""

import importlib
import pkgutil
from types import ModuleType


def __getattr__(name: str) -> ModuleType:
    if name in __dir__():
        return importlib.import_module(f"{__name__}.{name}")
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Known: {', '.join(__dir__())}")


def __dir__() -> list[str]:
    return [module.name for module in pkgutil.iter_modules(__path__)]
