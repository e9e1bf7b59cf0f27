"""Servables shared by the export tests, and one export in all formats."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from kerasmodels import export
from kerasmodels.family import Servable
from tests.export.servables import make_float_servable, make_picture_servable


@pytest.fixture(scope="session")
def picture_servable() -> Servable:
    return make_picture_servable()


@pytest.fixture(scope="session")
def float_servable() -> Servable:
    return make_float_servable()


@pytest.fixture(scope="session")
def exported(
    picture_servable: Servable,
    tmp_path_factory: pytest.TempPathFactory,
    forks: Callable[[], AbstractContextManager[None]],
) -> tuple[Path, export.Report]:
    """All formats of the picture net in fp32, and the folder they are in. Tests must not change it."""
    out = tmp_path_factory.mktemp("exported") / "served"
    card = {"author": "A. Tester", "license": "Apache-2.0", "data": "made-up waves", "steps": 10}
    with forks():
        return out, export.export_servable(picture_servable, "waves", out, card=card)
