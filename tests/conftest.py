"""Fixtures for all tests, and settings that must be in place before TensorFlow is imported."""

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import forked

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


@pytest.fixture
def forks() -> Iterator[None]:
    """The test's exports wait for no import of TensorFlow. Other runtimes execute artifacts without it, as ever.

    The exports in fixtures of a wider scope, as `exported` of tests/export, start every process as a user's do.
    """
    from kerasmodels.export import children

    plain = children._fresh

    def fresh(script: Path, given: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        with_tensorflow = json.loads(given)[0].get("runtime", "tensorflow") == "tensorflow"
        return (forked.python if with_tensorflow else plain)(script, given, environment)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "_fresh", fresh)
        yield


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist, what shares expensive fixtures runs in one process: a file, or a family of the conformance.

    What takes long comes first, so that no process is left with it at the end when the others have nothing more to do.
    """
    longest = ("conformance.py", "families", "export")

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(ROOT).parts
        return next((number for number, name in enumerate(longest) if name in parts), len(longest))

    items.sort(key=place)
    for item in items:
        family = getattr(item, "callspec", None) and item.callspec.params.get("world")
        file = item.path.relative_to(ROOT).as_posix()
        item.add_marker(pytest.mark.xdist_group(f"{file}-{family}" if family else file))
