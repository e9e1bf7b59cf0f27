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
from kerasmodels.export.order import Calibration, Order, Size, bind, calibration_examples
from kerasmodels.export.report import Artifact, Report, model_card
from kerasmodels.family import Servable, TensorSpec

if TYPE_CHECKING:
    import keras

    from kerasmodels.export.verify import Cases

INDEX = "export.json"
CARD = "MODEL_CARD.md"
MODELS_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"
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
    card: Mapping[str, Any] = {}
    if isinstance(source, str) and source in registry.ready():
        family = registry.family(source)
        source = family.model(family.config())
    if isinstance(source, str | Path):
        trained = presets.find(source)
        family, model = registry.family(trained.family), trained.load()
        is_preset = trained.path.is_relative_to(presets.PRESETS)
        name = f"{family.name}-{trained.name}" if is_preset else re.sub(r"[^A-Za-z0-9_.-]+", "-", trained.name)
        origin, card = str(source) if is_preset else trained.name, trained.card
    else:
        model = source
        name = origin = getattr(source, "family_name", "")
        if not name:
            raise UsageError(
                "expected a model made by one of the families, a run folder or 'family/preset'. "
                f"Received: {type(source).__name__}. For a model of your own, describe it with "
                "kerasmodels.family.Servable and call export_servable(servable, name, out)."
            )
        family = registry.family(name)
    servables = family.servables(model)
    chosen = servable if servable is not None else next(iter(servables))
    if chosen not in servables:
        raise unknown_name(f"servable of {family.name}", chosen, servables)
    if servable is not None and chosen != next(iter(servables)):
        name = f"{name}-{chosen}"
    return export_servable(
        servables[chosen],
        name,
        out,
        formats=formats,
        size=size,
        precision=precision,
        allow_flex=allow_flex,
        older_onnx=older_onnx,
        calibration=calibration,
        progress=progress,
        source=origin,
        card=card,
    )


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
    if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", name):
        raise UsageError(f'expected a name of letters, digits, ".", "_" and "-". Received: {name!r}.')
    for form in chosen:
        why = servable.lacks(form.name, precision)
        if why:
            raise UsageError(f"{name} does not exist as {form.name} in {precision}: {why}")
    if calibration is not None and precision != "int8":
        raise UsageError(f"calibration is for precision 'int8'. Received precision {precision!r}: drop one of the two.")
    if allow_flex and not any("allow_flex" in f.options for f in chosen):
        raise UsageError("allow_flex is for the format litert, which was not asked for.")
    if older_onnx and not any("older_onnx" in f.options for f in chosen):
        raise UsageError("older_onnx is for the format onnx, which was not asked for.")
    dims, dynamic = bind(servable, size)
    examples = calibration_examples(servable, dims, calibration) if precision == "int8" else ()
    about = {
        "name": name,
        "description": servable.doc,
        "version": kerasmodels.__version__,
        "author": str((card or {}).get("author", "")),
        "license": str((card or {}).get("license", "")),
        "source": source or "a Keras model",
        "producer": f"kerasmodels {kerasmodels.__version__}",
        "precision": precision,
        "inputs": [_described(spec) for spec in servable.inputs],
        "outputs": [_described(spec) for spec in servable.outputs],
    }

    place = _Place(Path(out))
    try:
        index = place.read_index()
        with place.staging() as staging:
            # TensorFlow takes seconds to import: only now that the request has been found in order.
            from kerasmodels.export.verify import Cases

            cases, made = Cases(servable, dims), []
            for form in chosen:
                free = _free(form, dims, dynamic)
                stem = ".".join(
                    [
                        name,
                        *([_size_label(dims, dynamic)] if size is not None and "size" in form.options else []),
                        *([precision] if precision != "fp32" else []),
                    ]
                )
                work = staging / form.name
                work.mkdir()
                order = Order(servable, name, dims, free, precision, work, about, allow_flex, older_onnx, examples)
                made.append(_make(form, order, cases, f"{stem}{form.suffix}", progress or (lambda line: None)))
            artifacts = place.commit(name, made, index, about, card or {}, staging)
    except KerasModelsError:
        raise
    except OSError as error:
        raise storage_error(place.out, error) from error
    rejected = [artifact for artifact in artifacts if artifact.executed and not artifact.verified]
    if rejected:
        listed = " ".join(f"{place.out / a.path}: {'; '.join(a.problems)}." for a in rejected)
        raise VerificationError(
            f"{len(rejected)} of {len(artifacts)} artifacts are not equal to the Keras model. {listed} "
            f"They are kept for inspection and described in {place.out / INDEX}."
        )
    steps = [
        step
        for artifact in artifacts
        for step in table.find(artifact.format).module.next_steps(
            artifact, servable, (place.out / artifact.path).resolve()
        )
    ]
    return Report(name, place.out, tuple(artifacts), tuple(steps))


def _free(form: Format, dims: Mapping[str, int], dynamic: bool) -> frozenset[str]:
    """The named dimensions that may vary in an artifact of this format."""
    if form.dynamic:
        return frozenset(dims)
    return frozenset(d for d in dims if d != "batch") if dynamic else frozenset()


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
    """An artifact still in the staging folder; its path is the file's name, or empty for a SavedModel."""

    path: Path
    artifact: Artifact


def _make(form: Format, order: Order, cases: "Cases", file_name: str, say: Progress) -> _Made:
    from kerasmodels.export import verify

    began = time.perf_counter()
    metadata = {
        **order.metadata,
        "format": form.name,
        "inputs": [_bound(spec, order) for spec in order.servable.inputs],
        "outputs": [_bound(spec, order) for spec in order.servable.outputs],
    }
    order = dataclasses.replace(order, metadata=metadata)
    path = order.work / file_name
    compared = cases.dynamic((1, 2)) if form.dynamic else cases.dynamic((1,)) if order.free else cases.fixed()
    say(f"{form.name} {order.precision}: making")
    facts = form.module.make(order, path)
    if form.name == "saved_model":
        compared = [*compared, *cases.files()]
    compared = [*compared, *cases.hostile()]
    made = digest(path)
    executed = not (form.name == "litert" and form.module.needs_flex(path))
    if executed:
        friendly = sum(not case.hostile for case in compared)
        also = f" and {len(compared) - friendly} hostile ones" if friendly < len(compared) else ""
        say(f"{form.name} {order.precision}: executing in {form.runtime} on {friendly} cases{also}")
        free = tuple(order.free)
        verdict = verify.verify(path, form.runtime, order.servable, compared, free, order.precision, order.work)
    else:
        verdict = verify.not_executed("no interpreter with the Flex delegate comes with TensorFlow's Python packages")
    size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
    artifact = Artifact(
        format=form.name,
        precision=order.precision,
        path=file_name,
        executed=executed,
        verified=not verdict.problems,
        problems=verdict.problems,
        sha256=made,
        bytes=size,
        inputs=tuple(metadata["inputs"]),
        outputs=tuple(metadata["outputs"]),
        runtime=form.runtime,
        measured=tuple(verify.as_dict(m) for m in verdict.measured),
        cases=verdict.cases,
        latency_ms=verdict.latency_ms,
        dims=dict(order.dims),
        operators=form.module.operators(path),
        opset=facts.get("opset"),
        versions={"kerasmodels": kerasmodels.__version__, **facts["versions"], **verdict.versions},
        seconds=round(time.perf_counter() - began, 1),
        hostile=verdict.hostile,
    )
    return _Made(path, artifact)


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
        self,
        name: str,
        made: Sequence[_Made],
        index: dict[str, Any],
        about: Mapping[str, Any],
        card: Mapping[str, Any],
        staging: Path,
    ) -> list[Artifact]:
        """Rename everything into place; returns the artifacts with their final paths."""
        artifacts, moves = [], []
        for item in made:
            relative = Path(item.artifact.path)
            if item.artifact.format == "saved_model":
                relative = Path("saved_model", name, str(self._next_version(name)))
            if item.artifact.executed and not item.artifact.verified:
                relative = relative.with_name(relative.name + REJECTED)
            moves.append((item.path, relative))
            artifacts.append(dataclasses.replace(item.artifact, path=relative.as_posix()))

        model = index.get(name, {"artifacts": []})
        replaced = {artifact.path for artifact in artifacts}
        kept = [a for a in model["artifacts"] if a["path"] not in replaced and (self.out / a["path"]).exists()]
        model = {
            "about": {k: v for k, v in about.items() if k != "precision"},
            "training": {k: v for k, v in card.items() if k not in ("author", "license")},
            "artifacts": [*kept, *(artifact.to_dict() for artifact in artifacts)],
        }
        models = {**index, name: model}
        # Written before anything is renamed, so that a full disk is met while nothing has changed yet.
        texts = {INDEX: json.dumps({"models": models}, indent=2, default=str) + "\n", CARD: model_card(models)}
        texts |= self._server_files(name, artifacts)
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

    def _models(self) -> dict[str, list[int]]:
        """The served models and their versions."""
        root = self.out / "saved_model"
        folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
        found = {folder.name: sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()) for folder in folders}
        return {model: versions for model, versions in found.items() if versions}

    def _next_version(self, name: str) -> int:
        return max(self._models().get(name, [0])) + 1

    def _server_files(self, name: str, artifacts: Sequence[Artifact]) -> dict[str, str]:
        """Configuration files for TensorFlow Serving, where the user has not written their own."""
        if not any(a.format == "saved_model" and a.verified for a in artifacts):
            return {}
        from kerasmodels.export.to_saved_model import BATCHING, models_config

        files, root = {}, self.out / "saved_model"
        before = sorted(self._models())
        config = root / MODELS_CONFIG
        if not config.exists() or config.read_text() == models_config(before):
            files[f"saved_model/{MODELS_CONFIG}"] = models_config(sorted({*before, name}))
        if not (root / BATCHING_CONFIG).exists():
            files[f"saved_model/{BATCHING_CONFIG}"] = BATCHING
        return files


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
