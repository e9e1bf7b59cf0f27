"""Fixtures for all tests, and settings that must be in place before TensorFlow is imported."""

import json
import os
import subprocess
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
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
PROTOBUF = "PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION"


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


@pytest.fixture(scope="session", autouse=True)
def forks() -> Iterator[Callable[[], AbstractContextManager[None]]]:
    """Exports wait for no import of TensorFlow; other runtimes execute artifacts without it, as ever.

    Within the context of what is yielded, every process is started as a user's is: `exported` of tests/export does so.
    """
    from kerasmodels.export import children

    plain, runners = children._fresh, children.RUNNERS

    def fresh(script: Path, given: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        ours = script.parent == runners and json.loads(given)[0].get("runtime", "tensorflow") == "tensorflow"
        # Which protobuf it is, is decided when it is imported.
        decided = environment.get(PROTOBUF) == os.environ.get(PROTOBUF)
        return (forked.python if ours and decided else plain)(script, given, environment)

    @contextmanager
    def as_users_do() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as inner:
            inner.setattr(children, "_fresh", plain)
            yield

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(children, "_fresh", fresh)
        yield as_users_do


@pytest.fixture
def plain_graphs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Graphs run as they were traced: to optimize one takes longer than the moment for which a test runs it.

    A test marked `optimized` is left as a user's process is.
    """
    import tensorflow as tf

    plain = request.node.get_closest_marker("optimized") is None
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": plain})
    yield
    tf.config.optimizer.set_experimental_options({"disable_meta_optimizer": False})


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With pytest-xdist, what shares expensive fixtures runs in one process: a file, or a family of the conformance.

    What takes long comes first, so that no process is left with it at the end when the others have nothing more to do.
    """
    longest = (
        "conformance.py", "families", "export", "optimizers", "apps", "training", "layers", "test_docs.py", "losses",
        "ops", "backbones",
    )  # fmt: skip

    def place(item: pytest.Item) -> int:
        parts = item.path.relative_to(ROOT).parts
        return next((number for number, name in enumerate(longest) if name in parts), len(longest))

    items.sort(key=place)
    for item in items:
        family = getattr(item, "callspec", None) and item.callspec.params.get("world")
        file = item.path.relative_to(ROOT).as_posix()
        item.add_marker(pytest.mark.xdist_group(f"{file}-{family}" if family else file))
