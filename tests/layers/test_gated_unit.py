"""The gated hidden unit: its equations in float64, what relates it to Keras' GRU, and sequences of unequal lengths."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest

from kerasmodels.layers import (
    BahdanauAttention,
    ChainCRF,
    GatedSequence,
    GatedUnit,
    LowRankDense,
    LuongAttention,
    Maxout,
)

N, T, D, U, C = 3, 6, 4, 5, 7


def _drawn(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0, 0.7, shape).astype("float32")


def _unit(**arguments: Any) -> GatedUnit:
    unit = GatedUnit(U, **arguments)
    unit.build((None, D))
    unit.built = True
    for number, variable in enumerate(unit.weights):
        variable.assign(_drawn(variable.shape, number))
    return unit


def _oracle(unit: GatedUnit, x: np.ndarray, h: np.ndarray, c: np.ndarray | None) -> np.ndarray:
    """Equations 5-8 gate by gate, in float64."""

    def parts(kernel: Any) -> list[np.ndarray]:
        return np.split(np.asarray(kernel.value, "float64"), kernel.shape[-1] // U, axis=-1)

    def sigmoid(a: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-a))

    (w_z, w_r, w), (u_z, u_r), (u,) = map(parts, (unit.kernel, unit.gates_kernel, unit.candidate_kernel))
    c_z, c_r, c_h = (c @ part for part in parts(unit.context_kernel)) if c is not None else (0.0, 0.0, 0.0)
    b_z, b_r, b = {"none": [0.0] * 3, "candidate": [0.0, 0.0, None], "all": [None] * 3}[unit.bias_of]
    if unit.bias is not None:
        given = iter(parts(unit.bias))
        b_z, b_r, b = (next(given) if each is None else each for each in (b_z, b_r, b))
    z, r = sigmoid(x @ w_z + h @ u_z + c_z + b_z), sigmoid(x @ w_r + h @ u_r + c_r + b_r)
    if unit.reset == "before":
        candidate = np.tanh(x @ w + (r * h) @ u + c_h + b)
    else:
        candidate = np.tanh(x @ w + r * (h @ u + c_h) + b)
    return z * h + (1 - z) * candidate


@pytest.mark.parametrize("context", [0, C])
@pytest.mark.parametrize("reset", ["before", "after"])
@pytest.mark.parametrize("bias", ["none", "candidate", "all"])
def test_a_step_is_the_paper_s_equations(context: int, reset: Any, bias: Any) -> None:
    unit = _unit(context=context, reset=reset, bias=bias)
    x, h, c = _drawn((N, D), 20), _drawn((N, U), 21), _drawn((N, C), 22) if context else None
    states = [h] if c is None else [h, c]
    output, after = unit(x, states)
    np.testing.assert_allclose(output, _oracle(unit, x.astype("float64"), h, c), atol=1e-6)
    np.testing.assert_array_equal(after[0], output)
    assert len(after) == len(states)


@pytest.mark.parametrize("reset", ["before", "after"])
def test_what_relates_it_to_keras_gru(reset: Any) -> None:
    """It is GRU(reset_after=False) with reset="before", GRU(reset_after=True) with "after"; and those two differ."""
    unit = _unit(reset=reset, bias="all")
    found = keras.layers.RNN(unit, return_sequences=True)(_drawn((N, T, D), 30))

    def gru(reset_after: bool) -> Any:
        layer = keras.layers.GRU(U, reset_after=reset_after, return_sequences=True)
        layer.build((None, None, D))
        bias = np.asarray(unit.bias.value)
        recurrent = np.concatenate([unit.gates_kernel.value, unit.candidate_kernel.value], axis=1)
        layer.set_weights([unit.kernel.value, recurrent, np.stack([bias, 0 * bias]) if reset_after else bias])
        return layer(_drawn((N, T, D), 30))

    np.testing.assert_allclose(found, gru(reset == "after"), atol=1e-6)
    assert np.abs(found - gru(reset == "before")).max() > 1e-2
    # The two coincide where the reset gate is one number for all units.
    unit.kernel.assign(np.where(np.arange(3 * U) // U == 1, 0, unit.kernel.numpy()))
    unit.gates_kernel.assign(np.where(np.arange(2 * U) // U == 1, 0, unit.gates_kernel.numpy()))
    unit.bias.assign(np.where(np.arange(3 * U) // U == 1, 0.3, unit.bias.numpy()))
    np.testing.assert_allclose(gru(True), gru(False), atol=1e-6)


@pytest.mark.parametrize("backward", [False, True])
def test_sequences_of_unequal_lengths(backward: bool) -> None:
    """Padding changes nothing, to the last bit: each sequence is as if it were alone."""
    unit = _unit(context=C, bias="candidate")
    x, c, lengths = _drawn((N, T, D), 40), _drawn((N, C), 41), (6, 1, 4)
    counts = np.arange(T) < np.array(lengths)[:, None]
    padded = np.asarray(GatedSequence(unit, backward)(x, counts, context=c))
    for row, length in enumerate(lengths):
        alone = GatedSequence(unit, backward)(x[row : row + 1, :length], context=c[row : row + 1])
        np.testing.assert_allclose(padded[row, :length], alone[0], atol=1e-6)
        if not backward:
            np.testing.assert_array_equal(
                padded[row, length:], np.repeat(padded[row, length - 1 : length], T - length, 0)
            )
    steps, state = [], np.zeros((N, U), "float32")
    for t in range(T):
        state, _ = unit(x[:, t], [state, c])
        state = state[0] if isinstance(state, list) else state
        steps.append(state)
    if not backward:
        whole = GatedSequence(unit)(x, context=c)
        np.testing.assert_allclose(whole, np.stack(steps, 1), atol=1e-6)


def test_matrices_of_the_state_are_orthogonal() -> None:
    unit = GatedUnit(U)
    unit.build((None, D))
    for kernel in (unit.gates_kernel.numpy()[:, :U], unit.gates_kernel.numpy()[:, U:], unit.candidate_kernel.numpy()):
        np.testing.assert_allclose(kernel @ kernel.T, np.eye(U), atol=1e-5)
    assert np.any(unit.gates_kernel.numpy()[:, :U] != unit.candidate_kernel.numpy())


def test_mistakes() -> None:
    with pytest.raises(ValueError, match="reset='never'"):
        GatedUnit(3, reset="never")  # type: ignore[arg-type]


def test_low_rank_is_a_product() -> None:
    layer = LowRankDense(9, 2, use_bias=True)
    x = _drawn((2, 3, D), 50)
    layer(x)
    layer.bias.assign(np.arange(9))
    np.testing.assert_allclose(layer(x), x @ (layer.left.numpy() @ layer.right.numpy()) + np.arange(9), atol=1e-6)


def test_saved_and_loaded_equal(tmp_path: Path) -> None:
    """A cell in Keras' own RNN, attention of its last state to all others, a chain of tags, maxout."""
    x = keras.Input((T, D))
    states = keras.layers.RNN(GatedUnit(U, reset="after", bias="candidate"), return_sequences=True)(x)
    mean, _ = BahdanauAttention(4)(states[:, -1], states)
    other, _ = LuongAttention()(states[:, -1], states)
    model = keras.Model(x, [mean, other, ChainCRF(U)(states), Maxout(2)(x)])
    model.save(tmp_path / "model.keras")
    loaded, given = keras.models.load_model(tmp_path / "model.keras"), _drawn((N, T, D), 60)
    for before, after in zip(model.predict(given, verbose=0), loaded.predict(given, verbose=0), strict=True):
        np.testing.assert_array_equal(before, after)
