"""The NTM's cell: against NumPy in float64, by what the equations say of special cases, masked, in low precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras import ops

from kerasmodels.errors import UsageError
from kerasmodels.layers import NTMCell, memory

ROWS, COLUMNS = 7, 5


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def softplus(x):
    return np.logaddexp(0, x)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def addressed(rows, key, strength, gate, shifts, power, before):
    """Equations 5 to 9 for one head: rows (N, M)."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(key)
    weights = softmax(strength * (rows @ key) / lengths)
    weights = gate * weights + (1 - gate) * before
    reach = len(shifts) // 2
    turned = [
        sum(
            weights[j] * shifts[(i - j + reach) % len(rows)]
            for j in range(len(rows))
            if (i - j + reach) % len(rows) < len(shifts)
        )
        for i in range(len(rows))
    ]
    sharp = np.array(turned) ** power
    return sharp / sharp.sum()


def stepped(cell, x, states):
    """One step of a cell for one example, in float64, by the paper's equations. Memory is (N, M) here."""
    weights = {v.path.removeprefix(f"{cell.path}/"): np.array(v, "float64") for v in cell.variables}
    rows, reads, before, hidden = states
    x, after = np.concatenate([x, reads.ravel()]), []
    for i in range(len(cell.controller)):
        if cell.lstm:
            h, c = hidden[i]
            z = np.concatenate([x, h]) @ weights[f"lstm{i}/kernel"] + weights[f"lstm{i}/bias"]
            into, forget, out, new = np.split(z, 4)
            c = sigmoid(forget) * c + sigmoid(into) * np.tanh(new)
            x = sigmoid(out) * np.tanh(c)
            after.append((x, c))
        else:
            x = np.tanh(x @ weights[f"dense{i}/kernel"] + weights[f"dense{i}/bias"])
    z = x @ weights["heads/kernel"] + weights["heads/bias"]
    m, shifts = cell.columns, 2 * cell.shift_range + 1 if cell.shift_range else 0
    heads, change = np.split(z, [cell.heads * (m + 3 + shifts)])
    focus = []
    for head, old in zip(heads.reshape(cell.heads, -1), before, strict=True):
        key, (strength, gate, power), turn = np.tanh(head[:m]), head[m : m + 3], head[m + 3 :]
        focus.append(
            addressed(
                rows,
                key,
                softplus(strength),
                sigmoid(gate),
                softmax(turn) if shifts else np.ones(1),
                1 + softplus(power),
                old,
            )
        )
    focus = np.array(focus)
    reads = focus[: cell.read_heads] @ rows
    change = change.reshape(2 * cell.write_heads, m)
    for w, e in zip(focus[cell.read_heads :], sigmoid(change[: cell.write_heads]), strict=True):
        rows = rows * (1 - np.outer(w, e))
    for w, a in zip(focus[cell.read_heads :], np.tanh(change[cell.write_heads :]), strict=True):
        rows = rows + np.outer(w, a)
    return np.concatenate([x, reads.ravel(), focus.ravel()]), (rows, reads, focus, after)


CELLS = {
    "lstm": {},
    "feedforward": {"controller": "feedforward"},
    "many heads": {"read_heads": 3, "write_heads": 2, "shift_range": 2},
    "two layers": {"controller_layers": 2},
    "two dense layers": {"controller": "feedforward", "controller_layers": 2, "shift_range": 3},
    "no shift": {"shift_range": 0},
}


def made(seed=0, **arguments):
    """A recurrent layer with large random weights, so that every part of the cell matters, and inputs for it."""
    keras.utils.set_random_seed(seed)
    cell = NTMCell(6, ROWS, COLUMNS, memory_init="learned", return_weightings=True, **arguments)
    layer = keras.layers.RNN(cell, return_sequences=True)
    x = np.random.default_rng(seed).normal(size=(2, 9, 3)).astype("float32")
    layer(x)
    random = np.random.default_rng(seed + 1)
    for variable in cell.variables:
        variable.assign(random.normal(size=variable.shape) * (3 if "heads" in variable.path else 1))
    return layer, x


@pytest.mark.parametrize("name", CELLS)
def test_cell_is_the_paper_s_equations(name):
    layer, x = made(**CELLS[name])
    cell, found = layer.cell, np.array(layer(x))
    initial = [np.array(state, "float64") for state in cell.get_initial_state(2)]
    for row in range(2):
        first = [state[row] for state in initial]
        hidden = [(first[3 + 2 * i], first[4 + 2 * i]) for i in range((len(first) - 3) // 2)]
        states = (
            first[0].reshape(COLUMNS, ROWS).T,
            first[1].reshape(cell.read_heads, COLUMNS),
            first[2].reshape(cell.heads, ROWS),
            hidden,
        )
        for step in range(x.shape[1]):
            expected, states = stepped(cell, x[row, step].astype("float64"), states)
            # Rounding grows with the steps, as it does in any recurrence; one step is within 1e-6.
            np.testing.assert_allclose(found[row, step], expected, atol=1e-6 * (step + 1), err_msg=f"step {step}")


@pytest.mark.parametrize("reach", [0, 1, 2, 3])
def test_addressing_against_float64(reach):
    random = np.random.default_rng(reach)
    rows, keys = random.normal(size=(3, ROWS, COLUMNS)), random.normal(size=(3, 2, COLUMNS))
    strengths, gates = random.uniform(0, 20, (3, 2)), random.uniform(size=(3, 2))
    shifts, powers = softmax(random.normal(size=(3, 2, 2 * reach + 1))), random.uniform(1, 9, (3, 2))
    before = softmax(2 * random.normal(size=(3, 2, ROWS)))
    expected = [
        [
            addressed(rows[b], keys[b, h], strengths[b, h], gates[b, h], shifts[b, h], powers[b, h], before[b, h])
            for h in range(2)
        ]
        for b in range(3)
    ]
    given = [x.astype("float32") for x in (rows.transpose(0, 2, 1), keys, strengths, gates, shifts, powers, before)]
    columns, keys, strengths, gates, shifts, powers, before = map(ops.convert_to_tensor, given)
    weights = memory.interpolate(memory.content_addressing(columns, keys, strengths), before, gates)
    weights = memory.sharpen(memory.shift(weights, shifts), powers)
    np.testing.assert_allclose(weights, expected, atol=1e-6)
    np.testing.assert_allclose(np.sum(weights, axis=2), 1, atol=1e-6)


@pytest.mark.parametrize("by", [-2, -1, 0, 1, 2])
def test_rotation_of_a_single_row_is_exact(by):
    turn = np.eye(5, dtype="float32")[by + 2].reshape(1, 1, 5)
    for row in range(ROWS):
        one = np.eye(ROWS, dtype="float32")[row].reshape(1, 1, ROWS)
        turned = memory.shift(ops.convert_to_tensor(one), ops.convert_to_tensor(turn))
        np.testing.assert_array_equal(turned[0, 0], np.eye(ROWS)[(row + by) % ROWS])


def test_writing_a_single_row_replaces_it_and_nothing_else():
    random = np.random.default_rng(0)
    before = random.normal(size=(1, COLUMNS, ROWS)).astype("float32")
    added = random.normal(size=(1, 1, COLUMNS)).astype("float32")
    where = np.eye(ROWS, dtype="float32")[3].reshape(1, 1, ROWS)
    after = np.array(memory.write(before, where, np.ones((1, 1, COLUMNS), "float32"), added))
    np.testing.assert_allclose(after[0, :, 3], added[0, 0], atol=1e-6)
    others = np.arange(ROWS) != 3
    np.testing.assert_array_equal(after[0, :, others], before[0, :, others])
    np.testing.assert_allclose(memory.read(after, where)[0, 0], added[0, 0], atol=1e-6)


def test_the_order_of_writing_heads_means_nothing():
    random = np.random.default_rng(0)
    rows, where = random.normal(size=(2, COLUMNS, ROWS)), softmax(random.normal(size=(2, 3, ROWS)))
    erase, add = random.uniform(size=(2, 3, COLUMNS)), random.normal(size=(2, 3, COLUMNS))
    one = memory.write(*map(ops.convert_to_tensor, (rows, where, erase, add)))
    other = memory.write(*map(ops.convert_to_tensor, (rows, where[:, ::-1], erase[:, ::-1], add[:, ::-1])))
    np.testing.assert_allclose(one, other, atol=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_sharpening_is_stable(dtype):
    random = np.random.default_rng(0)
    weights = softmax(4 * random.normal(size=(50, 1, 64)))
    weights[0, 0] = np.eye(64)[5]
    weights[1, 0] = 1 / 64
    powers = np.linspace(1, 50, 50).reshape(50, 1)
    given, exponents = ops.cast(weights, dtype), ops.cast(powers, dtype)
    with tf.GradientTape() as tape:
        tape.watch([given, exponents])
        sharp = memory.sharpen(given, exponents)
        loss = ops.sum(ops.cast(sharp, "float32") ** 2)
    slopes = [np.array(ops.cast(g, "float32")) for g in tape.gradient(loss, [given, exponents])]
    assert sharp.dtype == dtype
    assert all(np.isfinite(slope).all() for slope in slopes)
    exact = np.array(ops.cast(given, "float64"))
    exact = exact ** np.array(ops.cast(exponents, "float64"))[..., np.newaxis]
    exact /= exact.sum(-1, keepdims=True)
    tolerance = {"float16": 1e-3, "bfloat16": 1e-2, "float32": 2e-6}[dtype]
    np.testing.assert_allclose(ops.cast(sharp, "float64"), exact, atol=tolerance)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_memory_of_zeros_or_of_large_numbers_gives_no_nan(dtype):
    for scale in (0.0, 1e-6, 1e4):
        rows = ops.cast(np.full((1, COLUMNS, ROWS), scale), dtype)
        key = ops.cast(np.full((1, 1, COLUMNS), scale), dtype)
        with tf.GradientTape() as tape:
            tape.watch([rows, key])
            weights = memory.content_addressing(rows, key, ops.cast([[50.0]], dtype))
            loss = ops.sum(ops.cast(weights, "float32") ** 2)
        np.testing.assert_allclose(ops.cast(weights, "float32"), 1 / ROWS, rtol=1e-2)
        assert all(np.isfinite(ops.cast(slope, "float32")).all() for slope in tape.gradient(loss, [rows, key]))


@pytest.mark.parametrize("behind", [True, False])
def test_padded_and_masked_is_unpadded(behind):
    layer, x = made(read_heads=2)
    whole = layer(x)
    padding = np.random.default_rng(1).normal(size=(2, 4, 3)).astype("float32")
    parts, there = ([x, padding], [1] * 9 + [0] * 4) if behind else ([padding, x], [0] * 4 + [1] * 9)
    mask = ops.convert_to_tensor(np.array([there, there], bool))
    masked = layer(np.concatenate(parts, axis=1), mask=mask)
    np.testing.assert_allclose(masked[:, :9] if behind else masked[:, 4:], whole, atol=1e-6)


def test_lengths_of_a_batch_may_differ():
    layer, x = made()
    layer.return_sequences = False
    mask = ops.convert_to_tensor(np.arange(9) < np.array([[9], [4]]))
    last = layer(x, mask=mask)
    np.testing.assert_allclose(last[1:], layer(x[1:, :4]), atol=1e-6)
    np.testing.assert_allclose(last[:1], layer(x[:1]), atol=1e-6)


@pytest.mark.parametrize("kind", ["constant", "learned", "random"])
def test_memory_at_first(kind):
    cell = NTMCell(6, ROWS, COLUMNS, memory_init=kind)
    cell.build((None, 3))
    first = np.array(cell.get_initial_state(2)[0])
    assert first.shape == (2, ROWS * COLUMNS)
    np.testing.assert_array_equal(first[0], first[1])
    assert (np.ptp(first) == 0) == (kind == "constant")
    assert np.abs(first).max() <= (1e-6 if kind == "constant" else (ROWS + COLUMNS) ** -0.5) * 1.001
    trained = any(v.path.endswith("initial_memory") for v in cell.trainable_variables)
    kept = any(v.path.endswith("initial_memory") for v in cell.non_trainable_variables)
    assert (trained, kept) == (kind == "learned", kind == "random")


def test_saved_and_loaded_equal(tmp_path):
    inputs = keras.Input((None, 3))
    cell = NTMCell(6, ROWS, COLUMNS, read_heads=2, write_heads=2, shift_range=2, memory_init="random")
    model = keras.Model(inputs, keras.layers.RNN(cell, return_sequences=True)(inputs))
    x = np.random.default_rng(0).normal(size=(2, 5, 3)).astype("float32")
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(x), model(x))
    assert loaded.layers[1].cell.get_config() == cell.get_config()


def test_outputs_taken_apart():
    layer, x = made(read_heads=2)
    outputs = layer(x)
    hidden, reads, weightings = layer.cell.split_outputs(outputs)
    assert (hidden.shape, reads.shape, weightings.shape) == ((2, 9, 6), (2, 9, 2, COLUMNS), (2, 9, 3, ROWS))
    np.testing.assert_allclose(np.sum(weightings, axis=-1), 1, atol=1e-5)
    assert layer.cell.output_size == outputs.shape[-1]
    plain = NTMCell(6, ROWS, COLUMNS)
    assert plain.split_outputs(ops.zeros((2, 9, 6 + COLUMNS)))[2] is None


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_low_precision_trains(dtype):
    inputs = keras.Input((6, 3))
    cell = NTMCell(6, ROWS, COLUMNS, dtype=dtype)
    y = keras.layers.Dense(2, dtype="float32")(keras.layers.RNN(cell, dtype=dtype)(inputs))
    model = keras.Model(inputs, y)
    model.compile("adam", "mse", jit_compile=False)
    x = np.random.default_rng(0).normal(size=(4, 6, 3)).astype("float32")
    assert np.isfinite(model.fit(x, x[:, -1, :2], epochs=2, verbose=0).history["loss"]).all()
    assert all(np.isfinite(np.array(variable)).all() for variable in model.variables)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"rows": 0}, "rows > 0"),
        ({"units": 2.5}, "units > 0"),
        ({"read_heads": 0}, "read_heads > 0"),
        ({"controller": "gru"}, 'controller "lstm" or "feedforward"'),
        ({"memory_init": "zeros"}, "memory_init"),
        ({"rows": 4, "shift_range": 2}, "shift_range"),
    ],
)
def test_mistakes(change, message):
    with pytest.raises(UsageError, match=message):
        NTMCell(**change)


@pytest.mark.parametrize("count", [2, 9])
def test_shifts_that_cannot_be(count):
    with pytest.raises(UsageError, match="odd number of shifts"):
        memory.shift(ops.ones((1, 1, ROWS)), ops.ones((1, 1, count)))
