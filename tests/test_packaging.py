"""The wheel holds one import name with everything in it, and every way of installing gives the same package."""

import os
import shutil
import subprocess
import sys
import tomllib
import venv
import zipfile
from pathlib import Path
from typing import Any

import pytest

from kerasmodels import presets
from kerasmodels.apps.serving.web import FILES

HOMES = {"kerasmodels": "kerasmodels", "export": "kerasmodels/export", "apps": "kerasmodels/apps"}

IMPORTS = """
import kerasmodels, kerasmodels.apps.cli, kerasmodels.export, kerasmodels.export.formats
from kerasmodels import presets
from kerasmodels.apps.serving.web import FILES
print(kerasmodels.__version__, kerasmodels.export.__file__, sorted(presets.presets("fast_style")))
"""


@pytest.fixture(scope="module")
def settings(root: Path) -> dict[str, Any]:
    return tomllib.loads((root / "pyproject.toml").read_text())


def _copy_project(root: Path, to: Path) -> None:
    """What building needs, so that nothing is left behind in the checkout."""
    for name in HOMES:
        shutil.copytree(root / name, to / name, ignore=shutil.ignore_patterns("__pycache__", "runtime"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(root / name, to)


@pytest.fixture(scope="module")
def wheel(root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built with the setuptools of the test environment."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    _copy_project(root, source)
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (built,) = out.glob("*.whl")
    return built


def _tree(root: Path, pattern: str) -> set[str]:
    """Files under the three folders, by the path they have in the wheel."""
    return {
        f"{inside}/{file.relative_to(root / folder).as_posix()}"
        for folder, inside in HOMES.items()
        for file in (root / folder).rglob(pattern)
        if "__pycache__" not in file.parts
    }


def test_packages_listed_are_the_packages_there_are(root: Path, settings: dict[str, Any]) -> None:
    packages = {path.removesuffix("/__init__.py").replace("/", ".") for path in _tree(root, "__init__.py")}
    assert sorted(packages) == sorted(settings["tool"]["setuptools"]["packages"])


def test_every_folder_with_code_is_a_package(root: Path) -> None:
    folders = {path.rpartition("/")[0] for path in _tree(root, "*.py")}
    assert folders == {path.rpartition("/")[0] for path in _tree(root, "__init__.py")}


def test_wheel_has_one_top_level_name(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        tops = {name.partition("/")[0] for name in archive.namelist()}
    assert {name for name in tops if not name.endswith(".dist-info")} == {"kerasmodels"}


def test_wheel_holds_the_tree(wheel: Path, root: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if not name.partition("/")[0].endswith(".dist-info")}
    presets = {path for path in _tree(root, "*") if path.startswith("kerasmodels/presets/")}
    presets = {path for path in presets if path.endswith((".json", ".npz"))}
    page = {f"kerasmodels/apps/web/{name}" for name in FILES}
    assert inside == _tree(root, "*.py") | presets | page | {"kerasmodels/py.typed"}


def test_wheel_carries_the_license(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        (license,) = [name for name in archive.namelist() if name.endswith("/licenses/LICENSE")]
        assert b"Apache License" in archive.read(license)
        (metadata,) = [name for name in archive.namelist() if name.endswith(".dist-info/METADATA")]
        assert b"License-Expression: Apache-2.0" in archive.read(metadata)


def _python(root: Path, code: str, *, path: Path | None, cwd: Path, executable: str = sys.executable) -> str:
    """What `code` prints in a fresh Python that finds kerasmodels at `path` only, or wherever it is installed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONPATH"}
    if path is not None:
        environment["PYTHONPATH"] = str(path)
    done = subprocess.run([executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_imports_from_an_unpacked_wheel(wheel: Path, root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    printed = _python(root, IMPORTS, path=tmp_path / "site", cwd=tmp_path)
    assert str(tmp_path / "site" / "kerasmodels" / "export") in printed
    assert printed.endswith(str(sorted(presets.presets("fast_style"))))


def test_imports_from_a_bare_checkout(root: Path, tmp_path: Path) -> None:
    printed = _python(root, IMPORTS, path=root, cwd=tmp_path)
    assert f"{root / 'export'}" in printed
    assert printed.endswith(str(sorted(presets.presets("fast_style"))))


def test_imports_from_an_editable_install(root: Path, tmp_path: Path) -> None:
    source = tmp_path / "checkout"
    source.mkdir()
    _copy_project(root, source)
    venv.create(tmp_path / "env", with_pip=False)
    executable = tmp_path / "env" / "bin" / "python"
    (site,) = (tmp_path / "env" / "lib").glob("*/site-packages")
    # The packages of the test environment, after those of the new one.
    (site / "parent.pth").write_text("\n".join(p for p in sys.path if p.endswith("site-packages")) + "\n")
    install = ["-m", "pip", "install", "--no-deps", "--no-build-isolation", "--disable-pip-version-check", "--editable"]
    done = subprocess.run([executable, *install, str(source)], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    printed = _python(root, IMPORTS, path=None, cwd=tmp_path, executable=str(executable))
    assert "checkout" in printed
    assert printed.endswith(str(sorted(presets.presets("fast_style"))))
    script = subprocess.run([tmp_path / "env" / "bin" / "kerasmodels", "--version"], capture_output=True, text=True)
    assert script.stdout.startswith("kerasmodels ")


@pytest.mark.parametrize("name", ["export", "apps"])
def test_folders_do_not_import_under_their_own_name(name: str, root: Path, tmp_path: Path) -> None:
    code = f"try:\n    import {name}\nexcept ImportError as error:\n    print(error)"
    printed = _python(root, code, path=root, cwd=tmp_path)
    assert printed == f"this package is imported as `kerasmodels.{name}`, not `{name}`"


@pytest.mark.parametrize("name", ["export", "apps"])
def test_a_user_keeps_their_own_module_of_that_name(name: str, wheel: Path, root: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(tmp_path / "site")
    (tmp_path / f"{name}.py").write_text("mine = True\n")
    code = f"import {name}, kerasmodels.{name}; print({name}.mine, kerasmodels.{name}.__name__)"
    assert _python(root, code, path=tmp_path / "site", cwd=tmp_path) == f"True kerasmodels.{name}"


def test_python_versions_agree(root: Path, settings: dict[str, Any]) -> None:
    """The Makefile, the doctor and the classifiers say what requires-python says."""
    assert settings["project"]["requires-python"] == ">=3.11,<3.14"
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (root / "Makefile").read_text()
    assert "(3, 11) <= sys.version_info[:2] < (3, 14)" in (root / "apps" / "doctor.py").read_text()
