"""Weights as plain .npz files, and where trained ones are found: a run folder or a shipped preset.

A weights file holds one array per model variable, keyed by variable path. It is read without pickle, so a file from a
stranger cannot run code.
"""

import hashlib
import json
import os
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from kerasmodels import reading, registry
from kerasmodels.errors import UsageError, WeightsError, storage_error, unknown_name

if TYPE_CHECKING:
    import keras
    import numpy as np

    from kerasmodels.family import Family

PRESETS = Path(__file__).parent / "presets"


def write_atomic(path: str | Path, write: Callable[[IO[bytes]], object]) -> Path:
    """Call `write(file)` on a temporary file beside `path`, then rename it over `path`.

    Whatever goes wrong, `path` is either its old self or the whole new file.

    Raises:
        StorageError: it cannot be written there.
    """
    path = Path(path)
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            write(file)
            file.flush()
            os.fsync(file.fileno())
        # NamedTemporaryFile is private to its owner; the result should be as readable as any new file.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except OSError as error:
        raise storage_error(path, error) from error
    finally:
        if temporary is not None:
            temporary.unlink(missing_ok=True)
    return path


def write_json(path: str | Path, value: Any) -> Path:
    """Write `value` as indented JSON, atomically."""
    text = json.dumps(value, indent=2, default=str) + "\n"
    return write_atomic(path, lambda file: file.write(text.encode()))


def sha256(path: str | Path) -> str:
    """Hex digest of the file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def save_npz(path: str | Path, arrays: "Mapping[str, np.ndarray]") -> Path:
    """Write arrays as .npz, uncompressed (trained weights hardly shrink), atomically. Equal arrays give equal bytes."""
    import numpy as np

    def write(file: IO[bytes]) -> None:
        with zipfile.ZipFile(file, "w") as archive:
            for key, value in arrays.items():
                # A fixed date, so that the digest of a file depends on its content only.
                with archive.open(zipfile.ZipInfo(f"{key}.npy", (1980, 1, 1, 0, 0, 0)), "w", force_zip64=True) as entry:
                    np.lib.format.write_array(entry, np.asarray(value), allow_pickle=False)

    return write_atomic(path, write)


def load_npz(path: str | Path) -> "dict[str, np.ndarray]":
    """Read a .npz of plain arrays.

    Raises:
        WeightsError: it is not there, not a whole .npz file, or unpacks to much more than it has.
    """
    try:
        return reading.read_npz(path)
    except FileNotFoundError:
        raise WeightsError(f"no weights file at {path}.") from None
    except (OSError, ValueError) as error:
        raise WeightsError(f"{path} is not a readable .npz weights file ({error}).") from error


def of_model(model: "keras.Model", dtype: str | None = None) -> "dict[str, np.ndarray]":
    """Every weight of the model by variable path; floating ones as `dtype` if given."""
    import numpy as np

    arrays = {v.path: np.asarray(v.value) for v in model.weights}
    if len(arrays) != len(model.weights):
        raise ValueError("two variables of the model share one path: give its layers distinct names")
    if dtype is None:
        return arrays
    return {k: a.astype(dtype) if np.issubdtype(a.dtype, np.floating) else a for k, a in arrays.items()}


def assign(model: "keras.Model", arrays: "Mapping[str, np.ndarray]", source: str | Path) -> None:
    """Set every weight of the model from `arrays`, all or nothing.

    Raises:
        WeightsError: a variable is missing, left over, of another shape, or not finite.
    """
    import numpy as np

    variables = {v.path: v for v in model.weights}
    missing, extra = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
    wrong = [
        f"{k}: expected {tuple(v.shape)}, received {arrays[k].shape}"
        for k, v in variables.items()
        if k in arrays and tuple(v.shape) != arrays[k].shape
    ]
    if missing or extra or wrong:
        found = [*(f"missing {k}" for k in missing), *(f"unexpected {k}" for k in extra), *wrong]
        more = f" and {len(found) - 3} more" if len(found) > 3 else ""
        raise WeightsError(
            f"the weights in {source} belong to another network than {model.name!r} "
            f"({len(arrays)} arrays for {len(variables)} variables): {'; '.join(found[:3])}{more}. "
            "Use the config they were trained with (it lies beside them)."
        )
    for key, array in arrays.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise WeightsError(f"the weights in {source} are damaged: {key} holds NaN or infinite values.")
    for key, variable in variables.items():
        variable.assign(arrays[key].astype(np.dtype(variable.dtype) if variable.dtype != "bfloat16" else np.float32))


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

    def load(self) -> "tuple[Family, Any, keras.Model]":
        """The family, the config and the model with these weights."""
        family = registry.family(self.family)
        config = family.config_from_dict(self.config)
        model = family.model(config)
        self.assign_to(model)
        return family, config, model

    def assign_to(self, model: "keras.Model") -> None:
        """Set every weight of a model of the same network.

        Raises:
            WeightsError: it is of another network, or the file is damaged.
        """
        assign(model, load_npz(self.path), self.path)


TRAINED_CARD = {"family": str, "config": dict}
"""The fields of every record of trained weights, and their types: run.json's and a preset's card's."""
RUN_CARD = {
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


def presets(family: str) -> dict[str, Trained]:
    """The presets shipped for a family, by name.

    Raises:
        WeightsError: a card is damaged.
    """
    found = {}
    for card_path in sorted((PRESETS / family).glob("*.json")):
        try:
            card = read_card(card_path, TRAINED_CARD)
        except (OSError, ValueError) as error:
            raise WeightsError(f"{card_path} is damaged ({error}). Install kerasmodels again.") from error
        name = card_path.stem
        found[name] = Trained(family, name, card["config"], card_path.with_suffix(".npz"), card)
    return found


def preset(family: str, name: str) -> Trained:
    """One shipped preset.

    Raises:
        UsageError: no such preset.
    """
    known = presets(registry.row(family).name)
    if name not in known:
        raise unknown_name(f"preset of {family}", name, known)
    return known[name]


def run(folder: str | Path) -> Trained:
    """The trained weights in a run folder.

    Raises:
        UsageError: the folder is not a run.
        WeightsError: its run.json is damaged, or the training has not written its weights yet.
    """
    folder = Path(folder)
    card_path = folder / "run.json"
    if not card_path.is_file():
        raise UsageError(
            f"expected a run folder made by `kerasmodels train` (it holds run.json). Received: {str(folder)!r}."
        )
    try:
        card = read_card(card_path, TRAINED_CARD)
    except (OSError, ValueError) as error:
        raise WeightsError(f"{card_path} is damaged ({error}). Restore it, or train again.") from error
    trained = Trained(card["family"], folder.resolve().name, card["config"], folder / "weights.npz", card)
    if not trained.path.is_file():
        raise WeightsError(
            f"{folder} has no weights.npz yet: its training stopped before the first checkpoint. "
            f"Continue it with `kerasmodels train {card['family']} --resume {folder}`."
        )
    return trained


def find(source: str | Path) -> Trained:
    """A run folder, or `family/preset` such as "fast_style/wave".

    Raises:
        UsageError: neither.
    """
    if Path(source).is_dir():
        return run(source)
    family, slash, name = str(source).partition("/")
    if slash and family in registry.names():
        return preset(family, name)
    available = [f"{f}/{p}" for f in registry.names() for p in presets(f)]
    raise UsageError(
        f"expected a run folder or one of the presets {', '.join(available) or '(none shipped)'}. "
        f"Received: {str(source)!r}, which is neither."
    )


def chosen(family: str, preset_name: str | None, folder: Path | None) -> Trained:
    """What the options --preset and --run of a family's task name.

    Raises:
        UsageError: both or none is given, there is no such preset, or the folder is no run of the family.
        WeightsError: the training has not written its weights yet.
    """
    if (preset_name is None) == (folder is None):
        raise UsageError(
            "expected one of --preset NAME and --run FOLDER. "
            f"`kerasmodels list` shows the presets; `kerasmodels train {family}` makes such a folder."
        )
    if folder is None:
        return preset(family, preset_name or "")
    trained = run(folder)
    if trained.family != family:
        raise UsageError(f"expected a run of {family}. Received: {folder}, a run of {trained.family}.")
    return trained


def ship_preset(folder: str | Path, name: str, *, line: str, data: str, licence: str) -> Path:
    """Make the finished run in `folder` the shipped preset `name`: float16 weights and a card beside them.

    Args:
        folder: a run folder.
        name: of the preset.
        line: what it looks like, for `kerasmodels list`.
        data: what it was trained on.
        licence: of that data, and what it means for the weights.

    Returns:
        The card's path. The card also says how far float16 moves the outputs (largest difference and PSNR, dB, on an
        example of the first servable).

    Raises:
        UsageError: the run is not finished.
    """
    import numpy as np

    trained = run(folder)
    if trained.card.get("state") != "done":
        raise UsageError(f"expected a finished run. Received: {folder}, which is {trained.card.get('state')!r}.")
    family, config, model = trained.load()
    servable = next(iter(family.servables(model, config).values()))
    example = servable.example(servable.dims, 0)
    exact = {k: np.asarray(v, "float64") for k, v in servable.call(**example).items()}
    commands, seconds = _history(trained)
    path = save_npz(PRESETS / trained.family / f"{name}.npz", of_model(model, "float16"))
    assign(model, load_npz(path), path)
    errors = [np.abs(np.asarray(v, "float64") - exact[k]) for k, v in servable.call(**example).items()]
    worst = max(float(e.max()) for e in errors)
    mean_square = max(float(np.mean(e**2)) for e in errors)
    # Where files lay on the machine that trained is nobody's business.
    shown = {k: _file_name(v) for k, v in trained.config.items()}
    card = {
        "line": line,
        "family": trained.family,
        "config": shown,
        "commands": commands,
        "data": data,
        "license": licence,
        "seed": trained.card["seed"],
        "steps": trained.card["steps"],
        "seconds": max(1, round(seconds)),
        "metrics": trained.card["metrics"],
        "versions": trained.card["versions"],
        "parameters": model.count_params(),
        "sha256": sha256(path),
        "float16": {
            "max_abs_error": worst,
            "psnr_db": round(10 * float(np.log10(255**2 / mean_square)), 1) if mean_square else "equal",
        },
    }
    return write_json(path.with_suffix(".json"), card)


def _history(trained: Trained) -> tuple[list[str], float]:
    """The command lines that led to these weights and the seconds they took, those of what it started from first."""
    card = trained.card
    if "commands" in card:  # a preset's card tells the whole story
        return card["commands"], card["seconds"]
    commands = [card["command"], *(resumed["command"] for resumed in card.get("resumed", []))]
    seconds, earlier = card["seconds"], trained.config.get("start_from")
    if earlier:
        before, more = _history(find(earlier))
        commands, seconds = [*before, *commands], more + seconds
    return commands, seconds


def _file_name(value: Any) -> Any:
    """The name of a file or folder without where it lies; of each, in a list. All other values stay."""
    if isinstance(value, list | tuple):
        return [_file_name(v) for v in value]
    return Path(value).name if isinstance(value, str) and value and Path(value).exists() else value
