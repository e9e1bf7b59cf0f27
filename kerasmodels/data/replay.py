"""Replay memory: what an agent has seen and done, each frame kept once."""

import math
import mmap
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from kerasmodels.errors import DataError, UsageError, storage_error

Rows = Mapping[str, Any]
"""The memory's arrays as tensors, by name."""
_KINDS = {"actions": np.int32, "rewards": np.float32, "ends": np.uint8, "weights": np.uint8, "ages": np.int32}
"""Of a row, besides the observation."""


class ReplayMemory:
    """A ring of observations and of what was done on each.

    A row holds an observation, the action taken on it, and what came of that. The next row is the next observation. So
    a transition of Atari costs 7056 bytes, and 14 for the rest. Adding takes the same time however much is kept. The
    arrays are read in place by TensorFlow, through `rows`.

    An episode that ends needs nothing after its last row, since no value follows; one that is cut off by a limit of
    time has its last observation in a row of its own, with weight 0, so that its value counts.

    Args:
        capacity: rows kept.
        shape, dtype: of an observation.
        path: a file to keep the observations in, mapped into memory, instead of memory; it is overwritten.

    Attributes:
        rows: the arrays as tensors, by name.
        count: rows added so far, those that are overwritten included.

    Raises:
        UsageError: there is not so much memory, or room on the disk; it says how much is needed.

    Example:
        >>> import numpy as np
        >>> memory = ReplayMemory(4, (2, 2))
        >>> for number in range(6):
        ...     memory.append(np.full((2, 2), number), number, action=0, reward=0.0, end=False)
        >>> memory.rows["observations"].numpy()[:, 0].tolist(), memory.count
        ([4, 5, 2, 3], 6)
    """

    def __init__(self, capacity: int, shape: tuple[int, ...], dtype: Any = np.uint8, path: Path | None = None):
        width = math.prod(shape)
        check_memory(capacity, width * np.dtype(dtype).itemsize, path)
        self.capacity, self.count = capacity, 0
        self._arrays = {"observations": _allocated((capacity, width), dtype, path)}
        self._arrays |= {name: _allocated((capacity,), kind, None) for name, kind in _KINDS.items()}
        self.rows: Rows = {name: tf.experimental.dlpack.from_dlpack(a.__dlpack__()) for name, a in self._arrays.items()}

    @property
    def bytes_per_transition(self) -> float:
        """Of all arrays, over the capacity."""
        return sum(array.nbytes for array in self._arrays.values()) / self.capacity

    def append(self, observation: np.ndarray, age: int, action: int, reward: float, end: bool, weight: int = 1) -> None:
        """Add a row.

        Args:
            observation: what was seen.
            age: how many rows of this episode came before it.
            action: what was done.
            reward: what that gave.
            end: no value follows.
            weight: 0: only the last observation of an episode that was cut off.
        """
        place = self.count % self.capacity
        row = {"observations": observation.ravel(), "actions": action, "rewards": reward, "ends": end}
        for name, value in {**row, "weights": weight, "ages": age}.items():
            self._arrays[name][place] = value
        self.count += 1

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold: the rows in use, where they lie."""
        used = min(self.count, self.capacity)
        return {name: array[:used] for name, array in self._arrays.items()} | {"count": np.array(self.count)}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `state()` back."""
        self.count = int(state["count"])
        for name, array in self._arrays.items():
            array[: len(state[name])] = state[name]


class ReplaySampler:
    """Draws transitions from the rows of a `ReplayMemory`, within a graph: one gather for all stacks of a batch.

    A stack never reaches back over the beginning of its episode: the first observation takes the missing places.

    Args:
        capacity, shape: of the memory.
        stack: observations in a state.
        steps: of the return before the value is taken (n-step); 1 in the papers.
        discount: of a step, gamma.
        prioritized: rows are drawn in proportion to their last absolute error to the power of 0.6, new ones as the one
            with the largest; weights make up for it by half. Otherwise all alike.

    Reference:
        Mnih et al. 2015; Schaul, Quan, Antonoglou, Silver: Prioritized Experience Replay, ICLR 2016.
    """

    def __init__(
        self,
        capacity: int,
        shape: tuple[int, ...],
        *,
        stack: int = 4,
        steps: int = 1,
        discount: float = 0.99,
        prioritized: bool = False,
    ):
        self.capacity, self.shape, self.stack = capacity, tuple(shape), stack
        self.steps, self.discount, self.prioritized = steps, discount, prioritized
        if prioritized:
            self._errors = tf.Variable(tf.zeros(capacity), trainable=False)
            self._largest = tf.Variable(1.0, trainable=False)
            self._known = tf.Variable(0, trainable=False, dtype=tf.int64)
        # XLA turns stacks while it gathers them: six times as fast as a gather and a transposition.
        self._put_together = tf.function(self._transitions, jit_compile=True, autograph=False)

    def __call__(self, rows: Rows, count: Any, batch: int, seed: Any) -> dict[str, Any]:
        """Draw a batch.

        Args:
            rows: of the memory.
            count: rows added so far.
            batch: how many to draw.
            seed: a `keras.random.SeedGenerator`.

        Returns:
            states, next_states (N, *shape, stack); actions (N,) int32; rewards (N,), the sum over `steps`, discounted;
            discounts (N,), of the next state's value, 0 where none follows; weights (N,) of the errors, 0 where nothing
            was done; places (N,), for `prioritize`.
        """
        numbers = tf.cast(keras.random.uniform((batch,), seed=seed), tf.float64)
        count = tf.cast(count, tf.int64)
        # Where old rows were overwritten, the oldest stacks have lost their beginning.
        low = tf.where(count > self.capacity, count - self.capacity + self.stack - 1, 0)
        high = count - self.steps
        if self.prioritized:
            number, weights = self._by_priority(rows, numbers, count, low, high)
        else:
            number = low + tf.cast(numbers * tf.cast(high - low, tf.float64), tf.int64)
            number, weights = tf.minimum(number, high - 1), tf.ones(batch)
        return self._put_together(rows, number, weights)

    def _by_priority(self, rows: Rows, numbers: Any, count: Any, low: Any, high: Any) -> tuple[Any, Any]:
        new = tf.range(tf.maximum(self._known, count - self.capacity), count) % self.capacity
        self._errors.scatter_nd_update(new[:, None], tf.fill(tf.shape(new), self._largest))
        self._known.assign(count)
        latest = count - 1 - (count - 1 - tf.range(self.capacity, dtype=tf.int64)) % self.capacity
        usable = (latest >= low) & (latest < high) & (rows["weights"] > 0)
        mass = tf.where(usable, tf.cast(self._errors, tf.float64) ** 0.6, 0)
        sums = tf.cumsum(mass)
        place = tf.minimum(tf.searchsorted(sums, numbers * sums[-1], "right"), self.capacity - 1)
        weights = 1 / tf.sqrt(tf.gather(mass, place))
        return tf.gather(latest, place), tf.cast(weights / tf.reduce_max(weights), tf.float32)

    def _transitions(self, rows: Rows, number: Any, weights: Any) -> dict[str, Any]:
        """The transitions that begin with the rows of these numbers."""
        ahead = (number[:, None] + tf.range(self.steps, dtype=tf.int64)) % self.capacity
        ends = tf.gather(rows["ends"], ahead) > 0
        # A step counts if no episode ended before it, and if something was done.
        counts = tf.math.cumprod(tf.cast(~ends, tf.float32), axis=1, exclusive=True)
        counts *= tf.math.cumprod(tf.cast(tf.gather(rows["weights"], ahead), tf.float32), axis=1)
        powers = tf.constant(self.discount ** np.arange(self.steps + 1), tf.float32)
        rewards = tf.reduce_sum(counts * powers[:-1] * tf.gather(rows["rewards"], ahead), axis=1)
        taken = tf.cast(tf.reduce_sum(counts, axis=1), tf.int64)
        over = tf.reduce_any(ends & (counts > 0), axis=1)

        def stack(last: Any) -> Any:
            age = tf.cast(tf.gather(rows["ages"], last % self.capacity), tf.int64)[:, None]
            return last[:, None] - tf.minimum(tf.range(self.stack - 1, -1, -1, dtype=tf.int64), age)

        both = tf.concat([stack(number), stack(number + taken)], axis=1) % self.capacity
        found = tf.reshape(tf.gather(rows["observations"], both), (-1, 2, self.stack, *self.shape))
        found = tf.transpose(found, (1, 0, *range(3, 3 + len(self.shape)), 2))
        place = ahead[:, 0]
        return {
            "states": found[0],
            "next_states": found[1],
            "actions": tf.gather(rows["actions"], place),
            "rewards": rewards,
            "discounts": tf.where(over, 0.0, tf.gather(powers, taken)),
            "weights": weights * tf.cast(tf.gather(rows["weights"], place), tf.float32),
            "places": place,
        }

    def prioritize(self, places: Any, errors: Any) -> None:
        """Remember the errors of the rows that were drawn."""
        if self.prioritized:
            errors = tf.abs(errors) + 1e-6
            self._errors.scatter_nd_update(places[:, None], errors)
            self._largest.assign(tf.maximum(self._largest, tf.reduce_max(errors)))

    def state(self) -> dict[str, np.ndarray]:
        """What a checkpoint must hold."""
        if not self.prioritized:
            return {}
        return {"errors": self._errors.numpy(), "largest": self._largest.numpy(), "known": self._known.numpy()}

    def set_state(self, state: Mapping[str, np.ndarray]) -> None:
        """Put `state()` back."""
        if self.prioritized:
            self._errors.assign(state["errors"])
            self._largest.assign(state["largest"])
            self._known.assign(state["known"])


def check_memory(capacity: int, row: int, path: Path | None) -> None:
    """Raise UsageError if there is no room for so many observations of so many bytes, in memory or on the disk."""
    needed = capacity * (row + 14)
    if path is not None:
        free = shutil.disk_usage(next(p for p in path.absolute().parents if p.exists())).free
    elif Path("/proc/meminfo").exists():
        (line,) = (line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
        free = int(line.split()[1]) * 1024
    else:  # other systems swap
        return
    if needed > free:
        instead = "a disk with more room" if path is not None else "keep them on disk: --replay-file FILE"
        raise UsageError(
            f"expected a replay memory that fits: {capacity:,} observations need {needed / 1e9:.2f} GB, and "
            f"{free / 1e9:.2f} GB are free. Received: replay={capacity}. Use --replay {free // 2 // (row + 14)}, or "
            f"{instead}."
        )


def _allocated(shape: tuple[int, ...], dtype: Any, path: Path | None) -> np.ndarray:
    """Zeros, of which the machine makes pages as they are written to; TensorFlow needs them aligned, as pages are."""
    size = max(int(np.prod(shape)) * np.dtype(dtype).itemsize, 1)
    if path is None:
        return np.frombuffer(mmap.mmap(-1, size), dtype).reshape(shape)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(path, "w+b") as file:
            file.truncate(size)
            return np.frombuffer(mmap.mmap(file.fileno(), size), dtype).reshape(shape)
    except OSError as error:
        raise storage_error(path, error) from error
    except ValueError as error:
        raise DataError(f"{path} cannot be mapped into memory ({error}).") from error
