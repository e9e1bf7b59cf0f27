"""`Translator` and `TranslatorConfig`: what models that translate between two domains of pictures share."""

from pathlib import Path
from typing import Any, ClassVar

import tensorflow as tf

from kerasmodels.config import TrainingConfig
from kerasmodels.data import unpaired
from kerasmodels.family import Servable
from kerasmodels.ops.pictures import to_rgb, to_unit
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables import image_to_image

DIRECTIONS = ("a_to_b", "b_to_a")
"""Names of the two generators, and of their servables."""


class TranslatorConfig(TrainingConfig):
    """Fields of every translator."""

    a: Path | None = None
    """A folder of pictures of domain A."""
    b: Path | None = None
    """A folder of pictures of domain B; nothing needs to match."""
    size: int = 256
    """Side of the training crops, pixels."""


class Translator(PaperModel):
    """A model with a generator for each direction, `a_to_b` and `b_to_a`. Called, it translates from A to B.

    Its networks' pictures are of -1 to 1; a subclass whose are not says so by `to_network` and `from_network`.
    """

    multiple: ClassVar[int]
    """What heights and widths that the generators take are multiples of."""

    def to_network(self, pictures: Any) -> Any:
        """RGB 0-255 -> what the networks take, float32."""
        return to_unit(pictures)

    def from_network(self, pictures: Any) -> Any:
        """What the generators give -> RGB 0-255."""
        return to_rgb(pictures)

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.translated("a_to_b", inputs, training)

    def translated(self, direction: str, pictures: Any, training: bool | None = None) -> Any:
        """RGB 0-255 (N, H, W, 3), in one of `DIRECTIONS`; H and W as the networks take them."""
        return self.from_network(getattr(self, direction)(self.to_network(pictures), training=training))

    def servables(self) -> dict[str, Servable]:
        """One for each direction; heights and widths are padded to what the generators take, and cut again."""

        def servable(direction: str) -> Servable:
            source, target = direction.upper().split("_TO_")
            network = getattr(self, direction)
            return image_to_image(
                network,
                lambda image: self.translated(direction, image, training=False),
                output="translated",
                doc=f"translates pictures of domain {source} into domain {target}",
                multiple=self.multiple,
                side=network.input_shape[1],
                size=self.config.size,
                what=(f"RGB pictures of domain {source}", f"the same pictures in domain {target}"),
            )

        return {direction: servable(direction) for direction in DIRECTIONS}


def unpaired_crops(config: TranslatorConfig, start: int) -> tf.data.Dataset:
    """Batches (a, b) of random crops (batch, size, size, 3), RGB 0-255, in which nothing needs to match.

    Raises:
        UsageError, DataError: see `data.unpaired`.
    """
    return unpaired(config.a, config.b, config.size, config.batch, config.seed, start)
