import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
from PIL import Image

from kerasmodels import presets, runs, storage
from kerasmodels.claims import experiments
from kerasmodels.data import read_image, write_image
from kerasmodels.errors import DataError, UsageError, WeightsError
from kerasmodels.export import export
from kerasmodels.losses import Perceptual
from kerasmodels.models.fast_style import FAMILY, Config, FastStyle, perceptual_loss, stylize
from kerasmodels.tasks import pictures as pictures_task
from kerasmodels.training import train

run, Options = FAMILY.task.run, FAMILY.task.options
SMALL = Config(channels=(4, 6, 8), blocks=2)
RANDOM = np.random.default_rng(0)


def _run(tmp_path, config=SMALL):
    """A run folder with random weights: whatever the style, files in and files out work alike."""
    keras.utils.set_random_seed(0)
    folder = tmp_path / "run"
    model = FastStyle(config)
    storage.save_npz(folder / "weights.npz", storage.model_arrays(model))
    storage.write_json(folder / "run.json", runs.new_card("fast_style", config, None))
    return folder


# --- the network


def test_parameters_are_the_paper_s():
    assert FastStyle(Config()).count_params() == 1_679_235
    batch = FastStyle(Config(normalization="batch"))
    assert batch.count_params() == 1_679_235 + 3_200  # two moving statistics a channel
    assert sum(int(np.prod(v.shape)) for v in batch.trainable_variables) == 1_679_235


@pytest.mark.parametrize("padding", ["start", "reflect"])
@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
@pytest.mark.parametrize("normalization", ["instance", "batch"])
def test_every_variant_keeps_the_size(padding, upsampling, normalization):
    config = dataclasses.replace(SMALL, padding=padding, upsampling=upsampling, normalization=normalization)
    assert FastStyle(config)(np.zeros((2, 64, 48, 3), "float32")).shape == (2, 64, 48, 3)


def test_output_range_is_a_little_more_than_0_to_255():
    model = FastStyle(SMALL)
    last = model.network.get_layer("conv2")
    last.set_weights([last.get_weights()[0] * 0, np.array([50.0, -50.0, 0.0])])
    np.testing.assert_allclose(model(np.zeros((1, 32, 32, 3)))[0, 0, 0], [277.5, -22.5, 127.5])


def test_transposed_convolution_is_torch_s():
    """Samples 1 to 2n of the full result (padding 1, output padding 1): a kernel that only has its center keeps
    every pixel at even positions."""
    model = FastStyle(dataclasses.replace(SMALL, channels=(2, 2, 2)))
    layer = model.network.get_layer("up1")
    kernel = np.zeros((3, 3, 2, 2), "float32")
    kernel[1, 1] = np.eye(2)
    layer.set_weights([kernel, np.zeros(2)])
    x = RANDOM.normal(size=(1, 5, 4, 2)).astype("float32")
    y = np.asarray(layer(x))
    assert y.shape == (1, 10, 8, 2)
    np.testing.assert_array_equal(y[:, ::2, ::2], x)
    assert not y[:, 1::2].any()


def test_keras_file_round_trip(tmp_path):
    model = FastStyle(SMALL)
    x = RANDOM.uniform(0, 255, (1, 32, 32, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert loaded.config == model.config
    np.testing.assert_array_equal(loaded(x), model(x))


def test_keras_file_of_a_compiled_model_loads_without_its_loss(tmp_path):
    model = FastStyle(SMALL)
    pictures = RANDOM.uniform(0, 255, (2, 32, 32, 3)).astype("float32")
    model.compile("adam", Perceptual(lambda x: {"rgb": x}, pictures[0], {"rgb": 1.0}, {"rgb": 1.0}), jit_compile=False)
    model.optimizer.build(model.trainable_variables)
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(pictures), model(pictures))
    assert not loaded.compiled


@pytest.mark.parametrize("size", [(1, 1), (2, 3), (61, 70), (64, 64)])
def test_servable_takes_any_size(size):
    model = FastStyle(SMALL)
    picture = RANDOM.integers(0, 256, (*size, 3), dtype="uint8")
    painted = stylize(model, picture)
    assert painted.shape == picture.shape
    assert painted.dtype == np.uint8


def test_servable_equals_the_model_where_no_padding_is_needed():
    model = FastStyle(SMALL)
    picture = RANDOM.integers(0, 256, (64, 48, 3), dtype="uint8")
    expected = np.clip(np.rint(model(picture[None].astype("float32"))[0]), 0, 255)
    assert np.abs(stylize(model, picture) - expected).max() <= 1


# --- training


def test_a_model_of_mixed_precision_is_exported_in_float32(tmp_path):
    """One in memory as well as one that is loaded, and with networks handed in, too."""
    import onnx

    keras.utils.set_random_seed(0)
    config = dataclasses.replace(SMALL, normalization="batch")
    mixed = FastStyle(config, dtype="mixed_bfloat16")
    handed = FastStyle(config, network=mixed.network)
    photo = np.random.default_rng(0).integers(0, 256, (1, 32, 36, 3), "uint8")
    plain = FastStyle(config)
    plain.set_weights(mixed.get_weights())
    expected = FAMILY.servables(plain)["stylize"].call(image=photo)["stylized"]
    for model in (mixed, handed):
        served = FAMILY.servables(model.in_float32())["stylize"].call(image=photo)["stylized"]
        np.testing.assert_array_equal(served, expected)
    assert plain.in_float32() is plain
    report = export(mixed, tmp_path, formats=["onnx"])
    graph = onnx.load(next(tmp_path.rglob("*.onnx"))).graph
    assert report.artifacts
    types = {tensor.data_type for tensor in graph.initializer}
    assert types & {onnx.TensorProto.FLOAT, onnx.TensorProto.BFLOAT16} == {onnx.TensorProto.FLOAT}
    casts = {a.i for node in graph.node if node.op_type == "Cast" for a in node.attribute if a.name == "to"}
    assert onnx.TensorProto.BFLOAT16 not in casts


def test_training_lowers_the_loss(tmp_path, shared_data):
    """Against real VGG16 features."""
    config = dataclasses.replace(
        SMALL,
        style=next(shared_data.rglob("wave.jpg")),
        photos=next(shared_data.rglob("content")),
        vgg=str(next(shared_data.rglob("vgg16_torchvision_conv.npz"))),
        size=64,
        style_size=64,
        batch=2,
        steps=30,
    )
    model = FAMILY.build(config)
    history = model.fit(FAMILY.batches(config), steps_per_epoch=10, epochs=3, shuffle=False, verbose=0).history
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    np.testing.assert_allclose(
        history["loss"], np.sum([history[t] for t in ("content", "style", "total_variation")], axis=0), rtol=1e-4
    )


def test_a_photo_cut_short_stops_the_training_with_its_name(tmp_path, shared_data):
    photos = tmp_path / "photos"
    for i in range(3):
        write_image(photos / f"{i}.jpg", RANDOM.integers(0, 256, (90, 90, 3), dtype="uint8"))
    (photos / "1.jpg").write_bytes((photos / "1.jpg").read_bytes()[:-3000])
    config = dataclasses.replace(
        SMALL,
        style=next(shared_data.rglob("wave.jpg")),
        photos=photos,
        vgg=str(next(shared_data.rglob("vgg16_torchvision_conv.npz"))),
        size=32,
        style_size=32,
        batch=1,
        steps=6,
    )
    with pytest.raises(DataError, match=r"1\.jpg is damaged or cut short"):
        train(FAMILY, config, tmp_path / "run", progress=False, preview_every=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 130}, "multiple of 4"),
        ({"channels": (4, 8)}, r"channels\[2\]"),
        ({"channels": (4, 8, 0)}, r"channels\[2\] > 0"),
        ({"end_kernel": 4}, "odd end_kernel"),
        ({"normalization": "layer"}, "normalization: 'instance' or 'batch'"),
        ({"steps": 0}, "steps > 0"),
        ({"final_learning_rate": 1.0}, "final_learning_rate"),
        ({"style_weight": -1.0}, "style_weight >= 0"),
        ({"style_layers": ()}, "at least one of style_layers"),
    ],
)
def test_config_says_what_is_wrong(change, words):
    with pytest.raises(UsageError, match=words):
        dataclasses.replace(Config(), **change)


def test_training_needs_a_painting_and_photos(tmp_path):
    with pytest.raises(UsageError, match="--style PATH"):
        FAMILY.build(Config())
    with pytest.raises(UsageError, match="--photos DIR"):
        FAMILY.batches(Config(style=tmp_path / "a.png"))


def test_start_from_another_network_is_refused(tmp_path):
    folder = _run(tmp_path)
    with pytest.raises(WeightsError, match="belong to another network"):
        FAMILY.build(dataclasses.replace(Config(style=tmp_path, photos=tmp_path), start_from=str(folder)))


# --- run


@pytest.fixture
def photo(tmp_path):
    path = tmp_path / "photo.png"
    write_image(path, RANDOM.integers(0, 256, (50, 70, 3), dtype="uint8"))
    return path


def test_one_picture(photo, tmp_path):
    report = run(Options(inputs=(photo,), out=tmp_path / "out.png", run=_run(tmp_path)))
    assert report.outputs == (tmp_path / "out.png",)
    assert read_image(tmp_path / "out.png").shape == (50, 70, 3)


def test_max_side(photo, tmp_path):
    run(Options(inputs=(photo,), out=tmp_path / "out.png", run=_run(tmp_path), max_side=35))
    assert read_image(tmp_path / "out.png").shape == (25, 35, 3)


def test_a_folder_keeps_its_shape(photo, tmp_path):
    source = tmp_path / "photos"
    (source / "sub").mkdir(parents=True)
    Image.open(photo).save(source / "a.webp")
    Image.open(photo).save(source / "sub" / "b.jpg")
    run(Options(inputs=(source,), out=tmp_path / "out", run=_run(tmp_path)))
    written = sorted(str(p.relative_to(tmp_path / "out")) for p in (tmp_path / "out").rglob("*.*"))
    assert written == ["a.png", "sub/b.jpg"]


def test_a_bad_picture_does_not_cost_the_good_ones(photo, tmp_path):
    bad = tmp_path / "bad.jpg"
    bad.write_text("Dear diary")
    with pytest.raises(DataError, match=r"1 of 2 inputs are done.*bad\.jpg is not a picture"):
        run(Options(inputs=(bad, photo), out=tmp_path / "out", run=_run(tmp_path)))
    assert (tmp_path / "out" / "photo.png").is_file()


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_video(tmp_path):
    imageio = pytest.importorskip("imageio.v2", reason="the `video` extra is not installed")
    with imageio.get_writer(tmp_path / "in.mp4", "ffmpeg", fps=10, macro_block_size=1) as writer:
        for i in range(3):
            writer.append_data(np.full((48, 64, 3), 60 * i, "uint8"))
    report = run(Options(inputs=(tmp_path / "in.mp4",), out=tmp_path / "out.mp4", run=_run(tmp_path)))
    assert report.facts["frames"] == 3
    run(Options(inputs=(tmp_path / "in.mp4",), out=tmp_path / "small.mp4", run=tmp_path / "run", max_side=32))
    for name, size in (("out.mp4", (64, 48)), ("small.mp4", (32, 24))):
        with imageio.get_reader(tmp_path / name, "ffmpeg") as reader:
            assert reader.get_meta_data()["size"] == size


def test_a_picture_too_large_for_the_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures_task, "_free_memory", lambda: 1_000_000)
    with pytest.raises(DataError, match=r"3000 x 2000 pixels needs about .* GB .* --max-side \d+"):
        stylize(FastStyle(SMALL), np.zeros((2000, 3000, 3), "uint8"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"preset": None}, "one of --preset NAME and --run FOLDER"),
        ({"preset": "no-such-style"}, "unknown preset of fast_style 'no-such-style'"),
        ({"run": Path("photo.png"), "preset": None}, "expected a run folder"),
        ({"out": Path("out.docx"), "preset": None, "run": Path("run")}, r"out\.png or out\.jpg"),
        ({"out": Path("out.mp4"), "preset": None, "run": Path("run")}, "expected a picture's name"),
        ({"max_side": 0, "preset": None, "run": Path("run")}, "max_side > 0"),
        ({"inputs": (), "preset": None, "run": Path("run")}, "at least one picture"),
    ],
)
def test_run_says_what_is_wrong(options, words, photo, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    _run(tmp_path)
    with pytest.raises(UsageError, match=words):
        run(Options(**{"inputs": (photo,), "out": Path("out.png"), "preset": "x", **options}))


@pytest.mark.parametrize("source", ["photo.png", ""], ids=["a picture", "its folder"])
def test_no_input_is_overwritten(source, photo, tmp_path):
    before = photo.read_bytes()
    with pytest.raises(UsageError, match="no input is overwritten"):
        run(Options(inputs=(tmp_path / source,), out=tmp_path, run=_run(tmp_path)))
    assert photo.read_bytes() == before


def test_two_inputs_of_one_name(photo, tmp_path):
    other = tmp_path / "sub" / "photo.png"
    write_image(other, read_image(photo))
    with pytest.raises(UsageError, match=r"a name of its own for each result.*photo\.png"):
        run(Options(inputs=(photo, other), out=tmp_path / "out", run=_run(tmp_path)))


def test_weights_of_another_net(photo, tmp_path):
    folder = _run(tmp_path)
    storage.save_npz(folder / "weights.npz", storage.model_arrays(FastStyle(dataclasses.replace(SMALL, blocks=1))))
    with pytest.raises(WeightsError, match="belong to another network"):
        run(Options(inputs=(photo,), out=tmp_path / "out.png", run=folder))


def test_damaged_weights(photo, tmp_path):
    folder = _run(tmp_path)
    path = folder / "weights.npz"
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(WeightsError, match="not a readable"):
        run(Options(inputs=(photo,), out=tmp_path / "out.png", run=folder))


# --- reproduce


@pytest.mark.slow
def test_reproduce(tmp_path, shared_data):
    claims = experiments("fast_style")["objective"].measure(shared_data, tmp_path, True)
    assert len({claim.key for claim in claims}) == len(claims) == 3 * len(presets.presets("fast_style")) + 1
    assert [claim.text for claim in claims if claim.passed is False] == []
    assert {f"objective_{name}.jpg" for name in presets.presets("fast_style")} == {p.name for p in tmp_path.iterdir()}


def test_reproduce_says_what_data_it_needs(tmp_path):
    with pytest.raises(DataError, match="--data DIR with the presets' paintings"):
        experiments("fast_style")["objective"].measure(None, tmp_path, True)
    with pytest.raises(DataError, match="no folder `content`"):
        experiments("fast_style")["objective"].measure(tmp_path, tmp_path, True)


def test_a_painting_that_is_a_thin_strip(tmp_path):
    write_image(tmp_path / "thin.png", np.zeros((4, 200, 3), "uint8"))
    with pytest.raises(DataError, match=r"at least 8 pixels each way.*thin\.png, which is 64 x 1 at --style-size 64"):
        perceptual_loss(Config(style=tmp_path / "thin.png", style_size=64, vgg="absent"))
