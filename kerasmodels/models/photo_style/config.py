"""What can be chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from kerasmodels.family import check


@dataclass(frozen=True)
class Config:
    """What to make. The defaults are the paper's, or the released code's where the two differ."""

    photo: Path | None = None
    """The photo that gets the style."""
    reference: Path | None = None
    """The photo that has it."""
    mask: Path | None = None
    """The photo's regions, a picture in nine colours (see `data.read_labels`)."""
    reference_mask: Path | None = None
    """The reference's regions; regions of one colour belong together."""
    auto_masks: int = 0
    """Without masks: find this many regions by clustering what VGG19 sees in the two photos; 0 for none."""

    height: int = 525
    """Of the result, pixels; with `width` in the photo's proportions."""
    width: int = 700
    """Of the result, pixels."""
    reference_size: int = 700
    """The reference's longer side is shrunk to this, pixels."""
    start: Literal["matched", "photo", "noise"] = "matched"
    """What the first stage begins with. matched: the photo, each region's mean colour and covariance made the
    reference's."""

    content_layer: str = "relu4_2"
    """VGG19 layer that must keep the photo's content."""
    content_weight: float = 5.0
    """Weight of the content term."""
    style_layers: tuple[str, ...] = ("relu1_1", "relu2_1", "relu3_1", "relu4_1", "relu5_1")
    """VGG19 layers whose Gram matrices must match the reference's, region by region."""
    style_weight: float = 2.0
    """Weight of each style layer."""
    affine_weight: float = 1e4
    """Weight of the photorealism term (lambda), which is measured on pictures of 0-1."""
    tv_weight: float = 1e-3
    """Weight of total variation."""
    vgg: str = "normalised"
    """VGG19 weights: normalised, which the weights of the terms are meant for; another source or a file; or random."""

    steps: int = 2000
    """Iterations of both stages together."""
    plain_steps: int = 1000
    """How many of them are stage 1, without the affine term."""
    batch: int = 1
    """There is one picture."""
    learning_rate: float = 2.0
    """Of Adam under `kerasmodels train`, levels of 0-255. `kerasmodels run` uses L-BFGS, as the paper does."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Of VGG19. The picture and all other terms stay float32."""
    seed: int = 0
    """Of the noise to begin with, and of the clustering."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(min(self.height, self.width) >= 16, "height and width >= 16", (self.height, self.width))
        check(self.reference_size >= 16, "reference_size >= 16", self.reference_size)
        check(0 <= self.auto_masks <= 9, "0 to 9 auto_masks", self.auto_masks)
        both = (self.mask is None) == (self.reference_mask is None)
        given = " and ".join(str(path) for path in (self.mask, self.reference_mask) if path is not None)
        check(both, "mask and reference_mask together, or neither", given)
        check(not (self.auto_masks and self.mask), "mask or auto_masks, not both", (self.mask, self.auto_masks))
        for name, known in (("start", ("matched", "photo", "noise")), ("precision", ("float32", "mixed_bfloat16"))):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        factors = (self.content_weight, self.style_weight, self.affine_weight, self.tv_weight)
        check(min(factors) >= 0, "weights >= 0 (content, style, affine, tv)", factors)
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        check(self.steps > 0, "steps > 0", self.steps)
        check(0 <= self.plain_steps <= self.steps, "0 <= plain_steps <= steps", (self.plain_steps, self.steps))
        check(self.batch == 1, "batch = 1: there is one picture", self.batch)
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)


VARIANTS = {
    "paper": Config(),
    "quick": Config(height=192, width=256, reference_size=256, steps=200, plain_steps=100),
}
