"""CycleGAN: pictures of one kind become pictures of another, learnt from two folders without any pairs.

Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, ICCV 2017; the
authors' PyTorch code.

Reproduced: generators of 9 and 6 blocks (11,378,179 and 7,837,699 parameters), the judge that sees 70 x 70 pixels
(2,764,737), least squares, cycle and identity losses, the pool of 50 pictures, the linear decay, the order of updates.

| departure from the paper | why |
|---|---|
| crops of 60 to 100 % of a photo's shorter side; the code cuts 256 of 286 pixels | one stream for all families |
| steps instead of epochs; the rate is constant for the first half of them | folders of any length |
| in all variants but "paper", `upsampling="resize"`: nearest resize, then a convolution | no checkerboard |
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels import weights
from kerasmodels.backbones.torch_file import read_torch
from kerasmodels.data import list_images, read_image, unpaired
from kerasmodels.data.unpaired import kinds
from kerasmodels.errors import WeightsError
from kerasmodels.family import (
    Datasets,
    Experiment,
    Family,
    Servable,
    TensorSpec,
    check,
    config_to_dict,
)
from kerasmodels.layers import InstanceNormalization, PolyphaseConv2D, ReflectionPadding2D, ResidualBlock, Resize2D
from kerasmodels.layers.padding import on_multiples
from kerasmodels.losses.adversarial import LEAST_SQUARES, cycle_consistency
from kerasmodels.metrics import TermMean
from kerasmodels.models.cyclegan import experiments
from kerasmodels.training import devices
from kerasmodels.training.image_pool import ImagePool
from kerasmodels.training.translation import DIRECTIONS, RunOptions, run, translated

__all__ = ["Config", "CycleGAN", "RunOptions", "from_torch", "translated"]


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's."""

    a: Path | None = None
    """A folder of pictures of one kind."""
    b: Path | None = None
    """A folder of pictures of the other kind; nothing needs to match."""
    start_from: str | None = None
    """Begin with these weights instead of random ones: a run folder or a preset."""

    filters: int = 64
    """Channels of the generators at full size; four times as many in the residual blocks."""
    blocks: int = 9
    """Residual blocks (the paper: 6 for 128 pixels, 9 from 256 on)."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """transposed: convolution of stride 1/2; resize: nearest neighbour, then a convolution."""
    judge_filters: int = 64
    """Channels of the judges' first layer."""

    size: int = 256
    """Side of the training crops, pixels."""
    cycle_weight: float = 10.0
    """Of the mean absolute difference after there and back."""
    identity_weight: float = 0.5
    """As a part of cycle_weight: what a generator may change of pictures that are of its kind already."""
    adversarial_weight: float = 1.0
    """Of what the judges say."""
    pool: int = 50
    """Made pictures of earlier steps that the judges are shown again."""

    steps: int = 200000
    """Training steps (batches)."""
    batch: int = 1
    """Pictures of each kind in a step."""
    learning_rate: float = 2e-4
    """Of Adam (0.5, 0.999); it falls to 0 over the second half of the steps."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 halves the time where the processor has bfloat16 instructions. Weights stay float32."""
    seed: int = 0
    """Of the streams of crops, the pools and, under `kerasmodels train`, of the initial weights."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        for name, known in (
            ("upsampling", ("transposed", "resize")),
            ("precision", ("float32", "mixed_bfloat16")),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        for name in ("filters", "judge_filters", "steps", "batch", "learning_rate"):
            check(getattr(self, name) > 0, f"{name} > 0", getattr(self, name))
        for name in ("blocks", "pool", "cycle_weight", "identity_weight", "adversarial_weight"):
            check(getattr(self, name) >= 0, f"{name} >= 0", getattr(self, name))
        check(self.size >= 32 and self.size % 4 == 0, "size, a multiple of 4 and at least 32", self.size)


_MOBILE = Config(
    filters=24,
    blocks=6,
    upsampling="resize",
    judge_filters=32,
    size=128,
    steps=10000,
    precision="mixed_bfloat16",
)
VARIANTS = {
    "paper": Config(),
    "paper_128": Config(blocks=6, size=128),
    "mobile": _MOBILE,
    "quick": Config(filters=12, blocks=3, upsampling="resize", judge_filters=16, size=64, steps=600),
}


# --- networks ---------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class _WithoutFirst(layers.Layer):
    """Without the first row and the first column: `Cropping2D`, whose gradient uses one core only."""

    def call(self, inputs: Any) -> Any:
        return tf.slice(inputs, (0, 1, 1, 0), (-1, -1, -1, -1))

    def compute_output_shape(self, input_shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        n, *sizes, c = input_shape
        return (n, *(None if size is None else size - 1 for size in sizes), c)


def _normal() -> keras.initializers.Initializer:
    return keras.initializers.RandomNormal(0.0, 0.02)


def _generator(config: Config, dtype: str, name: str) -> keras.Model:
    """(N, H, W, 3), -1 to 1 -> the same; H and W multiples of 4."""

    def convolution(x: Any, filters: int, kernel: int, label: str, strides: int = 1, reflect: bool = False) -> Any:
        around = ReflectionPadding2D if reflect else layers.ZeroPadding2D
        x = around(kernel // 2, dtype=dtype, name=f"{name}_{label}_pad")(x)
        options: dict[str, Any] = {"kernel_initializer": _normal(), "dtype": dtype, "name": f"{name}_{label}"}
        if filters == 3:
            return PolyphaseConv2D(filters, kernel, **options)(x)
        return layers.Conv2D(filters, kernel, strides, **options)(x)

    def normalized(x: Any, label: str) -> Any:
        x = InstanceNormalization(center=False, scale=False, dtype=dtype, name=f"{name}_{label}_norm")(x)
        return layers.ReLU(dtype=dtype, name=f"{name}_{label}_relu")(x)

    def doubled(x: Any, filters: int, label: str) -> Any:
        if config.upsampling == "resize":
            return convolution(Resize2D(2, dtype=dtype, name=f"{name}_{label}_resize")(x), filters, 3, label)
        # Torch's transposed convolution with padding 1 and output padding 1: samples 1 to 2n of the full result.
        x = layers.Conv2DTranspose(
            filters, 3, 2, "valid", kernel_initializer=_normal(), dtype=dtype, name=f"{name}_{label}"
        )(x)
        return _WithoutFirst(dtype=dtype, name=f"{name}_{label}_crop")(x)

    x = given = keras.Input((None, None, 3), name="picture")
    x = normalized(convolution(x, config.filters, 7, "first", reflect=True), "first")
    for i in (1, 2):
        x = normalized(convolution(x, config.filters * 2**i, 3, f"down{i}", strides=2), f"down{i}")
    for i in range(config.blocks):
        x = ResidualBlock(
            4 * config.filters, "instance", "reflect", affine=False, dtype=dtype, name=f"{name}_block{i + 1}"
        )(x)
    for i in (1, 0):
        x = normalized(doubled(x, config.filters * 2**i, f"up{2 - i}"), f"up{2 - i}")
    x = convolution(x, 3, 7, "last", reflect=True)
    return keras.Model(given, ops.tanh(ops.cast(x, "float32")), name=name)


def _judge(config: Config, dtype: str, name: str) -> keras.Model:
    """(N, H, W, 3), -1 to 1 -> (N, h, w, 1): a score for each window of 70 x 70 pixels, 8 pixels apart."""
    x = given = keras.Input((None, None, 3), name="picture")
    layout = [(1, 2, False), (2, 2, True), (4, 2, True), (8, 1, True), (0, 1, False)]
    for i, (factor, strides, norm) in enumerate(layout):
        x = layers.ZeroPadding2D(1, dtype=dtype, name=f"{name}_{i}_pad")(x)
        filters = factor * config.judge_filters or 1
        x = layers.Conv2D(filters, 4, strides, kernel_initializer=_normal(), dtype=dtype, name=f"{name}_{i}")(x)
        if norm:
            x = InstanceNormalization(center=False, scale=False, dtype=dtype, name=f"{name}_{i}_norm")(x)
        if factor:
            x = layers.LeakyReLU(0.2, dtype=dtype, name=f"{name}_{i}_relu")(x)
    return keras.Model(given, ops.cast(x, "float32"), name=name)


# --- trainer ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class CycleGAN(keras.Model):
    """Two generators and two judges. Called, it translates a to b.

    Args:
        config: a `CycleGAN.Config` (or its values as a dict).
        precision: dtype policy of the layers.

    Shapes:
        (N, H, W, 3) RGB 0-255 -> (N, H, W, 3) RGB 0-255; H and W multiples of 4. `fit` takes pairs (a, b) of such
        batches, in which nothing needs to match.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.CycleGAN(km.models.CycleGAN.Config(filters=4, blocks=1, judge_filters=4))
        >>> tuple(model(np.zeros((1, 32, 40, 3), "float32")).shape)
        (1, 32, 40, 3)

    Reference:
        Zhu et al. 2017, equations 1 to 4.
    """

    Config: TypeAlias = Config
    family_name = "cyclegan"
    one_device = "its judges are shown pictures from one pool of earlier ones"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "cyclegan", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.precision = precision
        self.a_to_b, self.b_to_a = (_generator(self.config, precision, name) for name in DIRECTIONS)
        self.judge_a, self.judge_b = (_judge(self.config, precision, name) for name in ("judge_a", "judge_b"))
        self.draws = keras.random.SeedGenerator(self.config.seed, name="draws")
        terms = ("loss", "adversarial", "cycle", "identity", "judge_a", "judge_b")
        self._term_means = {term: TermMean(name=term) for term in terms}
        self._pools: dict[str, ImagePool] = {}
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return _bytes(self.a_to_b(_unit(inputs), training=training))

    def compile(self, optimizer: Any = "adam", judge_optimizer: Any = "adam", **kwargs: Any) -> None:
        """Compile with an optimizer for the generators and one for the judges.

        Args:
            optimizer: of both generators.
            judge_optimizer: of both judges.
            **kwargs: see `keras.Model.compile`. XLA makes convolutions slower on CPUs, so `jit_compile` is False.
        """
        devices.check_model(self)
        super().compile(optimizer=optimizer, **{"jit_compile": False, **kwargs})
        self.judge_optimizer = keras.optimizers.get(judge_optimizer)
        self.optimizer.build(self._generators())
        self.judge_optimizer.build(self._judges())
        shape = (self.config.size, self.config.size, 3)
        self._pools = {name: ImagePool(self.config.pool, shape, self.draws) for name in ("a", "b")}

    def _generators(self) -> list[keras.Variable]:
        return [*self.a_to_b.trainable_variables, *self.b_to_a.trainable_variables]

    def _judges(self) -> list[keras.Variable]:
        return [*self.judge_a.trainable_variables, *self.judge_b.trainable_variables]

    def train_step(self, data: Any) -> dict[str, Any]:
        """The generators' update, then the judges'."""
        a, b = (_unit(pictures) for pictures in data)
        config = self.config
        with tf.GradientTape() as tape:
            if config.identity_weight:
                # Each generator is given pictures of the kind that it makes, too.
                (as_b, same_b), (as_a, same_a) = _answers(self.a_to_b, a, b), _answers(self.b_to_a, b, a)
                identity = cycle_consistency(b, same_b) + cycle_consistency(a, same_a)
            else:
                as_b, as_a, identity = self.a_to_b(a, training=True), self.b_to_a(b, training=True), tf.zeros(())
            adversarial = LEAST_SQUARES.generator(self.judge_b(as_b)) + LEAST_SQUARES.generator(self.judge_a(as_a))
            back_a, back_b = self.b_to_a(as_b, training=True), self.a_to_b(as_a, training=True)
            cycle = cycle_consistency(a, back_a) + cycle_consistency(b, back_b)
            loss = config.adversarial_weight * adversarial + config.cycle_weight * cycle
            loss += config.cycle_weight * config.identity_weight * identity
        self.optimizer.apply(tape.gradient(loss, self._generators()), self._generators())
        shown_a, shown_b = self._pools["a"](as_a), self._pools["b"](as_b)
        with tf.GradientTape() as tape:
            wrong_a = LEAST_SQUARES.judge(*_answers(self.judge_a, a, shown_a))
            wrong_b = LEAST_SQUARES.judge(*_answers(self.judge_b, b, shown_b))
            wrong = wrong_a + wrong_b
        self.judge_optimizer.apply(tape.gradient(wrong, self._judges()), self._judges())
        for name, value in zip(self._term_means, (loss, adversarial, cycle, identity, wrong_a, wrong_b), strict=True):
            self._term_means[name].update_state(value)
        return {name: mean.result() for name, mean in self._term_means.items()}

    @property
    def metrics(self) -> list[keras.metrics.Metric]:
        return list(self._term_means.values())

    def training_state(self) -> dict[str, np.ndarray]:
        """The pools, for checkpoints."""
        return {f"{pool}/{key}": value for pool, kept in self._pools.items() for key, value in kept.state().items()}

    def set_training_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `training_state()` back."""
        for name, pool in self._pools.items():
            pool.set_state({key: state[f"{name}/{key}"] for key in pool.state()})

    def get_compile_config(self) -> dict[str, Any] | None:
        # Two optimizers are more than Keras restores: what is loaded can be used, or compiled anew.
        return None

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _answers(network: keras.Model, first: Any, second: Any) -> list[Any]:
    """The network's answers to two batches, in one pass, which takes less time than two."""
    together = network(tf.concat([first, second], axis=0), training=True)
    return tf.split(together, [tf.shape(first)[0], tf.shape(second)[0]], num=2)


def _unit(pictures: Any) -> Any:
    return ops.cast(pictures, "float32") / 127.5 - 1.0


def _bytes(pictures: Any) -> Any:
    return ops.clip(127.5 + 127.5 * pictures, 0.0, 255.0)


def _build(config: Config) -> CycleGAN:
    """The model with Adam for each side, ready for `fit`."""
    kinds(config.a, config.b)
    model = CycleGAN(config, precision=config.precision)
    if config.start_from is not None:
        weights.find(config.start_from).assign_to(model)
    model.compile(*optimizers(config))
    return model


def optimizers(config: Config) -> list[keras.optimizers.Optimizer]:
    """The generators' and the judges': Adam, its rate falling to 0 over the second half of the steps."""
    half = config.steps // 2
    rate: Any = config.learning_rate
    if half:
        rate = _Linear(rate, half, config.steps - half)
    return [keras.optimizers.Adam(rate, beta_1=0.5, beta_2=0.999) for _ in range(2)]


@keras.saving.register_keras_serializable("kerasmodels")
class _Linear(keras.optimizers.schedules.LearningRateSchedule):
    """`rate` for so many steps, then along a line to 0, which the step after the last would have."""

    def __init__(self, rate: float, constant: int, falling: int):
        super().__init__()
        self.rate, self.constant, self.falling = rate, constant, falling

    def __call__(self, step: Any) -> Any:
        done = ops.maximum(ops.cast(step, "float32") - self.constant, 0.0)
        return self.rate * ops.maximum(1.0 - done / self.falling, 0.0)

    def get_config(self) -> dict[str, Any]:
        return {"rate": self.rate, "constant": self.constant, "falling": self.falling}


def _datasets(config: Config, start: int = 0) -> Datasets:
    return Datasets(train=unpaired(config.a, config.b, config.size, config.batch, config.seed, start))


# --- weights of the authors' code -------------------------------------------------------------------------------------


def from_torch(a_to_b: str | Path, b_to_a: str | Path | None = None) -> CycleGAN:
    """The model with generators that the authors' PyTorch code has trained.

    Args:
        a_to_b: a file such as latest_net_G_A.pth, or latest_net_G.pth of one of their models: a generator with
            instance normalisation, of any width and number of blocks.
        b_to_a: that of the other direction; left out, it keeps random weights.

    Raises:
        WeightsError: a file cannot be read, or is of another network.

    Reference:
        `ResnetGenerator` in models/networks.py of junyanz/pytorch-CycleGAN-and-pix2pix.
    """
    files = {"a_to_b": a_to_b, **({"b_to_a": b_to_a} if b_to_a is not None else {})}
    read = {direction: read_torch(path) for direction, path in files.items()}
    shapes = set()
    for direction, arrays in read.items():
        blocks = {name.split(".")[1] for name in arrays if ".conv_block." in name}
        first = arrays.get("model.1.weight")
        if first is None or first.shape[1:] != (3, 7, 7):
            raise WeightsError(
                f"expected a generator of CycleGAN. Received: {files[direction]} with {[*arrays][:4]} ..."
            )
        shapes.add((int(first.shape[0]), len(blocks)))
    if len(shapes) != 1:
        raise WeightsError(f"expected generators of one width and number of blocks. Received: {sorted(shapes)}.")
    ((filters, count),) = shapes
    model = CycleGAN(Config(filters=filters, blocks=count))
    for direction, arrays in read.items():
        _assign_torch(getattr(model, direction), arrays, count, files[direction])
    return model


def _assign_torch(network: keras.Model, arrays: Mapping[str, np.ndarray], blocks: int, path: str | Path) -> None:
    """Torch numbers all layers of its list, paddings and activations among them."""
    name = network.name
    numbers = {"first": 1, "down1": 4, "down2": 7, "up1": 10 + blocks, "up2": 13 + blocks, "last": 17 + blocks}
    places = {f"model.{number}": network.get_layer(f"{name}_{label}") for label, number in numbers.items()}
    for i in range(blocks):
        block = network.get_layer(f"{name}_block{i + 1}")
        places |= {f"model.{10 + i}.conv_block.1": block.conv1, f"model.{10 + i}.conv_block.5": block.conv2}
    for place, layer in places.items():
        for key, variable in (("weight", layer.kernel), ("bias", layer.bias)):
            value = arrays.get(f"{place}.{key}")
            if value is not None and key == "weight":
                # Torch: (filters, channels, rows, columns); for transposed ones (channels, filters, rows, columns).
                value = value.transpose(2, 3, 1, 0)
            if value is None or value.shape != tuple(variable.shape):
                raise WeightsError(
                    f"expected {place}.{key} for {tuple(variable.shape)} in {path}. "
                    f"Received: {None if value is None else value.shape}. Other generators cannot be read."
                )
            variable.assign(value)


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: CycleGAN, config: Config) -> dict[str, Servable]:
    return {name: _servable(getattr(model, name), name, config) for name in DIRECTIONS}


def _servable(network: keras.Model, name: str, config: Config) -> Servable:
    def translate(image: tf.Tensor) -> dict[str, tf.Tensor]:
        made = on_multiples(image, 4, lambda x: network(_unit(x), training=False))
        return {"translated": tf.cast(tf.round(_bytes(made)), tf.uint8)}

    shape = ("batch", "height", "width", 3)
    return Servable(
        call=translate,
        model=network,
        inputs=(TensorSpec("image", shape, "uint8", f"RGB pictures of kind {name[0]}, 0-255, of any size", "image"),),
        outputs=(
            TensorSpec("translated", shape, "uint8", f"the same as pictures of kind {name[-1]}", "image", atol=1),
        ),
        example=_example,
        dims={"batch": 1, "height": config.size, "width": config.size},
        check_dims=({"batch": 1, "height": 49, "width": 66}, {"batch": 2, "height": 64, "width": 40}),
        doc=f"makes pictures of kind {name[-1]} of pictures of kind {name[0]}",
    )


def _example(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    random = np.random.default_rng(seed)
    n, height, width = dims["batch"], dims["height"], dims["width"]
    return {"image": np.stack([experiments.shapes(height, width, random) for _ in range(n)])}


def _preview(model: CycleGAN, config: Config) -> dict[str, np.ndarray]:
    """Of each kind two pictures, translated, and back again."""
    shown = {}
    for name, folder in zip(DIRECTIONS, kinds(config.a, config.b), strict=True):
        for path in list_images(folder)[:2]:
            picture = read_image(path, max_side=config.size)
            there = translated(model, picture, name)
            back = translated(model, there, DIRECTIONS[name == DIRECTIONS[0]])
            shown[f"{name}_{path.stem}"] = np.concatenate([picture, there, back], axis=1)
    return shown


FAMILY = Family(
    name="cyclegan",
    config=Config,
    variants=VARIANTS,
    model=CycleGAN,
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=partial(run, "cyclegan"),
    experiments={
        "shapes": Experiment(
            "two kinds of pictures whose true pairs are known, but not shown", experiments.known_pairs
        ),
        "checkerboard": Experiment(
            "what transposed convolutions leave in pictures, and resizing does not", experiments.checkerboards
        ),
    },
    preview=_preview,
)
