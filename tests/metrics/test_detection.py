"""Average precision beside cases small enough to be computed by hand."""

import numpy as np
import pytest

from kerasmodels.errors import DataError
from kerasmodels.metrics import MeanAveragePrecision
from kerasmodels.metrics.detection import overlaps

THINGS = np.array([[0, 0, 10, 10], [20, 20, 40, 30], [50, 0, 60, 30]], float)


def one_class(boxes, scores, things=THINGS, counts=None, iou=0.5):
    metric = MeanAveragePrecision(1, iou)
    metric.update(boxes, np.zeros(len(boxes)), scores, things, np.zeros(len(things)), counts)
    return metric.result()


def test_overlap_of_boxes():
    # 5 x 10 in common, 100 + 100 - 50 together; and nothing in common.
    found = overlaps(np.array([[0.0, 0, 10, 10]]), np.array([[5.0, 0, 15, 10], [10, 0, 20, 10], [0, 0, 10, 10]]))
    np.testing.assert_allclose(found, [[1 / 3, 0, 1]])


def test_all_found_is_one_and_nothing_found_is_zero():
    assert one_class(THINGS, [0.1, 0.2, 0.3]) == 1
    assert one_class(np.zeros((0, 4)), []) == 0
    assert one_class(THINGS + 100, [0.1, 0.2, 0.3]) == 0


def test_area_below_the_curve():
    # Right, wrong, right, wrong, wrong, right: precision 1, 1/2, 2/3, 2/4, 2/5, 3/6 at recall 1/3, 1/3, 2/3 ...; the
    # highest from there on: 1, 2/3, 1/2.
    wrong = np.array([[70, 70, 80, 80]], float)
    boxes = np.concatenate([THINGS[:1], wrong, THINGS[1:2], wrong, wrong, THINGS[2:]])
    assert one_class(boxes, [0.9, 0.8, 0.7, 0.6, 0.5, 0.4]) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    # The order of the boxes is nothing, that of the scores all.
    assert one_class(boxes[::-1], [0.4, 0.5, 0.6, 0.7, 0.8, 0.9]) == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)


def test_precision_is_made_monotone():
    # Wrong, right, right: precision 0, 1/2, 2/3; from recall 0 on 2/3 can be had; the third thing is not found.
    boxes = np.concatenate([[[70, 70, 80, 80]], THINGS[:2]])
    assert one_class(boxes, [0.9, 0.8, 0.7]) == pytest.approx(2 / 3 * 2 / 3)


def test_the_second_box_of_a_thing_is_an_error():
    boxes = np.concatenate([THINGS[:1], THINGS[:1] + 1, THINGS[1:]])
    assert one_class(boxes, [0.9, 0.8, 0.7, 0.6]) == pytest.approx((1 + 3 / 4 + 3 / 4) / 3)
    # Of two boxes on one thing the better counts, also if it comes later.
    assert one_class(THINGS[[0, 0]], [0.3, 0.9], THINGS[:1]) == 1


@pytest.mark.parametrize(("iou", "expected"), [(0.5, 1.0), (0.6, 1.0), (0.7, 0.0)])
def test_how_much_must_overlap(iou, expected):
    # 10 x 10 and 10 x 6 inside it: 0.6.
    assert one_class(np.array([[0, 0, 10, 6]]), [1.0], THINGS[:1], iou=iou) == expected


def test_things_that_do_not_count():
    # The hidden one need not be found; a box on it is neither right nor wrong.
    counts = [True, False, True]
    assert one_class(THINGS[[0, 2]], [0.9, 0.8], counts=counts) == 1
    assert one_class(THINGS[[1, 0, 2]], [0.9, 0.8, 0.7], counts=counts) == 1
    assert np.isnan(one_class(THINGS[:1], [0.9], THINGS[:1], [False]))


def test_equal_scores_have_no_order():
    wrong = np.array([[70, 70, 80, 80]], float)
    for boxes in (np.concatenate([wrong, THINGS[:1]]), np.concatenate([THINGS[:1], wrong])):
        assert one_class(boxes, [0.5, 0.5], THINGS[:1]) == 0.5


def test_mean_over_classes_and_pictures():
    metric = MeanAveragePrecision(4, 0.5)
    # Class 0 is found on both pictures, class 1 on none: a box of class 2 lies there. Class 3 does not occur.
    metric.update(THINGS[:2], [0, 2], [0.9, 0.8], THINGS[:2], [0, 1])
    metric.update(THINGS[2:], [0], [0.7], THINGS[2:], [0])
    np.testing.assert_array_equal(metric.per_class()[:2], [1, 0])
    assert np.isnan(metric.per_class()[2:]).all()
    assert metric.result() == 0.5
    # A box of one picture does not find what is on another.
    metric.reset()
    metric.update(THINGS[:1], [0], [0.9], np.zeros((0, 4)), [])
    metric.update(np.zeros((0, 4)), [], [], THINGS[:1], [0])
    assert metric.result() == 0


@pytest.mark.parametrize(
    ("boxes", "labels", "scores", "expected"),
    [
        ([[0, 0, 10, 10]], [0, 0], [0.5], "as many boxes as labels"),
        ([[0, 0, 0, 10]], [0], [0.5], r"x2 > x1 and y2 > y1.*boxes\[0\]"),
        ([[0, 0, np.nan, 10]], [0], [0.5], r"x2 > x1"),
        ([[0, 0, 10]], [0], [0.5], r"\(D, 4\)"),
        ([[0, 0, 10, 10]], [-1], [0.5], "labels 0 to 0"),
        ([[0, 0, 10, 10]], [0], [np.inf], "finite scores"),
    ],
)
def test_refuses(boxes, labels, scores, expected):
    with pytest.raises(DataError, match=expected):
        MeanAveragePrecision(1).update(np.array(boxes), labels, scores, THINGS[:1], [0])


def test_refuses_options():
    for options in ({"classes": 0}, {"classes": 1, "iou": 0}, {"classes": 1, "iou": 1.5}):
        with pytest.raises(ValueError, match="Received"):
            MeanAveragePrecision(**options)
