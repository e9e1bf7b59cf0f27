"""Johnson's networks for super-resolution: sizes, losses, recipes, and memory."""

import dataclasses
import subprocess
import sys

import keras
import numpy as np
import pytest

from kerasmodels.data import write_image
from kerasmodels.errors import UsageError
from kerasmodels.models import super_resolution
from kerasmodels.models.super_resolution import SuperResolution
from kerasmodels.ops import imresize
from tests.cases import photo, write_vgg16


@pytest.mark.parametrize(("scale", "parameters"), [(4, 401_859), (8, 438_915)])
@pytest.mark.parametrize("upsampling", ["transposed", "resize"])
def test_networks_of_the_paper(scale, parameters, upsampling):
    model = SuperResolution(SuperResolution.Config(scale=scale, upsampling=upsampling))
    assert sum(int(np.prod(v.shape)) for v in model.trainable_variables) == parameters
    assert model(np.zeros((1, 288 // scale // 4, 9, 3), "float32")).shape == (1, 288 // 4, 9 * scale, 3)


def test_the_output_reaches_black_and_white():
    model = SuperResolution(SuperResolution.Config(channels=4, blocks=0))
    assert model.network.layers[-1].scale == 150
    made = np.asarray(model(np.full((1, 6, 6, 3), 1e6, "float32")))
    assert made.min() >= -22.5 - 1e-3
    assert made.max() <= 277.5 + 1e-3


def test_residual_begins_as_the_interpolation():
    model = SuperResolution(super_resolution.VARIANTS["pixel"])
    picture = photo(0, 12, 15)[None].astype("float32")
    far = np.abs(np.asarray(model(picture)) - imresize(picture, 4))
    assert 0 < far.max() < 20


def test_losses(tmp_path):
    """pixel: mean squared difference of -1 to 1; feature: mean squared difference of relu2_2, as of 0-255 pictures."""
    from kerasmodels.backbones import VGG16

    truth, guess = (photo(n, 16, 20)[None].astype("float32") for n in (0, 1))
    pixel = SuperResolution(SuperResolution.Config(channels=4, blocks=0, objective="pixel"))
    pixel.compile()
    expected = np.mean(((truth - guess) / 127.5) ** 2)
    np.testing.assert_allclose(pixel.loss(truth, guess), [expected], rtol=1e-5)
    file = write_vgg16(tmp_path / "vgg.npz")
    feature = SuperResolution(SuperResolution.Config(channels=4, blocks=0, vgg=str(file)))
    feature.compile()
    vgg = VGG16(["relu2_2"], weights=file)
    scale = 1 / np.mean(np.ravel(vgg.get_layer("preprocess").scale))
    difference = scale * (np.asarray(vgg(truth)["relu2_2"]) - np.asarray(vgg(guess)["relu2_2"]))
    np.testing.assert_allclose(float(np.mean(feature.loss(truth, guess))), np.mean(difference**2), rtol=1e-4)


def test_it_learns_beyond_the_interpolation(tmp_path):
    keras.utils.set_random_seed(0)
    for number in range(4):
        blocks = np.random.default_rng(number).integers(0, 256, (8, 10, 3)).repeat(5, 0).repeat(5, 1)
        write_image(tmp_path / f"{number}.png", blocks.astype("uint8"))
    config = SuperResolution.Config(
        photos=tmp_path,
        scale=2,
        channels=8,
        blocks=1,
        residual=True,
        objective="pixel",
        size=32,
        blur=(0, 0),
        steps=80,
        learning_rate=3e-3,
    )
    model = super_resolution.FAMILY.build(config)
    batches = super_resolution.FAMILY.batches(config)
    losses = model.fit(batches, steps_per_epoch=40, epochs=2, verbose=0).history["loss"]
    low, high = next(iter(super_resolution.FAMILY.batches(dataclasses.replace(config, seed=9))))
    errors = [float(np.mean((np.asarray(x) - high) ** 2)) for x in (model(low), imresize(low, 2))]
    assert losses[1] < losses[0]
    assert errors[0] < errors[1]


def test_wrong_configs():
    for wrong, match in (
        ({"scale": 3}, "scale"),
        ({"size": 30}, "multiple of scale"),
        ({"blur": (2.0, 1.0)}, "blur"),
        ({"jpeg": (30, 99)}, "1 to 95"),
        ({"jpeg": (0, 50)}, "jpeg"),
        ({"final_learning_rate": 1.0}, "final_learning_rate"),
    ):
        with pytest.raises(UsageError, match=match):
            SuperResolution.Config(**wrong)
    with pytest.raises(UsageError, match="--photos"):
        super_resolution.FAMILY.batches(SuperResolution.Config())


MEMORY = """
import resource, sys
import numpy as np
from PIL import Image
from kerasmodels import registry
from kerasmodels.models.super_resolution import SuperResolution
from kerasmodels.tasks.upscale import Strips, upscale
from kerasmodels.data.png import PngWriter
model = SuperResolution()
upscale(model, np.zeros((8, 8, 3), "uint8"))
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
picture = np.random.default_rng(0).integers(0, 256, (750, 1000, 3)).astype("uint8")
strips = Strips(model, picture, None, 384)
with open(sys.argv[1], "wb") as file:
    writer = PngWriter(file, *strips.shape, np.uint8)
    for strip in strips:
        writer.write(strip)
    writer.close()
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 2**20)
"""


@pytest.mark.slow
def test_a_photo_of_12_megapixels_within_a_gigabyte(tmp_path):
    """4000 x 3000 pixels by the paper's network: memory above that of a process that has enlarged a small picture."""
    command = [sys.executable, "-c", MEMORY, str(tmp_path / "large.png")]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=1800)
    assert 0 < float(done.stdout.split()[-1]) < 1
