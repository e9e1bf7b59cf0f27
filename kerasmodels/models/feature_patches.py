"""Seeing what a convolutional network has learnt: the image patches that excite a unit most, and a picture that does.

Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014 (figure 2); activation maximisation
after Erhan, Bengio, Courville, Vincent: Visualizing Higher-Layer Features of a Deep Network, 2009, and Simonyan,
Vedaldi, Zisserman: Deep Inside Convolutional Networks, 2014.

Reproduced: for a unit (a channel of a layer) the nine pictures of a collection in which it is most active anywhere, one
position a picture, each cut to exactly the pixels that the unit sees there; and that such patches are alike.

| departure from the paper | why |
|---|---|
| VGG16 or VGG19; the paper's network is a changed AlexNet | the networks of this library; the arithmetic takes any |
| with the patches, pictures made by activation maximisation, not by a deconvnet | needs no second network |
| positions that see padding do not count, where a photo has others | the padding's edge would excite units |
| a folder of the user's photos; the paper takes ImageNet's validation set, 50,000 pictures | the method is the same |
| a row of nine; the paper's nine are 3 x 3 | any number of patches, several units below each other |
"""

import dataclasses
import heapq
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from keras import layers, ops
from PIL import Image

from kerasmodels.backbones import VGG16, VGG19, receptive_field
from kerasmodels.data import grid, list_images, read_image, write_image
from kerasmodels.data.images import SUFFIXES
from kerasmodels.errors import DataError, UsageError, storage_error
from kerasmodels.family import Experiment, Family, Row, RunReport, Servable, TensorSpec, check, config_to_dict
from kerasmodels.losses import total_variation
from kerasmodels.storage import write_json

_NETWORKS = {"vgg16": VGG16, "vgg19": VGG19}
_OUTSIDE = 128
"""Grey level of what lies outside the photo."""


@dataclass(frozen=True)
class Config:
    """Which layer of which network to look at."""

    model: Literal["vgg16", "vgg19"] = "vgg16"
    """The network."""
    vgg: str = "auto"
    """Its weights: auto, a source of `kerasmodels weights`, a file, or random (untrained)."""
    layer: str = "relu3_1"
    """The layer: conv{block}_{i} (before the ReLU), relu{block}_{i} or pool{block}."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range. The layer is checked when the network is made."""
        check(self.model in _NETWORKS, f"model in {tuple(_NETWORKS)}", self.model)
        check(bool(self.layer), "the name of a layer", self.layer)


# --- network ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class FeaturePatches(keras.Model):
    """A network up to one layer, and the arithmetic of what the units of that layer see.

    Args:
        config: a `FeaturePatches.Config` (or its values as a dict).
        network: the network itself, when it is loaded from a file; None to make it from the config.

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
    """

    Config: TypeAlias = Config
    family_name = "feature_patches"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, network: Any = None, **kwargs: Any):
        super().__init__(**{"name": "feature_patches", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        if network is None:
            weights = None if self.config.vgg == "random" else self.config.vgg
            network = _NETWORKS[self.config.model]([self.config.layer], weights=weights)
        elif not isinstance(network, keras.Model):
            network = keras.saving.deserialize_keras_object(network)
        self.network = network
        self.field = receptive_field(network, self.config.layer)
        self.units: int = network.output[self.config.layer].shape[-1]
        # Reflection needs two pixels at every size of the map.
        reflects = any(type(operation).__name__ == "Pad" for operation in network.operations)
        self.least_side: int = self.field.jump[0] * (2 if reflects else 1)
        self.trainable = False
        self.built = True

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

    def get_config(self) -> dict[str, Any]:
        # With the network itself: a file can then be loaded where no weights of VGG are cached.
        network = keras.saving.serialize_keras_object(self.network)
        return {"name": self.name, "config": config_to_dict(self.config), "network": network}


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: FeaturePatches, config: Config) -> dict[str, Servable]:
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
            example=_example_pictures,
            dims={"batch": 1, "height": 224, "width": 224},
            check_dims=({"batch": 1, "height": 97, "width": 130}, {"batch": 2, "height": 64, "width": 128}),
            doc=f"for every unit of {config.model}'s {config.layer}: its largest value, where, and what it sees there",
        )
    }


def _example_pictures(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Noise of all sizes, as natural pictures have it. No two places are equal, so a maximum has one place."""
    random = np.random.default_rng(seed)
    n, h, w = dims["batch"], dims["height"], dims["width"]
    pictures = []
    for _ in range(n):
        picture = np.full((h, w, 3), 128.0)
        for side in (2, 4, 8, 16, 64):
            coarse = random.uniform(-1, 1, (min(side, h), min(side, w), 3))
            for c in range(3):
                channel = Image.fromarray(coarse[..., c].astype("float32"))
                picture[..., c] += 40 * np.asarray(channel.resize((w, h), Image.Resampling.BICUBIC))
        pictures.append(np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype("uint8"))
    return {"image": np.stack(pictures)}


# --- patches ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Patch:
    """Where in a photo a unit is most active.

    Attributes:
        photo: the photo's name.
        activation: the unit's value.
        position: row and column of the feature map.
        box: ((top, bottom), (left, right)) of what the unit sees, pixels; it may reach beyond the photo.
        inside: whether it does not.
        pixels: (r, r, 3) uint8, what the unit sees; grey where that lies outside the photo.
    """

    photo: str
    activation: float
    position: tuple[int, int]
    box: tuple[tuple[int, int], ...]
    inside: bool
    pixels: np.ndarray


def top_patches(
    model: FeaturePatches, photos: Iterable[tuple[str, np.ndarray]], units: Sequence[int], k: int = 9
) -> dict[int, list[Patch]]:
    """For each unit the k photos in which it is most active, the most active first; one patch a photo.

    Photos are looked at one by one; only the patches that still count are kept. Positions that see padding are left
    out, unless a photo is too small to have others.

    Args:
        model: a layer.
        photos: (name, (H, W, 3) uint8 RGB), of any sizes from `model.least_side` up.
        units: numbers of the layer's channels.
        k: patches a unit.

    Returns:
        unit -> at most k patches. Photos in which a unit behind a ReLU is 0 everywhere do not count.

    Raises:
        UsageError: a unit that the layer does not have, or k below 1.

    Reference:
        Zeiler, Fergus 2014, figure 2.
    """
    check(k >= 1, "k >= 1", k)
    for unit in units:
        check(0 <= unit < model.units, f"units of {model.config.layer} from 0 to {model.units - 1}", unit)
    peaks = tf.function(
        _servables(model, model.config)["peaks"].call, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)]
    )
    silent = -np.inf if model.config.layer.startswith("conv") else 0.0
    # Equal activations: the earlier photo counts for more.
    best: dict[int, list[tuple[float, int, Patch]]] = {unit: [] for unit in units}
    for number, (name, photo) in enumerate(photos):
        found = {key: value.numpy()[0] for key, value in peaks(photo[None]).items()}
        for unit, heap in best.items():
            value = float(found["activation"][unit])
            if not value > silent or (len(heap) == k and value <= heap[0][0]):
                continue
            row, column = (int(i) for i in found["position"][unit])
            box = model.field.box((row, column))
            inside = model.field.inside((row, column), photo.shape[:2])
            patch = Patch(name, value, (row, column), box, inside, _cut(photo, box))
            (heapq.heappush if len(heap) < k else heapq.heapreplace)(heap, (value, -number, patch))
    ordered = {unit: sorted(heap, key=lambda entry: entry[:2], reverse=True) for unit, heap in best.items()}
    return {unit: [patch for *_, patch in entries] for unit, entries in ordered.items()}


def _cut(photo: np.ndarray, box: Sequence[tuple[int, int]]) -> np.ndarray:
    """The pixels of the box; grey outside the photo."""
    patch = np.full((*(end - first for first, end in box), 3), _OUTSIDE, "uint8")
    within = [(max(first, 0), min(end, n)) for (first, end), n in zip(box, photo.shape, strict=False)]
    target = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(within, box, strict=True))
    patch[target] = photo[tuple(slice(a, b) for a, b in within)]
    return patch


# --- activation maximisation ------------------------------------------------------------------------------------------


def maximise(
    model: FeaturePatches,
    units: Sequence[int],
    steps: int = 150,
    *,
    learning_rate: float = 8.0,
    tv_weight: float = 0.01,
    blur_every: int = 8,
    seed: int = 0,
) -> np.ndarray:
    """For each unit a picture that excites it, found by Adam from grey noise.

    The picture is as large as what the unit sees. It is moved by up to a sixteenth of that at every step (jitter),
    blurred every few steps but for the last fifth, and pays for total variation: without that it would be noise of high
    frequency. Behind a ReLU it is the value before it that grows, because 0 has no slope.

    Args:
        model: a layer.
        units: numbers of its channels.
        steps: of Adam; the rate falls linearly to a twentieth.
        learning_rate: at the start, levels of 0-255.
        tv_weight: of the slope of total variation (levels) against that of the activation, whose mean square is made 1.
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
    for unit in units:
        check(0 <= unit < model.units, f"units of {model.config.layer} from 0 to {model.units - 1}", unit)
    random = np.random.default_rng(seed)
    network, field = model.network, model.field
    last = [layer for layer in network.layers if isinstance(layer, layers.Conv2D)][-1]
    before_relu, pooled = keras.Model(network.input, last.output), model.config.layer.startswith("pool")
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


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Show what excites units of a network: a row for each unit, its best patches from a folder of photos."""

    unit: tuple[int, ...]
    """Channels of the layer, from 0; one row each."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture, such as grid.png; in a folder, MODEL_LAYER_UNITS.png. A .json beside it says where patches are."""
    photos: Path | None = None
    """A folder of photos, searched with its subfolders."""
    model: Literal["vgg16", "vgg19"] = "vgg16"
    """The network."""
    layer: str = "relu3_1"
    """Its layer: conv{block}_{i}, relu{block}_{i} or pool{block}."""
    vgg: str = "auto"
    """Its weights: auto, a source of `kerasmodels weights`, a file, or random (untrained)."""
    k: int = 9
    """Patches a unit, one a photo."""
    maximise: tyro.conf.FlagCreatePairsOff[bool] = False
    """First in each row, a picture made to excite the unit. Photos are then not needed."""
    steps: int = 150
    """Of making that picture."""
    seed: int = 0
    """Of making that picture."""
    max_side: int = 512
    """Photos are shrunk so that the longer side is at most this, pixels."""
    cell: int = 96
    """Side of a patch in the grid, pixels."""


def _run(options: RunOptions) -> RunReport:
    check(len(options.unit) > 0, "at least one unit: --unit 17", options.unit)
    check(len(set(options.unit)) == len(options.unit), "each unit once", options.unit)
    for name in ("k", "steps", "max_side", "cell"):
        check(getattr(options, name) >= 1, f"{name} >= 1", getattr(options, name))
    if options.photos is None and not options.maximise:
        raise UsageError("expected a folder of photos (--photos DIR), or --maximise, or both. Received: neither.")
    out = _target(options)
    files = [] if options.photos is None else list_images(options.photos)
    model = FeaturePatches(Config(options.model, options.vgg, options.layer))
    for unit in options.unit:
        check(0 <= unit < model.units, f"units of {options.layer} from 0 to {model.units - 1}", unit)
    _try_to_write(out)

    began, skipped = time.perf_counter(), list[str]()
    reader = _readable(files, options.max_side, model.least_side, skipped)
    best = top_patches(model, reader, options.unit, options.k)
    if files and len(skipped) == len(files):
        raise DataError(f"none of the {len(files)} photos can be used: " + " ".join(skipped[:3]))
    made = maximise(model, options.unit, options.steps, seed=options.seed) if options.maximise else None
    rows = []
    for number, unit in enumerate(options.unit):
        patches: list[np.ndarray | None] = [patch.pixels for patch in best[unit]]
        patches += [None] * (options.k - len(patches) if files else -len(patches))
        rows.append([*([] if made is None else [made[number]]), *patches])
    picture = grid(rows, options.cell, apart=1 if made is not None and files else 0)

    record = {
        "model": options.model,
        "layer": options.layer,
        "weights": options.vgg,
        "receptive_field": dataclasses.asdict(model.field),
        "rows": [
            {
                "unit": unit,
                "maximised": None if made is None else float(model.on_patches(made[number : number + 1])[0, unit]),
                "patches": [
                    {name: getattr(patch, name) for name in ("photo", "activation", "position", "box", "inside")}
                    for patch in best[unit]
                ],
            }
            for number, unit in enumerate(options.unit)
        ],
    }
    written = (write_image(out, picture), write_json(out.with_suffix(".json"), record))
    facts: dict[str, Any] = {
        "receptive field": f"{model.field.size[0]} pixels, one every {model.field.jump[0]}",
        "seconds": round(time.perf_counter() - began, 1),
    }
    if files:
        shown = [patch for patches in best.values() for patch in patches]
        facts["photos"] = len(files) - len(skipped)
        facts["patches that reach beyond the photo"] = sum(not patch.inside for patch in shown)
        if silent := [unit for unit, patches in best.items() if not patches]:
            facts["units that were never active"] = ", ".join(map(str, silent))
    if skipped:
        facts["photos skipped"] = f"{len(skipped)}: {' '.join(skipped[:3])}"
    return RunReport(written, facts)


def _target(options: RunOptions) -> Path:
    """The picture's name."""
    out = options.out
    if out.is_dir() or not out.suffix:
        return out / f"{options.model}_{options.layer}_{'-'.join(map(str, options.unit))}.png"
    check(out.suffix.lower() in SUFFIXES, "a picture name such as grid.png", str(out))
    return out


def _try_to_write(out: Path) -> None:
    """Find out before the work, not after it, that nothing can be written there."""
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=out.parent):
            pass
    except OSError as error:
        raise storage_error(out, error) from error


def _readable(files: Sequence[Path], max_side: int, least: int, skipped: list[str]) -> Iterator[tuple[str, np.ndarray]]:
    """The photos one by one; why one cannot be used is added to `skipped`."""
    for file in files:
        try:
            photo = read_image(file, max_side)
        except DataError as error:
            skipped.append(str(error))
            continue
        if min(photo.shape[:2]) < least:
            skipped.append(f"{file} is smaller than {least} pixels, so the layer has no position in it.")
            continue
        yield str(file), photo


# --- experiments ------------------------------------------------------------------------------------------------------


def _fields(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """The receptive field of every convolution: by arithmetic, and as far as gradients reach."""
    published = {
        "vgg16": (3, 5, 10, 14, 24, 32, 40, 60, 76, 92, 132, 164, 196),
        "vgg19": (3, 5, 10, 14, 24, 32, 40, 48, 68, 84, 100, 116, 156, 188, 220, 252),
        "alexnet": (11, 51, 99, 131, 163),
    }
    # Averages, because a maximum has a gradient at one place only.
    networks = {
        "vgg16": lambda: VGG16(["conv5_3"], weights=None, pooling="avg"),
        "vgg19": lambda: VGG19(["conv5_4"], weights=None, pooling="avg"),
        "alexnet": _alexnet,
    }
    rows = []
    for name, sizes in published.items():
        network = networks[name]()
        names = [layer.name for layer in network.layers if isinstance(layer, layers.Conv2D)][: 7 if quick else None]
        computed = [receptive_field(network, layer).size[0] for layer in names]
        for how, ours in (("by arithmetic", computed), ("as far as gradients reach", _reach(network, names))):
            claim = f"receptive fields of {name}'s convolutions {how}, pixels"
            expected = sizes[: len(names)]
            listed = [", ".join(map(str, numbers)) for numbers in (expected, ours)]
            rows.append(Row(claim, listed[0], listed[1], "equal", tuple(ours) == expected))
    return rows


def _alexnet() -> keras.Model:
    """The geometry of AlexNet's convolutions, one channel each."""
    picture = keras.Input((None, None, 1))
    x = layers.AveragePooling2D(3, 2)(layers.Conv2D(1, 11, 4, name="conv1")(picture))
    x = layers.AveragePooling2D(3, 2)(layers.Conv2D(1, 5, padding="same", name="conv2")(x))
    for name in ("conv3", "conv4", "conv5"):
        x = layers.Conv2D(1, 3, padding="same", name=name)(x)
    return keras.Model(picture, x)


def _reach(network: keras.Model, names: Sequence[str]) -> list[int]:
    """How many rows of the picture have a gradient of an inner unit of each layer, where no weight is negative or 0."""
    for weight in network.weights:
        weight.assign(np.full(weight.shape, 0.0 if weight.name == "bias" else 1 / np.prod(weight.shape[:-1])))
    found = []
    for name in names:
        field, model = receptive_field(network, name), keras.Model(network.input, network.get_layer(name).output)
        position = -(field.start[0] // field.jump[0]) + 1
        side = field.box((position, position))[0][1] + 2 * field.jump[0]
        picture = tf.ones((1, side, side, network.input.shape[-1])) * 255.0
        with tf.GradientTape() as tape:
            tape.watch(picture)
            value = tf.reduce_sum(model(picture)[0, position, position])
        seen = np.abs(tape.gradient(value, picture)[0].numpy()).sum(axis=-1) > 0
        (rows,) = np.nonzero(seen.any(axis=1))
        solid = seen[rows[0] : rows[-1] + 1, rows[0] : rows[-1] + 1].all() and seen.sum() == len(rows) ** 2
        found.append(len(rows) if solid and (rows[0], rows[-1] + 1) == field.box((position, position))[0] else -1)
    return found


def _alike(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Are a unit's nine patches alike, and are they what the unit sees? VGG19, which did not choose them, is the judge.

    Paper: figure 2. Photos: those of --data, one patch a photo; the figures show scikit-image's photos, cut in pieces.
    """
    own = list(_pieces(96 if quick else 160))
    photos = own if data is None else [(str(path), read_image(path, 384)) for path in list_images(data)]
    judge = VGG19(["relu4_1"])
    random = np.random.default_rng(0)
    rows, errors, gains = [], [0.0], []
    for layer in ("relu1_2", "relu2_2", "relu3_3", "relu4_3")[: 3 if quick else 4]:
        model = FeaturePatches(Config(layer=layer))
        units = [int(u) for u in random.choice(model.units, 8 if quick else 24, replace=False)]
        found = top_patches(model, photos, units)
        best = {unit: patches for unit, patches in found.items() if len(patches) == 9}
        for unit, patches in best.items():
            pixels = np.stack([patch.pixels for patch in patches if patch.inside])
            values = np.array([patch.activation for patch in patches if patch.inside])
            errors += list(np.abs(np.asarray(model.on_patches(pixels))[:, unit] - values) / values)
        chosen = [_spread(judge, [patch.pixels for patch in patches]) for patches in best.values()]
        others = [_spread(judge, _random_patches(photos, model.field.size[0], random)) for _ in best]
        ratio = float(np.mean(chosen) / np.mean(others))
        claim = (
            f"{layer}: distance between the nine patches of a unit, as a part of that between nine random patches "
            f"(mean of {len(best)} units; {len(photos)} photos or pieces)"
        )
        rows.append(Row(claim, "figure 2: they are alike", round(ratio, 3), "< 1", ratio < 1))
        if layer in ("relu3_3", "relu4_3"):
            shown = list(best)[:4]
            ours = top_patches(model, own, shown)
            made = maximise(model, shown, 20 if quick else 120)
            sheet = [[made[i], *(patch.pixels for patch in ours[unit])] for i, unit in enumerate(shown)]
            write_image(figures / f"feature_patches_{layer}.jpg", grid(sheet, 72, apart=1))
            excited = np.asarray(model.on_patches(made))
            gains += [excited[i, unit] / best[unit][0].activation for i, unit in enumerate(shown)]
    again = (
        "a unit on its patch alone, without padding, against its value in the whole photo: largest difference, as a "
        "part of the value"
    )
    made_claim = (
        "a picture made to excite a unit, against its best patch: activation, as a multiple (least of the figures')"
    )
    error, gain = float(max(errors)), float(min(gains))
    return [
        *rows,
        Row(again, "the same number", float(f"{error:.2g}"), "<= 1e-4", error <= 1e-4),
        Row(made_claim, "not given", round(gain, 2), "> 1", gain > 1),
    ]


def _spread(judge: keras.Model, patches: Sequence[np.ndarray]) -> float:
    """Mean cosine distance between the patches' features, averaged over positions, of all pairs."""
    large = [
        np.asarray(Image.fromarray(patch).resize((64, 64), Image.Resampling.BICUBIC), "float32") for patch in patches
    ]
    features = np.mean(judge(np.stack(large))["relu4_1"], axis=(1, 2))
    features = features / np.linalg.norm(features, axis=1, keepdims=True)
    return float(np.mean(1 - (features @ features.T)[np.triu_indices(len(patches), 1)]))


def _random_patches(
    photos: Sequence[tuple[str, np.ndarray]], side: int, random: np.random.Generator
) -> list[np.ndarray]:
    """Nine patches from anywhere in nine photos, whose sides are no shorter than the patch."""
    large = [photo for _, photo in photos if min(photo.shape[:2]) >= side]
    patches = []
    for photo in (large[i] for i in random.choice(len(large), 9, replace=len(large) < 9)):
        top, left = (int(random.integers(0, n - side + 1)) for n in photo.shape[:2])
        patches.append(photo[top : top + side, left : left + side])
    return patches


def _pieces(side: int) -> Iterator[tuple[str, np.ndarray]]:
    """Photos that come with scikit-image and are free of rights, cut into squares that do not overlap."""
    try:
        import skimage.data
    except ImportError:
        raise DataError(
            "this experiment shows photos of scikit-image, which is not installed: pip install scikit-image."
        ) from None
    for name in ("astronaut", "chelsea", "coffee", "rocket", "hubble_deep_field", "brick", "grass", "gravel", "camera"):
        photo = np.asarray(getattr(skimage.data, name)())
        photo = np.repeat(photo[..., None], 3, axis=2) if photo.ndim == 2 else photo
        for top in range(0, photo.shape[0] - side + 1, side):
            for left in range(0, photo.shape[1] - side + 1, side):
                yield f"{name} {top} {left}", photo[top : top + side, left : left + side]


FAMILY = Family(
    name="feature_patches",
    config=Config,
    variants={"paper": Config()},
    model=FeaturePatches,
    build=None,
    datasets=None,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "fields": Experiment("what units see, by arithmetic and by gradients", _fields),
        "alike": Experiment("patches that excite the same unit are alike", _alike),
    },
)
