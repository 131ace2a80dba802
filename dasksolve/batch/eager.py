"""Solving NumPy arrays: problem, kernel, status, error."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.diagnosis import backward_errors
from dasksolve.batch.pieces import (
    PIECE,
    broadcast,
    in_threads,
    is_plain,
    piece_size,
    pieces,
    plain,
    thread_count,
)
from dasksolve.batch.problem import ON_SINGULAR, Problem, check_word, describe
from dasksolve.batch.refinement import ENOUGH, refined
from dasksolve.batch.structure import meant
from dasksolve.errors import SingularSystemError
from dasksolve.solution import Solution
from dasksolve.status import Status


def solve(
    a: Any,
    b: Any,
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "raise",
    workers: int = 1,
) -> NDArray[Any]:
    """Solve a batch held in memory; `dasksolve.solve` documents it."""
    check_word("on_singular", on_singular, ON_SINGULAR)
    threads = thread_count(workers)
    a, b = as_array("a", a), as_array("b", b)
    problem = describe(a.shape, a.dtype, b.shape, b.dtype, assume_a, lower)
    x, status = solve_with_status(a, b, problem, on_singular, threads)
    if on_singular == "raise":
        _raise_singular(status)
    return x


def solve_ex(
    a: Any,
    b: Any,
    *,
    assume_a: str = "gen",
    lower: bool = False,
    on_singular: str = "nan",
    refine: bool = False,
    workers: int = 1,
) -> Solution:
    """Solve a batch held in memory and diagnose it; `dasksolve.solve_ex` documents it."""
    check_word("on_singular", on_singular, ON_SINGULAR)
    threads = thread_count(workers)
    a, b = as_array("a", a), as_array("b", b)
    problem = describe(a.shape, a.dtype, b.shape, b.dtype, assume_a, lower)
    solution = solve_and_diagnose(a, b, problem, on_singular, threads, refine)
    if on_singular == "raise":
        _raise_singular(solution.status)
    return solution


def _raise_singular(status: NDArray[np.int8]) -> None:
    if np.count_nonzero(status):
        failed = np.flatnonzero(is_singular(status))
        if failed.size:
            raise SingularSystemError(failed, status.shape, status.reshape(-1)[failed])


def solve_with_status(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, on_singular: str, threads: int = 1
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Return x and the status of every system; raise nothing."""
    x, status = _solve(a, b, problem, threads)
    if on_singular == "lstsq" and np.count_nonzero(status):
        _least_squares(a, b, x, status, problem)
    return x, status


def solve_and_diagnose(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    on_singular: str,
    threads: int = 1,
    refine: bool = False,
) -> Solution:
    """Return x, and the status, condition and backward error of every system; raise nothing."""
    if problem.n:
        rcond, error = np.empty(problem.batch_shape), np.empty(problem.batch_shape)
    else:  # no kernel has anything to say
        rcond, error = np.ones(problem.batch_shape), np.zeros(problem.batch_shape)
    x, status = _solve(a, b, problem, threads, (rcond, error))
    if rcond.size and np.isnan(rcond.max() + error.max()):  # half the time of sums
        unknown = (status == Status.OK) & (np.isnan(rcond) | np.isnan(error))
        if unknown.any():
            _diagnose_scaled(a, b, x, problem, unknown, (status, rcond, error))
        if on_singular == "lstsq":
            _least_squares(a, b, x, status, problem)
            solved = is_singular(status)
            error[solved] = backward_errors(*_gathered(a, b, x, problem, solved))
    if refine:
        _refine(a, b, x, problem, ~is_singular(status), error)
    return Solution(x, status, rcond, error)


def _refine(
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    problem: Problem,
    solved: NDArray[np.bool_],
    error: NDArray[np.float64],
) -> None:
    """Refine the answers that are not exact enough, and keep what is better."""
    doubtful = np.flatnonzero(solved & (error > ENOUGH * np.finfo(problem.dtype).eps))
    size = max(1, _piece_size(problem)) if doubtful.size else 1
    for first in range(0, doubtful.size, size):
        some = np.unravel_index(doubtful[first : first + size], error.shape)
        where = np.zeros(error.shape, bool)
        where[some] = True
        left, right, first_x = (v.astype(problem.dtype) for v in _gathered(a, b, x, problem, where))
        better = refined(left, right, first_x)
        errors = backward_errors(left, right, better)
        kept = errors < error[where]
        matrices = x[..., None] if problem.vectors else x
        matrices[where] = np.where(kept[:, None, None], better, first_x)
        error[where] = np.where(kept, errors, error[where])


def _solve(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...] = (),
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    if diagnostics and problem.assume_a != "gen":
        return _diagnose_structure(a, b, problem, threads, diagnostics)
    direct = problem.direct and is_plain(a) and is_plain(b)
    return (_solve_direct if direct else _solve_any)(a, b, problem, threads, diagnostics)


def _diagnose_structure(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...],
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Solve by structure; take the condition from the general kernel, on what is meant."""
    x, status = _solve(a, b, problem, threads)
    n, batch_shape, dtype = problem.n, problem.batch_shape, problem.dtype
    if status.size == 0 or n == 0:
        return x, status
    general = kernels.pick("gen", n, 1, status.size, dtype, True)
    columns = (b[..., None], x[..., None]) if problem.vectors else (b, x)
    a, given, found = (broadcast(values, batch_shape) for values in (a, *columns))
    rcond, error = (values.reshape(-1) for values in diagnostics)

    def diagnose(part: tuple[tuple[Any, ...], slice]) -> None:
        index, flat = part
        whole = meant(plain(a[index], n, dtype), problem.assume_a, problem.lower)
        zeros = np.zeros((len(whole), n, 1), dtype)
        general(whole, zeros, zeros.copy(), np.empty(len(whole), np.int8), rcond[flat], error[flat])
        shape = (len(whole), n, given.shape[-1])
        error[flat] = backward_errors(
            whole, given[index].reshape(shape), found[index].reshape(shape)
        )

    in_threads(diagnose, list(pieces(batch_shape, _piece_size(problem))), threads)
    flat_status = status.reshape(-1)
    rcond[is_singular(flat_status)] = 0
    rcond[flat_status == Status.NONFINITE] = np.nan
    poor = (flat_status == Status.OK) & (rcond < np.finfo(dtype).eps)
    flat_status[poor] = Status.ILL_CONDITIONED
    return x, status


def _solve_direct(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...],
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Solve what the kernel can take as it is: no call wasted, since N = 2 is solved in 0.5 µs."""
    n, k = problem.n, problem.k
    x, status = np.empty(b.shape, problem.dtype), np.empty(problem.batch_shape, np.int8)
    kernel = _kernel(problem, bool(diagnostics))
    flat_x, flat_status, flat = x, status, len(problem.batch_shape) == 1
    if not flat:
        a, flat_status = a.reshape(-1, n, n), status.ravel()
        diagnostics = tuple(map(np.ravel, diagnostics))
    if problem.vectors or not flat:
        b, flat_x = b.reshape(-1, n, k), x.reshape(-1, n, k)
    if threads == 1 and a.nbytes + b.nbytes <= PIECE:
        kernel(a, b, flat_x, flat_status, *diagnostics)
    else:
        arrays = (a, b, flat_x, flat_status, *diagnostics)
        parts = [part for _, part in pieces((status.size,), _piece_size(problem))]
        in_threads(lambda part: kernel(*(array[part] for array in arrays)), parts, threads)
    return x, status


def _solve_any(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...],
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Solve what is to be broadcast, converted or made contiguous: piece by piece, in the cache."""
    n, k, batch_shape = problem.n, problem.k, problem.batch_shape
    if k == 0:  # a may be singular all the same: look at it with a right-hand side of zeros
        b = np.zeros((*b.shape[:-1], 1), b.dtype)
    if problem.vectors:
        b = b[..., None]
    x = np.empty((*batch_shape, n, max(k, 1)), problem.dtype)
    status = np.zeros(batch_shape, np.int8)
    if x.size:
        kernel = _kernel(problem, bool(diagnostics))
        a, b = broadcast(a, batch_shape), broadcast(b, batch_shape)
        flat_x = x.reshape(-1, *x.shape[-2:])
        found: list[NDArray[Any]] = [status.reshape(-1)]
        found += [numbers.reshape(-1) for numbers in diagnostics]

        def solve_part(part: tuple[tuple[Any, ...], slice]) -> None:
            index, flat = part
            ready = plain(a[index], n, problem.dtype), plain(b[index], n, problem.dtype)
            kernel(*ready, flat_x[flat], *(values[flat] for values in found))

        in_threads(solve_part, list(pieces(batch_shape, _piece_size(problem))), threads)
    if problem.vectors:
        x = x[..., 0]
    return x[..., :k] if k == 0 else x, status


def _kernel(problem: Problem, diagnostics: bool) -> kernels.Kernel:
    n, k, systems, dtype = problem.n, problem.k, problem.together, problem.dtype
    return kernels.pick(problem.assume_a, n, k, systems, dtype, diagnostics, problem.lower)


def is_singular(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where `on_singular` applies."""
    return (status == Status.SINGULAR) | (status == Status.NOT_POSITIVE_DEFINITE)


def as_array(name: str, values: Any) -> NDArray[Any]:
    """Return `values` as an ndarray, never dropping a mask without a word."""
    if type(values) is np.ndarray:  # else the next two lines take 0.1 µs
        return values
    if isinstance(values, np.ma.MaskedArray):
        raise TypeError(f"{name} is a masked array; fill it first, say with {name}.filled(np.nan)")
    return np.asarray(values)


def _piece_size(problem: Problem) -> int:
    return piece_size(problem.n, problem.k, problem.dtype.itemsize)


def _least_squares(
    a: NDArray[Any], b: NDArray[Any], x: NDArray[Any], status: NDArray[np.int8], problem: Problem
) -> None:
    if x.ndim < status.ndim + 2:
        x, b = x[..., None], b[..., None]
    a, b = broadcast(a, status.shape), broadcast(b, status.shape)
    for index in map(tuple, np.argwhere(is_singular(status))):
        whole = meant(a[index], problem.assume_a, problem.lower).astype(x.dtype)
        x[index] = np.linalg.lstsq(whole, b[index].astype(x.dtype), rcond=None)[0]


def _gathered(
    a: NDArray[Any], b: NDArray[Any], x: NDArray[Any], problem: Problem, where: NDArray[np.bool_]
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """a as it is meant, b and x of some systems, as matrices."""
    if problem.vectors:
        b, x = b[..., None], x[..., None]
    a = meant(broadcast(a, where.shape)[where], problem.assume_a, problem.lower)
    return a, broadcast(b, where.shape)[where], x[where]


def _diagnose_scaled(
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    problem: Problem,
    where: NDArray[np.bool_],
    diagnostics: tuple[NDArray[np.int8], NDArray[np.float64], NDArray[np.float64]],
) -> None:
    """Diagnose systems whose norms are out of the kernel's range: in float64, A scaled to 1."""
    status, rcond, error = diagnostics
    a, b, x = _gathered(a, b, x, problem, where)
    error[where] = backward_errors(a, b, x)
    rcond[where] = scaled_rconds(a)
    status[where & (rcond < np.finfo(problem.dtype).eps)] = Status.ILL_CONDITIONED


def scaled_rconds(a: NDArray[Any]) -> NDArray[np.float64]:
    """Reciprocal condition numbers of any general matrices (M, N, N)."""
    a = a.astype(np.result_type(a, np.float64))
    size = np.maximum(np.abs(a.real), np.abs(a.imag)).max(axis=(-2, -1), keepdims=True)
    a = np.ldexp(1.0, -np.frexp(size)[1]) * a
    zeros = np.zeros((*a.shape[:-1], 1), a.dtype)
    problem = describe(a.shape, a.dtype, zeros.shape, zeros.dtype)
    found, error = np.empty((2, len(a)))
    _solve_direct(a, zeros, problem, 1, (found, error))
    # Where even A⁻¹ overflows, 1 / cond underflows.
    return np.nan_to_num(found, nan=0.0)
