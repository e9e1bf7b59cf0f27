"""Generators that the authors' PyTorch code of CycleGAN has trained."""

from collections.abc import Mapping
from pathlib import Path

import keras
import numpy as np

from kerasmodels.backbones.torch_file import read_torch
from kerasmodels.errors import WeightsError
from kerasmodels.models.cyclegan import CycleGAN

_FIRST = "model.1.weight"


def from_torch(a_to_b: str | Path, b_to_a: str | Path | None = None) -> CycleGAN:
    """The model with generators that the authors' PyTorch code has trained.

    Args:
        a_to_b: a file such as latest_net_G_A.pth, or latest_net_G.pth of one of their models: a generator with instance
            normalization, of any width and number of blocks, with dropout or without; its names may have a beginning
            in common, such as the "module." of several GPUs.
        b_to_a: that of the other direction; left out, it keeps random weights.

    Raises:
        WeightsError: a file cannot be read, or is of another network.

    Example:
        >>> import kerasmodels as km
        >>> km.ports.cyclegan.from_torch("missing.pth")
        Traceback (most recent call last):
        ...
        kerasmodels.errors.WeightsError: cannot read missing.pth: No such file or directory.

    Reference:
        `ResnetGenerator` in models/networks.py of junyanz/pytorch-CycleGAN-and-pix2pix.
    """
    files = {"a_to_b": a_to_b, **({"b_to_a": b_to_a} if b_to_a is not None else {})}
    generators = {direction: _generator(read_torch(path), path) for direction, path in files.items()}
    shapes = {(len(arrays["model.1.bias"]), _blocks(arrays)) for arrays in generators.values()}
    if len(shapes) != 1:
        raise WeightsError(f"expected generators of one width and number of blocks. Received: {sorted(shapes)}.")
    ((filters, blocks),) = shapes
    model = CycleGAN(CycleGAN.Config(filters=filters, blocks=blocks))
    for direction, arrays in generators.items():
        _assign(getattr(model, direction), arrays, files[direction])
    return model


def _generator(arrays: Mapping[str, np.ndarray], path: str | Path) -> dict[str, np.ndarray]:
    """The arrays by the names that the authors' code has on one device."""
    beginnings = [name.removesuffix(_FIRST) for name in arrays if f".{name}".endswith(f".{_FIRST}")]
    if len(beginnings) == 1:
        start = beginnings[0]
        found = {name.removeprefix(start): value for name, value in arrays.items() if name.startswith(start)}
        filters, *others = found[_FIRST].shape
        if filters > 0 and others == [3, 7, 7] and found.get("model.1.bias", np.zeros(0)).shape == (filters,):
            return found
    raise WeightsError(f"expected a generator of CycleGAN. Received: {path} with {[*arrays][:4]} ...")


def _blocks(arrays: Mapping[str, np.ndarray]) -> int:
    return len({name.split(".")[1] for name in arrays if ".conv_block." in name})


def _assign(network: keras.Model, arrays: Mapping[str, np.ndarray], path: str | Path) -> None:
    """Torch numbers all layers of its list, paddings and activations among them."""
    name, blocks = network.name, _blocks(arrays)
    numbers = {"first": 1, "down1": 4, "down2": 7, "up1": 10 + blocks, "up2": 13 + blocks, "last": 17 + blocks}
    places = {f"model.{number}": network.get_layer(f"{name}_{label}") for label, number in numbers.items()}
    for i in range(blocks):
        block, start = network.get_layer(f"{name}_block{i + 1}"), f"model.{10 + i}.conv_block"
        # Dropout is one layer more between the two convolutions.
        second = 6 if f"{start}.6.weight" in arrays else 5
        places |= {f"{start}.1": block.conv1, f"{start}.{second}": block.conv2}
    for place, layer in places.items():
        for key, variable in (("weight", layer.kernel), ("bias", layer.bias)):
            value = arrays.get(f"{place}.{key}")
            if value is not None and key == "weight" and value.ndim == 4:
                # Torch: (filters, channels, rows, columns); for transposed ones (channels, filters, rows, columns).
                value = value.transpose(2, 3, 1, 0)
            if value is None or value.shape != tuple(variable.shape):
                raise WeightsError(
                    f"expected {place}.{key} for {tuple(variable.shape)} in {path}. "
                    f"Received: {None if value is None else value.shape}. Other generators cannot be read."
                )
            variable.assign(value)
    unread = [key for key in arrays if key.endswith((".weight", ".bias")) and key.rpartition(".")[0] not in places]
    if unread:
        raise WeightsError(
            f"expected convolutions alone in {path}, and normalization without weights. Received: {', '.join(unread)}. "
            "Other generators cannot be read."
        )
