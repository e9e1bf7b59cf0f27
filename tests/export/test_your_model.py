"""Models that are none of the families': what is found out about them, and that their artifacts are equal."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras import layers

from kerasmodels import export
from kerasmodels.errors import UsageError
from kerasmodels.servables import of_keras_model
from tests.export import foreign


def _served(name: str) -> Any:
    make, arguments = foreign.MODELS[name]
    return of_keras_model(make(), **arguments)


@pytest.mark.parametrize(
    ("name", "inputs", "outputs"),
    [
        ("autoencoder", {"input": ("batch", 28, 28, 1)}, {"output": ("batch", 28, 28, 1)}),
        ("lstm_classifier", {"input": ("batch", "length")}, {"output": ("batch", 1)}),
        ("gru_tagger", {"input": ("batch", "length", 4)}, {"output": ("batch", "length", 2)}),
        ("unet", {"input": ("batch", "height", "width", 3)}, {"mask": ("batch", "height", "width", 2)}),
        ("string_lookup", {"word": ("batch", 1)}, {"output": ("batch", 2)}),
        (
            "two_inputs",
            {"age": ("batch", 4), "history": ("batch", 3, 5)},
            {"kind": ("batch", 3), "score": ("batch", 1)},
        ),
        ("nested", {"input": ("batch", 16)}, {"left": ("batch", 1), "right": ("batch", 2)}),
        ("subclassed", {"left": ("batch", 3), "right": ("batch", 2)}, {"sum": ("batch", 4)}),
        ("volumes", {"input": ("batch", 8, 16, 16, 1)}, {"output": ("batch", 2)}),
    ],
)
def test_names_and_shapes(name: str, inputs: dict[str, Any], outputs: dict[str, Any]) -> None:
    servable = _served(name)
    assert {spec.name: spec.shape for spec in servable.inputs} == inputs
    assert {spec.name: spec.shape for spec in servable.outputs} == outputs


def test_sizes_that_halve_and_sizes_of_several_inputs() -> None:
    image, other = keras.Input((None, None, 3), name="image"), keras.Input((None, 2), name="other")
    small = layers.AveragePooling2D(4)(image)
    model = keras.Model([image, other], [small, layers.Dense(1)(other)])
    servable = of_keras_model(model)
    assert [spec.shape for spec in servable.inputs] == [
        ("batch", "image_height", "image_width", 3),
        ("batch", "other_length", 2),
    ]
    assert [(spec.name, spec.shape) for spec in servable.outputs] == [
        ("output_0", ("batch", "output_0_size_1", "output_0_size_2", 3)),
        ("output_1", ("batch", "other_length", 1)),
    ]


@pytest.mark.parametrize("name", ["normalized", "mixed_precision", "subclassed", "unet"])
def test_every_format_is_proven(name: str, tmp_path: Path) -> None:
    make, arguments = foreign.MODELS[name]
    model = make()
    before = [layer.dtype_policy.name for layer in model.layers]
    report = export.export(model, tmp_path, **arguments)
    assert [artifact.format for artifact in report.artifacts] == [form.name for form in export.FORMATS]
    assert all(artifact.verified and artifact.executed for artifact in report.artifacts)
    assert {spec["dtype"] for artifact in report.artifacts for spec in artifact.outputs} == {"float32"}
    assert [layer.dtype_policy.name for layer in model.layers] == before
    if name == "unet":
        assert all(artifact.inputs[0]["kind"] == "image" and artifact.hostile for artifact in report.artifacts)


def test_text_goes_into_a_saved_model(tmp_path: Path) -> None:
    model = foreign.string_lookup()
    (artifact,) = export.export(model, tmp_path, formats="saved_model").artifacts
    assert artifact.verified
    assert artifact.inputs[0]["dtype"] == "string"
    with pytest.raises(UsageError, match="string_lookup does not exist as litert in fp32: text goes in or out"):
        export.export(model, tmp_path, formats="litert")


def test_pixels_are_turned_into_what_the_model_takes() -> None:
    model = keras.Sequential([keras.Input((2, 2, 3)), layers.Activation("linear")])
    picture = np.arange(12, dtype="uint8").reshape(1, 2, 2, 3) * 20
    for name in ("tf", "torch", "caffe"):
        answer = of_keras_model(model, preprocess=name).call(input=picture)["output"]
        wanted = keras.applications.imagenet_utils.preprocess_input(picture.astype("float32"), mode=name)
        np.testing.assert_allclose(answer, wanted, rtol=0, atol=1e-5)
    doubled = of_keras_model(model, preprocess=lambda x: 2 * x).call(input=picture)["output"]
    np.testing.assert_array_equal(doubled, 2.0 * picture)


def test_the_example_is_what_it_is_verified_on() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    given = np.arange(12, dtype="float64").reshape(3, 4)
    servable = of_keras_model(model, example=given)
    np.testing.assert_array_equal(servable.example({"batch": 2}, 0)["input"], given[:2].astype("float32"))
    np.testing.assert_array_equal(servable.example({"batch": 2}, 1)["input"], given[[2, 0]].astype("float32"))
    np.testing.assert_array_equal(of_keras_model(model, example=given[0]).example({"batch": 1}, 0)["input"], given[:1])


def test_classes_are_named() -> None:
    model = keras.Sequential([keras.Input((4,)), layers.Dense(2)])
    assert of_keras_model(model, classes=["cat", "dog"]).outputs[0].doc == "of each class: 0 cat, 1 dog"


class _Needs(keras.Model):
    def call(self, left: Any, right: Any) -> Any:
        return left + right


@pytest.mark.parametrize(
    ("model", "arguments", "message"),
    [
        (lambda: "a model", {}, "expected a keras.Model. Received: str"),
        (lambda: keras.Sequential([layers.Dense(2)]), {}, "it has not been built on one array"),
        (_Needs, {}, "its call takes left, right: give arrays"),
        (foreign.normalized, {"example": np.zeros((2, 5))}, r"an example for input of float32 \(batch, 6\)"),
        (foreign.two_inputs, {"example": np.zeros((2, 4))}, "an example for age, history. Received: 1 arrays"),
        (
            foreign.two_inputs,
            {"example": {"age": np.zeros((2, 4)), "history": np.zeros((3, 3, 5))}},
            "as many rows in each input. Received: age 2, history 3",
        ),
        (foreign.normalized, {"preprocess": "tf"}, "preprocess is for a model of one RGB picture"),
        (foreign.unet, {"preprocess": "tff"}, "Did you mean 'tf'"),
        (foreign.nested, {"classes": ["a"]}, "one output whose last axis has the 1 classes"),
        (foreign.string_lookup, {"example": np.zeros((2, 1))}, "an example for word of string"),
    ],
)
def test_what_does_not_fit_is_said(model: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        of_keras_model(model(), **arguments)


def test_a_saved_file_is_loaded_safely(tmp_path: Path) -> None:
    path = tmp_path / "weather 1.keras"
    keras.Sequential([keras.Input((3,)), layers.Dense(2, name="rain")]).save(path)
    report = export.export(path, tmp_path / "out", formats="litert")
    assert report.name == "weather-1"
    assert report.artifacts[0].outputs[0]["name"] == "rain"
    foreign.with_lambda().save(tmp_path / "code.keras")
    (tmp_path / "broken.keras").write_bytes(path.read_bytes()[:500])
    for name in ("code", "broken", "none"):
        with pytest.raises(UsageError, match=f"{name}.keras to be a model saved by Keras 3.*A Lambda layer is code"):
            export.export(tmp_path / f"{name}.keras", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_family_says_itself_what_it_takes(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="preprocess can be given for a Keras model of your own"):
        export.export("closed_form_matting", tmp_path / "out", preprocess="tf")
