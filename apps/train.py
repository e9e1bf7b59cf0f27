"""`kerasmodels train FAMILY ...`: the flags are the fields of the family's Config."""

import shlex
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tyro

from kerasmodels import registry
from kerasmodels.apps.command import Outcome, first_look, line, load_family, parse, table, take_family, with_group
from kerasmodels.errors import UsageError
from kerasmodels.family import nothing_to_train
from kerasmodels.runs import RunFolder

if TYPE_CHECKING:
    from kerasmodels.family import Family


@dataclass(frozen=True, kw_only=True)
class Options:
    out: Path | None = None
    """New run folder. Left out: runs/FAMILY."""
    resume: Path | None = None
    """Continue the training in this run folder, with its config and the three below; of the flags of the family only
    --steps may differ."""
    variant: str = "paper"
    """Whose values are the defaults of the flags below; `kerasmodels info FAMILY` compares the variants."""
    config: Path | None = None
    """TOML file with values for the flags below, such as `learning_rate = 1e-3`; flags go before it."""
    dry_run: tyro.conf.FlagCreatePairsOff[bool] = False
    """Build, run one batch and one export, print sizes and a time estimate, and write nothing."""
    deterministic: tyro.conf.FlagCreatePairsOff[bool] = False
    """Also on a GPU the same seed gives the same weights, at some cost in speed. On a CPU it always does."""
    save_every: int | None = None
    """Steps between checkpoints. Left out: 200, or the resumed run's own."""
    preview_every: int | None = None
    """Steps between preview pictures; 0 for none. Left out: 200, or the resumed run's own."""
    log_every: int | None = None
    """Steps between lines of the log. Left out: 10, or the resumed run's own."""


def main(argv: Sequence[str]) -> Outcome:
    """Train, resume, or show what a training would take."""
    name, rest = take_family("train", argv)
    if not registry.row(name).trains:
        raise nothing_to_train(name)
    first = first_look(Options, rest)
    family = load_family(name)
    if first.resume is not None and first.out is not None:
        raise UsageError(f"expected --out or --resume, not both. Received: --out {first.out} --resume {first.resume}.")
    if first.resume is not None and first.variant != "paper":
        raise UsageError(
            f"expected --variant for a new run; one that is resumed has its own config. Received: --variant "
            f"{first.variant} --resume {first.resume}."
        )
    start = _config_of_run(first.resume, family) if first.resume is not None else family.variant(first.variant)
    if first.config is not None:
        start = type(start).from_toml(first.config, start)

    fields = options_of(family)
    options: Any = parse(
        fields, rest, f"kerasmodels train {name}", f"Train {name}.", default=fields(**{family.name: start})
    )
    config = getattr(options, family.name)
    if options.dry_run:
        return _dry_run(family, config)

    from kerasmodels import training

    out = options.resume or options.out or Path("runs") / name
    done = training.train(
        family,
        config,
        out,
        resume=options.resume is not None,
        command=line("train", argv),
        save_every=options.save_every,
        preview_every=options.preview_every,
        log_every=options.log_every,
        deterministic=options.deterministic or None,
    )
    result = {
        "family": name,
        "run": out,
        "step": done.step,
        "seconds": done.seconds,
        "metrics": done.metrics,
        "config": config.to_dict(),
    }
    place = shlex.quote(str(out))
    shown = [
        f"trained {done.step} steps in {done.seconds:.0f} s; look at {out / 'gallery.html'}",
        f"use it:    kerasmodels run {name} --help",
        f"export it: kerasmodels export {place} --out served",
    ]
    return Outcome(result, shown)


def options_of(family: "Family") -> type:
    """All flags of a family's training."""
    return with_group(Options, family.name, family.config, "TrainOptions")


def _config_of_run(folder: Path, family: "Family") -> Any:
    """The config that a run folder was made with.

    Raises:
        UsageError: the folder is not a run, or one of another family.
        TrainingError: its record is damaged.
    """
    card = RunFolder(folder).read()
    if card["family"] != family.name:
        raise UsageError(f"expected a run of {family.name}. Received: {str(folder)!r}, a run of {card['family']}.")
    return family.config.from_dict(card["config"])


def _dry_run(family: "Family", config: Any) -> Outcome:
    """One batch and one export, in a folder that is gone afterwards."""
    from kerasmodels import training
    from kerasmodels.export import export_servable

    facts = training.dry_run(family, config)
    servable = next(iter(family.servables(family.model(config)).values()))
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        (artifact,) = export_servable(servable, family.name, folder, formats="saved_model").artifacts
    facts = {**facts, "export": {"format": artifact.format, "bytes": artifact.bytes, "seconds": artifact.seconds}}
    rows = [(fact, _words(value)) for fact, value in facts.items()]
    return Outcome(facts, [table(("dry run", ""), rows), "nothing was written"])


def _words(value: Any) -> str:
    if isinstance(value, Mapping):
        return "\n".join(f"{k}: {_words(v)}" for k, v in value.items())
    if isinstance(value, float):
        return f"{value:.4g}"
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value)
