"""Our classes in saved Keras files, imported when Keras meets one of them.

`import kerasmodels` is enough to load a `.keras` file, and costs neither TensorFlow nor the import of every family: the
names are registered with Keras when Keras is imported, before or after us, and each imports its module when it is used.
This module imports neither Keras nor TensorFlow.
"""

import importlib
import importlib.abc
import importlib.util
import re
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any

_REGISTRY = "keras.src.saving.object_registration"
_REGISTERED = re.compile(r'^@keras\.saving\.register_keras_serializable\("kerasmodels"\)\nclass (\w+)', re.MULTILINE)
_ROOMS = ("models", "layers", "losses", "metrics", "optimizers")


def homes() -> dict[str, str]:
    """The module that defines each registered class, by the name that Keras saves."""
    files = [path for room in _ROOMS for path in sorted((Path(__file__).parent / room).glob("*.py"))]
    return {
        f"kerasmodels>{name}": f"kerasmodels.{path.parent.name}.{path.stem}"
        for path in files
        for name in _REGISTERED.findall(path.read_text(encoding="utf-8"))
    }


def install() -> None:
    """Register the names with Keras: now if it has been imported, else as soon as it is."""
    if _REGISTRY in sys.modules:
        _register(sys.modules[_REGISTRY])
    elif not any(isinstance(finder, _WhenKerasComes) for finder in sys.meta_path):
        sys.meta_path.insert(0, _WhenKerasComes())


def _register(registry: ModuleType) -> None:
    for name, module in homes().items():
        registry.GLOBAL_CUSTOM_OBJECTS.setdefault(name, _later(name.partition(">")[2], module))


def _later(name: str, module: str) -> type:
    """What stands for a class until it is imported; importing it registers the class itself."""

    def found() -> Any:
        return getattr(importlib.import_module(module), name)

    class Later:
        def __new__(cls, *args: Any, **kwargs: Any) -> Any:
            return found()(*args, **kwargs)

        @classmethod
        def from_config(cls, config: Any, *args: Any, **kwargs: Any) -> Any:
            return found().from_config(config, *args, **kwargs)

    Later.__name__ = Later.__qualname__ = name
    return Later


class _WhenKerasComes(importlib.abc.MetaPathFinder):
    """Lets Keras' own registry be imported as ever, and fills in our names."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if name != _REGISTRY:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.loader is not None:
            spec.loader = _Filled(spec.loader)
        return spec


class _Filled(importlib.abc.Loader):
    def __init__(self, loader: Any):
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self.loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self.loader
        if module.__spec__ is not None:
            module.__spec__.loader = self.loader
        self.loader.exec_module(module)
        _register(module)
