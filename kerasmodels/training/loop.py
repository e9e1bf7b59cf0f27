"""`train`: one family, one config, one run folder."""

import os
import sys
import threading
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, closing, nullcontext, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import tensorflow as tf

from kerasmodels import family as contract
from kerasmodels import storage
from kerasmodels.config import check
from kerasmodels.errors import KerasModelsError, TrainingError, UsageError, graph_error
from kerasmodels.family import Family, Source
from kerasmodels.runs import RunFolder, new_card
from kerasmodels.training import checkpoint, devices
from kerasmodels.training.callbacks import Gallery, Log, NaNStop, StepCallback, due
from kerasmodels.training.gallery import write_gallery
from kerasmodels.training.interrupts import Interrupted, stop_on_signal
from kerasmodels.training.progress import display


@dataclass(frozen=True)
class TrainResult:
    """A finished training: its folder, its model, steps done, seconds over all resumes, last logged means."""

    folder: Path
    model: keras.Model
    step: int
    seconds: float
    metrics: dict[str, float]


def train(
    family: Family,
    config: Any,
    out: str | Path,
    *,
    resume: bool = False,
    command: str | None = None,
    save_every: int | None = None,
    preview_every: int | None = None,
    log_every: int | None = None,
    progress: bool | None = None,
    callbacks: Sequence[keras.callbacks.Callback] = (),
    strategy: tf.distribute.Strategy | None = None,
    deterministic: bool | None = None,
) -> TrainResult:
    """Train `family.build(config)` for `config.steps` steps and keep everything worth keeping in the folder `out`.

    Training N steps and training N/2, stopping, and resuming to N give equal bits on CPU: weights, optimizers, random
    states and data position all come back. Ctrl-C and SIGTERM finish the step and save; a second Ctrl-C aborts at once.

    Args:
        family: what to train.
        config: its config; on resume it may be None (the run's own) or the run's own with other `steps`.
        out: the run folder, new unless `resume`.
        resume: go on with the run in `out` from its newest checkpoint that can be read.
        command: the command line, for the record.
        save_every: steps between checkpoints. Here and below None stands for the run's own on resume, else for 200.
        preview_every: steps between sample pictures; 0 for none. 200.
        log_every: steps a logged value is averaged over. 10.
        progress: True for a progress bar, False for none, None for a bar on a terminal and plain lines elsewhere.
        callbacks: more Keras callbacks. They run inside one long epoch, so use their batch hooks.
        strategy: a `tf.distribute` strategy for one machine, e.g. MirroredStrategy. The batch is split over devices,
            equally, and a step is the one that a single device takes with the whole batch; but batch normalization
            takes its statistics from each device's share, and dropout draws for each share alike.
        deterministic: make every TensorFlow op of this process deterministic. On CPU training is bit-equal without it;
            on GPU it is not, and this costs speed. None: the run's own on resume, else not.

    Raises:
        UsageError: there is nothing to train, `out` already holds a run or holds none to resume, the config is not
            the run's own, or the family or its batch cannot be shared by the strategy's devices.
        Interrupted: Ctrl-C or SIGTERM; saved.
        DivergedError: a loss term or a variable became NaN or infinite; the last checkpoint and weights are kept.
        StorageError: the folder cannot be written; the previous checkpoint is intact.
        TrainingError: no checkpoint can be read, the run has none any more, another process trains there, or the data
            ended early.
    """
    if family.source is None:
        raise contract.nothing_to_train(family.name)
    folder = RunFolder(Path(out))
    given = {
        "save_every": save_every,
        "preview_every": preview_every,
        "log_every": log_every,
        "deterministic": deterministic,
    }
    options = _options(given, {})
    _check_strategy(strategy)
    with ExitStack() as held:
        if resume:
            folder.read()
            held.enter_context(folder.held())
            card = folder.read()
            config = _own_config(family, config, card, folder)
            options = _options(given, card.get("options", {}))
        else:
            folder.check_new()
            card = new_card(family.name, config, command)
        return _train(family, config, folder, card, options, held, resume, command, progress, callbacks, strategy)


_OPTIONS = {"save_every": (200, 1), "preview_every": (200, 0), "log_every": (10, 1), "deterministic": (False, 0)}
"""What belongs to a run besides its config: the default and the least value."""


def _options(given: Mapping[str, Any], remembered: Any) -> dict[str, Any]:
    """The options of a training: those given, else those that run.json remembers, else the defaults."""
    known = remembered if isinstance(remembered, dict) else {}
    options = {}
    for name, (default, least) in _OPTIONS.items():
        value = known.get(name, default) if given[name] is None else given[name]
        check(isinstance(value, int) and value >= least, f"{name} >= {least}", value)
        options[name] = value
    return options


def _train(
    family: Family,
    config: Any,
    folder: RunFolder,
    card: dict[str, Any],
    options: Mapping[str, Any],
    held: ExitStack,
    resume: bool,
    command: str | None,
    progress: bool | None,
    callbacks: Sequence[keras.callbacks.Callback],
    strategy: tf.distribute.Strategy | None,
) -> TrainResult:
    source = family.sourced(config)
    if options["deterministic"]:
        tf.config.experimental.enable_op_determinism()
    keras.utils.set_random_seed(config.seed)
    with strategy.scope() if strategy is not None else nullcontext():
        model = family.build(config)
        if not model.built:
            raise TrainingError(f"expected a built model from {family.name}. Received: one without shapes.")
        devices.check_batch(config.batch)
        checkpoint.optimizers(model)
        start = _restore(family, model, source, folder, card) if resume else 0
    _check_steps(model, config.steps, max(start, card["step"]))
    if resume and start == config.steps and card["state"] == "done":
        return _result(model, folder, card)
    data = source.batches(model, start)

    if not resume:
        held.enter_context(folder.held())
        # Another training may have begun here meanwhile.
        folder.check_new()
    card |= {"config": config.to_dict(), "steps": config.steps, "step": start, "state": "training"}
    card |= {"options": dict(options), "pid": os.getpid()}
    if resume:
        card["resumed"] = [*card.get("resumed", []), {"step": start, "command": command}]
        card.pop("error", None)
        folder.cut_log(start)
    folder.write(card)
    folder.write_config(config)
    try:
        if start < config.steps:
            writer = tf.summary.create_file_writer(os.fsencode(folder.tensorboard))
            shown = display(progress, start, config.steps)
            notice = "stopping after this step; Ctrl-C again aborts at once"
            with closing(writer), shown, stop_on_signal(lambda: shown.say(notice)) as stop:
                every = options["log_every"]
                log = Log(folder.log_path, every, config.steps, config.batch, shown, writer, start, card["seconds"])
                saving = _Saving(folder, card, source, log, options["save_every"], stop)
                pictures = Gallery(folder.path, family.preview, options["preview_every"], start, writer)
                try:
                    model.fit(
                        data,
                        steps_per_epoch=config.steps - start,
                        callbacks=[NaNStop(start), log, pictures, *callbacks, saving],
                        shuffle=False,
                        verbose=0,
                    )
                except (tf.errors.OpError, MemoryError) as error:
                    advice = f"Train with a smaller batch than {config.batch}, or on a machine with more memory."
                    raise graph_error(error, advice) or error from error
            _check_end(family, folder, config, saving.step, interrupted=stop.is_set(), stopped=model.stop_training)
        # `fit` may change the weights at its very end (averaging optimizers), after the last checkpoint.
        storage.save_npz(folder.weights_path, storage.model_arrays(model))
        card["state"] = "done"
        card.pop("pid")
        folder.write(card)
        write_gallery(folder.path)
    except BaseException as error:
        card |= {
            "state": "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed",
            "error": str(error) or type(error).__name__,
        }
        card.pop("pid", None)
        # What stopped the training matters more than a record of it that cannot be written.
        with suppress(KerasModelsError):
            folder.write(card)
            write_gallery(folder.path)
        raise
    return _result(model, folder, card)


class _Saving(StepCallback):
    """Saves checkpoint, weights and run.json when due, at the end, and when asked to stop; then stops."""

    def __init__(
        self, folder: RunFolder, card: dict[str, Any], source: Source, log: Log, every: int, stop: threading.Event
    ):
        super().__init__(card["step"])
        self.folder, self.card, self.source, self.log, self.every, self.stop = folder, card, source, log, every, stop

    def on_step(self, before: int, step: int, logs: Mapping[str, float]) -> None:
        if self.stop.is_set():
            self.model.stop_training = True
        if due(self.every, before, step) or step >= self.card["steps"] or self.model.stop_training:
            seconds = self.log.seconds
            checkpoint.save(self.model, self.source, self.folder.checkpoints, step, seconds, self.card["config"])
            storage.save_npz(self.folder.weights_path, storage.model_arrays(self.model))
            self.card |= {"step": step, "seconds": round(seconds, 3), "metrics": self.log.means}
            self.folder.write(self.card)


def _own_config(family: Family, config: Any, card: Mapping[str, Any], folder: RunFolder) -> Any:
    """The config to go on with: the run's own, with `steps` from `config` if one is given."""
    check(card["family"] == family.name, f"a run of {family.name}", f"a run of {card['family']}")
    own = family.config.from_dict(card["config"])
    if config is None:
        return own
    before, now = own.to_dict(), config.to_dict()
    changed = [f"{k}={now[k]!r} (the run's: {before[k]!r})" for k in before if k != "steps" and now[k] != before[k]]
    if changed:
        raise UsageError(
            f"expected the config of the run in {folder.path}; only `steps` may change on resume. "
            f"Received: {', '.join(changed)}. Resume without them, or train anew in another folder."
        )
    return config


def _restore(family: Family, model: keras.Model, source: Source, folder: RunFolder, card: dict[str, Any]) -> int:
    """Restore the newest checkpoint that can be; returns its step, or 0 if the run never reached one."""

    def comparable(values: Mapping[str, Any]) -> dict[str, Any]:
        return family.config.from_dict(values).to_dict() | {"steps": None}

    found = checkpoint.paths(folder.checkpoints)
    unusable: dict[Path, str] = {}
    for path in found:
        try:
            saved = checkpoint.read(path)
            if comparable(saved.about["config"]) != comparable(card["config"]):
                raise TrainingError(f"{path} was saved with another config than run.json names")
            checkpoint.restore(model, source, saved)
        except (TrainingError, UsageError) as error:
            unusable[path] = str(error)
            print(f"warning: {error}; trying the checkpoint before it", file=sys.stderr)
            continue
        # Out of the way of the checkpoints to come, but not lost.
        for bad in unusable:
            bad.replace(bad.with_suffix(".damaged"))
        card["seconds"] = saved.seconds
        if saved.step < card["step"]:
            print(
                f"warning: {path} is the newest checkpoint; steps {saved.step + 1} to {card['step']}, which this run "
                "has done already, are done again",
                file=sys.stderr,
            )
        _tell_of_jumps(model, saved)
        return saved.step
    if unusable:
        raise TrainingError(
            f"expected a readable checkpoint in {folder.checkpoints}. Received: {'; '.join(unusable.values())}. "
            "Restore one from a backup, or train anew in another folder."
        )
    if card["step"] > 0 or folder.weights_path.exists():
        raise TrainingError(
            f"expected a checkpoint in {folder.checkpoints}, to go on from. Received: none, though run.json says that "
            f"{card['step']} steps are done: beginning anew would overwrite what they made. Restore the checkpoints, "
            f"or begin another run with these weights: kerasmodels train {family.name} --start-from {folder.path} "
            "--out ANOTHER."
        )
    print(f"{folder.path} has no checkpoint yet: training from the beginning", file=sys.stderr)
    card["seconds"] = 0.0
    return 0


def _tell_of_jumps(model: keras.Model, saved: checkpoint.Checkpoint) -> None:
    """Warn of learning rates that are not those of the checkpoint: with other steps, a schedule is another."""
    before = saved.about.get("learning_rates")
    for name, now in checkpoint.learning_rates(model).items():
        was = before.get(name) if isinstance(before, dict) else None
        if isinstance(was, float) and was != now:
            print(
                f"warning: the learning rate of {name} jumps from {was:g} to {now:g} at step {saved.step}, because its "
                "schedule ends with --steps; a training of so many steps from the beginning would differ",
                file=sys.stderr,
            )


def _check_strategy(strategy: tf.distribute.Strategy | None) -> None:
    usable = (tf.distribute.MirroredStrategy, tf.distribute.OneDeviceStrategy)
    if strategy is not None and not isinstance(strategy, usable):
        raise UsageError(
            "expected a strategy for the devices of one machine (tf.distribute.MirroredStrategy or OneDeviceStrategy); "
            f"Keras 3 cannot train under others. Received: {type(strategy).__name__}."
        )


def _check_steps(model: keras.Model, steps: int, start: int) -> None:
    check(steps >= start, f"steps >= {start}, which this run has done already", steps)
    each = model.steps_per_execution
    check((steps - start) % each == 0, f"steps in multiples of {each}, as steps_per_execution says", steps)


def _check_end(family: Family, folder: RunFolder, config: Any, step: int, *, interrupted: bool, stopped: bool) -> None:
    if step >= config.steps:
        return
    if interrupted:
        raise Interrupted(
            f"stopped at step {step} of {config.steps}; everything is saved in {folder.path}. "
            f"Go on with: kerasmodels train {family.name} --resume {folder.path}"
        )
    if not stopped:
        raise TrainingError(f"expected endless training data from {family.name}. Received: it ended at step {step}.")


def _result(model: keras.Model, folder: RunFolder, card: Mapping[str, Any]) -> TrainResult:
    return TrainResult(folder.path, model, card["step"], card["seconds"], dict(card["metrics"]))
