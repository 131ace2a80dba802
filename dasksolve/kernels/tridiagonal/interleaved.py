"""Tridiagonal systems with partial pivoting, one system a lane, as LAPACK's gtsv.

The three diagonals stand in a tile as rows, above the unknowns of each column:

    t[0, i]   a[i, i - 1]   → u[i, i + 2], which a swap of rows fills
    t[1, i]   a[i, i]       → 1 / u[i, i]
    t[2, i]   a[i, i + 1]   → u[i, i + 1]
    t[3 + c, i]             unknown i of column c
"""

from numba import types

from dasksolve.kernels.compiling.jit import holder, jit, named, part
from dasksolve.kernels.diagnostics.verdicts import (
    OK,
    finite,
    judge,
    reject_system,
    rejecting,
    weigh,
)
from dasksolve.kernels.language.lanes import (
    Mask,
    fnma,
    magnitude,
    nothing,
    operation,
    reciprocal,
    splat,
    where,
)
from dasksolve.kernels.language.tiles import systems_of_lanes, tile
from dasksolve.kernels.language.transposition import deal
from dasksolve.kernels.regimes import interleaved
from dasksolve.kernels.regimes.columns import read

# Right-hand sides solved at a time: the tile of an order of 10⁴ is large enough.
MOST = 8


@operation(nothing)
def read_row(a, n, first, last, t, i, start, length, skip):
    """The diagonals in row i, from `length` elements of it; the first `skip` are not there."""
    at = i * n + start
    starts = [s * (n * n) + at for s in systems_of_lanes(a, first, last)]
    for e, x in enumerate(deal(a, starts, length)):
        if skip + e < 3:
            t[skip + e, i] = x


@part
def read_dense(a, first, last, t):
    """Read the three diagonals of a matrix, four numbers of a row at a time."""
    n = a.shape[1]
    if n == 1:
        read_row(a, n, first, last, t, 0, 0, 1, 1)
        return
    read_row(a, n, first, last, t, 0, 0, 2, 1)
    for i in range(1, n - 1):
        read_row(a, n, first, last, t, i, i - 1, 4, 0)
    read_row(a, n, first, last, t, n - 1, n - 2, 2, 0)


@part
def read_band(band, first, last, t, row):
    """Read one diagonal."""
    n = band.shape[1]
    if n < 8:
        for i in range(n):
            read(band, i, n, first, last, t, row, i, 1, False)
    else:
        for i in range(0, n, 8):
            e = min(i, n - 8)
            read(band, e, n, first, last, t, row, e, 8, False)


@operation(lambda x, *others: types.Tuple((Mask(x.count), x.real, *(x,) * 6)))
def take_row(pivot, right, low, middle, high):
    """Eliminate what is below a pivot.

    Returns where the rows are swapped, the size of the pivot, the multiplier, the row of U (from
    its second diagonal above to the reciprocal of the pivot and back to the first), and the next
    pivot with what is right of it.
    """
    swapped, zero = magnitude(low) > magnitude(pivot), low.fill(0)
    top = where(swapped, low, pivot)
    inverse = reciprocal(top)
    factor = where(swapped, pivot, low) * inverse
    beside, beyond = where(swapped, middle, right), where(swapped, high, zero)
    pivot = fnma(factor, beside, where(swapped, right, middle))
    right = where(swapped, zero - factor * high, high)
    return swapped, magnitude(top), factor, beyond, inverse, beside, pivot, right


@operation(lambda swapped, x, *others: types.UniTuple(x, 2))
def take_right(swapped, factor, x, y):
    """`take_row` for a right-hand side."""
    top = where(swapped, y, x)
    return top, fnma(factor, top, where(swapped, x, y))


@part
def eliminate(t, n, wide, flaw, check):
    """Solve for the unknowns, last to first; what is not finite makes `check` not 0."""
    for i in range(n):
        check = weigh(check, t[1, i])
        if i > 0:
            check = weigh(weigh(check, t[0, i]), t[2, i - 1])
    pivot, right = t[1, 0], t[2, 0]
    if n == 1:
        right = splat(0, t)
    for i in range(n - 1):
        low, middle, high = t[0, i + 1], t[1, i + 1], t[2, i + 1]
        if i == n - 2:
            high = splat(0, t)
        row = take_row(pivot, right, low, middle, high)
        swapped, top, multiplier, t[0, i], t[1, i], t[2, i], pivot, right = row
        flaw = judge(flaw, top)
        for c in range(3, 3 + wide):
            t[c, i], t[c, i + 1] = take_right(swapped, multiplier, t[c, i], t[c, i + 1])
    flaw = judge(flaw, magnitude(pivot))
    t[1, n - 1] = reciprocal(pivot)
    for c in range(3, 3 + wide):
        after = beyond = splat(0, t)
        for i in range(n - 1, -1, -1):
            x = t[c, i]
            if i < n - 1:
                x = fnma(t[2, i], after, x)
            if i < n - 2:
                x = fnma(t[0, i], beyond, x)
            beyond, after = after, x * t[1, i]
            t[c, i] = after
    return flaw, check


@holder
def hold(b, n, wide):
    return tile(3 + wide, n, b.dtype, b), 3


@part
def substitute(a, first, last, held, wide, flaw, check):
    t, _ = held
    read_dense(a, first, last, t)
    return eliminate(t, a.shape[1], wide, flaw, check)


@part
def substitute_bands(bands, first, last, held, wide, flaw, check):
    t, _ = held
    for row in range(3):
        read_band(bands[row], first, last, t, row)
    return eliminate(t, bands[0].shape[1], wide, flaw, check)


@part
def reject_bands(bands, b, x, status):
    """`rejecting` for three diagonals."""
    lower, diagonal, upper = bands
    for m in range(len(status)):
        if status[m] != OK:
            given = finite(diagonal[m])
            if b.shape[1] > 1:
                given = given and finite(lower[m, 1:]) and finite(upper[m, :-1])
            status[m] = reject_system(b, x, m, status[m], given)


DENSE = interleaved.Method("tridiagonal", hold, substitute, rejecting(1, 1), most=MOST)
BANDS = interleaved.Method("bands", hold, substitute_bands, reject_bands, most=MOST)


def kernel(_):
    """The kernel for matrices of any order."""
    return interleaved.kernel(DENSE)


def band_kernel(_):
    """The kernel for three diagonals, each (M, N), of any order."""
    solve_bands = holder(interleaved.driver(BANDS))

    def solve(lower, diagonal, upper, b, x, status):
        solve_bands((lower, diagonal, upper), b, x, status, None, None)

    return jit(named(solve, BANDS.name))
