"""EBGAN: the paper's networks and losses, margins that cannot work, energies as maps, the command on files."""

import csv
import dataclasses
import os
import struct
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.claims import ebgan as claims
from kerasmodels.data import read_image, write_image
from kerasmodels.errors import DataError, DivergedError, UsageError
from kerasmodels.losses import pulling_away
from kerasmodels.models import ebgan
from kerasmodels.models.ebgan import EBGAN, VARIANTS, Config
from kerasmodels.tasks.energies import anomaly_map
from kerasmodels.training import NaNStop, train
from kerasmodels.training.margin_watch import MarginWatch
from tests.cases import case_of, photo, untrained

SMALL = Config(network="mlp", size=8, channels=1, generator_layers=2, generator_width=16, discriminator_width=12,
               latent=4, margin=5.0, learning_rate=1e-3, batch=6)  # fmt: skip


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tiny = case_of("ebgan")
    return dataclasses.replace(tiny.config, **tiny.data(tmp_path))


# --- networks ---------------------------------------------------------------------------------------------------------


def maps(network: keras.Model) -> list[tuple[int, int]]:
    """Side and channels of what each convolution makes."""
    kinds = keras.layers.Conv2D | keras.layers.Conv2DTranspose
    return [tuple(layer.output.shape[2:]) for layer in network.layers if isinstance(layer, kinds)]


def test_networks_are_the_paper_s():
    model = EBGAN()
    assert maps(model.generator) == [(4, 1024), (8, 512), (16, 256), (32, 128), (64, 3)]
    assert maps(model.encoder) == [(32, 64), (16, 128), (8, 256)]
    assert maps(model.decoder) == [(16, 128), (32, 64), (64, 3)]
    model = EBGAN(dataclasses.replace(VARIANTS["paper_256"], filters=4))
    assert maps(model.generator) == [(4, 128), (8, 64), (16, 32), (32, 16), (64, 8), (128, 4), (256, 3)]
    assert maps(model.encoder) == [(128, 4), (64, 8), (32, 16), (16, 32)]
    assert maps(model.decoder) == [(32, 16), (64, 8), (128, 4), (256, 3)]


def test_dense_networks_count_layers_of_weights_as_the_paper_does():
    model = EBGAN(dataclasses.replace(VARIANTS["digits"], generator_layers=5, discriminator_layers=3, dropout=True))
    dense = [
        [layer.units for layer in network.layers if isinstance(layer, keras.layers.Dense)]
        for network in (model.generator, model.encoder, model.decoder)
    ]
    assert dense == [[800] * 4 + [784], [1024, 1024], [784]]
    kinds = [type(layer).__name__ for layer in model.encoder.layers]
    # Not the discriminator's first layer, and nothing that makes a picture.
    assert kinds.count("BatchNormalization") == 1
    assert kinds.count("Dropout") == 2
    first = next(layer for layer in model.encoder.layers if layer.weights)
    assert np.std(first.kernel.numpy()) == pytest.approx(0.002, rel=0.05)
    assert np.std(model.generator.layers[1].kernel.numpy()) == pytest.approx(0.02, rel=0.05)


# --- energies and losses ----------------------------------------------------------------------------------------------


def test_energy_is_the_length_of_the_difference():
    pictures = np.random.default_rng(0).uniform(0, 255, (3, 8, 8, 1)).astype("float32")
    for kind in ("norm", "mean"):
        model = EBGAN(dataclasses.replace(SMALL, energy=kind, margin=2.0))
        rebuilt = np.asarray(model.decoder(model.encoder(pictures / 127.5 - 1)))
        off = (rebuilt - (pictures / 127.5 - 1)).reshape(3, -1)
        expected = np.linalg.norm(off, axis=1) if kind == "norm" else np.mean(off**2, axis=1)
        np.testing.assert_allclose(model.energies(pictures), expected, rtol=1e-5)
        bytes_ = pictures.astype("uint8")
        answer = ebgan.FAMILY.servables(model)["energy"].call(image=tf.constant(bytes_))
        whole = np.asarray(answer["anomaly_map"]).sum((1, 2))
        expected = whole**0.5 if kind == "norm" else whole / 64
        np.testing.assert_allclose(answer["energy"], expected, rtol=1e-5)


def one_step(config: Config, pictures: np.ndarray) -> tuple[EBGAN, dict[str, float]]:
    keras.utils.set_random_seed(0)
    model = EBGAN(config)
    model.compile({"generator": keras.optimizers.SGD(0.0), "discriminator": keras.optimizers.SGD(0.0)})
    return model, {name: float(value) for name, value in model.train_step(pictures).items()}


def test_terms_are_the_paper_s():
    pictures = np.random.default_rng(1).uniform(0, 255, (6, 8, 8, 1)).astype("float32")
    config = dataclasses.replace(SMALL, pulling_away=0.5)
    model, terms = one_step(config, pictures)
    again = EBGAN(config)
    seed_generator = keras.random.SeedGenerator(config.seed)
    latent = [keras.random.normal((6, 4), seed=seed_generator) for _ in range(2)]
    again.set_weights(model.get_weights())
    made = [again.generator(z, training=True) for z in latent]
    codes = again.encoder(made[1], training=True)
    real, fake, pulled = (
        np.linalg.norm(
            np.asarray(again.decoder(again.encoder(x, training=True), training=True) - x).reshape(6, -1), axis=1
        )
        for x in (tf.constant(pictures / 127.5 - 1), *made)
    )
    assert terms["real"] == pytest.approx(real.mean(), rel=1e-4)
    assert terms["fake"] == pytest.approx(fake.mean(), rel=1e-4)
    assert terms["below_margin"] == pytest.approx((fake < 5).mean())
    assert terms["loss"] == pytest.approx(real.mean() + np.maximum(5 - fake, 0).mean(), rel=1e-4)
    assert terms["pulling_away"] == pytest.approx(float(pulling_away(codes)), rel=1e-4)
    assert terms["generator"] == pytest.approx(pulled.mean() + 0.5 * terms["pulling_away"], rel=1e-4)


def test_generated_pictures_beyond_the_margin_do_not_teach_the_discriminator():
    """With real pictures that cost nothing to reconstruct, only fakes below the margin move the discriminator."""
    pictures = np.full((6, 8, 8, 1), 127.5, "float32")
    moved = {}
    for margin in (1e-6, 5.0):
        keras.utils.set_random_seed(0)
        model = EBGAN(dataclasses.replace(SMALL, margin=margin, pulling_away=0.0))
        for variable in model.decoder.trainable_variables:
            variable.assign(tf.zeros_like(variable))
        model.compile({"generator": keras.optimizers.SGD(0.0), "discriminator": keras.optimizers.SGD(1.0)})
        before = model.decoder.get_weights()
        model.train_step(pictures)
        moved[margin] = max(np.abs(a - b).max() for a, b in zip(before, model.decoder.get_weights(), strict=True))
    assert moved[1e-6] == 0
    assert moved[5.0] > 1e-4


def test_running_means_are_of_real_pictures_alone():
    """After many steps without learning, the discriminator normalizes the real batch as in training, and no other."""
    pictures = np.random.default_rng(0).uniform(0, 60, (6, 8, 8, 1)).astype("float32")
    keras.utils.set_random_seed(0)
    model = EBGAN(dataclasses.replace(SMALL, discriminator_layers=3))
    model.compile({"generator": keras.optimizers.SGD(0.0), "discriminator": keras.optimizers.SGD(0.0)})
    step = tf.function(model.train_step)
    for _ in range(100):
        step(tf.constant(pictures))
    (norm,) = [layer for layer in model.encoder.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = keras.Model(model.encoder.inputs[0], norm.input)
    np.testing.assert_allclose(norm.moving_mean, np.mean(before(pictures / 127.5 - 1), axis=0), rtol=1e-3, atol=1e-7)
    made = model.generator(np.random.default_rng(1).normal(size=(6, 4)).astype("float32"), training=True)
    assert not np.allclose(norm.moving_mean, np.mean(before(made), axis=0), rtol=1e-2, atol=1e-7)


def test_margin_goes_to_its_end_on_a_line():
    model = EBGAN(dataclasses.replace(SMALL, margin=4.0, final_margin=0.0, steps=5))
    model.compile("sgd")
    found = []
    for step in (0, 1, 2, 4, 9):
        model.optimizer.iterations.assign(step)
        found.append(float(model.margin()))
    assert found == pytest.approx([4, 3, 2, 0, 0])
    assert EBGAN(SMALL).margin() == 5.0


def test_the_generator_follows_the_energy():
    """One-color pictures: the generator's mean brightness goes to theirs."""
    keras.utils.set_random_seed(0)
    config = dataclasses.replace(SMALL, batch=16, margin=3.0)
    model = EBGAN(config)
    model.compile({side: keras.optimizers.Adam(3e-3, 0.5, 0.999) for side in ("generator", "discriminator")})
    latent = np.random.default_rng(0).normal(size=(64, 4)).astype("float32")
    before = abs(float(np.mean(model(latent))) - 220)
    data = tf.data.Dataset.from_tensors(tf.fill((16, 8, 8, 1), 220.0)).repeat()
    model.fit(data, steps_per_epoch=150, shuffle=False, verbose=0)
    assert abs(float(np.mean(model(latent))) - 220) < 0.25 * before


# --- margins that cannot work -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"margin": 16.0}, r"margin below 16, the largest energy \(norm\) that 8 x 8 x 1"),
        ({"energy": "mean", "margin": 10.0}, r"margin below 4, the largest energy \(mean\).*never closes"),
        ({"final_margin": 20.0}, "margin below 16"),
        ({"margin": 0.0}, "margin > 0"),
        ({"final_margin": -1.0}, "final_margin >= 0"),
        ({"size": 48, "network": "convolutional"}, "size in"),
        ({"discriminator_layers": 1}, "discriminator_layers >= 2"),
        ({"batch": 1}, "batch >= 2"),
        ({"labeled": 15}, "multiple of 10"),
        ({"channels": 2}, "channels: 1 or 3"),
    ],
)
def test_config_out_of_range(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(SMALL, **change)


def watched(config: Config, brightness: np.ndarray, steps: int, patience: int, rate: float = 1e-3) -> list[str]:
    keras.utils.set_random_seed(0)
    model = EBGAN(config)
    model.compile({side: keras.optimizers.Adam(rate, 0.5, 0.999) for side in ("generator", "discriminator")})
    watch = MarginWatch(patience=patience)
    data = tf.data.Dataset.from_tensors(tf.cast(brightness, tf.float32)).repeat()
    model.fit(data, steps_per_epoch=steps, shuffle=False, verbose=0, callbacks=[watch])
    return watch.said


def test_margin_below_what_real_pictures_keep_is_said(capsys):
    noise = np.random.default_rng(0).uniform(0, 255, (64, 8, 8, 1))
    assert watched(dataclasses.replace(SMALL, margin=0.5), noise, 40, 20) == ["the margin is too low"]
    said = capsys.readouterr().err
    assert said.count("warning: the margin is too low: for 20 steps real pictures") == 1
    assert "above the margin 0.5" in said
    assert "--margin" in said


def test_a_hinge_that_is_never_active_is_said(capsys):
    """The pictures are learned in a moment, and a generator that stands still makes others."""
    black = np.zeros((8, 8, 8, 1))
    config = dataclasses.replace(SMALL, margin=2.0)
    keras.utils.set_random_seed(0)
    model = EBGAN(config)
    model.compile({"generator": keras.optimizers.SGD(0.0), "discriminator": keras.optimizers.Adam(1e-2)})
    last = model.decoder.layers[-1] if model.decoder.layers[-1].weights else model.decoder.get_layer("decoder_last")
    last.bias.assign(np.full(64, -4.0))
    watch = MarginWatch(patience=10)
    data = tf.data.Dataset.from_tensors(tf.cast(black, tf.float32)).repeat()
    model.fit(data, steps_per_epoch=30, shuffle=False, verbose=0, callbacks=[watch])
    assert watch.said == ["the hinge is never active"]
    assert "no generated picture had an energy (norm) below the margin 2" in capsys.readouterr().err


def test_nothing_is_said_of_a_margin_that_works(capsys):
    smooth = np.tile(np.linspace(0, 255, 8)[None, None, :, None], (16, 8, 1, 1))
    assert watched(dataclasses.replace(SMALL, margin=5.0), smooth, 200, 60) == []
    assert "warning" not in capsys.readouterr().err


def test_what_the_watch_sees_are_the_steps_since_it_looked():
    model = EBGAN(SMALL)
    watch = MarginWatch()
    watch.set_model(model)
    mean, seen = next(metric for metric in model.metrics if metric.name == "real"), []
    for value, reset in ((8.0, False), (2.0, False), (3.0, True), (5.0, False)):
        if reset:
            mean.reset_state()
        mean.update_state(value)
        seen.append(watch._latest("real"))
    assert seen == [8, 2, 3, 5]


def test_a_loss_that_is_no_number_is_named():
    model = EBGAN(SMALL)
    model.compile()
    data = tf.data.Dataset.from_tensors(tf.fill((6, 8, 8, 1), np.nan)).repeat()
    with pytest.raises(DivergedError, match="generator is nan at step 1"):
        model.fit(data, steps_per_epoch=3, shuffle=False, verbose=0, callbacks=[NaNStop()])


# --- few labels -------------------------------------------------------------------------------------------------------


def write_idx(path: Path, array: np.ndarray) -> Path:
    path.write_bytes(struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes())
    return path


@pytest.fixture
def with_labels(tmp_path: Path) -> Config:
    classes = np.arange(40, dtype="uint8") % 10
    pictures = np.zeros((40, 8, 8), "uint8")
    # Each class is a bar at its own place.
    for picture, number in zip(pictures, classes, strict=True):
        picture.reshape(-1)[6 * number : 6 * number + 6] = 255
    return dataclasses.replace(
        SMALL, pictures=write_idx(tmp_path / "pictures", pictures), labels=write_idx(tmp_path / "labels", classes),
        labeled=20, final_margin=0.0, noise=0.1, steps=4,
    )  # fmt: skip


def test_classes_are_learned_and_told(with_labels):
    config = dataclasses.replace(with_labels, batch=20, learning_rate=1e-2, steps=80)
    keras.utils.set_random_seed(0)
    model = ebgan.FAMILY.build(config)
    drawn, shown, labels = next(iter(ebgan.FAMILY.batches(config)))
    assert drawn.shape == shown.shape == (20, 8, 8, 1)
    np.testing.assert_array_equal(np.argmax(shown.numpy().reshape(20, -1) > 0, 1) // 6, labels)
    model.fit(ebgan.FAMILY.batches(config), steps_per_epoch=80, shuffle=False, verbose=0)
    classify = ebgan.FAMILY.servables(model)["classify"]
    told = np.asarray(classify.call(image=shown)["classes"])
    np.testing.assert_allclose(told.sum(1), 1, rtol=1e-5)
    assert (told.argmax(1) == labels.numpy()).mean() >= 0.9


def test_a_decaying_margin_and_labels_resume_exactly(with_labels, tmp_path: Path):
    options = {"preview_every": 0, "progress": False, "save_every": 2}
    whole = train(ebgan.FAMILY, with_labels, tmp_path / "whole", **options)

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    train(ebgan.FAMILY, with_labels, tmp_path / "parts", callbacks=[Stop()], **options)
    parts = train(ebgan.FAMILY, None, tmp_path / "parts", resume=True, **options)
    assert parts.step == whole.step == 4
    for a, b in zip(whole.model.get_weights(), parts.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)


def test_labels_that_do_not_fit(with_labels, tmp_path: Path):
    with pytest.raises(UsageError, match="--labels FILE with the classes of the 20"):
        ebgan.FAMILY.batches(dataclasses.replace(with_labels, labels=None))
    short = write_idx(tmp_path / "short", np.zeros(7, "uint8"))
    with pytest.raises(DataError, match=r"each of the 40 pictures.*labels \(7,\)"):
        ebgan.FAMILY.batches(dataclasses.replace(with_labels, labels=short))
    with pytest.raises(DataError, match=r"at least 5 pictures of each class for 50.*4 of class 0"):
        ebgan.FAMILY.batches(dataclasses.replace(with_labels, labeled=50))


# --- run --------------------------------------------------------------------------------------------------------------


def test_sheets_and_energies(config, tmp_path: Path):
    options, run = ebgan.FAMILY.task.options, ebgan.FAMILY.task.run
    untrained(ebgan.FAMILY, config, tmp_path / "run")
    asked = options(out=tmp_path / "a.png", run=tmp_path / "run", rows=2, columns=3, between=True)
    (path,) = run(asked).outputs
    assert read_image(path).shape == (32, 48, 3)

    given = write_image(tmp_path / "given.png", photo(1, 21, 35))
    report = run(options(inputs=(given,), out=tmp_path / "map.png", run=tmp_path / "run"))
    # Picture, reconstruction, and anomaly map, each enlarged to 128 pixels.
    assert read_image(tmp_path / "map.png").shape == (128, 384, 3)
    assert report.facts["highest energies"].keys() == {str(given)}
    report = run(options(inputs=(config.pictures,), out=tmp_path / "maps", run=tmp_path / "run"))
    assert len(report.outputs) == 5 + 1
    rows = list(csv.DictReader((tmp_path / "maps" / "energies.csv").read_text().splitlines()))
    found = [float(row["energy"]) for row in rows]
    assert found == sorted(found, reverse=True)
    assert len(found) == 5
    with pytest.raises(UsageError, match="no input is overwritten"):
        run(options(inputs=(given,), out=given, run=tmp_path / "run"))


def test_one_bad_picture_costs_neither_the_others_nor_the_table(config, tmp_path: Path):
    untrained(ebgan.FAMILY, config, tmp_path / "run")
    for name in ("a/1.png", "b/1.png", "b/2.png"):
        write_image(tmp_path / "in" / name, photo(1, 21, 35))
    (tmp_path / "in" / "a" / "0.png").write_bytes((tmp_path / "in" / "a" / "1.png").read_bytes()[:300])
    # Of a disk whose names are not UTF-8.
    os.rename(tmp_path / "in" / "b" / "2.png", os.fsencode(tmp_path / "in" / "b") + b"/caf\xe9.png")
    options = ebgan.FAMILY.task.options(inputs=(tmp_path / "in",), out=tmp_path / "maps", run=tmp_path / "run")
    with pytest.raises(DataError, match=r"3 of 4 inputs are done.*0\.png"):
        ebgan.FAMILY.task.run(options)
    rows = list(csv.DictReader((tmp_path / "maps" / "energies.csv").read_text().splitlines()))
    found = sorted(row["picture"].removeprefix(str(tmp_path)) for row in rows)
    assert found == ["/in/a/1.png", "/in/b/1.png", "/in/b/caf\\xe9.png"]
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 3
    with pytest.raises(UsageError, match="expected pictures, or folders"):
        dataclasses.replace(options, inputs=(tmp_path / "film.mp4",))


def test_the_map_shows_where(tmp_path: Path):
    """A discriminator that reconstructs everything as black: what is bright is where it is."""
    model = EBGAN(SMALL)
    for variable in model.decoder.trainable_variables:
        variable.assign(tf.zeros_like(variable))
    model.decoder.get_layer("decoder_last").bias.assign(np.full(64, -9.0))
    picture = np.zeros((8, 8), "uint8")
    picture[2:4, 5] = 255
    value, shown = anomaly_map(model, picture)
    assert value == pytest.approx((2 * 2**2) ** 0.5, rel=1e-4)
    assert shown.shape == (128, 3 * 128, 3)
    bright = shown[::16, 256::16, 0] > 128
    assert bright.sum() == 2
    assert bright[2:4, 5].all()
    for same in (picture.astype("float32"), picture[..., None], np.stack([picture] * 3, axis=-1)):
        np.testing.assert_array_equal(anomaly_map(model, same)[1], shown)
    with pytest.raises(DataError, match="0-255"):
        anomaly_map(model, np.stack([picture / 255.0] * 3, axis=-1))


def test_mistakes(tmp_path: Path):
    with pytest.raises(UsageError, match="training needs pictures: --pictures"):
        ebgan.FAMILY.batches(Config())
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no pictures in"):
        ebgan.FAMILY.batches(Config(pictures=tmp_path / "empty"))
    write_image(tmp_path / "one" / "a.png", photo(0, 40, 40))
    with pytest.raises(DataError, match="at least 2 pictures"):
        ebgan.FAMILY.batches(Config(pictures=tmp_path / "one"))
    with pytest.raises(UsageError, match="one of --preset NAME and --run"):
        ebgan.FAMILY.task.run(ebgan.FAMILY.task.options(out=tmp_path / "a.png"))


# --- experiments ------------------------------------------------------------------------------------------------------


def test_the_theorems_game(tmp_path: Path):
    found = claims.theorem(None, tmp_path, quick=False)
    assert [claim.key for claim in found if claim.passed is False] == []
    assert sum(claim.passed is True for claim in found) == 7
    assert (tmp_path / "ebgan_theorem.png").is_file()


def test_the_other_arms_take_ebgan_s_step(with_labels):
    """A GAN's discriminator learns from scores, an auto-encoder alone from real pictures, a classifier from labels."""
    pictures = np.random.default_rng(0).uniform(0, 255, (6, 8, 8, 1)).astype("float32")
    gan = claims._gan(SMALL)
    gan.compile()
    before = gan.decoder.get_weights()
    fake = gan.generator(keras.random.normal((6, 4), seed=keras.random.SeedGenerator(SMALL.seed)), training=True)
    scores = [gan.decoder(gan.encoder(x, training=True))[:, 0] for x in (pictures / 127.5 - 1, fake)]
    terms = {name: float(value) for name, value in gan.train_step(pictures).items()}
    expected = np.log1p(np.exp(-scores[0])).mean() + np.log1p(np.exp(scores[1])).mean()
    assert terms["loss"] == pytest.approx(expected, rel=1e-4)
    assert any(np.any(a != b) for a, b in zip(before, gan.decoder.get_weights(), strict=True))

    alone = EBGAN(dataclasses.replace(SMALL, margin=1e-9, final_margin=1e-9))
    alone.compile()
    terms = {name: float(value) for name, value in alone.train_step(pictures).items()}
    assert terms["loss"] == pytest.approx(terms["real"], rel=1e-6)

    labels = claims._LabelsAlone(dataclasses.replace(with_labels, pulling_away=0.0))
    labels.compile()
    before = {name: getattr(labels, name).get_weights() for name in ("generator", "decoder", "encoder", "classifier")}
    labels.train_step(next(iter(ebgan.FAMILY.batches(with_labels))))
    moved = {
        name
        for name, values in before.items()
        for old, new in zip(values[:2], getattr(labels, name).get_weights()[:2], strict=True)
        if np.any(old != new)
    }
    assert moved == {"encoder", "classifier"}


@pytest.mark.parametrize("margin", [1.0, 80.0])
def test_the_game_ends_at_the_data_whatever_they_are(margin):
    for seed in range(3):
        real = np.random.default_rng(seed).dirichlet(np.ones(6))
        game = claims.played(real, margin, 20000)
        assert game.values[-1] == pytest.approx(margin, rel=0.02)
        assert 0.5 * np.abs(game.generated - real).sum() < 0.02


def test_area_under_the_curve():
    assert claims.area(np.array([3.0, 4]), np.array([1.0, 2])) == 1
    assert claims.area(np.array([1.0, 4]), np.array([2.0, 3])) == 0.5
    assert claims.area(np.ones(3), np.ones(5)) == 0.5
