"""The claims of `neural_style`: the papers have no table, so these are of what the procedure is for."""

import dataclasses
import tempfile
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np

from kerasmodels.claims.evidence import find_data
from kerasmodels.data import read_image, write_image
from kerasmodels.data.color import to_yuv, with_colors_of
from kerasmodels.errors import DataError
from kerasmodels.family import Claim, Experiment
from kerasmodels.models.neural_style import FAMILY, Config, RunOptions, content_at, finished, read_pictures
from kerasmodels.training.picture import Painted, Stage, optimize_picture, to_uint8


def objective(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The objective at a small size: what L-BFGS reaches from white noise, beside Adam, and what becomes of colors.

    The paper has no table; its claim is that the procedure works. Photos are scikit-image's.
    """
    from kerasmodels.data import plots

    painting = _painting(data, "starry_night")
    size, steps = (64, 60) if quick else (128, 300)
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        photo = _photo("chelsea", Path(folder))
        config = Config(content=photo, style=(painting,), size=size)

        def optimized(config: Config, method: str, steps: int) -> tuple[dict[str, float], Painted, np.ndarray]:
            model = FAMILY.build(config)
            before = model.terms()
            out = Path(folder, f"{method}.png")
            done = optimize_picture(
                [Stage(steps, lambda _: model)],
                out,
                method=method,
                finish=partial(finished, config),
                preview_every=0,
                progress=False,
            )
            return before, done, model.pixels()

        before, lbfgs, _ = optimized(config, "lbfgs", steps)
        _, adam, _ = optimized(config, "adam", lbfgs.evaluations)
        luminance = dataclasses.replace(config, start="content", colors="luminance")
        _, kept, pixels = optimized(luminance, "lbfgs", steps // 5)
        content = content_at(config, *config.shape)
        uv = np.abs(to_yuv(with_colors_of(pixels, content)) - to_yuv(content))[..., 1:].max() / 255
        matched = read_pictures(dataclasses.replace(config, colors="match")).styles[0].reshape(-1, 3)
        wanted = content.reshape(-1, 3)
        moments = max(
            float(np.abs(matched.mean(0) - wanted.mean(0)).max() / 255),
            float(np.abs(np.cov(matched.T) - np.cov(wanted.T)).max() / 255**2),
        )
    drop = before["style"] / lbfgs.terms["style"]
    losses = {
        name: (np.arange(len(history)) + 1, np.array(history))
        for name, history in (("L-BFGS", lbfgs.history[0]), ("Adam", adam.history[0]))
    }
    curves = plots.curves(losses, "iterations", "loss", logarithmic=("x", "y"))
    write_image(figures / "neural_style_curve.png", curves)
    strip = np.concatenate([to_uint8(content), lbfgs.picture, adam.picture, kept.picture], axis=1)
    write_image(figures / "neural_style_objective.png", strip)
    ratio = lbfgs.loss / adam.loss
    evaluations = lbfgs.evaluations
    return [
        Claim(
            "noise_style_drop",
            f"style term of white noise over that after {steps} L-BFGS iterations ({size} px)",
            "not given",
            round(drop, 1),
            at_least=100,
        ),
        Claim(
            "lbfgs_over_adam",
            f"objective after {evaluations} evaluations: L-BFGS's over Adam's, both from noise",
            "L-BFGS works best",
            round(ratio, 4),
            at_most=1,
        ),
        Claim(
            "luminance_keeps_colors",
            "luminance only: largest change of U and V before clipping, of 1",
            "colors are kept (CVPR 2017)",
            float(f"{uv:.3g}"),
            at_most=1 / 255,
        ),
        Claim(
            "match_moments",
            "color matching: mean and covariance of the painting against the photo's, of 1",
            "equal (CVPR 2017)",
            float(f"{moments:.3g}"),
            at_most=1e-4,
        ),
    ]


def paintings(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Two photos of scikit-image in the styles of two paintings, as `kerasmodels run` makes them."""
    size, steps = (96, 30) if quick else (512, 150)
    claims: list[Claim] = []
    with tempfile.TemporaryDirectory(prefix="kerasmodels-") as folder:
        for name, style in (("chelsea", "starry_night"), ("coffee", "the_scream")):
            photo, out = _photo(name, Path(folder)), figures / f"neural_style_{name}_{style}.jpg"
            options = RunOptions(content=photo, style=(_painting(data, style),), out=out, size=size, steps=steps)
            config = Config(content=photo, style=options.style, size=size, start="content")
            before = FAMILY.build(config).terms()
            report = FAMILY.task.run(dataclasses.replace(options, preview_every=0))
            drop = before["style"] / float(report.facts["style"])
            claims.append(
                Claim(
                    f"{name}_style_drop",
                    f"{name} in the style of {style}, {size} px: style term of the photo over that of the result",
                    "not given",
                    round(drop, 1),
                    at_least=30,
                )
            )
            result = read_image(out)
            content = to_uint8(content_at(config, *result.shape[:2]))
            write_image(out, np.concatenate([content, result], axis=1))
    return claims


def _photo(name: str, folder: Path) -> Path:
    """A photo of scikit-image as a file."""
    try:
        import skimage.data
    except ImportError as error:
        raise DataError("the photos are those of scikit-image: pip install scikit-image.") from error
    return write_image(folder / f"{name}.png", getattr(skimage.data, name)())


def _painting(data: Path | None, name: str) -> Path:
    return find_data(data, f"{name}.*", "pictures of the paintings starry_night and the_scream")


EXPERIMENTS = {
    "objective": Experiment("L-BFGS from white noise, beside Adam; what becomes of colors", objective),
    "paintings": Experiment("two photos in the styles of two paintings, at 512 pixels", paintings),
}
