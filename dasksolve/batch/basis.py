"""An orthonormal basis of a design, computed once in twice the precision of double."""

from functools import lru_cache
from math import fsum
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from dasksolve import kernels

Floats = NDArray[np.float64]
Double = tuple[Floats, Floats]
"""Numbers as unevaluated sums: what was rounded, and what rounding left (Dekker, 1971)."""


class Basis(NamedTuple):
    """A design X = Q R 2^exponents, with R upper triangular and rows for its ridge below."""

    q: Floats
    """(P, N): orthonormal columns, together with the rows of the ridge."""
    shrinkage: Floats
    """(N, N): QᵀQ of the rows of the ridge."""
    exponents: NDArray[np.intp]
    """(N,): the powers of two that bring the columns to a common size."""
    ridge: Floats
    """(N,): roots of the ridge, in units of the scaled columns."""
    rcond: float
    """Of the columns scaled to one length; 0 where they depend on each other exactly."""
    packed: Floats
    """R, R⁻¹, the shrinkage, the units of the coefficients and the reciprocals of R's diagonal."""


def orthogonalized(design: Floats, ridge: Floats) -> Basis:
    """The basis of a design (P, N) with the ridge (N,)."""
    return _orthogonalized(design.tobytes(), design.shape, ridge.tobytes())


@lru_cache(maxsize=16)  # 2 ms: the blocks of an array come one after the other
@np.errstate(all="ignore")
def _orthogonalized(numbers: bytes, shape: tuple[int, int], of_ridge: bytes) -> Basis:
    design, ridge = np.frombuffer(numbers).reshape(shape), np.frombuffer(of_ridge)
    size = np.maximum(np.abs(design).max(axis=0, initial=0.0), np.sqrt(ridge))
    exponents = np.where(size > 0, np.frexp(size)[1], 0)
    scaled, roots = np.ldexp(design, -exponents), np.ldexp(np.sqrt(ridge), -exponents)
    q, r = _factored(np.concatenate([scaled, np.diag(roots)]))
    inverse = _inverted(r)
    lengths, variances = (r**2).sum(axis=0), (inverse**2).sum(axis=1)
    rcond = 1 / np.sqrt((lengths * variances).mean())
    below = q[len(design) :]
    shrinkage = np.zeros_like(r)
    for row in below:  # not as a product: BLAS has other bits on other processors
        shrinkage += row[:, None] * row
    units, reciprocals = np.ldexp(1.0, -exponents), 1 / np.diag(r)
    return Basis(
        np.ascontiguousarray(q[: len(design)]),
        shrinkage,
        exponents,
        roots,
        float(np.nan_to_num(rcond, nan=0.0)),
        np.concatenate([r.ravel(), inverse.ravel(), shrinkage.ravel(), units, reciprocals]),
    )


def table(basis: Basis, dtype: np.dtype[Any], rows: slice = slice(None)) -> NDArray[Any]:
    """The rows of Q, and then for each of them the products of each two of its elements.

    Rows of zeros fill the last block of those that the kernels take at once, zeros the last vector
    of each row of products, and there is a row to spare, since they read beyond.
    """
    q = basis.q[rows]
    return _table(q.tobytes(), q.shape, dtype)


@lru_cache(maxsize=16)
@np.errstate(all="ignore")
def _table(numbers: bytes, shape: tuple[int, int], dtype: np.dtype[Any]) -> NDArray[Any]:
    q = np.frombuffer(numbers).reshape(shape)
    q = np.pad(q, ((0, -len(q) % kernels.BLOCK), (0, 0)))
    i, j = np.tril_indices(shape[1])
    products = np.zeros((len(q) + 1, kernels.row_length(shape[1], dtype)))
    products[:-1, : len(i)] = q[:, i] * q[:, j]
    return np.concatenate([q.ravel(), products.ravel()]).astype(dtype)


def _factored(x: Floats) -> tuple[Floats, Floats]:
    """Q and R by modified Gram-Schmidt: what it loses of orthogonality is below double's eps."""
    n = x.shape[1]
    q, r = np.zeros_like(x), np.zeros((n, n))
    rest: Double = (x.copy(), np.zeros_like(x))
    for k in range(n):
        column = rest[0][:, :1], rest[1][:, :1]
        rest = rest[0][:, 1:], rest[1][:, 1:]
        length = _root(_sum(_times(column, column)))
        r[k, k] = length[0][0]
        if r[k, k] == 0:
            continue
        unit = _over(column, length)
        share = _sum(_times(unit, rest))
        rest = _plus(rest, _times(unit, (-share[0], -share[1])))
        q[:, k], r[k, k + 1 :] = unit[0][:, 0], share[0]
    return q, r


def _inverted(r: Floats) -> Floats:
    """The inverse of an upper triangular matrix, not finite where it has none."""
    n = len(r)
    inverse = np.zeros_like(r)
    for i in reversed(range(n)):
        inverse[i] = -(r[i, i + 1 :, None] * inverse[i + 1 :]).sum(axis=0)
        inverse[i, i] += 1
        inverse[i] /= r[i, i]
    return inverse


def _two_sum(a: Floats, b: Floats) -> Double:
    total = a + b
    part = total - a
    return total, (a - (total - part)) + (b - part)


def _two_product(a: Floats, b: Floats) -> Double:
    product = a * b
    (a_high, a_low), (b_high, b_low) = _halves(a), _halves(b)
    error = ((a_high * b_high - product) + a_high * b_low + a_low * b_high) + a_low * b_low
    return product, error


def _halves(a: Floats) -> Double:
    large = a * 134217729.0  # 2^27 + 1
    high = large - (large - a)
    return high, a - high


def _plus(x: Double, y: Double) -> Double:
    high, error = _two_sum(x[0], y[0])
    low, rest = _two_sum(x[1], y[1])
    high, low = _two_sum(high, error + low)
    return _two_sum(high, low + rest)


def _times(x: Double, y: Double) -> Double:
    product, error = _two_product(x[0], y[0])
    return _two_sum(product, error + (x[0] * y[1] + x[1] * y[0]))


def _over(x: Double, y: Double) -> Double:
    first = x[0] / y[0]
    negative = -first
    rest = _plus(x, _times(y, (negative, np.zeros_like(negative))))
    return _two_sum(first, rest[0] / y[0])


def _root(x: Double) -> Double:
    root = np.sqrt(x[0])
    rest = _plus(x, _times((root, np.zeros_like(root)), (-root, np.zeros_like(root))))
    return _two_sum(root, np.where(root > 0, rest[0] / (2 * root), 0.0))


def _sum(x: Double) -> Double:
    """Down the first axis, rounded once for each of the two parts."""
    totals = []
    for column in np.concatenate(x).T.tolist():
        total = fsum(column)
        totals.append((total, fsum([*column, -total])))
    high, low = np.array(totals, np.float64).reshape(-1, 2).T
    return high, low
