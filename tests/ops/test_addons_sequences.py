"""Beam search, the chain CRF, lazy Adam, maxout and attention against the real tensorflow-addons 0.23."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from kerasmodels.layers import BahdanauAttention, ChainCRF, LuongAttention, Maxout
from kerasmodels.ops import beam_search
from kerasmodels.optimizers import LazyAdam
from tests.addons import ask

SEARCHES = ((1, 0.0), (3, 0.0), (4, 0.6), (5, 1.0))
"""Width of the beam, length penalty."""
CELLS, BATCH, UNITS, WORDS, LENGTH, END = 25, 2, 6, 11, 9, 3
STEPS = 4

THEIRS = f"""
BATCH, UNITS, WORDS, LENGTH, END = {BATCH}, {UNITS}, {WORDS}, {LENGTH}, {END}

class Cell(tf_keras.layers.Layer):
    def __init__(self, weights):
        super().__init__()
        self.own, self.state_size, self.output_size = weights, UNITS, WORDS
    def get_initial_state(self, inputs=None, batch_size=None, dtype=None):
        return tf.zeros((batch_size, UNITS))
    def call(self, inputs, state):
        state = tf.tanh(inputs + state @ self.own[1])
        return state @ self.own[2] + self.own[3], state

for width, penalty in {SEARCHES!r}:
    @tf.function
    def decode(state, *weights):
        decoder = tfa.seq2seq.BeamSearchDecoder(
            Cell(weights), width, embedding_fn=lambda ids: tf.gather(weights[0], ids), length_penalty_weight=penalty)
        return tfa.seq2seq.dynamic_decode(
            decoder, maximum_iterations=LENGTH,
            decoder_init_kwargs=dict(start_tokens=tf.fill([BATCH], 0), end_token=END,
                                     initial_state=tfa.seq2seq.tile_batch(state, width)))[0].predicted_ids
    found = []
    for cell in range({CELLS}):
        ids = decode(*(tf.constant(given[f"beam/{{name}}"][cell]) for name in ("state", "e", "r", "o", "b")))
        found.append(np.pad(ids.numpy(), [(0, 0), (0, LENGTH - ids.shape[1]), (0, 0)], constant_values=END))
    results[f"beam/{{width}}"] = np.stack(found)

x, tags, lengths, transitions = (tf.constant(given[f"crf/{{name}}"]) for name in ("x", "tags", "lengths", "a"))
with tf.GradientTape() as tape:
    tape.watch([x, transitions])
    likelihood, _ = tfa.text.crf_log_likelihood(x, tags, lengths, transitions)
results["crf/likelihood"] = likelihood
results["crf/dx"], results["crf/da"] = tape.gradient(likelihood, [x, transitions])
results["crf/best"], results["crf/score"] = tfa.text.crf_decode(x, transitions, lengths)

table, dense = tf.Variable(given["adam/table"]), tf.Variable(given["adam/dense"])
optimizer = tfa.optimizers.LazyAdam(0.01)
for step in range({STEPS}):
    with tf.GradientTape() as tape:
        loss = tf.reduce_sum(tf.gather(table, given["adam/rows"][step]) @ dense * given["adam/upstream"][step])
    optimizer.apply_gradients(zip(tape.gradient(loss, [table, dense]), [table, dense]))
    results |= {{f"adam/table{{step}}": table.numpy(), f"adam/dense{{step}}": dense.numpy()}}

results["maxout"] = tfa.layers.Maxout(4)(given["maxout"])

memory, lengths = tf.constant(given["attention/memory"]), tf.constant(given["attention/lengths"])
query = tf.constant(given["attention/query"])
for name, attention in (("bahdanau", tfa.seq2seq.BahdanauAttention(5)), ("luong", tfa.seq2seq.LuongAttention(4))):
    attention.setup_memory(memory, memory_sequence_length=lengths)
    attention([query, tf.zeros_like(memory[:, :, 0])])
    for variable in attention.weights:
        label = {{1: "v", 4: "query", 7: "memory"}}[variable.shape[0] if len(variable.shape) > 1 else 1]
        variable.assign(given[f"attention/{{name}}/{{label}}"])
    attention.setup_memory(memory, memory_sequence_length=lengths)
    results[f"attention/{{name}}"] = attention([query, tf.zeros_like(memory[:, :, 0])])[0]
"""


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """What both libraries are given, and what tensorflow-addons makes of it."""
    random = np.random.default_rng(0)

    def normal(*shape: int) -> np.ndarray:
        return random.normal(0, 1, shape).astype("float32")

    ends = normal(CELLS, WORDS)
    ends[:, END] += random.uniform(0, 3, CELLS).astype("float32")
    given = {
        "beam/state": normal(CELLS, BATCH, UNITS),
        "beam/e": normal(CELLS, WORDS, UNITS),
        "beam/r": normal(CELLS, UNITS, UNITS),
        "beam/o": 2 * normal(CELLS, UNITS, WORDS),
        "beam/b": ends,
        "crf/x": normal(4, 7, 5),
        "crf/tags": random.integers(0, 5, (4, 7), "int32"),
        "crf/lengths": np.array([7, 1, 4, 6], "int32"),
        "crf/a": normal(5, 5),
        "adam/table": normal(30, 4),
        "adam/dense": normal(4, 3),
        "adam/rows": random.integers(0, 30, (STEPS, 12)),
        "adam/upstream": normal(STEPS, 12, 3),
        "maxout": normal(3, 12),
        "attention/query": normal(3, 4),
        "attention/memory": normal(3, 6, 7),
        "attention/lengths": np.array([6, 2, 5], "int32"),
        "attention/bahdanau/query": normal(4, 5),
        "attention/bahdanau/memory": normal(7, 5),
        "attention/bahdanau/v": normal(5),
        "attention/luong/memory": normal(7, 4),
    }
    return given, ask(tmp_path_factory.mktemp("addons"), given, THEIRS)


@pytest.mark.parametrize(("width", "penalty"), SEARCHES)
def test_beam_search_finds_addons_ids(both: Any, width: int, penalty: float) -> None:
    given, theirs = both

    @tf.function
    def search(state: Any, e: Any, r: Any, o: Any, b: Any) -> Any:
        def step(previous: Any, state: Any) -> tuple[Any, Any]:
            state = tf.tanh(tf.gather(e, previous) + state @ r)
            return state @ o + b, state

        start, shared = tf.zeros(BATCH, tf.int32), {"width": width, "length": LENGTH, "end": END}
        whole = beam_search(step, state, start, best=width, length_penalty=penalty, early_stop=False, **shared)
        early = beam_search(step, state, start, length_penalty=penalty, **shared)
        return whole.ids, whole.scores, early.ids, early.scores

    ended = 0
    for cell in range(CELLS):
        whole, scores, early, first = search(*(given[f"beam/{name}"][cell] for name in ("state", "e", "r", "o", "b")))
        np.testing.assert_array_equal(whole, theirs[f"beam/{width}"][cell].transpose(0, 2, 1), err_msg=f"cell {cell}")
        np.testing.assert_array_equal(early[:, 0], whole[:, 0])
        np.testing.assert_allclose(first[:, 0], scores[:, 0], rtol=1e-6)
        assert np.all(np.diff(scores) <= 0)
        ended += int(np.sum(whole[:, :, -1] == END))
    assert 0 < ended < CELLS * BATCH * width


def test_chain_crf(both: Any) -> None:
    given, theirs = both
    x, tags, lengths = (tf.constant(given[f"crf/{name}"]) for name in ("x", "tags", "lengths"))
    crf = ChainCRF(5)
    crf.transitions.assign(given["crf/a"])
    with tf.GradientTape() as tape:
        tape.watch(x)
        likelihood = crf.log_likelihood(x, tags, lengths)
    np.testing.assert_allclose(likelihood, theirs["crf/likelihood"], atol=1e-6, rtol=1e-6)
    dx, da = tape.gradient(likelihood, [x, crf.transitions.value])
    np.testing.assert_allclose(dx, theirs["crf/dx"], atol=1e-6)
    np.testing.assert_allclose(da, theirs["crf/da"], atol=2e-6)
    best, score = crf.viterbi(x, lengths)
    np.testing.assert_allclose(score, theirs["crf/score"], atol=1e-6, rtol=1e-6)
    for mine, other, length in zip(best, theirs["crf/best"], given["crf/lengths"], strict=True):
        np.testing.assert_array_equal(mine[:length], other[:length])
        assert not np.any(mine[length:])


def test_lazy_adam(both: Any) -> None:
    given, theirs = both
    table, dense = (keras.Variable(given[f"adam/{name}"], name=name) for name in ("table", "dense"))
    optimizer = LazyAdam(0.01)
    optimizer.build([table, dense])
    for step in range(STEPS):
        with tf.GradientTape() as tape:
            rows = tf.gather(table.value, given["adam/rows"][step])
            loss = tf.reduce_sum(rows @ dense.value * given["adam/upstream"][step])
        gradients = tape.gradient(loss, [table.value, dense.value])
        assert isinstance(gradients[0], tf.IndexedSlices)
        optimizer.apply(gradients, [table, dense])
        for variable in (table, dense):
            np.testing.assert_allclose(variable.numpy(), theirs[f"adam/{variable.name}{step}"], atol=1e-6)
    untouched = np.setdiff1d(np.arange(30), given["adam/rows"])
    assert len(untouched)
    np.testing.assert_array_equal(table.numpy()[untouched], given["adam/table"][untouched])


def test_maxout(both: Any) -> None:
    given, theirs = both
    # Their groups are features 4 apart, ours are neighbors.
    neighbors = given["maxout"].reshape(3, 3, 4).transpose(0, 2, 1).reshape(3, 12)
    np.testing.assert_array_equal(Maxout(4)(neighbors), theirs["maxout"])


@pytest.mark.parametrize("name", ["bahdanau", "luong"])
def test_attention(both: Any, name: str) -> None:
    given, theirs = both
    query, memory = given["attention/query"], given["attention/memory"]
    counts = np.arange(6) < given["attention/lengths"][:, None]
    attention = BahdanauAttention(5) if name == "bahdanau" else LuongAttention()
    attention(query, memory)
    attention.memory_kernel.assign(given[f"attention/{name}/memory"])
    if name == "bahdanau":
        attention.query_kernel.assign(given["attention/bahdanau/query"])
        attention.vector.assign(given["attention/bahdanau/v"][:, None])
    mean, weights = attention(query, memory, counts=counts)
    np.testing.assert_allclose(weights, theirs[f"attention/{name}"], atol=1e-6)
    np.testing.assert_allclose(mean, np.einsum("ns,nsm->nm", np.asarray(weights), memory), atol=1e-6)
