"""A picture as the weight of a layer: what is trained where a paper optimizes pixels."""

from typing import Any

import keras
import numpy as np
from keras import ops


@keras.saving.register_keras_serializable("kerasmodels")
class Picture(keras.layers.Layer):
    """Holds one picture as its only weight and answers with it, whatever it is given.

    The weight `pixels` is float32 under every dtype policy: steps of an optimizer are smaller than bfloat16's grain.
    Values are not clipped, because clipping would hide the direction of the gradient from the optimizer.

    Args:
        height, width: of the picture, pixels.
        pixels: what it shows at first, (height, width, 3) or (1, height, width, 3), RGB 0-255; None for mid-gray. It is
            no part of the config: a loaded layer shows its saved weight.

    Shapes:
        anything -> (1, height, width, 3), RGB 0-255.

    Raises:
        ValueError: a size below 1, or pixels of another shape.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> layer = km.layers.Picture(4, 6, np.zeros((4, 6, 3)))
        >>> tuple(layer(np.zeros((1, 1))).shape)
        (1, 4, 6, 3)

    Reference:
        Gatys, Ecker, Bethge 2016, section 2.
    """

    def __init__(self, height: int, width: int, pixels: Any = None, **kwargs: Any):
        super().__init__(**{"dtype": "float32", "name": "picture", **kwargs})
        if not (isinstance(height, int) and isinstance(width, int) and min(height, width) >= 1):
            raise ValueError(f"height and width must be ints >= 1. Received: height={height!r}, width={width!r}")
        self.height, self.width = height, width
        self.pixels = self.add_weight(
            shape=(1, height, width, 3),
            initializer=keras.initializers.Constant(127.5),
            dtype="float32",
            autocast=False,
            name="pixels",
        )
        self.built = True
        if pixels is not None:
            self.show(pixels)

    def show(self, pixels: Any) -> None:
        """Replace the picture: (height, width, 3) or (1, height, width, 3), RGB 0-255.

        Raises:
            ValueError: another shape.
        """
        array = np.asarray(pixels, "float32")
        if array.shape not in (self.pixels.shape, self.pixels.shape[1:]):
            raise ValueError(f"pixels must be of shape {self.pixels.shape[1:]}. Received shape: {array.shape}")
        self.pixels.assign(np.reshape(array, self.pixels.shape))

    def call(self, inputs: Any = None) -> Any:
        return ops.convert_to_tensor(self.pixels)

    def compute_output_shape(self, input_shape: Any = None) -> tuple[int, int, int, int]:
        return (1, self.height, self.width, 3)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "height": self.height, "width": self.width}
