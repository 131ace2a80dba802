"""LU with partial pivoting of small systems."""

from typing import Any

from dasksolve.kernels.diagnostics.fixed import inverse_norm
from dasksolve.kernels.diagnostics.verdicts import first_flawed, judge, reject
from dasksolve.kernels.language.control import held, loop, overwriting
from dasksolve.kernels.language.lanes import PANEL, inner, magnitude, reciprocal, where
from dasksolve.kernels.language.target import FEW_REGISTERS
from dasksolve.kernels.language.transposition import deal, read_row, row_places
from dasksolve.kernels.language.values import Pair
from dasksolve.kernels.regimes import fixed


def swap(column, k, chosen):
    """Swap row k with the row that `chosen` marks in each lane."""
    top = new = column[k]
    for i, here in chosen.items():
        new = where(here, column[i], new)
        column[i] = overwriting(where(here, top, column[i]))
    column[k] = overwriting(new)


def search(column, k, n):
    """The largest magnitude at or below the diagonal, and marks on its (first) row.

    Real ones by a tree, whose comparisons do not wait for each other; complex ones, which would
    not all stay in registers, along a chain.
    """
    sizes = {i: magnitude(column[i]) for i in range(k, n)}
    if isinstance(column[k], Pair):
        return search_in_turn(sizes, k, n)
    level = list(sizes.values())
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [where(y > x, y, x) for x, y in pairs] + level[len(level) // 2 * 2 :]
    (largest,) = level
    chosen, seen = {}, sizes[k] == largest
    for i in range(k + 1, n):
        same = sizes[i] == largest
        chosen[i] = same & ~seen
        seen = seen | same
    return largest, chosen


def search_in_turn(sizes, k, n):
    """`search` among these magnitudes, one after the other."""
    largest, larger = sizes[k], {}
    for i in range(k + 1, n):
        larger[i] = sizes[i] > largest
        largest = where(larger[i], sizes[i], largest)
    chosen, later = {}, None
    for i, here in reversed(larger.items()):
        chosen[i] = here if later is None else here & ~later
        later = here if later is None else later | here
    return largest, chosen


def inverse(pivot, size):
    """1 / pivot: of a real one begun before it is known whose the largest magnitude is."""
    if isinstance(pivot, Pair):
        return reciprocal(pivot)
    return reciprocal(size).call("copysign", pivot)


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


def exchange(t, k, n, j, chosen):
    """`swap` in column j of the tile."""
    column = {i: t[i, j] for i in range(k, n)}
    swap(column, k, chosen)
    for i, value in column.items():
        t[i, j] = value


def eliminate(t, start, j, swaps, n, piece):
    """Column j of the panel at `start`, read in the order at `piece`; its pivot's magnitude."""
    t = t if isinstance(t, dict) else t.again()
    column = {i: t[i, j] for i in range(start, n)}
    permute(column, piece, swaps[piece:])
    advance(column, t, start, swaps[start:], n)
    largest, chosen = search(column, j, n)
    chosen = {i: held(here, largest) for i, here in chosen.items()}
    swap(column, j, chosen)
    column[j] = inverse(column[j], largest)
    for i in range(j + 1, n):
        column[i] = column[i] * column[j]
    for i in range(start, n):
        t[i, j] = column[i]
    if n > PANEL:
        with loop(t.builder, start, j) as k:
            exchange(t, j, n, k, chosen)
    else:
        for k in range(start, j):
            exchange(t, j, n, k, chosen)
    swaps.append(chosen)
    return largest


def read(matrices, between):
    """Read all of small matrices, and of larger ones the first columns."""
    a, systems, t, n, *_ = matrices
    if pieces(matrices) == [n]:
        for e, element in enumerate(deal(a, [s * (n * n) for s in systems], n * n, between)):
            t[divmod(e, n)] = element
        return
    with loop(t.builder, 0, n) as i:  # the code of all rows would crowd the cache of instructions
        starts = [s * (n * n) + i * n for s in systems]
        for e, element in enumerate(deal(a, starts, pieces(matrices)[0])):
            t[i, e] = element


def pieces(matrices):
    """Where reading pauses, until the rows of the next columns are in order.

    N = 8 takes a twentieth longer without, 16 a tenth longer with 8 first, 12 of float32 with 4.
    """
    n = matrices.n
    if n < PANEL or (n == PANEL and matrices.whole):
        return [n]
    if n == PANEL:
        return [4, n]
    return [4, PANEL, n] if n > 12 else [PANEL, n]


def read_columns(matrices, start, stop):
    """Read some columns of the rows, in their order at present."""
    a, _, t, n, *_ = matrices
    with loop(t.builder, 0, n) as i:
        read_row(a, n, matrices.first, t, i, start, stop - start)


def order_rows(matrices, start, swaps):
    """Swap the places of the rows, beside the matrix, as the pivots from `start` on say.

    Nothing is left to swap in columns that are read then: 370 ns instead of 460 at N = 16.
    """
    _, _, t, n, first, last, _ = matrices
    order = {i: t[i, n] if start else row_places(t, i, n, first, last) for i in range(start, n)}
    permute(order, start, swaps[start:])
    for i, place in order.items():
        t[i, n] = place


def factor(matrices, flaw, between):
    """Panel after panel; the factors are the tile and the swaps of rows."""
    _, _, t, n, *_ = matrices
    stops = pieces(matrices)
    swaps: list[Any] = []
    pivot = flaw.fill(1)
    for start in range(0, n, PANEL):
        stop = min(start + PANEL, n)
        piece = start
        for j in range(start, stop):
            between(j)
            pivot = first_flawed(pivot, eliminate(t, start, j, swaps, n, piece))
            if j + 1 in stops[:-1]:
                order_rows(matrices, piece, swaps)
                piece, end = j + 1, stops[stops.index(j + 1) + 1]
                read_columns(matrices, piece, end)
        if stop < n:
            with loop(t.builder, stop, n) as j:
                column = {i: t[i, j] for i in range(start, n)}
                if start:
                    permute(column, start, swaps[start:])
                advance(column, t, start, swaps[start:], n)
                for i in range(start, n):
                    t[i, j] = column[i]
    return judge(flaw, pivot), (t, swaps)


def substitute(column, factors, n):
    """Overwrite b by x."""
    t, swaps = factors
    for start in range(0, n, PANEL):
        permute(column, start, swaps[start : start + PANEL])
        advance(column, t, start, swaps[start : start + PANEL], n)
    for start in reversed(range(0, n, PANEL)):
        retreat(column, t, start, min(start + PANEL, n))


def substitute_transposed(column, factors, n):
    """Overwrite b by A⁻ᵀ b."""
    t, swaps = factors

    def subtract(i, known):
        if known:
            column[i] = column[i] - inner([t[k, i] for k in known], [column[k] for k in known])

    panels = [range(start, min(start + PANEL, n)) for start in range(0, n, PANEL)]
    for panel in panels:
        for i in range(panel.start, n):
            subtract(i, range(panel.start, min(i, panel.stop)))
            if i in panel:
                column[i] = column[i] * t[i, i]
    for p, panel in reversed(list(enumerate(panels))):
        for below in panels[p + 1 :]:
            for i in panel:
                subtract(i, below)
        for i in reversed(panel):
            known = range(i + 1, panel.stop)
            subtract(i, list(reversed(known) if len(panel) == PANEL else known))
        for k in reversed(panel):
            swap(column, k, swaps[k])


METHOD = fixed.Method("lu", read, factor, substitute, reject, inverse_norm, substitute_transposed)


def kernel(n, vectors=False):
    """The kernel for systems of order n."""
    # Two registers' systems crowd few registers: N = 7 takes a fifth longer.
    together = (4 if vectors else 6) if FEW_REGISTERS else 8
    return fixed.kernel(METHOD._replace(together=together), n, vectors)
