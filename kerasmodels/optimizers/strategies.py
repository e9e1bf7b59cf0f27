"""What is done around an optimizer: averaging, handing over, pretraining, continuation, curricula. All work with `fit`.

Reference:
    Goodfellow, Bengio, Courville: Deep Learning, sections 8.7.3 (Polyak averaging), 8.7.4 (greedy supervised
    pretraining) and 8.7.6 (continuation and curriculum learning).
"""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.errors import UsageError
from kerasmodels.optimizers.minimize import MinimizeResult, minimize


class PolyakAveraging(keras.callbacks.Callback):
    """Keeps the uniform mean of the weights after each step; the model ends with it, and is validated with it.

    Keras' `use_ema` is the exponential mean; this is the one of Polyak and Ruppert. With `steps_per_execution`, the
    weights after each execution are averaged.

    Args:
        start: steps before the mean begins.

    Attributes:
        count: how many weights are in the mean.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("sgd", "mse")
        >>> x = np.zeros((8, 3), "float32")
        >>> history = model.fit(x, x[:, :1], callbacks=[PolyakAveraging()], verbose=0)

    Reference:
        Polyak, Juditsky 1992.
    """

    def __init__(self, start: int = 0):
        super().__init__()
        if start < 0:
            raise UsageError(f"start must not be negative. Received: start={start}.")
        self.start, self.count, self._steps = start, 0, 0
        self._means: list[tf.Variable] = []
        self._swapped = False

    def on_train_begin(self, logs: Any = None) -> None:
        if not self._means:
            held = self.model.trainable_variables
            self._means = [tf.Variable(tf.zeros(v.shape, v.dtype), trainable=False) for v in held]
            self._add = tf.function(self._add_to_means, autograph=False)

    def _add_to_means(self, count: tf.Tensor) -> None:
        for mean, variable in zip(self._means, self.model.trainable_variables, strict=True):
            mean.assign_add((tf.convert_to_tensor(variable.value) - mean) / tf.cast(count, mean.dtype))

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self._steps += 1
        if self._steps > self.start:
            self.count += 1
            self._add(tf.constant(self.count))

    def on_test_begin(self, logs: Any = None) -> None:
        self.swap()

    def on_test_end(self, logs: Any = None) -> None:
        self.swap()

    def on_train_end(self, logs: Any = None) -> None:
        self.swap()
        # The mean is the model's now; a further `fit` begins one of its own.
        self._means, self.count, self._steps = [], 0, 0

    def swap(self) -> None:
        """Exchange the model's weights and their mean; nothing is done while there is no mean."""
        if self.count:
            for mean, variable in zip(self._means, self.model.trainable_variables, strict=True):
                kept = tf.identity(variable.value)
                variable.assign(mean)
                mean.assign(kept)


class HandOver(keras.callbacks.Callback):
    """When `fit` ends, a full-batch method goes on from there: Adam first, L-BFGS for the rest.

    Together with `keras.callbacks.EarlyStopping(monitor="loss")` the moment is that at which Adam no longer helps.

    Args:
        data: `(x, y)`, one batch that fits into memory, as `minimize` takes it.
        method: of `minimize`.
        **options: of `minimize`.

    Attributes:
        result: the `MinimizeResult`, once `fit` has ended.

    Example:
        >>> model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])
        >>> model.compile("adam", "mse")
        >>> x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
        >>> then = HandOver((x, x.sum(1, keepdims=True)), tolerance=1e-4)
        >>> history = model.fit(x, x.sum(1), callbacks=[then], verbose=0)
        >>> then.result.converged
        True
    """

    def __init__(self, data: Any, method: str = "lbfgs", **options: Any):
        super().__init__()
        self.data, self.method, self.options = data, method, options
        self.result: MinimizeResult | None = None

    def on_train_end(self, logs: Any = None) -> None:
        self.result = minimize(self.model, self.data, self.method, **self.options)


class Continuation(keras.callbacks.Callback):
    """Sets a variable that the objective depends on at the beginning of each epoch: from an easy objective to the real.

    Args:
        variable: a `keras.Variable` or `tf.Variable` that the loss reads, such as the width of a blur.
        schedule: epoch, from 0 on -> its value. The last one should be that of the real objective.

    Example:
        >>> blur = keras.Variable(1.0)
        >>> fading = Continuation(blur, lambda epoch: 0.5**epoch)
    """

    def __init__(self, variable: Any, schedule: Callable[[int], float]):
        super().__init__()
        self.variable, self.schedule = variable, schedule

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        self.variable.assign(self.schedule(epoch))


class Curriculum(keras.utils.PyDataset):
    """Batches for `fit` that are drawn from the easiest examples at first, and from all of them in the end.

    Args:
        x, y: arrays of N examples.
        difficulty: (N,), larger is harder.
        batch: examples in a batch, drawn at random without repetition within an epoch as far as they reach.
        epochs: after so many, all examples are in.
        share: of the easiest examples that the first epoch draws from, in (0, 1]. It grows linearly.
        seed: of the drawing.

    Example:
        >>> x = np.arange(100.0)[:, None]
        >>> easy = Curriculum(x, x[:, 0], difficulty=x[:, 0], batch=10, epochs=5, share=0.2)
        >>> float(easy[0][0].max()) < 20
        True
    """

    def __init__(
        self, x: Any, y: Any, difficulty: Any, batch: int = 32, epochs: int = 10, share: float = 0.2, seed: int = 0
    ):
        super().__init__()
        self.x, self.y = np.asarray(x), np.asarray(y)
        self.order = np.argsort(np.asarray(difficulty), kind="stable")
        if not len(self.x) == len(self.y) == len(self.order) > 0:
            raise UsageError(
                "expected as many examples, targets and difficulties. "
                f"Received: {len(self.x)}, {len(self.y)}, {len(self.order)}."
            )
        if not (0 < share <= 1 and batch >= 1 and epochs >= 1):
            raise UsageError(
                "expected share in (0, 1], batch and epochs of at least 1. "
                f"Received: share={share}, batch={batch}, epochs={epochs}."
            )
        self.batch, self.epochs, self.share, self.seed = batch, epochs, share, seed
        self.epoch, self._begun = 0, False
        self._draw()

    def _draw(self) -> None:
        grown = min(1.0, self.share + (1 - self.share) * self.epoch / max(1, self.epochs - 1))
        able = self.order[: max(1, round(grown * len(self.order)))]
        random = np.random.default_rng((self.seed, self.epoch))
        rounds = -(-len(self.order) // len(able))
        self.chosen = np.concatenate([random.permutation(able) for _ in range(rounds)])[: len(self.order)]

    def __len__(self) -> int:
        return -(-len(self.order) // self.batch)

    def __getitem__(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        rows = self.chosen[index * self.batch : (index + 1) * self.batch]
        return self.x[rows], self.y[rows]

    def on_epoch_begin(self) -> None:
        # Keras calls `on_epoch_end` once before the first epoch, too.
        self.epoch += self._begun
        self._begun = True
        self._draw()


def pretrain_layers(
    layers: Sequence[keras.Layer],
    head: Callable[[], keras.Layer],
    x: Any,
    y: Any,
    *,
    optimizer: str = "adam",
    loss: Any = "mse",
    **fit: Any,
) -> keras.Sequential:
    """Greedy supervised pretraining: each layer is trained below a head of its own, with those before it held fixed.

    Args:
        layers: the hidden layers, from the input on.
        head: makes a fresh output layer.
        x, y: as `fit` takes them, arrays.
        optimizer: name of the optimizer of each training.
        loss: of each training.
        **fit: further arguments of `fit`, such as epochs.

    Returns:
        All layers and the last head, trainable and compiled: ready for a `fit` of the whole.

    Example:
        >>> x = np.random.default_rng(0).normal(size=(32, 3)).astype("float32")
        >>> hidden = [keras.layers.Dense(4, "tanh") for _ in range(2)]
        >>> model = pretrain_layers(hidden, lambda: keras.layers.Dense(1), x, x[:, :1], verbose=0)
        >>> len(model.layers), model.layers[0].trainable
        (3, True)

    Reference:
        Bengio, Lamblin, Popovici, Larochelle 2007; Goodfellow, Bengio, Courville 2016, section 8.7.4.
    """
    if not layers:
        raise UsageError("expected at least one layer. Received: none.")
    for depth in range(1, len(layers) + 1):
        model = keras.Sequential([keras.Input(np.shape(x)[1:]), *layers[:depth], head()])
        for number, layer in enumerate(layers[:depth], 1):
            layer.trainable = number == depth
        model.compile(keras.optimizers.get(optimizer), loss)
        model.fit(x, y, **fit)
    for layer in layers:
        layer.trainable = True
    model.compile(keras.optimizers.get(optimizer), loss)
    return model
