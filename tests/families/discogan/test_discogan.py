"""DiscoGAN: the authors' networks, what a step minimizes in both modes, the command on files."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.claims import discogan as claims
from kerasmodels.data import read_image, write_image
from kerasmodels.errors import DataError, DivergedError, UsageError
from kerasmodels.models import discogan
from kerasmodels.models.discogan import VARIANTS, Config, DiscoGAN
from kerasmodels.tasks.translate import translate
from kerasmodels.training import NaNStop, TrainResult, train
from kerasmodels.translator import DIRECTIONS
from tests.cases import case_of, photo

SMALL = Config(filters=2, size=32, batch=2, weight_decay=0.0)
CODE = dataclasses.replace(SMALL, mode="code")


def trainable(network: keras.Model) -> int:
    return sum(int(np.prod(v.shape)) for v in network.trainable_variables)


@pytest.mark.parametrize(("extra", "generator"), [(False, 5_513_856), (True, 7_153_480)])
def test_parameters_are_the_authors(extra, generator):
    model = DiscoGAN(Config(extra_layers=extra))
    assert trainable(model.a_to_b) == trainable(model.b_to_a) == generator
    assert trainable(model.discriminator_a) == trainable(model.discriminator_b) == 2_765_568
    assert [tuple(shape[1:]) for shape in model.discriminator_a.output_shape] == [
        (16, 16, 128), (8, 8, 256), (4, 4, 512), (1,),
    ]  # fmt: skip
    assert model.a_to_b.count_params() > generator


def test_sizes_and_range():
    made = DiscoGAN(SMALL)(np.random.default_rng(0).uniform(0, 255, (2, 48, 64, 3)))
    assert tuple(made.shape) == (2, 48, 64, 3)
    assert float(np.min(made)) >= 0
    assert float(np.max(made)) <= 255


# --- what a step minimizes --------------------------------------------------------------------------------------------


class Shift(keras.layers.Layer):
    """x -> x + shift."""

    def __init__(self, shift):
        super().__init__()
        self.shift = self.add_weight(shape=(), initializer=keras.initializers.Constant(shift))

    def call(self, x, training=None):
        return x + self.shift


class Say(Shift):
    """x -> features 2 x and x^2, and the mean of x, shifted, as a score."""

    def call(self, x, training=None):
        score = keras.ops.mean(x, axis=(1, 2, 3))[:, None]
        return [2 * x + self.shift, x**2, score + self.shift]


def known(config: Config) -> DiscoGAN:
    model = DiscoGAN(config)
    model.a_to_b, model.b_to_a = Shift(0.25), Shift(-0.125)
    model.discriminator_a, model.discriminator_b = Say(0.0), Say(0.5)
    model.compile("sgd")
    for optimizer in model.optimizers.values():
        optimizer.learning_rate.assign(0.0)
    return model


A, B = np.full((2, 32, 32, 3), 0.0), np.full((2, 32, 32, 3), 127.5)  # 0 and 0.5


def softplus(x):
    return np.log1p(np.exp(x))


# a -> .25, b -> .375; reconstructions .125 and .625. Scores: .375 of b's fake, .75 of a's.
ADVERSARIAL = softplus(-0.375) + softplus(-0.75)
RECONSTRUCTION = 0.125**2 + 0.125**2
FEATURES = (2 * 0.375) ** 2 + 0.375**4 + (2 * 0.25) ** 2 + (0.5**2 - 0.25**2) ** 2
DISCRIMINATOR_A = softplus(0.0) + softplus(0.375)
DISCRIMINATOR_B = softplus(-1.0) + softplus(0.75)


def test_terms_of_the_paper():
    terms = {k: float(v) for k, v in known(SMALL).train_step((A, B)).items()}
    assert terms["adversarial"] == pytest.approx(ADVERSARIAL, rel=1e-5)
    assert terms["reconstruction"] == pytest.approx(RECONSTRUCTION, rel=1e-5)
    assert terms["loss"] == pytest.approx(ADVERSARIAL + RECONSTRUCTION, rel=1e-5)
    assert terms["discriminator_a"] == pytest.approx(DISCRIMINATOR_A, rel=1e-5)
    assert terms["discriminator_b"] == pytest.approx(DISCRIMINATOR_B, rel=1e-5)


def test_terms_and_turns_of_the_code():
    model = known(dataclasses.replace(CODE, rate_from=3))
    seen = []
    for _ in range(6):
        model.reset_metrics()
        seen.append({k: float(v) for k, v in model.train_step((A, B)).items()})
    assert [int(optimizer.iterations) for optimizer in model.optimizers.values()] == [4, 2]
    for step, terms in enumerate(seen):
        if step % 3 == 0:
            assert terms["discriminator_a"] == pytest.approx(DISCRIMINATOR_A / 2, rel=1e-5)
            assert terms["discriminator_b"] == pytest.approx(DISCRIMINATOR_B / 2, rel=1e-5)
            assert terms["loss"] == 0
            continue
        rate = 0.01 if step < 3 else 0.5
        expected = (1 - rate) * (0.1 * ADVERSARIAL + 0.9 * FEATURES) + rate * RECONSTRUCTION
        assert terms["features"] == pytest.approx(FEATURES, rel=1e-5)
        assert terms["loss"] == pytest.approx(expected, rel=1e-5)
        assert terms["discriminator_a"] == 0


@pytest.mark.parametrize(
    ("objective", "loss", "moved"),
    [
        ("recongan", softplus(-0.75) + 0.125**2, {"a_to_b", "b_to_a", "discriminator_b"}),
        ("gan", softplus(-0.75), {"a_to_b", "discriminator_b"}),
    ],
)
def test_objectives_that_the_paper_compares_with(objective, loss, moved):
    config = dataclasses.replace(SMALL, objective=objective)
    terms = {k: float(v) for k, v in known(config).train_step((A, B)).items()}
    assert terms["loss"] == pytest.approx(loss, rel=1e-5)
    keras.utils.set_random_seed(0)
    model = DiscoGAN(config)
    model.compile()
    networks = ("a_to_b", "b_to_a", "discriminator_a", "discriminator_b")
    before = {name: [v.numpy() for v in getattr(model, name).trainable_variables] for name in networks}
    model.train_step((A + photo(0, 32, 32), B))
    changed = {
        name
        for name, values in before.items()
        for old, new in zip(values, getattr(model, name).trainable_variables, strict=True)
        if np.any(old != new.numpy())
    }
    assert changed == moved


def test_the_code_s_objectives_have_features_but_no_rate_without_reconstruction():
    for objective, rate in (("recongan", 0.5), ("gan", 0.0)):
        model = known(dataclasses.replace(CODE, rate_from=0, objective=objective))
        model.train_step((A, B))
        model.reset_metrics()
        terms = {k: float(v) for k, v in model.train_step((A, B)).items()}
        features = (2 * 0.25) ** 2 + (0.5**2 - 0.25**2) ** 2
        matched = 0.1 * softplus(-0.75) + 0.9 * features
        assert terms["features"] == pytest.approx(features, rel=1e-5)
        assert terms["loss"] == pytest.approx((1 - rate) * matched + rate * 0.125**2, rel=1e-5)


def test_weight_decay_goes_through_the_gradient():
    moved = {}
    for decay in (0.0, 0.5):
        keras.utils.set_random_seed(0)
        model = DiscoGAN(dataclasses.replace(SMALL, weight_decay=decay))
        model.compile({group: keras.optimizers.SGD(0.1) for group in ("generators", "discriminators")})
        before = model.get_weights()
        model.train_step((A + photo(0, 32, 32), B))
        moved[decay] = [new - old for old, new in zip(before, model.get_weights(), strict=True)], before
    generators = [i for i, v in enumerate(model.weights) if v.trainable and v.path.startswith(("a_to_b", "b_to_a"))]
    assert generators
    for i in generators:
        expected = -0.1 * 0.5 * moved[0.0][1][i]
        np.testing.assert_allclose(moved[0.5][0][i] - moved[0.0][0][i], expected, atol=1e-5)


OPTIONS = {"preview_every": 0, "progress": False, "save_every": 2}


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, TrainResult]:
    """Five steps in the code's turns."""
    folder, tiny = tmp_path_factory.mktemp("discogan"), case_of("discogan")
    config = dataclasses.replace(tiny.config, **tiny.data(folder), mode="code", rate_from=3, steps=5)
    return config, train(discogan.FAMILY, config, folder / "whole", **OPTIONS)


def test_the_code_s_turns_resume_exactly(trained, tmp_path: Path):
    config, whole = trained

    class Stop(keras.callbacks.Callback):
        def on_train_batch_end(self, batch, logs=None):
            self.model.stop_training = batch == 1

    train(discogan.FAMILY, config, tmp_path / "parts", callbacks=[Stop()], **OPTIONS)
    parts = train(discogan.FAMILY, None, tmp_path / "parts", resume=True, **OPTIONS)
    assert parts.step == whole.step == 5
    for a, b in zip(whole.model.get_weights(), parts.model.get_weights(), strict=True):
        np.testing.assert_array_equal(a, b)
    assert int(parts.model.optimizers["discriminators"].iterations) == 2


def test_a_loss_that_is_no_number_is_named():
    model = DiscoGAN(SMALL)
    model.compile()
    bad = tf.data.Dataset.from_tensors((tf.fill((2, 32, 32, 3), np.nan), tf.zeros((2, 32, 32, 3)))).repeat()
    with pytest.raises(DivergedError, match="adversarial is nan at step 1"):
        model.fit(bad, steps_per_epoch=2, shuffle=False, verbose=0, callbacks=[NaNStop()])


# --- run and mistakes -------------------------------------------------------------------------------------------------


def test_folders_and_directions(trained, tmp_path: Path):
    config, run = trained
    options = discogan.FAMILY.task.options(inputs=(config.a,), out=tmp_path / "out", run=run.folder)
    assert [p.name for p in discogan.FAMILY.task.run(options).outputs] == ["0.png", "1.png", "2.png"]
    picture = write_image(tmp_path / "odd.png", photo(1, 35, 50))
    ways = []
    for way in DIRECTIONS:
        one = dataclasses.replace(options, inputs=(picture,), out=tmp_path / f"{way}.png", direction=way)
        ways.append(read_image(discogan.FAMILY.task.run(one).outputs[0]))
    assert ways[0].shape == ways[1].shape == (35, 50, 3)
    assert (ways[0] != ways[1]).any()
    with pytest.raises(UsageError, match="no input is overwritten"):
        discogan.FAMILY.task.run(dataclasses.replace(options, inputs=(picture,), out=picture))


def test_floats_are_taken_as_they_are_meant():
    model, picture = DiscoGAN(SMALL), photo(0, 40, 61)
    np.testing.assert_array_equal(translate(model, picture.astype("float32"), "a_to_b"), translate(model, picture))
    with pytest.raises(DataError, match="0-255"):
        translate(model, picture / 255.0)


def test_extra_layers_take_squares():
    model = DiscoGAN(dataclasses.replace(SMALL, extra_layers=True))
    assert translate(model, photo(0, 40, 61), "b_to_a").shape == (32, 32, 3)
    (servable, _) = discogan.FAMILY.servables(model).values()
    assert servable.inputs[0].shape == ("batch", 32, 32, 3)
    assert servable.call(**servable.example({"batch": 2}, 0))["translated"].shape == (2, 32, 32, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [({"size": 40}, "multiple of 16"), ({"size": 16}, "at least 32"), ({"mode": "fast"}, "mode: 'paper' or 'code'"),
     ({"discriminator_every": 1}, "discriminator_every >= 2"), ({"rate": 1.5}, "rate <= 1"),
     ({"filters": 0}, "filters > 0")],
)  # fmt: skip
def test_config_out_of_range(change, message):
    with pytest.raises(UsageError, match=message):
        dataclasses.replace(Config(), **change)


def test_variants_are_the_paper_s_and_the_code_s():
    paper, code = VARIANTS["paper"], VARIANTS["code"]
    assert (paper.mode, paper.batch, paper.weight_decay) == ("paper", 200, 1e-4)
    assert (code.mode, code.batch, code.weight_decay, code.rate_from) == ("code", 64, 1e-5, 10000)


def test_domains_that_cannot_be_learned(tmp_path: Path):
    with pytest.raises(UsageError, match="--a DIR --b DIR"):
        discogan.FAMILY.batches(Config(a=tmp_path))
    (tmp_path / "empty").mkdir()
    write_image(tmp_path / "one" / "a.png", photo(0, 40, 40))
    with pytest.raises(DataError, match="no pictures in"):
        discogan.FAMILY.batches(Config(a=tmp_path / "empty", b=tmp_path / "one"))
    with pytest.raises(DataError, match="at least 2 pictures of each domain"):
        discogan.FAMILY.batches(Config(a=tmp_path / "one", b=tmp_path / "one"))


# --- the mixture ------------------------------------------------------------------------------------------------------


def test_what_counts_as_collapsed():
    class Send(keras.layers.Layer):
        """Each mode of A to a mode of B, by number."""

        def __init__(self, targets):
            super().__init__()
            self.targets = keras.ops.convert_to_tensor(claims.CENTERS_B[targets], "float32")

        def call(self, x):
            centers = keras.ops.convert_to_tensor(claims.CENTERS_A, "float32")
            nearest = keras.ops.argmin(keras.ops.sum((x[:, None] - centers[None]) ** 2, axis=-1), axis=1)
            return keras.ops.take(self.targets, nearest, axis=0)

    home = keras.Sequential([keras.Input((2,)), keras.layers.Identity()])
    for targets, modes, distinct in (([0, 2, 4, 6, 8], 5, 5), ([1, 1, 3, 3, 5], 3, 3)):
        there = keras.Sequential([keras.Input((2,)), Send(targets)])
        found = claims.evaluated(DiscoGAN(SMALL, a_to_b=there, b_to_a=home), 0)
        assert (found.modes, found.distinct, found.near) == (modes, distinct, 1.0)


def test_the_mixture_runs(tmp_path: Path):
    found = claims.mixture(None, tmp_path, quick=True)
    assert len(found) == 10
    assert [claim.key for claim in found if claim.key.endswith("log_likelihood")] == [
        f"{arm}_log_likelihood" for arm in claims.ARMS
    ]
    assert read_image(tmp_path / "discogan_mixture.png").shape == (360, 1080, 3)
