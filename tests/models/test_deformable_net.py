"""The classifier of digits: what may move and what may not, and the drawings of where it looks."""

import dataclasses

import keras
import numpy as np
import pytest

from kerasmodels import layers
from kerasmodels.data import read_image, write_image
from kerasmodels.errors import DataError, UsageError
from kerasmodels.models import deformable_net
from kerasmodels.models.deformable_net import FAMILY, Config, DeformableNet, RunOptions, sampling_positions
from kerasmodels.training import train
from tests.tiny_families import TINY

SMALL = Config(filters=(4, 8, 8), strides=(1, 2, 2), deformable=2, batch=4, steps=2)


@pytest.fixture(scope="module")
def mnist(tmp_path_factory):
    return TINY["deformable_net"].data(tmp_path_factory.mktemp("digits"))


def test_the_demonstration_s_network_has_its_number_of_weights():
    assert sum(int(np.prod(v.shape)) for v in DeformableNet(FAMILY.variant("plain")).trainable_variables) == 242_250


def test_as_many_layers_are_deformable_as_asked_for():
    for count in range(4):
        model = DeformableNet(dataclasses.replace(SMALL, deformable=count))
        kinds = [isinstance(model.network.get_layer(f"conv{n}"), layers.DeformableConv2D) for n in (1, 2, 3)]
        assert kinds == [n > 3 - count for n in (1, 2, 3)]


def test_begins_as_the_plain_network_it_takes_over():
    plain, moved = (DeformableNet(dataclasses.replace(SMALL, deformable=count)) for count in (0, 2))
    deformable_net._take_over(moved.network, plain.network)
    x = np.random.default_rng(0).uniform(0, 255, (2, 28, 28, 1)).astype("float32")
    np.testing.assert_allclose(moved(x), plain(x), atol=1e-5)


@pytest.mark.parametrize("trained", ["all", "offsets", "normalization", "offsets and normalization"])
def test_only_what_is_named_moves(trained, mnist):
    config = dataclasses.replace(SMALL, trained=trained, **mnist)
    build, datasets = FAMILY.trainer()
    model = build(config)
    before = {v.path: v.numpy() for v in model.variables}
    model.fit(datasets(config, 0).train, steps_per_epoch=2, shuffle=False, verbose=0)
    moved = {v.path for v in model.network.variables if np.any(v.numpy() != before[v.path])}

    def may(path):
        kind = "normalization" if "/norm" in f"/{path}" else "offsets" if "offset_" in path else "other"
        return trained == "all" or kind in trained

    assert moved
    assert {p for p in before if may(p) and not p.startswith(("adam", "seed"))} >= moved
    # Statistics of normalisation included: they move with it or not at all.
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
    options = {"save_every": 2, "preview_every": 0, "progress": False}
    train(FAMILY, dataclasses.replace(SMALL, **mnist), folder, **options)
    return folder


def ink(dark):
    """A photo of a seven, dark on light or light on dark."""
    picture = np.full((60, 50, 3), 230 if dark else 20, "uint8")
    picture[10:16, 10:40] = picture[10:50, 34:40] = 30 if dark else 220
    return picture


def test_run_draws_and_tells(run, tmp_path):
    photos = tuple(write_image(tmp_path / f"{dark}.png", ink(dark)) for dark in (True, False))
    plain = FAMILY.run(RunOptions(photos, tmp_path / "plain.png", run))
    drawn = FAMILY.run(RunOptions(photos, tmp_path / "drawn.png", run, show_offsets=True))
    assert read_image(plain.outputs[0]).shape == (560, 560, 3)
    picture = read_image(drawn.outputs[0])
    assert picture.shape == (560, 6 * 280, 3)
    red = (picture[..., 0] > 200) & (picture[..., 1] < 80)
    assert red[:, 560:840].sum() > 100
    assert not red[:, :560].any()
    # Dark on light and light on dark are the same digit.
    assert drawn.facts == plain.facts
    assert len({fact for fact in drawn.facts.values()}) == 1


def test_run_refuses(run, tmp_path):
    photo = write_image(tmp_path / "photo.png", ink(True))
    with pytest.raises(UsageError, match="--run DIR"):
        FAMILY.run(RunOptions((photo,), tmp_path / "out.png"))
    with pytest.raises(UsageError, match="8 to 512"):
        FAMILY.run(RunOptions((photo,), tmp_path / "out.png", run, size=4))
    even = write_image(tmp_path / "even.png", np.full((30, 30, 3), 77, "uint8"))
    with pytest.raises(DataError, match="even grey"):
        FAMILY.run(RunOptions((even,), tmp_path / "out.png", run))


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
    ],
)
def test_config_refuses(change):
    with pytest.raises(UsageError, match="Received"):
        dataclasses.replace(SMALL, **change).validate()


def test_samples_are_kept_in_float32_in_mixed_precision():
    model = DeformableNet(SMALL, precision="mixed_bfloat16")
    assert model.network.get_layer("conv3").compute_dtype == "bfloat16"
    assert {v.dtype for v in model.variables} == {"float32"}
    x = keras.random.uniform((1, 28, 28, 1), 0, 255)
    assert model(x).dtype == "float32"
