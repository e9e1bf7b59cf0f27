import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.backbones import VGG19
from kerasmodels.losses import AugmentedStyle, GramStyle, masks_at_taps

RANDOM = np.random.default_rng(0)
PHOTO = RANDOM.uniform(0, 255, (1, 26, 38, 3)).astype("float32")
REFERENCE = RANDOM.uniform(0, 255, (30, 22, 3)).astype("float32")
TAPS = ("relu1_1", "relu2_1", "relu3_1", "relu4_1")


@pytest.fixture(scope="module")
def vgg():
    return VGG19(TAPS, weights=None)


@pytest.fixture(scope="module")
def backbone():
    """A small real convolution stack with two taps."""
    keras.utils.set_random_seed(0)
    pictures = keras.Input((None, None, 3))
    x = keras.layers.Rescaling(1 / 127.5, -1)(pictures)
    first = keras.layers.Conv2D(6, 3, activation="softplus", padding="same")(x)
    second = keras.layers.Conv2D(8, 3, activation="softplus", padding="same")(keras.layers.AveragePooling2D(2)(first))
    return keras.Model(pictures, {"a": first, "b": second})


def halves(height, width, classes=3):
    """Slanted stripes of soft edges that sum to 1."""
    y, x = np.mgrid[0:height, 0:width] / max(height, width)
    logits = np.stack([-30 * (x + 0.5 * y - k / classes) ** 2 for k in range(classes)])
    masks = np.exp(logits - logits.max(0))
    return (masks / masks.sum(0)).astype("float32")


# --- masks


@pytest.mark.parametrize("shape", [(26, 38), (33, 47), (64, 64)])
def test_masks_that_sum_to_1_do_so_at_every_layer_at_the_features_size(vgg, shape):
    masks = masks_at_taps(vgg, halves(*shape))
    features = vgg(np.zeros((1, *shape, 3), "float32"))
    for tap in TAPS:
        assert masks[tap].shape[1:] == tuple(features[tap].shape[1:3])
        np.testing.assert_allclose(masks[tap].sum(0), 1, atol=1e-5)
        assert masks[tap].min() >= 0


def test_a_pooling_that_rounds_up_halves_the_masks_likewise():
    pictures = keras.Input((None, None, 3))
    x = keras.layers.Conv2D(2, 3, padding="same")(pictures)
    x = keras.layers.MaxPooling2D(2, 2, padding="same", name="pool")(x)
    net = keras.Model(pictures, {"pool": x})
    masks = masks_at_taps(net, halves(7, 9))["pool"]
    assert masks.shape == (3, 4, 5)
    np.testing.assert_allclose(masks.sum(0), 1, atol=1e-5)


def test_a_convolution_averages_masks_over_its_window(backbone):
    masks = np.zeros((1, 5, 6), "float32")
    masks[0, 2, 3] = masks[0, 0, 0] = 1
    got = masks_at_taps(backbone, masks)["a"][0]
    assert got[2, 3] == pytest.approx(1 / 9)
    assert got[1, 2] == pytest.approx(1 / 9)
    assert got[0, 0] == pytest.approx(1 / 4)  # of the window, four pixels are in the picture
    assert got[1, 1] == pytest.approx(1 / 9)
    assert got[4, 0] == 0


# --- the loss


def test_one_class_gives_the_plain_gram_loss(vgg):
    ones = np.ones((1, 26, 38)), np.ones((1, 30, 22))
    plain = GramStyle(vgg, REFERENCE)
    augmented = AugmentedStyle(vgg, REFERENCE, ones[1], ones[0])
    np.testing.assert_allclose(augmented(PHOTO, PHOTO), plain(PHOTO, PHOTO), rtol=1e-6)


def test_equals_its_definition_in_float64(backbone):
    mine, theirs = halves(26, 38), halves(30, 22)
    loss = float(AugmentedStyle(backbone, REFERENCE, theirs, mine, {"a": 2.0, "b": 3.0})(PHOTO, PHOTO))
    expected = 0.0
    for tap, weight in (("a", 2.0), ("b", 3.0)):
        grams = []
        for picture, masks in ((PHOTO, mine), (REFERENCE[None], theirs)):
            f = np.asarray(backbone(picture)[tap][0], "float64")
            at_tap = masks_at_taps(backbone, masks)[tap].astype("float64")
            grams.append([np.einsum("hwi,hwj,hw->ij", f, f, m**2) / (m.sum() * f.shape[-1]) for m in at_tap])
            shares = [m.mean() for m in masks_at_taps(backbone, mine)[tap]]
        expected += weight * sum(
            share * np.mean((a - b) ** 2) for share, a, b in zip(shares, grams[0], grams[1], strict=True)
        )
    assert loss == pytest.approx(expected, rel=1e-5)


def test_a_picture_of_two_parts_matches_the_reference_with_the_parts_exchanged(backbone):
    """Where things are is told by the masks alone: the same parts in other places cost (almost) nothing."""
    left, right = RANDOM.uniform(0, 255, (2, 1, 24, 24, 3)).astype("float32")
    picture = np.concatenate([left, right], 2)
    reference = np.concatenate([right, left], 2)[0]
    masks = np.zeros((2, 24, 48), "float32")
    masks[0, :, :24] = masks[1, :, 24:] = 1
    matched = float(AugmentedStyle(backbone, reference, masks[::-1], masks)(picture, picture))
    crossed = float(AugmentedStyle(backbone, reference, masks, masks)(picture, picture))
    assert matched < 0.3 * crossed


def test_classes_only_the_reference_has_do_not_count(backbone):
    mine, theirs = halves(26, 38, 2), halves(30, 22, 3)
    padded = np.concatenate([mine, np.zeros((1, 26, 38), "float32")])
    without = AugmentedStyle(backbone, REFERENCE, theirs[:2], mine)(PHOTO, PHOTO)
    np.testing.assert_allclose(AugmentedStyle(backbone, REFERENCE, theirs, padded)(PHOTO, PHOTO), without, rtol=1e-6)


def test_gradient_equals_finite_differences(backbone):
    loss = AugmentedStyle(backbone, REFERENCE, halves(30, 22), halves(26, 38))
    x = tf.Variable(PHOTO)
    with tf.GradientTape() as tape:
        value = loss(PHOTO, x)
    gradient = tape.gradient(value, x).numpy()
    direction = gradient / np.linalg.norm(gradient)
    step = 40.0  # levels, over a thousand pixels: far enough for float32, which a formula of fourth order allows
    ends = [float(loss(PHOTO, PHOTO + place * step * direction)) for place in (-2, -1, 1, 2)]
    slope = (ends[0] - 8 * ends[1] + 8 * ends[2] - ends[3]) / (12 * step)
    assert slope == pytest.approx(np.sum(gradient * direction), rel=1e-4)


@pytest.mark.parametrize(
    ("theirs", "mine", "words"),
    [
        (np.ones((1, 29, 22)), np.ones((1, 26, 38)), "of its size"),
        (np.ones((2, 30, 22)), np.ones((1, 26, 38)), "as many masks"),
        (np.stack([np.ones((30, 22)), np.zeros((30, 22))]), np.full((2, 26, 38), 0.5), "must occur"),
        (np.ones((1, 30, 22)), np.zeros((1, 26, 38)), "must occur"),
        (np.ones((1, 30, 22)), np.full((1, 26, 38), 2.0), "0-1"),
    ],
)
def test_what_does_not_fit(backbone, theirs, mine, words):
    with pytest.raises(ValueError, match=words):
        AugmentedStyle(backbone, REFERENCE, theirs, mine)
