"""Substitution in small triangular systems."""

from functools import partial

from dasksolve.kernels.diagnostics.verdicts import judge, rejecting_triangle
from dasksolve.kernels.language.lanes import conjugate, magnitude, reciprocal
from dasksolve.kernels.regimes import fixed
from dasksolve.kernels.triangular import triangles


def invert_diagonal(matrices, flaw, between):
    """Replace the diagonal by its reciprocals: that is all."""
    _, _, t, n, *_ = matrices
    for i in range(n):
        between(i)
        flaw = judge(flaw, magnitude(t[i, i]))
        t[i, i] = reciprocal(t[i, i])
    return flaw, t


def forward(column, t, n):
    """Solve with the lower triangle, of which t holds the conjugate."""
    triangles.forward(column, t, n, lambda x, inverse: x * conjugate(inverse))


def kernel(n, lower):
    """The kernel for lower or upper triangles of order n."""
    read = partial(fixed.read_triangle, lower=lower)
    substitute = forward if lower else triangles.backward
    name, reject = f"triangular.{lower}", rejecting_triangle(lower)
    method = fixed.Method(name, read, invert_diagonal, substitute, reject, together=0)
    return fixed.kernel(method, n)
