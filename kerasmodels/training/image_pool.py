"""Generated pictures of earlier steps, so that a discriminator does not forget how to tell them."""

from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.errors import DataError


class ImagePool:
    """Pictures go in, and come out again at once or later.

    While it is not full, it keeps what comes in and gives it back. From then on each picture is, with a chance of 1/2,
    exchanged for a random one of those kept, or else given back as it is.

    Its pictures are of the size of the first batch.

    Args:
        size: pictures kept; 0: everything comes back at once.
        seed_generator: where the random numbers come from.

    Raises:
        DataError: when called, pictures of another size, or of one that is not known before they are read.

    Example:
        >>> import keras, tensorflow as tf
        >>> pool = ImagePool(3, keras.random.SeedGenerator(0))
        >>> pictures = tf.ones((4, 2, 2, 1))
        >>> tuple(pool(pictures).shape), int(pool.state()["count"])
        ((4, 2, 2, 1), 3)

    Reference:
        Shrivastava et al. 2017, section 2.3; Zhu et al. 2017, section 4 (50 pictures), as their code does it.
    """

    def __init__(self, size: int, seed_generator: keras.random.SeedGenerator):
        self._size, self._seed_generator = size, seed_generator
        self._kept: Any = None
        self._count: Any = None

    def __call__(self, pictures: Any) -> Any:
        """(N, ...) -> (N, ...), any N."""
        if not self._size:
            return pictures
        shape = tuple(pictures.shape[1:])
        if None in shape or (self._kept is not None and tuple(self._kept.shape[1:]) != shape):
            raise DataError(
                "expected pictures of one size, known before they are read, for the pool of generated ones. "
                f"Received shape: {tuple(pictures.shape)}. Set it with tf.ensure_shape, compile anew for another one, "
                "or train with pool=0."
            )
        self.begin(shape)
        return tf.map_fn(self._exchanged, pictures, parallel_iterations=1)

    def begin(self, shape: tuple[int | None, ...]) -> None:
        """Make room for pictures of a shape without batch, as the first call does.

        A `tf.function` whose first call makes variables is traced twice: called before, it is traced once. Nothing is
        done where a size is not known.
        """
        if self._size and self._kept is None and None not in shape:
            with tf.init_scope():
                self._kept = tf.Variable(tf.zeros((self._size, *shape)), trainable=False)
                self._count = tf.Variable(0, trainable=False)

    def _exchanged(self, picture: tf.Tensor) -> tf.Tensor:
        exchange, which = tf.unstack(keras.random.uniform((2,), seed=self._seed_generator))
        filling = self._count < self._size
        place = tf.where(filling, self._count, tf.cast(which * float(self._size), tf.int32))
        place = tf.minimum(place, self._size - 1)
        keep = filling | (exchange < 0.5)
        old = self._kept[place]
        self._kept.scatter_nd_update([[place]], tf.where(keep, picture, old)[None])
        self._count.assign_add(tf.cast(filling, tf.int32))
        return tf.where(filling | ~keep, picture, old)

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold; nothing before the first batch."""
        return {} if self._kept is None else {"kept": self._kept.numpy(), "count": self._count.numpy()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `state()` back."""
        if state:
            self.begin(state["kept"].shape[1:])
            self._kept.assign(state["kept"])
            self._count.assign(state["count"])
        elif self._kept is not None:
            self._kept.assign(tf.zeros_like(self._kept))
            self._count.assign(0)
