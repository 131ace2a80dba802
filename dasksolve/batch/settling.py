"""What becomes of systems that failed, are not exact enough, or were out of a kernel's range."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.diagnosis import backward_errors, of_solved_columns
from dasksolve.batch.options import Options
from dasksolve.batch.pieces import broadcast, piece_size
from dasksolve.batch.problem import Problem, undefined
from dasksolve.batch.refinement import ENOUGH, refined
from dasksolve.batch.running import kernel_for
from dasksolve.batch.structure import meant
from dasksolve.errors import SingularSystemError
from dasksolve.kernels.scaling import exponents, largest, shifted
from dasksolve.solution import Solution
from dasksolve.status import Status, is_singular, is_solved


def settle_singular(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    options: Options,
    x: NDArray[Any],
    status: NDArray[np.int8],
) -> None:
    """Do with singular systems as the options say."""
    if options.on_singular == "raise":
        raise_singular(status, is_singular(status))
    elif options.on_singular == "lstsq":
        least_squares_where(a, b, x, is_singular(status), problem, options)


def raise_singular(status: NDArray[np.int8], failed: NDArray[np.bool_]) -> None:
    """Raise if any system failed."""
    indices = np.flatnonzero(failed)
    if indices.size:
        raise SingularSystemError(indices, status.shape, status.reshape(-1)[indices])


def settle_failed(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options, solution: Solution
) -> None:
    """Give the systems that count as singular the x that the options want."""
    x, status, _, error = solution
    failed = counts_as_singular(solution, options)
    if not failed.any():
        return
    solution.rcond[is_singular(status)] = 0  # also where the kernel's was out of range
    poor = failed & ~is_singular(status)
    status[poor] = Status.ILL_CONDITIONED
    if options.on_singular == "lstsq":
        least_squares_where(a, b, x, failed, problem, options)
        error[failed] = of_solved_columns(*_gathered(a, b, x, problem, options, failed))
    else:
        x[poor], error[poor] = undefined(x.dtype), np.nan


def refine(
    a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options, solution: Solution
) -> None:
    """Refine the answers that are not exact enough, and keep what is better."""
    x, _, _, error = solution
    solved = ~counts_as_singular(solution, options)
    doubtful = np.flatnonzero(solved & (error > ENOUGH * np.finfo(problem.dtype).eps))
    size = max(1, piece_size(problem.n, problem.k, x.itemsize)) if doubtful.size else 1
    for first in range(0, doubtful.size, size):
        where = np.zeros(error.size, bool)
        where[doubtful[first : first + size]] = True
        where = where.reshape(error.shape)
        gathered = _gathered(a, b, x, problem, options, where)
        left, right, first_x = (values.astype(problem.dtype) for values in gathered)
        better = refined(left, right, first_x)
        solved = np.isfinite(first_x).all(axis=-2, keepdims=True)  # the others have no say
        compared = (np.where(solved, v, left.dtype.type(0)) for v in (right, better))
        errors = backward_errors(left, *compared)
        kept = errors < error[where]
        matrices = x[..., None] if problem.vectors else x
        matrices[where] = np.where(kept[:, None, None], better, first_x)
        error[where] = np.where(kept, errors, error[where])


def diagnose_rest(
    a: NDArray[Any],
    b: NDArray[Any],
    problem: Problem,
    options: Options,
    where: NDArray[np.bool_],
    solution: Solution,
) -> None:
    """Diagnose systems with columns that are not solved, or whose norms are out of range."""
    x, status, rcond, error = solution
    a, b, x = (v.astype(problem.dtype) for v in _gathered(a, b, x, problem, options, where))
    found, errors = rcond[where], np.full(len(a), np.nan)
    if options.assume_a == "gen":
        found, errors = _of_each_column(a, b, x, problem, options)
    unknown = np.isnan(errors)
    errors[unknown] = of_solved_columns(a[unknown], b[unknown], x[unknown])
    unknown = np.isnan(found)
    if unknown.any():
        found[unknown] = scaled_rconds(a[unknown])
    rcond[where], error[where] = found, errors
    poor = where & (status == Status.OK) & (rcond < np.finfo(problem.dtype).eps)
    status[poor] = Status.ILL_CONDITIONED


def _of_each_column(
    a: NDArray[Any], b: NDArray[Any], x: NDArray[Any], problem: Problem, options: Options
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The kernel's rcond, and the largest error of the columns that are solved; NaN: it has none.

    What is said of a column has the bits that it has without the others.
    """
    if problem.k == 0:  # a has a condition all the same
        b = x = np.zeros((*b.shape[:-1], 1), b.dtype)
    solved = np.isfinite(x).all(axis=-2)
    b = np.where(solved[:, None, :], b, b.dtype.type(0))  # whose solution has no error
    rcond, errors = _diagnosed(kernel_for(problem, options, True), a, b)
    lost = np.isnan(rcond)  # perhaps since a column is out of range
    if not (lost.any() or np.isnan(errors).any()):
        return rcond, errors
    single = kernels.pick("gen", problem.n, 1, problem.together, problem.dtype, True)
    rcond[lost] = _diagnosed(single, a[lost], np.zeros((np.count_nonzero(lost), problem.n, 1)))[0]
    lost = np.isnan(errors)
    if lost.any() and solved.shape[1] > 1:
        of_each = np.zeros(solved.shape)
        for j, mine in enumerate((solved & lost[:, None]).T):
            system = a[mine], b[mine, :, j : j + 1], x[mine, :, j : j + 1]
            found = _diagnosed(single, *system[:2])[1]
            unknown = np.isnan(found)
            found[unknown] = backward_errors(*(values[unknown] for values in system))
            of_each[mine, j] = found
        errors[lost] = of_each[lost].max(axis=1)
    return rcond, errors


def _diagnosed(kernel: kernels.Kernel, a: NDArray[Any], b: NDArray[Any]) -> NDArray[np.float64]:
    """What a kernel finds of systems: conditions and errors."""
    found = np.empty((2, len(a)))
    if len(a):
        b = np.ascontiguousarray(b, a.dtype)
        kernel(np.ascontiguousarray(a), b, np.empty_like(b), np.empty(len(a), np.int8), *found)
    return found


def scaled_rconds(a: NDArray[Any]) -> NDArray[np.float64]:
    """Reciprocal condition numbers of any general matrices (M, N, N)."""
    a = a.astype(np.result_type(a, np.float64))
    with np.errstate(all="ignore"):
        a = np.ascontiguousarray(shifted(a, -largest(exponents(a), (-2, -1))))
    zeros, status = np.zeros((*a.shape[:-1], 1), a.dtype), np.empty(len(a), np.int8)
    found, error = np.empty((2, len(a)))
    kernel = kernels.pick("gen", a.shape[-1], 1, len(a), a.dtype, True)
    kernel(a, zeros, np.empty_like(zeros), status, found, error)
    # Where even A⁻¹ overflows, 1 / cond underflows.
    return np.nan_to_num(found, nan=0.0)


def least_squares_where(
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    where: NDArray[np.bool_],
    problem: Problem,
    options: Options,
) -> None:
    """Write the solutions of least norm of some systems into x."""
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
    x = np.full((len(a), len(finite)), undefined(dtype), dtype)
    x[:, finite] = np.linalg.lstsq(a.astype(dtype), b[:, finite], rcond=rcond)[0]
    x[:, ~np.isfinite(x).all(axis=0)] = undefined(dtype)  # what overflows
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


def counts_as_singular(solution: Solution, options: Options) -> NDArray[np.bool_]:
    """Where `on_singular` applies: what is singular, and what is conditioned worse than `rcond`."""
    return is_singular(solution.status) | (solution.rcond < (options.rcond or 0))  # not NaN


def is_solved_in_part(
    x: NDArray[Any], status: NDArray[np.int8], problem: Problem
) -> NDArray[np.bool_]:
    """Where x, or a column of it, is a solution."""
    solved = np.asarray(is_solved(status))
    if problem.k > 1 and not problem.vectors:
        partly = status == Status.NONFINITE
        solved[partly] = np.isfinite(x[partly]).all(axis=-2).any(axis=-1)
    return solved
