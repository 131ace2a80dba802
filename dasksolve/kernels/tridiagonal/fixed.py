"""Small tridiagonal systems, in registers."""

from dasksolve.kernels.diagnostics.verdicts import judge, rejecting
from dasksolve.kernels.language.lanes import fnma, magnitude, reciprocal
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.regimes import fixed
from dasksolve.kernels.tridiagonal.interleaved import take_right, take_row

MOST = 12
"""The largest N: all of a matrix is read, which beyond takes longer than its diagonals."""


def read(matrices, between):
    """Put three diagonals in t."""
    a, systems, t, n, *_ = matrices
    for e, x in enumerate(deal(a, [s * (n * n) for s in systems], n * n, between)):
        i, j = divmod(e, n)
        if abs(i - j) <= 1:
            t[i, j] = x


def factor(matrices, flaw, between):
    """The factors are the rows of U with their multipliers."""
    _, _, t, n, *_ = matrices
    zero, rows = t[0, 0].fill(0), {}
    pivot, right = t[0, 0], t.get((0, 1), zero)
    for i in range(n - 1):
        between(i)
        below = (t[i + 1, j] if j < n else zero for j in range(i, i + 3))
        swapped, top, *row, pivot, right = take_row(pivot, right, *below)
        flaw, rows[i] = judge(flaw, top), (swapped, *row)
    between(n - 1)
    rows[n - 1] = (None, None, zero, reciprocal(pivot), zero)
    return judge(flaw, magnitude(pivot)), rows


def substitute(column, rows, n):
    """Overwrite b by x."""
    for i in range(n - 1):
        column[i], column[i + 1] = take_right(*rows[i][:2], column[i], column[i + 1])
    for i in reversed(range(n)):
        *_, beyond, inverse, beside = rows[i]
        if i < n - 1:
            column[i] = fnma(beside, column[i + 1], column[i])
        if i < n - 2:
            column[i] = fnma(beyond, column[i + 2], column[i])
        column[i] = column[i] * inverse


METHOD = fixed.Method(
    "tridiagonal", read, factor, substitute, rejecting(1, 1), in_registers=MOST, at_once=MOST
)


def kernel(n, vectors=False):
    """The kernel for systems of order n."""
    method = METHOD._replace(together=0) if FEW_REGISTERS and vectors else METHOD
    return fixed.kernel(method, n, vectors)
