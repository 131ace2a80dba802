"""Solving NumPy arrays: the problem, and calls of the kernel that it takes."""

from functools import lru_cache, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch import sharing
from dasksolve.batch.arrays import as_array
from dasksolve.batch.diagnosis import backward_errors
from dasksolve.batch.options import Options
from dasksolve.batch.pieces import PIECE, Given, call, is_plain, piece_size, thread_count
from dasksolve.batch.problem import Problem, describe
from dasksolve.batch.running import kernel_for, run
from dasksolve.batch.settling import (
    counts_as_singular,
    diagnose_rest,
    is_solved_in_part,
    least_squares_where,
    raise_singular,
    refine,
    settle_failed,
    settle_singular,
)
from dasksolve.batch.structure import meant
from dasksolve.solution import Solution
from dasksolve.status import Status, is_singular

Answers = tuple[NDArray[Any], NDArray[np.int8], bool]
"""x, status, and whether any status is not OK, which takes 0.3 µs to find out."""
_STATUS = np.dtype(np.int8)


def solve(a: Any, b: Any, options: Options, workers: int = 1) -> Any:
    """Solve a batch held in memory: x, or with diagnostics a `Solution`; raise as options say."""
    threads = thread_count(workers)
    a, b = as_array("a", a), as_array("b", b)
    problem = describe(a.shape, a.dtype, b.shape, b.dtype)
    if not options.diagnoses:
        if 0 in a.strides:
            a = sharing.once(a, b, problem)
            problem = describe(a.shape, a.dtype, b.shape, b.dtype)
        if (
            problem.shared
            and sharing.shares(problem, options)
            and not sharing.takes_vectors(problem, options)
        ):
            shared = sharing.solve_shared(a, b, problem, options, threads)
            if shared is not None:
                return shared
        x, status, flawed = _solve(a, b, problem, options, threads)
        if flawed:
            settle_singular(a, b, problem, options, x, status)
        return x
    solution = solve_and_diagnose(a, b, problem, options, threads)
    if options.on_singular == "raise":
        raise_singular(solution.status, counts_as_singular(solution, options))
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
    if run(kernel, problem, options, a, columns, found, status):
        settle_singular(a, b, problem, options, x, status)
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
    return problem, options, kernel_for(problem, options)


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
        least_squares_where(a, b, x, is_singular(status), problem, options)
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
        unknown = is_solved_in_part(x, status, problem) & (np.isnan(rcond) | np.isnan(error))
        if unknown.any():
            diagnose_rest(a, b, problem, options, unknown, solution)
    if flawed or options.rcond is not None:
        settle_failed(a, b, problem, options, solution)
    if options.refine:
        refine(a, b, problem, options, solution)
    return solution


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
    if problem.shared and not diagnostics and sharing.takes_vectors(problem, options):
        return sharing.solve_vectors(a, b, problem, options, threads)
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
    lost = (status == Status.NONFINITE) & ~is_solved_in_part(x, status, problem)
    rcond[lost.reshape(-1)] = np.nan
    error[flat_status == Status.NONFINITE] = np.nan
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
    kernel = kernel_for(problem, options, bool(diagnostics))
    flat_x, flat_status, flat = x, status, len(problem.batch_shape) == 1
    if not flat:
        a, flat_status = a.reshape(-1, n, n), status.ravel()
        diagnostics = tuple(map(np.ravel, diagnostics))
    if problem.vectors or not flat:
        b, flat_x = b.reshape(-1, n, k), x.reshape(-1, n, k)
    arrays = (a, b, flat_x, flat_status, *diagnostics)
    if threads == 1 and a.nbytes + b.nbytes <= PIECE:
        return x, status, run(kernel, problem, options, *arrays)
    part = partial(run, kernel, problem, options)
    call(part, (status.size,), _piece_size(problem), (), arrays, threads)
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
        part = partial(run, kernel_for(problem, options, bool(diagnostics)), problem, options)
        given = Given(a, 2, dtype), Given(b, 2, dtype)
        found = (x, status, *diagnostics)
        call(part, batch_shape, _piece_size(problem), given, found, threads)
    if problem.vectors:
        x = x[..., 0]
    return x[..., :k] if k == 0 else x, status, bool(np.count_nonzero(status))


def _piece_size(problem: Problem) -> int:
    return piece_size(problem.n, problem.k, problem.dtype.itemsize)
