"""Small matrices, each for many right-hand sides, one a lane: its factors are in all lanes."""

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numba import types

from dasksolve.kernels.compiling.jit import named, part
from dasksolve.kernels.diagnostics.verdicts import (
    ALL,
    OK,
    UNBOUNDED,
    finite_band,
    record,
    reject_system,
    weigh,
)
from dasksolve.kernels.language.blocks import integer
from dasksolve.kernels.language.control import Variable, align_stack, loop
from dasksolve.kernels.language.lanes import (
    any_lane,
    magnitude,
    operation,
    real_part,
    unsigned_zero,
    width,
)
from dasksolve.kernels.language.tiles import Memory, load, store, tile, tiles_of
from dasksolve.kernels.language.transposition import collect, deal
from dasksolve.kernels.language.values import Pair, joined
from dasksolve.kernels.regimes import fixed


class Method(NamedTuple):
    """How systems of a structure are solved; its functions emit code."""

    fixed: fixed.Method
    """What reads and factors a matrix."""
    substitute: Callable[[Any, Any, int], None]
    """(column, t, n) overwrites a right-hand side with the factors of a tile, its rows in order."""
    order: Callable[[Any, Any], None]
    """(column, factors) puts the rows in that order."""


class Factors:
    """Factors in a tile, as vectors that are as wide as those of right-hand sides."""

    def __init__(self, t, together):
        self.t, self.together = t, together

    def __getitem__(self, place):
        x = self.t[place]
        both = [joined([numbers] * self.together) for numbers in (real_part(x), *imaginary(x))]
        return both[0] if len(both) == 1 else Pair(*both)


def imaginary(x):
    """The imaginary parts, if there are any."""
    return [x.imag] if isinstance(x, Pair) else []


def ordered(column, y, order):
    """The elements of a column in this order, by way of the tile y."""
    count, parts = y.lanes.count, range(y.parts)
    for i, value in column.items():
        for p, numbers in enumerate((real_part(value), *imaginary(value))):
            y.store((i * y.parts + p) * count, numbers, count)
    found = {}
    for i, row in enumerate(order):
        start = row * (y.parts * count)
        both = [y.load(start + p * count, count, count) for p in parts]
        found[i] = both[0] if len(both) == 1 else Pair(*both)
    return found


def copy(source, of_source, target, of_target, rows, columns, last):
    """Copy a matrix of these rows and columns, the last one again where there are no more.

    Each stands where its two strides say.
    """
    parts, loops = source.parts, source.builder
    with loop(loops, 0, columns) as j, loop(loops, 0, rows) as i:
        at = (of_source[0] * i + of_source[1] * j.at_most(last)) * parts
        target.store((of_target[0] * i + of_target[1] * j) * parts, source.load(at, parts))


class Side:
    """Right-hand sides or solutions: those of a matrix, or where they fill no vector, copies."""

    def __init__(self, array, start, spare, short):
        self.own, self.spare = array.beyond(start), Memory(array.builder, spare.data, array.lanes)
        data = array.builder.select(short.parts[0], self.spare.data, self.own.data)
        self.used = Memory(array.builder, data, array.lanes)


def sweeping(substitute, n, vectors):
    """The operation that solves with the factors in a tile, for vectors or for columns.

    Row i of the factors is row rows[i] of b.
    """

    @operation(lambda *_: types.boolean)
    def solve_all(t, rows, b, x, status, y, first, size):
        """Solve for the vectors first … first + size, or for the columns of system `first`.

        Returns whether any x is not finite; that of a vector has the status UNBOUNDED.
        """
        builder, count = t.builder, y.lanes.count
        align_stack(builder)
        factors = Factors(t, count // t.lanes.count)
        order = [integer(rows, i) for i in range(n)]
        short, last = size < count, size - 1
        start = first * n if vectors else size * (first * n)
        right, left = (Side(v, start, y.beginning(i * n, 0), short) for i, v in ((1, b), (2, x)))
        own, spare = ((1, n), (1, n)) if vectors else ((size, 1), (count, 1))
        with builder.if_then(short.value):
            copy(right.own, own, right.spare, spare, n, count, last)
        size = short.choose(count, size)
        lines, ordered_lines = ([size * row for row in some] for some in (range(n), order))
        zero = real_part(y.fill(0))
        total = Variable(zero)
        with loop(builder, 0, (size + (count - 1)) // count) as step:
            at = (step * count).at_most(size - count)  # the last ones may be solved twice
            starts = [(at + lane) * n for lane in range(count)]
            if vectors:
                column = ordered(dict(enumerate(deal(right.used, starts, n))), y, order)
            else:
                column = {
                    i: load(right.used, at + line, count) for i, line in enumerate(ordered_lines)
                }
            substitute(column, factors, n)
            check = zero
            for value in column.values():
                check = weigh(check, value)
            total.set(total.get() + check)
            if vectors:
                collect([column[i] for i in range(n)], left.used, starts)
                with builder.if_then(any_lane(check != zero).value):
                    record(status, at + first, last + first, zero, check)
            else:
                for i, line in enumerate(lines):
                    store(left.used, at + line, unsigned_zero(column[i]))
        with builder.if_then(short.value):
            copy(left.spare, spare, left.own, own, n, last + 1, last)
        return any_lane(total.get() != zero)

    return solve_all


def factoring(method, n):
    """The operation that leaves the factors of matrix m in all lanes of a tile; its flaw."""

    @operation(lambda a, m, t, rows: t.lanes.real.dtype)
    def factor(a, m, t, rows):
        align_stack(t.builder)
        flaw = magnitude(t.fill(0))
        in_registers = n <= method.fixed.in_registers
        elements = {} if in_registers else t
        matrices = fixed.Matrices(a, [m] * t.lanes.count, elements, n, m, m, True)
        method.fixed.read(matrices, lambda share: None)
        flaw, factors = method.fixed.factor(matrices, flaw, lambda column: None)
        if in_registers:
            for place, x in elements.items():
                t[place] = x
        order = {i: flaw.fill(i) for i in range(n)}
        method.order(order, factors)
        for i, row in order.items():
            rows.put([i], row)
        return flaw.lane(0)

    return factor


def together(n):
    """What makes tiles for as many registers of right-hand sides as are worked on at once.

    One fills what another waits for: columns of eight real numbers take half the time in the cache.
    Large complex ones gain nothing, and would take longer to compile.
    """
    return tiles_of(
        lambda dtype: (1 if isinstance(dtype, types.Complex) and n > 6 else 2) * width(dtype)
    )


def kernel(method, n, vectors=False):
    """The kernel of a method: a (P, n, n) with b (P Q, n, K), of which Q have each matrix.

    If `vectors`, K is 1, and Q right-hand sides share a matrix; else its columns do.
    """
    factor = factoring(method, n)
    solve_all = sweeping(method.substitute, n, vectors)
    wide_tile, _ = together(n)

    @part
    def reject(a, m, b, x, status, first, stop):
        given = finite_band(a[m], ALL, ALL, False)
        for s in range(first, stop):
            if status[s] != OK:
                status[s] = reject_system(b, x, s, status[s], given)

    def solve(a, b, x, status, rcond=None, backward_error=None):
        t, y, rows = (
            tile(n, n | 1, a.dtype, a),
            wide_tile(3 * n, 1, a.dtype, a),
            np.empty(n, np.int64),
        )
        each = len(b) // max(len(a), 1)
        for m in range(len(a)):
            verdict = int(factor(a, m, t, rows))
            for s in range(m * each, m * each + each):
                status[s] = verdict
            failed = verdict != OK
            if not failed and vectors:
                failed = solve_all(t, rows, b, x, status, y, m * each, each)
            elif not failed:
                for s in range(m * each, m * each + each):
                    if solve_all(t, rows, b, x, status, y, s, b.shape[2]):
                        status[s], failed = UNBOUNDED, True
            if failed:
                reject(a, m, b, x, status, m * each, m * each + each)

    return named(solve, f"{method.fixed.name}.{n}" + ".vectors" * vectors)
