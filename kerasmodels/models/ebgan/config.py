"""What to train, and the sizes of the networks."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasmodels.family import check

CLASSES = 10

# Channels, in units of `filters`: the generator's maps from 4 x 4 pixels on, and the encoder's.
STAGES: dict[int, tuple[tuple[int, ...], tuple[int, ...]]] = {
    16: ((4, 2), (1, 2)),
    32: ((8, 4, 2), (1, 2)),
    64: ((16, 8, 4, 2), (1, 2, 4)),
    128: ((16, 8, 4, 2, 1), (1, 2, 4, 8)),
    256: ((32, 16, 8, 4, 2, 1), (1, 2, 4, 8)),
}


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's for faces."""

    pictures: Path | None = None
    """A folder of pictures, or an IDX file such as MNIST's train-images-idx3-ubyte."""
    labels: Path | None = None
    """The IDX file of the pictures' classes, 0 to 9, for `labelled`."""
    start_from: str | None = None
    """Begin with these weights instead of random ones: a run folder or a preset."""

    network: Literal["convolutional", "mlp"] = "convolutional"
    """convolutional: the paper's for photos; mlp: fully connected, the paper's for digits."""
    size: int = 64
    """Side of the pictures, pixels: 16, 32, 64, 128 or 256 for convolutional."""
    channels: int = 3
    """3 for RGB, 1 for grey."""
    filters: int = 64
    """convolutional: channels of the judge's first maps; the generator's last ones have as many or twice as many."""
    generator_layers: int = 5
    """mlp: layers of weights of the generator (nLayerG)."""
    generator_width: int = 800
    """mlp: units of its hidden layers (sizeG)."""
    judge_layers: int = 2
    """mlp: layers of weights of the judge, of which the decoder is one (nLayerD)."""
    judge_width: int = 1024
    """mlp: units of its hidden layers (sizeD)."""
    dropout: bool = False
    """mlp: drop half of the judge's hidden units while it trains (dropoutD)."""
    latent: int = 100
    """Length of the generator's input, standard normal."""

    energy: Literal["norm", "mean"] = "norm"
    """norm: Euclidean length of the difference; mean: mean square, as some implementations have it. Pixels -1 to 1."""
    margin: float = 20.0
    """Made pictures of a higher energy no longer count; the paper: 20 for faces, 80 for bedrooms, 10 for digits."""
    final_margin: float | None = None
    """The margin goes to this, on a straight line over the steps; left out, it stays. The paper: 0 with labels."""
    pulling_away: float = 0.1
    """Weight of the pulling-away term in the generator's loss; 0 for none."""
    noise: float = 0.0
    """Deviation of normal noise on what the judge is shown of real pictures, which it must remove; pixels -1 to 1."""
    labelled: int = 0
    """Pictures whose classes are used, as many of each; 0: none, and no layer of classes."""
    label_weight: float = 10.0
    """Of the cross-entropy of classes, in the judge's loss."""

    steps: int = 50000
    """Updates of the generator, and of the judge."""
    batch: int = 64
    """Pictures in each update; at least 2, for the pulling-away term."""
    learning_rate: float = 2e-4
    """Of both networks; the paper's grid: 1e-3."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 halves the time where the processor has bfloat16 instructions. Weights stay float32."""
    seed: int = 0
    """Of the pictures' order, the generator's input and, under `kerasmodels train`, of the initial weights."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range, and some energy can reach the margin."""
        for name, known in (
            ("network", ("convolutional", "mlp")),
            ("energy", ("norm", "mean")),
            ("precision", ("float32", "mixed_bfloat16")),
            ("channels", (1, 3)),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        if self.network == "convolutional":
            check(self.size in STAGES, f"size in {tuple(STAGES)} for convolutional", self.size)
        check(self.size >= 4, "size >= 4", self.size)
        for name in ("filters", "generator_width", "judge_width", "latent", "steps", "learning_rate", "margin"):
            check(getattr(self, name) > 0, f"{name} > 0", getattr(self, name))
        for name in ("generator_layers", "judge_layers", "batch"):
            check(getattr(self, name) >= 2, f"{name} >= 2", getattr(self, name))
        for name in ("pulling_away", "noise", "labelled", "label_weight"):
            check(getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name))
        check(self.labelled % CLASSES == 0, f"labelled, a multiple of {CLASSES}", self.labelled)
        check(self.final_margin is None or self.final_margin >= 0, "final_margin >= 0", self.final_margin)
        largest = self.largest_energy
        check(
            max(self.margin, self.final_margin or 0) < largest,
            f"a margin below {largest:g}, the largest energy ({self.energy}) that {self.size} x {self.size} x "
            f"{self.channels} pixels from -1 to 1 can have: the hinge of a higher one never closes",
            self.margin if self.final_margin is None else (self.margin, self.final_margin),
        )

    @property
    def largest_energy(self) -> float:
        """Of a picture of which each pixel is rebuilt as its opposite: a margin must be below."""
        return 4.0 if self.energy == "mean" else 2.0 * self.size * self.channels**0.5


_DIGITS = Config(network="mlp", size=28, channels=1, margin=10.0, learning_rate=1e-3, steps=20000)
VARIANTS = {
    "paper": Config(),
    "bedrooms": Config(margin=80.0),
    "paper_128": Config(size=128, noise=0.1),
    "paper_256": Config(size=256, noise=0.1),
    "digits": _DIGITS,
    "labelled": Config(
        network="mlp",
        size=28,
        channels=1,
        generator_layers=3,
        judge_layers=3,
        judge_width=512,
        margin=10.0,
        final_margin=0.0,
        pulling_away=0.0,
        noise=0.3,
        labelled=100,
        learning_rate=1e-3,
        steps=20000,
    ),
    "quick": Config(
        network="mlp",
        size=28,
        channels=1,
        generator_layers=3,
        generator_width=400,
        judge_width=128,
        margin=10.0,
        learning_rate=1e-3,
        steps=1000,
    ),
}
