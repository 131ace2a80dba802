"""Least squares with a design for each system, by modified Gram-Schmidt, one system in a lane.

A tile has a row for every observation: the columns of a, which become orthogonal to each other,
those of b, which become the residuals (Björck, BIT 7, 1967: it is as stable as Householder's method
if b is treated so), and the root of its weight. Row k of `s` has the squared length of column k on
the diagonal, and to the right what the later columns have of it. Observations that are missing are
rows of zeros.

What takes time is to move a tile through the first level of the cache, which is smaller: so each
observation is weighed, and its first products are taken, while it is there from being read.
"""

import numpy as np

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.condition import larger
from dasksolve.kernels.diagnostics.verdicts import finfo, undefined, weigh
from dasksolve.kernels.language.control import Variable, align_stack, loop, never_inline
from dasksolve.kernels.language.lanes import (
    any_lane,
    conjugate,
    fma,
    fnma,
    magnitude,
    nothing,
    operation,
    reciprocal,
    scaled,
    splat,
    square_root,
    where,
)
from dasksolve.kernels.language.tiles import lane_count, put_numbers, systems_of_lanes, tile
from dasksolve.kernels.language.transposition import collect, deal
from dasksolve.kernels.language.values import Pair
from dasksolve.kernels.regimes.columns import read
from dasksolve.kernels.regression.scaling import finite, scale, unscale
from dasksolve.status import Status

ROWS = 16
"""Observations that are read and weighed together: whole vectors of numbers, whatever N is."""
OK, PENDING, NONFINITE = int(Status.OK), int(Status.PENDING), int(Status.NONFINITE)


@operation(nothing)
def advance(t, s, rows, pivot, k, j, size, head, fresh):
    """Take column `pivot` out of columns j … j + size - 1; their products with column k to `s`.

    fresh: they are weighed instead, by the column of roots, and the products go on; head: j is k.
    """
    never_inline(t.builder)
    align_stack(t.builder)
    zero = t.fill(0)
    shares = [zero if fresh else s[pivot, j + e] for e in range(size)]
    totals = [Variable(s[k, j + e] if fresh else zero) for e in range(size)]
    with loop(t.builder, *rows) as i:
        taken, columns = t[i, pivot], [t[i, j + e] for e in range(size)]
        for e, share in enumerate(shares):
            if fresh:
                columns[e] = where(taken == taken, scaled(columns[e], taken), zero)
            else:
                columns[e] = fnma(taken, share, columns[e])
            t[i, j + e] = columns[e]
        following = conjugate(columns[0] if head else t[i, k])
        for x, total in zip(columns, totals, strict=True):
            total.set(fma(following, x, total.get()))
    for e, total in enumerate(totals):
        s[k, j + e] = total.get()


def advancing(fresh):
    """The part that does `advance` to column k and all that follow."""

    @part
    def advance_all(t, s, rows, pivot, k, columns):
        j = k
        if columns - j >= 8:
            advance(t, s, rows, pivot, k, j, 8, True, fresh)
            j += 8
        elif columns - j >= 4:
            advance(t, s, rows, pivot, k, j, 4, True, fresh)
            j += 4
        elif columns - j >= 2:
            advance(t, s, rows, pivot, k, j, 2, True, fresh)
            j += 2
        else:
            advance(t, s, rows, pivot, k, j, 1, True, fresh)
            j += 1
        while columns - j >= 8:
            advance(t, s, rows, pivot, k, j, 8, False, fresh)
            j += 8
        if columns - j >= 4:
            advance(t, s, rows, pivot, k, j, 4, False, fresh)
            j += 4
        if columns - j >= 2:
            advance(t, s, rows, pivot, k, j, 2, False, fresh)
            j += 2
        if j < columns:
            advance(t, s, rows, pivot, k, j, 1, False, fresh)

    return advance_all


WEIGH, TAKE_OUT = advancing(fresh=True), advancing(fresh=False)


@operation(nothing)
def read_on(array, offset, stride, first, last, t, i, j, left, wide, length):
    """t[i, left + j] … from array.flat[system * stride + offset] …, in rows of `wide` columns."""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    for x in deal(array, starts, length):
        t[i, left + j] = x
        end = j + 1 == wide
        i, j = end.choose(i + 1, i), end.choose(0, j + 1)


@part
def read_rows(array, start, stop, first, last, t, left):
    """Rows start … stop of each system to the tile, from column `left` on."""
    _, observations, wide = array.shape
    stride, place, end = observations * wide, start * wide, stop * wide
    while place + 8 <= end:
        i, j = divmod(place, wide)
        read_on(array, place, stride, first, last, t, i, j, left, wide, 8)
        place += 8
    while place < end:
        i, j = divmod(place, wide)
        read_on(array, place, stride, first, last, t, i, j, left, wide, 1)
        place += 1


@part
def read_roots(roots, own, start, stop, first, last, t, columns, count):
    """Roots of weights to the last column, or NaN; add to the count of what is not missing."""
    zero, one, nan = splat(0, t), splat(1, t), splat(np.nan, t)
    for i in range(start, stop):
        if own:
            read(roots, i, roots.shape[1], first, last, t, i, columns, 1, False)
        else:
            t[i, columns] = splat(roots[0, i], t)
        root = t[i, columns]
        known = (root == root) & (root != zero)
        for j in range(columns):
            known = known & (t[i, j] == t[i, j])
        t[i, columns] = where(known, root, nan)
        count = count + where(known, one, zero)
    return count


@part
def read_tile(a, b, roots, own, first, last, t, s):
    """Read a tile, weighed, and begin with column 0; return how many rows are not missing."""
    _, observations, n = a.shape
    columns = n + b.shape[2]
    count = splat(0, t)
    for j in range(columns):
        s[0, j] = count
    for start in range(0, observations, ROWS):
        stop = min(start + ROWS, observations)
        read_rows(a, start, stop, first, last, t, 0)
        read_rows(b, start, stop, first, last, t, n)
        count = read_roots(roots, own, start, stop, first, last, t, columns, count)
        WEIGH(t, s, (start, stop), columns, 0, columns)
    return magnitude(count)


@operation(nothing)
def write_number(array, offset, stride, first, last, x):
    """array.flat[system * stride + offset] = x."""
    collect([x], array, [s * stride + offset for s in systems_of_lanes(array, first, last)])


@part
def divide(s, k, columns):
    """What the columns after k have of it, from their products."""
    inverse = reciprocal(s[k, k])
    for j in range(k + 1, columns):
        s[k, j] = scaled(s[k, j], inverse)


@part
def invert(s, z, n):
    """z = the inverse of the unit upper triangle of s; right of it, and below, what rcond needs."""
    zero, one = splat(0, s), splat(1, s)
    for j in range(n):
        z[j, j] = one
        for i in range(j - 1, -1, -1):
            total = s[i, j]
            for k in range(i + 1, j):
                total = fma(s[i, k], z[k, j], total)
            z[i, j] = -total
    for j in range(n):
        variance, length = zero, s[j, j]
        for k in range(j, n):
            square = conjugate(z[j, k]) * z[j, k]
            variance = fma(square, reciprocal(s[k, k]), variance)
        for i in range(j):
            length = fma(conjugate(s[i, j]) * s[i, j], s[i, i], length)
        z[j, n], z[n, j] = variance, length


@part
def write_covariance(covariance, first, last, s, z, n):
    """The inverse of aᴴ a, from what `invert` made."""
    for i in range(n):
        for j in range(i, n):
            total = splat(0, s)
            for k in range(j, n):
                total = fma(z[i, k] * conjugate(z[j, k]), reciprocal(s[k, k]), total)
            write_number(covariance, i * n + j, n * n, first, last, total)
            write_number(covariance, j * n + i, n * n, first, last, conjugate(total))


@part
def squares(t, observations, c):
    """The sum of the squares of a column."""
    total = splat(0, t)
    for i in range(observations):
        total = fma(conjugate(t[i, c]), t[i, c], total)
    return total


@operation(lambda x: x)
def smallest(x):
    """The least product of which no digits are lost, beside others."""
    info = finfo(x)
    return x.fill(info.tiny / info.eps)


@operation(lambda flaw, pivot: flaw)
def in_range(flaw, pivot):
    """`flaw`, or 1 where the square of a length has under- or overflowed."""
    info = finfo(pivot)
    fits = (pivot >= smallest(pivot)) & (pivot <= pivot.fill(info.max * info.eps))
    return where(fits, flaw, flaw.fill(1))


@operation(lambda flaw, pivot, longest: flaw)
def comparable(flaw, pivot, longest):
    """`flaw`, or 1 where squares of shares of a longer column underflow, as rcond has them."""
    return where(pivot >= longest * smallest(pivot), flaw, flaw.fill(1))


@operation(lambda x, like: like)
def as_number(x, like):
    """A real number as one of the type of `like`."""
    return Pair(x, x.fill(0)) if isinstance(like, Pair) else x


@part
def measure(t, s, n):
    """Put the lengths of the columns of a in row n of `s`; return the least of them and 1."""
    least = magnitude(splat(1, t))
    for j in range(n):
        length = square_root(magnitude(s[j, j]))
        s[n, j] = as_number(length, s[j, j])
        least = where(length < least, length, least)
    return least


@part
def heed(t, s, z, b, first, last, c, n, least, flaw):
    """`flaw`, or 1 where products of the columns of a with column c have underflowed.

    Its size is that of its parts along them, or of what is left of it. b of zeros has none.
    """
    zero, one = magnitude(splat(0, t)), splat(1, flaw)
    size, given, low = zero, zero, smallest(zero)
    for j in range(n):
        size = larger(size, magnitude(s[j, c]) * magnitude(s[n, j]))
    if any_lane(size * least < low):
        _, observations, columns = b.shape
        for i in range(observations):
            size = larger(size, magnitude(t[i, c]))
            read(b, i * columns + c - n, observations * columns, first, last, z, n, n, 1, False)
            given = where(magnitude(z[n, n]) > zero, one, given)  # NaN is missing
    return where((size * least < low) & (given > zero), one, flaw)


@operation(nothing)
def record(status, first, last, flaw, check, trust, threshold):
    """OK, or PENDING where that is to be looked at."""
    safe = (flaw == flaw.fill(0)) & (check == check.fill(0)) & (trust >= trust.fill(threshold))
    verdict = where(safe, flaw.fill(OK), flaw.fill(PENDING))
    status.put([(first + lane).at_most(last) for lane in range(flaw.count)], verdict)


@operation(nothing)
def put_real(array, first, last, x):
    put_numbers(array, first, last, x)


@part
def solve_tile(a, b, roots, own, threshold, found, first, last, t, s, z):
    """Solve the systems of the tile that begins with `first`."""
    x, rss, variances, rcond, count, status, covariance = found
    _, observations, n = a.shape
    k = b.shape[2]
    columns = n + k
    known = read_tile(a, b, roots, own, first, last, t, s)
    check = longest = magnitude(splat(0, t))
    flaw = where(known < splat(float(n), known), splat(1, known), check)  # rcond is of rounding
    for c in range(n):
        pivot = magnitude(s[c, c])
        flaw = comparable(in_range(flaw, pivot), pivot, longest)
        longest = larger(longest, pivot)
        divide(s, c, columns)
        TAKE_OUT(t, s, (0, observations), c, c + 1, columns)
    invert(s, z, n)
    mean = flaw - flaw
    for j in range(n):
        mean = fma(magnitude(z[j, n]), magnitude(z[n, j]), mean)
        write_number(variances, j, n, first, last, magnitude(z[j, n]))
        check = weigh(check, z[j, n])
    if len(covariance) > 0:
        write_covariance(covariance, first, last, s, z, n)
    trust = splat(1, mean) / square_root(mean / splat(float(n), mean))
    least = measure(t, s, n)
    for c in range(n, columns):
        flaw = heed(t, s, z, b, first, last, c, n, least, flaw)
        for j in range(n - 1, -1, -1):
            for i in range(j + 1, n):
                s[j, c] = fnma(s[j, i], s[i, c], s[j, c])
            write_number(x, j * k + c - n, n * k, first, last, s[j, c])
            check = weigh(check, s[j, c])
        square = s[n, n] if c == n else squares(t, observations, c)
        write_number(rss, c - n, k, first, last, magnitude(square))
        check = weigh(check, square)
    put_real(rcond, first, last, trust)
    put_real(count, first, last, known)
    record(status, first, last, flaw, check, trust, threshold)


def kernel(_):
    """The kernel for any number of columns."""

    @jit
    def regress(a, b, roots, own, threshold, x, rss, variances, rcond, count, status,
                covariance):  # fmt: skip
        systems, observations, n = a.shape
        k, lanes = b.shape[2], lane_count(a)
        columns = n + k
        span = (columns + 1) | 1  # odd: no sets of cache shared
        t = tile(observations, span, a.dtype, a)
        s = tile(n + 1, columns, a.dtype, a)
        z = tile(n + 1, n + 1, a.dtype, a)
        found = (x, rss, variances, rcond, count, status, covariance)
        one_a, one_b, one_roots = np.empty_like(a[:1]), np.empty_like(b[:1]), roots[:1].copy()
        one = (x[:1].copy(), rss[:1].copy(), variances[:1].copy(), rcond[:1].copy(),
               count[:1].copy(), status[:1].copy(), covariance[:1].copy())  # fmt: skip
        powers = np.zeros(columns, np.int64)
        tiles = -(-systems // lanes)
        for place in range(tiles + systems):  # all tiles, then what is pending, system by system
            m = place - tiles
            row = m if own else 0
            if m < 0:
                of_a, of_b, of_roots, into = a, b, roots, found
                first, last = place * lanes, systems - 1
            elif status[m] == PENDING:
                scale(a[m], b[m], roots[row], one_a, one_b, one_roots, powers)
                of_a, of_b, of_roots, into = one_a, one_b, one_roots, one
                first, last = 0, 0
            else:
                continue
            solve_tile(of_a, of_b, of_roots, own, threshold, into, first, last, t, s, z)
            if m < 0:
                continue
            unscale(one, powers, found, m)
            if not finite(a[m], b[m], roots[row]):
                status[m], rcond[m] = NONFINITE, np.nan
            if status[m] != OK:
                x[m], rss[m], variances[m] = undefined(x), np.nan, np.nan

    return regress
