"""The run folder: what a training leaves on disk.

run.json             family, config, command, seed, versions, started, seconds, steps, step, state, metrics
config.toml          the resolved config, for `--config`
weights.npz          the model's variables: a run can be exported or run at any time
checkpoints/         step-000400.npz: everything needed to go on exactly; the last two are kept
log.csv              one row per log interval
tensorboard/         the same numbers, and the pictures
samples/             step-000400-NAME.png
gallery.html         all of it on one page
"""

import csv
import dataclasses
import errno
import io
import json
import platform
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import kerasmodels
from kerasmodels import family as contract
from kerasmodels import weights
from kerasmodels.errors import TrainingError, UsageError, storage_error

OWN_NAMES = (
    "run.json",
    "config.toml",
    "weights.npz",
    "checkpoints",
    "log.csv",
    "tensorboard",
    "samples",
    "gallery.html",
)


@dataclass(frozen=True)
class RunFolder:
    """Paths and records of one run."""

    path: Path

    @property
    def card_path(self) -> Path:
        return self.path / "run.json"

    @property
    def weights_path(self) -> Path:
        return self.path / "weights.npz"

    @property
    def log_path(self) -> Path:
        return self.path / "log.csv"

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    @property
    def tensorboard(self) -> Path:
        return self.path / "tensorboard"

    def check_new(self) -> None:
        """Refuse a path that holds a run, or anything a run would overwrite.

        Raises:
            UsageError: it does.
            StorageError: the path is a file.
        """
        if self.path.exists() and not self.path.is_dir():
            raise storage_error(self.path, NotADirectoryError(errno.ENOTDIR, "not a folder"))
        present = [name for name in OWN_NAMES if (self.path / name).exists()]
        if present:
            raise UsageError(
                f"expected a new folder for this run. Received: {str(self.path)!r}, which already holds "
                f"{', '.join(present)}. Use --resume (resume=True) to go on with that run, or name another folder."
            )

    def read(self) -> dict[str, Any]:
        """The content of run.json.

        Raises:
            UsageError: the folder is not a run.
            TrainingError: run.json is damaged.
        """
        if not self.card_path.is_file():
            raise UsageError(
                f"expected a run folder made by `kerasmodels train` (it holds run.json). Received: {str(self.path)!r}."
            )
        try:
            return weights.read_card(self.card_path, weights.RUN_CARD)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.card_path} is damaged ({error}). Restore it, or train anew.") from error

    def write(self, card: Mapping[str, Any]) -> None:
        """Replace run.json."""
        weights.write_json(self.card_path, card)

    def write_config(self, config: Any) -> None:
        """Replace config.toml."""
        text = config_toml(config)
        weights.write_atomic(self.path / "config.toml", lambda file: file.write(text.encode()))

    def cut_log(self, step: int) -> None:
        """Drop the rows of log.csv after `step` (and a last row that was cut off), so that none appears twice."""
        if not self.log_path.is_file():
            return
        with open(self.log_path, newline="", encoding="utf-8") as file:
            rows = list(csv.reader(file))
        if not rows:
            return
        kept = [row for row in rows[1:] if len(row) == len(rows[0]) and row[0].isdigit() and int(row[0]) <= step]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([rows[0], *kept])
        weights.write_atomic(self.log_path, lambda file: file.write(text.getvalue().encode()))


def new_card(family: str, config: Any, command: str | None) -> dict[str, Any]:
    """run.json of a training that has not made a step yet."""
    return {
        "family": family,
        "config": contract.config_to_dict(config),
        "command": command,
        "seed": config.seed,
        "versions": versions(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "seconds": 0.0,
        "steps": config.steps,
        "step": 0,
        "state": "training",
        "metrics": {},
    }


def versions() -> dict[str, str]:
    """Versions of what a result depends on."""
    import keras
    import numpy as np
    import tensorflow as tf

    return {
        "python": platform.python_version(),
        "keras": keras.__version__,
        "tensorflow": tf.__version__,
        "numpy": np.__version__,
        "kerasmodels": kerasmodels.__version__,
    }


def config_toml(config: Any) -> str:
    """The config dataclass as TOML, one `field = value` line each; `tomllib.loads` gives the values back.

    TOML has no null: a field that is None is left out.
    """
    values = ((f.name, getattr(config, f.name)) for f in dataclasses.fields(config))
    return "".join(f"{key} = {_toml_value(value)}\n" for key, value in values if value is not None)


def _toml_value(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, tuple | list):
        return f"[{', '.join(_toml_value(v) for v in value)}]"
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_toml_value(str(k))} = {_toml_value(v)}" for k, v in value.items()) + "}"
    # A TOML string is a JSON string, except that DEL must be escaped and escapes name whole code points.
    return json.dumps(str(value), ensure_ascii=False).replace("\x7f", "\\u007f")
