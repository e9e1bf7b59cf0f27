"""Whole networks of the PyTorch port of DeepLab v2 (kazuto1011/deeplab-pytorch)."""

from pathlib import Path
from typing import Any

import keras

from kerasmodels.backbones.torch_file import convolution_kernel, normalization, read_torch, tensor
from kerasmodels.errors import UsageError, WeightsError
from kerasmodels.ports.trunks import Arrays, assign


def load_port(network: keras.Model, config: Any, path: Path) -> None:
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
    found: Arrays = {"conv1": [convolution_kernel(tensor(state, "layer1.conv1.conv.weight", path))[:, :, ::-1]]}
    found["conv1_bn"] = normalization(state, "layer1.conv1.bn", path)
    for stage, count in enumerate(config.stages, 2):
        for block in range(1, count + 1):
            for part, theirs in (("reduce",) * 2, ("3x3", "conv3x3"), ("increase",) * 2, ("shortcut",) * 2):
                if part == "shortcut" and block > 1:
                    continue
                ours, key = f"conv{stage}_{block}_{part}", f"layer{stage}.block{block}.{theirs}"
                found[ours] = [convolution_kernel(tensor(state, f"{key}.conv.weight", path))]
                found[f"{ours}_bn"] = normalization(state, f"{key}.bn", path)
    branches = {int(key.split(".")[1][1:]) for key in state if key.startswith("aspp.c")}
    if branches != set(range(len(config.rates))):
        raise WeightsError(
            f"expected {len(config.rates)} branches, one for each of the rates {config.rates}, in {path}. "
            f"Received: {len(branches)}."
        )
    found["aspp"] = []
    for branch in range(len(config.rates)):
        found["aspp"] += [
            convolution_kernel(tensor(state, f"aspp.c{branch}.weight", path)),
            state[f"aspp.c{branch}.bias"],
        ]
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


def _known(config: Any) -> set[str]:
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
