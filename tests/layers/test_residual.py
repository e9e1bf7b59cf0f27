import keras
import numpy as np
import pytest

from kerasmodels.layers import ResidualBlock

MAPS = np.random.default_rng(0).normal(size=(2, 12, 14, 6)).astype("float32")


@pytest.mark.parametrize("normalization", ["instance", "batch"])
@pytest.mark.parametrize("padding", ["valid", "reflect", "same"])
def test_shapes(normalization, padding):
    block = ResidualBlock(6, normalization, padding)
    expected = (2, 8, 10, 6) if padding == "valid" else MAPS.shape
    assert tuple(block(MAPS).shape) == expected
    assert block.compute_output_shape(MAPS.shape) == expected
    assert block.compute_output_shape((None, None, None, 6)) == (None, None, None, 6)


def test_is_the_identity_when_its_last_norm_is_zero():
    block = ResidualBlock(6)
    block(MAPS)
    block.norm2.gamma.assign(np.zeros(6))
    np.testing.assert_array_equal(block(MAPS), MAPS[:, 2:-2, 2:-2])


def test_no_activation_after_the_sum():
    assert np.asarray(ResidualBlock(6)(MAPS)).min() < 0


def test_valid_block_is_the_center_of_the_same_block():
    """Away from the border all three paddings are one function (with inference batch statistics)."""
    blocks = {p: ResidualBlock(6, "batch", p) for p in ("valid", "reflect", "same")}
    weights = None
    results = {}
    for padding, block in blocks.items():
        block(MAPS)
        weights = weights or block.get_weights()
        block.set_weights(weights)
        results[padding] = np.asarray(block(MAPS, training=False))
    for padding in ("reflect", "same"):
        np.testing.assert_allclose(results[padding][:, 2:-2, 2:-2], results["valid"], atol=1e-5)


def test_parameters():
    block = ResidualBlock(128)
    block.build((None, None, None, 128))
    assert block.count_params() == 2 * (9 * 128 * 128 + 128 + 2 * 128)


def test_moving_statistics_move_in_training_only():
    block = ResidualBlock(6, "batch")
    block(MAPS)
    before = keras.ops.convert_to_numpy(block.norm1.moving_mean).copy()
    block(MAPS, training=False)
    np.testing.assert_array_equal(keras.ops.convert_to_numpy(block.norm1.moving_mean), before)
    block(MAPS, training=True)
    assert np.abs(keras.ops.convert_to_numpy(block.norm1.moving_mean) - before).max() > 0


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: ResidualBlock(6, "layer"), "normalization"),
        (lambda: ResidualBlock(6, padding="full"), "padding"),
        (lambda: ResidualBlock(5)(MAPS), "expected 5 channels"),
    ],
)
def test_says_what_is_wrong(make, words):
    with pytest.raises(ValueError, match=words):
        make()


def test_its_parts_follow_its_precision():
    block = ResidualBlock(6, dtype=keras.DTypePolicy("mixed_bfloat16"))
    assert block(MAPS).dtype == "bfloat16"
    assert {p.compute_dtype for p in (block.conv1, block.norm1, block.conv2, block.norm2)} == {"bfloat16"}
    assert {v.dtype for v in block.weights} == {"float32"}
