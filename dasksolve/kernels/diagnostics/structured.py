"""Backward errors of structured matrices, read as they stand: quick, and right to rounding.

`check` looks at them, to which the order of a sum makes no difference; those that are stored come
from `errors`.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import jit

SMALLEST, LARGEST = 1e-280, 1e300
"""Of ‖A‖‖x‖ + ‖b‖: beyond, what it is made of may have been lost."""


def errors(a, b, x, below, above, mirrored, hermitian, backward_error):
    """Fill in the backward error of every x[m], of all columns the largest; NaN: out of range.

    below, above: how many diagonals are read there; mirrored: 1 where what is above the diagonal
    stands for what is below, too, -1 the other way round, else 0; hermitian: conjugated.
    """
    n, columns = x.shape[1], x.shape[2]
    for m in range(len(a)):
        worst = 0.0
        for k in range(columns):
            of_a, of_x, of_b, of_r, lost = 0.0, 0.0, 0.0, 0.0, 0.0
            for i in range(n):
                rest, size = b[m, i, k] * 1.0, 0.0
                for j in range(max(0, i - below), min(n, i + above + 1)):
                    element = (a[m, j, i] if mirrored * (j - i) < 0 else a[m, i, j]) * 1.0
                    if hermitian and mirrored * (j - i) <= 0:
                        element = (element + np.conj(element)) / 2 if i == j else np.conj(element)
                    rest -= element * x[m, j, k]
                    size += abs(element)
                left = abs(rest)
                lost += 0 * left
                of_a, of_r = max(of_a, size), max(of_r, left)
                of_x, of_b = max(of_x, abs(x[m, i, k] * 1.0)), max(of_b, abs(b[m, i, k] * 1.0))
            whole = of_a * of_x + of_b
            sound = lost == 0 and SMALLEST < whole < LARGEST
            worst = max(worst, of_r / whole) if sound else np.inf
        backward_error[m] = worst if worst < np.inf else np.nan


def kernel(_):
    """The kernel ``errors(a, b, x, below, above, mirrored, hermitian, backward_error)``."""
    return jit(errors)
