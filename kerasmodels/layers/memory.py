"""A memory beside a recurrent network, and heads that read and write it: the Neural Turing Machine's cell.

Graves, Wayne, Danihelka: Neural Turing Machines, 2014, sections 3.1 to 3.3. Shapes: B examples, N rows (locations) of M
columns, H heads. A memory is (B, M, N), its rows innermost: on a CPU that takes less than half the time of (B, N, M).

Where a head looks is computed in float32, whatever comes in: squares of a memory that grows overflow float16, and
powers of small numbers vanish in it.
"""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

from kerasmodels.config import check

__all__ = ["NTMCell", "content_addressing", "interpolate", "read", "sharpen", "shift", "write"]

_SMALLEST = 1e-30
"""Whose logarithm is taken in place of zero's: zeros of a weighting stay zeros, and have no slope."""
_NORM = 1e-12
"""Added to squared lengths: rows of zeros resemble nothing, and their slope is finite."""


def _at_least_float32(x: Any) -> Any:
    return ops.cast(x, "float32") if keras.backend.standardize_dtype(x.dtype) in ("float16", "bfloat16") else x


def content_addressing(memory: Any, keys: Any, strengths: Any) -> Any:
    """Focus on rows that resemble a key: softmax of strength times cosine similarity (equations 5 and 6).

    Args:
        memory: (B, M, N).
        keys: k, (B, H, M).
        strengths: beta, (B, H), at least 0.

    Returns:
        Weightings (B, H, N) that add up to 1; the same for all rows where the memory or the key is zero.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> memory = np.eye(3, dtype="float32")[None]
        >>> weights = km.layers.memory.content_addressing(memory, memory[:, 1:2], np.full((1, 1), 20.0, "float32"))
        >>> [round(float(w), 3) for w in weights[0, 0]]
        [0.0, 1.0, 0.0]
    """
    dtype = memory.dtype
    memory, keys = _at_least_float32(memory), _at_least_float32(keys)
    keys = keys * ops.rsqrt(ops.sum(keys * keys, axis=2, keepdims=True) + _NORM)
    scales = ops.rsqrt(ops.sum(memory * memory, axis=1, keepdims=True) + _NORM)
    similarity = ops.matmul(keys, memory) * scales
    weights = ops.softmax(ops.expand_dims(_at_least_float32(strengths), 2) * similarity, axis=2)
    return ops.cast(weights, dtype)


def interpolate(content: Any, before: Any, gates: Any) -> Any:
    """Between the weightings by content and those of the step before (equation 7).

    Args:
        content, before: (B, H, N).
        gates: g, (B, H), 0-1; 1 for the content's.

    Returns:
        (B, H, N).
    """
    return before + ops.expand_dims(gates, 2) * (content - before)


def shift(weights: Any, shifts: Any) -> Any:
    """Rotate weightings by a distribution over shifts: circular convolution (equation 8).

    Args:
        weights: (B, H, N).
        shifts: s, (B, H, 2 R + 1): probabilities of the shifts -R to R. A shift of 1 takes row i to row i + 1, and the
            last row to the first.

    Returns:
        (B, H, N).

    Raises:
        UsageError: an even number of shifts, or more than there are rows.
    """
    count, rows = shifts.shape[2], weights.shape[2]
    check(count % 2 == 1 and count <= rows, f"an odd number of shifts, at most the {rows} rows", count)
    most, rotated = count // 2, 0.0
    for by in range(-most, most + 1):
        around = ops.concatenate([weights[:, :, -by:], weights[:, :, :-by]], axis=2) if by else weights
        rotated = rotated + shifts[:, :, most + by : most + by + 1] * around
    return rotated


def sharpen(weights: Any, powers: Any) -> Any:
    """Raise weightings to a power and make them add up to 1 again (equation 9); by logarithms, so never NaN.

    Args:
        weights: (B, H, N), at least 0.
        powers: gamma, (B, H), at least 1.

    Returns:
        (B, H, N).
    """
    logarithms = ops.log(ops.maximum(_at_least_float32(weights), _SMALLEST))
    sharp = ops.softmax(ops.expand_dims(_at_least_float32(powers), 2) * logarithms, axis=2)
    return ops.cast(sharp, weights.dtype)


def read(memory: Any, weights: Any) -> Any:
    """Weighted sums of the rows (equation 2): (B, M, N), (B, H, N) -> (B, H, M)."""
    return ops.sum(ops.expand_dims(weights, 2) * ops.expand_dims(memory, 1), axis=3)


def write(memory: Any, weights: Any, erase: Any, add: Any) -> Any:
    """Erase, then add (equations 3 and 4). Of several heads, all erase before one adds: their order means nothing.

    Args:
        memory: (B, M, N).
        weights: (B, H, N).
        erase: e, (B, H, M), 0-1.
        add: a, (B, H, M).

    Returns:
        (B, M, N).
    """
    heads = [
        (ops.expand_dims(weights[:, head], 1), ops.expand_dims(erase[:, head], 2), ops.expand_dims(add[:, head], 2))
        for head in range(weights.shape[1])
    ]
    if len(heads) == 1:  # the same, with one pass less over the memory
        ((where, erased, added),) = heads
        return memory + where * (added - erased * memory)
    for where, erased, _ in heads:
        memory = memory * (1.0 - where * erased)
    for where, _, added in heads:
        memory = memory + where * added
    return memory


@keras.saving.register_keras_serializable("kerasmodels")
class NTMCell(keras.layers.Layer):
    """One step of a Neural Turing Machine, for `keras.layers.RNN`: a controller, and heads on a memory.

    The controller sees the input and what was read a step before. All heads find their places in the memory as it was;
    reading heads read it, and then writing heads change it.

    Args:
        units: of each layer of the controller.
        rows, columns: of the memory, N and M.
        read_heads, write_heads: how many.
        controller: "lstm" or "feedforward".
        controller_layers: how many layers it has.
        shift_range: R; a head may move by -R to R rows in a step.
        memory_init: what the memory holds at first. "constant", 1e-6 everywhere; "learned"; or "random", drawn once,
            uniform within 1 / sqrt(N + M), and kept.
        return_weightings: the output ends with the heads' weightings, those that read first.
        **kwargs: see `keras.layers.Layer`.

    Shapes:
        (B, C) -> (B, units + read_heads M), the controller's output and what was read; with weightings, read_heads N +
        write_heads N more. `split_outputs` takes them apart, for all steps at once.
        States, in order: memory (B, M N), reads (B, read_heads M), weightings (B, heads N), and of an LSTM h and c
        (B, units) of each layer. The initial ones are learned, but for the memory as `memory_init` says.

    Raises:
        UsageError: a size below 1, or more shifts than rows.

    Example:
        >>> import keras, kerasmodels as km
        >>> layer = keras.layers.RNN(km.layers.NTMCell(16, rows=8, columns=4), return_sequences=True)
        >>> tuple(layer(keras.ops.zeros((2, 5, 3))).shape)
        (2, 5, 20)

    Reference:
        Graves et al. 2014; the constant memory, Collier and Beel 2018.
    """

    def __init__(
        self,
        units: int = 100,
        rows: int = 128,
        columns: int = 20,
        *,
        read_heads: int = 1,
        write_heads: int = 1,
        controller: Literal["lstm", "feedforward"] = "lstm",
        controller_layers: int = 1,
        shift_range: int = 1,
        memory_init: Literal["constant", "learned", "random"] = "constant",
        return_weightings: bool = False,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        self._arguments: dict[str, Any] = {
            "units": units,
            "rows": rows,
            "columns": columns,
            "read_heads": read_heads,
            "write_heads": write_heads,
            "controller": controller,
            "controller_layers": controller_layers,
            "shift_range": shift_range,
            "memory_init": memory_init,
            "return_weightings": return_weightings,
        }
        for name in ("units", "rows", "columns", "read_heads", "write_heads", "controller_layers"):
            check(
                isinstance(self._arguments[name], int) and self._arguments[name] > 0,
                f"{name} > 0",
                self._arguments[name],
            )
        check(controller in ("lstm", "feedforward"), 'controller "lstm" or "feedforward"', controller)
        check(
            memory_init in ("constant", "learned", "random"),
            'memory_init "constant", "learned" or "random"',
            memory_init,
        )
        check(
            0 <= 2 * shift_range < rows, f"a shift_range of at least 0, and 2 of it below the {rows} rows", shift_range
        )
        self.units, self.rows, self.columns = units, rows, columns
        self.read_heads, self.write_heads, self.heads = read_heads, write_heads, read_heads + write_heads
        self.lstm, self.shift_range = controller == "lstm", shift_range
        self.memory_init, self.return_weightings = memory_init, return_weightings
        self.controller = [
            # One product for input and state together takes less time, in a loop, than LSTMCell's two.
            keras.layers.Dense(4 * units, bias_initializer=_forget_bias, dtype=self.dtype_policy, name=f"lstm{i}")
            if self.lstm
            else keras.layers.Dense(units, "tanh", dtype=self.dtype_policy, name=f"dense{i}")
            for i in range(controller_layers)
        ]
        self._addressing = self.heads * (columns + 3 + (2 * shift_range + 1 if shift_range else 0))
        self.interface = keras.layers.Dense(
            self._addressing + 2 * write_heads * columns,
            dtype=self.dtype_policy,
            name="heads",
        )

    @property
    def state_size(self) -> list[int]:
        heads = [self.rows * self.columns, self.read_heads * self.columns, self.heads * self.rows]
        return heads + [self.units] * (2 * len(self.controller) if self.lstm else 0)

    @property
    def output_size(self) -> int:
        return self.units + self.read_heads * self.columns + (self.heads * self.rows if self.return_weightings else 0)

    def build(self, input_shape: Any) -> None:
        width = input_shape[-1] + self.read_heads * self.columns
        for layer in self.controller:
            layer.build((None, width + self.units if self.lstm else width))
            width = self.units
        self.interface.build((None, width))
        memory, reads, _, *hidden = self.state_size
        limit = (self.rows + self.columns) ** -0.5
        drawn = keras.initializers.RandomUniform(-limit, limit)
        constant = keras.initializers.Constant(1e-6)
        self.initial_memory = None
        if self.memory_init != "constant":
            trainable = self.memory_init == "learned"
            self.initial_memory = self.add_weight(
                name="initial_memory", shape=(memory,), initializer=drawn, trainable=trainable
            )
        self.initial_reads = self.add_weight(name="initial_reads", shape=(reads,), initializer=drawn)
        self.initial_focus = self.add_weight(
            name="initial_focus", shape=(self.heads, self.rows), initializer=_on_the_first_row
        )
        self.initial_hidden = [
            self.add_weight(name=f"initial_{'hc'[i % 2]}{i // 2}", shape=(size,), initializer=constant)
            for i, size in enumerate(hidden)
        ]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """The states before the first step."""
        if self.initial_memory is None:
            memory = ops.full((self.state_size[0],), 1e-6, self.compute_dtype)
        else:
            memory = self.initial_memory
        focus = ops.reshape(ops.softmax(ops.convert_to_tensor(self.initial_focus), axis=1), (-1,))
        states = [memory, self.initial_reads, focus, *self.initial_hidden]
        states = [ops.expand_dims(ops.cast(ops.convert_to_tensor(state), self.compute_dtype), 0) for state in states]
        return [ops.broadcast_to(state, (batch_size, state.shape[1])) for state in states]

    def call(self, inputs: Any, states: Sequence[Any], training: bool | None = None) -> tuple[Any, list[Any]]:
        memory, reads, before, *hidden = states
        memory = ops.reshape(memory, (-1, self.columns, self.rows))
        before = ops.reshape(before, (-1, self.heads, self.rows))
        output, hidden = self._control(ops.concatenate([inputs, reads], axis=1), hidden)

        interface = self.interface(output)
        addressing = ops.reshape(interface[:, : self._addressing], (-1, self.heads, self._addressing // self.heads))
        keys, numbers = ops.tanh(addressing[:, :, : self.columns]), addressing[:, :, self.columns :]
        content = content_addressing(memory, keys, ops.softplus(numbers[:, :, 0]))
        weights = interpolate(content, before, ops.sigmoid(numbers[:, :, 1]))
        if self.shift_range:
            weights = shift(weights, ops.softmax(numbers[:, :, 3:], axis=2))
        weights = sharpen(weights, 1.0 + ops.softplus(numbers[:, :, 2]))

        reads = ops.reshape(read(memory, weights[:, : self.read_heads]), (-1, self.read_heads * self.columns))
        change = ops.reshape(interface[:, self._addressing :], (-1, 2 * self.write_heads, self.columns))
        erase, add = ops.sigmoid(change[:, : self.write_heads]), ops.tanh(change[:, self.write_heads :])
        memory = write(memory, weights[:, self.read_heads :], erase, add)

        memory = ops.reshape(memory, (-1, self.columns * self.rows))
        weights = ops.reshape(weights, (-1, self.heads * self.rows))
        outputs = [output, reads, weights] if self.return_weightings else [output, reads]
        return ops.concatenate(outputs, axis=1), [memory, reads, weights, *hidden]

    def _control(self, x: Any, hidden: Sequence[Any]) -> tuple[Any, list[Any]]:
        """The controller's output, and its new states."""
        after: list[Any] = []
        for number, layer in enumerate(self.controller):
            if self.lstm:
                h, c = hidden[2 * number : 2 * number + 2]
                gates = layer(ops.concatenate([x, h], axis=1))
                into, forget, out, new = (gates[:, i * self.units : (i + 1) * self.units] for i in range(4))
                c = ops.sigmoid(forget) * c + ops.sigmoid(into) * ops.tanh(new)
                x = ops.sigmoid(out) * ops.tanh(c)
                after += [x, c]
            else:
                x = layer(x)
        return x, after

    def split_outputs(self, outputs: Any) -> tuple[Any, Any, Any | None]:
        """Outputs (..., output_size) -> controller's (..., units), reads (..., read_heads, M), weightings
        (..., heads, N), those of reading heads first; the last is None without `return_weightings`."""
        reads = self.units + self.read_heads * self.columns

        def by_head(start: int, heads: int, width: int) -> Any:
            return ops.stack([outputs[..., start + i * width : start + (i + 1) * width] for i in range(heads)], axis=-2)

        weightings = by_head(reads, self.heads, self.rows) if self.return_weightings else None
        return outputs[..., : self.units], by_head(self.units, self.read_heads, self.columns), weightings

    def compute_output_shape(self, input_shape: Any, states_shape: Any = None) -> Any:
        return (input_shape[0], self.output_size), [(input_shape[0], size) for size in self.state_size]

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), **self._arguments}


def _forget_bias(shape: Sequence[int], dtype: Any = None) -> Any:
    """1 for the gates that forget, which come second of four; else 0."""
    units = shape[0] // 4
    return ops.concatenate([ops.zeros((units,), dtype), ops.ones((units,), dtype), ops.zeros((2 * units,), dtype)])


def _on_the_first_row(shape: Sequence[int], dtype: Any = None) -> Any:
    """Logits of weightings that are on the first row almost alone: with all rows alike, no head would ever tell them
    apart."""
    heads, rows = shape
    return ops.concatenate([ops.full((heads, 1), 10.0, dtype), ops.zeros((heads, rows - 1), dtype)], axis=1)
