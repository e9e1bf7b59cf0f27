"""The table of formats and the wording of wrong requests: nothing here needs TensorFlow."""

import subprocess
import sys
from pathlib import Path

import pytest

from kerasmodels.errors import UsageError
from kerasmodels.export import formats
from kerasmodels.export.runners.runtimes import RUNTIMES


def test_table_is_consistent() -> None:
    assert len({f.name for f in formats.FORMATS}) == len({f.suffix for f in formats.FORMATS}) == len(formats.FORMATS)
    for form in formats.FORMATS:
        assert form.precisions[0] == "fp32"
        assert set(form.precisions) <= set(formats.PRECISIONS)
        assert isinstance(form.exporter, formats.Exporter)
        assert form.runtime in RUNTIMES


def test_select_keeps_the_order_of_the_table() -> None:
    assert [f.name for f in formats.select(["onnx", "litert", "onnx"], "fp32")] == ["litert", "onnx"]
    assert [f.name for f in formats.select("onnx, saved_model", "fp32")] == ["saved_model", "onnx"]


@pytest.mark.parametrize(
    ("names", "precision", "words"),
    [
        (["tflit"], "fp32", "unknown format 'tflit'"),
        (["onx"], "fp32", "Did you mean 'onnx'"),
        ([], "fp32", "at least one format of saved_model, litert, onnx"),
        ("onnx", "int4", "unknown precision 'int4'"),
        ("saved_model,litert", "int8", "saved_model does not support precision 'int8'.*ask for formats litert,onnx"),
        ("onnx", "dynamic", "litert: fp32, fp16, dynamic, int8; onnx: fp32, fp16, int8"),
    ],
)
def test_wrong_requests(names: str | list[str], precision: str, words: str) -> None:
    with pytest.raises(UsageError, match=words) as caught:
        formats.select(names, precision)
    assert caught.value.exit_code == 2


def test_read_metadata_of_something_else(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("words")
    (tmp_path / "a.onnx").write_text("words")
    (tmp_path / "a.tflite").write_bytes(bytes(64))
    for name, words in (("a.txt", "ending in .tflite, .onnx"), ("a.onnx", "onnx artifact"), ("none.onnx", "not exist")):
        with pytest.raises(UsageError, match=words):
            formats.read_metadata(tmp_path / name)
    with pytest.raises(UsageError, match="litert artifact"):
        formats.read_metadata(tmp_path / "a.tflite")
    with pytest.raises(UsageError, match="saved_model artifact"):
        formats.read_metadata(tmp_path)


def test_importing_the_table_imports_no_tensorflow(root: Path) -> None:
    code = (
        "import sys; from kerasmodels import export; export.FORMATS; export.Report; export.export_servable; "
        "assert not {'tensorflow', 'keras', 'onnx', 'onnxruntime'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], cwd=root, check=True)


def test_not_importable_under_its_folder_name(root: Path) -> None:
    done = subprocess.run([sys.executable, "-c", "import export"], cwd=root, capture_output=True, text=True)
    assert "imported as `kerasmodels.export`" in done.stderr
