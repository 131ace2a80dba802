"""What is found of the series of a tile, of the sums over their observations, and written."""

import operator
from functools import reduce
from typing import Any, NamedTuple

import numpy as np

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.diagnostics.verdicts import finfo, weigh
from dasksolve.kernels.language.control import Variable, loop
from dasksolve.kernels.language.lanes import (
    fma,
    fnma,
    inner,
    nothing,
    operation,
    splat,
    square_root,
    unsigned_zero,
    where,
)
from dasksolve.kernels.language.prefetching import FIRST, WRITE, prefetch
from dasksolve.kernels.language.transposition import collect
from dasksolve.kernels.regression.gram import shrink, solved, spread
from dasksolve.status import Status

OK, PENDING, TOO_FEW = int(Status.OK), int(Status.PENDING), int(Status.TOO_FEW)


class Observed(NamedTuple):
    """What is known of the observations of a tile of series, as they are fitted by some c."""

    rss: Any
    gradient: Any
    """Xᵀ W times the residuals."""
    count: Any
    largest: Any
    """A function of the lanes in which it is wanted: max |y|."""


class Wanted(NamedTuple):
    """What is asked for."""

    least: Any
    """The fewest observations."""
    threshold: Any
    """The smallest rcond."""
    covariance: Any
    """1: covariances, too."""


class Place(NamedTuple):
    """Where in the arrays the answers of a tile stand."""

    series: Any
    """How many there are in all."""
    along: Any
    """1: coefficients are (M, N), else (N, M)."""
    first: Any
    """The first series of the tile."""


def transformed(basis, s, c, n):
    """R⁻¹ c in double precision; what rounding one coefficient leaves, the next takes up."""
    like = c[0]
    if like.widened() is like:
        found: dict[int, Any] = {}
        for j in reversed(range(n)):
            x = c[j]
            for k in range(j + 1, n):
                x = fnma(x.fill(basis.triangle(j, k)), found[k], x)
            found[j] = x * x.fill(basis.reciprocal(j))
    else:
        found = _transformed_row_by_row(basis, s, c, n)
    return [in_units(basis, found[j], j, like) for j in range(n)]


def _transformed_row_by_row(basis, s, c, n):
    """The same of float32, as a loop: what is widened takes long to compile."""
    for j, x in enumerate(c):
        s[n + 2, j] = x
    with loop(s.builder, 0, n) as step:
        j = step * -1 + (n - 1)
        x = Variable(s[n + 2, j].widened())
        with loop(s.builder, j + 1, n) as k:
            known = s[n + 2, k].widened()
            x.set(fnma(known.fill(basis.triangle(j, k)), known, x.get()))
        last = x.get()
        s[n + 2, j] = (last * last.fill(basis.reciprocal(j))).rounded_like(c[0])
    return {j: s[n + 2, j] for j in range(n)}


def in_units(basis, x, j, like):
    """A number in units of the scaled column j as one in those of the column."""
    wide = x.widened()
    return (wide * wide.fill(basis.unit(j))).rounded_like(like)


def any_of(masks):
    """Where any of some masks is set."""
    return reduce(operator.or_, masks)


def write(values, arrays, n, place):
    """Write n coefficients of each series, or numbers of as many, to some arrays."""
    series, along, first = place
    starts = [(first + lane) * n for lane in range(values[0][0].count)]
    with first.builder.if_else((along == 1).value) as (yes, no):
        with yes:
            for several, array in zip(values, arrays, strict=True):
                collect(several, array, starts)
        with no:
            for several, array in zip(values, arrays, strict=True):
                for j, x in enumerate(several):
                    array.store(first + series * j, x)


def ask_to_write(arrays, n, place, lanes):
    """Ask for the cache lines of what `write` will write."""
    series, along, first = place
    start = (along == 1).choose(first * n, first)
    step = (along == 1).choose(lanes, series)
    for j in range(n):
        for array in arrays:
            prefetch(array, start + step * j + (lanes - 1), FIRST, WRITE)


def answered(basis, s, factors, c, observed, wanted, found, place):
    """Write what is found of the series of a tile, and to `s` what covariances need."""
    n, (rss, gradient, count, largest) = len(c), observed
    zero, nan = count.fill(0), count.fill(np.nan)
    shrunk = shrink(basis, c, n)
    step = solved(factors, [x - less for x, less in zip(gradient, shrunk, strict=True)], n)
    c = [x + more for x, more in zip(c, step, strict=True)]
    shrunk = shrink(basis, c, n)
    rss = rss - inner(step, [x + more for x, more in zip(gradient, shrunk, strict=True)])
    rss = where(rss < zero, zero, rss)
    coef = transformed(basis, s, c, n)
    factors_x, variances, inflation = spread(basis, factors, n)
    rcond = zero.fill(np.sqrt(n)) / square_root(inflation)
    freedom = count - zero.fill(n)
    noise = where(freedom > zero, rss / freedom, nan)
    squares = [v * noise for v in variances]
    stderr = [in_units(basis, square_root(v), j, zero) for j, v in enumerate(squares)]
    check = zero
    for x in (*coef, *variances, rss):
        check = weigh(check, x)
    safe = factors.safe & (check == zero) & (rcond >= zero.fill(wanted.threshold))
    info = finfo(zero)
    normal = rss > zero.fill(info.tiny / info.eps)
    safe = safe & (normal | (largest(~normal) == zero))  # zero is right where all observations are
    out_of_range = [(v < zero.fill(info.tiny)) | (v == zero.fill(np.inf)) for v in squares]
    safe = safe & ((noise == zero) | ~any_of(out_of_range))
    few = count < zero.fill(wanted.least)
    with s.builder.if_then((wanted.covariance == 1).value):
        for at, x in factors_x.items():
            s[at] = x
        for k in range(n):
            s[n, k] = factors.reciprocals[k]
        s[n + 1, 0] = where(few, nan, noise)
    verdict = where(few, zero.fill(TOO_FEW), where(safe, zero.fill(OK), zero.fill(PENDING)))
    kept = [[unsigned_zero(where(few, nan, x)) for x in values] for values in (coef, stderr)]
    write(kept, found[:2], n, place)
    rss, rcond = where(few, nan, rss), where(few, nan, rcond).widened()
    for array, x in zip(found[2:], (rss, count, rcond, verdict), strict=True):
        array.store(place.first, array.numbers(x))


@operation(lambda total, one, other: total)
def in_both_units(total, one, other):
    """A product of numbers in two units, which float32 need not know."""
    wide = total.widened()
    return (wide * wide.fill(one) * wide.fill(other)).rounded_like(total)


@operation(nothing)
def put_element(array, offset, stride, first, x):
    """array.flat[series * stride + offset] = x."""
    collect([x], array, [(first + lane) * stride + offset for lane in range(x.count)])


@part
def put_covariance(s, basis, covariance, first, n):
    """(XᵀWX)⁻¹ times the variance of an observation."""
    for i in range(n):
        for j in range(i + 1):
            total = splat(0.0, s)
            for k in range(i, n):
                total = fma(s[i, k] * s[n, k], s[j, k], total)
            one, other = basis[3 * n * n + i], basis[3 * n * n + j]
            if (one > 1) != (other > 1):  # else their product may be out of range
                one, other = one * other, 1.0
            total = in_both_units(total * s[n + 1, 0], one, other)
            put_element(covariance, i * n + j, n * n, first, total)
            put_element(covariance, j * n + i, n * n, first, total)
