"""Conjugate gradients for alpha, preconditioned by a multigrid that knows what an alpha is.

The matting Laplacian hardly resists maps that are an affine function of the colours, a I + b. So the coarse unknowns
are not values of alpha but four coefficients (1, red, green, blue) for each tile of pixels, then for each 2x2 tiles,
and so on. In the coarse space of plain averages the same iteration takes several times as many steps.

Everything is elementwise arithmetic, slices and pooling of rank 4 at most, of any size, so one graph compiles it and it
leaves the building as it is.
"""

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import tensorflow as tf

from kerasmodels.losses import MattingLaplacian

TILE = 4
"""Side of the finest tiles, pixels."""
LEVELS = 5
"""Grids of tiles, each half the size of the one before."""

# Damping of Jacobi, for pixels and for the tiles' 4x4 blocks. The largest eigenvalues met are 1.9 and 3.1.
_PIXEL_DAMPING, _BLOCK_DAMPING = 0.75, 0.55
_CORRECTION = 1.5
"""Corrections from tiles are too short, as tiles cannot bend: a known weakness of aggregation, and its cure."""
_SWEEPS = 6
"""Of Jacobi on the coarsest tiles, before and after."""

Operator = Callable[[tf.Tensor], tf.Tensor]


class Solution(NamedTuple):
    """What the iteration ended with.

    Args:
        alpha: (N, H, W, 1), not clipped.
        residual: (N,), the norm of the residual as a part of the right-hand side's.
        iterations: scalar int32.
    """

    alpha: tf.Tensor
    residual: tf.Tensor
    iterations: tf.Tensor


def solve_alpha(
    image: tf.Tensor,
    known: tf.Tensor,
    values: tf.Tensor,
    *,
    epsilon: float = 1e-7,
    softness: float | None = None,
    iterations: int = 200,
    tolerance: float | None = 1e-7,
    compiled: bool = False,
) -> Solution:
    """Minimise alpha^T L alpha with alpha known at some pixels.

    Args:
        image: (N, H, W, 3), 0-1; float64, or float32 for half the digits.
        known: (N, H, W, 1), 1 where alpha is known and 0 elsewhere, in the picture's dtype.
        values: (N, H, W, 1), alpha where it is known, 0-1.
        epsilon: see `MattingLaplacian`.
        softness: lambda of the paper: known pixels pay lambda (alpha - value)^2. None holds them exactly.
        iterations: at most, or exactly if there is no tolerance.
        tolerance: stop once the relative residual is at most this, for every picture of the batch.
        compiled: let XLA compile each product, pooling and so on: twice as fast, after some seconds for every new size.

    Raises:
        DataError: see `MattingLaplacian`.
    """
    part = _part(compiled)
    laplacian = _laplacian(image, epsilon, part)
    unknown = 1.0 - known
    values = values * known

    if softness is None:

        def system(x: tf.Tensor) -> tf.Tensor:
            return unknown * laplacian(x)

        right = -unknown * laplacian(values)
        diagonal, start = laplacian.diagonal() * unknown + known, tf.zeros_like(values)
    else:
        penalty = softness * known

        def system(x: tf.Tensor) -> tf.Tensor:
            return laplacian(x) + penalty * x

        right = penalty * values
        diagonal, start = laplacian.diagonal() + penalty, values
    precondition = _multigrid(laplacian, diagonal, image, unknown, known, softness, part)
    x, residual, count = _conjugate_gradients(part(system), precondition, right, start, iterations, tolerance)
    return Solution(x if softness is not None else values + unknown * x, residual, count)


def _part(compiled: bool) -> Callable[[Any], Any]:
    """How to wrap a part of the computation.

    XLA gets the parts, not the whole: of the whole it would compute the Laplacian's products again wherever a shifted
    copy of one is read.
    """
    return partial(tf.function, jit_compile=True, autograph=False) if compiled else lambda call: call


def _laplacian(image: tf.Tensor, epsilon: float, part: Callable[[Any], Any]) -> MattingLaplacian:
    weights = part(lambda image: MattingLaplacian(image, epsilon).weights)(image)
    return MattingLaplacian.of_weights(weights, image)


# --- conjugate gradients ----------------------------------------------------------------------------------------------


def _dot(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    return tf.reduce_sum(a * b, axis=(1, 2, 3), keepdims=True)


def _ratio(a: tf.Tensor, b: tf.Tensor) -> tf.Tensor:
    """a / b, and 0 where a picture is solved and both have become 0."""
    return a / tf.maximum(b, tf.constant(1e-30, b.dtype))


def _conjugate_gradients(
    system: Operator, precondition: Operator, right: tf.Tensor, start: tf.Tensor, iterations: int, tol: float | None
) -> tuple[tf.Tensor, tf.Tensor, tf.Tensor]:
    """x with system(x) = right: x, relative residuals (N,), iterations."""
    scale = tf.sqrt(_dot(right, right))
    residual = right - system(start)
    z = precondition(residual)
    z.set_shape(start.shape)

    def going_on(count: tf.Tensor, x: Any, residual: tf.Tensor, direction: Any, slope: Any) -> tf.Tensor:
        wanted = 0.0 if tol is None else tol
        return tf.reduce_any(tf.sqrt(_dot(residual, residual)) > tf.cast(wanted, scale.dtype) * scale)

    def step(count: Any, x: Any, residual: Any, direction: Any, slope: Any) -> tuple[Any, ...]:
        image = system(direction)
        length = _ratio(slope, _dot(direction, image))
        x = x + length * direction
        shorter = residual - length * image
        z = precondition(shorter)
        z.set_shape(start.shape)
        # Polak and Ribiere's formula forgives a preconditioner that is rounded to float32.
        turn = _ratio(_dot(z, shorter - residual), slope)
        return count + 1, x, shorter, z + turn * direction, _dot(z, shorter)

    count, x, residual, _, _ = tf.while_loop(
        (lambda *state: tf.constant(True)) if tol is None else going_on,
        step,
        (tf.constant(0), start, residual, z, _dot(z, residual)),
        maximum_iterations=iterations,
    )
    relative = _ratio(tf.sqrt(_dot(residual, residual)), scale)
    return x, tf.reshape(relative, [-1]), count


# --- multigrid --------------------------------------------------------------------------------------------------------


def _multigrid(
    laplacian: MattingLaplacian,
    diagonal: tf.Tensor,
    image: tf.Tensor,
    unknown: tf.Tensor,
    known: tf.Tensor,
    softness: float | None,
    part: Callable[[Any], Any],
) -> Operator:
    """residual -> roughly the solution. It computes in float32, which is enough for a direction."""
    laplacian = laplacian.astype("float32")
    image, unknown, known, diagonal = (tf.cast(x, tf.float32) for x in (image, unknown, known, diagonal))
    _, height, width, _ = _sizes(image)
    whole = TILE * 2 ** (LEVELS - 1)
    # (4, N, H, W): what a coefficient means at each pixel.
    basis = tf.transpose(unknown * tf.concat([tf.ones_like(unknown), image - 0.5], axis=-1), (3, 0, 1, 2))

    @part
    def remaining(residual: tf.Tensor, x: tf.Tensor) -> tf.Tensor:
        if softness is None:
            return residual - unknown * laplacian(x)
        return residual - laplacian(x) - softness * known * x

    @part
    def restrict(x: tf.Tensor) -> tf.Tensor:
        return _tile_sums(_filled(basis * tf.reshape(x, _sizes(basis[:1])), whole), TILE)

    @part
    def prolong(coefficients: tf.Tensor) -> tf.Tensor:
        fine = _repeated(coefficients, TILE)[:, :, :height, :width]
        return tf.expand_dims(tf.reduce_sum(basis * fine, axis=0), -1)

    levels = [_TileOperator(part(lambda: _tile_blocks(laplacian, basis, whole))(), part)]
    for _ in range(LEVELS - 1):
        levels.append(levels[-1].coarser())
    weight = _PIXEL_DAMPING / diagonal

    def cycle(residual: tf.Tensor) -> tf.Tensor:
        dtype = residual.dtype
        residual = tf.cast(residual, tf.float32)
        x = weight * residual
        x = x + prolong(_CORRECTION * _cycle(levels, restrict(remaining(residual, x))))
        return tf.cast(x + weight * remaining(residual, x), dtype)

    return cycle


def _cycle(levels: list["_TileOperator"], residual: tf.Tensor) -> tf.Tensor:
    level, *coarser = levels
    x = level.smoothed(residual)
    if coarser:
        x = x + _CORRECTION * _repeated(_cycle(coarser, _tile_sums(residual - level.product(x), 2)), 2)
        return x + level.smoothed(residual - level.product(x))
    for _ in range(_SWEEPS):
        x = x + level.smoothed(residual - level.product(x))
    return x


_AROUND = tuple((y, x) for y in (-1, 0, 1) for x in (-1, 0, 1))
"""Offsets of a tile's neighbours, itself among them."""


def _tile_blocks(laplacian: MattingLaplacian, basis: tf.Tensor, whole: int) -> dict[tuple[int, int], tf.Tensor]:
    """Basis^T L Basis: for each neighbour the 4x4 block of what a tile takes from it, (16, N, h, w), 16 = to, from."""

    def products(here: tf.Tensor, there: tf.Tensor) -> tf.Tensor:
        return tf.concat([here[a : a + 1] * there for a in range(4)], axis=0)

    of_one = _tile_sums(_filled(products(basis * tf.squeeze(laplacian.diagonal(), -1), basis), whole), TILE)
    blocks: dict[tuple[int, int], tf.Tensor] = {}
    for (rows, columns), weight in laplacian.weights.items():
        left, right = max(0, -columns), max(0, columns)
        _, _, height, width = _sizes(basis)
        here = basis[:, :, : height - rows, left : width - right]
        there = basis[:, :, rows:, right : width - left]
        pairs = products(here * -tf.squeeze(weight, -1), there)
        pairs = _filled(tf.pad(pairs, [[0, 0], [0, 0], [0, rows], [left, right]]), whole)
        # Where in a tile a pixel lies decides which tile its partner is in.
        for down, some in ((0, slice(0, TILE - rows)), (1, slice(TILE - rows, TILE))):
            for along, others in (
                (-1, slice(0, left)),
                (0, slice(left, TILE - right)),
                (1, slice(TILE - right, TILE)),
            ):
                if some.stop > some.start and others.stop > others.start:
                    part = _tile_sums(pairs, TILE, some, others)
                    blocks[down, along] = blocks[down, along] + part if (down, along) in blocks else part
    # So far each pair of pixels was seen from its upper end only.
    inner = blocks.pop((0, 0))
    found = {(0, 0): of_one + inner + _transposed(inner)}
    for (down, along), block in blocks.items():
        back = _shifted(_transposed(block), -down, -along)
        for offset, part in (((down, along), block), ((-down, -along), back)):
            found[offset] = found[offset] + part if offset in found else part
    return found


def _transposed(block: tf.Tensor) -> tf.Tensor:
    return tf.concat([block[i::4] for i in range(4)], axis=0)


def _shifted(x: tf.Tensor, down: int, along: int) -> tf.Tensor:
    """(K, N, h, w), each tile having its neighbour's values, and 0 where there is none."""
    _, _, height, width = _sizes(x)
    x = tf.pad(x, [[0, 0], [0, 0], [1, 1], [1, 1]])
    return x[:, :, 1 + down : 1 + down + height, 1 + along : 1 + along + width]


class _TileOperator:
    """A symmetric operator on four coefficients for each tile, which couples neighbours: (4, N, h, w) -> same.

    Args:
        blocks: see `_tile_blocks`.
        part: see `_part`.
    """

    def __init__(self, blocks: dict[tuple[int, int], tf.Tensor], part: Callable[[Any], Any]):
        self._blocks, self._part = blocks, part
        self.product, self.smoothed = part(self._product), part(self._smoothed)
        _, n, height, width = _sizes(blocks[0, 0])
        self._shape = [4, n, height, width]
        # (to, neighbour and from, rows, columns): sums run over a leading axis, which processors like.
        by_row = [tf.concat([blocks[o][4 * a : 4 * a + 4] for o in _AROUND], axis=0) for a in range(4)]
        self._matrix = tf.reshape(tf.concat(by_row, axis=0), [4, 36, n * height, width])
        self._inverse = tf.reshape(_inverse(blocks[0, 0]), [4, 4, n * height, width])

    def _product(self, x: tf.Tensor) -> tf.Tensor:
        """The operator's product with x."""
        _, n, height, width = self._shape
        x = tf.pad(x, [[0, 0], [0, 0], [1, 1], [1, 1]])
        seen = [x[:, :, 1 + y : 1 + y + height, 1 + z : 1 + z + width] for y, z in _AROUND]
        seen = tf.reshape(tf.concat(seen, axis=0), [1, 36, n * height, width])
        return tf.reshape(tf.reduce_sum(self._matrix * seen, axis=1), self._shape)

    def _smoothed(self, residual: tf.Tensor) -> tf.Tensor:
        """One damped step of block Jacobi."""
        _, n, height, width = self._shape
        residual = tf.reshape(residual, [1, 4, n * height, width])
        return tf.reshape(_BLOCK_DAMPING * tf.reduce_sum(self._inverse * residual, axis=1), self._shape)

    def coarser(self) -> "_TileOperator":
        """The same for 2x2 tiles that share their coefficients."""
        merged: dict[tuple[int, int], tf.Tensor] = {}
        for (y, x), block in self._blocks.items():
            for row in (0, 1):
                for column in (0, 1):
                    parent = ((row + y) // 2, (column + x) // 2)
                    part = block[:, :, row::2, column::2]
                    merged[parent] = merged[parent] + part if parent in merged else part
        return _TileOperator(merged, self._part)


def _sizes(x: tf.Tensor) -> list[Any]:
    """The shape, numbers as far as they are known."""
    known, every = x.shape.as_list(), tf.shape(x)
    return [every[i] if size is None else size for i, size in enumerate(known)]


def _filled(x: tf.Tensor, whole: int) -> tf.Tensor:
    """(K, N, H, W) with zeros below and to the right, so that H and W are multiples of `whole`."""
    _, _, height, width = _sizes(x)
    return tf.pad(x, [[0, 0], [0, 0], [0, -height % whole], [0, -width % whole]])


def _tile_sums(x: tf.Tensor, side: int, rows: slice = slice(None), columns: slice = slice(None)) -> tf.Tensor:
    """The sum over some rows and columns of each tile: (K, N, H, W) -> (K, N, H / side, W / side)."""
    k, n, height, width = _sizes(x)
    h, w = height // side, width // side
    x = tf.reduce_sum(tf.reshape(x, [k * n * h, side, width])[:, rows], axis=1)
    x = tf.reduce_sum(tf.reshape(x, [k * n * h, w, side])[:, :, columns], axis=2)
    return tf.reshape(x, [k, n, h, w])


def _repeated(x: tf.Tensor, times: int) -> tf.Tensor:
    """Each tile's values for the `times` x `times` finer ones: (K, N, h, w) -> (K, N, times h, times w)."""
    k, n, h, w = _sizes(x)
    x = tf.tile(tf.reshape(x, [k * n * h, 1, w, 1]), [1, times, 1, times])
    return tf.reshape(x, [k, n, h * times, w * times])


def _inverse(blocks: tf.Tensor) -> tf.Tensor:
    """Inverses of symmetric positive semidefinite blocks (16, N, h, w), a little regularised; by Gauss and Jordan."""
    trace = blocks[0:1] + blocks[5:6] + blocks[10:11] + blocks[15:16]
    # Where nothing is unknown, any inverse does.
    ridge = 1e-6 * trace + tf.cast(trace <= 0, blocks.dtype)
    one, zero = tf.ones_like(trace), tf.zeros_like(trace)
    rows = [
        tf.concat(
            [
                blocks[4 * i : 4 * i + i],
                blocks[5 * i : 5 * i + 1] + ridge,
                blocks[5 * i + 1 : 4 * i + 4],
                *(one if j == i else zero for j in range(4)),
            ],
            axis=0,
        )
        for i in range(4)
    ]
    for k in range(4):
        pivot = rows[k] / rows[k][k : k + 1]
        rows = [pivot if i == k else row - row[k : k + 1] * pivot for i, row in enumerate(rows)]
    return tf.concat([row[4:] for row in rows], axis=0)
