"""Intersection over union, by counting; and near borders."""

import keras
import numpy as np
import pytest

from kerasmodels.metrics import SegmentationIoU, boundary_band, boundary_iou

RANDOM = np.random.default_rng(0)


def counted(truth, guess, classes, ignore):
    """Class by class, as the definition says."""
    valid = truth != ignore
    found = []
    for k in range(classes):
        t, g = (truth == k) & valid, (guess == k) & valid
        if (t | g).any():
            found.append((t & g).sum() / (t | g).sum())
    return np.mean(found)


@pytest.mark.parametrize("ignore", [255, 0])
def test_equals_counting_over_several_batches(ignore):
    truth = RANDOM.choice([0, 1, 2, 4, 255], (6, 9, 7))
    scores = RANDOM.normal(size=(6, 9, 7, 5))
    iou = SegmentationIoU(5, ignore)
    for batch in range(0, 6, 2):
        iou.update_state(truth[batch : batch + 2, ..., None], scores[batch : batch + 2])
    known = np.where(truth == 255, ignore, truth)
    assert float(iou.result()) == pytest.approx(counted(known, scores.argmax(-1), 5, ignore), abs=1e-9)
    assert np.nanmean(iou.per_class()) == pytest.approx(float(iou.result()))


def test_classes_that_never_occur_do_not_count():
    iou = SegmentationIoU(4, from_scores=False)
    iou.update_state(np.array([[0, 0, 1]]), np.array([[0, 0, 1]]))
    assert float(iou.result()) == 1.0
    assert np.isnan(iou.per_class()[2:]).all()
    iou.reset_state()
    assert float(iou.result()) == 0.0


def test_in_fit_and_from_config():
    model = keras.Sequential([keras.Input((4, 4, 2)), keras.layers.Conv2D(3, 1)])
    iou = SegmentationIoU(3)
    model.compile(
        "sgd",
        keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=255),
        metrics=[iou],
        jit_compile=False,
    )
    truth = np.full((2, 4, 4), 255)
    truth[0] = 1
    log = model.fit(RANDOM.normal(size=(2, 4, 4, 2)), truth, verbose=0).history
    assert 0 <= log["iou"][0] <= 1
    assert SegmentationIoU.from_config(iou.get_config()).get_config() == iou.get_config()
    with pytest.raises(ValueError, match="classes >= 1"):
        SegmentationIoU(0)


def test_band_is_as_wide_as_asked():
    truth = np.zeros((9, 20), int)
    truth[:, 10:] = 1
    band = boundary_band(truth, 3)
    assert band[:, 7:13].all()
    assert not band[:, :7].any()
    assert not band[:, 13:].any()


def test_borders_with_what_is_ignored_do_not_count():
    truth = np.zeros((9, 20), int)
    truth[:, 10:] = 255
    assert not boundary_band(truth).any()


def test_boundary_iou_sees_only_the_band():
    truth = np.zeros((20, 30), int)
    truth[:, 15:] = 1
    guess = truth.copy()
    guess[:, :8] = 1
    assert boundary_iou(truth, guess, 2) == 1.0
    guess[:, 14] = 1
    assert boundary_iou(truth, guess, 2) == pytest.approx((2 / 3 + 3 / 4) / 2)
