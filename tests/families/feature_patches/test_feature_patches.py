"""The patches are the best ones and are what the unit sees; pictures optimized to excite a unit do."""

import dataclasses
import json
import os
import re
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import models
from kerasmodels.backbones import receptive_field, sources
from kerasmodels.claims import feature_patches as claims
from kerasmodels.data import read_image, write_image
from kerasmodels.errors import DataError, UsageError, WeightsError
from kerasmodels.models import FeaturePatches
from kerasmodels.models.feature_patches import FAMILY, Config
from kerasmodels.tasks.patches import top_patches
from tests.cases import photo

SIZES = [(70, 90), (90, 70), (64, 64), (57, 83), (80, 61)]
PHOTOS = [(f"{i}", photo(i, *SIZES[i % len(SIZES)])) for i in range(14)]


@pytest.fixture(scope="module")
def model():
    return FeaturePatches(Config(layer="relu2_2", vgg="random"))


@pytest.fixture
def folder(tmp_path):
    for name, picture in PHOTOS[:6]:
        write_image(tmp_path / "photos" / f"{name}.png", picture)
    return tmp_path / "photos"


def options(folder: Path | None, **changes):
    given = {"unit": (5, 60), "out": Path("grid.png"), "photos": folder, "layer": "relu2_1", "vgg": "random", "k": 4}
    return FAMILY.task.options(**{**given, **changes})


# --- the nine best


def test_they_are_the_top_nine(model):
    """Brute force, position by position, over all photos."""
    units = (0, 7, 127)
    best = top_patches(model, iter(PHOTOS), units)
    for unit in units:
        expected = []
        for name, picture in PHOTOS:
            features = np.asarray(model(picture[None].astype("float32")))[0, :, :, unit]
            values = [
                (float(features[row, column]), name, (row, column))
                for row in range(features.shape[0])
                for column in range(features.shape[1])
                if model.field.inside((row, column), picture.shape[:2])
            ]
            expected.append(max(values, key=lambda value: value[0]))
        expected.sort(key=lambda value: -value[0])
        assert [(p.photo, p.position) for p in best[unit]] == [value[1:] for value in expected[:9]]
        np.testing.assert_allclose([p.activation for p in best[unit]], [v[0] for v in expected[:9]], rtol=1e-5)
        assert len({p.photo for p in best[unit]}) == 9


def test_fewer_photos_than_asked_for(model):
    best = top_patches(model, PHOTOS[:3], [1], k=9)
    assert len(best[1]) == 3
    assert [len(top_patches(model, PHOTOS, [1], k=k)[1]) for k in (1, 4)] == [1, 4]


def test_a_unit_that_is_never_active_has_no_patches(model):
    conv = model.network.get_layer("conv2_2")
    kernel, bias = conv.get_weights()
    try:
        dead = bias.copy()
        dead[3] = -1e6
        conv.set_weights([kernel, dead])
        best = top_patches(model, PHOTOS, [3, 4])
        assert best[3] == []
        assert len(best[4]) == 9
    finally:
        conv.set_weights([kernel, bias])


def test_before_the_relu_negative_values_count():
    model = FeaturePatches(Config(layer="conv2_1", vgg="random"))
    conv = model.network.get_layer("conv2_1")
    kernel, bias = conv.get_weights()
    conv.set_weights([kernel, bias - 1e6])
    best = top_patches(model, PHOTOS, [3])[3]
    assert len(best) == 9
    assert all(p.activation < 0 for p in best)


# --- patches are what the unit sees


@pytest.mark.parametrize("layer", ["conv1_1", "relu2_2", "pool2", "relu3_1"])
def test_a_unit_on_its_patch_alone_has_the_same_value(layer):
    """Without padding, on the cropped receptive field, one position is left; it has the map's value."""
    model = FeaturePatches(Config(layer=layer, vgg="random"))
    patches = top_patches(model, PHOTOS, range(0, model.units, 9))
    active = {unit: best for unit, best in patches.items() if best}
    assert len(active) > 3
    for unit, best in active.items():
        pixels = np.stack([p.pixels for p in best])
        assert pixels.shape[1:] == (*model.field.size, 3)
        assert all(p.inside for p in best)
        values = np.array([p.activation for p in best])
        again = np.asarray(model.on_patches(pixels))
        assert again.shape == (len(best), model.units)
        np.testing.assert_allclose(again[:, unit], values, rtol=1e-4, atol=1e-4)


def test_patches_are_cut_where_they_say(model):
    pictures = dict(PHOTOS)
    for patch in top_patches(model, PHOTOS, [11])[11]:
        (top, bottom), (left, right) = patch.box
        np.testing.assert_array_equal(patch.pixels, pictures[patch.photo][top:bottom, left:right])


def test_one_pixel_more_or_less_changes_the_value(model):
    """The field is not larger than what matters: every border row and column of the patch has a gradient."""
    (patch,) = top_patches(model, PHOTOS[:1], [20])[20]
    gradients = []
    # A maximum passes its gradient on to one place only, so many noises are tried.
    for seed in range(20):
        noise = np.random.default_rng(seed).uniform(0, 255, (1, *patch.pixels.shape)).astype("float32")
        seen = tf.Variable(noise)
        with tf.GradientTape() as tape:
            value = tf.reduce_sum(model.on_patches(seen))
        gradients.append(np.abs(tape.gradient(value, seen)[0]).sum(axis=-1))
    total = np.sum(gradients, axis=0)
    for border in (total[0], total[-1], total[:, 0], total[:, -1]):
        assert border.max() > 0


def test_photos_smaller_than_the_field_are_shown_with_gray_around():
    model = FeaturePatches(Config(layer="relu3_3", vgg="random"))
    small = [(str(i), photo(i, 30, 64)) for i in range(4)]
    for patch in top_patches(model, small, [2])[2]:
        assert not patch.inside
        (top, bottom), (left, right) = patch.box
        assert (bottom - top, right - left) == (40, 40) == patch.pixels.shape[:2]
        # Along the side that is long enough, only inner positions count.
        assert 0 <= left < right <= 64
        gray = np.full((40, 40), False)
        gray[: max(-top, 0)] = True
        gray[30 - top :] = True
        assert (patch.pixels[gray] == 128).all()
        np.testing.assert_array_equal(patch.pixels[~gray].reshape(-1, 40, 3), small[int(patch.photo)][1][:, left:right])


# --- the servable


@pytest.mark.parametrize("layer", ["conv1_2", "relu2_1", "pool2", "relu3_1"])
@pytest.mark.parametrize("size", [(64, 80), (23, 90), (9, 5)])
def test_servable_equals_numpy(layer, size):
    model = FeaturePatches(Config(layer=layer, vgg="random"))
    picture = photo(3, *size)
    found = {k: np.asarray(v)[0] for k, v in FAMILY.servables(model)["peaks"].call(picture[None]).items()}
    features = np.asarray(model(picture[None].astype("float32")))[0]
    inner = [
        [i for i in range(n) if model.field.inside((i,) * 2, (size[axis],) * 2)] or list(range(n))
        for axis, n in enumerate(features.shape[:2])
    ]
    part = features[np.ix_(*inner)].reshape(-1, model.units)
    np.testing.assert_allclose(found["activation"], part.max(axis=0), rtol=1e-5, atol=1e-5)
    for unit, (row, column) in enumerate(found["position"]):
        assert row in inner[0]
        assert column in inner[1]
        assert features[row, column, unit] == pytest.approx(found["activation"][unit], rel=1e-5, abs=1e-5)
        (top, bottom), (left, right) = model.field.box((row, column))
        assert found["box"][unit].tolist() == [max(top, 0), max(left, 0), min(bottom, size[0]), min(right, size[1])]


def test_keras_file_needs_no_cached_weights(tmp_path, monkeypatch):
    """Also with the conventions of other weights: their padding, channel order and pooling travel along."""
    arrays = {
        key: np.random.default_rng(5).normal(0, 0.1, shape).astype("float32")
        for key, shape in sources.shapes("vgg19").items()
        if key.startswith(("conv1", "conv2"))
    }
    loaded = sources.Loaded(
        {key: arrays.get(key, np.zeros(shape, "float32")) for key, shape in sources.shapes("vgg19").items()},
        sources.NORMALIZED,
        {},
    )
    with monkeypatch.context() as patched:
        patched.setattr(sources, "load", lambda network, weights: loaded)
        model = FeaturePatches(Config(model="vgg19", layer="relu2_2"))
    model.save(tmp_path / "model.keras")
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path / "empty"))
    again = keras.models.load_model(tmp_path / "model.keras")
    picture = photo(1, 45, 61)[None].astype("float32")
    np.testing.assert_array_equal(again(picture), model(picture))
    assert again.field == model.field
    assert again.config == model.config
    assert again.least_side == 4
    assert again(np.zeros((1, 4, 4, 3))).shape == (1, 2, 2, 128)
    # The patch test again, with reflection and pooling that rounds up.
    for patch in top_patches(again, PHOTOS[:3], [9])[9]:
        assert float(again.on_patches(patch.pixels[None])[0, 9]) == pytest.approx(patch.activation, rel=1e-4)


# --- activation maximization


@pytest.mark.parametrize("layer", ["conv2_1", "relu2_2", "pool2"])
def test_maximized_pictures_excite_more_than_any_photo(layer):
    model = FeaturePatches(Config(layer=layer, vgg="random"))
    best = top_patches(model, PHOTOS, range(0, model.units, 7))
    units = [unit for unit, patches in best.items() if patches][:2]
    # A network that has learned nothing likes what regularization is there to keep out.
    made = model.maximize(units, 60, blur_every=0, tv_weight=0.0)
    assert made.shape == (2, *model.field.size, 3)
    assert made.dtype == np.uint8
    values = np.asarray(model.on_patches(made))
    for row, unit in enumerate(units):
        assert values[row, unit] > best[unit][0].activation


def test_maximizing_is_reproducible_and_regularized(model):
    one, two = model.maximize([4], 9), model.maximize([4], 9)
    np.testing.assert_array_equal(one, two)
    assert np.any(one != model.maximize([4], 9, seed=1))

    def roughness(**how):
        picture = model.maximize([4], 20, **how)[0].astype("float64")
        return np.abs(np.diff(picture, axis=0)).mean() + np.abs(np.diff(picture, axis=1)).mean()

    assert roughness() < roughness(blur_every=0, tv_weight=0.0)
    assert roughness(blur_every=0, tv_weight=0.1) < roughness(blur_every=0, tv_weight=0.0)


# --- run


def test_rows_of_units(folder, tmp_path):
    report = FAMILY.task.run(options(folder, out=tmp_path / "out" / "grid.png", cell=40))
    assert report.outputs == (tmp_path / "out" / "grid.png", tmp_path / "out" / "grid.json")
    assert read_image(report.outputs[0]).shape == (2 * 42 + 2, 4 * 42 + 2, 3)
    record = json.loads(report.outputs[1].read_text())
    assert [row["unit"] for row in record["rows"]] == [5, 60]
    model = FeaturePatches(Config(layer="relu2_1", vgg="random"))
    best = top_patches(model, [(str(folder / f"{n}.png"), p) for n, p in PHOTOS[:6]], [5, 60], 4)
    for row in record["rows"]:
        assert [p["photo"] for p in row["patches"]] == [p.photo for p in best[row["unit"]]]
        assert [p["box"] for p in row["patches"]] == [[list(side) for side in p.box] for p in best[row["unit"]]]
        assert row["maximized"] is None
    assert report.facts["photos"] == 6
    assert report.facts["receptive field"] == "10 pixels, one every 2"
    # The picture shows those patches, the small ones enlarged fourfold without smoothing.
    shown = read_image(report.outputs[0])[2:42, 2:42][::4, ::4]
    np.testing.assert_array_equal(shown, best[5][0].pixels)


def test_only_maximized_pictures(tmp_path):
    report = FAMILY.task.run(options(None, out=tmp_path, maximize=True, steps=3))
    assert report.outputs[0] == tmp_path / "vgg16_relu2_1_5-60.png"
    assert read_image(report.outputs[0]).shape == (2 * 98 + 2, 100, 3)
    assert "photos" not in report.facts


def test_a_bad_photo_does_not_cost_the_good_ones(folder, tmp_path):
    (folder / "bad.jpg").write_text("Dear diary")
    write_image(folder / "dot.png", np.zeros((1, 9, 3), "uint8"))
    report = FAMILY.task.run(options(folder, out=tmp_path / "grid.png", k=9))
    assert report.facts["photos"] == 6
    assert re.match(
        r"2: .*bad\.jpg is not a picture.*dot\.png is smaller than 2 pixels", report.facts["photos skipped"]
    )
    assert read_image(tmp_path / "grid.png").shape[1] == 9 * 98 + 2  # three places stay empty


def test_nothing_to_see(tmp_path):
    write_image(tmp_path / "photos" / "dot.png", np.zeros((1, 1, 3), "uint8"))
    with pytest.raises(DataError, match=r"none of the 1 photos can be used: .*smaller than 2 pixels"):
        FAMILY.task.run(options(tmp_path / "photos", out=tmp_path / "grid.png"))
    assert not (tmp_path / "grid.png").exists()


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"layer": "relu9_1"}, UsageError, "unknown tap of vgg16 'relu9_1'. Did you mean"),
        ({"layer": "fc6"}, UsageError, "unknown tap of vgg16 'fc6'"),
        ({"unit": (128,)}, UsageError, "units of relu2_1 from 0 to 127. Received: 128"),
        ({"unit": (-1,)}, UsageError, "units of relu2_1 from 0 to 127. Received: -1"),
        ({"unit": (3, 3)}, UsageError, "each unit once"),
        ({"unit": ()}, UsageError, "at least one unit"),
        ({"k": 0}, UsageError, "k > 0"),
        ({"max_side": 0}, UsageError, "max_side > 0"),
        ({"photos": None}, UsageError, "--photos DIR.*--maximize"),
        ({"photos": Path("nowhere")}, DataError, "expected a folder of pictures"),
        ({"photos": Path("empty")}, DataError, "no pictures in"),
        ({"out": Path("grid.docx")}, UsageError, "a picture name such as out.png"),
        ({"out": Path("photos/0.png")}, UsageError, "no input is overwritten"),
        ({"out": Path("file/grid.png")}, UsageError, r"expected folders above .*, which is a file"),
        ({"vgg": "nonsense"}, (UsageError, WeightsError), "nonsense"),
    ],
)
def test_run_says_what_is_wrong(changes, error, words, folder, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").touch()
    before = sorted(os.listdir(tmp_path))
    with pytest.raises(error, match=words):
        FAMILY.task.run(
            options(**{"folder": folder, **changes} if "photos" not in changes else {"folder": None, **changes})
        )
    assert sorted(os.listdir(tmp_path)) == before


def test_config_and_model_say_what_is_wrong(tmp_path, monkeypatch):
    with pytest.raises(UsageError, match=r"model: .*vgg16"):
        Config.from_dict({"model": "resnet"})
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="kerasmodels weights vgg16"):
        models.FeaturePatches(Config())


# --- reproduce


def test_fields_of_alexnet_and_the_first_layers_of_vgg(tmp_path):
    rows = claims.EXPERIMENTS["fields"].measure(None, tmp_path, True)
    assert len(rows) == 6
    assert [row.key for row in rows if not row.passed] == []
    assert {row.ours for row in rows} == {"3, 5, 10, 14, 24, 32, 40", "11, 51, 99, 131, 163"}


def test_a_wrong_field_does_not_pass(monkeypatch):
    network = claims._alexnet()
    assert claims._reach(network, ["conv2"]) == [51]
    field = receptive_field(network, "conv2")
    monkeypatch.setattr(claims, "receptive_field", lambda *_: dataclasses.replace(field, size=(47, 47)))
    assert claims._reach(network, ["conv2"]) == [-1]


@pytest.mark.slow
def test_patches_are_alike(tmp_path):
    rows = claims.EXPERIMENTS["alike"].measure(None, tmp_path, True)
    assert [row.key for row in rows if not row.passed] == []
    assert [path.name for path in tmp_path.iterdir()] == ["feature_patches_relu3_3.jpg"]


def test_alike_says_what_data_it_needs(tmp_path):
    with pytest.raises(DataError, match="expected a folder of pictures"):
        claims.EXPERIMENTS["alike"].measure(tmp_path / "nowhere", tmp_path, True)
