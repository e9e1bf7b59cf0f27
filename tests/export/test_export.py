"""Artifacts of small real nets: made, executed in fresh processes, and looked into with the formats' own readers."""

import base64
import dataclasses
import hashlib
import io
import json
import os
import re
import shlex
import shutil
import struct
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import ai_edge_litert.interpreter
import flatbuffers
import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from PIL import Image
from rich.console import Console
from tensorflow.core.framework import tensor_pb2

from kerasmodels import __version__, export, registry, storage
from kerasmodels.errors import UsageError
from kerasmodels.export import children, litert_metadata, to_saved_model
from kerasmodels.export.pipeline import _ascii
from kerasmodels.export.place import Made, Place, digest
from kerasmodels.family import Servable
from tests.export.servables import make_rounding_servable, photo_like

Exported = tuple[Path, export.Report]


def hashes(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): digest(p) for p in sorted(folder.rglob("*")) if p.is_file()}


# --- what one export leaves behind ------------------------------------------------------------------------------------


def test_layout(exported: Exported) -> None:
    out, _ = exported
    assert sorted(p.name for p in out.iterdir()) == [
        "MODEL_CARD.md",
        "export.json",
        "saved_model",
        "waves.onnx",
        "waves.tflite",
    ]
    assert sorted(p.name for p in (out / "saved_model").iterdir()) == ["batching.config", "models.config", "waves"]
    assert [p.name for p in (out / "saved_model" / "waves").iterdir()] == ["1"]


def test_every_artifact_is_equal(exported: Exported) -> None:
    _, report = exported
    assert [a.format for a in report.artifacts] == ["saved_model", "litert", "onnx"]
    for artifact in report.artifacts:
        assert artifact.verified
        (measured,) = artifact.measured
        assert measured["max_abs_error"] <= 1
        assert measured["equal"] >= 0.995
        assert measured["tolerance"] == {"atol": 1.0, "min_equal": 0.995}
        assert artifact.psnr is None or artifact.psnr > 70
    saved_model, litert, onnx_file = report.artifacts
    calls = [(c["signature"], str(c["inputs"])) for c in saved_model.cases]
    assert ("serve_bytes", "{'image_bytes': ['PNG file', 'PNG file']}") in calls
    assert ("serve_bytes", "{'image_bytes': ['JPEG file']}") in calls
    shapes = {tuple(c["inputs"]["image"]) for c in onnx_file.cases}
    assert shapes == {(n, h, w, 3) for n in (1, 2) for h, w in ((32, 40), (24, 16), (48, 34))}
    assert {tuple(c["inputs"]["image"]) for c in litert.cases} == {(1, 32, 40, 3)}
    assert len(litert.cases) == 3


def test_index_says_what_was_measured(exported: Exported) -> None:
    out, report = exported
    index = json.loads((out / "export.json").read_text())["models"]["waves"]
    assert index["artifacts"] == json.loads(json.dumps(report.to_dict()["artifacts"]))
    assert index["training"] == {"data": "made-up waves", "steps": 10}
    for entry in index["artifacts"]:
        path = out / entry["path"]
        size = sum(p.stat().st_size for p in path.rglob("*") if p.is_file()) if path.is_dir() else path.stat().st_size
        assert entry["bytes"] == size
        assert entry["sha256"] == digest(path)
        assert "latency_ms" not in entry
        assert entry["versions"]["kerasmodels"] == __version__
        assert entry["versions"]["tensorflow"] == tf.__version__
        convolutions = {"saved_model": "Conv2D", "litert": "CONV_2D", "onnx": "Conv"}[entry["format"]]
        assert entry["operators"][convolutions] == 3
    by_format = {entry["format"]: entry for entry in index["artifacts"]}
    assert by_format["onnx"]["opset"] == 18
    assert by_format["onnx"]["versions"]["onnxruntime"] == onnxruntime.__version__
    assert "ai-edge-litert" in by_format["litert"]["versions"]


def test_digest_of_a_folder_is_what_it_says(exported: Exported) -> None:
    folder = exported[0] / "saved_model" / "waves" / "1"
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    lines = [f"{hashlib.sha256(p.read_bytes()).hexdigest()}  {p.relative_to(folder).as_posix()}\n" for p in files]
    assert digest(folder) == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_table_and_card(exported: Exported) -> None:
    out, report = exported
    console = Console(width=160, file=io.StringIO())
    console.print(report.table())
    text = console.file.getvalue()  # type: ignore[attr-defined]
    card = (out / "MODEL_CARD.md").read_text()
    for name in ("saved_model/waves/1", "waves.tflite", "waves.onnx"):
        assert name in text
        assert f"| {name} |" in card
    assert "A. Tester" in card
    assert "| license | Apache-2.0 |" in card
    assert "made-up waves" in card
    assert "| image | uint8 | batch x height x width x 3 | RGB picture, 0-255 |" in card


def test_metadata_in_every_artifact(exported: Exported) -> None:
    out, report = exported
    for artifact in report.artifacts:
        metadata = export.read_metadata(out / artifact.path)
        assert metadata["name"] == "waves"
        assert metadata["description"] == "A small test net that repaints pictures."
        assert (metadata["author"], metadata["license"]) == ("A. Tester", "Apache-2.0")
        assert metadata["producer"] == f"kerasmodels {__version__}"
        expected = [1, 32, 40, 3] if artifact.format == "litert" else ["batch", "height", "width", 3]
        assert metadata["inputs"][0]["shape"] == expected
        assert metadata["outputs"][0]["doc"] == "the picture repainted, 0-255"


def test_exports_into_one_folder_at_the_same_time(exported: Exported, tmp_path: Path) -> None:
    """Each keeps the other's entry, and removes what a killed one left, not what another is making."""
    (tmp_path / ".export-12345678" / "onnx").mkdir(parents=True)
    (*_, artifact) = exported[1].artifacts
    known = json.loads((exported[0] / "export.json").read_text())["models"]["waves"]
    described = {key: known[key] for key in ("about", "training")}
    names = [f"waves{number}" for number in range(4)]
    begun = threading.Barrier(len(names))

    def one(name: str) -> None:
        place = Place(tmp_path)
        place.read_index()
        with place.staging() as staging:
            begun.wait(60)
            made = Made(name, staging / f"{name}.onnx", dataclasses.replace(artifact, path=f"{name}.onnx"))
            shutil.copy(exported[0] / artifact.path, made.path)
            place.commit({name: described}, {name: [made]}, staging)

    threads = [threading.Thread(target=one, args=(name,)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(json.loads((tmp_path / "export.json").read_text())["models"]) == names
    assert not list(tmp_path.glob(".*"))


# --- SavedModel -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="session")
def served(exported: Exported) -> Any:
    return tf.saved_model.load(str(exported[0] / "saved_model" / "waves" / "1"))


def test_saved_model_holds_variables_only(exported: Exported, picture_servable: Servable) -> None:
    """Each weight once: tf.train writes little beside them."""
    weights = sum(4 * int(np.prod(v.shape)) for v in picture_servable.model.variables)
    data = exported[0] / "saved_model" / "waves" / "1" / "variables" / "variables.data-00000-of-00001"
    assert weights <= data.stat().st_size < weights + 3000


def test_bytes_signature_takes_any_kind_of_picture(served: Any, picture_servable: Servable) -> None:
    pixels = photo_like({"batch": 1, "height": 30, "width": 22}, 7)["image"][0]
    files, expected = [], []
    for mode in ("RGB", "L", "RGBA", "P"):
        picture = Image.fromarray(pixels).convert(mode)
        file = io.BytesIO()
        picture.save(file, "PNG")
        files.append(file.getvalue())
        expected.append(np.asarray(picture.convert("RGB")))
    found = served.signatures["serve_bytes"](image_bytes=tf.constant(files))["stylized"].numpy()
    wanted = picture_servable.call(image=tf.constant(np.stack(expected)))["stylized"].numpy()
    assert np.abs(found.astype(int) - wanted).max() <= 1


def test_bytes_of_different_sizes_are_refused_in_one_batch(served: Any) -> None:
    files = [tf.io.encode_png(np.zeros((h, 8, 3), "uint8")).numpy() for h in (8, 10)]
    with pytest.raises(tf.errors.InvalidArgumentError, match="shape"):
        served.signatures["serve_bytes"](image_bytes=tf.constant(files))


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """Length-delimited protobuf fields, read independently of the writer."""
    found, at = [], 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(message):
        tag, length = varint(), varint()
        assert tag & 7 == 2
        found.append((tag >> 3, message[at : at + length]))
        at += length
    return found


def test_warmup_requests_replay(exported: Exported, served: Any) -> None:
    path = exported[0] / "saved_model" / "waves" / "1" / "assets.extra" / "tf_serving_warmup_requests"
    records = [r.numpy() for r in tf.data.TFRecordDataset(str(path))]
    assert records == to_saved_model.read_records(path)
    signatures = []
    for record in records:
        ((number, log),) = fields(record)
        assert number == 6
        ((_, request),) = fields(log)
        (_, spec), *inputs = fields(request)
        assert dict(fields(spec))[1] == b"waves"
        signatures.append(dict(fields(spec))[3].decode())
        tensors = {}
        for number, entry in inputs:
            assert number == 2
            key, value = dict(fields(entry)).values()
            tensors[key.decode()] = tf.constant(tf.make_ndarray(tensor_pb2.TensorProto.FromString(value)))
        assert served.signatures[signatures[-1]](**tensors)["stylized"].shape == (1, 32, 40, 3)
    assert signatures == ["serving_default", "serve_bytes"]


WITHOUT = "tensorflow-serving-api is not installed; the test before this one reads the same records without it"


def test_warmup_and_config_with_the_real_protocol(exported: Exported) -> None:
    """Only where tensorflow-serving-api is installed, which the library does not need."""
    log = pytest.importorskip("tensorflow_serving.apis.prediction_log_pb2", reason=WITHOUT)
    config = pytest.importorskip("tensorflow_serving.config.model_server_config_pb2", reason=WITHOUT)
    text_format = pytest.importorskip("google.protobuf.text_format", reason=WITHOUT)
    root = exported[0] / "saved_model"
    models = text_format.Parse((root / "models.config").read_text(), config.ModelServerConfig())
    assert [(c.name, c.base_path) for c in models.model_config_list.config] == [("waves", "/models/waves")]
    for record in to_saved_model.read_records(root / "waves" / "1" / "assets.extra" / "tf_serving_warmup_requests"):
        message = log.PredictionLog.FromString(record)
        assert message.SerializeToString() == record
        assert message.predict_log.request.model_spec.name == "waves"


def test_exporting_again_gives_version_2(exported: Exported, picture_servable: Servable, tmp_path: Path) -> None:
    out = tmp_path / "served"
    shutil.copytree(exported[0], out)
    (out / "notes.txt").write_text("mine")
    (out / "saved_model" / "batching.config").write_text("# tuned by hand")
    before = hashes(out)
    report = export.export_servable(picture_servable, "waves", out, formats=["saved_model"])
    assert report.artifacts[0].path == "saved_model/waves/2"
    after = hashes(out)
    assert {k: v for k, v in after.items() if k in before and k not in ("export.json", "MODEL_CARD.md")} == {
        k: v for k, v in before.items() if k not in ("export.json", "MODEL_CARD.md")
    }
    listed = [a["path"] for a in json.loads((out / "export.json").read_text())["models"]["waves"]["artifacts"]]
    assert sorted(listed) == ["saved_model/waves/1", "saved_model/waves/2", "waves.onnx", "waves.tflite"]


# --- LiteRT -----------------------------------------------------------------------------------------------------------


def test_litert_is_built_in_and_fixed(exported: Exported) -> None:
    _, report = exported
    artifact = report.artifacts[1]
    assert not [name for name in artifact.operators if name.startswith(("Flex", "CUSTOM")) or "VAR" in name]
    assert artifact.runtime == "ai_edge_litert"
    assert artifact.operators["RESIZE_NEAREST_NEIGHBOR"] == 1


def test_litert_standard_metadata(exported: Exported) -> None:
    """Read table by table with the flatbuffers runtime, by the positions in metadata_schema.fbs."""
    path = exported[0] / "waves.tflite"
    content = litert_metadata.read(path, "TFLITE_METADATA")
    assert content[4:8] == b"M001"

    def table(buffer: bytes, at: int) -> flatbuffers.table.Table:
        return flatbuffers.table.Table(buffer, at)

    def slot(of: flatbuffers.table.Table, number: int) -> int:
        return of.Offset(4 + 2 * number)

    def text(of: flatbuffers.table.Table, number: int) -> str:
        return of.String(of.Pos + slot(of, number)).decode()

    def child(of: flatbuffers.table.Table, number: int) -> flatbuffers.table.Table:
        return table(of.Bytes, of.Indirect(of.Pos + slot(of, number)))

    def item(of: flatbuffers.table.Table, number: int, index: int) -> flatbuffers.table.Table:
        return table(of.Bytes, of.Indirect(of.Vector(slot(of, number)) + 4 * index))

    model = table(content, struct.unpack_from("<I", content)[0])
    assert [text(model, n) for n in (0, 1, 2)] == ["waves", "A small test net that repaints pictures.", __version__]
    assert [text(model, n) for n in (4, 5, 7)] == ["A. Tester", "Apache-2.0", "1.0.0"]
    graph = item(model, 3, 0)
    for number, name, doc in ((2, "image", "RGB picture, 0-255"), (3, "stylized", "the picture repainted, 0-255")):
        assert graph.VectorLen(slot(graph, number)) == 1
        tensor = item(graph, number, 0)
        assert (text(tensor, 0), text(tensor, 1)) == (name, doc)
        image = child(tensor, 3)
        assert image.Get(flatbuffers.number_types.Uint8Flags, image.Pos + slot(image, 0)) == 2  # ImageProperties
        colors = child(image, 1)
        assert colors.Get(flatbuffers.number_types.Int8Flags, colors.Pos + slot(colors, 0)) == 1  # RGB


def test_litert_metadata_leaves_the_file_in_order(
    exported: Exported, picture_servable: Servable, tmp_path: Path
) -> None:
    from ai_edge_litert import schema_py_generated as schema

    path = tmp_path / "again.tflite"
    shutil.copy(exported[0] / "waves.tflite", path)
    litert_metadata.attach(path, {**export.read_metadata(path), "author": "B"}, picture_servable)
    content = path.read_bytes()
    assert content[4:8] == b"TFL3"
    model = schema.Model.GetRootAs(content)
    names = [model.Metadata(i).Name() for i in range(model.MetadataLength())]
    assert names.count(b"TFLITE_METADATA") == names.count(b"KERASMODELS_METADATA") == 1
    assert b"min_runtime_version" in names
    assert export.read_metadata(path)["author"] == "B"
    for i in range(model.BuffersLength()):
        buffer = model.Buffers(i)
        if buffer.DataLength():
            assert buffer._tab.Vector(buffer._tab.Offset(4)) % 16 == 0
    ai_edge_litert.interpreter.Interpreter(str(path)).allocate_tensors()


def test_litert_of_any_size(picture_servable: Servable, tmp_path: Path) -> None:
    report = export.export_servable(picture_servable, "waves", tmp_path, formats="litert", size="dynamic")
    (artifact,) = report.artifacts
    assert artifact.path == "waves.any-size.tflite"
    assert {tuple(c["inputs"]["image"]) for c in artifact.cases} == {(1, 32, 40, 3), (1, 24, 16, 3), (1, 48, 34, 3)}
    assert artifact.inputs[0]["shape"] == [1, "height", "width", 3]


@pytest.mark.parametrize(
    ("format_name", "precision", "operator"),
    [
        ("litert", "fp16", "DEQUANTIZE"),
        ("litert", "dynamic", "CONV_2D"),
        ("litert", "int8", "QUANTIZE"),
        ("onnx", "fp16", "Cast"),
        ("onnx", "int8", "QuantizeLinear"),
    ],
)
def test_reduced_precisions(
    picture_servable: Servable, exported: Exported, tmp_path: Path, format_name: str, precision: str, operator: str
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(6):
        pixels = photo_like({"batch": 1, "height": 60, "width": 60}, 50 + i)["image"][0]
        Image.fromarray(pixels).save(pictures / f"{i}.png")
    report = export.export_servable(
        picture_servable,
        "waves",
        tmp_path / "out",
        formats=[format_name],
        precision=precision,
        calibration=pictures if precision == "int8" else None,
    )
    (artifact,) = report.artifacts
    assert artifact.precision == precision
    assert artifact.path.startswith(f"waves.{precision}.")
    gate = picture_servable.min_psnr[precision]
    assert artifact.measured[0]["tolerance"] == {"min_psnr": gate}
    assert artifact.psnr is not None  # it is not the fp32 file under another name
    assert artifact.psnr >= gate
    assert artifact.operators[operator] >= 1
    # uint8 pictures in and out, whatever the precision inside.
    assert artifact.inputs[0]["dtype"] == artifact.outputs[0]["dtype"] == "uint8"


# --- ONNX -------------------------------------------------------------------------------------------------------------


def test_onnx_file(exported: Exported) -> None:
    model = onnx.load(str(exported[0] / "waves.onnx"))
    onnx.checker.check_model(model, full_check=True)
    assert [(o.domain, o.version) for o in model.opset_import if o.domain in ("", "ai.onnx")] == [("", 18)]
    for value in (*model.graph.input, *model.graph.output):
        dims = value.type.tensor_type.shape.dim
        assert [d.dim_param or d.dim_value for d in dims] == ["batch", "height", "width", 3]
    assert model.graph.input[0].doc_string == "RGB picture, 0-255"
    assert (model.producer_name, model.producer_version) == ("kerasmodels", __version__)
    properties = {p.key: p.value for p in model.metadata_props}
    assert properties["author"] == "A. Tester"
    session = onnxruntime.InferenceSession(str(exported[0] / "waves.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["license"] == "Apache-2.0"


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_onnx_computes_sizes_exactly(tmp_path: Path, precision: str) -> None:
    """Neither truncated where TensorFlow rounds down, nor in half precision."""
    report = export.export_servable(make_rounding_servable(), "any", tmp_path, formats="onnx", precision=precision)
    assert (1, 33, 18, 3) in {tuple(c["inputs"]["image"]) for c in report.artifacts[0].cases}
    assert report.artifacts[0].operators["Mod"] >= 2


# --- no picture -------------------------------------------------------------------------------------------------------


def test_floats_and_indices(float_servable: Servable, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    report = export.export_servable(float_servable, "series", tmp_path / "out", progress=lines.append)
    shown = capfd.readouterr()
    assert shown.out == shown.err == ""
    assert len(lines) == 6
    assert lines[-1].startswith("onnx fp32: executing in onnxruntime on 6 cases")
    for artifact in report.artifacts:
        scores, best = artifact.measured
        assert scores["max_abs_error"] <= scores["tolerance"]["atol"] == 1e-5
        assert best["equal"] == 1
        assert {c["signature"] for c in artifact.cases} == {"serving_default"}
    assert not any("serve_bytes" in step for step in report.next_steps)
    onnx_model = onnx.load(str(tmp_path / "out" / "series.onnx"))
    assert [d.dim_param or d.dim_value for d in onnx_model.graph.input[0].type.tensor_type.shape.dim] == [
        "batch",
        "time",
        4,
    ]
    run_snippets(report, tmp_path)


# --- next steps -------------------------------------------------------------------------------------------------------


def run_snippets(report: export.Report, folder: Path) -> list[str]:
    printed = []
    for step in report.next_steps:
        if step.startswith("python - <<"):
            code = step.split("\n", 1)[1].removesuffix("\nEOF")
            done = subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
    assert len(printed) == 2
    return printed


def test_next_steps_work_as_pasted(exported: Exported, tmp_path: Path) -> None:
    out, report = exported
    Image.fromarray(photo_like({"batch": 1, "height": 90, "width": 70}, 3)["image"][0]).save(tmp_path / "photo.jpg")
    run_snippets(report, tmp_path)
    with Image.open(tmp_path / "stylized.png") as picture:
        assert picture.size == (70, 90)  # by the last, the ONNX file: where any size will do, the photo keeps its own
    docker, curl, show = report.next_steps[:3]
    assert f"-v {shlex.quote(f'{out.resolve()}/saved_model:/models')}" in docker
    assert "--model_config_file=/models/models.config" in docker
    # Everything before the network, as a shell does it: the body must be JSON with the file's bytes.
    body = subprocess.run(["sh", "-c", curl.split(" | curl")[0]], cwd=tmp_path, capture_output=True, check=True).stdout
    request = json.loads(body)
    assert request["signature_name"] == "serve_png"
    assert base64.b64decode(request["instances"][0]["b64"]) == (tmp_path / "photo.jpg").read_bytes()
    assert curl.split(" > ")[0].endswith("http://localhost:8501/v1/models/waves:predict")
    # And everything after it, on an answer as the server gives it for one output.
    content = base64.b64encode((tmp_path / "stylized.png").read_bytes()).decode()
    (tmp_path / "answer.json").write_text(json.dumps({"predictions": [{"b64": content}]}))
    (tmp_path / "stylized.png").rename(tmp_path / "expected.png")
    subprocess.run(["sh", "-c", show.replace("python", sys.executable, 1)], cwd=tmp_path, check=True)
    assert (tmp_path / "stylized.png").read_bytes() == (tmp_path / "expected.png").read_bytes()


# --- models of families -----------------------------------------------------------------------------------------------


def test_a_model_of_a_family_and_its_run_folder(tmp_path: Path) -> None:
    """The first family there is, as small as its quick variant lets it be."""
    name = registry.names()[0]
    family = registry.family(name)
    config = dataclasses.replace(family.variants["quick"], channels=(4, 8, 8))
    keras.utils.set_random_seed(0)
    model = family.model(config)
    size = {"height": 32, "width": 36}
    report = export.export(model, tmp_path / "out", formats="litert", size=size)
    assert report.artifacts[0].path == f"{name}.32x36.tflite"

    run = tmp_path / "my run"
    storage.save_npz(run / "weights.npz", storage.model_arrays(model))
    card = {"family": name, "config": config.to_dict(), "seed": 7, "command": "", "versions": {}, "metrics": {}}
    card |= {"started": "2024-01-01T00:00:00", "seconds": 1.0, "steps": 1, "step": 1, "state": "finished"}
    storage.write_json(run / "run.json", card)
    report = export.export(run, tmp_path / "out", formats="litert", size=size)
    assert report.artifacts[0].path == "my-run.32x36.tflite"
    index = json.loads((tmp_path / "out" / "export.json").read_text())["models"]
    assert sorted(index) == sorted([name, "my-run"])
    assert index["my-run"]["training"]["seed"] == 7
    assert export.read_metadata(tmp_path / "out" / "my-run.32x36.tflite")["source"] == "my run"
    with pytest.raises(UsageError, match=f"servable of {name}"):
        export.export(model, tmp_path / "out", servable="nothing")


def test_all_servables_of_a_model_share_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    family = registry.family("closed_form_matting")
    model = family.model(family.config(served_iterations=2))
    started, fresh = [], children._fresh

    def watched(script: Path, given: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
        started.append((script.stem, len(json.loads(given))))
        return fresh(script, given, environment)

    monkeypatch.setattr(children, "_fresh", watched)
    size = {"height": 12, "width": 15}
    reports = export.export_all(model, tmp_path / "out", formats="litert,onnx", size=size)
    assert started == [("convert_litert", 2), ("run_artifact", 2), ("convert_onnx", 2), ("run_artifact", 2)]
    assert list(reports) == ["matte", "energy"] == list(family.servables(model))
    assert [a.path for report in reports.values() for a in report.artifacts] == [
        *(f"closed_form_matting.{end}" for end in ("12x15.tflite", "onnx")),
        *(f"closed_form_matting-energy.{end}" for end in ("12x15.tflite", "onnx")),
    ]
    for (name, report), servable in zip(reports.items(), family.servables(model).values(), strict=True):
        assert all(a.verified and (tmp_path / "out" / a.path).is_file() for a in report.artifacts), name
        assert [s["name"] for s in report.artifacts[0].outputs] == [spec.name for spec in servable.outputs]
    index = json.loads((tmp_path / "out" / "export.json").read_text())["models"]
    assert list(index) == [report.name for report in reports.values()]
    with pytest.raises(UsageError, match="closed_form_matting does not exist as onnx in int8: it has no weights"):
        export.export_all(model, tmp_path / "none", formats="onnx", precision="int8")
    assert not (tmp_path / "none").exists()


def test_a_source_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"expected a keras\.Model\. Received: dict"):
        export.export({}, tmp_path / "out")  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="run folder or one of the presets"):
        export.export("no/such", tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- names ------------------------------------------------------------------------------------------------------------


def test_run_folders_of_any_name_have_one_that_servers_take() -> None:
    names = ["mine", "my run", "-x", ".hidden", "ölbild", "été", "画像", "写真", os.fsdecode(b"caf\xe9")]
    found = [_ascii(name, "wgan") for name in names]
    assert found[:6] == ["mine", "my-run", "x", "hidden", "olbild", "ete"]
    assert [name[:-8] for name in found[6:]] == ["wgan-", "wgan-", "caf-"]
    assert len(set(found)) == len(found)
    assert all(re.fullmatch("[A-Za-z0-9_][A-Za-z0-9_.-]*", name) for name in found)
