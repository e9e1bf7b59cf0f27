"""Pictures enlarged in pieces: no seams, whatever the sizes, and nothing that a file has gets lost."""

from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from kerasmodels.data import read_as_stored, write_image
from kerasmodels.data.color import match_histogram
from kerasmodels.data.png import PngWriter
from kerasmodels.errors import DataError, UsageError
from kerasmodels.models.srcnn import SRCNN
from kerasmodels.models.super_resolution import SuperResolution
from kerasmodels.ops.imresize import imresize
from kerasmodels.servables import served
from kerasmodels.storage import write_atomic
from kerasmodels.tasks import upscale as tasks
from kerasmodels.tasks.upscale import Strips, UpscaleOptions, upscale, upscale_files
from tests.cases import photo


def shaken(model):
    """The model with weights of which every one matters."""
    random = np.random.default_rng(3)
    for variable in model.variables:
        if variable.dtype == "float32" and variable.path.rpartition("/")[2] not in ("kernel", "loss"):
            variable.assign(variable.numpy() + random.uniform(0.0, 0.2, variable.shape))
    return model


@pytest.fixture(scope="module", params=["transposed", "resize", "x2", "x8", "srcnn"])
def model(request):
    keras.utils.set_random_seed(1)
    if request.param == "srcnn":
        return SRCNN(SRCNN.Config(filters=(4, 3), kernels=(5, 1, 3), size=20, initial="identity"))
    scale = {"x2": 2, "x8": 8}.get(request.param, 4)
    upsampling = "resize" if request.param == "resize" else "transposed"
    config = SuperResolution.Config(channels=4, blocks=1, scale=scale, residual=scale != 2, upsampling=upsampling)
    return shaken(SuperResolution(config))


def test_pieces_are_the_whole(model):
    """Twenty random sizes and tiles, of one pixel up; also where the network's result is resized."""
    random = np.random.default_rng(0)
    for number in range(20):
        height, width = random.integers(1, 40, 2)
        tile = 1 if number == 0 else int(random.integers(3, 45))
        if number == 0:
            height, width = 5, 7
        scale = (None, None, 3, 2.5, 1.37)[number % 5]
        picture = photo(number, int(height), int(width))
        whole = upscale(model, picture, scale, tile=10**6)
        pieces = upscale(model, picture, scale, tile=tile)
        factor = model.config.scale if scale is None else scale
        assert whole.shape == (np.ceil(round(height * factor, 6)), np.ceil(round(width * factor, 6)), 3)
        np.testing.assert_array_equal(pieces, whole, err_msg=f"{height} x {width}, tile {tile}, scale {scale}")


def test_parts_at_full_resolution_leave_no_seams(model, monkeypatch):
    monkeypatch.setattr(tasks, "_PART", 5 * model.config.scale)
    picture = photo(4, 23, 36)
    made = upscale(model, picture, tile=14)
    monkeypatch.undo()
    np.testing.assert_array_equal(made, upscale(model, picture))


def test_whole_is_the_served_model(model):
    picture = photo(1, 21, 34)
    np.testing.assert_array_equal(upscale(model, picture), served(model, "upscale")(image=picture[None])["upscaled"][0])


def test_the_reach_is_exact(model):
    """A pixel beyond it changes nothing, and one within does: no tile sees more than it must."""
    size = 2 * model.reach + 11
    random = np.random.default_rng(0)
    one = random.uniform(0, 255, (1, size, size, 3)).astype("float32")
    own, middle = model.config.scale, size // 2
    center = slice(own * middle, own * (middle + 1))

    def changed(distance):
        other = one.copy()
        other[:, [middle - distance, middle + distance], :] = random.uniform(0, 255, other[:, :2].shape)
        before, after = (np.asarray(model.upscaled(x))[:, center] for x in (one, other))
        return np.abs(after - before).max()

    assert changed(model.reach + 1) == 0
    assert changed(model.reach) > 0


def gray_alpha_deep(form, dtype):
    random = np.random.default_rng(0)
    return random.integers(0, np.iinfo(dtype).max + 1, (9, 13, *form)).astype(dtype)


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("form", [(), (2,), (3,), (4,)])
def test_gray_alpha_and_16_bits_survive(model, tmp_path, form, dtype):
    picture = gray_alpha_deep(form, dtype)
    rows = picture.reshape(9, 13, -1)

    def write(file):
        writer = PngWriter(file, 9, 13, rows.shape[2], dtype)
        writer.write(rows[:4])
        writer.write(rows[4:])
        writer.close()

    source = write_atomic(tmp_path / "in.png", write)
    np.testing.assert_array_equal(read_as_stored(source), picture)
    options = UpscaleOptions(inputs=(source,), out=tmp_path / "out.png", tile=5)
    upscale_files(options, SimpleNamespace(load=lambda: model, name="tiny"))
    made = read_as_stored(tmp_path / "out.png")
    assert made.dtype == dtype
    assert made.shape == (9 * model.config.scale, 13 * model.config.scale, *form)
    np.testing.assert_array_equal(made, upscale(model, picture))
    if form in ((2,), (4,)):
        alpha = np.asarray(imresize(picture[None, ..., -1:].astype("float32"), model.config.scale))[0, ..., 0]
        limit = np.iinfo(dtype).max
        np.testing.assert_allclose(made[..., -1], np.rint(np.clip(alpha, 0, limit)), atol=1 if limit == 255 else 2)


def test_16_bits_are_more_than_8(tmp_path):
    """A ramp of levels that 8 bits do not have stays one."""
    keras.utils.set_random_seed(0)
    model = SuperResolution(SuperResolution.Config(channels=4, blocks=0, residual=True))
    ramp = np.broadcast_to(np.arange(40, dtype="uint16")[:, None, None] * 5 + 30000, (40, 20, 3))
    made = upscale(model, np.ascontiguousarray(ramp))
    assert len(np.unique(made[8:-8, 40, 0])) > 100


def test_pixel_wide_pictures(model):
    for height, width in ((1, 1), (1, 30), (25, 1)):
        made = upscale(model, photo(0, height, width))
        assert made.shape == (model.config.scale * height, model.config.scale * width, 3)


def test_a_bad_file_in_a_folder(model, tmp_path):
    for name in "ac":
        write_image(tmp_path / "in" / f"{name}.png", photo(0, 6, 5))
    (tmp_path / "in" / "b.png").write_bytes(b"no picture")
    options = UpscaleOptions(inputs=(tmp_path / "in",), out=tmp_path / "out")
    with pytest.raises(DataError, match=r"2 of 3 inputs are done.*b\.png"):
        upscale_files(options, SimpleNamespace(load=lambda: model, name="tiny"))
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.png", "c.png"]


def test_what_a_format_cannot_keep_is_refused(model, tmp_path):
    source = tmp_path / "clear.png"
    Image.fromarray(gray_alpha_deep((4,), np.uint8)).save(source)
    options = UpscaleOptions(inputs=(source,), out=tmp_path / "out.jpg")
    with pytest.raises(DataError, match="transparency"):
        upscale_files(options, SimpleNamespace(load=lambda: model, name="tiny"))
    assert not (tmp_path / "out.jpg").exists()


@pytest.mark.parametrize("wrong", [{"scale": 0}, {"scale": -2}, {"tile": 0}, {"scale": float("nan")}])
def test_options(wrong, tmp_path):
    with pytest.raises(UsageError, match=r"scale|tile"):
        UpscaleOptions(inputs=(tmp_path / "a.png",), out=tmp_path / "b.png", **wrong)


def test_pictures_of_another_form(model):
    for wrong in (np.zeros((4, 4, 3)), np.zeros((4, 4, 5), "uint8"), np.zeros((0, 4, 3), "uint8")):
        with pytest.raises(DataError, match="uint8 or uint16"):
            upscale(model, wrong)
    with pytest.raises(DataError, match="at least a pixel"):
        Strips(model, photo(0, 3, 3), 1e-9, 4)


def test_match_histogram(model):
    picture = photo(2, 30, 40)
    made = upscale(model, picture, match=True)
    for channel in range(3):
        means = [np.sort(p[..., channel].ravel()).mean() for p in (made, picture)]
        assert abs(means[0] - means[1]) < 1.5
    shifted = np.clip(picture.astype(int) + 30, 0, 255).astype("uint8")
    back = match_histogram(shifted, picture)
    assert np.abs(back.astype(int) - picture)[shifted < 255].max() <= 2
    np.testing.assert_array_equal(match_histogram(picture, picture), picture)
