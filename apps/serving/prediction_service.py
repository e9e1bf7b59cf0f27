"""TensorFlow Serving's gRPC PredictionService, of which Predict is answered. Importing it imports TensorFlow."""

from concurrent import futures
from typing import Any

import numpy as np

from kerasmodels.apps.serving import tensors
from kerasmodels.apps.serving.models import Repository
from kerasmodels.errors import KerasModelsError, ServingError, UsageError

try:
    import grpc
    import tensorflow as tf
    from tensorflow_serving.apis import predict_pb2, prediction_service_pb2_grpc
except ImportError as missing:
    raise KerasModelsError(
        f"{missing}. gRPC needs TensorFlow Serving's API: pip install tensorflow-serving-api"
    ) from missing

CODES = {
    400: grpc.StatusCode.INVALID_ARGUMENT,
    404: grpc.StatusCode.NOT_FOUND,
    413: grpc.StatusCode.RESOURCE_EXHAUSTED,
    415: grpc.StatusCode.INVALID_ARGUMENT,
    503: grpc.StatusCode.UNAVAILABLE,
    504: grpc.StatusCode.DEADLINE_EXCEEDED,
}


class _Service(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, repository: Repository):
        self._repository = repository

    def Predict(self, request: Any, context: Any) -> Any:
        try:
            return self._predict(request)
        except ServingError as error:
            context.abort(CODES.get(error.status, grpc.StatusCode.INTERNAL), str(error))
        except Exception as error:  # Runtimes raise anything for shapes that they do not like.
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, f"the model could not compute this: {error}"[:500])

    def _predict(self, request: Any) -> Any:
        name = request.model_spec.name
        version = request.model_spec.version.value if request.model_spec.HasField("version") else None
        model = self._repository.find(name, version)
        arrays = {}
        for key, proto in request.inputs.items():
            try:
                arrays[key] = tf.make_ndarray(proto)
            except (TypeError, ValueError, KeyError) as error:
                raise ServingError(400, f"expected {key} to be a tensor. Received: {error}.") from None
        signature = request.model_spec.signature_name
        if tensors.takes_files(signature):
            arrays = _pictures(arrays, model)
        found = self._repository.submit(name, arrays, version).result()
        if signature == tensors.PNG_SIGNATURE:
            found = {key: np.array(files, object) for key, files in tensors.as_files(found, model).items()}
        answer = predict_pb2.PredictResponse()
        answer.model_spec.name = name
        answer.model_spec.version.value = model.version
        answer.model_spec.signature_name = signature
        for key in request.output_filter or found:
            if key not in found:
                raise ServingError(400, f"unknown output {key!r}. Known: {', '.join(found)}.")
            answer.outputs[key].CopyFrom(tf.make_tensor_proto(found[key]))
        return answer


def _pictures(arrays: dict[str, np.ndarray], model: Any) -> dict[str, np.ndarray]:
    spec = tensors.picture_input(model)
    files = arrays.get(spec["name"] + tensors.BYTES_SUFFIX)
    if files is None or files.dtype.kind not in "SO" or files.ndim != 1 or not files.size or len(arrays) > 1:
        raise ServingError(400, f"expected {spec['name']}{tensors.BYTES_SUFFIX}, a list of files.")
    if len(files) > model.limits.rows:
        raise ServingError(413, f"expected at most {model.limits.rows} files. Received: {len(files)}.")
    pictures = [tensors.read_picture(bytes(file), model) for file in files.tolist()]
    if len({picture.shape for picture in pictures}) > 1:
        raise ServingError(400, "expected pictures of one size in a request. Send the others on their own.")
    return {spec["name"]: np.stack(pictures)}


def start(repository: Repository, host: str, port: int, body: int) -> Any:
    """A gRPC server that answers for the models; `stop(seconds)` ends it.

    Raises:
        UsageError: the address cannot be had.
    """
    options = [
        ("grpc.max_receive_message_length", body),
        ("grpc.max_send_message_length", -1),
        ("grpc.so_reuseport", 0),
    ]
    # Beyond so many at a time, RESOURCE_EXHAUSTED is the answer.
    made = grpc.server(futures.ThreadPoolExecutor(16), options=options, maximum_concurrent_rpcs=64)
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(_Service(repository), made)
    try:
        bound = made.add_insecure_port(f"{host}:{port}")
    except RuntimeError as error:
        raise UsageError(f"expected an address for gRPC. Received: {host}:{port} ({error}).") from error
    made.start()
    made.bound_port = bound
    return made
