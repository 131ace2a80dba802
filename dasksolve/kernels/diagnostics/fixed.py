"""Diagnostics of small systems, one in each lane, every element of them by itself."""

from functools import reduce

import numpy as np

from dasksolve.kernels.diagnostics.condition import larger, modulus
from dasksolve.kernels.diagnostics.norms import quick_modulus, safe_range
from dasksolve.kernels.language.control import Variable
from dasksolve.kernels.language.lanes import inner, where


def added(x, y):
    """x + y, where x may be nothing."""
    return y if x is None else x + y


def norms(matrix, n):
    """‖A‖₁ and ‖A‖∞ of the elements matrix(i, j)."""
    rows, columns = [None] * n, [None] * n
    for i in range(n):
        for j in range(n):
            size = quick_modulus(matrix(i, j))
            rows[i], columns[j] = added(rows[i], size), added(columns[j], size)
    return reduce(larger, columns), reduce(larger, rows)


def inverse_norm(factors, n):
    """‖U⁻¹ L⁻¹‖₁, column after column; to permute them would leave it."""
    t, _ = factors
    sizes = []
    for j in range(n):
        column = {j: t[0, 0].fill(1)}
        for i in range(j + 1, n):
            known = range(j, i)
            column[i] = -inner([t[i, k] for k in known], [column[k] for k in known])
        for i in reversed(range(n)):
            known = range(i + 1, n)
            if known:
                products = inner([t[i, k] for k in known], [column[k] for k in known])
                column[i] = column[i] - products if i in column else -products
            column[i] = column[i] * t[i, i]
        sizes.append(reduce(added, map(modulus, column.values())))
    return reduce(larger, sizes)


def within(x, low, high):
    """Where low ≤ x ≤ high."""
    return (x >= x.fill(low)) & (x <= x.fill(high))


class Diagnosis:
    """What is known of the systems of matrix(i, j)."""

    def __init__(self, matrix, n, lanes):
        self.matrix, self.range = matrix, safe_range(lanes)
        self.norms = norms(matrix, n)
        self.worst = Variable(self.norms[0].fill(0))

    def compare(self, b, x):
        """Take into account ‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞), or NaN where that is out of range."""
        products = [inner([self.matrix(i, j) for j in range(len(x))], x) for i in range(len(x))]
        rests = [product - right for product, right in zip(products, b, strict=True)]
        rest, of_x, of_b = (reduce(larger, map(modulus, vector)) for vector in (rests, x, b))
        zero, scale = rest.fill(0), self.norms[1] * of_x + of_b
        error = where(within(scale, *self.range), rest / scale, rest.fill(np.nan))
        error = where((of_x == zero) & (of_b == zero), zero, error)
        self.worst.set(larger(self.worst.get(), error))

    def found(self, inverse):
        """1 / (‖A‖₁ ‖A⁻¹‖₁) and the largest backward error; NaN where ‖A‖ is out of range."""
        one, infinity = self.norms
        reciprocal, known = one.fill(1) / one / inverse, within(infinity, *self.range)
        return (where(known, x, one.fill(np.nan)) for x in (reciprocal, self.worst.get()))
