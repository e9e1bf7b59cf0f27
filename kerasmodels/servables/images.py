"""Servables that take a picture and give a picture."""

from collections.abc import Callable, Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec
from kerasmodels.layers.padding import on_multiples
from kerasmodels.servables.examples import example_images


def image_to_image(
    network: keras.Model,
    forward: Callable[[Any], Any],
    *,
    output: str,
    doc: str,
    multiple: int = 1,
    side: int | None = None,
    size: int = 256,
    what: tuple[str, str] = ("RGB pictures", "the same pictures"),
    example: "Callable[[Mapping[str, int], int], dict[str, np.ndarray]] | None" = None,
) -> Servable:
    """Pictures in, pictures of the same size out; uint8 on both sides.

    Args:
        network: whose variables `forward` reads.
        forward: (N, H, W, 3) uint8 -> (N, H, W, 3), 0-255; heights and widths are multiples of `multiple`.
        output: name of the output.
        doc: one line for the model card.
        multiple: other sizes are padded by reflection, and cut again.
        side: the only height and width that the network takes; None for any.
        size: height and width of LiteRT files with a fixed size.
        what: what comes in and what goes out, for the specs.
        example: (dims, seed) -> pictures; `example_images` if left out.
    """

    def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
        made = forward(image) if side is not None else on_multiples(image, multiple, forward)
        return {output: tf.cast(tf.round(tf.clip_by_value(made, 0.0, 255.0)), tf.uint8)}

    shape = ("batch", *(("height", "width") if side is None else (side, side)), 3)
    sizes: tuple[dict[str, int], ...] = (
        {"height": size, "width": size},
        {"height": 49, "width": 66},
        {"height": 64, "width": 40},
    )
    if side is not None:
        sizes = ({}, {}, {})
    given = f"{what[0]}, 0-255"
    return Servable(
        call=call,
        model=network,
        inputs=(TensorSpec("image", shape, "uint8", given, "image"),),
        outputs=(TensorSpec(output, shape, "uint8", f"{what[1]}, RGB 0-255", "image", atol=1),),
        example=example or (lambda dims, seed: example_images({"height": side, "width": side, **dims}, seed)),
        dims={"batch": 1, **sizes[0]},
        check_dims=({"batch": 1, **sizes[1]}, {"batch": 2, **sizes[2]}),
        doc=doc,
    )


def upscaling(network: keras.Model, forward: Callable[[Any], Any], scale: int, side: int = 128) -> Servable:
    """Pictures in, pictures `scale` times as large out; uint8 on both sides.

    Args:
        network: whose variables `forward` reads.
        forward: (N, H, W, 3) float32, 0-255 -> (N, scale H, scale W, 3), 0-255.
        scale: the factor.
        side: height and width of the tile that LiteRT files take.
    """

    def call(image: tf.Tensor) -> dict[str, tf.Tensor]:
        made = forward(tf.cast(image, tf.float32))
        return {"upscaled": tf.cast(tf.round(tf.clip_by_value(made, 0.0, 255.0)), tf.uint8)}

    large = ("batch", "upscaled_height", "upscaled_width", 3)
    return Servable(
        call=call,
        model=network,
        inputs=(TensorSpec("image", ("batch", "height", "width", 3), "uint8", "RGB pictures, 0-255", "image"),),
        outputs=(
            TensorSpec("upscaled", large, "uint8", f"the same pictures, {scale} times as large, RGB", "image", atol=1),
        ),
        example=example_images,
        dims={"batch": 1, "height": side, "width": side},
        check_dims=({"batch": 1, "height": 33, "width": 50}, {"batch": 2, "height": 21, "width": 7}),
        min_psnr={"fp16": 45.0, "dynamic": 35.0, "int8": 30.0},
        doc=f"enlarges pictures {scale} times",
    )
