"""Losses, as `keras.losses.Loss` and as the functions they are made of. Written in `keras.ops`."""

from kerasmodels.losses.augmented_style import AugmentedStyle, masks_at_taps
from kerasmodels.losses.matting import MattingEnergy, MattingLaplacian, laplacian_product, matting_laplacian_matrix
from kerasmodels.losses.perceptual import Content, GramStyle, Perceptual, content_distance, gram_matrix, style_distance
from kerasmodels.losses.total_variation import TotalVariation, total_variation

__all__ = [
    "AugmentedStyle",
    "Content",
    "GramStyle",
    "MattingEnergy",
    "MattingLaplacian",
    "Perceptual",
    "TotalVariation",
    "content_distance",
    "gram_matrix",
    "laplacian_product",
    "masks_at_taps",
    "matting_laplacian_matrix",
    "style_distance",
    "total_variation",
]
