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


def share_of_labels(labels: Any, ignore: int) -> Any:
    """How many of this device's pixels count, in units of an equal share of the batch's; 1 on one device.

    What a device's mean over the pixels that count is multiplied with: it may have more or fewer of them than others.
    """
    if count() == 1:
        return 1.0
    counted = tf.reduce_sum(tf.cast(tf.not_equal(labels, tf.cast(ignore, labels.dtype)), tf.float32))
    return tf.math.divide_no_nan(counted, mean_over_devices(counted))


def not_empty(data: Any) -> Any:
    """A step's data, which there is: the means of no examples would be NaN, and some operators fail without them.

    Raises:
        tf.errors.InvalidArgumentError: there is none on this device.
    """
    if count() == 1:
        return data
    there = tf.debugging.assert_positive(
        tf.shape(keras.tree.flatten(data)[0])[0],
        f"expected examples for each of {count()} devices. Received: too small a batch, maybe the last. "
        f"Use batches of a multiple of {count()}, and drop the remainder.",
    )
    # Eagerly it has raised by now.
    with tf.control_dependencies([there] if there is not None else []):
        return keras.tree.map_structure(tf.identity, data)


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
