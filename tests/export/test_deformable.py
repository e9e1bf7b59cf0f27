"""Deformable layers in every format: executed, equal, one operator where there is one, and safe from bad offsets."""

import collections

import keras
import numpy as np
import onnx
import onnxruntime
import pytest
import tensorflow as tf
from ai_edge_litert.interpreter import Interpreter

import kerasmodels as km
from kerasmodels import export
from kerasmodels.errors import UsageError
from kerasmodels.family import Servable, TensorSpec


def shaken(model, offsets=0.4):
    """With offsets that reach a few pixels, some out of the picture."""
    random = np.random.default_rng(5)
    for weight in model.weights:
        weight.assign(random.normal(0, offsets if "offset" in weight.name else 0.2, weight.shape))
    return model


def convolutions(offsets=0.4):
    """Version 1 and 2, grouped, strided and dilated, one after the other."""
    inputs = x = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(4, 3, padding="same", activation="relu")(x)
    x = km.layers.DeformableConv2D(8, 3, padding="same", dilation_rate=2, deformable_groups=2, activation="tanh")(x)
    x = km.layers.DeformableConv2D(4, (3, 2), 2, ((1, 1), (0, 1)), groups=2, modulated=True, activation="tanh")(x)
    return shaken(keras.Model(inputs, x), offsets)


def of_pictures(model, stride=2):
    def call(image):
        return {"features": model(image, training=False)}

    def example(dims, seed):
        shape = (dims["batch"], dims["height"], dims["width"], 3)
        return {"image": np.random.default_rng(seed).normal(size=shape).astype("float32")}

    return Servable(
        call,
        model,
        (TensorSpec("image", ("batch", "height", "width", 3), "float32", "anything"),),
        (TensorSpec("features", ("batch", "rows", "columns", 4), "float32", "features"),),
        example,
        {"batch": 1, "height": 14, "width": 13},
        ({"height": 16, "width": 19},),
    )


def test_convolutions_in_every_format(tmp_path):
    servable = of_pictures(convolutions())
    report = export.export_servable(servable, "net", tmp_path)
    saved_model, litert, onnx_file = report.artifacts
    assert all(artifact.verified for artifact in report.artifacts)
    assert onnx_file.opset == 19
    assert onnx_file.operators["DeformConv"] == 2
    assert not onnx_file.operators.keys() & {"Gather", "GatherND", "Floor"}
    assert not [name for name in litert.operators if name.startswith(("Flex", "CUSTOM"))]
    assert saved_model.operators["GatherV2"] >= 8


def test_convolutions_for_older_runtimes(tmp_path):
    servable = of_pictures(convolutions())
    (artifact,) = export.export_servable(servable, "net", tmp_path, formats="onnx", older_onnx=True).artifacts
    assert artifact.verified
    assert artifact.opset == 18
    assert "DeformConv" not in artifact.operators
    with pytest.raises(UsageError, match="older_onnx is for the format onnx"):
        export.export_servable(servable, "net", tmp_path, formats="litert", older_onnx=True)


def given_offsets():
    """A deformable convolution whose offsets are an input."""
    inputs = [keras.Input((9, 8, 4)), keras.Input((9, 8, 18))]
    model = keras.Model(inputs, km.layers.DeformableConv2D(3, 3, padding="same")(inputs))
    specs = tuple(
        TensorSpec(name, ("batch", 9, 8, channels), "float32", name) for name, channels in (("image", 4), ("moves", 18))
    )

    def call(image, moves):
        return {"y": model([image, moves])}

    def example(dims, seed):
        random = np.random.default_rng(seed)
        return {s.name: random.normal(size=s.bind(dims)).astype("float32") * 2 for s in specs}

    outputs = (TensorSpec("y", ("batch", 9, 8, 3), "float32", "y"),)
    return Servable(call, model, specs, outputs, example, {"batch": 1})


def test_bad_offsets_harm_no_runtime(tmp_path):
    servable = given_offsets()
    report = export.export_servable(servable, "moved", tmp_path)
    arrays = servable.example({"batch": 1}, 3)
    random = np.random.default_rng(0)
    for value in (np.nan, np.inf, -np.inf, 3e9, -1e30):
        arrays["moves"][random.random(arrays["moves"].shape) < 0.1] = value
    expected = servable.call(**arrays)["y"]
    assert np.isfinite(expected).all()
    paths = {a.format: tmp_path / a.path for a in report.artifacts}

    session = onnxruntime.InferenceSession(paths["onnx"])
    np.testing.assert_allclose(session.run(["y"], arrays)[0], expected, atol=1e-4)
    kinds = collections.Counter(node.op_type for node in onnx.load(paths["onnx"]).graph.node)
    assert kinds["DeformConv"] == 1

    interpreter = Interpreter(str(paths["litert"]))
    answer = interpreter.get_signature_runner("serving_default")(**arrays)
    np.testing.assert_allclose(answer["y"], expected, atol=1e-4)

    served = tf.saved_model.load(str(paths["saved_model"])).signatures["serving_default"]
    answer = served(**{name: tf.constant(array) for name, array in arrays.items()})
    np.testing.assert_allclose(answer["y"], expected, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_convolutions_in_reduced_precision(precision, tmp_path):
    # On noise, an offset rounded to 8 bits finds another value altogether where offsets are large.
    servable = of_pictures(convolutions(offsets=0.05))
    report = export.export_servable(servable, "net", tmp_path, formats="onnx,litert", precision=precision)
    assert all(artifact.verified for artifact in report.artifacts)
    assert report.artifacts[-1].operators["DeformConv"] == 2


def test_region_pooling_in_every_format(tmp_path):
    inputs = [keras.Input((None, None, 18)), keras.Input((5,))]
    offsets = keras.layers.Conv2D(18, 1, name="offsets")(inputs[0])
    pooled = [
        km.layers.RoIPooling(3, 2, 1 / 4)(inputs),
        km.layers.DeformableRoIPooling(3, 2, 1 / 4)(inputs),
        km.layers.PSRoIPooling(3, 2, 1 / 4)(inputs),
        km.layers.DeformablePSRoIPooling(3, 2, 1 / 4)([*inputs, offsets]),
    ]
    model = shaken(keras.Model(inputs, keras.layers.Concatenate()(pooled)))

    def call(features, rois):
        return {"pooled": model([features, rois])}

    def example(dims, seed):
        random = np.random.default_rng(seed)
        size = np.array([dims["width"], dims["height"]]) * 4
        corners = np.sort(random.random((dims["regions"], 2, 2)), axis=1) * size * 0.8
        corners[:, 1] += 4
        picture = random.integers(0, dims["batch"], (dims["regions"], 1))
        features = random.normal(size=(dims["batch"], dims["height"], dims["width"], 18))
        rois = np.concatenate([picture, corners.reshape(-1, 4)], 1)
        return {"features": features.astype("float32"), "rois": np.round(rois).astype("float32")}

    servable = Servable(
        call,
        model,
        (
            TensorSpec("features", ("batch", "height", "width", 18), "float32", "features"),
            TensorSpec("rois", ("regions", 5), "float32", "regions"),
        ),
        (TensorSpec("pooled", ("regions", 3, 3, 40), "float32", "pooled"),),
        example,
        {"batch": 1, "height": 7, "width": 9, "regions": 3},
        ({"height": 10, "regions": 6},),
    )
    report = export.export_servable(servable, "regions", tmp_path)
    assert [artifact.verified for artifact in report.artifacts] == [True] * 3
