"""The fully connected CRF: rough labels, and the picture they belong to, become labels that follow its edges.

Kraehenbuehl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011; the authors'
code as wrapped by pydensecrf (lucasb-eyer/pydensecrf); the windowed form after Teichmann, Cipolla: Convolutional CRFs
for Semantic Segmentation, 2018.

Reproduced: mean field inference with the Gaussian and the bilateral kernel on a permutohedral lattice, equal to
pydensecrf's to seven digits; a labelling with a quarter of its pixels wrong made right; labels drawn with a broad brush
moved onto the edges of the picture.

| departure from the paper | why |
|---|---|
| five iterations and the widths and weights of pydensecrf's example; the paper has ten, and learns them (`paper`) | \
what users know |
| kernels are normalised on both sides, and the sums include the pixel itself | so does the authors' code |
| what is served in all formats (`refine`) sees a window, on a smaller field | LiteRT and ONNX have no lattice |
| pictures over four megapixels are worked on in tiles that overlap | the lattice of a tile fits into memory |

There is nothing to train here; `layers.DenseCRF(learned=True)` is the form that trains within a network (CRF as RNN).
"""

import dataclasses
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, TypeAlias

import keras
import numpy as np
import tensorflow as tf
import tyro

from kerasmodels import reading
from kerasmodels.data import read_image, write_image
from kerasmodels.data.images import SUFFIXES, check_photo
from kerasmodels.data.segmentation import overlay, read_annotation, voc_palette
from kerasmodels.errors import DataError, UsageError
from kerasmodels.family import Experiment, Family, Row, RunReport, Servable, TensorSpec, check, config_to_dict
from kerasmodels.layers import DenseCRF
from kerasmodels.metrics import boundary_iou


@dataclass(frozen=True)
class Config:
    """The two kernels, and how far to go."""

    labels: int = 21
    """Number of labels of what is served; `run` takes any number."""
    iterations: int = 5
    """Of mean field (pydensecrf's example: 5; the paper: 10)."""
    gaussian_sxy: float = 3.0
    """Standard deviation of the Gaussian ("smoothness") kernel, pixels."""
    gaussian_compat: float = 3.0
    """Its weight."""
    bilateral_sxy: float = 80.0
    """Standard deviation of the bilateral ("appearance") kernel in space, pixels."""
    bilateral_srgb: float = 13.0
    """And in colour, levels of 0-255."""
    bilateral_compat: float = 10.0
    """Its weight."""
    normalization: Literal["symmetric", "before", "after", "none"] = "symmetric"
    """On which side the kernels are normalised (pydensecrf: symmetric)."""
    radius: int = 5
    """Of the window of `refine`, in steps of `stride` (ConvCRF: 5)."""
    stride: int = 4
    """How many times smaller the field is that the window's bilateral kernel works on (ConvCRF: 4)."""

    def validate(self) -> None:
        """Raise UsageError unless every field is in range."""
        check(2 <= self.labels <= 256, "2 to 256 labels", self.labels)
        check(self.iterations >= 0, "iterations >= 0", self.iterations)
        for name in ("gaussian_sxy", "bilateral_sxy", "bilateral_srgb"):
            check(0 < getattr(self, name) < float("inf"), f"{name} > 0", getattr(self, name))
        for name in ("gaussian_compat", "bilateral_compat"):
            check(abs(getattr(self, name)) < float("inf"), f"a finite {name}", getattr(self, name))
        known = ("symmetric", "before", "after", "none")
        check(self.normalization in known, f"normalization in {known}", self.normalization)
        check(self.radius >= 1, "radius >= 1", self.radius)
        check(self.stride >= 1, "stride >= 1", self.stride)


VARIANTS = {
    "paper": Config(iterations=10),
    "pydensecrf": Config(),
    # As the PyTorch port of DeepLab v2 applies it (kazuto1011/deeplab-pytorch, configs/voc12.yaml).
    "deeplab": Config(
        iterations=10, gaussian_sxy=1, gaussian_compat=3, bilateral_sxy=67, bilateral_srgb=3, bilateral_compat=4
    ),
}

_SMALLEST = 1e-5
"""Probabilities below are raised to it, as in pydensecrf's `unary_from_softmax`."""


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class FullyConnectedCRF(keras.Model):
    """Probabilities and a picture -> refined probabilities.

    Args:
        config: a `FullyConnectedCRF.Config` (or its values as a dict).
        method: how the kernels are applied, as in `layers.DenseCRF`.

    Shapes:
        {"image": (N, H, W, 3) RGB 0-255, "probabilities": (N, H, W, L)} -> (N, H, W, L), float32, 0-1.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> crf = km.models.FullyConnectedCRF(km.models.FullyConnectedCRF.Config(iterations=2))
        >>> rough = np.full((1, 16, 24, 3), 1 / 3, "float32")
        >>> tuple(crf({"image": np.zeros((1, 16, 24, 3), "uint8"), "probabilities": rough}).shape)
        (1, 16, 24, 3)
    """

    Config: TypeAlias = Config
    family_name = "dense_crf"

    def __init__(self, config: Config | Mapping[str, Any] | None = None, method: str = "lattice", **kwargs: Any):
        super().__init__(**{"name": "dense_crf", **kwargs})
        self.config = config if isinstance(config, Config) else FAMILY.config_from_dict(config or {})
        self.config.validate()
        self.method = method
        names = [field.name for field in dataclasses.fields(Config) if field.name != "labels"]
        self.crf = DenseCRF(**{name: getattr(self.config, name) for name in names}, method=method)  # type: ignore
        self.built = self.crf.built = True

    def call(self, inputs: Mapping[str, Any]) -> Any:
        probabilities = tf.cast(inputs["probabilities"], tf.float32)
        logits = tf.math.log(tf.maximum(probabilities, _SMALLEST))
        return tf.nn.softmax(self.crf([logits, tf.cast(inputs["image"], tf.float32)]))

    def get_config(self) -> dict[str, Any]:
        return {"name": self.name, "config": config_to_dict(self.config), "method": self.method}


# --- servables --------------------------------------------------------------------------------------------------------


def _servables(model: FullyConnectedCRF, config: Config) -> dict[str, Servable]:
    def served(method: str) -> Any:
        crf = FullyConnectedCRF(config, method)

        def refine(image: tf.Tensor, probabilities: tf.Tensor) -> dict[str, tf.Tensor]:
            refined = crf({"image": image, "probabilities": probabilities})
            return {"refined": refined, "labels": tf.argmax(refined, axis=3, output_type=tf.int32)}

        return refine

    pictures, maps = ("batch", "height", "width", 3), ("batch", "height", "width", config.labels)
    shared: dict[str, Any] = {
        "model": model,
        "inputs": (
            TensorSpec("image", pictures, "uint8", "RGB pictures, 0-255", "image"),
            TensorSpec("probabilities", maps, "float32", "a network's softmax for them, 0-1"),
        ),
        "outputs": (
            TensorSpec("refined", maps, "float32", "probabilities after mean field inference, 0-1", atol=1e-3),
            TensorSpec("labels", maps[:3], "int32", "the likeliest label of each pixel"),
        ),
        "example": lambda dims, seed: _example(dims, seed, config.labels),
        "dims": {"batch": 1, "height": 96, "width": 128},
        "check_dims": ({"batch": 1, "height": 61, "width": 47}, {"batch": 2, "height": 40, "width": 64}),
    }
    why = "its lattice has as many vertices as the picture has colours, which no operator of this format can make; "
    why += "serve `refine`, or use SavedModel."
    return {
        "refine": Servable(
            call=served("window"),
            doc=f"labels refined by the picture: {config.iterations} iterations in a window of "
            f"{(2 * config.radius + 1) * config.stride} pixels",
            **shared,
        ),
        "refine_fully": Servable(
            call=served("lattice"),
            doc=f"labels refined by the picture: {config.iterations} iterations between all pixels",
            without={(form, "fp32"): why for form in ("litert", "onnx")},
            **shared,
        ),
    }


def _example(dims: Mapping[str, int], seed: int, labels: int) -> dict[str, np.ndarray]:
    """Pictures of patches of colour, and the noisy guesses of a network on blocks of pixels."""
    random = np.random.default_rng(seed)
    n, h, w = dims["batch"], dims["height"], dims["width"]
    y, x = np.mgrid[0:h, 0:w] / max(h, w)
    images, guesses = [], []
    for _ in range(n):
        truth = np.zeros((h, w), int)
        for label in range(1, min(labels, 6)):
            cx, cy, radius = random.uniform(0, x.max()), random.uniform(0, y.max()), random.uniform(0.1, 0.3)
            truth[(x - cx) ** 2 + (y - cy) ** 2 < radius**2] = label
        colours = random.uniform(30, 225, (labels, 3))
        image = colours[truth] * (1 - 0.2 * y[..., None]) + random.normal(0, 4, (h, w, 3))
        coarse = truth[2::4, 2::4].repeat(4, 0).repeat(4, 1)
        coarse = np.pad(coarse, ((0, max(0, h - coarse.shape[0])), (0, max(0, w - coarse.shape[1]))), mode="edge")
        scores = 3 * np.eye(labels)[coarse[:h, :w]] + random.normal(0, 1, (h, w, labels))
        e = np.exp(scores)
        images.append(np.clip(image, 0, 255).astype("uint8"))
        guesses.append((e / e.sum(-1, keepdims=True)).astype("float32"))
    return {"image": np.stack(images), "probabilities": np.stack(guesses)}


# --- whole pictures ---------------------------------------------------------------------------------------------------


def probabilities_of(labels: np.ndarray, count: int, sure: float = 0.7) -> np.ndarray:
    """An annotation as probabilities (pydensecrf's `unary_from_labels`).

    Args:
        labels: (H, W) integers, 0 to count - 1; negative where nothing is known.
        count: number of labels, at least 2.
        sure: probability that an annotated pixel is right, above 1 / count and below 1.

    Returns:
        (H, W, count) float32: `sure` for the label, the rest shared by the others; all alike where nothing is known.

    Raises:
        DataError: one label only, or one that is not below `count`.
        UsageError: `sure` out of range.
    """
    if count < 2:
        raise DataError("expected at least two labels: with one there is nothing to decide. Received: 1.")
    if labels.max(initial=0) >= count:
        raise DataError(f"expected labels below {count}. Received: {labels.max()}.")
    check(1 / count < sure < 1, f"a probability above {1 / count:.3g} (chance) and below 1", sure)
    known = (labels >= 0)[..., None]
    chosen = np.eye(count, dtype="float32")[np.maximum(labels, 0)]
    annotated = np.where(chosen > 0, sure, (1 - sure) / (count - 1))
    return np.where(known, annotated, 1 / count).astype("float32")


_TILE = 1 << 22
"""Most pixels that are worked on at once: working on them takes about 3 GB."""


def refine(
    photo: np.ndarray, probabilities: np.ndarray, config: Config | None = None, method: str = "lattice"
) -> np.ndarray:
    """The probabilities of a photo's labels after inference.

    Args:
        photo: (H, W, 3) RGB, uint8 or floats of 0-255.
        probabilities: (H, W, L), 0-1.
        config: of the CRF, pydensecrf's by default.
        method: lattice, window or exact.

    Returns:
        (H, W, L) float32. Photos of more than four megapixels are worked on in tiles that overlap by the bilateral
        kernel's width on each side.

    Raises:
        DataError: the sizes differ, a size is 0, there is one label only, or there are values that are no
            probabilities; or the photo is of 0-1, or another kind of numbers.

    Example:
        >>> import numpy as np
        >>> photo = np.zeros((12, 16, 3), "uint8"); photo[:, 8:] = 255
        >>> rough = probabilities_of(np.where(np.arange(16) < 3, 0, np.where(np.arange(16) > 12, 1, -1))[None]
        ...                          .repeat(12, 0), 2)
        >>> refine(photo, rough).argmax(-1)[0].tolist()
        [0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 1, 1, 1, 1]
    """
    config = config or Config()
    config.validate()
    photo = check_photo(photo)
    if probabilities.ndim != 3 or photo.shape[:2] != probabilities.shape[:2]:
        raise DataError(
            f"expected probabilities (H, W, labels) of the photo's size, {photo.shape[1]} x {photo.shape[0]}. "
            f"Received: shape {probabilities.shape}."
        )
    if 0 in probabilities.shape or probabilities.shape[2] < 2:
        raise DataError(f"expected at least one pixel and two labels. Received: shape {probabilities.shape}.")
    if not np.isfinite(probabilities).all() or probabilities.min() < 0 or probabilities.max() > 1 + 1e-3:
        raise DataError(
            "expected probabilities, 0-1. Received: values from "
            f"{probabilities.min():.3g} to {probabilities.max():.3g}, {np.isnan(probabilities).sum()} of them NaN. "
            "Apply a softmax to scores first."
        )
    model = FullyConnectedCRF(config, method)

    def at(rows: slice, columns: slice) -> np.ndarray:
        given = {"image": photo[rows, columns], "probabilities": probabilities[rows, columns]}
        return model({name: tf.constant(value[None]) for name, value in given.items()})[0].numpy()

    height, width = photo.shape[:2]
    if height * width <= _TILE:
        return at(slice(height), slice(width))
    margin = int(np.ceil(max(config.bilateral_sxy, 3 * config.gaussian_sxy)))
    side = max(64, int(_TILE**0.5) - 2 * margin)
    refined = np.empty(probabilities.shape, "float32")
    for top in range(0, height, side):
        for left in range(0, width, side):
            first = max(0, top - margin), max(0, left - margin)
            tile = at(slice(first[0], top + side + margin), slice(first[1], left + side + margin))
            bottom, right = min(top + side, height), min(left + side, width)
            inner = tile[top - first[0] : bottom - first[0], left - first[1] : right - first[1]]
            refined[top:bottom, left:right] = inner
    return refined


# --- run --------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RunOptions:
    """Make rough labels follow a photo's edges: strokes in colours (--labels), or a network's (--probabilities)."""

    image: Path
    """The photo."""
    out: Annotated[Path, tyro.conf.arg(aliases=["-o"])]
    """The label picture to write, in the annotation's colours (for probabilities: PASCAL VOC's)."""
    labels: Path | None = None
    """Picture of the photo's size, PNG: a colour for each label, black where nothing is known."""
    probabilities: Path | None = None
    """Instead: a NumPy file (.npy) of probabilities, (H, W, labels) or (labels, H, W)."""
    overlay: Path | None = None
    """Also write the photo with the labels over it."""
    black: tyro.conf.FlagCreatePairsOff[bool] = False
    """Black is a label, too: PASCAL VOC's background."""
    gt_prob: float = 0.7
    """Probability that an annotated pixel is right."""
    iterations: int = Config.iterations
    """Of mean field."""
    gaussian_sxy: float = Config.gaussian_sxy
    """Width of the Gaussian kernel, pixels."""
    gaussian_compat: float = Config.gaussian_compat
    """Its weight: more of it, fewer specks."""
    bilateral_sxy: float = Config.bilateral_sxy
    """Width of the bilateral kernel, pixels: how far labels reach."""
    bilateral_srgb: float = Config.bilateral_srgb
    """And in colour, levels of 0-255: what counts as the same colour."""
    bilateral_compat: float = Config.bilateral_compat
    """Its weight: more of it, closer to the photo's edges."""
    method: Literal["lattice", "window"] = "lattice"
    """window: only pixels nearby, as exported models work."""


def _run(options: RunOptions) -> RunReport:
    if (options.labels is None) == (options.probabilities is None):
        raise UsageError("expected one of --labels PICTURE and --probabilities FILE.npy.")
    targets = [p for p in (options.out, options.overlay) if p]
    for target in targets:
        check(target.suffix.lower() in SUFFIXES, "a picture name such as out.png", str(target))
        sources = [p.resolve() for p in (options.image, options.labels, options.probabilities) if p]
        check(target.resolve() not in sources, "a place to write where no input is overwritten", str(target))
    check(len({t.resolve() for t in targets}) == len(targets), "a name of its own for each result", str(options.out))
    names = [f.name for f in dataclasses.fields(Config) if hasattr(options, f.name) and f.name != "labels"]
    config = Config(**{name: getattr(options, name) for name in names})
    config.validate()
    photo = read_image(options.image)
    if options.labels is not None:
        labels, colours = read_annotation(options.labels, options.black)
        _check_size(str(options.labels), labels, photo)
        given = probabilities_of(labels, len(colours), options.gt_prob)
        facts: dict[str, Any] = {"labels": len(colours), "annotated": f"{100 * (labels >= 0).mean():.1f} %"}
    else:
        given = _read_probabilities(Path(options.probabilities or ""), photo)
        colours = voc_palette()[: given.shape[-1]]
        facts = {"labels": given.shape[-1]}
    began = time.perf_counter()
    found = refine(photo, given, config, options.method).argmax(-1)
    facts["seconds"] = round(time.perf_counter() - began, 2)
    facts["pixels that changed"] = f"{100 * (found != given.argmax(-1)).mean():.1f} %"
    written = [write_image(options.out, colours[found])]
    if options.overlay is not None:
        written.append(write_image(options.overlay, overlay(photo, found, colours)))
    return RunReport(tuple(written), facts)


def _check_size(name: str, values: np.ndarray, photo: np.ndarray) -> None:
    if values.shape[:2] != photo.shape[:2]:
        raise DataError(
            f"expected {name} to be of the photo's size, {photo.shape[1]} x {photo.shape[0]} pixels. "
            f"Received: {values.shape[1]} x {values.shape[0]}."
        )


def _read_probabilities(path: Path, photo: np.ndarray) -> np.ndarray:
    try:
        values = reading.read_npy(path)
    except (OSError, ValueError) as error:
        raise DataError(f"expected a NumPy file (.npy) at {path}. Received: {error}.") from error
    if values.ndim != 3 or values.dtype.kind not in "biuf":
        raise DataError(
            f"expected one array (H, W, labels) of numbers in {path}. Received: {values.dtype} of shape {values.shape}."
        )
    if values.shape[:2] != photo.shape[:2] and values.shape[1:] == photo.shape[:2]:
        values = np.moveaxis(values, 0, -1)
    _check_size(str(path), values, photo)
    check(values.shape[-1] <= 256, "at most 256 labels", values.shape[-1])
    return values.astype("float32")


# --- experiments ------------------------------------------------------------------------------------------------------


def _reference(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """pydensecrf's own example: its photo, its annotation and the output it shows."""
    found = sorted(data.rglob("anno1.png")) if data is not None else []
    if not found:
        raise DataError(
            "expected --data DIR with im1.png, anno1.png and out1.png, the example of the project pydensecrf, at any "
            f"depth. Received: {data}."
        )
    rows = []
    for mark, what in (("", "with unknown pixels"), ("-b", "without")):
        photo = read_image(found[0].with_name("im1.png"))
        labels, colours = read_annotation(found[0].with_name(f"anno1{mark}.png"))
        theirs = read_image(found[0].with_name(f"out1{mark}.png"))
        given = probabilities_of(labels, len(colours))
        for method in ("lattice", "window"):
            ours = colours[refine(photo, given, Config(), method).argmax(-1)]
            equal = float((ours == theirs).all(-1).mean())
            claim = f"pydensecrf's example, annotated {what}: pixels labelled alike ({method})"
            gate = 0.99 if method == "lattice" else 0.9
            rows.append(Row(claim, "1", round(equal, 5), f">= {gate:g}", equal >= gate))
        before = (labels >= 0).mean() * (theirs == colours[np.maximum(labels, 0)])[labels >= 0].all(-1).mean()
        rows.append(Row(f"the same, annotated {what}, before inference", "-", round(float(before), 4), "-", True))
    return rows


def _noisy(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Regions of a known picture, a quarter of whose pixels carry a wrong label; all three ways to sum."""
    photo, truth = _known_scene(72 if quick else 96, 96 if quick else 128)
    random, count = np.random.default_rng(1), 4
    wrong = random.uniform(size=truth.shape) < 0.25
    noisy = np.where(wrong, (truth + random.integers(1, count, truth.shape)) % count, truth)
    given = probabilities_of(noisy, count, 0.5)
    before = float((noisy == truth).mean())
    config = Config(iterations=10)
    rows = [Row("pixels labelled right before inference", "-", round(before, 4), "<= 0.78", before <= 0.78)]
    shown, answers = [photo, voc_palette()[noisy]], {}
    for method in ("lattice", "window", "exact"):
        answers[method] = refine(photo, given, config, method)
        right = float((answers[method].argmax(-1) == truth).mean())
        gate = 0.95 if method == "window" else 0.97
        rows.append(Row(f"and after ({method})", "1", round(right, 4), f">= {gate:g}", right >= gate))
        shown.append(voc_palette()[answers[method].argmax(-1)])
    alike = float((answers["lattice"].argmax(-1) == answers["exact"].argmax(-1)).mean())
    apart = float(np.abs(answers["lattice"] - answers["exact"]).mean())
    rows.append(Row("lattice and all pairs: pixels labelled alike", "not given", alike, ">= 0.99", alike >= 0.99))
    rows.append(Row("and the mean difference of probabilities", "not given", apart, "<= 0.02", apart <= 0.02))
    write_image(figures / "dense_crf_noisy.png", np.concatenate(shown, axis=1).repeat(2, 0).repeat(2, 1))
    return rows


def _edges(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Labels in blocks, as of a network of stride 16: does inference move them onto the edges?"""
    photo, truth = _known_scene(96 if quick else 192, 128 if quick else 256)
    count = 4
    blocks = truth[8::16, 8::16].repeat(16, 0).repeat(16, 1)
    given = probabilities_of(blocks, count, 0.7)
    rows, shown = [], [photo, voc_palette()[blocks]]
    before = boundary_iou(truth, blocks, count)
    for method, gain in (("lattice", 0.1), ("window", 0.02)):
        found = refine(photo, given, Config(), method).argmax(-1)
        after = boundary_iou(truth, found, count)
        claim = f"mean IoU within 3 pixels of an edge, after inference ({method}) less before ({before:.3f})"
        rows.append(Row(claim, "> 0", round(after - before, 4), f">= {gain}", after - before >= gain))
        shown.append(voc_palette()[found])
    write_image(figures / "dense_crf_edges.png", np.concatenate(shown, axis=1))
    return rows


def _known_scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of four regions with wavy outlines, shading and grain, (H, W, 3) uint8; and which is where, 0-3."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[0:height, 0:width] / height
    angle, aspect = np.arctan2(y - 0.5, x - 0.45), width / height
    disc = np.hypot(y - 0.5, x - 0.45) < 0.27 + 0.05 * np.sin(5 * angle) + 0.02 * np.sin(11 * angle)
    ground = y > 0.72 + 0.06 * np.sin(7 * x) + 0.02 * np.sin(29 * x)
    tower = np.abs(x - 0.8 * aspect) < 0.13 + 0.03 * np.sign(np.sin(20 * y))
    truth = np.where(disc, 3, np.where(tower, 2, np.where(ground, 1, 0)))
    colours = np.array([[120, 150, 190], [95, 120, 60], [150, 120, 100], [190, 90, 60]], "float64")
    picture = colours[truth] * (0.85 + 0.3 * np.clip(x / aspect, 0, 1))[..., None]
    return np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype("uint8"), truth


FAMILY = Family(
    name="dense_crf",
    config=Config,
    variants=VARIANTS,
    model=FullyConnectedCRF,
    build=None,
    datasets=None,
    servables=_servables,
    run_options=RunOptions,
    run=_run,
    experiments={
        "reference": Experiment("pydensecrf's own example against the output that it shows", _reference),
        "noisy": Experiment("a labelling with a quarter of its pixels wrong", _noisy),
        "edges": Experiment("labels in blocks moved onto the edges of the picture", _edges),
    },
)
