"""SavedModel for TensorFlow Serving: two signatures, warm-up requests, metadata."""

import json
import shlex
import struct
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from kerasmodels.export.deployment import Server, batches_alike, manifests
from kerasmodels.export.formats import Exporter
from kerasmodels.export.report import Artifact
from kerasmodels.family import Servable, TensorSpec

if TYPE_CHECKING:
    from kerasmodels.export.order import Order

METADATA = "kerasmodels.json"
ROOT = "saved_model"
MODELS_CONFIG = "models.config"
BATCHING_CONFIG = "batching.config"
MONITORING_CONFIG = "monitoring.config"
MONITORING = 'prometheus_config { enable: true, path: "/monitoring/prometheus/metrics" }\n'
BATCHING = """\
# Passed to tensorflow_model_server with --enable_batching --batching_parameters_file=/models/batching.config
# Only for models whose inputs have one size. The server puts requests of different sizes into one batch, too, and then
# refuses all of them (FAILED_PRECONDITION); in serve_bytes, one picture of another size or one that cannot be decoded
# fails the whole batch.
max_batch_size { value: 8 }
batch_timeout_micros { value: 2000 }
max_enqueued_batches { value: 64 }
num_batch_threads { value: 2 }
"""


class SavedModel(Exporter):
    """A folder for each version of a model, as TensorFlow Serving wants it, and configuration files for the server."""

    def make(self, orders: "Sequence[Order]") -> list[dict[str, Any]]:
        return [_make(order) for order in orders]

    def operators(self, path: Path) -> dict[str, int]:
        """How often each TensorFlow operator occurs in the default signature, most frequent first."""
        from tensorflow.core.protobuf import saved_model_pb2

        definition = saved_model_pb2.SavedModel.FromString((path / "saved_model.pb").read_bytes()).meta_graphs[0]
        functions = {f.signature.name: f for f in definition.graph_def.library.function}
        found: Counter[str] = Counter()

        def walk(nodes: Any) -> None:
            for node in nodes:
                if node.op in ("PartitionedCall", "StatefulPartitionedCall"):
                    walk(functions[node.attr["f"].func.name].node_def)
                elif node.op not in ("Placeholder", "Identity", "NoOp", "Const"):
                    found[node.op] += 1

        # The exported graph calls one function per signature; its name carries the signature's.
        wrappers = [n for n in definition.graph_def.node if "signature_wrapper" in n.attr["f"].func.name]
        output = next(iter(definition.signature_def["serving_default"].outputs.values())).name
        name = output.partition(":")[0]
        walk([n for n in wrappers if n.name == name])
        return dict(found.most_common())

    def read_metadata(self, path: Path) -> dict[str, Any]:
        return json.loads((path / "assets.extra" / METADATA).read_text())

    def limits(self, artifacts: Sequence[Artifact]) -> list[str]:
        return [
            "the pictures of one call of `serving_default` or `serve_bytes` must have one size, and those of requests "
            "that the server batches, too; one file that cannot be decoded fails the whole call. `serve_png` takes "
            "pictures of several sizes. Neither applies the EXIF rotation inside a JPEG; both lay transparency over "
            "white."
        ]

    def place(self, out: Path, name: str, file_name: str) -> Path:
        return Path(ROOT, name, str(max(_versions(out).get(name, [0])) + 1))

    def server_files(self, out: Path, names: Sequence[str]) -> dict[str, str]:
        """Configuration files for TensorFlow Serving, where the user has not written their own."""
        files, root, before = {}, out / ROOT, sorted(_versions(out))
        config = root / MODELS_CONFIG
        if not config.exists() or config.read_text() == models_config(before):
            files[f"{ROOT}/{MODELS_CONFIG}"] = models_config(sorted({*before, *names}))
        if not (root / BATCHING_CONFIG).exists():
            files[f"{ROOT}/{BATCHING_CONFIG}"] = BATCHING
        return files

    def deployment(self, out: Path, models: Mapping[str, Mapping[str, Any]]) -> dict[str, str | Path]:
        """TensorFlow Serving's configuration and manifests. Requests are batched only where no sizes can be mixed."""
        names = sorted(models)
        mixed = [name for name in names if not batches_alike(models[name]["about"]["inputs"])]
        flags = [
            f"--model_config_file=/models/{MODELS_CONFIG}",
            f"--monitoring_config_file=/models/{MONITORING_CONFIG}",
        ]
        why = [f"Batching is off: {', '.join(mixed)} would be refused batches of mixed sizes, see {BATCHING_CONFIG}."]
        if not mixed:
            flags += ["--enable_batching", f"--batching_parameters_file=/models/{BATCHING_CONFIG}"]
            why = ["Batching is on: all models take inputs of one size."]
        server = Server(
            name="tensorflow-serving",
            image="tensorflow/serving",
            folder=ROOT,
            mounted="/models",
            command=[],
            arguments=flags,
            ports={"grpc": 8500, "http": 8501},
            ready=f"/v1/models/{names[0]}",
            notes=why,
        )
        return {
            f"{ROOT}/{MODELS_CONFIG}": models_config(names),
            f"{ROOT}/{BATCHING_CONFIG}": BATCHING,
            f"{ROOT}/{MONITORING_CONFIG}": MONITORING,
            **manifests("serving", server),
        }

    def next_steps(self, artifact: Artifact, servable: Servable, path: Path) -> list[str]:
        """Lines that serve the model and ask it something."""
        from kerasmodels.export import signatures

        name, root = path.parent.name, path.parent.parent
        serve = (
            f"docker run --rm -p 8500:8500 -p 8501:8501 -v {shlex.quote(f'{root}:/models')} tensorflow/serving "
            "--model_config_file=/models/models.config"
        )
        url = f"http://localhost:8501/v1/models/{name}:predict"
        if signatures.picture_input(servable) is None:
            shapes = {
                s.name: tuple(artifact.dims[d] if isinstance(d, str) else d for d in s.shape) for s in servable.inputs
            }
            dtypes = {s.name: "U1" if s.dtype == "string" else s.dtype for s in servable.inputs}
            zeros = ", ".join(f"'{k}': np.zeros({shapes[k]}, '{dtype}').tolist()" for k, dtype in dtypes.items())
            body = f"import json, numpy as np; print(json.dumps({{'inputs': {{{zeros}}}}}))"
            return [serve, f'python -c "{body}" | curl -sS --fail-with-body -d @- {url}']
        # The picture goes through a pipe: as an argument it would be too long.
        files = signatures.png_outputs(servable)
        ask = (
            f'(printf \'{{"signature_name": "{signatures.PNG if files else signatures.BYTES}", '
            '"instances": [{"b64": "\'; '
            "base64 < photo.jpg | tr -d '\\n'; printf '\"}]}') "
            f"| curl -sS --fail-with-body -d @- {url} > answer.json"
        )
        return [serve, ask, *([_written(files)] if files else [])]


def _written(files: Sequence[TensorSpec]) -> str:
    """A line that makes pictures of the answer of the signature which returns `files`."""
    from kerasmodels.export import signatures

    lines = ["import base64, json", "answer = json.load(open('answer.json'))['predictions'][0]"]
    for spec in files:
        # Of one output the answer is the value itself, of several a mapping.
        value = f"answer['{signatures.bytes_name(spec)}']" if len(files) > 1 else "answer"
        lines.append(f"open('{spec.name}.png', 'wb').write(base64.b64decode({value}['b64']))")
    return f'python -c "{"; ".join(lines)}"'


def _make(order: "Order") -> dict[str, Any]:
    """Write the folder; returns versions."""
    import tensorflow as tf

    from kerasmodels.export import signatures

    order.sources.write(order.path, order.bound(), accept_bytes=True)
    extra = order.path / "assets.extra"
    extra.mkdir(exist_ok=True)
    (extra / METADATA).write_text(json.dumps(order.metadata, indent=2) + "\n")
    inputs = order.servable.example(order.dims, 0)
    requests = [(signatures.DEFAULT, {k: tf.make_tensor_proto(v) for k, v in inputs.items()})]
    picture = signatures.picture_input(order.servable)
    if picture is not None:
        files = [tf.io.encode_png(image).numpy() for image in inputs[picture.name]]
        requests.append((signatures.BYTES, {signatures.bytes_name(picture): tf.make_tensor_proto(files)}))
    with tf.io.TFRecordWriter(str(extra / "tf_serving_warmup_requests")) as writer:
        for signature, tensors in requests:
            encoded = {name: tensor.SerializeToString() for name, tensor in tensors.items()}
            writer.write(prediction_log(order.name, signature, encoded))
    return {"versions": {"tensorflow": tf.__version__}}


def _field(number: int, content: bytes) -> bytes:
    """One length-delimited protobuf field."""

    def varint(value: int) -> bytes:
        encoded = bytearray()
        while value > 0x7F:
            encoded.append(value & 0x7F | 0x80)
            value >>= 7
        return bytes([*encoded, value])

    return varint(number << 3 | 2) + varint(len(content)) + content


def prediction_log(model: str, signature: str, tensors: dict[str, bytes]) -> bytes:
    """A serialized `tensorflow.serving.PredictionLog` that holds one predict request.

    Written field by field, because the package that defines the message (tensorflow-serving-api) would otherwise be
    the only thing needed of it. Numbers: PredictionLog.predict_log 6, PredictLog.request 1, PredictRequest.model_spec
    1 and .inputs 2 (a map: key 1, value 2), ModelSpec.name 1 and .signature_name 3.

    Args:
        model: name the server knows the model by.
        signature: name of the signature.
        tensors: a serialized TensorProto for each input.
    """
    spec = _field(1, model.encode()) + _field(3, signature.encode())
    inputs = b"".join(_field(2, _field(1, name.encode()) + _field(2, value)) for name, value in tensors.items())
    return _field(6, _field(1, _field(1, spec) + inputs))


def read_records(path: Path) -> list[bytes]:
    """The records of a TFRecord file, without TensorFlow (checksums are not checked)."""
    content, records, at = path.read_bytes(), [], 0
    while at < len(content):
        (length,) = struct.unpack_from("<Q", content, at)
        records.append(content[at + 12 : at + 12 + length])
        at += 12 + length + 4
    return records


def models_config(names: list[str]) -> str:
    """A TensorFlow Serving configuration file for models mounted below /models."""
    entries = "".join(
        f'  config {{\n    name: "{name}"\n    base_path: "/models/{name}"\n    model_platform: "tensorflow"\n  }}\n'
        for name in names
    )
    return f"model_config_list {{\n{entries}}}\n"


def _versions(out: Path) -> dict[str, list[int]]:
    """The served models of an output folder, and their versions."""
    root = out / ROOT
    folders = sorted(p for p in root.iterdir() if p.is_dir()) if root.is_dir() else []
    found = {folder.name: sorted(int(p.name) for p in folder.iterdir() if p.name.isdecimal()) for folder in folders}
    return {model: numbers for model, numbers in found.items() if numbers}


EXPORTER = SavedModel()
