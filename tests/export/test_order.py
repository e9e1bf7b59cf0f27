"""Sizes and calibration examples, as users give them."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from kerasmodels.errors import DataError, UsageError
from kerasmodels.export.order import bind, calibration_examples
from kerasmodels.family import Servable


@pytest.mark.parametrize(
    ("size", "height", "width"),
    [(None, 32, 40), (64, 64, 64), ((20, 30), 20, 30), ("48", 48, 48), ("48x64", 48, 64), ({"width": 8}, 32, 8)],
)
def test_sizes(picture_servable: Servable, size: Any, height: int, width: int) -> None:
    assert bind(picture_servable, size) == ({"batch": 1, "height": height, "width": width}, False)


def test_dynamic_size_keeps_the_sizes_to_check(picture_servable: Servable) -> None:
    assert bind(picture_servable, "dynamic") == ({"batch": 1, "height": 32, "width": 40}, True)


def test_dimensions_other_than_pixels(float_servable: Servable) -> None:
    assert bind(float_servable, {"time": 9}) == ({"batch": 1, "time": 9}, False)
    with pytest.raises(UsageError, match="no dimension 'height' whose size can be chosen"):
        bind(float_servable, 64)


@pytest.mark.parametrize(
    ("size", "words"),
    [
        ("big", 'such as "256" or "256x384"'),
        ("1x2x3", "such as"),
        ("-4", "such as"),
        (0, "at least 1"),
        ((32, -1), "at least 1"),
        ((32, 32, 3), "expected a side"),
        (True, "expected a side"),
        (2.5, "expected a side"),
        ({"depth": 3}, "no dimension 'depth'"),
        ({"batch": 3}, "no dimension 'batch'"),
    ],
)
def test_wrong_sizes(picture_servable: Servable, size: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bind(picture_servable, size)


def test_servable_without_a_value_for_a_dimension(picture_servable: Servable) -> None:
    with pytest.raises(UsageError, match="a value to width"):
        bind(dataclasses.replace(picture_servable, dims={"height": 8}), None)


def test_calibration_pictures_are_cropped_to_size(picture_servable: Servable, tmp_path: Path) -> None:
    Image.new("RGB", (200, 90), (10, 20, 30)).save(tmp_path / "wide.png")
    Image.new("L", (50, 70), 99).save(tmp_path / "gray.jpg")
    dims = {"batch": 1, "height": 32, "width": 40}
    examples = calibration_examples(picture_servable, dims, tmp_path)
    assert [e["image"].shape for e in examples] == [(1, 32, 40, 3)] * 2
    assert [tuple(e["image"][0, 5, 5]) for e in examples] == [(99, 99, 99), (10, 20, 30)]


def test_calibration_of_other_kinds(picture_servable: Servable, float_servable: Servable, tmp_path: Path) -> None:
    dims = {"batch": 1, "height": 4, "width": 6}
    (one,) = calibration_examples(picture_servable, dims, [np.zeros((4, 6, 3), "uint8")])
    assert one["image"].shape == (1, 4, 6, 3)
    own = calibration_examples(picture_servable, dims, None)
    assert len(own) == 8
    assert not np.array_equal(own[0]["image"], own[1]["image"])
    assert not np.array_equal(own[0]["image"], picture_servable.example(dims, 0)["image"])
    with pytest.raises(UsageError, match=r"uint8 \(1, 4, 6, 3\). Received: float64 \(1, 4, 6, 3\)"):
        calibration_examples(picture_servable, dims, [np.zeros((4, 6, 3))])
    with pytest.raises(UsageError, match="at least one"):
        calibration_examples(picture_servable, dims, [])
    with pytest.raises(UsageError, match="does not take one picture"):
        calibration_examples(float_servable, {"batch": 1, "time": 3}, tmp_path)
    with pytest.raises(UsageError, match=r"arrays scale of float32 .* Received: nothing"):
        calibration_examples(float_servable, {"batch": 1, "time": 3}, [{"series": np.zeros((1, 3, 4), "float32")}])
    with pytest.raises(DataError, match="no pictures"):
        calibration_examples(picture_servable, dims, tmp_path)
    (tmp_path / "broken.png").write_text("no picture")
    with pytest.raises(DataError, match=r"broken\.png"):
        calibration_examples(picture_servable, dims, tmp_path)
