"""Substitution with LU factors that are kept, as `reuse` has them, of small systems, one a lane.

N is known while compiling. The numbers of the factors are read in the order in which they are
stored, and used at once: only the second triangle of a diagonal block waits for its turn.
"""

from functools import reduce
from typing import Any

from numba import types

from dasksolve.kernels.compiling.jit import jit, named
from dasksolve.kernels.diagnostics.verdicts import spoil_columns, weigh
from dasksolve.kernels.language.blocks import integer
from dasksolve.kernels.language.control import Variable, align_stack, forget_registers, loop
from dasksolve.kernels.language.lanes import (
    PANEL,
    any_lane,
    fma,
    inner,
    operation,
    product,
    real_part,
    width,
)
from dasksolve.kernels.language.prefetching import Ahead
from dasksolve.kernels.language.tiles import tiles_of
from dasksolve.kernels.language.transposition import blocks, collect, deal
from dasksolve.kernels.language.values import Emitted
from dasksolve.kernels.lu.reuse import DAMAGED, FINE, SPOILT


class Factors:
    """The factors of the systems in the lanes, of which `step` numbers are read at a time."""

    def __init__(self, n, read, step):
        self.n, self.read, self.step = n, read, step
        self.panels = [range(s, min(s + PANEL, n)) for s in range(0, n, PANEL)]
        count = range(len(self.panels))
        stored = [(i, s) for s in count for i in count[s:]]
        stored += [(i, s) for s in reversed(count) for i in count[:s]]
        self.places, place = {}, 0
        for i, s in stored:
            self.places[i, s] = place
            place += len(self.panels[i]) * len(self.panels[s])

    def block(self, i, s):
        """Row, column and value of the numbers of block (i, s), in the order of their places."""
        rows, at = self.panels[i], self.places[i, s]
        length = len(rows) * len(self.panels[s])
        for start in range(0, length, self.step):
            values = self.read(at + start, min(self.step, length - start))
            for e, value in enumerate(values, start):
                yield rows[e % len(rows)], self.panels[s][e // len(rows)], value


class Column(dict[int, Any]):
    """A right-hand side, of which an element is read when it is first asked for."""

    def __init__(self, read):
        self.read = read

    def __missing__(self, i):
        self[i] = self.read(i)
        return self[i]


class Sums:
    """Sums of products, each in the order in which its terms come."""

    def __init__(self):
        self.totals: dict[int, Any] = {}

    def add(self, i, x, y):
        total = self.totals.get(i)
        self.totals[i] = product(x, y) if total is None else fma(x, y, total)

    def left_of(self, column, i):
        """Element i without its sum."""
        total = self.totals.get(i)
        return column[i] if total is None else column[i] - total


def take(factors, i, s, column):
    """Take what the panel s of the unknowns brings off the panel i."""
    sums = Sums()
    for row, k, value in factors.block(i, s):
        sums.add(row, value, column[k])
    for row in factors.panels[i]:
        column[row] = sums.left_of(column, row)


def substitute(column, factors):
    """Overwrite a right-hand side, its rows as L U has them, by x."""
    count = range(len(factors.panels))
    upper = {}
    for s in count:
        sums = Sums()
        for i, k, value in factors.block(s, s):
            if i <= k:
                upper[i, k] = value
                column[k] = sums.left_of(column, k) if i == k else column[k]
            else:
                sums.add(i, value, column[k])
        for i in count[s + 1 :]:
            take(factors, i, s, column)
    for s in reversed(count):
        sums, panel = Sums(), factors.panels[s]
        for k in reversed(panel):
            column[k] = sums.left_of(column, k) * upper[k, k]
            for i in range(panel.start, k):
                sums.add(i, upper[i, k], column[k])
        for i in count[:s]:
            take(factors, i, s, column)


def tree(terms):
    """The sum of neighbours, and of such sums, as `norms.totals` adds lanes."""
    while len(terms) > 1:
        rest = terms[len(terms) // 2 * 2 :]
        terms = [x + y for x, y in zip(terms[::2], terms[1::2], strict=False)] + rest
    return terms[0]


def take_across(factors, i, s, column, in_turn):
    """Take what the panel i of the unknowns brings off the panel s."""
    of_column: dict[int, Any] = {k: [] for k in factors.panels[s]}
    for row, k, value in factors.block(i, s):
        of_column[k].append((value, column[row]))
    for k, pairs in of_column.items():
        terms = inner(*zip(*pairs, strict=True)) if in_turn else tree([product(*p) for p in pairs])
        column[k] = column[k] - terms


def substitute_across(column, factors, in_turn):
    """Overwrite a right-hand side by x of the transposed system, its rows as L U has them.

    in_turn: to the bits of `reuse_many`, not of `reuse`.
    """
    count = range(len(factors.panels))
    lower = {}
    for s in count:
        for i in count[:s]:
            take_across(factors, i, s, column, in_turn)
        sums = Sums()
        for i, k, value in factors.block(s, s):
            if i < k:
                sums.add(k, value, column[i])
            elif i == k:
                column[k] = sums.left_of(column, k) * value
            else:
                lower[i, k] = value
    for s in reversed(count):
        for i in count[s + 1 :]:
            take_across(factors, i, s, column, in_turn)
        sums, panel = Sums(), factors.panels[s]
        for i in reversed(panel):
            column[i] = sums.left_of(column, i)
            for k in range(panel.start, i):
                sums.add(k, lower[i, k], column[i])


def together(n, dtype, vectors):
    """How many vectors of one register are worked on at once: one fills what another waits for.

    Beyond these N two find no room in the registers: N = 16 takes half as long again.
    """
    most = PANEL // 2 if isinstance(dtype, types.Complex) else PANEL
    return 2 if vectors and n <= most else 1


def systems_in(first, last, count, full):
    """Which system each lane holds: past the end of the batch the last one again."""
    return [first + lane if full else (first + lane).at_most(last) for lane in range(count)]


def solving(n, vectors, across, in_turn):
    """The operation that solves the systems of a tile, for `vectors` alone or any b."""

    @operation(lambda *_: types.boolean)
    def solve_tile(lu, order, b, x, t, first, last, columns, full):
        """Solve the systems of the tile that begins with `first`; whether any x is not finite."""
        builder, count = lu.builder, t.lanes.count
        align_stack(builder)
        columns = 1 if vectors else columns
        systems = systems_in(first, last, count, full)
        ahead = Ahead(lu, b, x, first, count, n, columns)
        check = Variable(real_part(t.fill(0)))
        in_order = across or n == 1
        step = max(1, width(lu.lanes.dtype) // lu.parts)
        read_so_far = 0

        def read(start, length):
            nonlocal read_so_far
            read_so_far += length
            ahead.ask(read_so_far / (n * n))
            return deal(lu, [s * (n * n) + start for s in systems], length)

        def place(i, lane, j):
            """Where element i of a column is in b, or across in x."""
            row = integer(order, systems[lane] * n + i)
            return (systems[lane] * n + row) * columns + j

        def solve(factors, j):
            sequence = [s * (n * columns) + j for s in systems]
            if in_order and vectors:
                column = dict(enumerate(deal(b, sequence, n)))
            elif in_order:
                column = {i: deal(b, [q + columns * i for q in sequence], 1)[0] for i in range(n)}
            else:
                column = Column(
                    lambda i: deal(b, [place(i, lane, j) for lane in range(count)], 1)[0]
                )
            if across:
                substitute_across(column, factors, in_turn)
            else:
                substitute(column, factors)
            for value in column.values():
                check.set(weigh(check.get(), value))
            if across and n > 1:
                for i, value in column.items():
                    collect([value], x, [place(i, lane, j) for lane in range(count)])
            elif vectors:
                collect([column[i] for i in range(n)], x, sequence)
            else:
                for i, value in column.items():
                    collect([value], x, [q + columns * i for q in sequence])

        if vectors:
            solve(Factors(n, read, step), 0)
        else:
            for start in range(0, n * n, step):
                for e, value in enumerate(read(start, min(step, n * n - start)), start):
                    t[0, e] = value
            with loop(builder, 0, columns) as j:
                forget_registers(builder)
                ahead.ask_column(j)
                solve(
                    Factors(n, lambda start, length: [t[0, start + e] for e in range(length)], 1), j
                )
        return any_lane(check.get() != check.get().fill(0))

    return solve_tile


def checking(n):
    """The operation that looks whether `order` names rows for all systems of a tile."""

    @operation(lambda *_: types.boolean)
    def are_rows(order, t, first, last, full):
        """Whether each is the number of a row; else `solve_tile` would read what is not there."""
        count = t.lanes.count
        systems = systems_in(first, last, count, full)
        places = [first * n] if full else [s * n for s in systems]
        wrong: dict[int, Any] = {}
        for place in places:
            for offset, size in blocks(n * count if full else n, 8):
                rows = order.load(place + offset, size)
                found = (rows < rows.fill(0)) | (rows >= rows.fill(n))
                wrong[size] = wrong[size] | found if size in wrong else found
        some = [any_lane(mask).value for mask in wrong.values()]
        return Emitted(order.builder, order.builder.not_(reduce(order.builder.or_, some)))

    return are_rows


def kernel(n, vectors, across, in_turn=False):
    """The kernel that `reuse.kernel` makes, for systems of order n.

    For one right-hand side each (`vectors`), or for any number. Where it returns DAMAGED, x may
    have been written to.
    """
    wide_tile, lane_count = tiles_of(lambda dtype: together(n, dtype, vectors) * width(dtype))
    solve_tile, are_rows = solving(n, vectors, across, in_turn), checking(n)

    def solve(lu, order, b, x):
        systems, _, columns = b.shape
        count, last = lane_count(lu), systems - 1
        t = wide_tile(1, 1 if vectors else n * n, lu.dtype, lu)
        fine, full = FINE, 0
        if vectors and n <= PANEL:
            full = systems // count * count
            for first in range(0, full, count):
                if not are_rows(order, t, first, last, True):
                    return DAMAGED
                if solve_tile(lu, order, b, x, t, first, last, columns, True):
                    fine = SPOILT
                    for m in range(first, min(first + count, systems)):
                        spoil_columns(x, m)
        for first in range(full, systems, count):
            if not are_rows(order, t, first, last, False):
                return DAMAGED
            if solve_tile(lu, order, b, x, t, first, last, columns, False):
                fine = SPOILT
                for m in range(first, min(first + count, systems)):
                    spoil_columns(x, m)
        return fine

    return jit(named(solve, f"{n}.{vectors}.{across}.{in_turn}"))
