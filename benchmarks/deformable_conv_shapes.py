"""What `deformable_conv.py` and its workers compute on."""

import numpy as np

SHAPES = {"a": (1, 64, 64, 128, 128), "b": (8, 28, 28, 64, 64)}
"""N, H, W, channels, filters; 3x3, stride 1, padding 1."""
TINY = (1, 8, 8, 16, 16)


def arrays(name: str) -> dict[str, np.ndarray]:
    """Offsets of two pixels, in any direction; `seen` is the gradient of the output."""
    n, height, width, channels, filters = SHAPES.get(name, TINY)
    random = np.random.default_rng(0)

    def normal(*shape: int, spread: float = 1.0) -> np.ndarray:
        return random.normal(0, spread, shape).astype("float32")

    return {
        "inputs": normal(n, height, width, channels),
        "offsets": normal(n, height, width, 18, spread=2.0),
        "kernel": normal(3, 3, channels, filters, spread=(9 * channels) ** -0.5),
        "bias": normal(filters),
        "seen": normal(n, height, width, filters),
    }
