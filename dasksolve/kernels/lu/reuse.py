"""Substitution with LU factors that are kept, one system at a time, a piece of a column a vector.

The unknowns stand in the rows of a tile, a panel a vector. A block is a panel wide and high:

     panel s                 panels s, i
    | · · u u |             | … x x … |     block (i, s) times x_s comes off x_i;
    | · · u u |  panel i                    transposed, times x_i it comes off x_s
    | l l · · |

The blocks of a system lie in the order in which they are used, so that memory is read in sequence:
panel after panel of L, from its diagonal block down, which holds U's too; then of U from the last
panel on, each from its top. In a block, column after column. 1 / u stands on the diagonal of U.
Transposed systems are solved from the last panel of all this to the first.
"""

import numpy as np
from numba import types

from dasksolve.kernels.compiling.jit import jit, part
from dasksolve.kernels.diagnostics.norms import totals
from dasksolve.kernels.diagnostics.verdicts import spoil_columns, weigh
from dasksolve.kernels.language.blocks import (
    DOWN,
    UP,
    first_lane,
    integer,
    load_first,
    spread,
    store_first,
    transposed,
)
from dasksolve.kernels.language.control import Variable, loop
from dasksolve.kernels.language.lanes import (
    PANEL,
    any_lane,
    fma,
    inner,
    nothing,
    operation,
    product,
    real_part,
    unsigned_zero,
    where,
)
from dasksolve.kernels.language.prefetching import FIRST, prefetch
from dasksolve.kernels.language.tiles import load, store, tiles_of
from dasksolve.kernels.language.values import byte, mask_of
from dasksolve.kernels.lu.panel import every_lane

panel_tile, _ = tiles_of(lambda dtype: PANEL)

# What became of x.
DAMAGED, FINE, SPOILT = range(3)
# Right-hand sides that are solved at a time, since each waits for itself. They are of parts of the
# batch that are far apart, so that each part is read in sequence.
TOGETHER = 3
# Bytes to ask for ahead of what is read: N = 32 takes 570 ns from memory, 720 without.
AHEAD = 2 << 10
# Bytes of a system up to which, transposed, the next is asked for instead of the next panel.
EARLY = 256 << 10


def lower_place(n, i, s):
    """Where block (i, s) begins in a system, i ≥ s."""
    return s * n * PANEL + s * (s - 1) * (-PANEL * PANEL // 2) + (i - s) * (PANEL * PANEL)


def upper_place(n, i, s, wide):
    """The same for i < s, where panel s is so `wide`."""
    return n * n + s * (s - 1) * (-PANEL * PANEL // 2) + (i - s) * wide * PANEL


def diagonal_place(n, k, wide):
    """Where 1 / u_kk is in a system, where the panel of k is so `wide`."""
    s = k // PANEL
    return lower_place(n, s, s) + (k - s * PANEL) * (wide + 1)


def diagonal(n):
    """Where the diagonal of U is in a system."""
    k = np.arange(n)
    return diagonal_place(n, k, np.minimum(n - k // PANEL * PANEL, PANEL))


def places(n):
    """Where the elements of L and U are in a system, (N, N)."""
    k = np.arange(n)
    panel, within = np.divmod(k, PANEL)
    i, high = panel[:, None], np.minimum(n - panel * PANEL, PANEL)
    begin = np.where(i < panel, upper_place(n, i, panel, high), lower_place(n, i, panel))
    return begin + within * high[:, None] + within[:, None]


def size(n, i):
    """How many rows, or columns, panel i has."""
    return (n - i * PANEL).at_most(PANEL)


@operation(lambda *_: types.intp)
def block_place(n, i, s):
    """Where block (i, s) begins in a system."""
    return (i < s).choose(upper_place(n, i, s, size(n, s)), lower_place(n, i, s))


def block(lu, at, n, i, s, t, rest):
    """The columns of block (i, s), which begins `at`.

    At the lower or right edge of a matrix (`rest`) a block is smaller: zeros fill it up.
    """
    if not rest:
        return [load(lu, at + k * PANEL, PANEL) for k in range(PANEL)]
    high, wide = size(n, i), size(n, s)
    valid = [(wide - k) * PANEL for k in range(PANEL)]  # 0 and less: there is no such column
    return [load_first(lu, at + high * k, high.at_most(valid[k]), t) for k in range(PANEL)]


def marked(like, lanes):
    """The mask of these lanes."""
    return mask_of(like.builder, [lane in lanes for lane in range(PANEL)])


def solved(x, columns, order, unit):
    """The solution with a triangle, whose unknowns are found in this order; and each spread."""
    sums, found = x.fill(0), {}
    for step, k in enumerate(order):
        rest, later = x - sums, order[step + 1 :]
        if not unit:
            rest = rest * columns[k]
            x = where(marked(x, [k]), rest, x)
        found[k] = every_lane(rest, k)
        if later:
            more = fma(columns[k], found[k], sums) if step else product(columns[k], found[k])
            sums = where(marked(x, later), more, sums)
    return x - sums if unit else x, [found[k] for k in range(PANEL)]


class Substitution:
    """Emits the solution of a system for each row of t; `across`: of the transposed one."""

    def __init__(self, lu, firsts, n, t, across):
        self.lu, self.firsts, self.n, self.t, self.across = lu, firsts, n, t, across
        self.whole, self.panels = n // PANEL, (n + (PANEL - 1)) // PANEL

    def loop(self, start, stop):
        """Emit a loop."""
        return loop(self.lu.builder, start, stop)

    def block_at(self, r, i, s, upper):
        """Where a block of row r's system begins."""
        n = self.n
        within = upper_place(n, i, s, size(n, s)) if upper else lower_place(n, i, s)
        return self.firsts[r] + within

    def block(self, r, i, s, upper, rest):
        """The columns of a block of row r's system; ask for what comes later."""
        n, bytes_each = self.n, self.lu.parts * self.lu.lanes.real.dtype.bitwidth // 8
        at = self.block_at(r, i, s, upper)
        later = at + AHEAD // bytes_each
        if self.across:  # in this order no more than a panel is in sequence
            next_panel = self.block_at(r, i, s + 1 if upper else s - 1, upper)
            later = (n * n < EARLY // bytes_each).choose(at + n * n, next_panel)
        for line in range(0, PANEL * PANEL, 64 // bytes_each):
            prefetch(self.lu, later + line, FIRST)
        return block(self.lu, at, n, i, s, self.t, rest)

    def solve(self, s, upper, rest):
        """Find the unknowns of a panel, from which the others have been taken; and each spread."""
        spreads = []
        for r in range(len(self.firsts)):
            columns = self.block(r, s, s, False, rest)
            if self.across:
                columns = transposed(columns)
            order = DOWN if upper == self.across else UP
            self.t[r, s], found = solved(self.t[r, s], columns, order, not upper)
            spreads.append(found)
        return spreads

    def take(self, start, stop, s, upper, rest, known):
        """Take what the panel s of the unknowns brings off the panels start … stop - 1."""
        with self.loop(start, stop) as i:
            for r, numbers in enumerate(known):
                columns = self.block(r, i, s, upper, rest)
                self.t[r, i] = self.t[r, i] - inner(columns, numbers)

    def take_across(self, start, stop, s, upper, rest):
        """Take what the panels start … stop - 1 of the unknowns bring off the panel s."""
        rows = range(len(self.firsts))
        sums = [[Variable(self.t.fill(0)) for _ in range(PANEL)] for _ in rows]
        with self.loop(start, stop) as i:
            for r in rows:
                columns = self.block(r, i, s, upper, rest)
                for total, column in zip(sums[r], columns, strict=True):
                    total.set(fma(column, self.t[r, i], total.get()))
        for r in rows:
            self.t[r, s] = self.t[r, s] - totals([total.get() for total in sums[r]])

    def panel(self, s, upper, rest):
        """Go on by a panel; by the last one, which is smaller, if `rest`."""
        others = [(0, s, rest)] if upper else []
        if not upper and not rest:
            others = [(s + 1, self.whole, False), (self.whole, self.panels, True)]
        if self.across:
            for start, stop, missing in others:
                self.take_across(start, stop, s, upper, missing)
        known = self.solve(s, upper, rest)
        if not self.across:
            for start, stop, missing in others:
                self.take(start, stop, s, upper, missing, known)

    def triangle(self, upper):
        """Solve with L or U."""
        down = upper == self.across
        if down:
            with self.loop(0, self.whole) as s:
                self.panel(s, upper, False)
        with self.loop(self.whole, self.panels) as s:
            self.panel(s, upper, True)
        if not down:
            with self.loop(0, self.whole) as step:
                self.panel(self.whole - step - 1, upper, False)


def read(b, order, first, n, columns, c, t, r, across):
    """Put column c of a right-hand side in row r of t, its rows as L U has them."""
    with loop(b.builder, 0, t.span) as p:
        x = t.fill(0)
        for lane in range(PANEL):
            i = (p * PANEL + lane).at_most(n - 1)  # what there is too much of meets zeros
            row = i if across else integer(order, first + i)
            x = x.replaced(lane, load(b, (first + row) * columns + c, 1).lane(0))
        t[r, p] = x


def write(x, order, first, n, columns, c, t, r, across):
    """Write row r of t to column c of a solution; the transposed one has its rows as a has them."""
    in_sequence = columns == (0 if across else 1)
    with x.builder.if_else(in_sequence.value) as (whole, scattered):
        with whole, loop(x.builder, 0, t.span) as p:
            i = p * PANEL
            store_first(x, first + i, n - i, unsigned_zero(t[r, p]))
        with scattered, loop(x.builder, 0, n) as i:
            row = integer(order, first + i) if across else i
            store(x, (first + row) * columns + c, first_lane(unsigned_zero(spread(t, r, i))))


@operation(nothing)
def substitute(lu, order, b, x, spoilt, v, apart, last, n, columns, t, across):
    """Solve for the right-hand sides v, v + apart, …; mark in `spoilt` what is not finite."""
    places = [(v + apart * r).at_most(last) for r in range(TOGETHER)]
    systems = [place // columns for place in places]
    for r, m in enumerate(systems):
        read(b, order, m * n, n, columns, places[r] - m * columns, t, r, across)
    substitution = Substitution(lu, [m * (n * n) for m in systems], n, t, across)
    for upper in (across, not across):
        substitution.triangle(upper)
    for r, m in enumerate(systems):
        write(x, order, m * n, n, columns, places[r] - m * columns, t, r, across)
        check = Variable(real_part(t.fill(0)))
        with loop(lu.builder, 0, t.span) as p:
            check.set(weigh(check.get(), t[r, p]))
        unbounded = any_lane(check.get() != check.get().fill(0))
        with lu.builder.if_then(unbounded.value):
            spoilt.store(m, byte(lu.builder, 1))


@part
def are_rows(order):
    """Whether each is the number of a row; else a kernel would read what is not there."""
    wrong = 0
    for row in order.flat:
        wrong |= (row < 0) | (row >= order.shape[1])
    return not wrong


def kernel(_, across):
    """The kernel ``solve(lu, order, b, x)``; `across`: with the transposed matrices.

    Row i of L U is row order[m, i] of a[m]. A column of x that is not finite is NaN. It returns
    DAMAGED, and does nothing, if `order` has anything but rows; SPOILT if there are such columns.
    """

    @jit
    def solve(lu, order, b, x):
        systems, n, columns = b.shape
        if not are_rows(order):
            return DAMAGED
        fine = FINE
        panels, count = -(-n // PANEL), systems * columns
        groups = -(-count // TOGETHER)
        apart, step = (groups, 1) if columns == 1 else (1, TOGETHER)
        t = panel_tile(TOGETHER, panels, lu.dtype, lu)
        spoilt = np.zeros(systems, np.int8)
        for group in range(groups):
            v = group * step
            substitute(lu, order, b, x, spoilt, v, apart, count - 1, n, columns, t, across)
        for m in range(systems):
            if spoilt[m]:
                spoil_columns(x, m)
                fine = SPOILT
        return fine

    return solve
