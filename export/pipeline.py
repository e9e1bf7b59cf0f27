"""Make artifacts, execute them, compare them, and put in place only what passed."""

import dataclasses
import hashlib
import re
import time
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

import kerasmodels
from kerasmodels import presets, reading, registry
from kerasmodels.errors import KerasModelsError, UsageError, VerificationError, storage_error, unknown_name
from kerasmodels.export import formats as table
from kerasmodels.export.formats import Format
from kerasmodels.export.order import HELD_OUT, Calibration, Order, Size, bind, calibration_examples, input_dims
from kerasmodels.export.place import INDEX, Made, Place, digest
from kerasmodels.export.report import Artifact, Report
from kerasmodels.family import Servable, TensorSpec

if TYPE_CHECKING:
    import keras

    from kerasmodels.export.signatures import Sources
    from kerasmodels.export.verify import Cases, Verdict

Progress = Callable[[str], None]


class Options(TypedDict, total=False):
    """What a request says of all its artifacts; see `export`."""

    formats: str | Sequence[str]
    size: Size
    precision: str
    allow_flex: bool
    older_onnx: bool
    calibration: Calibration
    progress: Progress | None


@dataclasses.dataclass(frozen=True)
class _Request:
    """`Options` with the defaults filled in, checked as far as it can be without a servable."""

    formats: str | Sequence[str] = table.NAMES
    size: Size = None
    precision: str = "fp32"
    allow_flex: bool = False
    older_onnx: bool = False
    calibration: Calibration = None
    progress: Progress | None = None

    def select(self) -> tuple[Format, ...]:
        """The formats, in the table's order; raises UsageError if there is no such format or precision."""
        return table.select(self.formats, self.precision)

    def check(self, formats: Sequence[Format]) -> None:
        """Raises UsageError if an option fits none of the formats."""
        if self.calibration is not None and self.precision != "int8":
            raise UsageError(
                f"calibration is for precision 'int8'. Received precision {self.precision!r}: drop one of the two."
            )
        for option in ("allow_flex", "older_onnx"):
            if getattr(self, option) and not any(option in form.options for form in formats):
                able = [form.name for form in table.FORMATS if option in form.options]
                raise UsageError(f"{option} is for the format {' or '.join(able)}, which was not asked for.")

    def say(self, line: str) -> None:
        """Tell how far it is."""
        if self.progress is not None:
            self.progress(line)


def export(
    source: "keras.Model | str | Path",
    out: str | Path,
    *,
    servable: str | None = None,
    name: str | None = None,
    example: Any = None,
    preprocess: "str | Callable[[Any], Any] | None" = None,
    classes: Sequence[str] | None = None,
    **options: Unpack[Options],
) -> Report:
    """Export a model and prove every artifact equal to it.

    Args:
        source: any built `keras.Model`, or a .keras file; a run folder, "family/preset", or the name of a family that
            has nothing to train.
        out: the folder to put artifacts in. What else is there stays untouched.
        servable: which of the family's servables; the first by default.
        formats: names from the table of formats; all by default.
        size: of LiteRT files: a side in pixels, (height, width), "256x384", {dimension: value} or "dynamic"; None for
            the family's own choice. The other formats take any size; this one is then among those they are checked on.
        precision: fp32 (the default), fp16, dynamic (8-bit weights) or int8; not every format supports each.
        name: what the artifacts are called: letters, digits, ".", "_" and "-". None: as the run folder (letters of
            other scripts become those, or a digest), the preset or the family.
        allow_flex: accept LiteRT files that need TensorFlow's own operators. No Python interpreter can execute those:
            they are kept, marked as not executed.
        older_onnx: write ONNX files for runtimes that know no operator newer than opset 18: a deformable convolution
            is then gathers and a product, and several times slower than the operator of that name.
        calibration: for int8: a folder of pictures, or a list of input arrays, every fourth of which is kept to measure
            with; by default the examples.
        example, preprocess, classes: of a Keras model that is none of the families', see
            `kerasmodels.servables.of_keras_model`: arrays it takes, what turns pictures into them, what comes out.
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
    _Request(**options).select()  # before a model is loaded for nothing
    foreign = {"example": example, "preprocess": preprocess, "classes": classes}
    subject = _subject(source, {key: value for key, value in foreign.items() if value is not None})
    chosen = servable if servable is not None else next(iter(subject.servables))
    if chosen not in subject.servables:
        raise unknown_name(f"servable of {subject.of}", chosen, subject.servables)
    called = subject.named(chosen) if name is None else name
    return export_servable(subject.servables[chosen], called, out, source=subject.origin, card=subject.card, **options)


def export_all(
    source: "keras.Model | str | Path",
    out: str | Path,
    **options: Unpack[Options],
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
    request = _Request(**options)
    chosen = request.select()
    subject = _subject(source, {})
    jobs, reasons = {}, []
    for key, servable in subject.servables.items():
        name = subject.named(key)
        lacking = {form.name: servable.lacks(form.name, request.precision) for form in chosen}
        able = [form for form in chosen if not lacking[form.name]]
        if able:
            own = dataclasses.replace(request, size=_own_size(request.size, servable, subject.servables))
            jobs[key] = _job(servable, name, able, own, subject.origin, subject.card)
        else:
            reasons += [
                f"{name} does not exist as {form} in {request.precision}: {why}" for form, why in lacking.items()
            ]
    if not jobs:
        raise UsageError(" ".join(reasons))
    return dict(zip(jobs, _carried_out(list(jobs.values()), out, request), strict=True))


def _own_size(size: Size, servable: Servable, servables: Mapping[str, Servable]) -> Size:
    """Of the dimensions that a request for all servables names, those that this one has; all, where none has them."""
    if not isinstance(size, Mapping):
        return size
    known = {name for each in servables.values() for name in input_dims(each)}
    return {name: value for name, value in size.items() if name in input_dims(servable) or name not in known}


@dataclasses.dataclass(frozen=True)
class _Subject:
    """What a user asks to export: its servables, whose they are, how it is called, where it is from, what is known."""

    servables: Mapping[str, Servable]
    of: str
    name: str
    origin: str
    card: Mapping[str, Any]

    def named(self, servable: str) -> str:
        """What the artifacts of a servable are called: the first one goes without its own name."""
        return self.name if servable == next(iter(self.servables)) else f"{self.name}-{servable}"


def _subject(source: "keras.Model | str | Path", foreign: Mapping[str, Any]) -> _Subject:
    """`foreign`: arguments of `of_keras_model`, for a model that is none of the families'."""
    of, name, origin = "", "", str(source)
    card: Mapping[str, Any] = {}
    if isinstance(source, str) and source in registry.ready():
        family = registry.family(source)
        of, name, source = source, source, family.model(family.config())
    elif isinstance(source, str | Path) and Path(source).suffix == ".keras":
        name, source = Path(source).stem, _loaded(Path(source))
    elif isinstance(source, str | Path):
        trained = presets.find(source)
        of, shipped = trained.family, trained.path.is_relative_to(presets.PRESETS)
        name = f"{trained.family}-{trained.name}" if shipped else trained.name
        source, origin, card = trained.load(), origin if shipped else _printable(trained.name), trained.card
    of = of or getattr(source, "family_name", "")
    if of:
        if foreign:
            raise UsageError(
                f"{' and '.join(foreign)} can be given for a Keras model of your own. Received: one of {of}, which "
                "says that itself."
            )
        # A model that exists has brought Keras along.
        from kerasmodels.paper_model import PaperModel

        model: Any = source.in_float32() if isinstance(source, PaperModel) else source
        return _Subject(registry.family(of).servables(model), of, _ascii(name or of, of), origin if name else of, card)
    from kerasmodels.servables import of_keras_model

    servable = of_keras_model(source, **foreign)
    name = name or servable.model.name
    return _Subject({"predict": servable}, name, _ascii(name, "model"), origin if card else name, card)


def _loaded(path: Path) -> "keras.Model":
    """The model in a .keras file; nothing in it is executed but the layers' own code.

    Raises:
        UsageError: it is missing, damaged, or has classes that are not registered.
    """
    try:
        return reading.read_keras(path)
    except (OSError, ValueError) as error:
        raise UsageError(
            f"expected {path} to be a model saved by Keras 3. Received: {error}. Classes of your own are found once "
            "the module that registers them is imported (`--import MODULE`). A Lambda layer is code, which is not "
            "executed: load the model yourself and call kerasmodels.export.export(model, out)."
        ) from error


def _ascii(name: str, otherwise: str) -> str:
    """A name as files, servers and runtimes take it: ö becomes o; what has no such letter, a digest."""
    plain = unicodedata.normalize("NFKD", name)
    kept = "".join(c for c in plain if not unicodedata.combining(c))
    ascii_ = re.sub(r"[^A-Za-z0-9_.-]+", "-", kept).strip(".-") or otherwise
    if re.search(r"[^\x00-\x7f]", kept):
        # Two such names are to be two.
        ascii_ += f"-{hashlib.sha256(name.encode(errors='surrogateescape')).hexdigest()[:8]}"
    return ascii_


def _printable(text: str) -> str:
    """The text with what is no Unicode, in names from old disks, spelled out."""
    return text.encode(errors="backslashreplace").decode()


def export_servable(
    servable: Servable,
    name: str,
    out: str | Path,
    *,
    source: str = "",
    card: Mapping[str, Any] | None = None,
    **options: Unpack[Options],
) -> Report:
    """Export any servable; see `export` for the arguments they share, the result and the errors.

    Args:
        servable: the callable, its model, its specs and examples.
        name: of the model, as servers and files will have it: letters, digits, ".", "_" and "-".
        out: the folder to put artifacts in.
        source: where the weights come from, for the metadata.
        card: what is known of the training, for the model card; `author` and `license` also go into the artifacts.
    """
    request = _Request(**options)
    (report,) = _carried_out([_job(servable, name, request.select(), request, source, card or {})], out, request)
    return report


@dataclasses.dataclass(frozen=True)
class _Job:
    """A servable of a request, with its dimensions bound."""

    servable: Servable
    name: str
    formats: Sequence[Format]
    dims: Mapping[str, int]
    dynamic: bool
    examples: Sequence[Mapping[str, Any]]
    held_out: Sequence[Mapping[str, Any]]
    about: Mapping[str, Any]
    card: Mapping[str, Any]

    def order(self, form: Format, request: _Request, staging: Path, sources: "Sources") -> Order:
        """What is to be made in a format."""
        if form.dynamic:
            free = frozenset(self.dims)
        else:
            free = frozenset(d for d in self.dims if d != "batch") if self.dynamic else frozenset()
        stem = [
            self.name,
            *([_size_label(self.dims, self.dynamic)] if request.size is not None and "size" in form.options else []),
            *([request.precision] if request.precision != "fp32" else []),
        ]
        work = staging / form.name / self.name
        work.mkdir(parents=True)
        order = Order(
            servable=self.servable,
            sources=sources,
            name=self.name,
            dims=self.dims,
            free=free,
            precision=request.precision,
            work=work,
            file_name=f"{'.'.join(filter(None, stem))}{form.suffix}",
            metadata={},
            allow_flex=request.allow_flex,
            older_onnx=request.older_onnx,
            calibration=self.examples,
            held_out=self.held_out,
        )
        metadata = {
            **self.about,
            "format": form.name,
            "inputs": [_bound(spec, order) for spec in self.servable.inputs],
            "outputs": [_bound(spec, order) for spec in self.servable.outputs],
        }
        return dataclasses.replace(order, metadata=metadata)

    @property
    def described(self) -> dict[str, Any]:
        """For the index."""
        return {
            "about": {k: v for k, v in self.about.items() if k != "precision"},
            "training": {k: v for k, v in self.card.items() if k not in ("author", "license")},
        }


def _job(
    servable: Servable,
    name: str,
    formats: Sequence[Format],
    request: _Request,
    source: str,
    card: Mapping[str, Any],
) -> _Job:
    """Raises UsageError if the request does not fit the servable."""
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(f'expected a name of letters, digits, ".", "_" and "-". Received: {name!r}.')
    for form in formats:
        why = servable.lacks(form.name, request.precision)
        if why:
            raise UsageError(f"{name} does not exist as {form.name} in {request.precision}: {why}")
    request.check(formats)
    dims, dynamic = bind(servable, request.size)
    calibrated = request.precision == "int8"
    examples = calibration_examples(servable, dims, request.calibration) if calibrated else ()
    held_out = examples[HELD_OUT - 1 :: HELD_OUT] if request.calibration is not None else ()
    examples = tuple(e for number, e in enumerate(examples) if not held_out or number % HELD_OUT != HELD_OUT - 1)
    about = {
        "name": name,
        "description": servable.doc,
        "version": kerasmodels.__version__,
        "author": str(card.get("author", "")),
        "license": str(card.get("license", "")),
        "source": source or "a Keras model",
        "producer": f"kerasmodels {kerasmodels.__version__}",
        "precision": request.precision,
        "inputs": [_described(spec) for spec in servable.inputs],
        "outputs": [_described(spec) for spec in servable.outputs],
    }
    return _Job(servable, name, formats, dims, dynamic, examples, held_out, about, card)


def _carried_out(jobs: Sequence[_Job], out: str | Path, request: _Request) -> list[Report]:
    """Make and verify everything, put it in place, and report on each job."""
    place = Place(Path(out))
    if _printable(str(place.out)) != str(place.out):
        raise UsageError(
            f"expected a folder whose name is Unicode, as TensorFlow writes to no other. Received: {str(out)!r}."
        )
    try:
        place.read_index()
        with place.staging() as staging:
            # TensorFlow takes seconds to import: only now that the request has been found in order.
            from kerasmodels.export.signatures import Sources
            from kerasmodels.export.verify import Cases

            cases = {job.name: Cases(job.servable, job.dims) for job in jobs}
            sources = {job.name: Sources(job.servable) for job in jobs}
            made: dict[str, list[Made]] = {job.name: [] for job in jobs}
            for form in table.FORMATS:
                orders = [job.order(form, request, staging, sources[job.name]) for job in jobs if form in job.formats]
                if orders:
                    for item in _make(form, orders, cases, staging / form.name, request.say):
                        made[item.name].append(item)
            artifacts = place.commit({job.name: job.described for job in jobs}, made, staging)
    except KerasModelsError:
        raise
    except OSError as error:
        raise storage_error(place.out, error) from error
    everything = [artifact for found in artifacts.values() for artifact in found]
    rejected = [artifact for artifact in everything if artifact.executed and not artifact.verified]
    if rejected:
        listed = " ".join(f"{place.out / a.path}: {'; '.join(a.problems)}." for a in rejected)
        hint = ""
        if request.precision == "int8" and request.calibration is None:
            hint = " It was calibrated on made examples: a folder of pictures like yours (--calibration) may do better."
        raise VerificationError(
            f"{len(rejected)} of {len(everything)} artifacts are not equal to the Keras model. {listed} "
            f"They are kept for inspection and described in {place.out / INDEX}.{hint}"
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
    about = {"name": spec.name, "dtype": spec.dtype, "shape": list(spec.shape), "doc": spec.doc, "kind": spec.kind}
    return {**about, "classes": list(spec.classes)} if spec.classes else about


def _bound(spec: TensorSpec, order: Order) -> dict[str, Any]:
    shape = [d if isinstance(d, int) or d in order.free else order.dims.get(d, d) for d in spec.shape]
    return {**_described(spec), "shape": shape}


def _make(form: Format, orders: Sequence[Order], cases: "Mapping[str, Cases]", work: Path, say: Progress) -> list[Made]:
    """Make the artifacts of one format, execute them in one process and compare them."""
    from kerasmodels.export import verify

    began, exporter, precision = time.perf_counter(), form.exporter, orders[0].precision
    trials: list[verify.Trial] = []
    why_not: list[str] = []
    say(f"{form.name} {precision}: making")
    made = exporter.make(orders)
    for order, facts in zip(orders, made, strict=True):
        if "note" in facts:
            say(f"{order.file_name} {facts['note']}")
    for order in orders:
        known = cases[order.name]
        compared = known.dynamic((1, 2)) if form.dynamic else known.dynamic((1,)) if order.free else known.fixed()
        compared = known.given(order.held_out) if order.held_out else compared
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
        Made(order.name, order.path, _artifact(form, order, facts, sha256, verdict, not why, seconds))
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
        note=facts.get("note", ""),
    )
