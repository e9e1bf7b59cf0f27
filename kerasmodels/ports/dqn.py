"""Nature's network as Stable-Baselines3 and CleanRL train it in PyTorch."""

import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from kerasmodels.backbones.torch_file import convolution_kernel, read_torch, tensor
from kerasmodels.errors import WeightsError
from kerasmodels.models.dqn import DQN
from kerasmodels.ports.trunks import assign
from kerasmodels.reading import zip_members

_LAYERS = {
    "Stable-Baselines3": {
        "conv1": "q_net.features_extractor.cnn.0",
        "conv2": "q_net.features_extractor.cnn.2",
        "conv3": "q_net.features_extractor.cnn.4",
        "hidden": "q_net.features_extractor.linear.0",
        "values": "q_net.q_net.0",
    },
    "CleanRL": {
        "conv1": "network.0",
        "conv2": "network.2",
        "conv3": "network.4",
        "hidden": "network.7",
        "values": "network.9",
    },
}


def from_torch(path: str | Path, game: str) -> DQN:
    """The model with a network that Stable-Baselines3 or CleanRL has trained, in PyTorch.

    Args:
        path: a .zip of `DQN.save` with CnnPolicy, or its policy.pth (Stable-Baselines3); or the state dict of
            `QNetwork` in dqn_atari.py (CleanRL).
        game: what it plays, by the name of the ROM.

    Raises:
        WeightsError: the file cannot be read, is of another network, or has another number of actions than the game.
        UsageError: no such game.

    Example:
        >>> import kerasmodels as km
        >>> km.ports.dqn.from_torch("missing.zip", "pong")
        Traceback (most recent call last):
        ...
        kerasmodels.errors.WeightsError: cannot read missing.zip: No such file or directory.
    """
    state = _state(Path(path))
    layers = next((names for names in _LAYERS.values() if f"{names['conv1']}.weight" in state), None)
    if layers is None:
        raise WeightsError(
            f"expected Nature's network of {' or '.join(_LAYERS)}. Received: {path} with {', '.join([*state][:4])} ..."
        )
    config = DQN.Config(game=game, network="nature", stack=4, target_every=0)
    model = DQN(config)
    found = {}
    for ours, theirs in layers.items():
        weight = tensor(state, f"{theirs}.weight", path)
        if ours == "hidden" and weight.shape == (512, 3136):
            # Theirs flattens maps (64, 7, 7), ours (7, 7, 64).
            weight = weight.reshape(512, 64, 7, 7).transpose(0, 2, 3, 1).reshape(512, 3136)
        kernel = convolution_kernel(weight) if weight.ndim == 4 else weight.T
        found[ours] = [kernel, tensor(state, f"{theirs}.bias", path)]
    actions = model.network.output_shape[-1]
    if len(found["values"][1]) != actions:
        raise WeightsError(
            f"expected the {actions} actions of {game}. Received: {path}, a network with {len(found['values'][1])}. "
            "Name the game that it was trained on."
        )
    assign(model.network, found, path)
    return model


def _state(path: Path) -> Mapping[str, np.ndarray]:
    """The state dict in a file, or in the policy.pth of an archive of Stable-Baselines3."""
    try:
        with open(path, "rb") as file:
            policy = zip_members(path, "policy.pth".__eq__) if zipfile.is_zipfile(file) else {}
    except OSError as error:
        raise WeightsError(f"cannot read {path}: {error.strerror or error}.") from error
    except ValueError as error:
        raise WeightsError(f"{path} is damaged ({error}).") from error
    if not policy:
        return read_torch(path)
    with tempfile.NamedTemporaryFile(suffix=".pth") as extracted:
        extracted.write(policy["policy.pth"])
        extracted.flush()
        return read_torch(extracted.name)
