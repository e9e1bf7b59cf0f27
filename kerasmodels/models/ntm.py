"""Neural Turing Machine: a network that learns short programs, with a memory it addresses by content and by place.

Graves, Wayne, Danihelka: Neural Turing Machines, 2014; Collier, Beel: Implementing Neural Turing Machines, ICANN 2018
(the constant memory at first).

Reproduced: both controllers, all of the addressing, the five tasks, bits per sequence as the measure, the LSTM that the
paper compares with.

| departure from the paper | why |
|---|---|
| all heads find their places at once, then read, then write | the paper leaves the order open; one product for all |
| the memory begins with 1e-6 everywhere, not learned | Collier and Beel: learns fastest; `memory_init` has the others |
| weightings begin on the first row, learned from there | rows that are all alike can only be told apart by place |
| keys and what is added pass a tanh | Collier and Beel; a memory that stays small |
| the gates of the LSTM have no peepholes | Keras' LSTM; the paper does not say |
| a batch has one or several examples; the paper's recipe is a batch of one | more sequences in the same time |
| numbers of parameters are not the paper's | its text does not give biases and initial states; see docs/ntm.md |
"""

from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, Literal

import keras
import numpy as np
import tensorflow as tf
from keras import layers, ops

from kerasmodels.config import Positive, PositiveInt, TrainingConfig, check
from kerasmodels.data.algorithmic import TASKS, AlgorithmicTask
from kerasmodels.family import Family, Servable, Task, TensorSpec, stream
from kerasmodels.layers.memory import NTMCell
from kerasmodels.metrics.bits import bits_per_sequence
from kerasmodels.optimizers import GravesRMSprop
from kerasmodels.paper_model import PaperModel
from kerasmodels.servables.sequences import sequence_step, sequence_to_sequence
from kerasmodels.tasks.sequences import AnswerOptions, answer_files

__all__ = ["NTM", "Config"]


class Config(TrainingConfig):
    """What to train. The defaults are the paper's, for the task of copying."""

    task: Literal["copy", "repeat_copy", "associative_recall", "ngrams", "priority_sort"] = "copy"
    """What it learns; the examples are made up as they are needed."""
    bits: PositiveInt | None = None
    """Bits of a vector; left out: the paper's, 8 (associative_recall 6, ngrams 1)."""
    largest: tuple[PositiveInt, ...] | None = None
    """The largest examples to train on; left out: the paper's. copy, ngrams and priority_sort: length (20, 200, 20);
    repeat_copy: length and repeats (10 10); associative_recall: items (6)."""

    network: Literal["ntm", "lstm"] = "ntm"
    """lstm: what the paper compares with, a network of LSTM layers without a memory."""
    controller: Literal["lstm", "feedforward"] = "lstm"
    """Of the NTM."""
    units: PositiveInt = 100
    """Of each layer of the controller, or of the LSTM network."""
    layers: PositiveInt = 1
    """Of the controller, or of the LSTM network (the paper's has 3)."""
    heads: PositiveInt = 1
    """That read; and as many that write."""
    rows: PositiveInt = 128
    """Of the memory."""
    columns: PositiveInt = 20
    """Of the memory."""
    shift_range: PositiveInt = 1
    """How many rows a head can move in a step, at most."""
    memory_init: Literal["constant", "learned", "random"] = "constant"
    """What the memory holds at first: 1e-6 everywhere; learned values; or random ones, drawn once."""

    optimizer: Literal["rmsprop", "adam"] = "rmsprop"
    """rmsprop: Graves', centered, with momentum 0.9, each element of a gradient cut at `clip`; adam: the whole
    gradient's length cut at `clip`, and a rate that falls to zero along a half cosine."""
    clip: Positive = 10.0
    """See `optimizer`."""
    xla: bool = True
    """Compile the training step with XLA: two to three times as fast, after ten seconds or more for each length."""
    steps: PositiveInt = 100000
    batch: PositiveInt = 1
    learning_rate: Positive = 1e-4

    def validate(self) -> None:
        """Raise UsageError where fields contradict each other."""
        task = self.made_task()
        check(2 * self.shift_range < self.rows, f"twice the shift_range below the {self.rows} rows", self.shift_range)
        if self.network == "ntm" and task.held(task.largest) > self.rows:
            check(False, f"rows >= {task.held(task.largest)}, the vectors that {self.task} has to keep", self.rows)

    def made_task(self) -> AlgorithmicTask:
        """The generator of examples."""
        return TASKS[self.task](self.bits, self.largest)


_ADAM: dict[str, Any] = {"controller": "feedforward", "optimizer": "adam", "learning_rate": 2e-3, "batch": 4}
VARIANTS = {
    "paper": Config(),
    "repeat_copy": Config(task="repeat_copy", steps=25000, **_ADAM),
    "associative_recall": Config(task="associative_recall", heads=4, units=256, steps=25000, **_ADAM),
    "ngrams": Config(task="ngrams", steps=25000, **_ADAM),
    "priority_sort": Config(task="priority_sort", heads=4, units=256, steps=25000, **_ADAM),
    "lstm": Config(network="lstm", units=256, layers=3, learning_rate=3e-5),
    "quick": Config(bits=4, largest=(5,), rows=16, columns=8, units=50, steps=600, **_ADAM),
}


# --- networks ---------------------------------------------------------------------------------------------------------


def _network(config: Config) -> keras.Model:
    """(N, T, C) -> logits (N, T, K), float32."""
    channels, bits = config.made_task().channels
    x = inputs = keras.Input((None, channels), name="inputs")
    for cell in _cells(config):
        x = layers.RNN(cell, return_sequences=True, name=f"{cell.name}_rnn")(x)
    return keras.Model(inputs, layers.Dense(bits, dtype="float32", name="logits")(x), name="network")


def _cells(config: Config) -> list[keras.Layer]:
    if config.network == "lstm":
        return [layers.LSTMCell(config.units, name=f"lstm{i}") for i in range(config.layers)]
    return [
        NTMCell(
            config.units,
            config.rows,
            config.columns,
            read_heads=config.heads,
            write_heads=config.heads,
            controller=config.controller,
            controller_layers=config.layers,
            shift_range=config.shift_range,
            memory_init=config.memory_init,
            name="ntm",
        )
    ]


# --- model ------------------------------------------------------------------------------------------------------------


@keras.saving.register_keras_serializable("kerasmodels")
class NTM(PaperModel):
    """A Neural Turing Machine, or the LSTM it is compared with, for one of the paper's tasks.

    The loss that `fit` reports is in bits per sequence.

    Args:
        config, dtype: see `PaperModel`.
        network: a network of one's own: (N, T, C) -> logits (N, T, K); such a model has no `step`.

    Shapes:
        (N, T, C) -> logits (N, T, K) of the target bits, float32. `fit` takes (inputs, targets (N, T, K), weights
        (N, T)), as `kerasmodels.data.algorithmic` makes them.

    Example:
        >>> import numpy as np, kerasmodels as km
        >>> model = km.models.NTM(km.models.NTM.Config(units=16, rows=24, columns=8))
        >>> tuple(model(np.zeros((2, 7, 9), "float32")).shape)
        (2, 7, 8)

    Reference:
        Graves et al. 2014.
    """

    Config = Config
    family_name = "ntm"
    one_device = "its step is compiled for each length, one sequence or a few at a time"
    networks = {"network": _network}  # noqa: RUF012

    def loss_terms(self) -> Sequence[str]:
        return ()

    def default_optimizer(self, group: str) -> keras.optimizers.Optimizer:
        if self.config.optimizer == "adam":
            rate = keras.optimizers.schedules.CosineDecay(self.config.learning_rate, self.config.steps)
            return keras.optimizers.Adam(rate, global_clipnorm=self.config.clip)
        return GravesRMSprop(self.config.learning_rate, clipvalue=self.config.clip)

    def compile(self, optimizer: Any = None, loss: Any = None, **kwargs: Any) -> None:
        super().compile(optimizer, loss, **{"jit_compile": self.config.xla, **kwargs})

    def call(self, inputs: Any, training: bool | None = None) -> Any:
        return self.network(inputs, training=training)

    def compute_loss(
        self, x: Any = None, y: Any = None, y_pred: Any = None, sample_weight: Any = None, training: bool = True
    ) -> Any:
        """Bits per sequence, averaged over the batch."""
        return ops.mean(bits_per_sequence(y, y_pred, sample_weight))

    @property
    def cells(self) -> list[Any]:
        """The cells of the recurrent layers, from the input on."""
        return [layer.cell for layer in self.network.layers if isinstance(layer, layers.RNN)]

    def initial_states(self, batch: Any) -> list[Any]:
        """The states of all cells before the first step."""
        return [state for cell in self.cells for state in cell.get_initial_state(batch_size=batch)]

    def step(self, inputs: Any, states: Sequence[Any]) -> tuple[Any, list[Any]]:
        """One step: inputs (N, C) and the states of all cells -> logits (N, K) and new states."""
        x, states = inputs, list(states)
        after: list[Any] = []
        for cell in self.cells:
            count = len(cell.state_size)
            x, new = cell(x, states[:count])
            states, after = states[count:], [*after, *new]
        return self.network.get_layer("logits")(x), after


# --- family -----------------------------------------------------------------------------------------------------------


def _batches(config: Config, start: int) -> tf.data.Dataset:
    """(inputs, targets, weights), drawn from the batch's number and the seed."""
    task = config.made_task()
    (channels, bits), batch = task.channels, config.batch
    shapes = ((batch, None, channels), (batch, None, bits), (batch, None))
    return tf.data.Dataset.from_generator(
        partial(_drawn, task, batch, config.seed, start),
        output_signature=tuple(tf.TensorSpec(shape, tf.float32) for shape in shapes),
    ).prefetch(2)


def _drawn(*arguments: Any) -> Iterator[tuple[np.ndarray, ...]]:
    task, *rest = arguments
    for example in task.batches(*rest):
        yield tuple(example)


def _states(model: NTM) -> list[TensorSpec]:
    """The states of all cells, in the shapes that users see."""
    specs: list[TensorSpec] = []
    layer = 0
    for cell in model.cells:
        shapes: dict[str, tuple[tuple[int, ...], str]] = {}
        if isinstance(cell, NTMCell):
            shapes = {
                "memory": ((cell.columns, cell.rows), "the memory, each of its rows in a column"),
                "reads": ((cell.read_heads, cell.columns), "what each head has read"),
                "weightings": ((cell.heads, cell.rows), "where the heads look: those that read, then those that write"),
            }
        for i in range(len(cell.state_size) - len(shapes)):
            shapes[f"{'hc'[i % 2]}{layer}"] = ((cell.units,), f"{('output', 'cell')[i % 2]} of LSTM layer {layer}")
            layer += i % 2
        specs += [TensorSpec(name, ("batch", *shape), "float32", doc) for name, (shape, doc) in shapes.items()]
    return specs


def _servables(model: NTM) -> dict[str, Servable]:
    task, states = model.config.made_task(), _states(model)
    channels, bits = task.channels
    sizes = [size for cell in model.cells for size in cell.state_size]

    def shaped(given: Sequence[Any]) -> list[Any]:
        return [tf.reshape(state, (-1, *spec.shape[1:])) for state, spec in zip(given, states, strict=True)]

    def step(inputs: Any, given: Sequence[Any]) -> tuple[Any, list[Any]]:
        flat = [tf.reshape(state, (-1, size)) for state, size in zip(given, sizes, strict=True)]
        logits, after = model.step(inputs, flat)
        return tf.sigmoid(logits), shaped(after)

    def example(random: np.random.Generator, batch: int, time: int) -> np.ndarray:
        """An example of the task, begun and cut off."""
        return task.batch(random, batch, task.ranges, max(time, task.frames(task.largest))).inputs[:, :time]

    meaning = f"of {model.config.task}: bits, and the task's marks"
    sequence = ("batch", "time")
    return {
        "answer": sequence_to_sequence(
            model,
            lambda inputs: tf.sigmoid(model(inputs, training=False)),
            inputs=TensorSpec("inputs", (*sequence, channels), "float32", f"vectors {meaning}", extremes=(0, 1)),
            output=TensorSpec("outputs", (*sequence, bits), "float32", "probabilities of the target bits to be 1"),
            example=example,
            time=task.frames(task.largest),
            doc=f"a network that has learned the task {model.config.task}: a whole sequence",
        ),
        "step": sequence_step(
            model,
            step,
            lambda batch: shaped(model.initial_states(batch)),
            inputs=TensorSpec("inputs", ("batch", channels), "float32", f"a vector {meaning}", extremes=(0, 1)),
            output=TensorSpec("outputs", ("batch", bits), "float32", "probabilities of the target bits to be 1"),
            states=states,
            example=example,
            doc=f"a network that has learned the task {model.config.task}: one step, its state handed in and out",
        ),
    }


def _preview(model: NTM) -> dict[str, np.ndarray]:
    """The largest example: what is asked for above, what the model says below, and between them a line."""
    task = model.config.made_task()
    inputs, targets, weights = task.batch(np.random.default_rng(0), 1, [(most, most) for most in task.largest])
    asked = weights[0] > 0
    said = np.asarray(ops.sigmoid(model(inputs, training=False)))[0, asked]
    both = np.concatenate([targets[0, asked].T, np.full((1, int(asked.sum())), 0.5), said.T])
    picture = np.rint(255 * both).astype("uint8").repeat(6, 0).repeat(6, 1)
    return {"answer": np.stack([picture] * 3, axis=2)}


FAMILY = Family(
    name="ntm",
    config=Config,
    variants=VARIANTS,
    model=NTM,
    servables=_servables,
    task=Task(AnswerOptions, answer_files),
    source=stream(_batches),
    preview=_preview,
)
