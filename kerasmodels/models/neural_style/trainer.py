"""The picture as a model, ready for `fit` and `optimizers.minimize`."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import keras
import numpy as np

from kerasmodels import registry
from kerasmodels.data import resized
from kerasmodels.data.colour import with_colours_of
from kerasmodels.family import Datasets, config_to_dict
from kerasmodels.models.neural_style.config import TERMS, Config
from kerasmodels.models.neural_style.objective import StyleTransfer, content_at, network, read_pictures
from kerasmodels.training.picture import PictureModel, step_numbers, to_uint8


@keras.saving.register_keras_serializable("kerasmodels")
class NeuralStyle(PictureModel):
    """The picture. Compile it with a `StyleTransfer`; before that it shows white noise.

    Args:
        config: a `NeuralStyle.Config` (or its values as a dict).

    Shapes:
        anything -> (1, H, W, 3), RGB 0-255, not clipped.

    Example:
        >>> import kerasmodels as km
        >>> tuple(km.models.NeuralStyle(km.models.NeuralStyle.Config(height=48, width=64))(None).shape)
        (1, 48, 64, 3)
    """

    Config: TypeAlias = Config
    family_name = "neural_style"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, **kwargs: Any):
        config = (
            config if isinstance(config, Config) else registry.family("neural_style").config_from_dict(config or {})
        )
        assert isinstance(config, Config)
        config.validate()
        super().__init__(*config.shape, TERMS, **{"name": "neural_style", "dtype": config.precision, **kwargs})
        self.config = config
        self.picture.show(np.random.default_rng(config.seed).uniform(0, 255, (*config.shape, 3)))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config)}


def build(config: Config) -> NeuralStyle:
    """The model with Adam and the objective of the config's pictures, showing what it is to start with."""
    config.validate()
    pictures = read_pictures(config)
    model = NeuralStyle(config)
    if config.start == "content":
        model.picture.show(pictures.content)
    elif config.start == "style":
        model.picture.show(resized(pictures.styles[0], *config.shape))
    objective = StyleTransfer(
        config,
        network(config, config.precision),
        pictures.content,
        pictures.styles,
        pictures.masks,
        pictures.style_masks,
    )
    # Gradients of a mean over a large picture are as small as Adam's usual epsilon, which would then damp the steps.
    adam = keras.optimizers.Adam(float(config.learning_rate), epsilon=1e-12)
    # XLA makes convolutions slower on CPUs.
    model.compile(adam, objective, jit_compile=False)
    return model


def datasets(config: Config, start: int = 0) -> Datasets:
    return Datasets(train=step_numbers(start))


def finish(config: Config) -> Callable[[np.ndarray], np.ndarray]:
    """What becomes of the pixels before they are a picture: with `colours="luminance"`, the content's colours."""

    def coloured(pixels: np.ndarray) -> np.ndarray:
        return to_uint8(with_colours_of(pixels, content_at(config, *pixels.shape[:2])))

    return coloured if config.colours == "luminance" else to_uint8


def preview(model: NeuralStyle, config: Config) -> dict[str, np.ndarray]:
    return {"picture": finish(config)(model.pixels())}
