"""Every first-order rule of the book against NumPy, for 100 steps; averaging; strategies around `fit`."""

from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import pytest

from kerasmodels.errors import UsageError
from kerasmodels.optimizers import (
    BOOK,
    Continuation,
    Curriculum,
    HandOver,
    NesterovRMSprop,
    PolyakAveraging,
    pretrain_layers,
)

Rule = Callable[[float], Iterator[np.ndarray]]
"""rate -> the places of 100 steps; gradients are taken by `gradient`."""
START = np.array([1.5, -2.0, 0.7])


def gradient(x: np.ndarray) -> np.ndarray:
    """Of 1/2 sum c x^2 + cos(3 x): neither convex nor of one scale."""
    return np.array([1.0, 10.0, 0.1]) * x - 3 * np.sin(3 * x)


def sgd(rate: float) -> Iterator[np.ndarray]:
    x = START
    while True:
        yield (x := x - rate * gradient(x))


def sgd_with_a_falling_rate(rate: float) -> Iterator[np.ndarray]:
    x = START
    for k in range(100):
        a = min(1, k / 50)
        yield (x := x - ((1 - a) * rate + a * 0.01 * rate) * gradient(x))


def momentum(rate: float) -> Iterator[np.ndarray]:
    x, v = START, np.zeros(3)
    while True:
        v = 0.9 * v - rate * gradient(x)
        yield (x := x + v)


def nesterov(rate: float) -> Iterator[np.ndarray]:
    """The book's places w; what a model holds is w + 0.9 v."""
    w, v = START, np.zeros(3)
    while True:
        v = 0.9 * v - rate * gradient(w + 0.9 * v)
        w = w + v
        yield w + 0.9 * v


def adagrad(rate: float) -> Iterator[np.ndarray]:
    x, r = START, np.zeros(3)
    while True:
        g = gradient(x)
        r = r + g * g
        yield (x := x - rate / (1e-7 + np.sqrt(r)) * g)


def rmsprop(rate: float) -> Iterator[np.ndarray]:
    x, r = START, np.zeros(3)
    while True:
        g = gradient(x)
        r = 0.9 * r + 0.1 * g * g
        yield (x := x - rate / np.sqrt(1e-6 + r) * g)


def nesterov_rmsprop(rate: float) -> Iterator[np.ndarray]:
    w, v, r = START, np.zeros(3), np.zeros(3)
    while True:
        g = gradient(w + 0.9 * v)
        r = 0.9 * r + 0.1 * g * g
        v = 0.9 * v - rate / np.sqrt(r + 1e-6) * g
        w = w + v
        yield w + 0.9 * v


def adam(rate: float) -> Iterator[np.ndarray]:
    x, s, r = START, np.zeros(3), np.zeros(3)
    for t in range(1, 101):
        g = gradient(x)
        s, r = 0.9 * s + 0.1 * g, 0.999 * r + 0.001 * g * g
        yield (x := x - rate * (s / (1 - 0.9**t)) / (np.sqrt(r / (1 - 0.999**t)) + 1e-8))


RULES: dict[str, tuple[Rule, float]] = {
    "sgd": (sgd, 0.02),
    "momentum": (momentum, 0.01),
    "nesterov": (nesterov, 0.01),
    "adagrad": (adagrad, 0.1),
    "rmsprop": (rmsprop, 0.01),
    "nesterov_rmsprop": (nesterov_rmsprop, 0.003),
    "adam": (adam, 0.01),
}


def trace(optimizer: keras.optimizers.Optimizer, steps: int = 100) -> np.ndarray:
    x = keras.Variable(START, dtype="float64")
    places = []
    for _ in range(steps):
        optimizer.apply([keras.ops.convert_to_tensor(gradient(x.numpy()))], [x])
        places.append(x.numpy())
    return np.array(places)


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    """Optimizers keep their learning rate and their sums in Keras' type; 100 steps of float32 lose six digits."""
    before = keras.config.floatx(), keras.config.dtype_policy()
    keras.config.set_floatx("float64")
    keras.config.set_dtype_policy("float64")
    yield
    keras.config.set_floatx(before[0])
    keras.config.set_dtype_policy(before[1])


@pytest.mark.parametrize("name", BOOK)
def test_every_rule_of_the_book_equals_its_formulas(name: str) -> None:
    rule, rate = RULES[name]
    expected = np.array([place for place, _ in zip(rule(rate), range(100), strict=False)])
    np.testing.assert_allclose(trace(BOOK[name](rate)), expected, rtol=1e-6, atol=1e-6)
    # It moves, so that the comparison means something.
    assert np.abs(expected[-1] - START).max() > 0.3


def test_sgd_whose_rate_falls_as_the_book_says() -> None:
    expected = np.array(list(sgd_with_a_falling_rate(0.02)))
    np.testing.assert_allclose(trace(BOOK["sgd"](0.02, steps=50)), expected, atol=1e-9)


def test_momentum_reaches_the_terminal_velocity() -> None:
    """Under a constant gradient g each step is rate g / (1 - alpha) long in the end."""
    x, optimizer = keras.Variable(0.0, dtype="float64"), BOOK["momentum"](0.01)
    for _ in range(200):
        before = x.numpy()
        optimizer.apply([keras.ops.ones((), "float64")], [x])
    assert before - x.numpy() == pytest.approx(0.01 / (1 - 0.9), rel=1e-6)


def test_adams_first_step_is_the_rate() -> None:
    x = keras.Variable([1.0, 2.0], dtype="float64")
    BOOK["adam"](0.01).apply([keras.ops.array([1e-3, -50.0], "float64")], [x])
    np.testing.assert_allclose(x.numpy(), [0.99, 2.01], atol=1e-6)


def test_nesterov_rmsprop_is_serializable_and_compiles() -> None:
    optimizer = NesterovRMSprop(0.02, rho=0.8, momentum=0.5, epsilon=1e-4)
    again = keras.optimizers.deserialize(keras.optimizers.serialize(optimizer))
    assert again.get_config() == optimizer.get_config()
    np.testing.assert_array_equal(trace(again, 3), trace(optimizer, 3))
    x = np.random.default_rng(0).normal(size=(64, 3))
    model = linear()
    model.compile(NesterovRMSprop(0.01), "mse")
    history = model.fit(x, x.sum(1), epochs=30, verbose=0).history["loss"]
    assert history[-1] < 0.01 * history[0]


def linear() -> keras.Model:
    keras.utils.set_random_seed(0)
    return keras.Sequential([keras.Input((3,)), keras.layers.Dense(1)])


class Weights(keras.callbacks.Callback):
    """The weights after every step."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[list[np.ndarray]] = []

    def on_train_batch_end(self, batch: int, logs: Any = None) -> None:
        self.seen.append(self.model.get_weights())


@pytest.mark.parametrize("start", [0, 5])
def test_polyak_averaging_is_the_mean_of_the_iterates(start: int) -> None:
    random = np.random.default_rng(0)
    x = random.normal(size=(80, 3))
    y = x.sum(1) + random.normal(size=80)
    model, weights, averaging = linear(), Weights(), PolyakAveraging(start)
    model.compile(keras.optimizers.SGD(0.05), "mse")
    model.fit(x, y, batch_size=8, epochs=2, verbose=0, callbacks=[weights, averaging], validation_data=(x, y))
    kept = weights.seen[start:]
    assert len(weights.seen) == 20
    for ours, theirs in zip(model.get_weights(), zip(*kept, strict=True), strict=True):
        np.testing.assert_allclose(ours, np.mean(theirs, 0), rtol=1e-12)
    assert np.abs(model.get_weights()[0] - kept[-1][0]).max() > 1e-4


def test_validation_sees_the_mean_and_training_goes_on_without_it() -> None:
    x = np.random.default_rng(0).normal(size=(16, 3))
    runs = []
    for callbacks in ([], [PolyakAveraging()]):
        model, weights = linear(), Weights()
        model.compile(keras.optimizers.SGD(0.05), "mse")
        model.fit(
            x,
            x.sum(1),
            batch_size=8,
            epochs=3,
            verbose=0,
            callbacks=[weights, *callbacks],
            validation_data=(x, x.sum(1)),
            shuffle=False,
        )
        runs.append((weights.seen, model.history.history["val_loss"]))
    np.testing.assert_array_equal(runs[0][0][-1][0], runs[1][0][-1][0])
    assert runs[0][1] != runs[1][1]
    with pytest.raises(UsageError, match="start"):
        PolyakAveraging(-1)


def test_adam_hands_over_to_lbfgs() -> None:
    x = np.random.default_rng(0).normal(size=(40, 3))
    y = np.tanh(x @ np.array([1.0, -2.0, 0.5]))
    model = keras.Sequential([keras.Input((3,)), keras.layers.Dense(4, "tanh"), keras.layers.Dense(1)])
    model.compile(keras.optimizers.Adam(0.01), "mse")
    then = HandOver((x, y[:, None]), tolerance=1e-6, max_iterations=300)
    adam = model.fit(x, y, epochs=5, verbose=0, callbacks=[then]).history["loss"][-1]
    assert then.result is not None
    assert then.result.value < 0.01 * adam
    assert float(model.evaluate(x, y, verbose=0)) == pytest.approx(then.result.value)


def test_continuation_finds_the_deepest_of_many_wells() -> None:
    """f(w) = w^2 - 8 cos(3 w) has many wells; a Gaussian blur of width s leaves exp(-9 s^2 / 2) of its cosine."""

    class Wells(keras.Model):
        def __init__(self) -> None:
            super().__init__()
            self.w = self.add_weight(shape=(), initializer=keras.initializers.Constant(5.0))
            self.blur = keras.Variable(0.0, trainable=False, dtype="float64")

        def call(self, x: Any) -> Any:
            return x

        def compute_loss(self, *args: Any, **kwargs: Any) -> Any:
            wave = 8 * keras.ops.exp(-4.5 * self.blur**2) * keras.ops.cos(3 * self.w)
            return self.w**2 - wave

    ends = []
    for schedule in (None, lambda epoch: max(0.0, 1.2 - 0.2 * epoch)):
        model = Wells()
        model.compile(keras.optimizers.SGD(0.01))
        callbacks = [] if schedule is None else [Continuation(model.blur, schedule)]
        data = np.zeros((50, 1))
        model.fit(data, data, batch_size=1, epochs=8, verbose=0, callbacks=callbacks)
        ends.append(float(model.w.value))
    assert abs(ends[0]) > 3
    assert abs(ends[1]) < 1e-3


def test_a_curriculum_begins_with_what_is_easy_and_ends_with_all() -> None:
    x = np.random.default_rng(0).permutation(100).astype("float64")[:, None]
    data = Curriculum(x, x, difficulty=x[:, 0], batch=10, epochs=3, share=0.2)
    most = []
    for _ in range(4):
        data.on_epoch_begin()
        seen = np.concatenate([data[i][0] for i in range(len(data))])
        assert len(seen) == 100
        most.append((seen.max(), len(np.unique(seen))))
    assert most == [(19, 20), (59, 60), (99, 100), (99, 100)]
    again = Curriculum(x, x, difficulty=x[:, 0], batch=10, epochs=3, share=0.2)
    np.testing.assert_array_equal(again[0][0], Curriculum(x, x, x[:, 0], 10, 3, 0.2)[0][0])
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mae")
    model.fit(again, epochs=3, verbose=0)
    assert again.epoch == 2
    for bad in ({"share": 0.0}, {"batch": 0}, {"epochs": 0}):
        with pytest.raises(UsageError, match="share in"):
            Curriculum(x, x, x[:, 0], **bad)
    with pytest.raises(UsageError, match="as many"):
        Curriculum(x, x[:5], x[:, 0])


def test_greedy_pretraining_leaves_earlier_layers_as_they_were() -> None:
    keras.utils.set_random_seed(0)
    x = np.random.default_rng(0).normal(size=(32, 3))
    hidden, seen = [keras.layers.Dense(4, "tanh") for _ in range(3)], Weights()
    model = pretrain_layers(
        hidden, lambda: keras.layers.Dense(1), x, x[:, :1], optimizer="sgd", epochs=2, verbose=0, callbacks=[seen]
    )
    first = [weights[0] for weights in seen.seen]
    assert len(first) == 6
    assert np.any(first[0] != first[1])
    # Once the second layer is trained, the first stands still.
    for later in first[2:]:
        np.testing.assert_array_equal(later, first[1])
    assert all(layer.trainable for layer in model.layers)
    before = model.get_weights()[0]
    model.fit(x, x[:, :1], verbose=0)
    assert np.any(model.get_weights()[0] != before)
    with pytest.raises(UsageError, match="at least one layer"):
        pretrain_layers([], lambda: keras.layers.Dense(1), x, x)
