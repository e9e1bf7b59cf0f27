"""What the paper says of dilated convolutions, measured on networks small enough for a CPU."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from kerasmodels.data import write_image
from kerasmodels.data.segmentation import voc_palette
from kerasmodels.family import Row
from kerasmodels.models.dilated_net.config import Config
from kerasmodels.models.dilated_net.network import context_module, front_end


def receptive_fields(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """As far as gradients reach: each layer of the context module (table 1), and the front end."""
    module = context_module(1, init="glorot")
    _positive(module)
    expected = (3, 5, 9, 17, 33, 65, 67, 67)
    found = []
    for layer in module.layers:
        if isinstance(layer, layers.Conv2D):
            found.append(_reach(keras.Model(module.input, layer.output), 101))
    theirs, ours = (", ".join(map(str, sizes)) for sizes in (expected, found))
    claim = "receptive fields of the context module's layers, by their gradients, positions"
    rows = [Row(claim, theirs, ours, "equal", theirs == ours)]
    # Averages, because a maximum has a gradient at one place only.
    front = front_end(Config(channels=(1, 1, 1, 1, 1), head=1, classes=2), pooling="avg")
    _positive(front)
    reach = _reach(front, 372 + 8 * 3)
    rows.append(
        Row("receptive field of the front end, by its gradients, pixels", "380 (code)", reach, "380", reach == 380)
    )
    rows.append(
        Row(
            "margin that leaves one label for 8 x 8 pixels, pixels",
            "186",
            Config().margin,
            "186",
            Config().margin == 186,
        )
    )
    sizes = [front.compute_output_shape((1, n, n, 3))[1] for n in (500, 628, 852, 900, 1396)]
    theirs, ours = "16, 32, 60, 66, 128", ", ".join(map(str, sizes))
    rows.append(Row("positions for 500, 628, 852, 900 and 1396 pixels", theirs, ours, "equal", theirs == ours))
    return rows


def _positive(network: keras.Model) -> None:
    for weight in network.weights:
        if "float" in weight.dtype:
            weight.assign(np.full(weight.shape, 0.0 if weight.name == "bias" else 1 / np.prod(weight.shape[:-1])))


def _reach(network: keras.Model, side: int) -> int:
    """How many rows of the input have a gradient of the output's middle; -1 if they are not a solid square."""
    picture = 200 * tf.ones((1, side, side, network.input.shape[-1]))
    with tf.GradientTape() as tape:
        tape.watch(picture)
        maps = network(picture)
        value = tf.reduce_sum(maps[0, maps.shape[1] // 2, maps.shape[2] // 2])
    seen = np.abs(tape.gradient(value, picture)[0].numpy()).sum(axis=-1) > 0
    (rows,) = np.nonzero(seen.any(axis=1))
    return len(rows) if seen.sum() == len(rows) ** 2 and len(rows) == rows[-1] - rows[0] + 1 else -1


def identity(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """The context modules as they begin (section 3, equations 4 and 5), and the networks' sizes."""
    x = np.random.default_rng(0).normal(size=(1, 12, 10, 21)).astype("float32")
    rows = []
    for kind, parameters in (("basic", 28_392), ("large", 6_803_139)):
        module = context_module(21, kind, dtype="float64")  # type: ignore[arg-type]
        error = float(np.abs(module(x) - np.maximum(x, 0)).max())
        rows.append(
            Row(
                f"{kind} context module as it begins against ReLU, largest difference (float64)",
                "0",
                error,
                "<= 1e-6",
                error <= 1e-6,
            )
        )
        count = module.count_params()
        rows.append(
            Row(
                f"parameters of the {kind} context module, C = 21",
                f"{parameters:,}",
                count,
                "equal",
                count == parameters,
            )
        )
    # Its shape alone: half a gigabyte of weights need not be made.
    count = sum(int(np.prod(shape)) for shape in front_end_shapes(Config()))
    rows.append(Row("parameters of the front end, C = 21", "134,346,581", count, "equal", count == 134_346_581))
    return rows


def front_end_shapes(config: Config) -> list[tuple[int, ...]]:
    """Shapes of the front end's weights, without making them."""
    with keras.StatelessScope(initialize_variables=False):
        # Variables made in this scope keep their shape and wait with their value.
        return [tuple(weight.shape) for weight in front_end(config).weights]


# --- a task that needs context ----------------------------------------------------------------------------------------

_SIDE, _STRIDE, _CLASSES = 64, 4, 6


def scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a grey disc, and some 30 pixels from it a small marker, red or blue, which decides the disc's class.

    Returns:
        (count, 64, 64, 3) float32 RGB 0-255, and labels (count, 16, 16) int32: 0 background, 1 or 2 disc, 3 or 4 red or
        blue marker.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:_SIDE, :_SIDE]
    pictures = 110 + random.normal(0, 10, (count, _SIDE, _SIDE, 3))
    labels = np.zeros((count, _SIDE, _SIDE), "int32")
    for picture, label in zip(pictures, labels, strict=True):
        while True:
            cy, cx = random.uniform(9, _SIDE - 9, 2)
            angle, distance = random.uniform(0, 2 * np.pi), random.uniform(28, 32)
            my, mx = cy + distance * np.sin(angle), cx + distance * np.cos(angle)
            if min(my, mx) >= 5 and max(my, mx) <= _SIDE - 5:
                break
        kind = random.integers(1, 3)
        disc = (y - cy) ** 2 + (x - cx) ** 2 <= 8**2
        marker = (np.abs(y - my) <= 3) & (np.abs(x - mx) <= 3)
        picture[disc] += 70
        picture[marker] = ((220, 40, 40), (40, 40, 220))[kind - 1]
        label[disc], label[marker] = kind, kind + 2
    half = _STRIDE // 2
    return np.clip(pictures, 0, 255).astype("float32"), labels[:, half::_STRIDE, half::_STRIDE]


def small_front() -> keras.Model:
    """Three convolutions and two poolings: stride 4, and a receptive field of 18 pixels."""
    picture = keras.Input((_SIDE, _SIDE, 3))
    x = layers.Rescaling(1 / 64, -2)(picture)
    x = layers.Conv2D(16, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    x = layers.MaxPooling2D(2)(x)
    x = layers.Conv2D(32, 3, padding="same", activation="relu")(x)
    return keras.Model(picture, layers.Conv2D(_CLASSES, 1)(x), name="front")


def disc_accuracy(model: keras.Model, pictures: np.ndarray, labels: np.ndarray) -> float:
    """Part of the discs' positions whose class is right."""
    guess = model.predict(pictures, verbose=0).argmax(-1)
    disc = (labels == 1) | (labels == 2)
    return float((guess == labels)[disc].mean())


def needs_context(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """A trained front end, trained on alone, and with Basic context modules that begin as the identity or at random."""
    count, epochs = (1024, 2) if quick else (2048, 3)
    train, test = scenes(count, 1), scenes(512, 2)
    # Discs and markers cover a tenth of the picture.
    weight = np.where(train[1] > 0, 5.0, 1.0).astype("float32")

    def fit(model: keras.Model) -> float:
        """One pass over the training scenes; what part of the discs of the other scenes is right then."""
        model.fit(*train, sample_weight=weight, batch_size=16, verbose=0)
        return disc_accuracy(model, *test)

    def compiled(model: keras.Model) -> keras.Model:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
        model.compile(keras.optimizers.Adam(3e-3), loss, jit_compile=False)
        return model

    keras.utils.set_random_seed(0)
    first = compiled(small_front())
    for _ in range(2):
        fit(first)
    found: dict[str, list[float]] = {}
    kept: dict[str, Any] = {}
    for name in ("alone", "identity", "glorot"):
        keras.utils.set_random_seed(0)
        front = small_front()
        front.set_weights(first.get_weights())
        model = front
        if name != "alone":
            init: Any = name
            module = context_module(_CLASSES, "basic", padding="same", init=init, noise=0.01)
            model = keras.Model(front.input, module(front.output))
        kept[name] = compiled(model)
        found[name] = [round(fit(model), 4) for _ in range(epochs)]
    palette, strips = voc_palette(), []
    # Two scenes of each kind.
    for i in [np.flatnonzero((test[1] == kind).any(axis=(1, 2)))[number] for number in (0, 1) for kind in (1, 2)]:
        maps = [test[1][i], *(model.predict(test[0][i : i + 1], verbose=0)[0].argmax(-1) for model in kept.values())]
        large = [palette[m].repeat(_STRIDE, 0).repeat(_STRIDE, 1) for m in maps]
        strips.append(np.concatenate([test[0][i].astype("uint8"), *large], axis=1))
    write_image(figures / "dilated_net_needs_context.png", np.concatenate(strips).repeat(2, 0).repeat(2, 1))
    task = "discs whose class a marker 30 pixels away decides: positions labelled right"
    alone, ours = found["alone"][-1], found["identity"][-1]
    rows = [
        Row(f"{task}, front end alone (it sees 18 pixels)", "chance: 0.5", alone, "<= 0.6", alone <= 0.6),
        Row(f"{task}, with the Basic context module", "higher", ours, ">= 0.95", ours >= 0.95),
    ]
    for epoch, (mine, other) in enumerate(zip(found["identity"], found["glorot"], strict=True), 1):
        steps = epoch * count // 16
        rows.append(
            Row(
                f"{task}, {steps} steps after a module begun at random was put in (as the identity: {mine})",
                "random initialisation fails (section 3)",
                other,
                f"< {mine}",
                other < mine,
            )
        )
    return rows
