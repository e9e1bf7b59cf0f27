"""Servables that take a picture and label each of its pixels."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import tensorflow as tf

from kerasmodels.data.segmentation import voc_palette
from kerasmodels.family import Servable, TensorSpec
from kerasmodels.layers import DenseCRF
from kerasmodels.servables.examples import example_shapes

_SMALLEST = 1e-5
"""Probabilities below are raised to it before their logarithm is taken, as pydensecrf does."""


_UNDECIDED = (
    "where two labels are equally likely and the picture says nothing, each iteration of the CRF multiplies the "
    "network's rounding, to about a thousandfold in all, and a probability may differ by some thousandths."
)


def image_to_labels(
    model: keras.Model,
    probabilities: Callable[[Any], Any],
    classes: int,
    names: Sequence[str],
    crf: Mapping[str, Any],
) -> dict[str, Servable]:
    """Two servables: `segment`, and `segment_crf` with a CRF behind it.

    Args:
        model: whose variables `probabilities` reads.
        probabilities: pictures (N, H, W, 3) uint8 of any size -> of each pixel's labels (N, H, W, classes) float32.
        classes: how many labels there are.
        names: what they mean, for the specs; may be empty.
        crf: arguments of `layers.DenseCRF`, which is served in its window form.
    """
    refine = DenseCRF(**crf, method="window")

    def outputs(image: tf.Tensor, found: tf.Tensor) -> dict[str, tf.Tensor]:
        labels = tf.argmax(found, axis=3, output_type=tf.int32)
        return {"labels": labels, "overlay": _painted(image, labels), "probabilities": found}

    def segment(image: tf.Tensor) -> dict[str, tf.Tensor]:
        return outputs(image, probabilities(image))

    def segment_crf(image: tf.Tensor) -> dict[str, tf.Tensor]:
        logits = tf.math.log(tf.maximum(probabilities(image), _SMALLEST))
        return outputs(image, tf.nn.softmax(refine([logits, tf.cast(image, tf.float32)])))

    shape = ("batch", "height", "width")
    names = tuple(names)
    listed = ", ".join(f"{number} {name}" for number, name in enumerate(names))
    meaning = f": {listed}" if listed else ""
    shared: dict[str, Any] = {
        "model": model,
        "inputs": (TensorSpec("image", (*shape, 3), "uint8", "RGB pictures, 0-255", "image"),),
        "outputs": (
            TensorSpec(
                "labels", shape, "int32", f"the likeliest of {classes} labels of each pixel{meaning}", classes=names
            ),
            TensorSpec(
                "overlay",
                (*shape, 3),
                "uint8",
                "the pictures with PASCAL VOC's colors of the labels over them",
                "image",
                follows="labels",
            ),
            TensorSpec("probabilities", (*shape, classes), "float32", "of each label, 0-1", atol=1e-3, classes=names),
        ),
        "example": example_shapes,
        "dims": {"batch": 1, "height": 240, "width": 320},
        "check_dims": ({"batch": 1, "height": 97, "width": 130}, {"batch": 2, "height": 64, "width": 128}),
    }
    reach = (2 * refine.radius + 1) * refine.stride
    return {
        "segment": Servable(call=segment, doc="what each pixel shows", **shared),
        "segment_crf": Servable(
            call=segment_crf,
            doc=f"what each pixel shows, moved onto the picture's edges by a CRF in a window of {reach} pixels",
            unequal=dict.fromkeys(("flat", "noise", "two-valued"), _UNDECIDED),
            **shared,
        ),
    }


def _painted(image: Any, labels: Any, opacity: float = 0.55) -> Any:
    """Pictures (N, H, W, 3) uint8 with PASCAL VOC's colors of their labels (N, H, W) over them, uint8."""
    colors = tf.gather(tf.constant(voc_palette(), tf.float32), labels)
    mixed = (1 - opacity) * tf.cast(image, tf.float32) + opacity * colors
    return tf.cast(tf.round(mixed), tf.uint8)
