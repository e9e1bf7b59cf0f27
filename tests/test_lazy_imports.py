"""What must stay cheap to import does."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

HEAVY = {"tensorflow", "keras", "onnx", "onnxruntime", "tf2onnx", "ai_edge_litert", "tensorflow_probability"}


def _loaded_by(code: str, root: Path) -> set[str]:
    """Top-level modules that are loaded after running `code` in a fresh Python."""
    report = "import json, sys; print('\\n' + json.dumps(sorted({m.partition('.')[0] for m in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", f"{code}\n{report}"], cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return set(json.loads(done.stdout.splitlines()[-1]))


@pytest.mark.parametrize(
    "module",
    [
        "",
        ".errors",
        ".registry",
        ".family",
        ".config",
        ".presets",
        ".runs",
        ".storage",
        ".backbones.sources",
        ".export",
        ".export.formats",
        ".apps.cli",
    ],
)
def test_import_is_light(module: str, root: Path) -> None:
    assert not _loaded_by(f"import kerasmodels{module}", root) & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["list"], ["list", "--json"], ["train", "--help"]])
def test_quick_commands_load_nothing_heavy(arguments: list[str], root: Path) -> None:
    code = f"from kerasmodels.apps.cli import main\nassert main({arguments!r}) == 0"
    unneeded = HEAVY if arguments[0] == "train" else HEAVY | {"numpy", "tyro", "pydantic"}
    assert not _loaded_by(code, root) & unneeded


def test_every_public_name_imports_what_it_says() -> None:
    import kerasmodels

    for name in kerasmodels.__all__:
        assert getattr(kerasmodels, name).__name__ == f"kerasmodels.{name}"
    assert set(kerasmodels.__all__) <= set(dir(kerasmodels))


def test_unknown_public_name_lists_the_known_ones() -> None:
    import kerasmodels

    with pytest.raises(AttributeError, match=r"no attribute 'layer'.*layers"):
        kerasmodels.layer  # noqa: B018
