"""Writes deeplab_torch.npz: python tests/models/deeplab_torch.py, where PyTorch is installed.

A small DeepLab v2 with ResNet's trunk, written from the paper, with the names of kazuto1011/deeplab-pytorch's state
dict; random weights and statistics, its answer to a random picture, and the file that `torch.save` makes of it, in the
zip format with that project's present names, and in that of before 1.6 with its older ones.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn

BLOCKS, WIDTH, CLASSES, RATES = (1, 2, 1, 1), 2, 5, (1, 2)


class Unit(nn.Sequential):
    """Convolution and batch normalization; ReLU where it is called."""

    def __init__(self, before, after, kernel, stride=1, rate=1):
        super().__init__()
        pad = rate * (kernel - 1) // 2
        self.add_module("conv", nn.Conv2d(before, after, kernel, stride, pad, rate, bias=False))
        self.add_module("bn", nn.BatchNorm2d(after, eps=1e-5))


class Bottleneck(nn.Module):
    def __init__(self, before, inner, stride, rate, projects):
        super().__init__()
        self.reduce = Unit(before, inner, 1, stride)
        self.conv3x3 = Unit(inner, inner, 3, rate=rate)
        self.increase = Unit(inner, 4 * inner, 1)
        self.shortcut = Unit(before, 4 * inner, 1, stride) if projects else nn.Identity()

    def forward(self, x):
        y = self.increase(torch.relu(self.conv3x3(torch.relu(self.reduce(x)))))
        return torch.relu(y + self.shortcut(x))


class DeepLab(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential()
        self.layer1.add_module("conv1", Unit(3, WIDTH, 7, 2))
        before = WIDTH
        for stage, (count, stride, rate) in enumerate(zip(BLOCKS, (1, 2, 1, 1), (1, 1, 2, 4), strict=True)):
            inner, layer = WIDTH * 2**stage, nn.Sequential()
            for i in range(count):
                layer.add_module(f"block{i + 1}", Bottleneck(before, inner, stride if i == 0 else 1, rate, i == 0))
                before = 4 * inner
            self.add_module(f"layer{stage + 2}", layer)
        self.aspp = nn.Module()
        for i, rate in enumerate(RATES):
            self.aspp.add_module(f"c{i}", nn.Conv2d(before, CLASSES, 3, 1, rate, rate))

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.layer1(x)), 3, 2, 1, ceil_mode=True)
        for stage in range(2, 6):
            x = getattr(self, f"layer{stage}")(x)
        return sum(branch(x) for branch in self.aspp.children())


torch.manual_seed(0)
network = DeepLab().eval()
for module in network.modules():
    if isinstance(module, nn.BatchNorm2d):
        for name, low, high in (
            ("weight", 0.5, 1.5),
            ("bias", -0.5, 0.5),
            ("running_mean", -1, 1),
            ("running_var", 0.5, 2),
        ):
            getattr(module, name).data.uniform_(low, high)
picture = torch.randint(0, 256, (1, 3, 65, 49)).float()
mean = torch.tensor([104.008, 116.669, 122.675]).reshape(1, 3, 1, 1)
bgr = picture.flip(1) - mean
arrays = {"picture": picture.numpy().astype("uint8"), "answer": network(bgr).detach().numpy()}
state = network.state_dict()
names = {
    "zip": lambda key: f"base.{key}",
    "stream": lambda key: "scale." + key.replace("shortcut.", "proj.").replace("aspp.", "aspp.stages."),
}
for name, renamed in names.items():
    file = io.BytesIO()
    saved = {renamed(key): value for key, value in state.items()}
    torch.save(saved, file, _use_new_zipfile_serialization=name == "zip")
    arrays[name] = np.frombuffer(file.getvalue(), "uint8")
np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)
