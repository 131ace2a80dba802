"""The sums over the observations of a tile of series, and the small systems that they make.

In the basis of the design's orthonormal columns q, with the weights w, 0 where nothing is known:

    G = Σ w q qᵀ,  b = Σ w q y,  c = G⁻¹ b,  r = y - q c,  c ← c + G⁻¹ Σ w q r,  coef = R⁻¹ c

Every sum is taken in the order of the observations, so that its bits depend on no other series.
"""

from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np

from dasksolve.kernels.diagnostics.verdicts import finfo
from dasksolve.kernels.language.control import Variable, forget_registers, loop
from dasksolve.kernels.language.lanes import fma, fnma, inner, where, width
from dasksolve.kernels.language.target import FEW_REGISTERS, VECTOR_BYTES
from dasksolve.kernels.language.tiles import tiles_of

# Sums that stay in registers while the observations pass: all of N = 6 where there are 32. Where
# they are few, those of two registers' series, for both of which a number of the design is loaded.
TOGETHER = 27 if VECTOR_BYTES == 64 else 6 if FEW_REGISTERS else 12
REGISTERS = 2 if FEW_REGISTERS else 1
"""Those that the series of a tile fill."""
ROWS = 4
"""Residuals that are computed side by side where registers are few: each is a chain of its own."""
# What a pivot of G must keep of its diagonal: less, and stderr loses digits.
KEPT = {"float": 1e-2, "double": 1e-5}


def lanes(dtype):
    """How many series there are in a tile."""
    return REGISTERS * width(dtype)


tile, lane_count = tiles_of(lanes)


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


def columns(n):
    """The sums over the observations: b, then G."""
    return [*((k,) for k in range(n)), *pairs(n)]


def groups(n):
    """Which of the `columns` are summed together: start and stop of each group."""
    count = n + len(pairs(n))
    apart = FEW_REGISTERS and count >= TOGETHER  # b from G: they need different numbers
    ends = [0, n, count] if apart else [0, count]
    return [
        (start, min(start + TOGETHER, stop))
        for first, stop in pairwise(ends)
        for start in range(first, stop, TOGETHER)
    ]


class Table:
    """Emitted access to what is summed, times w or w y: a matrix of rows (P,) for each group."""

    def __init__(self, array, observations, n):
        self.array, self.places, every = array, {}, columns(n)
        for start, stop in groups(n):
            for e in range(start, stop):
                self.places[every[e]] = observations * start + (e - start), stop - start

    def __getitem__(self, position):
        i, place = position
        first, wide = self.places[place]
        return self.array.load(first + i * wide, 1).lane(0)


def accumulate(table, basis, t, observations, n, meanwhile, begun=None):
    """G and b over the observations, and their number; or on with those that are begun.

    meanwhile: what is emitted besides for each of them. Where registers are few, t is masked then.
    """
    zero, every, table = t.fill(0), columns(n), Table(table, observations, n)
    count = Variable(zero if begun is None else begun["count"])

    def start_of(place):
        if begun is not None:
            return begun[place]
        return zero if len(place) == 1 else t.fill(basis.ridge(*place))

    def summing(start, stop):
        """The sums of a group, and what adds to them."""
        sums = {place: Variable(start_of(place)) for place in every[start:stop]}

        def add(i, w, product):
            for place, total in sums.items():
                factor = product if len(place) == 1 else w
                total.set(fma(t.fill(table[i, place]), factor, total.get()))

        return sums, add

    def add_first(add, i, w, product, known):
        add(i, w, product)
        count.set(count.get() + where(known, w.fill(1), zero))
        meanwhile()

    if not FEW_REGISTERS:
        found = {}
        for start, stop in groups(n):
            sums, add = summing(start, stop)
            with loop(t.builder, 0, observations) as i:
                y, w, known = t[i]
                product = where(known, w * y, zero)
                w = where(known, w, zero)
                if start:
                    add(i, w, product)
                else:
                    add_first(add, i, w, product, known)
            found.update({place: total.get() for place, total in sums.items()})
        return found, count.get()
    for number, (start, stop) in enumerate(sorted(groups(n), key=lambda ends: ends[1] - ends[0])):
        sums, add = summing(start, stop)
        if number == 0:
            t.mask(observations, partial(add_first, add))
        else:
            with loop(t.builder, 0, observations) as i:
                y, w = t.masked(i)
                add(i, w, w * y)
        for e in range(start, stop):
            t.sums[e, 0] = sums[every[e]].get()
        forget_registers(t.builder)  # else some wait there for what comes after all groups
    return {place: t.sums[e, 0] for e, place in enumerate(every)}, count.get()


def residuals(table, t, observations, c, n, meanwhile, begun=None):
    """Σ w r² and Σ w q r; or on with those that are begun."""
    table = Table(table, observations, n)
    first, others = begun or (t.fill(0), [t.fill(0)] * n)
    rss, sums = Variable(first), [Variable(other) for other in others]
    if FEW_REGISTERS:
        return _residuals_apart(table, t, observations, c, rss, sums)
    zero = t.fill(0)
    with loop(t.builder, 0, observations) as i:
        q = [t.fill(table[i, (k,)]) for k in range(n)]
        r, w, known = t[i]
        for x, unknown in zip(q, c, strict=True):
            r = fnma(x, unknown, r)
        weighted = where(known, w * r, zero)
        rss.set(where(known, fma(weighted, r, rss.get()), rss.get()))
        for x, total in zip(q, sums, strict=True):
            total.set(fma(x, weighted, total.get()))
        meanwhile(i)
    return rss.get(), [total.get() for total in sums]


def _residuals_apart(table, t, observations, c, rss, sums):
    """The same of what is masked, one after the other: not all of it stays in few registers."""
    zero = t.fill(0)
    for k, x in enumerate(c):
        t.sums[k, 0] = -x
    forget_registers(t.builder)

    def square(rows):
        found = [t.masked(i)[0] for i in rows]
        for k in range(len(c)):
            x = t.sums[k, 0]
            q = [t.fill(table[i, (k,)]) for i in rows]
            found = [fma(one, x, r) for one, r in zip(q, found, strict=True)]
        for i, r in zip(rows, found, strict=True):
            _, w = t.masked(i)
            r = where(w != zero, r, zero)
            t.weigh(i, w * r)
            rss.set(fma(w * r, r, rss.get()))

    whole = observations // ROWS
    with loop(t.builder, 0, whole) as block:
        square([block * ROWS + row for row in range(ROWS)])
    with loop(t.builder, whole * ROWS, observations) as i:
        square([i])
    t.sums[0, 0] = rss.get()
    forget_registers(t.builder)
    with loop(t.builder, 0, observations) as i:
        _, weighted = t.masked(i)
        for k, total in enumerate(sums):
            total.set(fma(t.fill(table[i, (k,)]), weighted, total.get()))
    return t.sums[0, 0], [total.get() for total in sums]


def largest_observation(t, observations, begun):
    """max |y|; or on with what is begun."""
    largest = Variable(begun)
    with loop(t.builder, 0, observations) as i:
        if FEW_REGISTERS:
            y, _ = t.masked(i)
            more = abs(y) > largest.get()
        else:
            y, _, known = t[i]
            more = known & (abs(y) > largest.get())
        largest.set(where(more, abs(y), largest.get()))
    return largest.get()


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
    info = finfo(g[0, 0])
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
