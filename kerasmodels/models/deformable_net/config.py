"""What can be chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasmodels.data.digits import Warp
from kerasmodels.family import check

CLASSES = 10
Task = Literal["classify", "detect"]
Trained = Literal["all", "offsets", "normalization", "offsets and normalization"]


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's layer in the demonstration's network."""

    task: Task = "classify"
    """classify: which digit a picture shows; detect: where on a photo there are digits, and which."""
    digits: Path | None = None
    """A folder with MNIST's four files; left out, the small digits of scikit-learn."""
    warp: Warp = "scaled"
    """classify: what happens to every digit: none, scaled (each axis 1 to 2.5 times smaller, shifted) or rotated."""

    filters: tuple[int, ...] = (32, 64, 128, 128)
    """Of each 3x3 convolution."""
    strides: tuple[int, ...] = (1, 2, 1, 2)
    """Of each convolution, pixels."""
    rates: tuple[int, ...] = ()
    """Dilation of each convolution; left out, 1."""
    deformable: int = 3
    """How many of the convolutions, counted from the last, are deformable (the paper's DeepLab: 3)."""
    modulated: bool = False
    """Each sample is also weighted, as in version 2."""
    trained: Trained = "all"
    """classify: which weights move. Batch normalisation that does not move also keeps its statistics."""

    photos: Path | None = None
    """detect: a folder of photos, for digits to be laid on; left out, those of scikit-image. One in five is for the
    test."""
    scene: int = 96
    """detect: side of the scenes, pixels, up to 160."""
    objects: int = 3
    """detect: digits on a scene, at most; 0.5 to 2.5 times as large as MNIST's, turned by up to 60 degrees."""
    pooling: Literal["plain", "deformable"] = "deformable"
    """detect: position-sensitive RoI pooling whose bins stay, or move."""
    bins: int = 5
    """detect: along each side of a region (R-FCN: 7)."""
    gamma: float = 0.1
    """detect: unit of the bins' offsets, as a share of the region's height and width (paper: 0.1)."""
    anchors: tuple[float, ...] = (14.0, 26.0, 46.0)
    """detect: sides of the squares that proposals start from, pixels."""
    proposals: int = 24
    """detect: regions of each picture that are looked at closely (R-FCN: 300)."""
    detections: int = 20
    """detect: digits that can be found on a picture."""

    steps: int = 9400
    """Training steps (batches); ten times through MNIST."""
    batch: int = 64
    """Digits, or scenes, a step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    schedule: Literal["constant", "cosine"] = "constant"
    """cosine: the learning rate falls to zero as half a cosine over all steps."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Of the arithmetic; weights and positions stay float32."""
    seed: int = 0
    """Of the stream of digits and, under `kerasmodels train`, of the initial weights."""

    @property
    def dilations(self) -> tuple[int, ...]:
        """`rates`, or a 1 for each convolution."""
        return self.rates or (1,) * len(self.filters)

    @property
    def stride(self) -> int:
        """Of all convolutions together, pixels."""
        total = 1
        for stride in self.strides:
            total *= stride
        return total

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(len(self.filters) > 0 and min(self.filters) > 0, "at least one positive filters", self.filters)
        for name, values in (("strides", self.strides), ("rates", self.dilations)):
            check(
                len(values) == len(self.filters) and min(values) > 0,
                f"{name}, {len(self.filters)} ints >= 1",
                values,
            )
        check(
            all(1 in pair for pair in zip(self.strides, self.dilations, strict=True)),
            "rates of 1 where strides are greater than 1",
            self.rates,
        )
        check(0 <= self.deformable <= len(self.filters), f"deformable, 0 to {len(self.filters)}", self.deformable)
        for name, known in (
            ("task", ("classify", "detect")),
            ("warp", ("none", "scaled", "rotated")),
            ("trained", ("all", "offsets", "normalization", "offsets and normalization")),
            ("pooling", ("plain", "deformable")),
            ("schedule", ("constant", "cosine")),
            ("precision", ("float32", "mixed_bfloat16")),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        check(
            self.deformable > 0 or "offsets" not in self.trained,
            "a deformable convolution whose offsets can be trained",
            f"deformable={self.deformable}, trained={self.trained!r}",
        )
        check(self.task == "classify" or self.trained == "all", "all of a detector to be trained", self.trained)
        check(32 <= self.scene <= 160, "scene, 32 to 160 pixels", self.scene)
        for name in ("objects", "bins", "proposals", "detections"):
            check(getattr(self, name) > 0, f"{name} > 0", getattr(self, name))
        check(
            self.detections <= CLASSES * self.proposals,
            f"detections, {CLASSES} for each of the {self.proposals} proposals at most",
            self.detections,
        )
        check(self.gamma >= 0, "gamma >= 0", self.gamma)
        check(len(self.anchors) > 0 and min(self.anchors) > 0, "at least one of anchors, positive", self.anchors)
        check(self.steps > 0 and self.batch > 0, "steps > 0 and batch > 0", (self.steps, self.batch))
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)


_DETECTOR = Config(
    task="detect",
    filters=(24, 48, 48, 48, 48, 48),
    strides=(2, 2, 1, 1, 1, 1),
    rates=(1, 1, 1, 2, 4, 2),
    deformable=0,
    batch=8,
    steps=3000,
    learning_rate=2e-3,
    schedule="cosine",
)

VARIANTS = {
    "paper": Config(),
    "quick": Config(steps=600),
    "plain": Config(deformable=0),
    "detector": _DETECTOR,
}
