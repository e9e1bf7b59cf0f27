"""DeepLab v2: a label for each pixel, by atrous convolutions, branches that see at several scales, and a CRF.

Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab: Semantic Image Segmentation with Deep Convolutional Nets, Atrous
Convolution, and Fully Connected CRFs, 2016 (PAMI 2018); kazuto1011/deeplab-pytorch, a port of it.

Reproduced: VGG16 LargeFOV (20,505,429 parameters for 21 classes), VGG16 ASPP-S and ASPP-L (37,877,652), ResNet-101
ASPP (44,048,532), several scales with shared weights, fused by the maximum and each with a loss, the poly schedule, the
learning rates of the last layer and of biases, frozen batch normalisation, the CRF and what it adds on CamVid.

| departure from the paper | why |
|---|---|
| all padding is symmetric and maps are enlarged from corner to corner, at every size | position i is pixel 8 i |
| smaller scales have 8 k + 1 pixels, as in the released code; the port rounds down and shifts them | as above |
| VGG16's fc6 and fc7 begin at random; the paper's are cut out of the classifier's | \
VGG16's 13 convolutions are what can be had here |
| beyond a picture's edge, crops show it mirrored, without labels; the code's are grey | the trunk sees pictures |
| the served CRF sees a window; `run --crf` applies the full one | LiteRT and ONNX have no lattice |
| trunks for phones: MobileNetV2, EfficientNet-Lite0 | not in the paper |
| no COCO, no PASCAL VOC training here | the data, and days |

The ResNet trunk may end in deformable convolutions (Dai et al. 2017).
"""

from kerasmodels.family import Experiment, Family
from kerasmodels.models.deeplab import experiments
from kerasmodels.models.deeplab.config import VARIANTS, Config
from kerasmodels.models.deeplab.model import DeepLab, build, datasets, segment_picture, servables
from kerasmodels.models.deeplab.network import score_network
from kerasmodels.models.deeplab.pretrained import load_port
from kerasmodels.models.deeplab.task import RunOptions, run

__all__ = ["FAMILY", "Config", "DeepLab", "RunOptions", "load_port", "score_network", "segment_picture"]

FAMILY = Family(
    name="deeplab",
    config=Config,
    variants=VARIANTS,
    model=DeepLab,
    build=build,
    datasets=datasets,
    servables=servables,
    run_options=RunOptions,
    run=run,
    experiments={
        "sizes": Experiment("parameters of the paper's networks, and the poly schedule", experiments.sizes),
        "camvid": Experiment("LargeFOV, ASPP, and ASPP with a CRF on streets", experiments.camvid, private=True),
    },
)
