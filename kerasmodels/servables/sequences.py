"""Servables of recurrent networks: whole sequences, and one step whose state is handed in and out."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.family import Servable, TensorSpec

Examples = Callable[[np.random.Generator, int, int], np.ndarray]
"""(random, batch, time) -> inputs (batch, time, C)."""


def sequence_to_sequence(
    network: keras.Model,
    forward: Callable[[Any], Any],
    *,
    inputs: TensorSpec,
    output: TensorSpec,
    example: Examples,
    time: int,
    doc: str,
) -> Servable:
    """A sequence in, a sequence of the same length out: any in SavedModel and ONNX, one length in LiteRT.

    Args:
        network: whose variables `forward` reads.
        forward: (batch, time, C) -> (batch, time, K).
        inputs, output: their specs, of shape ("batch", "time", ...).
        example: makes realistic inputs.
        time: the length in LiteRT.
        doc: one line for the model card.
    """
    return Servable(
        call=lambda **given: {output.name: forward(given[inputs.name])},
        model=network,
        inputs=(inputs,),
        outputs=(output,),
        example=lambda dims, seed: {
            inputs.name: example(np.random.default_rng(seed), dims["batch"], dims.get("time", time))
        },
        dims={"batch": 1, "time": time},
        check_dims=({"batch": 1, "time": 5}, {"batch": 3, "time": 9}),
        doc=doc,
    )


def sequence_step(
    network: keras.Model,
    step: Callable[[Any, Sequence[Any]], tuple[Any, Sequence[Any]]],
    initial: Callable[[Any], Sequence[Any]],
    *,
    inputs: TensorSpec,
    output: TensorSpec,
    states: Sequence[TensorSpec],
    example: Examples,
    doc: str,
) -> Servable:
    """One step, for streams without an end: the states it returns are handed in again with the next input.

    The input `first` is 1 where a sequence begins: what is handed in as states is ignored there (zeros will do), and
    the model's own initial states take their place. Each example of a batch may begin when it likes.

    Args:
        network: whose variables are read.
        step: input (batch, C) and states -> output (batch, K) and new states.
        initial: batch size -> states before the first step.
        inputs, output: specs of shape ("batch", ...).
        states: their specs, of shape ("batch", ...). The new ones are called `new_` and the name.
        example: makes realistic inputs.
        doc: one line for the model card.
    """
    first = TensorSpec("first", ("batch",), "float32", "1 where a sequence begins, else 0", extremes=(0, 1))

    def call(**given: tf.Tensor) -> dict[str, tf.Tensor]:
        x, begins = given[inputs.name], given["first"]
        before = []
        for spec, start in zip(states, initial(tf.shape(x)[0]), strict=True):
            begin = tf.reshape(begins, (-1, *[1] * (len(spec.shape) - 1)))
            before.append(begin * start + (1.0 - begin) * given[spec.name])
        answer, after = step(x, before)
        return {output.name: answer} | {f"new_{spec.name}": new for spec, new in zip(states, after, strict=True)}

    def examples(dims: Mapping[str, int], seed: int) -> dict[str, np.ndarray]:
        """Every second example begins with this step; the others have begun some steps before."""
        random, batch = np.random.default_rng(seed), dims["batch"]
        frames = example(random, batch, 4)
        now = initial(batch)
        for frame in range(3):
            _, now = step(tf.constant(frames[:, frame]), now)
        begins = (np.arange(batch) % 2).astype("float32")
        given = {spec.name: np.asarray(state) for spec, state in zip(states, now, strict=True)}
        return {inputs.name: frames[:, 3], "first": begins, **given}

    news = [
        TensorSpec(f"new_{spec.name}", spec.shape, spec.dtype, f"{spec.doc}, after the step", atol=spec.atol)
        for spec in states
    ]
    return Servable(
        call=call,
        model=network,
        inputs=(inputs, first, *states),
        outputs=(output, *news),
        example=examples,
        dims={"batch": 1},
        check_dims=({"batch": 3},),
        doc=doc,
    )
