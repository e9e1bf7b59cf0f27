"""Properties the papers state of the objective, and the task on files."""

import dataclasses

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import runs, storage
from kerasmodels.data import read_image, write_image
from kerasmodels.data.color import to_yuv
from kerasmodels.errors import DataError, DivergedError, UsageError
from kerasmodels.losses import StyleTransfer, gram_matrix
from kerasmodels.losses.portable import PortableStyle
from kerasmodels.models.neural_style import FAMILY, Config, RunOptions, loss_network, read_pictures
from kerasmodels.optimizers import minimize
from kerasmodels.training.picture import Stage, optimize_picture
from tests.cases import photo

build, run = FAMILY.build, FAMILY.task.run
SMALL = {
    "network": "vgg16",
    "vgg": "random",
    "content_layers": ("conv2_2",),
    "style_layers": ("conv1_1", "conv2_1"),
    "tv_weight": 1e-3,
}


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pictures")
    return {
        "content": write_image(folder / "photo.png", photo(1, 40, 52)),
        "style": (write_image(folder / "painting.png", photo(2, 36, 44)),),
        "two": write_image(folder / "other.png", photo(3, 44, 30)),
    }


def config(pictures, **changes) -> Config:
    given = {**SMALL, "content": pictures["content"], "style": pictures["style"], "size": 48, **changes}
    return Config(**given)


class Identity:
    """A network that sees random maps: the formulas are the objective's, whatever looks."""

    def __init__(self):
        self.output = {"a": None, "b": None}

    def __call__(self, x):
        return {"a": x[..., :2], "b": x[:, ::2, ::2, :] * 2.0}


# --- formulas


def reference(formulation: str, f, p, s, alpha: float, beta: float) -> tuple[float, float]:
    """Content and style in float64 NumPy, as the paper writes them: F and P are (M, N), G = F^T F."""
    content = style = 0.0
    for tap, w in (("a", 0.3), ("b", 0.7)):
        maps = [np.asarray(x[tap], "float64")[0].reshape(-1, x[tap].shape[-1]) for x in (f, p, s)]
        n, m = maps[0].shape[1], maps[0].shape[0]
        if tap == "a":
            square = np.sum((maps[0] - maps[1]) ** 2)
            content += alpha * (square / 2 if formulation == "gatys" else square / (4 * n * m))
        g, a = maps[0].T @ maps[0], maps[2].T @ maps[2]
        if formulation == "gatys":
            style += beta * w * np.sum((g - a) ** 2) / (4 * n**2 * m**2)  # E_l
        else:
            style += beta * w * np.sum((g - a) ** 2) / (2 * m * n) ** 2  # J_style of a layer
    return content, style


@pytest.mark.parametrize("formulation", ["gatys", "course"])
def test_terms_equal_a_float64_reference(formulation):
    random = np.random.default_rng(0)
    p, s, x = (random.normal(0, c, (1, 12, 16, 3)).astype("float32") for c in (1.0, 2.0, 1.5))
    objective = StyleTransfer(Identity(), p[0], [s[0]], {"a": 2.0}, {"a": 0.9, "b": 2.1}, formulation=formulation)
    terms = objective.terms(x)
    content, style = reference(formulation, *(Identity()(y) for y in (x, p, s)), 2.0, 3.0)
    assert float(terms["content"][0]) == pytest.approx(content, rel=1e-6)
    assert float(terms["style"][0]) == pytest.approx(style, rel=1e-6)


def test_the_paper_s_and_the_course_s_style_terms_are_the_same(pictures):
    one, other = (build(config(pictures, formulation=f)).terms() for f in ("gatys", "course"))
    assert one["style"] == other["style"]
    assert one["content"] != other["content"]


def test_a_gram_matrix_does_not_see_where():
    f = np.random.default_rng(0).normal(size=(1, 6, 7, 5)).astype("float32")
    shuffled = f.reshape(1, 42, 5)[:, np.random.default_rng(1).permutation(42)].reshape(f.shape)
    np.testing.assert_allclose(gram_matrix(shuffled), gram_matrix(f), rtol=1e-6, atol=1e-7)


def test_a_picture_in_its_own_style_with_its_own_content_costs_nothing(pictures):
    same = config(pictures, style=(pictures["content"],), start="content", tv_weight=0.0, formulation="relative")
    terms = build(same).terms()
    assert terms["content"] == 0
    assert terms["style"] < 1e-9


@pytest.mark.parametrize("pooling", ["avg", "max"])
@pytest.mark.parametrize("formulation", ["course", "relative"])
def test_gradient(pictures, pooling, formulation):
    """Along the gradient, and against the one that is written out for the servables."""
    made = config(pictures, pooling=pooling, formulation=formulation)
    model, x = build(made), build(made).picture.pixels.value
    model.picture.show(x.numpy())

    def loss(y):
        return tf.reduce_sum(sum(model.objective.terms(y).values()))

    with tf.GradientTape() as tape:
        tape.watch(point := tf.constant(x))
        value = loss(point)
    slope = tape.gradient(value, point)
    length = float(tf.norm(slope))
    # Small enough to meet few kinks, large enough not to drown in float32's rounding.
    h = 0.004 * float(value) / length
    finite = (float(loss(point + h * slope / length)) - float(loss(point - h * slope / length))) / (2 * h)
    # Maxima that change places are kinks, too.
    assert finite == pytest.approx(length, rel=1e-4 if pooling == "avg" else 3e-4)

    read = read_pictures(made)
    written = PortableStyle(
        loss_network(made),
        {"conv2_2": made.content_weight},
        dict.fromkeys(made.style_layers, made.style_weight / 2),
        made.tv_weight,
        formulation,
    )
    as_tensor = [tf.constant(p[None], tf.float32) for p in (read.content, read.styles[0])]
    again, written_slope = written.gradient(point, written.targets(*as_tensor))
    assert float(again) == pytest.approx(float(value), rel=1e-5)
    assert float(tf.norm(written_slope - slope)) < 1e-5 * length


def test_several_paintings_and_regions(pictures):
    both = (*pictures["style"], pictures["two"])
    each = [build(config(pictures, style=(path,))).terms()["style"] for path in both]
    mixed = build(config(pictures, style=both, style_weights=(3.0, 1.0))).terms()["style"]
    assert mixed == pytest.approx(0.75 * each[0] + 0.25 * each[1], rel=1e-5)


def test_masks_choose_the_region(pictures, tmp_path):
    left = np.zeros((40, 52, 3), "uint8")
    left[:, :26] = 255
    halves = [write_image(tmp_path / f"{i}.png", m) for i, m in enumerate((left, 255 - left))]
    made = config(pictures, style=(*pictures["style"], pictures["two"]), masks=tuple(halves), content_weight=0.0)
    made = dataclasses.replace(made, style_weights=(1.0, 0.0), tv_weight=0.0, start="content")
    model = build(made)
    with tf.GradientTape() as tape:
        value = tf.reduce_sum(model.objective.terms(model(None))["style"])
    slope = np.abs(tape.gradient(value, model.picture.pixels.value).numpy()[0]).sum(-1)
    assert slope[:, :20].min() >= 0
    assert slope[:, :20].sum() > 0
    # Two convolutions and a pooling reach a few pixels past the border.
    np.testing.assert_array_equal(slope[:, 34:], 0)


def test_masks_that_do_not_fit(pictures, tmp_path):
    mask = write_image(tmp_path / "mask.png", np.full((40, 40, 3), 255, "uint8"))
    with pytest.raises(DataError, match=r"a mask of the shape of .*photo\.png.*40 x 40"):
        build(config(pictures, masks=(mask,)))
    black = write_image(tmp_path / "black.png", np.zeros((80, 104, 3), "uint8"))
    with pytest.raises(DataError, match="some white"):
        build(config(pictures, masks=(black,)))
    clear = write_image(tmp_path / "clear.png", np.full((40, 52, 4), (255, 255, 255, 0), "uint8"))
    with pytest.raises(DataError, match="100 % of it transparent"):
        build(config(pictures, masks=(clear,)))


# --- optimization


def test_fit_and_minimize_drive_the_same_model(pictures):
    made = config(pictures)
    first, second = build(made), build(made)
    start = first.terms()
    history = first.fit(FAMILY.batches(made), steps_per_epoch=4, epochs=2, shuffle=False, verbose=0).history
    assert {"content", "style", "total_variation", "loss"} <= history.keys()
    result = minimize(second, (np.zeros((1, 0), "float32"),), max_iterations=8, tolerance=0.0, first_length=80.0)
    assert result.value == pytest.approx(sum(second.terms().values()), rel=1e-5)
    assert sum(first.terms().values()) < sum(start.values())
    assert result.value < sum(first.terms().values())


@pytest.mark.slow
@pytest.mark.parametrize("pooling", ["avg", "max"])
def test_from_noise_the_style_term_falls_a_hundredfold_and_lbfgs_is_ahead_of_adam(pooling, shared_data, tmp_path):
    made = Config(
        content=shared_data / "images" / "content" / "tubingen.jpg",
        style=(shared_data / "styles" / "paintings" / "starry_night.jpg",),
        size=96,
        pooling=pooling,
        content_weight=1.0 if pooling == "avg" else 0.1,
    )
    start = build(made).terms()
    options = {"preview_every": 0, "progress": False}
    lbfgs = optimize_picture([Stage(300, lambda _: build(made))], tmp_path / "l.png", method="lbfgs", **options)
    adam = optimize_picture(
        [Stage(lbfgs.evaluations, lambda _: build(made))], tmp_path / "a.png", method="adam", **options
    )
    assert start["style"] / lbfgs.terms["style"] >= 100
    assert lbfgs.loss < adam.loss


def test_nan_is_named(pictures, monkeypatch, tmp_path):
    options = RunOptions(
        content=pictures["content"], style=pictures["style"], out=tmp_path / "o.png", size=48, steps=3, **SMALL
    )
    real = StyleTransfer.terms
    monkeypatch.setattr(
        StyleTransfer, "terms", lambda self, x: {**real(self, x), "style": real(self, x)["style"] * np.nan}
    )
    with pytest.raises(DivergedError, match="style is nan"):
        run(options)


# --- files


def options(pictures, out, **changes) -> RunOptions:
    given = {**SMALL, "content": pictures["content"], "style": pictures["style"], "out": out, "size": 48, "steps": 4}
    return RunOptions(**{**given, **changes})


@pytest.mark.parametrize("method", ["lbfgs", "adam"])
def test_run(pictures, tmp_path, method):
    report = run(options(pictures, tmp_path / "out.png", method=method, levels=2, log=tmp_path / "log"))
    assert read_image(tmp_path / "out.png").shape == (37, 48, 3)
    assert report.outputs == (tmp_path / "out.png", tmp_path / "log" / "log.csv", tmp_path / "log" / "gallery.html")
    assert all(path.is_file() for path in report.outputs)
    assert report.facts["iterations"] == 6  # 4 at 24 pixels, 2 at 48


def test_luminance_only_keeps_the_colors(pictures, tmp_path):
    run(options(pictures, tmp_path / "out.png", colors="luminance", size=52))
    out, content = (to_yuv(read_image(p)) for p in (tmp_path / "out.png", pictures["content"]))
    # Where nothing was clipped, rounding to whole levels is all that moves U and V.
    inside = ((read_image(tmp_path / "out.png") > 0) & (read_image(tmp_path / "out.png") < 255)).all(-1)
    assert inside.mean() > 0.3
    assert np.abs(out - content)[inside][:, 1:].max() <= 1.0
    assert np.abs(out - content)[inside][:, 0].max() > 5


def test_it_goes_on_from_a_run_folder(pictures, tmp_path):
    made = config(pictures)
    model = FAMILY.model(made)
    model.picture.show(np.full((*made.shape, 3), 77.0))
    storage.save_npz(tmp_path / "run" / "weights.npz", storage.model_arrays(model))
    card = runs.new_card("neural_style", made, None)
    storage.write_json(tmp_path / "run" / "run.json", card)
    run(options(pictures, tmp_path / "out.png", start_from=tmp_path / "run", steps=1, method="adam", learning_rate=1.0))
    assert np.abs(read_image(tmp_path / "out.png").astype(int) - 77).max() <= 2


def test_weights_of_the_network_are_nowhere_saved(pictures, tmp_path):
    model = build(config(pictures))
    assert [v.shape for v in model.variables if "pixels" in v.path] == [(1, 37, 48, 3)]
    assert model.count_params() == 37 * 48 * 3
    model.save(tmp_path / "model.keras")
    assert (tmp_path / "model.keras").stat().st_size < 200_000
    np.testing.assert_array_equal(keras.models.load_model(tmp_path / "model.keras").pixels(), model.pixels())


def test_the_shape_is_the_content_s(pictures, tmp_path):
    assert config(pictures).shape == (37, 48)
    assert config(pictures, height=40, width=41).shape == (40, 41)
    assert Config().shape == (512, 512)
    with pytest.raises(DataError, match="no picture at"):
        build(config(pictures, content=tmp_path / "none.png"))


@pytest.mark.parametrize(
    ("changes", "error", "message"),
    [
        ({"style": ()}, UsageError, "a painting: --style"),
        ({"style_weights": (1.0, 2.0)}, UsageError, "as many style_weights as paintings, 1"),
        ({"style_layers": ("conv9_1",)}, UsageError, "unknown layer of vgg16 'conv9_1'"),
        ({"style_layer_weights": (1.0,)}, UsageError, "a weight for each of the layers"),
        ({"size": 3}, UsageError, "size >= 4"),
        ({"style_scale": 0.05}, DataError, "paintings of at least 4 pixels"),
        ({"style_weight": float("nan")}, UsageError, "style_weight"),
        ({"style_weights": (-1.0,)}, UsageError, r"style_weights\[0\] >= 0"),
        ({"steps": 0}, UsageError, "steps > 0"),
    ],
)
def test_wrong_requests(pictures, tmp_path, changes, error, message):
    with pytest.raises(error, match=message):
        run(options(pictures, tmp_path / "out.png", **changes))
    assert not (tmp_path / "out.png").exists()


def test_no_input_is_overwritten_and_no_place_found_too_late(pictures, tmp_path):
    with pytest.raises(UsageError, match="no input is overwritten"):
        run(options(pictures, pictures["content"]))
    (tmp_path / "file").write_text("")
    with pytest.raises(UsageError, match=r"expected folders above .*, which is a file"):
        run(options(pictures, tmp_path / "file" / "out.png"))
