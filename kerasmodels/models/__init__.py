"""One file per paper."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from kerasmodels.models.closed_form_matting import ClosedFormMatting
    from kerasmodels.models.cyclegan import CycleGAN
    from kerasmodels.models.deeplab import DeepLab
    from kerasmodels.models.deformable_detector import DeformableDetector
    from kerasmodels.models.deformable_net import DeformableNet
    from kerasmodels.models.dense_crf import FullyConnectedCRF
    from kerasmodels.models.dilated_net import DilatedNet
    from kerasmodels.models.discogan import DiscoGAN
    from kerasmodels.models.ebgan import EBGAN
    from kerasmodels.models.fast_style import FastStyle
    from kerasmodels.models.feature_patches import FeaturePatches
    from kerasmodels.models.neural_style import NeuralStyle
    from kerasmodels.models.photo_style import PhotoStyle
    from kerasmodels.models.wgan import WGAN

__all__ = [
    "EBGAN",
    "WGAN",
    "ClosedFormMatting",
    "CycleGAN",
    "DeepLab",
    "DeformableDetector",
    "DeformableNet",
    "DilatedNet",
    "DiscoGAN",
    "FastStyle",
    "FeaturePatches",
    "FullyConnectedCRF",
    "NeuralStyle",
    "PhotoStyle",
]

_MODULES = {
    "ClosedFormMatting": "closed_form_matting",
    "CycleGAN": "cyclegan",
    "DeepLab": "deeplab",
    "DeformableDetector": "deformable_detector",
    "DeformableNet": "deformable_net",
    "DilatedNet": "dilated_net",
    "DiscoGAN": "discogan",
    "EBGAN": "ebgan",
    "FastStyle": "fast_style",
    "FeaturePatches": "feature_patches",
    "FullyConnectedCRF": "dense_crf",
    "NeuralStyle": "neural_style",
    "PhotoStyle": "photo_style",
    "WGAN": "wgan",
}


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}. Public names: {', '.join(__all__)}")
