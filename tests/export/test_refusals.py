"""What must not pass: wrong artifacts, foreign operators, full disks, wrong requests. Nothing is left half-written."""

import dataclasses
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from ai_edge_litert import schema_py_generated as schema

from kerasmodels import export
from kerasmodels.errors import ExportError, StorageError, UnsupportedOpsError, UsageError, VerificationError
from kerasmodels.export import children, to_onnx, verify
from kerasmodels.family import Servable, TensorSpec
from tests.export.servables import make_picture_servable
from tests.export.test_export import Exported, hashes

# --- artifacts that are not equal -------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def two_faced() -> Servable:
    """Computes something else when it is traced than when it is called: what every artifact holds is wrong."""
    honest = make_picture_servable()

    def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
        painted = honest.call(image=image)["stylized"]
        return {"stylized": painted if tf.executing_eagerly() else tf.reverse(painted, [2])}

    return dataclasses.replace(honest, call=call)


def test_unequal_artifacts_are_rejected(two_faced: Servable, exported: Exported, tmp_path: Path) -> None:
    out = tmp_path / "served"
    shutil.copytree(exported[0], out)
    before = hashes(out)
    for _ in range(2):  # a second rejection replaces the first
        with pytest.raises(VerificationError, match=r"2 of 2 artifacts.*waves\.tflite\.rejected") as caught:
            export.export_servable(two_faced, "waves", out, formats=["saved_model", "litert"])
    assert caught.value.exit_code == 1
    after = hashes(out)
    touched = {"export.json", "MODEL_CARD.md"}
    assert {k: v for k, v in after.items() if k in before and k not in touched} == {
        k: v for k, v in before.items() if k not in touched
    }
    assert not [p for p in out.iterdir() if p.name.startswith(".")]
    index = json.loads((out / "export.json").read_text())["models"]["waves"]["artifacts"]
    rejected = {a["path"]: a for a in index if not a["verified"]}
    assert sorted(rejected) == ["saved_model/waves/2.rejected", "waves.tflite.rejected"]
    for path, entry in rejected.items():
        assert (out / path).exists()
        assert "are equal, expected 99.5 %" in entry["problems"][0]
    assert sorted(a["path"] for a in index if a["verified"]) == ["saved_model/waves/1", "waves.onnx", "waves.tflite"]
    assert "REJECTED" in (out / "MODEL_CARD.md").read_text()


def tampered(source: Path, target: Path, change: Callable[[np.ndarray], None]) -> Path:
    """A copy of a .tflite file with its largest weights changed."""
    model = schema.ModelT.InitFromPackedBuf(source.read_bytes(), 0)
    floats = [t.buffer for t in model.subgraphs[0].tensors if t.type == schema.TensorType.FLOAT32]
    index = max(floats, key=lambda i: 0 if model.buffers[i].data is None else len(model.buffers[i].data))
    values = np.frombuffer(bytes(model.buffers[index].data), np.float32).copy()
    change(values)
    model.buffers[index].data = np.frombuffer(values.tobytes(), np.uint8)
    import flatbuffers

    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(model.Pack(builder), file_identifier=b"TFL3")
    target.write_bytes(bytes(builder.Output()))
    return target


def verified(path: Path, servable: Servable, work: Path) -> verify.Verdict:
    cases = verify.Cases(servable, {"batch": 1, "height": 32, "width": 40}).fixed()
    (verdict,) = verify.verify("ai_edge_litert", [verify.Trial(path, servable, cases)], work)
    return verdict


def test_a_file_changed_after_conversion_is_noticed(
    exported: Exported, picture_servable: Servable, tmp_path: Path
) -> None:
    source = exported[0] / "waves.tflite"

    def nothing(values: np.ndarray) -> None: ...

    def a_little(values: np.ndarray) -> None:
        values[::3] += 0.05

    def nan(values: np.ndarray) -> None:
        values[0] = np.nan

    same = verified(tampered(source, tmp_path / "same.tflite", nothing), picture_servable, tmp_path)
    assert same.problems == ()
    changed = verified(tampered(source, tmp_path / "changed.tflite", a_little), picture_servable, tmp_path)
    assert any("are equal" in p for p in changed.problems)
    broken = verified(tampered(source, tmp_path / "nan.tflite", nan), picture_servable, tmp_path)
    assert broken.problems


def test_nan_and_tolerance_of_floats(float_servable: Servable, tmp_path: Path) -> None:
    out = tmp_path / "out"
    export.export_servable(float_servable, "series", out, formats="litert")
    cases = verify.Cases(float_servable, {"batch": 1, "time": 7}).fixed()

    def problems(change: Callable[[np.ndarray], None]) -> str:
        path = tampered(out / "series.tflite", tmp_path / "changed.tflite", change)
        (verdict,) = verify.verify("ai_edge_litert", [verify.Trial(path, float_servable, cases)], tmp_path)
        return "; ".join(verdict.problems)

    def nan(values: np.ndarray) -> None:
        values[:] = np.nan

    def shift(values: np.ndarray) -> None:
        values += 1e-3

    assert "output scores holds NaN" in problems(nan)
    assert "output scores differs by" in problems(shift)


def test_names_dtypes_and_shapes_are_compared(exported: Exported, picture_servable: Servable, tmp_path: Path) -> None:
    path = exported[0] / "waves.tflite"
    (image,), (stylized,) = picture_servable.inputs, picture_servable.outputs
    renamed = dataclasses.replace(picture_servable, outputs=(dataclasses.replace(stylized, name="painted"),))
    renamed = dataclasses.replace(
        renamed, call=lambda image: {"painted": picture_servable.call(image=image)["stylized"]}
    )
    assert "expected the outputs ['painted'], it has ['stylized']" in verified(path, renamed, tmp_path).problems
    assert verify._declared(
        [image],
        [{"name": "image", "dtype": "float32", "shape": [1, 32, 40, 3]}],
        {"batch": 1, "height": 8},
        (),
        "input",
    ) == [
        "expected input image to be uint8, it is float32",
        "expected dimension height of input image to be 8, it is 32",
    ]
    fixed = [{"name": "image", "dtype": "uint8", "shape": [1, "height", "unk__3", 3]}]
    found = verify._declared([image], fixed, {"batch": 1}, ("batch", "height", "width"), "input")
    assert found == [
        "expected dimension batch of input image to be free, it is 1",
        "expected dimension width of input image to be free, it is unk__3",
    ]


def test_quality_gate(tmp_path: Path) -> None:
    servable = dataclasses.replace(make_picture_servable(), min_psnr={"dynamic": 99.0})
    with pytest.raises(VerificationError, match=r"PSNR of \d+\.\d dB, expected 99 dB"):
        export.export_servable(servable, "strict", tmp_path / "out", formats="litert", precision="dynamic")
    assert (tmp_path / "out" / "strict.dynamic.tflite.rejected").is_file()


# --- operators --------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels-tests")
class Inverse(keras.layers.Layer):
    """Inverse of 2 x 2 matrices, an operator that LiteRT has not."""

    def call(self, x: tf.Tensor) -> tf.Tensor:
        return tf.reshape(tf.linalg.inv(tf.reshape(x, (-1, 2, 2)) + 2 * tf.eye(2)), (-1, 4))


@pytest.fixture(scope="module")
def needs_flex() -> Servable:
    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(3)(Inverse(name="solver")(inputs)))
    spec = TensorSpec("x", ("batch", 4), "float32", "numbers from 0 to 1")
    return Servable(
        call=lambda x: {"y": model(x)},
        model=model,
        inputs=(spec,),
        outputs=(TensorSpec("y", ("batch", 3), "float32", "numbers"),),
        example=lambda dims, seed: {"x": np.random.default_rng(seed).random((dims["batch"], 4), "float32")},
        dims={"batch": 1},
    )


def test_flex_operators_are_refused_by_name(needs_flex: Servable, tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedOpsError, match=r"no built-in operator for MatrixInverse \(in .*solver.*allow-flex"
    ) as caught:
        export.export_servable(needs_flex, "inverse", tmp_path / "out", formats=["litert"])
    assert caught.value.exit_code == 1
    assert not (tmp_path / "out").exists()


def test_flex_operators_on_request(needs_flex: Servable, tmp_path: Path) -> None:
    report = export.export_servable(needs_flex, "inverse", tmp_path / "out", formats=["litert"], allow_flex=True)
    (artifact,) = report.artifacts
    assert artifact.operators["FlexMatrixInverse"] == 1
    assert (artifact.executed, artifact.verified) == (False, False)
    assert (tmp_path / "out" / "inverse.tflite").is_file()
    card = (tmp_path / "out" / "MODEL_CARD.md").read_text()
    assert "NOT EXECUTED; not executed: no interpreter with the Flex delegate" in card
    assert "select-tf-ops" in report.next_steps[0]


# --- places -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(disk)], capture_output=True)
    if mounted.returncode:
        pytest.skip("a small disk cannot be mounted here")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


@pytest.mark.parametrize("format_name", ["saved_model", "litert"])
def test_full_disk(small_disk: Path, picture_servable: Servable, format_name: str) -> None:
    (small_disk / "mine.txt").write_text("mine")
    with pytest.raises(StorageError, match="the disk is full"):
        export.export_servable(picture_servable, "waves", small_disk / "out", formats=[format_name])
    assert [p.name for p in small_disk.iterdir()] == ["mine.txt"]


def test_out_is_a_file(float_servable: Servable, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    for out in (tmp_path / "out", tmp_path / "out" / "deeper"):
        with pytest.raises(StorageError, match="a file is where a folder is needed"):
            export.export_servable(float_servable, "series", out)
    assert (tmp_path / "out").read_text() == "mine"


def test_foreign_index_is_not_overwritten(float_servable: Servable, tmp_path: Path) -> None:
    for text in ("{}", "not JSON", '{"models": {"a": 3}}'):
        (tmp_path / "export.json").write_text(text)
        with pytest.raises(UsageError, match="Move it away"):
            export.export_servable(float_servable, "series", tmp_path)
        assert (tmp_path / "export.json").read_text() == text


def test_interruption_leaves_nothing(picture_servable: Servable, tmp_path: Path) -> None:
    def stop(line: str) -> None:
        if "executing" in line:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        export.export_servable(picture_servable, "waves", tmp_path / "a" / "b", formats="saved_model", progress=stop)
    assert list(tmp_path.iterdir()) == []


# --- requests ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"formats": ["tensorrt"]}, "unknown format"),
        ({"precision": "int8"}, "saved_model does not support precision 'int8'"),
        ({"size": 64}, "no dimension 'height'"),
        ({"size": "huge"}, "such as"),
        ({"calibration": [np.zeros((1, 7, 4))]}, "calibration is for precision 'int8'"),
        ({"formats": "onnx", "allow_flex": True}, "allow_flex is for the format litert"),
        ({"name": "../up"}, "letters, digits"),
        ({"name": ""}, "letters, digits"),
    ],
)
def test_wrong_requests_write_nothing(
    float_servable: Servable, tmp_path: Path, options: dict[str, Any], words: str
) -> None:
    name = options.pop("name", "series")
    with pytest.raises(UsageError, match=words):
        export.export_servable(float_servable, name, tmp_path / "out", **options)
    assert not (tmp_path / "out").exists()


def test_a_form_that_cannot_exist_is_refused_with_the_reason(float_servable: Servable, tmp_path: Path) -> None:
    lacking = dataclasses.replace(float_servable, without={("litert", "int8"): "its converter crashes."})
    with pytest.raises(UsageError, match="thing does not exist as litert in int8: its converter crashes"):
        export.export_servable(lacking, "thing", tmp_path / "out", formats="litert", precision="int8")
    assert not (tmp_path / "out").exists()
    report = export.export_servable(lacking, "thing", tmp_path / "out", formats="litert")
    assert report.artifacts[0].verified


def test_servable_that_breaks_its_own_specs(float_servable: Servable, tmp_path: Path) -> None:
    scores, best = float_servable.outputs
    wrong = dataclasses.replace(float_servable, outputs=(dataclasses.replace(scores, dtype="float64"), best))
    with pytest.raises(UsageError, match=r"expected scores to be float64 .* Received: float32 \(1, 5\)"):
        export.export_servable(wrong, "series", tmp_path / "out")

    def numpy_call(**arrays: tf.Tensor) -> dict[str, Any]:
        return {k: tf.constant(v.numpy()) for k, v in float_servable.call(**arrays).items()}

    with pytest.raises(ExportError, match="could not be traced"):
        export.export_servable(
            dataclasses.replace(float_servable, call=numpy_call), "series", tmp_path / "out", formats="saved_model"
        )
    assert not (tmp_path / "out").exists()


# --- child processes --------------------------------------------------------------------------------------------------


def test_a_child_that_fails_says_why(tmp_path: Path) -> None:
    job = {"runtime": "onnxruntime", "path": str(tmp_path / "none.onnx"), "data": "", "cases": []}
    with pytest.raises(ExportError, match=r"(?s)executing none.onnx failed: .*none\.onnx"):
        children.call("run_artifact", [job], ["executing none.onnx"], tmp_path)


def test_a_child_that_is_killed_is_reported(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A converter's abort, here by a script of our own, ends in an error with what it printed last."""
    script = "import os, sys; print('about to fall', file=sys.stderr, flush=True); os.abort()"
    (tmp_path / "falls.py").write_text(script)
    monkeypatch.setattr(children, "RUNNERS", tmp_path)
    with pytest.raises(ExportError, match=r"(?s)converting failed: the process was killed by SIGABRT.*about to fall"):
        children.call("falls", [{}], ["converting"], tmp_path)


def test_of_many_jobs_the_one_that_fails_is_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Whether it says so or the process dies of it; nothing is done after it."""
    shutil.copy(children.RUNNERS / "job_protocol.py", tmp_path)
    script = """\
import os
from pathlib import Path
from job_protocol import answer

def work(job):
    Path(job["mark"]).touch()
    if job["how"] == "dies":
        os.abort()
    if job["how"] == "fails":
        raise ValueError("no such thing")
    return {"doubled": 2 * job["number"]}

answer(work)
"""
    (tmp_path / "doubles.py").write_text(script)
    monkeypatch.setattr(children, "RUNNERS", tmp_path)

    def call(*hows: str) -> list[dict[str, Any]]:
        jobs = [
            {"how": how, "number": i, "mark": str(tmp_path / f"{'-'.join(hows)}.{i}")} for i, how in enumerate(hows)
        ]
        return children.call("doubles", jobs, [f"doubling {i}" for i in range(len(hows))], tmp_path)

    assert call("works", "works") == [{"doubled": 0}, {"doubled": 2}]
    with pytest.raises(ExportError, match="doubling 1 failed: ValueError: no such thing"):
        call("works", "fails", "works")
    with pytest.raises(ExportError, match="doubling 1 failed: the process was killed by SIGABRT"):
        call("works", "dies", "works")
    assert sorted(p.name for p in tmp_path.glob("works-[fd]*")) == [
        *(f"works-dies-works.{i}" for i in range(2)),
        *(f"works-fails-works.{i}" for i in range(2)),
    ]


def test_runners_know_nothing_of_us(root: Path) -> None:
    for script in (root / "export" / "runners").glob("*.py"):
        if script.name != "__init__.py":
            assert "import kerasmodels" not in script.read_text()
            assert "from kerasmodels" not in script.read_text()
            subprocess.run([sys.executable, "-m", "py_compile", str(script)], check=True)


def test_large_models_convert_with_protobuf_in_python(
    float_servable: Servable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen, fresh = {}, children._fresh

    def watched(script: Path, given: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        seen[script.stem] = environment.get("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION")
        return fresh(script, given, environment)

    monkeypatch.setattr(children, "_fresh", watched)
    monkeypatch.setattr(to_onnx, "LARGE", 0)
    monkeypatch.delenv("PROTOCOL_BUFFERS_PYTHON_IMPLEMENTATION", raising=False)
    report = export.export_servable(float_servable, "series", tmp_path / "out", formats=["onnx"])
    assert all(artifact.verified for artifact in report.artifacts)
    assert seen.pop("convert_onnx") == "python"
    assert set(seen.values()) == {None}
