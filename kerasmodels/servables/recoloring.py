"""Servables that put local color maps on a photo: those of a run, or those that a stylized picture shows."""

import dataclasses
from collections.abc import Mapping

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec
from kerasmodels.layers import LocalAffineSmoothing, Picture
from kerasmodels.ops.pictures import to_levels
from kerasmodels.servables.examples import example_images
from kerasmodels.servables.images import image_to_image

_FULL = "its color maps are least squares of small differences, too fine for 8 or 16 bits; export it in fp32."


def recoloring(model: keras.Model, photo: Picture, found: Picture) -> dict[str, Servable]:
    """`recolor` for the photo of a run, `smooth` for any photo that something has stylized.

    Args:
        model: which holds both pictures.
        photo: at the size of the optimization, RGB 0-255.
        found: the same in its new colors.
    """
    smoothing = LocalAffineSmoothing()
    pictures = [keras.Input((None, None, 3), name=name) for name in ("photo", "stylized")]
    smoother = keras.Model(pictures, smoothing(pictures), name="smoothing")

    def recolor(image: tf.Tensor) -> tf.Tensor:
        small, colored = (tf.convert_to_tensor(layer.pixels) / 255 for layer in (photo, found))
        static = image.shape[1:3]
        size = list(static) if None not in static else tf.shape(image)[1:3]
        maps = smoothing.maps(small, colored)
        large = {name: x if name == "overall" else tf.image.resize(x, size) for name, x in maps.items()}
        return 255 * smoothing.apply(large, tf.cast(image, tf.float32) / 255)

    def smooth(photo: tf.Tensor, stylized: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"smoothed": to_levels(smoother([tf.cast(x, tf.float32) / 255 for x in (photo, stylized)]))}

    of_the_run = image_to_image(
        model,
        recolor,
        output="recolored",
        doc="gives a photo, at its full size, the colors that were found for it at a smaller one",
        what=("the photo of the run", "the photo in its new colors"),
    )

    def picture_of(name: str, doc: str, atol: float = 1e-4) -> TensorSpec:
        return TensorSpec(name, ("batch", "height", "width", 3), "uint8", doc, "image", atol=atol)

    return {
        "recolor": dataclasses.replace(
            of_the_run,
            without={(form, bits): _FULL for form in ("litert", "onnx") for bits in ("fp16", "dynamic", "int8")},
        ),
        "smooth": Servable(
            call=smooth,
            model=smoother,
            inputs=(
                picture_of("photo", "photos, RGB 0-255"),
                picture_of("stylized", "the same photos, stylized by whatever means, RGB 0-255"),
            ),
            outputs=(picture_of("smoothed", "the photos in the stylized pictures' colors, RGB 0-255", 1),),
            example=_example_pair,
            dims=of_the_run.dims,
            check_dims=of_the_run.check_dims,
            doc="turns a stylized photo back into a photo: local color maps, applied to the original",
        ),
    }


def _example_pair(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Photos, and the same with other colors and brush strokes."""
    photo = example_images(dims, seed)["image"]
    random = np.random.default_rng([seed, 1])
    colors = np.eye(3) * random.uniform(0.4, 1.0, 3) + random.uniform(-0.1, 0.2, (3, 3))
    strokes = 12 * np.sin(np.arange(dims["width"]) / 2)[None, None, :, None]
    stylized = photo @ colors + strokes + random.normal(0, 6, photo.shape)
    return {"photo": photo, "stylized": np.clip(np.rint(stylized), 0, 255).astype("uint8")}
