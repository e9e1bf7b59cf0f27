"""The gated hidden unit of the RNN Encoder-Decoder, as a cell and over sequences."""

from collections.abc import Sequence
from typing import Any, Literal

import keras
from keras import ops

_HOLD = 1e4
"""Added to the update gate's input where a step does not count: its sigmoid is exactly 1, and the state stays."""


class _Orthogonal(keras.initializers.Initializer):
    """(units, k units): k orthogonal matrices side by side."""

    def __call__(self, shape: Any, dtype: Any = None) -> Any:
        units, columns = shape
        made = [keras.initializers.Orthogonal()((units, units), dtype) for _ in range(columns // units)]
        return ops.concatenate(made, axis=1)


@keras.saving.register_keras_serializable("kerasmodels")
class GatedUnit(keras.layers.Layer):
    """The gated hidden unit: a cell with an update gate z and a reset gate r, for `keras.layers.RNN` or by itself.

    z = s(W_z x + U_z h), r = s(W_r x + U_r h), g = tanh(W x + U (r h)), and h' = z h + (1 - z) g. With
    reset="before" and bias="all" it is `keras.layers.GRUCell(reset_after=False)`; with reset="after" the reset gate
    multiplies the product instead, g = tanh(W x + r (U h)), which is `reset_after=True` without its second bias, and
    another function: r (U h) and U (r h) differ wherever r is not the same for all units. GroundHog's gate is 1 - z.

    A decoder's unit also gets a context c, by C_z, C_r and C; the product C c is a part of what the reset gate
    multiplies with reset="after" (the paper's supplement), and is added outside with "before" (GroundHog).

    Args:
        units: length of the state.
        context: length of the context; 0 for none.
        reset: where the reset gate acts.
        bias: of no gate, of the candidate g alone (GroundHog), or of all three.
        stddev: of the normal distribution that the input's matrices are drawn from. Those of the state are orthogonal.

    Shapes:
        as a cell: x (N, D), states [h (N, units)], or [h, c (N, context)], which stays -> h', [h'] or [h', c].

    Raises:
        ValueError: `reset` or `bias` is another word.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> rnn = keras.layers.RNN(km.layers.GatedUnit(5), return_sequences=True)
        >>> tuple(rnn(np.zeros((2, 7, 3), "float32")).shape)
        (2, 7, 5)

    Reference:
        Cho et al. 2014, section 2.3, equations 5-8; supplement A.1.
    """

    def __init__(
        self,
        units: int,
        context: int = 0,
        reset: Literal["before", "after"] = "before",
        bias: Literal["none", "candidate", "all"] = "none",
        stddev: float = 0.01,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        if reset not in ("before", "after") or bias not in ("none", "candidate", "all"):
            raise ValueError(
                "expected reset 'before' or 'after' and bias 'none', 'candidate' or 'all'. "
                f"Received: reset={reset!r}, bias={bias!r}."
            )
        self.units, self.context, self.reset, self.bias_of, self.stddev = units, context, reset, bias, stddev
        self.state_size: Any = [units, context] if context else units
        self.output_size = units

    def build(self, input_shape: Any) -> None:
        width, normal = 3 * self.units, keras.initializers.RandomNormal(0.0, self.stddev)
        self.kernel = self.add_weight(name="kernel", shape=(input_shape[-1], width), initializer=normal)
        # Two matrices, because a part of one would be copied in every step.
        self.gates_kernel = self.add_weight(
            name="gates_kernel", shape=(self.units, 2 * self.units), initializer=_Orthogonal()
        )
        self.candidate_kernel = self.add_weight(
            name="candidate_kernel", shape=(self.units, self.units), initializer=_Orthogonal()
        )
        self.context_kernel = (
            self.add_weight(name="context_kernel", shape=(self.context, width), initializer=normal)
            if self.context
            else None
        )
        size = {"none": 0, "candidate": self.units, "all": width}[self.bias_of]
        self.bias = self.add_weight(name="bias", shape=(size,), initializer="zeros") if size else None

    def project(self, x: Any, counts: Any = None) -> Any:
        """What the input adds to z, r and g: (..., D) -> (..., 3 units). It can be computed for all steps at once.

        Args:
            x: the input.
            counts: (...) bool; where False, the step leaves the state as it was. None: all count.
        """
        projected = ops.matmul(ops.cast(x, self.compute_dtype), ops.cast(self.kernel, self.compute_dtype))
        if self.bias is not None:
            bias = ops.cast(self.bias, self.compute_dtype)
            if self.bias_of == "candidate":
                bias = ops.concatenate([ops.zeros((2 * self.units,), self.compute_dtype), bias])
            projected = projected + bias
        if counts is None:
            return projected
        hold = ops.concatenate([ops.full((self.units,), _HOLD), ops.zeros((2 * self.units,))])
        held = ops.expand_dims(1 - ops.cast(counts, self.compute_dtype), -1)
        return projected + held * ops.cast(hold, self.compute_dtype)

    def project_context(self, context: Any) -> Any:
        """What the context adds: (N, context) -> (N, 3 units)."""
        return ops.matmul(ops.cast(context, self.compute_dtype), ops.cast(self.context_kernel, self.compute_dtype))

    def step(self, projected: Any, state: Any, context: Any = None) -> Any:
        """The next state, of `project(x)`, the state, and `project_context(c)` if there is a context."""
        units, state = self.units, ops.cast(state, self.compute_dtype)
        gates, candidate = projected[:, : 2 * units], projected[:, 2 * units :]
        gates_kernel, candidate_kernel = (
            ops.cast(kernel, self.compute_dtype) for kernel in (self.gates_kernel, self.candidate_kernel)
        )
        gates = gates + ops.matmul(state, gates_kernel)
        inside = 0.0
        if context is not None:
            gates = gates + context[:, : 2 * units]
            inside = context[:, 2 * units :]
        gates = ops.sigmoid(gates)
        update, reset = gates[:, :units], gates[:, units:]
        if self.reset == "before":
            candidate = ops.tanh(candidate + inside + ops.matmul(reset * state, candidate_kernel))
        else:
            candidate = ops.tanh(candidate + reset * (ops.matmul(state, candidate_kernel) + inside))
        return update * state + (1 - update) * candidate

    def call(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        state, *context = states
        projected = self.project_context(context[0]) if self.context else None
        state = self.step(self.project(inputs), state, projected)
        return state, [state, *context]

    def compute_output_shape(self, input_shape: Any, *states: Any) -> Any:
        return (input_shape[0], self.units), [(input_shape[0], self.units)]

    def get_initial_state(self, batch_size: Any = None) -> list[Any]:
        """Zeros."""
        sizes = self.state_size if isinstance(self.state_size, list) else [self.state_size]
        return [ops.zeros((batch_size, size), self.compute_dtype) for size in sizes]

    def get_config(self) -> dict[str, Any]:
        own = {"units": self.units, "context": self.context, "reset": self.reset}
        return {**super().get_config(), **own, "bias": self.bias_of, "stddev": self.stddev}


class Steps(keras.layers.Layer):
    """A function of (input, states) -> (output, states) as a cell for `keras.layers.RNN`; it owns no weights."""

    def __init__(self, step: Any, sizes: Sequence[Any], output: int, **kwargs: Any):
        super().__init__(**kwargs)
        self._step, self.state_size, self.output_size = step, list(sizes), output

    def call(self, inputs: Any, states: Any) -> tuple[Any, list[Any]]:
        return self._step(inputs, states)


@keras.saving.register_keras_serializable("kerasmodels")
class GatedSequence(keras.layers.Layer):
    """A `GatedUnit` over sequences: what does not depend on the state is computed for all steps in one product.

    Args:
        unit: the unit; this layer trains its weights, and gives it its dtype policy.
        backward: from the last step to the first.

    Shapes:
        x (N, T, D), counts (N, T) bool or None, state (N, units) or None for zeros, context (N, context) or None
        -> states (N, T, units), in the order of x. Where a step does not count, the state is the one before.
    """

    def __init__(self, unit: GatedUnit, backward: bool = False, **kwargs: Any):
        super().__init__(**kwargs)
        self.unit, self.backward = unit, backward
        unit.dtype_policy = self.dtype_policy
        sizes = [unit.units, *([3 * unit.units] if unit.context else [])]
        self.rnn = keras.layers.RNN(
            Steps(self._step, sizes, unit.units, dtype=self.dtype_policy),
            return_sequences=True,
            go_backwards=backward,
            dtype=self.dtype_policy,
        )

    def _step(self, projected: Any, states: Any) -> tuple[Any, list[Any]]:
        state = self.unit.step(projected, *states)
        return state, [state, *states[1:]]

    def build(self, x_shape: Any, *others: Any) -> None:
        if not self.unit.built:
            self.unit.build(x_shape)
            self.unit.built = True

    def call(self, x: Any, counts: Any = None, state: Any = None, context: Any = None) -> Any:
        projected = self.unit.project(x, counts)
        if state is None:
            state = ops.zeros((ops.shape(x)[0], self.unit.units), self.compute_dtype)
        states = [state, *([] if context is None else [self.unit.project_context(context)])]
        found = self.rnn(projected, initial_state=states)
        return ops.flip(found, 1) if self.backward else found

    def get_config(self) -> dict[str, Any]:
        unit = keras.saving.serialize_keras_object(self.unit)
        return {**super().get_config(), "unit": unit, "backward": self.backward}

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "GatedSequence":
        return cls(**{**config, "unit": keras.saving.deserialize_keras_object(config["unit"])})
