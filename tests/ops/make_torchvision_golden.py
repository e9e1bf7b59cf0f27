"""Writes torchvision_deform_conv2d.npz: what torchvision makes of random arrays, and its gradients.

    python tests/ops/make_torchvision_golden.py tests/ops/torchvision_deform_conv2d.npz

Run it with a Python that has torch, torchvision and NumPy, which this project does not need. `test_deformable.py` reads
the file. Arrays are channels first, as there; `options` are strides, padding, dilation (rows, columns each) and groups.
"""

import sys
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class Case:
    """One call. `shape` is the input's, `spread` the standard deviation of the offsets in pixels."""

    shape: tuple[int, int, int, int]
    filters: int
    kernel: tuple[int, int] = (3, 3)
    strides: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (1, 1)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1
    parts: int = 1
    masked: bool = False
    spread: float = 1.5
    whole: bool = False


CASES = {
    "plain": Case((2, 3, 5, 6), 3),
    "masked": Case((1, 4, 5, 4), 4, groups=2, parts=2, masked=True),
    "strided": Case((2, 6, 7, 6), 4, (3, 2), (2, 1), (1, 0), (1, 2), groups=2, parts=3, masked=True, spread=1.0),
    "dilated": Case((1, 4, 7, 8), 2, (2, 3), (1, 2), (2, 3), (3, 2), parts=4, spread=3.0),
    "far": Case((1, 3, 5, 6), 2, padding=(0, 0), masked=True, spread=12.0),
    "whole": Case((1, 2, 5, 5), 2, parts=2, spread=2.0, whole=True),
}


def arrays(number: int, case: Case) -> dict[str, np.ndarray]:
    """Inputs, in steps of 1/64 so that the file stays small."""
    random = np.random.default_rng(number)

    def normal(*shape: int, spread: float = 1.0) -> np.ndarray:
        return (np.round(random.normal(0, spread, shape) * 64) / 64).astype("float32")

    n, channels, *size = case.shape
    rows, columns = (
        (length + 2 * p - d * (k - 1) - 1) // s + 1
        for length, p, d, k, s in zip(size, case.padding, case.dilation, case.kernel, case.strides, strict=True)
    )
    taps = case.parts * case.kernel[0] * case.kernel[1]
    offsets = normal(n, 2 * taps, rows, columns, spread=case.spread)
    found = {
        "inputs": normal(*case.shape),
        "offsets": np.round(offsets) if case.whole else offsets,
        "kernel": normal(case.filters, channels // case.groups, *case.kernel),
        "bias": normal(case.filters),
        "upstream": normal(n, case.filters, rows, columns),
    }
    if case.masked:
        found["mask"] = np.round(random.random((n, taps, rows, columns)) * 64).astype("float32") / 64
    return found


def main(path: str) -> None:
    """Write the file."""
    import torch
    import torchvision

    out = {"versions": np.array([torch.__version__, torchvision.__version__])}
    for number, (name, case) in enumerate(CASES.items()):
        given = arrays(number, case)
        tensors = {key: torch.tensor(value, requires_grad=True) for key, value in given.items()}
        y = torchvision.ops.deform_conv2d(
            tensors["inputs"],
            tensors["offsets"],
            tensors["kernel"],
            tensors["bias"],
            stride=case.strides,
            padding=case.padding,
            dilation=case.dilation,
            mask=tensors.get("mask"),
        )
        (y * tensors.pop("upstream").detach()).sum().backward()
        out |= {f"{name}/{key}": value for key, value in given.items()}
        out |= {f"{name}/gradient/{key}": tensor.grad.numpy() for key, tensor in tensors.items()}
        out[f"{name}/outputs"] = y.detach().numpy()
        out[f"{name}/options"] = np.array([*case.strides, *case.padding, *case.dilation, case.groups])
    np.savez_compressed(path, **out)


if __name__ == "__main__":
    main(sys.argv[1])
