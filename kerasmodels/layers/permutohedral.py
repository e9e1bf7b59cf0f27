"""Gaussian filtering of scattered values in a few dimensions: a permutohedral lattice of TensorFlow operations."""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

_MIX = tuple(int(number) | 1 for number in np.random.default_rng(2011).integers(-(2**62), 2**62, 16))
"""A vertex is known by the sum, modulo 2^64, of its coordinates times these: whatever the coordinates' range, two
vertices share a number with a chance of about 2^-60, and neighbors are a constant apart."""


class PermutohedralLattice:
    """sum_j exp(-|f_i - f_j|^2 / 2) x_j for all i, approximately, in time proportional to the number of points.

    The points lie in simplices of a lattice; values are spread onto the d + 1 vertices of the simplex around each point
    (splat), blurred by 1/2 1 1/2 along each of the d + 1 axes of the lattice, and read back (slice). Vertices exist
    where points are, as in the authors' code. The structure, which depends on the features only, is computed once;
    splat, blur and slice are then products with sparse matrices, which all cores share.

    Args:
        features: (B, N, d) float32, divided by the standard deviations of the Gaussian. Points of different examples do
            not see each other. No gradient flows into them.

    Attributes:
        points: B N, a scalar tensor.
        vertices: their number, a scalar tensor.

    Example:
        >>> import numpy as np
        >>> features = np.array([[[0.0, 0.0], [0.5, 0.0], [9.0, 9.0]]], "float32")
        >>> lattice = PermutohedralLattice(features)
        >>> impulse = np.array([[1.0], [0.0], [0.0]], "float32")
        >>> [round(float(value), 1) for value in lattice.filter()(impulse)[:, 0]]  # exact: 1, 0.88, 0
        [0.9, 0.7, 0.0]

    Reference:
        Adams, Baek, Davis: Fast High-Dimensional Filtering Using the Permutohedral Lattice, Eurographics 2010;
        Kraehenbuehl, Koltun 2011, section 3.
    """

    def __init__(self, features: Any):
        features = tf.stop_gradient(tf.convert_to_tensor(features, tf.float32))
        batch, number, self.d = tf.shape(features)[0], tf.shape(features)[1], int(features.shape[-1])
        self.points = batch * number
        keys, weights = _simplices(tf.reshape(features, (-1, self.d)), self.d)
        # Another example, another part of the lattice.
        part = tf.repeat(tf.range(tf.cast(batch, tf.int64)) * np.int64(_MIX[self.d]), number)
        unique, corners = tf.unique(tf.reshape(keys + part[:, None], (-1,)))
        self.vertices = tf.size(unique)
        self._corners, self._weights = tf.reshape(corners, (-1, self.d + 1)), weights
        order = tf.argsort(unique)
        ordered = tf.gather(unique, order), order
        self._blurs = [self._blur(unique, ordered, axis) for axis in range(self.d + 1)]

    def _blur(self, keys: tf.Tensor, ordered: tuple[tf.Tensor, tf.Tensor], axis: int) -> "_Matrix":
        """The blur along one axis as a matrix: 1 for a vertex itself, 1/2 for each of its two neighbors, if there."""
        step = _wrapped((self.d + 1) * (_MIX[axis] if axis < self.d else 0) - sum(_MIX[: self.d]))
        here, sought, (values, order) = tf.range(self.vertices), keys + step, ordered
        at = tf.minimum(tf.searchsorted(values, sought), self.vertices - 1)
        up = tf.where(tf.equal(tf.gather(values, at), sought), tf.gather(order, at), self.vertices)
        down = tf.tensor_scatter_nd_update(tf.fill((self.vertices + 1,), self.vertices), up[:, None], here)
        columns = tf.stack([here, up, down[: self.vertices]], axis=1)
        missing = tf.equal(columns, self.vertices)
        factors = tf.constant([1.0, 0.5, 0.5]) * tf.cast(~missing, tf.float32)
        columns = tf.where(missing, here[:, None], columns)
        return _Matrix(columns, factors, self.vertices, self.vertices)

    def norm(self) -> tf.Tensor:
        """K 1, (B N,)."""
        shares = tf.reshape(self._weights, (-1,))
        y = tf.math.unsorted_segment_sum(shares, tf.reshape(self._corners, (-1,)), self.vertices)[:, None]
        for blur in self._blurs:
            y = blur.times(y)
        return tf.reduce_sum(self._weights * tf.gather(y[:, 0], self._corners), axis=1) / (1 + 2.0**-self.d)

    def _placed(self, by: Any) -> "_Matrix":
        weights = self._weights if by is None else self._weights * by[:, None]
        return _Matrix(self._corners, weights, self.points, self.vertices)

    def filter(self, before: Any = None, after: Any = None, weight: float = 1.0) -> Callable[[Any], tf.Tensor]:
        """x -> weight after K (before x), (B N, C) -> (B N, C) float32, differentiable in x.

        before, after: factors (B N,) of each point; None for 1.
        """
        into = self._placed(before)
        out_of = into if after is before else self._placed(after)
        # The second constant is the authors': it makes up for what the three weights of a blur sum to.
        weight = weight / (1 + 2.0**-self.d)

        @tf.custom_gradient
        def product(x: tf.Tensor) -> Any:
            def gradient(dy: tf.Tensor) -> tf.Tensor:
                y = out_of.transposed_times(dy)
                for blur in reversed(self._blurs):  # each is symmetric
                    y = blur.times(y)
                return into.times(weight * y)

            y = into.transposed_times(x)
            for blur in self._blurs:
                y = blur.times(y)
            return out_of.times(weight * y), gradient

        return lambda x: product(tf.convert_to_tensor(x, tf.float32))


def _simplices(features: tf.Tensor, d: int) -> tuple[tf.Tensor, tf.Tensor]:
    """The corners of the simplex around each point: their keys (N, d + 1) int64, and barycentric weights, float32."""
    # --- onto the plane of d + 1 coordinates that sum to 0, scaled so that the blur has variance 1
    i = np.arange(d)
    scale = np.sqrt(2 / 3) * (d + 1) / np.sqrt((i + 1) * (i + 2))
    j = np.arange(d + 1)[:, None]
    onto = scale * np.where(i >= j, 1.0, np.where(i == j - 1, -j, 0.0))
    elevated = tf.unstack(tf.matmul(features, tf.constant(onto.T, tf.float32)), axis=1)

    # --- the nearest vertex of color 0, and the order of the differences to it
    whole = [tf.round(e / (d + 1)) for e in elevated]
    rest = [e - (d + 1) * w for e, w in zip(elevated, whole, strict=True)]
    rank = [tf.zeros_like(whole[0], tf.int32) for _ in range(d + 1)]
    for a in range(d + 1):
        for b in range(a + 1, d + 1):
            less = tf.cast(rest[a] < rest[b], tf.int32)
            rank[a] += less
            rank[b] += 1 - less

    # --- back onto the plane, from which rounding may have led away
    beyond = tf.cast(tf.add_n(whole), tf.int32)
    for a in range(d + 1):
        moved = rank[a] + beyond
        turn = tf.cast(moved < 0, tf.int32) - tf.cast(moved > d, tf.int32)
        rank[a] = moved + (d + 1) * turn
        whole[a] += tf.cast(turn, tf.float32)
        rest[a] -= float(d + 1) * tf.cast(turn, tf.float32)

    # --- barycentric weights, from the differences in order; keys of the corners, each from the one before
    ordered, mixed = [], []
    for q in range(d + 1):
        is_q = [tf.equal(r, q) for r in rank]
        ordered.append(tf.add_n([tf.where(m, x, 0.0) for m, x in zip(is_q, rest, strict=True)]) / (d + 1))
        mixed.append(tf.add_n([tf.where(m, np.int64(c), np.int64(0)) for m, c in zip(is_q[:d], _MIX[:d], strict=True)]))
    weights = [1.0 + ordered[d] - ordered[0]] + [ordered[d - k] - ordered[d - k + 1] for k in range(1, d + 1)]
    key = tf.add_n([tf.cast(w, tf.int64) * _wrapped((d + 1) * c) for w, c in zip(whole[:d], _MIX[:d], strict=True)])
    keys = [key]
    for k in range(1, d + 1):
        key = key + _wrapped(sum(_MIX[:d])) - (d + 1) * mixed[d - k + 1]
        keys.append(key)
    return tf.stack(keys, axis=1), tf.stack(weights, axis=1)


def _wrapped(number: int) -> np.int64:
    """The number modulo 2^64, as int64 has it."""
    return np.int64((number + 2**63) % 2**64 - 2**63)


# --- sparse matrices --------------------------------------------------------------------------------------------------


class _Matrix:
    """A sparse matrix (height, width) with as many values in each row, at `columns` (height, k).

    The compressed form is made once in each graph: a gradient that is computed in another graph than its function can
    be handed the columns and values, but not a compressed matrix, of which TensorFlow knows no zeros.
    """

    def __init__(self, columns: tf.Tensor, values: tf.Tensor, height: tf.Tensor, width: tf.Tensor):
        self._columns, self._values, self._size = columns, values, (height, width)
        self._made: list[tuple[Any, bool, tf.Tensor]] = []

    def times(self, x: tf.Tensor) -> tf.Tensor:
        return _product(self._compressed(False), x)

    def transposed_times(self, x: tf.Tensor) -> tf.Tensor:
        return _product(self._compressed(True), x)

    def _compressed(self, transposed: bool) -> tf.Tensor:
        here = None if tf.executing_eagerly() else tf.compat.v1.get_default_graph()
        for graph, kind, matrix in self._made:
            if graph is here and kind == transposed:
                return matrix
        if transposed:
            made = tf.raw_ops.SparseMatrixTranspose(input=self._compressed(False), conjugate=False, type=tf.float32)
        else:
            height, k = self._size[0], self._columns.shape[1]
            rows = tf.repeat(tf.range(tf.cast(height, tf.int64)), k)
            indices = tf.stack([rows, tf.reshape(tf.cast(self._columns, tf.int64), (-1,))], axis=1)
            shape = tf.cast(tf.stack(self._size), tf.int64)
            values = tf.reshape(self._values, (-1,))
            made = tf.raw_ops.SparseTensorToCSRSparseMatrix(indices=indices, values=values, dense_shape=shape)
        self._made.append((here, transposed, made))
        return made


def _product(matrix: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
    return tf.ensure_shape(tf.raw_ops.SparseMatrixMatMul(a=matrix, b=x), (None, x.shape[1]))
