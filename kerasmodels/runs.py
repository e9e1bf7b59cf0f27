"""The run folder: what a training leaves on disk, and its only reader.

run.json             family, config, command, seed, versions, started, seconds, steps, step, state, metrics, options
config.toml          the resolved config, for `--config`
weights.npz          the model's variables: a run can be exported or run at any time
checkpoints/         step-000400.npz: everything needed to go on exactly; the last two are kept
log.csv              one row per log interval
tensorboard/         the same numbers, and the pictures
samples/             step-000400-NAME.png
gallery.html         all of it on one page
"""

import csv
import errno
import io
import platform
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kerasmodels
from kerasmodels import reading, registry, storage
from kerasmodels.errors import TrainingError, UsageError, WeightsError, storage_error

if TYPE_CHECKING:
    import keras

    from kerasmodels.config import Config, TrainingConfig

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


TRAINED_CARD: dict[str, Any] = {"family": str, "config": dict}
"""The fields of every record of trained weights, and their types: run.json's and a preset's card's."""
RUN_CARD: dict[str, Any] = {
    **TRAINED_CARD,
    "command": (str, type(None)),
    "seed": int,
    "versions": dict,
    "started": str,
    "seconds": (int, float),
    "steps": int,
    "step": int,
    "state": str,
    "metrics": dict,
}
"""Those of run.json, as a training writes it."""


def read_card(path: Path, fields: Mapping[str, Any]) -> dict[str, Any]:
    """A record with these fields.

    Raises:
        OSError: it cannot be read.
        ValueError: it is damaged, or a field is missing or of another type.
    """
    card = reading.read_json(path)
    wrong = [name for name, kind in fields.items() if name not in card or not isinstance(card[name], kind)]
    if wrong:
        raise ValueError(f"without {', '.join(wrong)} of the right type")
    return card


@dataclass(frozen=True)
class Trained:
    """Trained weights and what they are of: the content of a run folder or of a preset's card.

    Attributes:
        family: registry name.
        name: the preset's or the run folder's name.
        config: the config's values.
        path: the .npz file.
        card: everything else known about the training.
    """

    family: str
    name: str
    config: Mapping[str, Any]
    path: Path
    card: Mapping[str, Any]

    def load(self) -> Any:
        """The model with these weights, of the family's class; its `config` is the training's."""
        family = registry.family(self.family)
        model = family.model(family.config.from_dict(self.config))
        self.assign_to(model)
        return model

    def assign_to(self, model: "keras.Model") -> None:
        """Set every weight of a model of the same network.

        Raises:
            WeightsError: it is of another network, or the file is damaged.
        """
        storage.assign_arrays(model, storage.load_npz(self.path), self.path)


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
        if present == ["checkpoints"] and self.checkpoints.is_dir() and not any(self.checkpoints.iterdir()):
            return  # a training that was killed before it wrote anything
        if present:
            raise UsageError(
                f"expected a new folder for this run. Received: {str(self.path)!r}, which already holds "
                f"{', '.join(present)}. Use --resume (resume=True) to go on with that run, or name another folder."
            )

    @contextmanager
    def held(self) -> Iterator[None]:
        """Let no other training write here for as long as the block runs, and remove what killed ones left.

        Raises:
            TrainingError: another training does; the message names its process.
            StorageError: the folder cannot be made.
        """
        with ExitStack() as lock:
            try:
                # Not the lock of the folder itself, which exports into it take.
                self.checkpoints.mkdir(parents=True, exist_ok=True)
                lock.enter_context(storage.locked(self.checkpoints, wait=False))
            except BlockingIOError:
                holder = self.read().get("pid") if self.card_path.is_file() else None
                process = f"process {holder}" if isinstance(holder, int) else "another process"
                raise TrainingError(
                    f"expected a run folder that no other training writes to. Received: {str(self.path)!r}, where "
                    f"{process} trains. Wait for it, stop it, or name another folder."
                ) from None
            except OSError as error:
                raise storage_error(self.path, error) from error
            for name in OWN_NAMES:
                storage.clean(self.path, name)
            for folder in (self.checkpoints, self.path / "samples"):
                storage.clean(folder, "step-*")
            yield

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
            return read_card(self.card_path, RUN_CARD)
        except (OSError, ValueError) as error:
            raise TrainingError(f"{self.card_path} is damaged ({error}). Restore it, or train anew.") from error

    def trained(self) -> Trained:
        """The trained weights.

        Raises:
            UsageError: the folder is not a run.
            TrainingError: run.json is damaged.
            WeightsError: the training has not written its weights yet.
        """
        card = self.read()
        if not self.weights_path.is_file():
            raise WeightsError(
                f"{self.path} has no weights.npz yet: its training stopped before the first checkpoint. "
                f"Continue it with `kerasmodels train {card['family']} --resume {self.path}`."
            )
        return Trained(card["family"], self.path.resolve().name, card["config"], self.weights_path, card)

    def write(self, card: Mapping[str, Any]) -> None:
        """Replace run.json."""
        storage.write_json(self.card_path, card)

    def write_config(self, config: "Config") -> None:
        """Replace config.toml."""
        storage.write_text(self.path / "config.toml", config.to_toml())

    def cut_log(self, step: int) -> None:
        """Drop the rows of log.csv after `step` (and those that are damaged), so that none appears twice.

        A file without the names of its columns is put aside as log.csv.damaged.
        """
        if not self.log_path.is_file():
            return
        try:
            names, rows = read_log(self.log_path)
            if names[:1] != ["step"]:
                if self.log_path.stat().st_size:
                    self.log_path.replace(self.log_path.with_name("log.csv.damaged"))
                return
        except OSError as error:
            raise storage_error(self.log_path, error) from error
        kept = [row for row in rows if row[0].isdecimal() and int(row[0]) <= step]
        text = io.StringIO()
        csv.writer(text, lineterminator="\n").writerows([names, *kept])
        storage.write_text(self.log_path, text.getvalue())


def read_log(path: Path) -> tuple[list[str], list[list[str]]]:
    """The names of the columns of a log.csv, and its rows. Left out are rows that are cut off or no numbers.

    Raises:
        OSError: it cannot be read.
    """

    def number(cell: str) -> bool:
        try:
            return cell == "" or float(cell) is not None
        except ValueError:
            return False

    # Line by line, so that damage in one, NUL bytes included, does not reach the others.
    lines = [line.split(",") for line in path.read_text(encoding="utf-8", errors="replace").splitlines()]
    names, *rows = lines or [[]]
    return names, [row for row in rows if len(row) == len(names) and all(map(number, row))]


def new_card(family: str, config: "TrainingConfig", command: str | None) -> dict[str, Any]:
    """run.json of a training that has not made a step yet. Later, `options` are how often it saves and so on."""
    return {
        "family": family,
        "config": config.to_dict(),
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
