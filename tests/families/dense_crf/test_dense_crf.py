"""The dense CRF on files: pydensecrf's example, probabilities, tiles, and what is refused."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from kerasmodels.claims.dense_crf import EXPERIMENTS
from kerasmodels.data import read_image, write_image
from kerasmodels.data.segmentation import voc_palette
from kerasmodels.errors import DataError, UsageError
from kerasmodels.models import dense_crf
from kerasmodels.models.dense_crf import Config, probabilities_of, refine
from tests.cases import photo


def run(image: Path, out: Path, labels: Path | None = None, **options):
    return dense_crf.FAMILY.task.run(dense_crf.FAMILY.task.options(image=image, out=out, labels=labels, **options))


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """Two halves of clearly different colors, and strokes in the outer quarters."""
    picture = np.full((40, 60, 3), (50, 90, 160), "uint8")
    picture[:, 33:] = (200, 150, 60)
    strokes = np.zeros((40, 60, 3), "uint8")
    strokes[10:30, 4:16], strokes[10:30, 44:56] = (255, 0, 0), (0, 0, 255)
    write_image(tmp_path / "photo.png", picture)
    write_image(tmp_path / "strokes.png", strokes)
    return tmp_path


def test_strokes_fill_their_regions(files):
    report = run(files / "photo.png", files / "out.png", files / "strokes.png", overlay=files / "over.png")
    out = read_image(files / "out.png")
    assert (out[:, :33] == (255, 0, 0)).all()
    assert (out[:, 33:] == (0, 0, 255)).all()
    assert report.facts["labels"] == 2
    assert report.outputs == (files / "out.png", files / "over.png")
    over = read_image(files / "over.png")
    assert (over[20, 32] == 255).all(), "a line where labels meet"
    assert abs(int(over[5, 5, 0]) - (0.45 * 50 + 0.55 * 255)) <= 1


@pytest.mark.parametrize("order", ["last", "first"])
@pytest.mark.parametrize("method", ["lattice", "window"])
def test_probabilities(files, order, method):
    guess = np.full((40, 60, 3), 0.2, "float32")
    guess[:, :33, 2], guess[:, 33:, 0] = 0.6, 0.6
    guess[5, 5] = (0.6, 0.2, 0.2)  # a speck
    np.save(files / "softmax.npy", guess if order == "last" else np.moveaxis(guess, -1, 0))
    run(files / "photo.png", files / "out.png", probabilities=files / "softmax.npy", method=method)
    out = read_image(files / "out.png")
    assert (out[:, :30] == (0, 128, 0)).all(), "PASCAL VOC's color of label 2"
    assert (out[:, 36:] == 0).all()


def test_palette_annotation_and_black(files):
    indices = np.full((40, 60), 255, "uint8")
    indices[10:30, 4:16], indices[10:30, 44:56] = 0, 15
    image = Image.fromarray(indices)
    image.putpalette(np.ravel(voc_palette()).tobytes())
    image.save(files / "mask.png")
    run(files / "photo.png", files / "out.png", files / "mask.png", black=True)
    out = read_image(files / "out.png")
    assert (out[:, :33] == 0).all()
    assert (out[:, 33:] == (192, 128, 128)).all()
    with pytest.raises(DataError, match="at least two labels"):
        run(files / "photo.png", files / "out.png", files / "mask.png")


def test_probabilities_of_labels():
    made = probabilities_of(np.array([[0, 1, 2, -1]]), 3, 0.7)
    np.testing.assert_allclose(made[0], [[0.7, 0.15, 0.15], [0.15, 0.7, 0.15], [0.15, 0.15, 0.7], [1 / 3] * 3])
    with pytest.raises(UsageError, match="above 0"):
        probabilities_of(np.array([[0]]), 3, 0.3)
    with pytest.raises(DataError, match="labels below 2"):
        probabilities_of(np.array([[4]]), 2)


def test_large_pictures_are_worked_on_in_tiles(monkeypatch):
    """Tiles with enough around them give what the whole picture gives."""
    picture = photo(3, 150, 210)
    config = Config(iterations=2, bilateral_sxy=8, bilateral_srgb=20)
    random = np.random.default_rng(0)
    guess = random.dirichlet(np.ones(3), (150, 210)).astype("float32")
    whole = refine(picture, guess, config)
    sizes, call = [], dense_crf.FullyConnectedCRF.call

    def seen(self, inputs):
        sizes.append(tuple(inputs["image"].shape[1:3]))
        return call(self, inputs)

    monkeypatch.setattr(dense_crf.FullyConnectedCRF, "call", seen)
    monkeypatch.setattr(dense_crf, "_TILE", 100 * 100)
    tiled = refine(picture, guess, config)
    assert len(sizes) == 6
    assert max(h * w for h, w in sizes) <= 102 * 102
    assert (tiled.argmax(-1) == whole.argmax(-1)).mean() >= 0.97
    assert np.abs(tiled - whole).mean() <= 0.02


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"labels": None}, UsageError, "one of --labels PICTURE and --probabilities"),
        ({"probabilities": "softmax.npy"}, UsageError, "one of --labels"),
        ({"labels": "small.png"}, DataError, "photo's size, 60 x 40 pixels. Received: 30 x 20"),
        ({"labels": "black.png"}, DataError, "nothing but unknown"),
        ({"labels": "one.png"}, DataError, "at least two labels"),
        ({"labels": "photo.jpg"}, DataError, "saved as JPEG"),
        ({"labels": "missing.png"}, DataError, "no picture at"),
        ({"image": "missing.png"}, DataError, "no picture at"),
        ({"labels": None, "probabilities": "nan.npy"}, DataError, "1 of them NaN"),
        ({"labels": None, "probabilities": "scores.npy"}, DataError, "Apply a softmax"),
        ({"labels": None, "probabilities": "flat.npy"}, DataError, r"one array \(H, W, labels\)"),
        ({"labels": None, "probabilities": "photo.png"}, DataError, "expected a NumPy file"),
        ({"labels": None, "probabilities": "small.npy"}, DataError, "photo's size"),
        ({"out": "photo.png"}, UsageError, "no input is overwritten"),
        ({"overlay": "out.png"}, UsageError, "a name of its own"),
        ({"out": "out.txt"}, UsageError, "a picture name"),
        ({"iterations": -1}, UsageError, "iterations >= 0"),
        ({"gt_prob": 0.2}, UsageError, "below 1. Received: 0.2"),
        ({"bilateral_srgb": 0.0}, UsageError, "bilateral_srgb > 0"),
    ],
)
def test_mistakes(files, change, error, message):
    write_image(files / "small.png", np.full((20, 30, 3), 9, "uint8"))
    write_image(files / "black.png", np.zeros((40, 60, 3), "uint8"))
    write_image(files / "one.png", np.full((40, 60, 3), 200, "uint8"))
    write_image(files / "photo.jpg", photo(1, 40, 60))
    guess = np.full((40, 60, 3), 1 / 3, "float32")
    np.save(files / "softmax.npy", guess)
    np.save(files / "scores.npy", 9 * guess)
    np.save(files / "flat.npy", guess[0])
    np.save(files / "small.npy", guess[:20, :30])
    guess[3, 4, 1] = np.nan
    np.save(files / "nan.npy", guess)
    given = {"image": "photo.png", "labels": "strokes.png", "out": "out.png", **change}
    paths = ("image", "labels", "out", "probabilities", "overlay")
    before = sorted(files.iterdir())
    with pytest.raises(error, match=message):
        run(**{k: files / v if k in paths and v is not None else v for k, v in given.items()})
    assert sorted(files.iterdir()) == before


def test_there_is_nothing_to_train():
    crf = dense_crf.FullyConnectedCRF({"labels": 3})
    assert crf.variables == []
    assert crf.metrics == []
    with pytest.raises(UsageError, match=r"nothing to train.*kerasmodels run dense_crf"):
        crf.compile()


def test_unknown_method():
    with pytest.raises(UsageError, match=r"method in .*window.* Received: 'wide'"):
        refine(np.zeros((4, 5, 3), "uint8"), np.full((4, 5, 2), 0.5, "float32"), method="wide")


def test_a_photo_of_0_to_1_is_refused():
    """In it no two colors are far apart, so that its edges would count for nothing."""
    picture, guess = photo(1, 12, 16), np.full((12, 16, 2), 0.5, "float32")
    np.testing.assert_allclose(refine(picture, guess), refine(picture.astype("float64"), guess), atol=1e-6)
    for wrong, message in (
        (picture / 255.0, "Multiply it by 255"),
        (picture.astype(int), "int64"),
        (picture[..., :1], r"shape \(H, W, 3\)"),
        (np.full(picture.shape, np.nan), "not finite"),
    ):
        with pytest.raises(DataError, match=message):
            refine(wrong, guess)


def test_annotations_that_could_mean_anything(files):
    strokes = np.concatenate([read_image(files / "strokes.png"), np.full((40, 60, 1), 255, "uint8")], axis=-1)
    strokes[:, 20:40, 3] = 0
    write_image(files / "clear.png", strokes)
    with pytest.raises(DataError, match=r"33\.3 % of it transparent"):
        run(files / "photo.png", files / "out.png", files / "clear.png")
    assert not (files / "out.png").exists()


def test_a_palette_s_colors_are_the_labels(files):
    with Image.open(files / "strokes.png") as image:
        image.quantize(4, dither=Image.Dither.NONE).save(files / "palette.png")
    for name in ("strokes", "palette"):
        run(files / "photo.png", files / f"{name}-out.png", files / f"{name}.png")
    np.testing.assert_array_equal(read_image(files / "strokes-out.png"), read_image(files / "palette-out.png"))


def test_no_pixels():
    with pytest.raises(DataError, match="at least one pixel"):
        refine(np.zeros((0, 5, 3), "uint8"), np.zeros((0, 5, 2), "float32"))


@pytest.mark.parametrize("values", [{"labels": 1}, {"radius": 0}, {"stride": 0}, {"normalization": "both"}])
def test_config_out_of_range(values):
    with pytest.raises(UsageError, match="Received"):
        Config.from_dict(values)


@pytest.mark.parametrize("name", ["noisy", "edges"])
def test_experiments(name, tmp_path):
    claims = EXPERIMENTS[name].measure(None, tmp_path, True)
    assert [claim for claim in claims if claim.passed is False] == []
    assert [p.name for p in tmp_path.iterdir()] == [f"dense_crf_{name}.png"]


def test_reference_example(shared_data, tmp_path):
    claims = EXPERIMENTS["reference"].measure(shared_data / "segmentation", tmp_path, False)
    assert [claim for claim in claims if claim.passed is False] == []


def test_reference_without_data(tmp_path):
    with pytest.raises(DataError, match="anno1"):
        EXPERIMENTS["reference"].measure(tmp_path, tmp_path, True)
