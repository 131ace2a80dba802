"""LU with partial pivoting of middling systems, one system a lane, in panels of pivots."""

from typing import Any

import numpy as np

from dasksolve.kernels.emitted import Variable, loop, never_inline
from dasksolve.kernels.flaws import judge, record, reject, weigh
from dasksolve.kernels.jit import jit, part
from dasksolve.kernels.lanes import (
    PANEL,
    fma,
    magnitude,
    nothing,
    operation,
    product,
    reciprocal,
    splat,
    where,
)
from dasksolve.kernels.tiles import (
    SECOND,
    collect,
    deal,
    lane_count,
    prefetch_next,
    row_offset,
    systems_of_lanes,
    tile,
)

# Right-hand sides solved at a time, which bounds the tile.
CHUNK = 16
# Bytes of a tile up to which it pays to ask for the next one early, and to read rows in their
# pivots' order: 1530 ns instead of 1740 at N = 32. Beyond, the two crowd the cache.
EARLY = 160 << 10


@operation(nothing)
def read(array, offset, stride, first, last, t, i, j, length, down):
    """t[i, j] … from array.flat[system * stride + offset] …, along a row or down a column."""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    for e, x in enumerate(deal(array, starts, length)):
        t[(i + e, j) if down else (i, j + e)] = x


@operation(nothing)
def read_permuted(array, n, first, last, t, i, j):
    """t[i, j] … t[i, j + 7] from the row of each matrix whose number stands in t[i, n]."""
    systems = enumerate(systems_of_lanes(array, first, last))
    starts = [(s * n + t.whole(i, n, lane)) * n + j for lane, s in systems]
    for e, x in enumerate(deal(array, starts, 8)):
        t[i, j + e] = x


@operation(nothing)
def write(array, offset, stride, first, last, t, i, j, length, down):
    """array.flat[system * stride + offset] … from t[i, j] …: `read` undone."""
    starts = [s * stride + offset for s in systems_of_lanes(array, first, last)]
    collect([t[(i + e, j) if down else (i, j + e)] for e in range(length)], array, starts)


@operation(nothing)
def exchange(t, pivots, k, j):
    """Swap t[k, j] in each lane with the element of column j that `pivots` names for k."""
    count = t.lanes.count
    tops = [t.offset(k, j) + p * count for p in range(t.parts)]
    column = t.offset(0, j)
    news = [t.load(top, count, count) for top in tops]
    for lane in range(count):
        chosen = pivots.integer(k, lane) + column
        for p, top in enumerate(tops):
            at = chosen + (p * count + lane)
            news[p] = news[p].replaced(lane, t.load(at, 1).lane(0))
            t.store(at, t.load(top + lane, 1))
    for top, new in zip(tops, news, strict=True):
        t.store(top, new, count)


@operation(nothing)
def update(t, i, j, start, stop, rows, columns):
    """Take Σ t[·, k] t[k, ·] over start ≤ k < stop from `rows` by `columns` elements at [i, j]."""
    never_inline(t.builder)
    wide = 4 // t.parts  # so that the sums of four rows stay in registers
    for first in range(0, columns, wide):
        block = [j + c for c in range(first, min(first + wide, columns))]
        places = [(i + r, c) for r in range(rows) for c in block]
        sums = [Variable(product(t[r, start], t[start, c])) for r, c in places]
        with loop(t.builder, start + 1, stop) as k:
            for (r, c), total in zip(places, sums, strict=True):
                total.set(fma(t[r, k], t[k, c], total.get()))
        for place, total in zip(places, sums, strict=True):
            t[place] = t[place] - total.get()


@part
def subtract(t, start, stop, top, bottom, left, right):
    """`update` for rows top … bottom of columns left … right; no pivots, no change."""
    if start == stop:
        return
    for j in range(left, right - 3, 4):
        for i in range(top, bottom - 3, 4):
            update(t, i, j, start, stop, 4, 4)
        for i in range(bottom - (bottom - top) % 4, bottom):
            update(t, i, j, start, stop, 1, 4)
    for j in range(right - (right - left) % 4, right):
        for i in range(top, bottom - 3, 4):
            update(t, i, j, start, stop, 4, 1)
        for i in range(bottom - (bottom - top) % 4, bottom):
            update(t, i, j, start, stop, 1, 1)


def inner(left, right):
    """Σ left right."""
    total = product(left[0], right[0])
    for factors in zip(left[1:], right[1:], strict=True):
        total = fma(*factors, total)
    return total


@operation(nothing)
def forward(t, start, j, columns):
    """Solve with the unit lower triangle of a whole panel."""
    panel = [start + k for k in range(PANEL)]
    for c in range(columns):
        solved = [t[start, j + c]]
        for i in panel[1:]:
            left = [t[i, k] for k in panel[: len(solved)]]
            solved.append(t[i, j + c] - inner(left, solved))
            t[i, j + c] = solved[-1]


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
        with loop(builder, start, start + PANEL) as c:
            exchange(t, pivots, j, c)
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
def advance(t, pivots, swapped, start, stop, n, left, right):
    """Bring columns left … right, `swapped` or not, up to date with the pivots start … stop."""
    for j in range(left, right, 4):
        end = min(j + 4, right)  # four columns at a time stay in the cache
        if not swapped:
            for c in range(j, end):
                for k in range(start, stop):
                    exchange(t, pivots, k, c)
        if stop - start == PANEL and end - j == 4:
            forward(t, start, j, 4)
        else:
            for i in range(start + 1, stop):
                subtract(t, start, i, i, i + 1, j, end)
        subtract(t, start, stop, stop, n, j, end)


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
def retreat(t, start, stop, left, right):
    """Solve for the unknowns start … stop, and take them out of the equations above."""
    for i in range(stop - 1, start - 1, -1):
        subtract(t, i + 1, stop, i, i + 1, left, right)
        for c in range(left, right):
            t[i, c] = t[i, c] * t[i, i]
    subtract(t, start, stop, 0, start, left, right)


def solve(a, b, x, status):
    """Solve a[m] x[m] = b[m] for every m, a tile at a time."""
    systems, n, columns = b.shape
    count, last = lane_count(a), systems - 1
    chunk = min(columns, CHUNK)
    # An odd number of vectors in a row spreads a column over all sets of the cache.
    span = (n + chunk) | 1
    t = tile(np.empty((n * span + 1) * count, a.dtype), span, a)
    pivots = tile(np.empty((n + 1) * count, np.int64), 1, a)
    early = n * n * count * a.itemsize <= EARLY
    ahead = n if early else 0
    permuted = early and n >= 2 * PANEL
    failed = False
    for first in range(0, systems, count):
        flaw = check = magnitude(splat(0, t))
        for i in range(n):
            for j in range(0, PANEL if permuted else n, 8):
                e = min(j, n - 8)
                read(a, i * n + e, n * n, first, last, t, i, e, 8, False)
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
        for left in range(0, columns, chunk):
            wide = min(chunk, columns - left)
            if columns == 1:
                for i in range(0, n, 8):
                    e = min(i, n - 8)
                    read(b, e, n, first, last, t, e, n, 8, True)
            else:
                for i in range(n):
                    for j in range(wide):
                        at = i * columns + left + j
                        read(b, at, n * columns, first, last, t, i, n + j, 1, False)
            for start in range(0, n, PANEL):
                advance(t, pivots, False, start, min(start + PANEL, n), n, n, n + wide)
            for start in range((n - 1) // PANEL * PANEL, -1, -PANEL):
                retreat(t, start, min(start + PANEL, n), n, n + wide)
            for i in range(n):
                for j in range(n, n + wide):
                    check = weigh(check, t[i, j])
            if columns == 1:
                for i in range(0, n, 8):
                    e = min(i, n - 8)
                    write(x, e, n, first, last, t, e, n, 8, True)
            else:
                for i in range(n):
                    for j in range(wide):
                        at = i * columns + left + j
                        write(x, at, n * columns, first, last, t, i, n + j, 1, False)
        if record(status, first, last, flaw, check):
            failed = True
    if failed:
        reject(a, b, x, status)


def kernel(_):
    """The kernel for systems of any order from 8 on."""
    return jit(solve)
