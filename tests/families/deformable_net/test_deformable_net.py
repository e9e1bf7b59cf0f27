"""The classifier of digits: what may move and what may not, and the drawings of where it looks."""

import dataclasses
import shutil

import keras
import numpy as np
import pytest

from kerasmodels import claims, layers
from kerasmodels.claims import deformable_net as evidence
from kerasmodels.claims.deformable_net import take_over
from kerasmodels.data import read_image, write_image
from kerasmodels.data import scenes as data
from kerasmodels.data.digits import read_digits
from kerasmodels.errors import DataError, UsageError
from kerasmodels.models.deformable_net import FAMILY, Config, DeformableNet
from kerasmodels.tasks.digits import as_digit, sampling_positions
from tests.cases import case_of, photo, untrained

SMALL = Config(filters=(4, 8, 8), strides=(1, 2, 2), deformable=2, batch=4, steps=2)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    return case_of("deformable_net").data(tmp_path_factory.mktemp("digits"))


def test_the_demonstration_s_network_has_its_number_of_weights():
    assert sum(int(np.prod(v.shape)) for v in DeformableNet(FAMILY.variant("plain")).trainable_variables) == 242_250


def test_as_many_layers_are_deformable_as_asked_for():
    for count in range(4):
        model = DeformableNet(dataclasses.replace(SMALL, deformable=count))
        kinds = [isinstance(model.network.get_layer(f"conv{n}"), layers.DeformableConv2D) for n in (1, 2, 3)]
        assert kinds == [n > 3 - count for n in (1, 2, 3)]


def test_begins_as_the_plain_network_it_takes_over():
    plain, moved = (DeformableNet(dataclasses.replace(SMALL, deformable=count)) for count in (0, 2))
    take_over(moved.network, plain.network)
    x = np.random.default_rng(0).uniform(0, 255, (2, 28, 28, 1)).astype("float32")
    np.testing.assert_allclose(moved(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("trained", ["all", "offsets", "normalization", "offsets and normalization"])
def test_only_what_is_named_moves(trained, mnist):
    config = dataclasses.replace(SMALL, trained=trained, **mnist)
    model = FAMILY.build(config)
    before = {v.path: v.numpy() for v in model.variables}
    model.run_eagerly = True  # two steps are sooner taken than compiled
    model.fit(FAMILY.batches(config), steps_per_epoch=2, shuffle=False, verbose=0)
    moved = {v.path for v in model.network.variables if np.any(v.numpy() != before[v.path])}

    def may(path):
        kind = "normalization" if "/norm" in f"/{path}" else "offsets" if "offset_" in path else "other"
        return trained == "all" or kind in trained

    assert moved
    assert {p for p in before if may(p) and not p.startswith(("adam", "seed"))} >= moved
    # Statistics of normalization included: they move with it or not at all.
    assert any("moving_mean" in path for path in moved) == ("normalization" in trained or trained == "all")
    assert any("offset_kernel" in path for path in moved) == ("offsets" in trained or trained == "all")


def test_undeformed_samples_are_the_grid():
    model = DeformableNet(dataclasses.replace(SMALL, deformable=1))
    (places,) = sampling_positions(model.network, np.zeros((28, 28, 1), "uint8"), (0.5, 0.5))
    # The unit (7 / 2 rounded to 4) of the last layer looks at rows and columns 7 to 9 of a 14 x 14 map.
    grid = np.stack(np.meshgrid([7, 8, 9], [7, 8, 9], indexing="ij"), -1).reshape(9, 2)
    np.testing.assert_allclose(places, (grid + 0.5) * 2 - 0.5)


def test_offsets_move_the_samples():
    model = DeformableNet(SMALL)
    digit = np.zeros((28, 28, 1), "uint8")
    still = sampling_positions(model.network, digit, (0.5, 0.5))
    assert [len(places) for places in still] == [9, 81]
    bias = model.network.get_layer("conv3").offset_bias
    bias.assign(np.tile([1.0, -2.0], 9))  # down by one, left by two, in a map of half the size
    np.testing.assert_allclose(sampling_positions(model.network, digit, (0.5, 0.5))[0], still[0] + [2, -4], atol=1e-5)


def test_no_offsets_to_show():
    with pytest.raises(UsageError, match="no deformable convolution"):
        sampling_positions(DeformableNet(FAMILY.variant("plain")).network, np.zeros((28, 28, 1)), (0.5, 0.5))


@pytest.fixture(scope="module")
def run(mnist, tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "run"
    untrained(FAMILY, dataclasses.replace(SMALL, **mnist), folder)
    return folder


def ink(dark):
    """A photo of a seven, dark on light or light on dark."""
    picture = np.full((60, 50, 3), 230 if dark else 20, "uint8")
    picture[10:16, 10:40] = picture[10:50, 34:40] = 30 if dark else 220
    return picture


def test_run_draws_and_tells(run, tmp_path):
    photos = tuple(write_image(tmp_path / f"{dark}.png", ink(dark)) for dark in (True, False))
    plain = FAMILY.task.run(FAMILY.task.options(inputs=photos, out=tmp_path / "plain.png", run=run))
    drawn = FAMILY.task.run(FAMILY.task.options(inputs=photos, out=tmp_path / "drawn.png", run=run, show_offsets=True))
    assert read_image(plain.outputs[0]).shape == (560, 560, 3)
    picture = read_image(drawn.outputs[0])
    assert picture.shape == (560, 6 * 280, 3)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 80)
    assert red[:, 560:840].sum() > 100
    assert not red[:, :560].any()
    # Dark on light and light on dark are the same digit.
    assert drawn.facts == plain.facts
    assert len({fact for fact in drawn.facts.values()}) == 1


def test_uneven_light_is_taken_away():
    y, x = np.mgrid[:60, :50]
    lit = ink(True) * (1 - 0.4 * x[..., None] / 50 - 0.2 * y[..., None] / 60)
    digit = as_digit(lit.astype("uint8"), 28)[..., 0]
    even = as_digit(ink(True), 28)[..., 0]
    strokes = even > 128
    assert 0.05 < strokes.mean() < 0.3
    assert digit[~strokes & (even == 0)].max() < 30
    assert digit[even > 250].min() > 120


def test_run_refuses(run, tmp_path):
    seven = write_image(tmp_path / "photo.png", ink(True))

    def run_with(**changes):
        return FAMILY.task.run(
            FAMILY.task.options(**{"inputs": (seven,), "out": tmp_path / "out.png", "run": run, **changes})
        )

    with pytest.raises(UsageError, match="--run FOLDER"):
        run_with(run=None)
    with pytest.raises(UsageError, match="size >= 8"):
        run_with(size=4)
    with pytest.raises(UsageError, match="size <= 2048"):
        run_with(size=3000)
    with pytest.raises(UsageError, match="at least one photo"):
        run_with(inputs=())
    with pytest.raises(UsageError, match="--boxes is for detectors"):
        run_with(boxes=tmp_path / "boxes.json")
    with pytest.raises(UsageError, match="no input is overwritten"):
        run_with(out=seven)
    even = write_image(tmp_path / "even.png", np.full((30, 30, 3), 77, "uint8"))
    with pytest.raises(DataError, match="even gray"):
        run_with(inputs=(even,))


@pytest.mark.parametrize(
    "change",
    [
        {"filters": ()},
        {"strides": (1, 2)},
        {"deformable": 4},
        {"warp": "sheared"},
        {"trained": "bias"},
        {"deformable": 0, "trained": "offsets"},
        {"batch": 0},
        {"precision": "float64"},
        {"rates": (1, 2)},
        {"rates": (1, 2, 1)},
        {"schedule": "poly"},
        {"task": "segment"},
        {"task": "detect", "trained": "offsets"},
        {"task": "detect", "scene": 200},
        {"task": "detect", "pooling": "max"},
        {"task": "detect", "anchors": ()},
        {"task": "detect", "anchors": (0.0,)},
        {"strides": (1, 2, 0)},
        {"filters": (4, 8, 0)},
        {"task": "detect", "bins": 0},
        {"task": "detect", "proposals": 1, "detections": 11},
    ],
)
def test_config_refuses(change):
    with pytest.raises(UsageError, match="Received"):
        dataclasses.replace(SMALL, **change)


def test_samples_are_kept_in_float32_in_mixed_precision():
    model = DeformableNet(SMALL, dtype="mixed_bfloat16")
    assert model.network.get_layer("conv3").compute_dtype == "bfloat16"
    assert {v.dtype for v in model.weights} == {"float32"}
    x = keras.random.uniform((1, 28, 28, 1), 0, 255)
    assert model(x).dtype == "float32"


# --- digits on photos -------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def world(mnist, tmp_path_factory):
    """A folder with digits and photos, as the experiments take it."""
    folder = tmp_path_factory.mktemp("world")
    shutil.copytree(mnist["digits"], folder, dirs_exist_ok=True)
    for number in range(5):
        write_image(folder / "photos" / f"{number}.png", photo(number, 120 + number, 150))
    return folder


def test_scenes_hold_digits_where_the_classes_say(world):
    photos, digits = data.read_photos(world / "photos"), read_digits(world, "train")
    assert photos.shape == (5, 160, 160, 3)
    full = np.full_like(digits[0], 255)  # squares instead of digits: their places are easy to see
    scene, target = (np.asarray(a) for a in evidence.labeled_scenes(photos, full, digits[1], 6, [0, 5]))
    empty = np.asarray(evidence.labeled_scenes(photos, np.zeros_like(full), digits[1], 6, [0, 5])[0])
    assert (scene.shape, target.shape) == ((6, 64, 64, 3), (6, 64, 64))
    changed = np.abs(scene - empty).max(-1) > 0
    assert np.all(changed[target > 0])
    assert 0.1 < np.mean(target > 0) < 0.7
    assert np.mean(changed & (target == 0)) < 0.03  # the squares' edges
    assert set(np.unique(target)) <= {0, *(digits[1] + 1)}
    np.testing.assert_array_equal(evidence.labeled_scenes(photos, full, digits[1], 6, [0, 5])[0], scene)
    assert np.any(np.asarray(evidence.labeled_scenes(photos, full, digits[1], 6, [0, 6])[0]) != scene)


def test_networks_on_scenes_have_equally_many_weights():
    budget = evidence.network(evidence.ARMS[-1], evidence.WIDTH).count_params()
    for arm in evidence.ARMS[::2]:
        model = evidence.network(arm, evidence.equal_width(arm, budget))
        assert 0.95 * budget < model.count_params() <= budget
        assert sum(isinstance(layer, layers.DeformableConv2D) for layer in model.layers) == arm.deformable
    assert evidence.equal_width(evidence.ARMS[-1], budget) == evidence.WIDTH
    assert model(np.zeros((1, 8, 12, 3), "float32")).shape == (1, 8, 12, 6)


def test_dilations_reach_further():
    model = DeformableNet(Config(filters=(4, 4, 8), strides=(2, 1, 1), rates=(1, 2, 4), deformable=1))
    assert model.network.get_layer("conv2").dilation_rate == (2, 2)
    assert model.network.get_layer("conv3").dilation_rate == (4, 4)
    assert model.network.get_layer("norm3").output.shape == (None, None, None, 8)
    assert model(np.zeros((1, 11, 12, 1), "float32")).shape == (1, 10)


def test_boxes_are_around_what_is_seen(world):
    photos, digits = data.read_photos(world / "photos"), read_digits(world, "train")
    full = np.full_like(digits[0], 255)
    scene, pasted = data.pasted(photos, full, digits[1], 20, [0, 5], 80, 3, vary=True)
    assert scene.shape == (20, 80, 80, 3)
    boxes, labels, counts = (np.asarray(a) for a in data.ground_truth(pasted))
    assert (boxes.shape, labels.shape, counts.shape) == ((20, 3, 4), (20, 3), (20, 3))
    assert set(np.sum(labels >= 0, axis=1)) == {1, 2, 3}
    assert np.all(boxes[labels < 0] == 0)
    assert np.all(counts[labels < 0] == 0)
    for k in range(20):
        for number, digit in enumerate(pasted):
            seen = np.asarray(digit.alpha)[k, ..., 0] > 0.5
            if labels[k, number] < 0:
                assert not seen.any()
                continue
            rows, columns = np.flatnonzero(seen.any(1)), np.flatnonzero(seen.any(0))
            expected = [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]
            np.testing.assert_array_equal(boxes[k, number], expected)
            free = seen & ~np.any([np.asarray(d.alpha)[k, ..., 0] > 0.5 for d in pasted[number + 1 :]], axis=0)
            # Squares of known size, half of which must be seen.
            assert bool(counts[k, number]) == (free.sum() >= 0.5 * float(digit.area[k]))
    assert 0 < counts.sum() < np.sum(labels >= 0)


def test_photos_of_the_test_are_not_trained_on(world):
    photos = data.read_photos(world / "photos")
    backgrounds, unseen = data.split(photos)
    assert (len(backgrounds), len(unseen)) == (4, 1)
    assert not any(np.array_equal(unseen[0], photo) for photo in backgrounds)
    assert data.read_photos(None).shape == (6, 160, 160, 3)


@pytest.mark.parametrize("name", ["scenes", "regions"])
def test_experiments_need_their_data(name, mnist, tmp_path):
    measure = claims.experiments("deformable_net")[name].measure
    for folder in (None, mnist["digits"]):
        with pytest.raises(DataError, match="photos"):
            measure(folder, tmp_path, True)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["scaled", "rotated", "scenes", "regions"])
def test_experiments_run(name, world, tmp_path):
    found = claims.experiments("deformable_net")[name].measure(world, tmp_path, True)
    assert len(found) >= 2
    assert len({claim.key for claim in found}) == len(found)
    assert all(np.isfinite(claim.ours) for claim in found)
