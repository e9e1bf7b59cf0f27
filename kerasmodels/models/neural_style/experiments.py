"""What `kerasmodels reproduce neural_style` measures."""

import dataclasses
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from kerasmodels.data import read_image, write_image
from kerasmodels.data.colour import to_yuv, with_colours_of
from kerasmodels.data.images import SUFFIXES
from kerasmodels.errors import DataError
from kerasmodels.family import Row
from kerasmodels.models.neural_style.config import Config
from kerasmodels.models.neural_style.objective import content_at, read_pictures
from kerasmodels.models.neural_style.run import RunOptions, run
from kerasmodels.models.neural_style.trainer import build, finish
from kerasmodels.training.picture import Painted, Stage, optimize_picture, to_uint8


def objective(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """The objective at a small size: what L-BFGS reaches from white noise, beside Adam, and what becomes of colours.

    The paper has no table; its claim is that the procedure works. Photos are scikit-image's.
    """
    painting = _painting(data, "starry_night")
    size, steps = (64, 60) if quick else (128, 300)
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        photo = _photo("chelsea", Path(folder))
        config = Config(content=photo, style=(painting,), size=size)

        def optimized(config: Config, method: str, steps: int) -> tuple[dict[str, float], Painted, np.ndarray]:
            model = build(config)
            before = model.terms()
            out = Path(folder, f"{method}.png")
            done = optimize_picture(
                [Stage(steps, lambda _: model)],
                out,
                method=method,
                finish=finish(config),
                preview_every=0,
                progress=False,
            )
            return before, done, model.pixels()

        before, lbfgs, _ = optimized(config, "lbfgs", steps)
        _, adam, _ = optimized(config, "adam", lbfgs.evaluations)
        grey = dataclasses.replace(config, start="content", colours="luminance")
        _, kept, pixels = optimized(grey, "lbfgs", steps // 5)
        content = content_at(config, *config.shape)
        uv = np.abs(to_yuv(with_colours_of(pixels, content)) - to_yuv(content))[..., 1:].max() / 255
        matched = read_pictures(dataclasses.replace(config, colours="match")).styles[0].reshape(-1, 3)
        wanted = content.reshape(-1, 3)
        moments = max(
            float(np.abs(matched.mean(0) - wanted.mean(0)).max() / 255),
            float(np.abs(np.cov(matched.T) - np.cov(wanted.T)).max() / 255**2),
        )
    drop = before["style"] / lbfgs.terms["style"]
    write_image(figures / "neural_style_curve.png", _curves({"L-BFGS": lbfgs.history[0], "Adam": adam.history[0]}))
    strip = np.concatenate([to_uint8(content), lbfgs.picture, adam.picture, kept.picture], axis=1)
    write_image(figures / "neural_style_objective.png", strip)
    ratio = lbfgs.loss / adam.loss
    evaluations = lbfgs.evaluations
    return [
        Row(
            f"style term of white noise over that after {steps} L-BFGS iterations ({size} px)",
            "not given",
            round(drop, 1),
            ">= 100",
            drop >= 100,
        ),
        Row(
            f"objective after {evaluations} evaluations: L-BFGS's over Adam's, both from noise",
            "L-BFGS works best",
            round(ratio, 4),
            "< 1",
            ratio < 1,
        ),
        Row(
            "luminance only: largest change of U and V before clipping, of 1",
            "colours are kept (CVPR 2017)",
            float(f"{uv:.3g}"),
            "<= 1/255",
            bool(uv <= 1 / 255),
        ),
        Row(
            "colour matching: mean and covariance of the painting against the photo's, of 1",
            "equal (CVPR 2017)",
            float(f"{moments:.3g}"),
            "<= 1e-4",
            moments <= 1e-4,
        ),
    ]


def paintings(data: Path | None, figures: Path, quick: bool) -> Sequence[Row]:
    """Two photos of scikit-image in the styles of two paintings, as `kerasmodels run` makes them."""
    size, steps = (96, 30) if quick else (512, 150)
    rows: list[Row] = []
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        for name, style in (("chelsea", "starry_night"), ("coffee", "the_scream")):
            photo, out = _photo(name, Path(folder)), figures / f"neural_style_{name}_{style}.jpg"
            options = RunOptions(content=photo, style=(_painting(data, style),), out=out, size=size, steps=steps)
            config = Config(content=photo, style=options.style, size=size, start="content")
            before = build(config).terms()
            report = run(dataclasses.replace(options, preview_every=0))
            drop = before["style"] / float(report.facts["style"])
            rows.append(
                Row(
                    f"{name} in the style of {style}, {size} px: style term of the photo over that of the result",
                    "not given",
                    round(drop, 1),
                    ">= 30",
                    drop >= 30,
                )
            )
            result = read_image(out)
            content = to_uint8(content_at(config, *result.shape[:2]))
            write_image(out, np.concatenate([content, result], axis=1))
    return rows


def _photo(name: str, folder: Path) -> Path:
    """A photo of scikit-image as a file."""
    try:
        import skimage.data
    except ImportError as error:
        raise DataError("the photos are those of scikit-image: pip install scikit-image.") from error
    return write_image(folder / f"{name}.png", getattr(skimage.data, name)())


def _painting(data: Path | None, name: str) -> Path:
    found = [] if data is None else sorted(p for p in data.rglob(f"{name}.*") if p.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(
            "expected --data DIR with pictures of the paintings starry_night and the_scream, found by file name at any "
            f"depth. Received: {data}, which has no {name}."
        )
    return found[0]


def _curves(histories: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Losses over iterations, both on logarithmic scales, with names."""
    image = Image.new("RGB", (640, 400), "white")
    draw = ImageDraw.Draw(image)
    every = np.log10(np.concatenate([np.asarray(h) for h in histories.values()]))
    low, high, longest = every.min(), every.max(), np.log10(max(len(h) for h in histories.values()))
    draw.rectangle((60, 20, 620, 360), outline="black")
    for text, at in (("1", (58, 366)), (f"{10**longest:.0f} iterations", (540, 366))):
        draw.text(at, text, "black")
    for value in (low, high):
        draw.text((6, 354 - 340 * (value - low) / (high - low)), f"{10**value:.3g}", "black")
    for i, (name, history) in enumerate(histories.items()):
        colour = ("#b4532a", "#2a6fb4", "#3a8f4d")[i % 3]
        points = [
            (60 + 560 * np.log10(step) / longest, 360 - 340 * (np.log10(loss) - low) / (high - low))
            for step, loss in enumerate(history, 1)
        ]
        draw.line(points, fill=colour, width=2)
        draw.text((480, 40 + 16 * i), name, colour)
    return np.asarray(image)
