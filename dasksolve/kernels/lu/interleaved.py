"""LU with partial pivoting of middling systems, one system a lane, in panels of pivots."""

from typing import Any

import numpy as np

from dasksolve.kernels.compiling.jit import holder, part
from dasksolve.kernels.diagnostics.condition import TRIALS, begin
from dasksolve.kernels.diagnostics.condition import inverse_norm as estimate
from dasksolve.kernels.diagnostics.verdicts import first_flawed, judge, reject
from dasksolve.kernels.language.control import Variable, forget_registers, loop, opaque
from dasksolve.kernels.language.lanes import (
    PANEL,
    inner,
    magnitude,
    operation,
    reciprocal,
    splat,
    where,
)
from dasksolve.kernels.language.prefetching import SECOND, prefetch_next
from dasksolve.kernels.language.tiles import lane_count, matrix_tile, row_offset, tile
from dasksolve.kernels.language.transposition import read_row, row_places
from dasksolve.kernels.language.values import INDEX, Index
from dasksolve.kernels.lu import fixed
from dasksolve.kernels.lu.substitution import (
    advance,
    exchange,
    exchange_columns,
    substitute,
    subtract,
    together,
)
from dasksolve.kernels.regimes import interleaved
from dasksolve.kernels.regimes.columns import AS_COLUMNS

# Bytes of a tile up to which it pays to ask for the next one early, and to read rows in their
# pivots' order: 1530 ns instead of 1740 at N = 32. Beyond, the two crowd the cache.
EARLY = 160 << 10
# Bytes of all matrices up to which they stay in the cache, where rows in that order cost nothing:
# N = 64 of float32 takes 0.94 of the time. From memory it would take 1.06.
CACHED = 768 << 10


@operation(lambda t, pivots, start, n, a, first, ahead, flaw: flaw)
def eliminate(t, pivots, start, n, a, first, ahead, flaw):
    """Factor a whole panel, which keeps the reciprocals of its pivots; the flaw of each lane."""
    if t.parts == 2:  # it would take 1 s more to compile
        return eliminate_above(t, pivots, start, n, a, first, ahead, flaw)
    found = Variable(flaw)
    (last,) = (start + PANEL == n).parts
    with t.builder.if_else(last) as (square, taller):
        with square:
            found.set(eliminate_square(t, pivots, start, n, a, first, ahead, flaw))
        with taller:
            found.set(eliminate_above(t, pivots, start, n, a, first, ahead, flaw))
    return found.get()


def ask_next(a, first, n, j, ahead):
    """Ask for as many cache lines of the next tile as a column has, if any."""
    with loop(a.builder, 0, ahead) as i:
        prefetch_next(a, first, n, j * n + i, SECOND)


def eliminate_square(t, pivots, start, n, a, first, ahead, flaw):
    """`eliminate` for the last rows, which stay in registers: N = 24 takes 0.96 of the time."""
    square = t.beginning(start, start)
    swaps: list[Any] = []
    pivot = flaw.fill(1)
    for q in range(PANEL):
        ask_next(a, first, n, start + q, ahead)
        forget_registers(t.builder)
        pivot = first_flawed(pivot, fixed.eliminate(square, 0, q, swaps, PANEL, 0))
        row = pivots.fill(t.offset(start + q, 0))
        for i, here in swaps[q].items():
            row = where(here, pivots.fill(t.offset(start + i, 0)), row)
        pivots[start + q, 0] = row
    return judge(flaw, pivot)


def eliminate_above(t, pivots, start, n, a, first, ahead, flaw):
    """`eliminate` where rows follow the panel's."""
    builder, inverse = t.builder, flaw
    for q in range(PANEL):
        j = start + q
        ask_next(a, first, n, j, ahead)
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
        groups = opaque(Index(builder, INDEX(PANEL // wide)))  # unrolled, it takes 1 s to compile
        with loop(builder, 0, groups) as group:
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
def read_columns(a, n, first, t, start, stop):
    """Read some columns, a panel or single ones, of the rows in their order at present."""
    for i in range(n):
        if stop - start >= 8:
            for j in range(start, stop, 8):
                read_row(a, n, first, t, i, min(j, stop - 8), 8)
        else:
            for j in range(start, stop):
                read_row(a, n, first, t, i, j, 1)


@part
def order_rows(n, t, pivots):
    """Swap the places of the rows as the first panel says.

    Nothing is left to swap in columns that are read then.
    """
    for k in range(PANEL):
        exchange(t, pivots, k, n)


@part
def factor(a, first, last, held, flaw):
    """Read and factor the systems of the tile that begins with `first`; the flaw of each lane."""
    t, n, pivots = held
    early = n * n * lane_count(a) * a.itemsize <= EARLY
    ahead = n if early else 0
    permuted = n >= 2 * PANEL and (early or a.nbytes <= CACHED)
    for i in range(n):
        t[i, n] = row_places(t, i, n, first, last)  # where b will stand
    read_columns(a, n, first, t, 0, PANEL if permuted else n)
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        if stop - start == PANEL:
            flaw = eliminate(t, pivots, start, n, a, first, ahead, flaw)
        else:
            flaw = eliminate_rest(t, pivots, start, n, flaw)
        swapped = permuted and start == 0
        if swapped:
            order_rows(n, t, pivots)
            read_columns(a, n, first, t, PANEL, n)
        advance(t, pivots, swapped, start, stop, n, stop, n)
    return flaw


@holder
def hold(b, n, wide):
    """The tile has the matrix and, beside it, right-hand sides; and the pivots stand in another."""
    return matrix_tile(n, n + wide, b.dtype, b), n, tile(n, 1, np.int32, b)


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
