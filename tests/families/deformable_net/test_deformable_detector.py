"""The detector: proposals, votes of bins, losses against maps made by hand, and that it learns."""

import dataclasses
import json

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.claims.deformable_net import average_precision
from kerasmodels.data import read_image, write_image
from kerasmodels.data.scenes import GroundTruth
from kerasmodels.errors import UsageError
from kerasmodels.metrics.detection import overlaps
from kerasmodels.models import deformable_detector as detector
from kerasmodels.models.deformable_net import FAMILY, DeformableDetector
from kerasmodels.ops import encode_boxes
from tests.cases import case_of, photo, untrained

TINY_CONFIG = case_of("deformable_net:detector").config
TRUTH = GroundTruth(
    np.array([[[6, 5, 20, 18], [22, 12, 46, 40]], [[2, 20, 15, 34], [0, 0, 0, 0]]], "float32"),
    np.array([[3, 7], [0, -1]], "int32"),
    np.array([[1, 1], [1, 0]], "float32"),
)
"""Two scenes of 48 x 48; on the second there is one digit."""


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return case_of("deformable_net:detector").data(tmp_path_factory.mktemp("scenes"))


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return DeformableDetector(TINY_CONFIG)


def maps_of(model, count=2, side=48):
    return model(np.random.default_rng(0).uniform(0, 255, (count, side, side, 3)).astype("float32"))


def perfect_maps(model, truth=TRUTH):
    """The model's maps with objectness and offsets as they should be: every anchor says what is nearest."""
    maps = dict(maps_of(model))
    anchors = np.asarray(detector.anchor_boxes(model.config, 12, 12))[0]
    objectness, offsets = [], []
    for boxes, counts in zip(truth.boxes, truth.counts, strict=True):
        overlap = overlaps(anchors, boxes[counts > 0])
        good = (overlap.max(1) >= 0.5) | np.any(overlap == overlap.max(0), axis=1)
        objectness.append(np.where(good, 12.0 + overlap.max(1), -12.0))
        wanted = boxes[counts > 0][overlap.argmax(1)]
        offsets.append(np.asarray(encode_boxes(wanted, anchors)) / np.array(detector.SPREAD))
    maps["objectness"] = tf.constant(np.reshape(objectness, (2, 12, 12, 2)), tf.float32)
    maps["anchor_offsets"] = tf.constant(np.reshape(offsets, (2, 12, 12, 8)), tf.float32)
    return maps


def test_anchors_lie_around_their_places():
    boxes = np.asarray(detector.anchor_boxes(TINY_CONFIG, 3, 5))
    assert boxes.shape == (1, 3 * 5 * 2, 4)
    # Row 1, column 2, second size: the middle of pixels 8 to 11 and 4 to 7.
    np.testing.assert_array_equal(boxes[0, (1 * 5 + 2) * 2 + 1], [10 - 12, 6 - 12, 10 + 12, 6 + 12])


def test_proposals_are_what_the_maps_say(model):
    boxes = np.asarray(model.propose(perfect_maps(model), 48, 48))
    assert boxes.shape == (2, 6, 4)
    # All anchors near a digit propose the same box; only one of them is ahead of the rest.
    np.testing.assert_allclose(boxes[0, :2][np.argsort(boxes[0, :2, 0])], TRUTH.boxes[0], atol=1e-3)
    np.testing.assert_allclose(boxes[1, 0], TRUTH.boxes[1, 0], atol=1e-3)


def test_proposals_lie_inside_and_have_an_area(model):
    for side in (48, 30, 7, 1):
        boxes = np.asarray(model.propose(maps_of(model, 1, side), side, side))
        assert boxes.shape == (1, 6, 4)
        assert np.all((boxes >= 0) & (boxes <= side))
        assert np.all(boxes[..., 2:] - boxes[..., :2] >= 1 - 1e-5)


def test_perfect_proposals_cost_nothing(model):
    losses = model._proposal_losses(perfect_maps(model), TRUTH)
    assert float(losses["objectness"]) < 1e-4
    assert float(losses["anchor"]) < 1e-6
    others = model._proposal_losses(dict(maps_of(model)), TRUTH)
    assert float(others["objectness"]) > 0.05
    assert float(others["anchor"]) > 0.05


def test_hidden_digits_are_neither_right_nor_wrong(model):
    maps = perfect_maps(model)
    hidden = TRUTH._replace(counts=np.array([[1, 0], [1, 0]], "float32"))
    # The anchors that say there is a digit where one is hidden cost nothing; if nothing were there, they would.
    assert float(model._proposal_losses(maps, hidden)["objectness"]) < 1e-4
    gone = hidden._replace(labels=np.array([[3, -1], [0, -1]], "int32"))
    assert float(model._proposal_losses(maps, gone)["objectness"]) > 1
    proposals = model.propose(maps, 48, 48)
    mine, theirs = (model._region_losses(maps, proposals, truth, 48, 48) for truth in (hidden, gone))
    assert float(mine["class"]) != float(theirs["class"])
    assert float(mine["box"]) == pytest.approx(float(theirs["box"]))


def test_regions_are_the_pixels_of_boxes(model):
    boxes = tf.constant(TRUTH.boxes)
    np.testing.assert_array_equal(model.regions(boxes)[1], [0, 22, 12, 45, 39])
    np.testing.assert_array_equal(np.asarray(model.regions(boxes))[:, 0], [0, 0, 1, 1])


def test_each_bin_votes(model):
    maps = dict(maps_of(model))
    scores = np.zeros((2, 12, 12, 4 * 11), "float32")
    scores[..., 0 * 11 + 4] = 8.0  # the first of 2 x 2 bins says: a three
    maps["scores"] = tf.constant(scores)
    maps["score_moves"] = tf.zeros_like(maps["score_moves"])
    logits, offsets = model.classify_regions(maps, tf.constant(TRUTH.boxes[:, :1]))
    assert (logits.shape, offsets.shape) == ((2, 1, 11), (2, 1, 4))
    np.testing.assert_allclose(np.asarray(logits)[:, 0], np.eye(11)[[4, 4]] * 2, atol=1e-5)


def test_begins_as_the_plain_detector(model):
    plain = DeformableDetector(dataclasses.replace(TINY_CONFIG, pooling="plain"))
    assert set(model.network.output) - set(plain.network.output) == {"score_moves", "box_moves"}
    for variable in plain.network.weights:
        (same,) = [v for v in model.network.weights if v.path == variable.path]
        variable.assign(same)
    image = np.stack([photo(3, 48, 52), photo(4, 48, 52)])
    for name, value in plain.detect(image).items():
        np.testing.assert_allclose(model.detect(image)[name], value, atol=1e-4)


def test_bins_are_where_the_box_is_until_they_move(model):
    boxes = np.array([[8.0, 4, 28, 44]])
    image = photo(3, 48, 48)
    still = model.bins_of(image, boxes)
    np.testing.assert_allclose(still[0], [[8, 4, 18, 24], [18, 4, 28, 24], [8, 24, 18, 44], [18, 24, 28, 44]])
    moved = DeformableDetector(TINY_CONFIG)
    bias = np.zeros(8)
    bias[2 * 3] = 2.0  # the last bin, down: by 2 x 0.1 of the height
    moved.network.get_layer("score_moves").set_weights([np.zeros((1, 1, 16, 8)), bias])
    np.testing.assert_allclose(
        moved.bins_of(image, boxes) - still, np.array([[[0.0] * 4] * 3 + [[0, 8, 0, 8]]]), atol=1e-4
    )


def test_slots_left_over_are_empty(model):
    quiet = DeformableDetector(TINY_CONFIG)
    scores = quiet.network.get_layer("scores")
    kernel, bias = scores.get_weights()
    bias[::11] = 50.0  # all bins: background
    scores.set_weights([kernel, bias])
    found = {name: np.asarray(value) for name, value in quiet.detect(photo(1, 48, 48)[None]).items()}
    assert np.all(found["boxes"] == 0)
    assert np.all(found["labels"] == -1)
    assert np.all(found["scores"] == 0)
    ordered = np.asarray(model.detect(photo(1, 48, 48)[None])["scores"])
    assert np.all(np.diff(ordered) <= 0)


def test_it_learns(data):
    """A few scenes by heart: every digit is found, and nothing else."""
    config = dataclasses.replace(
        TINY_CONFIG, filters=(12, 24, 24), strides=(2, 2, 1), rates=(1, 1, 2), deformable=0, objects=1, batch=4,
        steps=150, learning_rate=5e-3, schedule="cosine", **data,
    )  # fmt: skip
    keras.utils.set_random_seed(0)
    model = FAMILY.build(config)
    batch = next(iter(FAMILY.batches(config)))
    before = average_precision(model, [batch])
    stream = tf.data.Dataset.from_tensors(batch).repeat()
    losses = model.fit(stream, steps_per_epoch=75, epochs=2, shuffle=False, verbose=0).history
    assert set(losses) == {"loss", "objectness", "anchor", "class", "box"}
    assert losses["loss"][1] < 0.5 * losses["loss"][0]
    after = average_precision(model, [batch])
    assert before[0.5] < 0.3
    assert after[0.5] > 0.9
    assert after[0.7] > 0.6
    moves = np.abs(model.network.get_layer("score_moves").get_weights()[0])
    assert moves.max() > 1e-3


@pytest.fixture(scope="module")
def run(data, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    untrained(FAMILY, dataclasses.replace(TINY_CONFIG, **data), folder)
    return folder


def test_boxes_are_told_in_the_photo_s_pixels(run, tmp_path):
    picture = write_image(tmp_path / "photo.png", photo(2, 200, 300))
    options = FAMILY.task.options(
        inputs=(picture,),
        out=tmp_path / "seen.png",
        run=run,
        show_offsets=True,
        least=0.0,
        boxes=tmp_path / "boxes.json",
        size=60,
    )
    report = FAMILY.task.run(options)
    (told,) = json.loads((tmp_path / "boxes.json").read_text())["photos"]
    assert (told["photo"], told["height"], told["width"]) == ("photo.png", 200, 300)
    boxes = np.array([digit["box"] for digit in told["found"]])
    assert 1 <= len(boxes) <= TINY_CONFIG.detections
    assert np.all((boxes >= 0) & (boxes <= [300, 200, 300, 200]))
    assert boxes.max() > 60
    assert report.outputs == (tmp_path / "seen.png", tmp_path / "boxes.json")
    # The photo with boxes, and with bins; as it is, both.
    assert read_image(tmp_path / "seen.png").shape == (373, 2 * 560, 3)


def test_run_refuses(run, tmp_path):
    picture = write_image(tmp_path / "photo.png", photo(2, 50, 60))
    with pytest.raises(UsageError, match="least"):
        FAMILY.task.options(inputs=(picture,), out=tmp_path / "seen.png", run=run, least=2.0)
    with pytest.raises(UsageError, match="a name of its own"):
        FAMILY.task.options(inputs=(picture,), out=tmp_path / "seen.png", run=run, boxes=tmp_path / "seen.png")


def test_settings_of_the_detector():
    model = DeformableDetector(FAMILY.variant("detector"))
    plain = DeformableDetector(dataclasses.replace(FAMILY.variant("detector"), pooling="plain"))
    # Two offsets for each of 25 bins, for scores and for boxes, from 48 channels.
    assert model.network.count_params() - plain.network.count_params() == 2 * (48 + 1) * 2 * 25
    assert FAMILY.variant("detector").stride == 4
