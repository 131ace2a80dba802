"""Division by the diagonal of small matrices."""

from functools import partial

from dasksolve.kernels.diagnostics.verdicts import rejecting
from dasksolve.kernels.regimes import fixed
from dasksolve.kernels.triangular.fixed import invert_diagonal


def divide(column, t, n):
    """Divide the unknowns by the diagonal of t, which holds reciprocals."""
    for i in range(n):
        column[i] = column[i] * t[i, i]


READ = partial(fixed.read_triangle, lower=False)
METHOD = fixed.Method("diagonal", READ, invert_diagonal, divide, rejecting(0, 0), together=0)


def kernel(n):
    """The kernel for systems of order n."""
    return fixed.kernel(METHOD, n)
