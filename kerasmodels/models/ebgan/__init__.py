"""Energy-based GAN: the judge is an auto-encoder, and what it cannot rebuild has a high energy.

Zhao, Mathieu, LeCun: Energy-based Generative Adversarial Network, ICLR 2017. There is no code by the authors.

Reproduced: the fully connected networks of the grid (table 1), the convolutional ones for 64, 128 and 256 pixels
(appendix C), the margin, the pulling-away term, the semi-supervised game whose margin decays; the two theorems.

| departure from the paper | why |
|---|---|
| the energy is the Euclidean norm of the difference, pixels from -1 to 1 (`energy="norm"`) | the paper's equation; \
margins of 10, 20 and 80 are in this unit |
| the judge ends in tanh | energies are bounded, so a margin that no energy reaches is known before the training |
| learning rate 2e-4 for convolutional networks; the paper's is known for the grid alone (1e-3) | that of DCGAN |
| sizes 16 and 32: the networks for 64 pixels without their outermost stages | small pictures |
| `labelled`: a denoising auto-encoder with a layer of classes; the paper has a ladder network | one judge for all |
| the judge's running means (batch normalisation) are of real pictures alone | it is given real ones afterwards |
| pictures are drawn with replacement | a stream that can begin anywhere |
"""

from kerasmodels.family import Experiment, Family
from kerasmodels.models.ebgan.config import VARIANTS, Config
from kerasmodels.models.ebgan.experiments import anomaly, grid, labelled, theorem
from kerasmodels.models.ebgan.model import EBGAN, MarginWatch, build, datasets, servables
from kerasmodels.models.ebgan.task import RunOptions, looked_at, preview, run

__all__ = ["EBGAN", "FAMILY", "VARIANTS", "Config", "MarginWatch", "RunOptions", "looked_at"]

FAMILY = Family(
    name="ebgan",
    config=Config,
    variants=VARIANTS,
    model=EBGAN,
    build=build,
    datasets=datasets,
    servables=servables,
    run_options=RunOptions,
    run=run,
    experiments={
        "theorem": Experiment("a game on a line, played to its equilibrium; the terms by hand", theorem),
        "grid": Experiment("a grid of networks on digits: EBGAN, with pulling-away, and GAN", grid),
        "anomaly": Experiment("the energy of digits of a class never seen", anomaly, private=True),
        "labelled": Experiment("digits told apart from 100 labels", labelled),
    },
    preview=preview,
)
