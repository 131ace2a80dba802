"""LU with partial pivoting of middling systems, one system a lane, in panels of pivots."""

import numpy as np

from dasksolve.kernels.flaws import judge, record, reject, weigh
from dasksolve.kernels.jit import jit
from dasksolve.kernels.lanes import (
    PANEL,
    Variable,
    fma,
    loop,
    magnitude,
    nothing,
    operation,
    reciprocal,
    splat,
    where,
)
from dasksolve.kernels.tiles import (
    collect,
    deal,
    lane_count,
    row_offset,
    systems_of_lanes,
    tile,
)

# Right-hand sides solved at a time, which bounds the tile.
CHUNK = 16


@operation(nothing)
def read(array, offset, stride, first, last, t, i, j, length, down):
    """t[i, j] … from array.flat[system * stride + offset] …, along a row or down a column."""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    for e, x in enumerate(deal(array, starts, length)):
        t[(i + e, j) if down else (i, j + e)] = x


@operation(nothing)
def write(array, offset, stride, first, last, t, i, j, length, down):
    """array.flat[system * stride + offset] … from t[i, j] …: `read` undone."""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    collect([t[(i + e, j) if down else (i, j + e)] for e in range(length)], array, starts)


@operation(nothing)
def exchange(t, pivots, k, j):
    """Swap t[k, j] in each lane with the element of column j that `pivots` names for k."""
    count = t.lanes.count
    tops = [t.offset(k, j) + part * count for part in range(t.parts)]
    column = t.offset(0, j)
    news = [t.load(top, count, count) for top in tops]
    for lane in range(count):
        chosen = pivots.integer(k, lane) + column
        for part, top in enumerate(tops):
            at = chosen + (part * count + lane)
            news[part] = news[part].replaced(lane, t.load(at, 1).lane(0))
            t.store(at, t.load(top + lane, 1))
    for top, new in zip(tops, news, strict=True):
        t.store(top, new, count)


@operation(nothing)
def update(t, i, j, start, stop, rows, columns):
    """Take Σ t[·, k] t[k, ·] over start ≤ k < stop from `rows` by `columns` elements at [i, j]."""
    wide = 4 // t.parts  # so that the sums of four rows stay in registers
    for first in range(0, columns, wide):
        block = [j + c for c in range(first, min(first + wide, columns))]
        places = [(i + r, c) for r in range(rows) for c in block]
        sums = [Variable(t[r, start] * t[start, c]) for r, c in places]
        with loop(t.builder, start + 1, stop) as k:
            for (r, c), total in zip(places, sums, strict=True):
                total.set(fma(t[r, k], t[k, c], total.get()))
        for place, total in zip(places, sums, strict=True):
            t[place] = t[place] - total.get()


@jit
def subtract(t, start, stop, top, bottom, j, columns):
    """`update` for rows top … bottom of one column or four; no pivots, no change."""
    if start == stop:
        return
    i = top
    while i + 4 <= bottom:
        if columns == 4:
            update(t, i, j, start, stop, 4, 4)
        else:
            update(t, i, j, start, stop, 4, 1)
        i += 4
    while i < bottom:
        if columns == 4:
            update(t, i, j, start, stop, 1, 4)
        else:
            update(t, i, j, start, stop, 1, 1)
        i += 1


@jit
def eliminate(t, pivots, start, stop, n, flaw):
    """Factor a panel, which keeps the reciprocals of its pivots; the flaw of each lane."""
    for j in range(start, stop):
        for i in range(start + 1, j):
            subtract(t, start, i, i, i + 1, j, 1)
        subtract(t, start, j, j, n, j, 1)
        largest = magnitude(t[j, j])
        row = splat(row_offset(t, j), pivots)
        for i in range(j + 1, n):
            size = magnitude(t[i, j])
            larger = size > largest
            largest = where(larger, size, largest)
            row = where(larger, splat(row_offset(t, i), pivots), row)
        flaw = judge(flaw, largest)
        pivots[j, 0] = row
        for c in range(start, stop):
            exchange(t, pivots, j, c)
        inverse = reciprocal(t[j, j])
        t[j, j] = inverse
        for i in range(j + 1, n):
            t[i, j] = t[i, j] * inverse
    return flaw


@jit
def advance(t, pivots, start, stop, n, left, right):
    """Bring columns left … right up to date with the pivots start … stop."""
    j = left
    while j < right:
        columns = 4 if j + 4 <= right else 1
        for c in range(j, j + columns):
            for k in range(start, stop):
                exchange(t, pivots, k, c)
        for i in range(start + 1, stop):
            subtract(t, start, i, i, i + 1, j, columns)
        subtract(t, start, stop, stop, n, j, columns)
        j += columns


@jit
def retreat(t, start, stop, left, right):
    """Solve for the unknowns start … stop, and take them out of the equations above."""
    j = left
    while j < right:
        columns = 4 if j + 4 <= right else 1
        for i in range(stop - 1, start - 1, -1):
            subtract(t, i + 1, stop, i, i + 1, j, columns)
            for c in range(j, j + columns):
                t[i, c] = t[i, c] * t[i, i]
        subtract(t, start, stop, 0, start, j, columns)
        j += columns


@jit
def factor_tile(t, pivots, n, a, first, last):
    """Read a tile of systems and overwrite it by L and U; the flaw of each lane."""
    for i in range(n):
        for j in range(0, n, 8):
            e = min(j, n - 8)
            read(a, i * n + e, n * n, first, last, t, i, e, 8, False)
    flaw = magnitude(splat(0, t))
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        flaw = eliminate(t, pivots, start, stop, n, flaw)
        advance(t, pivots, start, stop, n, stop, n)
    return flaw


@jit
def solve_columns(t, pivots, n, wide, check):
    """Solve for `wide` right-hand sides in the columns from n on."""
    for start in range(0, n, PANEL):
        advance(t, pivots, start, min(start + PANEL, n), n, n, n + wide)
    for start in range((n - 1) // PANEL * PANEL, -1, -PANEL):
        retreat(t, start, min(start + PANEL, n), n, n + wide)
    for i in range(n):
        for j in range(n, n + wide):
            check = weigh(check, t[i, j])
    return check


@jit
def solve(a, b, x, status):
    systems, n, columns = b.shape
    count, last = lane_count(a), systems - 1
    chunk = min(columns, CHUNK)
    # An odd number of vectors in a row spreads a column over all sets of the cache.
    span = (n + chunk) | 1
    t = tile(np.empty((n * span + 1) * count, a.dtype), span, a)
    pivots = tile(np.empty((n + 1) * count, np.int64), 1, a)
    failed = False
    for first in range(0, systems, count):
        flaw = factor_tile(t, pivots, n, a, first, last)
        check = magnitude(splat(0, t))
        if columns == 1:
            for i in range(0, n, 8):
                read(b, min(i, n - 8), n, first, last, t, min(i, n - 8), n, 8, True)
            check = solve_columns(t, pivots, n, 1, check)
            for i in range(0, n, 8):
                write(x, min(i, n - 8), n, first, last, t, min(i, n - 8), n, 8, True)
        else:
            for left in range(0, columns, chunk):
                wide = min(chunk, columns - left)
                for i in range(n):
                    for j in range(wide):
                        at = i * columns + left + j
                        read(b, at, n * columns, first, last, t, i, n + j, 1, False)
                check = solve_columns(t, pivots, n, wide, check)
                for i in range(n):
                    for j in range(wide):
                        at = i * columns + left + j
                        write(x, at, n * columns, first, last, t, i, n + j, 1, False)
        if record(status, first, last, flaw, check):
            failed = True
    if failed:
        reject(a, b, x, status)
