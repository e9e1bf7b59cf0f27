"""What labels, boxes and their pictures are measured by, and what artifacts tell other software of them."""

import dataclasses
import io
import zipfile
from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter
from PIL import Image

from kerasmodels import export
from kerasmodels.errors import VerificationError
from kerasmodels.export import litert_metadata, verify
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.metrics import align_detections
from tests.export.servables import photo_like

NAMES = ("sky", "road", "tree")


def make_labels_servable() -> Servable:
    """Labels, a picture of them and their probabilities, declared in an order that no converter keeps."""
    keras.utils.set_random_seed(6)
    inputs = keras.Input((None, None, 3))
    logits = keras.layers.Conv2D(len(NAMES), 3, padding="same")(inputs)
    model = keras.Model(inputs, logits, name="labels_net")
    colors = tf.constant([[250.0, 0, 0], [0, 250, 0], [0, 0, 250]])

    def label(image: tf.Tensor) -> dict[str, tf.Tensor]:
        found = tf.nn.softmax(model(tf.cast(image, tf.float32) / 255.0, training=False))
        labels = tf.argmax(found, axis=3, output_type=tf.int32)
        mixed = 0.5 * tf.cast(image, tf.float32) + 0.5 * tf.gather(colors, labels)
        return {"labels": labels, "overlay": tf.cast(tf.round(mixed), tf.uint8), "probabilities": found}

    shape = ("batch", "height", "width")
    return Servable(
        call=label,
        model=model,
        inputs=(TensorSpec("image", (*shape, 3), "uint8", "RGB pictures, 0-255", "image"),),
        outputs=(
            TensorSpec("probabilities", (*shape, 3), "float32", "of each label, 0-1", atol=1e-4, classes=NAMES),
            TensorSpec("overlay", (*shape, 3), "uint8", "the labels' colors", "image", follows="labels"),
            TensorSpec("labels", shape, "int32", "of each pixel", classes=NAMES),
        ),
        example=photo_like,
        dims={"batch": 1, "height": 24, "width": 32},
        check_dims=({"height": 17, "width": 20},),
        doc="A small test net that labels pixels.",
    )


@pytest.fixture(scope="module")
def servable() -> Servable:
    return make_labels_servable()


@pytest.fixture(scope="module")
def served(servable: Servable, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, export.Report]:
    out = tmp_path_factory.mktemp("labels")
    return out, export.export_servable(servable, "labels", out, older_onnx=True)


# --- SavedModel: PNG files out ----------------------------------------------------------------------------------------


def test_png_files_of_several_sizes_in_one_call(served: tuple[Path, export.Report], servable: Servable) -> None:
    pictures = [photo_like({"batch": 1, "height": h, "width": w}, h)["image"] for h, w in ((20, 31), (33, 18))]
    contents = []
    for picture in pictures:
        file = io.BytesIO()
        Image.fromarray(picture[0]).save(file, "PNG")
        contents.append(file.getvalue())
    loaded = tf.saved_model.load(str(served[0] / "saved_model" / "labels" / "1"))
    answers = loaded.signatures["serve_png"](image_bytes=tf.constant(contents))
    assert sorted(answers) == ["labels_bytes", "overlay_bytes"]
    for number, picture in enumerate(pictures):
        expected = servable.call(image=tf.constant(picture))
        labels, overlay = (
            np.asarray(Image.open(io.BytesIO(answers[f"{name}_bytes"][number].numpy())))
            for name in ("labels", "overlay")
        )
        np.testing.assert_array_equal(labels, expected["labels"][0])
        np.testing.assert_array_equal(overlay, expected["overlay"][0])


def test_png_files_are_verified_too(served: tuple[Path, export.Report]) -> None:
    calls = [(case["signature"], case["inputs"]) for case in served[1].artifacts[0].cases]
    assert ("serve_png", {"image_bytes": ["PNG file"] * 2}) in calls


# --- LiteRT: names, order, label files --------------------------------------------------------------------------------


def test_litert_lists_tensors_as_the_specs_do(served: tuple[Path, export.Report], servable: Servable) -> None:
    path = served[0] / "labels.tflite"
    interpreter = Interpreter(str(path))
    assert [d["name"] for d in interpreter.get_input_details()] == ["image"]
    assert [d["name"] for d in interpreter.get_output_details()] == [spec.name for spec in servable.outputs]
    # By its number a tensor is the same as by its name.
    picture = photo_like({"batch": 1, "height": 24, "width": 32}, 5)["image"]
    interpreter.allocate_tensors()
    interpreter.set_tensor(interpreter.get_input_details()[0]["index"], picture)
    interpreter.invoke()
    by_name = Interpreter(str(path)).get_signature_runner()(image=picture)
    for details in interpreter.get_output_details():
        np.testing.assert_array_equal(interpreter.get_tensor(details["index"]), by_name[details["name"]])


def test_litert_carries_label_files(served: tuple[Path, export.Report]) -> None:
    path = served[0] / "labels.tflite"
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["labels.txt", "probabilities.txt"]
        assert archive.read("labels.txt").decode().splitlines() == list(NAMES)
    standard = litert_metadata.read(path, litert_metadata.STANDARD)
    assert b"labels.txt" in standard
    assert b"height" in standard  # dimensions by name, not by size
    outputs = export.read_metadata(path)["outputs"]
    assert [output.get("classes") for output in outputs] == [list(NAMES), None, list(NAMES)]


# --- printed lines ----------------------------------------------------------------------------------------------------


def test_printed_lines(served: tuple[Path, export.Report]) -> None:
    docker, ask, show, litert, onnx_ = served[1].next_steps
    assert "serve_png" in ask
    assert "curl -sS --fail-with-body" in ask
    assert "open('overlay.png', 'wb')" in show
    assert "# pip install 'ai-edge-litert>=" in litert
    assert ".resize((32, 24))" in litert
    assert "# pip install 'onnxruntime>=" in onnx_
    assert ".resize(" not in onnx_
    assert "save('overlay.png')" in onnx_
    assert docker.startswith("docker run")


# --- reduced precision ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_labels_are_measured_by_their_share(servable: Servable, tmp_path: Path, precision: str) -> None:
    pictures = [photo_like({"batch": 1, "height": 24, "width": 32}, seed)["image"] for seed in range(50, 58)]
    calibration = pictures if precision == "int8" else None
    report = export.export_servable(
        servable, "labels", tmp_path, formats="onnx", precision=precision, calibration=calibration
    )
    (artifact,) = report.artifacts
    gates = {m["name"]: m["tolerance"] for m in artifact.measured}
    share = servable.min_equal[precision]
    assert gates["labels"] == gates["overlay"] == {"min_equal": share}
    assert gates["probabilities"] == {"min_psnr": servable.min_psnr[precision]}
    if precision == "int8":  # measured on two of the eight, which it was not calibrated with
        assert len(artifact.cases) == 2
    assert f"{100 * share:g} % equal" in (tmp_path / "MODEL_CARD.md").read_text()


def test_wrong_labels_are_refused_whatever_their_psnr(servable: Servable) -> None:
    """A tenth of the labels off by one class has 10 dB more than a tenth off by three, and is no better."""
    spec = servable.outputs[2]
    expected = np.arange(300, dtype="int32").reshape(1, 10, 30) % 3
    found = np.where(np.arange(300).reshape(1, 10, 30) % 10 == 0, (expected + 1) % 3, expected).astype("int32")
    case = verify.Case("serving_default", {}, {}, {"labels": expected})
    demanded = verify._tolerance(servable, spec, "fp16")
    measured, problems = verify._compare(spec, {0: case}, {"0/labels": found}, demanded)
    assert measured is not None
    assert measured.equal == 0.9
    assert problems == ["only 90.00 % of output labels are equal, expected 99 %"]


def test_int8_that_fails_on_made_examples_says_what_would_help(servable: Servable, tmp_path: Path) -> None:
    strict = dataclasses.replace(servable, min_equal={"int8": 1.1})
    with pytest.raises(VerificationError, match="--calibration"):
        export.export_servable(strict, "labels", tmp_path, formats="onnx", precision="int8")


def test_slots_are_paired_before_they_are_compared() -> None:
    random = np.random.default_rng(0)
    corners = random.uniform(0, 80, (2, 5, 2))
    boxes = np.concatenate([corners, corners + random.uniform(5, 15, (2, 5, 2))], axis=2).astype("float32")
    boxes[:, 4] = 0  # a slot left over
    labels, order = random.integers(0, 10, (2, 5)), [2, 0, 1, 4, 3]
    found: Mapping[str, np.ndarray] = {"boxes": boxes[:, order] + 0.01, "labels": labels[:, order]}
    aligned = align_detections({"boxes": boxes, "labels": labels}, found)
    np.testing.assert_allclose(aligned["boxes"], boxes, atol=0.02)
    np.testing.assert_array_equal(aligned["labels"], labels)


# --- ONNX for other runtimes ------------------------------------------------------------------------------------------


def test_older_onnx_that_changes_nothing_says_so(served: tuple[Path, export.Report]) -> None:
    assert "changed nothing" in served[1].artifacts[2].note
    assert "changed nothing" in (served[0] / "MODEL_CARD.md").read_text()
    assert "changed nothing" not in served[1].artifacts[1].note


def test_nearest_neighbors_without_a_deprecated_mode(exported: tuple[Path, export.Report]) -> None:
    model = onnx.load(str(exported[0] / "waves.onnx"))
    (resize,) = (node for node in model.graph.node if node.op_type == "Resize")
    modes = {a.name: a.s for a in resize.attribute if a.type == onnx.AttributeProto.STRING}
    assert modes["coordinate_transformation_mode"] == b"half_pixel"
    assert modes["nearest_mode"] == b"round_prefer_ceil"


def test_loops_hand_their_variables_on_by_an_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO refuses a body whose output is its own input; the result is the same to the bit."""
    monkeypatch.syspath_prepend(str(Path(export.__file__).parent / "runners"))
    from onnx_repairs import repaired  # type: ignore[import-not-found]

    helper, floats, whole = onnx.helper, onnx.TensorProto.FLOAT, onnx.TensorProto.INT64
    body = helper.make_graph(
        [
            helper.make_node("Add", ["total", "same"], ["more"]),
            helper.make_node("Identity", ["going"], ["still"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("step", whole, []),
            helper.make_tensor_value_info("going", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("total", floats, [2]),
            helper.make_tensor_value_info("same", floats, [2]),
        ],
        [
            helper.make_tensor_value_info("still", onnx.TensorProto.BOOL, []),
            helper.make_tensor_value_info("more", floats, [2]),
            helper.make_tensor_value_info("same", floats, [2]),
        ],
    )
    graph = helper.make_graph(
        [helper.make_node("Loop", ["times", "", "x", "x"], ["sum", "x_again"], body=body)],
        "loop",
        [helper.make_tensor_value_info("x", floats, [2])],
        [helper.make_tensor_value_info("sum", floats, [2]), helper.make_tensor_value_info("x_again", floats, [2])],
        [helper.make_tensor("times", whole, [], [3])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9)
    x = np.array([1.5, -2.0], "float32")

    def answers() -> list[np.ndarray]:
        content = model.SerializeToString()
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        return session.run(None, {"x": x})

    before = answers()
    assert repaired(model) is model
    onnx.checker.check_model(model, full_check=True)
    inner = model.graph.node[0].attribute[0].g
    assert not {value.name for value in inner.input} & {value.name for value in inner.output}
    for one, other in zip(before, answers(), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(before[0], 4 * x)
