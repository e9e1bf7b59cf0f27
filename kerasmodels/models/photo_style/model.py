"""The picture as a model's weight, its training, and what is served of it."""

from collections.abc import Mapping
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from kerasmodels import registry
from kerasmodels.family import Datasets, Servable, TensorSpec, config_to_dict
from kerasmodels.layers import LocalAffineSmoothing, Picture
from kerasmodels.models.photo_style.config import Config
from kerasmodels.models.photo_style.objective import PhotorealisticObjective
from kerasmodels.models.photo_style.pair import Pair, colour_matched, loss_network, read_pair
from kerasmodels.training.picture import PictureModel, Stage, step_numbers, to_uint8


@keras.saving.register_keras_serializable("kerasmodels")
class PhotoStyle(PictureModel):
    """The picture as the only trainable weight, beside the photo it is made from.

    Args:
        config: a `PhotoStyle.Config` (or its values as a dict).
        precision: dtype policy of the objective's network.

    Shapes:
        step numbers (1, 1) -> (1, height, width, 3) RGB 0-255, not clipped.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.PhotoStyle(km.models.PhotoStyle.Config(height=24, width=32))
        >>> tuple(model(np.zeros((1, 1), "float32")).shape)
        (1, 24, 32, 3)
    """

    Config: TypeAlias = Config
    family_name = "photo_style"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        family = registry.family(self.family_name)
        own = config if isinstance(config, Config) else family.config_from_dict(config or {})
        own.validate()
        terms = ("content", "style", "total_variation", "affine")
        super().__init__(own.height, own.width, terms, **{"name": "photo_style", "dtype": precision, **kwargs})
        self.config, self.precision = own, precision
        self.photo = Picture(self.config.height, self.config.width, name="photo", trainable=False)
        self.affine_from = self.config.plain_steps
        noise = np.random.default_rng(self.config.seed).normal(127.5, 25.0, (*self.photo.pixels.shape[1:],))
        self.picture.show(noise)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """The sum of the terms at step number `x`: the affine term counts from `affine_from` on."""
        if self.objective is None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        terms = {name: ops.sum(value) for name, value in self.objective.terms(y_pred).items()}
        if "affine" in terms:
            terms["affine"] *= ops.cast(ops.sum(x) >= self.affine_from, "float32")
        for mean in self._term_means:
            if mean.name in terms:
                mean.update_state(terms[mean.name])
        return sum(terms.values())

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _model_of(config: Config, pair: Pair, start: np.ndarray | None = None) -> PhotoStyle:
    """The model with the photo, showing `start`, (H, W, 3) RGB 0-255; None for what the config says."""
    model = PhotoStyle(config, precision=config.precision)
    model.photo.show(pair.photo)
    if start is None and config.start != "noise":
        start = colour_matched(pair) if config.start == "matched" else pair.photo
    if start is not None:
        model.picture.show(start)
    return model


def build(config: Config) -> PhotoStyle:
    """The model with Adam and the objective of the config's pair, ready for `fit`."""
    config.validate()
    pair = read_pair(config)
    model = _model_of(config, pair)
    adam = keras.optimizers.Adam(config.learning_rate)
    model.compile(adam, PhotorealisticObjective(config, pair), jit_compile=False)
    return model


def stages(config: Config, pair: Pair) -> list[Stage]:
    """Both stages for `optimize_picture`; the second begins with what the first ends with."""
    vgg = loss_network(config, tuple(dict.fromkeys((config.content_layer, *config.style_layers))))

    def model(affine: bool) -> Any:
        def made(pixels: np.ndarray | None) -> PhotoStyle:
            found = _model_of(config, pair, pixels)
            found.affine_from = 0
            found.compile("adam", PhotorealisticObjective(config, pair, affine, vgg), jit_compile=False)
            found.optimizer.learning_rate = config.learning_rate
            return found

        return made

    counts = ((config.plain_steps, False), (config.steps - config.plain_steps, True))
    return [Stage(count, model(affine)) for count, affine in counts if count]


def datasets(config: Config, start: int = 0) -> Datasets:
    return Datasets(train=step_numbers(start))


# --- servables --------------------------------------------------------------------------------------------------------


_FULL = "its colour maps are least squares of small differences, too fine for 8 or 16 bits; export it in fp32."


def servables(model: PhotoStyle, config: Config) -> dict[str, Servable]:
    smoothing = LocalAffineSmoothing()
    pictures = [keras.Input((None, None, 3), name=name) for name in ("photo", "stylised")]
    smoother = keras.Model(pictures, smoothing(pictures), name="smoothing")

    def recolour(image: tf.Tensor) -> dict[str, tf.Tensor]:
        small = tf.convert_to_tensor(model.photo.pixels) / 255
        found = smoothing.maps(small, tf.convert_to_tensor(model.picture.pixels) / 255)
        static = image.shape[1:3]
        size = list(static) if None not in static else tf.shape(image)[1:3]
        maps = {name: x if name == "overall" else tf.image.resize(x, size) for name, x in found.items()}
        return {"recoloured": _to_levels(smoothing.apply(maps, tf.cast(image, tf.float32) / 255))}

    def smooth(photo: tf.Tensor, stylised: tf.Tensor) -> dict[str, tf.Tensor]:
        return {
            "smoothed": _to_levels(smoother([tf.cast(photo, tf.float32) / 255, tf.cast(stylised, tf.float32) / 255]))
        }

    def picture_of(name: str, doc: str, atol: float = 1e-4) -> TensorSpec:
        return TensorSpec(name, ("batch", "height", "width", 3), "uint8", doc, "image", atol=atol)

    dims = {"batch": 1, "height": 256, "width": 256}
    other_dims = ({"batch": 1, "height": 97, "width": 130}, {"batch": 2, "height": 64, "width": 128})
    return {
        "recolour": Servable(
            call=recolour,
            model=model,
            inputs=(picture_of("image", "the photo of the run at any size, RGB 0-255"),),
            outputs=(picture_of("recoloured", "the photo in its new colours, RGB 0-255", 1),),
            example=lambda dims, seed: {"image": _example_pictures(dims, seed)},
            dims=dims,
            check_dims=other_dims,
            doc="gives a photo, at its full size, the colours that were found for it at a smaller one",
            without={(form, bits): _FULL for form in ("litert", "onnx") for bits in ("fp16", "dynamic", "int8")},
        ),
        "smooth": Servable(
            call=smooth,
            model=smoother,
            inputs=(
                picture_of("photo", "photos, RGB 0-255, of any size"),
                picture_of("stylised", "the same photos, stylised by whatever means, RGB 0-255"),
            ),
            outputs=(picture_of("smoothed", "the photos in the stylised pictures' colours, RGB 0-255", 1),),
            example=_example_pair,
            dims=dims,
            check_dims=other_dims,
            doc="turns a stylised photo back into a photo: local colour maps, applied to the original",
        ),
    }


def _to_levels(picture: tf.Tensor) -> tf.Tensor:
    return tf.cast(tf.round(tf.clip_by_value(picture * 255, 0.0, 255.0)), tf.uint8)


def _example_pictures(dims: Mapping[str, int], seed: int) -> np.ndarray:
    """Pictures with the look of photos: smooth regions, edges and a little grain."""
    random = np.random.default_rng(seed)
    n, h, w = dims["batch"], dims["height"], dims["width"]
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    found = []
    for _ in range(n):
        waves = [np.sin(x * random.uniform(2, 12) + y * random.uniform(2, 12) + random.uniform(0, 6)) for _ in range(3)]
        picture = 128 + 80 * np.stack(waves, axis=-1)
        picture[x + y > random.uniform(0.5, 1.2)] *= 0.6
        found.append(np.clip(picture + random.normal(0, 4, picture.shape), 0, 255))
    return np.stack(found).astype("uint8")


def _example_pair(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Photos, and the same with other colours and brush strokes."""
    photo = _example_pictures(dims, seed)
    random = np.random.default_rng([seed, 1])
    colours = np.eye(3) * random.uniform(0.4, 1.0, 3) + random.uniform(-0.1, 0.2, (3, 3))
    strokes = 12 * np.sin(np.arange(dims["width"]) / 2)[None, None, :, None]
    stylised = photo @ colours + strokes + random.normal(0, 6, photo.shape)
    return {"photo": photo, "stylised": np.clip(stylised, 0, 255).astype("uint8")}


def preview(model: PhotoStyle, config: Config) -> dict[str, np.ndarray]:
    """The picture as it is, and made photorealistic."""
    smooth = servables(model, config)["smooth"].call
    picture = to_uint8(model.pixels())
    photo = to_uint8(model.photo.pixels.numpy()[0])
    smoothed = smooth(photo=tf.constant(photo[None]), stylised=tf.constant(picture[None]))["smoothed"][0].numpy()
    return {"picture": picture, "smoothed": smoothed}


def recoloured(photo: np.ndarray, small: np.ndarray, stylised: np.ndarray) -> np.ndarray:
    """The photo in the colours of `stylised`, (H, W, 3) uint8. Large photos are worked on in bands.

    Args:
        photo: (H, W, 3), RGB 0-255.
        small: (h, w, 3), the photo at the size of `stylised`.
        stylised: (h, w, 3), RGB 0-255.
    """
    maps = _maps(*(tf.constant(p[None].astype("float32") / 255) for p in (small, stylised)))
    height, width = photo.shape[:2]
    # As `tf.image.resize` places rows, half a pixel from the edge.
    places = np.clip((np.arange(height) + 0.5) * small.shape[0] / height - 0.5, 0, small.shape[0] - 1)
    step = max(1, _BAND // width)
    bands = [
        _band(maps, tf.constant(photo[None, top : top + step]), tf.constant(places[top : top + step], tf.float32))
        for top in range(0, height, step)
    ]
    return np.concatenate([band.numpy()[0] for band in bands])


_BAND = 1 << 20
"""Pixels of a band: 48 maps of it are 200 MB."""


@tf.function(reduce_retracing=True, autograph=False)
def _maps(small: tf.Tensor, stylised: tf.Tensor) -> dict[str, tf.Tensor]:
    return LocalAffineSmoothing().maps(small, stylised)


@tf.function(reduce_retracing=True, autograph=False)
def _band(maps: dict[str, tf.Tensor], photo: tf.Tensor, places: tf.Tensor) -> tf.Tensor:
    """Rows of the photo, which lie at `places` of the maps' rows, under the maps."""
    above = tf.floor(places)
    below = tf.minimum(tf.cast(above, tf.int32) + 1, tf.shape(maps["offsets"])[1] - 1)
    share = tf.reshape(places - above, (1, -1, 1, 1))
    size = tf.shape(photo)[1:3]

    def enlarged(x: tf.Tensor) -> tf.Tensor:
        rows = (1 - share) * tf.gather(x, tf.cast(above, tf.int32), axis=1) + share * tf.gather(x, below, axis=1)
        return tf.image.resize(rows, size)

    large = {name: x if name == "overall" else enlarged(x) for name, x in maps.items()}
    return _to_levels(LocalAffineSmoothing().apply(large, tf.cast(photo, tf.float32) / 255))
