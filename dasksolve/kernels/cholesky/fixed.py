"""Cholesky of small systems, whose tile holds Aᵀ, then Uᵀ."""

from functools import partial

from dasksolve.kernels.diagnostics.verdicts import judge_positive, rejecting_triangle
from dasksolve.kernels.language.lanes import real_part, reciprocal, scaled, square_root
from dasksolve.kernels.language.values import Pair
from dasksolve.kernels.regimes import fixed
from dasksolve.kernels.triangular.triangles import backward, forward, minus


def factor_triangle(t, n, flaw, between=lambda c: None):
    """Overwrite the lower triangle of t = Aᵀ by that of Uᵀ; its diagonal by the reciprocals."""
    for c in range(n):
        between(c)
        column = {i: t[i, c] for i in range(c, n)}
        for i in column:
            for k in range(c):
                column[i] = minus(column[i], t[i, k], t[c, k])
        pivot = real_part(column[c])
        flaw = judge_positive(flaw, pivot)
        inverse = reciprocal(square_root(pivot))
        for i in range(c + 1, n):
            t[i, c] = scaled(column[i], inverse)
        t[c, c] = Pair(inverse, inverse.fill(0)) if isinstance(column[c], Pair) else inverse
    return flaw


def factor(matrices, flaw, between):
    """The factor stands in the tile."""
    return factor_triangle(matrices.t, matrices.n, flaw, between), matrices.t


def substitute(column, t, n):
    """Overwrite b by x."""
    forward(column, t, n, scaled)
    backward(column, t, n, scaled)


def kernel(n, lower, vectors=False):
    """The kernel for systems of order n, of which the lower or the upper triangle is read."""
    read = partial(fixed.read_triangle, lower=lower)
    name, reject = f"cholesky.{lower}", rejecting_triangle(lower, True)
    return fixed.kernel(fixed.Method(name, read, factor, substitute, reject), n, vectors)
