"""Servables that make something of random numbers."""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec


def generate(network: keras.Model, to_rgb: Callable[[Any], Any], doc: str) -> Servable:
    """Standard normal numbers in, pictures out.

    Args:
        network: (N, latent) -> (N, H, W, C).
        to_rgb: takes the network's output to 0-255.
        doc: one line for the model card.
    """
    length = network.input_shape[-1]

    def call(latent: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"pictures": tf.cast(tf.round(to_rgb(network(latent, training=False))), tf.uint8)}

    return Servable(
        call=call,
        model=network,
        inputs=(TensorSpec("latent", ("batch", length), "float32", "standard normal numbers", extremes=(-4, 0, 4)),),
        outputs=(
            TensorSpec(
                "pictures",
                ("batch", *network.output_shape[1:]),
                "uint8",
                "generated pictures, 0-255",
                "image" if network.output_shape[-1] == 3 else "tensor",
                atol=1,
            ),
        ),
        example=lambda dims, seed: {
            "latent": np.random.default_rng(seed).standard_normal((dims["batch"], length), "float32")
        },
        dims={"batch": 1},
        check_dims=({"batch": 3},),
        doc=doc,
    )
