"""Solving NumPy arrays: problem, kernel, status, error."""

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.arrays import as_array
from dasksolve.batch.diagnosis import backward_errors, of_solved_columns
from dasksolve.batch.options import Options
from dasksolve.batch.pieces import (
    PIECE,
    Given,
    broadcast,
    call,
    is_plain,
    piece_size,
    thread_count,
)
from dasksolve.batch.problem import Problem, describe
from dasksolve.batch.refinement import ENOUGH, refined
from dasksolve.batch.structure import meant
from dasksolve.errors import SingularSystemError
from dasksolve.kernels.scaling import exponents, largest, shifted, solve_lost
from dasksolve.solution import Solution
from dasksolve.status import Status

Answers = tuple[NDArray[Any], NDArray[np.int8], bool]
"""x, status, and whether any status is not OK, which takes 0.3 µs to find out."""
_STATUS = np.dtype(np.int8)


def solve(a: Any, b: Any, options: Options, workers: int = 1) -> Any:
    """Solve a batch held in memory: x, or with diagnostics a `Solution`; raise as options say."""
    threads = thread_count(workers)
    a, b = as_array("a", a), as_array("b", b)
    problem = describe(a.shape, a.dtype, b.shape, b.dtype)
    if not options.diagnoses:
        x, status, flawed = _solve(a, b, problem, options, threads)
        if flawed:
            _settle_singular(a, b, problem, options, x, status)
        return x
    solution = solve_and_diagnose(a, b, problem, options, threads)
    if options.on_singular == "raise":
        _raise_singular(solution.status, is_failed(solution, options))
    return solution if options.diagnostics else solution.x


def solve_at_once(a: Any, b: Any, *how: Any) -> NDArray[Any] | None:
    """x of what one call of a kernel solves, in half the time that `solve` takes around it.

    how: assume_a, lower, on_singular, rcond and workers, unchecked. None: not such, or not right.
    """
    if type(a) is not np.ndarray or type(b) is not np.ndarray:
        return None
    try:
        problem, options, kernel = _at_once(a.shape, a.dtype, b.shape, b.dtype, *how)
    except TypeError:
        return None
    if kernel is None or not is_plain(a) or not is_plain(b):
        return None
    x, status = np.empty(b.shape, problem.dtype), np.empty(problem.batch_shape, _STATUS)
    columns, found = (b[..., None], x[..., None]) if problem.vectors else (b, x)
    if _run(kernel, problem, options, a, columns, found, status):
        _settle_singular(a, b, problem, options, x, status)
    return x


@lru_cache(maxsize=1024, typed=True)  # one look for three, and several checks
def _at_once(
    a_shape: tuple[int, ...],
    a_dtype: np.dtype[Any],
    b_shape: tuple[int, ...],
    b_dtype: np.dtype[Any],
    assume_a: str,
    lower: bool,
    on_singular: str,
    rcond: float | None,
    workers: int,
) -> tuple[Problem, Options, kernels.Kernel | None]:
    """The problem, the options, and the kernel that solves them at once, if one does."""
    options = Options.of(assume_a, lower, on_singular, rcond=rcond)
    problem = describe(a_shape, a_dtype, b_shape, b_dtype)
    if not problem.at_once or options.diagnoses or thread_count(workers) > 1:
        return problem, options, None
    return problem, options, _kernel(problem, options)


def _kernel(problem: Problem, options: Options, diagnostics: bool = False) -> kernels.Kernel:
    n, k, systems, dtype = problem.n, problem.k, problem.together, problem.dtype
    return kernels.pick(options.assume_a, n, k, systems, dtype, diagnostics, options.lower)


def _settle_singular(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    options: Options,
    x: NDArray[Any],
    status: NDArray[np.int8],
) -> None:
    """Do with singular systems as the options say."""
    if options.on_singular == "raise":
        _raise_singular(status, is_singular(status))
    elif options.on_singular == "lstsq":
        _least_squares(a, b, x, is_singular(status), problem, options)


def _raise_singular(status: NDArray[np.int8], where: NDArray[np.bool_]) -> None:
    failed = np.flatnonzero(where)
    if failed.size:
        raise SingularSystemError(failed, status.shape, status.reshape(-1)[failed])


def answers(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options
) -> tuple[NDArray[Any], ...]:
    """Return x and status, then condition and backward error if they are needed; raise nothing."""
    solve = solve_and_diagnose if options.diagnoses else solve_with_status
    return solve(a, b, problem, options)


def solve_with_status(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options
) -> tuple[NDArray[Any], NDArray[np.int8]]:
    """Return x and the status of every system, whatever its condition; raise nothing."""
    x, status, flawed = _solve(a, b, problem, options, 1)
    if flawed and options.on_singular == "lstsq":
        _least_squares(a, b, x, is_singular(status), problem, options)
    return x, status


def solve_and_diagnose(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options, threads: int = 1
) -> Solution:
    """Return x, and the status, condition and backward error of every system; raise nothing."""
    if problem.n:
        rcond, error = np.empty(problem.batch_shape), np.empty(problem.batch_shape)
    else:  # no kernel has anything to say
        rcond, error = np.ones(problem.batch_shape), np.zeros(problem.batch_shape)
    x, status, flawed = _solve(a, b, problem, options, threads, (rcond, error))
    solution = Solution(x, status, rcond, error)
    worst = rcond.max() + error.max() if rcond.size else 0  # half the time of sums
    if worst != worst:  # NaN, in a tenth of the time of np.isnan
        unknown = _are_solved(x, status, problem) & (np.isnan(rcond) | np.isnan(error))
        if unknown.any():
            _diagnose_scaled(a, b, problem, options, unknown, solution)
    if flawed or options.rcond is not None:
        _settle_failed(a, b, problem, options, solution)
    if options.refine:
        _refine(a, b, problem, options, solution)
    return solution


def _settle_failed(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options, solution: Solution
) -> None:
    """Give the systems that count as singular the x that the options want."""
    x, status, _, error = solution
    failed = is_failed(solution, options)
    if not failed.any():
        return
    solution.rcond[is_singular(status)] = 0  # also where the kernel's was out of range
    poor = failed & ~is_singular(status)
    status[poor] = Status.ILL_CONDITIONED
    if options.on_singular == "lstsq":
        _least_squares(a, b, x, failed, problem, options)
        error[failed] = of_solved_columns(*_gathered(a, b, x, problem, options, failed))
    else:
        x[poor], error[poor] = np.nan, np.nan


def _are_solved(x: NDArray[Any], status: NDArray[np.int8], problem: Problem) -> NDArray[np.bool_]:
    """Where x, or a column of it, is a solution."""
    solved = np.asarray(has_solution(status))
    if problem.k > 1 and not problem.vectors:
        partly = status == Status.NONFINITE
        solved[partly] = np.isfinite(x[partly]).all(axis=-2).any(axis=-1)
    return solved


def _refine(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options, solution: Solution
) -> None:
    """Refine the answers that are not exact enough, and keep what is better."""
    x, _, _, error = solution
    solved = ~is_failed(solution, options)
    doubtful = np.flatnonzero(solved & (error > ENOUGH * np.finfo(problem.dtype).eps))
    size = max(1, _piece_size(problem)) if doubtful.size else 1
    for first in range(0, doubtful.size, size):
        some = np.unravel_index(doubtful[first : first + size], error.shape)
        where = np.zeros(error.shape, bool)
        where[some] = True
        gathered = _gathered(a, b, x, problem, options, where)
        left, right, first_x = (values.astype(problem.dtype) for values in gathered)
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
    options: Options,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...] = (),
) -> Answers:
    if diagnostics and options.assume_a != "gen":
        return _diagnose_structure(a, b, problem, options, threads, diagnostics)
    if problem.direct and is_plain(a) and is_plain(b):
        return _solve_direct(a, b, problem, options, threads, diagnostics)
    return _solve_any(a, b, problem, options, threads, diagnostics)


def _diagnose_structure(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    options: Options,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...],
) -> Answers:
    """Solve by structure; take the condition from the general kernel, on what is meant."""
    x, status, flawed = _solve(a, b, problem, options, threads)
    n, dtype = problem.n, problem.dtype
    if status.size == 0 or n == 0:
        return x, status, flawed
    general = kernels.pick("gen", n, 1, status.size, dtype, True)

    def diagnose(
        a: NDArray[Any],
        b: NDArray[Any],
        x: NDArray[Any],
        rcond: NDArray[np.float64],
        error: NDArray[np.float64],
    ) -> None:
        whole = meant(a, options)
        zeros = np.zeros((len(whole), n, 1), dtype)
        general(whole, zeros, zeros.copy(), np.empty(len(whole), np.int8), rcond, error)
        error[...] = backward_errors(whole, b, x)

    columns = (b[..., None], x[..., None]) if problem.vectors else (b, x)
    given = [Given(values, 2, dtype) for values in (a, *columns)]
    call(diagnose, problem.batch_shape, _piece_size(problem), given, diagnostics, threads)
    rcond, error = (values.reshape(-1) for values in diagnostics)
    flat_status = status.reshape(-1)
    rcond[is_singular(flat_status)] = 0
    rcond[flat_status == Status.NONFINITE] = error[flat_status == Status.NONFINITE] = np.nan
    poor = (flat_status == Status.OK) & (rcond < np.finfo(dtype).eps)
    flat_status[poor] = Status.ILL_CONDITIONED
    return x, status, flawed or bool(poor.any())


def _solve_direct(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    options: Options,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...],
) -> Answers:
    """Solve what the kernel can take as it is: no call wasted, since N = 2 is solved in 0.5 µs."""
    n, k = problem.n, problem.k
    x, status = np.empty(b.shape, problem.dtype), np.empty(problem.batch_shape, _STATUS)
    kernel = _kernel(problem, options, bool(diagnostics))
    flat_x, flat_status, flat = x, status, len(problem.batch_shape) == 1
    if not flat:
        a, flat_status = a.reshape(-1, n, n), status.ravel()
        diagnostics = tuple(map(np.ravel, diagnostics))
    if problem.vectors or not flat:
        b, flat_x = b.reshape(-1, n, k), x.reshape(-1, n, k)
    arrays = (a, b, flat_x, flat_status, *diagnostics)
    if threads == 1 and a.nbytes + b.nbytes <= PIECE:
        return x, status, _run(kernel, problem, options, *arrays)
    run = partial(_run, kernel, problem, options)
    call(run, (status.size,), _piece_size(problem), (), arrays, threads)
    return x, status, bool(np.count_nonzero(status))


def _solve_any(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    options: Options,
    threads: int,
    diagnostics: tuple[NDArray[np.float64], ...],
) -> Answers:
    """Solve what is to be broadcast, converted or made contiguous: piece by piece, in the cache."""
    n, k, batch_shape, dtype = problem.n, problem.k, problem.batch_shape, problem.dtype
    if k == 0:  # a may be singular all the same: look at it with a right-hand side of zeros
        b = np.zeros((*b.shape[:-1], 1), b.dtype)
    if problem.vectors:
        b = b[..., None]
    x, status = np.empty((*batch_shape, n, max(k, 1)), dtype), np.zeros(batch_shape, np.int8)
    if x.size:
        run = partial(_run, _kernel(problem, options, bool(diagnostics)), problem, options)
        given = Given(a, 2, dtype), Given(b, 2, dtype)
        found = (x, status, *diagnostics)
        call(run, batch_shape, _piece_size(problem), given, found, threads)
    if problem.vectors:
        x = x[..., 0]
    return x[..., :k] if k == 0 else x, status, bool(np.count_nonzero(status))


def _run(kernel: kernels.Kernel, problem: Problem, options: Options, *arrays: NDArray[Any]) -> bool:
    """Call the kernel, and once more for what was out of range, which it does not diagnose.

    Returns whether any status is not OK.
    """
    kernel(*arrays)
    if not np.count_nonzero(arrays[3]):
        return False
    _solve_lost(kernel, problem, options, *arrays)
    return True


def _solve_lost(
    kernel: kernels.Kernel,
    problem: Problem,
    options: Options,
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    status: NDArray[np.int8],
    *diagnostics: NDArray[np.float64],
) -> None:
    n, k, systems, dtype = problem.n, problem.k, problem.together, problem.dtype

    def again(*arrays: NDArray[Any]) -> None:
        solve = kernel
        if options.assume_a in ("sym", "her"):  # scaled, they are not symmetric any more
            solve = kernels.pick("gen", n, k, systems, dtype)
        solve(*arrays, *np.empty((len(diagnostics), len(arrays[-1]))))

    definite = options.assume_a == "pos"
    solve_lost(again, lambda lost: [meant(a[lost], options)], b, x, status, definite)


def is_singular(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where a pivot was zero, or not positive though it had to be."""
    return (status == Status.SINGULAR) | (status == Status.NOT_POSITIVE_DEFINITE)


def has_solution(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    """Where all of x solves its system, however badly that is conditioned."""
    return (status == Status.OK) | (status == Status.ILL_CONDITIONED)


def is_failed(solution: Solution, options: Options) -> NDArray[np.bool_]:
    """Where `on_singular` applies: what is singular, and what counts as that."""
    singular = is_singular(solution.status)
    if options.rcond is None:
        return singular
    return singular | (solution.rcond < options.rcond)  # not NaN


def _piece_size(problem: Problem) -> int:
    return piece_size(problem.n, problem.k, problem.dtype.itemsize)


def _least_squares(
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    where: NDArray[np.bool_],
    problem: Problem,
    options: Options,
) -> None:
    if problem.vectors:
        x, b = x[..., None], b[..., None]
    a, b = broadcast(a, where.shape), broadcast(b, where.shape)
    for index in map(tuple, np.argwhere(where)):
        x[index] = least_squares(meant(a[index], options), b[index], x.dtype, options.rcond)


@np.errstate(all="ignore")
def least_squares(
    a: NDArray[Any], b: NDArray[Any], dtype: np.dtype[Any], rcond: float | None = None
) -> NDArray[Any]:
    """The solution of least norm of one system.

    rcond: the share of the largest singular value below which others are left out; at least N eps.
    """
    if rcond is not None:
        rcond = max(rcond, len(a) * float(np.finfo(dtype).eps))
    b = b.astype(dtype)
    finite = np.isfinite(b).all(axis=0)
    x = np.full((len(a), len(finite)), np.nan * dtype.type(1), dtype)
    x[:, finite] = np.linalg.lstsq(a.astype(dtype), b[:, finite], rcond=rcond)[0]
    x[:, ~np.isfinite(x).all(axis=0)] = np.nan  # what overflows
    return x


def _gathered(
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    problem: Problem,
    options: Options,
    where: NDArray[np.bool_],
) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """a as it is meant, b and x of some systems, as matrices."""
    if problem.vectors:
        b, x = b[..., None], x[..., None]
    a = meant(broadcast(a, where.shape)[where], options)
    return a, broadcast(b, where.shape)[where], x[where]


def _diagnose_scaled(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    options: Options,
    where: NDArray[np.bool_],
    solution: Solution,
) -> None:
    """Diagnose systems whose norms are out of the kernel's range: in float64, A scaled to 1."""
    x, status, rcond, error = solution
    a, b, x = _gathered(a, b, x, problem, options, where)
    error[where] = of_solved_columns(a, b, x)
    rcond[where] = np.where(np.isnan(rcond[where]), scaled_rconds(a), rcond[where])
    poor = where & (status == Status.OK) & (rcond < np.finfo(problem.dtype).eps)
    status[poor] = Status.ILL_CONDITIONED


def scaled_rconds(a: NDArray[Any]) -> NDArray[np.float64]:
    """Reciprocal condition numbers of any general matrices (M, N, N)."""
    a = a.astype(np.result_type(a, np.float64))
    with np.errstate(all="ignore"):
        a = np.ascontiguousarray(shifted(a, -largest(exponents(a), (-2, -1))))
    zeros = np.zeros((*a.shape[:-1], 1), a.dtype)
    problem = describe(a.shape, a.dtype, zeros.shape, zeros.dtype)
    found, error = np.empty((2, len(a)))
    _solve_direct(a, zeros, problem, Options(), 1, (found, error))
    # Where even A⁻¹ overflows, 1 / cond underflows.
    return np.nan_to_num(found, nan=0.0)
