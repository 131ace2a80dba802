"""Backward errors of structured matrices, one system a lane: quick, and right to rounding.

`check` looks at them, to which the order of a sum makes no difference; those that are stored come
from `errors`. Each element that the structure reads is read once. Of so many columns at a time,
`wide`, a tile holds

    t[c, i]               unknown i of column c
    t[wide + c, i]        its right-hand side
    t[2 * wide + c, i]    the products of row i of the matrix

and below them a row of the matrix, or all of a small one; another tile the sums of its moduli.
"""

from dasksolve.kernels.compiling.jit import jit, named, part
from dasksolve.kernels.diagnostics.condition import larger
from dasksolve.kernels.diagnostics.fixed import within
from dasksolve.kernels.diagnostics.norms import quick_modulus, safe_range
from dasksolve.kernels.diagnostics.verdicts import weigh
from dasksolve.kernels.language.lanes import conjugate, fma, nothing, operation, splat, where
from dasksolve.kernels.language.prefetching import FIRST, ask
from dasksolve.kernels.language.tiles import lane_count, put_numbers, tile
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.language.values import Pair

MOST = 16
"""Right-hand sides at a time, which bounds the tile."""
SMALL = 8
"""The least order whose matrices are read row by row."""
AHEAD, MOST_AHEAD = 1 << 10, 1 << 15
"""How far ahead numbers are asked for, since a tile takes less time than memory; and at most."""


@operation(nothing)
def read(array, size, k, first, step, t, i, j, length, ahead):
    """t[i, j] … from numbers k … of the `size` of each system: first, first + step, …

    Those `ahead` of them are asked for.
    """
    begin, stride = first * size + k, step * size
    starts = [stride * lane + begin for lane in range(t.lanes.count)]
    for start in starts:
        ask(array, start + ahead, length, FIRST)
    for e, x in enumerate(deal(array, starts, length)):
        t[i, j + e] = x


@part
def read_run(array, size, start, stop, first, step, t, i, j):
    """`read` start … stop - 1, and perhaps others around them: t[i, j] is number `start`."""
    of_tile = size * lane_count(array)
    ahead = of_tile * max(1, AHEAD // of_tile) if of_tile <= MOST_AHEAD else AHEAD
    if size < 4 or stop - start == 1:
        for k in range(start, stop):
            read(array, size, k, first, step, t, i, j + k - start, 1, ahead)
    elif size < 8:
        for k in range(start, stop, 4):
            e = min(k, size - 4)
            read(array, size, e, first, step, t, i, j + e - start, 4, ahead)
    else:
        for k in range(start, stop, 8):
            e = min(k, size - 8)
            read(array, size, e, first, step, t, i, j + e - start, 8, ahead)


@part
def read_columns(array, first, step, t, at, left, wide):
    """Put columns left … of right-hand sides, or of unknowns, in the rows `at` …"""
    _, n, columns = array.shape
    if columns == 1:
        read_run(array, n, 0, n, first, step, t, at, 0)
        return
    for k in range(n):
        for c in range(wide):
            read(array, n * columns, k * columns + left + c, first, step, t, at + c, k, 1, 0)


@operation(lambda x: x)
def real_number(x):
    """x without its imaginary part."""
    return Pair(x.real, x.imag.fill(0)) if isinstance(x, Pair) else x


@operation(lambda x, y: x)
def highest(x, y):
    """The larger one, if both are numbers: a single instruction."""
    return where(y > x, y, x)


@operation(lambda rest, *others: rest)
def ratio(rest, of_a, of_x, of_b, check, t):
    """The backward error, or NaN where what it is made of may have been lost."""
    low, high = safe_range(t.lanes)
    whole = of_a * of_x + of_b
    sound = within(of_a, low, high) & within(of_x, low, high) & within(whole, low, high)
    return where(sound & (check == check.fill(0)), rest / whole, rest.fill(float("nan")))


@part
def worst_ratio(t, sums, n, wide):
    """The largest backward error of the columns."""
    zero = splat(0, sums)
    worst, of_a = zero, zero
    for i in range(n):
        of_a = highest(of_a, sums[0, i])
    for c in range(wide):
        of_x, of_b, of_rest, check = zero, zero, zero, zero
        for i in range(n):
            of_x = highest(of_x, quick_modulus(t[c, i]))
            of_b = highest(of_b, quick_modulus(t[wide + c, i]))
            rest = quick_modulus(t[2 * wide + c, i] - t[wide + c, i])
            of_rest, check = highest(of_rest, rest), weigh(check, rest)
        worst = larger(worst, ratio(of_rest, of_a, of_x, of_b, check, t))
    return worst


def multiplying(mirrored, hermitian):
    """The part that multiplies the matrices of a tile by `wide` columns."""

    @part
    def multiply(a, first, step, t, sums, wide, below, above):
        n, row = a.shape[1], 3 * wide
        for i in range(n):
            sums[0, i] = splat(0, sums)
            for c in range(2 * wide, 3 * wide):
                t[c, i] = splat(0, t)
        if n < SMALL:
            read_run(a, n * n, 0, n * n, first, step, t, row, 0)
        for i in range(n):
            start, stop = max(0, i - below), min(n, i + above + 1)
            at = i * n  # of the row, did all of it stand there
            if n >= SMALL:
                read_run(a, n * n, i * n + start, i * n + stop, first, step, t, row, 8)
                at = 8 - start
            pivot = t[row, at + i]
            if hermitian:
                pivot = real_number(pivot)
            of_row = sums[0, i] + quick_modulus(pivot)
            # On the side of the diagonal that is mirrored; else on both.
            sides = ((start, i), (i + 1, stop))
            for j0, j1 in sides:
                for j in range(j0, j1):
                    size = quick_modulus(t[row, at + j])
                    of_row = of_row + size
                    if mirrored:
                        sums[0, j] = sums[0, j] + size
            sums[0, i] = of_row
            for c in range(wide):
                known = t[c, i]
                product = fma(pivot, known, t[2 * wide + c, i])
                for j0, j1 in sides:
                    for j in range(j0, j1):
                        x = t[row, at + j]
                        product = fma(x, t[c, j], product)
                        if mirrored:
                            y = conjugate(x) if hermitian else x
                            t[2 * wide + c, j] = fma(y, known, t[2 * wide + c, j])
                t[2 * wide + c, i] = product

    return multiply


def kernel(_, mirrored, hermitian):
    """The kernel ``errors(a, b, x, below, above, backward_error)``, for systems of any order.

    below, above: how many diagonals are read there. Mirrored: what is read on one side of the
    diagonal stands for the other side too; hermitian: as its conjugate.
    """
    multiply = multiplying(mirrored, hermitian)

    def errors(a, b, x, below, above, backward_error):
        systems, n, columns = x.shape
        lanes, most = lane_count(x), min(columns, MOST)
        span = max(n + 16, SMALL * SMALL)
        t, sums = tile(3 * most + 1, span, x.dtype, x), tile(1, n, x.real.dtype, x.real)
        # Lanes that are a step apart need few addresses; the last ones do some systems again.
        step, last = (1, systems - lanes) if systems >= lanes else (0, systems)
        for tile_first in range(0, systems, lanes if step else 1):
            first = min(tile_first, last)
            worst = splat(0, sums)
            for left in range(0, columns, most):
                wide = min(most, columns - left)
                read_columns(x, first, step, t, 0, left, wide)
                read_columns(b, first, step, t, wide, left, wide)
                multiply(a, first, step, t, sums, wide, below, above)
                worst = larger(worst, worst_ratio(t, sums, n, wide))
            put_numbers(backward_error, first, first + (lanes - 1) * step, worst)

    return jit(named(errors, f"errors.{mirrored}.{hermitian}"))
