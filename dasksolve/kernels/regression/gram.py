"""The small systems that the sums over the observations of a tile of series make.

In the basis of the design's orthonormal columns q, with the weights w, 0 where nothing is known:

    G = Σ w q qᵀ,  b = Σ w q y,  c = G⁻¹ b,  r = y - q c,  c ← c + G⁻¹ Σ w q r,  coef = R⁻¹ c
"""

from typing import Any, NamedTuple

import numpy as np

from dasksolve.kernels.diagnostics.verdicts import finfo
from dasksolve.kernels.language.control import Variable
from dasksolve.kernels.language.lanes import any_lane, fma, fnma, inner

# What a pivot of G must keep of its diagonal: less, and stderr loses digits.
KEPT = {"float": 1e-2, "double": 1e-5}


def pairs(n):
    """The elements of a symmetric matrix that are computed."""
    return [(i, j) for i in range(n) for j in range(i + 1)]


class Basis:
    """The constants of a design of n columns: R, R⁻¹, the ridge, units; as `packed` packs them."""

    def __init__(self, array, n):
        self.array, self.n = array, n

    def _number(self, row, column):
        return self.array.load(row * self.n + column, 1).lane(0)

    def triangle(self, i, j):
        return self._number(i, j)

    def inverse(self, i, j):
        return self._number(self.n + i, j)

    def ridge(self, i, j):
        return self._number(2 * self.n + i, j)

    def unit(self, i):
        return self._number(3 * self.n, i)

    def reciprocal(self, i):
        return self._number(3 * self.n + 1, i)


class Factors(NamedTuple):
    """G = L D Lᵀ, with ones on the diagonal of L."""

    lower: dict[Any, Any]
    """L."""
    inverse: dict[Any, Any]
    """L⁻¹."""
    pivots: list[Any]
    """D."""
    reciprocals: list[Any]
    """1 / D."""
    safe: Any
    """Where it is safe to go on with them."""


def factored(g, n):
    """The factors of G; no square roots: they would take a fifth of the time."""
    u: dict[Any, Any] = {}
    lower: dict[Any, Any] = {}
    pivots, reciprocals = [], []
    info = finfo(g[0, 0])
    kept = KEPT[str(g[0, 0].value.type.element)]
    low, high = np.sqrt(info.tiny) / info.eps, np.sqrt(info.max) * info.eps
    safe = g[0, 0] == g[0, 0]
    for j in range(n):
        for i in range(j, n):
            u[i, j] = g[i, j]
            for k in range(j):
                u[i, j] = fnma(u[i, k], lower[j, k], u[i, j])
        pivot, size = u[j, j], g[j, j]
        safe = safe & (pivot > size * size.fill(kept))
        safe = safe & (size > size.fill(low)) & (size < size.fill(high))
        pivots.append(pivot)
        reciprocals.append(pivot.fill(1) / pivot)
        for i in range(j + 1, n):
            lower[i, j] = u[i, j] * reciprocals[j]
    return Factors(lower, inverted(lower, n), pivots, reciprocals, safe)


def inverted(lower, n):
    """L⁻¹."""
    z: dict[Any, Any] = {}
    for k in range(n):
        for i in range(k + 1, n):
            total = lower[i, k]
            for j in range(k + 1, i):
                total = fma(lower[i, j], z[j, k], total)
            z[i, k] = -total
    return z


def solved(factors, b, n):
    """G⁻¹ b."""
    z, x = factors.inverse, list(b)
    for i in range(n):
        for k in range(i):
            x[i] = fma(z[i, k], b[k], x[i])
    x = [half * reciprocal for half, reciprocal in zip(x, factors.reciprocals, strict=True)]
    for k in range(n):
        for i in range(k + 1, n):
            x[k] = fma(z[i, k], x[i], x[k])
    return x


def spread(basis, factors, n):
    """R⁻¹ L⁻ᵀ; the diagonal of (XᵀWX)⁻¹; the sum of its products with that of XᵀWX."""
    like, z, lower = factors.pivots[0], factors.inverse, factors.lower
    s, variances, inflation = {}, [], like.fill(0)
    for j in range(n):
        variance, length = like.fill(0), like.fill(0)
        for i in range(j, n):
            s[j, i] = like.fill(basis.inverse(j, i))
            for k in range(j, i):
                s[j, i] = fma(like.fill(basis.inverse(j, k)), z[i, k], s[j, i])
            variance = fma(s[j, i] * s[j, i], factors.reciprocals[i], variance)
        for i in range(j + 1):
            x = like.fill(basis.triangle(i, j))
            for k in range(i + 1, j + 1):
                x = fma(lower[k, i], like.fill(basis.triangle(k, j)), x)
            length = fma(x * x, factors.pivots[i], length)
        variances.append(variance)
        inflation = fma(length, variance, inflation)
    return s, variances, inflation


def shrink(basis, x, n):
    """The ridge's matrix times x; without a ridge no product is taken."""
    zero = x[0].fill(0)
    found = [Variable(zero) for _ in x]
    trace = sum((zero.fill(basis.ridge(i, i)) for i in range(n)), zero)
    with zero.builder.if_then(any_lane(trace != zero).value):
        for i, product in enumerate(found):
            product.set(inner([zero.fill(basis.ridge(i, k)) for k in range(n)], x))
    return [product.get() for product in found]
