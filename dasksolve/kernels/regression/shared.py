"""Regressions of many series on one design, each on the observations that it has; one in a lane.

In the basis of the design's orthonormal columns q, with the weights w, 0 where nothing is known:

    G = Σ w q qᵀ,  b = Σ w q y,  c = G⁻¹ b,  r = y - q c,  c ← c + G⁻¹ Σ w q r,  coef = R⁻¹ c

Every sum is taken in the order of the observations, so that its bits depend on no other series.
A series that is not safely solved so is left PENDING.
"""

from typing import Any, NamedTuple

import numpy as np

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.verdicts import limits, weigh
from dasksolve.kernels.language.lanes import (
    any_lane,
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
from dasksolve.kernels.language.target import VECTOR_BYTES
from dasksolve.kernels.language.tiles import FIRST, collect, lane_count, prefetch, tile
from dasksolve.kernels.language.values import Index, Variable, align_stack, loop
from dasksolve.kernels.regression.observations import (
    STRIP,
    copy_lines,
    stage_across,
    stage_along,
    strip,
)
from dasksolve.status import Status

OK, PENDING, TOO_FEW = int(Status.OK), int(Status.PENDING), int(Status.TOO_FEW)

# Sums that stay in registers while the observations pass: all of N = 6, where there are 32.
TOGETHER = 27 if VECTOR_BYTES == 64 else 12
# What a pivot of G must keep of its diagonal: less, and stderr loses digits.
KEPT = {"float": 1e-2, "double": 1e-5}


def pairs(n):
    """The elements of a symmetric matrix that are computed."""
    return [(i, j) for i in range(n) for j in range(i + 1)]


class Basis:
    """The constants of a design of n columns: R, R⁻¹, the ridge, units; as `packed` packs them."""

    def __init__(self, array, n):
        self.array, self.n = array, n

    def _number(self, row, column):
        return self.array.load(row * self.n + column, 1).lane(0)

    def triangle(self, i, j):
        return self._number(i, j)

    def inverse(self, i, j):
        return self._number(self.n + i, j)

    def ridge(self, i, j):
        return self._number(2 * self.n + i, j)

    def unit(self, i):
        return self._number(3 * self.n, i)

    def reciprocal(self, i):
        return self._number(3 * self.n + 1, i)


def accumulate(table, basis, t, observations, n, ask, begun=None):
    """G and b over the observations, and their number; or on with those that are begun."""
    zero = t.fill(0)
    columns = n + n * (n + 1) // 2
    places: list[Any] = [(k,) for k in range(n)] + pairs(n)
    found, count = {}, Variable(zero if begun is None else begun["count"])

    def start_of(place):
        if begun is not None:
            return begun[place]
        return zero if len(place) == 1 else t.fill(basis.ridge(*place))

    for start in range(0, columns, TOGETHER):
        group = places[start : start + TOGETHER]
        sums = {place: Variable(start_of(place)) for place in group}
        with loop(t.builder, 0, observations) as i:
            w = t[i, 1]
            if start < n:
                product = w * t[i, 0]
            for e, (place, total) in enumerate(sums.items(), start):
                x = t.fill(table.load(i * columns + e, 1).lane(0))
                total.set(fma(x, product if len(place) == 1 else w, total.get()))
            if start == 0:
                count.set(count.get() + where(w != zero, w.fill(1), zero))
                ask()
        found.update({place: total.get() for place, total in sums.items()})
    return found, count.get()


class Factors(NamedTuple):
    """G = L D Lᵀ, with ones on the diagonal of L."""

    lower: dict[Any, Any]
    """L."""
    inverse: dict[Any, Any]
    """L⁻¹."""
    pivots: list[Any]
    """D."""
    reciprocals: list[Any]
    """1 / D."""
    safe: Any
    """Where it is safe to go on with them."""


def factored(g, n):
    """The factors of G; no square roots: they would take a fifth of the time."""
    u: dict[Any, Any] = {}
    lower: dict[Any, Any] = {}
    pivots, reciprocals = [], []
    info = limits(g[0, 0])
    kept = KEPT[str(g[0, 0].value.type.element)]
    low, high = np.sqrt(info.tiny) / info.eps, np.sqrt(info.max) * info.eps
    safe = g[0, 0] == g[0, 0]
    for j in range(n):
        for i in range(j, n):
            u[i, j] = g[i, j]
            for k in range(j):
                u[i, j] = fnma(u[i, k], lower[j, k], u[i, j])
        pivot, size = u[j, j], g[j, j]
        safe = safe & (pivot > size * size.fill(kept))
        safe = safe & (size > size.fill(low)) & (size < size.fill(high))
        pivots.append(pivot)
        reciprocals.append(pivot.fill(1) / pivot)
        for i in range(j + 1, n):
            lower[i, j] = u[i, j] * reciprocals[j]
    return Factors(lower, inverted(lower, n), pivots, reciprocals, safe)


def inverted(lower, n):
    """L⁻¹."""
    z: dict[Any, Any] = {}
    for k in range(n):
        for i in range(k + 1, n):
            total = lower[i, k]
            for j in range(k + 1, i):
                total = fma(lower[i, j], z[j, k], total)
            z[i, k] = -total
    return z


def solved(factors, b, n):
    """G⁻¹ b."""
    z, x = factors.inverse, list(b)
    for i in range(n):
        for k in range(i):
            x[i] = fma(z[i, k], b[k], x[i])
    x = [half * reciprocal for half, reciprocal in zip(x, factors.reciprocals, strict=True)]
    for k in range(n):
        for i in range(k + 1, n):
            x[k] = fma(z[i, k], x[i], x[k])
    return x


def residuals(table, t, observations, c, n, begun=None):
    """Σ w r² and Σ w q r; or on with those that are begun."""
    zero = t.fill(0)
    columns = n + n * (n + 1) // 2
    first, others = begun or (zero, [zero] * n)
    rss, sums = Variable(first), [Variable(other) for other in others]
    with loop(t.builder, 0, observations) as i:
        q = [t.fill(table.load(i * columns + k, 1).lane(0)) for k in range(n)]
        r = t[i, 0]
        for x, unknown in zip(q, c, strict=True):
            r = fnma(x, unknown, r)
        weighted = t[i, 1] * r
        rss.set(fma(weighted, r, rss.get()))
        for x, total in zip(q, sums, strict=True):
            total.set(fma(x, weighted, total.get()))
    return rss.get(), [total.get() for total in sums]


def transformed(basis, c, n):
    """R⁻¹ c in double precision; what rounding one coefficient leaves, the next takes up."""
    found: dict[int, Any] = {}
    for j in reversed(range(n)):
        x = c[j].widened()
        for k in range(j + 1, n):
            x = fnma(x.fill(basis.triangle(j, k)), found[k], x)
        x = x * x.fill(basis.reciprocal(j))
        found[j] = x.rounded_like(c[j]).widened()
    return [in_units(basis, found[j], j, c[j]) for j in range(n)]


def in_units(basis, x, j, like):
    """A number in units of the scaled column j as one in those of the column."""
    wide = x.widened()
    return (wide * wide.fill(basis.unit(j))).rounded_like(like)


def spread(basis, factors, n):
    """R⁻¹ L⁻ᵀ; the diagonal of (XᵀWX)⁻¹; the sum of its products with that of XᵀWX."""
    like, z, lower = factors.pivots[0], factors.inverse, factors.lower
    s, variances, inflation = {}, [], like.fill(0)
    for j in range(n):
        variance, length = like.fill(0), like.fill(0)
        for i in range(j, n):
            s[j, i] = like.fill(basis.inverse(j, i))
            for k in range(j, i):
                s[j, i] = fma(like.fill(basis.inverse(j, k)), z[i, k], s[j, i])
            variance = fma(s[j, i] * s[j, i], factors.reciprocals[i], variance)
        for i in range(j + 1):
            x = like.fill(basis.triangle(i, j))
            for k in range(i + 1, j + 1):
                x = fma(lower[k, i], like.fill(basis.triangle(k, j)), x)
            length = fma(x * x, factors.pivots[i], length)
        variances.append(variance)
        inflation = fma(length, variance, inflation)
    return s, variances, inflation


def shrink(basis, x, n):
    """The ridge's matrix times x."""
    rows = [[x[0].fill(basis.ridge(i, k)) for k in range(n)] for i in range(n)]
    return [inner(row, x) for row in rows]


def asking(ahead, lanes):
    """A function that asks for one cache line after the other of what is read next.

    They stand `wide` in a row, and the rows `step` apart; the first is the one in `column`.
    """
    y, start, column, step, wide = ahead
    builder = start.builder
    place, column = Variable(start), Variable(column)

    def ask():
        here, following = (Index(builder, v.get().value) for v in (place, column))
        prefetch(y, here, FIRST)
        following = following + 1
        last = following == wide
        place.set(last.choose(here + step - (wide - 1) * lanes, here + lanes))
        column.set(last.choose(0, following))

    return ask


def largest_observation(t, observations, begun):
    """max |y|; or on with what is begun."""
    largest = Variable(begun)
    with loop(t.builder, 0, observations) as i:
        size = abs(t[i, 0])
        largest.set(where(size > largest.get(), size, largest.get()))
    return largest.get()


def write(values, arrays, series, n, along, first):
    """Coefficients to arrays (M, N) if `along` is 1, else (N, M)."""
    starts = [(first + lane) * n for lane in range(values[0][0].count)]
    with first.builder.if_else((along == 1).value) as (yes, no):
        with yes:
            for several, array in zip(values, arrays, strict=True):
                collect(several, array, starts)
        with no:
            for several, array in zip(values, arrays, strict=True):
                for j, x in enumerate(several):
                    array.store(first + series * j, x)


@operation(nothing)
def fit(design, t, s, ahead, sizes, n, along, wanted, found, first):
    """Fit the series of a tile, and write what is found; `s` gets what covariances need."""
    builder = t.builder
    align_stack(builder)
    (table, basis), (series, observations) = design, sizes
    basis, zero = Basis(basis, n), t.fill(0)
    g, count = accumulate(table, basis, t, observations, n, asking(ahead, zero.count))
    factors = factored(g, n)
    c = solved(factors, [g[(k,)] for k in range(n)], n)
    sums = residuals(table, t, observations, c, n)

    def largest(wanted):
        found = Variable(zero)
        with builder.if_then(any_lane(wanted).value):
            found.set(largest_observation(t, observations, zero))
        return found.get()

    place = series, along, first
    answered(basis, s, factors, c, (*sums, count, largest), n, wanted, found, place)


def answered(basis, s, factors, c, observed, n, wanted, found, place):
    """Write what is found of the series of a tile.

    observed: what `residuals` gives, the count, and a function of the lanes in which it is wanted
    that gives max |y|.
    """
    rss, gradient, count, largest = observed
    zero, nan = count.fill(0), count.fill(np.nan)
    series, along, first = place
    shrunk = shrink(basis, c, n)
    step = solved(factors, [x - less for x, less in zip(gradient, shrunk, strict=True)], n)
    c = [x + more for x, more in zip(c, step, strict=True)]
    shrunk = shrink(basis, c, n)
    rss = rss - inner(step, [x + more for x, more in zip(gradient, shrunk, strict=True)])
    rss = where(rss < zero, zero, rss)
    coef = transformed(basis, c, n)
    factors_x, variances, inflation = spread(basis, factors, n)
    rcond = zero.fill(np.sqrt(n)) / square_root(inflation)
    freedom = count - zero.fill(n)
    noise = where(freedom > zero, rss / freedom, nan)
    stderr = [in_units(basis, square_root(v * noise), j, zero) for j, v in enumerate(variances)]
    check = zero
    for x in (*coef, *variances, rss):
        check = weigh(check, x)
    least, threshold = wanted
    safe = factors.safe & (check == zero) & (rcond >= zero.fill(threshold))
    info = limits(zero)
    normal = rss > zero.fill(info.tiny / info.eps)
    safe = safe & (normal | (largest(~normal) == zero))  # zero is right where all observations are
    few = count < zero.fill(least)
    for place, x in factors_x.items():
        s[place] = x
    for k in range(n):
        s[n, k] = factors.reciprocals[k]
    s[n + 1, 0] = where(few, nan, noise)
    verdict = where(few, zero.fill(TOO_FEW), where(safe, zero.fill(OK), zero.fill(PENDING)))
    kept = [[unsigned_zero(where(few, nan, x)) for x in values] for values in (coef, stderr)]
    write(kept, found[:2], series, n, along, first)
    rss, rcond = where(few, nan, rss), where(few, nan, rcond).widened()
    for array, x in zip(found[2:], (rss, count, rcond, verdict), strict=True):
        array.store(first, array.numbers(x))


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
            units = basis[3 * n * n + i] * basis[3 * n * n + j]
            total = total * s[n + 1, 0] * splat(units, s)
            put_element(covariance, i * n + j, n * n, first, total)
            put_element(covariance, j * n + i, n * n, first, total)


def kernel(n):
    """The kernel for n columns."""

    @jit
    def regress(
        y, w, own, along, table, basis, min_count, threshold,
        coef, stderr, rss, count, rcond, status, covariance, start, stop,
    ):  # fmt: skip
        series, observations = len(rss), len(table) // (n + n * (n + 1) // 2)
        sizes, lanes = (series, observations), lane_count(rss)
        design, wanted = (table, basis), (min_count, threshold)
        found = (coef, stderr, rss, count, rcond, status)
        t = tile(observations, 2, rss.dtype, rss)
        s = tile(n + 2, n, rss.dtype, rss)
        most = 1 if along else max(8, min(32, STRIP // (observations * lanes * rss.itemsize)))
        room = 1 if along else observations * (most + 1) * lanes
        kept_y, kept_w = np.empty(2 * room, rss.dtype), np.empty(2 * room if own else 1, rss.dtype)
        tiles, left = strip(start, stop, most, lanes)
        if not along:
            copy_lines(y, left, series, tiles, 0, observations * tiles, t, kept_y, 0)
            if own:
                copy_lines(w, left, series, tiles, 0, observations * tiles, t, kept_w, 0)
        base = 0
        while tiles:
            following, beyond = strip(left + tiles * lanes, stop, most, lanes)
            lines, wide = observations * following, max(following, 1)
            for number in range(tiles):
                first = left + number * lanes
                if along:
                    stage_along(y, w, own, first, observations, t)
                    ahead = (y, beyond * observations, 0, lanes, 1)
                else:
                    begin, end = lines * number // tiles, lines * (number + 1) // tiles
                    copy_lines(y, beyond, series, following, begin, end, t, kept_y, room - base)
                    if own:
                        copy_lines(w, beyond, series, following, begin, end, t, kept_w, room - base)
                    at = base + number * lanes
                    stage_across(kept_y, kept_w if own else w, own, at, tiles, observations, t)
                    row, column = divmod(end, wide)
                    place = beyond + row * series + column * lanes
                    ahead = (y, place, column, series, wide)
                fit(design, t, s, ahead, sizes, n, along, wanted, found, first)
                if len(covariance):
                    put_covariance(s, basis, covariance, first, n)
            tiles, left, base = following, beyond, room - base

    return regress
