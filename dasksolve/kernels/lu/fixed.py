"""LU with partial pivoting of small systems."""

from typing import Any

from dasksolve.kernels.diagnostics.fixed import inverse_norm
from dasksolve.kernels.diagnostics.verdicts import judge, reject
from dasksolve.kernels.language.lanes import PANEL, inner, magnitude, reciprocal, where
from dasksolve.kernels.language.tiles import deal
from dasksolve.kernels.language.values import loop
from dasksolve.kernels.regimes import fixed


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


def read(matrices, between):
    """Read all of small matrices, and of larger ones the columns of the first panel."""
    a, systems, t, n = matrices
    if n <= PANEL:
        for e, element in enumerate(deal(a, [s * (n * n) for s in systems], n * n, between)):
            t[divmod(e, n)] = element
        return
    for i in range(n):
        for e, element in enumerate(deal(a, [s * (n * n) + i * n for s in systems], PANEL)):
            t[i, e] = element


def read_rest(matrices, swaps):
    """Read the columns after the first panel, rows in the order that its pivots give them.

    Nothing is left to swap there: 370 ns instead of 460 at N = 16.
    """
    a, systems, t, n = matrices
    order = {i: t[0, 0].fill(i * n + PANEL) for i in range(n)}
    permute(order, 0, swaps)
    for i in range(n):
        t[i, PANEL] = order[i]
    for i in range(n):
        starts = [s * (n * n) + t.whole(i, PANEL, lane) for lane, s in enumerate(systems)]
        for e, element in enumerate(deal(a, starts, n - PANEL)):
            t[i, PANEL + e] = element


def factor(matrices, flaw, between):
    """Panel after panel; the factors are the tile and the swaps of rows."""
    _, _, t, n = matrices
    swaps: list[Any] = []
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        for j in range(start, stop):
            between(j)
            flaw = judge(flaw, eliminate(t, start, j, swaps, n))
        if start == 0 and n > PANEL:
            read_rest(matrices, swaps)
        if stop < n:
            with loop(t.builder, stop, n) as j:
                column = {i: t[i, j] for i in range(start, n)}
                if start:
                    permute(column, start, swaps[start:])
                advance(column, t, start, swaps[start:], n)
                for i in range(start, n):
                    t[i, j] = column[i]
    return flaw, (t, swaps)


def substitute(column, factors, n):
    """Overwrite b by x."""
    t, swaps = factors
    for start in range(0, n, PANEL):
        permute(column, start, swaps[start : start + PANEL])
        advance(column, t, start, swaps[start : start + PANEL], n)
    for start in reversed(range(0, n, PANEL)):
        retreat(column, t, start, min(start + PANEL, n))


METHOD = fixed.Method("lu", read, factor, substitute, reject, inverse_norm)


def kernel(n):
    """The kernel for systems of order n; with diagnostics up to a panel."""
    return fixed.kernel(METHOD, n)
