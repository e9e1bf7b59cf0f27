"""The claims of `closed_form_matting`: the authors' own result, and a composite of which everything is known."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasmodels.claims.evidence import find_data
from kerasmodels.data import read_drawing, read_image, write_image
from kerasmodels.family import Claim, Experiment
from kerasmodels.losses import matting_laplacian_matrix
from kerasmodels.models.closed_form_matting import ClosedFormMatting, Config, matte, synthetic_composite
from kerasmodels.servables import served
from kerasmodels.tasks.cut_out import estimate_foreground, scribbled, to_bytes


def levin(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """The authors' own result on a photo with scribbles, as their MATLAB code computed it."""
    what = "source.png, scribbles.png and matlab_alpha.png: the test data of the project closed-form-matting"
    folder = find_data(data, "matlab_alpha.png", what).parent
    photo = read_image(folder / "source.png")
    known, values = scribbled(photo, read_drawing(folder / "scribbles.png"))
    theirs = read_image(folder / "matlab_alpha.png")[..., 0] / 255
    alpha, solution = matte(photo, known, values)
    difference = 255 * float(np.abs(alpha - theirs).mean())
    front, back = estimate_foreground(photo / 255, alpha)
    left = np.abs(photo / 255 - alpha[..., None] * front - (1 - alpha)[..., None] * back)
    exact, _ = matte(photo, known, values, Config(softness=None))
    trimap = np.where(known, 255 * values, 128).astype("uint8")
    float32 = served(ClosedFormMatting(), "matte")(image=photo[None], trimap=trimap[None, ..., None])["alpha"]
    return [
        Claim(
            "levin_alpha",
            "alpha against the authors' (MATLAB) on their example, mean difference in levels of 255",
            "0",
            round(difference, 4),
            at_most=1,
        ),
        Claim(
            "levin_iterations", "iterations to a relative residual of 1e-7", "a direct solver", int(solution.iterations)
        ),
        Claim(
            "levin_exact",
            "the same with known pixels held exactly, mean difference in levels",
            "not given",
            round(255 * float(np.abs(exact - theirs).mean()), 4),
            at_most=1,
        ),
        Claim(
            "levin_served",
            "what is exported (float32, fixed iterations) against float64, mean difference in levels",
            "not given",
            round(255 * float(np.abs(float32[0, ..., 0] - alpha).mean()), 4),
            at_most=1,
        ),
        Claim(
            "levin_colors",
            "alpha F + (1 - alpha) B against the photo, mean difference, 0-1",
            "not given",
            round(float(left.mean()), 5),
            at_most=0.01,
        ),
    ]


def known_composite(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """A composite whose alpha is known, from strokes on 5-10 % of it."""
    import scipy.sparse.linalg

    image, truth, strokes = synthetic_composite(60 if quick else 120, 80 if quick else 160)
    exact = Config(softness=None)
    alpha, solution = matte(image, strokes, truth, exact)
    error = float(np.abs(alpha - truth).mean())
    matrix, unknown = matting_laplacian_matrix(image), ~strokes.ravel()
    rest = truth.ravel()[~unknown]
    direct = truth.ravel().copy()
    direct[unknown] = scipy.sparse.linalg.spsolve(
        matrix[unknown][:, unknown].tocsc(), -(matrix[unknown][:, ~unknown] @ rest)
    )
    off = float(np.abs(alpha.ravel() - np.clip(direct, 0, 1)).max())
    front, back = estimate_foreground(image, alpha)
    left = float(np.abs(image - alpha[..., None] * front - (1 - alpha)[..., None] * back).mean())
    shown = [image, np.where(strokes, truth, 0.5)[..., None] + 0 * image, alpha[..., None] + 0 * image]
    new = alpha[..., None] * front + (1 - alpha)[..., None] * np.array([0.1, 0.5, 0.2])
    write_image(figures / "closed_form_matting_composite.png", to_bytes(np.concatenate([*shown, new], axis=1)))
    return [
        Claim(
            "composite_alpha",
            f"alpha of a known composite from strokes on {100 * strokes.mean():.0f} % of it, mean error",
            "exact where colors are smooth (theorem 1)",
            round(error, 5),
            at_most=0.01,
        ),
        Claim(
            "composite_direct",
            "conjugate gradients against a direct solver, largest difference",
            "0",
            off,
            at_most=1e-5,
        ),
        Claim(
            "composite_iterations", "iterations to a relative residual of 1e-7", "not given", int(solution.iterations)
        ),
        Claim(
            "composite_colors",
            "alpha F + (1 - alpha) B against the picture, mean difference",
            "0",
            round(left, 5),
            at_most=0.01,
        ),
    ]


EXPERIMENTS = {
    "levin": Experiment("the authors' own alpha on their own example", levin),
    "composite": Experiment("a picture whose alpha is known", known_composite),
}
