"""Networks whose convolutions and regions look where they have learnt to look: a classifier and a detector of digits.

Dai, Qi, Xiong, Li, Zhang, Hu, Wei: Deformable Convolutional Networks, ICCV 2017.

Reproduced: deformable convolution itself (`layers.DeformableConv2D`; equal to torchvision's operator), what its
offsets alone do for a network that meets digits in sizes or at angles it was not trained on, and a compact detector
with proposals and deformable position-sensitive RoI pooling, after R-FCN (Dai, Li, He, Sun, NeurIPS 2016).

The well-known demonstration of this on scaled MNIST, a network of four convolutions that goes from 57 to 92 % with
"deformable convolution", does not show it: in its published weights every offset is zero, and what changed is batch
normalisation. So the experiment has five arms that tell the two apart; see `experiments.arms`.

| departure from the paper | why |
|---|---|
| the network of that demonstration, not DeepLab or R-FCN | minutes on two cores; its control is published |
| its padding is one pixel on both sides in layers of stride 2 too | the operator's own rule: one node in ONNX |
| Adam; the paper trains with SGD | as in the demonstration |
| batch normalisation forgets at 0.9, not 0.99, a step | trained for hundreds of steps, not thousands |
| the detector's trunk: six convolutions, stride 4, never trained before | digits of 10 to 60 pixels, minutes |
| objectness by focal loss (Lin 2017) over all anchors; the paper's code samples 256 | no chance in it |
| the bins' offsets are the same for all classes of digits | one tenth of the samples |
| non-maximum suppression in a fixed number of rounds (`ops.non_max_suppression`) | operators that leave everywhere |
"""

from typing import Any

from kerasmodels.family import Datasets, Experiment, Family
from kerasmodels.models.deformable_net import classifier, detector, regions, scenes
from kerasmodels.models.deformable_net.classifier import DeformableNet
from kerasmodels.models.deformable_net.config import VARIANTS, Config
from kerasmodels.models.deformable_net.detector import DeformableDetector
from kerasmodels.models.deformable_net.drawings import sampling_positions
from kerasmodels.models.deformable_net.experiments import arms
from kerasmodels.models.deformable_net.task import RunOptions, run

__all__ = ["FAMILY", "Config", "DeformableDetector", "DeformableNet", "RunOptions", "sampling_positions"]


def _part(config: Config) -> Any:
    """The module of the config's task."""
    return {"classify": classifier, "detect": detector}[config.task]


def _datasets(config: Config, start: int = 0) -> Datasets:
    return _part(config).datasets(config, start)


FAMILY = Family(
    name="deformable_net",
    config=Config,
    variants=VARIANTS,
    model=lambda config: _part(config).model(config),
    build=lambda config: _part(config).build(config),
    datasets=_datasets,
    servables=lambda model, config: _part(config).servables(model, config),
    run_options=RunOptions,
    run=run,
    experiments={
        "scaled": Experiment(
            "five arms on scaled digits: what offsets do, and what normalisation", arms("scaled"), private=True
        ),
        "rotated": Experiment("the same five arms on turned digits", arms("rotated"), private=True),
        "regions": Experiment("a detector whose bins stay, and one whose bins move", regions.measure, private=True),
        "scenes": Experiment(
            "plain, dilated and deformable, equal weights, digits on photos", scenes.measure, private=True
        ),
    },
    preview=lambda model, config: _part(config).preview(model, config),
)
