"""The real tensorflow-addons 0.23, run live in its own process.

tensorflow-addons is retired: it needs Python 3.11, Keras 2 (tf_keras), a shim for the modules that Keras has moved, and
typeguard 2, which breaks the command line's tyro. So it never goes into the environment of the library, but into a
folder that only the oracle's process sees:

    python -m pip install --no-deps --target build/addons tensorflow-addons==0.23.* tf_keras==2.21.* typeguard==2.13.*

`KERASMODELS_ADDONS` names another folder.
"""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ADDONS = Path(os.environ.get("KERASMODELS_ADDONS") or Path(__file__).parents[1] / "build" / "addons")

SHIM = """
import importlib, os, sys
os.environ["TF_USE_LEGACY_KERAS"] = "1"
import numpy as np
np.Inf = np.inf
import tf_keras
sys.modules["keras"] = tf_keras
for name in ("src", "src.engine", "src.engine.keras_tensor", "src.engine.base_layer", "src.utils",
             "src.utils.tf_utils", "src.backend"):
    sys.modules["keras." + name] = importlib.import_module("tf_keras." + name)
import tensorflow as tf
import tensorflow_addons as tfa
assert tfa.__version__.startswith("0.23"), tfa.__version__
given, results = dict(np.load(sys.argv[1])), {}
"""


def ask(folder: Path, given: dict[str, np.ndarray], code: str) -> dict[str, np.ndarray]:
    """Run `code` in a process with `tf`, `tfa` and the arrays `given`; returns what it puts into `results`."""
    if sys.version_info[:2] != (3, 11):
        pytest.skip("tensorflow-addons 0.23 has wheels up to Python 3.11")
    if not (ADDONS / "tensorflow_addons").is_dir():
        pytest.skip(f"tensorflow-addons is not in {ADDONS}; `make addons` puts it there")
    np.savez(folder / "given.npz", **given)
    script = f"{SHIM}\n{code}\nnp.savez(sys.argv[2], **results)"
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", script, str(folder / "given.npz"), str(folder / "results.npz")],
        env={**os.environ, "PYTHONPATH": str(ADDONS), "TF_CPP_MIN_LOG_LEVEL": "3"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    with np.load(folder / "results.npz") as results:
        return dict(results)
