"""Fixtures for all tests, and settings that must be in place before TensorFlow is imported."""

import os
from pathlib import Path

import pytest

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_NUM_INTRAOP_THREADS", "2")
os.environ.setdefault("TF_NUM_INTEROP_THREADS", "2")
os.environ.setdefault("OMP_NUM_THREADS", "2")
# Tests compare numbers to the last bit; a GPU would make them depend on the machine.
os.environ["CUDA_VISIBLE_DEVICES"] = "-1"
os.environ["KERAS_BACKEND"] = "tensorflow"

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="session")
def root() -> Path:
    """The checkout."""
    return ROOT


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of real pictures and texts that are not part of the project: $KERASMODELS_DATA, or shared/data beside us.

    Only tests of what our own small samples cannot show ask for it.
    """
    named = os.environ.get("KERASMODELS_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("no folder of further data: set KERASMODELS_DATA to one")
    return folder


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist, what shares expensive fixtures runs in one process: a file, or a family of the conformance."""
    for item in items:
        family = getattr(item, "callspec", None) and item.callspec.params.get("case")
        item.add_marker(pytest.mark.xdist_group(f"{item.path.name}-{family}" if family else item.path.name))
