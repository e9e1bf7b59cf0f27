"""What can be chosen."""

from dataclasses import dataclass
from typing import Any, Literal

from kerasmodels.backbones import mobile
from kerasmodels.data.segmentation import CAMVID_NAMES, VOC_NAMES
from kerasmodels.family import check
from kerasmodels.models.segmentation import SegmentationConfig

BLOCKS = {
    "vgg16": (2, 2, 3, 3, 3),
    "resnet": (3, 4, 23, 3),
    **mobile.BLOCKS,
}
"""Convolutions between poolings, residual blocks of each stage, or inverted residual blocks of each stage."""


@dataclass(frozen=True)
class Config(SegmentationConfig):
    """What to train. The defaults are the paper's best network on PASCAL VOC: ResNet-101, ASPP, three scales."""

    trunks = tuple(BLOCKS)

    start_from: str | None = None
    """Begin with these weights: a run folder, a preset, or a .pth file of the PyTorch port (ResNet)."""
    trunk: Literal["vgg16", "resnet", "mobilenet_v2", "efficientnet_lite0"] = "resnet"
    """The classification network; the last two are made for phones."""
    crop: int = 321
    """Side of what the network sees, pixels: a multiple of output_stride and one more."""
    scales: tuple[float, float] = (0.5, 1.5)
    """Crops are scaled by a random factor between these."""
    steps: int = 20000
    """Training steps."""
    batch: int = 10
    """Crops a step."""
    learning_rate: float = 2.5e-4
    """Of SGD (VGG16: 1e-3). The last layer learns ten times as fast, biases twice that."""
    schedule: Literal["constant", "step", "poly"] = "poly"
    """poly: (1 - step / steps)^0.9, for each step anew; step: a tenth every `step_every` steps (version 1)."""
    step_every: int = 2000
    """See `schedule`."""

    blocks: tuple[int, ...] = ()
    """Convolutions or residual blocks of each stage; left out, the trunk's own (ResNet-101: 3 4 23 3)."""
    width: float = 1.0
    """Factor of the trunk's channels."""
    output_stride: Literal[8, 16] = 8
    """Pixels between two positions of the maps (Deformable ConvNets: 16, with rate 2 in the last stage)."""
    deformable_layers: int = 0
    """How many of ResNet's last 3 x 3 convolutions are deformable (Dai et al. 2017: 3)."""
    rates: tuple[int, ...] = (6, 12, 18, 24)
    """Of the branches: ASPP-L; ASPP-S is 2 4 8 12, LargeFOV 12 alone."""
    head: int = 0
    """Channels of fc6 and fc7 in each branch (VGG16: 1024); 0: a branch is one convolution (ResNet)."""
    head_kernel: int = 3
    """Weights on each side of a branch's first convolution (the paper's other fields of view: 7 or 4)."""
    pyramid: tuple[float, ...] = (0.5, 0.75)
    """Scales that are seen beside the picture's own, with the same weights; the largest score of each label counts."""
    frozen: int = 0
    """Stages at the trunk's beginning that keep their weights (VGG16 has 5 blocks, ResNet a stem and 4 stages)."""

    @property
    def stages(self) -> tuple[int, ...]:
        """`blocks`, or those of the published trunk."""
        return tuple(self.blocks) or BLOCKS[self.trunk]

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        super().validate()
        check(self.output_stride in (8, 16), "output_stride in (8, 16)", self.output_stride)
        count = len(BLOCKS[self.trunk])
        check(len(self.stages) == count and min(self.stages) > 0, f"{count} numbers of blocks > 0", self.blocks)
        check(0 < self.width <= 4, "0 < width <= 4", self.width)
        most = sum(self.stages) if self.trunk == "resnet" else 0
        expected = f"0 to {most} deformable layers" if most else "no deformable layers: only ResNet can have them"
        check(0 <= self.deformable_layers <= most, expected, self.deformable_layers)
        check(len(self.rates) > 0 and min(self.rates) > 0, "rates > 0", self.rates)
        check(len(set(self.rates)) == len(self.rates), "rates that differ", self.rates)
        check(self.head >= 0, "head >= 0", self.head)
        check(self.head_kernel > 0, "head_kernel > 0", self.head_kernel)
        check(all(0 < scale <= 2 for scale in self.pyramid), "scales of the pyramid above 0, up to 2", self.pyramid)
        stages = count + (self.trunk != "vgg16")
        check(0 <= self.frozen <= stages, f"0 to {stages} frozen stages", self.frozen)
        stride = self.output_stride
        expected = f"crop = a multiple of {stride} and one more, such as {20 * stride + 1}"
        check(self.crop > 1 and self.crop % stride == 1, expected, self.crop)


_VGG: dict[str, Any] = {
    "trunk": "vgg16",
    "head": 1024,
    "pyramid": (),
    "learning_rate": 1e-3,
    "scales": (1.0, 1.0),
    "names": VOC_NAMES,
}
_CAMVID: dict[str, Any] = {"classes": 11, "ignore": (11, 255), "names": CAMVID_NAMES}

VARIANTS = {
    "paper": Config(names=VOC_NAMES),
    "large_fov": Config(rates=(12,), **_VGG),
    "aspp_s": Config(rates=(2, 4, 8, 12), **_VGG),
    "aspp_l": Config(**_VGG),
    # The network of Dai et al. 2017, section 4.2.
    "deformable": Config(
        rates=(1,),
        head_kernel=1,
        pyramid=(),
        output_stride=16,
        deformable_layers=3,
        learning_rate=1e-3,
        names=VOC_NAMES,
    ),
    "mobile": Config(
        trunk="efficientnet_lite0",
        pretrained="auto",
        pyramid=(),
        scales=(0.75, 1.5),
        batch=4,
        steps=300,
        learning_rate=1e-3,
        clip=1.0,
        **_CAMVID,
    ),
    "quick": Config(
        trunk="mobilenet_v2",
        width=0.5,
        rates=(2, 4, 8, 12),
        pyramid=(),
        batch_norm="trained",
        crop=161,
        batch=4,
        steps=600,
        learning_rate=1e-2,
        clip=5.0,
        **_CAMVID,
    ),
}
"""ResNet-101 with ASPP-L and three scales (paper), the VGG16 networks, a deformable one, one for phones, and one for
minutes on a CPU without pretrained weights."""
