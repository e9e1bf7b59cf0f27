"""What every family in the registry must do, tested through the contract alone.

Tests marked `trains` are for the families that have something to train. A new family adds a case and golden outputs
(`python -m tests.golden`) in tests/families/<name>/; one whose config makes models of several kinds, a case for each.
"""

import dataclasses
import json
import os
import re
import signal
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmodels import export, presets, registry, runs, storage
from kerasmodels.config import TrainingConfig
from kerasmodels.errors import UsageError, VerificationError, WeightsError
from kerasmodels.export import formats as table
from kerasmodels.family import Family, Servable, without_examples
from kerasmodels.training import Interrupted, checkpoint, train
from tests import cases, golden
from tests.cases import Case, family_of

NAMES = registry.names()
PRESETS = [f"{name}/{preset}" for name in NAMES for preset in presets.presets(name)]
trains = pytest.mark.parametrize(
    "world", [k for k in cases.names() if registry.row(family_of(k)).trains], indirect=True
)
"""Only the families that are trained."""
EVERY_ARTIFACT = [(form.name, precision) for form in table.FORMATS for precision in form.precisions]
TRAIN: dict[str, Any] = {"save_every": 2, "preview_every": 2, "log_every": 4, "progress": False}


@dataclass(frozen=True)
class World:
    """A family, its case's config with data, and a folder of its own."""

    key: str
    family: Family
    case: Case
    config: Any
    folder: Path

    @property
    def trains(self) -> bool:
        return registry.row(self.family.name).trains

    def servables(self, model: keras.Model) -> Mapping[str, Servable]:
        return self.family.servables(model)


@dataclass(frozen=True)
class Exported:
    """A servable in one precision: the rows of export.json, and what was raised."""

    out: Path
    artifacts: list[dict[str, Any]]
    error: VerificationError | None


@pytest.fixture(scope="session", params=cases.names())
def world(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> World:
    family, case = registry.family(family_of(request.param)), cases.case_of(request.param)
    folder = tmp_path_factory.mktemp(request.param.replace(":", "-"))
    return World(request.param, family, case, dataclasses.replace(case.config, **case.data(folder)), folder)


@pytest.fixture(scope="session")
def trained(world: World) -> "tuple[Path, Record]":
    """The run folder of 4 steps, never interrupted, and the record of them."""
    folder, record, command = world.folder / "whole", Record(), f"kerasmodels train {world.family.name} ..."
    train(world.family, world.config, folder, command=command, callbacks=[record], **TRAIN)
    return folder, record


@pytest.fixture(scope="session")
def whole(trained: "tuple[Path, Record]") -> Path:
    """The run folder of 4 steps."""
    return trained[0]


@pytest.fixture(scope="session")
def ready(world: World, request: pytest.FixtureRequest) -> Path | None:
    """The run folder of 4 steps; None where there is nothing to train."""
    return request.getfixturevalue("whole") if world.trains else None


@pytest.fixture(scope="session")
def model(world: World, ready: Path | None) -> keras.Model:
    """The model in that folder; as the family makes it where there is nothing to train. Tests must not change it."""
    return world.family.model(world.config) if ready is None else runs.RunFolder(ready).trained().load()


@dataclass(frozen=True)
class Answered:
    """What a servable of `model` was given, of the sizes of the case, and what it answered."""

    given: Mapping[str, np.ndarray]
    answer: Mapping[str, Any]


@pytest.fixture(scope="session")
def answered(world: World, model: keras.Model) -> dict[str, Answered]:
    """Each servable's answer to its first example."""
    found = {}
    for name, servable in world.servables(model).items():
        given = servable.example({**servable.dims, **world.case.dims}, 0)
        found[name] = Answered(given, servable.call(**given))
    return found


@pytest.fixture(scope="session")
def exported(world: World, ready: Path | None, model: keras.Model) -> Callable[[str], dict[str, Exported]]:
    """All servables in all formats that support a precision, made when first asked for, in one process per runtime."""
    made: dict[str, dict[str, Exported]] = {}
    size = {name: value for name, value in world.case.dims.items() if name != "batch"} or None

    def make(precision: str) -> dict[str, Exported]:
        if precision not in made:
            out, error = world.folder / f"served-{precision}", None
            asked = [form.name for form in table.FORMATS if precision in form.precisions]
            formats = {
                name: [form for form in asked if not servable.lacks(form, precision)]
                for name, servable in world.servables(model).items()
            }
            formats = {name: able for name, able in formats.items() if able}
            try:
                reports = export.export_all(ready or model, out, formats=asked, size=size, precision=precision)
                assert list(reports) == list(formats)
                assert all(report.next_steps for report in reports.values())
            except VerificationError as rejection:
                error = rejection
            entries = json.loads((out / "export.json").read_text())["models"].values()
            made[precision] = {}
            for (name, able), entry in zip(formats.items(), entries, strict=True):
                assert [a["format"] for a in entry["artifacts"]] == able
                made[precision][name] = Exported(out, entry["artifacts"], error)
        return made[precision]

    return make


class Record(keras.callbacks.Callback):
    """The trainable weights before and after every step, and the losses."""

    def on_train_begin(self, logs: Any = None) -> None:
        self.losses: list[float] = []
        self.weights = [self._now()]

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        self.losses.append(float((logs or {})["loss"]))
        self.weights.append(self._now())

    def _now(self) -> dict[str, np.ndarray]:
        return {variable.path: variable.numpy() for variable in self.model.trainable_variables}


class Stop(keras.callbacks.Callback):
    """Tells this process to end after the second step, as a batch system would."""

    def on_train_batch_end(self, batch: int, logs: Mapping[str, float] | None = None) -> None:
        if batch == 1:
            os.kill(os.getpid(), signal.SIGTERM)


@dataclass(frozen=True)
class Reused(Family):
    """The family, but for a model whose training step has been compiled once, which takes most of a short training.

    `build` makes a new model as ever, writes what that one begins with into `kept`, and hands out `kept`.
    """

    kept: Any = None

    def build(self, config: Any) -> keras.Model:
        new: Any = super().build(config)
        for mine, theirs in zip(_variables(self.kept), _variables(new), strict=True):
            mine.assign(theirs)
        self.kept.set_training_state(new.training_state())
        return self.kept


def _variables(model: Any) -> list[Any]:
    """Weights, random states and the optimizers' variables."""
    return [*model.variables, *(v for optimizer in model.optimizers.values() for v in optimizer.variables)]


def fitted(family: Family, config: Any, steps: int) -> Record:
    """The record of a plain `fit`; its `model` is the trained one."""
    keras.utils.set_random_seed(config.seed)
    model, record = family.build(config), Record()
    model.fit(family.batches(config, model), steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[record])
    return record


@pytest.fixture(scope="session")
def reused(world: World, trained: tuple[Path, Record]) -> Reused:
    """The family, building the model that `trained` has compiled."""
    own = {field.name: getattr(world.family, field.name) for field in dataclasses.fields(world.family)}
    return Reused(**own, kept=trained[1].model)


@pytest.fixture(scope="session")
def two_steps(world: World, reused: Reused) -> Record:
    """Two steps of plain `fit`. Of the model only what it consists of is of use: its values change."""
    return fitted(reused, world.config, 2)


# --- config -----------------------------------------------------------------------------------------------------------


def test_config_survives_json(world: World) -> None:
    for name, config in {**world.family.variants, "tiny": world.config}.items():
        assert type(config).from_dict(json.loads(json.dumps(config.to_dict()))) == config, name
        assert type(config).from_dict(tomllib.loads(config.to_toml())) == config, name
    assert ({"paper", "quick"} if world.trains else {"paper"}) <= world.family.variants.keys()


def test_unknown_field_is_named(world: World) -> None:
    known = dataclasses.fields(world.config)[0].name
    with pytest.raises(UsageError, match=f"unknown field of .*Config '{known}z'.*{known}"):
        world.family.config.from_dict({f"{known}z": 3})


def test_the_registry_says_whether_it_trains(world: World) -> None:
    assert (world.family.source is not None) == issubclass(world.family.config, TrainingConfig) == world.trains
    if not world.trains:
        with pytest.raises(UsageError, match=f"nothing to train.*kerasmodels run {world.family.name}"):
            world.family.sourced(world.config)


@trains
def test_fields_that_every_trained_config_has(world: World) -> None:
    for field in ("steps", "batch", "learning_rate"):
        with pytest.raises(UsageError, match=rf"{field}[\s\S]*Received"):
            world.family.config.from_dict({field: 0})
    assert isinstance(world.config.seed, int)


def test_the_paper_s_network_needs_no_data(world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path))
    paper = world.family.variant("paper")
    if not world.trains and "vgg" in paper.to_dict():
        # What it shows is a network that others have trained.
        with pytest.raises(WeightsError, match="kerasmodels weights"):
            world.family.model(paper)
        return
    assert world.family.model(paper).count_params() > 0 or not world.trains


# --- forward ----------------------------------------------------------------------------------------------------------


def test_servables_answer_as_they_declare(world: World, model: keras.Model, answered: dict[str, Answered]) -> None:
    servables = world.servables(model)
    assert servables
    for name, servable in servables.items():
        assert servable.doc, name
        for change in ({}, *servable.check_dims):
            dims = {**servable.dims, **world.case.dims, **change}
            given = servable.example(dims, 0) if change else answered[name].given
            answer = servable.call(**given) if change else answered[name].answer
            assert list(given) == [spec.name for spec in servable.inputs]
            assert sorted(answer) == sorted(spec.name for spec in servable.outputs)
            for spec, array in [
                *((spec, given[spec.name]) for spec in servable.inputs),
                *((spec, np.asarray(answer[spec.name])) for spec in servable.outputs),
            ]:
                shape = spec.bind({**dict.fromkeys(d for d in spec.shape if isinstance(d, str)), **dims})
                assert spec.fits(array), (name, spec.name)
                assert len(array.shape) == len(shape), (name, spec.name, array.shape)
                assert all(want in (None, got) for want, got in zip(shape, array.shape, strict=True)), (name, dims)
                assert spec.dtype == "string" or np.isfinite(array).all(), (name, spec.name)
                assert spec.doc, (name, spec.name)


def test_answers_depend_on_inputs(world: World, model: keras.Model, answered: dict[str, Answered]) -> None:
    for name, servable in world.servables(model).items():
        other = servable.call(**servable.example({**servable.dims, **world.case.dims}, 1))
        for key, value in answered[name].answer.items():
            assert np.any(value != other[key]), (name, key)


@trains
def test_answers_depend_on_weights(world: World, model: keras.Model, answered: dict[str, Answered]) -> None:
    others, random = world.servables(world.family.model(world.config)), np.random.default_rng(77)
    for other in others.values():
        for variable in other.model.weights:
            value = np.asarray(variable.value)
            variable.assign(value + random.normal(0, 0.1 + np.std(value), value.shape))
    for name, servable in world.servables(model).items():
        if not servable.model.variables:
            continue
        other = others[name].call(**answered[name].given)
        for key, value in answered[name].answer.items():
            assert np.any(value != other[key]), (name, key)


def test_keras_file(world: World, model: keras.Model, answered: dict[str, Answered], tmp_path: Path) -> None:
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded) is type(model)
    before, after = storage.model_arrays(model), storage.model_arrays(loaded)
    assert before.keys() == after.keys()
    for key, value in before.items():
        np.testing.assert_array_equal(after[key], value, err_msg=key)
    for name, servable in world.servables(loaded).items():
        answers = servable.call(**answered[name].given)
        for key, value in answered[name].answer.items():
            np.testing.assert_array_equal(answers[key], value, err_msg=f"{name} {key}")


# --- fit --------------------------------------------------------------------------------------------------------------


def test_model_knows_its_family(world: World, model: keras.Model) -> None:
    assert model.built
    assert (model.family_name, type(model.config)) == (world.family.name, world.family.config)


@trains
def test_build(world: World, two_steps: Record) -> None:
    model = two_steps.model
    assert model.built
    assert model.compiled
    assert (model.family_name, model.config) == (world.family.name, world.config)
    assert {v.path: v.shape for v in model.variables} == {
        v.path: v.shape for v in world.family.model(world.config).variables
    }


@trains
def test_one_step_moves_every_trainable_weight(world: World, two_steps: Record) -> None:
    before, after = two_steps.weights[:2]
    assert before
    assert np.isfinite(two_steps.losses).all()
    for path, value in after.items():
        assert np.isfinite(value).all(), path
        assert np.any(value != before[path]), f"{path} did not move"


@trains
def test_same_seed_same_losses(world: World, reused: Reused, two_steps: Record, trained: tuple[Path, Record]) -> None:
    """Plain `fit` and `train` make the same model twice, and take the same steps."""
    again = trained[1]
    assert len(two_steps.losses) == 2
    assert again.losses[:2] == two_steps.losses
    assert again.losses[0] != again.losses[1]
    for mine, theirs in zip(again.weights, two_steps.weights, strict=False):
        assert mine.keys() == theirs.keys()
        for path, value in theirs.items():
            np.testing.assert_array_equal(mine[path], value, err_msg=path)
    other = dataclasses.replace(world.config, seed=world.config.seed + 1)
    assert fitted(reused, other, 1).losses[0] != again.losses[0]


@trains
def test_mixed_precision(world: World) -> None:
    config = dataclasses.replace(world.config, precision="mixed_bfloat16")
    record = fitted(world.family, config, 1)
    assert "bfloat16" in {layer.compute_dtype for layer in record.model._flatten_layers()}
    assert {variable.dtype for variable in record.model.trainable_variables} == {"float32"}
    assert np.isfinite(record.losses).all()
    before, after = record.weights
    assert all(np.isfinite(value).all() for value in after.values())
    assert any(np.any(value != before[path]) for path, value in after.items())
    # What leaves the building is float32, however it was trained, and whether or not it was loaded again.
    served = record.model.in_float32()
    for name, servable in world.servables(served).items():
        assert {layer.compute_dtype for layer in servable.model._flatten_layers()} == {"float32"}, name
    reloaded = world.family.model(config)
    reloaded.set_weights(record.model.get_weights())
    example = next(iter(world.servables(reloaded).values())).example(world.case.dims, 0)
    first, second = (next(iter(world.servables(each).values())).call(**example) for each in (served, reloaded))
    for key, value in first.items():
        np.testing.assert_array_equal(np.asarray(value), np.asarray(second[key]), err_msg=key)


@trains
def test_the_data_can_start_at_any_batch(world: World, model: keras.Model) -> None:
    def batches(start: int, count: int) -> list[list[np.ndarray]]:
        stream = world.family.batches(world.config, model, start).take(count)
        return [[np.asarray(leaf) for leaf in keras.tree.flatten(batch)] for batch in stream]

    from_zero, (third,) = batches(0, 3), batches(2, 1)
    for mine, expected in zip(third, from_zero[2], strict=True):
        np.testing.assert_array_equal(mine, expected)
    changes = any(np.any(a != b) for a, b in zip(from_zero[0], from_zero[2], strict=True))
    assert changes == (world.family.source is not without_examples)


@trains
def test_stopped_and_resumed_is_bit_equal(world: World, reused: Reused, whole: Path) -> None:
    """4 steps == 2 steps, SIGTERM, and 2 more: weights, optimizers, random states, whatever else the family saves.

    What goes on is a new model, which knows nothing but what was saved.
    """
    folder = world.folder / "resumed"
    with pytest.raises(Interrupted, match="stopped at step 2 of 4"):
        train(reused, world.config, folder, callbacks=[Stop()], **TRAIN)
    assert [p.name for p in checkpoint.paths(folder / "checkpoints")] == ["step-000002.npz"]
    keras.utils.set_random_seed(99)  # another process would not have our random states
    train(world.family, None, folder, resume=True, **TRAIN)

    ours, theirs = (checkpoint.read(f / "checkpoints" / "step-000004.npz") for f in (folder, whole))
    assert ours.arrays.keys() == theirs.arrays.keys()
    assert any(key.startswith("optimizer/") for key in theirs.arrays)
    for key, value in theirs.arrays.items():
        np.testing.assert_array_equal(ours.arrays[key], value, err_msg=key)
    for key in ("step", "config", "python_random", "numpy_random"):
        assert ours.about[key] == theirs.about[key], key
    earlier = checkpoint.read(whole / "checkpoints" / "step-000002.npz")
    assert any(np.any(earlier.arrays[key] != value) for key, value in theirs.arrays.items() if "model/" in key)


@trains
def test_samples_while_training(world: World, whole: Path) -> None:
    samples = sorted(p.name.split("-", 2)[1] for p in (whole / "samples").glob("step-*.png"))
    assert set(samples) == (set() if world.family.preview is None else {"000002", "000004"})


# --- export -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "precision"),
    [
        # Each takes a conversion and a run, in processes of their own: the reduced precisions are slow tests.
        pytest.param(*each, id="-".join(each), marks=[pytest.mark.slow] if each[1] != "fp32" else [])
        for each in EVERY_ARTIFACT
    ],
)
def test_artifact(
    world: World,
    model: keras.Model,
    exported: Callable[[str], dict[str, Exported]],
    form: str,
    precision: str,
) -> None:
    """Executed in its own runtime in a fresh process, and equal; or refused, which only a reduced precision may be."""
    for name, servable in world.servables(model).items():
        why = servable.lacks(form, precision)
        if why:
            with pytest.raises(UsageError, match=re.escape(why)):
                export.export_servable(servable, name, world.folder, formats=[form], precision=precision)
            continue
        done = exported(precision)[name]
        (artifact,) = [a for a in done.artifacts if a["format"] == form]
        assert artifact["precision"] == precision
        assert artifact["runtime"] == table.find(form).runtime
        assert artifact["cases"]
        for specs, declared in ((servable.inputs, artifact["inputs"]), (servable.outputs, artifact["outputs"])):
            assert [(d["name"], d["dtype"]) for d in declared] == [(spec.name, spec.dtype) for spec in specs]
        assert [m["name"] for m in artifact["measured"]] == [spec.name for spec in servable.outputs]
        assert_built_in(form, artifact["operators"])
        path = done.out / artifact["path"]
        assert path.exists()
        gate = servable.min_psnr[precision] if precision != "fp32" else 0.0
        psnr = [np.inf if m["psnr"] is None else m["psnr"] for m in artifact["measured"]]
        if not artifact["verified"]:
            # Weights that have hardly been trained may be too coarse for few bits; nothing else excuses a refusal.
            assert precision != "fp32"
            assert min(psnr) < gate
            assert all("PSNR" in problem for problem in artifact["problems"])
            assert path.name.endswith(".rejected")
            assert not path.with_name(path.name.removesuffix(".rejected")).exists()
            assert done.error is not None
            assert path.name in str(done.error)
            continue
        assert not artifact["problems"]
        assert not path.name.endswith(".rejected")
        metadata = export.read_metadata(path)
        assert [spec["name"] for spec in metadata["inputs"]] == [spec.name for spec in servable.inputs]
        assert [spec["name"] for spec in metadata["outputs"]] == [spec.name for spec in servable.outputs]
        if precision != "fp32":
            assert min(psnr) >= gate
            continue
        for spec, measured in zip(servable.outputs, artifact["measured"], strict=True):
            if spec.dtype == "string":
                assert measured["equal"] == 1
                continue
            if spec.kind == "image" or np.issubdtype(np.dtype(spec.dtype), np.floating):
                assert measured["max_abs_error"] <= (max(1.0, spec.atol) if spec.kind == "image" else spec.atol)
            if np.issubdtype(np.dtype(spec.dtype), np.integer):
                assert measured["equal"] >= 0.995


def assert_built_in(form: str, operators: Mapping[str, int]) -> None:
    """No operator that the plain runtime does not bring along."""
    assert operators
    if form == "litert":
        foreign = [name for name in operators if name.startswith(("Flex", "CUSTOM"))]
    elif form == "onnx":
        import onnx

        # Operators of other domains, such as ONNX Runtime's own, have no schema in the standard.
        foreign = [name for name in operators if not onnx.defs.has(name)]
    else:
        foreign = [name for name in operators if "PyFunc" in name]
    assert not foreign


# --- run --------------------------------------------------------------------------------------------------------------


def test_run_on_a_file(world: World, ready: Path | None, tmp_path: Path) -> None:
    report = world.family.task.run(world.case.task(tmp_path, ready, tmp_path / "out"))
    assert report.outputs
    for path in report.outputs:
        assert path.is_relative_to(tmp_path / "out")
        assert path.stat().st_size > 0
    assert report.facts


# --- presets ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_preset(name: str) -> None:
    assert_preset(name)
    # "/folder/", but not "https://" nor "and/or".
    private = re.search(r"(?<![\w.:/])/[\w.-]+/", json.dumps(presets.find(name).card))
    assert not private, f"{name} has a path of one machine on its card"


@trains
def test_a_run_becomes_a_preset(world: World, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(presets, "PRESETS", tmp_path)
    presets.ship_preset(whole, "made-up", line="nothing learned", data="made-up pictures", license="none needed")
    assert_preset(f"{world.family.name}/made-up")


def assert_preset(name: str) -> None:
    """It loads, it is small, and its card says where it is from."""
    trained = presets.find(name)
    family, model = registry.family(trained.family), trained.load()
    config = model.config
    assert config.to_dict() == {**family.config().to_dict(), **trained.config}
    card = trained.card
    for field in ("line", "family", "data", "license", "commands", "metrics", "versions", "float16"):
        assert card[field], f"{name} has no {field!r} on its card"
    assert card["family"] == family.name
    assert card["seconds"] > 0
    assert card["steps"] == config.steps
    assert card["seed"] == config.seed
    assert all(np.isfinite(value) for value in card["metrics"].values())
    for command in card["commands"]:
        assert command.startswith(f"kerasmodels train {family.name} ")
    assert card["sha256"] == storage.sha256(trained.path)
    assert card["parameters"] == model.count_params()
    assert np.isfinite(card["float16"]["max_abs_error"])
    assert trained.path.stat().st_size + trained.path.with_suffix(".json").stat().st_size <= 7e6


def test_presets_are_small_together() -> None:
    files = [p for p in presets.PRESETS.rglob("*") if p.is_file()]
    assert sum(p.stat().st_size for p in files) <= 40e6
    listed = {presets.find(name).path for name in PRESETS}
    assert {p for p in files if p.suffix == ".npz"} == listed, "weights without a card, or a card without weights"


# --- golden outputs ---------------------------------------------------------------------------------------------------


def test_golden_outputs(world: World) -> None:
    """Inputs, weights and code of today give yesterday's answers, presets included."""
    kept = storage.load_npz(cases.golden_path(world.key))

    def inputs(beginning: str) -> dict[str, np.ndarray]:
        return {key.removeprefix(beginning): kept[key] for key in kept if key.startswith(beginning)}

    again = "run `python -m tests.golden` and look at what changed"
    expected = {key for key in kept if not key.startswith("input")}
    seen = set()
    for label, model in golden.models(world.key).items():
        atol = {
            f"{servable}/{spec.name}": spec.atol
            for servable, row in world.family.servables(model).items()
            for spec in row.outputs
        }
        given = inputs("input/") | inputs(f"input of {label}/")
        for key, value in golden.outputs(world.family, model, given).items():
            seen.add(f"{label}/{key}")
            assert f"{label}/{key}" in kept, f"no golden output of {label}: {again}"
            old = kept[f"{label}/{key}"]
            if value.dtype.kind == "S":
                np.testing.assert_array_equal(value, old, err_msg=f"{label} {key}: {again}")
                continue
            assert (value.shape, value.dtype) == (old.shape, old.dtype)
            difference = np.abs(value.astype("float64") - old.astype("float64")).max()
            assert difference <= atol[key], f"{label} {key} differs by {difference:g}: {again}"
    assert seen == expected, again


def test_golden_files_are_small_and_all_used() -> None:
    files = list(cases.FOLDER.glob("*/golden*.npz"))
    assert all(p.stat().st_size <= 100_000 for p in files)
    assert set(files) == {cases.golden_path(key) for key in cases.names()}


def test_every_family_has_a_case() -> None:
    assert {family_of(key) for key in cases.names()} == set(NAMES), "tests/families/<name>/case.py: one for each family"
