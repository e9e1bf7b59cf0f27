"""CycleGAN: the paper's networks, what a step minimizes, the schedule, the command on files."""

import dataclasses
import os
import pickle
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from kerasmodels.backbones.torch_file import read_torch
from kerasmodels.claims import cyclegan as claims
from kerasmodels.data import read_image, unpaired, write_image
from kerasmodels.errors import DataError, UsageError, WeightsError
from kerasmodels.models import cyclegan
from kerasmodels.models.cyclegan import Config, CycleGAN
from kerasmodels.ports.cyclegan import from_torch
from kerasmodels.translator import DIRECTIONS
from tests.backbones.test_sources import torch_file as written
from tests.cases import case_of, photo, untrained

SMALL = Config(filters=4, blocks=1, discriminator_filters=4, size=32, upsampling="resize", batch=1)


@pytest.mark.parametrize(("config", "generator"), [(Config(), 11_378_179), (Config(blocks=6), 7_837_699)])
@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_parameters_are_the_paper_s(config, generator, upsampling):
    model = CycleGAN(dataclasses.replace(config, upsampling=upsampling))
    assert model.a_to_b.count_params() == model.b_to_a.count_params() == generator
    assert model.discriminator_a.count_params() == model.discriminator_b.count_params() == 2_764_737


def test_the_discriminator_sees_70_pixels_and_scores_30_by_30_windows():
    discriminator = CycleGAN(Config(filters=4, blocks=0, discriminator_filters=4)).discriminator_a
    assert tuple(discriminator.compute_output_shape((1, 256, 256, 3))) == (1, 30, 30, 1)
    # Instance normalization sees all of a picture, so the windows are those of the convolutions alone.
    plain = keras.models.clone_model(
        discriminator, clone_function=lambda layer: keras.layers.Identity() if "norm" in layer.name else layer
    )
    picture = tf.random.stateless_normal((1, 256, 256, 3), (0, 1))
    with tf.GradientTape() as tape:
        tape.watch(picture)
        score = plain(picture)[0, 15, 15, 0]
    seen = np.abs(tape.gradient(score, picture)[0]).sum(-1) > 0
    assert seen.any(0).sum() == seen.any(1).sum() == 70


def test_sizes_and_range():
    model = CycleGAN(dataclasses.replace(SMALL, upsampling="transposed"))
    made = model(np.random.default_rng(0).uniform(0, 255, (2, 36, 44, 3)))
    assert tuple(made.shape) == (2, 36, 44, 3)
    assert float(np.min(made)) >= 0
    assert float(np.max(made)) <= 255


def simple(config: Config) -> CycleGAN:
    """With networks of a layer or two: for what is not the networks' business, as the pools of generated pictures."""

    def generator() -> keras.Model:
        return keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(3, 3, padding="same")])

    def discriminator() -> keras.Model:
        return keras.Sequential([keras.Input((None, None, 3)), keras.layers.Conv2D(1, 4, 2)])

    model = CycleGAN(
        config,
        a_to_b=generator(),
        b_to_a=generator(),
        discriminator_a=discriminator(),
        discriminator_b=discriminator(),
    )
    model.compile()
    return model


@pytest.fixture
def config(tmp_path: Path) -> Config:
    tiny = case_of("cyclegan")
    return dataclasses.replace(tiny.config, **tiny.data(tmp_path))


def test_terms_are_the_paper_s():
    """One step of a model whose networks are replaced by known ones."""
    model = CycleGAN(dataclasses.replace(SMALL, cycle_weight=10.0, identity_weight=0.5, pool=0))

    class Affine(keras.layers.Layer):
        def __init__(self, shift, mean=False):
            super().__init__()
            self.shift, self.mean = self.add_weight(shape=(), initializer=keras.initializers.Constant(shift)), mean

        def call(self, x, training=None):
            x = keras.ops.mean(x, axis=(1, 2, 3), keepdims=True) if self.mean else x
            return x + self.shift

    model.a_to_b, model.b_to_a = Affine(0.25), Affine(-0.125)
    model.discriminator_a, model.discriminator_b = Affine(0.0, mean=True), Affine(0.5, mean=True)
    model.compile("sgd")
    a, b = np.full((1, 32, 32, 3), 127.5), np.full((1, 32, 32, 3), 255.0)  # 0 and 1
    terms = {k: float(v) for k, v in model.train_step((a, b)).items()}
    # a -> .25, b -> .875; reconstructions .125 and 1.125; scores .75 of b's fake, .875 of a's.
    assert terms["adversarial"] == pytest.approx((0.75 - 1) ** 2 + (0.875 - 1) ** 2, abs=1e-6)
    assert terms["cycle"] == pytest.approx(0.125 + 0.125, abs=1e-6)
    assert terms["identity"] == pytest.approx(0.25 + 0.125, abs=1e-6)
    assert terms["loss"] == pytest.approx(terms["adversarial"] + 10 * 0.25 + 5 * 0.375, abs=1e-5)
    assert terms["discriminator_a"] == pytest.approx(0.5 * ((0 - 1) ** 2 + 0.875**2), abs=1e-6)
    assert terms["discriminator_b"] == pytest.approx(0.5 * ((1.5 - 1) ** 2 + 0.75**2), abs=1e-6)


def test_rate_falls_over_the_second_half(config):
    model = cyclegan.FAMILY.build(dataclasses.replace(config, steps=200, learning_rate=2e-4))
    rate = model.optimizer._learning_rate
    assert [round(float(rate(step)) / 2e-4, 6) for step in (0, 99, 100, 150, 199, 200)] == [1, 1, 1, 0.5, 0.01, 0]
    again = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(rate))
    assert float(again(150)) == pytest.approx(1e-4)


def test_domains_do_not_come_in_step(config):
    for number in range(3):
        write_image(config.b / f"{number}.png", read_image(config.a / f"{number}.png"))
    a, b = next(iter(cyclegan.FAMILY.batches(config)))
    assert a.shape == b.shape == (config.batch, 32, 32, 3)
    assert (a.numpy() != b.numpy()).any()


def test_folders_and_directions(config, tmp_path: Path):
    untrained(cyclegan.FAMILY, config, tmp_path / "run")
    options = cyclegan.FAMILY.task.options(inputs=(config.a,), out=tmp_path / "out", run=tmp_path / "run")
    report = cyclegan.FAMILY.task.run(options)
    assert [p.name for p in report.outputs] == ["0.png", "1.png", "2.png"]
    picture = write_image(tmp_path / "odd.png", photo(1, 35, 50))
    ways = [
        read_image(
            cyclegan.FAMILY.task.run(
                dataclasses.replace(options, inputs=(picture,), out=tmp_path / f"{way}.png", direction=way)
            ).outputs[0]
        )
        for way in DIRECTIONS
    ]
    assert ways[0].shape == ways[1].shape == (35, 50, 3)
    assert (ways[0] != ways[1]).any()
    with pytest.raises(UsageError, match="no input is overwritten"):
        cyclegan.FAMILY.task.run(dataclasses.replace(options, inputs=(picture,), out=picture))


def test_fit_takes_what_unpaired_gives(config, tmp_path: Path):
    """The size of the crops need not be the config's, and pools begin with the first batch."""
    model = simple(SMALL)
    history = model.fit(unpaired(config.a, config.b, size=36), steps_per_epoch=2, epochs=2, verbose=0).history
    assert np.isfinite(history["loss"]).all()
    state = model.training_state()
    assert {name: value.shape for name, value in state.items() if name.endswith("kept")} == {
        "a/kept": (50, 36, 36, 3), "b/kept": (50, 36, 36, 3),
    }  # fmt: skip
    assert int(state["a/count"]) == 4
    other = simple(SMALL)
    other.set_training_state(state)
    for name, value in other.training_state().items():
        np.testing.assert_array_equal(value, state[name])
    # Before the first batch there was nothing.
    other.set_training_state({})
    assert not any(np.any(value) for value in other.training_state().values())


def test_a_step_is_traced_once(config, monkeypatch):
    """The pools are made before: TensorFlow traces a function that makes variables twice."""
    step, calls = CycleGAN.train_step, []
    monkeypatch.setattr(CycleGAN, "train_step", lambda self, data: calls.append(data) or step(self, data))
    simple(SMALL).fit(unpaired(config.a, config.b, size=36), steps_per_epoch=2, verbose=0)
    assert len(calls) == 1


def test_fit_takes_arrays_whose_last_batch_is_smaller():
    model = simple(SMALL)
    a, b = (np.random.default_rng(seed).uniform(0, 255, (3, 32, 32, 3)).astype("float32") for seed in range(2))
    model.fit(a, b, batch_size=2, verbose=0)
    assert int(model.training_state()["a/count"]) == 3


def test_pools_keep_pictures_of_one_size():
    model = simple(SMALL)

    def batches(*shape):
        spec = tf.TensorSpec((None, *shape), tf.float32)
        pictures = tf.random.stateless_uniform((1, 32, 32, 3), (0, 1))
        given = tf.data.Dataset.from_generator(lambda: [(pictures, pictures)], output_signature=(spec, spec))
        return given.repeat()

    with pytest.raises(DataError, match="pictures of one size"):
        model.fit(batches(None, None, 3), steps_per_epoch=1, verbose=0)
    model.compile()
    model.fit(batches(32, 32, 3), steps_per_epoch=1, verbose=0)
    without = simple(dataclasses.replace(SMALL, pool=0))
    without.fit(batches(None, None, 3), steps_per_epoch=1, verbose=0)


def test_one_bad_picture_does_not_stop_the_others(tmp_path: Path):
    for name in ("a", "b"):
        write_image(tmp_path / "in" / name / "1.png", photo(1, 33, 40))
    (tmp_path / "in" / "a" / "0.png").write_bytes((tmp_path / "in" / "a" / "1.png").read_bytes()[:300])
    options = cyclegan.FAMILY.task.options(inputs=(tmp_path / "in",), out=tmp_path / "out", preset="summer2winter")
    with pytest.raises(DataError, match=r"2 of 3 inputs are done.*0\.png"):
        cyclegan.FAMILY.task.run(options)
    assert sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.png")) == [
        "a/1.png", "b/1.png",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("change", "message"),
    [({"size": 34}, "multiple of 4"), ({"filters": 0}, "filters > 0"), ({"pool": -1}, "pool >= 0"),
     ({"upsampling": "cubic"}, "upsampling: 'transposed' or 'resize'"), ({"cycle_weight": -1.0}, "cycle_weight >= 0")],
)  # fmt: skip
def test_config_out_of_range(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(Config(), **change)


def test_domains_that_cannot_be_learned(tmp_path: Path):
    with pytest.raises(UsageError, match="--a DIR --b DIR"):
        cyclegan.FAMILY.batches(Config(a=tmp_path))
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "one" / "a.png", photo(0, 40, 40))
    with pytest.raises(DataError, match="no pictures in"):
        cyclegan.FAMILY.batches(Config(a=tmp_path / "empty", b=tmp_path / "one"))
    with pytest.raises(DataError, match="at least 2 pictures of each domain"):
        cyclegan.FAMILY.batches(Config(a=tmp_path / "one", b=tmp_path / "one"))


def test_the_known_map_changes_color_and_brightness():
    picture = claims.shapes(32, 32, np.random.default_rng(0))
    other = claims.striped(picture)
    hue, hue_other = (np.asarray(Image.fromarray(p).convert("HSV"))[..., 0].astype(int) for p in (picture, other))
    colored = picture.max(-1) > picture.min(-1)
    assert colored.mean() > 0.2
    np.testing.assert_allclose((hue + hue_other)[colored], 213, atol=5)
    dark = np.add.outer(np.arange(32), np.arange(32)) // 3 % 2 == 0
    assert other[dark].max() < picture[dark].max()
    np.testing.assert_array_equal(other[~dark].max(-1), picture[~dark].max(-1))


# --- weights of the authors' code -------------------------------------------------------------------------------------


@pytest.fixture
def torch_file(tmp_path: Path):
    kept = np.load(Path(__file__).with_name("cyclegan_torch.npz"))
    for name in ("zip", "stream"):
        (tmp_path / f"{name}.pth").write_bytes(kept[name].tobytes())
    return tmp_path, kept["picture"], kept["answer"]


@pytest.mark.parametrize("name", ["zip", "stream"])
def test_outputs_are_pytorch_s(torch_file, name):
    folder, picture, answer = torch_file
    model = from_torch(folder / f"{name}.pth")
    assert (model.config.filters, model.config.blocks) == (3, 2)
    found = model.a_to_b(picture.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, answer.transpose(0, 2, 3, 1), atol=1e-5)
    both = from_torch(folder / "zip.pth", folder / "stream.pth")
    np.testing.assert_array_equal(both.b_to_a(picture.transpose(0, 2, 3, 1)), found)


@pytest.fixture
def state(torch_file) -> dict[str, np.ndarray]:
    return read_torch(torch_file[0] / "zip.pth")


def with_dropout(state):
    """As the authors' code lays generators out with --use_dropout."""
    return {name.replace(".conv_block.5.", ".conv_block.6."): value for name, value in state.items()}


@pytest.mark.parametrize("beginning", ["", "module.", "netG_A.module."])
@pytest.mark.parametrize("dropout", [False, True])
def test_other_layouts_hold_the_same_numbers(torch_file, state, tmp_path: Path, beginning, dropout):
    _, picture, answer = torch_file
    state = {beginning + name: value for name, value in (with_dropout(state) if dropout else state).items()}
    (tmp_path / "other.pth").write_bytes(written(state))
    found = from_torch(tmp_path / "other.pth").a_to_b(picture.transpose(0, 2, 3, 1))
    np.testing.assert_allclose(found, answer.transpose(0, 2, 3, 1), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"model.2.weight": np.ones(3), "model.2.bias": np.ones(3)}, "normalization without weights"),
        ({"model.10.conv_block.9.weight": np.ones((12, 12, 3, 3))}, r"Received: model\.10\.conv_block\.9"),
        ({"other.model.1.weight": np.ones((3, 3, 7, 7))}, "expected a generator of CycleGAN"),
        ({"model.1.weight": np.ones((3, 4, 7, 7))}, "expected a generator of CycleGAN"),
        ({"model.4.weight": np.ones(6)}, r"expected model\.4\.weight"),
    ],
    ids=["affine", "more layers", "two generators", "four channels", "another rank"],
)
def test_generators_of_other_kinds_are_refused(state, tmp_path: Path, change, message):
    (tmp_path / "other.pth").write_bytes(written({**state, **change}))
    with pytest.raises(WeightsError, match=message):
        from_torch(tmp_path / "other.pth")


def test_running_statistics_of_old_files_are_not_needed(state, tmp_path: Path):
    """PyTorch 0.3 kept them for instance normalization, too, and the authors' code drops them."""
    old = {**state, "model.2.running_mean": np.zeros(3), "model.2.running_var": np.ones(3)}
    (tmp_path / "old.pth").write_bytes(written(old))
    assert from_torch(tmp_path / "old.pth").config.blocks == 2


def test_the_documented_call_in_a_new_process(torch_file):
    code = "import kerasmodels as km; print(km.ports.cyclegan.from_torch('zip.pth', 'stream.pth').config.filters)"
    root = Path(__file__).resolve().parents[3]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=torch_file[0], env={**os.environ, "PYTHONPATH": str(root)},
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "3"


def test_files_that_are_no_generators(torch_file, tmp_path: Path):
    folder, _, _ = torch_file
    whole = (folder / "zip.pth").read_bytes()
    harmful = pickle.dumps(Path("/etc/passwd"))
    other = pickle.dumps(0x1950A86A20F9469CFC6C, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + pickle.dumps([1], 2)
    for content in (b"", b"no weights", whole[: len(whole) // 2], harmful, other):
        (tmp_path / "bad.pth").write_bytes(content)
        with pytest.raises(WeightsError, match=r"expected a state dict that PyTorch saved.*bad\.pth"):
            from_torch(tmp_path / "bad.pth")
    with pytest.raises(WeightsError, match="cannot read"):
        from_torch(tmp_path / "missing.pth")
    stream = (folder / "stream.pth").read_bytes()
    (tmp_path / "renamed.pth").write_bytes(stream.replace(b"model.1.weight", b"model.1.wright"))
    with pytest.raises(WeightsError, match="expected a generator of CycleGAN"):
        from_torch(tmp_path / "renamed.pth")
    (tmp_path / "renamed.pth").write_bytes(stream.replace(b"model.4.weight", b"model.4.wright"))
    with pytest.raises(WeightsError, match=r"expected model\.4\.weight"):
        from_torch(tmp_path / "renamed.pth")
