"""The windowed CRF in PyTorch, written from the formulas of Teichmann and Cipolla 2018, as a worker of `interleaved`.

Their message passing: each pixel's neighbors in a window are unfolded and summed, weighted by Gaussians of their
distance and of their colors; the labels, and the picture, are made smaller by `stride` first and large again after.
"""

from pathlib import Path

import numpy as np
import torch
from interleaved import Job, Prepared, serve
from torch.nn import functional

RADIUS, STRIDE, ITERATIONS = 5, 4, 10


def prepare(job: Job) -> Prepared:
    torch.set_num_threads(job["threads"])
    folder = Path(job["folder"])
    picture = torch.from_numpy(np.load(folder / "picture.npy")).permute(2, 0, 1)[None].float()
    probabilities = torch.from_numpy(np.load(folder / "probabilities.npy")).permute(2, 0, 1)[None]
    logits = probabilities.clamp_min(1e-5).log()

    def infer() -> np.ndarray:
        with torch.inference_mode():
            message = messages(picture)
            answer = logits
            for _ in range(ITERATIONS):
                answer = logits + message(answer.softmax(1))
            return answer.softmax(1)[0].permute(1, 2, 0).numpy()

    np.save(folder / "convcrf.npy", infer())
    return infer, {"versions": {"torch": torch.__version__}}


def messages(picture):
    """What the pixels tell each other: both kernels normalized on both sides, 3 and 10 times."""
    height, width = picture.shape[2:]
    small = functional.avg_pool2d(picture, STRIDE, ceil_mode=True, count_include_pad=False)
    near = window(torch.zeros_like(small), 3.0 / STRIDE, None)
    alike = window(small, 80.0 / STRIDE, 13.0)

    def message(q):
        field = functional.avg_pool2d(q, STRIDE, ceil_mode=True, count_include_pad=False)
        heard = 3.0 * passed(field, *near) + 10.0 * passed(field, *alike)
        return functional.interpolate(heard, scale_factor=STRIDE, mode="bilinear")[..., :height, :width]

    return message


def window(colors, sxy, srgb):
    """The kernel (1, 1, window, pixels) between each pixel and those around it, and its normalization."""
    side = 2 * RADIUS + 1
    y, x = torch.meshgrid(*[torch.arange(-RADIUS, RADIUS + 1.0)] * 2, indexing="ij")
    exponent = ((x**2 + y**2) / sxy**2).reshape(1, 1, -1, 1)
    channels, height, width = colors.shape[1:]
    inside = functional.unfold(torch.ones(1, 1, height, width), side, padding=RADIUS)[:, None]
    if srgb is not None:
        around = functional.unfold(colors, side, padding=RADIUS).reshape(1, channels, side**2, -1)
        apart = around - colors.reshape(1, channels, 1, -1)
        exponent = exponent + (apart**2).sum(1, keepdim=True) / srgb**2
    kernel = torch.exp(-0.5 * exponent) * inside
    norm = kernel.sum(2).reshape(1, 1, height, width).rsqrt()
    return kernel, norm


def passed(q, kernel, norm):
    side, (labels, height, width) = 2 * RADIUS + 1, q.shape[1:]
    around = functional.unfold(q * norm, side, padding=RADIUS).reshape(1, labels, side**2, -1)
    return (around * kernel).sum(2).reshape(1, labels, height, width) * norm


if __name__ == "__main__":
    serve(prepare)
