"""LU with partial pivoting of small systems, one system a lane, for an N known while compiling."""

from typing import Any

import numpy as np
from numba import types

from dasksolve.kernels.compiling.jit import jit
from dasksolve.kernels.diagnostics import fixed
from dasksolve.kernels.diagnostics.condition import larger
from dasksolve.kernels.diagnostics.norms import doubt
from dasksolve.kernels.diagnostics.verdicts import judge, record, reject, weigh
from dasksolve.kernels.language.lanes import PANEL, inner, magnitude, operation, reciprocal, where
from dasksolve.kernels.language.tiles import (
    Ahead,
    collect,
    deal,
    lane_count,
    put_numbers,
    systems_of_lanes,
    tile,
)
from dasksolve.kernels.language.values import Variable, align_stack, forget_registers, loop, opaque

# Up to this N the tile lives in registers; beyond, LLVM would spill it in a worse order than ours.
IN_REGISTERS = 5


def swap(column, k, chosen):
    """Swap row k with the row that `chosen` marks in each lane."""
    top = new = column[k]
    for i, here in chosen.items():
        new = where(here, column[i], new)
        column[i] = where(here, top, column[i])
    column[k] = new


def search(column, k, n):
    """The largest magnitude at or below the diagonal, and marks on its (first) row."""
    largest, larger = magnitude(column[k]), {}
    for i in range(k + 1, n):
        size = magnitude(column[i])
        larger[i] = size > largest
        largest = where(larger[i], size, largest)
    chosen, later = {}, None
    for i, here in reversed(larger.items()):
        chosen[i] = here if later is None else here & ~later
        later = here if later is None else later | here
    return largest, chosen


def permute(column, start, swaps):
    """Swap the rows of a column as the pivots from `start` on say."""
    for k, chosen in enumerate(swaps, start):
        swap(column, k, chosen)


def advance(column, t, start, swaps, n):
    """Take the pivots `swaps` of the panel at `start` out of a column that they have permuted."""
    for i in range(start + 1, n):
        known = range(start, min(i, start + len(swaps)))
        if known:
            column[i] = column[i] - inner([t[i, k] for k in known], [column[k] for k in known])


def retreat(column, t, start, stop):
    """Solve for the unknowns start … stop, and take them out of the equations above."""
    for i in reversed(range(stop)):
        known = list(range(start, stop) if i < start else reversed(range(i + 1, stop)))
        if known:
            column[i] = column[i] - inner([t[i, k] for k in known], [column[k] for k in known])
        if i >= start:
            column[i] = column[i] * t[i, i]


def eliminate(t, start, j, swaps, n):
    """Column j of the panel at `start`; the magnitude of its pivot."""
    column = {i: t[i, j] for i in range(start, n)}
    permute(column, start, swaps[start:])
    advance(column, t, start, swaps[start:], n)
    largest, chosen = search(column, j, n)
    swap(column, j, chosen)
    column[j] = reciprocal(column[j])
    for i in range(j + 1, n):
        column[i] = column[i] * column[j]
    for i in range(start, n):
        t[i, j] = column[i]
    for k in range(start, j):
        left = {i: t[i, k] for i in range(j, n)}
        swap(left, j, chosen)
        for i in range(j, n):
            t[i, k] = left[i]
    swaps.append(chosen)
    return largest


def read_rest(a, t, systems, swaps, n):
    """Read the columns after the first panel, rows in the order that its pivots give them.

    Nothing is left to swap there: 370 ns instead of 460 at N = 16.
    """
    order = {i: t[0, 0].fill(i * n + PANEL) for i in range(n)}
    permute(order, 0, swaps)
    for i in range(n):
        t[i, PANEL] = order[i]
    for i in range(n):
        starts = [s * (n * n) + t.whole(i, PANEL, lane) for lane, s in enumerate(systems)]
        for e, element in enumerate(deal(a, starts, n - PANEL)):
            t[i, PANEL + e] = element


def apart_from(first, systems, n, columns, j, full):
    """Where the elements of column j of b or x stand: for each row, in each system.

    Each begins at an opaque number, from which LLVM cannot foresee the addresses. Else it would
    compute all of them ahead of the branch for one column, which does not need them.
    """
    if not full:
        columns = opaque(columns)
        return [[(s * n + i) * columns + j for s in systems] for i in range(n)]
    base = opaque(first * n * columns + j)
    return [[columns * (s * n + i) + base for s in range(len(systems))] for i in range(n)]


def keep(t, n):
    """Copy the tile to where factoring it does not reach; return how to get at an element."""
    if n <= IN_REGISTERS:
        elements = dict(t)
        return lambda i, j: elements[i, j]
    for i in range(n):
        for j in range(n):
            t[n + i, j] = t[i, j]
    return lambda i, j: t[n + i, j]


@operation(lambda *_: types.boolean)
def solve_tile(a, b, x, status, t, first, last, columns, n, full, rcond, backward_error):
    """Solve the systems of the tile that begins with `first`; whether any of them failed."""
    builder = a.builder
    align_stack(builder)
    systems = systems_of_lanes(a, first, last)
    if full:  # addresses are then known but for a base: 2.6 ns instead of 3.8 at N = 2
        systems = [first + lane for lane in range(len(systems))]
    if n <= IN_REGISTERS:
        t = {}
    numbers = [] if rcond is None else [rcond, backward_error]
    ahead, early = Ahead(a, b, x, first, n, columns, *numbers), 0.5 if n <= PANEL else 0
    if n <= PANEL:
        together = [s * (n * n) for s in systems]
        read = deal(a, together, n * n, lambda share: ahead.ask(share * early))
        for e, element in enumerate(read):
            t[divmod(e, n)] = element
    else:
        for i in range(n):
            for e, element in enumerate(deal(a, [s * (n * n) + i * n for s in systems], PANEL)):
                t[i, e] = element
    flaw = magnitude(element.fill(0))
    check = Variable(flaw)
    if rcond is not None:
        matrix = keep(t, n)
        norms = fixed.norms(matrix, n)
        worst = Variable(flaw)
    swaps: list[Any] = []
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        for j in range(start, stop):
            if n > IN_REGISTERS:
                forget_registers(builder)
            ahead.ask(early + (1 - early) * (j + 1) / n)
            flaw = judge(flaw, eliminate(t, start, j, swaps, n))
        if start == 0 and n > PANEL:
            read_rest(a, t, systems, swaps, n)
        if stop < n:
            with loop(builder, stop, n) as j:
                column = {i: t[i, j] for i in range(start, n)}
                if start:
                    permute(column, start, swaps[start:])
                advance(column, t, start, swaps[start:], n)
                for i in range(start, n):
                    t[i, j] = column[i]

    vector = (columns == 1).value
    with loop(builder, 0, columns) as j:
        rows = [Variable(element) for _ in range(n)]
        together = [s * n for s in systems]
        with builder.if_else(vector) as (one, several):
            with one:
                for row, value in zip(rows, deal(b, together, n), strict=True):
                    row.set(value)
            with several:
                apart = apart_from(first, systems, n, columns, j, full)
                for row, starts in zip(rows, apart, strict=True):
                    row.set(deal(b, starts, 1)[0])
        column = {i: row.get() for i, row in enumerate(rows)}
        given = list(column.values())
        for start in range(0, n, PANEL):
            permute(column, start, swaps[start : start + PANEL])
            advance(column, t, start, swaps[start : start + PANEL], n)
        for start in reversed(range(0, n, PANEL)):
            retreat(column, t, start, min(start + PANEL, n))
        for value in column.values():
            check.set(weigh(check.get(), value))
        if rcond is not None:
            found = [column[i] for i in range(n)]
            error = fixed.backward_error(matrix, norms, given, found, a.lanes)
            worst.set(larger(worst.get(), error))
        with builder.if_else(vector) as (one, several):
            with one:
                collect(list(column.values()), x, together)
            with several:
                apart = apart_from(first, systems, n, columns, j, full)
                for value, starts in zip(column.values(), apart, strict=True):
                    collect([value], x, starts)
    if rcond is not None:
        put_numbers(rcond, first, last, fixed.rcond(t, norms, n, a.lanes))
        put_numbers(backward_error, first, last, worst.get())
    return record(status, first, last, flaw, check.get(), full)


def kernel(n):
    """The kernel for systems of order n; with diagnostics up to a panel."""

    @jit
    def solve(a, b, x, status, rcond=None, backward_error=None):
        systems, _, columns = b.shape
        count, last = lane_count(a), systems - 1
        rows = n if rcond is None else 2 * n
        t = tile(np.empty((rows * n + 1) * count, a.dtype), n, a)
        failed = False
        full = 0
        if n <= PANEL:  # beyond, compiling a tile twice would take more than 5 s
            full = systems // count * count
            for first in range(0, full, count):
                if solve_tile(
                    a, b, x, status, t, first, last, columns, n, True, rcond, backward_error
                ):
                    failed = True
        for first in range(full, systems, count):
            if solve_tile(
                a, b, x, status, t, first, last, columns, n, False, rcond, backward_error
            ):
                failed = True
        if failed:
            reject(a, b, x, status)
        if rcond is not None:
            doubt(a, status, rcond, backward_error)

    return solve
