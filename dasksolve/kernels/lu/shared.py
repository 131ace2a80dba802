"""LU with partial pivoting of small matrices, each for many right-hand sides."""

from dasksolve.kernels.lu import fixed
from dasksolve.kernels.regimes import shared


def order(column, factors):
    """Put rows in the order of the pivots."""
    _, swaps = factors
    fixed.permute(column, 0, swaps)


def substitute(column, t, n):
    """Overwrite b, whose rows are in that order, by x."""
    fixed.advance(column, t, 0, range(n), n)
    fixed.retreat(column, t, 0, n)


METHOD = shared.Method(fixed.METHOD, substitute, order)


def kernel(n, vectors=False):
    """The kernel for systems of order n, at most a panel."""
    return shared.kernel(METHOD, n, vectors)
