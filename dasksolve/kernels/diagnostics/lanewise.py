"""Diagnostics of systems, one in each lane, of an order known while compiling.

They have the bits of `norms`, which adds up what stands in the lanes of a system's vectors, and of
`condition`.
"""

from functools import reduce

import numpy as np

from dasksolve.kernels.diagnostics.condition import (
    TRIALS,
    direction,
    larger,
    modulus,
    rough_modulus,
    trial,
    trial_norm,
)
from dasksolve.kernels.diagnostics.fixed import added, within
from dasksolve.kernels.diagnostics.norms import lanes as norm_lanes
from dasksolve.kernels.diagnostics.norms import near_modulus, safe_range
from dasksolve.kernels.language.blocks import ROWS
from dasksolve.kernels.language.control import Variable, loop
from dasksolve.kernels.language.lanes import inner, real_part, where
from dasksolve.kernels.language.transposition import deal

# Columns that are solved for, beside those of b.
SOLVES = 2 * TRIALS


def rows_of(n):
    """Rows of a tile of diagnosed systems: factors, matrices, a column of b, and what is tried."""
    return 2 * n + 1 + TRIALS


def bands(n):
    """Rows that are added up alike, and the order of eight lanes in which `norms.totals` does.

    It pairs neighbours where there are as many rows, and the two halves where there is one.
    """
    whole = n // ROWS * ROWS
    yield (0, whole), range(ROWS)
    if whole < n:
        yield (whole, n), (0, 4, 2, 6, 1, 5, 3, 7)


def total(n, count, order, along):
    """The sum of `count` lanes, in which along(range(lane, n, count)) was added up before.

    There is nothing in those beyond n.
    """
    sums = [
        reduce(added, (along(range(at, n, count)) for at in range(lane, min(n, count), ROWS)), None)
        for lane in order
    ]
    while len(sums) > 1:
        pairs = zip(sums[::2], sums[1::2], strict=True)
        sums = [x if y is None else added(x, y) for x, y in pairs]
    return sums[0]


def along(vector):
    """The sum of some elements of a vector, for `total`."""
    return lambda js: reduce(added, [vector[j] for j in js])


def products(t, i, x):
    """The sum of some products of row i of a tile and x, for `total`."""
    return lambda js: inner([t[i, j] for j in js], [x[j] for j in js])


class Diagnosis:
    """What is known of the systems of a tile, which has room for `rows_of` rows."""

    def __init__(self, a, systems, t, n):
        self.matrix, self.right, self.tried = (t.beginning(i, 0) for i in (n, 2 * n, 2 * n + 1))
        self.n, self.range = n, safe_range(t.lanes)
        zero, self.count = real_part(t.fill(0)), norm_lanes(t.lanes.dtype)
        columns, infinity = [Variable(zero) for _ in range(n)], Variable(zero)
        for rows, order in bands(n):
            with loop(t.builder, *rows) as i:
                row = deal(a, [s * (n * n) + i * n for s in systems], n)
                sizes = [near_modulus(x) for x in row]
                for j, x in enumerate(row):
                    self.matrix[i, j] = x
                    columns[j].set(columns[j].get() + sizes[j])
                of_row = total(n, self.count, order, along(sizes))
                infinity.set(larger(infinity.get(), of_row))
        self.norms = reduce(larger, [column.get() for column in columns]), infinity.get()
        self.worst, self.inverse = Variable(zero), Variable(zero)
        for c in range(TRIALS):
            for i in range(n):
                self.tried[c, i] = t.fill(trial.py_func(i, c, n))

    def compare(self, b, x):
        """Take into account the backward error of x; `worst` is NaN once one is out of range."""
        t, zero = self.matrix, self.worst.get().fill(0)
        for i, value in enumerate(b):
            self.right[0, i] = value
        rest = Variable(zero)
        for rows, order in bands(self.n):
            with loop(t.builder, *rows) as i:
                product = total(self.n, self.count, order, products(t, i, x))
                rest.set(larger(rest.get(), modulus(product - self.right[0, i])))
        of_x, of_b = (reduce(larger, map(modulus, vector)) for vector in (x, b))
        scale = self.norms[1] * of_x + of_b
        error, worst = rest.get() / scale, self.worst.get()
        worse = where(error > worst, error, worst)
        worse = where(within(scale, *self.range), worse, worse.fill(np.nan))
        nothing = (of_x == zero) & (of_b == zero)
        self.worst.set(where(nothing, worst, worse))

    def read(self, solve, column, substitute_transposed):
        """What to solve for as column number `solve` of `SOLVES`."""
        with self.matrix.builder.if_then((solve == TRIALS).value):
            self.turn(substitute_transposed)
        for i, value in enumerate(column):
            value.set(self.tried[solve % TRIALS, i])

    def write(self, solve, column):
        """Keep its solution."""
        for i, value in column.items():
            self.tried[solve % TRIALS, i] = value

    def norm(self, c):
        """‖·‖₁ of what was tried, by `rough_modulus`."""
        sum_ = Variable(rough_modulus(self.tried[c, 0]))
        with loop(self.matrix.builder, 1, self.n) as i:
            sum_.set(sum_.get() + rough_modulus(self.tried[c, i]))
        return sum_.get()

    def turn(self, substitute_transposed):
        """Overwrite the answers to what was tried first by the unit vectors they point at."""
        t, n = self.tried, self.n
        norms = [self.norm(c) for c in range(TRIALS)]
        one, two = (x * x.fill(1 / trial_norm.py_func(c, n)) for c, x in enumerate(norms))
        self.inverse.set(larger(one, two))
        column = {i: direction(where(two > one, t[1, i], t[0, i])) for i in range(n)}
        substitute_transposed(column)
        first = second = at_first = at_second = one.fill(0)
        for i in range(n):
            size, here = rough_modulus(column[i]), one.fill(i)
            leads, follows = size > first, size > second
            second = where(leads, first, where(follows, size, second))
            at_second = where(leads, at_first, where(follows, here, at_second))
            first, at_first = where(leads, size, first), where(leads, here, at_first)
        for c, at in enumerate((at_first, at_second)):
            for i in range(n):
                t[c, i] = where(at == one.fill(i), t.fill(1), t.fill(0))

    def found(self, _):
        """The reciprocal condition number and the largest backward error."""
        one, infinity = self.norms
        inverse = larger(self.inverse.get(), reduce(larger, map(self.norm, range(TRIALS))))
        worst, wide = self.worst.get(), one.widened()
        rcond = wide.fill(1) / wide / inverse.widened()
        known = within(infinity, *self.range) & (worst == worst)
        return (where(known, x, x.fill(np.nan)) for x in (rcond, worst))
