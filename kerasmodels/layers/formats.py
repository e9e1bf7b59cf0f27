"""Where layers have their channels."""

from collections.abc import Iterator
from contextlib import contextmanager

import keras


@contextmanager
def channels_last() -> Iterator[None]:
    """Layers made in the block have their channels last, as all pictures here, whatever the user's keras.json says."""
    before = keras.config.image_data_format()
    keras.config.set_image_data_format("channels_last")
    try:
        yield
    finally:
        keras.config.set_image_data_format(before)
