import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasmodels import runs, storage
from kerasmodels.claims import photo_style as claims
from kerasmodels.data import read_image, write_image
from kerasmodels.data.color import match_colors_by_region
from kerasmodels.data.regions import COLORS
from kerasmodels.errors import DataError, DivergedError, UsageError
from kerasmodels.losses import GramStyle, MattingEnergy
from kerasmodels.losses.photorealistic import affine_energy
from kerasmodels.models.photo_style import (
    FAMILY,
    Config,
    Pair,
    PhotoStyle,
    RunOptions,
    objective,
    read_pair,
    stages,
)
from kerasmodels.servables import served
from kerasmodels.tasks.recolor import recolored
from kerasmodels.training import optimize_picture
from tests.cases import photo

PAIR = Pair(photo(1, 33, 46), photo(2, 40, 36), np.ones((1, 33, 46), "float32"), np.ones((1, 40, 36), "float32"))
SMALL = Config(height=33, width=46, reference_size=40, vgg="random", style_layers=("relu1_1", "relu2_1"))
SMALL = dataclasses.replace(SMALL, content_layer="relu2_1", steps=6, plain_steps=3)


def painted(folder, name, colors, size):
    """A label picture of vertical stripes."""
    height, width = size
    stripes = np.repeat([COLORS[c] for c in colors], -(-width // len(colors)), 0)[:width]
    return write_image(folder / name, np.broadcast_to(stripes, (height, width, 3)).astype("uint8"))


@pytest.fixture
def files(tmp_path):
    return {
        "photo": write_image(tmp_path / "photo.png", photo(1, 66, 92)),
        "reference": write_image(tmp_path / "reference.png", photo(2, 80, 72)),
    }


def _run_folder(folder):
    model = PhotoStyle(SMALL)
    model.photo.show(PAIR.photo)
    model.picture.show(PAIR.photo[..., ::-1] * 0.5)
    storage.save_npz(folder / "weights.npz", storage.model_arrays(model))
    storage.write_json(folder / "run.json", runs.new_card("photo_style", SMALL, None))
    return folder


# --- the objective


def test_affine_images_of_the_photo_have_no_energy():
    matrix = np.array([[0.5, 0.2, 0], [0.1, 0.6, -0.1], [0, 0.3, 0.4]])
    energy = affine_energy(PAIR.photo)
    affine = (PAIR.photo @ matrix + 20)[None].astype("float32")
    other = photo(5, 33, 46)[None].astype("float32")
    assert float(energy(affine)[0]) < 1e-4 * float(energy(other)[0])


def test_affine_energy_and_its_gradient_are_those_of_the_loss():
    x = tf.Variable(photo(5, 33, 46)[None].astype("float32"))
    found = []
    for function in (
        affine_energy(PAIR.photo),
        lambda x: MattingEnergy(max_value=255.0, reduction=None)(PAIR.photo[None].astype("float32"), x),
    ):
        with tf.GradientTape() as tape:
            value = function(x)
        found.append((value.numpy(), tape.gradient(value, x).numpy()))
    np.testing.assert_allclose(found[0][0], found[1][0], rtol=1e-5)
    np.testing.assert_allclose(found[0][1], found[1][1], atol=1e-4 * np.abs(found[1][1]).max())


def test_affine_value_and_gradient_belong_together():
    """The energy is quadratic, so central differences are exact and its gradient along itself is twice its value."""
    energy = affine_energy(PAIR.photo)
    x = photo(5, 33, 46)[None].astype("float32")
    held = tf.Variable(x)
    with tf.GradientTape() as tape:
        value = energy(held)
    gradient = tape.gradient(value, held).numpy().astype("float64")
    assert np.sum(gradient * x) == pytest.approx(2 * float(value[0]), rel=1e-4)
    direction = photo(6, 33, 46)[None].astype("float32") - x
    ends = [float(energy(x + sign * direction)[0]) for sign in (1, -1)]
    assert (ends[0] - ends[1]) / 2 == pytest.approx(np.sum(gradient * direction), rel=1e-4)


def test_terms_are_those_of_the_losses():
    compared = objective(SMALL, PAIR)
    picture = photo(5, 33, 46)[None].astype("float32")
    terms = {name: float(value[0]) for name, value in compared.terms(picture).items()}
    assert list(terms) == ["content", "style", "total_variation", "affine"]
    plain = GramStyle(compared.vgg, PAIR.reference, dict.fromkeys(SMALL.style_layers, 1.0))(picture, picture)
    assert terms["style"] == pytest.approx(2 * 340.0**4 * float(plain), rel=1e-5)
    assert terms["affine"] == pytest.approx(
        1e4 * float(MattingEnergy()(PAIR.photo[None] / np.float32(255), picture / 255)), rel=1e-4
    )
    assert "affine" not in objective(SMALL, PAIR, affine=False).terms(picture)
    own = objective(SMALL, PAIR).terms(PAIR.photo[None].astype("float32"))
    assert float(own["content"][0]) == 0
    assert float(own["affine"][0]) < 1e-4 * terms["affine"]


def test_the_affine_term_begins_with_stage_2():
    model = PhotoStyle(SMALL)
    compared = objective(SMALL, PAIR)
    model.compile("adam", compared)
    picture = photo(5, 33, 46)[None].astype("float32")
    losses = []
    for step in (0, 2, 3):
        model.optimizer.iterations.assign(step)
        losses.append(float(model.compute_loss(y_pred=picture)))
    first, last, second = losses
    assert first == last
    assert second - first == pytest.approx(float(compared.terms(picture)["affine"][0]), rel=1e-3)


def test_stage_2_keeps_a_tenth_of_the_affine_energy(tmp_path):
    """The property the paper is about, with a network that was never trained."""
    config = dataclasses.replace(SMALL, steps=80, plain_steps=40, start="photo", style_weight=5.0)
    energies, styles = [], []
    compared = objective(config, PAIR)
    pixels = None
    for stage in stages(config, PAIR):
        pixels, _ = claims.descend(stage, pixels)
        terms = claims.terms_of(compared, pixels)
        energies.append(terms["affine"])
        styles.append(terms["style"])
    assert energies[1] <= 0.1 * energies[0]
    assert styles[1] < claims.terms_of(compared, PAIR.photo)["style"]


# --- where it begins, how it is measured


def test_matched_colors_have_the_reference_s_mean_and_covariance():
    masks = np.zeros((2, 33, 46), "float32")
    masks[0, :16] = masks[1, 16:] = 1
    there = np.zeros((2, 40, 36), "float32")
    there[0, :, :20] = there[1, :, 20:] = 1
    got = match_colors_by_region(PAIR.photo, PAIR.reference, masks, there)
    for mine, theirs in zip(masks > 0, there > 0, strict=True):
        np.testing.assert_allclose(got[mine].mean(0), PAIR.reference[theirs].mean(0), atol=0.1)
        ours, want = np.cov(got[mine].T), np.cov(PAIR.reference[theirs].T)
        np.testing.assert_allclose(ours, want, atol=0.15 * np.abs(want).max())


def test_structure_is_1_under_other_colors_and_small_for_another_picture():
    assert claims.structure(PAIR.photo, 255 - PAIR.photo // 2) > 0.97
    assert claims.structure(PAIR.photo, np.random.default_rng(0).uniform(0, 255, (33, 46, 3))) < 0.4


# --- pictures and masks in


def test_masks_come_out_at_both_sizes_without_orphans(files, tmp_path):
    mask = painted(tmp_path, "m.png", ("red", "blue", "white"), (65, 92))  # one pixel less than the photo
    reference_mask = painted(tmp_path, "r.png", ("white", "red", "green"), (80, 72))
    config = dataclasses.replace(SMALL, **files, mask=mask, reference_mask=reference_mask)
    pair = read_pair(config)
    assert pair.photo.shape == (33, 46, 3)
    assert pair.reference.shape == (40, 36, 3)
    assert pair.masks.shape == (2, 33, 46)
    assert pair.reference_masks.shape == (2, 40, 36)
    np.testing.assert_allclose(pair.masks.sum(0), 1, atol=1e-5)  # blue became red or white
    assert pair.reference_masks.sum(0).min() == 0  # green is nobody's


def test_found_regions(files):
    pair = read_pair(dataclasses.replace(SMALL, **files, auto_masks=2))
    assert 1 <= len(pair.masks) <= 2
    np.testing.assert_allclose(pair.masks.sum(0), 1, atol=1e-5)
    assert read_pair(dataclasses.replace(SMALL, **files)).masks.min() == 1


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"photo": None}, UsageError, "--reference"),
        ({"height": 46}, UsageError, "--height 33"),
        ({"mask": "m.png"}, UsageError, "together"),
        ({"auto_masks": 12}, UsageError, "auto_masks"),
        ({"start": "nothing"}, UsageError, "start"),
        ({"photo": "tiny.png"}, DataError, "16 x 16"),
        ({"mask": "turned.png", "reference_mask": "turned.png"}, DataError, "proportions"),
        ({"mask": "orange.png", "reference_mask": "orange.png"}, DataError, r"\(255, 128, 0\)"),
        ({"mask": "red.png", "reference_mask": "blue.png"}, DataError, r"share a color.*red.*blue"),
    ],
)
def test_what_cannot_be_used(files, tmp_path, change, error, words):
    write_image(tmp_path / "tiny.png", photo(1, 2, 2))
    painted(tmp_path, "turned.png", ("red", "blue"), (92, 66))
    painted(tmp_path, "red.png", ("red",), (66, 92))
    painted(tmp_path, "blue.png", ("blue",), (80, 72))
    write_image(tmp_path / "orange.png", np.full((66, 92, 3), (255, 128, 0), "uint8"))
    named = {k: tmp_path / v if isinstance(v, str) and v.endswith(".png") else v for k, v in change.items()}
    with pytest.raises(error, match=words):
        FAMILY.build(dataclasses.replace(SMALL, **{**files, **named}))


def test_a_photo_of_one_color(tmp_path):
    flat = write_image(tmp_path / "flat.png", np.full((33, 46, 3), 90, "uint8"))
    other = write_image(tmp_path / "other.png", photo(2, 40, 36))
    pair = read_pair(dataclasses.replace(SMALL, photo=flat, reference=other))
    assert np.isfinite(match_colors_by_region(*dataclasses.astuple(pair))).all()
    done = optimize_picture(stages(SMALL, pair), tmp_path / "out.png", progress=False)
    assert np.isfinite(done.loss)


# --- run


def test_a_transfer(files, tmp_path):
    options = RunOptions(**files, out=tmp_path / "out.png", size=46, iterations=2, vgg="random", full_size=True)
    report = FAMILY.task.run(options)
    assert read_image(tmp_path / "out.png").shape == (66, 92, 3)
    assert report.facts["iterations"] == 4
    assert float(report.facts["affine"]) >= 0


def test_a_run_s_colors_for_the_photo_at_its_full_size(files, tmp_path):
    big = write_image(tmp_path / "big.png", np.repeat(np.repeat(PAIR.photo, 3, 0), 3, 1))
    FAMILY.task.run(RunOptions(photo=big, out=tmp_path / "out.png", run=_run_folder(tmp_path / "run")))
    expected = np.repeat(np.repeat(PAIR.photo[..., ::-1] * 0.5, 3, 0), 3, 1)
    assert np.abs(read_image(tmp_path / "out.png") - expected).mean() < 6


def test_bands_make_no_difference(monkeypatch):
    """And the bands are what is served: rows are placed as the resize operator places them."""
    big = photo(1, 71, 95)
    stylized = PAIR.photo[..., ::-1] * 0.5
    whole = recolored(big, PAIR.photo, stylized)
    monkeypatch.setattr("kerasmodels.tasks.recolor._BAND", 95 * 9)
    np.testing.assert_allclose(recolored(big, PAIR.photo, stylized).astype(int), whole.astype(int), atol=1)
    held = PhotoStyle(SMALL)
    held.photo.show(PAIR.photo)
    held.picture.show(stylized)
    answer = served(held, "recolor")(image=big[None])["recolored"][0]
    np.testing.assert_allclose(answer.astype(int), whole.astype(int), atol=1)


def test_photos_of_0_to_1_are_refused():
    for pictures in ((PAIR.photo / 255, PAIR.photo, PAIR.photo), (PAIR.photo, PAIR.photo, PAIR.photo / 255)):
        with pytest.raises(DataError, match="Multiply it by 255"):
            recolored(*pictures)


def test_masks_with_palettes_in_another_order_are_told_apart_by_color(files, tmp_path):
    """Or the two regions would take their style from each other's."""
    colors = ("red", "blue"), ("blue", "red")
    masks = [painted(tmp_path, f"{i}.png", order, (66, 92)) for i, order in enumerate(colors)]
    config = dataclasses.replace(
        SMALL, photo=files["photo"], reference=files["photo"], mask=masks[0], reference_mask=masks[0]
    )
    wanted = read_pair(config)
    for order, path in zip(colors, masks, strict=True):
        with Image.open(path) as image:
            picture = np.asarray(image)
        first = (picture == [(255, 0, 0), (0, 0, 255)][order[0] == "blue"]).all(-1)
        indexed = Image.fromarray(np.where(first, 0, 1).astype("uint8"))
        indexed.putpalette([255, 0, 0, 0, 0, 255] if order[0] == "red" else [0, 0, 255, 255, 0, 0])
        indexed.save(path)
    np.testing.assert_array_equal(read_pair(config).masks, wanted.masks)
    swapped = read_pair(dataclasses.replace(config, reference_mask=masks[1]))
    np.testing.assert_array_equal(swapped.reference_masks, wanted.reference_masks[::-1])


def test_finishing_a_stylized_picture(tmp_path):
    strokes = 15 * np.sin(np.arange(46) * 1.3)[None, :, None]
    evening = PAIR.photo * (0.9, 0.6, 0.5)
    files = {
        "photo": write_image(tmp_path / "p.png", PAIR.photo),
        "stylized": write_image(tmp_path / "s.png", np.clip(evening + strokes, 0, 255).astype("uint8")),
    }
    FAMILY.task.run(RunOptions(**files, out=tmp_path / "out.png"))
    assert np.abs(read_image(tmp_path / "out.png") - evening).mean() < 0.5 * np.abs(strokes).mean()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"reference": None}, "one of --reference"),
        ({"stylized": "photo.png"}, "--reference --stylized"),
        ({"out": "photo.png"}, "overwritten"),
        ({"out": "out.xyz"}, "out.png or out.jpg"),
        ({"iterations": 0}, "iterations"),
    ],
)
def test_options_that_contradict(files, tmp_path, change, words):
    named = {k: tmp_path / v if isinstance(v, str) else v for k, v in change.items()}
    with pytest.raises(UsageError, match=words):
        FAMILY.task.run(RunOptions(**{**files, "out": tmp_path / "out.png", "vgg": "random", **named}))


def test_a_loss_that_is_not_finite_is_named(tmp_path):
    config = dataclasses.replace(SMALL, steps=1, plain_steps=0, start="noise", affine_weight=1e38)
    with pytest.raises(DivergedError, match="affine is inf"):
        optimize_picture(stages(config, PAIR), tmp_path / "out.png", progress=False)


def test_the_network_is_not_saved_with_the_picture(files, tmp_path):
    model = FAMILY.build(dataclasses.replace(SMALL, **files))
    assert {v.path for v in model.variables if "seed" not in v.path} >= {v.path for v in model.trainable_variables}
    assert model.count_params() == 2 * 33 * 46 * 3
    model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < 400_000
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded.photo.pixels, model.photo.pixels)
