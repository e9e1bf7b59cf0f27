"""Neural Turing Machine: it learns, never becomes NaN, is served step by step, and says what it cannot do."""

import dataclasses
import itertools
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kerasmodels import export
from kerasmodels.data.algorithmic import TASKS
from kerasmodels.errors import DataError, UsageError
from kerasmodels.export.runners.runtimes import RUNTIMES
from kerasmodels.models import ntm
from kerasmodels.tasks import sequences
from tests.cases import case_of, untrained

TINY = case_of("ntm").config


@pytest.mark.parametrize(
    ("config", "count"),
    [
        (ntm.Config(), 62_736),
        (ntm.Config(controller="feedforward"), 13_536),
        (ntm.VARIANTS["lstm"], 1_325_064),
    ],
    ids=["lstm controller", "feedforward", "lstm"],
)
def test_numbers_of_parameters(config, count):
    """Ours; docs/ntm.md has the paper's beside them."""
    assert ntm.NTM(config).count_params() == count


@pytest.mark.parametrize("task", TASKS)
def test_every_task_fits_its_network(task):
    # The paper's 200 bits are a long way to go step by step.
    largest = (20,) if task == "ngrams" else None
    config = dataclasses.replace(TINY, task=task, bits=None, largest=largest, rows=30)
    model = ntm.FAMILY.build(config)
    inputs, targets, weights = next(iter(ntm.FAMILY.batches(config)))
    logits = model(inputs)
    assert logits.shape == targets.shape
    bits = float(model.compute_loss(inputs, targets, logits, weights))
    exact = np.log2(1 + np.exp(np.where(np.asarray(targets) > 0.5, -1.0, 1.0) * np.asarray(logits, "float64")))
    assert bits == pytest.approx((exact.sum(-1) * np.asarray(weights)).sum() / config.batch, rel=1e-5)


def test_it_learns_to_copy():
    """One or two vectors of two bits: from three bits per sequence to nearly none."""
    config = ntm.Config(
        bits=2, largest=(2,), rows=5, columns=6, units=24, controller="feedforward", optimizer="adam", batch=16,
        learning_rate=1e-2, steps=300, xla=False,
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    model = ntm.FAMILY.build(config)
    history = model.fit(ntm.FAMILY.batches(config), steps_per_epoch=60, epochs=5, verbose=0).history["loss"]
    assert history[0] > 1.0
    assert history[-1] < 0.1


def test_with_xla_it_takes_the_same_steps():
    losses = []
    for xla in (False, True):
        config = dataclasses.replace(TINY, xla=xla)
        keras.utils.set_random_seed(0)
        model = ntm.FAMILY.build(config)
        assert model.jit_compile is xla
        # One batch over and over: XLA compiles anew for each length.
        batches = ntm.FAMILY.batches(config).take(1).repeat()
        losses.append(model.fit(batches, steps_per_epoch=1, epochs=3, verbose=0).history["loss"])
    assert len(set(losses[0])) == 3
    np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


def test_padding_of_a_batch_changes_nothing():
    config = TINY
    model, task = ntm.NTM(config), config.made_task()
    example = task.batch(np.random.default_rng(0), 4, task.ranges)
    more = task.batch(np.random.default_rng(0), 4, task.ranges, frames=20)
    bits = [float(model.compute_loss(e.inputs, e.targets, model(e.inputs), e.weights)) for e in (example, more)]
    assert bits[1] == pytest.approx(bits[0], abs=1e-5)


GRID = list(
    itertools.product((8, 64, 128, 1024), ("float32", "mixed_bfloat16", "mixed_float16"), ("copy", "priority_sort"))
)
QUICK = (("8", "mixed_float16", "copy"), ("64", "mixed_bfloat16", "priority_sort"))


@pytest.mark.parametrize(
    ("rows", "dtype", "task"),
    [
        pytest.param(
            *each, marks=[] if (str(each[0]), *each[1:]) in QUICK else [pytest.mark.slow], id="-".join(map(str, each))
        )
        for each in GRID
    ],
)
def test_never_nan(rows, dtype, task):
    steps = 10 if (str(rows), dtype, task) in QUICK else 60
    config = ntm.Config(
        task=task, largest=(8,), rows=rows, batch=8, optimizer="adam", learning_rate=1e-2, steps=steps, xla=False
    )
    keras.utils.set_random_seed(0)
    model = ntm.NTM(config, dtype=dtype)
    model.compile()
    losses = model.fit(ntm.FAMILY.batches(config), steps_per_epoch=steps, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert all(np.isfinite(variable).all() for variable in model.variables)


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory):
    """A model of random weights, and its step as LiteRT and ONNX files."""
    keras.utils.set_random_seed(0)
    model = ntm.NTM(TINY)
    out = tmp_path_factory.mktemp("step")
    servables = ntm.FAMILY.servables(model)
    report = export.export_servable(servables["step"], "step", out, formats=["litert", "onnx"])
    whole = export.export_servable(servables["answer"], "answer", out, formats=["litert"])
    paths = {artifact.runtime: out / artifact.path for artifact in report.artifacts}
    return model, paths, out / whole.artifacts[0].path


@pytest.mark.parametrize("runtime", ["ai_edge_litert", "onnxruntime"])
def test_a_thousand_served_steps_are_one_call(artifacts, runtime):
    model, paths, _ = artifacts
    inputs = np.random.default_rng(0).integers(0, 2, (1, 1000, 5)).astype("float32")
    step, found = RUNTIMES[runtime](str(paths[runtime]), 1), []
    given = {each["name"]: np.zeros([1, *each["shape"][1:]], "float32") for each in step.inputs}
    for number in range(1000):
        given |= {"inputs": inputs[:, number], "first": np.array([number == 0], "float32")}
        made = step.call("serving_default", given)
        found.append(made["outputs"])
        given |= {name.removeprefix("new_"): value for name, value in made.items() if name != "outputs"}
    np.testing.assert_allclose(np.stack(found, 1), sequences.answers(model, inputs), atol=1e-5)


def test_a_sequence_longer_than_the_exported_one_is_refused(artifacts):
    loaded = RUNTIMES["ai_edge_litert"](str(artifacts[2]), 1)
    assert loaded.inputs[0]["shape"] == [1, 11, 5]
    with pytest.raises((ValueError, RuntimeError), match=r"(?i)dimension|shape"):
        loaded.call("serving_default", {"inputs": np.zeros((1, 12, 5), "float32")})


def test_a_stream_begins_anew_where_it_is_told():
    model, task = ntm.NTM(TINY), TINY.made_task()
    example = task.draw(np.random.default_rng(0), (3,))
    alone = sequences.trace(model, example.inputs)
    np.testing.assert_allclose(alone["outputs"], sequences.answers(model, example.inputs[np.newaxis])[0], atol=1e-6)
    step = ntm.FAMILY.servables(model)["step"]
    given = step.example({"batch": 2}, 0)
    made = step.call(**given)
    for row in range(2):
        one = step.call(**{name: value[row : row + 1] for name, value in given.items()})
        for name, value in one.items():
            np.testing.assert_allclose(made[name][row], value[0], atol=1e-6, err_msg=name)
    garbage = {n: v if n in ("inputs", "first") else v + 7 for n, v in given.items()}
    np.testing.assert_array_equal(step.call(**garbage)["outputs"][1], made["outputs"][1])
    assert np.any(step.call(**garbage)["outputs"][0] != made["outputs"][0])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ntm") / "run"
    untrained(ntm.FAMILY, ntm.Config(rows=24, columns=6, units=12), folder)
    return folder


def test_a_text_in_pieces(run, tmp_path):
    (tmp_path / "text.txt").write_text("Neural Turing Machines", encoding="utf-8")
    options = ntm.FAMILY.task.options(out=tmp_path / "a.gif", run=run, text=tmp_path / "text.txt", length=4)
    report = ntm.FAMILY.task.run(options)
    assert report.facts["sequences"] == 6
    assert report.facts["wrong bits"].endswith(f"of {22 * 8}")
    assert 20 < report.facts["bits per sequence"] < 40
    assert [path.suffix for path in report.outputs] == [".gif", ".txt"]
    with Image.open(report.outputs[0]) as moving:
        assert moving.n_frames == 9


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"vectors": ("1012",)}, DataError, "vectors of 0 and 1"),
        ({"vectors": ("10110010", "101")}, DataError, "all of one length"),
        ({"vectors": ("1010",)}, DataError, "vectors of 8 bits"),
        ({"text": Path("absent.txt")}, DataError, "expected a text file"),
        ({"vectors": ("10110010",), "text": Path("a")}, UsageError, "one of --text and --vectors"),
        ({"out": Path("a.jpg")}, UsageError, "out.png or out.gif"),
    ],
)
def test_bad_requests(run, tmp_path, options, error, message):
    with pytest.raises(error, match=message):
        ntm.FAMILY.task.run(ntm.FAMILY.task.options(**{"out": tmp_path / "a.png", "run": run, **options}))


def test_tasks_of_the_others(tmp_path):
    """Recall of a text's items, repeated copies, sorting by given priorities and predicting, of untrained networks."""
    for task, given, lines in (
        ("associative_recall", {"query": 1}, 3),
        ("repeat_copy", {"length": 2, "repeats": 4}, 8),
        ("priority_sort", {"vectors": ("10101010",) * 5, "priorities": (0.5, 0.1, -0.2, 0.9, -1.0)}, 4),
        ("ngrams", {"vectors": ("0110101101",)}, 10),
    ):
        config = dataclasses.replace(TINY, task=task, bits=None, largest=None, rows=30)
        if task == "repeat_copy":
            config = dataclasses.replace(config, largest=(3, 3))
        untrained(ntm.FAMILY, config, tmp_path / task)
        options = ntm.FAMILY.task.options(out=tmp_path / f"{task}.png", run=tmp_path / task, **given)
        report = ntm.FAMILY.task.run(options)
        assert len(report.outputs[1].read_text().splitlines()) == lines


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"task": "sort"}, "task: "),
        ({"rows": 19}, "rows >= 20, the vectors that copy has to keep"),
        ({"task": "associative_recall", "rows": 17}, "rows >= 18"),
        ({"largest": (30, 2)}, "the largest length"),
        ({"task": "ngrams", "bits": 2}, "bits = 1"),
        ({"shift_range": 64}, "twice the shift_range below the 128 rows"),
        ({"heads": 0}, "heads > 0"),
    ],
)
def test_config_out_of_range(change, message):
    with pytest.raises(UsageError, match=message):
        ntm.Config(**change)


def test_arrays_of_another_shape():
    model = ntm.NTM(TINY)
    with pytest.raises(DataError, match=r"finite inputs \(examples, steps, 5\)"):
        sequences.answers(model, np.zeros((1, 3, 4)))
    with pytest.raises(DataError, match="finite"):
        sequences.answers(model, np.full((1, 3, 5), np.nan))
    with pytest.raises(DataError, match=r"inputs \(steps, 5\)"):
        sequences.trace(model, np.zeros((1, 3, 5)))
    lstm = ntm.NTM(dataclasses.replace(TINY, network="lstm"))
    example = TINY.made_task().draw(np.random.default_rng(0), (2,))
    with pytest.raises(UsageError, match="a network with a memory"):
        sequences.memory_frames(example, sequences.trace(lstm, example.inputs))
