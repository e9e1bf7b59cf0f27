"""TensorFlow Serving's own client asks over gRPC."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc

from kerasmodels.apps.serving import prediction_service
from kerasmodels.apps.serving.models import Limits, Repository
from kerasmodels.data.images import read_image
from kerasmodels.export.runners.runtimes import DEFAULT, onnxruntime
from tests.apps.serving.servers import bomb, picture_file


@pytest.fixture(scope="module")
def stub(folder: Path) -> Iterator[Any]:
    repository = Repository(folder, Limits(), threads=1)
    repository.start(60)
    server = prediction_service.start(repository, "127.0.0.1", 0, 1 << 20)
    with grpc.insecure_channel(f"127.0.0.1:{server.bound_port}") as channel:
        yield prediction_service_pb2_grpc.PredictionServiceStub(channel)
    server.stop(1).wait()
    repository.close()


def _request(model: str, signature: str = "serving_default", **inputs: Any) -> Any:
    request = predict_pb2.PredictRequest()
    request.model_spec.name, request.model_spec.signature_name = model, signature
    for name, value in inputs.items():
        request.inputs[name].CopyFrom(tf.make_tensor_proto(value))
    return request


def test_arrays_and_files(stub: Any, folder: Path) -> None:
    rng = np.random.default_rng(0)
    given = {k: rng.normal(size=s).astype("float32") for k, s in (("series", (2, 6, 4)), ("scale", (2, 4)))}
    answer = stub.Predict(_request("series", **given), timeout=20)
    for name, values in onnxruntime(str(folder / "series.onnx"), 1).call(DEFAULT, given).items():
        assert np.array_equal(tf.make_ndarray(answer.outputs[name]), values)
    assert answer.model_spec.version.value == 1
    file = picture_file(30, 40, "JPEG")
    answer = stub.Predict(_request("waves", "serve_bytes", image_bytes=[file]), timeout=20)
    wanted = onnxruntime(str(folder / "waves.onnx"), 1).call(DEFAULT, {"image": read_image(file)[None]})
    assert np.array_equal(tf.make_ndarray(answer.outputs["stylized"]), wanted["stylized"])
    answer = stub.Predict(_request("waves", "serve_png", image_bytes=[file]), timeout=20)
    (png,) = tf.make_ndarray(answer.outputs["stylized_bytes"])
    assert np.array_equal(read_image(png), wanted["stylized"][0])


@pytest.mark.parametrize(
    ("request_", "code"),
    [
        (_request("nobody"), grpc.StatusCode.NOT_FOUND),
        (_request("series", "serve_jpg", series=[1.0]), grpc.StatusCode.INVALID_ARGUMENT),
        (_request("series", series=[1.0]), grpc.StatusCode.INVALID_ARGUMENT),
        (_request("waves", image=np.zeros((1, 4, 4, 3), "float32")), grpc.StatusCode.INVALID_ARGUMENT),
        (_request("waves", "serve_bytes", image_bytes=[b"none"]), grpc.StatusCode.INVALID_ARGUMENT),
        (_request("waves", "serve_bytes", image_bytes=[bomb()]), grpc.StatusCode.RESOURCE_EXHAUSTED),
        (_request("waves", image=np.zeros((1, 900, 900, 3), "uint8")), grpc.StatusCode.RESOURCE_EXHAUSTED),
    ],
    ids=["model", "signature", "inputs", "dtype", "file", "bomb", "size"],
)
def test_what_is_wrong_has_a_code(stub: Any, request_: Any, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.RpcError) as error:
        stub.Predict(request_, timeout=20)
    assert error.value.code() == code
