"""Compares what was stored of systems with what they are solved to again."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve.batch import diagnosis, eager
from dasksolve.batch.options import Options
from dasksolve.batch.problem import Problem, describe
from dasksolve.job.work import Compared
from dasksolve.solution import Solution
from dasksolve.status import Status

DIAGNOSTICS = ("rcond", "backward_error")
_WRONG = "x does not solve {} systems whose status is OK"
_OTHER = "{} of {{}} {} is not what it is computed to be"


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
    compare = _differences if exactly else _differences_within_bounds
    suspects = compare(options, status, stored, anew, errors, changed)
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


def _differences(
    options: Options,
    status: NDArray[np.int8],
    stored: list[NDArray[np.float64]],
    anew: Solution,
    errors: NDArray[np.float64],
    changed: NDArray[np.bool_],
) -> dict[str, NDArray[np.bool_]]:
    """Where a bit is not what it is computed to be, or x is no solution."""
    failed = eager.is_failed(anew, options)
    ours = ~failed if options.on_singular == "lstsq" else np.ones_like(failed)  # not LAPACK's
    suspects = {
        _WRONG: _wrong(status, failed, errors, anew.x.dtype),
        other("status"): status != anew.status,
    }
    suspects[other("x")] = changed & ours
    for name, old, new in zip(DIAGNOSTICS, stored, anew[2:], strict=False):
        suspects[other(name)] = other_bits(old, new, status.shape) & ours
    return suspects


def _differences_within_bounds(
    options: Options,
    status: NDArray[np.int8],
    stored: list[NDArray[np.float64]],
    anew: Solution,
    errors: NDArray[np.float64],
    changed: NDArray[np.bool_],
) -> dict[str, NDArray[np.bool_]]:
    """The same, as far as another arithmetic allows."""
    failed = eager.is_failed(anew, options)
    suspects = {_WRONG: _wrong(status, failed, errors, anew.x.dtype)}
    if stored:
        (rcond, error), eps = stored, np.finfo(anew.x.dtype).eps
        sure = _has_solution(status) & ~failed
        near = np.abs(rcond - anew.rcond) <= 0.9 * np.maximum(rcond, anew.rcond)
        suspects[other("rcond")] = sure & ~near
        near = np.abs(error - errors) <= np.maximum(4 * eps, 1e-3 * errors)
        suspects[other("backward_error")] = sure & ~near
    return suspects


def _has_solution(status: NDArray[np.int8]) -> NDArray[np.bool_]:
    return (status == Status.OK) | (status == Status.ILL_CONDITIONED)


def _wrong(
    status: NDArray[np.int8],
    failed: NDArray[np.bool_],
    errors: NDArray[np.float64],
    dtype: np.dtype[Any],
) -> NDArray[np.bool_]:
    return _has_solution(status) & ~failed & ~(errors <= np.sqrt(np.finfo(dtype).eps))


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


def other(name: str, unit: str = "systems") -> str:
    """What is said of an array that holds other bits; the number of systems is left open."""
    return _OTHER.format(name, unit)
