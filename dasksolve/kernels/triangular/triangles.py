"""Substitution in a row of unknowns, whose right-hand sides it overwrites.

The triangle is that of t = conj(L), or of t = Uᵀ where L = Uᴴ; t[c, c] is the reciprocal of what
is on the diagonal. The products are subtracted one at a time, each rounded once.
"""

import operator

from dasksolve.kernels.language.lanes import conjugate, fnma


def minus(z, x, y):
    """z - x conj(y)."""
    return fnma(x, conjugate(y), z)


def forward(row, t, n, times=operator.mul):
    """Solve with L: first to last."""
    for c in range(n):
        for k in range(c):
            row[c] = minus(row[c], row[k], t[c, k])
        row[c] = times(row[c], t[c, c])


def backward(row, t, n, times=operator.mul):
    """Solve with Lᴴ: last to first."""
    for c in reversed(range(n)):
        for k in reversed(range(c + 1, n)):
            row[c] = minus(row[c], row[k], conjugate(t[k, c]))
        row[c] = times(row[c], t[c, c])
