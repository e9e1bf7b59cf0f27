"""VGG: what the taps are, that they are what the paper's network computes, and that pictures go in as RGB 0-255."""

import json
import re

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.backbones import VGG16, VGG19, sources
from kerasmodels.errors import UsageError, WeightsError

# Keras 3.15 reads its variables in a way that NumPy 2.4 dislikes whenever it saves a model.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation doesn't accept a copy:DeprecationWarning")


@pytest.fixture(autouse=True)
def empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path / "home"))


@pytest.fixture
def tiny(monkeypatch):
    """Three blocks of a few filters under the name of VGG16, and weights for it that keep features alive."""
    monkeypatch.setitem(sources.NETWORKS, "vgg16", (sources.Block(4, 2), sources.Block(6, 1), sources.Block(5, 2)))
    random = np.random.default_rng(3)
    return {
        key: random.normal(0, (2 / (9 * shape[2])) ** 0.5 if len(shape) == 4 else 0.1, shape).astype("float32")
        for key, shape in sources.shapes("vgg16").items()
    }


def save_torchvision(path, arrays, **more):
    """An .npz with the keys block1_conv1_kernel ..."""
    named = {re.sub(r"conv(\d)_(\d)/", r"block\1_conv\2_", key): value for key, value in arrays.items()}
    np.savez(path, **named, **more)
    return path


def save_h5(path, arrays):
    """Keras' own .weights.h5 of layers block1_conv1 ..."""
    model = keras.Sequential([keras.Input((None, None, 3))])
    for key, kernel in arrays.items():
        if key.endswith("/kernel"):
            name = re.sub(r"conv(\d)_(\d)/kernel", r"block\1_conv\2", key)
            layer = keras.layers.Conv2D(kernel.shape[3], 3, name=name)
            model.add(layer)
            layer.set_weights([kernel, arrays[key.replace("kernel", "bias")]])
    model.save_weights(path)
    return path


def pictures(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("float32")


def reference(x, arrays, network, padding="zeros", ceil=False, average=False):
    """Every tap, in float64 NumPy: x (N, H, W, 3) is already what conv1_1 takes."""
    taps = {}
    x = x.astype("float64")
    for b, block in enumerate(sources.NETWORKS[network], 1):
        for i in range(1, block.convolutions + 1):
            mode = {"zeros": "constant", "reflect": "reflect"}[padding]
            padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), mode)
            windows = np.lib.stride_tricks.sliding_window_view(padded, (3, 3), axis=(1, 2))
            x = np.einsum("nhwcij,ijco->nhwo", windows, arrays[f"conv{b}_{i}/kernel"], optimize=True)
            taps[f"conv{b}_{i}"] = x = x + arrays[f"conv{b}_{i}/bias"]
            taps[f"relu{b}_{i}"] = x = np.maximum(x, 0)
        n, h, w, c = x.shape
        if ceil:
            x = np.pad(x, ((0, 0), (0, h % 2), (0, w % 2), (0, 0)), constant_values=np.nan)
        else:
            x = x[:, : h // 2 * 2, : w // 2 * 2]
        cells = x.reshape(n, x.shape[1] // 2, 2, x.shape[2] // 2, 2, c)
        taps[f"pool{b}"] = x = np.nanmean(cells, (2, 4)) if average else np.nanmax(cells, (2, 4))
    return taps


def test_parameter_counts():
    assert VGG16(["pool5"], weights=None).count_params() == 14_714_688
    assert VGG19(["pool5"], weights=None).count_params() == 20_024_384
    assert VGG16(["relu1_2"], weights=None).count_params() == 38_720, "only the layers up to the deepest tap"


def test_tap_shapes_in_the_order_asked_for():
    taps = ["relu3_3", "conv1_1", "pool4", "relu4_3", "pool1"]
    features = VGG16(taps, weights=None)(pictures(2, 64, 48, 3))
    assert list(features) == taps
    assert {tap: tuple(f.shape) for tap, f in features.items()} == {
        "conv1_1": (2, 64, 48, 64),
        "pool1": (2, 32, 24, 64),
        "relu3_3": (2, 16, 12, 256),
        "relu4_3": (2, 8, 6, 512),
        "pool4": (2, 4, 3, 512),
    }
    assert VGG19("relu5_4", weights=None).output["relu5_4"].shape == (None, None, None, 512)


def test_every_convolution_is_computed_once_for_all_taps(tiny):
    taps = ["conv1_1", "relu1_1", "relu1_2", "pool1", "relu2_1", "conv3_2", "relu3_2"]
    model = VGG16(taps, weights=None)
    graph = tf.function(model).get_concrete_function(tf.TensorSpec((1, 32, 32, 3))).graph
    called = [op for op in graph.get_operations() if op.type == "Conv2D"]
    assert len(called) == 5
    assert sum(isinstance(layer, keras.layers.Conv2D) for layer in model.layers) == 5


def test_the_graph_ends_at_the_deepest_tap(tiny):
    assert [layer.name for layer in VGG16(["pool1", "relu1_1"], weights=None, preprocess=False).layers] == [
        "rgb",
        "conv1_1",
        "relu1_1",
        "conv1_2",
        "relu1_2",
        "pool1",
    ]


def test_it_is_frozen_but_lets_gradients_through_to_the_picture(tiny):
    model = VGG16(["relu3_2"], weights=None)
    assert model.trainable_variables == []
    x = tf.constant(pictures(1, 16, 16, 3))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = tf.reduce_sum(model(x)["relu3_2"] ** 2)
    assert np.abs(tape.gradient(y, x)).max() > 0


def test_building_it_leaves_the_random_stream_alone():
    keras.utils.set_random_seed(5)
    expected = np.array(keras.random.normal((3,)))
    keras.utils.set_random_seed(5)
    VGG16(["relu1_2"], weights=None)
    np.testing.assert_array_equal(keras.random.normal((3,)), expected)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"taps": ["relu3_4"]}, r"unknown tap of vgg16 'relu3_4'. Did you mean 'relu3_\d'"),
        ({"taps": []}, "at least one tap"),
        ({"pooling": "average"}, "unknown pooling 'average'. Did you mean 'avg'"),
        ({"weights": "torchvison"}, "Did you mean 'torchvision'"),
        ({"weights": "normalized"}, "weights for vgg19, not for vgg16"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(UsageError, match=message):
        VGG16(**{"weights": None, **arguments})


@pytest.mark.parametrize("pooling", ["max", "avg"])
@pytest.mark.parametrize("size", [(16, 16), (13, 19)])
def test_torchvision_weights_equal_the_reference(tiny, tmp_path, pooling, size):
    file = save_torchvision(tmp_path / "own.npz", tiny, lpips_lin0=np.zeros(4))
    rgb = pictures(2, *size, 3)
    normalized = (rgb / 255 - [0.485, 0.456, 0.406]) / [0.229, 0.224, 0.225]
    expected = reference(normalized, tiny, "vgg16", average=pooling == "avg")
    features = VGG16(tuple(expected), weights=file, pooling=pooling)(rgb)
    for tap, values in expected.items():
        np.testing.assert_allclose(features[tap], values, rtol=1e-4, atol=1e-5, err_msg=tap)


def test_keras_weights_equal_the_reference(tiny, tmp_path):
    file = save_h5(tmp_path / "own.weights.h5", tiny)
    rgb = pictures(1, 12, 10, 3)
    expected = reference(rgb[..., ::-1] - [103.939, 116.779, 123.68], tiny, "vgg16")
    features = VGG16(tuple(expected), weights=file)(rgb)
    for tap, values in expected.items():
        np.testing.assert_allclose(features[tap], values, rtol=1e-4, atol=1e-3, err_msg=tap)


def test_both_conventions_of_one_network_agree(tiny, tmp_path):
    """conv1_1 rewritten from torchvision's input to Caffe's: equal but where the padding shows."""
    mean, std = 255 * np.array([0.485, 0.456, 0.406]), 255 * np.array([0.229, 0.224, 0.225])
    shift = (np.array([123.68, 116.779, 103.939]) - mean) / std
    kernel = tiny["conv1_1/kernel"].astype("float64")
    caffe = {
        **tiny,
        "conv1_1/kernel": (kernel / std[:, None])[:, :, ::-1],
        "conv1_1/bias": tiny["conv1_1/bias"] + np.einsum("ijco,c->o", kernel, shift),
    }
    rgb = pictures(1, 32, 32, 3)
    ours = VGG16(["relu2_1"], weights=save_torchvision(tmp_path / "t.npz", tiny))(rgb)["relu2_1"]
    theirs = VGG16(["relu2_1"], weights=save_h5(tmp_path / "c.weights.h5", caffe))(rgb)["relu2_1"]
    np.testing.assert_allclose(ours[:, 2:-2, 2:-2], theirs[:, 2:-2, 2:-2], rtol=1e-3, atol=1e-4)
    assert np.abs(ours - theirs).max() > 0.01, "at the border they may not agree: zero means another color"


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_normalized_weights_reflect_at_the_border_and_round_pooling_up(tiny, tmp_path, pooling):
    bgr_kernel = 255 * np.eye(3)[::-1].reshape(1, 1, 3, 3)
    bgr_bias = -np.array([103.939, 116.779, 123.68])
    file = save_torchvision(tmp_path / "n.npz", tiny, preprocess_kernel=bgr_kernel, preprocess_bias=bgr_bias)
    rgb = pictures(1, 13, 11, 3)
    expected = reference(
        rgb[..., ::-1] + bgr_bias, tiny, "vgg16", padding="reflect", ceil=True, average=pooling == "avg"
    )
    features = VGG16(tuple(expected), weights=file, pooling=pooling)(rgb)
    assert features["pool1"].shape == (1, 7, 6, 4)
    for tap, values in expected.items():
        np.testing.assert_allclose(features[tap], values, rtol=1e-4, atol=1e-3, err_msg=tap)


def test_any_size_of_picture(tiny):
    model = VGG16(["pool3", "relu1_1"], weights=None)
    for height, width in [(8, 8), (9, 31), (40, 17)]:
        features = model(pictures(1, height, width, 3))
        assert features["pool3"].shape == (1, height // 8, width // 8, 5)
        assert np.isfinite(features["pool3"]).all()


@pytest.mark.parametrize("dtype", ["bfloat16", "mixed_bfloat16"])
@pytest.mark.parametrize("reflect", [False, True])
def test_bfloat16_is_close_to_float32(tiny, tmp_path, dtype, reflect):
    more = {}
    if reflect:
        more["preprocess_kernel"] = 255 * np.eye(3)[::-1].reshape(1, 1, 3, 3)
        more["preprocess_bias"] = -np.array([103.939, 116.779, 123.68])
    file = save_torchvision(tmp_path / "own.npz", tiny, **more)
    taps = ["relu1_2", "pool2", "relu3_2"]
    x = tf.constant(pictures(1, 32, 32, 3))
    results = {}
    for policy in ("float32", dtype):
        model = VGG16(taps, weights=file, dtype=policy)
        with tf.GradientTape() as tape:
            tape.watch(x)
            features = model(x)
            loss = sum(tf.reduce_mean(tf.cast(f, "float32") ** 2) for f in features.values())
        results[policy] = (features, tape.gradient(loss, x))
    for tap in taps:
        exact, rounded = results["float32"][0][tap], results[dtype][0][tap]
        assert rounded.dtype == tf.bfloat16
        assert np.linalg.norm(tf.cast(rounded, "float32") - exact) < 0.02 * np.linalg.norm(exact), tap
    exact, rounded = results["float32"][1], results[dtype][1]
    assert np.linalg.norm(rounded - exact) < 0.1 * np.linalg.norm(exact)


def test_missing_weights_come_with_the_commands_to_get_them():
    with pytest.raises(WeightsError) as error:
        VGG16()
    assert "kerasmodels weights vgg16 --from torchvision " in str(error.value)
    assert "kerasmodels weights vgg16 --from keras " in str(error.value)
    assert "--from normalized" not in str(error.value), "it has VGG19 only"
    with pytest.raises(WeightsError, match="kerasmodels weights vgg19 --from normalized "):
        VGG19(weights="normalized")


def test_equals_keras_applications(tmp_path):
    """The same weights in Keras' own VGG16, with Keras' own preprocessing."""
    theirs = keras.applications.VGG16(weights=None, include_top=False)
    theirs.save_weights(tmp_path / "theirs.weights.h5")
    rgb = pictures(1, 40, 56, 3)
    names = {"relu1_1": "block1_conv1", "relu3_3": "block3_conv3", "pool4": "block4_pool", "relu5_1": "block5_conv1"}
    inside = keras.Model(theirs.input, {tap: theirs.get_layer(name).output for tap, name in names.items()})
    expected = inside(keras.applications.vgg16.preprocess_input(rgb.copy()))
    features = VGG16(tuple(names), weights=tmp_path / "theirs.weights.h5")(rgb)
    for tap in names:
        assert np.abs(expected[tap]).max() > 0
        np.testing.assert_allclose(features[tap], expected[tap], rtol=1e-3, atol=1e-4, err_msg=tap)


def test_real_weights_give_the_published_statistics(shared_data):
    """Minimum, maximum and norm of every layer, computed by another library, for one picture."""
    stats = json.loads((shared_data / "vgg" / "vgg16_torchvision_reference_stats.json").read_text())["layers"]
    with np.load(shared_data / "vgg" / "vgg16_torchvision_reference_input.npz") as archive:
        x = archive["image_nhwc"]
    file = shared_data / "vgg" / "vgg16_torchvision_conv.npz"
    features = VGG16(tuple(stats), weights=file, preprocess=False)(x)
    assert len(stats) == 31
    for layer, expected in stats.items():
        values = np.asarray(features[layer], "float64")
        ours = [values.min(), values.max(), np.linalg.norm(values)]
        # Three digits were published: half a unit of the third, and a little for sums in another order.
        np.testing.assert_allclose(ours, expected, rtol=0.0055, err_msg=layer)
