"""Dense prediction with dilated convolutions: a label for each pixel, from a network that sees far at full resolution.

Yu, Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016; the released code is fyu/dilation.

Reproduced: the front end (VGG16 without its last two poolings, no padding, 134,346,581 parameters for 21 classes), the
Basic and the Large context module with their identity initialisations, the networks Dilation7, 8 and 10 for streets,
receptive fields, and that a context module makes a difference where what decides lies far away.

| departure from the paper | why |
|---|---|
| labels are taken at the middle of each 8 x 8 pixels, and maps enlarged about it; the code takes the first pixel | \
the network sees as far to one side as to the other |
| without pretrained weights the front end starts from He's initialisation | ImageNet's are a flag away (`pretrained`) |
| trunks for phones, which pad: MobileNetV2, EfficientNet-Lite0 | not in the paper; a segmenter of 3 million weights |
| the context module sees the whole picture's positions; the code's, one tile's | no seams |
| published weights are read from .caffemodel files (`start_from`), but cannot be downloaded from here | their host |
| no multi-scale, no CRF-RNN behind the networks; `run --crf` adds a dense CRF | see dense_crf |
"""

from kerasmodels.family import Experiment, Family
from kerasmodels.models.dilated_net import experiments
from kerasmodels.models.dilated_net.caffe import read_caffemodel
from kerasmodels.models.dilated_net.config import VARIANTS, Config
from kerasmodels.models.dilated_net.model import DilatedNet, build, datasets, segment_picture, servables
from kerasmodels.models.dilated_net.network import ContextIdentity, context_module, front_end
from kerasmodels.models.dilated_net.task import RunOptions, run

__all__ = [
    "FAMILY",
    "Config",
    "ContextIdentity",
    "DilatedNet",
    "RunOptions",
    "context_module",
    "front_end",
    "read_caffemodel",
    "segment_picture",
]

FAMILY = Family(
    name="dilated_net",
    config=Config,
    variants=VARIANTS,
    model=DilatedNet,
    build=build,
    datasets=datasets,
    servables=servables,
    run_options=RunOptions,
    run=run,
    experiments={
        "receptive_fields": Experiment("what each layer sees, by gradients", experiments.receptive_fields),
        "identity": Experiment("context modules begin as ReLU; the networks' sizes", experiments.identity),
        "needs_context": Experiment("a task whose answer lies 30 pixels away", experiments.needs_context),
    },
)
