"""Work done in a fresh Python process: conversions and the execution of artifacts.

A process of its own keeps converters' chatter off the user's terminal, survives their aborts, and runs an artifact
without any class of this library. Children work on the CPU, so that results do not depend on a GPU's rounding.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from kerasmodels.errors import ExportError, storage_error

RUNNERS = Path(__file__).parent / "runners"


def call(
    script: str, job: dict[str, Any], what: str, place: Path, settings: Mapping[str, str] | None = None
) -> dict[str, Any]:
    """Run `runners/<script>.py` on a job and return its answer.

    Args:
        script: name of the runner.
        job: JSON values, given on its standard input.
        what: what it does, for error messages, such as "converting to LiteRT".
        place: folder it writes into, for error messages about the disk.
        settings: environment variables to set for it.

    Raises:
        ExportError: it failed or was killed; the message ends with the last lines it printed.
        StorageError: the disk is full.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONWARNINGS": "default"}
    environment |= settings or {}
    done = _fresh(RUNNERS / f"{script}.py", json.dumps(job), environment)
    answer: dict[str, Any] = {}
    if done.stdout.strip():
        answer = json.loads(done.stdout)
    if done.returncode == 0 and "error" not in answer:
        return answer
    trouble = str(answer.get("error", ""))
    if answer.get("errno") or "No space left on device" in trouble + done.stderr:
        number = answer.get("errno") or errno.ENOSPC
        raise storage_error(place, OSError(number, os.strerror(number)))
    if not trouble:
        code = done.returncode
        ended = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        trouble = f"the process {ended}. Its last lines:\n" + "\n".join(done.stderr.strip().splitlines()[-12:])
    raise ExportError(f"{what} failed: {trouble}")


def _fresh(script: Path, given: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a script in a Python process of its own."""
    return subprocess.run(
        [sys.executable, str(script)], input=given, capture_output=True, text=True, errors="replace", env=environment
    )
