"""Regressions of the few series that the fast kernel does not trust itself with.

Too ill-conditioned, too few observations, numbers that over- or underflow, or not finite: they are
scaled by powers of two and solved in double precision, each with its own design (`lstsq`'s kernel).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels
from dasksolve.batch.fit import Fit
from dasksolve.status import Status

Floats = NDArray[np.float64]


class Series(NamedTuple):
    """Some series (M, P), and their weights (M, P) or (P,)."""

    y: NDArray[Any]
    weights: NDArray[Any]


@dataclass(frozen=True)
class Answer:
    """As `dasksolve.Regression`, over (M,)."""

    coef: Floats
    stderr: Floats
    rss: Floats
    count: NDArray[np.intp]
    rcond: Floats
    status: NDArray[np.int8]
    covariance: Floats | None


class Scaled(NamedTuple):
    """Series with their powers of two taken out."""

    y: Floats
    """(M, P), 0 where it is missing."""
    roots: Floats
    """(M, P) of the weights, 0 where an observation is missing."""
    size: NDArray[np.intp]
    """(M, 1): the exponents of y."""
    weight: NDArray[np.intp]
    """(M, 1): the exponents of the roots."""
    finite: NDArray[np.bool_]
    """(M,)."""


def solve_carefully(series: Series, fit: Fit) -> Answer:
    """Fit each series."""
    return _solved(_scaled(series), fit)


def _scaled(series: Series) -> Scaled:
    y = series.y.astype(np.float64)
    w = np.broadcast_to(series.weights, y.shape).astype(np.float64)
    known = ~(np.isnan(y) | np.isnan(w) | (w == 0))
    y, w = np.where(known, y, 0.0), np.where(known, w, 0.0)
    finite = (np.isfinite(y) & np.isfinite(w) & (w >= 0)).all(axis=1)
    y, w = (np.where(finite[:, None], v, 0.0 if v is y else known) for v in (y, w))
    roots = np.sqrt(w)
    size = np.frexp(np.abs(y).max(axis=1, keepdims=True))[1]
    most = roots.max(axis=1, keepdims=True)
    least = np.where(roots > 0, roots, most).min(axis=1, keepdims=True)
    weight, least = np.frexp(most)[1], np.frexp(least)[1]
    apart = weight - least  # so far that squares of the least would not be in range
    weight = weight - np.where(apart > 400, np.minimum(apart // 2, 500), 0)
    return Scaled(np.ldexp(y, -size), np.ldexp(roots, -weight), size, weight, finite)


def _rows(scaled: Scaled, fit: Fit) -> tuple[Floats, Floats, Floats]:
    """Design, observations and roots of the weights of each series, with rows for the ridge.

    Only as many rows as the longest series has: those that are missing would add zeros to all sums.
    """
    known = scaled.roots > 0
    kept = np.argsort(~known, axis=1, kind="stable")[:, : max(1, known.sum(axis=1).max())]
    y, roots = (np.take_along_axis(v, kept, axis=1) for v in (scaled.y, scaled.roots))
    design = np.ldexp(fit.design, -fit.basis.exponents)[kept]
    if fit.basis.ridge.any():
        ridge = np.broadcast_to(np.diag(fit.basis.ridge), (len(y), fit.n, fit.n))
        design = np.concatenate([design, ridge], axis=1)
        y = np.pad(y, ((0, 0), (0, fit.n)))
        ones = np.ldexp(np.ones((len(y), fit.n)), -scaled.weight)
        roots = np.concatenate([roots, ones], axis=1)
    return np.ascontiguousarray(design), np.ascontiguousarray(y), np.ascontiguousarray(roots)


def _solved(scaled: Scaled, fit: Fit) -> Answer:
    design, y, roots = _rows(scaled, fit)
    count = (scaled.roots > 0).sum(axis=1)
    series, n = len(y), fit.n
    x, rss, variances = np.empty((series, n, 1)), np.empty((series, 1)), np.empty((series, n))
    rcond, counted = np.empty((2, series))
    status = np.empty(series, np.int8)
    covariance = np.empty((series if fit.covariance else 0, n, n))
    found = x, rss, variances, rcond, counted, status, covariance
    kernels.least_squares(np.dtype(float))(design, y[..., None], roots, True, fit.threshold, *found)
    rcond = np.nan_to_num(rcond, nan=0.0)
    rows = count + np.count_nonzero(fit.basis.ridge)
    status[(status == Status.PENDING) | (rows < n)] = Status.RANK_DEFICIENT
    few = count < fit.min_count
    if fit.on_deficient == "lstsq":
        few &= scaled.finite  # the others have no shortest answer
    status[~scaled.finite] = Status.NONFINITE
    status[few] = Status.TOO_FEW
    coef = x[..., 0]
    deficient = (status == Status.RANK_DEFICIENT) | (status == Status.TOO_FEW)
    if fit.on_deficient == "lstsq":
        for m in np.flatnonzero(deficient).tolist():
            coef[m], rss[m] = _minimum_norm(scaled, fit, m)
    residual = rss[:, 0] - ((np.ldexp(fit.basis.ridge, -scaled.weight) * coef) ** 2).sum(axis=1)
    residual = np.maximum(residual, 0.0)
    freedom = count - n
    noise = np.where(freedom > 0, residual / np.maximum(freedom, 1), np.nan)
    exponents = scaled.size - fit.basis.exponents
    coef = np.ldexp(coef, exponents) + 0.0
    stderr = np.ldexp(np.sqrt(variances * noise[:, None]), exponents)
    residual = np.ldexp(residual, 2 * (scaled.size + scaled.weight)[:, 0])
    overflown = (status == Status.OK) & ~np.isfinite(coef.astype(fit.dtype)).all(axis=1)
    status[overflown] = Status.NONFINITE
    lost = (status != Status.OK) & ~(deficient & (fit.on_deficient == "lstsq"))
    coef[lost], residual[lost] = np.nan, np.nan
    unsure = status != Status.OK
    stderr[unsure] = np.nan
    rcond[(status == Status.NONFINITE) | (status == Status.TOO_FEW)] = np.nan
    if not fit.covariance:
        return Answer(coef, stderr, residual, count, rcond, status, None)
    covariance *= noise[:, None, None]
    covariance = np.ldexp(covariance, exponents[:, :, None] + exponents[:, None, :])
    covariance[unsure] = np.nan
    return Answer(coef, stderr, residual, count, rcond, status, covariance)


def _minimum_norm(scaled: Scaled, fit: Fit, m: int) -> tuple[Floats, float]:
    """The shortest solution of series m, in units of the scaled columns, and its residual."""
    exponents, known = fit.basis.exponents, scaled.roots[m] > 0
    if not known.any():
        return np.zeros(fit.n), 0.0
    roots = scaled.roots[m][known]
    design, y = fit.design[known] * roots[:, None], scaled.y[m][known] * roots
    if fit.basis.ridge.any():
        ridge = np.ldexp(fit.basis.ridge, exponents - scaled.weight[m])
        design = np.concatenate([design, np.diag(ridge)])
        y = np.pad(y, (0, fit.n))
    coef = np.linalg.lstsq(design, y, rcond=fit.rcond)[0]
    return np.ldexp(coef, exponents), float(((y - design @ coef) ** 2).sum())
