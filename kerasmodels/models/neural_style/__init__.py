"""Neural style: pixels are optimised until VGG sees a photo's content in a painting's style.

Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016 (A Neural Algorithm of
Artistic Style, 2015). Colours and regions after Gatys et al.: Controlling Perceptual Factors in Neural Style Transfer,
CVPR 2017. `formulation="course"` is that of DeepLearning.AI's Convolutional Neural Networks, week 4.

Reproduced: the objective and its optimisation by L-BFGS from white noise. The picture is the model's only weight.

| departure from the paper | why |
|---|---|
| content term: a quarter of the mean square; `formulation="gatys"` is the paper's half of the sum | same at any size |
| Gram matrices are divided by their own number of positions: E_l where sizes are equal | painting and photo differ |
| `train` uses Adam (rate 10, as the neural-style code); `run` uses L-BFGS, as the paper | `fit` is first-order |
| a total variation term of small weight; 0 is the paper's | less grain from noise |
| large pictures are made coarse to fine (`levels`) | strokes keep their size relative to the picture, in less time |
| served: gradient descent with momentum on the normalised gradient | see `served.py` |
"""

from kerasmodels.family import Experiment, Family
from kerasmodels.models.neural_style import experiments
from kerasmodels.models.neural_style.config import VARIANTS, Config
from kerasmodels.models.neural_style.objective import StyleTransfer
from kerasmodels.models.neural_style.run import RunOptions, run
from kerasmodels.models.neural_style.served import servables
from kerasmodels.models.neural_style.trainer import NeuralStyle, build, datasets, preview

__all__ = ["FAMILY", "VARIANTS", "Config", "NeuralStyle", "RunOptions", "StyleTransfer", "build", "run"]

FAMILY = Family(
    name="neural_style",
    config=Config,
    variants=VARIANTS,
    model=NeuralStyle,
    build=build,
    datasets=datasets,
    servables=servables,
    run_options=RunOptions,
    run=run,
    experiments={
        "objective": Experiment("L-BFGS from white noise, beside Adam; what becomes of colours", experiments.objective),
        "paintings": Experiment("two photos in the styles of two paintings, at 512 pixels", experiments.paintings),
    },
    preview=preview,
)
