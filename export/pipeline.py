"""Make artifacts, execute them, compare them, and put in place only what passed."""

import dataclasses
import hashlib
import json
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import kerasmodels
from kerasmodels import presets, reading, registry, storage
from kerasmodels.errors import KerasModelsError, UsageError, VerificationError, storage_error, unknown_name
from kerasmodels.export import formats as table
from kerasmodels.export.formats import Format
from kerasmodels.export.order import Calibration, Order, Size, bind, calibration_examples, input_dims
from kerasmodels.export.report import Artifact, Report, model_card
from kerasmodels.family import Family, Servable, TensorSpec

if TYPE_CHECKING:
    import keras

    from kerasmodels.export.verify import Cases, Verdict

INDEX = "export.json"
CARD = "MODEL_CARD.md"
REJECTED = ".rejected"

Progress = Callable[[str], None]


def export(
    source: "keras.Model | str | Path",
    out: str | Path,
    *,
    formats: str | Sequence[str] = table.NAMES,
    size: Size = None,
    precision: str = "fp32",
    servable: str | None = None,
    allow_flex: bool = False,
    older_onnx: bool = False,
    calibration: Calibration = None,
    progress: Progress | None = None,
) -> Report:
    """Export a model of a registered family and prove every artifact equal to it.

    Args:
        source: a model of a family (it has `family_name` and `config`), a run folder, "family/preset", or the name of a
            family that has nothing to train.
        out: the folder to put artifacts in. What else is there stays untouched.
        formats: names from the table of formats.
        size: of LiteRT files: a side in pixels, (height, width), "256x384", {dimension: value} or "dynamic"; None for
            the family's own choice. The other formats take any size; this one is then among those they are checked on.
        precision: fp32, fp16, dynamic (8-bit weights) or int8; not every format supports each.
        servable: which of the family's servables; the first by default.
        allow_flex: accept LiteRT files that need TensorFlow's own operators. No Python interpreter can execute those:
            they are kept, marked as not executed.
        older_onnx: write ONNX files for runtimes that know no operator newer than opset 18: a deformable convolution
            is then gathers and a product, and several times slower than the operator of that name.
        calibration: for int8: a folder of pictures, or a list of input arrays; by default made-up examples.
        progress: called with one line of text as each step begins.

    Returns:
        The report, also written to `export.json` and `MODEL_CARD.md`.

    Raises:
        UsageError: the request is wrong.
        VerificationError: an artifact is not equal to the Keras model; it is kept with the ending `.rejected`.
        UnsupportedOpsError: an artifact would need operators that are not built in; nothing was written.
        ExportError: an artifact could not be made; nothing was written.
        StorageError: the disk is full or the place is not writable; nothing was written.
    """
    table.select(formats, precision)
    subject = _subject(source)
    servables = subject.family.servables(subject.model)
    chosen = servable if servable is not None else next(iter(servables))
    if chosen not in servables:
        raise unknown_name(f"servable of {subject.family.name}", chosen, servables)
    return export_servable(
        servables[chosen],
        subject.named(chosen, servables),
        out,
        formats=formats,
        size=size,
        precision=precision,
        allow_flex=allow_flex,
        older_onnx=older_onnx,
        calibration=calibration,
        progress=progress,
        source=subject.origin,
        card=subject.card,
    )


def export_all(
    source: "keras.Model | str | Path",
    out: str | Path,
    *,
    formats: str | Sequence[str] = table.NAMES,
    size: Size = None,
    precision: str = "fp32",
    allow_flex: bool = False,
    older_onnx: bool = False,
    calibration: Calibration = None,
    progress: Progress | None = None,
) -> dict[str, Report]:
    """Export all servables of a model into one folder; see `export` for the arguments and the errors.

    It takes less time than an export of each: all conversions to a format share a process, and so does the execution
    of all artifacts of a format.

    Returns:
        A report by name of the servable. A servable has those of the formats that it can have in this precision; one
        without any is left out.

    Raises:
        UsageError: the request is wrong, or no servable has any of the formats in this precision.
    """
    chosen = table.select(formats, precision)
    subject = _subject(source)
    servables = subject.family.servables(subject.model)
    options = _Options(size, precision, allow_flex, older_onnx, calibration)
    jobs, reasons = {}, []
    for key, servable in servables.items():
        name = subject.named(key, servables)
        lacking = {form.name: servable.lacks(form.name, precision) for form in chosen}
        able = [form for form in chosen if not lacking[form.name]]
        if able:
            own = dataclasses.replace(options, size=_own_size(size, servable, servables))
            jobs[key] = _job(servable, name, able, own, subject.origin, subject.card)
        else:
            reasons += [f"{name} does not exist as {form} in {precision}: {why}" for form, why in lacking.items()]
    if not jobs:
        raise UsageError(" ".join(reasons))
    return dict(zip(jobs, _carried_out(list(jobs.values()), out, options, progress), strict=True))


def _own_size(size: Size, servable: Servable, servables: Mapping[str, Servable]) -> Size:
    """Of the dimensions that a request for all servables names, those that this one has; all, where none has them."""
    if not isinstance(size, Mapping):
        return size
    known = {name for each in servables.values() for name in input_dims(each)}
    return {name: value for name, value in size.items() if name in input_dims(servable) or name not in known}


@dataclasses.dataclass(frozen=True)
class _Subject:
    """What a user asks to export: its family, the model, how it is called, where it is from, what is known of it."""

    family: Family
    model: Any
    name: str
    origin: str
    card: Mapping[str, Any]

    def named(self, servable: str, servables: Mapping[str, Servable]) -> str:
        """What the artifacts of a servable are called: the first one goes without its own name."""
        return self.name if servable == next(iter(servables)) else f"{self.name}-{servable}"


def _subject(source: "keras.Model | str | Path") -> _Subject:
    if isinstance(source, str) and source in registry.ready():
        family = registry.family(source)
        source = family.model(family.config())
    if isinstance(source, str | Path):
        trained = presets.find(source)
        family, model = registry.family(trained.family), trained.load()
        if trained.path.is_relative_to(presets.PRESETS):
            return _Subject(family, model, f"{family.name}-{trained.name}", str(source), trained.card)
        name = re.sub(r"[^A-Za-z0-9_.-]+", "-", trained.name)
        return _Subject(family, model, name, trained.name, trained.card)
    name = getattr(source, "family_name", "")
    if not name:
        raise UsageError(
            "expected a model made by one of the families, a run folder or 'family/preset'. "
            f"Received: {type(source).__name__}. For a model of your own, describe it with "
            "kerasmodels.family.Servable and call export_servable(servable, name, out)."
        )
    return _Subject(registry.family(name), source, name, name, {})


def export_servable(
    servable: Servable,
    name: str,
    out: str | Path,
    *,
    formats: str | Sequence[str] = table.NAMES,
    size: Size = None,
    precision: str = "fp32",
    allow_flex: bool = False,
    older_onnx: bool = False,
    calibration: Calibration = None,
    progress: Progress | None = None,
    source: str = "",
    card: Mapping[str, Any] | None = None,
) -> Report:
    """Export any servable; see `export` for the arguments they share, the result and the errors.

    Args:
        servable: the callable, its model, its specs and examples.
        name: of the model, as servers and files will have it: letters, digits, ".", "_" and "-".
        out: the folder to put artifacts in.
        source: where the weights come from, for the metadata.
        card: what is known of the training, for the model card; `author` and `license` also go into the artifacts.
    """
    chosen = table.select(formats, precision)
    options = _Options(size, precision, allow_flex, older_onnx, calibration)
    (report,) = _carried_out([_job(servable, name, chosen, options, source, card or {})], out, options, progress)
    return report


@dataclasses.dataclass(frozen=True)
class _Options:
    """What a request says of all its artifacts, checked as far as it can be without a servable."""

    size: Size
    precision: str
    allow_flex: bool
    older_onnx: bool
    calibration: Calibration

    def check(self, formats: Sequence[Format]) -> None:
        if self.calibration is not None and self.precision != "int8":
            raise UsageError(
                f"calibration is for precision 'int8'. Received precision {self.precision!r}: drop one of the two."
            )
        for option in ("allow_flex", "older_onnx"):
            if getattr(self, option) and not any(option in form.options for form in formats):
                able = [form.name for form in table.FORMATS if option in form.options]
                raise UsageError(f"{option} is for the format {' or '.join(able)}, which was not asked for.")


@dataclasses.dataclass(frozen=True)
class _Job:
    """A servable of a request, with its dimensions bound."""

    servable: Servable
    name: str
    formats: Sequence[Format]
    dims: Mapping[str, int]
    dynamic: bool
    examples: Sequence[Mapping[str, Any]]
    about: Mapping[str, Any]
    card: Mapping[str, Any]

    def order(self, form: Format, options: _Options, staging: Path) -> Order:
        """What is to be made in a format."""
        if form.dynamic:
            free = frozenset(self.dims)
        else:
            free = frozenset(d for d in self.dims if d != "batch") if self.dynamic else frozenset()
        stem = [
            self.name,
            *([_size_label(self.dims, self.dynamic)] if options.size is not None and "size" in form.options else []),
            *([options.precision] if options.precision != "fp32" else []),
        ]
        work = staging / form.name / self.name
        work.mkdir(parents=True)
        order = Order(
            servable=self.servable,
            name=self.name,
            dims=self.dims,
            free=free,
            precision=options.precision,
            work=work,
            file_name=f"{'.'.join(filter(None, stem))}{form.suffix}",
            metadata={},
            allow_flex=options.allow_flex,
            older_onnx=options.older_onnx,
            calibration=self.examples,
        )
        metadata = {
            **self.about,
            "format": form.name,
            "inputs": [_bound(spec, order) for spec in self.servable.inputs],
            "outputs": [_bound(spec, order) for spec in self.servable.outputs],
        }
        return dataclasses.replace(order, metadata=metadata)


def _job(
    servable: Servable,
    name: str,
    formats: Sequence[Format],
    options: _Options,
    source: str,
    card: Mapping[str, Any],
) -> _Job:
    """Raises UsageError if the request does not fit the servable."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(f'expected a name of letters, digits, ".", "_" and "-". Received: {name!r}.')
    for form in formats:
        why = servable.lacks(form.name, options.precision)
        if why:
            raise UsageError(f"{name} does not exist as {form.name} in {options.precision}: {why}")
    options.check(formats)
    dims, dynamic = bind(servable, options.size)
    calibrated = options.precision == "int8"
    examples = calibration_examples(servable, dims, options.calibration) if calibrated else ()
    about = {
        "name": name,
        "description": servable.doc,
        "version": kerasmodels.__version__,
        "author": str(card.get("author", "")),
        "license": str(card.get("license", "")),
        "source": source or "a Keras model",
        "producer": f"kerasmodels {kerasmodels.__version__}",
        "precision": options.precision,
        "inputs": [_described(spec) for spec in servable.inputs],
        "outputs": [_described(spec) for spec in servable.outputs],
    }
    return _Job(servable, name, formats, dims, dynamic, examples, about, card)


def _carried_out(jobs: Sequence[_Job], out: str | Path, options: _Options, progress: Progress | None) -> list[Report]:
    """Make and verify everything, put it in place, and report on each job."""
    place = _Place(Path(out))
    try:
        index = place.read_index()
        with place.staging() as staging:
            # TensorFlow takes seconds to import: only now that the request has been found in order.
            from kerasmodels.export.verify import Cases

            cases = {job.name: Cases(job.servable, job.dims) for job in jobs}
            made: dict[str, list[_Made]] = {job.name: [] for job in jobs}
            for form in table.FORMATS:
                orders = [job.order(form, options, staging) for job in jobs if form in job.formats]
                if orders:
                    for item in _make(form, orders, cases, staging / form.name, progress or (lambda line: None)):
                        made[item.name].append(item)
            artifacts = place.commit(jobs, made, index, staging)
    except KerasModelsError:
        raise
    except OSError as error:
        raise storage_error(place.out, error) from error
    everything = [artifact for found in artifacts.values() for artifact in found]
    rejected = [artifact for artifact in everything if artifact.executed and not artifact.verified]
    if rejected:
        listed = " ".join(f"{place.out / a.path}: {'; '.join(a.problems)}." for a in rejected)
        raise VerificationError(
            f"{len(rejected)} of {len(everything)} artifacts are not equal to the Keras model. {listed} "
            f"They are kept for inspection and described in {place.out / INDEX}."
        )
    reports = []
    for job in jobs:
        steps = [
            step
            for artifact in artifacts[job.name]
            for step in table.find(artifact.format).exporter.next_steps(
                artifact, job.servable, (place.out / artifact.path).resolve()
            )
        ]
        reports.append(Report(job.name, place.out, tuple(artifacts[job.name]), tuple(steps)))
    return reports


def _size_label(dims: Mapping[str, int], dynamic: bool) -> str:
    return "any-size" if dynamic else "x".join(str(value) for name, value in dims.items() if name != "batch")


def _described(spec: TensorSpec) -> dict[str, Any]:
    return {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "doc": spec.doc, "kind": spec.kind}


def _bound(spec: TensorSpec, order: Order) -> dict[str, Any]:
    shape = [d if isinstance(d, int) or d in order.free else order.dims.get(d, d) for d in spec.shape]
    return {**_described(spec), "shape": shape}


def digest(path: Path) -> str:
    """sha256 of a file; of a folder, of the lines "<sha256>  <path>\\n" of its files sorted by path."""
    if path.is_file():
        return storage.sha256(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    lines = "".join(f"{storage.sha256(p)}  {p.relative_to(path).as_posix()}\n" for p in files)
    return hashlib.sha256(lines.encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Made:
    """An artifact of the model `name`, still in the staging folder; `artifact.path` is a file's name."""

    name: str
    path: Path
    artifact: Artifact


def _make(
    form: Format, orders: Sequence[Order], cases: "Mapping[str, Cases]", work: Path, say: Progress
) -> list[_Made]:
    """Make the artifacts of one format, execute them in one process and compare them."""
    from kerasmodels.export import verify

    began, exporter, precision = time.perf_counter(), form.exporter, orders[0].precision
    trials: list[verify.Trial] = []
    why_not: list[str] = []
    say(f"{form.name} {precision}: making")
    made = exporter.make(orders)
    for order in orders:
        known = cases[order.name]
        compared = known.dynamic((1, 2)) if form.dynamic else known.dynamic((1,)) if order.free else known.fixed()
        compared = [*compared, *(known.files() if form.files else []), *known.hostile()]
        trials.append(verify.Trial(order.path, order.servable, compared, precision, tuple(order.free)))
        why_not.append(exporter.not_executed(order.path))
    digests = [digest(order.path) for order in orders]
    runnable = [trial for trial, why in zip(trials, why_not, strict=True) if not why]
    if runnable:
        compared = [case for trial in runnable for case in trial.cases]
        friendly = sum(not case.hostile for case in compared)
        also = f" and {len(compared) - friendly} hostile ones" if friendly < len(compared) else ""
        say(f"{form.name} {precision}: executing in {form.runtime} on {friendly} cases{also}")
    executed = iter(verify.verify(form.runtime, runnable, work) if runnable else [])
    verdicts = [verify.not_executed(why) if why else next(executed) for why in why_not]
    seconds = round((time.perf_counter() - began) / len(orders), 1)
    return [
        _Made(order.name, order.path, _artifact(form, order, facts, sha256, verdict, not why, seconds))
        for order, facts, sha256, verdict, why in zip(orders, made, digests, verdicts, why_not, strict=True)
    ]


def _artifact(
    form: Format,
    order: Order,
    facts: Mapping[str, Any],
    sha256: str,
    verdict: "Verdict",
    executed: bool,
    seconds: float,
) -> Artifact:
    from kerasmodels.export import verify

    path = order.path
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
    return Artifact(
        format=form.name,
        precision=order.precision,
        path=order.file_name,
        executed=executed,
        verified=not verdict.problems,
        problems=verdict.problems,
        sha256=sha256,
        bytes=size,
        inputs=tuple(order.metadata["inputs"]),
        outputs=tuple(order.metadata["outputs"]),
        runtime=form.runtime,
        measured=tuple(verify.as_dict(m) for m in verdict.measured),
        cases=verdict.cases,
        dims=dict(order.dims),
        operators=form.exporter.operators(path),
        opset=facts.get("opset"),
        versions={"kerasmodels": kerasmodels.__version__, **facts["versions"], **verdict.versions},
        seconds=seconds,
        hostile=verdict.hostile,
    )


class _Place:
    """The output folder: everything is made in a hidden folder inside it and renamed into place at the end."""

    def __init__(self, out: Path):
        self.out = out

    def read_index(self) -> dict[str, Any]:
        """The models of an earlier export into the same folder.

        Raises:
            UsageError: there is an export.json that is none of ours.
        """
        path = self.out / INDEX
        if not path.exists():
            return {}
        try:
            with reading.damaged():
                models = reading.read_json(path)["models"]
                model_card(models)
                if not all(isinstance(a["path"], str) for model in models.values() for a in model["artifacts"]):
                    raise ValueError("a path is no text")
            return models
        except (OSError, ValueError) as error:
            raise UsageError(
                f"expected {path} to be written by an earlier export ({error}). Move it away, or choose another folder."
            ) from error

    def staging(self) -> "_Staging":
        """A hidden folder inside the output folder, removed afterwards whatever happens."""
        return _Staging(self.out)

    def commit(
        self, jobs: Sequence[_Job], made: Mapping[str, Sequence[_Made]], index: Mapping[str, Any], staging: Path
    ) -> dict[str, list[Artifact]]:
        """Rename everything into place; returns the artifacts of each model with their final paths."""
        artifacts: dict[str, list[Artifact]] = {}
        moves, models = [], dict(index)
        for job in jobs:
            artifacts[job.name] = []
            for item in made[job.name]:
                relative = table.find(item.artifact.format).exporter.place(self.out, job.name, item.artifact.path)
                if item.artifact.executed and not item.artifact.verified:
                    relative = relative.with_name(relative.name + REJECTED)
                moves.append((item.path, relative))
                artifacts[job.name].append(dataclasses.replace(item.artifact, path=relative.as_posix()))
            models[job.name] = self._entry(job, artifacts[job.name], index)
        # Written before anything is renamed, so that a full disk is met while nothing has changed yet.
        texts = {INDEX: json.dumps({"models": models}, indent=2, default=str) + "\n", CARD: model_card(models)}
        for form in table.FORMATS:
            served = [
                name for name, found in artifacts.items() if any(a.format == form.name and a.verified for a in found)
            ]
            texts |= form.exporter.server_files(self.out, served) if served else {}
        for number, text in enumerate(texts.values()):
            (staging / f"text-{number}").write_text(text)

        for path, relative in moves:
            target = self.out / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.is_dir() and relative.name.endswith(REJECTED):
                shutil.rmtree(target)
            os.replace(path, target)
        for number, relative_name in enumerate(texts):
            os.replace(staging / f"text-{number}", self.out / relative_name)
        return artifacts

    def _entry(self, job: _Job, artifacts: Sequence[Artifact], index: Mapping[str, Any]) -> dict[str, Any]:
        """A model in the index: these artifacts, and those of earlier exports that are still there."""
        replaced = {artifact.path for artifact in artifacts}
        earlier = index.get(job.name, {"artifacts": []})["artifacts"]
        kept = [a for a in earlier if a["path"] not in replaced and (self.out / a["path"]).exists()]
        return {
            "about": {k: v for k, v in job.about.items() if k != "precision"},
            "training": {k: v for k, v in job.card.items() if k not in ("author", "license")},
            "artifacts": [*kept, *(artifact.to_dict() for artifact in artifacts)],
        }


class _Staging:
    """Context manager: a hidden folder inside `out`, which it makes if need be and removes again if left empty."""

    def __init__(self, out: Path):
        self._out = out

    def __enter__(self) -> Path:
        self._made = [p for p in (self._out, *self._out.parents) if not p.exists()]
        self._out.mkdir(parents=True, exist_ok=True)
        self._folder = Path(tempfile.mkdtemp(prefix=".export-", dir=self._out))
        return self._folder

    def __exit__(self, *_: object) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)
        for folder in self._made:
            if any(folder.iterdir()):
                break
            folder.rmdir()
