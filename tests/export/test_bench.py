"""Timings side by side. What they are depends on the machine; what they are of does not."""

from pathlib import Path

import pytest

from kerasmodels.errors import UsageError
from kerasmodels.export.bench import BASELINE, bench
from kerasmodels.family import Servable


def test_bench(float_servable: Servable, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    lines: list[str] = []
    rows = bench(float_servable, sizes=[{"time": 5}], rounds=3, precisions=["fp32"], progress=lines.append)
    assert capfd.readouterr().err == ""
    assert [(r.runtime, r.precision, r.threads) for r in rows] == [
        ("Keras eager", "fp32", None),
        (BASELINE, "fp32", None),
        ("Keras XLA", "fp32", None),
        ("SavedModel", "fp32", None),
        ("LiteRT", "fp32", 1),
        ("LiteRT", "fp32", 2),
        ("ONNX Runtime", "fp32", 1),
        ("ONNX Runtime", "fp32", 2),
    ]
    base = next(r for r in rows if r.runtime == BASELINE)
    assert base.ratio == 1
    for row in rows:
        assert row.note == ""
        assert row.size == "5"
        assert row.median_ms is not None
        assert row.min_ms is not None
        assert 0 < row.min_ms <= row.median_ms
        assert row.psnr is None or row.psnr > 90
    assert any("3 rounds of 8 contestants" in line for line in lines)


def test_wrong_requests(float_servable: Servable) -> None:
    with pytest.raises(UsageError, match="unknown precision"):
        bench(float_servable, precisions=["int3"])
    with pytest.raises(UsageError, match="at least one round"):
        bench(float_servable, rounds=0)
    with pytest.raises(UsageError, match="no dimension 'height'"):
        bench(float_servable, sizes=[64])
