"""Writes cyclegan_torch.npz: python tests/models/cyclegan_torch.py, where PyTorch is installed.

A small generator laid out as the authors' `ResnetGenerator`, with random weights, its answer to a random picture, and
the file that `torch.save` makes of it, in the zip format and in that of before 1.6.
"""

import io
from pathlib import Path

import numpy as np
import torch
from torch import nn


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        norm = nn.InstanceNorm2d
        first, second = (nn.Conv2d(width, width, 3) for _ in range(2))
        pads = [nn.ReflectionPad2d(1) for _ in range(2)]
        self.conv_block = nn.Sequential(pads[0], first, norm(width), nn.ReLU(), pads[1], second, norm(width))

    def forward(self, x):
        return x + self.conv_block(x)


class Generator(nn.Module):
    def __init__(self, width, blocks):
        super().__init__()
        layers = [nn.ReflectionPad2d(3), nn.Conv2d(3, width, 7), nn.InstanceNorm2d(width), nn.ReLU()]
        for n in (width, 2 * width):
            layers += [nn.Conv2d(n, 2 * n, 3, 2, 1), nn.InstanceNorm2d(2 * n), nn.ReLU()]
        layers += [Block(4 * width) for _ in range(blocks)]
        for n in (4 * width, 2 * width):
            layers += [nn.ConvTranspose2d(n, n // 2, 3, 2, 1, 1), nn.InstanceNorm2d(n // 2), nn.ReLU()]
        self.model = nn.Sequential(*layers, nn.ReflectionPad2d(3), nn.Conv2d(width, 3, 7), nn.Tanh())

    def forward(self, x):
        return self.model(x)


torch.manual_seed(0)
network = Generator(3, 2).eval()
picture = torch.rand(1, 3, 20, 24) * 2 - 1
arrays = {"picture": picture.numpy(), "answer": network(picture).detach().numpy()}
for name, zipped in (("zip", True), ("stream", False)):
    file = io.BytesIO()
    torch.save(network.state_dict(), file, _use_new_zipfile_serialization=zipped)
    arrays[name] = np.frombuffer(file.getvalue(), "uint8")
np.savez_compressed(Path(__file__).with_suffix(".npz"), **arrays)
