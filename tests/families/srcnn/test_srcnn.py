"""SRCNN: the paper's networks, its recipe, and that it learns."""

import dataclasses

import keras
import numpy as np
import pytest

from kerasmodels.data import write_image
from kerasmodels.errors import UsageError
from kerasmodels.models import srcnn
from kerasmodels.models.srcnn import SRCNN
from kerasmodels.ops import imresize, rgb_to_ycbcr, ycbcr_to_rgb
from tests.cases import photo


@pytest.mark.parametrize(
    ("kernels", "weights", "margin"), [((9, 1, 5), 8032, 6), ((9, 3, 5), 24416, 7), ((9, 5, 5), 57184, 8)]
)
def test_networks_of_the_paper(kernels, weights, margin):
    model = SRCNN(SRCNN.Config(kernels=kernels))
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables if "kernel" in v.path) == weights
    assert model.count_params() == weights + 97
    assert model(np.zeros((1, 33, 33, 1), "float32")).shape == (1, 33 - 2 * margin, 33 - 2 * margin, 1)
    values = np.concatenate([w.ravel() for w in model.get_weights() if w.ndim > 1])
    assert 0.0009 < values.std() < 0.0011


def test_identity_begins_as_the_interpolation():
    """The others among its filters reach the last layer with small weights: a fraction of a level."""
    model = SRCNN(dataclasses.replace(srcnn.VARIANTS["quick"], photos=None))
    picture = photo(0, 30, 36)[None].astype("float32")
    bicubic = ycbcr_to_rgb(imresize(rgb_to_ycbcr(picture), 3))
    far = np.abs(np.asarray(model.upscaled(picture)) - bicubic)
    assert 0 < far.mean() < 8


def test_recipe_of_the_paper():
    """Momentum 0.9; the last layer learns ten times slower."""
    keras.utils.set_random_seed(0)
    model = SRCNN(SRCNN.Config(initial="identity", learning_rate=1e-3))
    model.compile()
    optimizer = model.optimizers["all"]
    assert (optimizer.momentum, float(optimizer.learning_rate)) == (0.9, pytest.approx(1e-3))
    factors = {v.path: optimizer.factor(v.path) for v in model.trainable_variables}
    assert {k.split("/")[-2]: f for k, f in factors.items()} == {"conv1": 1.0, "conv2": 1.0, "conv3": 0.1}


def test_the_loss_is_half_the_sum_of_squares():
    loss = SRCNN().default_loss()(np.zeros((2, 3, 3, 1)), np.full((2, 3, 3, 1), 51.0))
    np.testing.assert_allclose(loss, [0.5 * 9 * 0.2**2] * 2, rtol=1e-5)


def test_it_learns(tmp_path):
    for number in range(4):
        write_image(tmp_path / f"{number}.png", photo(number, 40, 50))
    config = SRCNN.Config(
        photos=tmp_path,
        filters=(16, 8),
        initial="identity",
        optimizer="adam",
        size=33,
        batch=4,
        learning_rate=1e-3,
        steps=60,
    )
    model = srcnn.FAMILY.build(config)
    batches = srcnn.FAMILY.batches(config)
    luma, truth = next(iter(batches))
    assert (luma.shape, truth.shape) == ((4, 33, 33, 1), (4, 21, 21, 1))
    losses = model.fit(batches, steps_per_epoch=20, epochs=3, verbose=0).history["loss"]
    assert losses[-1] < 0.8 * losses[0]


def test_wrong_configs():
    for wrong, match in (
        ({"kernels": (8, 1, 5)}, "odd"),
        ({"size": 12}, "size >= 13"),
        ({"scale": 1}, "scale"),
        ({"scale": 9}, "scale"),
    ):
        with pytest.raises(UsageError, match=match):
            SRCNN.Config(**wrong)
    with pytest.raises(UsageError, match="--photos"):
        srcnn.FAMILY.batches(SRCNN.Config())
