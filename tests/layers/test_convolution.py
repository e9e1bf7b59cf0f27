"""Keras' convolutions in one and three dimensions are what the signal processing of scipy says, sizes included."""

import keras
import numpy as np
import pytest
from scipy.signal import correlate

CONVOLUTIONS = {1: keras.layers.Conv1D, 3: keras.layers.Conv3D}


@pytest.mark.parametrize("padding", ["valid", "same"])
@pytest.mark.parametrize(("rank", "side"), [(1, 40), (3, 9)])
def test_equals_scipy(rank, side, padding):
    random = np.random.default_rng(rank)
    x = random.normal(size=(1, *(side,) * rank, 3)).astype("float32")
    layer = CONVOLUTIONS[rank](4, 5, padding=padding)
    layer.build(x.shape)
    kernel, bias = (np.asarray(w, "float64") for w in layer.get_weights())
    bias = random.normal(size=bias.shape)  # a new layer's is zero
    layer.set_weights([kernel, bias])
    y = np.asarray(layer(x))[0]
    for filter_ in range(4):
        channels = (correlate(x[0, ..., c].astype("float64"), kernel[..., c, filter_], padding) for c in range(3))
        np.testing.assert_allclose(y[..., filter_], sum(channels) + bias[filter_], atol=1e-5)


@pytest.mark.parametrize("rank", CONVOLUTIONS)
def test_size_arithmetic(rank):
    """14 with 5 gives 10, with 5 again 6: the example of the course, in 1-D (14 x 1) and in 3-D (14 x 14 x 14 x 1)."""
    x = keras.Input((*(14,) * rank, 1))
    once = CONVOLUTIONS[rank](16, 5)(x)
    twice = CONVOLUTIONS[rank](32, 5)(once)
    assert once.shape[1:] == (*(10,) * rank, 16)
    assert twice.shape[1:] == (*(6,) * rank, 32)
