"""Compares what was stored of systems with what they are solved to again."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch import diagnosis, eager, settling
from dasksolve.batch.options import Options
from dasksolve.batch.pieces import broadcast
from dasksolve.batch.problem import Problem, describe
from dasksolve.batch.structure import meant
from dasksolve.job.work import Compared
from dasksolve.solution import Solution
from dasksolve.status import Status, is_solved

DIAGNOSTICS = ("rcond", "backward_error")
_WRONG = "x does not solve {} whose status is OK"


def compared(
    a: NDArray[Any],
    b: NDArray[Any],
    options: Options,
    found: dict[str, NDArray[Any]],
    exactly: bool,
    solve: Callable[..., Solution] | None = None,
    measure: Callable[..., NDArray[np.float64]] = diagnosis.errors_to_rounding,
) -> Compared:
    """Solve the systems of a block again, and look where another answer was found in the store.

    solve, measure: how, if there is a quicker way; what solves need not find the backward errors.
    """
    status, x = found["status"], found["x"]
    stored = [found[name] for name in DIAGNOSTICS if name in found]
    problem = describe(a.shape, a.dtype, b.shape, b.dtype)
    anew = (solve or _solved_again)(a, b, problem, options)
    changed = other_bits(x, anew.x, status.shape)
    errors = anew.backward_error
    if changed.any() or np.isnan(errors).all():  # those of another x, or none that were found
        columns = (b[..., None], x[..., None]) if problem.vectors else (b, x)
        errors = measure(a, *columns, options)
    failed = settling.counts_as_singular(anew, options)
    solved = is_solved(status) & ~failed
    suspects = {_WRONG: solved & ~(errors <= np.sqrt(np.finfo(x.dtype).eps))}
    # LAPACK's bits are not ours to promise, nor what is said of them.
    theirs = changed & failed & (options.on_singular == "lstsq")
    suspects[not_as_computed("x")] = _where_not_least(a, b, x, anew.x, theirs, problem, options)
    if exactly:
        suspects[not_as_computed("status")] = status != anew.status
        suspects[not_as_computed("x")] |= changed & ~theirs
        suspects |= _where_bits_differ(stored, anew, ~theirs)
    elif stored:
        suspects |= _where_far(stored, anew, errors, solved)
    rcond = stored[0] if stored else np.full(status.shape, np.nan)
    return Compared(suspects, dict(zip(DIAGNOSTICS, (rcond, errors), strict=True)))


def _diagnoses(problem: Problem, options: Options) -> bool:
    """Whether to solve again finds the backward errors too."""
    # Up to this order it takes half the time of finding them apart.
    return options.diagnoses or (options.assume_a == "gen" and problem.n <= 8)


def _solved_again(a: NDArray[Any], b: NDArray[Any], problem: Problem, options: Options) -> Solution:
    """What the job solved, to the same bits; diagnostics are NaN where it takes long to have them.

    As in the job, a condition that was not asked for has no say in the status.
    """
    if not _diagnoses(problem, options):
        x, status = eager.solve_with_status(a, b, problem, options)
        return Solution(x, status, *np.full((2, *status.shape), np.nan))
    anew = eager.solve_and_diagnose(a, b, problem, options)
    if not options.diagnoses:
        anew.status[anew.status == Status.ILL_CONDITIONED] = Status.OK
    return anew


def _where_bits_differ(
    stored: list[NDArray[np.float64]], anew: Solution, ours: NDArray[np.bool_]
) -> dict[str, NDArray[np.bool_]]:
    """Systems of which a diagnostic is not what it is computed to be."""
    return {
        not_as_computed(name): other_bits(old, new, ours.shape) & ours
        for name, old, new in zip(DIAGNOSTICS, stored, anew[2:], strict=False)
    }


def _where_not_least(
    a: NDArray[Any],
    b: NDArray[Any],
    x: NDArray[Any],
    other: NDArray[Any],
    where: NDArray[np.bool_],
    problem: Problem,
    options: Options,
) -> NDArray[np.bool_]:
    """Which of some systems have an x that is no least squares solution, as the other is."""
    found = np.zeros(where.shape, bool)
    if problem.vectors:
        b, x, other = b[..., None], x[..., None], other[..., None]
    a, b = broadcast(a, where.shape), broadcast(b, where.shape)
    for index in map(tuple, np.argwhere(where)):
        full = meant(a[index], options)
        found[index] = not _is_least(full, b[index], x[index], other[index], options.rcond)
    return found


@np.errstate(all="ignore")
def _is_least(
    a: NDArray[Any], b: NDArray[Any], x: NDArray[Any], other: NDArray[Any], rcond: float | None
) -> bool:
    """Whether ‖Aᴴ(b-Ax)‖ is small: it is, however many singular values were left out."""
    solved = np.isfinite(other).all(axis=0)
    if not np.array_equal(np.isfinite(x), np.isfinite(other)):
        return False
    small = max(rcond or 0.0, np.sqrt(np.finfo(x.dtype).eps))
    wide = np.result_type(x, np.float64)
    a, b, x = a.astype(wide), b[:, solved].astype(wide), x[:, solved].astype(wide)
    of_a, of_b, of_x = np.linalg.norm(a), np.linalg.norm(b, axis=0), np.linalg.norm(x, axis=0)
    left = np.linalg.norm(a.conj().T @ (b - a @ x), axis=0)
    return not bool((left > small * of_a * (of_a * of_x + of_b)).any())


def _where_far(
    stored: list[NDArray[np.float64]],
    anew: Solution,
    errors: NDArray[np.float64],
    solved: NDArray[np.bool_],
) -> dict[str, NDArray[np.bool_]]:
    """The same, as far as another arithmetic allows."""
    (rcond, error), eps = stored, np.finfo(anew.x.dtype).eps
    near = np.abs(rcond - anew.rcond) <= 0.9 * np.maximum(rcond, anew.rcond)
    exact = np.abs(error - errors) <= np.maximum(4 * eps, 1e-3 * errors)
    return dict(
        zip(map(not_as_computed, DIAGNOSTICS), (solved & ~near, solved & ~exact), strict=True)
    )


def other_bits(
    one: NDArray[Any], other: NDArray[Any], batch_shape: tuple[int, ...]
) -> NDArray[np.bool_]:
    """Whether anything of a system differs, NaN from NaN included."""
    first, second = (one.T, other.T) if one.flags.f_contiguous else (one, other)  # as they lie
    if np.array_equal(_bits(first), _bits(second)):  # in a tenth of the time
        return np.zeros(batch_shape, bool)
    return (_bits(one) != _bits(other)).reshape(*batch_shape, -1).any(axis=-1)


def _bits(values: NDArray[Any]) -> NDArray[Any]:
    return np.ascontiguousarray(values).view(f"u{values.real.itemsize}")


def not_as_computed(name: str) -> str:
    """What is said of an array that holds other bits; how many systems' is left open."""
    return f"{name} of {{}} is not what it is computed to be"
