"""Closed-form matting: the solver against direct ones, the paper's claims, the command on files."""

import functools
from pathlib import Path

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf
from PIL import Image

from kerasmodels.claims import closed_form_matting as claims
from kerasmodels.data import read_drawing, read_image, write_image
from kerasmodels.errors import DataError, UsageError
from kerasmodels.losses import MattingLaplacian, matting_laplacian_matrix
from kerasmodels.models import closed_form_matting as matting
from kerasmodels.models import closed_form_matting_solver as solver
from kerasmodels.models.closed_form_matting import ClosedFormMatting, Config, matte
from kerasmodels.tasks.cut_out import estimate_foreground, scribbled, trimap_of
from tests.cases import photo


def run(**options):
    return matting.FAMILY.task.run(matting.FAMILY.task.options(**options))


def direct(image, known, values, softness):
    """Alpha by SciPy's direct solver on the explicit matrix."""
    matrix, known, values = matting_laplacian_matrix(image), known.ravel(), values.ravel()
    if softness is not None:
        penalty = softness * known
        return scipy.sparse.linalg.spsolve((matrix + scipy.sparse.diags_array(penalty)).tocsc(), penalty * values)
    alpha, unknown = values * known, ~known
    right = -(matrix[unknown][:, known] @ values[known])
    alpha[unknown] = scipy.sparse.linalg.spsolve(matrix[unknown][:, unknown].tocsc(), right)
    return alpha


# --- the solver -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("softness", [None, 100.0], ids=["exact", "soft"])
@pytest.mark.parametrize("shape", [(33, 46), (20, 7)])
def test_equals_a_direct_solver(softness, shape):
    image = photo(3, *shape) / 255
    known, values = np.zeros(shape, bool), np.zeros(shape)
    known[:, :2] = known[-3:, -3:] = True
    values[:, :2] = 1
    alpha, solution = matte(image, known, values, Config(softness=softness, tolerance=1e-10))
    expected = direct(image, known, values, softness)
    assert float(solution.residual[0]) <= 1e-10
    np.testing.assert_allclose(alpha.ravel(), np.clip(expected, 0, 1), atol=1e-5)


def test_coarse_operators_are_the_galerkin_products():
    """Each grid's operator is P^T L P with P made column by column."""
    images = np.stack([photo(i, 64, 128) for i in (1, 2)]) / 255
    laplacian = MattingLaplacian(images)
    random = np.random.default_rng(0)
    basis = tf.constant(random.normal(size=(2, 64, 128, 4)), tf.float32)
    levels = solver._levels(tf.cast(laplacian.neighbors(), tf.float32), basis)
    assert len(levels) == solver.LEVELS
    for number, level in enumerate(levels):
        side = solver.TILE * 2**number
        x = tf.constant(random.normal(size=(2, 64 // side, 128 // side, 4)), tf.float32)
        spread = tf.reduce_sum(basis * tf.repeat(tf.repeat(x, side, axis=1), side, axis=2), axis=-1, keepdims=True)
        given = (basis * tf.cast(laplacian(spread), tf.float32)).numpy()
        expected = given.reshape(2, 64 // side, side, 128 // side, side, 4).sum((2, 4))
        np.testing.assert_allclose(level.product(x), expected, atol=2e-5 * np.abs(expected).max())
        # And the blocks that are inverted are those of a tile with itself.
        _, h, w, _ = x.shape
        own = level.matrix.numpy()[..., 4::9].reshape(2, h, w, 4, 4)
        inverse = level.inverse.numpy().reshape(2, h, w, 4, 4) / solver._BLOCK_DAMPING
        np.testing.assert_allclose(inverse @ own, np.broadcast_to(np.eye(4), own.shape), atol=5e-3)


def test_inverse_of_blocks():
    factor = np.random.default_rng(0).normal(size=(15, 4, 4))
    blocks = (factor @ factor.swapaxes(-1, -2) + np.eye(4)).astype("float32")
    for scale in (1, 1e-6, 1e6):
        found = solver._inverse(tf.constant(scale * blocks)).numpy()
        np.testing.assert_allclose(found @ (scale * blocks), np.broadcast_to(np.eye(4), blocks.shape), atol=1e-3)
    assert np.isfinite(solver._inverse(tf.zeros((2, 4, 4)))).all()


@pytest.mark.parametrize("softness", [None, 100.0], ids=["exact", "soft"])
def test_product_of_few_operations(softness):
    """What exported graphs multiply with is the operator."""
    image = photo(1, 21, 17)[None] / 255
    laplacian = MattingLaplacian(image)
    p = tf.constant(np.random.default_rng(0).normal(size=(1, 21, 17, 1)))
    expected = laplacian(p)
    found = solver._product(tf.cast(laplacian.neighbors(), tf.float32))(tf.cast(p, tf.float32))
    np.testing.assert_allclose(found, expected, atol=2e-6 * np.abs(expected).max())
    known = tf.cast(p > 0.5, tf.float64)
    system = solver._system(laplacian, known, softness)(p)
    wanted = (1 - known) * expected if softness is None else expected + softness * known * p
    np.testing.assert_allclose(system, wanted)


def test_color_models_save_iterations():
    """The claim of `solver`: far fewer iterations than with Jacobi alone."""
    image, truth, strokes = matting.synthetic_composite(60, 80)
    _, solution = matte(image, strokes, truth, Config(softness=None))
    matrix, unknown = matting_laplacian_matrix(image), ~strokes.ravel()
    system, right = matrix[unknown][:, unknown], -(matrix[unknown][:, ~unknown] @ truth.ravel()[~unknown])
    count = 0

    def counted(_):
        nonlocal count
        count += 1

    jacobi = scipy.sparse.diags_array(1 / system.diagonal())
    scipy.sparse.linalg.cg(system, right, rtol=1e-7, M=jacobi, callback=counted, maxiter=5000)
    assert int(solution.iterations) * 5 < count


def test_each_picture_of_a_batch_is_its_own():
    images = np.stack([photo(i, 24, 20) for i in (1, 2)]) / 255
    known = np.zeros((2, 24, 20, 1))
    known[:, :3] = known[:, -3:] = 1
    values = np.zeros_like(known)
    values[:, :3] = 1
    solve = tf.function(functools.partial(solver.solve_alpha, tolerance=1e-11), autograph=False)
    both = solve(*map(tf.constant, (images, known, values))).alpha
    for i in (0, 1):
        one = solve(*(tf.constant(x[i : i + 1]) for x in (images, known, values))).alpha
        np.testing.assert_allclose(both[i], one[0], atol=1e-7)


def test_compiled_is_the_same():
    image, truth, strokes = matting.synthetic_composite(60, 80)
    plain, _ = matte(image, strokes, truth, Config(softness=None, tolerance=1e-10))
    compiled, _ = matte(image, strokes, truth, Config(softness=None, tolerance=1e-10), compiled=True)
    np.testing.assert_allclose(compiled, plain, atol=1e-6)


# --- the paper --------------------------------------------------------------------------------------------------------


def test_composite_of_smooth_colors():
    """Alpha from strokes on 5 to 10 % of the pixels, against the truth and pymatting; and the colors."""
    image, truth, strokes = matting.synthetic_composite(120, 160)
    assert 0.05 <= strokes.mean() <= 0.1
    assert ((truth > 0.01) & (truth < 0.99)).mean() > 0.1
    alpha, _ = matte(image, strokes, truth, Config(softness=None))
    assert np.abs(alpha - truth).mean() <= 0.01
    theirs = np.load(Path(__file__).with_name("pymatting_alpha.npz"))["alpha"] / 65535
    assert np.abs(alpha - theirs).max() <= 1e-3
    front, back = estimate_foreground(image, alpha)
    assert np.abs(image - alpha[..., None] * front - (1 - alpha)[..., None] * back).mean() <= 0.01


def test_authors_own_example(shared_data: Path):
    found = claims.EXPERIMENTS["levin"].measure(shared_data / "matting", Path(), True)
    assert found[0].ours <= 1
    assert [claim for claim in found if claim.passed is False] == []


def test_foreground_has_no_halo():
    """Under a soft edge between red and blue, the foreground stays red."""
    alpha = np.clip((np.arange(40) - 12) / 16, 0, 1)[None].repeat(24, 0)
    red, blue = np.array([0.9, 0.1, 0.1]), np.array([0.1, 0.1, 0.9])
    image = alpha[..., None] * red + (1 - alpha)[..., None] * blue
    front, back = estimate_foreground(image, alpha)
    assert np.abs(front - red)[alpha > 0.1].max() < 0.1
    assert np.abs(back - blue)[alpha < 0.9].max() < 0.1
    assert np.abs(front - red)[alpha == 1].max() < 1e-3


def test_model_takes_batches_and_unknown_sizes():
    model = ClosedFormMatting(Config(served_iterations=40, softness=None))
    given = matting._example({"batch": 2, "height": 30, "width": 25}, 0)
    alpha = tf.function(model.call)(given).numpy()
    assert alpha.shape == (2, 30, 25, 1)
    for i in (0, 1):
        known, values = trimap_of(given["trimap"][i])
        expected, _ = matte(given["image"][i], known, values, Config(softness=None))
        assert np.abs(alpha[i, ..., 0] - expected).max() < 0.01
        assert np.all(alpha[i, ..., 0][known] == values[known])


def blocks(side, height=48, width=64, levels=256):
    """A poster: blocks of one color."""
    random = np.random.default_rng(side)
    coarse = random.integers(0, levels, (1, -(-height // side), -(-width // side), 3)) * 255 // (levels - 1)
    return coarse.repeat(side, 1).repeat(side, 2)[:, :height, :width].astype("uint8")


FLAT = {
    **{f"blocks of {side}": blocks(side) for side in (32, 16, 8, 5, 4, 3, 2, 1)},
    "eight colors": blocks(4, levels=2),
    "black": np.zeros((1, 48, 64, 3), "uint8"),
    "white": np.full((1, 48, 64, 3), 255, "uint8"),
    "two-valued": blocks(1, levels=2)[..., :1].repeat(3, -1),
    "checkerboard": (255 * np.indices((48, 64)).sum(0) % 510).astype("uint8")[None, ..., None].repeat(3, -1),
    "ramp": np.clip(np.linspace(-200, 455, 64), 0, 255).astype("uint8")[None, None, :, None] + np.zeros((1, 48, 1, 3)),
}


def test_served_matte_of_flat_pictures():
    """Posters, screenshots, black frames: finite, and near the exact alpha as far as the colors determine it."""
    bars = np.repeat(np.array([0, 128, 128, 128, 255], "uint8"), [16, 10, 10, 10, 18])
    trimap = np.broadcast_to(bars[None, None, :, None], (1, 48, 64, 1))
    known, values = (x[..., 0] for x in ((trimap != 128), trimap == 255))
    model = ClosedFormMatting()
    for name, picture in FLAT.items():
        alpha = model({"image": picture.astype("uint8"), "trimap": trimap}).numpy()[0, ..., 0]
        assert np.isfinite(alpha).all(), name
        expected = np.clip(direct(picture[0] / 255, known[0], values[0].astype(float), 100.0), 0, 1).reshape(48, 64)
        # Blocks without a known pixel hang together by epsilon alone: float32 puts its own, stronger bond there.
        free = ("blocks" in name and name not in ("blocks of 32", "blocks of 1")) or name == "eight colors"
        assert np.abs(alpha - expected).mean() < (0.1 if free else 1e-3), name
        assert np.abs(alpha - expected)[known[0]].max() < 1e-2, name


@pytest.mark.parametrize("trimap", ["unknown", "front", "back", "random"])
def test_served_matte_of_any_trimap(trimap):
    values = {"unknown": [128], "front": [255], "back": [0], "random": [0, 128, 255]}[trimap]
    given = np.random.default_rng(0).choice(values, (1, 48, 64, 1)).astype("uint8")
    model = ClosedFormMatting()
    for name in ("blocks of 16", "blocks of 2", "black"):
        alpha = model({"image": FLAT[name], "trimap": given}).numpy()
        assert np.isfinite(alpha).all()
        known, values = (given != 128)[0, ..., 0], (given == 255)[0, ..., 0].astype(float)
        if known.any():
            expected = direct(FLAT[name][0] / 255, known, values, 100.0).reshape(48, 64)
            assert np.abs(alpha[0, ..., 0] - np.clip(expected, 0, 1))[known].max() < 1e-3


@pytest.mark.parametrize("side", [16, 8, 4, 2])
def test_the_solver_s_own_iteration_ends_on_flat_blocks(side):
    """In float64, where the coarse tiles' own blocks are made in float32."""
    known, values = np.zeros((48, 64), bool), np.zeros((48, 64))
    known[:, :12] = known[:, -12:] = True
    values[:, -12:] = 1
    alpha, solution = matte(blocks(side)[0], known, values)
    assert np.isfinite(alpha).all()
    assert float(solution.residual[0]) <= 1e-7
    assert int(solution.iterations) < 100


# --- the command ------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    given = matting._example({"batch": 1, "height": 40, "width": 50}, 0)
    picture, trimap = given["image"][0], given["trimap"][0].repeat(3, -1)
    strokes = picture.copy()
    strokes[18:22, 20:30], strokes[:2], strokes[-2:] = 255, 0, 0
    found = {"photo": picture, "trimap": trimap, "scribbles": strokes, "new": photo(5, 30, 80)}
    return {name: write_image(tmp_path / f"{name}.png", value) for name, value in found.items()}


def test_cut_out_and_new_background(files, tmp_path: Path):
    report = run(
        photo=files["photo"],
        trimap=files["trimap"],
        out=tmp_path / "out" / "cut.png",
        alpha=tmp_path / "alpha.png",
        foreground=tmp_path / "front.png",
    )
    assert report.outputs == (tmp_path / "out" / "cut.png", tmp_path / "alpha.png", tmp_path / "front.png")
    assert report.facts["residual"] <= 1e-7
    cut, alpha = (np.asarray(Image.open(path)) for path in report.outputs[:2])
    assert cut.shape == (40, 50, 4)
    assert alpha.shape == (40, 50)
    np.testing.assert_array_equal(cut[..., 3], alpha)
    known, values = trimap_of(read_image(files["trimap"]))
    np.testing.assert_array_equal(alpha[known], 255 * values[known])
    assert ((alpha > 20) & (alpha < 235)).any()
    run(photo=files["photo"], trimap=files["trimap"], out=tmp_path / "new.jpg", background=files["new"])
    new = read_image(tmp_path / "new.jpg").astype(float)
    assert np.abs(new - read_image(files["photo"]))[values == 1].mean() < 8


def test_scribbles(files, tmp_path: Path):
    run(photo=files["photo"], scribbles=files["scribbles"], out=tmp_path / "cut.png", softness=100.0)
    alpha = np.asarray(Image.open(tmp_path / "cut.png"))[..., 3]
    assert alpha[18:22, 20:30].min() > 250
    assert alpha[:2].max() < 5


def test_kinds_of_pictures(files, tmp_path: Path):
    """16 bits, gray and transparent pictures are read as what they show."""
    trimap = read_image(files["trimap"])[..., 0]
    Image.fromarray(trimap.astype("uint16") * 257).save(tmp_path / "deep.png")
    Image.fromarray(trimap).save(tmp_path / "gray.png")
    Image.open(files["photo"]).convert("RGBA").save(tmp_path / "rgba.png")
    alphas = []
    for picture, mask in (("photo", "trimap"), ("rgba", "deep"), ("photo", "gray")):
        out = tmp_path / f"{picture}-{mask}-cut.png"
        run(photo=tmp_path / f"{picture}.png", trimap=tmp_path / f"{mask}.png", out=out)
        alphas.append(np.asarray(Image.open(out)))
    np.testing.assert_array_equal(alphas[0], alphas[1])
    np.testing.assert_array_equal(alphas[0], alphas[2])


def test_a_picture_of_one_color_is_smooth_between_the_marks():
    known, values = np.zeros((12, 16), bool), np.zeros((12, 16))
    known[:, [0, -1]] = True
    values[:, -1] = 1
    alpha, _ = matte(np.full((12, 16, 3), 0.4), known, values, Config(softness=None))
    assert np.isfinite(alpha).all()
    assert np.all(np.diff(alpha.mean(0)) > 0)


def test_nothing_unknown():
    known, values = np.ones((6, 6), bool), np.eye(6)
    np.testing.assert_array_equal(matte(photo(0, 6, 6), known, values, Config(softness=None))[0], values)


def test_smallest_picture():
    known, values = np.zeros((3, 3), bool), np.zeros((3, 3))
    known[0] = known[2] = True
    values[0] = 1
    alpha, _ = matte(photo(0, 3, 3), known, values, Config(softness=None))
    assert np.isfinite(alpha).all()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"trimap": None}, UsageError, "one of --trimap PICTURE and --scribbles PICTURE"),
        ({"scribbles": "scribbles"}, UsageError, "one of --trimap PICTURE and --scribbles"),
        ({"trimap": "new"}, DataError, "the photo's size, 50 x 40 pixels. Received: 80 x 30"),
        ({"trimap": None, "scribbles": "new"}, DataError, "the photo's size, 50 x 40"),
        ({"trimap": None, "scribbles": "photo"}, DataError, "without any foreground"),
        ({"trimap": "white"}, DataError, r"without any background \(black\)"),
        ({"trimap": "gray"}, DataError, r"without any foreground \(white\)"),
        ({"trimap": "missing"}, DataError, "no picture at"),
        ({"photo": "tiny", "trimap": "tiny"}, DataError, "at least 3 x 3 pixels"),
        ({"out": "cut.jpg"}, UsageError, "a name ending in .png"),
        ({"out": "photo.png"}, UsageError, "no input is overwritten"),
        ({"alpha": "cut.png"}, UsageError, "a name of its own"),
        ({"out": "photo.png/cut.png"}, UsageError, r"expected folders above .*, which is a file"),
        ({"softness": -1.0}, UsageError, "softness > 0"),
    ],
)
def test_mistakes(files, tmp_path: Path, change, error, message):
    write_image(tmp_path / "white.png", np.full((40, 50, 3), 255, "uint8"))
    write_image(tmp_path / "gray.png", np.full((40, 50, 3), 128, "uint8"))
    write_image(tmp_path / "tiny.png", np.zeros((2, 9, 3), "uint8"))
    given = {"photo": "photo", "trimap": "trimap", "out": "cut.png", **change}
    inputs = ("photo", "trimap", "scribbles")
    options = {
        key: value if not isinstance(value, str) else tmp_path / (f"{value}.png" if key in inputs else value)
        for key, value in given.items()
    }
    before = sorted(tmp_path.iterdir())
    with pytest.raises(error, match=message):
        run(**options)
    assert sorted(tmp_path.iterdir()) == before


def test_scribbles_saved_with_loss_are_refused():
    picture = photo(0, 20, 20)
    with pytest.raises(DataError, match="Save it as PNG"):
        scribbled(picture, picture ^ 1)


@pytest.mark.parametrize("which", ["trimap", "scribbles"])
def test_transparent_marks_are_refused(files, which, tmp_path: Path):
    clear = np.concatenate([read_image(files[which]), np.full((40, 50, 1), 255, "uint8")], axis=-1)
    write_image(tmp_path / "opaque.png", clear)
    clear[10:20, :, 3] = 0
    write_image(tmp_path / "clear.png", clear)
    cuts = []
    for path in (files[which], tmp_path / "opaque.png"):
        run(photo=files["photo"], out=tmp_path / "cut.png", **{which: path})
        cuts.append(np.asarray(Image.open(tmp_path / "cut.png")))
    np.testing.assert_array_equal(*cuts)
    with pytest.raises(DataError, match=r"clear\.png\. Received: 25 % of it transparent"):
        run(photo=files["photo"], out=tmp_path / "other.png", **{which: tmp_path / "clear.png"})
    assert not (tmp_path / "other.png").exists()


def test_a_palette_s_colors_make_the_trimap(files, tmp_path: Path):
    with Image.open(files["trimap"]) as image:
        image.quantize(3, dither=Image.Dither.NONE).save(tmp_path / "palette.png")
    for found, wanted in zip(
        trimap_of(read_drawing(tmp_path / "palette.png")), trimap_of(read_image(files["trimap"])), strict=True
    ):
        np.testing.assert_array_equal(found, wanted)


_PHOTO, _KNOWN, _VALUES = np.full((6, 8, 3), 90, "uint8"), np.eye(6, 8), np.tri(6, 8, -1)
_KNOWN[5, 0] = 1


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: matte(_PHOTO.astype("float64"), _KNOWN, _VALUES), "Divide it by 255"),
        (lambda: matte(_PHOTO.astype("int32"), _KNOWN, _VALUES), "int32 of 90 to 90. Divide it by 255"),
        (lambda: matte(_PHOTO[..., 0], _KNOWN, _VALUES), "shape"),
        (lambda: matte(_PHOTO, 128 * _KNOWN, _VALUES), "`known` of bool, or 0 and 1. Received: float64 of 0 to 128"),
        (lambda: matte(_PHOTO, _KNOWN, 255 * _VALUES), "known alpha of 0-1. Received: 0 to 255"),
        (lambda: matte(_PHOTO, _KNOWN, np.where(_KNOWN > 0, np.nan, 0)), "known alpha of 0-1. Received: nan"),
        (lambda: estimate_foreground(_PHOTO.astype("float32"), _VALUES), "Divide it by 255"),
        (lambda: estimate_foreground(_PHOTO, 255 * _VALUES), "alpha of 0-1. Received: 0 to 255"),
        (lambda: estimate_foreground(_PHOTO, _VALUES.T), "alpha of the picture's shape"),
        (lambda: trimap_of(_KNOWN), "Multiply it by 255"),
        (lambda: trimap_of(np.zeros((6, 8, 4), "uint8")), "a trimap of shape"),
        (lambda: trimap_of(_KNOWN > 0), "bool"),
        (lambda: scribbled(_PHOTO / 255, _PHOTO), "Multiply it by 255"),
        (lambda: scribbled(_PHOTO, _PHOTO / 255), "expected scribbles of uint8"),
        (lambda: solver.solve_alpha(*(tf.constant(x[None]) for x in (_PHOTO, _KNOWN, _VALUES))), "uint8. Divide it"),
        (
            lambda: solver.solve_alpha(
                *(tf.constant(x[None], tf.float32) for x in (_PHOTO, _KNOWN[..., None], _VALUES[..., None])),
                compiled=True,
            ),
            "Divide it by 255",
        ),
    ],
)
def test_arrays_in_another_unit(call, message):
    with pytest.raises(DataError, match=message):
        call()


def test_foreground_of_bytes_and_of_floats_is_the_same():
    picture, alpha = photo(3, 20, 24), np.tri(20, 24)
    for one, other in zip(estimate_foreground(picture, alpha), estimate_foreground(picture / 255, alpha), strict=True):
        np.testing.assert_allclose(one, other, atol=1e-6)


@pytest.mark.parametrize("values", [{"epsilon": 0}, {"softness": 0}, {"tolerance": 0}, {"iterations": 0}])
def test_config_out_of_range(values):
    with pytest.raises(UsageError, match="Received"):
        Config.from_dict(values)


def test_known_pixels_held_exactly_survive_toml(tmp_path: Path):
    """TOML has no null, and the default is a number."""
    exact = matting.VARIANTS["exact"]
    (tmp_path / "config.toml").write_text(exact.to_toml())
    assert Config.from_toml(tmp_path / "config.toml") == exact
    assert Config.from_toml(tmp_path / "config.toml").softness is None
    with pytest.raises(UsageError, match=r"softness.*Received: softness='nothing'"):
        Config.from_dict({"softness": "nothing"})


def test_strokes_that_cannot_be_seen():
    """White on white: the photo has nothing that tells where they are."""
    picture = np.full((20, 30, 3), 255, "uint8")
    picture[5:15, 8:22] = 90
    scribbles = picture.copy()
    scribbles[:3, :] = 255
    scribbles[9:11, 12:18] = 0
    with pytest.raises(DataError, match=r"white strokes on the foreground.*give a trimap"):
        scribbled(picture, scribbles)
    with pytest.raises(DataError, match=r"black strokes on the background.*give a trimap"):
        scribbled(255 - picture, 255 - scribbles)
    scribbles[12, 12:18] = 255
    known, alpha = scribbled(picture, scribbles)
    assert (known.sum(), alpha.sum()) == (12 + 6, 6)
