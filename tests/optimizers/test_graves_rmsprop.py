"""Graves' RMSProp is the formula of his paper."""

import keras
import numpy as np

from kerasmodels.optimizers import GravesRMSprop


def test_it_is_the_paper_s_formula():
    random = np.random.default_rng(0)
    variable = keras.Variable(random.normal(size=5))
    optimizer = GravesRMSprop(1e-2, clipvalue=1.5)
    weights, square, mean, step = np.array(variable, "float64"), np.zeros(5), np.zeros(5), np.zeros(5)
    for _ in range(50):
        gradient = random.normal(size=5).astype("float32")
        optimizer.apply([keras.ops.convert_to_tensor(gradient)], [variable])
        gradient = np.clip(gradient, -1.5, 1.5)
        square = 0.95 * square + 0.05 * gradient**2
        mean = 0.95 * mean + 0.05 * gradient
        step = 0.9 * step - 1e-2 * gradient / np.sqrt(square - mean**2 + 1e-4)
        weights = weights + step
    np.testing.assert_allclose(variable, weights, atol=1e-5)


def test_it_survives_its_config():
    optimizer = GravesRMSprop(3e-5, momentum=0.8, clipvalue=10.0)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert type(again) is GravesRMSprop
    assert again.get_config() == optimizer.get_config()
