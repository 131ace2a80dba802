"""Least squares of NumPy arrays, with a matrix for each system."""

from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.arrays import as_array, as_weights
from dasksolve.batch.fit import ON_DEFICIENT
from dasksolve.batch.options import check_word, checked_rcond
from dasksolve.batch.pieces import LANES, PIECE, Given, call, thread_count
from dasksolve.batch.problem import right_hand_sides, solution_dtype, undefined
from dasksolve.batch.weights import refuse_unusable, without_mask
from dasksolve.solution import LeastSquares
from dasksolve.status import Status


@dataclass(frozen=True)
class Overdetermined:
    """A batch of systems with more equations than unknowns, described by metadata alone."""

    batch_shape: tuple[int, ...]
    """Shape of the batch, after broadcasting."""
    rows: int
    """Equations of each system."""
    n: int
    """Unknowns of each system."""
    k: int
    """Right-hand sides of each system."""
    dtype: np.dtype[Any]
    """What x is computed in."""
    vectors: bool
    """b is a stack of vectors, so x has no axis for the right-hand sides."""


@dataclass(frozen=True)
class LstsqOptions:
    """How to solve them."""

    rcond: float | None = None
    """The reciprocal condition number below which a system is rank-deficient, if given."""
    on_deficient: str = "nan"
    """What becomes of those."""

    @classmethod
    def of(cls, rcond: float | None, on_deficient: str) -> "LstsqOptions":
        """Return checked options, or raise what says how to mend."""
        check_word("on_deficient", on_deficient, ON_DEFICIENT)
        return cls(checked_rcond(rcond), on_deficient)


@lru_cache(maxsize=1024)  # as of square systems
def describe(
    a_shape: tuple[int, ...],
    a_dtype: np.dtype[Any],
    b_shape: tuple[int, ...],
    b_dtype: np.dtype[Any],
) -> Overdetermined:
    """Return the problem that these arrays pose, or raise what tells a person why there is none."""
    dtype = solution_dtype(a=a_dtype, b=b_dtype)  # first: what is no array has no shape
    shapes = f"a has shape {a_shape}, b has shape {b_shape}"
    if len(a_shape) < 2:
        raise ValueError(f"a must be of shape (..., P, N): {shapes}")
    rows, n = a_shape[-2:]
    if n == 0 or rows < n:
        raise ValueError(
            f"a must be of shape (..., P, N) with P ≥ N ≥ 1, at least as many equations as "
            f"unknowns: {shapes}; for fewer equations use numpy.linalg.lstsq, system by system"
        )
    batch_shape, k, vectors = right_hand_sides(a_shape, b_shape, rows="P")
    return Overdetermined(batch_shape, rows, n, k, dtype, vectors)


def lstsq(a: Any, b: Any, weights: Any, options: LstsqOptions, workers: int = 1) -> LeastSquares:
    """Solve a batch held in memory; `dasksolve.lstsq_ex` documents it."""
    threads = thread_count(workers)
    a, b = as_array("a", a), as_array("b", b)
    problem = describe(a.shape, a.dtype, b.shape, b.dtype)
    weights = checked_weights(without_mask(as_weights(weights)), problem)
    return run(a, b, weights, problem, options, threads)


def checked_weights(weights: Any, problem: Overdetermined) -> Any:
    """Refuse weights that are not one for each equation, or that are known to be none."""
    if weights is None:
        return None
    shape, whole = weights.shape, (*problem.batch_shape, problem.rows)
    try:
        fits = np.broadcast_shapes(shape, whole) == whole
    except ValueError:
        fits = False
    if not fits or shape[-1:] != (problem.rows,):
        raise ValueError(
            f"weights must be of shape ({problem.rows},), one for each equation, or broadcast to "
            f"{whole}: they have shape {shape}"
        )
    if weights.dtype.kind not in "biuf":
        raise TypeError(f"weights has dtype {weights.dtype}; real numbers are needed")
    if isinstance(weights, np.ndarray):
        every = weights.ndim == 1  # of all systems: none would be solved
        refuse_unusable(weights, (weights < 0) | (np.isinf(weights) & every))
    return weights


@np.errstate(all="ignore")
def run(
    a: NDArray[Any],
    b: NDArray[Any],
    weights: NDArray[Any] | None,
    problem: Overdetermined,
    options: LstsqOptions,
    threads: int = 1,
) -> LeastSquares:
    """Solve every system; raise nothing."""
    n, k, batch, dtype = problem.n, problem.k, problem.batch_shape, problem.dtype
    real = np.zeros((), dtype).real.dtype
    threshold = options.rcond
    if threshold is None:
        threshold = max(problem.rows, n) * np.finfo(dtype).eps
    columns = b[..., None] if problem.vectors else b
    if k == 0:  # a may be deficient all the same
        columns = np.zeros((*columns.shape[:-1], 1), columns.dtype)
    width = max(k, 1)
    x, rss = np.empty((*batch, n, width), dtype), np.empty((*batch, width), real)
    variances, status = np.empty((*batch, n), real), np.zeros(batch, np.int8)
    rcond, count = np.empty(batch), np.empty(batch)
    weights = np.ones(problem.rows) if weights is None else weights
    roots, shifted, uneven = _roots(weights, dtype)
    kernel = kernels.least_squares(dtype) if status.size else None
    found = (x, rss, variances, rcond, count, status)
    given = [Given(a, 2, dtype), Given(columns, 2, dtype)]
    no_covariance = np.empty((0, n, n), dtype)
    own = roots.ndim > 1
    if own:
        given.append(Given(roots, 1, dtype))

    def solve(a: NDArray[Any], b: NDArray[Any], *arrays: NDArray[Any]) -> None:
        of_rows, *into = arrays if own else (roots[None], *arrays)
        kernel(a, b, of_rows, own, threshold, *into, no_covariance)  # type: ignore[misc]

    if status.size:
        size = PIECE // (problem.rows * (n + width) * dtype.itemsize)
        call(solve, batch, size // LANES * LANES or LANES, given, found, threads)
    nan = undefined(dtype)
    rank = np.where(status == Status.OK, n, 0).astype(np.int32)
    for index in map(tuple, np.argwhere(status == Status.RANK_DEFICIENT)):
        own_b, own_w = _of_batch(columns, 2, batch)[index], _of_batch(roots, 1, batch)[index]
        left = _minimum_norm(_of_batch(a, 2, batch)[index], own_b, own_w, options, x.dtype)
        rank[index] = left[2]
        if options.on_deficient == "lstsq":
            x[index], rss[index] = left[:2]
            if not np.isfinite(left[0]).all():
                x[index], rss[index], rcond[index], rank[index] = nan, np.nan, np.nan, 0
                status[index] = Status.NONFINITE
    if status.size and shifted.any():  # squares beside such roots are lost
        wide, flag = np.dtype(np.float64), np.dtype(np.bool_)
        given = [*given[:2], Given(weights, 1, wide), Given(shifted, 0, flag)]
        call(_sum_squares, batch, size, given, (x, rss))
    answers = LeastSquares(x, status, rcond, rss, rank, count.astype(np.int32))
    if uneven.any():
        where = np.broadcast_to(uneven, batch)
        some = [_of_batch(v, c, batch)[where] for v, c in ((a, 2), (columns, 2), (weights, 1))]
        anew = _in_double(some, replace(problem, k=width), replace(options, rcond=threshold))
        for values, better in zip(answers, anew, strict=True):
            values[where] = better
    if k == 0:
        x, rss = x[..., :0], rss[..., :0]
    if problem.vectors:
        x, rss = x[..., 0], rss[..., 0]
    return answers._replace(x=x, rss=rss)


def _in_double(
    given: list[NDArray[Any]], problem: Overdetermined, options: LstsqOptions
) -> LeastSquares:
    """Some systems of single precision, (M, P, N), solved in double precision."""
    a, b, weights = given
    dtype = np.result_type(problem.dtype, np.float64)
    wide = replace(problem, batch_shape=a.shape[:1], dtype=dtype, vectors=False)
    found = run(a.astype(dtype), b.astype(dtype), weights, wide, options)
    x = found.x.astype(problem.dtype)
    lost = np.isfinite(found.x).all(axis=(1, 2)) & ~np.isfinite(x).all(axis=(1, 2))
    x[lost], found.rss[lost], found.rcond[lost] = undefined(x.dtype), np.nan, np.nan
    found.status[lost], found.rank[lost] = Status.NONFINITE, 0
    return found._replace(x=x)


def _sum_squares(
    a: NDArray[Any],
    b: NDArray[Any],
    weights: NDArray[Any],
    where: NDArray[np.bool_],
    x: NDArray[Any],
    rss: NDArray[Any],
) -> None:
    """Write the weighed squares of the residuals of x, of some systems of single precision.

    The same bits everywhere: products are exact in double precision, sums go row by row.
    """
    wide = np.result_type(a, np.float64)
    a, left, x = a[where].astype(wide), b[where].astype(wide), x[where]
    weights = weights[where]
    missing = np.isnan(a).any(axis=2) | np.isnan(left).any(axis=2) | ~(weights > 0)
    for j in range(a.shape[2]):
        left -= a[:, :, j, None] * x[:, j, None]
    squares = weights[..., None] * (np.square(left.real) + np.square(left.imag))
    squares[missing] = 0
    rss[where] = np.where(np.isnan(x).any(axis=1), np.nan, squares.cumsum(axis=1)[:, -1])


def _of_batch(values: NDArray[Any], core: int, batch: tuple[int, ...]) -> NDArray[Any]:
    return np.broadcast_to(values, (*batch, *values.shape[values.ndim - core :]))


def _roots(
    weights: NDArray[Any], dtype: np.dtype[Any]
) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.bool_]]:
    """Roots of the weights, those of systems where some are beyond dtype's range times a power.

    They are infinite for weights that are negative, which is not finite either. Then: which systems
    that brings into range, and which have some that stay out of it.
    """
    info = np.finfo(dtype)
    roots = np.where(weights < 0, np.inf, np.sqrt(weights, dtype=np.float64))
    known = np.isfinite(roots) & (roots != 0)
    beyond = (known & ((roots < info.tiny) | (roots > info.max))).any(axis=-1)
    if beyond.any():
        size = np.where(known, roots, 0).max(axis=-1)
        powers = np.where(beyond, np.frexp(size)[1], 0).astype(np.intc)
        roots = np.ldexp(roots, -powers[..., None])
    uneven = beyond & (known & (roots < info.tiny)).any(axis=-1)
    return roots.astype(dtype), beyond & ~uneven, uneven


def _minimum_norm(
    a: NDArray[Any],
    b: NDArray[Any],
    roots: NDArray[Any],
    options: LstsqOptions,
    dtype: np.dtype[Any],
) -> tuple[NDArray[Any], NDArray[Any], int]:
    """The shortest solution of one system, the squares of its residuals, and the rank."""
    wide = np.result_type(dtype, np.float64)
    a, b, roots = (values.astype(wide) for values in (a, b, roots))
    known = ~(np.isnan(a).any(axis=1) | np.isnan(b).any(axis=1) | np.isnan(roots) | (roots == 0))
    if not known.any():
        return np.zeros((a.shape[1], b.shape[1])), np.zeros(b.shape[1]), 0
    (a, of_a), (b, of_b), (roots, of_roots) = map(_scaled, (a[known], b[known], roots[known].real))
    a, b = a * roots[:, None], b * roots[:, None]
    x, _, rank, _ = np.linalg.lstsq(a, b, rcond=options.rcond)
    rss = (np.abs(b - a @ x) ** 2).sum(axis=0)
    x = _shifted(x, of_b - of_a).astype(dtype)
    return x, np.ldexp(rss, 2 * (of_b + of_roots)), int(rank)


def _scaled(values: NDArray[Any]) -> tuple[NDArray[Any], int]:
    """Numbers times the power of two that brings the largest below 1, and its exponent."""
    exponent = int(np.frexp(np.fmax(abs(values.real), abs(values.imag)).max(initial=0))[1])
    return _shifted(values, -exponent), exponent


def _shifted(values: NDArray[Any], power: int) -> NDArray[Any]:
    """Numbers, which may be complex, times a power of two."""
    if values.dtype.kind != "c":
        return np.ldexp(values, power)
    return np.ldexp(values.real, power) + 1j * np.ldexp(values.imag, power)
