"""Two tiny models, exported once, and one server for them."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from kerasmodels import export
from tests.apps.serving.servers import Running, running
from tests.export.servables import make_float_servable, make_picture_servable


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export of two models: `waves` repaints pictures, `series` takes two inputs. Tests must not change it."""
    out = tmp_path_factory.mktemp("serving") / "served"
    export.export_servable(make_picture_servable(), "waves", out, formats=["onnx", "litert"])
    export.export_servable(make_float_servable(), "series", out, formats=["onnx"])
    return out


@pytest.fixture(scope="session")
def server(folder: Path) -> Iterator[Running]:
    """A server of that folder, which many tests ask."""
    with running(folder) as started:
        yield started
