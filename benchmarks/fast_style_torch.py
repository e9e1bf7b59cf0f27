"""The peer, in an environment with PyTorch: the network of its examples' fast_neural_style, and a training step of it.

Written anew after the architecture: reflection padding before every convolution, 9x9x32, 3x3x64 and 3x3x128 with
stride 2, five residual blocks, two times nearest upsampling and 3x3, 9x9x3; affine instance normalization.
Run as a worker of `interleaved`; jobs: export, eager, compiled, train.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from interleaved import Job, Prepared, serve
from torch import nn
from torch.nn import functional

# --- network ----------------------------------------------------------------------------------------------------------


class Convolution(nn.Module):
    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, enlarge: int = 1):
        super().__init__()
        self.enlarge = enlarge
        self.pad = nn.ReflectionPad2d(kernel // 2)
        self.convolution = nn.Conv2d(inputs, outputs, kernel, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.enlarge > 1:
            x = functional.interpolate(x, scale_factor=self.enlarge, mode="nearest")
        return self.convolution(self.pad(x))


class Residual(nn.Module):
    def __init__(self, channels: int):
        super().__init__()
        self.branch = nn.Sequential(
            Convolution(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=True),
            nn.ReLU(),
            Convolution(channels, channels, 3),
            nn.InstanceNorm2d(channels, affine=True),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.branch(x)


def network() -> nn.Sequential:
    """RGB 0-255 (N, 3, H, W) -> the same shape; random weights."""

    def normalized(*arguments: int, **options: int) -> list[nn.Module]:
        convolution = Convolution(*arguments, **options)
        return [convolution, nn.InstanceNorm2d(arguments[1], affine=True), nn.ReLU()]

    torch.manual_seed(0)
    return nn.Sequential(
        *normalized(3, 32, 9),
        *normalized(32, 64, 3, stride=2),
        *normalized(64, 128, 3, stride=2),
        *(Residual(128) for _ in range(5)),
        *normalized(128, 64, 3, enlarge=2),
        *normalized(64, 32, 3, enlarge=2),
        Convolution(32, 3, 9),
    )


# --- training ---------------------------------------------------------------------------------------------------------


class Features(nn.Module):
    """VGG16 with random weights, to relu4_3: RGB 0-255 -> relu1_2, relu2_2, relu3_3, relu4_3."""

    BLOCKS = ((64, 2), (128, 2), (256, 3), (512, 3))

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1))
        blocks, channels = [], 3
        for width, count in self.BLOCKS:
            steps: list[nn.Module] = [nn.MaxPool2d(2)] if blocks else []
            for _ in range(count):
                convolution = nn.Conv2d(channels, width, 3, padding=1)
                nn.init.kaiming_normal_(convolution.weight)
                steps += [convolution, nn.ReLU(inplace=True)]
                channels = width
            blocks.append(nn.Sequential(*steps))
        self.blocks = nn.ModuleList(blocks)
        self.requires_grad_(False)

    def forward(self, pictures: torch.Tensor, depth: int = 4) -> list[torch.Tensor]:
        x, found = (pictures - self.mean) / self.std, []
        for block in self.blocks[:depth]:
            x = block(x)
            found.append(x)
        return found


def gram(features: torch.Tensor) -> torch.Tensor:
    n, c, h, w = features.shape
    flat = features.view(n, c, h * w) if features.is_contiguous() else features.reshape(n, c, h * w)
    return flat @ flat.transpose(1, 2) / (c * h * w)


def training_step(job: Job) -> Callable[[], float]:
    """One step of Adam on one batch: content at relu3_3, style at all four layers, total variation."""
    layout = torch.channels_last if job.get("channels_last") else torch.contiguous_format
    half = torch.autocast("cpu", dtype=torch.bfloat16, enabled=bool(job.get("bfloat16")))

    def pictures(path: str) -> torch.Tensor:
        array = np.load(path).astype("float32").transpose(0, 3, 1, 2)
        return torch.from_numpy(array).contiguous(memory_format=layout)

    photos, painting = pictures(job["photos"]), pictures(job["painting"])
    net, vgg = network().to(memory_format=layout), Features().to(memory_format=layout)
    adam = torch.optim.Adam(net.parameters(), 1e-3)
    with torch.no_grad():
        targets = [gram(f.float()) for f in vgg(painting)]

    def step() -> float:
        adam.zero_grad()
        with half:
            painted = net(photos)
            with torch.no_grad():
                content = vgg(photos, depth=3)[-1]
            features = [f.float() for f in vgg(painted)]
        painted = painted.float()
        loss = functional.mse_loss(features[2], content.float())
        for found, target in zip(features, targets, strict=True):
            loss = loss + 5.0 * functional.mse_loss(gram(found), target.expand(len(found), -1, -1))
        down, right = painted.diff(dim=2), painted.diff(dim=3)
        loss = loss + 1e-6 * 0.5 * (down.square().sum() + right.square().sum()) / len(painted)
        loss.backward()
        adam.step()
        return float(loss)

    return step


# --- jobs -------------------------------------------------------------------------------------------------------------


def _export(job: Job, net: nn.Module) -> dict[str, Any]:
    """Write <out>/<side>.onnx, with an input and PyTorch's answer to it beside it, for each side. Fixed shapes."""
    for side in job["sides"]:
        picture = 255 * torch.rand(1, 3, side, side)
        path = Path(job["out"]) / f"{side}.onnx"
        program = torch.onnx.export(net, (picture,), dynamo=True, input_names=["image"], output_names=["painted"])
        program.save(path)
        with torch.no_grad():
            np.savez(path.with_suffix(".npz"), image=picture.numpy(), painted=net(picture).numpy())
    return {"opset": program.model.opset_imports[""]}


def prepare(job: Job) -> Prepared:
    torch.set_num_threads(job["threads"])
    facts: dict[str, Any] = {"versions": {"torch": torch.__version__}}
    if job["task"] == "train":
        return training_step(job), facts
    net = network().eval()
    facts["parameters"] = sum(p.numel() for p in net.parameters())
    if job["task"] == "export":
        facts |= _export(job, net)
        return lambda: None, facts
    picture = 255 * torch.rand(1, 3, job["side"], job["side"])
    if job["task"] == "compiled":
        net = torch.compile(net)

    def call() -> torch.Tensor:
        with torch.inference_mode():
            return net(picture)

    return call, facts


if __name__ == "__main__":
    serve(prepare)
