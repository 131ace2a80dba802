"""Several b of one matrix, as broadcasting gives them: columns of a system, eliminated once."""

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.options import Options
from dasksolve.batch.pieces import LANES, PIECE, broadcast, in_threads, piece_size, pieces, plain
from dasksolve.batch.problem import Problem, describe
from dasksolve.batch.running import kernel_for, run
from dasksolve.kernels.language.lanes import PANEL
from dasksolve.status import is_singular

# Vectors of a small matrix from which on a kernel of their own is faster.
ENOUGH = 32
# Structures for which there is one.
SHARED = ("gen", "sym", "her")


def once(a: NDArray[Any], b: NDArray[Any], problem: Problem) -> NDArray[Any]:
    """a without the copies that strides of zero make of a matrix beside several b."""
    batch = b.shape[: -1 if problem.vectors else -2]
    index = [slice(None)] * a.ndim
    for axis in range(-min(a.ndim - 2, len(batch)), 0):
        if a.strides[axis - 2] == 0 and a.shape[axis - 2] == batch[axis]:
            index[axis - 2] = slice(1)
    return a[tuple(index)]


def shares(problem: Problem, options: Options) -> bool:
    """Whether to solve several b together is faster, as measured."""
    n, k, assume_a = problem.n, problem.k, options.assume_a
    if n < 3 * k or assume_a in ("diagonal", "tridiagonal"):  # elimination takes little of it
        return False
    together = math.prod(problem.batch_shape[axis] for axis in problem.shared)
    if assume_a in ("upper triangular", "lower triangular"):
        return n > 8 and together >= LANES
    if n > 8:
        return True
    # Kernels take one matrix a lane, however few there are.
    matrices = math.prod(problem.batch_shape) // together
    matrices = min(matrices, piece_size(n, together * k, problem.dtype.itemsize))
    return matrices >= LANES and together >= 4


def takes_vectors(problem: Problem, options: Options) -> bool:
    """Whether there is a kernel for vectors that share a small matrix, and enough of them."""
    own, axes = _own_axes(problem), len(problem.batch_shape)
    in_sequence = all(i in problem.shared or problem.batch_shape[i] == 1 for i in range(own, axes))
    if problem.k > 1 or problem.n > PANEL or not in_sequence:
        return False
    return options.assume_a in SHARED and math.prod(problem.batch_shape[own:]) >= ENOUGH


def _own_axes(problem: Problem) -> int:
    """Axes of the batch before those along which matrices are shared."""
    return min(problem.shared, default=len(problem.batch_shape))


def solve_vectors(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options, threads: int
) -> tuple[NDArray[Any], NDArray[np.int8], bool]:
    """x and status of what `takes_vectors`, and whether any status is not OK."""
    n, dtype, shape, own = problem.n, problem.dtype, problem.batch_shape, _own_axes(problem)
    x, status = np.empty((*shape, n, 1), dtype), np.empty(shape, np.int8)
    b = broadcast(b[..., None] if problem.vectors else b, shape)
    a = a[(None,) * (len(shape) + 2 - a.ndim)].squeeze(tuple(range(own, len(shape))))
    kernel = kernels.pick_shared(options.assume_a, n, dtype, options.lower)

    def solve_piece(part: tuple[tuple[Any, ...], slice]) -> None:
        index, where = part
        left = plain(a[index[:own]], (-1, n, n), dtype)
        right = plain(b[index], (-1, n, 1), dtype)
        found = x.reshape(-1, n, 1)[where], status.reshape(-1)[where]
        run(kernel, problem, options, left, right, *found)

    in_threads(solve_piece, list(pieces(shape, PIECE // (n * dtype.itemsize))), threads)
    return x[..., 0] if problem.vectors else x, status, bool(np.count_nonzero(status))


def solve_shared(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options, threads: int
) -> NDArray[Any] | None:
    """x where several b share a matrix: they are columns of one system, which is eliminated once.

    None: every one of them is to be asked for its status.
    """
    n, k, shared, dtype = problem.n, problem.k, problem.shared, problem.dtype
    axes = len(problem.batch_shape)
    own = tuple(axis for axis in range(axes) if axis not in shared)
    order = own + shared
    shape = tuple(problem.batch_shape[axis] for axis in order)
    x = np.empty((*problem.batch_shape, n, k), dtype)
    given = broadcast(b[..., None] if problem.vectors else b, problem.batch_shape)
    given, found = (values.transpose(*order, axes, axes + 1) for values in (given, x))
    a = a[(None,) * (axes + 2 - a.ndim)].squeeze(shared)
    together = math.prod(shape[len(own) :])
    matrices = piece_size(n, together * k, dtype.itemsize)
    # They go through the cache several times; to eliminate anew takes a twentieth at most.
    columns = max(PIECE // (8 * n * dtype.itemsize), 8 * n)
    size = matrices * together if together * k <= columns else max(columns // k, 1)
    matrices, width = min(matrices, math.prod(shape[: len(own)])), min(together, size) * k
    one = describe((matrices, n, n), dtype, (matrices, n, width), dtype)
    kernel = kernel_for(one, options)
    doubts: list[bool] = []

    def solve_piece(part: tuple[tuple[Any, ...], slice]) -> None:
        if doubts:
            return
        index, _ = part
        left = a[index[: len(own)]]
        rows = left.ndim - 2  # where they stand to be followed by columns alone
        left = plain(left, (-1, n, n), dtype)
        right = np.moveaxis(given[index], -2, rows)
        y_shape = right.shape
        right = plain(right, (len(left), n, -1), dtype)
        y, status = np.empty(right.shape, dtype), np.empty(len(left), np.int8)
        flawed = run(kernel, one, options, left, right, y, status)
        if flawed and options.on_singular != "nan" and _is_in_doubt(right, y, status):
            doubts.append(True)
        np.moveaxis(found[index], -2, rows)[...] = y.reshape(y_shape)

    in_threads(solve_piece, list(pieces(shape, size)), threads)
    if doubts:
        return None
    return x[..., 0] if problem.vectors else x


def _is_in_doubt(b: NDArray[Any], x: NDArray[Any], status: NDArray[np.int8]) -> bool:
    """Whether some columns are singular ones, though others of their system may be solved.

    Where x overflows, the system is solved again, scaled: a pivot that was tiny may then be zero.
    """
    if is_singular(status).any():
        return True
    solved = np.isfinite(x).all(axis=1)
    lost = ~solved & np.isfinite(b).all(axis=1)
    return bool((lost.any(axis=1) & solved.any(axis=1)).any())
