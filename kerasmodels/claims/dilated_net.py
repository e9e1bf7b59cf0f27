"""The claims of `dilated_net`: receptive fields, the identity initialization, and a task that needs context."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import keras
import numpy as np
from keras import layers

from kerasmodels.claims.evidence import average, seen
from kerasmodels.data import write_image
from kerasmodels.data.segmentation import voc_palette
from kerasmodels.family import Claim, Experiment
from kerasmodels.models.dilated_net import Config, DilatedNet, context_module, front_end
from kerasmodels.paper_model import dtype_policy


def receptive_fields(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """As far as gradients reach: each layer of the context module (table 1), and the front end."""
    module = context_module(1, init="glorot")
    average(module)
    reaches = [
        _reach(keras.Model(module.input, layer.output), 101)
        for layer in module.layers
        if isinstance(layer, layers.Conv2D)
    ]
    # Averages, because a maximum has a gradient at one place only.
    front = front_end(Config(channels=(1, 1, 1, 1, 1), head=1, classes=2), pooling="avg")
    average(front)
    positions = [front.compute_output_shape((1, n, n, 3))[1] for n in (500, 628, 852, 900, 1396)]
    return [
        Claim(
            "module_fields",
            "receptive fields of the context module's layers, by their gradients, positions",
            "3, 5, 9, 17, 33, 65, 67, 67",
            ", ".join(map(str, reaches)),
            equals="3, 5, 9, 17, 33, 65, 67, 67",
        ),
        Claim(
            "front_field",
            "receptive field of the front end, by its gradients, pixels",
            "380 (code)",
            _reach(front, 372 + 8 * 3),
            equals=380,
        ),
        Claim("margin", "margin that leaves one label for 8 x 8 pixels, pixels", "186", Config().margin, equals=186),
        Claim(
            "positions",
            "positions for 500, 628, 852, 900 and 1396 pixels",
            "16, 32, 60, 66, 128",
            ", ".join(map(str, positions)),
            equals="16, 32, 60, 66, 128",
        ),
    ]


def _reach(network: keras.Model, side: int) -> int:
    """How many rows of the input have a gradient of the output's middle; -1 if they are not a solid square."""
    _, rows, columns, _ = network.compute_output_shape((1, side, side, network.input.shape[-1]))
    first, end = seen(network, side, rows // 2, columns // 2) or (0, -1)
    return end - first


def identity(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The context modules as they begin (section 3, equations 4 and 5), and the networks' sizes."""
    x = np.random.default_rng(0).normal(size=(1, 12, 10, 21)).astype("float32")
    kinds: tuple[tuple[Literal["basic", "large"], int], ...] = (("basic", 28_392), ("large", 6_803_139))
    found = []
    for kind, parameters in kinds:
        with dtype_policy("float64"):
            module = context_module(21, kind)
        found += [
            Claim(
                f"{kind}_identity",
                f"{kind} context module as it begins against ReLU, largest difference (float64)",
                "0",
                float(np.abs(module(x) - np.maximum(x, 0)).max()),
                at_most=1e-6,
            ),
            Claim(
                f"{kind}_parameters",
                f"parameters of the {kind} context module, C = 21",
                f"{parameters:,}",
                module.count_params(),
                equals=parameters,
            ),
        ]
    # Its shape alone: half a gigabyte of weights need not be made.
    count = sum(int(np.prod(shape)) for shape in front_end_shapes(Config()))
    text = "parameters of the front end, C = 21"
    return [*found, Claim("front_parameters", text, "134,346,581", count, equals=134_346_581)]


def front_end_shapes(config: Config) -> list[tuple[int, ...]]:
    """Shapes of the front end's weights, without making them."""
    with keras.StatelessScope(initialize_variables=False):
        # Variables made in this scope keep their shape and wait with their value.
        return [tuple(weight.shape) for weight in front_end(config).weights]


# --- a task that needs context ----------------------------------------------------------------------------------------

_SIDE, _STRIDE, _CLASSES = 64, 4, 6


def scenes(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Pictures of a gray disc, and some 30 pixels from it a small marker, red or blue, which decides the disc's class.

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


def needs_context(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """A trained front end, trained on alone, and with Basic context modules that begin as the identity or at random."""
    count, epochs = (1024, 2) if quick else (2048, 3)
    train, test = scenes(count, 1), scenes(512, 2)
    # Discs and markers cover a tenth of the picture.
    weight = np.where(train[1] > 0, 5.0, 1.0).astype("float32")

    def fit(model: DilatedNet) -> float:
        """One pass over the training scenes; what part of the discs of the other scenes is right then."""
        model.fit(*train, sample_weight=weight, batch_size=16, verbose=0)
        return disc_accuracy(model, *test)

    def network(init: Literal["identity", "glorot"] | None) -> DilatedNet:
        keras.utils.set_random_seed(0)
        behind: dict[str, Any] = {}
        if init is not None:
            behind = {"context": "basic", "context_padding": "same", "context_init": init, "trains": "all"}
        model = DilatedNet(Config(classes=_CLASSES, **behind), front=small_front())
        model.compile(keras.optimizers.Adam(3e-3))
        return model

    first = network(None)
    for _ in range(2):
        fit(first)
    found: dict[str, list[float]] = {}
    kept: dict[str, DilatedNet] = {}
    arms: tuple[tuple[str, Literal["identity", "glorot"] | None], ...]
    arms = (("alone", None), ("identity", "identity"), ("glorot", "glorot"))
    for name, init in arms:
        kept[name] = network(init)
        kept[name].front.set_weights(first.front.get_weights())
        found[name] = [round(fit(kept[name]), 4) for _ in range(epochs)]
    _draw(figures / "dilated_net_needs_context.png", test, kept)
    task = "discs whose class a marker 30 pixels away decides: positions labeled right"
    return [
        Claim(
            "discs_alone",
            f"{task}, front end alone (it sees 18 pixels)",
            "chance: 0.5",
            found["alone"][-1],
            at_most=0.6,
        ),
        Claim(
            "discs_context", f"{task}, with the Basic context module", "higher", found["identity"][-1], at_least=0.95
        ),
        *(
            Claim(
                f"discs_random_{epoch}",
                f"{task}, {epoch * count // 16} steps after a module begun at random was put in "
                f"(as the identity: {mine})",
                "random initialization fails (section 3)",
                other,
            )
            for epoch, (mine, other) in enumerate(zip(found["identity"], found["glorot"], strict=True), 1)
        ),
        Claim(
            "discs_lead",
            f"{task}, the identity's lead over the random beginning, the least of all passes",
            "random initialization fails (section 3)",
            round(min(np.subtract(found["identity"], found["glorot"])), 4),
            at_least=1e-4,
        ),
    ]


def _draw(path: Path, test: tuple[np.ndarray, np.ndarray], models: Mapping[str, DilatedNet]) -> None:
    """Two scenes of each kind: picture, truth, and what each model says."""
    palette, strips = voc_palette(), []
    for i in [np.flatnonzero((test[1] == kind).any(axis=(1, 2)))[number] for number in (0, 1) for kind in (1, 2)]:
        maps = [test[1][i], *(model.predict(test[0][i : i + 1], verbose=0)[0].argmax(-1) for model in models.values())]
        large = [palette[m].repeat(_STRIDE, 0).repeat(_STRIDE, 1) for m in maps]
        strips.append(np.concatenate([test[0][i].astype("uint8"), *large], axis=1))
    write_image(path, np.concatenate(strips).repeat(2, 0).repeat(2, 1))


EXPERIMENTS = {
    "receptive_fields": Experiment("what each layer sees, by gradients", receptive_fields),
    "identity": Experiment("context modules begin as ReLU; the networks' sizes", identity),
    "needs_context": Experiment("a task whose answer lies 30 pixels away", needs_context),
}
