"""Norms of a system and of its residual, and what they say about its answer.

The backward error ‖Ax-b‖∞ / (‖A‖∞‖x‖∞ + ‖b‖∞) is Rigal and Gaches' (Higham, *Accuracy and Stability
of Numerical Algorithms*, section 7.1). What is out of range here is left NaN, for the caller.
"""

import numpy as np
from numba import types

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.condition import larger, modulus
from dasksolve.kernels.diagnostics.verdicts import OK, SINGULAR
from dasksolve.kernels.language.blocks import ROWS, load_first, put_number, put_numbers
from dasksolve.kernels.language.control import Variable, loop
from dasksolve.kernels.language.lanes import fma, fnma, highest, nothing, operation, splat, width
from dasksolve.kernels.language.tiles import cleared, tiles_of
from dasksolve.kernels.language.values import Pair, real
from dasksolve.status import Status

ILL_CONDITIONED = int(Status.ILL_CONDITIONED)


def lanes(dtype):
    """The same for every processor: what is summed over lanes depends on their number."""
    return width(dtype, 64)


norm_tile, norm_lanes = tiles_of(lanes)


@operation(lambda x: x.real)
def quick_modulus(x):
    """|x| of what is neither huge nor tiny: half the time of `modulus`."""
    if not isinstance(x, Pair):
        return abs(x)
    return fma(x.real, x.real, x.imag * x.imag).call("sqrt")


# The bits of a positive number, taken as an integer and halved (which halves its exponent), then
# subtracted from one of these, are those of the reciprocal of its root, to 3.5 %.
MAGIC_SINGLE, MAGIC_DOUBLE = 0x5F3759DF, 0x5FE6EB50C7B537A9


def near_modulus(x):
    """`quick_modulus` to 3e-4, and never more: a quarter of the time of a root of 8 numbers.

    By one step of third order from a guess. It overflows to infinity, too.
    """
    if not isinstance(x, Pair):
        return abs(x)
    square = fma(x.real, x.real, x.imag * x.imag)
    bits = square.bits
    magic = bits.fill(MAGIC_SINGLE if square.single else MAGIC_DOUBLE)
    inverse = (magic - (bits >> 1)).numbers(square)
    root = square * inverse
    one = root * inverse
    step = [square.fill(0.99989 * c / 8) for c in (15, 10, 3)]
    return root * fnma(one, fnma(one, step[2], step[1]), step[0])


def safe_range(lanes):
    """Between which ‖A‖ and ‖A‖ ‖x‖ nothing here under- or overflows noticeably."""
    info = np.finfo(lanes.real.dtype.name)
    if lanes.dtype != lanes.real.dtype:  # the squares of the least that matters must be normal
        return float(np.sqrt(info.tiny) / info.eps), float(np.sqrt(info.max) * info.eps)
    return float(info.tiny / info.eps**2), float(info.max)


@operation(lambda a: types.UniTuple(types.float64, 2))
def measurable(a):
    """That range for the dtype of a."""
    return tuple(real(a.builder, x) for x in safe_range(a.lanes))


def totals(rows):
    """A vector of the sums of the lanes of each of the rows, whose number is a power of two."""
    if isinstance(rows[0], Pair):
        return Pair(totals([row.real for row in rows]), totals([row.imag for row in rows]))
    while rows[0].count > len(rows):
        half = rows[0].count // 2
        low, high = range(half), range(half, 2 * half)
        rows = [row.shuffle(row, low) + row.shuffle(row, high) for row in rows]
    while len(rows) > 1:
        even, odd = (range(first, 2 * rows[0].count, 2) for first in range(2))
        pairs = zip(rows[::2], rows[1::2], strict=True)
        rows = [one.shuffle(two, even) + one.shuffle(two, odd) for one, two in pairs]
    return rows[0]


def put_totals(tile, row, i, sums):
    """Put the sum of the lanes of each of `sums` in a row, from number i on."""
    put_numbers(tile, row, i, totals([total.get() for total in sums]))


@operation(nothing)
def measure_rows(a, start, i, rows, n, vectors, sums):
    """`multiply_rows`; the sums of the moduli to row 1 of `sums`, and the moduli to its row 0."""
    of_rows = [Variable(sums.fill(0)) for _ in range(rows)]
    products = [Variable(vectors.fill(0)) for _ in range(rows)]
    with loop(a.builder, 0, sums.span) as j:
        at = j * sums.lanes.count
        column, x = sums[0, j], vectors[0, j]
        for r, (of_row, product) in enumerate(zip(of_rows, products, strict=True)):
            row = load_first(a, start + (i + r) * n + at, n - at, vectors)
            size = near_modulus(row)
            of_row.set(of_row.get() + size)
            column = column + size
            product.set(fma(row, x, product.get()))
        sums[0, j] = column
    put_totals(sums, 1, i, of_rows)
    put_totals(vectors, 2, i, products)


@operation(nothing)
def multiply_rows(a, start, i, rows, n, vectors):
    """Put the products of some rows and row 0 of `vectors` in row 2."""
    products = [Variable(vectors.fill(0)) for _ in range(rows)]
    with loop(a.builder, 0, vectors.span) as j:
        at = j * vectors.lanes.count
        x = vectors[0, j]
        for r, product in enumerate(products):
            row = load_first(a, start + (i + r) * n + at, n - at, vectors)
            product.set(fma(row, x, product.get()))
    put_totals(vectors, 2, i, products)


@part
def size_of(vectors, row, blocks):
    """‖·‖∞ of a row."""
    largest = modulus(vectors[row, 0])
    for j in range(1, blocks):
        largest = larger(largest, modulus(vectors[row, j]))
    return highest(largest)


@part
def norms(a, m, vectors, sums):
    """‖A‖₁ and ‖A‖∞ of a system; and what `product` does, since a is being read."""
    n = a.shape[1]
    blocks = -(-n // norm_lanes(a))
    for j in range(blocks):
        sums[0, j] = splat(0, sums)
    for i in range(0, n - ROWS + 1, ROWS):
        measure_rows(a, m * n * n, i, ROWS, n, vectors, sums)
    for i in range(n // ROWS * ROWS, n):
        measure_rows(a, m * n * n, i, 1, n, vectors, sums)
    return size_of(sums, 0, blocks), size_of(sums, 1, blocks)


@part
def gather(array, m, c, vectors, row):
    """Put column c of a right-hand side, or of a solution, in a row of `vectors`."""
    n, columns = array.shape[1:]
    count = norm_lanes(array)
    if columns == 1:
        for j in range(-(-n // count)):
            vectors[row, j] = load_first(array, m * n + j * count, n - j * count, vectors)
    else:
        for i in range(n):
            put_number(vectors, row, i, splat(array[m, i, c], vectors))


@part
def product(a, m, vectors):
    """Put A x in row 2 of `vectors`, which has x in row 0."""
    n = a.shape[1]
    for i in range(0, n - ROWS + 1, ROWS):
        multiply_rows(a, m * n * n, i, ROWS, n, vectors)
    for i in range(n // ROWS * ROWS, n):
        multiply_rows(a, m * n * n, i, 1, n, vectors)


@holder
def workspace(a):
    """Room for x, b and A x, and for the sums of the moduli of a system's columns and rows."""
    blocks = -(-a.shape[1] // norm_lanes(a))
    vectors, sums = norm_tile(3, blocks, a.dtype, a), norm_tile(2, blocks, a.real.dtype, a.real)
    return cleared(vectors, 3, blocks), cleared(sums, 2, blocks)


@part
def worst_error(a, b, x, m, infinity, vectors):
    """The largest backward error of the columns of x[m]; NaN where one is out of range.

    `infinity` is ‖A‖∞, and `vectors` holds what `norms` has left there for the first column.
    """
    n, columns = b.shape[1:]
    blocks = -(-n // norm_lanes(a))
    low, high = measurable(a)
    known, worst = True, 0.0
    for c in range(columns):
        if c:
            gather(x, m, c, vectors, 0)
            product(a, m, vectors)
        gather(b, m, c, vectors, 1)
        for j in range(blocks):
            vectors[2, j] = vectors[2, j] - vectors[1, j]
        of_x, of_b = size_of(vectors, 0, blocks), size_of(vectors, 1, blocks)
        if not (of_x == 0 and of_b == 0):
            scale = infinity * of_x + of_b
            known &= low <= scale <= high
            worst = max(worst, size_of(vectors, 2, blocks) / scale)
    return worst if known else np.nan


@part
def measure(a, b, x, first, last, rcond, backward_error, vectors, sums):
    """Replace ‖A⁻¹‖₁ in `rcond` by the condition number's reciprocal; fill in `backward_error`."""
    low, high = measurable(a)
    for m in range(first, last):
        gather(x, m, 0, vectors, 0)
        one, infinity = norms(a, m, vectors, sums)
        worst = worst_error(a, b, x, m, infinity, vectors)
        known = low <= infinity <= high and worst == worst
        rcond[m] = 1 / one / rcond[m] if known else np.nan
        backward_error[m] = worst if known else np.nan


@part
def doubt(a, status, rcond, backward_error):
    """Say what the diagnostics of each system mean, where its status does."""
    for m in range(len(status)):
        if status[m] != OK:
            rcond[m] = 0 if status[m] == SINGULAR else np.nan
            backward_error[m] = np.nan
        elif rcond[m] < np.finfo(a.real.dtype).eps:
            status[m] = ILL_CONDITIONED
