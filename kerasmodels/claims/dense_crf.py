"""The claims of `dense_crf`: pydensecrf's own example, a labeling with noise, and one in blocks."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kerasmodels.claims.evidence import find_data
from kerasmodels.data import read_image, write_image
from kerasmodels.data.segmentation import read_annotation, voc_palette
from kerasmodels.family import Claim, Experiment
from kerasmodels.metrics import boundary_iou
from kerasmodels.models.dense_crf import Config, probabilities_of, refine


def reference(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """pydensecrf's own example: its photo, its annotation and the output it shows."""
    folder = find_data(
        data, "anno1.png", "im1.png, anno1.png and out1.png, the example of the project pydensecrf"
    ).parent
    claims = []
    for mark, what, key in (("", "with unknown pixels", "unknown"), ("-b", "without", "known")):
        photo = read_image(folder / "im1.png")
        labels, colors = read_annotation(folder / f"anno1{mark}.png")
        theirs = read_image(folder / f"out1{mark}.png")
        given = probabilities_of(labels, len(colors))
        for method in ("lattice", "window"):
            ours = colors[refine(photo, given, Config(), method).argmax(-1)]
            equal = float((ours == theirs).all(-1).mean())
            text = f"pydensecrf's example, annotated {what}: pixels labeled alike ({method})"
            least = 0.99 if method == "lattice" else 0.9
            claims.append(Claim(f"reference_{key}_{method}", text, "1", round(equal, 5), at_least=least))
        before = (labels >= 0).mean() * (theirs == colors[np.maximum(labels, 0)])[labels >= 0].all(-1).mean()
        text = f"the same, annotated {what}, before inference"
        claims.append(Claim(f"reference_{key}_before", text, "-", round(float(before), 4)))
    return claims


def noisy(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Regions of a known picture, a quarter of whose pixels carry a wrong label; all three ways to sum."""
    photo, truth = _known_scene(72 if quick else 96, 96 if quick else 128)
    random, count = np.random.default_rng(1), 4
    wrong = random.uniform(size=truth.shape) < 0.25
    noisy = np.where(wrong, (truth + random.integers(1, count, truth.shape)) % count, truth)
    given = probabilities_of(noisy, count, 0.5)
    before = float((noisy == truth).mean())
    config = Config(iterations=10)
    claims = [Claim("noisy_before", "pixels labeled right before inference", "-", round(before, 4), at_most=0.78)]
    shown, refined = [photo, voc_palette()[noisy]], {}
    for method in ("lattice", "window", "exact"):
        refined[method] = refine(photo, given, config, method)
        right = float((refined[method].argmax(-1) == truth).mean())
        least = 0.95 if method == "window" else 0.97
        claims.append(Claim(f"noisy_{method}", f"and after ({method})", "1", round(right, 4), at_least=least))
        shown.append(voc_palette()[refined[method].argmax(-1)])
    alike = float((refined["lattice"].argmax(-1) == refined["exact"].argmax(-1)).mean())
    apart = float(np.abs(refined["lattice"] - refined["exact"]).mean())
    claims += [
        Claim("noisy_alike", "lattice and all pairs: pixels labeled alike", "not given", alike, at_least=0.99),
        Claim("noisy_apart", "and the mean difference of probabilities", "not given", apart, at_most=0.02),
    ]
    write_image(figures / "dense_crf_noisy.png", np.concatenate(shown, axis=1).repeat(2, 0).repeat(2, 1))
    return claims


def edges(data: Path | None, figures: Path, quick: bool) -> Sequence[Claim]:
    """Labels in blocks, as of a network of stride 16: does inference move them onto the edges?"""
    photo, truth = _known_scene(96 if quick else 192, 128 if quick else 256)
    count = 4
    blocks = truth[8::16, 8::16].repeat(16, 0).repeat(16, 1)
    given = probabilities_of(blocks, count, 0.7)
    claims, shown = [], [photo, voc_palette()[blocks]]
    before = boundary_iou(truth, blocks, count)
    for method, gain in (("lattice", 0.1), ("window", 0.02)):
        labels = refine(photo, given, Config(), method).argmax(-1)
        after = boundary_iou(truth, labels, count)
        text = f"mean IoU within 3 pixels of an edge, after inference ({method}) less before ({before:.3f})"
        claims.append(Claim(f"edges_{method}", text, "> 0", round(after - before, 4), at_least=gain))
        shown.append(voc_palette()[labels])
    write_image(figures / "dense_crf_edges.png", np.concatenate(shown, axis=1))
    return claims


def _known_scene(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A picture of four regions with wavy outlines, shading and grain, (H, W, 3) uint8; and which is where, 0-3."""
    random = np.random.default_rng(3)
    y, x = np.mgrid[0:height, 0:width] / height
    angle, aspect = np.arctan2(y - 0.5, x - 0.45), width / height
    disc = np.hypot(y - 0.5, x - 0.45) < 0.27 + 0.05 * np.sin(5 * angle) + 0.02 * np.sin(11 * angle)
    ground = y > 0.72 + 0.06 * np.sin(7 * x) + 0.02 * np.sin(29 * x)
    tower = np.abs(x - 0.8 * aspect) < 0.13 + 0.03 * np.sign(np.sin(20 * y))
    truth = np.where(disc, 3, np.where(tower, 2, np.where(ground, 1, 0)))
    colors = np.array([[120, 150, 190], [95, 120, 60], [150, 120, 100], [190, 90, 60]], "float64")
    picture = colors[truth] * (0.85 + 0.3 * np.clip(x / aspect, 0, 1))[..., None]
    return np.clip(picture + random.normal(0, 6, picture.shape), 0, 255).astype("uint8"), truth


EXPERIMENTS = {
    "reference": Experiment("pydensecrf's own example against the output that it shows", reference),
    "noisy": Experiment("a labeling with a quarter of its pixels wrong", noisy),
    "edges": Experiment("labels in blocks moved onto the edges of the picture", edges),
}
