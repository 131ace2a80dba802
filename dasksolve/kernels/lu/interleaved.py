"""LU with partial pivoting of middling systems, one system a lane, in panels of pivots."""

from typing import Any

import numpy as np

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.condition import TRIALS, begin
from dasksolve.kernels.diagnostics.condition import inverse_norm as estimate
from dasksolve.kernels.diagnostics.verdicts import judge, reject
from dasksolve.kernels.language.lanes import (
    PANEL,
    inner,
    magnitude,
    nothing,
    operation,
    reciprocal,
    splat,
    where,
)
from dasksolve.kernels.language.tiles import (
    SECOND,
    deal,
    lane_count,
    prefetch_next,
    row_offset,
    systems_of_lanes,
    tile,
)
from dasksolve.kernels.language.values import Variable, loop
from dasksolve.kernels.lu.substitution import (
    advance,
    exchange,
    exchange_columns,
    substitute,
    subtract,
    together,
)
from dasksolve.kernels.regimes import interleaved
from dasksolve.kernels.regimes.columns import AS_COLUMNS, read

# Bytes of a tile up to which it pays to ask for the next one early, and to read rows in their
# pivots' order: 1530 ns instead of 1740 at N = 32. Beyond, the two crowd the cache.
EARLY = 160 << 10


@operation(nothing)
def read_permuted(array, n, first, last, t, i, j):
    """t[i, j] … t[i, j + 7] from the row of each matrix whose number stands in t[i, n]."""
    systems = enumerate(systems_of_lanes(array, first, last))
    starts = [(s * n + t.whole(i, n, lane)) * n + j for lane, s in systems]
    for e, x in enumerate(deal(array, starts, 8)):
        t[i, j + e] = x


@operation(lambda t, pivots, start, n, a, first, ahead, flaw: flaw)
def eliminate(t, pivots, start, n, a, first, ahead, flaw):
    """Factor a whole panel, which keeps the reciprocals of its pivots; the flaw of each lane."""
    builder, inverse = t.builder, flaw
    for q in range(PANEL):
        j = start + q
        with loop(builder, 0, ahead) as i:
            prefetch_next(a, first, n, j * n + i, SECOND)
        panel = [start + k for k in range(q)]
        above: list[Any] = []
        for i in panel:
            x = t[i, j]
            above.append(x - inner([t[i, k] for k in panel[: len(above)]], above) if above else x)
            t[i, j] = above[-1]
        largest, row = Variable(flaw.fill(-1)), Variable(pivots.fill(0))
        with loop(builder, j, n) as i:
            x = t[i, j]
            if q:
                # The multipliers of the last pivot wait for this pass, which loads them anyway.
                t[i, panel[-1]] = t[i, panel[-1]] * inverse
                x = t[i, j] = x - inner([t[i, k] for k in panel], above)
            size = magnitude(x)
            larger = size > largest.get()
            largest.set(where(larger, size, largest.get()))
            row.set(where(larger, pivots.fill(row_offset(t, i)), row.get()))
        pivots[j, 0] = row.get()
        wide = together(t)
        with loop(builder, 0, PANEL // wide) as group:
            exchange_columns(t, pivots, j, [start + group * wide + c for c in range(wide)])
        flaw = judge(flaw, magnitude(t[j, j]))
        t[j, j] = inverse = reciprocal(t[j, j])
    with loop(builder, j + 1, n) as i:
        t[i, j] = t[i, j] * inverse
    return flaw


@part
def eliminate_rest(t, pivots, start, n, flaw):
    """Factor the last columns, fewer than a panel."""
    for j in range(start, n):
        for i in range(start + 1, j):
            subtract(t, start, i, i, i + 1, j, j + 1)
        subtract(t, start, j, j, n, j, j + 1)
        largest = magnitude(t[j, j])
        row = splat(row_offset(t, j), pivots)
        for i in range(j + 1, n):
            size = magnitude(t[i, j])
            larger = size > largest
            largest = where(larger, size, largest)
            row = where(larger, splat(row_offset(t, i), pivots), row)
        flaw = judge(flaw, largest)
        pivots[j, 0] = row
        for c in range(start, n):
            exchange(t, pivots, j, c)
        t[j, j] = reciprocal(t[j, j])
        for i in range(j + 1, n):
            t[i, j] = t[i, j] * t[j, j]
    return flaw


@part
def read_rest(a, n, first, last, t, pivots):
    """Read the columns after the first panel, rows in the order that its pivots give them.

    Nothing is left to swap there. The numbers of the rows travel where b will stand.
    """
    for i in range(n):
        t[i, n] = splat(float(i), t)
    for k in range(PANEL):
        exchange(t, pivots, k, n)
    for i in range(n):
        for j in range(PANEL, n, 8):
            read_permuted(a, n, first, last, t, i, min(j, n - 8))


@part
def read_row(a, n, i, stop, first, last, t):
    """Put the first `stop` elements of row i of matrices in the tile: all, or a panel at least."""
    if stop >= 8:
        for j in range(0, stop, 8):
            e = min(j, stop - 8)
            read(a, i * n + e, n * n, first, last, t, i, e, 8, False)
    else:
        for j in range(stop):
            read(a, i * n + j, n * n, first, last, t, i, j, 1, False)


@part
def factor(a, first, last, held, flaw):
    """Read and factor the systems of the tile that begins with `first`; the flaw of each lane."""
    t, n, pivots = held
    early = n * n * lane_count(a) * a.itemsize <= EARLY
    ahead = n if early else 0
    permuted = early and n >= 2 * PANEL
    for i in range(n):
        read_row(a, n, i, PANEL if permuted else n, first, last, t)
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        if stop - start == PANEL:
            flaw = eliminate(t, pivots, start, n, a, first, ahead, flaw)
        else:
            flaw = eliminate_rest(t, pivots, start, n, flaw)
        swapped = permuted and start == 0
        if swapped:
            read_rest(a, n, first, last, t, pivots)
        advance(t, pivots, swapped, start, stop, n, stop, n)
    return flaw


@holder
def hold(b, n, wide):
    """The tile has the matrix and, beside it, right-hand sides; and the pivots stand in another."""
    # An odd number of vectors in a row spreads a column over all sets of the cache.
    return tile(n, (n + wide) | 1, b.dtype, b), n, tile(n, 1, np.int64, b)


@part
def substitute_columns(a, first, last, held, wide, flaw, check):
    t, n, pivots = held
    substitute(t, pivots, n, n, n + wide)
    return flaw, check


@part
def ask(held, wide):
    t, n, _ = held
    begin(t, n, n + wide)


@part
def inverse_norm(held, wide):
    t, n, pivots = held
    return estimate(t, pivots, n, n + wide)


METHOD = interleaved.Method(
    "lu", hold, substitute_columns, reject, factor, AS_COLUMNS, TRIALS, ask, inverse_norm
)


def kernel(_):
    """The kernel for systems of any order."""
    return interleaved.kernel(METHOD)
