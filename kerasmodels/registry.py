"""Which families exist. Pure data: importing this module imports neither Keras nor TensorFlow.

A family is listed when it works. One row here is one row everywhere: CLI, conformance tests, docs.
"""

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from kerasmodels.errors import unknown_name

if TYPE_CHECKING:
    from kerasmodels.family import Family


@dataclass(frozen=True)
class Row:
    """One family.

    Args:
        name: registry name.
        models: names of its model classes in `kerasmodels.models`.
        paper: authors, title, where, year.
        line: what it does for the user, in one line.
        trains: False if there is nothing to train: its `FAMILY.source` is None.
        module: defines `FAMILY`; kerasmodels.models.<name> if left out.
    """

    name: str
    models: tuple[str, ...]
    paper: str
    line: str
    trains: bool = True
    module: str = ""

    def __post_init__(self) -> None:
        if not self.module:
            object.__setattr__(self, "module", f"kerasmodels.models.{self.name}")


ROWS = (
    Row(
        "fast_style",
        ("FastStyle",),
        "Johnson, Alahi, Fei-Fei: Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016",
        "repaint photos and videos in the style of a painting, in one forward pass",
    ),
    Row(
        "super_resolution",
        ("SuperResolution",),
        "Johnson, Alahi, Fei-Fei: Perceptual Losses for Real-Time Style Transfer and Super-Resolution, ECCV 2016",
        "enlarge photos and videos 4 or 8 times, for the eye or for the pixels",
    ),
    Row(
        "srcnn",
        ("SRCNN",),
        "Dong, Loy, He, Tang: Image Super-Resolution Using Deep Convolutional Networks, PAMI 2016",
        "enlarge photos and videos with three convolutions",
    ),
    Row(
        "neural_style",
        ("NeuralStyle",),
        "Gatys, Ecker, Bethge: Image Style Transfer Using Convolutional Neural Networks, CVPR 2016",
        "paint a photo in the style of one or several paintings, by optimizing its pixels",
    ),
    Row(
        "photo_style",
        ("PhotoStyle",),
        "Luan, Paris, Shechtman, Bala: Deep Photo Style Transfer, CVPR 2017",
        "give a photo the colors and the light of another photo, region by region, and keep it a photo",
    ),
    Row(
        "closed_form_matting",
        ("ClosedFormMatting",),
        "Levin, Lischinski, Weiss: A Closed-Form Solution to Natural Image Matting, PAMI 2008",
        "cut hair and fur out of a photo with a trimap or a few strokes, or change its background",
        trains=False,
    ),
    Row(
        "feature_patches",
        ("FeaturePatches",),
        "Zeiler, Fergus: Visualizing and Understanding Convolutional Networks, ECCV 2014",
        "see what a network has learned: the patches of your photos that excite a unit most",
        trains=False,
    ),
    Row(
        "dilated_net",
        ("DilatedNet",),
        "Yu, Koltun: Multi-Scale Context Aggregation by Dilated Convolutions, ICLR 2016",
        "label each pixel of a photo, with convolutions that see far at full resolution",
    ),
    Row(
        "deeplab",
        ("DeepLab",),
        "Chen, Papandreou, Kokkinos, Murphy, Yuille: DeepLab (Atrous Convolution and Fully Connected CRFs), PAMI 2018",
        "label each pixel of a photo, with branches that see at several scales and edges that a CRF finds",
    ),
    Row(
        "dense_crf",
        ("FullyConnectedCRF",),
        "Kraehenbuehl, Koltun: Efficient Inference in Fully Connected CRFs with Gaussian Edge Potentials, NIPS 2011",
        "make rough labels, strokes or a network's, follow the edges of a photo",
        trains=False,
    ),
    Row(
        "deformable_net",
        ("DeformableNet", "DeformableDetector"),
        "Dai, Qi, Xiong, Li, Zhang, Hu, Wei: Deformable Convolutional Networks, ICCV 2017",
        "tell digits of any size and slant apart, find them on photos, and draw where the network looks",
    ),
    Row(
        "cyclegan",
        ("CycleGAN",),
        "Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation, ICCV 2017",
        "translate pictures of one domain into another, learned from two folders without pairs",
    ),
    Row(
        "discogan",
        ("DiscoGAN",),
        "Kim, Cha, Kim, Lee, Kim: Learning to Discover Cross-Domain Relations with GANs, ICML 2017",
        "find what two domains of pictures have in common, and translate between them",
    ),
    Row(
        "rnn_encoder_decoder",
        ("RNNEncoderDecoder",),
        "Cho, van Merrienboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio: Learning Phrase Representations using "
        "RNN Encoder-Decoder, EMNLP 2014",
        "translate texts by beam search, score the phrase pairs of a Moses table, and find phrases of like meaning",
    ),
    Row(
        "wgan",
        ("WGAN",),
        "Arjovsky, Chintala, Bottou: Wasserstein GAN, ICML 2017",
        "generate pictures like those of a folder, with a loss that tells how far they are off",
    ),
    Row(
        "ebgan",
        ("EBGAN",),
        "Zhao, Mathieu, LeCun: Energy-based Generative Adversarial Network, ICLR 2017",
        "generate pictures like those of a folder, and find anomalies: which pictures are unlike them, and where",
    ),
    Row(
        "ntm",
        ("NTM",),
        "Graves, Wayne, Danihelka: Neural Turing Machines, 2014",
        "learn to copy, recall, count and sort bits, with a memory whose use can be watched",
    ),
    Row(
        "dqn",
        ("DQN",),
        "Mnih, Kavukcuoglu, Silver, Graves, Antonoglou, Wierstra, Riedmiller: Playing Atari with Deep Reinforcement "
        "Learning, 2013",
        "learn to play Atari, Catch or any game of Gymnasium from screen and score, and watch it play",
    ),
    Row(
        "optimization",
        ("ObjectiveFunction",),
        "Goodfellow, Bengio, Courville: Deep Learning, chapter 8, MIT Press 2016",
        "watch the classic optimizers at work, and find out which one suits your model",
        trains=False,
    ),
)


def names() -> list[str]:
    """All family names, in registry order."""
    return [row.name for row in ROWS]


def ready() -> list[str]:
    """The families that have nothing to train and so are ready as they are."""
    return [row.name for row in ROWS if not row.trains]


def row(name: str) -> Row:
    """The row of family `name`.

    Raises:
        UsageError: no such family.
    """
    for candidate in ROWS:
        if candidate.name == name:
            return candidate
    raise unknown_name("family", name, names())


def family(name: str) -> "Family":
    """Import and return family `name` (this imports TensorFlow).

    Raises:
        UsageError: no such family.
    """
    return importlib.import_module(row(name).module).FAMILY
