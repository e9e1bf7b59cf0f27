"""`kerasmodels check`: is this installation sound, and what to do where it is not."""

import importlib.metadata
import json
import os
import platform
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from rich.text import Text

import kerasmodels
from kerasmodels.apps.command import Outcome, parse, table
from kerasmodels.backbones import sources

MEGABYTE = 1e6
ROOM_NEEDED = 500 * MEGABYTE
ROOM_WISHED = 5000 * MEGABYTE

# Each is imported in a Python of its own, so that one that crashes does not take this command along.
_PROBES = {
    "TensorFlow and Keras": (
        "import json, os; import tensorflow as tf, keras;"
        "gpus = [tf.config.experimental.get_device_details(g).get('device_name', g.name)"
        " for g in tf.config.list_physical_devices('GPU')];"
        "print(json.dumps({'says': f'TensorFlow {tf.__version__}, Keras {keras.__version__}',"
        " 'gpus': gpus, 'backend': keras.backend.backend(), 'format': keras.config.image_data_format()}))"
    ),
    "LiteRT": (
        "import json; from importlib.metadata import version; import ai_edge_litert.interpreter;"
        "print(json.dumps({'says': version('ai-edge-litert')}))"
    ),
    "ONNX and its runtime": (
        "import json; import onnx, onnxruntime, tf2onnx;"
        "print(json.dumps({'says': f'onnx {onnx.__version__}, onnxruntime {onnxruntime.__version__},'"
        " f' tf2onnx {tf2onnx.__version__}'}))"
    ),
}


@dataclass(frozen=True)
class Options:
    """No options."""


@dataclass(frozen=True)
class Finding:
    """One thing looked at. `advice` says what to do unless the state is ok."""

    about: str
    state: Literal["ok", "warning", "broken"]
    found: str
    advice: str = ""


def main(argv: Sequence[str]) -> Outcome:
    """Look at everything; exit code 1 if something is broken."""
    parse(Options, argv, "kerasmodels check", "Versions, GPU, extras, known-bad packages, disk space, cached weights.")
    findings = [
        python(),
        *requirements(),
        *probes(),
        *known_bad(installed()),
        *extras(),
        disk(Path.cwd()),
        *cached_weights(),
    ]
    broken = [f for f in findings if f.state == "broken"]
    styles = {"ok": "green", "warning": "yellow", "broken": "bold red"}
    rows = [(Text(f.state, styles[f.state]), f.about, f.found, f.advice) for f in findings]
    verdict = f"broken: {', '.join(f.about for f in broken)}" if broken else "sound"
    result = {"sound": not broken, "version": kerasmodels.__version__, "findings": findings}
    return Outcome(result, [table(("", "what", "found", "what to do"), rows), verdict], 1 if broken else 0)


def python() -> Finding:
    """Is this Python one of the supported ones?"""
    found = f"{platform.python_implementation()} {platform.python_version()}, {platform.platform()}"
    if (3, 11) <= sys.version_info[:2] < (3, 14):
        return Finding("Python", "ok", found)
    return Finding("Python", "broken", found, "use Python 3.11, 3.12 or 3.13")


def installed() -> dict[str, str]:
    """Version by canonical name of every installed distribution."""
    return {canonicalize_name(d.name): d.version for d in importlib.metadata.distributions() if d.name}


def declared() -> list[Requirement]:
    """What kerasmodels declares to need, extras included, from its metadata or from the checkout's pyproject.toml."""
    try:
        return [Requirement(r) for r in importlib.metadata.requires("kerasmodels") or ()]
    except PackageNotFoundError:
        project = tomllib.loads((Path(kerasmodels.__file__).parents[1] / "pyproject.toml").read_text())["project"]
        extra = [
            f"{r}{' and' if ';' in r else ' ;'} extra == '{name}'"
            for name, requirements in project["optional-dependencies"].items()
            for r in requirements
        ]
        return [Requirement(r) for r in [*project["dependencies"], *extra]]


def requirements() -> Iterator[Finding]:
    """Is what we need there, and what that needs in turn, in versions that fit?"""
    have = installed()
    waiting = [(r, "kerasmodels", "") for r in declared()]
    seen: set[tuple[str, str]] = set()
    faults = []
    while waiting:
        requirement, of, extra = waiting.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        version = have.get(name)
        if version is None or not requirement.specifier.contains(version, prereleases=True):
            plain = f"{requirement.name}{requirement.specifier}"
            faults.append(
                Finding(name, "broken", f"{version or 'missing'}; {of} needs {plain}", f"pip install '{plain}'")
            )
            continue
        for wanted in ("", *requirement.extras):
            if (name, wanted) not in seen:
                seen.add((name, wanted))
                waiting += [(Requirement(r), name, wanted) for r in importlib.metadata.requires(name) or ()]
    yield from sorted(set(faults), key=lambda f: f.about)
    if not faults:
        yield Finding("required packages", "ok", f"{len({name for name, _ in seen})} there, all in versions that fit")


def probes() -> Iterator[Finding]:
    """Do the runtimes import, and is there a GPU?"""
    quiet = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    for about, code in _PROBES.items():
        try:
            done = subprocess.run([sys.executable, "-c", code], env=quiet, capture_output=True, text=True, timeout=300)
        except subprocess.TimeoutExpired:
            yield Finding(about, "broken", "importing it did not end within 5 minutes", "reinstall it")
            continue
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
            yield Finding(about, "broken", last[0], "reinstall: pip install --force-reinstall kerasmodels")
            continue
        said = json.loads(done.stdout.strip().splitlines()[-1])
        if said.get("backend", "tensorflow") != "tensorflow":
            yield Finding(
                about, "broken", f"{said['says']} on {said['backend']}", "unset KERAS_BACKEND, or set it to tensorflow"
            )
            continue
        yield Finding(about, "ok", said["says"])
        if said.get("format") == "channels_first":
            yield Finding(
                "keras.json",
                "warning",
                "image_data_format is channels_first; everything here has channels last all the same",
                "set it to channels_last unless other code of yours needs it",
            )
        if "gpus" in said:
            yield Finding("GPU", "ok", ", ".join(said["gpus"]) or _no_gpu())


def _no_gpu() -> str:
    if shutil.which("nvidia-smi"):
        return "none that TensorFlow can use, though nvidia-smi is here: pip install 'kerasmodels[cuda]'"
    return "none; everything runs on the CPU"


def known_bad(have: dict[str, str]) -> Iterator[Finding]:
    """Packages that break TensorFlow or get in its way.

    Args:
        have: version by canonical name.
    """
    for name in ("tflite-support", "tflite-support-nightly"):
        if name in have:
            why = f"{have[name]}: it needs a protobuf from 2022, with which TensorFlow does not import"
            yield Finding(name, "broken", why, f"pip uninstall {name}; pip install -U protobuf")
    if "tensorflow-addons" in have:
        why = f"{have['tensorflow-addons']}: it does not import on this TensorFlow without a shim"
        yield Finding("tensorflow-addons", "warning", why, "use the replacements in docs/addons.md, or uninstall it")
    others = [n for n in ("tensorflow-cpu", "tf-nightly", "tensorflow-intel", "tensorflow-macos") if n in have]
    for name in others:
        if "tensorflow" in have:
            same = have[name] == have["tensorflow"]
            yield Finding(
                name,
                "warning" if same else "broken",
                f"{have[name]} beside tensorflow {have['tensorflow']}: they overwrite each other's files",
                f"pip uninstall {name}; pip install --force-reinstall --no-deps tensorflow=={have['tensorflow']}",
            )
    if os.environ.get("TF_USE_LEGACY_KERAS", "0").lower() in ("1", "true"):
        yield Finding("TF_USE_LEGACY_KERAS", "warning", "set: tf.keras is Keras 2", "unset it; this library is Keras 3")


def extras() -> Iterator[Finding]:
    """Which optional parts are there?"""
    have = installed()
    names = sorted({e for e in ("video", "rl", "web") for r in declared() if _only_for(r, e)})
    there = [e for e in names if all(canonicalize_name(r.name) in have for r in declared() if _only_for(r, e))]
    absent = [e for e in names if e not in there]
    advice = "to add one: " + ", ".join(f"pip install 'kerasmodels[{e}]'" for e in absent) if absent else ""
    yield Finding(
        "extras", "ok", f"there: {', '.join(there) or 'none'}; not there: {', '.join(absent) or 'none'}", advice
    )


def _only_for(requirement: Requirement, extra: str) -> bool:
    marker = requirement.marker
    return marker is not None and marker.evaluate({"extra": extra}) and not marker.evaluate({"extra": ""})


def disk(folder: Path) -> Finding:
    """Is there room for runs and artifacts?"""
    free = shutil.disk_usage(folder).free
    found = f"{free / 1e9:.1f} GB free at {folder}"
    if free < ROOM_NEEDED:
        return Finding("disk", "broken", found, "free some space: a run and its exports need about 0.5 GB")
    if free < ROOM_WISHED:
        return Finding("disk", "warning", found, "a long training with many checkpoints may fill it")
    return Finding("disk", "ok", found)


def cached_weights() -> Iterator[Finding]:
    """Which pretrained weights are converted and readable?"""
    rows = sources.cached()
    for row in rows:
        about = f"weights {row['network']}"
        if "error" in row:
            again = f"kerasmodels weights {row['network']} --from {row['source']}"
            yield Finding(about, "broken", row["error"], again)
        else:
            yield Finding(about, "ok", f"{row['source']}, {row['bytes'] / MEGABYTE:.0f} MB, {row['path']}")
    if not rows:
        yield Finding("weights", "ok", "none cached; only training needs them", "kerasmodels weights")
