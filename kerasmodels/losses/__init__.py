"""Losses, as `keras.losses.Loss` and as the functions they are made of. Written in `keras.ops`."""

from kerasmodels.losses.adversarial import (
    LEAST_SQUARES,
    STANDARD,
    WASSERSTEIN,
    AdversarialLosses,
    clip_weights,
    cycle_consistency,
    energy,
    feature_matching,
    gradient_penalty,
    pulling_away,
)
from kerasmodels.losses.augmented_style import AugmentedStyle, masks_at_taps
from kerasmodels.losses.matting import MattingEnergy, MattingLaplacian, laplacian_product, matting_laplacian_matrix
from kerasmodels.losses.perceptual import Content, GramStyle, Perceptual, content_distance, gram_matrix, style_distance
from kerasmodels.losses.photorealistic import PhotorealisticObjective
from kerasmodels.losses.style_transfer import StyleTransfer
from kerasmodels.losses.total_variation import TotalVariation, total_variation

__all__ = [
    "LEAST_SQUARES",
    "STANDARD",
    "WASSERSTEIN",
    "AdversarialLosses",
    "AugmentedStyle",
    "Content",
    "GramStyle",
    "MattingEnergy",
    "MattingLaplacian",
    "Perceptual",
    "PhotorealisticObjective",
    "StyleTransfer",
    "TotalVariation",
    "clip_weights",
    "content_distance",
    "cycle_consistency",
    "energy",
    "feature_matching",
    "gradient_penalty",
    "gram_matrix",
    "laplacian_product",
    "masks_at_taps",
    "matting_laplacian_matrix",
    "pulling_away",
    "style_distance",
    "total_variation",
]
