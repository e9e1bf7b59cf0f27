"""Fast style transfer: one forward pass repaints a photo in the style of the painting the network was trained for.

Johnson, Alahi, Fei-Fei: Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016, with its
supplementary material; the released code is jcjohnson/fast-neural-style; instance normalisation after Ulyanov,
Vedaldi, Lempitsky 2016.

Reproduced: the transformation network (1,679,235 parameters), its training on any folder of photos against a VGG16 loss
network, and the claim that one pass reaches the objective that hundreds of optimisation steps reach.

| departure from the paper | why |
|---|---|
| instance normalisation; the paper's is `normalization="batch"` | the released code's default |
| content at relu3_3; the paper's text says relu2_2 (`content_layer`) | the released code's default |
| VGG's features are taken to the scale of 0-255 pictures | one set of loss weights for all weights of VGG |
| output 127.5 + 150 tanh(x); the released code adds VGG's channel means | no constant of the loss network is served |
| in all variants but "paper", `upsampling="resize"`: nearest resize, then a convolution | no checkerboard |
| in "mobile", `padding="reflect"`: around every convolution, not 40 pixels around the picture | half the arithmetic |
| photos are cropped at random; the paper takes whole COCO pictures, resized | a few hundred photos suffice |
"""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro
from keras import layers, ops
from PIL import Image

from kerasmodels import weights
from kerasmodels.backbones import VGG16
from kerasmodels.data import list_images, photo_crops, read_image, write_image
from kerasmodels.data.video import is_video, restyle_video
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
from kerasmodels.layers import InstanceNormalization, PolyphaseConv2D, ReflectionPadding2D, ResidualBlock, Resize2D
from kerasmodels.layers.padding import on_multiples
from kerasmodels.losses import Perceptual
from kerasmodels.optimizers import minimize_function
from kerasmodels.training import devices


@dataclass(frozen=True)
class Config:
    """What to train. The defaults are the paper's, or the released code's where the two differ."""

    style: Path | None = None
    """The painting: a picture file."""
    photos: Path | None = None
    """A folder of photos to practise on (the paper: 80,000 of MS-COCO; a few hundred do)."""
    start_from: str | None = None
    """Begin with these weights instead of random ones: a run folder or a preset such as fast_style/wave."""

    channels: tuple[int, int, int] = (32, 64, 128)
    """Channels at full, half and quarter size."""
    blocks: int = 5
    """Residual blocks."""
    end_kernel: int = 9
    """Kernel of the first and the last convolution, pixels."""
    normalization: Literal["instance", "batch"] = "instance"
    """After every convolution but the last. Batch normalisation folds away and survives int8."""
    padding: Literal["start", "reflect"] = "start"
    """start: reflect the picture by 40 pixels, residual blocks without padding; reflect: around every convolution."""
    upsampling: Literal["transposed", "resize"] = "transposed"
    """transposed: convolution of stride 1/2; resize: nearest neighbour, then a convolution."""

    size: int = 256
    """Side of the training crops, pixels."""
    style_size: int = 256
    """The painting's longer side is shrunk to this, pixels: smaller means finer strokes."""
    content_layer: str = "relu3_3"
    """VGG16 layer that must keep the photo's content."""
    content_weight: float = 1.0
    """Weight of the content term."""
    style_layers: tuple[str, ...] = ("relu1_2", "relu2_2", "relu3_3", "relu4_3")
    """VGG16 layers whose Gram matrices must match the painting's."""
    style_weight: float = 5.0
    """Weight of each style layer."""
    tv_weight: float = 1e-6
    """Weight of total variation: 1e-6 to 1e-4."""
    vgg: str = "auto"
    """VGG16 weights: auto, a source of `kerasmodels weights`, or a file."""

    steps: int = 40000
    """Training steps (batches)."""
    batch: int = 4
    """Photos a step."""
    learning_rate: float = 1e-3
    """Of Adam."""
    warmup_steps: int = 0
    """Steps over which the learning rate rises from 0. Adam's first steps can drive tanh into saturation for good."""
    final_learning_rate: float | None = None
    """The learning rate then decays to this along a cosine; left out, it stays constant, as in the paper."""
    precision: Literal["float32", "mixed_bfloat16"] = "float32"
    """mixed_bfloat16 halves the time where the processor has bfloat16 instructions. Weights stay float32."""
    seed: int = 0
    """Of the stream of crops and, under `kerasmodels train`, of the initial weights."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(len(self.channels) == 3 and min(self.channels) > 0, "3 positive channel counts", self.channels)
        check(self.blocks >= 0, "blocks >= 0", self.blocks)
        check(self.end_kernel > 0 and self.end_kernel % 2 == 1, "an odd end_kernel", self.end_kernel)
        for name, known in (
            ("normalization", ("instance", "batch")),
            ("padding", ("start", "reflect")),
            ("upsampling", ("transposed", "resize")),
            ("precision", ("float32", "mixed_bfloat16")),
        ):
            check(getattr(self, name) in known, f"{name} in {known}", getattr(self, name))
        check(self.size >= 32 and self.size % 4 == 0, "size, a multiple of 4 and at least 32", self.size)
        check(self.style_size >= 32, "style_size >= 32", self.style_size)
        loss_weights = (self.content_weight, self.style_weight, self.tv_weight)
        check(min(loss_weights) >= 0, "loss weights >= 0 (content, style, tv)", loss_weights)
        check(len(self.style_layers) > 0, "at least one of style_layers", self.style_layers)
        check(self.steps > 0 and self.batch > 0, "steps > 0 and batch > 0", (self.steps, self.batch))
        check(self.learning_rate > 0, "learning_rate > 0", self.learning_rate)
        check(0 <= self.warmup_steps < self.steps, "0 <= warmup_steps < steps", (self.warmup_steps, self.steps))
        rates = (self.last_rate, self.learning_rate)
        check(0 < rates[0] <= rates[1], "0 < final_learning_rate <= learning_rate", rates)

    @property
    def last_rate(self) -> float:
        """The learning rate at the end."""
        return self.learning_rate if self.final_learning_rate is None else self.final_learning_rate


_MOBILE = Config(
    channels=(16, 32, 48),
    end_kernel=5,
    padding="reflect",
    upsampling="resize",
    size=160,
    style_size=384,
    style_weight=40.0,
    tv_weight=3e-5,
    warmup_steps=100,
    final_learning_rate=1e-5,
    precision="mixed_bfloat16",
    steps=3000,
)
VARIANTS = {
    "paper": Config(),
    "mobile": _MOBILE,
    "quick": dataclasses.replace(_MOBILE, start_from="fast_style/wave", size=128, steps=600),
}


# --- network ----------------------------------------------------------------------------------------------------------


def _transformation_network(config: Config, dtype: str) -> keras.Model:
    """RGB 0-255 (N, H, W, 3) -> RGB (N, H, W, 3), -22.5 to 277.5; H and W multiples of 4."""
    full, half, quarter = config.channels
    reflect = config.padding == "reflect"

    def normalized(x: Any, name: str) -> Any:
        if config.normalization == "instance":
            x = InstanceNormalization(dtype=dtype, name=f"{name}_norm")(x)
        else:
            x = layers.BatchNormalization(momentum=0.9, epsilon=1e-5, dtype=dtype, name=f"{name}_norm")(x)
        return layers.ReLU(dtype=dtype, name=f"{name}_relu")(x)

    def convolution(x: Any, filters: int, kernel: int, name: str, strides: int = 1) -> Any:
        around = ReflectionPadding2D if reflect else layers.ZeroPadding2D
        if kernel > 1:
            x = around(kernel // 2, dtype=dtype, name=f"{name}_pad")(x)
        if filters == 3:
            return PolyphaseConv2D(filters, kernel, dtype=dtype, name=name)(x)
        return layers.Conv2D(filters, kernel, strides, dtype=dtype, name=name)(x)

    def doubled(x: Any, filters: int, name: str) -> Any:
        if config.upsampling == "resize":
            return convolution(Resize2D(2, dtype=dtype, name=f"{name}_resize")(x), filters, 3, name)
        # Torch's transposed convolution with padding 1 and output padding 1: samples 1 to 2n of the full result.
        x = layers.Conv2DTranspose(filters, 3, 2, padding="valid", dtype=dtype, name=name)(x)
        return layers.Cropping2D(((1, 0), (1, 0)), dtype=dtype, name=f"{name}_crop")(x)

    picture = keras.Input((None, None, 3), name="rgb")
    x = layers.Rescaling(1 / 127.5, -1.0, dtype=dtype, name="to_unit")(picture)
    if not reflect:
        # Every residual block takes away 4 pixels at quarter size on each axis.
        x = ReflectionPadding2D(8 * config.blocks, dtype=dtype, name="start_pad")(x)
    x = normalized(convolution(x, full, config.end_kernel, "conv1"), "conv1")
    x = normalized(convolution(x, half, 3, "down1", strides=2), "down1")
    x = normalized(convolution(x, quarter, 3, "down2", strides=2), "down2")
    for i in range(1, config.blocks + 1):
        x = ResidualBlock(
            quarter, config.normalization, "reflect" if reflect else "valid", dtype=dtype, name=f"block{i}"
        )(x)
    x = normalized(doubled(x, half, "up1"), "up1")
    x = normalized(doubled(x, full, "up2"), "up2")
    x = ops.tanh(ops.cast(convolution(x, 3, config.end_kernel, "conv2"), "float32"))
    return keras.Model(
        picture, layers.Rescaling(150.0, 127.5, dtype="float32", name="to_rgb")(x), name="transformation"
    )


# --- trainer ----------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class FastStyle(devices.SharesBatches, keras.Model):
    """The transformation network, with the terms of its loss as metrics while it trains.

    Args:
        config: a `FastStyle.Config` (or its values as a dict).
        precision: dtype policy of the layers.

    Shapes:
        (N, H, W, 3) RGB 0-255 -> (N, H, W, 3) RGB, -22.5 to 277.5 (clip it to 0-255); H and W multiples of 4.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.FastStyle(km.models.FastStyle.Config(channels=(4, 8, 8)))
        >>> tuple(model(np.zeros((1, 64, 48, 3), "float32")).shape)
        (1, 64, 48, 3)
    """

    Config: TypeAlias = Config
    family_name = "fast_style"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, precision: str = "float32", **kwargs: Any):
        super().__init__(**{"name": "fast_style", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.precision = precision
        self.network = _transformation_network(self.config, precision)
        self._term_means = [keras.metrics.Mean(name=term) for term in ("content", "style", "total_variation")]
        self.built = True

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        if not isinstance(self.loss, Perceptual) or sample_weight is not None:
            return super().compute_loss(x, y, y_pred, sample_weight, training)
        terms = self.loss.terms(y, y_pred)
        for mean in self._term_means:
            if mean.name in terms:
                mean.update_state(terms[mean.name])
        return devices.scaled(ops.mean(sum(terms.values())))

    def get_compile_config(self) -> dict[str, Any] | None:
        # A perceptual loss cannot be saved: it holds VGG. What is loaded can be used, or compiled anew.
        return None if isinstance(self.loss, Perceptual) else super().get_compile_config()

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "precision": self.precision}


def _build(config: Config) -> FastStyle:
    """The model with Adam and the perceptual loss of the config's painting, ready for `fit`."""
    for name, what in (("style", "a painting"), ("photos", "a folder of photos")):
        if getattr(config, name) is None:
            raise UsageError(f"training needs {what}: --{name} PATH.")
    model = FastStyle(config, precision=config.precision)
    if config.start_from is not None:
        weights.find(config.start_from).assign_to(model)
    rate = keras.optimizers.schedules.CosineDecay(
        0.0 if config.warmup_steps else config.learning_rate,
        config.steps - config.warmup_steps,
        alpha=config.last_rate / config.learning_rate,
        warmup_target=config.learning_rate if config.warmup_steps else None,
        warmup_steps=config.warmup_steps,
    )
    # XLA makes convolutions slower on CPUs.
    model.compile(keras.optimizers.Adam(rate), loss=objective(config), jit_compile=False)
    return model


def objective(config: Config) -> Perceptual:
    """The loss of the config's painting, on RGB 0-255 pictures.

    Raises:
        UsageError: no painting is named, or an unknown layer.
        DataError: the painting cannot be read.
        WeightsError: VGG16 weights are missing.
    """
    if config.style is None:
        raise UsageError("expected a config with a painting. Received: style=None.")
    taps = dict.fromkeys((config.content_layer, *config.style_layers))
    vgg = VGG16(taps, weights=config.vgg, dtype=config.precision.removeprefix("mixed_"))
    # Features grow in proportion to the pictures' scale, contents with its square and Gram distances with its fourth
    # power. The weights of the loss are meant for 0-255.
    scale = 1 / float(np.mean(np.ravel(vgg.get_layer("preprocess").scale)))
    return Perceptual(
        vgg,
        read_image(config.style, max_side=config.style_size),
        content={config.content_layer: config.content_weight * scale**2},
        style=dict.fromkeys(config.style_layers, config.style_weight * scale**4),
        total_variation_weight=config.tv_weight,
    )


def _datasets(config: Config, start: int = 0) -> Datasets:
    if config.photos is None:
        raise UsageError("training needs a folder of photos: --photos DIR.")
    crops = photo_crops(config.photos, config.size, config.batch, config.seed, start)
    return Datasets(train=crops.map(lambda photo: (photo, photo)))


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: FastStyle, config: Config) -> dict[str, Servable]:
    network = model.network

    def stylize(image: tf.Tensor) -> dict[str, tf.Tensor]:
        painted = on_multiples(image, 4, lambda x: network(tf.cast(x, tf.float32), training=False))
        return {"stylized": tf.cast(tf.round(tf.clip_by_value(painted, 0.0, 255.0)), tf.uint8)}

    shape = ("batch", "height", "width", 3)
    return {
        "stylize": Servable(
            call=stylize,
            model=network,
            inputs=(TensorSpec("image", shape, "uint8", "RGB pictures, 0-255, of any size", "image"),),
            outputs=(
                TensorSpec("stylized", shape, "uint8", "the same pictures repainted, RGB 0-255", "image", atol=1),
            ),
            example=_example_pictures,
            dims={"batch": 1, "height": 256, "width": 256},
            check_dims=({"batch": 1, "height": 97, "width": 130}, {"batch": 2, "height": 64, "width": 128}),
            doc="repaints pictures in the style of one painting",
        )
    }


def _example_pictures(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
    """Pictures with the look of photos: smooth regions, edges and a little grain."""
    random = np.random.default_rng(seed)
    n, h, w = dims["batch"], dims["height"], dims["width"]
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    pictures = []
    for _ in range(n):
        top, bottom = random.uniform(0, 255, (2, 3))
        picture = top + (bottom - top) * y[..., None]
        for _ in range(12):
            cx, cy, radius = random.uniform(0, 1), random.uniform(0, 1), random.uniform(0.03, 0.3)
            inside = (x - cx) ** 2 + (y - cy) ** 2 < radius**2
            shade = 1 + random.uniform(-0.5, 0.5) * (x - cx)[..., None] / radius
            picture = np.where(inside[..., None], random.uniform(0, 255, 3) * shade, picture)
        picture = picture + random.normal(0, 4, picture.shape)
        pictures.append(np.clip(picture, 0, 255).astype("uint8"))
    return {"image": np.stack(pictures)}


def _preview(model: FastStyle, config: Config) -> dict[str, np.ndarray]:
    """The first photos of the training folder, each beside its repainting."""
    assert config.photos is not None
    stylize = _servables(model, config)["stylize"].call
    pairs = {}
    for path in list_images(config.photos)[:2]:
        photo = read_image(path, max_side=config.size)
        pairs[path.stem] = np.concatenate([photo, stylize(image=tf.constant(photo[None]))["stylized"][0]], axis=1)
    return pairs


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Repaint photos, folders of photos, or videos."""

    inputs: Annotated[tuple[Path, ...], tyro.conf.Positional]
    """Pictures, folders of pictures, or videos."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The picture or video to write; a folder if there are several inputs."""
    preset: str | None = None
    """A shipped style; `kerasmodels list` names them."""
    run: Path | None = None
    """A run folder, instead of a preset."""
    max_side: int | None = None
    """Shrink inputs so that the longer side is at most this, pixels."""


class _Stylizer:
    """The `stylize` servable, compiled once for all sizes."""

    def __init__(self, model: FastStyle):
        servable = _servables(model, model.config)["stylize"]
        self._call = tf.function(servable.call, input_signature=[tf.TensorSpec((None, None, None, 3), tf.uint8)])
        self._bytes_per_pixel = 4 * model.config.channels[0] * _LIVE_MAPS

    def __call__(self, picture: np.ndarray) -> np.ndarray:
        need, have = picture.shape[0] * picture.shape[1] * self._bytes_per_pixel, _free_memory()
        if need > have:
            side = int(max(picture.shape) * (0.8 * have / need) ** 0.5)
            raise DataError(
                f"a picture of {picture.shape[1]} x {picture.shape[0]} pixels needs about {need / 1e9:.0f} GB of "
                f"memory, and {have / 1e9:.0f} GB are free. Shrink it: --max-side {side}."
            )
        return self._call(picture[None])["stylized"][0].numpy()


_LIVE_MAPS = 7
"""Full-size feature maps alive at once in a forward pass, at most (6.2 measured with `mobile`, 3.4 with `paper`)."""


def _free_memory() -> int:
    """Bytes that can still be used, as far as the system tells."""
    try:
        fields = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        return int(fields["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _run(options: RunOptions) -> RunReport:
    check(len(options.inputs) > 0, "at least one picture, folder or video", options.inputs)
    check(options.max_side is None or options.max_side > 0, "max_side > 0", options.max_side)
    trained = weights.chosen("fast_style", options.preset, options.run)
    jobs = _jobs(options.inputs, options.out)
    sources = {source.resolve() for source, _ in jobs}
    for _, target in jobs:
        check(target.resolve() not in sources, "a place to write where no input is overwritten", str(target))
    stylize = _Stylizer(trained.load()[2])

    written, frames, failures, begin = [], 0, [], time.perf_counter()
    for source, target in jobs:
        try:
            if is_video(source):
                frames += restyle_video(source, target, lambda frame: stylize(_shrunk(frame, options.max_side)))
            else:
                write_image(target, stylize(read_image(source, options.max_side)))
            written.append(target)
        except DataError as error:
            if len(jobs) == 1:
                raise
            failures.append(f"{error}")
    if failures:
        raise DataError(
            f"{len(written)} of {len(jobs)} inputs were repainted into {options.out}; the others could not be: "
            + " ".join(failures)
        )
    facts = {"model": trained.name, "seconds": round(time.perf_counter() - begin, 2)}
    return RunReport(tuple(written), {**facts, "frames": frames} if frames else facts)


def _shrunk(picture: np.ndarray, max_side: int | None) -> np.ndarray:
    if max_side is None or max(picture.shape[:2]) <= max_side:
        return picture
    image = Image.fromarray(picture)
    image.thumbnail((max_side, max_side), Image.Resampling.LANCZOS)
    return np.asarray(image)


def _jobs(inputs: Sequence[Path], out: Path) -> list[tuple[Path, Path]]:
    """Which file becomes which. One file may be written under any name; several go into a folder under their own."""
    if len(inputs) == 1 and not inputs[0].is_dir():
        if out.is_dir() or not out.suffix:
            return [(inputs[0], out / _target_name(inputs[0]))]
        if is_video(inputs[0]) != is_video(out):
            kind = "video" if is_video(inputs[0]) else "picture"
            raise UsageError(f"{inputs[0]} is a {kind}: expected a {kind}'s name to write. Received: {str(out)!r}.")
        return [(inputs[0], out)]
    if out.suffix and not out.is_dir():
        raise UsageError(f"expected a folder for several results. Received: --out {str(out)!r}, a file's name.")
    jobs = []
    for source in inputs:
        for file in list_images(source) if source.is_dir() else [source]:
            within = file.relative_to(source).parent if source.is_dir() else Path()
            jobs.append((file, out / within / _target_name(file)))
    taken: set[Path] = set()
    for _, target in jobs:
        if target in taken:
            raise UsageError(f"two inputs would both be written to {target}. Give them separately.")
        taken.add(target)
    return jobs


def _target_name(source: Path) -> str:
    return source.stem + (
        ".mp4" if is_video(source) else source.suffix if source.suffix.lower() in (".jpg", ".jpeg") else ".png"
    )


# --- experiments ------------------------------------------------------------------------------------------------------


def _objective_and_speed(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Every preset on photos it never saw, against L-BFGS on the pixels of each photo, from noise.

    Paper: section 4.1, figure 5 and table 1. The loss network is the preset's, in float32.
    """
    if data is None or not data.is_dir():
        raise DataError(
            "expected --data DIR with the presets' paintings (found by file name, at any depth) and a folder `content` "
            f"of photos they were not trained on. Received: {data}."
        )
    folder = next((f for f in sorted(data.rglob("content")) if f.is_dir()), None)
    if folder is None:
        raise DataError(f"no folder `content` of photos in {data}.")
    photos = [_square(read_image(p), 256) for p in list_images(folder)][: 1 if quick else 2]
    iterations = 30 if quick else 60
    rows: list[Row] = []
    seconds_iteration, seconds_pass = [], []
    for name, trained in weights.presets("fast_style").items():
        _, config, model = trained.load()
        painting = next(iter(sorted(data.rglob(Path(str(config.style)).name))), None)
        if painting is None:
            raise DataError(f"the painting of preset {name}, {Path(str(config.style)).name}, is not in {data}.")
        loss = objective(dataclasses.replace(config, style=painting, precision="float32"))
        stylize = _Stylizer(model)
        own, ours, best, reached, strip = [], [], [], [], []
        for photo in photos:
            painted = stylize(photo)
            values = [float(loss(_batch(photo), _batch(picture))) for picture in (photo, painted)]
            curve, optimum, seconds = _optimize(loss, photo, iterations)
            own.append(values[0])
            ours.append(values[1])
            best.append(curve[-1])
            reached.append(next((i for i, value in enumerate(curve) if value <= values[1]), iterations))
            seconds_iteration.append(seconds)
            seconds_pass.append(_seconds(lambda picture=photo, f=stylize: f(picture)))
            strip.append(np.concatenate([photo, painted, optimum], axis=0))
        write_image(figures / f"objective_{name}.jpg", np.concatenate(strip, axis=1))
        ratio = float(np.mean(np.divide(ours, own)))
        rows += [
            Row(
                f"{name}: objective of one pass, as a part of the photo's own (mean of {len(photos)} unseen photos)",
                "figure 5: far below the photo, near the optimum",
                round(ratio, 4),
                "<= 0.25",
                ratio <= 0.25,
            ),
            Row(
                f"{name}: objective of {iterations} L-BFGS iterations from noise, as a part of the photo's own",
                "figure 5: a little below one pass",
                round(float(np.mean(np.divide(best, own))), 4),
                "for comparison",
                True,
            ),
            Row(
                f"{name}: L-BFGS iterations from noise until the pixels reach the objective of one pass (median)",
                "50 to 100 (figure 5)",
                float(np.median(reached)),
                ">= 30",
                float(np.median(reached)) >= 30,
            ),
        ]
    if not rows:
        raise DataError("no presets are shipped, so there is nothing to measure.")
    speed = 500 * float(np.median(seconds_iteration)) / float(np.median(seconds_pass))
    return [
        *rows,
        Row(
            "500 L-BFGS iterations take this many times as long as one pass (256 x 256, this machine)",
            "about 1000 (three orders of magnitude, on its GPU)",
            round(speed, 1),
            ">= 100",
            speed >= 100,
        ),
    ]


def _batch(picture: np.ndarray) -> np.ndarray:
    return picture[None].astype("float32")


def _optimize(loss: Perceptual, photo: np.ndarray, iterations: int) -> tuple[list[float], np.ndarray, float]:
    """L-BFGS on the pixels, beginning with mid-grey and a little white noise (section 4.1 of the paper).

    Returns the objectives before each iteration and at the end, the last picture, and the seconds an iteration takes.
    """
    noise = np.random.default_rng(0).normal(127.5, 1.0, (1, *photo.shape))
    target, pixels = loss.target(_batch(photo)), tf.Variable(noise, dtype=tf.float32)
    times = []
    result = minimize_function(
        lambda: tf.reduce_sum(list(loss.terms(target, pixels).values())),
        [pixels],
        max_iterations=iterations,
        first_length=1000.0,
        callback=lambda iteration, value: times.append(time.perf_counter()),
    )
    # The first report also covers the compilation.
    seconds = float(np.median(np.diff(times))) / 10
    picture = np.rint(np.clip(pixels.numpy()[0], 0, 255)).astype("uint8")
    return list(result.history), picture, seconds


def _seconds(call: Any, rounds: int = 5) -> float:
    call()
    durations = []
    for _ in range(rounds):
        begin = time.perf_counter()
        call()
        durations.append(time.perf_counter() - begin)
    return float(np.median(durations))


def _square(photo: np.ndarray, side: int) -> np.ndarray:
    """The middle of the photo, `side` pixels wide and high."""
    short = min(photo.shape[:2])
    top, left = (photo.shape[0] - short) // 2, (photo.shape[1] - short) // 2
    middle = Image.fromarray(photo[top : top + short, left : left + short])
    return np.asarray(middle.resize((side, side), Image.Resampling.LANCZOS))


FAMILY = Family(
    name="fast_style",
    config=Config,
    variants=VARIANTS,
    model=FastStyle,
    build=_build,
    datasets=_datasets,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "objective": Experiment("one forward pass against hundreds of optimisation steps", _objective_and_speed),
    },
    preview=_preview,
)
