"""What can be chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from kerasmodels.family import check


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's for the front end on PASCAL VOC."""

    photos: Path | None = None
    """A folder of pictures."""
    masks: Path | None = None
    """A folder of label maps (palette or grey PNG) named like their pictures; pixels of 255 do not count."""
    ignore: tuple[int, ...] = (255,)
    """Labels of pixels that do not count; CamVid has 11, too."""
    start_from: str | None = None
    """Begin with these weights: a run folder, such as of the front end, or a .caffemodel file."""
    vgg: str = "random"
    """The front end's convolutions to begin with: random, auto, a source of `kerasmodels weights vgg16`, or a file."""

    classes: int = 21
    """Labels 0 to classes - 1 (VOC 21, CamVid 11, KITTI 11, Cityscapes 19)."""
    blocks: tuple[int, ...] = (2, 2, 3, 3, 3)
    """Convolutions between poolings; after the third block there are none, and the fifth has rate 2."""
    channels: tuple[int, ...] = (64, 128, 256, 512, 512)
    """Channels of the blocks."""
    head: int = 4096
    """Channels of fc6 and fc7."""
    head_kernel: int = 7
    """Weights on each side of fc6's kernel, which has rate 4."""
    context: Literal["none", "basic", "large"] = "none"
    """The context module: none, C channels throughout, or 2C to 32C."""
    rates: tuple[int, ...] = (1, 1, 2, 4, 8, 16, 1)
    """Rates of its 3 x 3 convolutions; Dilation7 has no 16, Dilation10 also 32 and 64."""
    context_padding: Literal["first", "same"] = "first"
    """first: zeros of the module's whole reach around its input (VOC); same: around each convolution's (urban)."""
    context_init: Literal["identity", "glorot"] = "identity"
    """identity: the module begins as ReLU (paper); glorot: at random."""
    context_noise: float = 0.01
    """Standard deviation of what is 0 in the identity (released code: 0.01 over the multiple of C; paper: small)."""

    trains: Literal["front", "context", "all"] = "front"
    """Which part learns: the front end by itself, the context module on a front end that stays, or both."""
    crop: int = 500
    """Side of what the network sees, pixels: 8 n plus twice the margin (500 is 16 x 16 labels)."""
    scales: tuple[float, float] = (1.0, 1.0)
    """Crops are scaled by a random factor between these."""
    flip: bool = True
    """Mirror half of the crops."""
    dropout: float = 0.5
    """After fc6 and fc7."""
    steps: int = 60000
    """Training steps."""
    batch: int = 14
    """Crops a step."""
    learning_rate: float = 1e-3
    """Of SGD (paper: 1e-3; the released code's default is 1e-4). Biases learn twice as fast."""
    schedule: Literal["constant", "step", "poly"] = "constant"
    """step: a tenth every `step_every` steps; poly: (1 - step / steps)^0.9."""
    step_every: int = 20000
    """See `schedule`."""
    momentum: float = 0.9
    """Of SGD (urban front ends: 0.99)."""
    decay: float = 5e-4
    """Of weights, not biases (released code)."""
    clip: float | None = None
    """Largest norm of the gradient; left out, there is no limit, as in the paper."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Weights stay float32."""
    seed: int = 0
    """Of crops and initial weights."""

    @property
    def margin(self) -> int:
        """Pixels that the front end needs around what it labels (paper: 186)."""
        reach, jump = 1, 1
        for number, count in enumerate(self.blocks):
            reach += 2 * jump * (2 if number == 4 else 1) * count
            if number < 3:
                reach, jump = reach + jump, 2 * jump
        reach += (self.head_kernel - 1) * 4 * jump
        return (reach - jump) // 2

    @property
    def context_reach(self) -> int:
        """Positions that the context module sees on each side of one (paper: 33)."""
        return sum(self.rates)

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(2 <= self.classes <= 255, "2 to 255 classes", self.classes)
        for name in ("blocks", "channels"):
            values = getattr(self, name)
            check(len(values) == 5 and min(values) > 0, f"five positive numbers of {name}", values)
        check(self.head > 0, "head > 0", self.head)
        check(self.head_kernel > 0 and self.head_kernel % 2 == 1, "an odd head_kernel", self.head_kernel)
        check(len(self.rates) > 0 and min(self.rates) > 0, "rates > 0", self.rates)
        for name, known in (
            ("context", ("none", "basic", "large")),
            ("context_padding", ("first", "same")),
            ("context_init", ("identity", "glorot")),
            ("trains", ("front", "context", "all")),
            ("schedule", ("constant", "step", "poly")),
            ("precision", ("float32", "mixed_bfloat16")),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        check(self.trains != "context" or self.context != "none", "a context module to train", self.context)
        check(self.trains != "front" or self.context == "none", "no context module while the front trains", self.trains)
        side = self.crop - 2 * self.margin
        check(
            side > 0 and side % 8 == 0,
            f"crop = {2 * self.margin} + a multiple of 8, such as {2 * self.margin + 128}",
            self.crop,
        )
        check(0 < self.scales[0] <= self.scales[1], "0 < scales, in order", self.scales)
        check(0 <= self.dropout < 1, "0 <= dropout < 1", self.dropout)
        check(self.steps > 0 and self.batch > 0, "steps > 0 and batch > 0", (self.steps, self.batch))
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)
        check(self.step_every > 0, "step_every > 0", self.step_every)
        check(0 <= self.momentum < 1, "0 <= momentum < 1", self.momentum)
        check(
            self.decay >= 0 and self.context_noise >= 0, "decay, context_noise >= 0", (self.decay, self.context_noise)
        )
        check(self.clip is None or self.clip > 0, "clip > 0, or none", self.clip)


_URBAN: dict[str, Any] = {
    "context": "basic",
    "context_padding": "same",
    "trains": "all",
    "momentum": 0.9,
    "crop": 852,
    "batch": 1,
}

VARIANTS = {
    "paper": Config(),
    "context": Config(context="large", trains="context"),
    "camvid": Config(classes=11, ignore=(11, 255), learning_rate=1e-5, steps=20000, **_URBAN),
    "kitti": Config(
        classes=11,
        rates=(1, 1, 2, 4, 8, 1),
        learning_rate=1e-5,
        steps=20000,
        **{**_URBAN, "crop": 900, "momentum": 0.99},
    ),
    "cityscapes": Config(
        classes=19, rates=(1, 1, 2, 4, 8, 16, 32, 64, 1), learning_rate=1e-5, **{**_URBAN, "crop": 1396}
    ),
    "quick": Config(
        blocks=(1, 1, 2, 2, 2),
        channels=(16, 32, 64, 96, 128),
        head=128,
        head_kernel=3,
        context="basic",
        context_padding="same",
        trains="all",
        crop=310,
        batch=4,
        steps=600,
        learning_rate=3e-3,
        schedule="poly",
        clip=5.0,
    ),
}
"""Dilation8 on VOC in two stages (paper, context), Dilation8, 7 and 10 for streets, and one for minutes on a CPU."""
