"""`check` finds what is wrong. The environment of the tests is sound, so faults are put in front of single checks."""

import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

import pytest

from kerasmodels.apps import doctor
from tests.apps.conftest import ROOT


def test_this_installation_is_sound(command) -> None:
    code, result, err = command("check")
    states = {finding["about"]: finding["state"] for finding in result["findings"]}
    assert (code, result["sound"]) == (0, True), result
    assert states["required packages"] == "ok"
    assert states["TensorFlow and Keras"] == "ok"
    assert states["LiteRT"] == "ok"
    assert states["ONNX and its runtime"] == "ok"
    assert {"Python", "GPU", "extras", "disk"} <= states.keys()
    assert [f for f in result["findings"] if f["state"] != "ok" and not f["advice"]] == []
    assert err == ""


def test_known_bad_packages() -> None:
    have = {
        "tensorflow": "2.21.0",
        "tflite-support": "0.4.4",
        "tensorflow-addons": "0.23.0",
        "tensorflow-cpu": "2.15.1",
    }
    found = {f.about: f for f in doctor.known_bad(have)}
    assert found["tflite-support"].state == "broken"
    assert "pip uninstall tflite-support" in found["tflite-support"].advice
    assert found["tensorflow-addons"].state == "warning"
    assert found["tensorflow-cpu"].state == "broken"
    assert list(doctor.known_bad({"tensorflow": "2.21.0", "keras": "3.15.1"})) == []


def test_two_tensorflows_of_one_version_are_a_warning() -> None:
    (found,) = doctor.known_bad({"tensorflow": "2.21.0", "tensorflow-cpu": "2.21.0"})
    assert found.state == "warning"
    assert "pip uninstall tensorflow-cpu" in found.advice


def test_legacy_keras_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TF_USE_LEGACY_KERAS", "1")
    assert [f.about for f in doctor.known_bad({})] == ["TF_USE_LEGACY_KERAS"]


@pytest.mark.parametrize(
    ("name", "version", "found"),
    [("keras", "2.15.0", "2.15.0; kerasmodels needs keras<4,>=3.15"), ("protobuf", "3.20.3", "3.20.3; ")],
)
def test_wrong_version_is_broken(monkeypatch: pytest.MonkeyPatch, name: str, version: str, found: str) -> None:
    have = doctor.installed()
    monkeypatch.setattr(doctor, "installed", lambda: {**have, name: version})
    broken = [f for f in doctor.requirements() if f.about == name]
    assert broken
    assert all(f.state == "broken" for f in broken)
    assert any(found in f.found for f in broken)
    assert all(f.advice.startswith(f"pip install '{name}") for f in broken)


def test_missing_package_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    have = {name: version for name, version in doctor.installed().items() if name != "tf2onnx"}
    monkeypatch.setattr(doctor, "installed", lambda: have)
    (finding,) = doctor.requirements()
    assert (finding.about, finding.state) == ("tf2onnx", "broken")
    assert "missing" in finding.found


def test_requirements_of_a_bare_checkout_are_those_of_an_installed_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def wanted() -> set[tuple[str, str]]:
        return {(r.name, str(r.specifier)) for r in doctor.declared() if not doctor._only_for(r, "dev")}

    installed = wanted()

    def not_installed(name: str) -> list[str]:
        raise metadata.PackageNotFoundError(name)

    monkeypatch.setattr(metadata, "requires", not_installed)
    assert wanted() == installed


def test_runtime_that_does_not_import_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "_PROBES", {"LiteRT": "raise ImportError('no such symbol')"})
    (finding,) = doctor.probes()
    assert (finding.state, finding.found) == ("broken", "ImportError: no such symbol")
    monkeypatch.setattr(doctor, "_PROBES", {"LiteRT": "import os; os.abort()"})
    (finding,) = doctor.probes()
    assert finding.state == "broken"


def test_full_disk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: usage._replace(free=10_000_000))
    assert doctor.disk(tmp_path).state == "broken"


def test_weights_are_listed_and_damage_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path))
    (finding,) = doctor.cached_weights()
    assert finding.found.startswith("none cached")
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "vgg16-keras.npz").write_text("not an archive")
    (finding,) = doctor.cached_weights()
    assert (finding.state, finding.advice) == ("broken", "kerasmodels weights vgg16 --from keras")


def test_broken_installation_exits_1(tmp_path: Path) -> None:
    """A Python whose TensorFlow does not import."""
    (tmp_path / "tensorflow.py").write_text("raise ImportError('libcu.so is missing')\n")
    import os

    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}"}
    done = subprocess.run(
        [sys.executable, "-m", "kerasmodels", "check"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.returncode == 1
    assert "broken: TensorFlow and Keras" in done.stdout
    assert "libcu.so is missing" in done.stdout
