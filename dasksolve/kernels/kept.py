"""Substitution with LU factors that are kept, one system at a time, a piece of a column a vector.

They lie in lu[m] column by column, as LAPACK's getrf leaves them, but for the reciprocals on the
diagonal of U. The unknowns stand in the rows of a tile, a panel a vector. A block is a panel wide
and high:

     panel s                 panels s, i
    | · · u u |             | … x x … |     block (i, s) times x_s comes off x_i;
    | · · u u |  panel i                    transposed, times x_i it comes off x_s
    | l l · · |

Two right-hand sides, of one system or of two, are solved at a time, since each waits for itself.
"""

from typing import Any

import numpy as np
from llvmlite import ir

from dasksolve.kernels.blocks import (
    DOWN,
    UP,
    load_first,
    planes,
    put_number,
    spread,
    united,
)
from dasksolve.kernels.emitted import Bits, Variable, loop
from dasksolve.kernels.flaws import undefined
from dasksolve.kernels.jit import jit, part
from dasksolve.kernels.lanes import (
    PANEL,
    any_lane,
    fma,
    inner,
    nothing,
    operation,
    product,
    splat,
    unsigned_zero,
    where,
)
from dasksolve.kernels.panel import every_lane
from dasksolve.kernels.residual import totals
from dasksolve.kernels.tiles import FIRST, load, prefetch, tiles_of, transpose

tile: Any = tiles_of(lambda dtype: PANEL)

# Right-hand sides, of one system or of several, that are solved at a time.
TOGETHER = 2
# Bytes of these systems up to which the next ones are asked for; beyond, the next columns.
EARLY = 512 << 10


def block(lu, first, n, i, s, t, rest):
    """The columns of block (i, s) of a matrix; where some are missing, `rest`, with zeros."""
    row, column = i * PANEL, s * PANEL
    places = [first + (column + k) * n + row for k in range(PANEL)]
    if not rest:
        return [load(lu, at, PANEL) for at in places]
    below = n + row * -1
    right = [(n + (column + k) * -1) * PANEL for k in range(PANEL)]  # 0 and less: none is left
    valid = map(below.at_most, right)
    return [load_first(lu, *column, t) for column in zip(places, valid, strict=True)]


def transposed(columns):
    """The rows of a block."""
    return united([transpose(plane) for plane in planes(columns)])


def ask(lu, first, n, i, s, ahead):
    """Ask for the block that stands `ahead` of (i, s): in time, and never for many at once.

    From memory, N = 32 takes 390 ns this way, 670 if only the next columns are asked for.
    """
    for k in range(PANEL):
        prefetch(lu, first + (s * PANEL + k) * n + i * PANEL + ahead, FIRST)


def marked(like, lanes):
    """The mask of these lanes."""
    bits = [lane in lanes for lane in range(PANEL)]
    return Bits(like.builder, ir.Constant(ir.VectorType(ir.IntType(1), PANEL), bits))


def solved(x, columns, order, unit):
    """The solution with a triangle, whose unknowns are found in this order."""
    sums = x.fill(0)
    for step, k in enumerate(order):
        rest, later = x - sums, order[step + 1 :]
        if not unit:
            rest = rest * columns[k]
            x = where(marked(x, [k]), rest, x)
        if later:
            found = every_lane(rest, k)
            more = fma(columns[k], found, sums) if step else product(columns[k], found)
            sums = where(marked(x, later), more, sums)
    return x - sums if unit else x


@operation(nothing)
def solve_panel(lu, firsts, n, s, t, ahead, upper, across, rest):
    """Solve with a triangle of block (s, s), or with the transposed one, `across`."""
    for r, first in enumerate(firsts):
        columns = block(lu, first, n, s, s, t, rest)
        if upper == across:  # the first of the two triangles that need this block
            ask(lu, first, n, s, s, ahead)
        if across:
            columns = transposed(columns)
        t[r, s] = solved(t[r, s], columns, DOWN if upper == across else UP, not upper)


@operation(nothing)
def take(lu, firsts, n, start, stop, s, t, ahead, rest):
    """Take what the panel s of the unknowns brings off the panels start … stop - 1."""
    with loop(lu.builder, start, stop) as i:
        for r, first in enumerate(firsts):
            columns = block(lu, first, n, i, s, t, rest)
            ask(lu, first, n, i, s, ahead)
            known = [spread(t, r, s * PANEL + k) for k in range(PANEL)]
            t[r, i] = t[r, i] - inner(columns, known)


@operation(nothing)
def take_across(lu, firsts, n, start, stop, s, t, ahead, rest):
    """Take what the panels start … stop - 1 of the unknowns bring off the panel s."""
    for r, first in enumerate(firsts):
        sums = [Variable(t.fill(0)) for _ in range(PANEL)]
        with loop(lu.builder, start, stop) as i:
            ask(lu, first, n, i, s, ahead)
            for total, column in zip(sums, block(lu, first, n, i, s, t, rest), strict=True):
                total.set(fma(column, t[r, i], total.get()))
        t[r, s] = t[r, s] - totals([total.get() for total in sums])


def substituting(upper, across):
    """The function that solves with a triangle of the factors."""
    down = upper == across
    multiply = take_across if across else take

    @part
    def take_all(lu, firsts, n, s, t, ahead):
        """What is known before a panel if `across`, else what is not known after it."""
        whole, panels = n // PANEL, -(-n // PANEL)
        start, stop = (0, s) if upper else (s + 1, panels)
        full = min(stop, whole) if s < whole else start
        multiply(lu, firsts, n, start, full, s, t, ahead, False)
        if full < stop:
            multiply(lu, firsts, n, full, stop, s, t, ahead, True)

    @part
    def substitute(lu, firsts, n, t, early):
        panels = -(-n // PANEL)
        ahead = PANEL * n if down else -PANEL * n
        if early:
            ahead = len(firsts) * n * n
        for step in range(panels):
            s = step if down else panels - 1 - step
            if across:
                take_all(lu, firsts, n, s, t, ahead)
            if (s + 1) * PANEL <= n:
                solve_panel(lu, firsts, n, s, t, ahead, upper, across, False)
            else:
                solve_panel(lu, firsts, n, s, t, ahead, upper, across, True)
            if not across:
                take_all(lu, firsts, n, s, t, ahead)

    return substitute


@operation(lambda t, r, i: t.lanes.dtype)
def number(t, r, i):
    """Unknown i of row r."""
    return unsigned_zero(spread(t, r, i)).lane(0)


@part
def finite(t, r, panels):
    """Whether all unknowns in row r are."""
    check = splat(0, t)
    for p in range(panels):
        check = check + (t[r, p] - t[r, p])
    return not any_lane(check != splat(0, t))


def kernel(_, across):
    """The kernel ``solve(lu, order, b, x)``; `across`: with the transposed matrices.

    Row i of L U is row order[m, i] of a[m]. x is NaN where it is not finite.
    """
    lower, upper = substituting(False, across), substituting(True, across)

    @part
    def read(b, order, m, c, t, r):
        t[r, (b.shape[1] - 1) // PANEL] = splat(0, t)
        for i in range(b.shape[1]):
            put_number(t, r, i, splat(b[m, i if across else order[m, i], c], t))

    @part
    def write(x, order, m, c, t, r):
        for i in range(x.shape[1]):
            x[m, order[m, i] if across else i, c] = number(t, r, i)

    @part
    def substitute(lu, firsts, n, t):
        early = len(firsts) * n * n * lu.itemsize <= EARLY
        if across:
            upper(lu, firsts, n, t, early)
            lower(lu, firsts, n, t, early)
        else:
            lower(lu, firsts, n, t, early)
            upper(lu, firsts, n, t, early)

    @jit
    def solve(lu, order, b, x):
        systems, n, columns = b.shape
        size, panels, last = n * n, -(-n // PANEL), systems * columns - 1
        t = tile(np.zeros((TOGETHER * panels + 1) * PANEL, lu.dtype), panels, lu)
        sound = np.ones(systems, np.bool_)
        for v in range(0, last + 1, TOGETHER):
            one, other = divmod(v, columns), divmod(min(v + 1, last), columns)
            read(b, order, one[0], one[1], t, 0)
            read(b, order, other[0], other[1], t, 1)
            substitute(lu, (one[0] * size, other[0] * size), n, t)
            write(x, order, one[0], one[1], t, 0)
            write(x, order, other[0], other[1], t, 1)
            sound[one[0]] &= finite(t, 0, panels)
            sound[other[0]] &= finite(t, 1, panels)
        for m in range(systems):
            if not sound[m]:
                x[m] = undefined(x)

    return solve
