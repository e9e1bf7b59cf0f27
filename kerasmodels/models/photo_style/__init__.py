"""Photographic style transfer: a photo takes the colours and the light of another photo, and stays a photo.

Luan, Paris, Shechtman, Bala: Deep Photo Style Transfer, CVPR 2017; the released code is
luanfujun/deep-photo-styletransfer.

Reproduced: style by semantic regions, the photorealism term on the matting Laplacian (its value and its gradient), the
two stages of the optimisation, the local affine smoothing at the end, and on the authors' own pairs what the term does:
the result is a local affine map of the photo's colours, at little cost in style.

| departure from the paper | why |
|---|---|
| VGG19 rescaled to mean activation 1 (Gatys); Oxford's own weights in the paper | the set that can be had |
| features count 340 times, our estimate of their size in Oxford's weights | the paper's lambda then holds |
| `style_weight` 2 for each layer; the code has 100 | chosen by eye and by our gates |
| stage 1 begins with the photo, its colours matched linearly, region by region (`start`); the code with noise | \
a few hundred iterations suffice |
| masks are averaged over the pixels inside the picture; the code counts zeros beyond its border | they sum to 1 |
| masks are fractions of pixels; the code's are cut from resized colours, which leaves gaps at edges | the same |
| labels that the reference lacks take the nearest label that it has; the paper's network picks among its labels | \
label pictures have no second choice |
| the affine term's value is added to the loss; the code adds its gradient only | a line search needs both |
| smoothing by a guided filter; the code has a joint bilateral filter (`layers.LocalAffineSmoothing`) | it exports |
"""

from kerasmodels.family import Experiment, Family
from kerasmodels.models.photo_style.config import VARIANTS, Config
from kerasmodels.models.photo_style.experiments import PAIRS, memory, on_pair
from kerasmodels.models.photo_style.model import PhotoStyle, build, datasets, preview, servables
from kerasmodels.models.photo_style.objective import PhotorealisticObjective
from kerasmodels.models.photo_style.pair import Pair, read_pair
from kerasmodels.models.photo_style.task import RunOptions, run

__all__ = ["FAMILY", "Config", "Pair", "PhotoStyle", "PhotorealisticObjective", "RunOptions", "read_pair"]

FAMILY = Family(
    name="photo_style",
    config=Config,
    variants=VARIANTS,
    model=lambda config: PhotoStyle(config, precision=config.precision),
    build=build,
    datasets=datasets,
    servables=servables,
    run_options=RunOptions,
    run=run,
    experiments={
        **{f"pair{number}": on_pair(number) for number in PAIRS},
        "memory": Experiment("peak memory and time at the paper's size", memory),
    },
    preview=preview,
)
