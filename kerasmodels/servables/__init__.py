"""What leaves the building, by kind: factories of `Servable`s with their example inputs; `served` calls one."""

import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from kerasmodels import registry
from kerasmodels.errors import unknown_name
from kerasmodels.servables.examples import example_images
from kerasmodels.servables.generate import generate
from kerasmodels.servables.images import image_to_image, upscaling
from kerasmodels.servables.keras_model import PREPROCESSING, of_keras_model
from kerasmodels.servables.labels import image_to_labels
from kerasmodels.servables.text import encoder_decoder

__all__ = [
    "PREPROCESSING",
    "encoder_decoder",
    "example_images",
    "generate",
    "image_to_image",
    "image_to_labels",
    "of_keras_model",
    "served",
    "upscaling",
]

_compiled: "weakref.WeakKeyDictionary[Any, dict[str, Any]]" = weakref.WeakKeyDictionary()


def served(model: Any, name: str) -> "Callable[..., dict[str, np.ndarray]]":
    """A servable of a trained model as a function of arrays, compiled once for all sizes.

    Args:
        model: of one of the families.
        name: the servable's.

    Returns:
        One array for each input, by its name and with its batch axis -> outputs by name.

    Raises:
        UsageError: the model has no such servable.
    """
    calls = _compiled.setdefault(model, {})
    if name not in calls:
        servables = registry.family(model.family_name).servables(model)
        if name not in servables:
            raise unknown_name(f"servable of {model.family_name}", name, servables)
        specs = servables[name].inputs
        shapes = [tf.TensorSpec([d if isinstance(d, int) else None for d in s.shape], s.dtype, s.name) for s in specs]
        call, names = servables[name].call, [spec.name for spec in specs]
        compiled = tf.function(
            lambda *given: call(**dict(zip(names, given, strict=True))), input_signature=shapes, autograph=False
        )
        calls[name] = lambda **arrays: {
            key: value.numpy() for key, value in compiled(*(arrays[each] for each in names)).items()
        }
    return calls[name]
