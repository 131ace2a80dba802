"""Least squares with a design for each system, by modified Gram-Schmidt, one system in a lane.

A tile has a row for every observation: a column of zeros, the columns of a, which become orthogonal
to each other, and after them those of b, which become the residuals (Björck, BIT 7, 1967: it is as
stable as Householder's method if b is treated so). Row k of `s` has the squared length of column k
on the diagonal, and to the right what the later columns have of it. Observations that are missing
are rows of zeros.
"""

import math

import numpy as np

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.verdicts import limits, undefined, weigh
from dasksolve.kernels.language.lanes import (
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
from dasksolve.kernels.language.transposition import collect
from dasksolve.kernels.language.values import Variable, align_stack, loop, never_inline
from dasksolve.kernels.regimes.columns import read
from dasksolve.status import Status

SMALL = 2.0**-64
"""A row of numbers, each times it, has no sum that overflows, nor Inf - Inf among their sizes."""
OK, PENDING = int(Status.OK), int(Status.PENDING)
NONFINITE, RANK_DEFICIENT = int(Status.NONFINITE), int(Status.RANK_DEFICIENT)


@operation(nothing)
def advance(t, s, observations, k, j, size, head):
    """Take column k out of columns j … j + size - 1; their products with column k + 1 to `s`.

    head: column j is column k + 1.
    """
    never_inline(t.builder)
    align_stack(t.builder)
    shares = [s[k, j + e] for e in range(size)]
    totals = [Variable(t.fill(0)) for _ in range(size)]
    with loop(t.builder, 0, observations) as i:
        pivot, columns = t[i, k], [t[i, j + e] for e in range(size)]
        for e, share in enumerate(shares):
            columns[e] = fnma(pivot, share, columns[e])
            t[i, j + e] = columns[e]
        following = conjugate(columns[0] if head else t[i, k + 1])
        for x, total in zip(columns, totals, strict=True):
            total.set(fma(following, x, total.get()))
    for e, total in enumerate(totals):
        s[k + 1, j + e] = total.get()


@part
def advance_all(t, s, observations, k, columns):
    """`advance` all columns after k."""
    j = k + 1
    if columns - j >= 8:
        advance(t, s, observations, k, j, 8, True)
        j += 8
    elif columns - j >= 4:
        advance(t, s, observations, k, j, 4, True)
        j += 4
    else:
        advance(t, s, observations, k, j, 1, True)
        j += 1
    while columns - j >= 8:
        advance(t, s, observations, k, j, 8, False)
        j += 8
    if columns - j >= 4:
        advance(t, s, observations, k, j, 4, False)
        j += 4
    while j < columns:
        advance(t, s, observations, k, j, 1, False)
        j += 1


@part
def read_numbers(array, offset, stride, first, last, t, i, j, length):
    """t[i, j] … t[i, j + length - 1] from array.flat[system * stride + offset] …"""
    while length >= 8:
        read(array, offset, stride, first, last, t, i, j, 8, False)
        offset, j, length = offset + 8, j + 8, length - 8
    if length >= 4:
        read(array, offset, stride, first, last, t, i, j, 4, False)
        offset, j, length = offset + 4, j + 4, length - 4
    if length >= 2:
        read(array, offset, stride, first, last, t, i, j, 2, False)
        offset, j, length = offset + 2, j + 2, length - 2
    if length:
        read(array, offset, stride, first, last, t, i, j, 1, False)


@operation(nothing)
def write_number(array, offset, stride, first, last, x):
    """array.flat[system * stride + offset] = x."""
    collect([x], array, [s * stride + offset for s in systems_of_lanes(array, first, last)])


@part
def read_tile(a, b, roots, own, first, last, t):
    """Read a tile, each row times the root of its weight, or 0; return how many are not missing."""
    _, observations, n = a.shape
    k = b.shape[2]
    zero = splat(0, t)
    one, count = splat(1, t), zero
    for i in range(observations):
        read_numbers(a, i * n, observations * n, first, last, t, i, 1, n)
        read_numbers(b, i * k, observations * k, first, last, t, i, n + 1, k)
        if own:
            read(roots, i, observations, first, last, t, i, 0, 1, False)
        else:
            t[i, 0] = splat(roots[0, i], t)
        root = t[i, 0]
        known = (root == root) & (root != zero)
        for j in range(1, n + k + 1):
            known = known & (t[i, j] == t[i, j])
        t[i, 0] = zero
        for j in range(1, n + k + 1):
            t[i, j] = where(known, scaled(t[i, j], root), zero)
        count = count + where(known, one, zero)
    return magnitude(count)


@part
def divide(s, k, columns):
    """What the columns after k have of it, from their products."""
    inverse = reciprocal(s[k, k])
    for j in range(k + 1, columns):
        s[k, j] = scaled(s[k, j], inverse)


@part
def invert(s, z, n):
    """z = the inverse of the unit upper triangle of s; the mean of the inflation of variances."""
    zero, one = splat(0, s), splat(1, s)
    for j in range(1, n + 1):
        z[j, j] = one
        for i in range(j - 1, 0, -1):
            total = s[i, j]
            for k in range(i + 1, j):
                total = fma(s[i, k], z[k, j], total)
            z[i, j] = -total
    for j in range(1, n + 1):
        variance, length = zero, s[j, j]
        for k in range(j, n + 1):
            square = conjugate(z[j, k]) * z[j, k]
            variance = fma(square, reciprocal(s[k, k]), variance)
        for i in range(1, j):
            length = fma(conjugate(s[i, j]) * s[i, j], s[i, i], length)
        z[j, 0], z[0, j] = variance, length


@operation(lambda flaw, pivot: flaw)
def in_range(flaw, pivot):
    """`flaw`, or 1 where the square of a length has under- or overflowed."""
    info = limits(pivot)
    low, high = info.tiny / info.eps, info.max * info.eps
    fits = (pivot >= pivot.fill(low)) & (pivot <= pivot.fill(high))
    return where(fits, flaw, flaw.fill(1))


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
    x, rss, variances, rcond, count, status = found
    _, observations, n = a.shape
    k = b.shape[2]
    columns = n + k + 1
    for j in range(columns):
        s[0, j] = splat(0, s)
    known = read_tile(a, b, roots, own, first, last, t)
    flaw = magnitude(splat(0, t))
    check = flaw
    for c in range(n + 1):
        advance_all(t, s, observations, c, columns)
        if c < n:
            flaw = in_range(flaw, magnitude(s[c + 1, c + 1]))
            divide(s, c + 1, columns)
    invert(s, z, n)
    mean = flaw - flaw
    for j in range(1, n + 1):
        mean = fma(magnitude(z[j, 0]), magnitude(z[0, j]), mean)
        write_number(variances, j - 1, n, first, last, magnitude(z[j, 0]))
        check = weigh(check, z[j, 0])
    trust = splat(1, mean) / square_root(mean / splat(float(n), mean))
    for c in range(n + 1, columns):
        for j in range(n, 0, -1):
            for i in range(j + 1, n + 1):
                s[j, c] = fnma(s[j, i], s[i, c], s[j, c])
            write_number(x, (j - 1) * k + c - n - 1, n * k, first, last, s[j, c])
            check = weigh(check, s[j, c])
        square = splat(0, t)
        for i in range(observations):
            square = fma(conjugate(t[i, c]), t[i, c], square)
        write_number(rss, c - n - 1, k, first, last, magnitude(square))
        check = weigh(check, square)
    put_real(rcond, first, last, trust)
    put_real(count, first, last, known)
    record(status, first, last, flaw, check, trust, threshold)


@part
def size_of(x):
    """The larger part of a number, which may be complex."""
    return max(abs(x.real), abs(x.imag))


@part
def finite(a, b, roots):
    """Whether the rows of a system that are not missing are."""
    for i in range(len(a)):
        total = SMALL * abs(roots[i].real)
        for x in a[i]:
            total += SMALL * abs(x.real) + SMALL * abs(x.imag)
        for x in b[i]:
            total += SMALL * abs(x.real) + SMALL * abs(x.imag)
        if total == np.inf and roots[i] != 0:
            return False
    return True


@part
def exponent(values):
    """That of the largest of some numbers which is not NaN; 0 where there is none."""
    largest = 0.0
    for x in values:
        if size_of(x) > largest:
            largest = size_of(x)
    return math.frexp(largest)[1] if largest > 0 else 0


@part
def shifted(x, power):
    """x times a power of two, which need not be a number itself."""
    if x == 0:  # a power that overflows would make NaN of it
        return x
    half = power // 2
    return x * math.ldexp(1.0, half) * math.ldexp(1.0, power - half)


@part
def scale(a, b, roots, one_a, one_b, one_roots, powers):
    """Copy a system, its columns, b and roots each times a power of two; their exponents."""
    observations, n = a.shape
    powers[n], powers[n + 1] = exponent(b.reshape(b.size)), exponent(roots)
    for i in range(observations):
        one_roots[0, i] = shifted(roots[i], -powers[n + 1])
        for c in range(b.shape[1]):
            one_b[0, i, c] = shifted(b[i, c], -powers[n])
    for j in range(n):
        powers[j] = exponent(a[:, j])
        for i in range(observations):
            one_a[0, i, j] = shifted(a[i, j], -powers[j])


@part
def unscale(one, powers, found, m):
    """Write what was found of a scaled system: NONFINITE where x overflows.

    It is RANK_DEFICIENT where it is pending still.
    """
    x, rss, variances, rcond, _, status = found
    n, columns = x.shape[1:]
    status[m] = OK if one[5][0] == OK else RANK_DEFICIENT
    rcond[m] = one[3][0] if one[3][0] == one[3][0] else 0.0
    for j in range(n):
        for c in range(columns):
            x[m, j, c] = shifted(one[0][0, j, c], powers[n] - powers[j])
            fits = abs(x[m, j, c].real) < np.inf and abs(x[m, j, c].imag) < np.inf
            if status[m] == OK and not fits:
                status[m], rcond[m] = NONFINITE, np.nan
        variances[m, j] = shifted(one[2][0, j], -2 * (powers[j] + powers[n + 1]))
    for c in range(columns):
        rss[m, c] = shifted(one[1][0, c], 2 * (powers[n] + powers[n + 1]))


def kernel(_):
    """The kernel for any number of columns."""

    @jit
    def regress(a, b, roots, own, threshold, x, rss, variances, rcond, count, status):
        systems, observations, n = a.shape
        k, lanes = b.shape[2], lane_count(a)
        columns = n + k + 1
        t = tile(observations, columns, a.dtype, a)
        s = tile(n + 2, columns, a.dtype, a)
        z = tile(n + 1, n + 1, a.dtype, a)
        found = (x, rss, variances, rcond, count, status)
        one_a, one_b, one_roots = np.empty_like(a[:1]), np.empty_like(b[:1]), roots[:1].copy()
        one = (x[:1].copy(), rss[:1].copy(), variances[:1].copy(), rcond[:1].copy(),
               count[:1].copy(), status[:1].copy())  # fmt: skip
        powers = np.zeros(n + 2, np.int64)
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
