"""Files for TensorFlow Serving, Triton, docker-compose and Kubernetes: read by what reads them, and honest."""

import shutil
from pathlib import Path
from typing import Any

import pytest
import yaml
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

from kerasmodels import export, storage
from kerasmodels.errors import UsageError
from kerasmodels.export import deployment
from kerasmodels.export.to_onnx import triton_config

SERIES = {
    "precision": "fp32",
    "dims": {"batch": 1},
    "inputs": [{"name": "latent", "dtype": "float32", "shape": ["batch", 16], "kind": "tensor"}],
    "outputs": [{"name": "score", "dtype": "float32", "shape": ["batch"], "kind": "tensor"}],
}


@pytest.fixture
def served(exported: tuple[Path, export.Report], tmp_path: Path) -> Path:
    return Path(shutil.copytree(exported[0], tmp_path / "served"))


def _container(path: Path) -> Any:
    first, second = yaml.safe_load_all(path.read_text())
    assert (first["kind"], second["kind"]) == ("Deployment", "Service")
    (container,) = first["spec"]["template"]["spec"]["containers"]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert set(container["resources"]["limits"]) == {"cpu", "memory"}
    return container


def test_tensorflow_serving(served: Path) -> None:
    written = deployment.write(served, "serving")
    config = text_format.Parse(
        (served / "saved_model/models.config").read_text(), model_server_config_pb2.ModelServerConfig()
    )
    assert [model.name for model in config.model_config_list.config] == ["waves"]
    compose = yaml.safe_load(written[-2].read_text())["services"]["tensorflow-serving"]
    # Its pictures may be of any size, which TensorFlow Serving would put into one batch, and refuse.
    assert "--enable_batching" not in compose["command"]
    assert "waves would be refused" in written[-2].read_text()
    assert (served / compose["volumes"][0].partition(":")[0]).is_dir()
    assert _container(written[-1])["args"] == compose["command"]
    assert deployment.write(served, "serving") == written


def test_batching_is_for_inputs_of_one_size() -> None:
    assert deployment.batches_alike(SERIES["inputs"])  # type: ignore[arg-type]
    assert not deployment.batches_alike([{"shape": ["batch", "time", 4], "kind": "tensor"}])
    assert not deployment.batches_alike([{"shape": ["batch", 64, 64, 3], "kind": "image"}])  # serve_bytes takes files


def test_triton(served: Path) -> None:
    written = deployment.write(served, "triton")
    model = served / "triton/waves/1/model.onnx"
    assert storage.sha256(model) == storage.sha256(served / "waves.onnx")
    text = (served / "triton/waves/config.pbtxt").read_text()
    assert "max_batch_size: 8" in text
    assert 'name: "image" data_type: TYPE_UINT8 dims: [ -1, -1, 3 ]' in text
    assert 'key: "image" value: { data_type: TYPE_UINT8 dims: [ 32, 40, 3 ]' in text
    assert _container(written[-1])["command"] == ["tritonserver"]
    # The same file is no new version; another one is.
    deployment.write(served, "triton")
    assert [path.name for path in model.parents[1].glob("*/")] == ["1"]
    index = storage.reading.read_json(served / "export.json")
    (served / "waves.onnx").write_bytes(b"another")
    (artifact,) = (a for a in index["models"]["waves"]["artifacts"] if a["format"] == "onnx")
    artifact["sha256"] = storage.sha256(served / "waves.onnx")
    storage.write_json(served / "export.json", index)
    deployment.write(served, "triton")
    assert (served / "triton/waves/2/model.onnx").read_bytes() == b"another"


def test_triton_s_batch() -> None:
    text = triton_config("m", SERIES)
    assert 'name: "score" data_type: TYPE_FP32 dims: [ 1 ] reshape: { shape: [ ] }' in text
    assert "dynamic_batching" in text
    alone = {**SERIES, "inputs": [{"name": "x", "dtype": "int32", "shape": ["length"], "kind": "tensor"}]}
    assert "max_batch_size: 0" in triton_config("m", alone)
    assert "dynamic_batching" not in triton_config("m", alone)


def test_what_cannot_be_served_is_said(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="Known: serving, triton"):
        deployment.write(tmp_path, "torchserve")
    with pytest.raises(UsageError, match="expected onnx artifacts"):
        deployment.write(tmp_path, "triton")
