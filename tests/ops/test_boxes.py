"""Boxes: overlaps, offsets, and suppression in rounds beside the greedy one, a box at a time."""

import numpy as np
import pytest
import tensorflow as tf

import kerasmodels as km
from kerasmodels.metrics.detection import overlaps
from kerasmodels.ops.boxes import LARGEST, rows_of


def made(seed, count, pictures=2, spread=60.0):
    random = np.random.default_rng(seed)
    low = random.uniform(0, spread, (pictures, count, 2))
    boxes = np.concatenate([low, low + random.uniform(2, 40, (pictures, count, 2))], -1).astype("float32")
    return boxes, random.uniform(0, 1, (pictures, count)).astype("float32"), random.integers(0, 3, (pictures, count))


def greedy(boxes, scores, iou, classes, least):
    """The indices kept, by the loop that the algorithm is usually written as."""
    overlap, kept = overlaps(boxes, boxes), []
    for i in np.argsort(-scores, kind="stable"):
        if scores[i] > least and all(overlap[i, j] <= iou or classes[i] != classes[j] for j in kept):
            kept.append(int(i))
    return kept


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("iou", "by_class"), [(0.3, False), (0.3, True), (0.7, False)])
def test_suppression_is_the_greedy_one(seed, iou, by_class):
    boxes, scores, classes = made(seed, 60)
    index, kept = km.ops.non_max_suppression(boxes, scores, iou, 60, classes=classes if by_class else None, least=0.1)
    for k in range(2):
        expected = greedy(boxes[k], scores[k], iou, classes[k] if by_class else np.zeros(60), 0.1)
        assert 3 < len(expected) < 60
        np.testing.assert_array_equal(np.asarray(kept)[k], np.arange(60) < len(expected))
        np.testing.assert_array_equal(np.asarray(index)[k][: len(expected)], expected)
        assert sorted(np.asarray(index)[k]) == list(range(60))


def test_a_chain_takes_as_many_rounds():
    # Each box overlaps the next only: kept are the 1st, 3rd, 5th ...
    boxes = np.array([[[10.0 * k, 0, 10 * k + 15, 10] for k in range(12)]])
    scores = np.linspace(1, 0.5, 12)[None]
    _, kept = km.ops.non_max_suppression(boxes, scores, 0.1, 12)
    assert np.asarray(kept).sum() == 6
    _, few = km.ops.non_max_suppression(boxes, scores, 0.1, 12, rounds=3)
    assert np.asarray(few).sum() != 6


def test_only_the_best_are_returned():
    boxes, scores, _ = made(0, 20, 1)
    all_of, _ = km.ops.non_max_suppression(boxes, scores, 0.5, 20)
    first, kept = km.ops.non_max_suppression(boxes, scores, 0.5, 5)
    np.testing.assert_array_equal(first, np.asarray(all_of)[:, :5])
    assert np.all(np.asarray(kept) == 1)


def test_suppression_in_a_graph_of_unknown_batch():
    boxes, scores, _ = made(1, 30, 3)
    traced = tf.function(
        lambda b, s: km.ops.non_max_suppression(b, s, 0.4, 10),
        input_signature=[tf.TensorSpec((None, 30, 4)), tf.TensorSpec((None, 30))],
    )
    for mine, expected in zip(traced(boxes, scores), km.ops.non_max_suppression(boxes, scores, 0.4, 10), strict=True):
        np.testing.assert_array_equal(mine, expected)


@pytest.mark.parametrize("options", [{"count": 0}, {"count": 11}, {"iou": 1.2}, {"rounds": 0}])
def test_suppression_refuses(options):
    boxes, scores, _ = made(0, 10)
    with pytest.raises(ValueError, match="Received"):
        km.ops.non_max_suppression(boxes, scores, **{"iou": 0.5, "count": 5, **options})


def test_overlap_is_the_metric_s():
    first, second = made(0, 7)[0], made(1, 9)[0]
    found = np.asarray(km.ops.box_iou(first, second))
    assert found.shape == (2, 7, 9)
    for k in range(2):
        np.testing.assert_allclose(found[k], overlaps(first[k], second[k]), atol=1e-6)
    np.testing.assert_allclose(km.ops.box_iou(first[:1], second)[1], km.ops.box_iou(first[[0, 0]], second)[1])
    for count in (1, 2, 4):  # as many boxes as there are pictures or coordinates, too
        square = np.asarray(km.ops.box_iou(first[:1, :count], second[:1, :count]))
        np.testing.assert_allclose(square[0], overlaps(first[0, :count], second[0, :count]), atol=1e-6)
    nothing = np.array([[[5.0, 5, 5, 9]]])
    assert float(km.ops.box_iou(nothing, nothing)[0, 0, 0]) == 0


def test_offsets_there_and_back():
    boxes, anchors = made(0, 9)[0], made(1, 9)[0]
    offsets = km.ops.encode_boxes(boxes, anchors)
    np.testing.assert_allclose(km.ops.decode_boxes(offsets, anchors), boxes, atol=1e-3)
    np.testing.assert_allclose(km.ops.decode_boxes(np.zeros((2, 9, 4)), anchors), anchors, atol=1e-5)
    # A quarter of the width to the right, twice as high.
    moved = km.ops.decode_boxes(np.array([[0.25, 0, 0, np.log(2)]]), np.array([[10.0, 10, 30, 20]]))
    np.testing.assert_allclose(moved, [[15, 5, 35, 25]], rtol=1e-5)
    huge = np.asarray(km.ops.decode_boxes(np.array([[0, 0, 99.0, 99]]), np.array([[0.0, 0, 1, 1]])))
    assert huge[0, 2] - huge[0, 0] == pytest.approx(np.exp(LARGEST), rel=1e-5)


def test_clipped_boxes_have_an_area_inside():
    boxes = np.array([[-5, -5, 5, 5], [90, 3, 120, 9], [200, 200, 210, 210], [-9, -9, -3, -3], [7, 8, 7, 8.0]])
    found = np.asarray(km.ops.clip_boxes(boxes, 50, 100))
    np.testing.assert_allclose(found[:2], [[0, 0, 5, 5], [90, 3, 100, 9]])
    assert np.all(found[:, :2] >= 0)
    assert np.all(found[:, 2:] <= [100, 50])
    assert np.all(found[:, 2:] - found[:, :2] >= 1)


def test_rows_of_each_example():
    values, index = np.arange(24).reshape(2, 4, 3), np.array([[3, 0], [1, 1]])
    np.testing.assert_array_equal(rows_of(values, index), values[np.arange(2)[:, None], index])
