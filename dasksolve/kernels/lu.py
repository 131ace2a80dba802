"""LU with partial pivoting, one system at a time, in plain loops: any order, any dtype."""

import numpy as np

from dasksolve.kernels.jit import jit
from dasksolve.status import Status

OK, SINGULAR, NONFINITE = int(Status.OK), int(Status.SINGULAR), int(Status.NONFINITE)


@jit
def magnitude(z):
    return abs(z.real) + abs(z.imag)  # as LAPACK's izamax: cheaper than the modulus


@jit
def finite(values):
    total = magnitude(values.flat[0] * 0)
    for value in values.flat:
        total += magnitude(value * 0)
    return total == 0


@jit
def factor(a, b):
    """Overwrite a by L and U, b by L⁻¹Pb; return the status."""
    n, columns = b.shape
    for k in range(n):
        p, largest = k, magnitude(a[k, k])
        for i in range(k + 1, n):
            if magnitude(a[i, k]) > largest:
                p, largest = i, magnitude(a[i, k])
        if largest == 0:
            return SINGULAR
        if not largest < np.inf:
            return NONFINITE
        for j in range(k, n):
            a[k, j], a[p, j] = a[p, j], a[k, j]
        for j in range(columns):
            b[k, j], b[p, j] = b[p, j], b[k, j]
        for i in range(k + 1, n):
            multiplier = a[i, k] / a[k, k]
            for j in range(k + 1, n):
                a[i, j] -= multiplier * a[k, j]
            for j in range(columns):
                b[i, j] -= multiplier * b[k, j]
    return OK


@jit
def substitute(u, x):
    """Overwrite x by U⁻¹x."""
    n, columns = x.shape
    for k in range(n - 1, -1, -1):
        for j in range(columns):
            x[k, j] /= u[k, k]
            for i in range(k):
                x[i, j] -= u[i, k] * x[k, j]


@jit
def solve(a, b, x, status):
    """Solve a[m] x[m] = b[m] for every m; a (M, N, N), b and x (M, N, K), status (M,)."""
    lu = np.empty(a.shape[1:], a.dtype)
    for m in range(a.shape[0]):
        if not (finite(a[m]) and finite(b[m])):
            status[m] = NONFINITE
        else:
            lu[:] = a[m]
            x[m] = b[m]
            status[m] = factor(lu, x[m])
        if status[m] == OK:
            substitute(lu, x[m])
            if not finite(x[m]):
                status[m] = NONFINITE
        if status[m] != OK:
            x[m] = np.nan
