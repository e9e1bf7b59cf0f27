"""Batches shared by the devices of a `tf.distribute` strategy, so that a step is the one that a single device takes.

Keras adds up the gradients of all devices. So each device's loss must be its part of the whole batch's: where that is a
mean over pictures, a fraction of the device's own mean (`scaled`); where it is a sum over what counts, divided by how
much does, the device's sum by the count of all (`mean_over_devices`). On one device all of these change nothing.

What a model cannot share it says in `one_device`, a text for the user; `compile` then refuses.
"""

from typing import Any

import keras
import tensorflow as tf

from kerasmodels.errors import UsageError


def count() -> int:
    """The devices that share each batch: those of the strategy in whose scope or step this is called, or 1."""
    return tf.distribute.get_strategy().num_replicas_in_sync


def scaled(loss: Any) -> Any:
    """This device's part of a loss that is a mean over the batch, from the mean over its own share."""
    return loss if count() == 1 else loss / count()


def mean_over_devices(value: Any) -> Any:
    """The mean of a tensor over the devices; no gradients flow through it. To be called within a step."""
    return value if count() == 1 else _reduced(tf.distribute.ReduceOp.MEAN, tf.stop_gradient(value))


def sum_over_devices(values: list[Any]) -> list[Any]:
    """The sums over the devices of tensors, such as gradients. To be called within a step."""
    return values if count() == 1 else _reduced(tf.distribute.ReduceOp.SUM, values)


def _reduced(how: Any, value: Any) -> Any:
    context = tf.distribute.get_replica_context()
    # None while Keras looks at a loss's shapes, before the first step.
    return value if context is None else context.all_reduce(how, value)


class SharesBatches:
    """Mixed into a `keras.Model` whose steps devices may share: none of them goes on without pictures.

    The means of no pictures would be NaN, and some operators end the process's work with words about shapes.
    """

    def train_step(self, data: Any) -> Any:
        if count() == 1:
            return super().train_step(data)  # type: ignore[misc]
        there = tf.debugging.assert_positive(
            tf.shape(keras.tree.flatten(data)[0])[0],
            f"expected pictures for each of {count()} devices. Received: too small a batch, maybe the last. "
            f"Use batches of a multiple of {count()}, and drop the remainder.",
        )
        # Eagerly it has raised by now.
        with tf.control_dependencies([there] if there is not None else []):
            data = keras.tree.map_structure(tf.identity, data)
        return super().train_step(data)  # type: ignore[misc]


def check_model(model: keras.Model) -> None:
    """Raise UsageError if there are several devices and the model says why it is trained on one."""
    why = getattr(model, "one_device", "")
    if why and count() > 1:
        raise UsageError(
            f"expected one device for {getattr(model, 'family_name', model.name)}: {why}. "
            f"Received: a strategy with {count()} devices. Train without a strategy, or with one of one device."
        )


def check_batch(batch: int) -> None:
    """Raise UsageError if the devices cannot share the batch equally."""
    over = batch % count()
    if over:
        less, more = batch - over, batch - over + count()
        choice = f"{less} or {more}" if less else f"{more}"
        raise UsageError(
            f"expected a batch that {count()} devices share equally. Received: batch={batch}. "
            f"Choose {choice}, or train on one device."
        )
