"""What can be chosen."""

from dataclasses import dataclass
from typing import Any, Literal

from kerasmodels.backbones import mobile
from kerasmodels.data.segmentation import CAMVID_NAMES
from kerasmodels.family import check
from kerasmodels.models.segmentation import SegmentationConfig

BLOCKS = {"vgg16": (2, 2, 3, 3, 3), **mobile.BLOCKS}
"""Convolutions between poolings, or inverted residual blocks of each stage."""
CHANNELS = {"vgg16": (64, 128, 256, 512, 512), **mobile.CHANNELS}
"""Channels of VGG16's blocks, or of the stem and the stages."""


@dataclass(frozen=True)
class Config(SegmentationConfig):
    """What to train. The defaults are the paper's for the front end on PASCAL VOC."""

    trunks = tuple(BLOCKS)

    start_from: str | None = None
    """Begin with these weights: a run folder, such as of the front end, a preset, or a .caffemodel file (VGG16)."""
    trunk: Literal["vgg16", "mobilenet_v2", "efficientnet_lite0"] = "vgg16"
    """The front end's classification network: VGG16, which pads nothing (paper); the others are made for phones."""
    crop: int = 500
    """Side of what the network sees, pixels: 8 n plus twice the margin (500 is 16 x 16 labels)."""
    scales: tuple[float, float] = (1.0, 1.0)
    """Crops are scaled by a random factor between these."""
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

    blocks: tuple[int, ...] = ()
    """Convolutions between VGG16's poolings (after the third block there are none, and the fifth has rate 2), or blocks
    of each of the other trunks' stages; left out, the trunk's own (VGG16: 2 2 3 3 3)."""
    channels: tuple[int, ...] = ()
    """Of VGG16's blocks, or of the stem and the stages; left out, the trunk's own (VGG16: 64 128 256 512 512)."""
    head: int = 4096
    """Channels of fc6 and fc7."""
    head_kernel: int = 7
    """Weights on each side of fc6's kernel, which has rate 4."""
    head_rate: float = 1.0
    """Factor of the learning rate of what begins at random behind the trunk: fc6, fc7, final, context (DeepLab: 10)."""
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

    @property
    def stages(self) -> tuple[int, ...]:
        """`blocks`, or those of the published trunk."""
        return tuple(self.blocks) or BLOCKS[self.trunk]

    @property
    def widths(self) -> tuple[int, ...]:
        """`channels`, or those of the published trunk."""
        return tuple(self.channels) or CHANNELS[self.trunk]

    @property
    def margin(self) -> int:
        """Pixels that the front end needs around what it labels (paper: 186)."""
        beside = 4 * (self.head_kernel // 2)
        if self.trunk != "vgg16":
            # These trunks pad, fc6 does not; half a block more, and positions lie in the middle of 8 x 8 pixels.
            return 8 * beside + 4
        reach, jump = 1, 1
        for number, count in enumerate(self.stages):
            reach += 2 * jump * (2 if number == 4 else 1) * count
            if number < 3:
                reach, jump = reach + jump, 2 * jump
        reach += 2 * beside * jump
        return (reach - jump) // 2

    @property
    def context_reach(self) -> int:
        """Positions that the context module sees on each side of one (paper: 33)."""
        return sum(self.rates)

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        super().validate()
        for name, values, known in (("blocks", self.stages, BLOCKS), ("channels", self.widths, CHANNELS)):
            count = len(known[self.trunk])
            check(len(values) == count and min(values) > 0, f"{count} positive numbers of {name}", values)
        check(self.head > 0, "head > 0", self.head)
        check(self.head_kernel > 0 and self.head_kernel % 2 == 1, "an odd head_kernel", self.head_kernel)
        check(self.head_rate > 0, "head_rate > 0", self.head_rate)
        check(len(self.rates) > 0 and min(self.rates) > 0, "rates > 0", self.rates)
        for name, options in (
            ("context", ("none", "basic", "large")),
            ("context_padding", ("first", "same")),
            ("context_init", ("identity", "glorot")),
            ("trains", ("front", "context", "all")),
        ):
            check(getattr(self, name) in options, f"{name} in {options}", getattr(self, name))
        check(self.trains != "context" or self.context != "none", "a context module to train", self.context)
        check(self.trains != "front" or self.context == "none", "no context module while the front trains", self.trains)
        side = self.crop - 2 * self.margin
        check(
            side > 0 and side % 8 == 0,
            f"crop = {2 * self.margin} + a multiple of 8, such as {2 * self.margin + 128}",
            self.crop,
        )
        check(self.context_noise >= 0, "context_noise >= 0", self.context_noise)


_URBAN: dict[str, Any] = {
    "context": "basic",
    "context_padding": "same",
    "trains": "all",
    "momentum": 0.9,
    "crop": 852,
    "batch": 1,
}

_CAMVID: dict[str, Any] = {"classes": 11, "ignore": (11, 255), "names": CAMVID_NAMES}

VARIANTS = {
    "paper": Config(),
    "context": Config(context="large", trains="context"),
    "camvid": Config(learning_rate=1e-5, steps=20000, **_CAMVID, **_URBAN),
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
    "mobile": Config(
        trunk="efficientnet_lite0",
        pretrained="auto",
        head=64,
        head_kernel=3,
        head_rate=10.0,
        dropout=0.1,
        scales=(0.75, 1.5),
        steps=600,
        schedule="poly",
        **_CAMVID,
        **{**_URBAN, "crop": 328, "batch": 4},
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
"""Dilation8 on VOC in two stages (paper, context), Dilation8, 7 and 10 for streets, one for phones, and one for minutes
on a CPU without pretrained weights."""
