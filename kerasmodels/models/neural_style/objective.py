"""The objective: what is read from files, and how far a picture is from it."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras
import numpy as np
from keras import ops

from kerasmodels import backbones
from kerasmodels.data import read_drawing, read_image, resized
from kerasmodels.data.colour import luminance, match_colours, match_luminance
from kerasmodels.errors import DataError, UsageError
from kerasmodels.losses import Content, GramStyle, style_distance, total_variation
from kerasmodels.models.neural_style.config import Config, Look, smallest_side


class StyleTransfer:
    """The objective: weighted terms of how far a picture is from the content's content and the paintings' style.

    Everything that does not depend on the picture is computed here, once.

    Args:
        look: layers, weights and formulation.
        vgg: a network with the look's layers as taps.
        content: (H, W, 3), RGB 0-255.
        styles: the paintings, (h, w, 3), RGB 0-255, each of its own size.
        masks: one (H, W), 0-1, for each painting; or none at all.
        style_masks: one (h, w), 0-1, for each painting; or none at all.

    Reference:
        Gatys et al. 2016, equations 1 to 7.
    """

    def __init__(
        self,
        look: Look,
        vgg: keras.Model,
        content: np.ndarray,
        styles: Sequence[np.ndarray],
        masks: Sequence[np.ndarray | None] = (),
        style_masks: Sequence[np.ndarray | None] = (),
    ):
        self._vgg = vgg
        self.tv_weight = look.tv_weight
        features = vgg(np.asarray(content, "float32")[None])
        self.target = {tap: ops.stop_gradient(features[tap]) for tap in look.content_layers}
        self.content = Content(
            vgg,
            {
                tap: look.content_weight * w * _content_factor(look.formulation, self.target[tap])
                for tap, w in layer_weights(look.content_layers, look.content_layer_weights).items()
            },
        )
        shares = np.asarray(look.style_weights or [1.0] * len(styles)) / sum(look.style_weights or [len(styles)])
        each = layer_weights(look.style_layers, look.style_layer_weights)
        self.styles = []
        for i, (style, share) in enumerate(zip(styles, shares, strict=True)):
            loss = GramStyle(vgg, style, each, style_masks[i] if style_masks else None, masks[i] if masks else None)
            loss.weights = {
                tap: float(look.style_weight * share * w * _style_factor(look.formulation, loss.targets[tap]))
                for tap, w in each.items()
            }
            self.styles.append(loss)

    def terms(self, picture: Any) -> dict[str, Any]:
        """(1, H, W, 3) RGB 0-255 -> the weighted terms, name -> (1,)."""
        features = self._vgg(picture)
        found = {
            "content": self.content.from_features(self.target, features),
            "style": sum(style.from_features(features) for style in self.styles),
        }
        if self.tv_weight:
            found["total_variation"] = self.tv_weight / float(np.prod(picture.shape[1:])) * total_variation(picture)
        return found


def _content_factor(formulation: str, target: Any) -> float:
    """What `losses.content_distance`, a mean of squares, is multiplied by."""
    if formulation == "gatys":
        return float(np.prod(target.shape)) / 2
    return 0.25 if formulation == "course" else 1 / _positive(ops.mean(ops.square(ops.cast(target, "float32"))))


def _style_factor(formulation: str, target: Any) -> float:
    """What `losses.style_distance` is multiplied by. C^2 / 4 makes it E_l and J_s, which are the same."""
    channels = target.shape[-1]
    return 1 / _positive(style_distance(0.0, target)[0]) if formulation == "relative" else channels**2 / 4


def _positive(value: Any) -> float:
    return max(float(value), 1e-12)


def layer_weights(layers: Sequence[str], given: Sequence[float]) -> dict[str, float]:
    return dict(zip(layers, given or [1 / len(layers)] * len(layers), strict=True))


def network(look: Look, precision: str = "float32") -> keras.Model:
    """The network that looks, with the layers of the objective as taps.

    Raises:
        UsageError: an unknown layer.
        WeightsError: its weights are missing.
    """
    taps = dict.fromkeys((*look.content_layers, *look.style_layers))
    source: str | None = look.vgg
    if look.vgg == "auto" and look.network == "vgg19":
        source = "normalised"
    build = backbones.VGG19 if look.network == "vgg19" else backbones.VGG16
    return build(
        taps,
        weights=None if source == "random" else source,
        pooling=look.pooling,
        dtype=precision.removeprefix("mixed_"),
    )


@dataclass(frozen=True)
class Pictures:
    """What the objective is made of: content (H, W, 3), styles (h, w, 3), float, 0-255, and masks, 0-1."""

    content: np.ndarray
    styles: tuple[np.ndarray, ...]
    masks: tuple[np.ndarray, ...]
    style_masks: tuple[np.ndarray, ...]


def read_pictures(config: Config) -> Pictures:
    """The pictures of a config at their sizes, their colours treated as the config says."""
    if config.content is None:
        raise UsageError("expected a photo to paint: --content PATH. Received: none.")
    if not config.style:
        raise UsageError("expected a painting: --style PATH. Received: none.")
    content = content_at(config, *config.shape)
    styles, style_masks = [], []
    for i, path in enumerate(config.style):
        painting = read_image(path)
        scale = config.size * config.style_scale / max(painting.shape[:2])
        height, width = (round(side * scale) for side in painting.shape[:2])
        if min(height, width) < smallest_side(config):
            raise DataError(
                f"expected paintings of at least {smallest_side(config)} pixels each way. Received: {path}, which is "
                f"{width} x {height} at style scale {config.style_scale:g}. Raise the scale or the size."
            )
        if config.style_masks:
            style_masks.append(_mask(config.style_masks[i], painting.shape[:2], (height, width), path))
        styles.append(np.clip(resized(painting, height, width), 0, 255))
    masks = tuple(_mask(path, content.shape[:2], content.shape[:2], config.content) for path in config.masks)
    if config.colours == "luminance":
        styles = [match_luminance(style, content) for style in styles]
        content = luminance(content)
    elif config.colours == "match":
        styles = [match_colours(style, content) for style in styles]
    return Pictures(content, tuple(styles), masks, tuple(style_masks))


def content_at(config: Config, height: int, width: int) -> np.ndarray:
    assert config.content is not None
    return np.clip(resized(read_image(config.content, 2 * max(height, width)), height, width), 0, 255)


def _mask(path: Path, of: tuple[int, ...], size: tuple[int, ...], whose: Path) -> np.ndarray:
    """A mask at the size of what it masks. It may be larger or smaller, but not of another shape."""
    mask = np.mean(read_drawing(path), axis=-1) / 255
    if abs(np.log(mask.shape[0] / mask.shape[1] * of[1] / of[0])) > 0.03:
        raise DataError(
            f"expected a mask of the shape of {whose}, {of[1]} x {of[0]} or a multiple. Received: {path}, which is "
            f"{mask.shape[1]} x {mask.shape[0]}."
        )
    mask = np.clip(resized(mask, *size), 0, 1)
    if mask.max() < 0.5:
        raise DataError(f"expected a mask with some white in it. Received: {path}, which has none.")
    return mask
