"""SGD as Caffe does it, against its formula."""

import keras
import numpy as np
import pytest

from kerasmodels.optimizers import LayerwiseSGD


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_equals_the_formula(momentum):
    random = np.random.default_rng(0)
    inputs = keras.Input((3,))
    hidden = keras.layers.Dense(4, name="trunk")(inputs)
    model = keras.Model(inputs, keras.layers.Dense(2, name="head")(hidden))
    optimizer = LayerwiseSGD(0.1, momentum, 0.01, {"bias": 2, "head/": 10})
    optimizer.build(model.trainable_variables)
    paths = [v.path for v in model.trainable_variables]
    factors = [10 ** ("head/" in p) * 2 ** p.endswith("bias") for p in paths]
    assert sorted(factors) == [1, 2, 10, 20]
    expected = [np.asarray(v.value) for v in model.trainable_variables]
    moved = [np.zeros_like(w) for w in expected]
    for _ in range(3):
        gradients = [random.normal(size=w.shape).astype("float32") for w in expected]
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients])
        for i, (path, factor, gradient) in enumerate(zip(paths, factors, gradients, strict=True)):
            decay = 0.0 if path.endswith("bias") else 0.01
            moved[i] = momentum * moved[i] - factor * 0.1 * (gradient + decay * expected[i])
            expected[i] = expected[i] + moved[i]
    for variable, value in zip(model.trainable_variables, expected, strict=True):
        np.testing.assert_allclose(variable.value, value, atol=1e-5)


def test_in_fit_with_a_schedule_and_from_config():
    schedule = keras.optimizers.schedules.PolynomialDecay(0.1, 4, 0.0, power=0.9)
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(1)])
    model.compile(LayerwiseSGD(schedule, 0.9, 5e-4, {"bias": 2}), "mse", jit_compile=False)
    losses = model.fit(np.ones((8, 2)), np.ones((8, 1)), batch_size=2, epochs=1, verbose=0).history["loss"]
    assert np.isfinite(losses).all()
    assert float(model.optimizer.learning_rate) == pytest.approx(0.0, abs=1e-7)
    again = LayerwiseSGD.from_config(model.optimizer.get_config())
    assert (again.decay, again.factors) == (5e-4, {"bias": 2})
