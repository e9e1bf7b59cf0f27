"""Work done in a fresh Python process: conversions and the execution of artifacts.

A process of its own keeps converters' chatter off the user's terminal, survives their aborts, and runs an artifact
without any class of this library. A process takes any number of jobs of one kind: its imports are paid for once.
Children work on the CPU, so that results do not depend on a GPU's rounding.
"""

import errno
import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from kerasmodels.errors import ExportError, storage_error

RUNNERS = Path(__file__).parent / "runners"


def call(
    script: str,
    jobs: Sequence[Mapping[str, Any]],
    whats: Sequence[str],
    place: Path,
    settings: Mapping[str, str] | None = None,
) -> list[dict[str, Any]]:
    """Run `runners/<script>.py` on jobs, one after the other in one process, and return their answers.

    Args:
        script: name of the runner.
        jobs: JSON values, given on its standard input.
        whats: what each job does, for error messages, such as "converting waves to LiteRT".
        place: folder it writes into, for error messages about the disk.
        settings: environment variables to set for it.

    Raises:
        ExportError: a job failed or was killed; the message ends with the last lines it printed.
        StorageError: the disk is full.
    """
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": "-1", "TF_CPP_MIN_LOG_LEVEL": "2", "PYTHONWARNINGS": "default"}
    environment |= settings or {}
    done = _fresh(RUNNERS / f"{script}.py", json.dumps(jobs), environment)
    answers: list[dict[str, Any]] = [json.loads(line) for line in done.stdout.splitlines()]
    failed = next((number for number, answer in enumerate(answers) if "error" in answer), None)
    if done.returncode == 0 and failed is None:
        return answers
    # The process ends with the first failure: a job without an answer is the one it was killed at.
    answer = {} if failed is None else answers[failed]
    what = whats[min(len(answers), len(whats) - 1) if failed is None else failed]
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
