"""Hostile inputs: what they are made from, what is demanded of an artifact on them, and how an exception is shown."""

import dataclasses

import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import export
from kerasmodels.errors import UsageError
from kerasmodels.export import hostile, verify
from kerasmodels.family import Servable, TensorSpec
from tests.export.servables import make_float_servable, make_picture_servable

DIMS = {"batch": 1, "height": 20, "width": 26}


def cut_out() -> Servable:
    """A picture and a trimap."""
    shape = ("batch", "height", "width")
    picture = make_picture_servable()

    def example(dims, seed):
        return {**picture.example(dims, seed), "trimap": np.full([*map(dims.get, shape), 1], 77, "uint8")}

    trimap = TensorSpec("trimap", (*shape, 1), "uint8", "0, 128 or 255", extremes=(0, 128, 255))
    return dataclasses.replace(picture, inputs=(*picture.inputs, trimap), example=example)


def test_pictures_and_the_values_of_a_trimap():
    servable = cut_out()
    found = dict(hostile.inputs(servable, servable.example(DIMS, 0)))
    assert list(found) == ["flat", "black", "white", "noise", "checkerboard", "two-valued", "saturated"]
    trimaps = []
    for name, arrays in found.items():
        picture, trimap = arrays["image"], arrays["trimap"]
        assert (picture.shape, picture.dtype) == ((1, 20, 26, 3), np.uint8), name
        assert (trimap.shape, trimap.dtype) == ((1, 20, 26, 1), np.uint8), name
        trimaps.append(tuple(np.unique(trimap)))
    assert set(trimaps) == {(77,), (0,), (128,), (255,), (0, 128, 255)}
    assert not found["black"]["image"].any()
    assert found["white"]["image"].min() == 255
    assert np.ptp(found["flat"]["image"][0, :8, :8], axis=(0, 1)).max() == 0
    assert np.ptp(found["flat"]["image"]) > 100
    assert set(np.unique(found["two-valued"]["image"])) == set(np.unique(found["checkerboard"]["image"])) == {0, 255}
    assert 0.3 < np.isin(found["saturated"]["image"], [0, 255]).mean() < 1
    again = dict(hostile.inputs(servable, servable.example(DIMS, 0)))
    assert all(np.array_equal(again[name]["image"], arrays["image"]) for name, arrays in found.items())


def test_tensors_without_pictures():
    servable = make_float_servable()
    example = servable.example({"batch": 1, "time": 3}, 0)
    assert not list(hostile.inputs(servable, example))
    series = dataclasses.replace(servable.inputs[0], extremes=(-4, 0, 4))
    servable = dataclasses.replace(servable, inputs=(series, servable.inputs[1]))
    found = dict(hostile.inputs(servable, example))
    assert list(found) == ["all -4", "all 0", "all 4", "extremes mixed"]
    for value, arrays in zip((-4, 0, 4), found.values(), strict=False):
        assert (arrays["series"] == value).all()
        assert arrays["series"].dtype == np.float32
        assert arrays["scale"] is example["scale"]
    assert set(np.unique(found["extremes mixed"]["series"])) == {-4, 0, 4}


@pytest.mark.parametrize(
    ("precision", "change", "why", "problem"),
    [
        ("fp32", 0, "", ""),
        ("fp32", 2, "", "on the hostile input 'flat': output stylized differs by 2 levels"),
        ("fp32", 2, "it is a coin toss.", ""),
        ("int8", 2, "", ""),
    ],
)
def test_what_is_demanded_of_pictures(precision, change, why, problem):
    servable = dataclasses.replace(make_picture_servable(), unequal={"flat": why} if why else {})
    answer = np.full((1, 20, 26, 3), 100, "uint8")
    case = verify.Case("serving_default", DIMS, {}, {"stylized": answer}, "flat")
    other = answer.copy()
    other[0, 0, 0, 0] += change
    row, problems = verify._withstood(servable, 4, case, {"4/stylized": other}, precision)
    assert row["unequal"] == why
    assert row["outputs"]["stylized"]["max_abs_error"] == change
    assert len(problems) == bool(problem)
    assert all(line.startswith(problem) for line in problems)


@pytest.mark.parametrize("precision", ["fp32", "int8"])
def test_nothing_excuses_nan(precision):
    servable = dataclasses.replace(make_float_servable(), unequal={"all 0": "a reason."})
    expected = {"scores": np.zeros((1, 5), "float32"), "best": np.zeros(1, "int32")}
    case = verify.Case("serving_default", {}, {}, expected, "all 0")
    found = {"0/scores": np.full((1, 5), np.nan, "float32"), "0/best": expected["best"]}
    _, (problem,) = verify._withstood(servable, 0, case, found, precision)
    assert "'all 0': output scores holds NaN" in problem


def test_a_model_that_fails_itself_is_not_exported(tmp_path):
    def contrast(image):
        x = tf.cast(image, tf.float32)
        return {"stylized": tf.cast(x, tf.uint8), "spread": tf.math.log(tf.math.reduce_std(x)) + tf.zeros(1)}

    servable = make_picture_servable(call=contrast)
    servable = dataclasses.replace(
        servable, outputs=(*servable.outputs, TensorSpec("spread", (1,), "float32", "log of the deviation"))
    )
    with pytest.raises(UsageError, match=r"'black' are not finite: spread holds NaN or infinite"):
        export.export_servable(servable, "contrast", tmp_path, formats="saved_model")


def test_reasons_are_for_inputs_that_exist():
    servable = dataclasses.replace(make_picture_servable(), unequal={"flatt": "a reason."})
    with pytest.raises(UsageError, match=r"\['flat', 'black'.*Received: \['flatt'\]"):
        verify.Cases(servable, DIMS).hostile()


def test_the_card_shows_them(exported):
    out, report = exported
    names = ["flat", "black", "white", "noise", "checkerboard", "two-valued", "saturated"]
    for artifact in report.artifacts:
        assert [entry["input"] for entry in artifact.hostile] == names
        assert all(entry["outputs"]["stylized"]["max_abs_error"] <= 1 for entry in artifact.hostile)
    card = (out / "MODEL_CARD.md").read_text()
    assert "## Hostile inputs" in card
    assert "| artifact | precision | flat | black | white | noise |" in card
    from kerasmodels.export.report import _hostile

    excused = dataclasses.replace(report.artifacts[0], hostile=({**report.artifacts[0].hostile[0], "unequal": "so."},))
    assert "- flat: need not be equal: so." in _hostile([excused])
