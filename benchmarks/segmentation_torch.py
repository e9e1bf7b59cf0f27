"""PyTorch's side of the benchmark of segmentation networks, as a worker of `interleaved`; written from the papers."""

from pathlib import Path

import numpy as np
import torch
from interleaved import Job, Prepared, megabytes, serve
from torch import nn
from torch.nn import functional

BLOCKS = (2, 2, 3, 3, 3)


def prepare(job: Job) -> Prepared:
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    empty = megabytes("VmRSS")
    with np.load(folder / "weights.npz") as file:
        net = Network(job["network"], {name: file[name] for name in file.files}).eval()
    picture = torch.from_numpy(np.load(folder / "picture.npy")).permute(0, 3, 1, 2).contiguous()

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return net(picture)

    answer = call()
    facts = {"check": float(answer.abs().mean()), "peak_mb": round(megabytes("VmHWM") - empty, 1)}
    return call, {**facts, "versions": {"torch": torch.__version__}}


class Network(nn.Module):
    """VGG16 with holes: LargeFOV pads its convolutions and pools 3 x 3, the dilated front end pads nothing."""

    def __init__(self, kind, arrays):
        super().__init__()
        self.padded = kind == "large_fov"
        mean = (122.675, 116.669, 104.008) if self.padded else (116.52, 111.36, 102.93)
        self.register_buffer("mean", torch.tensor(mean).reshape(1, 3, 1, 1))
        head = [f"aspp/rate12_{i}" for i in (1, 2, 3)] if self.padded else ["fc6", "fc7", "final"]
        self.trunk, self.poolings = nn.ModuleList(), set()
        for block, count in enumerate(BLOCKS, 1):
            for i in range(1, count + 1):
                self.trunk.append(self._layer(arrays, f"conv{block}_{i}", 2 if block == 5 else 1))
            self.poolings.add(len(self.trunk))
        self.head = nn.ModuleList([self._layer(arrays, head[0], 12 if self.padded else 4)])
        self.head.extend(self._layer(arrays, name, 1) for name in head[1:])

    def _layer(self, arrays, name, rate):
        kernel = torch.from_numpy(arrays[f"{name}/kernel"].transpose(3, 2, 0, 1).copy())
        pad = rate * (kernel.shape[2] - 1) // 2 if self.padded else 0
        layer = nn.Conv2d(kernel.shape[1], kernel.shape[0], kernel.shape[2], padding=pad, dilation=rate)
        layer.weight.data, layer.bias.data = kernel, torch.from_numpy(arrays[f"{name}/bias"])
        return layer

    def forward(self, x):
        x, pooled = x - self.mean, 0
        for number, layer in enumerate(self.trunk, 1):
            x = functional.relu(layer(x), inplace=True)
            if number in self.poolings:
                pooled += 1
                if self.padded:
                    x = functional.max_pool2d(x, 3, 2 if pooled <= 3 else 1, 1)
                elif pooled <= 3:
                    x = functional.max_pool2d(x, 2)
        for layer in self.head[:-1]:
            x = functional.relu(layer(x), inplace=True)
        return self.head[-1](x)


if __name__ == "__main__":
    serve(prepare)
