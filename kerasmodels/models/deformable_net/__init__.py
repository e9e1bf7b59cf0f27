"""A classifier of digits whose convolutions look where they have learnt to look.

Dai, Qi, Xiong, Li, Zhang, Hu, Wei: Deformable Convolutional Networks, ICCV 2017.

Reproduced: deformable convolution itself (`layers.DeformableConv2D`; equal to torchvision's operator), and what its
offsets alone do for a network that meets digits in sizes or at angles it was not trained on.

The well-known demonstration of this on scaled MNIST, a network of four convolutions that goes from 57 to 92 % with
"deformable convolution", does not show it: in its published weights every offset is zero, and what changed is batch
normalisation. So the experiment has five arms that tell the two apart; see `_arms`.

| departure from the paper | why |
|---|---|
| the network of that demonstration, not DeepLab or R-FCN | minutes on two cores; its control is published |
| its padding is one pixel on both sides in layers of stride 2 too | the operator's own rule: one node in ONNX |
| Adam; the paper trains with SGD | as in the demonstration |
| batch normalisation forgets at 0.9, not 0.99, a step | trained for hundreds of steps, not thousands |
"""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from keras import layers
from PIL import Image, ImageDraw

from kerasmodels import weights
from kerasmodels.data import read_image, write_image
from kerasmodels.data.digits import SIDE, Warp, read_digits, warped
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import (
    Datasets,
    Experiment,
    Family,
    Row,
    RunReport,
    Servable,
    TensorSpec,
    check,
    config_to_dict,
)
from kerasmodels.layers import DeformableConv2D
from kerasmodels.models.deformable_net import regions, scenes

CLASSES = 10
Trained = Literal["all", "offsets", "normalization", "offsets and normalization"]


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's layer in the demonstration's network."""

    digits: Path | None = None
    """A folder with MNIST's four files; left out, the small digits of scikit-learn."""
    warp: Warp = "scaled"
    """What happens to every digit: none, scaled (each axis made 1 to 2.5 times smaller, shifted) or rotated."""

    filters: tuple[int, ...] = (32, 64, 128, 128)
    """Of each 3x3 convolution."""
    strides: tuple[int, ...] = (1, 2, 1, 2)
    """Of each convolution, pixels."""
    deformable: int = 3
    """How many of the convolutions, counted from the last, are deformable (the paper's DeepLab: 3)."""
    modulated: bool = False
    """Each sample is also weighted, as in version 2."""
    trained: Trained = "all"
    """Which weights move. Batch normalisation that does not move also keeps its statistics."""

    steps: int = 9400
    """Training steps (batches); ten times through MNIST."""
    batch: int = 64
    """Digits a step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """Of the arithmetic; weights and positions stay float32."""
    seed: int = 0
    """Of the stream of digits and, under `kerasmodels train`, of the initial weights."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(len(self.filters) > 0 and min(self.filters) > 0, "at least one positive filters", self.filters)
        check(
            len(self.strides) == len(self.filters) and min(self.strides) > 0,
            f"strides, {len(self.filters)} ints >= 1",
            self.strides,
        )
        check(0 <= self.deformable <= len(self.filters), f"deformable, 0 to {len(self.filters)}", self.deformable)
        for name, known in (
            ("warp", ("none", "scaled", "rotated")),
            ("trained", ("all", "offsets", "normalization", "offsets and normalization")),
            ("precision", ("float32", "mixed_bfloat16")),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        check(
            self.deformable > 0 or "offsets" not in self.trained,
            "a deformable convolution whose offsets can be trained",
            f"deformable={self.deformable}, trained={self.trained!r}",
        )
        check(self.steps > 0 and self.batch > 0, "steps > 0 and batch > 0", (self.steps, self.batch))
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)


VARIANTS = {
    "paper": Config(),
    "quick": Config(steps=600),
    "plain": Config(deformable=0),
}


# --- network ----------------------------------------------------------------------------------------------------------


def _network(config: Config, dtype: str) -> keras.Model:
    """(N, H, W, 1) 0-255 -> (N, 10) probabilities; convolution - ReLU - batch normalisation, mean over H and W."""
    inputs = keras.Input((None, None, 1), name="digits")
    x = layers.Rescaling(1 / 255, dtype=dtype, name="scale")(inputs)
    count = len(config.filters)
    for number, (filters, stride) in enumerate(zip(config.filters, config.strides, strict=True), 1):
        if number > count - config.deformable:
            conv: keras.layers.Layer = DeformableConv2D(
                filters, 3, stride, padding=1, modulated=config.modulated, activation="relu", dtype=dtype,
                name=f"conv{number}",
            )  # fmt: skip
        else:
            x = layers.ZeroPadding2D(1, dtype=dtype, name=f"pad{number}")(x)
            conv = layers.Conv2D(filters, 3, stride, activation="relu", dtype=dtype, name=f"conv{number}")
        x = layers.BatchNormalization(momentum=0.9, dtype=dtype, name=f"norm{number}")(conv(x))
    x = layers.GlobalAveragePooling2D(dtype=dtype, name="pool")(x)
    x = layers.Dense(CLASSES, dtype=dtype, name="classes")(x)
    return keras.Model(inputs, layers.Softmax(dtype="float32", name="probabilities")(x), name="network")


def _freeze(network: keras.Model, trained: str) -> None:
    """Leave trainable what `Config.trained` says."""
    if trained == "all":
        return
    for layer in network.layers:
        if isinstance(layer, layers.BatchNormalization):
            layer.trainable = "normalization" in trained
        else:
            for variable in layer.weights:
                variable.trainable = "offsets" in trained and variable.name.startswith("offset_")


@keras.saving.register_keras_serializable("kerasmodels")
class DeformableNet(keras.Model):
    """The classifier.

    Args:
        config: a `DeformableNet.Config` (or its values as a dict).
        precision: dtype policy of the layers.

    Shapes:
        (N, H, W, 1), 0-255, white on black -> (N, 10) probabilities; trained at 28 x 28.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> config = km.models.DeformableNet.Config(filters=(4, 8), strides=(2, 2), deformable=1)
        >>> tuple(km.models.DeformableNet(config)(np.zeros((2, 28, 28, 1), "float32")).shape)
        (2, 10)
    """

    Config: TypeAlias = Config
    family_name = "deformable_net"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "deformable_net", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.precision = precision
        self.network = _network(self.config, precision)
        _freeze(self.network, self.config.trained)
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _build(config: Config) -> DeformableNet:
    """The model with Adam and cross entropy, ready for `fit`."""
    model = DeformableNet(config, precision=config.precision)
    # XLA makes convolutions slower on CPUs; what it is good for is compiled by itself inside the layer.
    model.compile(
        keras.optimizers.Adam(config.learning_rate),
        "sparse_categorical_crossentropy",
        metrics=["accuracy"],
        jit_compile=False,
    )
    return model


def _datasets(config: Config, start: int = 0) -> Datasets:
    pictures, labels = read_digits(config.digits, "train")

    def batch(number: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        seed = tf.stack([tf.cast(config.seed, tf.int64), number])
        rows = tf.random.stateless_uniform((config.batch,), seed, 0, len(labels), tf.int32)
        return warped(tf.gather(pictures, rows), config.warp, seed + 1), tf.gather(labels, rows)

    numbers = tf.data.Dataset.range(start, np.iinfo(np.int64).max)
    train = numbers.map(batch, num_parallel_calls=2, deterministic=True).prefetch(2)
    return Datasets(train, _test_set(config))


def _test_set(config: Config, most: int | None = None) -> tf.data.Dataset:
    """The test digits, warped once and for all."""
    pictures, labels = (array[:most] for array in read_digits(config.digits, "test"))
    moved = warped(tf.constant(pictures), config.warp, tf.constant([7, 7], tf.int64))
    return tf.data.Dataset.from_tensor_slices((moved, labels)).batch(250)


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: DeformableNet, config: Config) -> dict[str, Servable]:
    network = model.network

    def classify(digits: tf.Tensor) -> dict[str, tf.Tensor]:
        return {"probabilities": tf.cast(network(tf.cast(digits, tf.float32), training=False), tf.float32)}

    return {
        "classify": Servable(
            call=classify,
            model=network,
            inputs=(
                TensorSpec(
                    "digits", ("batch", "height", "width", 1), "uint8", "handwritten digits, white on black, 0-255"
                ),
            ),
            outputs=(TensorSpec("probabilities", ("batch", CLASSES), "float32", "of the classes 0 to 9"),),
            example=_example_digits,
            dims={"batch": 1, "height": SIDE, "width": SIDE},
            check_dims=({"batch": 2, "height": 33, "width": 30},),
            doc="tells which handwritten digit a picture shows, by deformable convolutions",
        )
    }


def _example_digits(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Strokes of random direction."""
    random = np.random.default_rng(seed)
    n, height, width = (dims[name] for name in ("batch", "height", "width"))
    found = np.zeros((n, height, width, 1), "uint8")
    for picture in found:
        drawing = Image.new("L", (width, height))
        points = [tuple(random.uniform(0.15, 0.85, 2) * (width, height)) for _ in range(4)]
        ImageDraw.Draw(drawing).line(points, fill=255, width=max(2, height // 10), joint="curve")
        picture[..., 0] = np.asarray(drawing)
    return {"digits": found}


def _preview(model: DeformableNet, config: Config) -> dict[str, np.ndarray]:
    """Test digits with the places that the last deformable convolution looks at."""
    pictures, _ = next(iter(_test_set(config, most=3)))
    shown = [_looked_at(model.network, picture, _middle(picture)) for picture in np.asarray(pictures)]
    return {"samples": np.concatenate(shown, axis=1)}


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Tell which digit photos show, and draw where the network looked."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Photos of one handwritten digit each, dark on light or light on dark."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture to write: a row for each photo."""
    run: Path | None = None
    """The run folder of a trained network."""
    show_offsets: tyro.conf.FlagCreatePairsOff[bool] = False
    """Draw, on the photo, where the deformable convolutions of one unit sample, and beside it that unit's effective
    receptive field; for a unit on the digit and for one beside it."""
    size: int = 28
    """Side to which the photo is shrunk before it is looked at, pixels; the network was trained on 28."""


def _run(options: RunOptions) -> RunReport:
    if options.run is None:
        raise UsageError(
            "expected the run folder of a trained network: --run DIR. "
            "Train one with `kerasmodels train deformable_net --digits MNIST_FOLDER --out DIR`."
        )
    check(bool(options.inputs), "at least one photo", options.inputs)
    check(8 <= options.size <= 512, "size, 8 to 512 pixels", options.size)
    trained = weights.run(options.run)
    family, _, model = trained.load()
    if family.name != FAMILY.name:
        raise UsageError(f"expected a run of {FAMILY.name}. Received: {options.run}, a run of {family.name}.")
    rows, facts = [], {}
    for path in options.inputs:
        photo = read_image(path)
        digit = _as_digit(photo, options.size)
        probabilities = np.asarray(model(digit[None].astype("float32")))[0]
        best = int(np.argmax(probabilities))
        facts[path.name] = f"{best} ({100 * probabilities[best]:.1f} %)"
        large = np.asarray(Image.fromarray(photo).resize((_PANEL, _PANEL), Image.Resampling.LANCZOS))
        panels = [large, np.asarray(Image.fromarray(digit[..., 0]).resize((_PANEL, _PANEL), 0).convert("RGB"))]
        if options.show_offsets:
            for unit in (_middle(digit), (0.12, 0.12)):
                panels += [
                    _looked_at(model.network, digit, unit, large),
                    _effective_field(model.network, digit, unit, large),
                ]
        rows.append(np.concatenate(panels, axis=1))
    return RunReport((write_image(options.out, np.concatenate(rows, axis=0)),), facts)


_PANEL = 280
"""Side of each drawing, pixels."""


def _as_digit(photo: np.ndarray, size: int) -> np.ndarray:
    """(size, size, 1) uint8, white on black: the paper, however unevenly lit, is taken away."""
    grey = Image.fromarray(photo).convert("L").resize((size, size), Image.Resampling.LANCZOS)
    values = np.asarray(grey, "float64")
    if values.max() - values.min() < 8:
        raise DataError("expected a photo of a digit. Received: one of even grey.")
    border = np.concatenate([values[0], values[-1], values[:, 0], values[:, -1]])
    if np.median(border) > np.mean([values.min(), values.max()]):  # what lies along the edges is the paper
        values = -values
    y, x = np.indices(values.shape)
    plane = np.stack([np.ones(values.size), y.ravel(), x.ravel()], axis=1)
    paper = np.ones(values.size, bool)
    ink = values.ravel()
    for _ in range(4):
        light = plane @ np.linalg.lstsq(plane[paper], values.ravel()[paper], rcond=None)[0]
        ink = values.ravel() - light
        paper = ink < 0.3 * ink.max()
    share = (ink / ink.max()).reshape(values.shape)
    # A fifth is grain and shadow.
    return np.round(255 * np.clip((share - 0.2) / 0.7, 0, 1))[..., None].astype("uint8")


def _middle(digit: np.ndarray) -> tuple[float, float]:
    """The middle of what is white: row and column as parts of the height and width."""
    weight = np.asarray(digit, "float64")[..., 0] + 1e-9
    rows, columns = np.indices(weight.shape)
    return (
        float((rows * weight).sum() / weight.sum() / weight.shape[0]),
        float((columns * weight).sum() / weight.sum() / weight.shape[1]),
    )


def sampling_positions(network: keras.Model, digit: np.ndarray, unit: tuple[float, float]) -> list[np.ndarray]:
    """Where one unit of the last deformable convolution looks, and where what it sees looks, and so on.

    Args:
        network: of a `DeformableNet`.
        digit: (H, W, 1), 0-255.
        unit: its place, as parts of the height and width.

    Returns:
        one array (P, 2) for each deformable convolution, the last one first: rows and columns in pixels of the digit,
        9 of the first layer met, 81 of the next, 729 of the third. As in figure 6 of the paper.

    Raises:
        UsageError: the network has no deformable convolution.
    """
    moved = [layer for layer in network.layers if isinstance(layer, DeformableConv2D)]
    if not moved:
        raise UsageError("the network has no deformable convolution, so no offsets to show.")
    inner = keras.Model(network.input, [layer.input for layer in moved])
    inputs = inner(digit[None].astype("float32"))
    inputs = [inputs] if len(moved) == 1 else inputs
    found: list[np.ndarray] = []
    places: np.ndarray | None = None
    for layer, x in zip(reversed(moved), reversed(inputs), strict=True):
        offsets = np.asarray(keras.ops.cast(layer.offsets(x)[0], "float32"))[0]
        rows, columns = offsets.shape[:2]
        if places is None:
            places = np.array([[unit[0] * rows, unit[1] * columns]])
        # The unit nearest to each place; offsets exist at units only.
        near = np.clip(np.round(places), 0, [rows - 1, columns - 1]).astype(int)
        taps = np.stack(np.meshgrid(*(np.arange(k) - 1 for k in layer.kernel_size), indexing="ij"), -1).reshape(1, 9, 2)
        moves = offsets[near[:, 0], near[:, 1]].reshape(-1, 9, 2)
        places = (near[:, None] * np.array(layer.strides) + taps + moves).reshape(-1, 2)
        scale = np.array(digit.shape[:2]) / np.array([int(n) for n in x.shape[1:3]])
        found.append((places + 0.5) * scale - 0.5)
    return found


def _looked_at(
    network: keras.Model, digit: np.ndarray, unit: tuple[float, float], photo: np.ndarray | None = None
) -> np.ndarray:
    """The photo with dots where the unit looks; the unit itself is the green dot."""
    if photo is None:
        photo = np.asarray(Image.fromarray(np.uint8(digit[..., 0])).resize((_PANEL, _PANEL), 0).convert("RGB"))
    drawing = Image.fromarray(photo)
    draw = ImageDraw.Draw(drawing)
    scale = _PANEL / np.array(digit.shape[:2])
    try:
        levels = sampling_positions(network, digit, unit)
    except UsageError:
        return photo
    dots = (levels[-1] + 0.5) * scale
    for y, x in dots:
        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=(230, 40, 40))
    y, x = np.array(unit) * _PANEL
    draw.ellipse((x - 6, y - 6, x + 6, y + 6), fill=(40, 220, 60), outline=(0, 0, 0))
    return np.asarray(drawing)


def _effective_field(
    network: keras.Model, digit: np.ndarray, unit: tuple[float, float], photo: np.ndarray
) -> np.ndarray:
    """The photo, light where a change of it changes the unit: the gradient of the unit's mean, by size."""
    moved = [layer for layer in network.layers if isinstance(layer, DeformableConv2D)]
    last = keras.Model(network.input, moved[-1].output)
    x = tf.constant(digit[None].astype("float32"))
    with tf.GradientTape() as tape:
        tape.watch(x)
        y = last(x)
        row, column = (min(int(u * n), n - 1) for u, n in zip(unit, y.shape[1:3], strict=True))
        total = tf.reduce_mean(y[0, row, column])
    size = np.abs(tape.gradient(total, x).numpy())[0, ..., 0]
    size = np.asarray(
        Image.fromarray(np.uint8(255 * np.sqrt(size / max(float(size.max()), 1e-12)))).resize((_PANEL, _PANEL)),
        "float32",
    )
    return (photo * (0.25 + 0.75 * size[..., None] / 255)).astype("uint8")


# --- experiments ------------------------------------------------------------------------------------------------------

SEEDS = 3


def _arms(warp: Warp) -> Any:
    """The experiment of one kind of warp.

    A plain network is trained on digits as they are. Then, on warped digits,
    A: it stays as it is; B: only its batch normalisation is trained on (the control: what the demonstration measured);
    C: its last three convolutions become deformable, only the offsets are trained; D: both; E: all of the plain
    network is trained on.
    What offsets do is C - A and D - B, over the same seeds.
    """

    def measure(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
        base_steps, steps, seeds, most = (200, 100, 1, 500) if quick else (600, 300, SEEDS, None)
        scores: dict[str, list[float]] = {arm: [] for arm in "ABCDE"}
        regular, shown = [], None
        for seed in range(seeds):
            keras.utils.set_random_seed(seed)
            plain = Config(digits=data, warp="none", deformable=0, steps=base_steps, seed=seed)
            base = _fitted(_build(plain), plain)
            regular.append(_accuracy(base, plain, most))
            scores["A"].append(_accuracy(base, dataclasses.replace(plain, warp=warp), most))
            arms: tuple[tuple[str, int, Trained], ...] = (
                ("B", 0, "normalization"),
                ("C", 3, "offsets"),
                ("D", 3, "offsets and normalization"),
                ("E", 0, "all"),
            )
            for arm, deformable, trained in arms:
                config = dataclasses.replace(
                    plain, warp=warp, deformable=deformable, trained=trained, steps=steps, seed=seed + 100
                )
                model = _build(config)
                _take_over(model.network, base.network)
                scores[arm].append(_accuracy(_fitted(model, config), config, most))
                shown = model if arm == "D" and seed == 0 else shown
        assert shown is not None
        digits = np.asarray(next(iter(_test_set(dataclasses.replace(shown.config), 6)))[0])
        write_image(
            figures / f"deformable_net_{warp}.png",
            np.concatenate([_looked_at(shown.network, digit, _middle(digit)) for digit in digits], axis=1),
        )
        source = "MNIST" if data is not None else "scikit-learn's digits"
        return [*_rows(f"{source}, {warp}, {seeds} seeds", warp, regular, scores)]

    return measure


def _rows(name: str, warp: Warp, regular: list[float], scores: Mapping[str, list[float]]) -> list[Row]:
    def percent(values: Sequence[float]) -> float:
        return round(100 * float(np.mean(values)), 2)

    paper = {"A": "56.97 (nearest), 61.15 (bilinear)", "B": "92.72: the published network with all offsets 0"}
    what = {
        "A": "A, the plain network as it is",
        "B": "B, batch normalisation trained on",
        "C": "C, offsets trained, all else as it was",
        "D": "D, offsets and batch normalisation",
        "E": "E, the whole plain network trained on",
    }
    rows = [
        Row(f"{name}: accuracy on digits as they are, %", "98.74", percent(regular), ">= 97", percent(regular) >= 97)
    ]
    for arm, text in what.items():
        published = paper.get(arm, "not given") if warp == "scaled" else "not given"
        spread = f"for information; seeds: {', '.join(f'{100 * v:.2f}' for v in scores[arm])}"
        rows.append(Row(f"{name}: accuracy of {text}, %", published, percent(scores[arm]), spread, True))
    for text, high, low, least in (
        ("what offsets alone do, C - A", "C", "A", 10.0),
        ("what offsets add to batch normalisation, D - B", "D", "B", 0.0),
    ):
        gains = [100 * (a - b) for a, b in zip(scores[high], scores[low], strict=True)]
        rows.append(
            Row(
                f"{name}: {text}, points, the least of all seeds",
                "not given",
                round(min(gains), 2),
                f"> {least:g} with every seed",
                min(gains) > least,
            )
        )
    return rows


def _take_over(network: keras.Model, source: keras.Model) -> None:
    """The weights of the same names; offsets stay zero."""
    for layer in source.layers:
        target = (
            {variable.name: variable for variable in network.get_layer(layer.name).weights} if layer.weights else {}
        )
        for variable in layer.weights:
            target[variable.name].assign(variable.value)


def _fitted(model: DeformableNet, config: Config) -> DeformableNet:
    model.fit(_datasets(config).train, steps_per_epoch=config.steps, shuffle=False, verbose=0)
    return model


def _accuracy(model: DeformableNet, config: Config, most: int | None) -> float:
    return float(model.evaluate(_test_set(config, most), verbose=0)[1])


FAMILY = Family(
    name="deformable_net",
    config=Config,
    variants=VARIANTS,
    model=DeformableNet,
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "scaled": Experiment(
            "five arms on scaled digits: what offsets do, and what normalisation", _arms("scaled"), private=True
        ),
        "rotated": Experiment("the same five arms on turned digits", _arms("rotated"), private=True),
        "scenes": Experiment(
            "plain, dilated and deformable, equal weights, digits on photos", scenes.measure, private=True
        ),
        "regions": Experiment("bins that stay and bins that move: digits in regions of photos", regions.measure),
    },
    preview=_preview,
)
