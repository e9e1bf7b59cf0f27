"""Dilated nets: the paper's sizes, tiles without seams, Caffe's files, training data, and what is refused."""

import dataclasses
import struct

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels import claims, export
from kerasmodels.backbones import sources
from kerasmodels.claims.evidence import average
from kerasmodels.data import read_image, write_image
from kerasmodels.data.segmentation import (
    class_weights,
    count_labels,
    label_pairs,
    read_label_map,
    segmentation_crops,
    write_label_map,
)
from kerasmodels.errors import DataError, UsageError, WeightsError
from kerasmodels.layers import DenseCRF
from kerasmodels.models.dilated_net import FAMILY, MEAN, ContextIdentity, DilatedNet, context_module, front_end
from kerasmodels.ports.caffe import read_caffemodel
from kerasmodels.tasks.label import segment
from tests.backbones.test_mobile import write_lite
from tests.cases import case_of, photo, untrained, write_vgg16

TINY_CONFIG = case_of("dilated_net").config
MOBILE = dataclasses.replace(
    TINY_CONFIG,
    trunk="mobilenet_v2",
    blocks=(1, 1, 1, 2, 1, 1, 1),
    channels=(4, 2, 3, 4, 6, 8, 12, 16),
    crop=136,
    learning_rate=1e-3,
    head_rate=10.0,
)
TRUNKS = {"vgg16": TINY_CONFIG, "mobile": MOBILE}
trunks = pytest.mark.parametrize("config", TRUNKS.values(), ids=TRUNKS)


def decided(config, seed=0):
    """A network whose scores differ, as an untrained one's hardly do."""
    keras.utils.set_random_seed(seed)
    net = DilatedNet(config)
    picture = np.random.default_rng(0).uniform(0, 255, (1, config.crop, config.crop, 3)).astype("float32")
    kernel = net.front.get_layer("final").kernel
    kernel.assign(10 * kernel / np.std(net.front(picture)))
    return net


@pytest.fixture(scope="module")
def net():
    return decided(dataclasses.replace(TINY_CONFIG, rates=(1, 2, 4)), 1)


# --- the paper's figures ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["receptive_fields", "identity"])
def test_experiments(name, tmp_path):
    found = claims.experiments("dilated_net")[name].measure(None, tmp_path, True)
    assert [claim for claim in found if not claim.passed] == []


@pytest.mark.slow
def test_needs_context(tmp_path):
    found = claims.experiments("dilated_net")["needs_context"].measure(None, tmp_path, True)
    assert {claim.key: claim.passed for claim in found} == {
        "discs_alone": True,
        "discs_context": True,
        "discs_random_1": None,
        "discs_random_2": None,
        "discs_lead": True,
    }


@pytest.mark.parametrize(
    ("variant", "parameters"), [("camvid", 7_832), ("kitti", 6_732), ("cityscapes", 29_792), ("context", 6_803_139)]
)
def test_context_modules_of_the_variants(variant, parameters):
    config = FAMILY.variant(variant)
    module = context_module(config.classes, config.context, config.rates, config.context_padding)
    assert module.count_params() == parameters
    assert module.compute_output_shape((1, 60, 66, config.classes)) == (1, 60, 66, config.classes)


@pytest.mark.parametrize("kind", ["basic", "large"])
@pytest.mark.parametrize("padding", ["first", "same"])
def test_context_begins_as_relu(kind, padding):
    x = np.random.default_rng(0).normal(size=(2, 40, 37, 3)).astype("float32")
    np.testing.assert_allclose(context_module(3, kind, padding=padding)(x), np.maximum(x, 0), atol=1e-5)


def test_noise_of_the_identity_leaves_what_passes():
    kernel = np.asarray(ContextIdentity(4, noise=0.1, seed=3)((3, 3, 4, 8)))
    clean = np.asarray(ContextIdentity(4)((3, 3, 4, 8)))
    assert set(np.unique(clean)) == {0.0, 0.5}
    assert (kernel[clean > 0] == 0.5).all()
    assert 0.08 < kernel[clean == 0].std() < 0.12


# --- tiles and sizes --------------------------------------------------------------------------------------------------


def test_tiles_fit_together_without_a_seam(net):
    picture = photo(5, 61, 90)
    whole = segment(net, picture, 2000)[1]
    tiled = segment(net, picture, 2 * net.config.margin + 24)[1]
    assert whole.shape == (61, 90, 3)
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    with pytest.raises(UsageError, match="tiles of at least"):
        segment(net, picture, 2 * net.config.margin)


@trunks
@pytest.mark.parametrize("size", [(48, 56), (41, 50), (7, 90)])
def test_servable_is_what_run_does(config, size):
    net, picture = decided(config), photo(2, *size)
    served = FAMILY.servables(net)["segment"].call(image=tf.constant(picture[None]))
    labels, expected = segment(net, picture)
    assert expected.std((0, 1)).max() > 0.01
    np.testing.assert_allclose(served["probabilities"][0], expected, atol=1e-5)
    np.testing.assert_array_equal(served["labels"][0], labels)


def test_served_crf_is_the_config_s(net):
    picture = tf.constant(photo(2, 30, 41)[None])
    found = FAMILY.servables(net)
    plain, refined = (found[name].call(image=picture) for name in ("segment", "segment_crf"))
    crf = DenseCRF(2, 1.0, 0.2, 20, 3.0, 0.2, method="window", radius=1, stride=2)
    expected = tf.nn.softmax(crf([tf.math.log(plain["probabilities"]), picture]))
    np.testing.assert_allclose(refined["probabilities"], expected, atol=1e-5)
    assert np.abs(refined["probabilities"] - plain["probabilities"]).max() > 1e-3
    assert refined["overlay"].shape == (1, 30, 41, 3)


@trunks
def test_output_shape(config):
    net, side = DilatedNet(config), 2 * config.margin + 40
    assert tuple(net(np.zeros((1, side, side + 8, 3), "float32")).shape) == net.compute_output_shape(
        (1, side, side + 8, 3)
    )
    assert net.compute_output_shape((1, side, side + 8, 3)) == (1, 5, 6, 3)


@pytest.mark.parametrize("trunk", ["mobilenet_v2", "efficientnet_lite0"])
def test_positions_of_padding_trunks_lie_in_the_middle_of_their_pixels(trunk):
    """As far as gradients reach, to every side of the pixel whose label is learned."""
    config = dataclasses.replace(MOBILE, trunk=trunk, blocks=(1,) * 7, channels=(2,) * 8, head=2)
    front, margin = front_end(config), config.margin
    average(front)
    picture = tf.fill((1, 8 * 48 + 2 * margin, 8 * 46 + 2 * margin, 3), 200.0)
    for row, column in ((24, 23), (27, 20)):
        with tf.GradientTape() as tape:
            tape.watch(picture)
            maps = front(picture)
            value = maps[0, row, column, 0]
        seen = np.abs(tape.gradient(value, picture)[0].numpy()).sum(-1) > 0
        rows, columns = (np.flatnonzero(seen.any(axis)) for axis in (1, 0))
        assert maps.shape[1:3] == (48, 46)
        assert 200 < len(rows) == len(columns) < 8 * 46
        for at, position in ((rows, row), (columns, column)):
            assert (at[0] + at[-1]) / 2 == margin + 8 * position + 4


def test_tiles_of_a_padding_trunk_overlap_as_far_as_it_sees():
    """This small one sees 81 pixels to every side, so that nothing of the zeros around a tile is left."""
    net, picture = decided(dataclasses.replace(MOBILE, blocks=(1,) * 7)), photo(5, 30, 330)
    whole, tiled = (
        segment(net, picture, 2 * net.config.margin + 16 * net.config.overlap + side)[1] for side in (800, 80)
    )
    assert whole.std((0, 1)).max() > 0.01
    np.testing.assert_allclose(tiled, whole, atol=1e-5)
    with pytest.raises(UsageError, match="tiles of at least 272"):
        segment(net, picture, 271)


def test_frozen_front_end():
    config = dataclasses.replace(TINY_CONFIG, trains="context", dropout=0.9)
    model = DilatedNet(config)
    assert {v.path.split("/")[0][:4] for v in model.trainable_variables} == {"ctx_"}
    x = np.random.default_rng(0).uniform(0, 255, (1, config.crop, config.crop, 3)).astype("float32")
    np.testing.assert_array_equal(model(x, training=True), model(x))


# --- weights from elsewhere -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("convention", [sources.TORCHVISION, sources.CAFFE])
def test_vgg_s_convention_becomes_a_part_of_the_first_convolution(tmp_path, monkeypatch, convention):
    write_vgg16(tmp_path / "vgg.npz")
    loaded = dataclasses.replace(sources.load("vgg16", tmp_path / "vgg.npz"), convention=convention)
    monkeypatch.setattr(sources, "load", lambda *_: loaded)
    x = np.random.default_rng(0).uniform(0, 255, (1, 9, 9, 3)).astype("float32")
    seen = (x - np.array(convention.mean, "float32")) / np.array(convention.std, "float32")
    seen = seen[..., ::-1] if convention.channels == "bgr" else seen
    kernel, bias = (loaded.arrays[f"conv1_1/{k}"] for k in ("kernel", "bias"))
    folded = sources.convolutions("vgg16", "any", MEAN)["conv1_1"]
    ours = tf.nn.conv2d(x - np.array(MEAN, "float32"), folded[0], 1, "VALID") + folded[1]
    np.testing.assert_allclose(ours, tf.nn.conv2d(seen, kernel, 1, "VALID") + bias, rtol=1e-3, atol=1e-3)


def varint(number):
    out = b""
    while number > 127:
        out, number = out + bytes([number & 127 | 128]), number >> 7
    return out + bytes([number])


def field(number, data):
    return varint(number << 3 | 2) + varint(len(data)) + data


def blob(array, old):
    """BlobProto: with a shape, or as Caffe once wrote it, with four sizes."""
    values = field(5, array.astype("<f4").tobytes())
    if not old:
        return field(7, field(1, b"".join(map(varint, array.shape)))) + values
    sizes = (1,) * (4 - array.ndim) + array.shape
    return b"".join(varint(i << 3) + varint(n) for i, n in enumerate(sizes, 1)) + values


def write_caffemodel(path, model, old=False, prefix="ctx_", final="final"):
    """A file as Caffe would write it, by its format's description; with layers that have no weights between."""
    data = field(1, b"dilated")
    for part in (model.front, model.context):
        for layer in [] if part is None else part.layers:
            name = layer.name.replace("ctx_", prefix)
            name = final if name == "final" else name
            blobs = []
            for weight in layer.get_weights() if isinstance(layer, keras.layers.Conv2D) else ():
                if weight.ndim == 4:
                    weight = weight[:, :, ::-1] if layer.name == "conv1_1" else weight
                    weight = weight.transpose(3, 2, 0, 1)
                blobs.append(weight)
            tags = (2, 4, 6) if old else (100, 1, 7)
            body = field(tags[1], name.encode()) + b"".join(field(tags[2], blob(b, old)) for b in blobs)
            data += field(tags[0], body)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("old", [False, True], ids=["layer", "layers"])
@pytest.mark.parametrize(("prefix", "final"), [("ctx_", "final"), ("ct_", "fc-final")])
def test_caffemodel(net, tmp_path, old, prefix, final):
    path = write_caffemodel(tmp_path / "net.caffemodel", net, old, prefix, final)
    other = DilatedNet(net.config)
    x = np.random.default_rng(0).uniform(0, 255, (1, net.config.crop, net.config.crop, 3)).astype("float32")
    assert np.abs(other(x) - net(x)).max() > 0
    other.start_from(str(path))
    np.testing.assert_array_equal(other(x), net(x))
    front = DilatedNet(dataclasses.replace(net.config, context="none", trains="front"))
    front.start_from(str(path))
    np.testing.assert_array_equal(front(x), net.front(x))


def test_front_end_s_file_leaves_the_context_module(net, tmp_path):
    front = DilatedNet(dataclasses.replace(net.config, context="none", trains="front"))
    path = write_caffemodel(tmp_path / "front.caffemodel", front)
    other = DilatedNet(net.config)
    before = other.context.get_weights()
    other.start_from(str(path))
    for kept, was in zip(other.context.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, was)


def test_damaged_caffemodels(net, tmp_path):
    path = write_caffemodel(tmp_path / "net.caffemodel", net)
    with pytest.raises(WeightsError, match="No such file"):
        read_caffemodel(tmp_path / "other.caffemodel")
    whole = path.read_bytes()
    for name, data in (("cut", whole[:-7]), ("noise", struct.pack("<8I", *range(1000, 1008)))):
        (tmp_path / f"{name}.caffemodel").write_bytes(data)
        with pytest.raises(WeightsError, match=r"no \.caffemodel|none\. Is it"):
            read_caffemodel(tmp_path / f"{name}.caffemodel")
    (tmp_path / "empty.caffemodel").write_bytes(b"")
    with pytest.raises(WeightsError, match="none"):
        read_caffemodel(tmp_path / "empty.caffemodel")
    wide = DilatedNet(dataclasses.replace(net.config, classes=5, names=()))
    with pytest.raises(WeightsError, match=r"shapes .* for final"):
        wide.start_from(str(path))
    deep = DilatedNet(dataclasses.replace(net.config, blocks=(1, 1, 1, 1, 2), crop=158 + 16))
    with pytest.raises(WeightsError, match="a layer conv5_2"):
        deep.start_from(str(path))


def layer_of(blob, name=b"conv"):
    """A .caffemodel of one layer."""
    return field(100, field(1, name) + field(7, blob))


def test_numbers_that_are_not_packed(tmp_path):
    """One field for each number, single or double, in any order with packed ones."""
    single = b"".join(varint(5 << 3 | 5) + struct.pack("<f", value) for value in (1.5, -2.0))
    double = b"".join(varint(8 << 3 | 1) + struct.pack("<d", value) for value in (1.5, -2.0))
    mixed = field(5, struct.pack("<f", 1.5)) + varint(5 << 3 | 5) + struct.pack("<f", -2.0)
    packed = field(8, struct.pack("<2d", 1.5, -2.0))
    for values in (single, double, mixed, packed):
        path = tmp_path / "net.caffemodel"
        path.write_bytes(layer_of(field(7, varint(1 << 3) + varint(2)) + values))
        (array,) = read_caffemodel(path)["conv"]
        assert array.dtype == "float32"
        np.testing.assert_array_equal(array, [1.5, -2.0])


@pytest.mark.parametrize(
    "blob",
    [
        field(7, field(1, varint(3))) + field(5, b"\0" * 8),  # another shape
        field(7, field(1, varint(2))) + field(5, b"\0" * 7),  # half a number
        field(7, field(1, varint(2**64 - 2) + varint(2**64 - 1))) + field(5, b"\0" * 8),  # -2 x -1
        field(7, field(1, varint(1) * 33)) + field(5, b"\0" * 4),  # more axes than Caffe has
        field(7, field(1, varint(2**40) + varint(2**40))) + field(5, b"\0" * 4),
        field(7, field(1, varint(1))) + field(5, struct.pack("<f", np.nan)),
        field(7, field(1, varint(1))) + field(8, struct.pack("<d", 1e300)),  # infinite as a float32
        field(7, field(1, varint(1))) + varint(5 << 3 | 5) + b"\0\0",
    ],
)
def test_blobs_that_are_none(tmp_path, blob):
    (tmp_path / "net.caffemodel").write_bytes(layer_of(blob))
    with pytest.raises(WeightsError, match=r"no \.caffemodel, or is cut short"):
        read_caffemodel(tmp_path / "net.caffemodel")


def test_names_that_are_no_text(tmp_path):
    (tmp_path / "net.caffemodel").write_bytes(layer_of(field(7, field(1, varint(1))) + field(5, b"\0" * 4), b"\xff"))
    with pytest.raises(WeightsError, match=r"no \.caffemodel"):
        read_caffemodel(tmp_path / "net.caffemodel")


def test_a_file_that_does_not_fit_leaves_the_weights(net, tmp_path):
    path = write_caffemodel(tmp_path / "net.caffemodel", net)
    wide = DilatedNet(dataclasses.replace(net.config, classes=5, names=()))
    before = wide.get_weights()
    with pytest.raises(WeightsError, match="shapes"):
        wide.start_from(str(path))
    for kept, was in zip(wide.get_weights(), before, strict=True):
        np.testing.assert_array_equal(kept, was)


@trunks
def test_start_from_a_run(config, tmp_path):
    first = untrained(FAMILY, config, tmp_path / "run")
    again = DilatedNet(config)
    again.start_from(str(tmp_path / "run"))
    for mine, theirs in zip(again.get_weights(), first.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    with pytest.raises(WeightsError, match="another network's"):
        DilatedNet(dataclasses.replace(config, head=5)).start_from(str(tmp_path / "run"))


def test_trunk_for_phones_from_its_package(tmp_path):
    arrays = write_lite(tmp_path / "lite.pth")
    config = dataclasses.replace(MOBILE, trunk="efficientnet_lite0", blocks=(), channels=(), crop=136)
    model = FAMILY.build(dataclasses.replace(config, pretrained=str(tmp_path / "lite.pth")))
    for name in ("stem", "block0_depthwise", "block15_project_bn"):
        for mine, expected in zip(model.front.get_layer(name).get_weights(), arrays[name], strict=True):
            np.testing.assert_array_equal(mine, expected)
    with pytest.raises(UsageError, match="published efficientnet_lite0"):
        FAMILY.build(dataclasses.replace(config, blocks=(1,) * 7, pretrained="auto"))


def test_start_from_nothing():
    with pytest.raises(UsageError, match="run folder"):
        DilatedNet(TINY_CONFIG).start_from("nowhere")
    for trunk, config in (("vgg16", TINY_CONFIG), ("mobilenet_v2", MOBILE)):
        with pytest.raises(UsageError, match=f"published {trunk} for its weights"):
            FAMILY.build(dataclasses.replace(config, pretrained="auto"))


# --- training data ----------------------------------------------------------------------------------------------------


@pytest.fixture
def folders(tmp_path):
    """Pictures whose red channel is ten times the label, so that a crop can be checked against its labels."""
    for number, size in enumerate(((30, 44), (52, 40), (20, 21))):
        labels = np.random.default_rng(number).integers(0, 4, size).astype("uint8")
        picture = np.stack([10 * labels] * 3, axis=-1)
        labels[3, 5] = 255
        write_image(tmp_path / "photos" / f"{number}.png", picture)
        write_label_map(tmp_path / "masks" / f"{number}.png", labels)
    write_image(tmp_path / "photos" / "without.png", np.zeros((5, 5, 3), "uint8"))
    return tmp_path


def test_picture_and_labels_are_cut_alike(folders):
    pairs = label_pairs(folders / "photos", folders / "masks")
    assert len(pairs) == 3
    sizes = set()
    for x, y in segmentation_crops(pairs, 24, 2, seed=1, margin=5).take(12).as_numpy_iterator():
        assert x.shape == (2, 34, 34, 3)
        inner, known = x[:, 5:-5, 5:-5, 0], y != 255
        np.testing.assert_array_equal(inner[known], 10 * y[known])
        sizes.add(known.sum())
        # Mirrored beyond the edge, where nothing is labeled.
        assert known.reshape(2, -1).any(-1).all()
    assert {2 * 24 * 24, 24 * 24 + 20 * 21 - 1} <= sizes, "the small picture has no labels beyond its edge"


def test_stream_starts_anywhere_and_scales(folders):
    pairs = label_pairs(folders / "photos", folders / "masks")
    arguments = {"seed": 3, "margin": 2, "scales": (0.5, 1.5), "ignore": (255, 3)}
    whole = list(segmentation_crops(pairs, 16, 2, **arguments).take(4).as_numpy_iterator())
    later = list(segmentation_crops(pairs, 16, 2, start=2, **arguments).take(2).as_numpy_iterator())
    for mine, expected in zip(later, whole[2:], strict=True):
        for a, b in zip(mine, expected, strict=True):
            np.testing.assert_array_equal(a, b)
    assert all(set(np.unique(y)) <= {0, 1, 2, 255} for _, y in whole)


def test_counts_and_weights(folders):
    pairs = label_pairs(folders / "photos", folders / "masks")
    counts = count_labels(pairs, 4)
    assert counts.sum() == 30 * 44 + 52 * 40 + 20 * 21 - 3
    assert class_weights(counts).min() > 0.8
    with pytest.raises(DataError, match=r"labels 0 to 2, or 255 .* Received: 3"):
        count_labels(pairs, 3)
    write_label_map(folders / "masks" / "0.png", np.zeros((9, 9), "uint8"))
    with pytest.raises(DataError, match=r"picture's size, 44 x 30 pixels\. Received: 9 x 9"):
        count_labels(pairs, 4)
    write_label_map(folders / "masks" / "9.png", np.zeros((9, 9), "uint8"))
    with pytest.raises(DataError, match="expected a picture 9"):
        label_pairs(folders / "photos", folders / "masks")


def test_one_class_everywhere_or_nothing_known(folders):
    """All label maps alike are refused; crops that happen to be train on."""
    pairs = label_pairs(folders / "photos", folders / "masks")
    for value in (1, 255):
        for number, size in enumerate(((30, 44), (52, 40), (20, 21))):
            write_label_map(folders / "masks" / f"{number}.png", np.full(size, value, "uint8"))
        config = dataclasses.replace(TINY_CONFIG, photos=folders / "photos", masks=folders / "masks")
        with pytest.raises(DataError, match=f"at least two labels .* Received: {value} on 100 %"):
            FAMILY.batches(config)
        model = FAMILY.build(config)
        model.run_eagerly = True  # two steps are sooner taken than compiled
        crops = segmentation_crops(pairs, config.crop - 2 * config.margin, config.batch, margin=config.margin)
        stream = crops.map(lambda photo, labels: (photo, labels[:, 4::8, 4::8]))
        history = model.fit(stream, steps_per_epoch=2, shuffle=False, verbose=0).history
        assert np.isfinite(history["loss"]).all()


# --- learning ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("batch_norm", ["frozen", "trained"])
@pytest.mark.parametrize("trains", ["all", "context"])
def test_what_is_frozen_stays(batch_norm, trains):
    model = FAMILY.build(dataclasses.replace(MOBILE, batch_norm=batch_norm, trains=trains))
    names, before = [w.path for w in model.weights], model.get_weights()
    random = np.random.default_rng(0)
    picture = random.uniform(0, 255, (2, 136, 136, 3)).astype("float32")
    model.run_eagerly = True  # one step is sooner taken than compiled
    model.fit(picture, random.integers(0, 3, (2, 8, 8)), verbose=0)
    moved = {n for n, a, b in zip(names, before, model.get_weights(), strict=True) if np.any(a != b)}
    kinds = {path.rpartition("/")[2] for path in moved}
    assert any(path.startswith("ctx_") for path in moved)
    assert any(path.startswith("stem/") for path in moved) == (trains == "all")
    statistics = {"gamma", "beta", "moving_mean", "moving_variance"}
    assert kinds & statistics == (statistics if (batch_norm, trains) == ("trained", "all") else set())


def test_compiled_as_the_paper_trains(tmp_path):
    """`compile` and `fit` of a model that nobody built: SGD with its rates, the loss of the pixels that count."""
    config = dataclasses.replace(TINY_CONFIG, **case_of("dilated_net").data(tmp_path), dropout=0.0)
    model = DilatedNet(config)
    model.compile()
    assert model.optimizer.factors == {"bias": 2.0}
    crops, labels = next(iter(FAMILY.batches(config)))
    logits = model(crops).numpy()
    counts = labels.numpy() != 255
    chosen = tf.nn.log_softmax(logits).numpy()[counts, labels.numpy()[counts]]
    history = model.fit(crops, labels, batch_size=2, verbose=0).history
    assert history.keys() == {"loss"}
    assert history["loss"][0] == pytest.approx(-chosen.mean(), rel=1e-4)
    model.compile("sgd", "mse", metrics=["accuracy"])
    assert type(model.optimizer) is keras.optimizers.SGD
    assert model.loss == "mse"


def test_what_begins_at_random_may_learn_faster():
    model = FAMILY.build(MOBILE)
    factors = {v.path: model.optimizer.factor(v.path) for v in model.trainable_variables}
    behind = {path: factor for path, factor in factors.items() if path.startswith(("fc", "final", "ctx_"))}
    assert set(behind.values()) == {10.0, 20.0}
    assert {path for path, factor in behind.items() if factor == 20} == {p for p in behind if p.endswith("bias")}
    assert {factor for path, factor in factors.items() if path not in behind} == {1.0}
    plain = FAMILY.build(TINY_CONFIG)
    assert {plain.optimizer.factor(v.path) for v in plain.trainable_variables} == {1.0, 2.0}


# --- run --------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("run")
    untrained(FAMILY, dataclasses.replace(TINY_CONFIG, **case_of("dilated_net").data(folder)), folder / "run")
    return folder / "run"


def test_run_writes_a_palette_picture(trained, tmp_path):
    source = write_image(tmp_path / "photo.jpg", photo(1, 45, 62))
    others = {"overlay": tmp_path / "overlay.jpg", "legend": tmp_path / "legend.png"}
    options = FAMILY.task.options(photo=source, out=tmp_path / "mask.png", run=trained, **others)
    report = FAMILY.task.run(options)
    labels = read_label_map(tmp_path / "mask.png")
    assert labels.shape == (45, 62)
    assert labels.max() < 3
    assert read_image(tmp_path / "overlay.jpg").shape == (45, 62, 3)
    assert report.facts["size"] == "62 x 45"
    assert any(name in report.facts["labels"] for name in TINY_CONFIG.names)
    assert read_image(tmp_path / "legend.png").shape[1] > 60


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"run": None}, UsageError, "one of --preset NAME and --run"),
        ({"preset": "streets"}, UsageError, "one of --preset"),
        ({"out": "mask.jpg"}, UsageError, r"ending in \.png"),
        ({"out": "photo.png"}, UsageError, "no input is overwritten"),
        ({"overlay": "mask.png"}, UsageError, "a name of its own"),
        ({"run": "nowhere"}, UsageError, "expected a run folder"),
        ({"photo": "missing.png"}, DataError, "no picture at"),
        ({"tile": 100}, UsageError, "tiles of at least"),
    ],
)
def test_mistakes(trained, tmp_path, change, error, message):
    write_image(tmp_path / "photo.png", photo(1, 20, 30))
    given = {"photo": "photo.png", "out": "mask.png", "run": trained, **change}
    paths = ("photo", "out", "overlay")
    options = {k: tmp_path / v if k in paths or v == "nowhere" else v for k, v in given.items()}
    with pytest.raises(error, match=message):
        FAMILY.task.run(FAMILY.task.options(**options))
    assert [p.name for p in tmp_path.iterdir()] == ["photo.png"]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"crop": 501}, "such as 500"),
        ({"trains": "context"}, "a context module to train"),
        ({"context": "basic"}, "no context module while"),
        ({"blocks": [1, 1]}, "5 numbers of blocks"),
        ({"blocks": [1, 1, 1, 1, 0]}, r"blocks\[4\] > 0"),
        ({"rates": [0]}, r"rates\[0\] > 0"),
        ({"trunk": "resnet"}, "trunk: 'vgg16', "),
        ({"trunk": "mobilenet_v2", "blocks": [2, 2, 3, 3, 3]}, "7 numbers of blocks"),
        ({"trunk": "mobilenet_v2", "channels": [8] * 7}, "8 numbers of channels"),
        ({"trunk": "mobilenet_v2", "head_kernel": 3, "crop": 322}, "such as 200"),
        ({"context": "large", "trains": "all", "rates": [1, 2]}, "7 rates for a large module"),
        ({"head_rate": 0.0}, "head_rate > 0"),
        ({"batch_norm": "none"}, "batch_norm: 'frozen' or "),
        ({"names": ["sky"]}, "21 names"),
        ({"crf_radius": 0}, "crf_radius > 0"),
        ({"schedule": "cosine"}, "schedule: 'constant', "),
        ({"clip": 0.0}, "clip > 0"),
    ],
)
def test_config_out_of_range(values, message):
    with pytest.raises(UsageError, match=message):
        FAMILY.config.from_dict(values)


def test_schedules():
    for schedule, at in (("constant", 1e-3), ("step", 1e-4), ("poly", 1e-3 * 0.5**0.9)):
        config = dataclasses.replace(TINY_CONFIG, schedule=schedule, steps=20, step_every=10, learning_rate=1e-3)
        optimizer = FAMILY.build(config).optimizer
        optimizer.iterations.assign(10)
        assert float(optimizer.learning_rate) == pytest.approx(at, rel=1e-5)
    with pytest.raises(UsageError, match="--photos DIR --masks DIR"):
        FAMILY.batches(TINY_CONFIG)


def test_a_trunk_for_phones_leaves_the_building(tmp_path):
    config = dataclasses.replace(MOBILE, trunk="efficientnet_lite0", blocks=(1,) * 7, channels=(4,) + (2,) * 7)
    served, formats = FAMILY.servables(decided(config))["segment"], ["litert", "onnx"]
    report = export.export_servable(served, "segment", tmp_path, formats=formats, size={"height": 13, "width": 18})
    assert [(a.format, a.verified) for a in report.artifacts] == [(form, True) for form in formats]


def test_front_end_pads_nothing():
    config = dataclasses.replace(TINY_CONFIG, dropout=0.0)
    front = front_end(config)
    x = np.random.default_rng(0).uniform(0, 255, (1, config.crop + 16, config.crop + 16, 3)).astype("float32")
    whole, part = front(x), front(x[:, 8:-8, 16:])
    np.testing.assert_allclose(part, whole[:, 1:-1, 2:], atol=1e-5)
