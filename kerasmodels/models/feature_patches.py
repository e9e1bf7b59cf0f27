"""Visualization of convolutional networks: the image patches that excite a unit most, and a picture that does.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014 (figure 2); activation maximization
after Erhan, Bengio, Courville, Vincent: Visualizing Higher-Layer Features of a Deep Network, 2009, and Simonyan,
Vedaldi, Zisserman: Deep Inside Convolutional Networks, 2014.

Reproduced: for a unit (a channel of a layer) the nine pictures of a collection in which it is most active anywhere, one
position a picture, each cut to exactly the pixels that the unit sees there; and that such patches are alike.

| departure from the paper | why |
|---|---|
| VGG16 or VGG19; the paper's network is a changed AlexNet | the networks of this library; the arithmetic takes any |
| besides patches, pictures by activation maximization, not by a deconvnet | needs no second network |
| positions that see padding do not count, where a photo has others | the padding's edge would excite units |
| a folder of the user's photos; the paper takes ImageNet's validation set, 50,000 pictures | the method is the same |
| a row of nine; the paper's nine are 3 x 3 | any number of patches, several units below each other |
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels import config as base
from kerasmodels.backbones import VGG16, VGG19, receptive_field
from kerasmodels.config import check
from kerasmodels.family import Family, Servable, Task, TensorSpec
from kerasmodels.losses import total_variation
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables.examples import example_noise
from kerasmodels.tasks.patches import PatchesOptions, write_patches

__all__ = ["Config", "FeaturePatches"]


class Config(base.Config):
    """Which layer of which network to look at."""

    model: Literal["vgg16", "vgg19"] = "vgg16"
    """The network."""
    vgg: str = "auto"
    """Its weights: auto, a source of `kerasmodels weights`, a file, or random (untrained)."""
    layer: str = "relu3_1"
    """The layer: conv{block}_{i} (before the ReLU), relu{block}_{i} or pool{block}."""

    def validate(self) -> None:
        """Raise UsageError without a layer. Whether the network has it shows when that is made."""
        check(bool(self.layer), "the name of a layer", self.layer)


# --- model ------------------------------------------------------------------------------------------------------------


def _network(config: Config) -> keras.Model:
    """(N, H, W, 3), RGB 0-255 -> {layer: (N, h, w, units)}."""
    vgg = {"vgg16": VGG16, "vgg19": VGG19}[config.model]
    return vgg([config.layer], weights=None if config.vgg == "random" else config.vgg)


@keras.saving.register_keras_serializable("kerasmodels")
class FeaturePatches(PaperModel):
    """A network up to one layer, and the arithmetic of what the units of that layer see.

    Args:
        config, dtype: see `PaperModel`.
        network: a VGG of one's own, with the config's layer as its only tap.

    Attributes:
        field: the layer's `ReceptiveField`.
        units: number of its channels.
        least_side: of a picture, pixels.

    Shapes:
        (N, H, W, 3) RGB 0-255 -> (N, h, w, units); H and W at least `least_side`.

    Raises:
        UsageError: an unknown network or layer.
        WeightsError: the weights are not there; the message has the commands to get them.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.FeaturePatches(km.models.FeaturePatches.Config(layer="relu2_1", vgg="random"))
        >>> tuple(model(np.zeros((1, 64, 48, 3), "float32")).shape), model.field.size
        ((1, 32, 24, 128), (10, 10))

    Reference:
        Zeiler, Fergus 2014, figure 2 (see `tasks.patches.top_patches`).
    """

    Config = Config
    family_name = "feature_patches"
    networks = {"network": _network}  # noqa: RUF012

    def __init__(self, config: Any = None, **kwargs: Any):
        super().__init__(config, **kwargs)
        self.field = receptive_field(self.network, self.config.layer)
        self.units: int = self.network.output[self.config.layer].shape[-1]
        # Reflection needs two pixels at every size of the map.
        reflects = any(type(operation).__name__ == "Pad" for operation in self.network.operations)
        self.least_side: int = self.field.jump[0] * (2 if reflects else 1)
        self.trainable = False

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=False)[self.config.layer]

    def on_patches(self, patches: Any) -> Any:
        """The units' values on what they see: (N, r, r, 3) RGB 0-255, r the field's size -> (N, units).

        Every convolution goes without padding, so that one position is left: the value the layer has there in the
        whole picture, if the patch was cut from its inside.
        """
        x = ops.cast(patches, "float32")
        for operation in self.network.operations:
            if isinstance(operation, layers.Conv2D):
                x = ops.add(ops.conv(x, operation.kernel, padding="valid"), operation.bias)
            elif isinstance(operation, layers.MaxPooling2D):
                x = ops.max_pool(x, 2, 2, padding="valid")
            elif not isinstance(operation, layers.InputLayer) and type(operation).__name__ != "Pad":
                x = operation(x)
        return ops.squeeze(x, (1, 2))

    def maximize(
        self,
        units: Sequence[int],
        steps: int = 150,
        *,
        learning_rate: float = 8.0,
        tv_weight: float = 0.01,
        blur_every: int = 8,
        seed: int = 0,
    ) -> np.ndarray:
        """For each unit a picture that excites it, found by Adam from gray noise (activation maximization).

        The picture is as large as what the unit sees. It is moved by up to a sixteenth of that at every step (jitter),
        blurred every few steps but for the last fifth, and pays for total variation: without that it would be noise of
        high frequency. Behind a ReLU it is the value before it that grows, because 0 has no slope.

        Args:
            units: numbers of the layer's channels.
            steps: of Adam; the rate falls linearly to a twentieth.
            learning_rate: at the start, levels of 0-255.
            tv_weight: of the slope of total variation (levels) against that of the activation, whose mean square is
                made 1.
            blur_every: steps between two blurs with the kernel 1 2 1.
            seed: of the noise and the jitter.

        Returns:
            (len(units), r, r, 3) uint8, RGB, r the field's size.

        Raises:
            UsageError: a unit that the layer does not have, or steps below 1.

        Reference:
            Erhan et al. 2009; Simonyan et al. 2014, section 2; jitter after Mordvintsev et al., Inceptionism, 2015.
        """
        check(steps >= 1, "steps >= 1", steps)
        self.check_units(units)
        random = np.random.default_rng(seed)
        network, field = self.network, self.field
        last = [layer for layer in network.layers if isinstance(layer, layers.Conv2D)][-1]
        before_relu, pooled = keras.Model(network.input, last.output), self.config.layer.startswith("pool")
        # The first position whose field lies inside, and a crop that ends where that field ends.
        position = -(field.start[0] // field.jump[0])
        first, crop = field.box((position, position))[0]
        jitter = field.size[0] // 16
        side = crop + 2 * jitter
        canvas = tf.Variable(random.normal(128, 8, (len(units), side, side, 3)).astype("float32"))
        adam = keras.optimizers.Adam(learning_rate)
        adam.build([canvas])
        weights = tf.constant(np.outer([1, 2, 1], [1, 2, 1])[:, :, None, None] * np.ones((3, 1)) / 16, tf.float32)
        chosen = tf.stack([tf.range(len(units)), tf.constant(list(units), tf.int32)], axis=1)

        @tf.function
        def step(top: tf.Tensor, left: tf.Tensor, rate: tf.Tensor) -> None:
            with tf.GradientTape() as excited, tf.GradientTape() as rough:
                seen = tf.slice(canvas, tf.stack([0, top, left, 0]), (len(units), crop, crop, 3))
                values = before_relu(seen)
                values = tf.nn.max_pool2d(values, 2, 2, "VALID") if pooled else values
                value = tf.gather_nd(values[:, position, position], chosen)
                roughness = total_variation(canvas)
            # Of length 1 per value, so that the weight of total variation fits every unit of every layer.
            slope = excited.gradient(value, canvas)
            slope /= tf.sqrt(tf.reduce_mean(slope**2, axis=(1, 2, 3), keepdims=True)) + 1e-12
            downhill = tv_weight * rough.gradient(roughness, canvas) - slope
            adam.learning_rate.assign(rate)
            adam.apply([downhill], [canvas])
            canvas.assign(tf.clip_by_value(canvas, 0.0, 255.0))

        @tf.function
        def blur() -> None:
            around = tf.pad(canvas, ((0, 0), (1, 1), (1, 1), (0, 0)), mode="REFLECT")
            canvas.assign(tf.nn.depthwise_conv2d(around, weights, (1, 1, 1, 1), "VALID"))

        for number in range(steps):
            top, left = random.integers(0, 2 * jitter + 1, 2)
            rate = learning_rate * (1.05 - number / steps)
            step(tf.constant(top, tf.int32), tf.constant(left, tf.int32), tf.constant(rate))
            if blur_every and number % blur_every == 0 and number < 0.8 * steps:
                blur()
        seen = slice(jitter + first, jitter + crop)
        return np.rint(canvas.numpy()[:, seen, seen]).astype("uint8")

    def check_units(self, units: Sequence[int]) -> None:
        """Raise UsageError for a unit that the layer does not have."""
        for unit in units:
            check(0 <= unit < self.units, f"units of {self.config.layer} from 0 to {self.units - 1}", unit)

    def get_config(self) -> dict[str, Any]:
        # With the network itself: a file can then be loaded where no weights of VGG are cached.
        return {**super().get_config(), "network": keras.saving.serialize_keras_object(self.network)}


# --- family -----------------------------------------------------------------------------------------------------------


def _servables(model: FeaturePatches) -> dict[str, Servable]:
    (size, _), (jump, _), (start, _) = model.field.size, model.field.jump, model.field.start
    least = -(start // jump)

    def inner(length: tf.Tensor, positions: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        """The first of the positions that see no padding along one axis, and their number; all if there is none."""
        end = tf.maximum(length - size - start, 0) // jump + 1
        none = end <= least
        first = tf.where(none, 0, least)
        return first, tf.where(none, positions, end) - first

    def peaks(image: tf.Tensor) -> dict[str, tf.Tensor]:
        features = model(tf.cast(image, tf.float32))
        whole, positions = tf.shape(image), tf.shape(features)
        (top, rows), (left, columns) = (inner(whole[axis], positions[axis]) for axis in (1, 2))
        features = tf.slice(features, tf.stack([0, top, left, 0]), tf.stack([whole[0], rows, columns, model.units]))
        flat = tf.reshape(features, tf.stack([whole[0], rows * columns, model.units]))
        at = tf.argmax(flat, axis=1, output_type=tf.int32)
        row = at // columns
        position = tf.stack([row + top, at - row * columns + left], axis=2)
        first = position * jump + start
        box = tf.concat([tf.maximum(first, 0), tf.minimum(first + size, whole[1:3])], axis=2)
        return {"activation": tf.reduce_max(flat, axis=1), "position": position, "box": box}

    units = model.units
    image = f"RGB pictures, 0-255, at least {model.least_side} pixels a side"
    box = "the pixels it sees there: top, left, and the ends bottom, right"
    return {
        "peaks": Servable(
            call=peaks,
            model=model,
            inputs=(TensorSpec("image", ("batch", "height", "width", 3), "uint8", image, "image"),),
            outputs=(
                TensorSpec("activation", ("batch", units), "float32", "each unit's largest value", atol=1e-3),
                TensorSpec("position", ("batch", units, 2), "int32", "where: row and column of the feature map"),
                TensorSpec("box", ("batch", units, 4), "int32", box),
            ),
            example=example_noise,
            dims={"batch": 1, "height": 224, "width": 224},
            check_dims=({"batch": 1, "height": 97, "width": 130}, {"batch": 2, "height": 64, "width": 128}),
            doc=f"for every unit of {model.config.model}'s {model.config.layer}: its largest value, where, and what it "
            "sees there",
        )
    }


class Options(PatchesOptions, Config):
    __doc__ = PatchesOptions.__doc__


FAMILY = Family(
    name="feature_patches",
    config=Config,
    variants={"paper": Config()},
    model=FeaturePatches,
    servables=_servables,
    task=Task(Options, lambda options: write_patches(options, lambda: FeaturePatches(Config.part_of(options)))),
)
