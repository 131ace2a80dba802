"""Triangular systems, one in each lane, whose factors and right-hand sides stand in one tile."""

from typing import Any

from dasksolve.kernels.compiling.jit import part
from dasksolve.kernels.language.control import Variable, loop, never_inline
from dasksolve.kernels.language.lanes import PANEL, fma, inner, nothing, operation, product


def exchange_columns(t, pivots, k, columns):
    """Swap t[k, j] in each lane with the element of column j that `pivots` names for k.

    For several columns j it is loaded once which these are.
    """
    if t.trades:
        trade_columns(t, pivots, k, columns)
        return
    count = t.lanes.count
    chosen = [pivots.integer(k, lane) for lane in range(count)]
    for j in columns:
        tops = [t.offset(k, j) + p * count for p in range(t.parts)]
        column = t.offset(0, j)
        news = [t.load(top, count, count) for top in tops]
        for lane, row in enumerate(chosen):
            for p, top in enumerate(tops):
                at = row + column + (p * count + lane)
                news[p] = news[p].replaced(lane, t.load(at, 1).lane(0))
                t.store(at, t.load(top + lane, 1))
        for top, new in zip(tops, news, strict=True):
            t.store(top, new, count)


def trade_columns(t, pivots, k, columns):
    """`exchange_columns` by instructions that gather and scatter."""
    count, rows = t.lanes.count, pivots[k, 0]
    places = rows + rows.ramp
    for j in columns:
        for p in range(t.parts):
            top = t.offset(k, j) + p * count
            new = t.trade(t.offset(0, j) + p * count, places, t.load(top, count, count))
            t.store(top, new, count)


@operation(nothing)
def exchange(t, pivots, k, j):
    """`exchange_columns` for one of them."""
    exchange_columns(t, pivots, k, [j])


def together(t):
    """How many columns to exchange at a time: of complex ones more are not worth their code."""
    return 4 if t.trades or (t.parts == 1 and t.lanes.count <= 16) else 1


@operation(nothing)
def exchange_four(t, pivots, start, stop, j):
    """`exchange` for the pivots start … stop and the columns j … j + 3."""
    never_inline(t.builder)
    wide = together(t)
    with loop(t.builder, 0, 4 // wide) as group, loop(t.builder, start, stop) as k:
        exchange_columns(t, pivots, k, [j + group * wide + c for c in range(wide)])


def updating(element):
    """The operation that takes products of the tile's `element`s out of a block."""

    @operation(nothing)
    def update(t, i, j, start, stop, rows, columns):
        """Take Σ element(·, k) t[k, ·] over start ≤ k < stop from the elements at [i, j]."""
        never_inline(t.builder)
        wide = t.columns_of_four
        for first in range(0, columns, wide):
            block = [j + c for c in range(first, min(first + wide, columns))]
            places = [(i + r, c) for r in range(rows) for c in block]
            sums = [Variable(product(element(t, r, start), t[start, c])) for r, c in places]
            with loop(t.builder, start + 1, stop) as k:
                for (r, c), total in zip(places, sums, strict=True):
                    total.set(fma(element(t, r, k), t[k, c], total.get()))
            for place, total in zip(places, sums, strict=True):
                t[place] = t[place] - total.get()

    return update


def subtracting(element):
    """The function that takes products of the tile's `element`s out of any rows and columns."""
    update = updating(element)

    @operation(nothing)
    def take_panel(t, i, j, start):
        """`update` for a whole panel and as many rows of one column, without loops."""
        never_inline(t.builder)
        rows = [i + r for r in range(PANEL)]
        sums = [product(element(t, row, start), t[start, j]) for row in rows]
        for k in [start + s for s in range(1, PANEL)]:
            x = t[k, j]
            sums = [fma(element(t, row, k), x, sum_) for row, sum_ in zip(rows, sums, strict=True)]
        for row, sum_ in zip(rows, sums, strict=True):
            t[row, j] = t[row, j] - sum_

    @part
    def subtract(t, start, stop, top, bottom, left, right):
        """`update` for rows top … bottom of columns left … right; nothing to do without pivots."""
        if start == stop:
            return
        for j in range(left, right - 3, 4):
            for i in range(top, bottom - 3, 4):
                update(t, i, j, start, stop, 4, 4)
            for i in range(bottom - (bottom - top) % 4, bottom):
                update(t, i, j, start, stop, 1, 4)
        for j in range(right - (right - left) % 4, right):
            rest = top
            if stop - start == PANEL:
                for i in range(top, bottom - PANEL + 1, PANEL):
                    take_panel(t, i, j, start)
                    rest = i + PANEL
            for i in range(rest, bottom - 3, 4):
                update(t, i, j, start, stop, 4, 1)
            for i in range(bottom - (bottom - top) % 4, bottom):
                update(t, i, j, start, stop, 1, 1)

    return subtract


subtract = subtracting(lambda t, i, k: t[i, k])
subtract_transposed = subtracting(lambda t, i, k: t[k, i])


def solving(element, upper, unit):
    """The operation that solves with the triangle of the tile's `element`s in a whole panel."""

    @operation(nothing)
    def solve_panel(t, start, j, columns):
        """Overwrite a panel's rows of some columns by the solution."""
        never_inline(t.builder)
        rows = [start + k for k in range(PANEL)]
        for c in range(columns):
            solved: dict[int, Any] = {}
            for r in reversed(range(PANEL)) if upper else range(PANEL):
                known = list(solved)
                left = [element(t, rows[r], rows[k]) for k in known]
                x = t[rows[r], j + c]
                x = x - inner(left, [solved[k] for k in known]) if known else x
                solved[r] = x if unit else x * t[rows[r], rows[r]]
                t[rows[r], j + c] = solved[r]

    return solve_panel


solve_lower = solving(lambda t, i, k: t[i, k], upper=False, unit=True)
solve_upper = solving(lambda t, i, k: t[i, k], upper=True, unit=False)
solve_upper_transposed = solving(lambda t, i, k: t[k, i], upper=False, unit=False)
solve_lower_transposed = solving(lambda t, i, k: t[k, i], upper=True, unit=True)


@part
def advance(t, pivots, swapped, start, stop, n, left, right):
    """Bring columns left … right, `swapped` or not, up to date with the pivots start … stop."""
    for j in range(left, right, 4):
        end = min(j + 4, right)  # four columns at a time stay in the cache
        if not swapped and end - j == 4:
            exchange_four(t, pivots, start, stop, j)
        elif not swapped:
            for c in range(j, end):
                for k in range(start, stop):
                    exchange(t, pivots, k, c)
        if stop - start < PANEL:
            for i in range(start + 1, stop):
                subtract(t, start, i, i, i + 1, j, end)
        elif end - j == 4:
            solve_lower(t, start, j, 4)
        else:
            for c in range(j, end):
                solve_lower(t, start, c, 1)
        subtract(t, start, stop, stop, n, j, end)


@part
def solve_upper_rest(t, start, stop, c):
    """`solve_upper` for a column of fewer unknowns than a panel's."""
    for i in range(stop - 1, start - 1, -1):
        x = t[i, c]
        if i < stop - 1:
            total = product(t[i, stop - 1], t[stop - 1, c])
            for k in range(stop - 2, i, -1):
                total = fma(t[i, k], t[k, c], total)
            x = x - total
        t[i, c] = x * t[i, i]


@part
def retreat(t, start, stop, left, right):
    """Solve for the unknowns start … stop, and take them out of the equations above."""
    if stop - start == PANEL:
        for c in range(left, right):
            solve_upper(t, start, c, 1)
    else:
        for c in range(left, right):
            solve_upper_rest(t, start, stop, c)
    subtract(t, start, stop, 0, start, left, right)


@part
def substitute(t, pivots, n, left, right):
    """Overwrite columns left … right by A⁻¹ of them."""
    for start in range(0, n, PANEL):
        advance(t, pivots, False, start, min(start + PANEL, n), n, left, right)
    for start in range((n - 1) // PANEL * PANEL, -1, -PANEL):
        retreat(t, start, min(start + PANEL, n), left, right)


@part
def substitute_transposed(t, pivots, n, left, right):
    """Overwrite columns left … right by A⁻ᵀ of them."""
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        if stop - start == PANEL:
            for c in range(left, right):
                solve_upper_transposed(t, start, c, 1)
        else:
            for i in range(start, stop):
                subtract_transposed(t, start, i, i, i + 1, left, right)
                for c in range(left, right):
                    t[i, c] = t[i, c] * t[i, i]
        subtract_transposed(t, start, stop, stop, n, left, right)
    for start in range((n - 1) // PANEL * PANEL, -1, -PANEL):
        stop = min(start + PANEL, n)
        for k in range(stop, n, PANEL):
            subtract_transposed(t, k, min(k + PANEL, n), start, stop, left, right)
        if stop - start == PANEL:
            for c in range(left, right):
                solve_lower_transposed(t, start, c, 1)
        else:
            for i in range(stop - 2, start - 1, -1):
                subtract_transposed(t, i + 1, stop, i, i + 1, left, right)
        for c in range(left, right):
            for k in range(stop - 1, start - 1, -1):
                exchange(t, pivots, k, c)
