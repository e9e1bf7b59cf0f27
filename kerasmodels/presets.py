"""Shipped weights and their cards, and where trained weights are found: a preset or a run folder."""

from pathlib import Path
from typing import Any

from kerasmodels import registry, storage
from kerasmodels.errors import UsageError, WeightsError, unknown_name
from kerasmodels.runs import TRAINED_CARD, RunFolder, Trained, read_card

PRESETS = Path(__file__).parent / "presets"


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


def find(source: str | Path) -> Trained:
    """A run folder, or `family/preset` such as "fast_style/wave".

    Raises:
        UsageError: neither.
    """
    if Path(source).is_dir():
        return RunFolder(Path(source)).trained()
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
    trained = RunFolder(Path(folder)).trained()
    if trained.family != family:
        raise UsageError(f"expected a run of {family}. Received: {folder}, a run of {trained.family}.")
    return trained


def ship_preset(folder: str | Path, name: str, *, line: str, data: str, license: str) -> Path:
    """Make the finished run in `folder` the shipped preset `name`: float16 weights and a card beside them.

    Args:
        folder: a run folder.
        name: of the preset.
        line: what it looks like, for `kerasmodels list`.
        data: what it was trained on.
        license: of that data, and what it means for the weights.

    Returns:
        The card's path. The card also says how far float16 moves the outputs (largest difference and PSNR, dB, on an
        example of the first servable).

    Raises:
        UsageError: the run is not finished.
    """
    import numpy as np

    trained = RunFolder(Path(folder)).trained()
    if trained.card.get("state") != "done":
        raise UsageError(f"expected a finished run. Received: {folder}, which is {trained.card.get('state')!r}.")
    model = trained.load()
    servable = next(iter(registry.family(trained.family).servables(model).values()))
    example = servable.example(servable.dims, 0)
    exact = {k: np.asarray(v, "float64") for k, v in servable.call(**example).items()}
    commands, seconds = _history(trained)
    commands = [" ".join(_place_left_out(word) for word in command.split(" ")) for command in commands]
    path = storage.save_npz(PRESETS / trained.family / f"{name}.npz", storage.model_arrays(model, "float16"))
    storage.assign_arrays(model, storage.load_npz(path), path)
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
        "license": license,
        "seed": trained.card["seed"],
        "steps": trained.card["steps"],
        "seconds": max(1, round(seconds)),
        "metrics": trained.card["metrics"],
        "versions": trained.card["versions"],
        "parameters": model.count_params(),
        "sha256": storage.sha256(path),
        "float16": {
            "max_abs_error": worst,
            "psnr_db": round(10 * float(np.log10(255**2 / mean_square)), 1) if mean_square else "equal",
        },
    }
    return storage.write_json(path.with_suffix(".json"), card)


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


def _place_left_out(word: str) -> str:
    """A word of a command line; of an absolute path, its last part."""
    return Path(word).name if word.startswith("/") else word


def _file_name(value: Any) -> Any:
    """The name of a file or folder without where it lies; of each, in a list. All other values stay."""
    if isinstance(value, list | tuple):
        return [_file_name(v) for v in value]
    return Path(value).name if isinstance(value, str) and value and Path(value).exists() else value
