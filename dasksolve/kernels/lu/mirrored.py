"""Symmetric systems that need not be definite: the general kernel on a mirrored triangle.

A factorization that keeps the symmetry (LAPACK's sysv) halves the operations but not the search
for pivots, nor the swaps of rows and of columns.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np

from dasksolve.kernels.compiling.jit import jit


def copy(order, lower, hermitian):
    """What copies the triangle of each matrix to both of another; of this order, or 0: of any."""

    @jit
    def mirror(a, full):
        n = order if order else a.shape[1]
        for m in range(len(a)):
            for i in range(n):
                for j in range(i):
                    x = a[m, i, j] if lower else a[m, j, i]
                    y = x.conjugate() if hermitian else x
                    full[m, i, j], full[m, j, i] = (x, y) if lower else (y, x)
                full[m, i, i] = a[m, i, i].real if hermitian else a[m, i, i]

    return mirror


@cache
def kernel(mirror: Callable[..., Any], general: Callable[..., Any]) -> Callable[..., None]:
    """The kernel that solves mirrored copies by one for general systems."""

    def solve(a: Any, b: Any, x: Any, status: Any) -> None:
        full = np.empty_like(a)
        mirror(a, full)
        general(full, b, x, status)

    return solve
