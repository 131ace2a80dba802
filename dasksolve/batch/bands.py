"""Solving tridiagonal systems held as NumPy arrays of their diagonals."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch import pieces, settling
from dasksolve.batch.arrays import as_array
from dasksolve.batch.options import Options
from dasksolve.batch.problem import Problem, describe_bands
from dasksolve.kernels.scaling import solve_lost
from dasksolve.status import is_singular


def solve(
    lower: Any, diagonal: Any, upper: Any, b: Any, options: Options, workers: int = 1
) -> NDArray[Any]:
    """Solve a batch held in memory; `dasksolve.solve_tridiagonal` documents it."""
    threads = pieces.thread_count(workers)
    named = {"lower": lower, "diagonal": diagonal, "upper": upper}
    bands = [as_array(name, values) for name, values in named.items()]
    b = as_array("b", b)
    problem = describe_bands(*((v.shape, v.dtype) for v in (*bands, b)))
    columns = b[..., None] if problem.vectors else b
    x, status = _solve(bands, columns, problem, threads)
    if options.on_singular == "raise":
        settling.raise_singular(status, is_singular(status))
    elif options.on_singular == "lstsq":
        _least_squares(bands, columns, x[..., : problem.k], is_singular(status))
    return x[..., 0] if problem.vectors else x[..., : problem.k]


def _solve(
    bands: list[NDArray[Any]], b: NDArray[Any], problem: Problem, threads: int
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    n, k, batch_shape = problem.n, max(problem.k, 1), problem.batch_shape
    if problem.k == 0:  # a system may be singular all the same
        b = np.zeros((*b.shape[:-1], 1), b.dtype)
    x, status = np.empty((*batch_shape, n, k), problem.dtype), np.zeros(batch_shape, np.int8)
    if x.size == 0:
        return x, status
    given = [pieces.Given(band, 1, problem.dtype) for band in bands]
    given.append(pieces.Given(b, 2, problem.dtype))
    size = pieces.PIECE // ((3 + 2 * k) * n * problem.dtype.itemsize)
    size = size // pieces.LANES * pieces.LANES or pieces.LANES
    kernel = kernels.tridiagonal_bands(problem.dtype)

    def run(*arrays: NDArray[Any]) -> None:
        kernel(*arrays)
        *bands, b, x, status = arrays
        solve_lost(kernel, lambda lost: [band[lost] for band in bands], b, x, status)

    pieces.call(run, batch_shape, size, given, (x, status), threads)
    return x, status


def _least_squares(
    bands: list[NDArray[Any]], b: NDArray[Any], x: NDArray[Any], where: NDArray[np.bool_]
) -> None:
    bands = [np.broadcast_to(band, x.shape[:-1]) for band in bands]
    b = np.broadcast_to(b, (*where.shape, *b.shape[-2:]))
    for index in map(tuple, np.argwhere(where)):
        low, middle, high = (band[index].astype(x.dtype) for band in bands)
        a = np.diag(low[1:], -1) + np.diag(middle) + np.diag(high[:-1], 1)
        x[index] = settling.least_squares(a, b[index], x.dtype)
