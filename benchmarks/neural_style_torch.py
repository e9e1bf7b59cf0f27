"""The peer, in an environment with PyTorch: Gatys' objective on VGG19 and a step of Adam on the pixels.

Written anew after the paper: average pooling, content at relu4_2, style at relu1_1 to relu5_1, total variation.
Run as a worker of `interleaved`.
"""

import numpy as np
import torch
from interleaved import Job, Prepared, serve
from torch import nn
from torch.nn import functional

BLOCKS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
STYLE = ("conv1_1", "conv2_1", "conv3_1", "conv4_1", "conv5_1")
CONTENT = "conv4_2"


class Features(nn.Module):
    """VGG19 to relu5_1, weights from a file: RGB 0-255 (1, 3, H, W) -> convolution -> features after its ReLU."""

    def __init__(self, path: str):
        super().__init__()
        self.register_buffer("mean", 255 * torch.tensor(MEAN).view(1, 3, 1, 1))
        self.register_buffer("std", 255 * torch.tensor(STD).view(1, 3, 1, 1))
        self.convolutions = nn.ModuleDict()
        with np.load(path) as data:
            channels = 3
            for block, (width, count) in enumerate(BLOCKS, 1):
                for i in range(1, count + 1):
                    layer = nn.Conv2d(channels, width, 3, padding=1)
                    kernel = data[f"block{block}_conv{i}_kernel"].transpose(3, 2, 0, 1)
                    layer.weight.data = torch.from_numpy(np.ascontiguousarray(kernel))
                    layer.bias.data = torch.from_numpy(data[f"block{block}_conv{i}_bias"])
                    self.convolutions[f"conv{block}_{i}"] = layer
                    channels = width
        self.requires_grad_(False)

    def forward(self, picture: torch.Tensor) -> dict[str, torch.Tensor]:
        x, found = (picture - self.mean) / self.std, {}
        for name, layer in self.convolutions.items():
            if name.endswith("_1") and name != "conv1_1":
                x = functional.avg_pool2d(x, 2)
            x = functional.relu(layer(x))
            if name in (*STYLE, CONTENT):
                found[name] = x
        return found


def gram(features: torch.Tensor) -> torch.Tensor:
    flat = features.reshape(features.shape[1], -1)
    return flat @ flat.T / flat.shape[1]


def prepare(job: Job) -> Prepared:
    torch.set_num_threads(job["threads"])
    layout = torch.channels_last if job.get("channels_last") else torch.contiguous_format

    def picture(path: str) -> torch.Tensor:
        array = np.load(path).astype("float32").transpose(2, 0, 1)[None]
        return torch.from_numpy(array).contiguous(memory_format=layout)

    vgg = Features(job["vgg"]).to(memory_format=layout)
    content = picture(job["content"])
    with torch.no_grad():
        target = vgg(content)[CONTENT]
        seen = vgg(picture(job["style"]))
        grams = {tap: gram(seen[tap]) for tap in STYLE}
    pixels = content.clone(memory_format=torch.preserve_format).requires_grad_()
    adam = torch.optim.Adam([pixels], job["learning_rate"], eps=1e-12)

    def step() -> float:
        adam.zero_grad()
        features = vgg(pixels)
        loss = job["content_weight"] * (features[CONTENT] - target).square().mean() / 4
        for tap in STYLE:
            n = grams[tap].shape[0]
            loss = loss + job["style_weight"] / 5 * (gram(features[tap]) - grams[tap]).square().sum() / (4 * n * n)
        rows, columns = pixels[:, :, 1:] - pixels[:, :, :-1], pixels[:, :, :, 1:] - pixels[:, :, :, :-1]
        variation = (rows.square().sum() + columns.square().sum()) / 2
        loss = loss + job["tv_weight"] * variation / pixels.numel()
        loss.backward()
        adam.step()
        return float(loss.detach())

    first = step()
    return step, {"versions": {"torch": torch.__version__}, "losses": [first, *(step() for _ in range(2))]}


if __name__ == "__main__":
    serve(prepare)
